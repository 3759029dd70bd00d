"""Backend ``cuda`` on the GPU at hand, against the same recursion in PyTorch: device time and time of a whole call.

    nvcc -std=c++17 -O3 -arch=native -Icsrc benchmarks/gpu_floor.cu -o gpu_floor && ./gpu_floor > floor.json
    python benchmarks/gpu.py --floor floor.json [--rows 16,32] [--json FILE] [--peers eager,graph,compiled,jax]

Every way is checked against the float64 oracle before it is timed. Official sizes (D=512, H=8, I=1536), bf16 (backend
``cuda`` also in others: ``--precision bf16,fp16,w8a16``), batch 1. *device* is the time from the first kernel of a call
to the end of its last one, as CUPTI records it, one way after another; *call* the wall clock around a call from host
memory to host memory, ways interleaved in rounds. Both are medians over the calls of one process.
PyTorch's ways hold everything in bfloat16 on the device: a CUDA graph of the whole recursion of eager kernels, or of
``torch.compile(mode="max-autotune-no-cudagraphs")``; their *call* has no copies from and to the host in it, and that of
*on device*, backend ``cuda`` on arrays of PyTorch's, has none either. It is encoders and decoders as well, which
PyTorch's ways are not. ``jax`` (pip install 'jax[cuda13]' onnx) is one program of XLA's of the recursion alone, on
arrays that are on the device.

*floor* is what the fused kernel's schedule costs if nothing else does: a grid barrier a phase, its weights once from
DRAM or L2, the rows that every CTA reads in every phase from L2, at the latency and bandwidth that ``gpu_floor``
measures. *handoff* is the same with a word that every CTA hands to every other one in place of the barrier, which is
how the kernel does it.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "python"))

from models import make_spec, random_weights

import trm_edge
from trm_edge.bundle import Bundle, bundle_bytes
from trm_edge.golden import random_inputs, relative_error, run_reference
from trm_edge.inputs import check_inputs
from trm_edge.reference import ReferenceModel

OWN = ("fused", "phases", "plain")
TOLERANCE = 0.1  # of the largest value after all steps: bf16 recursions part from float64 by about 0.03


@dataclass
class Way:
    """One way to run the recursion: ``call`` runs it once and waits, ``answer`` is what its steps gave."""

    name: str
    call: Callable[[], Any]
    error: float


def problem(rows: int, l_cycles: int, h_cycles: int) -> Bundle:
    """Return a head of the official sizes with ``rows`` rows in all: 1 register, 7 actions, the rest context."""
    spec = make_spec(
        "actions",
        **{"hidden_size": 512, "num_heads": 8, "inner_size": 1536, "l_cycles": l_cycles, "h_cycles": h_cycles},
        **{"registers": 1, "answer_rows": 7, "max_context": rows - 8, "context_size": 64 * (rows > 8), "dof": 7},
    )
    return Bundle(spec, random_weights(spec))


def own_way(
    name: str, precision: str, bundle: Bundle, call: dict[str, Any], steps: int, truth: list[np.ndarray]
) -> Way:
    """Open ``bundle`` in one of backend ``cuda``'s ways; one that is not in bf16 says so in its name."""
    os.environ["TRM_EDGE_CUDA_WAY"] = name
    refiner = trm_edge.load(bundle_bytes(bundle), backend="cuda", precision=precision)
    del os.environ["TRM_EDGE_CUDA_WAY"]
    out = refiner.refine(**call, steps=steps, trajectory=True)
    assert out.trajectory is not None
    error = max(relative_error(a, b) for a, b in zip(out.trajectory, truth, strict=True))
    shown = name if precision == "bf16" else f"{name} {precision}"
    return Way(shown, lambda: refiner.refine(**call, steps=steps), error)


def on_device_way(bundle: Bundle, call: dict[str, Any], steps: int, truth: list[np.ndarray]) -> Way:
    """Open ``bundle`` for arrays that are PyTorch's, on the device, and stay there, on a stream of PyTorch's."""
    import torch

    refiner = trm_edge.load(bundle_bytes(bundle), backend="cuda", precision="bf16")
    arrays = {name: torch.tensor(value, device="cuda") for name, value in call.items()}
    out, stream = torch.empty(call["y0"].shape, device="cuda"), torch.cuda.Stream()

    def call_once() -> None:
        refiner.refine_on_device(**arrays, steps=steps, out=out, stream=stream)
        stream.synchronize()

    found = refiner.refine_on_device(**arrays, steps=steps, trajectory=True).wait().trajectory
    assert found is not None
    return Way("on device", call_once, max(relative_error(a, b) for a, b in zip(found, truth, strict=True)))


