"""Arrays of one call: brought to contiguous NumPy arrays, and checked against the spec.

The ``fused`` engine checks again behind the C ABI, with the same rules, for callers without Python; backends that
live in Python rely on this file alone.
"""

from __future__ import annotations

import operator
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .errors import TrmInputError
from .spec import MAX_STEPS, TrmSpec

Array = npt.NDArray[Any]

ARRAYS = ("x", "y0", "features", "slots", "candidates", "mask", "last_action")
"""The arrays of a call, in the order of ``struct trm_inputs``."""


@dataclass(frozen=True)
class Inputs:
    """Checked arrays of one call; those that the kind does not use are None."""

    x: Array  # [P, Dx] float32, or [S] int32 for tokens
    y0: Array | None  # [T, dof] float32, [S] int32, None for tokens and where a draft is optional
    answer_rows: int  # S of this call (T for actions)
    features: Array | None = None  # [T, Df] float32
    slots: Array | None = None  # [S, Ds] float32
    candidates: Array | None = None  # [M, Dc] float32
    mask: Array | None = None  # [S, M] bool
    puzzle_id: int = 0

    @property
    def finite(self) -> bool:
        """Whether x, features, slots and candidates hold no NaN and no Inf."""
        return all(
            a is None or a.dtype != np.float32 or bool(np.isfinite(a).all())
            for a in (self.x, self.features, self.slots, self.candidates)
        )


def stored_arguments(arrays: Mapping[str, Array], names: Collection[str] = (*ARRAYS, "puzzle_id")) -> dict[str, Any]:
    """Return the arguments of ``refine`` that a file holds as arrays of those ``names``."""
    unknown = sorted(set(arrays) - set(names))
    if unknown:
        raise TrmInputError(f"unknown array {unknown[0]!r}; known: {', '.join(names)}")
    arguments: dict[str, Any] = {"x": None, "y0": None, **arrays}
    if "puzzle_id" in arrays:
        arguments["puzzle_id"] = stored_integer("puzzle_id", arrays["puzzle_id"])
    return arguments


def stored_integer(name: str, array: Array) -> int:
    """Return the one integer that ``array`` holds; nothing is rounded to one."""
    if array.size != 1 or array.dtype.kind not in "iu":
        raise TrmInputError(f"{name}: expected one integer, got {array.dtype} {list(array.shape)}")
    return int(array.reshape(-1)[0])


def as_array(name: str, value: object, dtype: type) -> Array:
    """Return ``value`` as a C-contiguous array of ``dtype``, without a copy where it already is one.

    Takes NumPy arrays, anything with the buffer protocol or DLPack on the CPU, and nested lists. An array of another
    dtype is an error rather than a silent conversion; a list has no dtype and takes the expected one.
    """
    want = np.dtype(dtype)
    if isinstance(value, np.ndarray) and hasattr(value, "mask"):
        raise TrmInputError(
            f"{name}: expected an array without a mask, got a masked array; fill it, e.g. {name}.filled(0)"
        )
    if isinstance(value, np.ndarray):
        array = value
    elif isinstance(value, (list, tuple)):
        array = _from_list(name, value, want)
    elif hasattr(value, "__dlpack__"):
        array = _from_dlpack(name, value)
    else:
        try:
            array = np.asarray(value)
        except (ValueError, TypeError) as error:
            raise TrmInputError(f"{name}: cannot be read as an array: {error}") from None
    if array.dtype != want:
        raise TrmInputError(
            f"{name}: expected dtype {want}, got {array.dtype}; convert it, e.g. {name}.astype('{want}')"
        )
    if array.dtype is not want:  # equal, but of another identity or with metadata; the bindings go by identity
        array = array.view(want)
    return np.require(array, requirements=("C", "A", "E"))


def _from_list(name: str, value: object, want: np.dtype[Any]) -> Array:
    try:
        array = np.asarray(value)
    except (ValueError, TypeError) as error:
        raise TrmInputError(f"{name}: cannot be read as an array: {error}") from None
    if array.size == 0:
        return array.astype(want)
    ok = {"f": "fiu", "i": "iu", "b": "b"}[want.kind]
    if array.dtype.kind not in ok:
        raise TrmInputError(f"{name}: expected values of {want}, got {array.dtype}")
    if want.kind == "i" and (array.min() < -(2**31) or array.max() >= 2**31):
        raise TrmInputError(f"{name}: values do not fit into {want}")
    with np.errstate(over="ignore"):  # what does not fit into float32 is not finite, and is treated as that
        return array.astype(want)


