"""ONNX graphs of a part of the recursion, of one fixed size, made for speed in a runtime."""

from __future__ import annotations

import math

import numpy as np
import onnx
import onnx.inliner

from trm_edge.export.onnx_graph import build_onnx
from trm_edge.export.onnx_net import call_net, net_function, rope_tables
from trm_edge.export.onnx_scope import DOMAIN, IR_VERSION, OPSET, Scope, Weights

from .common import Problem

MICROSOFT = "com.microsoft"


def graph(problem: Problem, form: str, contrib: bool = False) -> onnx.ModelProto:
    """Return the graph of ``form``, without local functions.

    Names are ``h -> out`` (``net``), ``e, y, z -> y_next, z_next`` (``step``), ``e, y, z -> y_next`` (``whole``), and
    those of the exporter (``export``). ``contrib`` takes ONNX Runtime's own operators where they fit.
    """
    if form == "export":
        model = build_onnx(problem.bundle, "unrolled", problem.steps)
        return onnx.inliner.inline_local_functions(model)
    spec = problem.bundle.spec
    net = _ContribNet(problem) if contrib else _PlainNet(problem)
    scope, shape = net.scope, [problem.rows(), spec.hidden_size]
    if form == "net":
        inputs, outputs = ["h"], ["out"]
        scope.add("Identity", net("h"), name="out")
    else:
        inputs, outputs = ["e", "y", "z"], ["y_next", "z_next"] if form == "step" else ["y_next"]
        y, z = "y", "z"
        for _ in range((1 if form == "step" else problem.steps) * spec.h_cycles):
            for _ in range(spec.l_cycles):
                z = net(scope.add("Add", z, scope.add("Add", y, "e")))
            y = net(scope.add("Add", y, z))
        for name, value in zip(outputs, (y, z), strict=False):
            scope.add("Identity", value, name=name)
    values = [
        [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name in names]
        for names in (inputs, outputs)
    ]
    made = onnx.helper.make_model(
        onnx.helper.make_graph(scope.nodes, form, *values, net.weights.initializers()),
        functions=[] if contrib else [net_function(spec)],
        opset_imports=[onnx.helper.make_opsetid(d, v) for d, v in (("", OPSET), (DOMAIN, 1), (MICROSOFT, 1))],
        ir_version=IR_VERSION,
    )
    return made if contrib else onnx.inliner.inline_local_functions(made)


class _PlainNet:
    """``net`` as the exporter writes it."""

    def __init__(self, problem: Problem) -> None:
        self.scope, self.weights = Scope(), Weights(problem.bundle.tensors)
        self._spec = problem.bundle.spec
        self._rope: list[str] = []
        if self._spec.positions == "rope":
            tables = zip(("cos", "sin"), rope_tables(self._spec), strict=True)
            self._rope = [self.weights.table(name, table[problem.positions()]) for name, table in tables]

    def __call__(self, h: str) -> str:
        return call_net(self.scope, self._spec, self.weights, h, self._rope)


class _ContribNet:
    """``net`` in the fused operators of ONNX Runtime, every matrix the right operand of its product."""

    def __init__(self, problem: Problem) -> None:
        self.scope, self.weights = Scope(), Weights(problem.bundle.tensors)
        spec = self._spec = problem.bundle.spec
        w = self.weights
        self._ones = {
            size: w.table(f"ones.{size}", np.ones(size, np.float32)) for size in (spec.hidden_size, problem.rows())
        }
        self._rows = problem.rows()
        self._batch = w.table("batch", np.asarray([1, problem.rows(), spec.hidden_size], np.int64))
        self._flat = w.table("flat", np.asarray([problem.rows(), spec.hidden_size], np.int64))
        if spec.positions == "rope":
            self._positions = w.table("positions", np.asarray([problem.positions()], np.int64))
            self._tables = [w.table(n, t) for n, t in zip(("cos", "sin"), rope_tables(spec), strict=True)]

    def __call__(self, h: str) -> str:
        spec, scope = self._spec, self.scope
        h = scope.add("Reshape", h, self._batch)
        for i in range(spec.num_layers):
            block = f"blocks.{i}."
            if spec.mixer == "attention":
                h = self._norm(h, self._attention(h, block + "attention."), spec.hidden_size)
            else:
                turned = scope.add("Transpose", h, perm=[0, 2, 1])
                mixed = self._swiglu(turned, block + "token_mixer.", spec.token_inner_size)
                h = scope.add("Transpose", self._norm(turned, mixed, self._rows), perm=[0, 2, 1])
            h = self._norm(h, self._swiglu(h, block + "mlp.", spec.inner_size), spec.hidden_size)
        return scope.add("Reshape", h, self._flat)

    def _attention(self, h: str, name: str) -> str:
        spec, scope = self._spec, self.scope
        qkv = self._product(h, name + "qkv.weight")
        q, k, v = scope.split(qkv, [spec.hidden_size] * 3, axis=2)
        if spec.positions == "rope":
            q, k = (
                scope.add(
                    "RotaryEmbedding", t, self._positions, *self._tables, domain=MICROSOFT, num_heads=spec.num_heads
                )
                for t in (q, k)
            )
        scale = 1 / math.sqrt(spec.head_size)
        mixed = scope.add("MultiHeadAttention", q, k, v, domain=MICROSOFT, num_heads=spec.num_heads, scale=scale)
        return self._product(mixed, name + "out.weight")

    def _swiglu(self, h: str, name: str, inner: int) -> str:
        scope = self.scope
        gate, up = scope.split(self._product(h, name + "gate_up.weight"), [inner] * 2, axis=2)
        silu = scope.add("QuickGelu", gate, domain=MICROSOFT, alpha=1.0)
        return self._product(scope.add("Mul", silu, up), name + "down.weight")

    def _product(self, h: str, name: str) -> str:
        return self.scope.add("MatMul", h, self.weights.transposed(name))

    def _norm(self, h: str, branch: str, size: int) -> str:
        return self.scope.add(
            "SkipSimplifiedLayerNormalization",
            h,
            branch,
            self._ones[size],
            domain=MICROSOFT,
            epsilon=self._spec.norm_eps,
        )
