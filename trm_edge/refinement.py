"""What a refinement returns."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .errors import Status
from .inputs import Array


class Refinement(NamedTuple):
    """What a refinement returned; read it by name.

    Attributes
    ----------
    y
        The answer: ``[T, dof]`` float32 actions inside the limits, or ``[S]`` int32 indices.
    steps_run
        Steps whose values were finite; after :meth:`Refiner.step`, those since ``begin``.
    status
        :class:`~trm_edge.Status`: OK, or a positive reason such as HALTED or NONFINITE.
    confidence
        Sigmoid of the last of ``halt_logits``, NaN where there is none. It speaks of ``y``, but where the status is
        NONFINITE: the answer is the draft there, and the confidence that of the last finite step.
    duration_us
        Wall time inside the backend, in microseconds.
    halt_logits
        ``[steps_run]`` float32.
    trajectory
        ``[steps_run, ...]``: the answer of every step before projection, where asked for.
    logits
        ``[steps_run, S, M or V]`` float32, for slots and tokens where a trajectory was asked for.
    """

    y: Array
    steps_run: int
    status: Status
    confidence: float
    duration_us: float
    halt_logits: Array
    trajectory: Array | None = None
    logits: Array | None = None


def confidence_of(halt_logit: float) -> float:
    """Return the sigmoid of a halt logit, in float32 as the engine computes it."""
    return float(1 / (1 + np.exp(-np.float32(halt_logit)))) if halt_logit > -80 else 0.0
