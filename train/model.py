"""The head in torch: the recursion of :mod:`trm_edge.reference`, batched, padded and differentiable.

Shapes use the symbols of :mod:`trm_edge.spec` with a leading batch ``B``. A batch is a dictionary of tensors by the
names of the training data: ``x, x_len, y0, features, slots, candidates, mask, s_len, m_len, puzzle_id``. Padding
stands at the end of each array; what it holds changes neither answers nor gradients.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from trm_edge.errors import TrmInputError
from trm_edge.inputs import Array
from trm_edge.quantization import LEVELS, Quantization
from trm_edge.spec import TrmSpec, identity_statistics

Batch = Mapping[str, Tensor]


@dataclass(frozen=True)
class Carry:
    """State between steps: ``y`` and ``z``, each ``[L, B, D]``.

    Rows come first, so that mixing tokens is one matrix product over ``[L, B * D]``, and nothing is ever transposed.
    ``steps`` counts the steps that led here.
    """

    y: Tensor
    z: Tensor
    steps: int = 0

    def detach(self) -> Carry:
        """Return the same state, cut from the graph."""
        return Carry(self.y.detach(), self.z.detach(), self.steps)


@dataclass(frozen=True)
class StepOutput:
    """One decoded step of a batch.

    ``y``: ``[B, T, dof]`` for actions, before any projection, else ``[B, S]`` indices; ``logits``: ``[B, S, M or V]``,
    None for actions; ``halt_logit``: ``[B]``.
    """

    y: Tensor
    logits: Tensor | None
    halt_logit: Tensor


@dataclass(frozen=True)
class _Rows:
    """What the rows of a batch are: which keys may be attended to, and the rotations of their positions."""

    keys: Tensor | None  # [B, 1, 1, L] bool, None where every row is real
    rope: tuple[Tensor, Tensor] | None  # cos and sin, each [L, head_size / 2]


class TrmHead(nn.Module):
    """The model of ``spec``; its ``state_dict`` has exactly the names of ``spec.tensor_shapes()``.

    Weights are parameters, drawn anew from torch's global generator; ``normalization.*`` and ``limits.*`` are buffers
    and start as the identity. With a ``quantization`` the block matrices and their inputs are rounded as
    :class:`trm_edge.quantization.QuantizedModel` rounds them; gradients pass straight through the rounding, and stop
    where a value is clipped.

    >>> head = TrmHead(spec)  # doctest: +SKIP
    >>> carry = head.begin(batch)  # doctest: +SKIP
    >>> carry, out = head.step(carry, batch)  # doctest: +SKIP
    """

    def __init__(self, spec: TrmSpec, quantization: Quantization | None = None) -> None:
        super().__init__()
        self.spec = spec
        self.quantization = quantization
        statistics = identity_statistics(spec)
        for name, shape in spec.tensor_shapes().items():
            owner, leaf = self._owner(name)
            if name in statistics:
                owner.register_buffer(leaf, torch.from_numpy(statistics[name]))
            else:
                owner.register_parameter(leaf, nn.Parameter(initial_weight(spec, name, shape)))
        self._weights = dict(self.named_parameters()) | dict(self.named_buffers())

    def zero_residuals(self) -> None:
        """Set the last matrix of every mixer and MLP to zero, so that a block begins as the norm of its input."""
        with torch.no_grad():
            for name, weight in self.named_parameters():
                if name.startswith("blocks.") and name.endswith((".out.weight", ".down.weight")):
                    weight.zero_()

    def begin(self, batch: Batch) -> Carry:
        """Return the first state: ``y_init`` plus the encoded draft, and ``z_init``."""
        draft = self._answer_encoder(batch)
        size = len(batch["x"])
        context = 0 if self.spec.answer == "tokens" else batch["x"].shape[1]
        rows = self.spec.registers + self._answer_rows(batch) + context
        y = self.w("y_init").expand(rows, size, -1)
        if draft is not None:
            y = y + F.pad(draft.transpose(0, 1), (0, 0, 0, 0, self.spec.registers, context))
        return Carry(y, self.w("z_init").expand(rows, size, -1))

    def step(self, carry: Carry, batch: Batch, grad_cycles: str = "all") -> tuple[Carry, StepOutput]:
        """Run one refinement step and decode it.

        Parameters
        ----------
        carry
            What :meth:`begin` or the step before returned.
        batch
            The same arrays as there; ``x`` and ``features`` may be fresh.
        grad_cycles
            ``all`` differentiates every one of the ``h_cycles``, ``last`` the last one only, as the TRM paper does.
        """
        spec = self.spec
        e, rows = self._injected(batch), self._rows(batch)
        y, z, k = carry.y, carry.z, carry.steps + 1
        for cycle in range(spec.h_cycles):
            silent = grad_cycles == "last" and cycle < spec.h_cycles - 1
            with torch.set_grad_enabled(torch.is_grad_enabled() and not silent):
                for _ in range(spec.l_cycles):
                    z = self._net(z + (y + e), rows, k)
                y = self._net(y + z, rows, k)
        return Carry(y, z, k), self._decode(y, batch)

    def refine(self, batch: Batch, steps: int) -> list[StepOutput]:
        """Run ``steps`` refinement steps from the draft and return every one."""
        carry, outputs = self.begin(batch), []
        for _ in range(steps):
            carry, output = self.step(carry, batch)
            outputs.append(output)
        return outputs

    def draft(self, batch: Batch) -> Tensor:
        """Return ``y0``, or what stands for it where there is none: the mean action, or -1 for every slot."""
        if "y0" in batch:
            return batch["y0"]
        if self.spec.answer == "slots":
            return torch.full(batch["slots"].shape[:2], -1, device=batch["slots"].device)
        return self.w("normalization.y0.mean").expand(len(batch["x"]), self.spec.answer_rows, -1)

    def w(self, name: str) -> Tensor:
        """Return a tensor by its name in the spec."""
        return self._weights[name]

    def _apply(self, fn: Any, recurse: bool = True) -> TrmHead:
        """Move or convert the tensors, then look them up anew: buffers are replaced by it."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self._weights = dict(self.named_parameters()) | dict(self.named_buffers())
        return self

    def _owner(self, name: str) -> tuple[nn.Module, str]:
        """Return the (new) submodule that holds tensor ``name``, and the name's last part."""
        module: nn.Module = self
        *path, leaf = name.split(".")
        for part in path:
            if part not in module._modules:
                module.add_module(part, nn.Module())
            module = module.get_submodule(part)
        return module, leaf

    def _net(self, h: Tensor, rows: _Rows, k: int) -> Tensor:
        """Evaluate the network on ``h [L, B, D]`` in step ``k``; every block is post-norm."""
        eps = self.spec.norm_eps
        for i in range(self.spec.num_layers):
            block = f"blocks.{i}."
            if self.spec.mixer == "attention":
                h = rms_norm(h + self._attention(h, block + "attention.", rows, k), -1, eps)
            else:  # the norm runs along the tokens too
                h = rms_norm(h + self._token_mixer(h, block + "token_mixer.", k), 0, eps)
            h = rms_norm(h + self._mlp(h, block + "mlp.", k), -1, eps)
        return h

    def _attention(self, h: Tensor, name: str, rows: _Rows, k: int) -> Tensor:
        heads, size = self.spec.num_heads, self.spec.head_size
        qkv = F.linear(self._input(name + "qkv", h, -1, k), self._matrix(name + "qkv"))
        q, key, v = qkv.view(*h.shape[:2], 3, heads, size).permute(2, 1, 3, 0, 4)  # [B, H, L, head_size]
        if rows.rope is not None:
            q, key = rotate(q, *rows.rope), rotate(key, *rows.rope)
        mixed = F.scaled_dot_product_attention(q, key, v.to(q.dtype), attn_mask=rows.keys)
        joined = mixed.permute(2, 0, 1, 3).flatten(2)
        return F.linear(self._input(name + "out", joined, -1, k), self._matrix(name + "out"))

    def _token_mixer(self, h: Tensor, name: str, k: int) -> Tensor:
        """SwiGLU along the rows: weights stand on the left of ``[L, B * D]``."""
        columns = self._input(name + "gate_up", h.flatten(1), 0, k)
        gate, up = (half @ columns for half in self._matrix(name + "gate_up").chunk(2))
        return (self._matrix(name + "down") @ self._input(name + "down", F.silu(gate) * up, 0, k)).view_as(h)

    def _mlp(self, h: Tensor, name: str, k: int) -> Tensor:
        """SwiGLU; gate and up are two products, as halves of one would not be contiguous, which costs more."""
        h = self._input(name + "gate_up", h, -1, k)
        gate, up = (F.linear(h, half) for half in self._matrix(name + "gate_up").chunk(2))
        return F.linear(self._input(name + "down", F.silu(gate) * up, -1, k), self._matrix(name + "down"))

    def _matrix(self, name: str) -> Tensor:
        """Return block matrix ``name`` in its precision; int8 has a scale per output channel."""
        weight, how = self.w(name + ".weight"), self.quantization
        if how is None or how.precision[name] == "fp32":
            return weight
        return fake_int8(weight, -1) if how.precision[name] == "int8" else fake_bf16(weight)

    def _input(self, name: str, values: Tensor, dim: int, k: int) -> Tensor:
        """Return the input of block matrix ``name`` in step ``k`` in its precision; its rows lie along ``dim``."""
        how = self.quantization
        if how is None or how.precision[name] == "fp32":
            return values
        if how.precision[name] == "bf16":
            return fake_bf16(values)
        return fake_int8(values, dim) if how.scheme == "dynamic" else fake_static(values, float(how.scale(name, k)))

    def _injected(self, batch: Batch) -> Tensor:
        """Return ``e = [registers ; answer_input ; context_encoder(x)]``, plus learned positions, ``[L, B, D]``."""
        spec = self.spec
        size = len(batch["x"])
        if spec.answer == "tokens":
            parts = [F.embedding(batch["x"], self.w("token_embedding"))]
            if spec.registers:
                puzzle = F.embedding(self._puzzle_id(batch), self.w("puzzle_embedding"))
                puzzle = F.pad(puzzle, (0, spec.registers * spec.hidden_size - spec.puzzle_size))
                parts.insert(0, puzzle.view(size, spec.registers, spec.hidden_size))
        else:
            parts = [self.w("registers").expand(size, -1, -1), self._answer_input(batch)]
            if spec.max_context:
                parts.append(self._encoded("x", batch["x"], _lengths(batch, "x"), "context_encoder.weight"))
        e = torch.cat(parts, dim=1)
        if spec.positions == "learned":
            e = e + self.w("position_embedding")[self._positions(batch)]
        return e.transpose(0, 1).contiguous()

    def _puzzle_id(self, batch: Batch) -> Tensor:
        zeros = torch.zeros(len(batch["x"]), dtype=torch.long, device=batch["x"].device)
        return batch.get("puzzle_id", zeros)

    def _answer_input(self, batch: Batch) -> Tensor:
        if self.spec.answer == "slots":
            return self._encoded("slots", batch["slots"], _lengths(batch, "s"), "slot_encoder.weight")
        rows = self.w("time_embedding").expand(len(batch["x"]), -1, -1)
        if self.spec.feature_size:
            rows = rows + self._encoded("features", batch["features"], None, "features_encoder.weight")
        return rows

    def _answer_encoder(self, batch: Batch) -> Tensor | None:
        """Return the encoded draft ``[B, S, D]``; None for tokens, which have none."""
        if self.spec.answer == "tokens":
            return None
        if self.spec.answer == "actions":
            return self._encoded("y0", self.draft(batch), None, "answer_encoder.weight")
        keys = self._keys(batch)
        none = self.w("key_none").expand(len(keys), 1, -1)
        choices = torch.cat([none, keys], dim=1)  # index -1 becomes 0
        index = (self.draft(batch).long() + 1)[..., None].expand(-1, -1, self.spec.hidden_size)
        return choices.gather(1, index)

    def _keys(self, batch: Batch) -> Tensor:
        return self._encoded("candidates", batch["candidates"], _lengths(batch, "m"), "key.weight")

    def _decode(self, y: Tensor, batch: Batch) -> StepOutput:
        spec = self.spec
        rows = y[spec.registers : spec.registers + self._answer_rows(batch)].transpose(0, 1)
        halt = F.linear(y[0], self.w("halt_head.weight"), self.w("halt_head.bias"))[:, 0]
        if spec.answer == "actions":
            delta = self.w("normalization.y0.std") * F.linear(rows, self.w("answer_decoder.weight"))
            return StepOutput(self.draft(batch) + delta, None, halt)
        if spec.answer == "tokens":
            logits = F.linear(rows, self.w("answer_decoder.weight"))
            return StepOutput(logits.argmax(-1), logits, halt)
        scores = F.linear(rows, self.w("query.weight")) @ self._keys(batch).mT / math.sqrt(spec.hidden_size)
        allowed = self._allowed(batch)
        logits = scores.masked_fill(~allowed, -math.inf)
        return StepOutput(masked_argmax(logits), logits, halt)

    def _allowed(self, batch: Batch) -> Tensor:
        """Return the mask ``[B, S, M]`` with padded slots and candidates taken out."""
        allowed = batch["mask"]
        for name, dim in (("s", 1), ("m", 2)):
            real = _real(_lengths(batch, name), allowed.shape[dim])
            if real is not None:
                allowed = allowed & real.unsqueeze(3 - dim)
        return allowed

    def _encoded(self, name: str, values: Tensor, lengths: Tensor | None, weight: str) -> Tensor:
        """Normalise an input by its statistics and map it to D; what stands in padded rows does not matter."""
        real = _real(lengths, values.shape[1])
        if real is not None:
            values = torch.where(real[..., None], values, 0)
        mean, std = self.w(f"normalization.{name}.mean"), self.w(f"normalization.{name}.std")
        return F.linear((values - mean) / std, self.w(weight))

    def _answer_rows(self, batch: Batch) -> int:
        return batch["slots"].shape[1] if self.spec.answer == "slots" else self.spec.answer_rows

    def _positions(self, batch: Batch) -> Tensor:
        context = 0 if self.spec.answer == "tokens" else batch["x"].shape[1]
        return torch.tensor(self.spec.row_positions(self._answer_rows(batch), context), device=batch["x"].device)

    def _rows(self, batch: Batch) -> _Rows:
        """Work out key mask and rotations; with mlp_t the weights fix the rows, so none may be padding."""
        spec = self.spec
        if spec.mixer == "mlp_t":
            if spec.max_context and batch["x"].shape[1] != spec.max_context:
                raise TrmInputError(f"x: mlp_t fixes the context at {spec.max_context} rows, got {batch['x'].shape[1]}")
            return _Rows(None, None)
        rope = None
        if spec.positions == "rope":
            half = spec.head_size // 2
            rates = spec.rope_theta ** (-torch.arange(half, dtype=torch.float64, device=batch["x"].device) / half)
            angle = self._positions(batch).double()[:, None] * rates
            dtype = self.w("y_init").dtype
            rope = angle.cos().to(dtype), angle.sin().to(dtype)
        return _Rows(self._key_mask(batch), rope)

    def _key_mask(self, batch: Batch) -> Tensor | None:
        if self.spec.answer == "tokens":
            return None
        x_len = _lengths(batch, "x")
        s_len = _lengths(batch, "s") if self.spec.answer == "slots" else None
        if x_len is None and s_len is None:
            return None
        size, device = len(batch["x"]), batch["x"].device
        parts = [torch.ones(size, self.spec.registers, dtype=torch.bool, device=device)]
        for lengths, rows in ((s_len, self._answer_rows(batch)), (x_len, batch["x"].shape[1])):
            real = _real(lengths, rows)
            parts.append(torch.ones(size, rows, dtype=torch.bool, device=device) if real is None else real)
        return torch.cat(parts, dim=1)[:, None, None]


