#!/usr/bin/env bash
# Install the C library into a prefix of its own, build projects that find it there, run them. usage: run.sh WORKDIR
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
work=$1
cmake -S "$root" -B "$work/build" -G Ninja -DTRM_EDGE_CUDA_TARGETS=86 > /dev/null  # one is enough to see that it links
cmake --build "$work/build"
cmake --install "$work/build" --prefix "$work/prefix" > /dev/null
cmake -S "$root/tests/consumer" -B "$work/consumer" -G Ninja -DCMAKE_PREFIX_PATH="$work/prefix" > /dev/null
cmake --build "$work/consumer"
"$work/consumer/consumer_c" "$root/trm_edge/data/example.trm"
"$work/consumer/consumer_cc"
cmake -S "$root/examples/control_loop" -B "$work/loop" -G Ninja -DCMAKE_PREFIX_PATH="$work/prefix" \
  -DCMAKE_CXX_FLAGS=-Werror > /dev/null
cmake --build "$work/loop"
for mode in on shadow off; do
  "$work/loop/control_loop" "$root/trm_edge/data/example.trm" --hz 100 --seconds 0.5 --mode "$mode"
done
