"""Limits of actions: bounds and velocity per tick, guaranteed by a projection in the engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ._native import core
from .errors import Status, TrmInputError
from .inputs import Array, as_array


class Limits(NamedTuple):
    """A head's limits, ``[dof]`` float32 each, infinite where it has none, as :func:`project_limits` takes them."""

    lower: Array
    upper: Array
    velocity: Array


NAMES = Limits._fields


def missing_limits(tensors: Mapping[str, Array]) -> tuple[str, ...]:
    """Return which of :data:`NAMES` limit nothing in a bundle or checkpoint: infinite, or not there."""
    found = {name: tensors.get(f"limits.{name}") for name in NAMES}
    return tuple(name for name, values in found.items() if values is None or not np.isfinite(values).any())


def missing_text(missing: Sequence[str]) -> str:
    """Return what :func:`missing_limits` found for people: "none" are there, or "no lower, no upper"."""
    return "none" if len(missing) == len(NAMES) else ", ".join(f"no {name}" for name in missing)


class Projection(NamedTuple):
    """Projected ``actions [T, dof]`` float32, and OK or OUTSIDE_LIMITS."""

    actions: Array
    status: Status


def project_limits(
    actions: object,
    *,
    lower: object = None,
    upper: object = None,
    velocity: object = None,
    last_action: object = None,
) -> Projection:
    """Project ``actions`` onto ``lower <= a <= upper`` and ``|a[t] - a[t-1]| <= velocity``.

    Parameters
    ----------
    actions
        ``[T, dof]`` float32, finite. Not modified.
    lower, upper, velocity
        ``[dof]`` float32, in the units of the actions, velocity per tick; None: no such limit.
    last_action
        ``[dof]`` float32, the action before the chunk; None: the first action is free to jump.

    Returns
    -------
    Projection
        The status is OUTSIDE_LIMITS where ``last_action`` is farther outside the bounds than one velocity step: the
        actions then approach the bounds at the velocity limit. Projecting twice changes nothing.

    Raises
    ------
    TrmInputError
        Wrong shape or dtype, NaN, ``lower > upper`` or ``velocity <= 0``.
    """
    given = as_array("actions", actions, np.float32)
    if given.ndim != 2:
        raise TrmInputError(f"actions: expected shape [T, dof], got {list(given.shape)}")
    limits = []
    named = {"lower": lower, "upper": upper, "velocity": velocity, "last_action": last_action}
    for name, value in named.items():
        limit = None if value is None else as_array(name, value, np.float32)
        if limit is not None and limit.shape != given.shape[1:]:
            raise TrmInputError(f"{name}: expected shape {list(given.shape[1:])}, got {list(limit.shape)}")
        limits.append(limit)
    projected = given.copy()
    return Projection(projected, Status(core.project_limits(projected, *limits)))