def initial_weight(spec: TrmSpec, name: str, shape: tuple[int, ...]) -> Tensor:
    """Draw a weight as the TRM paper's code does: truncated LeCun normal, unit rows, a halt head that says no.

    Rows of ``e`` have unit variance, shared between token and position where positions are learned. The decoder of
    actions starts at zero, so that an untrained head returns the draft.
    """
    if name == "halt_head.bias":
        return torch.full(shape, -5.0)
    zero = name in ("halt_head.weight", "puzzle_embedding")
    if zero or (name == "answer_decoder.weight" and spec.answer == "actions"):
        return torch.zeros(shape)
    if name.endswith(".weight"):
        return _truncated_normal(shape, 1 / math.sqrt(shape[-1]))
    in_e = name in ("token_embedding", "time_embedding", "registers", "position_embedding")
    return _truncated_normal(shape, math.sqrt(0.5) if in_e and spec.positions == "learned" else 1.0)


def _truncated_normal(shape: tuple[int, ...], std: float) -> Tensor:
    """Draw normal values within two sigma, widened so that their standard deviation is ``std``."""
    sigma = std / 0.87962566103423978  # std of a unit normal cut at two sigma
    return nn.init.trunc_normal_(torch.empty(shape), std=sigma, a=-2 * sigma, b=2 * sigma)


