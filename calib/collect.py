"""Ranges of the matrix inputs, by step: the float oracle runs the calibration set and counts what it sees."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from trm_edge.errors import TrmInputError
from trm_edge.golden import run_reference
from trm_edge.inputs import Array
from trm_edge.quantization import matrix_names
from trm_edge.reference import ReferenceModel
from trm_edge.spec import TrmSpec

from .calls import Call
from .observers import Histogram, input_scale

Tick = Callable[[], None]
"""Called after every run of a call."""

Ranges = dict[str, list[Histogram]]
"""One histogram a matrix and step."""


class Observed(ReferenceModel):
    """The oracle, counting the inputs of every block matrix by step."""

    def __init__(self, spec: TrmSpec, tensors: Mapping[str, Array], steps: int) -> None:
        super().__init__(spec, tensors, np.float32)
        self.ranges: Ranges = {name: [Histogram() for _ in range(steps)] for name in matrix_names(spec)}

    def product(self, name: str, a: Array, k: int) -> Array:
        """Count ``a`` and return ``a @ w.T``."""
        if not np.isfinite(a).all():
            raise TrmInputError(f"calibration: the input of {name} is not finite in step {k}; look at the data")
        self.ranges[name][k - 1].add(a)
        return super().product(name, a, k)


def collect(spec: TrmSpec, tensors: Mapping[str, Array], calls: Sequence[Call], steps: int, tick: Tick) -> Ranges:
    """Run the calls and return the ranges; ``tick`` is called after each."""
    model = Observed(spec, tensors, steps)
    for call in calls:
        run_reference(model, call.inputs, steps)
        tick()
    return model.ranges


def input_scales(ranges: Ranges, scheme: str, observer: str) -> dict[str, Array]:
    """Return float32 scales ``[steps]`` of every matrix input for ``scheme``; none for ``dynamic``."""
    if scheme == "dynamic":
        return {}
    scales = {}
    for name, by_step in ranges.items():
        histograms = by_step if scheme == "static-per-step" else [Histogram.joined(by_step)]
        scales[name] = np.asarray([input_scale(histogram, observer) for histogram in histograms], np.float32)
    return scales
