"""A TensorRT network run layer by layer in NumPy, as slow as it is: what engines are built from, checked without a GPU.

It reads the network through TensorRT's own interface, so it sees what the builder sees: what the parser made of a
graph, and loops as they were closed. Only the layers that our graphs come to are known; another one is an error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorrt_rtx as trt

Array = np.ndarray
Values = dict[str, Array]

_TYPES = {
    trt.float32: np.float32,
    trt.float16: np.float16,
    trt.int32: np.int32,
    trt.int64: np.int64,
    trt.int8: np.int8,
    trt.bool: np.bool_,
}
_OP = trt.ElementWiseOperation
_BINARY: dict[Any, Callable[[Array, Array], Array]] = {
    _OP.SUM: np.add,
    _OP.SUB: np.subtract,
    _OP.PROD: np.multiply,
    _OP.DIV: lambda a, b: np.divide(a, b, dtype=a.dtype) if a.dtype.kind == "f" else np.trunc(a / b).astype(a.dtype),
    _OP.FLOOR_DIV: np.floor_divide,
    _OP.MIN: np.minimum,
    _OP.MAX: np.maximum,
    _OP.LESS: np.less,
    _OP.GREATER: np.greater,
    _OP.EQUAL: np.equal,
}
_REDUCE: dict[Any, Callable[..., Array]] = {
    trt.ReduceOperation.AVG: np.mean,
    trt.ReduceOperation.MAX: np.max,
    trt.ReduceOperation.SUM: np.sum,
}


class NetworkRunner:
    """Runs one network; ``layers`` counts what was run in the last call, by kind."""

    def __init__(self, network: Any) -> None:
        self._maker: dict[str, tuple[Any, int]] = {}
        self._limits: dict[str, list[Any]] = {}  # by loop
        self._recurrences: dict[str, list[Any]] = {}
        for layer in (network.get_layer(i) for i in range(network.num_layers)):
            kind = layer.type
            layer.__class__ = _CLASSES[kind]
            for i in range(layer.num_outputs):
                assert layer.get_output(i).name not in self._maker, "two tensors of one name"
                self._maker[layer.get_output(i).name] = (layer, kind)
            if kind == trt.LayerType.TRIP_LIMIT:
                self._limits.setdefault(layer.loop.name, []).append(layer)
            if kind == trt.LayerType.RECURRENCE:
                self._recurrences.setdefault(layer.loop.name, []).append(layer)
        self._outputs = [network.get_output(i) for i in range(network.num_outputs)]
        self._loops: dict[str, tuple[Values, list[Values]]] = {}
        self.trips: list[int] = []

    def run(self, feeds: Mapping[str, Array]) -> Values:
        """Return the outputs by name."""
        self._loops, self.trips = {}, []
        values = dict(feeds)
        return {tensor.name: self._value(tensor, values) for tensor in self._outputs}

    def _value(self, tensor: Any, values: Values) -> Array:
        """Return a tensor's value, after everything that it needs; no recursion, as networks are deep."""
        pending = [tensor]
        while pending:
            wanted = pending[-1]
            if wanted.name in values:
                pending.pop()
                continue
            layer, kind = self._maker[wanted.name]
            if kind == trt.LayerType.LOOP_OUTPUT:
                values[wanted.name] = self._loop_output(layer, values)
                continue
            inputs = [layer.get_input(i) for i in range(layer.num_inputs)]
            missing = [t for t in inputs if t is not None and t.name not in values]
            if missing:
                pending += missing
                continue
            arguments = [None if t is None else values[t.name] for t in inputs]
            result = _RUN[kind](layer, *arguments)
            results = result if isinstance(result, tuple) else (result,)
            for i, value in enumerate(results):
                values[layer.get_output(i).name] = value
        return values[tensor.name]

    def _loop_output(self, layer: Any, values: Values) -> Array:
        """Run the loop, once a call, and return one of its outputs."""
        name = layer.loop.name
        if name not in self._loops:
            self._loops[name] = self._run_loop(name, values)
        last, steps = self._loops[name]
        source = layer.get_input(0)
        if layer.kind == trt.LoopOutput.LAST_VALUE:
            return last[source.name]
        assert layer.kind == trt.LoopOutput.CONCATENATE and layer.axis == 0
        assert self._value(layer.get_input(1), values) == len(steps)
        return np.stack([self._value(source, step) for step in steps])

    def _run_loop(self, name: str, values: Values) -> tuple[Values, list[Values]]:
        """Return what the recurrences hold at the end, and the values of every iteration."""
        recurrences = self._recurrences[name]
        state = {r.get_output(0).name: self._value(r.get_input(0), values) for r in recurrences}
        count = next(limit for limit in self._limits[name] if limit.kind == trt.TripLimit.COUNT)
        others = [limit for limit in self._limits[name] if limit.kind == trt.TripLimit.WHILE]
        trips = int(self._value(count.get_input(0), values))
        self.trips.append(trips)
        known = {key: value for key, value in values.items() if key not in state}
        inputs = {key: value for key, value in known.items() if key not in self._maker}
        steps = []
        for _ in range(trips):
            step = inputs | state
            assert all(bool(self._value(limit.get_input(0), step)) for limit in others)
            state = {r.get_output(0).name: self._value(r.get_input(1), step) for r in recurrences}
            steps.append(step)
        return state, steps


