"""What a resolved call costs, by parts, on one core: compile, candidates, features, engine, decode.

    taskset -c 0 python benchmarks/function_call/latency.py                          the shipped head, fp32 and int8
    taskset -c 0 python benchmarks/function_call/latency.py --head fold0.trm --calls 400
    taskset -c 0 python benchmarks/function_call/latency.py --hidden 128 --candidates 2048   a head of random weights

Queries of BFCL that have at most 64 words and 12 slots, without a draft, each once after a warm-up on others: what a
call keeps from the one before (vectors of words) helps, what it would keep from itself does not. ``compile`` is paid
once per tool: its schema, and all that is worked out of its texts. A call with more candidates than a head takes at
once (``--candidates`` sets that) is asked in parts. Needs pip install --no-deps bfcl-eval.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from function_call.bfcl import SETS, Example, examples
from trm_edge.bundle import Bundle, bundle_bytes, read_bundle
from trm_edge.files import write_atomically
from trm_edge.json_slots import JsonSlots, Resolver, SchemaError
from trm_edge.profiling.machine import machine_facts
from trm_edge.refiner import load
from trm_edge.spec import identity_statistics

SHIPPED = Path(__file__).resolve().parents[2] / "trm_edge" / "data" / "home_assistant.trm"
PARTS = ("compile", "candidates", "features", "engine", "decode")
WORDS, SLOTS, WARM_UP = 64, 12, 50


def short_calls(count: int) -> Iterator[Example]:
    """Yield examples in turn from every set."""
    found = 0
    for group in zip(*(examples(name) for name in SETS), strict=False):
        for example in group:
            if found < count and len(example.query.split()) <= WORDS and _slots(example) is not None:
                found += 1
                yield example


def _slots(example: Example) -> JsonSlots | None:
    try:
        made = JsonSlots(example.tool)
    except SchemaError:
        return None
    return made if len(made.bind(example.query).slots) <= SLOTS else None


def measure(resolver: Resolver, example: Example) -> list[float]:
    """Return the seconds of each part of one call."""
    clock = [time.perf_counter()]

    def lap() -> None:
        clock.append(time.perf_counter())

    slots = resolver.compile(example.tool)
    lap()
    inputs = slots.bind(example.query)
    lap()
    inputs = inputs.with_features(resolver.featurizer)
    lap()
    chosen = resolver.choose(inputs)
    lap()
    inputs.decode(chosen.y[-1], chosen.logits[-1])
    lap()
    return np.diff(clock).tolist()


def head_of(arguments: argparse.Namespace) -> bytes:
    """Return the head, or one of another size, whose answers mean nothing and whose times do."""
    bundle = read_bundle(arguments.head)
    spec, tensors = bundle.spec, bundle.tensors
    if arguments.candidates:
        spec = replace(spec, max_candidates=arguments.candidates)
    if arguments.hidden:
        size = arguments.hidden
        spec = replace(spec, hidden_size=size, inner_size=3 * size, num_heads=max(size // 16, 1), max_context=WORDS)
        rng = np.random.default_rng(0)
        drawn = {name: rng.normal(0, 0.05, shape).astype(np.float32) for name, shape in spec.tensor_shapes().items()}
        tensors = drawn | identity_statistics(spec)
    return bundle_bytes(Bundle(spec, tensors))


def main() -> None:
    """Print milliseconds by part and precision."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--head", type=Path, default=SHIPPED)
    parser.add_argument("--hidden", type=int, help="draw the weights of a head of this D, with 64 context tokens")
    parser.add_argument("--candidates", type=int, help="most candidates that the head takes at once")
    parser.add_argument("--calls", type=int, default=600)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--json", type=Path, help="report to write")
    arguments = parser.parse_args()
    found = list(short_calls(arguments.calls + WARM_UP))
    report: dict[str, Any] = {"head": arguments.head.name, "steps": arguments.steps, "machine": machine_facts()}
    report |= {"hidden": arguments.hidden, "candidates": arguments.candidates}
    print(f"{len(found) - WARM_UP} calls, K = {arguments.steps}; milliseconds, p50 / p99")
    print(f"{'':8}" + "".join(f"{part:>18}" for part in (*PARTS, "without compile", "first call")))
    for precision in ("fp32", "int8"):
        resolver = Resolver(load(head_of(arguments), precision=precision), steps=arguments.steps)
        times = 1e3 * np.array([measure(resolver, example) for example in found])[WARM_UP:]
        columns = {part: times[:, i] for i, part in enumerate(PARTS)}
        columns |= {"without compile": times[:, 1:].sum(axis=1), "first call": times.sum(axis=1)}
        report[precision] = {part: np.percentile(values, [50, 99]).tolist() for part, values in columns.items()}
        print(f"{precision:8}" + "".join(f"{'{:.2f} / {:.2f}'.format(*v):>18}" for v in report[precision].values()))
    if arguments.json is not None:
        write_atomically(arguments.json, (json.dumps(report, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
