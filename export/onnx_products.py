"""The matrix products of the blocks: plain ones, or with explicit Q/DQ from a bundle's calibration.

int8: ``QuantizeLinear`` and ``DequantizeLinear`` around the input, a per-channel ``DequantizeLinear`` on int8 weights,
and a ``MatMul`` of both, which is the pattern that engines turn into an integer product. Nothing of it stands in a
function body, as TensorRT-RTX cannot parse a function with Q/DQ that is called twice. bf16: both operands
are rounded, the product is one of floats.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from trm_edge.errors import TrmUnsupportedError
from trm_edge.quantization import LEVELS, Quantization, quantize_weight, round_bf16

from .onnx_scope import Scope, Weights, onnx


class Products(Protocol):
    """Writes the products of block matrices, named as in :func:`trm_edge.quantization.matrix_names`."""

    @property
    def hides_nan(self) -> bool:
        """Whether an operand that is not finite may make a finite product."""

    def rows(self, scope: Scope, h: str, name: str) -> str:
        """``h @ w.T``; h is ``[L, in]``."""

    def columns(self, scope: Scope, name: str, h: str) -> str:
        """``w @ h``; h is ``[in, D]``, as token mixers see it."""


class PlainProducts:
    """float32. Weights that multiply rows stand as ``[in, out]`` under ``<name>.weight.t``, others as they are."""

    hides_nan = False

    def rows(self, scope: Scope, h: str, name: str) -> str:
        """``h @ w.T``."""
        return scope.add("MatMul", h, f"{name}.weight.t")

    def columns(self, scope: Scope, name: str, h: str) -> str:
        """``w @ h``."""
        return scope.add("MatMul", f"{name}.weight", h)


class RoundedProducts:
    """Products in step ``k`` of a calibrated model; every step shares the weights' initialisers."""

    def __init__(self, weights: Weights, quantization: Quantization, k: int = 1) -> None:
        self._weights, self._quantization, self._k = weights, quantization, k

    @property
    def hides_nan(self) -> bool:
        """``QuantizeLinear`` to int8 makes any byte of NaN."""
        return bool(self._quantization.matrices("int8"))

    def rows(self, scope: Scope, h: str, name: str) -> str:
        """``h @ w.T``, rounded."""
        return scope.add("MatMul", self._input(scope, h, name), self._weight(scope, name, transposed=True))

    def columns(self, scope: Scope, name: str, h: str) -> str:
        """``w @ h``, rounded."""
        return scope.add("MatMul", self._weight(scope, name, transposed=False), self._input(scope, h, name))

    def _input(self, scope: Scope, a: str, name: str) -> str:
        precision = self._quantization.precision[name]
        if precision == "bf16":
            narrow = scope.add("Cast", a, to=onnx.TensorProto.BFLOAT16)
            return scope.add("Cast", narrow, to=onnx.TensorProto.FLOAT)
        if precision == "fp32":
            return a
        value = self._quantization.scale(name, self._k)
        scale, zero = scope.scalar(value), scope.scalar(0, np.int8)
        a = scope.add("Max", a, scope.scalar(-LEVELS * value))  # QuantizeLinear would go down to -128
        return scope.add("DequantizeLinear", scope.add("QuantizeLinear", a, scale, zero), scale, zero)

    def _weight(self, scope: Scope, name: str, *, transposed: bool) -> str:
        tensor, precision = f"{name}.weight", self._quantization.precision[name]
        suffix = ".t" if transposed else ""
        if precision == "int8":
            q, scale = self._weights.derived(f"{name}.int8", tensor, quantize_weight)
            values = self._weights.table(f"{name}.int8{suffix}", q.T if transposed else q)
            # TensorRT takes no scale of 0; q is 0 there, with any scale
            scales = self._weights.table(f"{name}.scale", np.where(scale > 0, scale, np.float32(1)))
            return scope.add("DequantizeLinear", values, scales, axis=1 if transposed else 0)
        if precision == "bf16":
            rounded = self._weights.derived(f"{name}.bf16", tensor, round_bf16)
            return self._weights.table(f"{name}.bf16{suffix}", rounded.T if transposed else rounded)
        return self._weights.transposed(tensor) if transposed else self._weights.plain(tensor)


def check_form(quantization: Quantization, loop: str) -> None:
    """Raise :class:`TrmUnsupportedError` where a graph of this form cannot express the scheme."""
    if quantization.scheme == "dynamic" and quantization.matrices("int8"):
        raise TrmUnsupportedError(
            "scheme dynamic: a scale a row cannot be written with Q/DQ; calibrate with --scheme static or "
            "static-per-step, or export the float graph with --precision fp32"
        )
    if quantization.scheme == "static-per-step" and loop != "unrolled":
        raise TrmUnsupportedError(
            f"scheme static-per-step: a {loop} graph runs the same nodes in every step; export it with "
            "--loop unrolled, or calibrate with --scheme static"
        )
