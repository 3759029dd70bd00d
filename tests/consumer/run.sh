#!/usr/bin/env bash
# Install the C library into a prefix of its own, build a project that finds it there, run it. usage: run.sh WORKDIR
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
