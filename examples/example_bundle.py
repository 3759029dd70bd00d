"""Write the bundle that ships with the package, ``trm_edge/data/example.trm``.

A small actions head with random weights (seed 0): it shows the format, the guarantees and the latency of a head of
this size. Its answers carry no meaning, as nothing trained it.

    python examples/example_bundle.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from trm_edge.bundle import Bundle, write_bundle
from trm_edge.golden import random_inputs, record_golden
from trm_edge.spec import TrmSpec, identity_statistics

TARGET = Path(__file__).parent.parent / "trm_edge" / "data" / "example.trm"

SPEC = TrmSpec(
    answer="actions",
    hidden_size=64,
    num_heads=4,
    inner_size=192,
    positions="rope",
    l_cycles=2,
    h_cycles=1,
    registers=1,
    answer_rows=8,
    dof=4,
    max_context=15,
    context_size=32,
)


def main() -> None:
    """Draw the weights, record two golden cases, write the file."""
    rng = np.random.default_rng(0)
    tensors = identity_statistics(SPEC)
    for name, shape in SPEC.tensor_shapes().items():
        if name in tensors:
            continue
        scale = 0.3 if name.endswith(("attention.out.weight", "mlp.down.weight", "answer_decoder.weight")) else 1.0
        fan_in = shape[-1] if name.endswith(".weight") else 1
        tensors[name] = (scale * rng.standard_normal(shape) / np.sqrt(fan_in)).astype(np.float32)
    tensors["halt_head.bias"][:] = -5
    tensors["limits.lower"][:] = -1
    tensors["limits.upper"][:] = 1
    tensors["limits.velocity"][:] = 0.5
    calls = [random_inputs(SPEC, rng), random_inputs(SPEC, rng, context_rows=3)]
    provenance = {"source": "examples/example_bundle.py", "weights": "random, seed 0: the answers carry no meaning"}
    write_bundle(TARGET, Bundle(SPEC, tensors, record_golden(SPEC, tensors, calls), provenance))
    print(f"{TARGET.name}: {TARGET.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
