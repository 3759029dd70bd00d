"""Calibration of one bundle: ranges, scales, the trajectory's error, and matrices that must stay more precise."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from trm_edge.bundle import Bundle
from trm_edge.errors import TrmInputError
from trm_edge.extras import import_extra
from trm_edge.golden import record_quantized_error
from trm_edge.inputs import Array, check_int
from trm_edge.quantization import SCHEMES, Quantization, QuantizedModel, matrix_names
from trm_edge.reference import ReferenceModel
from trm_edge.spec import MAX_STEPS

from .calls import Call, split_calls
from .collect import Tick, collect, input_scales
from .observers import OBSERVERS
from .trajectory import Measurement, Trajectory

MAX_ERROR = 0.05
"""Default of the largest error of a trajectory: 5 % of the largest logit, or answer in units of std from the mean, for
the median call."""

MAX_LOSS = 0.005
"""Default of what the task's metric may lose in the last step."""

_SENSITIVITY_CALLS = 32


@dataclass(frozen=True)
class Calibration:
    """A calibrated bundle and the report on it.

    ``exact`` and ``quantized`` are the trajectories of the float64 oracle and of the fake-quantised one over
    ``measured`` calls; ``held_out`` says that none of these gave a range. ``sensitivity`` is the trajectory's error
    where one matrix alone is int8, largest first. ``metric_loss`` is how much worse the task's metric is in the last
    step. ``observer`` is None for ``dynamic``.
    """

    bundle: Bundle
    observer: str | None
    steps: int
    calibrated: int
    measured: int
    held_out: bool
    exact: Trajectory
    quantized: Trajectory
    sensitivity: dict[str, float]
    metric_name: str | None
    metric_loss: float | None
    max_error: float
    max_loss: float

    @property
    def quantization(self) -> Quantization:
        """How the matrices are rounded."""
        assert self.bundle.quantization is not None
        return self.bundle.quantization

    @property
    def method(self) -> str:
        """The scheme, and the observer where it asks one."""
        return ", ".join(filter(None, (self.quantization.scheme, self.observer)))

    @property
    def passed(self) -> bool:
        """Whether error and loss are within what was allowed; NaN is not."""
        return _passes(self.quantized, self.metric_loss, self.max_error, self.max_loss)


def calibrate(
    bundle: Bundle,
    calls: Sequence[Call],
    *,
    scheme: str = "dynamic",
    observer: str = "minmax",
    steps: int = 4,
    max_error: float = MAX_ERROR,
    max_loss: float = MAX_LOSS,
    mixed: bool = False,
    progress: bool = False,
) -> Calibration:
    """Calibrate ``bundle``: of the calls, every second one gives the ranges, and the others are measured.

    ``dynamic`` takes no ranges, and measures them all.

    Parameters
    ----------
    bundle
        The model; a calibration that it already has is replaced.
    calls
        What it will be asked; fewer than four give ranges and are measured alike. Where under 200 are measured, one
        call of an exact rate is more than ``MAX_LOSS``.
    scheme
        ``dynamic``, ``static`` or ``static-per-step``, see :mod:`trm_edge.quantization`.
    observer
        ``minmax``, ``percentile``, ``mse`` or ``entropy``; ``dynamic`` asks none.
    steps
        Refinement steps that are calibrated and measured.
    max_error, max_loss
        What ``passed`` allows: the error of the median call in its worst step, relative to the largest logit, or answer
        in units of std from the mean, and what the task's metric loses in the last step.
    mixed
        Keep the most sensitive matrices in bf16, then in fp32, one after the other until it passes.
    progress
        Show a bar on standard error, which needs tqdm.

    Raises
    ------
    TrmInputError
        An argument is wrong, or a matrix input is not finite.
    TrmUnsupportedError
        tqdm is not installed.
    """
    _check_arguments(calls, scheme, observer, steps)
    spec, tensors = bundle.spec, bundle.tensors
    names, (ranging, measured) = matrix_names(spec), split_calls(calls, scheme)
    few = min(_SENSITIVITY_CALLS, len(measured))
    with _progress(len(ranging) + 2 * len(measured) + few * len(names), progress) as tick:
        ranges = collect(spec, tensors, ranging, steps, tick)
        scales = input_scales(ranges, scheme, observer)
        measurement = Measurement(ReferenceModel(spec, tensors), measured, steps, tick)
        search = _Search(bundle, scheme, scales, measurement, tick)
        sensitivity = {name: search.alone(name, few).error for name in names}
        sensitivity = dict(sorted(sensitivity.items(), key=lambda item: -item[1]))
        quantization, trajectory = search.run(sensitivity, max_error, max_loss, mixed)
    ranged = f", {observer} of {len(ranging)} calls" if ranging else ""
    source = f"{scheme}{ranged}, measured on {len(measured)} calls to step {steps}"
    calibrated = replace(
        bundle,
        quantization=quantization,
        golden=record_quantized_error(spec, tensors, bundle.golden, quantization),
        provenance={**bundle.provenance, "calibration": source},
    )
    return Calibration(
        bundle=calibrated,
        observer=observer if ranging else None,
        steps=steps,
        calibrated=len(ranging),
        measured=len(measured),
        held_out=not ranging or ranging[0] is not measured[0],
        exact=measurement.exact(),
        quantized=trajectory,
        sensitivity=sensitivity,
        metric_name=measurement.metric_name,
        metric_loss=measurement.metric_loss(trajectory),
        max_error=max_error,
        max_loss=max_loss,
    )


