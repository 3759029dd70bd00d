"""The model's definition: names, sizes and tensor shapes, in one place.

Every other file asks this one. A spec is frozen and valid: constructing one that is not raises
:class:`~trm_edge.errors.TrmBundleError` with the field's name, what was expected and what was given.

Symbols (Tiny Recursive Model, arXiv 2510.04871): ``D`` hidden size, ``H`` heads, ``I`` SwiGLU inner size, ``R``
register rows, ``S`` answer rows, ``P`` context rows, ``L = R + S + P``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from .errors import TrmBundleError

MAX_STEPS = 1024
"""Most refinement steps a single call may ask for."""

_MAX_SIZE = 1 << 20  # of any single spec field
_MAX_ROWS = 1 << 14  # of L
_MAX_BLOCKS = 4096  # evaluations of a block in one step
_MAX_WORK = 1 << 38  # of one step, see TrmSpec._step_work; so that a hostile file cannot make a call endless
_MAX_TENSOR = 1 << 34  # elements of one tensor
_MAX_CALL = 1 << 29  # floats that a session holds for its calls


@dataclass(frozen=True, kw_only=True)
class TrmSpec:
    """Sizes and choices that define one model.

    Fields that a kind or mixer does not use are 0. ``answer_rows`` is exact for ``actions`` (T) and ``tokens`` (S)
    and the maximum for ``slots``; ``max_context`` is the maximum of P with attention, and exact with ``mlp_t``.
    """

    answer: str  # "actions" | "slots" | "tokens"
    hidden_size: int  # D
    inner_size: int  # I
    l_cycles: int  # latent updates per answer update
    h_cycles: int  # repeats per refinement step
    registers: int  # R
    answer_rows: int  # S (T for actions)
    num_layers: int = 2
    mixer: str = "attention"  # "attention" | "mlp_t"
    num_heads: int = 0  # H, attention only
    token_inner_size: int = 0  # inner width of the token-mixing SwiGLU, mlp_t only
    positions: str = "none"  # "rope" | "learned" | "none"
    rope_theta: float = 10000.0
    norm_eps: float = 1e-5
    max_context: int = 0  # P
    context_size: int = 0  # Dx
    dof: int = 0  # actions: width of one action
    feature_size: int = 0  # actions: Df, 0 for a head without features
    draft: str = "required"  # "required" | "optional" (actions: y0=None stands for the mean action)
    slot_size: int = 0  # slots: Ds
    candidate_size: int = 0  # slots: Dc
    max_candidates: int = 0  # slots: M
    vocab_size: int = 0  # tokens: V
    num_puzzles: int = 0  # tokens: rows of the puzzle embedding
    puzzle_size: int = 0  # tokens: width of the puzzle embedding, zero-padded to R * D

    def __post_init__(self) -> None:
        for field in fields(self):
            _check_type(field.name, str(field.type), getattr(self, field.name))
        _choice("answer", self.answer, ("actions", "slots", "tokens"))
        _choice("mixer", self.mixer, ("attention", "mlp_t"))
        _choice("positions", self.positions, ("rope", "learned", "none"))
        _choice("draft", self.draft, ("required", "optional"))
        for name in ("hidden_size", "inner_size", "l_cycles", "h_cycles", "answer_rows", "num_layers"):
            _positive(self, name)
        for name, most in (("num_layers", 64), ("l_cycles", 256), ("h_cycles", 256)):
            _require(getattr(self, name) <= most, name, f"at most {most}", getattr(self, name))
        blocks = self.h_cycles * (self.l_cycles + 1) * self.num_layers
        _require(blocks <= _MAX_BLOCKS, "h_cycles * (l_cycles + 1) * num_layers", f"at most {_MAX_BLOCKS}", blocks)
        _require(1 <= self.rope_theta <= 1e12, "rope_theta", "1 to 1e12", self.rope_theta)
        _require(1e-12 <= self.norm_eps <= 1, "norm_eps", "1e-12 to 1", self.norm_eps)
        self._check_mixer()
        self._check_answer()
        _require(self.max_rows <= _MAX_ROWS, "registers + answer_rows + max_context", f"<= {_MAX_ROWS}", self.max_rows)
        for name, shape in self.tensor_shapes().items():
            _require(math.prod(shape) <= _MAX_TENSOR, name, f"at most {_MAX_TENSOR} elements", list(shape))
        floats, sizes = self._call_floats(), "max_context, answer_rows, max_candidates"
        _require(floats <= _MAX_CALL, sizes, f"sizes of a call that fit into {_MAX_CALL} floats", floats)
        work = self._step_work(blocks)
        factors = "h_cycles * (l_cycles + 1) * num_layers * L * (L + widths) * hidden_size"
        _require(work <= _MAX_WORK, factors, "at most 2^38 in a step", f"{work / _MAX_WORK:f} times that")

    def _check_mixer(self) -> None:
        if self.mixer == "attention":
            _positive(self, "num_heads")
            _require(
                self.hidden_size % (2 * self.num_heads) == 0,
                "hidden_size",
                f"a multiple of 2 * num_heads = {2 * self.num_heads}, so that the head size is even",
                self.hidden_size,
            )
            _unused(self, "token_inner_size", because="mixer is attention")
        else:
            _positive(self, "token_inner_size")
            _unused(self, "num_heads", because="mixer is mlp_t")
            _require(self.positions != "rope", "positions", "learned or none, as mlp_t has no heads", self.positions)
            _require(self.answer != "slots", "mixer", "attention, as mlp_t fixes the number of slots", self.mixer)

    def _check_answer(self) -> None:
        own: dict[str, tuple[str, ...]] = {
            "actions": ("dof",),
            "slots": ("slot_size", "candidate_size", "max_candidates"),
            "tokens": ("vocab_size", "num_puzzles"),
        }
        for kind, names in own.items():
            for name in names:
                if kind == self.answer:
                    _positive(self, name)
                else:
                    _unused(self, name, because=f"answer is {self.answer}")
        if self.answer != "actions":
            _unused(self, "feature_size", because=f"answer is {self.answer}")
            _require(self.draft == "required", "draft", "required unless answer is actions", self.draft)
        if self.answer == "tokens":
            _unused(self, "max_context", because="answer is tokens")
            width = self.registers * self.hidden_size
            _require(
                (self.puzzle_size > 0) == (self.registers > 0) and self.puzzle_size <= width,
                "puzzle_size",
                f"at most registers * hidden_size = {width}, and 0 only without registers",
                self.puzzle_size,
            )
        else:
            _unused(self, "puzzle_size", because=f"answer is {self.answer}")
            _positive(self, "registers")
        _require(
            (self.context_size > 0) == (self.max_context > 0),
            "context_size",
            "positive exactly where max_context is",
            self.context_size,
        )

    def _step_work(self, blocks: int) -> int:
        """About the products of one step's blocks: of every row with every other, and with the matrices.

        A narrow row costs as much as one of 32.
        """
        row = self.max_rows + self.hidden_size + self.inner_size + self.token_inner_size
        return blocks * self.max_rows * row * max(self.hidden_size, 32)

    def _call_floats(self) -> int:
        """Floats of a call at the maxima: the rows inside ``net``, and the arrays that come in and go out."""
        d = self.hidden_size
        answer = d + 2 * self.dof + self.feature_size + self.slot_size + max(self.max_candidates, self.vocab_size)
        return (
            self.max_rows * (8 * d + self.inner_size)
            + self.max_context * self.context_size
            + self.answer_rows * answer
            + self.max_candidates * (2 * d + self.candidate_size)
        )

    @property
    def max_rows(self) -> int:
        """L at the largest answer and context."""
        return self.registers + self.answer_rows + self.max_context

    @property
    def head_size(self) -> int:
        """Width of one attention head."""
        return self.hidden_size // self.num_heads

    @property
    def answer_is_float(self) -> bool:
        """Whether answers are float32 actions (else int32 indices)."""
        return self.answer == "actions"

    def row_positions(self, answer_rows: int, context_rows: int) -> list[int]:
        """Positions of the rows: register r -> r, answer s -> R + s, context p -> R + S_max + p."""
        context = self.registers + self.answer_rows
        return [*range(self.registers + answer_rows), *range(context, context + context_rows)]

    def logits_width(self, candidates: int) -> int:
        """Width of one row of logits: M for slots, V for tokens, 0 for actions."""
        return {"actions": 0, "slots": candidates, "tokens": self.vocab_size}[self.answer]

    def tensor_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the name and shape of every float32 tensor of the model, in file order.

        Weights are ``[out, in]`` as in ``torch.nn.Linear``; ``qkv`` stacks query, key and value heads, ``gate_up``
        stacks gate over up.
        """
        d = self.hidden_size
        shapes: dict[str, tuple[int, ...]] = {"y_init": (d,), "z_init": (d,)}
        if self.answer == "tokens":
            if self.registers:
                shapes["puzzle_embedding"] = (self.num_puzzles, self.puzzle_size)
        else:
            shapes["registers"] = (self.registers, d)
        if self.positions == "learned":
            shapes["position_embedding"] = (self.max_rows, d)
        if self.max_context:
            shapes["context_encoder.weight"] = (d, self.context_size)
            shapes |= _normalization("x", self.context_size)
        shapes |= self._answer_shapes()
        for i in range(self.num_layers):
            block = f"blocks.{i}."
            if self.mixer == "attention":
                shapes[block + "attention.qkv.weight"] = (3 * d, d)
                shapes[block + "attention.out.weight"] = (d, d)
            else:
                shapes[block + "token_mixer.gate_up.weight"] = (2 * self.token_inner_size, self.max_rows)
                shapes[block + "token_mixer.down.weight"] = (self.max_rows, self.token_inner_size)
            shapes[block + "mlp.gate_up.weight"] = (2 * self.inner_size, d)
            shapes[block + "mlp.down.weight"] = (d, self.inner_size)
        shapes["halt_head.weight"] = (1, d)
        shapes["halt_head.bias"] = (1,)
        return shapes

    def _answer_shapes(self) -> dict[str, tuple[int, ...]]:
        d = self.hidden_size
        if self.answer == "tokens":
            return {"token_embedding": (self.vocab_size, d), "answer_decoder.weight": (self.vocab_size, d)}
        if self.answer == "slots":
            return {
                "slot_encoder.weight": (d, self.slot_size),
                **_normalization("slots", self.slot_size),
                "key.weight": (d, self.candidate_size),
                "key_none": (d,),
                **_normalization("candidates", self.candidate_size),
                "query.weight": (d, d),
            }
        shapes: dict[str, tuple[int, ...]] = {"time_embedding": (self.answer_rows, d)}
        if self.feature_size:
            shapes["features_encoder.weight"] = (d, self.feature_size)
            shapes |= _normalization("features", self.feature_size)
        shapes["answer_encoder.weight"] = (d, self.dof)
        shapes["answer_decoder.weight"] = (self.dof, d)
        shapes |= _normalization("y0", self.dof)
        shapes |= {f"limits.{name}": (self.dof,) for name in ("lower", "upper", "velocity")}
        return shapes

    def parameter_count(self) -> int:
        """Return the number of trained weights; normalisation statistics and limits are not counted."""
        skip = ("normalization.", "limits.")
        return sum(math.prod(s) for n, s in self.tensor_shapes().items() if not n.startswith(skip))

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a plain dictionary."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrmSpec:
        """Build a spec from a mapping; unknown fields are refused, fields with a default may be left out."""
        known = {f.name for f in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise TrmBundleError(f"spec has unknown field(s) {', '.join(unknown)}; known: {', '.join(sorted(known))}")
        try:
            return cls(**values)
        except TypeError as error:
            raise TrmBundleError(f"spec is incomplete: {error}") from None

    def to_metadata(self) -> dict[str, str]:
        """Return the fields as the flat ``spec.<field>`` strings of a bundle."""
        return {f"spec.{name}": repr(v) if isinstance(v, float) else str(v) for name, v in asdict(self).items()}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str]) -> TrmSpec:
        """Read the ``spec.<field>`` strings of a bundle; every field must be there, none else may be."""
        given = {k.removeprefix("spec."): v for k, v in metadata.items() if k.startswith("spec.")}
        missing = sorted({f.name for f in fields(cls)} - set(given))
        if missing:
            raise TrmBundleError(f"spec lacks field(s) {', '.join(missing)}")
        types = {f.name: str(f.type) for f in fields(cls)}
        return cls.from_dict({name: _parse(name, types.get(name, "str"), text) for name, text in given.items()})


