"""What rounding does to the answers of every step, against the float64 oracle, and to the task's own metric."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trm_edge.golden import relative_error, run_reference
from trm_edge.inputs import Array
from trm_edge.limits import NAMES
from trm_edge.reference import ReferenceModel, StepOutput, project_limits

from .calls import Call
from .collect import Tick


@dataclass(frozen=True)
class Trajectory:
    """Errors of one fake-quantised model over the measured calls.

    ``errors [calls, K]``: largest error of ŷ_k (actions: in units of std from the mean, as the head sees them) or of
    the logits, relative to the largest value. ``metric [K]``: root mean square error, in units of std, of the answer
    inside the limits to the target (actions), or of the calls that ask for something the share with every asked entry
    right; None where no targets are known.
    """

    errors: Array
    metric: Array | None

    @property
    def median(self) -> Array:
        """Median over calls, by step."""
        out: Array = np.median(self.errors, axis=0)
        return out

    @property
    def largest(self) -> Array:
        """Largest over calls, by step."""
        out: Array = self.errors.max(axis=0)
        return out

    @property
    def error(self) -> float:
        """One number for the whole trajectory: the median call in its worst step."""
        return float(self.median.max())


class Measurement:
    """The float64 answers of a set of calls, worked out once, and comparisons with them."""

    def __init__(self, model: ReferenceModel, calls: Sequence[Call], steps: int, tick: Tick) -> None:
        self.calls, self.steps, self._w = calls, steps, model.w
        self._truth = [self._run(model, call, tick) for call in calls]

    @property
    def metric_name(self) -> str | None:
        """What the task's metric is, or None where no targets are known, or nothing is asked by any."""
        if any(call.target is None for call in self.calls) or not any(call.asks for call in self.calls):
            return None
        return "rms error" if self._is_float() else "exact rate"

    def _is_float(self) -> bool:
        return self._truth[0][0].logits is None

    def exact(self) -> Trajectory:
        """Return the float64 model's own trajectory: no error, and its metric."""
        return self._compare(self._truth)

    def of(self, model: ReferenceModel, tick: Tick, most: int | None = None) -> Trajectory:
        """Return the trajectory of ``model`` over the calls, or over the first ``most`` of them."""
        return self._compare([self._run(model, call, tick) for call in self.calls[:most]])

    def metric_loss(self, trajectory: Trajectory) -> float | None:
        """Return how much worse the last step's metric is than the float64 model's; negative where it is better.

        An exact rate counts by the difference, an rms error relative to the float64 model's.
        """
        exact = self.exact().metric
        if trajectory.metric is None or exact is None:
            return None
        change = float(trajectory.metric[-1] - exact[-1])
        return change / max(float(exact[-1]), 1e-12) if self._is_float() else -change

    def _run(self, model: ReferenceModel, call: Call, tick: Tick) -> list[StepOutput]:
        outputs = run_reference(model, call.inputs, self.steps)
        tick()
        return outputs

    def _compare(self, runs: list[list[StepOutput]]) -> Trajectory:
        errors = np.array(
            [
                [relative_error(self._values(a), self._values(b)) for a, b in zip(run, truth, strict=True)]
                for run, truth in zip(runs, self._truth, strict=False)
            ]
        )
        asking = [(run, call) for run, call in zip(runs, self.calls, strict=False) if call.asks]
        if self.metric_name is None or not asking:
            return Trajectory(errors, None)
        scores = np.array([[self._score(step, call) for step in run] for run, call in asking])
        metric = np.sqrt(scores.mean(axis=0)) if self._is_float() else scores.mean(axis=0)
        return Trajectory(errors, metric)

    def _values(self, step: StepOutput) -> Array:
        """Return what is compared; of actions what no choice of units or of their zero changes."""
        if step.logits is not None:
            return step.logits
        values: Array = (step.y - self._w["normalization.y0.mean"]) / self._w["normalization.y0.std"]
        return values

    def _score(self, step: StepOutput, call: Call) -> float:
        """Mean squared error of actions; 1 where every asked entry of an index answer is right, else 0."""
        assert call.target is not None
        if step.logits is not None:
            return _is_right(step, call.target, call.right)
        limits = (self._w[f"limits.{name}"].astype(np.float32) for name in NAMES)
        inside, _ = project_limits(step.y.astype(np.float32), *limits)
        return float((((inside - call.target) / self._w["normalization.y0.std"]) ** 2).mean())


def _is_right(step: StepOutput, target: Array, others: Array | None) -> float:
    right = (step.y == target) | (target < 0)
    if others is not None and others.size:
        right |= others[step.y] & (step.y >= 0)
    return float(right.all())
