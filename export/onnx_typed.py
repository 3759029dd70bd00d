"""Graphs in the number formats that an engine multiplies in: what TensorRT, strongly typed, runs as it is written.

========  ==============================================================================================================
``fp32``  float32
``fp16``  every product: both operands as float16, the result back to float32 (GPUs of sm75 have no other)
``bf16``  the same in bfloat16, for the block matrices
``int8``  Q/DQ around both operands of block matrices, as in :mod:`.onnx_products`
``fp8``   the same in float8 (e4m3): a weight's scale is ``max|w[n]| / 448`` a channel, an input's is its int8 scale
          times 127 / 448, so that both cover the same range
========  ==============================================================================================================

Everything else stays float32, as in the compiled engine: norms, softmax, SwiGLU and residuals, and but for ``fp16``
encoders, decoders and attention's own products. There are no functions in these graphs: TensorRT writes them out
anyway, and a node that stands once has one name by which to find its layer in the engine.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from trm_edge.bundle import Bundle
from trm_edge.errors import TrmInputError, TrmUnsupportedError
from trm_edge.extras import import_extra
from trm_edge.graph import GRAPH_PRECISIONS
from trm_edge.inputs import Array
from trm_edge.quantization import LEVELS, Quantization, matrix_names

from .onnx_graph import assemble
from .onnx_products import RoundedProducts
from .onnx_scope import Scope, Weights, onnx

FP8_MOST = 448.0
"""Largest magnitude of float8 e4m3."""


class TypedProducts(RoundedProducts):
    """Products in step ``k``, each matrix in the format that ``quantization.precision`` names."""

    def rows(self, scope: Scope, h: str, name: str) -> str:
        """``h @ w.T``, as float32."""
        return self._widened(scope, super().rows(scope, h, name), name)

    def columns(self, scope: Scope, name: str, h: str) -> str:
        """``w @ h``, as float32."""
        return self._widened(scope, super().columns(scope, name, h), name)

    def _input(self, scope: Scope, a: str, name: str) -> str:
        precision = self._quantization.precision[name]
        if precision == "bf16":
            return scope.add("Cast", a, to=onnx.TensorProto.BFLOAT16)
        if precision == "fp8":
            value = self._quantization.scale(name, self._k) * np.float32(LEVELS / FP8_MOST)
            scale, zero = scope.scalar(value), scope.scalar(0, float_type("fp8"))
            return scope.add("DequantizeLinear", scope.add("QuantizeLinear", a, scale, zero), scale, zero)
        return super()._input(scope, a, name)

    def _weight(self, scope: Scope, name: str, *, transposed: bool) -> str:
        tensor, precision = f"{name}.weight", self._quantization.precision[name]
        suffix = ".t" if transposed else ""
        if precision == "bf16":
            values = self._weights.derived(f"{name}.bf16", tensor, lambda weight: weight.astype(float_type("bf16")))
            return self._weights.table(f"{name}.bf16{suffix}", values.T if transposed else values)
        if precision == "fp8":
            q, scale = self._weights.derived(f"{name}.fp8", tensor, fp8_weight)
            values = self._weights.table(f"{name}.fp8{suffix}", q.T if transposed else q)
            scales = self._weights.table(f"{name}.fp8_scale", scale)
            return scope.add("DequantizeLinear", values, scales, axis=1 if transposed else 0)
        return super()._weight(scope, name, transposed=transposed)

    def _widened(self, scope: Scope, value: str, name: str) -> str:
        if self._quantization.precision[name] == "bf16":
            return scope.add("Cast", value, to=onnx.TensorProto.FLOAT)
        return value


def build_typed(bundle: Bundle, loop: str, steps: int, precision: str) -> onnx.ModelProto:
    """Return a graph of the bundle in ``precision``, one of ``GRAPH_PRECISIONS``; ``loop`` as in :func:`.build_onnx`.

    ``int8`` and ``bf16`` are what a bundle was calibrated to, matrix by matrix, where it was; ``fp8`` takes the places
    of its int8 matrices.

    Raises
    ------
    TrmInputError
        An unknown precision.
    TrmUnsupportedError
        ``int8`` or ``fp8`` of a bundle without static scales.
    """
    weights = Weights(bundle.tensors)
    quantization = engine_quantization(bundle, precision, loop)
    model = assemble(bundle, loop, steps, weights, partial(TypedProducts, weights, quantization), precision)
    if precision == "fp16":
        _halve(model)
    return model


def engine_quantization(bundle: Bundle, precision: str, loop: str) -> Quantization:
    """Return the format of every block matrix, with the input scales of those that have one."""
    if precision not in GRAPH_PRECISIONS:
        raise TrmInputError(f"precision: expected one of {', '.join(GRAPH_PRECISIONS)}, got {precision!r}")
    own = bundle.quantization
    if precision == "bf16" and own is not None and own.summary == "bf16":
        return own
    if precision in ("fp32", "fp16", "bf16"):
        inside = "bf16" if precision == "bf16" else "fp32"  # fp16 is made of the whole graph
        return Quantization("static", dict.fromkeys(matrix_names(bundle.spec), inside))
    if own is None or not own.matrices("int8"):
        raise TrmUnsupportedError(
            f"precision {precision}: needs input scales, and this bundle has none; "
            "make one with `trm-edge calibrate --scheme static`"
        )
    if own.scheme != "static" and not (own.scheme == "static-per-step" and loop == "unrolled"):
        raise TrmUnsupportedError(
            f"precision {precision}: this bundle was calibrated with --scheme {own.scheme}, whose scales a graph of "
            f"form {loop} cannot hold; calibrate with --scheme static"
        )
    if precision == "fp8":
        named = {name: "fp8" if each == "int8" else each for name, each in own.precision.items()}
        return Quantization(own.scheme, named, own.input_scale)
    return own


def _halve(model: onnx.ModelProto) -> None:
    """Let every ``MatMul`` multiply float16 and return float32; its weights become ``<name>.fp16``."""
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    halves: dict[str, onnx.TensorProto] = {}  # by the name of the weight that each replaces
    _halve_products(model.graph, weights, halves)
    kept = [tensor for name, tensor in weights.items() if name not in halves]
    del model.graph.initializer[:]
    model.graph.initializer.extend([*kept, *halves.values()])


def _halve_products(
    graph: onnx.GraphProto, weights: Mapping[str, onnx.TensorProto], halves: dict[str, onnx.TensorProto]
) -> None:
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):  # the body of a loop
                _halve_products(attribute.g, weights, halves)
        if node.op_type != "MatMul":
            nodes.append(node)
            continue
        result = node.output[0]
        for i, name in enumerate(node.input):
            if name in weights:
                if name not in halves:
                    halves[name] = _half(weights[name])
                node.input[i] = halves[name].name
            else:
                node.input[i] = f"{result}.fp16.{i}"
                nodes.append(onnx.helper.make_node("Cast", [name], [node.input[i]], to=onnx.TensorProto.FLOAT16))
        node.output[0] = f"{result}.fp16"
        nodes += [node, onnx.helper.make_node("Cast", [node.output[0]], [result], to=onnx.TensorProto.FLOAT)]
    del graph.node[:]
    graph.node.extend(nodes)


def _half(weight: onnx.TensorProto) -> onnx.TensorProto:
    """Return ``<matrix>.weight[.t]`` as ``<matrix>.fp16[.t]``; one that does not fit is an error, not an infinity."""
    exact = onnx.numpy_helper.to_array(weight)
    with np.errstate(over="ignore"):
        values = exact.astype(np.float16)
    if not np.isfinite(values).all():
        most = np.abs(exact).max()
        raise TrmUnsupportedError(f"precision fp16: {weight.name} holds {most:g}, beyond float16; use bf16")
    return onnx.numpy_helper.from_array(values, weight.name.replace(".weight", ".fp16"))


def float_type(precision: str) -> np.dtype[Any]:
    """Return the NumPy type of ``bf16`` or ``fp8``, from the package ml_dtypes."""
    ml_dtypes = import_extra("ml_dtypes", f"a graph in {precision}", "tensorrt")
    named: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16 if precision == "bf16" else ml_dtypes.float8_e4m3fn)
    return named


def fp8_weight(weight: Array) -> tuple[Array, Array]:
    """Return float8 ``q [out, in]`` and float32 ``scale [out]`` of a weight ``[out, in]``."""
    scale = (np.abs(weight).max(axis=1) / np.float32(FP8_MOST)).astype(np.float32)
    scale = np.where(scale > 0, scale, np.float32(1))
    exact = np.clip(weight.astype(np.float64) / scale[:, None], -FP8_MOST, FP8_MOST)
    return exact.astype(np.float32).astype(float_type("fp8")), scale
