"""Packed training examples of ``slots`` heads: the rows of all examples one after another, without padding.

Calls of tools differ much in their number of candidates; padded to the largest they would not fit into memory. One
``.npz`` file, told from a padded one by its two-dimensional ``x``:

==============  =====================================================================================================
x               [sum of P, Dx] float16 or float32, with ``x_len [N]``
slots           [sum of S, Ds], with ``s_len [N]``
candidates      [sum of M, Dc], with ``m_len [N]``
slot_of         [sum of M]: the one slot of its example, 0 to S - 1, that may take a candidate
target          [sum of S]: a candidate of its example, 0 to M - 1; -1 supervises nothing
y0              [sum of S], optional: the draft's candidates, or -1
group           [N], optional: as :mod:`trm_edge.train.data` has it
omit            [sum of M] bool, optional: candidates that leave their slot out
right           [sum of M] bool, optional: candidates that are as right for their slot as its target
==============  =====================================================================================================
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from trm_edge.errors import TrmInputError
from trm_edge.inputs import Array
from trm_edge.recorded import PACKED
from trm_edge.spec import TrmSpec

from .data import Arrays, Examples

_LIMITS = {"x": "max_context", "s": "answer_rows", "m": "max_candidates"}
_WIDTHS = {"x": "context_size", "slots": "slot_size", "candidates": "candidate_size"}


class Packed(Examples):
    """Checked packed arrays."""

    @cached_property
    def begins(self) -> Arrays:
        """Return where the rows of every example begin, by part: x, s and m."""
        return {part: np.cumsum(self.arrays[f"{part}_len"]) - self.arrays[f"{part}_len"] for part in _LIMITS}

    @cached_property
    def lengths(self) -> Array:
        """Return the rows of each example's state and the number of its candidates, which cost less."""
        return np.stack([self.arrays["x_len"] + self.arrays["s_len"], self.arrays["m_len"]], axis=1)

    def __len__(self) -> int:
        return len(self.arrays["x_len"])

    def take(self, index: Array) -> Arrays:
        """Return examples by number as padded arrays, float32 and int64, as ``train.data`` describes them."""
        lengths = {part: self.arrays[f"{part}_len"][index].astype(np.int64) for part in _LIMITS}
        most = {part: int(length.max(initial=0)) for part, length in lengths.items()}
        padded: Arrays = {f"{part}_len": length for part, length in lengths.items()}
        for name, part in PACKED.items():
            if name not in self.arrays or name == "slot_of":
                continue
            rows = self.arrays[name]
            fill = -1 if name in ("target", "y0") else 0
            kind: Any = {"f": np.float32, "i": np.int64}.get(rows.dtype.kind, rows.dtype)
            into = np.full((len(index), most[part], *rows.shape[1:]), fill, kind)
            for row, (begin, length) in enumerate(zip(self.begins[part][index], lengths[part], strict=True)):
                into[row, :length] = rows[begin : begin + length]
            padded[name] = into
        mask = np.zeros((len(index), most["s"], most["m"]), bool)
        for row, (begin, length) in enumerate(zip(self.begins["m"][index], lengths["m"], strict=True)):
            mask[row, self.arrays["slot_of"][begin : begin + length], np.arange(length)] = True
        padded["mask"] = mask
        return padded

    @property
    def asking(self) -> int:
        """How many ask for something."""
        owner = np.repeat(np.arange(len(self)), self.arrays["s_len"])
        return len(np.unique(owner[self.arrays["target"] >= 0]))

    def subset(self, index: Array) -> Packed:
        """Return a copy that holds some of the examples."""
        picked: Arrays = {f"{part}_len": self.arrays[f"{part}_len"][index] for part in _LIMITS}
        rows = {part: self._rows_of(part, index) for part in _LIMITS}
        for name, part in PACKED.items():
            if name in self.arrays:
                picked[name] = self.arrays[name][rows[part]]
        return Packed(self.spec, picked)

    def rows(self, name: str) -> Array:
        """Return the rows of a float array of all examples."""
        return self.arrays[name]

    def _rows_of(self, part: str, index: Array) -> Array:
        begins, lengths = self.begins[part][index], self.arrays[f"{part}_len"][index]
        found = [np.arange(begin, begin + length) for begin, length in zip(begins, lengths, strict=True)]
        return np.concatenate(found) if found else np.zeros(0, np.int64)


