"""``trm-edge demo``: refine action chunks that were recorded in a simulator, and measure every step against the expert.

The shipped bundle and inputs come from ``examples/metaworld``: stale chunks of a small flow-matching policy at control
ticks of Meta-World episodes that no training saw, and what the scripted expert would do from the same states.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .bundle import Bundle, read_bundle
from .errors import TrmInputError, TrmIOError, TrmUnsupportedError
from .files import read_npz
from .inputs import Array, check_steps
from .picture import check_picture
from .profiling.timing import latency_summary, latency_text
from .refiner import Refiner, load
from .shipped import example

BUNDLE, RECORDED = example("metaworld.trm"), example("metaworld.npz")
PLOT = Path("trm-edge-demo-actions.png")
STEPS = 4  # unless told otherwise

METRICS = ("error", "roughness", "violations", "excess")
_ARRAYS = ("x", "y0", "features", "last_action", "target", "fresh", "episode", "task", "age")
_RESAMPLES = 2000
_LATENCY_CALLS = 2000


@dataclass(frozen=True)
class Row:
    """One line of the table: an answer's metrics, each as (value, low, high).

    ``change`` is the error minus that of the draft (projected for a projected answer, but for the projected draft
    itself), ``gain`` the error minus that of the step before; both are paired.
    """

    answer: str
    step: int | None
    projected: bool
    error: tuple[float, float, float]
    roughness: tuple[float, float, float]
    violations: tuple[float, float, float]
    excess: tuple[float, float, float]
    change: tuple[float, float, float] | None
    gain: tuple[float, float, float] | None


def run(arguments: argparse.Namespace) -> int:
    """Run the command ``trm-edge demo``."""
    plot = _where_to_plot(arguments)
    bundle, recorded = read_bundle(BUNDLE), read_recorded(RECORDED)
    refiner = load(BUNDLE, backend="fused")
    steps = check_steps(STEPS if arguments.steps is None else arguments.steps, bundle.spec.answer)
    if steps < 1:
        raise TrmInputError("--steps: expected at least 1, got 0")
    answers = refine_all(refiner, recorded, steps)
    rows = measure(answers, bundle, recorded)
    latency = measure_latency(refiner, recorded, steps)
    if not arguments.json:
        _print_report(refiner, recorded, steps, rows, latency)
    failed = None
    if plot is not None:  # nothing that goes wrong with a picture costs the figures
        from .demo_plot import draw

        try:
            draw(plot, rows, answers, recorded)
        except TrmIOError as error:
            failed, plot = error, None
    if arguments.json:
        print(json.dumps(_facts(refiner, recorded, steps, rows, latency, plot)))
    elif plot is not None:
        print(f"plot: {plot}")
    elif arguments.plot is None:
        print(f"no plot: {failed or 'it needs pip install ' + repr('trm-edge[demo]')}")
    if failed is not None and arguments.plot is not None:
        raise failed
    return 0


def read_recorded(path: Path) -> dict[str, Array]:
    """Read the recorded inputs; every array has one row a control step."""
    recorded = read_npz(path)
    for name in (*_ARRAYS, "tasks"):
        if name not in recorded:
            raise TrmInputError(f"{path}: not the demo's recorded inputs: array {name!r} is missing")
    if len({len(recorded[name]) for name in _ARRAYS}) != 1:
        raise TrmInputError(f"{path}: expected arrays of one length")
    return recorded


def refine_all(refiner: Refiner, recorded: dict[str, Array], steps: int) -> dict[str, Array]:
    """Return ``raw`` and ``projected`` answers, each [steps + 1, N, T, dof]; the first of each is the draft."""
    raw, projected = [], []
    for i in range(len(recorded["x"])):
        call = _call(recorded, i)
        trajectory = refiner.refine(**call, steps=steps, trajectory=True).trajectory
        assert trajectory is not None
        raw.append(np.concatenate([call["y0"][None], trajectory]))
        projected.append(np.stack([refiner.refine(**call, steps=k).y for k in range(steps + 1)]))
    return {"raw": np.stack(raw, axis=1), "projected": np.stack(projected, axis=1)}


def measure(answers: dict[str, Array], bundle: Bundle, recorded: dict[str, Array]) -> list[Row]:
    """Return the table's rows: draft, steps and expert, with 95 % bootstrap intervals over episodes."""
    resampled = Bootstrap(recorded["episode"])

    def metrics(answer: Array) -> dict[str, Array]:
        return answer_metrics(answer, bundle, recorded)

    rows = []
    for step in range(len(answers["raw"])):
        for kind in ("raw", "projected"):
            own = metrics(answers[kind][step])
            draft = metrics(answers["raw" if step == 0 else kind][0])
            before = None if step == 0 else metrics(answers[kind][step - 1])
            rows.append(_row(resampled, own, draft, before, step, kind))
    rows.append(_row(resampled, metrics(recorded["target"]), None, None, None, "raw"))
    return rows


