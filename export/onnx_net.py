"""``net`` as one model-local function and its calls, or written out where it is rounded.

A function body sees no outer scope, so the weights are its inputs, and every call names the same initialisers: the
recursion costs a node a call, not a copy of the network. A rounded ``net`` is written out at every evaluation, as its
Q/DQ may not stand in a function; it shares the initialisers too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from trm_edge.spec import TrmSpec

from .onnx_products import PlainProducts, Products
from .onnx_scope import DOMAIN, OPSET, Scope, Weights, onnx

NET = "net"


def net_function(spec: TrmSpec) -> onnx.FunctionProto:
    """Return ``net(h [L, D], [cos, sin [L, D/H/2],] weights...) -> [L, D]``: the blocks, each post-norm."""
    scope = Scope()
    names = _weight_names(spec)
    rope = ["cos", "sin"] if spec.positions == "rope" else []
    scope.add("Identity", write_net(scope, spec, PlainProducts(), "h", rope), name="out")
    opsets = [onnx.helper.make_opsetid("", OPSET)]
    return onnx.helper.make_function(DOMAIN, NET, ["h", *rope, *names], ["out"], scope.nodes, opsets)


def write_net(scope: Scope, spec: TrmSpec, products: Products, h: str, rope: Sequence[str]) -> str:
    """Append the blocks of one evaluation of ``net``, with ``products`` for its matrices."""
    for i in range(spec.num_layers):
        h = _block(scope, spec, products, h, f"blocks.{i}.", rope)
    return h


def call_net(scope: Scope, spec: TrmSpec, weights: Weights, h: str, rope: Sequence[str]) -> str:
    """Append one evaluation of ``net``; ``rope`` holds cos and sin of the rows, or nothing."""
    for name in spec.tensor_shapes():
        if name.startswith("blocks."):
            (weights.plain if ".token_mixer." in name else weights.transposed)(name)
    return scope.add(NET, h, *rope, *_weight_names(spec), domain=DOMAIN)


def rope_tables(spec: TrmSpec) -> tuple[np.ndarray, np.ndarray]:
    """Return cos and sin ``[rows, D/H/2]`` float32 for every position, computed in float64."""
    half = spec.head_size // 2
    angle = np.outer(np.arange(spec.max_rows), spec.rope_theta ** (-np.arange(half) / half))
    return np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)


def _weight_names(spec: TrmSpec) -> list[str]:
    """Names of the function's weight inputs, which are the names of the initialisers too.

    Weights that multiply rows from the right stand as ``[in, out]``; token mixers multiply from the left as they are.
    """
    names = [name for name in spec.tensor_shapes() if name.startswith("blocks.")]
    return [name if ".token_mixer." in name else f"{name}.t" for name in names]


def _block(scope: Scope, spec: TrmSpec, products: Products, h: str, block: str, rope: Sequence[str]) -> str:
    if spec.mixer == "attention":
        mixed = _attention(scope, spec, products, h, block + "attention.", rope)
        h = _add_and_norm(scope, spec, h, mixed, axis=1)
    else:
        h = _add_and_norm(scope, spec, h, _token_mixer(scope, spec, products, h, block + "token_mixer."), axis=0)
    return _add_and_norm(scope, spec, h, _swiglu(scope, spec, products, h, block + "mlp."), axis=1)


def _add_and_norm(scope: Scope, spec: TrmSpec, h: str, branch: str, axis: int) -> str:
    """Residual, then RMSNorm without weight along ``axis`` (0: along the tokens)."""
    total = scope.add("Add", h, branch)
    square = scope.add("Mul", total, total)
    mean = scope.add("ReduceMean", square, scope.ints(axis), keepdims=1)
    root = scope.add("Sqrt", scope.add("Add", mean, scope.scalar(spec.norm_eps)))
    # NaN where the squares overflowed: a division by infinity would give zeros, an answer that looks sound.
    root = scope.add("Add", root, scope.add("Sub", mean, mean))
    return scope.add("Div", total, root)


def _attention(scope: Scope, spec: TrmSpec, products: Products, h: str, name: str, rope: Sequence[str]) -> str:
    qkv = products.rows(scope, h, f"{name}qkv")
    heads = scope.add("Reshape", qkv, scope.ints(-1, 3, spec.num_heads, spec.head_size))
    heads = scope.add("Transpose", heads, perm=[1, 2, 0, 3])  # [3, H, L, D/H]
    qk, v = scope.split(heads, [2, 1], axis=0)
    if rope:
        qk = _rotate(scope, spec, qk, *rope)
    q, k = scope.split(qk, [1, 1], axis=0)
    scores = scope.add("MatMul", q, scope.add("Transpose", k, perm=[0, 1, 3, 2]))
    scores = scope.add("Mul", scores, scope.scalar(1 / math.sqrt(spec.head_size)))
    mixed = scope.add("MatMul", scope.add("Softmax", scores, axis=-1), v)  # [1, H, L, D/H]
    rows = scope.add("Reshape", scope.add("Transpose", mixed, perm=[0, 2, 1, 3]), scope.ints(-1, spec.hidden_size))
    return products.rows(scope, rows, f"{name}out")


def _rotate(scope: Scope, spec: TrmSpec, heads: str, cos: str, sin: str) -> str:
    """Rotary positions, pairing a head's two halves; cos and sin ``[L, D/H/2]`` broadcast over the heads."""
    half = spec.head_size // 2
    first, second = scope.split(heads, [half, half], axis=3)
    left = scope.add("Sub", scope.add("Mul", first, cos), scope.add("Mul", second, sin))
    right = scope.add("Add", scope.add("Mul", second, cos), scope.add("Mul", first, sin))
    return scope.add("Concat", left, right, axis=3)


def _swiglu(scope: Scope, spec: TrmSpec, products: Products, h: str, name: str) -> str:
    both = products.rows(scope, h, f"{name}gate_up")
    gate, up = scope.split(both, [spec.inner_size] * 2, axis=1)
    return products.rows(scope, _gated(scope, gate, up), f"{name}down")


def _token_mixer(scope: Scope, spec: TrmSpec, products: Products, h: str, name: str) -> str:
    """Mix tokens: the SwiGLU of the transposed rows without a transpose, ``W h`` instead of ``(h^T W^T)^T``."""
    both = products.columns(scope, f"{name}gate_up", h)
    gate, up = scope.split(both, [spec.token_inner_size] * 2, axis=0)
    return products.columns(scope, f"{name}down", _gated(scope, gate, up))


def _gated(scope: Scope, gate: str, up: str) -> str:
    silu = scope.add("Mul", gate, scope.add("Sigmoid", gate))
    return scope.add("Mul", silu, up)