def pack(calls: Sequence[Mapping[str, Array]]) -> Arrays:
    """Join the arrays of calls: ``x [P, Dx]``, ``slots [S, Ds]``, ``candidates [M, Dc]``, ``slot_of [M]`` and so on."""
    floats = {"x": "x", "s": "slots", "m": "candidates"}  # half the size, and never whole in float32
    joined = {f"{part}_len": np.array([len(call[name]) for call in calls], np.int64) for part, name in floats.items()}
    for name in PACKED:
        if name in calls[0]:
            kind = np.float16 if name in floats.values() else None
            joined[name] = np.concatenate([call[name] for call in calls], dtype=kind, casting="same_kind")
    return joined


def check_packed(spec: TrmSpec, arrays: Arrays) -> Packed:
    """Check names, dtypes, shapes and values, or raise :class:`TrmInputError`."""
    known = {*PACKED, "x_len", "s_len", "m_len", "group"}
    for name in sorted(set(arrays) - known):
        raise TrmInputError(f"{name}: unknown among packed slots; known: {', '.join(sorted(known))}")
    for name in sorted(known - set(arrays) - {"y0", "omit", "right", "group"}):
        raise TrmInputError(f"{name}: missing; packed slots need it")
    # -1 stands beside indices, which no unsigned type has
    arrays = {name: array.astype(np.int64) if array.dtype.kind == "u" else array for name, array in arrays.items()}
    count = arrays["x_len"].size
    if not count:
        raise TrmInputError("x_len: holds no example")
    for part, limit in _LIMITS.items():
        name = f"{part}_len"
        lengths = arrays[name]
        if lengths.shape != (count,) or lengths.dtype.kind not in "iu":
            raise TrmInputError(f"{name}: expected integers [{count}], got {lengths.dtype} {list(lengths.shape)}")
        most = getattr(spec, limit)
        if lengths.min() < 0 or lengths.max() > most:
            where = int(np.argmax((lengths < 0) | (lengths > most)))
            raise TrmInputError(f"{name}: expected 0..spec.{limit} = {most}, got {lengths[where]} in example {where}")
    if "group" in arrays and (arrays["group"].shape != (count,) or arrays["group"].dtype.kind != "i"):
        got = f"{arrays['group'].dtype} {list(arrays['group'].shape)}"
        raise TrmInputError(f"group: expected integers [{count}], got {got}")
    for name, part in PACKED.items():
        if name in arrays:
            _check_rows(spec, name, arrays[name], int(arrays[f"{part}_len"].sum()))
    packed = Packed(spec, arrays)
    _check_choices(packed)
    return packed


def _check_rows(spec: TrmSpec, name: str, array: Array, rows: int) -> None:
    shape = [rows, getattr(spec, _WIDTHS[name])] if name in _WIDTHS else [rows]
    kinds = {"omit": "b", "right": "b"}.get(name, "f" if name in _WIDTHS else "iu")
    if [*array.shape] != shape or array.dtype.kind not in kinds:
        kind = {"b": "bool", "f": "floats", "iu": "integers"}[kinds]
        raise TrmInputError(f"{name}: expected {kind} {shape}, got {array.dtype} {list(array.shape)}")
    if kinds == "f" and not np.isfinite(array).all():
        raise TrmInputError(f"{name}: expected finite values, found NaN or Inf in row {_first(~np.isfinite(array))}")


def _check_choices(packed: Packed) -> None:
    """Check that every choice is a candidate of its slot."""
    arrays = packed.arrays
    example = np.repeat(np.arange(len(packed)), arrays["m_len"])
    outside = (arrays["slot_of"] < 0) | (arrays["slot_of"] >= arrays["s_len"][example])
    if outside.any():
        raise TrmInputError(f"slot_of: expected a slot of its example, got another in row {_first(outside)}")
    owner = np.repeat(np.arange(len(packed)), arrays["s_len"])
    slot = np.arange(len(owner)) - packed.begins["s"][owner]
    for name in ("target", "y0"):
        if name not in arrays:
            continue
        chosen = arrays[name]
        wrong = (chosen < -1) | (chosen >= arrays["m_len"][owner])
        at = np.where((chosen >= 0) & ~wrong, packed.begins["m"][owner] + chosen, 0)
        wrong |= (chosen >= 0) & (arrays["slot_of"][at] != slot) if len(arrays["slot_of"]) else chosen >= 0
        if wrong.any():
            raise TrmInputError(f"{name}: expected a candidate of its slot or -1, got another in row {_first(wrong)}")


def _first(wrong: Array) -> int:
    return int(np.argwhere(wrong)[0][0])
