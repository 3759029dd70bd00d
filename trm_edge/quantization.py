"""Lower precisions of the block matrices: the definitions, and the fake-quantised oracle that backends are tested by.

Every matrix product of a block is ``out = a @ w.T``; encoders, decoders, halt head, norms, SwiGLU and residuals
stay as they are. Attention's own products do too, but on GPUs and on processors that multiply bfloat16
(``bf16_attention``): where ``qkv`` is int8 or bf16 they round queries (scaled), keys, values and softmax weights
(before the division by their sum) to bfloat16. A token mixer multiplies transposed rows, so its rows of ``a`` are
channels.

``int8``
    ``w`` per output channel, symmetric: ``scale[n] = float32(max|w[n]| / 127)``, ``q = rint(w / scale)`` clipped to
    -127..127; a channel whose scale is 0 has q 0. ``a`` by scheme:

    ``dynamic``          one scale a row, ``max|a[r]| / 127``; a zero row stays zero
    ``static``           one scale a matrix input, for all steps; what lies beyond is clipped to -127..127
    ``static-per-step``  one scale a matrix input and refinement step; steps beyond the last use the last one's

    Products are exact integers, ``out = (qa @ qw.T) * (scale_a[r] * scale_w[n])``.
``w8a16``
    ``w`` as in ``int8``, and ``a`` is rounded to bfloat16, as what attention multiplies then is on GPUs.
``bf16``
    ``w`` and ``a`` are rounded to bfloat16.
``fp16``
    ``w`` and ``a`` are rounded to float16, and where ``qkv`` is fp16 what attention multiplies too. A weight beyond
    float16 is refused; any other value beyond it becomes NaN, so that the call ends as NONFINITE.
``fp32``
    Nothing is rounded.

``rint`` rounds half to even. Weight scales follow from the weights, so only input scales are stored. A bundle never
names ``fp16`` or ``w8a16`` (:data:`STORED`): of the engines that read bundles only ``cuda`` multiplies them, all
matrices alike, where the caller asks for it, and a bundle is to run everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .errors import TrmBundleError, TrmInputError, TrmUnsupportedError
from .inputs import Array
from .reference import ReferenceModel, softmax_weights
from .spec import MAX_STEPS, TrmSpec

SCHEMES = ("dynamic", "static", "static-per-step")
PRECISIONS = ("int8", "w8a16", "bf16", "fp16", "fp32")
"""The coarsest first."""
STORED = ("int8", "bf16", "fp32")
"""Those that a bundle may name."""
LEVELS = 127
"""Largest magnitude of an int8 value; -128 is not used, so that the grid is symmetric."""


@dataclass(frozen=True)
class Quantization:
    """How the block matrices of one model are rounded.

    ``precision`` names one of :data:`PRECISIONS` for every matrix of the spec. ``input_scale`` holds float32
    ``[steps]`` for every int8 matrix, and nothing where the scheme is ``dynamic``.
    """

    scheme: str
    precision: Mapping[str, str]
    input_scale: Mapping[str, Array] = field(default_factory=dict)

    @property
    def steps(self) -> int:
        """Scales of one matrix input: 0 for ``dynamic``, 1 for ``static``, else the number of calibrated steps."""
        if self.scheme == "dynamic":
            return 0
        return max((scale.size for scale in self.input_scale.values()), default=1)

    @property
    def summary(self) -> str:
        """The one word for it: the coarsest of its precisions."""
        return next(precision for precision in PRECISIONS if precision in {*self.precision.values(), "fp32"})

    def matrices(self, precision: str) -> list[str]:
        """Return the names of the matrices of one precision."""
        return [name for name, own in self.precision.items() if own == precision]

    def scale(self, name: str, k: int) -> np.float32:
        """Return the input scale of matrix ``name`` in step ``k`` = 1, 2, ..."""
        scales = self.input_scale[name]
        value: np.float32 = scales[min(k, len(scales)) - 1]
        return value

    def check(self, spec: TrmSpec, precisions: Sequence[str] = STORED) -> None:
        """Raise :class:`TrmBundleError` unless this fits ``spec``, with each matrix in one of ``precisions``."""
        if self.scheme not in SCHEMES:
            raise TrmBundleError(f"quantization.scheme: expected one of {', '.join(SCHEMES)}, got {self.scheme!r}")
        _same_names("quantization.precision", self.precision, matrix_names(spec))
        for name, precision in self.precision.items():
            if precision not in precisions:
                expected = ", ".join(precisions)
                raise TrmBundleError(f"quantization.precision.{name}: expected one of {expected}, got {precision!r}")
        scaled = [] if self.scheme == "dynamic" else self.matrices("int8")
        _same_names("quantization.input_scale", self.input_scale, scaled)
        least, most = {"dynamic": (0, 0), "static": (1, 1), "static-per-step": (1, MAX_STEPS)}[self.scheme]
        if not least <= self.steps <= most:
            raise TrmBundleError(
                f"quantization.steps: expected {least}..{most} for {self.scheme}, and the scales have {self.steps}"
            )
        for name in scaled:
            _check_scale(name, self.input_scale[name], self.steps)


class QuantizedModel(ReferenceModel):
    """The fake-quantised oracle: the recursion of the reference with the block matrices rounded.

    Parameters
    ----------
    spec, tensors
        The model.
    quantization
        How its matrices are rounded; checked against ``spec``.
    dtype
        Arithmetic of everything that is not rounded. Integer products are exact in either.
    bf16_attention
        Whether attention's products are rounded to bfloat16 too, as the fused engine does on ``avx512bf16``, and a GPU.
        Those after an fp16 ``qkv`` are rounded to float16 in any case.
    """

    def __init__(
        self,
        spec: TrmSpec,
        tensors: Mapping[str, Array],
        quantization: Quantization,
        dtype: Any = np.float64,
        *,
        bf16_attention: bool = False,
    ) -> None:
        super().__init__(spec, tensors, dtype)
        quantization.check(spec, PRECISIONS)
        self.quantization = quantization
        self._bf16_attention = bf16_attention
        int8 = {name: quantize_weight(tensors[name + ".weight"]) for name in quantization.matrices("int8")}
        # Integers up to 127 * 127 * in are exact in float64, whose products are fast.
        self._int8 = {name: (q.astype(np.float64), scale.astype(self.dtype)) for name, (q, scale) in int8.items()}
        for name in quantization.matrices("w8a16"):
            q, scale = quantize_weight(tensors[name + ".weight"])
            self.w[name + ".weight"] = q.astype(self.dtype) * scale.astype(self.dtype)[:, None]
        for name in quantization.matrices("bf16"):
            self.w[name + ".weight"] = round_bf16(self.w[name + ".weight"])
        for name in quantization.matrices("fp16"):
            self.w[name + ".weight"] = _round_fp16_weight(name + ".weight", self.w[name + ".weight"])

    def product(self, name: str, a: Array, k: int) -> Array:
        """Return ``a @ w.T`` in the precision of matrix ``name``."""
        precision = self.quantization.precision[name]
        if precision != "int8":
            return super().product(name, _ROUND[precision](a), k)
        weight, weight_scale = self._int8[name]
        if self.quantization.scheme == "dynamic":
            q, scale = quantize_rows(a)
        else:
            scale = np.full((len(a), 1), self.quantization.scale(name, k), self.dtype)
            q = quantize_static(a, scale)
        out: Array = (q.astype(np.float64) @ weight.T).astype(self.dtype) * (scale * weight_scale)
        return out

    def attend(self, name: str, query: Array, key: Array, value: Array) -> Array:
        """Return ``softmax(query key.T) value`` for every head."""
        precision = self.quantization.precision[name + "qkv"]
        if precision == "fp32" or not (precision == "fp16" or self._bf16_attention):
            return super().attend(name, query, key, value)
        rounded = round_fp16 if precision == "fp16" else round_bf16
        weights = rounded(softmax_weights(rounded(query) @ rounded(key).transpose(0, 2, 1)))
        out: Array = weights @ rounded(value) / weights.sum(axis=-1, keepdims=True)
        return out


def matrix_names(spec: TrmSpec) -> list[str]:
    """Return the names of the block matrices: their tensors' names without ``.weight``."""
    return [name.removesuffix(".weight") for name in spec.tensor_shapes() if name.startswith("blocks.")]


