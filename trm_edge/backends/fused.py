"""Backend ``fused``: the compiled CPU engine."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np

from .._native import PRECISIONS, core
from ..errors import TrmInputError
from ..inputs import check_halt, check_puzzle_id, check_steps
from ..spec import TrmSpec
from .host import Answer

_NEVER_HALT = -1.0
_NEVER_PARK = -1


class FusedBackend:
    """The C++ engine on one bundle: a shared immutable model and a session of its own."""

    name = "fused"

    def __init__(
        self,
        source: str | os.PathLike[str] | bytes | core.Model,
        *,
        precision: str | None = None,
        threads: int = 1,
        pin: bool = False,
        park_after_us: int | None = None,
    ) -> None:
        """Load ``source``; a model that is loaded already keeps its precision."""
        if precision not in PRECISIONS:
            raise TrmInputError(f"precision: expected None, 'fp32', 'bf16' or 'int8', got {precision!r}")
        if isinstance(source, core.Model):
            self._model = source
        elif isinstance(source, bytes):
            self._model = core.Model(None, source, PRECISIONS[precision])
        else:
            self._model = core.Model(os.fsencode(source), b"", PRECISIONS[precision])
        self._session_options: dict[str, Any] = {"threads": threads, "pin": pin, "park_after_us": park_after_us}
        spin_us = _NEVER_PARK if park_after_us is None else _whole(park_after_us)
        self._session = core.Session(self._model, threads, bool(pin), spin_us)
        self.precision: str = self._model.precision
        keys = [f"spec.{field.name}" for field in fields(TrmSpec)]
        self.spec = TrmSpec.from_metadata({key: self._model.metadata(key) or "" for key in keys})

    @property
    def isa(self) -> str:
        """Instruction set of the kernels in use, e.g. ``avx512``."""
        return self._model.isa

    def refine(
        self, arguments: Mapping[str, Any], steps: int, halt: float | None, last_action: object, trajectory: bool
    ) -> Answer:
        """Run up to ``steps`` steps from the start."""
        count, stop = check_steps(steps, self.spec.answer), check_halt(halt)
        out = self._session.refine(
            self._arguments(arguments, last_action), count, _NEVER_HALT if stop is None else stop, trajectory
        )
        return _answer(out, out[2])

    def begin(self, arguments: Mapping[str, Any], last_action: object) -> None:
        """Start a recursion that :meth:`step` carries on."""
        self._session.begin(self._arguments(arguments, last_action))

    def step(self, x: object, features: object, last_action: object) -> Answer:
        """Run one more step, with fresh context, features or last action where given."""
        out = self._session.step(x, features, last_action)
        return _answer(out, int(not np.isnan(out[3])))

    def clone(self) -> FusedBackend:
        """Return another session on the same weights."""
        return FusedBackend(self._model, **self._session_options)

    def _arguments(self, arguments: Mapping[str, Any], last_action: object) -> tuple[Any, ...]:
        """Return the inputs in the order of ``struct trm_inputs``."""
        given = arguments.get
        puzzle_id = check_puzzle_id(self.spec, given("puzzle_id", 0))
        arrays = (given("x"), given("y0"), given("features"), given("slots"), given("candidates"), given("mask"))
        return (*arrays, last_action, puzzle_id)


def _whole(park_after_us: object) -> int:
    if not isinstance(park_after_us, int) or not 0 <= park_after_us <= 10**9:
        raise TrmInputError(f"park_after_us: expected None or an int in 0..1000000000, got {park_after_us!r}")
    return park_after_us


def _answer(out: tuple[Any, ...], rows: int) -> Answer:
    """Cut the per-step outputs to the ``rows`` that ran."""
    status, y, steps_run, _, duration_us, halt_logits, trajectory, logits = out
    if rows != len(halt_logits):
        halt_logits = halt_logits[:rows]
        trajectory = None if trajectory is None else trajectory[:rows]
        logits = None if logits is None else logits[:rows]
    return Answer(y, steps_run, status, halt_logits, trajectory, logits, duration_us)
