"""Backends ``fused`` and ``cuda``: the compiled engine, on the processor and on a GPU."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import numpy as np

from .._native import PRECISIONS, core
from ..errors import Status, TrmBusyError, TrmError, TrmInputError, TrmNotBegunError, TrmUnsupportedError
from ..files import StrPath
from ..inputs import ARRAYS, check_halt, check_int, check_puzzle_id, check_steps
from ..limits import Limits
from ..on_device import LEGACY, DeviceArray, DeviceRefinement, out_address, place, stream_handle
from ..refinement import Refinement
from ..spec import MAX_STEPS, TrmSpec
from .host import Arrays

MAX_ASYNC_STEPS = 16
"""Of a call that does not wait: TRM_MAX_ASYNC_STEPS of the C ABI."""
_NEVER_HALT = -1.0
_NEVER_PARK = -1
_STATUSES = {int(status): status for status in Status}


class FusedBackend:
    """The C++ engine on one bundle: a shared immutable model and a session of its own."""

    name = "fused"
    most_steps = MAX_STEPS
    _device = 0  # enum trm_backend of the C ABI

    def __init__(
        self,
        source: StrPath | bytes | core.Model,
        *,
        precision: str | None = None,
        threads: int = 1,
        pin: bool = False,
        park_after_us: int | None = None,
    ) -> None:
        """Load ``source``; a model that is loaded already keeps its precision."""
        if precision == "fp64":
            raise TrmUnsupportedError(f"precision: fp64 is for backend reference; {self.name} has no such kernels")
        if precision not in PRECISIONS:
            known = ", ".join(map(repr, PRECISIONS))
            raise TrmInputError(f"precision: expected one of {known}, got {precision!r}")
        if isinstance(source, core.Model):
            self._model = source
        elif isinstance(source, bytes):
            self._model = core.Model(None, source, PRECISIONS[precision], self._device)
        else:
            self._model = core.Model(os.fsencode(source), b"", PRECISIONS[precision], self._device)
        self._session_options: dict[str, Any] = {"threads": threads, "pin": pin, "park_after_us": park_after_us}
        spin_us = _spin_us(park_after_us)
        self._session = core.Session(self._model, threads, bool(pin), spin_us)
        self.precision: str = self._model.precision
        keys = [f"spec.{field.name}" for field in fields(TrmSpec)]
        self.spec = TrmSpec.from_metadata({key: self._model.metadata(key) or "" for key in keys})

    @property
    def limits(self) -> Limits | None:
        """The limits of an actions head; None for other kinds."""
        return Limits(*self._model.limits()) if self.spec.answer_is_float else None

    @property
    def isa(self) -> str:
        """Instruction set of the kernels in use, e.g. ``avx512``; on a GPU ``sm_90 fused``."""
        return self._model.isa

    def refine(self, arrays: Arrays, puzzle_id: object, steps: int, halt: float | None, trajectory: bool) -> Refinement:
        """Run up to ``steps`` steps from the start."""
        spec = self.spec
        count, stop = check_steps(steps, spec.answer), check_halt(halt)
        puzzle = check_puzzle_id(spec, puzzle_id)
        out = self._session.refine(arrays, puzzle, count, _NEVER_HALT if stop is None else stop, trajectory)
        return _refinement(out, out[1])

    def begin(self, arrays: Arrays, puzzle_id: object) -> None:
        """Start a recursion that :meth:`step` carries on."""
        self._session.begin(arrays, check_puzzle_id(self.spec, puzzle_id))

    def step(self, x: object, features: object, last_action: object) -> Refinement:
        """Run one more step, with fresh context, features or last action where given."""
        out = self._session.step(x, features, last_action)
        return _refinement(out, 0 if math.isnan(out[3]) else 1)

    def end(self) -> None:
        """Forget the recursion, so that a further step needs :meth:`begin`; nothing where another call is under way."""
        with contextlib.suppress(TrmBusyError):
            self._session.end()

    def provenance(self, name: str) -> str | None:
        """Return what the bundle says under ``provenance.<name>``; None where it says nothing."""
        said: str | None = self._model.metadata(f"provenance.{name}")
        return said

    def clone(self) -> FusedBackend:
        """Return another session on the same weights."""
        return type(self)(self._model, **self._session_options)


class _Latest:
    """The call whose answer a session's memory holds. Answers look here, and hold no session that would hold them."""

    call: object = None