def identity_statistics(spec: TrmSpec) -> dict[str, Any]:
    """Return the statistics and limits that change nothing: mean 0, std 1, bounds and velocity infinite."""
    values = {"mean": 0.0, "std": 1.0, "lower": -np.inf, "upper": np.inf, "velocity": np.inf}
    return {
        name: np.full(shape, values[name.rsplit(".", 1)[1]], np.float32)
        for name, shape in spec.tensor_shapes().items()
        if name.startswith(("normalization.", "limits."))
    }


def check_statistics(tensors: Mapping[str, Any]) -> None:
    """Raise unless weights are finite, every std is positive, and limits leave room to move.

    ``limits.lower <= limits.upper`` and ``limits.velocity > 0``; limits may be infinite, nothing may be NaN.
    """
    for name, values in tensors.items():
        finite = bool(np.isfinite(values).all())
        if name.startswith("limits."):
            if np.isnan(values).any():
                raise TrmBundleError(f"tensor {name}: expected no NaN; use inf for 'no limit'")
        elif not finite:
            raise TrmBundleError(f"tensor {name}: expected finite values, found NaN or Inf")
        if name.startswith("normalization.") and name.endswith(".std") and not (values > 0).all():
            raise TrmBundleError(f"tensor {name}: expected every value > 0, found {float(np.min(values))}")
        if name == "limits.velocity" and not (values > 0).all():
            raise TrmBundleError(f"tensor {name}: expected every value > 0, found {float(np.min(values))}")
    if "limits.lower" in tensors and not (tensors["limits.lower"] <= tensors["limits.upper"]).all():
        raise TrmBundleError("tensor limits.lower: expected lower <= upper in every dimension")
    for name, bad in (("limits.lower", np.inf), ("limits.upper", -np.inf)):
        if name in tensors and (tensors[name] == bad).any():
            raise TrmBundleError(f"tensor {name}: {bad} leaves no room to move")


