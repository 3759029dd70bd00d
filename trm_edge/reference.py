"""The oracle: the model in NumPy, float64, written to be read.

This file decides what is right; every backend is tested against it. Run with ``dtype=np.float32`` it measures how
much plain float32 rounding moves an answer, which the recursion amplifies.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .inputs import Array, Inputs
from .spec import TrmSpec


@dataclass(frozen=True)
class Carry:
    """State between steps: what was asked, the injected rows ``e`` and the two recurrent states, each ``[L, D]``.

    ``steps`` counts the steps that led here.
    """

    inputs: Inputs
    e: Array
    y: Array
    z: Array
    steps: int = 0


@dataclass(frozen=True)
class StepOutput:
    """One decoded step: ``y`` before any projection, ``logits`` (slots and tokens), ``halt_logit``."""

    y: Array
    logits: Array | None
    halt_logit: float


class ReferenceModel:
    """The recursion of ``spec`` with ``tensors``, evaluated in ``dtype``."""

    def __init__(self, spec: TrmSpec, tensors: Mapping[str, Array], dtype: Any = np.float64) -> None:
        self.spec = spec
        self.dtype = np.dtype(dtype)
        self.w = {name: np.asarray(tensors[name]).astype(self.dtype) for name in spec.tensor_shapes()}

    def begin(self, inputs: Inputs) -> Carry:
        """Encode the inputs: the rows injected at every latent update, and the first y and z."""
        spec, w = self.spec, self.w
        rows = spec.registers + inputs.answer_rows + (0 if spec.answer == "tokens" else len(inputs.x))
        y = np.tile(w["y_init"], (rows, 1))
        y[spec.registers : spec.registers + inputs.answer_rows] += self._answer_encoder(inputs)
        return Carry(inputs, self._injected(inputs), y, np.tile(w["z_init"], (rows, 1)))

    def refresh(self, carry: Carry, *, x: Array | None = None, features: Array | None = None) -> Carry:
        """Return ``carry`` with fresh context or features; y and z are kept."""
        inputs = carry.inputs
        inputs = replace(
            inputs, x=inputs.x if x is None else x, features=inputs.features if features is None else features
        )
        return replace(carry, inputs=inputs, e=self._injected(inputs))

    def step(self, carry: Carry) -> tuple[Carry, StepOutput]:
        """Run one refinement step: ``h_cycles * (l_cycles + 1)`` evaluations of ``net``, then a decode."""
        y, z, k = carry.y, carry.z, carry.steps + 1
        positions = self._positions(carry.inputs)
        for _ in range(self.spec.h_cycles):
            for _ in range(self.spec.l_cycles):
                z = self.net(z + (y + carry.e), positions, k)
            y = self.net(y + z, positions, k)
        carry = replace(carry, y=y, z=z, steps=k)
        return carry, self._decode(carry)

    def product(self, name: str, a: Array, k: int) -> Array:
        """Return ``a @ w.T`` for the block matrix ``name``, in step ``k`` = 1, 2, ...; a subclass may round here."""
        out: Array = a @ self.w[name + ".weight"].T
        return out

    def net(self, h: Array, positions: list[int], k: int) -> Array:
        """Evaluate the network on ``h [L, D]`` in step ``k``; every block is post-norm."""
        eps = self.spec.norm_eps
        for i in range(self.spec.num_layers):
            block = f"blocks.{i}."
            if self.spec.mixer == "attention":
                h = rms_norm(h + self._attention(h, block + "attention.", positions, k), eps)
            else:  # the transposed rows mix tokens, and the norm runs along the tokens too
                h = rms_norm(h.T + self._swiglu(h.T, block + "token_mixer.", k), eps).T
            h = rms_norm(h + self._swiglu(h, block + "mlp.", k), eps)
        return h

    def _attention(self, h: Array, name: str, positions: list[int], k: int) -> Array:
        heads, size = self.spec.num_heads, self.spec.head_size
        qkv = self.product(name + "qkv", h, k).reshape(len(h), 3, heads, size)
        query, key, value = (qkv[:, i].transpose(1, 0, 2) for i in range(3))  # [H, L, D/H]
        if self.spec.positions == "rope":
            query, key = (rotate(t, positions, self.spec.rope_theta) for t in (query, key))
        mixed = self.attend(name, query / self.dtype.type(np.sqrt(size)), key, value)
        return self.product(name + "out", mixed.transpose(1, 0, 2).reshape(h.shape), k)

    def attend(self, name: str, query: Array, key: Array, value: Array) -> Array:
        """Return ``softmax(query key.T) value`` of every head ``[H, L, D/H]``, for the attention called ``name``."""
        out: Array = softmax(query @ key.transpose(0, 2, 1)) @ value
        return out

    def _swiglu(self, h: Array, name: str, k: int) -> Array:
        gate, up = np.split(self.product(name + "gate_up", h, k), 2, axis=-1)
        return self.product(name + "down", silu(gate) * up, k)

    def _injected(self, inputs: Inputs) -> Array:
        """Return ``e = [registers ; answer_input ; context_encoder(x)]``, plus learned positions."""
        spec, w = self.spec, self.w
        if spec.answer == "tokens":
            registers = np.zeros(spec.registers * spec.hidden_size, self.dtype)
            if spec.registers:
                registers[: spec.puzzle_size] = w["puzzle_embedding"][inputs.puzzle_id]
            parts = [registers.reshape(spec.registers, spec.hidden_size), w["token_embedding"][inputs.x]]
        else:
            parts = [w["registers"], self._answer_input(inputs)]
            if spec.max_context:
                parts.append(self._encoded("x", inputs.x, "context_encoder.weight"))
        e: Array = np.concatenate(parts)
        if spec.positions == "learned":
            e = e + w["position_embedding"][self._positions(inputs)]
        return e

    def _answer_input(self, inputs: Inputs) -> Array:
        if self.spec.answer == "slots":
            return self._encoded("slots", inputs.slots, "slot_encoder.weight")
        rows: Array = self.w["time_embedding"]
        if self.spec.feature_size:
            rows = rows + self._encoded("features", inputs.features, "features_encoder.weight")
        return rows

    def _answer_encoder(self, inputs: Inputs) -> Array | float:
        if self.spec.answer == "tokens":
            return 0.0
        if self.spec.answer == "actions":  # without a draft the mean action stands for it, which normalises to 0
            if inputs.y0 is None:
                return 0.0
            return self._encoded("y0", inputs.y0, "answer_encoder.weight")
        choices: Array = np.concatenate([self._keys(inputs), self.w["key_none"][None]])
        return choices[inputs.y0]  # -1 takes the last row

    def _keys(self, inputs: Inputs) -> Array:
        return self._encoded("candidates", inputs.candidates, "key.weight")

    def _decode(self, carry: Carry) -> StepOutput:
        spec, w, inputs = self.spec, self.w, carry.inputs
        rows = carry.y[spec.registers : spec.registers + inputs.answer_rows]
        halt = float((carry.y[:1] @ w["halt_head.weight"].T)[0, 0] + w["halt_head.bias"][0])
        if spec.answer == "actions":
            draft = w["normalization.y0.mean"] if inputs.y0 is None else inputs.y0.astype(self.dtype)
            delta = w["normalization.y0.std"] * (rows @ w["answer_decoder.weight"].T)
            return StepOutput(draft + delta, None, halt)
        if spec.answer == "tokens":
            logits = rows @ w["answer_decoder.weight"].T
            return StepOutput(logits.argmax(axis=-1).astype(np.int32), logits, halt)
        scores = (rows @ w["query.weight"].T) @ self._keys(inputs).T / self.dtype.type(np.sqrt(spec.hidden_size))
        assert inputs.mask is not None
        logits = np.where(inputs.mask, scores, self.dtype.type(-np.inf))
        return StepOutput(masked_argmax(logits), logits, halt)

    def _encoded(self, name: str, values: Array | None, weight: str) -> Array:
        """Normalise an input by its statistics and map it to D."""
        assert values is not None
        mean, std = self.w[f"normalization.{name}.mean"], self.w[f"normalization.{name}.std"]
        rows: Array = (values.astype(self.dtype) - mean) / std @ self.w[weight].T
        return rows

    def _positions(self, inputs: Inputs) -> list[int]:
        context = 0 if self.spec.answer == "tokens" else int(inputs.x.shape[0])
        return self.spec.row_positions(inputs.answer_rows, context)


def rms_norm(h: Array, eps: float) -> Array:
    """RMSNorm without weight along the last axis (Zhang and Sennrich, arXiv 1910.07467)."""
    normed: Array = h / np.sqrt(np.mean(h * h, axis=-1, keepdims=True) + h.dtype.type(eps))
    return normed


def silu(h: Array) -> Array:
    """``h * sigmoid(h)``, written so that no exponential overflows."""
    decay = np.exp(-np.abs(h))
    sigmoid: Array = np.where(h < 0, decay, 1) / (1 + decay)
    return h * sigmoid


def softmax_weights(scores: Array) -> Array:
    """Softmax along the last axis before it is divided by its sum: the largest weight is 1."""
    weights: Array = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return weights


def softmax(scores: Array) -> Array:
    """Softmax along the last axis."""
    weights = softmax_weights(scores)
    normed: Array = weights / weights.sum(axis=-1, keepdims=True)
    return normed


def rotate(heads: Array, positions: list[int], theta: float) -> Array:
    """Rotary positions on ``heads [H, L, size]`` (arXiv 2104.09864), pairing a head's two halves."""
    half = heads.shape[-1] // 2
    angle = np.outer(np.asarray(positions, np.float64), theta ** (-np.arange(half) / half))
    cos, sin = np.cos(angle).astype(heads.dtype), np.sin(angle).astype(heads.dtype)
    first, second = heads[..., :half], heads[..., half:]
    return np.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)


