#!/usr/bin/env bash
# Build the sdist and from it the wheel, check its size and contents, install it into a clean environment, and use it
# outside the checkout. usage: run.sh WORKDIR
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
work=$1
mkdir -p "$work"
python3 -m build --outdir "$work/dist" "$root" > "$work/build.log" 2>&1 || { cat "$work/build.log"; exit 1; }
wheel=$(ls "$work"/dist/*.whl)
size=$(stat -c %s "$wheel")
echo "$(basename "$wheel"): $size bytes"
limit=5  # MB; code of GPUs takes half a megabyte a target (10.6 MB with all ten)
if command -v nvcc > /dev/null; then limit=$([ -n "${TRM_EDGE_CUDA_TARGETS:-}" ] && echo 8 || echo 12); fi
[ "$size" -lt $((limit * 1024 * 1024)) ] || { echo "the wheel is larger than $limit MB"; exit 1; }
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q "$wheel"
cd "$work"
"$work/venv/bin/python" "$root/tests/packaging/check_installed.py" "$root"
"$work/venv/bin/trm-edge" verify > verify.txt || { cat verify.txt; exit 1; }
tail -n 1 verify.txt
"$work/venv/bin/trm-edge" refine --repeat 50
"$work/venv/bin/trm-edge" demo > demo.txt || { cat demo.txt; exit 1; }
grep -A5 "what each step adds" demo.txt
