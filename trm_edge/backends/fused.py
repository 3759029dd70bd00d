"""Backend ``fused``: the compiled CPU engine."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np

from .._native import core
from ..inputs import check_halt, check_puzzle_id, check_steps
from ..spec import TrmSpec
from .host import Answer

_NEVER_HALT = -1.0


class FusedBackend:
    """The C++ engine on one bundle: a shared immutable model and a session of its own."""

    name = "fused"
    precision = "fp32"

    def __init__(self, source: str | os.PathLike[str] | bytes | core.Model) -> None:
        if isinstance(source, core.Model):
            self._model = source
        elif isinstance(source, bytes):
            self._model = core.Model.load_memory(source)
        else:
            self._model = core.Model.load_file(os.fsencode(source))
        self._session = core.Session(self._model)
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
        return FusedBackend(self._model)

    def _arguments(self, arguments: Mapping[str, Any], last_action: object) -> dict[str, Any]:
        puzzle_id = check_puzzle_id(self.spec, arguments.get("puzzle_id", 0))
        return {**arguments, "last_action": last_action, "puzzle_id": puzzle_id}


def _answer(out: tuple[Any, ...], rows: int) -> Answer:
    """Cut the per-step outputs to the ``rows`` that ran."""
    status, y, steps_run, _, duration_us, halt_logits, trajectory, logits = out
    if rows != len(halt_logits):
        halt_logits = halt_logits[:rows]
        trajectory = None if trajectory is None else trajectory[:rows]
        logits = None if logits is None else logits[:rows]
    return Answer(y, steps_run, status, halt_logits, trajectory, logits, duration_us)