def fake_int8(values: Tensor, dim: int) -> Tensor:
    """Round to 127 levels of the largest magnitude along ``dim``; the gradient is that of no rounding.

    The scale of a parameter is rounded to float32, as that of an int8 weight is.
    """
    exact = values.detach().to(torch.promote_types(values.dtype, torch.float32))
    scale = exact.abs().amax(dim, keepdim=True) / LEVELS
    if isinstance(values, nn.Parameter):
        scale = scale.float().to(exact.dtype)
    rounded = torch.round(exact / torch.where(scale == 0, 1, scale)) * scale
    return values + (rounded - exact).to(values.dtype)


def fake_static(values: Tensor, scale: float) -> Tensor:
    """Round to multiples of ``scale`` within 127 of them; what is clipped has no gradient, the rest that of 1."""
    clipped = values.clamp(-LEVELS * scale, LEVELS * scale)
    exact = clipped.detach().to(torch.promote_types(values.dtype, torch.float32))
    return clipped + (torch.round(exact / scale) * scale - exact).to(values.dtype)


def fake_bf16(values: Tensor) -> Tensor:
    """Round to bfloat16; the gradient is that of no rounding."""
    exact = values.detach()
    return values + (exact.float().bfloat16().to(values.dtype) - exact)


def rms_norm(h: Tensor, dim: int, eps: float) -> Tensor:
    """RMSNorm without weight along ``dim`` (Zhang and Sennrich, arXiv 1910.07467)."""
    return h * torch.rsqrt(h.square().mean(dim, keepdim=True) + eps)


def rotate(heads: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions on ``heads [B, H, L, size]`` (arXiv 2104.09864), pairing a head's two halves."""
    first, second = heads.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


def masked_argmax(logits: Tensor) -> Tensor:
    """Index of the largest logit, ties to the lowest; -1 where a row is all -inf or empty."""
    if logits.shape[-1] == 0:
        return logits.new_full(logits.shape[:-1], -1, dtype=torch.long)
    return torch.where(torch.isneginf(logits).all(-1), -1, logits.argmax(-1))


def load_weights(head: TrmHead, tensors: Mapping[str, Array]) -> TrmHead:
    """Fill ``head`` with NumPy ``tensors`` by name (all of them) and return it."""
    head.load_state_dict({name: torch.from_numpy(value.copy()) for name, value in tensors.items()})
    return head


def _lengths(batch: Batch, part: str) -> Tensor | None:
    return batch.get(f"{part}_len")


def _real(lengths: Tensor | None, rows: int) -> Tensor | None:
    """Return ``[B, rows]``, True where a row is not padding; None where no lengths are given."""
    if lengths is None:
        return None
    return torch.arange(rows, device=lengths.device) < lengths[:, None]