def answer_metrics(answer: Array, bundle: Bundle, recorded: dict[str, Array]) -> dict[str, Array]:
    """Return the metrics of answers [N, T, dof], one number a control step [N].

    ``error`` mean squared distance to the expert's chunk; ``roughness`` mean squared second difference, the last action
    before the chunk included; ``violations`` share of the actions' entries outside the bounds, or farther from the
    entry before than the velocity limit allows; ``excess`` mean squared amount by which they are.
    """
    path = np.concatenate([recorded["last_action"][:, None], answer], axis=1).astype(np.float64)
    lower, upper, velocity = (bundle.tensors[f"limits.{n}"].astype(np.float64) for n in ("lower", "upper", "velocity"))
    outside = np.maximum(np.maximum(lower - path, path - upper)[:, 1:], np.abs(np.diff(path, axis=1)) - velocity)
    return {
        "error": ((answer.astype(np.float64) - recorded["target"]) ** 2).mean((1, 2)),
        "roughness": (np.diff(path, n=2, axis=1) ** 2).mean((1, 2)),
        "violations": (outside > 0).mean((1, 2)),
        "excess": (np.maximum(outside, 0) ** 2).mean((1, 2)),
    }


def measure_latency(refiner: Refiner, recorded: dict[str, Array], steps: int) -> dict[str, float]:
    """Time calls over the recorded inputs, in microseconds."""
    calls = [_call(recorded, i) for i in range(len(recorded["x"]))]
    for call in calls[:50]:
        refiner.refine(**call, steps=steps)
    times = [refiner.refine(**calls[i % len(calls)], steps=steps).duration_us for i in range(_LATENCY_CALLS)]
    return latency_summary(times)


class Bootstrap:
    """Resamples whole episodes, as the control steps of one episode are no independent samples."""

    def __init__(self, episode: Array, seed: int = 0) -> None:
        _, self._of, count = np.unique(episode, return_inverse=True, return_counts=True)
        self._count = count
        drawn = np.random.default_rng(seed).integers(len(count), size=(_RESAMPLES, len(count)))
        self._weight = np.stack([np.bincount(row, minlength=len(count)) for row in drawn])

    def mean(self, values: Array) -> tuple[float, Array]:
        """Return the mean over control steps of ``values`` [N], and that of each resample."""
        sums = np.bincount(self._of, weights=values)
        return float(values.mean()), (self._weight @ sums) / (self._weight @ self._count)

    def interval(self, value: float, resampled: Array) -> tuple[float, float, float]:
        """Return (value, low, high) with the middle 95 % of the resamples."""
        low, high = np.percentile(resampled, [2.5, 97.5])
        return value, float(low), float(high)


def _row(
    resampled: Bootstrap,
    own: dict[str, Array],
    draft: dict[str, Array] | None,
    before: dict[str, Array] | None,
    step: int | None,
    kind: str,
) -> Row:
    def root(metrics: dict[str, Array], name: str) -> tuple[float, Array]:
        value, samples = resampled.mean(metrics[name])
        return float(np.sqrt(value)), np.sqrt(samples)

    def difference(other: dict[str, Array] | None) -> tuple[float, float, float] | None:
        if other is None or is_draft:
            return None
        (value, samples), (base, base_samples) = root(own, "error"), root(other, "error")
        return resampled.interval(value - base, samples - base_samples)

    is_draft = step == 0 and kind == "raw"
    return Row(
        answer="expert" if step is None else "draft" if step == 0 else f"step {step}",
        step=step,
        projected=kind == "projected",
        error=resampled.interval(*root(own, "error")),
        roughness=resampled.interval(*resampled.mean(own["roughness"])),
        violations=resampled.interval(*resampled.mean(own["violations"])),
        excess=resampled.interval(*root(own, "excess")),
        change=difference(draft),
        gain=difference(before),
    )


