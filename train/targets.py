"""What each supervised step aims at."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from trm_edge.inputs import Array
from trm_edge.recorded import IGNORED

from .data import Arrays
from .model import Batch, TrmHead


def reveal_order(arrays: Arrays, rng: np.random.Generator) -> Array:
    """Draw for every answer ``[B, S]`` (``[B, T]``) when it is due, in [0, 1): small values first."""
    return rng.random(arrays["target"].shape[:2])


def step_target(head: TrmHead, batch: Batch, step: int, steps: int, order: Tensor | None) -> Tensor:
    """Return the target of ``step`` (1..``steps``), shaped as ``batch["target"]``.

    Without ``order`` every step aims at the answer, as the TRM paper does. With one, targets improve from the draft to
    it (Deep Improvement Supervision, arXiv 2511.16886): actions move along the line between them; of slots and
    tokens the share ``step / steps`` that ``order`` names first takes the answer, and stays there, while the others
    keep the draft, which for tokens is ``x``. What the answer leaves open stays open.
    """
    target = batch["target"]
    if order is None or step >= steps:
        return target
    share = step / steps
    if head.spec.answer == "actions":
        return torch.lerp(head.draft(batch), target, share)
    draft = batch["x"] if head.spec.answer == "tokens" else head.draft(batch)
    opened = target == IGNORED[head.spec.answer]
    return torch.where((order < share) | opened, target, draft)
