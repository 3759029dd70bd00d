"""The calibration set: recorded calls, from a file of training data or from a bundle's golden vectors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from trm_edge.bundle import Bundle
from trm_edge.errors import TrmInputError
from trm_edge.files import StrPath
from trm_edge.golden import golden_arguments
from trm_edge.inputs import Array, Inputs, check_inputs, stored_integer
from trm_edge.recorded import IGNORED, PACKED, PARTS, is_packed, read_arrays
from trm_edge.spec import TrmSpec

_LENGTHS = {f"{part}_len": axes for part, axes in PARTS.items()}
_PACKED = {name: f"{part}_len" for name, part in PACKED.items() if name != "omit"}
_NAMES = {
    "actions": ("x", "y0", "features"),
    "slots": ("x", "y0", "slots", "candidates", "mask"),
    "tokens": ("x", "puzzle_id"),
}
_OPTIONAL = ("y0", "puzzle_id", "features")  # check_inputs asks for those that a head needs

_Example = Callable[[int], dict[str, Array]]


@dataclass(frozen=True)
class Call:
    """Checked inputs of one call, and the right answer where it is known (-100 or -1: nothing is asked there).

    ``right [M]`` marks candidates that are as right for their slot as the target.
    """

    inputs: Inputs
    target: Array | None
    right: Array | None = None

    @property
    def asks(self) -> bool:
        """Whether an answer can be wrong."""
        return self.target is not None and (self.target.dtype.kind == "f" or bool((self.target >= 0).any()))


def load_calls(path: StrPath, spec: TrmSpec, most: int) -> list[Call]:
    """Read up to ``most`` calls, evenly spread over a file of training data.

    Parameters
    ----------
    path
        An ``.npz`` file, or a folder of ``.safetensors`` shards, with arrays as :mod:`trm_edge.train.data` or
        :mod:`trm_edge.train.packed` describe them; ``target`` may be missing, and arrays that calibration does not need
        may be there.
    spec
        The model.
    most
        How many calls to take.

    Raises
    ------
    TrmIOError
        The file cannot be read.
    TrmInputError
        It does not fit the spec; the message names array and example.
    """
    arrays = read_arrays(path)
    try:
        packed = spec.answer == "slots" and is_packed(arrays)
        count, example = _packed(arrays) if packed else _padded(spec, arrays)
    except TrmInputError as error:
        raise TrmInputError(f"{path}: {error}") from None
    chosen = np.unique(np.linspace(0, count - 1, min(most, count)).round().astype(int))
    calls = []
    for i in chosen.tolist():
        try:
            calls.append(_call(spec, example(i)))
        except TrmInputError as error:
            raise TrmInputError(f"{path}: example {i}: {error}") from None
    return calls


def golden_calls(bundle: Bundle) -> list[Call]:
    """Return the bundle's golden cases as calls: random inputs, which stand in where no data is at hand."""
    if not bundle.golden:
        raise TrmInputError("the bundle holds no golden vectors to calibrate on; name recorded calls with --data")
    return [Call(check_inputs(bundle.spec, **golden_arguments(case)), None) for case in bundle.golden]


def split_calls(calls: Sequence[Call], scheme: str) -> tuple[list[Call], list[Call]]:
    """Return calls to take ranges from and others to measure on, in turns; the same where there are fewer than four.

    ``dynamic``, whose scales the engine works out, takes none and measures them all.
    """
    if scheme == "dynamic":
        return [], list(calls)
    return (list(calls), list(calls)) if len(calls) < 4 else (list(calls[::2]), list(calls[1::2]))


def _padded(spec: TrmSpec, arrays: dict[str, Array]) -> tuple[int, _Example]:
    """Return the number of examples, and a function that gives the arrays of one."""
    names = [name for name in _NAMES[spec.answer] if name in arrays]
    missing = [name for name in _NAMES[spec.answer] if name not in arrays and name not in _OPTIONAL]
    if missing:
        raise TrmInputError(f"{missing[0]}: missing; a head of {spec.answer} needs it")
    names += [name for name in ("target", "right", *_LENGTHS) if name in arrays]
    sizes = {name: len(arrays[name]) if arrays[name].ndim else 0 for name in names}
    if min(sizes.values()) < 1 or len(set(sizes.values())) != 1:
        raise TrmInputError(f"expected arrays of one length, at least 1, got {sizes}")
    return sizes["x"], lambda i: {name: arrays[name][i] for name in names}


