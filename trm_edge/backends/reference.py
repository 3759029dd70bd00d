"""Backend ``reference``: the NumPy oracle behind the same interface. Slow, and right."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..bundle import Bundle
from ..inputs import Inputs
from ..reference import Carry, ReferenceModel, StepOutput
from .host import HostBackend


class ReferenceBackend(HostBackend):
    """The float64 oracle of ``bundle``."""

    name = "reference"
    precision = "fp64"

    def __init__(self, bundle: Bundle, model: ReferenceModel | None = None) -> None:
        super().__init__(bundle.spec, bundle.tensors)
        self._bundle = bundle
        self._model = model or ReferenceModel(bundle.spec, bundle.tensors)

    def outputs(self, inputs: Inputs, steps: int) -> Iterator[StepOutput]:
        """Yield the steps one by one."""
        carry = self._model.begin(inputs)
        for _ in range(steps):
            carry, output = self._model.step(carry)
            yield output

    def start(self, inputs: Inputs) -> Carry:
        """Return the carry before the first step."""
        return self._model.begin(inputs)

    def advance(self, carry: Any, inputs: Inputs, refreshed: bool) -> tuple[Any, StepOutput]:
        """Run one step."""
        if refreshed:
            carry = self._model.refresh(carry, x=inputs.x, features=inputs.features)
        return self._model.step(carry)

    def clone(self) -> ReferenceBackend:
        """Return another session on the same weights."""
        return ReferenceBackend(self._bundle, self._model)
