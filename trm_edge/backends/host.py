"""What every backend offers, and the part that backends written in Python share."""

from __future__ import annotations

import math
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol

import numpy as np

from ..errors import Status, TrmBusyError, TrmInputError, TrmNotBegunError
from ..inputs import (
    Array,
    Inputs,
    check_context,
    check_features,
    check_halt,
    check_inputs,
    check_last_action,
    check_steps,
)
from ..limits import NAMES, Limits, project_limits
from ..reference import StepOutput
from ..refinement import Refinement, confidence_of
from ..spec import MAX_STEPS, TrmSpec

Arrays = tuple[object, object, object, object, object, object, object]
"""The arrays of a call in the order of :data:`~trm_edge.inputs.ARRAYS`; None: not given."""


class Backend(Protocol):
    """One model on one device, with one session. Arguments are those of ``Refiner.refine``."""

    name: str
    precision: str
    spec: TrmSpec

    @property
    def limits(self) -> Limits | None:
        """The limits of an actions head; None for other kinds."""

    @property
    def isa(self) -> str | None:
        """What of the machine runs it: the kernels' instruction set, or the GPU; None where nobody says."""

    @property
    def most_steps(self) -> int:
        """The largest ``steps`` that a call may ask for."""

    def refine(self, arrays: Arrays, puzzle_id: object, steps: int, halt: float | None, trajectory: bool) -> Refinement:
        """Run up to ``steps`` steps from the start."""

    def begin(self, arrays: Arrays, puzzle_id: object) -> None:
        """Start a recursion that :meth:`step` carries on."""

    def step(self, x: object, features: object, last_action: object) -> Refinement:
        """Run one more step, with fresh context, features or last action where given."""

    def end(self) -> None:
        """Forget the recursion, so that a further step needs :meth:`begin`; nothing where another call is under way."""

    def provenance(self, name: str) -> str | None:
        """Return what the file says under ``provenance.<name>``; None where it says nothing."""

    def clone(self) -> Backend:
        """Return another session on the same weights."""


class HostBackend(ABC):
    """Checks, halting, non-finite values and limits for backends that deliver plain steps.

    A subclass turns checked inputs into :class:`StepOutput` values; the guarantees that hold around them are here, as
    they are in ``csrc/core`` for the fused engine.
    """

    name: str
    precision = "fp32"

    def __init__(self, spec: TrmSpec, statistics: Mapping[str, Array]) -> None:
        """``statistics`` hold ``limits.*`` and ``normalization.y0.mean`` for actions."""
        self.spec = spec
        self.limits = Limits(*(statistics[f"limits.{name}"] for name in NAMES)) if spec.answer_is_float else None
        self._mean_action = statistics.get("normalization.y0.mean")
        self._running: _Running | None = None
        self._lock = threading.Lock()

    @property
    def isa(self) -> str | None:
        """Nothing is said of what runs it."""
        return None

    @property
    def most_steps(self) -> int:
        """The largest ``steps`` that a call may ask for."""
        return MAX_STEPS

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the session for one call, or raise: a second caller is told rather than kept waiting."""
        if not self._lock.acquire(blocking=False):
            raise TrmBusyError("session: in use by another call; give each thread a session of its own (clone)")
        try:
            yield
        finally:
            self._lock.release()

    @abstractmethod
    def provenance(self, name: str) -> str | None:
        """Return what the file says under ``provenance.<name>``; None where it says nothing."""

    @abstractmethod
    def outputs(self, inputs: Inputs, steps: int) -> Iterator[StepOutput]:
        """Yield the decoded outputs of ``steps`` steps from the start; the caller may stop early."""

    @abstractmethod
    def start(self, inputs: Inputs) -> Any:
        """Return the carry before the first step."""

    @abstractmethod
    def advance(self, carry: Any, inputs: Inputs, refreshed: bool) -> tuple[Any, StepOutput]:
        """Run one step from ``carry``; ``refreshed`` says that ``inputs`` differ from those of the step before."""

    def refine(self, arrays: Arrays, puzzle_id: object, steps: int, halt: float | None, trajectory: bool) -> Refinement:
        """Run up to ``steps`` steps from the start."""
        start = time.perf_counter()
        inputs, last = self._checked(arrays, puzzle_id)
        steps, halt = check_steps(steps, self.spec.answer), check_halt(halt)
        with self._locked():
            self._running = None
            return _timed(start, self._refine(inputs, steps, halt, last, trajectory))

    def _checked(self, arrays: Arrays, puzzle_id: object) -> tuple[Inputs, Array | None]:
        x, y0, features, slots, candidates, mask, last_action = arrays
        inputs = check_inputs(
            self.spec,
            x,
            y0,
            features=features,
            slots=slots,
            candidates=candidates,
            mask=mask,
            puzzle_id=puzzle_id,
        )
        return inputs, check_last_action(self.spec, last_action)

    def _refine(
        self, inputs: Inputs, steps: int, halt: float | None, last: Array | None, trajectory: bool
    ) -> Refinement:
        status, done = Status.OK, list[StepOutput]()
        if inputs.answer_rows == 0:
            steps = 0
        if not inputs.finite:
            status = Status.NONFINITE
        elif steps:
            for output in self.outputs(inputs, steps):
                if not _finite(output, inputs):
                    status = Status.NONFINITE
                    break
                done.append(output)
                if halt is not None and len(done) < steps and confidence_of(output.halt_logit) >= halt:
                    status = Status.HALTED
                    break
        return self._answer(inputs, done, len(done), status, last, trajectory)

    def begin(self, arrays: Arrays, puzzle_id: object) -> None:
        """Start a recursion that :meth:`step` carries on."""
        inputs, last = self._checked(arrays, puzzle_id)
        inputs = _owned(inputs)
        with self._locked():
            self._running = None
            carry = self.start(inputs) if inputs.answer_rows and inputs.finite else None
            self._running = _Running(inputs, carry, last)

    def step(self, x: object, features: object, last_action: object) -> Refinement:
        """Run one more step, with fresh context, features or last action where given."""
        start = time.perf_counter()
        with self._locked():
            return _timed(start, self._step(x, features, last_action))

    def end(self) -> None:
        """Forget the recursion, so that a further step needs :meth:`begin`; nothing where another call is under way."""
        with suppress(TrmBusyError), self._locked():
            self._running = None

    def _step(self, x: object, features: object, last_action: object) -> Refinement:
        run = self._running
        if run is None:
            raise TrmNotBegunError("step: no recursion is under way; call begin(x, y0, ...) first")
        inputs = run.refreshed(self.spec, x, features)
        last = check_last_action(self.spec, last_action)
        run.last_action = last = run.last_action if last is None else last
        if inputs.answer_rows == 0:
            return self._answer(inputs, [], run.steps, Status.OK, last, trajectory=True)
        if not inputs.finite:
            return self._answer(inputs, [], run.steps, Status.NONFINITE, last, trajectory=True)
        refreshed = inputs is not run.inputs
        run.inputs = inputs
        run.carry, output = self.advance(self.start(inputs) if run.carry is None else run.carry, inputs, refreshed)
        if not _finite(output, inputs):
            return self._answer(inputs, [], run.steps, Status.NONFINITE, last, trajectory=True)
        run.steps += 1
        return self._answer(inputs, [output], run.steps, Status.OK, last, trajectory=True)

    def _answer(
        self,
        inputs: Inputs,
        done: list[StepOutput],
        steps_run: int,
        status: Status,
        last: Array | None,
        trajectory: bool,
    ) -> Refinement:
        """Assemble the answer: the last step's, or the draft where there is none or a value was not finite."""
        y = done[-1].y if done and status != Status.NONFINITE else self._draft(inputs)
        if self.limits is not None:
            projected = project_limits(y.astype(np.float32), last_action=last, **self.limits._asdict())
            y = projected.actions
            if projected.status != Status.OK and status != Status.NONFINITE:
                status = projected.status
        answers, logits = None, None
        if trajectory:
            answers = np.asarray([o.y for o in done], y.dtype).reshape(len(done), *y.shape)
            if not self.spec.answer_is_float:
                width = self.spec.logits_width(0 if inputs.candidates is None else len(inputs.candidates))
                logits = np.asarray([o.logits for o in done], np.float32).reshape(len(done), inputs.answer_rows, width)
        halt_logits = np.asarray([o.halt_logit for o in done], np.float32)
        certainty = confidence_of(done[-1].halt_logit) if done else math.nan
        return Refinement(y, steps_run, status, certainty, math.nan, halt_logits, answers, logits)

    def _draft(self, inputs: Inputs) -> Array:
        if inputs.y0 is not None:
            return np.copy(inputs.y0)  # an answer is the caller's to change
        if self.spec.answer == "tokens":
            return np.copy(inputs.x)
        assert self._mean_action is not None
        return np.tile(self._mean_action, (self.spec.answer_rows, 1))


