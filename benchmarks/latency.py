"""Latency of one refinement: the fused engine against ONNX Runtime, float32, one thread, same answers.

    python benchmarks/latency.py                                  D=512 H=8 I=1536, L = 16 and 32, K = 4 steps
    python benchmarks/latency.py --hidden 128 --heads 4 --inner 384 --rows 16 24 76

Every backend's answer is checked against the float64 oracle before it is timed. Calls are interleaved in one process
that is pinned to one core; the table shows the median, p99 and maximum, and the ratio of medians. ONNX Runtime runs the
unrolled graph, its fastest form, with all of its graph optimisations.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime

import trm_edge
from trm_edge.bundle import Bundle, bundle_bytes
from trm_edge.export.onnx_graph import build_onnx
from trm_edge.golden import random_inputs, relative_error, run_reference
from trm_edge.inputs import check_inputs
from trm_edge.reference import ReferenceModel
from trm_edge.spec import TrmSpec, identity_statistics


def make_bundle(arguments: argparse.Namespace, rows: int) -> Bundle:
    """Return an actions head of L = ``rows`` with random weights and gentle residual branches."""
    mlp_t = arguments.mixer == "mlp_t"
    spec = TrmSpec(
        answer="actions",
        hidden_size=arguments.hidden,
        inner_size=arguments.inner,
        mixer=arguments.mixer,
        num_heads=0 if mlp_t else arguments.heads,
        token_inner_size=arguments.token_inner if mlp_t else 0,
        positions="none" if mlp_t else "rope",
        l_cycles=2,
        h_cycles=1,
        registers=1,
        answer_rows=8,
        dof=7,
        max_context=rows - 9,
        context_size=64,
    )
    rng = np.random.default_rng(0)
    tensors: dict[str, Any] = identity_statistics(spec)
    for name, shape in spec.tensor_shapes().items():
        if name not in tensors:
            scale = 0.3 if name.endswith(("out.weight", "down.weight")) else 1.0
            fan_in = shape[-1] if name.endswith(".weight") else 1
            tensors[name] = (scale * rng.standard_normal(shape) / np.sqrt(fan_in)).astype(np.float32)
    return Bundle(spec, tensors)


def checked_runs(bundle: Bundle, steps: int) -> dict[str, Callable[[], Any]]:
    """Return a call for each backend, after comparing its last step with the oracle's."""
    call = random_inputs(bundle.spec, np.random.default_rng(1))
    truth = run_reference(ReferenceModel(bundle.spec, bundle.tensors), check_inputs(bundle.spec, **call), steps)[-1].y
    graph = build_onnx(bundle, loop="unrolled", steps=steps).SerializeToString()
    refiners = {
        "fused": trm_edge.load(bundle_bytes(bundle)),
        "onnxruntime": trm_edge.load(graph, backend="onnxruntime"),
    }
    for name, refiner in refiners.items():
        answer = refiner.refine(**call, steps=steps, trajectory=True).trajectory
        error = relative_error(answer[-1], truth)
        print(f"  {name:<12} error against float64 {error:.1e}")
        if not error <= 1e-5:
            raise SystemExit(f"{name} gives another answer: it is not timed")
    return {name: lambda refiner=refiner: refiner.refine(**call, steps=steps) for name, refiner in refiners.items()}


def time_interleaved(runs: dict[str, Callable[[], Any]], seconds: float) -> dict[str, list[float]]:
    """Call the runs in turn for ``seconds`` and return the times of each in microseconds."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(3):
        for run in runs.values():
            run()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            times[name].append((time.perf_counter() - start) * 1e6)
    return times


def main() -> None:
    """Print one table per L."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hidden", type=int, default=512, help="D")
    parser.add_argument("--heads", type=int, default=8, help="H")
    parser.add_argument("--inner", type=int, default=1536, help="I")
    parser.add_argument("--mixer", choices=("attention", "mlp_t"), default="attention")
    parser.add_argument("--token-inner", type=int, default=256, help="inner width of the token mixing (mlp_t)")
    parser.add_argument("--rows", type=int, nargs="+", default=[16, 32], help="L, at least 10")
    parser.add_argument("--steps", type=int, default=4, help="K; a step is 3 evaluations of net")
    parser.add_argument("--seconds", type=float, default=10.0, help="time to measure, per L")
    parser.add_argument("--cpu", type=int, default=None, help="core to pin to (default: the last one)")
    arguments = parser.parse_args()
    cpu = arguments.cpu if arguments.cpu is not None else max(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cpu})
    print(f"{platform.machine()}, core {cpu}, trm_edge {trm_edge.__version__}, onnxruntime {onnxruntime.__version__}")
    for rows in arguments.rows:
        print(f"D={arguments.hidden} I={arguments.inner} {arguments.mixer} L={rows} K={arguments.steps}")
        times = time_interleaved(checked_runs(make_bundle(arguments, rows), arguments.steps), arguments.seconds)
        for name, values in times.items():
            p50, p99 = np.percentile(values, [50, 99])
            print(
                f"  {name:<12} p50 {p50:10.1f} us   p99 {p99:10.1f} us   max {max(values):10.1f} us   n={len(values)}"
            )
        print(
            f"  ratio of medians onnxruntime / fused: {np.median(times['onnxruntime']) / np.median(times['fused']):.2f}"
        )


if __name__ == "__main__":
    main()