def _from_dlpack(name: str, value: Any) -> Array:
    if getattr(value, "requires_grad", False):
        value = value.detach()
    try:
        if hasattr(value, "__cuda_array_interface__"):
            raise BufferError("it lies on a GPU; refine_on_device of backend cuda reads it there")
        return np.from_dlpack(value)
    except (BufferError, RuntimeError, TypeError, ValueError) as error:
        raise TrmInputError(f"{name}: cannot be taken by DLPack ({error}); expected a dense array on the CPU") from None


def check_int(name: str, value: object) -> int:
    """Return ``value`` as an int: one of Python or NumPy, and no truth value, which is more likely a slip."""
    try:
        if not isinstance(value, (bool, np.bool_)):
            return operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        pass
    raise TrmInputError(f"{name}: expected an int, got {value!r}")


def check_flag(name: str, value: object) -> bool:
    """Return ``value``, which is True or False; anything else, a text say, is more likely a slip."""
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    raise TrmInputError(f"{name}: expected True or False, got {value!r}")


def check_steps(steps: object, answer: str) -> int:
    """Return ``steps`` as an int, or raise: 0..MAX_STEPS, and at least 1 for tokens, which have no draft."""
    count = check_int("steps", steps)
    least = 1 if answer == "tokens" else 0
    if not least <= count <= MAX_STEPS:
        raise TrmInputError(f"steps: expected {least}..{MAX_STEPS} for {answer}, got {count}")
    return count


def check_puzzle_id(spec: TrmSpec, puzzle_id: object) -> int:
    """Return ``puzzle_id`` as an int: a row of the puzzle embedding for tokens, 0 for the other kinds."""
    puzzle = check_int("puzzle_id", puzzle_id)
    if spec.answer != "tokens" and puzzle != 0:
        raise TrmInputError(f"puzzle_id: this {spec.answer} head takes none; leave it out")
    if spec.answer == "tokens" and not 0 <= puzzle < spec.num_puzzles:
        raise TrmInputError(f"puzzle_id: expected 0..{spec.num_puzzles - 1}, got {puzzle}")
    return puzzle


def check_halt(halt: object) -> float | None:
    """Return ``halt`` as a float in [0, 1], rounded to float32 as the engine compares it, or None."""
    if halt is None:
        return None
    number = isinstance(halt, (int, float, np.integer, np.floating)) and not isinstance(halt, bool)
    if not number or not 0.0 <= halt <= 1.0:  # type: ignore[operator]
        raise TrmInputError(f"halt: expected None or a confidence in 0..1, got {halt!r}")
    return float(np.float32(halt))  # type: ignore[arg-type]


def check_inputs(
    spec: TrmSpec,
    x: object,
    y0: object,
    *,
    features: object = None,
    slots: object = None,
    candidates: object = None,
    mask: object = None,
    puzzle_id: object = 0,
) -> Inputs:
    """Check the arrays of one call against ``spec`` and return them, or raise :class:`TrmInputError`."""
    _refuse_unused(spec, y0=y0, features=features, slots=slots, candidates=candidates, mask=mask)
    puzzle = check_puzzle_id(spec, puzzle_id)
    if spec.answer == "tokens":
        return Inputs(_check_tokens(spec, x), None, spec.answer_rows, puzzle_id=puzzle)
    context = check_context(spec, x)
    if spec.answer == "actions":
        return Inputs(context, _check_draft(spec, y0), spec.answer_rows, features=check_features(spec, features))
    return _check_slots(spec, context, y0, slots, candidates, mask)


def check_context(spec: TrmSpec, x: object) -> Array:
    """Check ``x [P, Dx]``: P <= max_context, equal to it with mlp_t; None stands for P = 0."""
    array = np.zeros((0, spec.context_size), np.float32) if x is None else as_array("x", x, np.float32)
    _shape("x", array, ("P", spec.context_size))
    if len(array) > spec.max_context:
        raise TrmInputError(f"x: expected at most max_context = {spec.max_context} rows, got {len(array)}")
    if spec.mixer == "mlp_t" and len(array) != spec.max_context:
        raise TrmInputError(
            f"x: mlp_t weights fix the context at {spec.max_context} rows (L = {spec.max_rows}), "
            f"got {len(array)} (L = {spec.max_rows - spec.max_context + len(array)})"
        )
    return array


