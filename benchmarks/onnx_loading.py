"""How long ONNX Runtime takes to load a graph, by form and number of steps: ``python benchmarks/onnx_loading.py``."""

from __future__ import annotations

import argparse
import platform
import time

import numpy as np
import onnxruntime

from trm_edge.bundle import Bundle
from trm_edge.export import build_onnx
from trm_edge.spec import TrmSpec, identity_statistics

RUNS = 3
FORMS = (("unrolled", 1), ("unrolled", 4), ("unrolled", 16), ("unrolled", 32), ("onnx-loop", 1), ("step", 1))
SPEC = {"answer": "actions", "hidden_size": 32, "inner_size": 64, "num_heads": 4, "registers": 1, "answer_rows": 8}
SPEC |= {"dof": 4, "max_context": 8, "context_size": 8}


def random_bundle(l_cycles: int, h_cycles: int) -> Bundle:
    """Return a tiny head with random weights."""
    spec = TrmSpec.from_dict(SPEC | {"l_cycles": l_cycles, "h_cycles": h_cycles})
    rng = np.random.default_rng(0)
    tensors = {name: rng.normal(0, 0.1, shape).astype(np.float32) for name, shape in spec.tensor_shapes().items()}
    return Bundle(spec, tensors | identity_statistics(spec))


def seconds_to_load(graph: bytes) -> float:
    """Return the fewest seconds of ``RUNS`` loads."""
    taken = []
    for _ in range(RUNS):
        start = time.perf_counter()
        onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
        taken.append(time.perf_counter() - start)
    return min(taken)


def main() -> None:
    """Print a table."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    print(f"onnxruntime {onnxruntime.__version__}, {platform.machine()}, the fewest seconds of {RUNS} loads")
    for l_cycles, h_cycles in ((2, 1), (6, 3)):
        bundle = random_bundle(l_cycles, h_cycles)
        print(f"D={bundle.spec.hidden_size}, l_cycles={l_cycles}, h_cycles={h_cycles}")
        for loop, steps in FORMS:
            count = f", {steps} steps" if loop == "unrolled" else ""
            print(f"  {loop}{count}: {seconds_to_load(build_onnx(bundle, loop, steps).SerializeToString()):.2f} s")


if __name__ == "__main__":
    main()
