"""How well a candidate fits the slot that it is a candidate of.

What is said of the slot beside a span, which options a query mentions, whether a value is written as the slot's
description shows it. Columns are [M] float32, one value per candidate; ``first`` and ``last`` are its tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from typing import TYPE_CHECKING, Any

import numpy as np

from .candidates import key_of
from .described import shapes_in
from .providers import Vectors
from .reading import Indices, ReadQuery
from .schema import MISSING, Scalar
from .slot_flags import kind_of, name_of
from .slots import Slot
from .values import Values
from .wording import LEADS, stems

if TYPE_CHECKING:
    from .calls import SlotInputs

NEAR, FITS = 15, 10  # columns of ``nearness`` and ``own_fit``
_BEFORE, _BEHIND = [0, 1, 2, 5, 6, 7, 10, 11], [3, 4, 8, 9, 12]  # those of ``nearness`` by first and by last token
_NO_LEAD = np.eye(len(LEADS) + 1, dtype=np.float32)[:, : len(LEADS)]


def said(read: ReadQuery, slots: Sequence[Slot]) -> tuple[Vectors, Vectors]:
    """Return [S, P + 1] how much a token says a slot's name and its description; the last column, for -1, is 0.

    A word of several slots' descriptions says less of each: 1 over their number.
    """
    names = np.zeros((len(slots), len(read) + 1), np.float32)
    descriptions = np.zeros_like(names)
    for spoken, texts in ((names, map(name_of, slots)), (descriptions, (slot.schema.description for slot in slots))):
        at = [
            (i, place) for i, text in enumerate(texts) for one in stems(text) & read.at.keys() for place in read.at[one]
        ]
        if at:
            spoken[tuple(zip(*at, strict=True))] = 1
    descriptions /= np.maximum(descriptions.sum(axis=0), 1)
    return names, descriptions


def nearness(
    read: ReadQuery, names: Vectors, descriptions: Vectors, first: Indices, last: Indices, slot_of: Indices
) -> Vectors:
    """Return [M, NEAR] what is said of a candidate's slot, and of the others, in the clause beside it.

    Of the slot's name, then of its description: by the word before, the one before that, any before; the word behind,
    any behind. Of other slots: by the two words before, any before, the word behind. By its own words; whether of the
    slot's candidates the words before it say most.
    """
    near = np.zeros((len(first), NEAR), np.float32)
    if not len(read):
        return near
    both = names + descriptions * np.float32(0.5)
    slots = len(names)
    by_token = np.ascontiguousarray(np.concatenate([names, descriptions, _rivals(both)]).T)  # [P + 1, 3 S]
    ahead, after = (by_token[places].reshape(*places.shape, 3, slots) for places in (read.before, read.behind))
    most, either = ahead.max(axis=1), after.max(axis=1)  # [P + 1, 3, S]
    two = ahead[:, :2, 2].max(axis=1)
    before = [ahead[:, 0, 0], ahead[:, 1, 0], most[:, 0], ahead[:, 0, 1], ahead[:, 1, 1], most[:, 1], two, most[:, 2]]
    behind = [after[:, 0, 0], either[:, 0], after[:, 0, 1], either[:, 1], after[:, 0, 2]]
    near[:, _BEFORE] = np.stack(before, axis=2).reshape(-1, len(before)).take(first * slots + slot_of, axis=0)
    near[:, _BEHIND] = np.stack(behind, axis=2).reshape(-1, len(behind)).take(last * slots + slot_of, axis=0)
    sums = np.concatenate([np.zeros((len(both), 1), np.float32), np.cumsum(both[:, :-1], axis=1)], axis=1)
    ends, begins = np.where(first >= 0, last + 1, 0), np.maximum(first, 0)
    near[:, -2] = (sums[slot_of, ends] - sums[slot_of, begins]) / np.maximum(ends - begins, 1)
    near[:, -1] = best_of_slot(both[:, read.before[:, :3]].max(axis=2)[slot_of, first], slot_of)
    return near


def mentioned(read: ReadQuery, slots: Sequence[Slot], names: Vectors, descriptions: Vectors) -> Vectors:
    """Return [S, 4]: how much of a slot's name is said, whether any of it, whether negated, and of its description."""
    flags = np.zeros((len(slots), 4), np.float32)
    if not len(read):
        return flags
    for i, slot in enumerate(slots):
        own = stems(name_of(slot))
        flags[i, 0] = len(own & read.at.keys()) / max(len(own), 1)
    flags[:, 1] = names.max(axis=1)
    flags[:, 2] = (names[:, :-1] * read.negated).max(axis=1)
    flags[:, 3] = descriptions.max(axis=1)
    return flags


def strongest(columns: Vectors, slot_of: Indices, slots: int) -> Vectors:
    """Return [S, k]: the most that a candidate of each slot has of ``columns [M, k]``; 0 where it has none."""
    most = np.zeros((slots, columns.shape[1]), np.float32)
    begins = _begins(slot_of)
    most[slot_of[begins]] = np.maximum.reduceat(columns, begins, axis=0)
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
    flags: Vectors = _NO_LEAD[read.lead[first]]
    return flags