def error_of(bundle: Bundle, call: dict[str, Any], found: Sequence[np.ndarray], truth: list[np.ndarray]) -> float:
    """Return the largest relative error of the answers that states ``y`` [L, D] decode to, one a step."""
    rows = slice(bundle.spec.registers, bundle.spec.registers + bundle.spec.answer_rows)
    std, decoder = bundle.tensors["normalization.y0.std"], bundle.tensors["answer_decoder.weight"]
    answers = [call["y0"] + std * (y[rows] @ decoder.T) for y in found]
    return max(relative_error(a, b) for a, b in zip(answers, truth, strict=True))


def jax_way(bundle: Bundle, call: dict[str, Any], steps: int, truth: list[np.ndarray]) -> Way:
    """Compile the same recursion with XLA, all steps as one program, on arrays that are on the device already."""
    import jax
    import jax.numpy as jnp
    from peers.common import Problem
    from peers.jax_peer import step_of

    step = step_of(Problem(bundle, steps, [call]), jnp.bfloat16)
    carry = ReferenceModel(bundle.spec, bundle.tensors).begin(check_inputs(bundle.spec, **call))
    rows = [jax.device_put(jnp.asarray(row, jnp.bfloat16)) for row in (carry.e, carry.y, carry.z)]

    def recursion(e: Any, y: Any, z: Any) -> list[Any]:
        found = []
        for _ in range(steps):
            y, z = step(e, y, z)
            found.append(y)
        return found

    compiled = jax.jit(recursion).lower(*rows).compile()
    found = [np.asarray(y.astype(jnp.float32), np.float64) for y in compiled(*rows)]
    return Way("jax.jit", lambda: jax.block_until_ready(compiled(*rows)), error_of(bundle, call, found, truth))


def torch_ways(
    bundle: Bundle, call: dict[str, Any], steps: int, truth: list[np.ndarray], which: Sequence[str]
) -> list[Way]:
    """Run the same recursion in PyTorch, on tensors that are on the device already."""
    import torch

    spec, held = bundle.spec, torch.bfloat16
    w = {k: torch.tensor(v, device="cuda", dtype=held) for k, v in bundle.tensors.items()}
    oracle = ReferenceModel(spec, bundle.tensors)
    carry = oracle.begin(check_inputs(spec, **call))
    e, y0, z0 = (torch.tensor(v, device="cuda", dtype=held) for v in (carry.e, carry.y, carry.z))
    half, heads = spec.head_size // 2, spec.num_heads
    positions = np.asarray(spec.row_positions(spec.answer_rows, len(call["x"])), np.float64)
    angle = np.outer(positions, spec.rope_theta ** (-np.arange(half) / half))
    cos, sin = (torch.tensor(f(angle), device="cuda", dtype=held) for f in (np.cos, np.sin))

    def norm(h: Any) -> Any:
        return torch.nn.functional.rms_norm(h, (spec.hidden_size,), eps=spec.norm_eps)

    def turn(t: Any) -> Any:
        a, b = t[..., :half], t[..., half:]
        return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)

    def net(h: Any) -> Any:
        for i in range(spec.num_layers):
            name = f"blocks.{i}."
            qkv = (h @ w[name + "attention.qkv.weight"].T).view(len(h), 3, heads, -1).permute(1, 2, 0, 3)
            mixed = torch.nn.functional.scaled_dot_product_attention(
                turn(qkv[0])[None], turn(qkv[1])[None], qkv[2][None]
            )
            h = norm(h + mixed[0].transpose(0, 1).reshape(h.shape) @ w[name + "attention.out.weight"].T)
            gate, up = (h @ w[name + "mlp.gate_up.weight"].T).chunk(2, -1)
            h = norm(h + (torch.nn.functional.silu(gate) * up) @ w[name + "mlp.down.weight"].T)
        return h

    def recursion(net: Callable[[Any], Any]) -> list[Any]:
        y, z, found = y0, z0, []
        for _ in range(steps):
            for _ in range(spec.h_cycles):
                for _ in range(spec.l_cycles):
                    z = net(z + (y + e))
                y = net(y + z)
            found.append(y)
        return found

    def error(found: list[Any]) -> float:
        return error_of(bundle, call, [y.double().cpu().numpy() for y in found], truth)

    def captured(name: str, net: Callable[[Any], Any]) -> Way:
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                recursion(net)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            found = recursion(net)

        def call_once() -> None:
            graph.replay()
            torch.cuda.synchronize()

        call_once()
        return Way(name, call_once, error(found))

    ways = []
    with torch.inference_mode():
        if "eager" in which:

            def eager() -> list[Any]:
                with torch.inference_mode():
                    found = recursion(net)
                torch.cuda.synchronize()
                return found

            ways.append(Way("torch eager", eager, error(eager())))
        if "graph" in which:
            ways.append(captured("torch eager in a CUDA graph", net))
        if "compiled" in which:
            compiled = torch.compile(net, mode="max-autotune-no-cudagraphs", dynamic=False)
            ways.append(captured("torch.compile in a CUDA graph", compiled))
    return ways