def _packed(arrays: dict[str, Array]) -> tuple[int, _Example]:
    """Return the same of packed arrays, whose rows stand one after another."""
    missing = [name for name in ("x", "slots", "candidates", "slot_of", *_LENGTHS) if name not in arrays]
    if missing:
        raise TrmInputError(f"{missing[0]}: missing; packed slots need it")
    lengths = {name: arrays[name] for name in _LENGTHS}
    count = len(next(iter(lengths.values())).reshape(-1))
    for name, length in lengths.items():
        if length.shape != (count,) or length.dtype.kind not in "iu" or not count or (length < 0).any():
            raise TrmInputError(
                f"{name}: expected integers from 0 on, [{count or 1}], got {length.dtype} {list(length.shape)}"
            )
    names = [name for name in _PACKED if name in arrays]
    for name in names:
        rows = int(lengths[_PACKED[name]].sum())
        if not arrays[name].ndim or len(arrays[name]) != rows:
            raise TrmInputError(
                f"{name}: expected {rows} rows, as {_PACKED[name]} says, got {list(arrays[name].shape)}"
            )
    ends = {name: np.cumsum(length) for name, length in lengths.items()}

    def example(i: int) -> dict[str, Array]:
        cut = {}
        for name in names:
            end, rows = ends[_PACKED[name]][i], arrays[name]
            cut[name] = rows[end - lengths[_PACKED[name]][i] : end]
            if rows.dtype.kind != "b":
                cut[name] = cut[name].astype(np.float32 if rows.dtype.kind == "f" else np.int64)
        slot_of, slots = cut.pop("slot_of"), np.arange(len(cut["slots"]))
        if not np.isin(slot_of, slots).all():
            raise TrmInputError(f"slot_of: expected slots of the example, 0..{len(slots) - 1}, got others")
        return cut | {"mask": slot_of == slots[:, None]}

    return count, example


def _call(spec: TrmSpec, arrays: dict[str, Any]) -> Call:
    for name, axes in _LENGTHS.items():
        length = arrays.pop(name, None)
        if length is None:
            continue
        count = stored_integer(name, length)
        for part, axis in axes.items():
            if part in arrays:
                _check_length(name, count, part, arrays[part], axis)
                arrays[part] = arrays[part].take(range(count), axis=axis)
    target, right = arrays.pop("target", None), arrays.pop("right", None)
    for name in ("x", "y0"):  # trainers may hold indices as int64
        if name in arrays and arrays[name].dtype == np.int64:
            arrays[name] = _narrowed(name, arrays[name])
    if "puzzle_id" in arrays:
        arrays["puzzle_id"] = stored_integer("puzzle_id", arrays["puzzle_id"])
    inputs = check_inputs(spec, **{"y0": None, **arrays})
    if not inputs.finite:
        raise TrmInputError("expected finite inputs, found NaN or Inf")
    if target is not None:
        _check_target(spec, target, inputs)
        target = target.astype(np.float64) if spec.answer_is_float else target
    if right is not None and (right.dtype != np.bool_ or inputs.mask is None or right.shape != inputs.mask.shape[1:]):
        raise TrmInputError(
            f"right: expected a bool for each candidate of slots, got {right.dtype} {list(right.shape)}"
        )
    return Call(inputs, target, right)


def _narrowed(name: str, indices: Array) -> Array:
    narrow: Array = indices.astype(np.int32)
    if (narrow != indices).any():
        raise TrmInputError(f"{name}: expected indices that an int32 holds, got {indices[narrow != indices][0]}")
    return narrow


def _check_length(name: str, count: int, part: str, array: Array, axis: int) -> None:
    most = array.shape[axis] if array.ndim > axis else 0
    if not 0 <= count <= most:
        raise TrmInputError(f"{name}: expected 0..{most}, the rows of {part}, got {count}")


def _check_target(spec: TrmSpec, target: Array, inputs: Inputs) -> None:
    """Raise unless ``target`` is what an answer can be: with a NaN no calibration would pass."""
    rows, choices = inputs.answer_rows, spec.logits_width(0 if inputs.candidates is None else len(inputs.candidates))
    shape = (rows, spec.dof) if spec.answer_is_float else (rows,)
    if target.shape != shape:
        raise TrmInputError(f"target: expected shape {list(shape)}, got {list(target.shape)}")
    kinds, expected = ("fiu", "real numbers") if spec.answer_is_float else ("iu", "integers")
    if target.dtype.kind not in kinds:
        raise TrmInputError(f"target: expected {expected}, got {target.dtype}")
    if not np.isfinite(target).all():
        raise TrmInputError("target: expected finite values, found NaN or Inf")
    if spec.answer_is_float:
        return
    ignored = IGNORED[spec.answer]
    asked = target != ignored
    wrong = asked & ((target < 0) | (target >= choices))
    if wrong.any():
        raise TrmInputError(f"target: expected 0..{choices - 1}, or {ignored}, got {target[wrong][0]}")
    if inputs.mask is not None:
        outside = [i for i in np.flatnonzero(asked) if not inputs.mask[i, target[i]]]
        if outside:
            raise TrmInputError(f"target: slot {outside[0]}: candidate {target[outside[0]]} is outside its mask")