def _constant(layer: Any) -> Array:
    values = layer.weights
    assert isinstance(values, np.ndarray), "a constant of a type that NumPy does not have"
    return np.array(values).reshape(tuple(layer.shape))


def _cast(layer: Any, a: Array) -> Array:
    return a.astype(_TYPES[layer.get_output(0).dtype])


def _shuffle(layer: Any, a: Array, dims: Array | None = None) -> Array:
    a = a.transpose(tuple(layer.first_transpose)[: a.ndim])
    fixed = a.shape if layer.reshape_dims is None else layer.reshape_dims
    wanted = [int(d) for d in (fixed if dims is None else dims)]
    if layer.zero_is_placeholder:
        wanted = [a.shape[i] if d == 0 else d for i, d in enumerate(wanted)]
    a = a.reshape(wanted)
    return a.transpose(tuple(layer.second_transpose)[: a.ndim])


def _slice(layer: Any, a: Array, start: Array | None = None, size: Array | None = None, stride: Any = None) -> Array:
    begin = [int(v) for v in (layer.start if start is None else start)]
    count = [int(v) for v in (layer.shape if size is None else size)]
    step = [int(v) for v in (layer.stride if stride is None else stride)]
    for axis, (b, c, s) in enumerate(zip(begin, count, step, strict=True)):
        assert b >= 0 and (c == 0 or b + (c - 1) * s < a.shape[axis]), "a slice out of bounds"
        a = a.take(b + s * np.arange(c), axis=axis)
    return a


def _gather(layer: Any, a: Array, indices: Array) -> Array:
    assert layer.num_elementwise_dims == 0 and (indices >= 0).all() and (indices < a.shape[layer.axis]).all()
    return np.take(a, indices, axis=layer.axis)


def _axes(mask: int) -> tuple[int, ...]:
    return tuple(i for i in range(8) if mask >> i & 1)


def _softmax(layer: Any, a: Array) -> Array:
    (axis,) = _axes(layer.axes)
    weights = np.exp(a - a.max(axis=axis, keepdims=True))
    return (weights / weights.sum(axis=axis, keepdims=True)).astype(a.dtype)


def _reduce(layer: Any, a: Array) -> Array:
    return _REDUCE[layer.op](a, axis=_axes(layer.axes), keepdims=layer.keep_dims).astype(a.dtype)


def _topk(layer: Any, a: Array, k: Array | None = None) -> tuple[Array, Array]:
    (axis,) = _axes(layer.axes)
    assert layer.op == trt.TopKOperation.MAX and (layer.k if k is None else int(k)) == 1
    index = np.expand_dims(a.argmax(axis=axis), axis)
    return np.take_along_axis(a, index, axis), index.astype(np.int32)


def _scaled(layer: Any, a: Array, scale: Array) -> Array:
    return scale if scale.ndim == 0 else scale.reshape([-1 if i == layer.axis else 1 for i in range(a.ndim)])