def masked_argmax(logits: Array) -> Array:
    """Index of the largest logit of each row, ties to the lowest; -1 where a row is all -inf or empty."""
    if logits.shape[-1] == 0:
        return np.full(len(logits), -1, np.int32)
    best = logits.argmax(axis=-1)
    return np.where(np.isneginf(logits).all(axis=-1), -1, best).astype(np.int32)


def project_limits(
    actions: Array, lower: Array, upper: Array, velocity: Array, last_action: Array | None = None
) -> tuple[Array, bool]:
    """Project ``actions [T, dof]`` float32 onto bounds and velocity per tick; the oracle of ``trm_project_limits``.

    Returns the projected actions, and whether a step had to stay outside the bounds because ``last_action`` is
    farther outside than one velocity step: the answer then approaches them at the velocity limit.
    """
    out = np.empty_like(actions, dtype=np.float32)
    outside = False
    previous = last_action
    for t, action in enumerate(actions):
        if previous is None:
            out[t] = _between(action, lower, upper)
        else:
            low, high = _reach(previous, -velocity), _reach(previous, velocity)
            above, below = low > upper, high < lower
            inside = _between(action, np.where(low > lower, low, lower), np.where(high < upper, high, upper))
            out[t] = np.where(above, low, np.where(below, high, inside))
            outside |= bool((above | below).any())
        previous = out[t]
    return out, outside


def _between(action: Array, least: Array, most: Array) -> Array:
    """Clip with the comparisons of the engine, so that zeros keep their sign (np.clip leaves that open)."""
    return np.where(action < least, least, np.where(action > most, most, action))


def _reach(previous: Array, move: Array) -> Array:
    """Float32 value farthest from ``previous`` in the direction of ``move``, and not beyond it in exact arithmetic."""
    a, b = previous.astype(np.float64), move.astype(np.float64)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        target = a + b
        rounded = target.astype(np.float32)  # past the largest float32 comes infinity, which is beyond
        # a + b is target + rest exactly (TwoSum); an infinite move makes `past` NaN.
        of_move = target - a
        rest = (a - (target - of_move)) + (b - of_move)
        past = (rounded.astype(np.float64) - target) - rest
        return np.where(np.where(move > 0, past > 0, past < 0), np.nextafter(rounded, previous), rounded)