class CudaBackend(FusedBackend):
    """All of a call on the first GPU; arrays of the host go there and back, those of the GPU stay where they are."""

    name = "cuda"
    _device = 1
    _held: object = None  # inputs that our own stream may not have read yet

    def __init__(self, source: StrPath | bytes | core.Model, **options: Any) -> None:
        super().__init__(source, **options)
        self._latest = _Latest()

    def __del__(self) -> None:
        """Wait for the inputs to be read: an answer on the GPU may keep the session, whose end waits, but not them."""
        if self._held is not None:
            with contextlib.suppress(TrmError):
                self._finish()

    def refine(self, arrays: Arrays, puzzle_id: object, steps: int, halt: float | None, trajectory: bool) -> Refinement:
        """Run up to ``steps`` steps from the start, and wait for them."""
        with self._next_call():
            found = super().refine(arrays, puzzle_id, steps, halt, trajectory)
            self._held = None
            return found

    def begin(self, arrays: Arrays, puzzle_id: object) -> None:
        """Start a recursion that :meth:`step` carries on."""
        with self._next_call():
            super().begin(arrays, puzzle_id)
            self._held = None

    def refine_on_device(
        self, arrays: Arrays, steps: int, halt: float | None, trajectory: bool, out: object, stream: object
    ) -> DeviceRefinement:
        """Put a whole call on a stream (None: our own) and return at once."""
        session, spec = self._session, self.spec
        if spec.answer != "actions":
            raise TrmUnsupportedError(f"refine_on_device: for action heads, this one is for {spec.answer}; call refine")
        count, stop = check_steps(steps, spec.answer), check_halt(halt)
        own = stream is None
        handle = session.stream() if own else stream_handle(stream)
        if own:
            if self._held is not None:
                self._finish()
            session.order(LEGACY, handle)  # what the default stream still does with our memory, or with the caller's
        placed, kept = zip(
            *(
                place(name, value, np.float32, handle, session.order, own)
                for name, value in zip(ARRAYS, arrays, strict=True)
            ),
            strict=True,
        )
        shape = (spec.answer_rows, spec.dof)
        y_address, keeps_y = out_address(out, shape, handle, session.order, own)
        with self._next_call() as call:
            address = session.refine_async(placed, count, _NEVER_HALT if stop is None else stop, y_address, handle)
        latest, keeps = self._latest, (kept, keeps_y, stream)
        if own:
            self._held = keeps
            session.order(handle, LEGACY)  # who reads `out` on the default stream reads the answer

        def is_current() -> bool:
            return latest.call is call

        def wait() -> Refinement | None:
            if not is_current():
                return None
            found = session.wait(count, trajectory)
            self._held = None
            return _refinement(found, found[1])

        y = out
        if out is None or isinstance(out, DeviceArray):  # whose memory holds this call's answer now
            given = out if out is not None and out.is_current() else None  # another refiner's: ours is an older call's
            both = is_current if given is None else lambda: is_current() and given.is_current()
            y = DeviceArray(address, shape, handle, session.order, both, (stream, keeps_y))
        return DeviceRefinement(y, wait, keeps)

    @contextlib.contextmanager
    def _next_call(self) -> Iterator[object]:
        """Say beforehand that the memory will hold something else; a call that is refused leaves it as it is."""
        latest, before, call = self._latest, self._latest.call, object()
        latest.call = call
        try:
            yield call
        except (TrmInputError, TrmUnsupportedError, TrmBusyError):
            if latest.call is call:
                latest.call = before
            raise

    def _finish(self) -> None:
        """Wait until our own stream has read what it was given."""
        with contextlib.suppress(TrmNotBegunError):  # another call has waited
            self._session.wait(MAX_ASYNC_STEPS, False)
        self._held = None


def _spin_us(park_after_us: object) -> int:
    if park_after_us is None:
        return _NEVER_PARK
    microseconds = check_int("park_after_us", park_after_us)
    if not 0 <= microseconds <= 10**9:
        raise TrmInputError(f"park_after_us: expected None or an int in 0..1000000000, got {microseconds}")
    return microseconds


def _refinement(out: tuple[Any, ...], rows: int) -> Refinement:
    """Name the outputs, those by step cut to the ``rows`` that ran."""
    y, steps_run, status, confidence, duration_us, halt_logits, trajectory, logits = out
    if rows != len(halt_logits):
        halt_logits = halt_logits[:rows]
        trajectory = None if trajectory is None else trajectory[:rows]
        logits = None if logits is None else logits[:rows]
    return Refinement(y, steps_run, _STATUSES[status], confidence, duration_us, halt_logits, trajectory, logits)