def _call(recorded: dict[str, Array], i: int) -> dict[str, Any]:
    """Return the arguments of ``refine`` at control step ``i``."""
    return {name: recorded[name][i] for name in ("x", "y0", "features", "last_action")}


def _where_to_plot(arguments: argparse.Namespace) -> Path | None:
    """Return where the plot goes, or None; asked for without matplotlib, it is an error before any work is done."""
    there = importlib.util.find_spec("matplotlib") is not None
    if arguments.plot is None:
        return None if arguments.json or not there else PLOT
    if not there:
        raise TrmUnsupportedError("--plot: matplotlib is not installed; pip install 'trm-edge[demo]'")
    path: Path = arguments.plot
    check_picture(path, "the picture of the demo", "demo")
    return path


def _facts(
    refiner: Refiner,
    recorded: dict[str, Array],
    steps: int,
    rows: list[Row],
    latency: dict[str, float],
    plot: Path | None,
) -> dict[str, Any]:
    return {
        "backend": refiner.backend,
        "isa": refiner.isa,
        "parameters": refiner.spec.parameter_count(),
        "steps": steps,
        "control_steps": len(recorded["x"]),
        "episodes": len(np.unique(recorded["episode"])),
        "tasks": recorded["tasks"].tolist(),
        "rows": [vars(row) for row in rows],
        "latency": latency,
        "plot": None if plot is None else str(plot),
    }


def _print_report(
    refiner: Refiner, recorded: dict[str, Array], steps: int, rows: list[Row], latency: dict[str, float]
) -> None:
    spec, age = refiner.spec, recorded["age"]
    print(
        f"Meta-World {' and '.join(recorded['tasks'].tolist())}: {len(recorded['x'])} control steps of "
        f"{len(np.unique(recorded['episode']))} unseen episodes;\n"
        f"drafts are {age.min()} to {age.max()} ticks old; chunks of {spec.answer_rows} actions x {spec.dof}, "
        "in action units (box -1..1)\n"
    )
    heads = ("RMSE to the expert", "change on the draft", "violations, %", "excess, RMS")
    print(f"{'':<20}{heads[0]:<22}{heads[1]:<25}{heads[2]:<19}{heads[3]:<24}roughness")
    for row in rows:
        label = row.answer + (", projected" if row.projected else "")
        change = "" if row.change is None else _interval(row.change, "+.3f")
        percent = tuple(100 * value for value in row.violations)
        print(
            f"{label:<20}{_interval(row.error, '.3f'):<22}{change:<25}{_interval(percent, '.1f'):<19}"
            f"{_interval(row.excess, '.4f'):<24}{row.roughness[0]:.4f}"
        )
    print("\nwhat each step adds to the one before (change of the projected answer's RMSE):")
    for row in rows:
        if row.gain is not None and row.projected:
            print(f"  {row.answer:<8}{_interval(row.gain, '+.4f')}   {_verdict(row.gain)}")
    print(
        f"\n{spec.parameter_count():,} parameters, K={steps} on {refiner.backend} ({refiner.isa}), one thread, "
        f"{latency_text(latency)}"
    )
    print("brackets: 95 % bootstrap intervals over episodes; open loop: chunks are compared, they drive no robot")


def _interval(values: tuple[float, ...], form: str) -> str:
    value, low, high = values
    return f"{value:{form}} [{low:{form}}, {high:{form}}]"


def _verdict(gain: tuple[float, float, float]) -> str:
    _, low, high = gain
    return "helps" if high < 0 else "hurts" if low > 0 else "no clear change"
