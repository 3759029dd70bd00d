"""The calibration set: recorded calls, from a file of training data or from a bundle's golden vectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trm_edge.bundle import Bundle
from trm_edge.errors import TrmInputError
from trm_edge.files import StrPath, read_npz
from trm_edge.golden import golden_arguments
from trm_edge.inputs import Array, Inputs, check_inputs, stored_integer
from trm_edge.spec import TrmSpec

_LENGTHS = {"x_len": (("x", 0),), "s_len": (("slots", 0), ("mask", 0), ("y0", 0), ("target", 0))}
_LENGTHS |= {"m_len": (("candidates", 0), ("mask", 1))}
_NAMES = {
    "actions": ("x", "y0", "features"),
    "slots": ("x", "y0", "slots", "candidates", "mask"),
    "tokens": ("x", "puzzle_id"),
}
_OPTIONAL = ("y0", "puzzle_id", "features")  # check_inputs asks for those that a head needs


@dataclass(frozen=True)
class Call:
    """Checked inputs of one call, and the right answer where it is known (-100 or -1: nothing is asked there)."""

    inputs: Inputs
    target: Array | None


def load_calls(path: StrPath, spec: TrmSpec, most: int) -> list[Call]:
    """Read up to ``most`` calls, evenly spread over a file of training data.

    Parameters
    ----------
    path
        An ``.npz`` file with arrays as :mod:`trm_edge.train.data` describes them; ``target`` may be missing, and arrays
        that calibration does not need may be there.
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
    arrays = read_npz(Path(path))
    names = [name for name in _NAMES[spec.answer] if name in arrays]
    missing = [name for name in _NAMES[spec.answer] if name not in arrays and name not in _OPTIONAL]
    if missing:
        raise TrmInputError(f"{path}: {missing[0]}: missing; a head of {spec.answer} needs it")
    targets = ["target"] if "target" in arrays else []
    lengths = [name for name in _LENGTHS if name in arrays]
    sizes = {name: len(arrays[name]) if arrays[name].ndim else 0 for name in (*names, *targets, *lengths)}
    if min(sizes.values()) < 1 or len(set(sizes.values())) != 1:
        raise TrmInputError(f"{path}: expected arrays of one length, at least 1, got {sizes}")
    count = sizes["x"]
    chosen = np.unique(np.linspace(0, count - 1, min(most, count)).round().astype(int))
    calls = []
    for i in chosen.tolist():
        try:
            calls.append(_call(spec, {name: arrays[name][i] for name in sizes}))
        except TrmInputError as error:
            raise TrmInputError(f"{path}: example {i}: {error}") from None
    return calls


def golden_calls(bundle: Bundle) -> list[Call]:
    """Return the bundle's golden cases as calls: random inputs, which stand in where no data is at hand."""
    if not bundle.golden:
        raise TrmInputError("the bundle holds no golden vectors to calibrate on; name recorded calls with --data")
    return [Call(check_inputs(bundle.spec, **golden_arguments(case)), None) for case in bundle.golden]


def split_calls(calls: Sequence[Call]) -> tuple[list[Call], list[Call]]:
    """Return calls to take ranges from and others to measure on, in turns; the same where there are fewer than four."""
    return (list(calls), list(calls)) if len(calls) < 4 else (list(calls[::2]), list(calls[1::2]))


def _call(spec: TrmSpec, arrays: dict[str, Any]) -> Call:
    for name, parts in _LENGTHS.items():
        length = arrays.pop(name, None)
        if length is None:
            continue
        count = stored_integer(name, length)
        for part, axis in parts:
            if part in arrays:
                _check_length(name, count, part, arrays[part], axis)
                arrays[part] = arrays[part].take(range(count), axis=axis)
    target = arrays.pop("target", None)
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
    return Call(inputs, target)


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
    if not spec.answer_is_float and target.size and target.max() >= choices:
        raise TrmInputError(f"target: expected indices below {choices}, got {target.max()}")