def uniform(spec: TrmSpec, precision: str) -> Quantization:
    """Return the ``dynamic`` scheme with every matrix in ``precision``: what a bundle without calibration runs."""
    if precision not in PRECISIONS:
        raise TrmInputError(f"precision: expected one of {', '.join(PRECISIONS)}, got {precision!r}")
    return Quantization("dynamic", dict.fromkeys(matrix_names(spec), precision))


def quantize_weight(weight: Array) -> tuple[Array, Array]:
    """Return int8 ``q [out, in]`` and float32 ``scale [out]`` of a weight ``[out, in]``."""
    exact = weight.astype(np.float64)
    scale = (np.abs(exact).max(axis=1) / LEVELS).astype(np.float32)
    divisor = np.where(scale > 0, scale, np.inf).astype(np.float64)  # too small for a scale: 0
    q = np.clip(np.rint(exact / divisor[:, None]), -LEVELS, LEVELS)
    return q.astype(np.int8), scale


def quantize_rows(a: Array) -> tuple[Array, Array]:
    """Return ``q`` and ``scale [rows, 1]`` of the dynamic scheme, both in the dtype of ``a``; NaN stays NaN."""
    scale: Array = np.abs(a).max(axis=1, keepdims=True) / a.dtype.type(LEVELS)
    with np.errstate(invalid="ignore"):  # Inf / Inf: a row that overflowed is not finite afterwards either
        q: Array = np.rint(a / np.where(scale == 0, 1, scale))
    return q, scale


