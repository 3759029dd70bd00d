"""What a run says of the limits that its head will keep, and of the targets that break them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from trm_edge.inputs import Array
from trm_edge.limits import NAMES, missing_limits, missing_text

from .data import Examples
from .model import TrmHead

_BLOCK = 4096  # examples that are compared at once
_ROUNDING = 1e-5  # of a velocity, by which the difference of two float32 values may exceed it


def inside_limits(head: TrmHead, actions: Tensor) -> Tensor:
    """Return ``actions [B, T, dof]`` as ``refine`` gives them without a last action, but for rounding."""
    lower, upper, velocity = (head.w(f"limits.{name}") for name in NAMES)
    inside = [actions[:, 0].clamp(lower, upper)]
    for action in actions[:, 1:].unbind(1):
        before = inside[-1]
        inside.append(action.clamp((before - velocity).maximum(lower), (before + velocity).minimum(upper)))
    return torch.stack(inside, 1)


def describe_limits(head: TrmHead, examples: Examples) -> list[str]:
    """Return lines for people, for heads that answer with actions: which limits there are, and what breaks them.

    An answer is projected onto the limits, so a head cannot give a target that lies beyond them.
    """
    if head.spec.answer != "actions":
        return []
    limits = {name: head.w(f"limits.{name}").cpu().numpy() for name in NAMES}
    missing = missing_limits({f"limits.{name}": values for name, values in limits.items()})
    lines = []
    unlimited = len(missing) == len(NAMES)
    if missing:
        advice = "; nothing bounds the actions of this head. Give [limits] lower, upper, velocity" if unlimited else ""
        lines.append(f"warning: limits: {missing_text(missing)}{advice}")
    if not unlimited:
        outside, fast = shares_beyond(examples.arrays["target"], **limits)
        warning = "warning: " if outside.any() or fast.any() else ""
        lines.append(
            f"{warning}limits: {_text(outside)} of the targets' values are outside the bounds, "
            f"{_text(fast)} of their changes per tick beyond the velocity"
        )
    return lines


def shares_beyond(target: Array, lower: Array, upper: Array, velocity: Array) -> tuple[Array, Array]:
    """Return, by dimension, the share of values outside the bounds and of changes from row to row beyond velocity."""
    count, rows, dof = target.shape
    outside, fast = np.zeros(dof), np.zeros(dof)
    for at in range(0, count, _BLOCK):
        values = target[at : at + _BLOCK].astype(np.float64)
        outside += ((values < lower) | (values > upper)).sum((0, 1))
        fast += (np.abs(np.diff(values, axis=1)) > velocity * (1 + _ROUNDING)).sum((0, 1))
    return outside / max(1, count * rows), fast / max(1, count * (rows - 1))


def _text(shares: Array) -> str:
    """Say a share of all values, and of the dimension where it is largest: one joint of six is a sixth at most."""
    worst = int(shares.argmax())
    most = f" ({shares[worst]:.1%} in dimension {worst})" if shares.any() else ""
    return f"{shares.mean():.1%}{most}"