def covered(read: ReadQuery, values: Values, slot_of: Indices) -> Vectors:
    """Return [M, 3] for what is no span: the share of its words that the query has, and of those that tell it apart.

    ``note`` counts as its words too; the second column is relative to the best candidate of the slot, and the third
    says which is the best.
    """
    known = {one: number for number, one in enumerate(read.at)}
    said: list[tuple[int, int]] = []
    own, has = np.zeros(len(values), np.float32), np.zeros((len(values), len(known)), np.float32)
    listed = [row for row in values.listed if values.texts[row]]
    for row in listed:
        words = stems(values.texts[row]) or stems(values.own[row].note)  # of a number what is said of it
        found = words & known.keys()
        own[row] = len(found) / max(len(words), 1)
        if values.own[row].note:
            found |= stems(values.own[row].note) & known.keys()
        said += [(row, known[one]) for one in found]
    if said:
        has[tuple(zip(*said, strict=True))] = 1
    told = np.zeros(len(slot_of), np.float32)
    among = np.zeros(len(values), bool)
    among[listed] = True
    rows = np.flatnonzero(among[values.which])
    for begin, end in _runs(slot_of[rows]):
        some = has[values.which[rows[begin:end]]]
        told[rows[begin:end]] = (some / np.maximum(some.sum(axis=0), 1)).sum(axis=1)
    relative = told / np.maximum(_most(told, slot_of), np.float32(1e-6))
    mine = own[values.which]
    return np.stack([mine, relative, best_of_slot(mine + told, slot_of)], axis=1)


def own_fit(read: ReadQuery, call: SlotInputs, values: Values) -> Vectors:
    """Return [M, FITS] what a candidate is to its slot.

    Drafted, the default, its place between the bounds, said, written as shown, shown otherwise, drafted and said,
    drafted and not said, a run of capitals, in quotation marks.
    """
    which = values.which
    fit = np.zeros((len(which), FITS), np.float32)
    fit[call.y0[call.y0 >= 0], 0] = 1
    for begin, end in _runs(call.slot_of):
        slot, own = call.slots[int(call.slot_of[begin])], call.candidates[begin:end]
        if slot.schema.default is not MISSING:
            default = key_of(slot.schema.default)
            given = takewhile(
                lambda one: one.source != "span", own
            )  # a valid default is one of these, which come first
            fit[[begin + i for i, one in enumerate(given) if key_of(one.value) == default], 1] = 1
        bounds = _bounds(slot)
        if bounds is not None:
            fit[begin:end, 2] = [_between(one.value, *bounds) for one in own]
        shown = shapes_in(slot.schema.description)
        if shown:
            fit[begin:end, 4:6] = values.written_as(shown)[which[begin:end]]
    told = np.zeros(len(values), np.float32)
    told[values.listed] = [_stands(read, values.own[row].value, values.texts[row]) for row in values.listed]
    fit[:, 3] = told[which]
    fit[:, 6] = fit[:, 0] * fit[:, 3]
    fit[:, 7] = fit[:, 0] * (1 - fit[:, 3])
    capital, quoted = read.marked(values.starts, values.ends)
    fit[:, 8], fit[:, 9] = capital[which], quoted[which]
    return fit


def _between(value: Any, least: float, most: float) -> float:
    """Return where a number lies between bounds, from 0 to 1; halves do not overflow."""
    return (value / 2 - least / 2) / (most / 2 - least / 2) if isinstance(value, (int, float)) else 0.0


def _begins(owners: Indices) -> Indices:
    """Return where runs of equal numbers begin."""
    begins = np.ones(len(owners), bool)
    np.not_equal(owners[1:], owners[:-1], out=begins[1:])
    return np.flatnonzero(begins)


def _runs(owners: Indices) -> list[tuple[int, int]]:
    """Return where a run of equal numbers begins and ends."""
    begins = _begins(owners).tolist()
    return list(zip(begins, [*begins[1:], len(owners)], strict=True)) if begins else []


def _most(column: Vectors, slot_of: Indices) -> Vectors:
    """Return [M] the most that a candidate of the same slot has."""
    begins = _begins(slot_of)
    most = np.zeros(int(slot_of[-1]) + 1, np.float32)
    most[slot_of[begins]] = np.maximum.reduceat(column, begins)
    return most[slot_of]


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


def order(values: Values, slots: Sequence[Slot], slot_of: Indices) -> Vectors:
    """Return [M, 2] whether a span comes in the query where its slot comes among those of its kind; how far it is off.

    Both are ranks: of a span's start among those of its slot's other spans, of the slot among the others of its kind.
    """
    result = np.zeros((len(slot_of), 2), np.float32)
    kinds = [kind_of(slot.schema) for slot in slots]
    before = np.array([kinds[:i].count(kind) for i, kind in enumerate(kinds)])
    others = np.array([max(kinds.count(kind) - 1, 1) for kind in kinds])
    starts = values.starts[values.which]
    rows = np.flatnonzero(starts >= 0)
    if rows.size:
        start, slot = starts[rows], slot_of[rows]
        begins = np.zeros((len(slots), int(start.max()) + 1), bool)  # where a span of the slot begins
        begins[slot, start] = True
        places = np.cumsum(begins, axis=1)
        rank = places[slot, start] - 1
        result[rows, 0] = rank == before[slot]
        result[rows, 1] = rank / np.maximum(places[:, -1] - 1, 1)[slot] - (before / others)[slot]
    return result
