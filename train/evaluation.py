"""Validation: how good the answer is after each step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from .data import Examples, batches, to_tensors
from .hooks import FeaturesFn, fresh_features
from .limits import inside_limits
from .losses import action_error, asks, is_right
from .model import TrmHead


@dataclass(frozen=True)
class Evaluation:
    """``by_step[k - 1]`` after step k; ``draft`` is the same for y0 (actions only).

    ``metric`` is ``exact rate`` (slots and tokens: every supervised entry right, of the examples that have one) or
    ``rms error`` (actions inside the limits, in units of std, mean over chunks). ``examples``: how many were counted.
    """

    metric: str
    by_step: list[float]
    draft: float | None
    examples: int


@torch.no_grad()
def evaluate(
    head: TrmHead,
    examples: Examples,
    steps: int,
    batch_size: int = 256,
    features_fn: FeaturesFn | None = None,
    poll: Callable[[], None] | None = None,
) -> Evaluation:
    """Run ``steps`` refinement steps on every example and return the metric by step.

    ``poll`` is called before every step of a batch; what it raises ends the evaluation.
    """
    device = str(head.w("y_init").device)
    actions = head.spec.answer == "actions"
    sums, draft, count = [0.0] * steps, 0.0, 0
    for arrays in batches(examples, batch_size):
        batch = to_tensors(arrays, device)
        asked = asks(head, batch)
        count += int(asked.sum())
        if actions:
            draft += float(action_error(head, inside_limits(head, head.draft(batch)), batch["target"]).sum())
        carry = head.begin(batch)
        for k in range(steps):
            if poll is not None:
                poll()
            carry, out = head.step(carry, batch)
            if actions:
                score = action_error(head, inside_limits(head, out.y), batch["target"])
            else:
                score = is_right(head, out.y, batch, 0.0) & asked
            sums[k] += float(score.sum())
            if features_fn is not None and k < steps - 1:
                batch["features"] = fresh_features(features_fn, out.y, batch)
    metric = "rms error" if actions else "exact rate"
    return Evaluation(metric, [total / count for total in sums], draft / count if actions else None, count)


def summary(evaluation: Evaluation) -> str:
    """Return an evaluation as a line for people: the draft, the first steps and the last."""
    shown = [f"{value:.4f}" for value in evaluation.by_step]
    if len(shown) > 6:
        shown = [*shown[:5], "..", shown[-1]]
    unit = " (mean over chunks, in units of std)" if evaluation.metric == "rms error" else ""
    draft = "" if evaluation.draft is None else f" draft {evaluation.draft:.4f},"
    return f"{evaluation.metric}{unit}:{draft} k = 1..{len(evaluation.by_step)}: {' '.join(shown)}"