def _normalization(name: str, size: int) -> dict[str, tuple[int, ...]]:
    return {f"normalization.{name}.mean": (size,), f"normalization.{name}.std": (size,)}


def _parse(name: str, kind: str, text: str) -> Any:
    if kind == "str":
        return text
    try:
        value = int(text) if kind == "int" else float(text)
    except ValueError:
        raise TrmBundleError(f"spec.{name}: expected {kind}, got {text!r}") from None
    if kind == "int" and str(value) != text:  # one spelling a number: no signs, spaces, underscores, leading zeros
        raise TrmBundleError(f"spec.{name}: expected a plain decimal integer, got {text!r}")
    if kind == "float" and not re.fullmatch(r"[0-9]+(\.[0-9]+)?(e[+-]?[0-9]+)?", text):  # as repr(float) writes it
        raise TrmBundleError(f"spec.{name}: expected a plain decimal number, got {text!r}")
    return value


def _check_type(name: str, kind: str, value: object) -> None:
    if kind == "float":
        ok = isinstance(value, (int, float)) and not isinstance(value, bool) and -math.inf < value < math.inf
    elif kind == "int":
        ok = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MAX_SIZE
        kind = f"int in 0..{_MAX_SIZE}"
    else:
        ok = isinstance(value, str)
    _require(ok, name, kind, value)


def _require(ok: bool, name: str, expected: object, given: object) -> None:
    if not ok:
        raise TrmBundleError(f"spec.{name}: expected {expected}, got {given!r}")


def _choice(name: str, given: str, choices: tuple[str, ...]) -> None:
    _require(given in choices, name, f"one of {', '.join(choices)}", given)


def _positive(spec: TrmSpec, name: str) -> None:
    _require(getattr(spec, name) > 0, name, f"> 0 for answer={spec.answer}, mixer={spec.mixer}", getattr(spec, name))


def _unused(spec: TrmSpec, name: str, because: str) -> None:
    _require(getattr(spec, name) == 0, name, f"0, as {because}", getattr(spec, name))