def device_us(way: Way, calls: int) -> float:
    """Return the median time from a call's first kernel to the end of its last one."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        for _ in range(calls):
            way.call()
    kernels = sorted(
        (event.time_range.start, event.time_range.end)
        for event in profiler.events()
        if "cuda" in str(event.device_type).lower() and "Memset" not in event.name
    )
    each = len(kernels) // calls
    spans = [kernels[i + each - 1][1] - kernels[i][0] for i in range(0, each * calls, each)]
    return float(np.median(spans))


def measure(ways: Sequence[Way], rounds: int, calls: int) -> dict[str, dict[str, float]]:
    """Time all ways in rounds."""
    wall: dict[str, list[float]] = {way.name: [] for way in ways}
    for _ in range(rounds):
        for way in ways:
            for _ in range(5):
                way.call()
            for _ in range(calls):
                start = time.perf_counter()
                way.call()
                wall[way.name].append((time.perf_counter() - start) * 1e6)
    return {
        way.name: {
            "device_us": round(device_us(way, calls), 1),
            "call_us": round(float(np.median(wall[way.name])), 1),
            "call_p99_us": round(float(np.percentile(wall[way.name], 99)), 1),
            "error": round(way.error, 4),
        }
        for way in ways
    }


def floor_us(rows: int, evaluations: int, measured: dict[str, Any], between: str) -> float:
    """Return the least time [us] of the fused kernel's schedule with two layers of the official sizes.

    Between phases is what ``measured`` has under ``between``: "barrier_us" or "handoff_us".
    """
    D, inner, blocks = 512, 1536, 2 * evaluations
    ctas = max(map(int, measured["barrier_us"]))
    tiles = D // 8 * -(-rows // 16)  # a CTA each in narrow phases, as far as there are enough
    wide = ctas * rows * D * 4  # bytes: all CTAs read all rows, in float32
    attention, down = tiles * (16 + 2 * rows) * D * 2, tiles * 16 * inner * 2
    weights = 2 * (4 * D * D + 3 * D * inner) * 2
    read = (blocks * (2 * wide + attention + down) + weights) / (measured["read_gb_s"] * 1e3)
    return float(round((1 + 4 * blocks) * measured[between][str(ctas)] + read, 1))


def main() -> int:
    """Measure, print a table, and write it where asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default="16,32")
    parser.add_argument("--cycles", default="2x1x4", help="l_cycles x h_cycles x steps; several: a,b")
    parser.add_argument("--own", default="fused,phases,plain", help="ways of backend cuda")
    parser.add_argument("--precision", default="bf16", help="of those ways: bf16, fp16, w8a16; several: a,b")
    parser.add_argument("--peers", default="eager,graph,compiled", help="of eager, graph, compiled, jax; empty: none")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--calls", type=int, default=100)
    parser.add_argument("--floor", type=Path, help="what gpu_floor printed here")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    report = []
    for cycles in arguments.cycles.split(","):
        l_cycles, h_cycles, steps = map(int, cycles.split("x"))
        for rows in map(int, arguments.rows.split(",")):
            bundle = problem(rows, l_cycles, h_cycles)
            call = random_inputs(bundle.spec, np.random.default_rng(rows))
            oracle, inputs = ReferenceModel(bundle.spec, bundle.tensors), check_inputs(bundle.spec, **call)
            truth = [out.y for out in run_reference(oracle, inputs, steps)]
            ways = [
                own_way(name, precision, bundle, call, steps, truth)
                for precision in arguments.precision.split(",")
                for name in arguments.own.split(",")
            ]
            ways += [on_device_way(bundle, call, steps, truth)]
            peers = arguments.peers.split(",")
            if arguments.peers:
                ways += torch_ways(bundle, call, steps, truth, peers)
            if "jax" in peers:
                ways.append(jax_way(bundle, call, steps, truth))
            wrong = [way for way in ways if not way.error <= TOLERANCE]
            for way in wrong:
                print(f"{way.name}: not timed, its answer is {way.error:.3f} off")
            timed = measure([way for way in ways if way.error <= TOLERANCE], arguments.rounds, arguments.calls)
            evaluations = steps * h_cycles * (l_cycles + 1)
            least: dict[str, float] = {}
            if arguments.floor:
                measured = json.loads(arguments.floor.read_text())
                least = {of: floor_us(rows, evaluations, measured, of) for of in ("barrier_us", "handoff_us")}
            print(f"L={rows}, {evaluations} evaluations ({cycles}), floor {least.get('barrier_us')} us", end="")
            print(f", handoff {least.get('handoff_us')} us")
            for name, row in timed.items():
                times = "  ".join(f"{key.removesuffix('_us')} {value:8.1f}" for key, value in list(row.items())[:3])
                print(f"  {name:30}  {times}  error {row['error']}", flush=True)
            report.append(
                {"rows": rows, "evaluations": evaluations, "cycles": cycles, "floor_us": least, "ways": timed}
            )
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