def _quantize(layer: Any, a: Array, scale: Array, zero: Array | None = None) -> Array:
    assert zero is None or not np.any(zero)
    return np.clip(np.rint(a / _scaled(layer, a, scale)), -128, 127).astype(np.int8)


def _dequantize(layer: Any, a: Array, scale: Array, zero: Array | None = None) -> Array:
    assert zero is None or not np.any(zero)
    return (a.astype(np.float32) * _scaled(layer, a, scale)).astype(np.float32)


def _fill(layer: Any, shape: Array, start: Array, delta: Array) -> Array:
    assert layer.operation == trt.FillOperation.LINSPACE and len(shape) == 1
    values = start + np.arange(int(shape[0])) * delta.reshape(-1)[0]
    return values.astype(_TYPES[layer.get_output(0).dtype])


def _multiply(layer: Any, a: Array, b: Array) -> Array:
    assert layer.op0 == layer.op1 == trt.MatrixOperation.NONE
    return np.matmul(a.astype(np.float32), b.astype(np.float32)).astype(a.dtype)


def _sigmoid(layer: Any, a: Array) -> Array:
    assert layer.type == trt.ActivationType.SIGMOID
    return (1 / (1 + np.exp(-a))).astype(a.dtype)


def _unary(layer: Any, a: Array) -> Array:
    assert layer.op == trt.UnaryOperation.SQRT
    return np.sqrt(a)


_KIND = trt.LayerType
_LAYERS: list[tuple[Any, Any, Callable[..., Any] | None]] = [
    (_KIND.CONSTANT, trt.IConstantLayer, _constant),
    (_KIND.IDENTITY, trt.IIdentityLayer, lambda layer, a: a),
    (_KIND.CAST, trt.ICastLayer, _cast),
    (_KIND.SHAPE, trt.IShapeLayer, lambda layer, a: np.asarray(a.shape, np.int64)),
    (_KIND.SHUFFLE, trt.IShuffleLayer, _shuffle),
    (_KIND.SQUEEZE, trt.ISqueezeLayer, lambda layer, a, axes: np.squeeze(a, tuple(axes.tolist()))),
    (_KIND.UNSQUEEZE, trt.IUnsqueezeLayer, lambda layer, a, axes: np.expand_dims(a, tuple(axes.tolist()))),
    (_KIND.SLICE, trt.ISliceLayer, _slice),
    (_KIND.GATHER, trt.IGatherLayer, _gather),
    (_KIND.CONCATENATION, trt.IConcatenationLayer, lambda layer, *parts: np.concatenate(parts, layer.axis)),
    (_KIND.FILL, trt.IFillLayer, _fill),
    (_KIND.SELECT, trt.ISelectLayer, lambda layer, *three: np.where(*three)),
    (_KIND.ELEMENTWISE, trt.IElementWiseLayer, lambda layer, a, b: _BINARY[layer.op](a, b)),
    (_KIND.UNARY, trt.IUnaryLayer, _unary),
    (_KIND.ACTIVATION, trt.IActivationLayer, _sigmoid),
    (_KIND.REDUCE, trt.IReduceLayer, _reduce),
    (_KIND.SOFTMAX, trt.ISoftMaxLayer, _softmax),
    (_KIND.TOPK, trt.ITopKLayer, _topk),
    (_KIND.MATRIX_MULTIPLY, trt.IMatrixMultiplyLayer, _multiply),
    (_KIND.QUANTIZE, trt.IQuantizeLayer, _quantize),
    (_KIND.DEQUANTIZE, trt.IDequantizeLayer, _dequantize),
    (_KIND.TRIP_LIMIT, trt.ITripLimitLayer, None),
    (_KIND.RECURRENCE, trt.IRecurrenceLayer, None),
    (_KIND.LOOP_OUTPUT, trt.ILoopOutputLayer, None),
]
_CLASSES = {kind: layer for kind, layer, _ in _LAYERS}
_RUN = {kind: run for kind, _, run in _LAYERS if run is not None}
