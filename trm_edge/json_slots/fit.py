"""How well a candidate fits the slot that it is a candidate of.

What is said of the slot beside a span, which options a query mentions, whether a value is written as the slot's
description shows it. Columns are [M] float32, one value per candidate; ``first`` and ``last`` are its tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .candidates import key_of
from .providers import Vectors
from .reading import BEFORE, Indices, ReadQuery
from .schema import MISSING, Scalar
from .slot_flags import kind_of, name_of
from .slots import Slot
from .values import Values
from .wording import LEADS, NEGATIONS, shapes_in, stems

if TYPE_CHECKING:
    from .calls import SlotInputs

NEAR, FITS = 15, 10  # columns of ``nearness`` and ``own_fit``
_NO_LEAD = np.eye(len(LEADS) + 1, dtype=np.float32)[:, : len(LEADS)]


def said(read: ReadQuery, slots: Sequence[Slot]) -> tuple[Vectors, Vectors]:
    """Return [S, P + 1] how much a token says a slot's name and its description; the last column, for -1, is 0.

    A word of several slots' descriptions says less of each: 1 over their number.
    """
    names = np.zeros((len(slots), len(read) + 1), np.float32)
    descriptions = np.zeros_like(names)
    for i, slot in enumerate(slots):
        for one in stems(name_of(slot)) & read.at.keys():
            names[i, read.at[one]] = 1
        for one in stems(slot.schema.description) & read.at.keys():
            descriptions[i, read.at[one]] = 1
    descriptions /= np.maximum(descriptions.sum(axis=0), 1)
    return names, descriptions


def nearness(
    read: ReadQuery, names: Vectors, descriptions: Vectors, first: Indices, last: Indices, slot_of: Indices
) -> list[Vectors]:
    """Return what is said of a candidate's slot, and of the others, in the clause beside it; of its own words too."""
    if not len(read):
        return [np.zeros(len(first), np.float32)] * NEAR
    left, right = read.window(first, last)
    owner = slot_of[:, None]
    columns: list[Vectors] = []
    for spoken in (names, descriptions):
        before, behind = spoken[owner, left], spoken[owner, right]
        columns += [before[:, 0], before[:, 1], before.max(axis=1), behind[:, 0], behind.max(axis=1)]
    both = names + descriptions * np.float32(0.5)
    others = _rivals(both)[owner, np.concatenate([left, right[:, :1]], axis=1)]
    columns += [others[:, :2].max(axis=1), others[:, :BEFORE].max(axis=1), others[:, BEFORE]]
    sums = np.concatenate([np.zeros((len(both), 1), np.float32), np.cumsum(both[:, :-1], axis=1)], axis=1)
    ends, begins = np.where(first >= 0, last + 1, 0), np.maximum(first, 0)
    length = np.maximum(ends - begins, 1)
    columns.append((sums[slot_of, ends] - sums[slot_of, begins]) / length)
    columns.append(best_of_slot(both[owner, left[:, :3]].max(axis=1), slot_of))
    return columns


def mentioned(read: ReadQuery, slots: Sequence[Slot], names: Vectors, descriptions: Vectors) -> Vectors:
    """Return [S, 4]: how much of a slot's name is said, whether any of it, whether negated, and of its description."""
    flags = np.zeros((len(slots), 4), np.float32)
    if not len(read):
        return flags
    negated = np.array([word in NEGATIONS for word in read.words] + [False])
    near = negated[read.before[:, :2]].any(axis=1)
    for i, slot in enumerate(slots):
        own = stems(name_of(slot))
        flags[i, 0] = len(own & read.at.keys()) / max(len(own), 1)
    flags[:, 1] = names.max(axis=1)
    flags[:, 2] = (names[:, :-1] * near).max(axis=1)
    flags[:, 3] = descriptions.max(axis=1)
    return flags


def strongest(columns: Sequence[Vectors], slot_of: Indices, slots: int) -> Vectors:
    """Return [S, columns]: the most that a candidate of each slot has; 0 where it has none."""
    most = np.zeros((slots, len(columns)), np.float32)
    begins = _begins(slot_of)
    most[slot_of[begins]] = np.maximum.reduceat(np.stack(columns, axis=1), begins, axis=0)
    return most


def _rivals(spoken: Vectors) -> Vectors:
    """Return [S, P + 1] how much a token says the slot that it says most, each slot's own left out."""
    if len(spoken) < 2:
        return np.zeros_like(spoken)
    ranked = np.sort(spoken, axis=0)
    others: Vectors = np.where(spoken == ranked[-1], ranked[-2], ranked[-1])
    return others


def best_of_slot(column: Vectors, slot_of: Indices) -> Vectors:
    """Return 1 for the candidates whose value is above 0 and no less than any other of their slot."""
    best: Vectors = ((column > 0) & (column >= _most(column, slot_of))).astype(np.float32)
    return best


def leads(read: ReadQuery, first: Indices) -> Vectors:
    """Return [M, LEADS]: the kind of word in front of a span, articles apart."""
    kinds = np.append(read.lead, -1)[first]
    flags: Vectors = _NO_LEAD[kinds]
    return flags


