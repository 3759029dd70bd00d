"""Backend ``reference``: the NumPy oracles behind the same interface. Slow, and right."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..bundle import Bundle
from ..errors import TrmUnsupportedError
from ..inputs import Inputs
from ..quantization import QuantizedModel, uniform
from ..reference import Carry, ReferenceModel, StepOutput
from .host import HostBackend


class ReferenceBackend(HostBackend):
    """The oracle ``model`` of ``bundle``; the float64 one where none is given."""

    name = "reference"

    def __init__(self, bundle: Bundle, model: ReferenceModel | None = None) -> None:
        super().__init__(bundle.spec, bundle.tensors)
        self._bundle = bundle
        self._model = model or ReferenceModel(bundle.spec, bundle.tensors)
        self.precision = model.quantization.summary if isinstance(model, QuantizedModel) else "fp64"

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

    def provenance(self, name: str) -> str | None:
        """Return what the bundle says under ``provenance.<name>``; None where it says nothing."""
        return self._bundle.provenance.get(name)

    def clone(self) -> ReferenceBackend:
        """Return another session on the same weights."""
        return ReferenceBackend(self._bundle, self._model)


_ROUNDED = ("bf16", "int8", "fp16", "w8a16")


def oracle(bundle: Bundle, precision: str | None) -> ReferenceModel:
    """Return the oracle of what the compiled engine runs at ``precision``; ``fp64`` rounds nothing.

    ``int8`` and None are as calibrated; without a calibration ``int8`` has a scale a row, and None rounds nothing. What
    is not rounded is float64 in all of them, so ``fp32`` has none.
    """
    if precision not in (None, "fp64", *_ROUNDED):
        raise TrmUnsupportedError(
            f"precision: backend reference runs fp64, {', '.join(_ROUNDED)}, or None, as calibrated; got {precision!r}"
        )
    quantization = bundle.quantization if precision in (None, "int8") else None
    if quantization is None and precision in _ROUNDED:
        quantization = uniform(bundle.spec, precision)
    if quantization is None or quantization.summary == "fp32":
        return ReferenceModel(bundle.spec, bundle.tensors)
    return QuantizedModel(bundle.spec, bundle.tensors, quantization)
