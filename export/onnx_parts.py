"""The parts around ``net``: encoders, the recursion of one step, decoders. Written against ``reference.py``."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from trm_edge.spec import TrmSpec

from .onnx_net import call_net, rope_tables, write_net
from .onnx_products import Products
from .onnx_scope import Scope, Weights


@dataclass(frozen=True)
class Start:
    """Names of what is computed once a call: injected rows, first y and z ``[L, D]``, and what the decoder needs."""

    e: str
    y: str
    z: str
    rope: tuple[str, ...]  # cos and sin of the rows, where positions are rotary
    answer_end: str  # int64 [1]: R + S
    keys: str  # slots: [M, D]


@dataclass(frozen=True)
class StepNames:
    """Names of one step's results; ``logits`` is empty for actions."""

    y: str
    z: str
    answer: str
    logits: str
    halt_logit: str


class Parts:
    """Writes the parts of ``spec`` into scopes; the graph inputs have the names of ``Refiner.refine``'s arguments.

    ``products`` gives the products of the block matrices in step k; None: plain ones, in a function.
    """

    def __init__(self, spec: TrmSpec, weights: Weights, products: Callable[[int], Products] | None = None) -> None:
        self.spec = spec
        self.w = weights
        self._products = products

    def start(self, scope: Scope) -> Start:
        """Write what is computed once: ``e``, ``y`` and ``z`` before the first step."""
        spec, w = self.spec, self.w
        keys = self._encoded(scope, "candidates", "key.weight") if spec.answer == "slots" else ""
        context = self._context_rows(scope)
        answer = self._answer_rows(scope)
        positions = self._positions(scope, answer, context)
        e = self._injected(scope, positions)
        shape = scope.add("Shape", e)
        y = self._first_y(scope, shape, keys, context)
        z = scope.add("Expand", w.plain("z_init"), shape)
        rope: tuple[str, ...] = ()
        if spec.positions == "rope":
            tables = zip(("rope.cos", "rope.sin"), rope_tables(spec), strict=True)
            rope = tuple(self._at(scope, w.table(name, table), positions) for name, table in tables)
        end = scope.ints(spec.registers + spec.answer_rows)
        if answer:
            end = scope.add("Add", scope.ints(spec.registers), answer)
        return Start(e, y, z, rope, end, keys)

    def step(self, scope: Scope, start: Start, y: str, z: str, k: int = 1) -> StepNames:
        """Write refinement step ``k``: ``h_cycles * (l_cycles + 1)`` evaluations of ``net``, then the decoders."""
        spec, w = self.spec, self.w
        for _ in range(spec.h_cycles):
            for _ in range(spec.l_cycles):
                z = self._net(scope, scope.add("Add", z, scope.add("Add", y, start.e)), start.rope, k)
            y = self._net(scope, scope.add("Add", y, z), start.rope, k)
        decoded = y
        if self._products is not None and self._products(k).hides_nan:
            # A row that overflowed is NaN itself, and no other row sees it: y - y is NaN there, else 0.
            lost = scope.add("ReduceSum", scope.add("Sub", y, y), scope.ints(0, 1), keepdims=1)
            decoded = scope.add("Add", y, lost)
        rows = scope.rows(decoded, scope.ints(spec.registers), start.answer_end)
        answer, logits = self._decode(scope, rows, start.keys)
        first = scope.rows(decoded, scope.ints(0), scope.ints(1))
        halt = scope.add("MatMul", first, w.transposed("halt_head.weight"))
        halt = scope.add("Squeeze", scope.add("Add", halt, w.plain("halt_head.bias")), scope.ints(0, 1))
        return StepNames(y, z, answer, logits, halt)

    def _net(self, scope: Scope, h: str, rope: tuple[str, ...], k: int) -> str:
        if self._products is None:
            return call_net(scope, self.spec, self.w, h, rope)
        return write_net(scope, self.spec, self._products(k), h, rope)

    def _context_rows(self, scope: Scope) -> str:
        """P as int64 [1]; empty where it is fixed."""
        spec = self.spec
        return _first_size(scope, "x") if spec.max_context and spec.mixer != "mlp_t" else ""

    def _answer_rows(self, scope: Scope) -> str:
        """S as int64 [1]; empty where it is fixed."""
        return _first_size(scope, "slots") if self.spec.answer == "slots" else ""

    def _positions(self, scope: Scope, answer: str, context: str) -> str:
        """Positions of the rows as int64 ``[L]``; empty where they are all of 0..max_rows, or not used."""
        spec = self.spec
        if spec.positions == "none" or not (answer or context):
            return ""
        end = spec.registers + spec.answer_rows
        parts = []
        if answer:
            parts.append(_range(scope, 0, scope.add("Add", scope.ints(spec.registers), answer)))
        else:
            parts.append(scope.constant(np.arange(end)))
        if context:
            parts.append(_range(scope, end, scope.add("Add", scope.ints(end), context)))
        return scope.add("Concat", *parts, axis=0)

    def _at(self, scope: Scope, table: str, positions: str) -> str:
        return scope.add("Gather", table, positions, axis=0) if positions else table

    def _injected(self, scope: Scope, positions: str) -> str:
        """``e = [registers ; answer_input ; context_encoder(x)]``, plus learned positions."""
        spec, w = self.spec, self.w
        if spec.answer == "tokens":
            parts = [scope.add("Gather", w.plain("token_embedding"), "x", axis=0)]
            if spec.registers:
                parts.insert(0, self._puzzle_rows(scope))
        else:
            parts = [w.plain("registers"), self._answer_input(scope)]
            if spec.max_context:
                parts.append(self._encoded(scope, "x", "context_encoder.weight"))
        e = scope.add("Concat", *parts, axis=0)
        if spec.positions == "learned":
            e = scope.add("Add", e, self._at(scope, w.plain("position_embedding"), positions))
        return e

    def _puzzle_rows(self, scope: Scope) -> str:
        spec = self.spec
        row = scope.add("Gather", self.w.plain("puzzle_embedding"), "puzzle_id", axis=0)
        padding = spec.registers * spec.hidden_size - spec.puzzle_size
        if padding:
            row = scope.add("Concat", row, scope.constant(np.zeros(padding, np.float32)), axis=0)
        return scope.add("Reshape", row, scope.ints(spec.registers, spec.hidden_size))

    def _answer_input(self, scope: Scope) -> str:
        if self.spec.answer == "slots":
            return self._encoded(scope, "slots", "slot_encoder.weight")
        rows = self.w.plain("time_embedding")
        if self.spec.feature_size:
            rows = scope.add("Add", rows, self._encoded(scope, "features", "features_encoder.weight"))
        return rows

    def _first_y(self, scope: Scope, shape: str, keys: str, context: str) -> str:
        """``y_init`` on every row, and the encoded draft on the answer rows."""
        spec, init = self.spec, self.w.plain("y_init")
        if spec.answer == "tokens":
            return scope.add("Expand", init, shape)
        if spec.answer == "actions":
            draft = self._encoded(scope, "y0", "answer_encoder.weight")
        else:
            draft = self._chosen_keys(scope, keys)
        parts = [scope.add("Expand", init, scope.ints(spec.registers, spec.hidden_size)), scope.add("Add", init, draft)]
        if context:
            rows = scope.add("Concat", context, scope.ints(spec.hidden_size), axis=0)
            parts.append(scope.add("Expand", init, rows))
        elif spec.max_context:
            parts.append(scope.add("Expand", init, scope.ints(spec.max_context, spec.hidden_size)))
        return scope.add("Concat", *parts, axis=0)

    def _chosen_keys(self, scope: Scope, keys: str) -> str:
        """``key(candidate[y0])``; -1 takes ``key_none``, put behind the last key (not every engine wraps indices)."""
        none = scope.add("Unsqueeze", self.w.plain("key_none"), scope.ints(0))
        choices = scope.add("Concat", keys, none, axis=0)
        count = scope.add("Cast", _first_size(scope, "candidates"), to=_INT32)
        unset = scope.add("Less", "y0", scope.scalar(0, np.int32))
        return scope.add("Gather", choices, scope.add("Where", unset, count, "y0"), axis=0)

    def _encoded(self, scope: Scope, name: str, weight: str) -> str:
        """Normalise an input by its statistics and map it to D."""
        centred = scope.add("Sub", name, self.w.plain(f"normalization.{name}.mean"))
        normed = scope.add("Div", centred, self.w.plain(f"normalization.{name}.std"))
        return scope.add("MatMul", normed, self.w.transposed(weight))

    def _decode(self, scope: Scope, rows: str, keys: str) -> tuple[str, str]:
        """Return the answer and its logits (none for actions)."""
        spec, w = self.spec, self.w
        if spec.answer == "actions":
            delta = scope.add("MatMul", rows, w.transposed("answer_decoder.weight"))
            delta = scope.add("Mul", w.plain("normalization.y0.std"), delta)
            return scope.add("Add", "y0", delta), ""
        if spec.answer == "tokens":
            logits = scope.add("MatMul", rows, w.transposed("answer_decoder.weight"))
            return _argmax(scope, logits), logits
        queries = scope.add("MatMul", rows, w.transposed("query.weight"))
        scores = scope.add("MatMul", queries, scope.add("Transpose", keys, perm=[1, 0]))
        scores = scope.add("Mul", scores, scope.scalar(1 / math.sqrt(spec.hidden_size)))
        logits = scope.add("Where", "mask", scores, scope.scalar(-np.inf))
        allowed = scope.add("ReduceMax", scope.add("Cast", "mask", to=_INT32), scope.ints(1), keepdims=0)
        some = scope.add("Greater", allowed, scope.scalar(0, np.int32))
        return scope.add("Where", some, _argmax(scope, logits), scope.scalar(-1, np.int32)), logits


_INT32 = 6  # onnx.TensorProto.INT32


def _argmax(scope: Scope, logits: str) -> str:
    """Index of the largest logit of each row, ties to the lowest, as int32."""
    best = scope.add("ArgMax", logits, axis=1, keepdims=0, select_last_index=0)
    return scope.add("Cast", best, to=_INT32)


def _first_size(scope: Scope, value: str) -> str:
    return scope.add("Shape", value, start=0, end=1)


def _range(scope: Scope, start: int, end: str) -> str:
    """``start .. end - 1`` as int64; ``end`` is int64 [1]."""
    stop = scope.add("Squeeze", end, scope.ints(0))
    return scope.add("Range", scope.scalar(start, np.int64), stop, scope.scalar(1, np.int64))