class _Search:
    """Tries precisions of the matrices."""

    def __init__(
        self, bundle: Bundle, scheme: str, scales: dict[str, Array], measurement: Measurement, tick: Tick
    ) -> None:
        self._bundle, self._scheme, self._scales = bundle, scheme, scales
        self._measurement, self._tick = measurement, tick
        self._names = matrix_names(bundle.spec)

    def alone(self, name: str, calls: int) -> Trajectory:
        """Measure ``calls`` calls with one matrix in int8 and the others left alone."""
        precision = {other: "int8" if other == name else "fp32" for other in self._names}
        return self._measure(self._quantization(precision), calls)

    def run(
        self, sensitivity: dict[str, float], max_error: float, max_loss: float, mixed: bool
    ) -> tuple[Quantization, Trajectory]:
        """Measure with every matrix in int8; where that does not pass, make one after the other more precise."""
        precision = dict.fromkeys(self._names, "int8")
        changes = [(name, better) for better in ("bf16", "fp32") for name in sensitivity] if mixed else []
        while True:
            quantization = self._quantization(precision)
            trajectory = self._measure(quantization, None)
            loss = self._measurement.metric_loss(trajectory)
            if not changes or _passes(trajectory, loss, max_error, max_loss):
                return quantization, trajectory
            name, better = changes.pop(0)
            precision[name] = better

    def _quantization(self, precision: dict[str, str]) -> Quantization:
        scales = {name: scale for name, scale in self._scales.items() if precision[name] == "int8"}
        return Quantization(self._scheme if scales else "dynamic", dict(precision), scales)

    def _measure(self, quantization: Quantization, calls: int | None) -> Trajectory:
        model = QuantizedModel(self._bundle.spec, self._bundle.tensors, quantization)
        return self._measurement.of(model, self._tick, calls)


def _passes(trajectory: Trajectory, loss: float | None, max_error: float, max_loss: float) -> bool:
    return trajectory.error <= max_error and (loss is None or loss <= max_loss)


def _check_arguments(calls: Sequence[Call], scheme: str, observer: str, steps: int) -> None:
    for name, given, known in (("scheme", scheme, SCHEMES), ("observer", observer, tuple(OBSERVERS))):
        if given not in known:
            raise TrmInputError(f"{name}: expected one of {', '.join(known)}, got {given!r}")
    if not 1 <= check_int("steps", steps) <= MAX_STEPS:
        raise TrmInputError(f"steps: expected 1..{MAX_STEPS}, got {steps}")
    if not calls:
        raise TrmInputError("calls: expected at least one")


@contextmanager
def _progress(total: int, shown: bool) -> Iterator[Tick]:
    """Yield a function that counts one run of a call; a search for precisions runs past the total."""
    if not shown:
        yield lambda: None
        return
    with import_extra("tqdm", "the progress bar", "calib").tqdm(total=total, unit="call", leave=False) as bar:
        yield lambda: bar.update(1) and None