def quantize_static(a: Array, scale: Array) -> Array:
    """Return ``clip(rint(a / scale), -127, 127)`` in the dtype of ``a``."""
    q: Array = np.clip(np.rint(a / scale), -LEVELS, LEVELS)
    return q


def round_bf16(values: Array) -> Array:
    """Round to bfloat16, half to even, and return it in the dtype of ``values``; float64 goes through float32.

    >>> round_bf16(np.float32([1.00390625, 1.01171875]))  # both halfway
    array([1.      , 1.015625], dtype=float32)
    """
    with np.errstate(over="ignore", invalid="ignore"):
        single = np.ascontiguousarray(values, np.float32)
    bits = single.view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + (bits >> np.uint32(16) & np.uint32(1))) & np.uint32(0xFFFF0000)
    out: Array = np.where(np.isnan(single), single, rounded.view(np.float32)).astype(values.dtype)
    return out


def round_fp16(values: Array) -> Array:
    """Round to float16, half to even, and return it in the dtype of ``values``; what is beyond it becomes NaN.

    >>> round_fp16(np.float32([1.00048828125, 2**-25, 65519, -65520]))  # the first two halfway
    array([1.0000e+00, 0.0000e+00, 6.5504e+04,        nan], dtype=float32)
    """
    with np.errstate(over="ignore", invalid="ignore"):
        half = np.asarray(values, np.float16)
    out: Array = np.where(np.isinf(half), np.nan, half).astype(values.dtype)
    return out


_ROUND: Mapping[str, Callable[[Array], Array]] = {
    "w8a16": round_bf16,
    "bf16": round_bf16,
    "fp16": round_fp16,
    "fp32": lambda values: values,
}
"""Of the inputs of a matrix."""


def _round_fp16_weight(name: str, weight: Array) -> Array:
    rounded = round_fp16(weight)
    if np.isnan(rounded).any():
        most = np.abs(weight).max()
        raise TrmUnsupportedError(f"precision fp16: {name} holds {most:g}, beyond float16; use bf16")
    return rounded


def _same_names(what: str, given: Mapping[str, object], expected: list[str]) -> None:
    missing = [name for name in expected if name not in given]
    unknown = sorted(set(given) - set(expected))
    if missing:
        raise TrmBundleError(f"{what}.{missing[0]}: missing (of {len(missing)})")
    if unknown:
        raise TrmBundleError(f"{what}.{unknown[0]}: unknown (of {len(unknown)}); this model or scheme has none")


def _check_scale(name: str, scale: Array, steps: int) -> None:
    if scale.dtype != np.float32 or scale.shape != (steps,):
        raise TrmBundleError(
            f"tensor quantization.input_scale.{name}: expected float32 [{steps}], got {scale.dtype} {list(scale.shape)}"
        )
    if not (np.isfinite(scale) & (scale > 0)).all():
        raise TrmBundleError(f"tensor quantization.input_scale.{name}: expected finite values > 0")