def covered(read: ReadQuery, values: Values, slot_of: Indices) -> list[Vectors]:
    """Return for what is no span: the share of its words that the query has, and of the words that tell it apart.

    ``note`` counts as its words too; the second column is relative to the best candidate of the slot, and the third
    says which is the best.
    """
    known = {one: number for number, one in enumerate(read.at)}
    own, has = np.zeros(len(values), np.float32), np.zeros((len(values), len(known)), np.float32)
    listed = [row for row, one in enumerate(values.own) if one.source != "span" and values.texts[row]]
    for row in listed if known else ():
        words = stems(values.texts[row])
        found = words & known.keys()
        own[row] = len(found) / max(len(words), 1)
        if values.own[row].note:
            found |= stems(values.own[row].note) & known.keys()
        has[row, [known[one] for one in found]] = 1
    told = np.zeros(len(slot_of), np.float32)
    among = np.zeros(len(values), bool)
    among[listed] = True
    rows = np.flatnonzero(among[values.which])
    for begin, end in _runs(slot_of[rows]):
        some = has[values.which[rows[begin:end]]]
        told[rows[begin:end]] = (some / np.maximum(some.sum(axis=0), 1)).sum(axis=1)
    relative = told / np.maximum(_most(told, slot_of), np.float32(1e-6))
    mine = own[values.which]
    return [mine, relative, best_of_slot(mine + told, slot_of)]


def own_fit(read: ReadQuery, call: SlotInputs, values: Values) -> Vectors:
    """Return [M, FITS] what a candidate is to its slot.

    Drafted, the default, its place between the bounds, said, written as shown, shown otherwise, drafted and said,
    drafted and not said, a run of capitals, in quotation marks.
    """
    which = values.which
    fit = np.zeros((len(which), FITS), np.float32)
    fit[call.y0[call.y0 >= 0], 0] = 1
    for begin, end in _runs(call.slot_of):
        slot, rows = call.slots[int(call.slot_of[begin])], range(begin, end)
        if slot.schema.default is not MISSING:
            default = key_of(slot.schema.default)
            fit[begin:end, 1] = [key_of(call.candidates[row].value) == default for row in rows]
        bounds = _bounds(slot)
        if bounds is not None:
            fit[begin:end, 2] = [_between(call.candidates[row].value, *bounds) for row in rows]
        shown = shapes_in(slot.schema.description)
        if shown:
            shapes = [values.shapes[value] for value in which[begin:end].tolist()]
            fit[begin:end, 4] = [one in shown for one in shapes]
            fit[begin:end, 5] = [bool(one) and one not in shown for one in shapes]
    told = [
        0.0 if one.source == "span" else _stands(read, one.value, text)
        for one, text in zip(values.own, values.texts, strict=True)
    ]
    fit[:, 3] = np.array(told, np.float32)[which]
    fit[:, 6] = fit[:, 0] * fit[:, 3]
    fit[:, 7] = fit[:, 0] * (1 - fit[:, 3])
    capital, quoted = read.marked(values.own)
    fit[:, 8], fit[:, 9] = capital[which], quoted[which]
    return fit


def _between(value: Any, least: float, most: float) -> float:
    return (value - least) / (most - least) if isinstance(value, (int, float)) else 0.0


def _begins(owners: Indices) -> Indices:
    """Return where runs of equal numbers begin."""
    return np.flatnonzero(np.diff(owners, prepend=-1))


def _runs(owners: Indices) -> list[tuple[int, int]]:
    """Return where a run of equal numbers begins and ends."""
    begins = _begins(owners)
    return list(zip(begins.tolist(), [*begins[1:].tolist(), len(owners)], strict=True)) if len(owners) else []


def _most(column: Vectors, slot_of: Indices) -> Vectors:
    """Return [M] the most that a candidate of the same slot has."""
    begins = _begins(slot_of)
    most: Vectors = np.repeat(np.maximum.reduceat(column, begins), np.diff(np.append(begins, len(slot_of))))
    return most


def _bounds(slot: Slot) -> tuple[float, float] | None:
    schema = slot.schema
    if not isinstance(schema, Scalar) or schema.minimum is None or schema.maximum is None:
        return None
    return (schema.minimum, schema.maximum) if schema.maximum > schema.minimum else None


def _stands(read: ReadQuery, value: Any, text: str) -> float:
    """Return the share of a value's parts that stand in the query."""
    parts = [str(part) for part in value] if isinstance(value, list) else [text.removesuffix(".0")]
    return sum(read.find(part)[0] >= 0 for part in parts) / len(parts) if parts else 0.0


def taken(chosen: np.ndarray[Any, np.dtype[np.int32]], first: Indices, last: Indices, slot_of: Indices) -> Vectors:
    """Return 1 for the candidates whose words the draft has given to another slot."""
    drafted = [(int(slot_of[j]), int(first[j]), int(last[j])) for j in chosen.tolist() if j >= 0 and first[j] >= 0]
    result = np.zeros(len(first), np.float32)
    for owner, begin, end in drafted:
        result[(slot_of != owner) & (first >= 0) & (first <= end) & (last >= begin)] = 1
    return result


def order(values: Values, slots: Sequence[Slot], slot_of: Indices) -> list[Vectors]:
    """Return whether a span comes in the query where its slot comes among those of its kind, and how far it is off."""
    kinds = [kind_of(slot.schema) for slot in slots]
    same, off = np.zeros(len(slot_of), np.float32), np.zeros(len(slot_of), np.float32)
    starts = np.array([one.start for one in values.own], np.int64)[values.which]
    for begin, end in _runs(slot_of):
        i = int(slot_of[begin])
        before, others = kinds[:i].count(kinds[i]), max(kinds.count(kinds[i]) - 1, 1)
        rows = begin + np.flatnonzero(starts[begin:end] >= 0)
        if rows.size:
            places, rank = np.unique(starts[rows], return_inverse=True)
            same[rows] = rank == before
            off[rows] = rank / max(len(places) - 1, 1) - before / others
    return [same, off]