@dataclass
class _Running:
    """A recursion under way between ``begin`` and the last ``step``."""

    inputs: Inputs
    carry: Any
    last_action: Array | None
    steps: int = 0

    def refreshed(self, spec: TrmSpec, x: object, features: object) -> Inputs:
        """Return the inputs of the next step; the very same object where nothing is fresh."""
        if x is None and features is None:
            return self.inputs
        return _owned(refresh_inputs(spec, self.inputs, x, features))


def _owned(inputs: Inputs) -> Inputs:
    """Return ``inputs`` with arrays of its own, for a recursion that outlives the call that brought them."""
    arrays = {f.name: getattr(inputs, f.name) for f in fields(inputs)}
    return Inputs(**{name: v.copy() if isinstance(v, np.ndarray) else v for name, v in arrays.items()})


def refresh_inputs(spec: TrmSpec, inputs: Inputs, x: object, features: object) -> Inputs:
    """Return ``inputs`` with fresh context or features; the number of context rows cannot change."""
    if x is not None:
        if spec.answer == "tokens":
            raise TrmInputError("x: the tokens of a running recursion cannot change; call begin again")
        context = check_context(spec, x)
        if len(context) != len(inputs.x):
            raise TrmInputError(
                f"x: begin was given {len(inputs.x)} rows and a step must keep them, got {len(context)}"
            )
        inputs = replace(inputs, x=context)
    if features is not None:
        inputs = replace(inputs, features=check_features(spec, features))
    return inputs


def _timed(start: float, out: Refinement) -> Refinement:
    return out._replace(duration_us=(time.perf_counter() - start) * 1e6)


def _finite(output: StepOutput, inputs: Inputs) -> bool:
    values = output.y if output.logits is None else output.logits
    with np.errstate(over="ignore"):  # float64 that does not fit into float32 is what is looked for
        values, halt_logit = values.astype(np.float32), np.float32(output.halt_logit)
    if output.logits is not None and inputs.mask is not None:
        values = values[inputs.mask]
    return bool(np.isfinite(halt_logit) and np.isfinite(values).all())
