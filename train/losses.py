"""The loss of one refinement step, term by term; every term is a mean over the batch.

Each example weighs the same, however many of its answers are supervised, as in the TRM paper's code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from trm_edge.recorded import IGNORED

from .config import LossConfig
from .model import Batch, StepOutput, TrmHead

_NONE = -1e9  # logarithm of no share; -inf would make gradients of rows that do not count NaN


@dataclass(frozen=True)
class StepLoss:
    """``total`` to differentiate, its weighted ``terms`` by name, and ``right``: is the step's answer right.

    ``right`` is of the examples that ask for something.
    """

    total: Tensor
    terms: Mapping[str, Tensor]
    right: Tensor


def step_loss(head: TrmHead, out: StepOutput, target: Tensor, batch: Batch, config: LossConfig) -> StepLoss:
    """Return the loss of one step.

    Parameters
    ----------
    head
        For its kind, statistics and limits.
    out
        The step's answer.
    target
        What this step aims at, shaped as ``batch["target"]``; the halt head is asked about the final answer.
    batch
        The examples, with their final ``target``.
    config
        Weights of the terms.
    """
    if head.spec.answer == "actions":
        terms = _action_terms(head, out.y, target, config)
    else:
        assert out.logits is not None
        ignored = IGNORED[head.spec.answer]
        right = right_choices(target, batch) if "right" in batch else None
        terms = {"answer": cross_entropy(out.logits, target, ignored, config.cross_entropy, right)}
        if config.left_out:
            terms["left_out"] = config.left_out * left_out_penalty(out.logits, batch)
    asked = asks(head, batch)  # of the others nobody knows whether the answer is right
    done = is_right(head, out.y, batch, config.halt_tolerance)[asked]
    if config.halt:
        logits = out.halt_logit.float()[asked]
        halt = F.binary_cross_entropy_with_logits(logits, done.float()) if len(done) else logits.sum()
        terms["halt"] = config.halt * halt
    return StepLoss(torch.stack(list(terms.values())).sum(), terms, done)


def asks(head: TrmHead, batch: Batch) -> Tensor:
    """Return ``[B]``: whether an answer can be wrong, as some target is no -1 (slots) or -100 (tokens)."""
    target = batch["target"]
    if head.spec.answer == "actions":
        return torch.ones(len(target), dtype=torch.bool, device=target.device)
    return (target != IGNORED[head.spec.answer]).any(-1)


def is_right(head: TrmHead, y: Tensor, batch: Batch, tolerance: float) -> Tensor:
    """Return ``[B]``: every supervised index equal, or actions within ``tolerance`` (RMS, in units of std)."""
    target = batch["target"]
    if head.spec.answer == "actions":
        return action_error(head, y.detach(), target) <= tolerance
    correct = (y == target) | (target == IGNORED[head.spec.answer])
    if "right" in batch:
        correct |= right_choices(target, batch).gather(-1, y.long().clamp_min(0)[..., None])[..., 0] & (y >= 0)
    return correct.all(-1)


def right_choices(target: Tensor, batch: Batch) -> Tensor:
    """Return ``[B, S, M]``: candidates as right as ``target``, where it is the final one; elsewhere it alone."""
    chosen = torch.arange(batch["right"].shape[-1], device=target.device) == target[..., None]
    final = (target == batch["target"]) & (target >= 0)
    return chosen | (batch["right"][:, None] & batch["mask"] & final[..., None])


def action_error(head: TrmHead, y: Tensor, target: Tensor) -> Tensor:
    """Root mean square error of each chunk ``[B]``, in units of std."""
    return ((y - target) / head.w("normalization.y0.std")).square().mean((1, 2)).sqrt()


def cross_entropy(
    logits: Tensor, target: Tensor, ignored: int, kind: str = "softmax", right: Tensor | None = None
) -> Tensor:
    """Cross-entropy of ``logits [B, S, C]`` against ``target [B, S]``; entries equal to ``ignored`` do not count.

    With ``right [B, S, C]`` against the share that all right classes hold together.
    """
    real = target != ignored
    if not logits.shape[-1]:
        return logits.sum()
    # A row without any candidate is all -inf, and 0 * NaN is NaN: it is replaced before, not multiplied after.
    logits = torch.where(real[..., None], logits, 0)
    log_p = log_stablemax(logits.double()).float() if kind == "stablemax" else logits.float().log_softmax(-1)
    if right is None:
        picked = log_p.gather(-1, torch.where(real, target, 0)[..., None])[..., 0]
    else:
        picked = log_p.masked_fill(~(right & real[..., None]), _NONE).logsumexp(-1)
    picked = torch.where(real, picked, 0)
    return -(picked.sum(-1) / real.sum(-1).clamp_min(1)).mean()


def log_stablemax(logits: Tensor) -> Tensor:
    """Logarithm of stablemax (arXiv 2501.04697): s(x) = x + 1 from 0 on, 1 / (1 - x) below; -inf has no share."""
    share = ~torch.isneginf(logits)
    low = torch.where(share & (logits < 0), logits, 0)
    mass = torch.where(logits < 0, 1 / (1 - low), logits + 1)  # 1 for -inf, until it is taken out
    total = torch.where(share, mass, 0).sum(-1, keepdim=True)
    return torch.where(share, mass.log() - total.log(), -torch.inf)


def left_out_penalty(logits: Tensor, batch: Batch) -> Tensor:
    """Return ``-log(1 - p)`` of required slots, p being the share that candidates of ``omit [B, M]`` hold.

    ``required [B, S]`` says which slots count; without it those whose target is no omit candidate. A slot that can
    only be left out does not count.
    """
    omit = batch["omit"][:, None].expand_as(logits)
    target = batch["target"]
    if not logits.shape[-1]:
        return logits.sum()
    omitted = omit.gather(-1, target.clamp_min(0)[..., None])[..., 0]
    required = batch.get("required", (target >= 0) & ~omitted) & (~omit & ~torch.isneginf(logits)).any(-1)
    safe = torch.where(required[..., None], logits.float(), 0)
    kept = safe.masked_fill(omit & required[..., None], -torch.inf)
    penalty = safe.logsumexp(-1) - kept.logsumexp(-1)
    return (penalty.sum(-1) / required.sum(-1).clamp_min(1)).mean()


def smoothness(y: Tensor, std: Tensor) -> Tensor:
    """Mean square of the second differences of ``y [B, T, dof]`` along time, in units of std."""
    if y.shape[1] < 3:
        return y.new_zeros(())
    return (y.diff(n=2, dim=1) / std).square().mean()


def limit_excess(head: TrmHead, y: Tensor) -> Tensor:
    """Mean square of what ``y [B, T, dof]`` exceeds bounds and velocity by, in units of std."""
    std = head.w("normalization.y0.std")
    lower, upper, velocity = (head.w(f"limits.{name}") for name in ("lower", "upper", "velocity"))
    outside = F.relu(lower - y) + F.relu(y - upper)
    too_fast = F.relu(y.diff(dim=1).abs() - velocity)
    return (outside / std).square().mean() + (too_fast / std).square().sum((1, 2)).mean() / y[0].numel()


def _action_terms(head: TrmHead, y: Tensor, target: Tensor, config: LossConfig) -> dict[str, Tensor]:
    std = head.w("normalization.y0.std")
    terms = {"answer": ((y - target) / std).square().mean()}
    if config.smoothness:
        terms["smoothness"] = config.smoothness * smoothness(y, std)
    if config.limits:
        terms["limits"] = config.limits * limit_excess(head, y)
    return terms