def check_features(spec: TrmSpec, features: object) -> Array | None:
    """Check ``features [T, Df]``: required by a head that has them, refused by one that has none."""
    if not spec.feature_size:
        _refuse_given(spec, "features", features)
        return None
    if features is None:
        raise TrmInputError(f"features: this head needs [{spec.answer_rows}, {spec.feature_size}] float32, got None")
    array = as_array("features", features, np.float32)
    _shape("features", array, (spec.answer_rows, spec.feature_size))
    return array


def check_last_action(spec: TrmSpec, last_action: object) -> Array | None:
    """Check ``last_action [dof]``: finite, actions only. Returns a copy, as the caller's may change meanwhile."""
    if last_action is None:
        return None
    if spec.answer != "actions":
        raise TrmInputError(f"last_action: has no meaning for answer={spec.answer}; leave it out")
    array: Array = as_array("last_action", last_action, np.float32).copy()
    _shape("last_action", array, (spec.dof,))
    _finite("last_action", array)
    return array


def _check_draft(spec: TrmSpec, y0: object) -> Array | None:
    if y0 is None:
        if spec.draft == "optional":
            return None
        raise TrmInputError("y0: this head was trained with a draft and needs one (spec draft = required), got None")
    array: Array = as_array("y0", y0, np.float32).copy()  # what limits are projected from stays as it was checked
    _shape("y0", array, (spec.answer_rows, spec.dof))
    _finite("y0", array)
    return array


def _check_slots(spec: TrmSpec, x: Array, y0: object, slots: object, candidates: object, mask: object) -> Inputs:
    for name, value in (("slots", slots), ("candidates", candidates), ("mask", mask)):
        if value is None:
            raise TrmInputError(f"{name}: required for answer=slots, got None")
    slot_rows = as_array("slots", slots, np.float32)
    _shape("slots", slot_rows, ("S", spec.slot_size))
    if len(slot_rows) > spec.answer_rows:
        raise TrmInputError(f"slots: expected at most answer_rows = {spec.answer_rows} rows, got {len(slot_rows)}")
    choices = as_array("candidates", candidates, np.float32)
    _shape("candidates", choices, ("M", spec.candidate_size))
    if len(choices) > spec.max_candidates:
        raise TrmInputError(
            f"candidates: expected at most max_candidates = {spec.max_candidates} rows, got {len(choices)}"
        )
    allowed = as_array("mask", mask, np.bool_)
    _shape("mask", allowed, (len(slot_rows), len(choices)))
    allowed = allowed.view(np.uint8) != 0  # a boolean from a foreign buffer may be any byte
    draft = np.full(len(slot_rows), -1, np.int32) if y0 is None else as_array("y0", y0, np.int32)
    _shape("y0", draft, (len(slot_rows),))
    for s, choice in enumerate(draft.tolist()):
        if choice != -1 and not (0 <= choice < len(choices) and allowed[s, choice]):
            raise TrmInputError(f"y0: slot {s}: candidate {choice} is outside its mask; expected -1 or an allowed one")
    return Inputs(x, draft, len(slot_rows), slots=slot_rows, candidates=choices, mask=allowed)


def _check_tokens(spec: TrmSpec, x: object) -> Array:
    if x is None:
        raise TrmInputError(f"x: expected [{spec.answer_rows}] int32 tokens, got None")
    tokens = as_array("x", x, np.int32)
    _shape("x", tokens, (spec.answer_rows,))
    if tokens.size and not (tokens.min() >= 0 and tokens.max() < spec.vocab_size):
        raise TrmInputError(f"x: expected tokens in 0..{spec.vocab_size - 1}, got {tokens.min()}..{tokens.max()}")
    return tokens


_USED = {
    "actions": {"y0", "features"},
    "slots": {"y0", "slots", "candidates", "mask"},
    "tokens": set[str](),
}


def _refuse_unused(spec: TrmSpec, **values: object) -> None:
    for name, value in values.items():
        if name not in _USED[spec.answer]:
            _refuse_given(spec, name, value)


def _refuse_given(spec: TrmSpec, name: str, value: object) -> None:
    if value is not None:
        raise TrmInputError(f"{name}: this {spec.answer} head takes none; leave it out")


def _shape(name: str, array: Array, want: tuple[int | str, ...]) -> None:
    ok = array.ndim == len(want) and all(isinstance(w, str) or w == g for w, g in zip(want, array.shape, strict=True))
    if not ok:
        expected = ", ".join(str(w) for w in want)
        raise TrmInputError(f"{name}: expected shape [{expected}], got {list(array.shape)}")


def _finite(name: str, array: Array) -> None:
    if not np.isfinite(array).all():
        raise TrmInputError(f"{name}: expected finite values, found NaN or Inf")
