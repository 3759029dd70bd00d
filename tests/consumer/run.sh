#!/usr/bin/env bash
# Install the C library into a prefix of its own, build projects that find it there, run them. usage: run.sh WORKDIR
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
work=$1
targets=${TRM_EDGE_CUDA_TARGETS:-86}  # one is enough to see that it links
build="$root/build/consumer"  # as deep as other builds, whose objects ccache then knows
cmake -S "$root" -B "$build" -G Ninja -DTRM_EDGE_CUDA_TARGETS="$targets" > /dev/null
cmake --build "$build"
cmake --install "$build" --prefix "$work/prefix" > /dev/null
cmake -S "$root/tests/consumer" -B "$work/consumer" -G Ninja -DCMAKE_PREFIX_PATH="$work/prefix" > /dev/null
cmake --build "$work/consumer"
"$work/consumer/consumer_c" "$root/trm_edge/data/example.trm"
"$work/consumer/consumer_cc"
# By the Makefile's way: pkg-config says where the library is, wherever the prefix was moved.
if command -v pkg-config > /dev/null; then
  mv "$work/prefix" "$work/moved"
  flags=$(PKG_CONFIG_PATH=$(dirname "$(find "$work/moved" -name trm_edge.pc)") pkg-config --cflags --libs trm_edge)
  # shellcheck disable=SC2086
  cc "$root/tests/consumer/consumer.c" $flags -lm -o "$work/by_pkg_config"
  LD_LIBRARY_PATH=$(dirname "$(find "$work/moved" -name libtrm_edge.so)") "$work/by_pkg_config" "$root/trm_edge/data/example.trm"
  mv "$work/moved" "$work/prefix"
fi
# As part of another project, whose flags would make it wrong: it takes them back, and reproduces its golden vectors.
cmake -S "$root/tests/consumer/subproject" -B "$root/build/subproject" -G Ninja -DCMAKE_CXX_FLAGS=-ffast-math > /dev/null
cmake --build "$root/build/subproject"
"$root/build/subproject/subproject" "$root/trm_edge/data/example.trm"
cmake --install "$root/build/subproject" --prefix "$work/static" > /dev/null
cmake -S "$root/tests/consumer" -B "$work/static_consumer" -G Ninja -DCMAKE_PREFIX_PATH="$work/static" > /dev/null
cmake --build "$work/static_consumer"
"$work/static_consumer/consumer_c" "$root/trm_edge/data/example.trm"
cmake -S "$root/examples/control_loop" -B "$work/loop" -G Ninja -DCMAKE_PREFIX_PATH="$work/prefix" \
  -DCMAKE_CXX_FLAGS=-Werror > /dev/null
cmake --build "$work/loop"
loop="$work/loop/control_loop" head="$root/trm_edge/data/example.trm"
"$loop" --help | grep -q '^usage: '
# What is sent: the answer where the head is on, the draft inside the limits where it only watches, and never more than
# the limits allow.
for mode in on shadow off; do
  "$loop" "$head" --hz 100 --seconds 1 --mode "$mode" --record "$work/$mode.csv"
done
python3 - "$work" << 'EOF'
import csv, itertools, sys
for mode in ("on", "shadow", "off"):
    rows = list(csv.DictReader(open(f"{sys.argv[1]}/{mode}.csv")))
    assert len(rows) > 20 and {row["mode"] for row in rows} == {mode}
    sent, refined = ([[row[f"{name}_{i}"] for i in range(4)] for row in rows] for name in ("sent", "refined"))
    planned = [k for k, row in enumerate(rows) if row["held"] == "0"]
    assert len(planned) > 20
    if mode == "off":
        assert all(values == ["nan"] * 4 for values in refined)
    else:
        assert all("nan" not in refined[k] for k in planned)
        assert {sent[k] == refined[k] for k in planned} == {mode == "on"}
    actions = [[float(value) for value in values] for values in sent]
    assert all(abs(value) <= 1 for action in actions for value in action)  # the limits of example.trm
    assert all(abs(a - b) <= 0.5 for pair in itertools.pairwise(actions) for a, b in zip(*pair))
EOF
# A path that cannot be written is found before anything moves.
mkdir "$work/folder.csv"
code=0 && "$loop" "$head" --hz 100 --seconds 9 --record "$work/folder.csv" 2> "$work/folder.txt" || code=$?
[ $code = 2 ] && grep -q 'not a file' "$work/folder.txt"
"$loop" "$head" --hz 100 --seconds 0.5 | grep ', mode shadow at the end'
# Stopped for a while, it skips the ticks that have passed; a signal takes the head out however often it comes.
"$loop" "$head" --hz 100 --seconds 3 --mode on --record "$work/loop.csv" > "$work/loop.txt" &
sleep 0.5 && kill -STOP $! && sleep 0.5 && kill -CONT $!
sleep 0.2 && kill -USR1 $! && sleep 0.2 && kill -USR1 $! && sleep 0.2 && kill -USR2 $!
wait $!
cat "$work/loop.txt"
grep -q ', mode on at the end' "$work/loop.txt"
python3 - "$work/loop.csv" << 'EOF'
import csv, itertools, sys
rows = list(csv.DictReader(open(sys.argv[1])))
ticks = [int(row["tick"]) for row in rows]
gaps = [after - before for before, after in itertools.pairwise(ticks)]
assert min(gaps) >= 1 and 40 <= max(gaps) <= 100 and ticks[-1] <= 299, (gaps, ticks[-1])
assert [mode for mode, _ in itertools.groupby(row["mode"] for row in rows)] == ["on", "off", "on"]
EOF
# Ended by a signal, it writes its record, and until then an older one stays.
for signal in TERM HUP; do
  echo yesterday > "$work/ended.csv"
  env --default-signal=HUP "$loop" "$head" --hz 100 --seconds 60 --record "$work/ended.csv" > "$work/ended.txt" &
  until [ -e "$work/ended.csv.part" ]; do sleep 0.05; done
  sleep 1
  grep -q yesterday "$work/ended.csv"
  kill -$signal $!
  wait $!
  [ "$(wc -l < "$work/ended.csv")" -gt 20 ]
  [ ! -e "$work/ended.csv.part" ]
done
# Without a policy it holds the last action, and says so.
code=0 && "$loop" "$head" --hz 100 --seconds 1 --policy-seconds 0.3 --record "$work/held.csv" > "$work/held.txt" || code=$?
cat "$work/held.txt"
[ $code = 1 ] && grep -q '^held in .*; the policy is gone' "$work/held.txt"
[ "$(tail -n 9 "$work/held.csv" | cut -d, -f 2,3,8-11 | sort -u | wc -l)" = 1 ] && tail -n 1 "$work/held.csv" | grep -q ',shadow,1,'
