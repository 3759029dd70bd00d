"""Work of a refinement, and the machine's peaks, measured in the same run.

The share of the roofline is ``FLOPs of matrices and attention / (time * measured register peak of that precision)``.
The register peak is what the multiply-add loop of the engine's instruction set reaches when everything stays in
registers; no kernel can be faster.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from .._native import PRECISIONS, core
from ..spec import TrmSpec

WEIGHT_BYTES = {"fp64": 8, "fp32": 4, "bf16": 2, "fp16": 2, "w8a16": 1, "int8": 1}


@dataclass(frozen=True)
class Work:
    """Operations of one call, and bytes of weights that it reads once per evaluation of ``net``."""

    rows: int
    evaluations: int
    dense_flop: float
    attention_flop: float
    weights: int  # of the blocks

    @classmethod
    def of(cls, spec: TrmSpec, rows: int, steps: int) -> Work:
        """Count the work of ``steps`` steps on ``rows`` rows; encoders and decoders are left out.

        A matrix ``[out, in]`` costs ``2 * out * in`` a row; in token mixing the channels are the rows. Attention is
        scores and mixing, ``2 * L * L * D`` each.
        """
        evaluations = steps * spec.h_cycles * (spec.l_cycles + 1)
        weights = dense = 0
        for name, shape in spec.tensor_shapes().items():
            if name.startswith("blocks."):
                size = shape[0] * shape[1]
                weights += size
                dense += 2 * size * (spec.hidden_size if ".token_mixer." in name else rows)
        attention = 4 * rows * rows * spec.hidden_size * spec.num_layers if spec.mixer == "attention" else 0
        return cls(rows, evaluations, float(evaluations * dense), float(evaluations * attention), weights)

    @property
    def flop(self) -> float:
        """Operations of matrices and attention."""
        return self.dense_flop + self.attention_flop

    def weight_bytes(self, precision: str) -> int:
        """Bytes of the blocks' weights in ``precision``."""
        return self.weights * WEIGHT_BYTES.get(precision, 4)

    def facts(
        self, time_us: float, precision: str, threads: int, peak: float | None, bytes_per_s: float | None
    ) -> dict[str, Any]:
        """Place a call of ``time_us`` under the roofline; ``peak`` is of one core, in FLOP/s, None if not measured."""
        seconds = time_us / 1e6
        streamed = self.weight_bytes(precision) * self.evaluations
        return {
            **asdict(self),
            "flop": self.flop,
            "gflops": self.flop / seconds / 1e9,
            "peak_gflops": peak * threads / 1e9 if peak else None,
            "share_of_peak": self.flop / (seconds * peak * threads) if peak else None,
            "weight_bytes": self.weight_bytes(precision),
            "weight_gb_per_s": streamed / seconds / 1e9,
            "copy_gb_per_s": bytes_per_s / 1e9 if bytes_per_s else None,
            "flop_per_weight_byte": self.flop / streamed,
        }


def register_loop(precision: str) -> Callable[[int], tuple[float, float]] | None:
    """Return ``loop(iterations) -> (operations, seconds)`` of the engine; None for a precision that it has not."""
    if precision not in ("fp32", "bf16", "int8"):
        return None
    return lambda iterations: core.register_loop(PRECISIONS[precision], iterations)


def tuned_iterations(loop: Callable[[int], tuple[float, float]], seconds: float) -> int:
    """Return the iterations with which ``loop`` takes about ``seconds``."""
    iterations = 1000
    while True:
        taken = min(loop(iterations)[1] for _ in range(3))
        if taken > 1e-4 or iterations > 1 << 40:
            return max(1, round(iterations * seconds / max(taken, 1e-9)))
        iterations *= 4


def register_peak(precision: str, seconds: float = 0.002, slices: int = 50) -> float | None:
    """Return the most FLOP/s of ``slices`` register loops of ``seconds`` each; None where there is no such loop.

    The most, of short ones: whatever else runs on the core only takes away from it.
    """
    loop = register_loop(precision)
    if loop is None:
        return None
    iterations = tuned_iterations(loop, seconds)
    return max(operations / taken for operations, taken in (loop(iterations) for _ in range(slices)))


def bandwidth(working_set: int, seconds: float = 0.05) -> float:
    """Return the bytes per second, read and written, of copies inside a working set of that many bytes."""
    half = max(4096, working_set // 2)
    source, target = np.ones(half, np.uint8), np.zeros(half, np.uint8)
    rates: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(rates) < 3:
        start = time.perf_counter()
        np.copyto(target, source)
        rates.append(2 * half / (time.perf_counter() - start))
    return float(np.median(rates))
