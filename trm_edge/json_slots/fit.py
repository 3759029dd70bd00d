"""How well a candidate fits the slot that it is a candidate of.

Whether the words around a span are those of the slot's name or description, which options a query mentions, whether a
value is written as the slot's description shows it. The functions return float32 arrays with a row per candidate (M) or
per slot (S); ``first`` and ``last`` [M] are a candidate's first and last token in the query, -1 where it has none, and
``slot_of`` [M] is the number of its slot. A token "says" a text where both have a stem in common (``wording.stem``).
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
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

MENTIONED = 4  # columns of ``mentioned``
_NO_LEAD = np.eye(len(LEADS) + 1, dtype=np.float32)[:, : len(LEADS)]


class Near(IntEnum):
    """The columns of ``nearness``: which words around a candidate say its slot, or another slot.

    "Before" and "behind" end with the clause; "previous" and "next" are the words that touch the candidate.
    """

    NAME_PREVIOUS = 0  # the previous word says the slot's name
    NAME_SECOND = 1  # so does the one before that
    NAME_BEFORE = 2  # any word before
    NAME_NEXT = 3
    NAME_BEHIND = 4  # any word behind
    DESCRIPTION_PREVIOUS = 5  # the same five for the slot's description
    DESCRIPTION_SECOND = 6
    DESCRIPTION_BEFORE = 7
    DESCRIPTION_NEXT = 8
    DESCRIPTION_BEHIND = 9
    OTHERS_PREVIOUS = 10  # one of the two words before says another slot
    OTHERS_BEFORE = 11
    OTHERS_NEXT = 12
    WITHIN = 13  # the candidate's own words say the slot: their mean
    MOST_BEFORE = 14  # no other candidate of the slot has more said of it by the three words before


class Fit(IntEnum):
    """The columns of ``own_fit``: what a candidate is to its slot."""

    DRAFTED = 0
    DEFAULT = 1
    BETWEEN_BOUNDS = 2  # where a number lies between the minimum (0) and the maximum (1)
    SAID = 3  # of an option and the like: the share of it that stands in the query
    AS_SHOWN = 4  # written as the slot's description shows values
    NOT_AS_SHOWN = 5
    DRAFTED_SAID = 6
    DRAFTED_UNSAID = 7
    CAPITALS = 8  # a whole run of words in capitals
    QUOTED = 9


def said(read: ReadQuery, slots: Sequence[Slot]) -> tuple[Vectors, Vectors]:
    """Return [S, P + 1] how much a token says a slot's name, and its description; 0 in the last column, for token -1.

    A stem that several descriptions have counts 1 / (their number) for each.
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
    """Return [M, len(Near)]: what is said of a candidate's slot, and of the others, beside it."""
    near = np.zeros((len(first), len(Near)), np.float32)
    if not len(read):
        return near
    both = names + descriptions * np.float32(0.5)
    slots = len(names)
    by_token = np.ascontiguousarray(np.concatenate([names, descriptions, _rivals(both)]).T)  # [P + 1, 3 S]
    # [P + 1, BEFORE or BEHIND, 3, S]: what each word beside a token says of the name, the description, other slots.
    ahead, after = (by_token[places].reshape(*places.shape, 3, slots) for places in (read.before, read.behind))
    most, either = ahead.max(axis=1), after.max(axis=1)  # [P + 1, 3, S]
    by_first = {  # [P + 1, S] each, by a candidate's first token
        Near.NAME_PREVIOUS: ahead[:, 0, 0],
        Near.NAME_SECOND: ahead[:, 1, 0],
        Near.NAME_BEFORE: most[:, 0],
        Near.DESCRIPTION_PREVIOUS: ahead[:, 0, 1],
        Near.DESCRIPTION_SECOND: ahead[:, 1, 1],
        Near.DESCRIPTION_BEFORE: most[:, 1],
        Near.OTHERS_PREVIOUS: ahead[:, :2, 2].max(axis=1),
        Near.OTHERS_BEFORE: most[:, 2],
    }
    by_last = {
        Near.NAME_NEXT: after[:, 0, 0],
        Near.NAME_BEHIND: either[:, 0],
        Near.DESCRIPTION_NEXT: after[:, 0, 1],
        Near.DESCRIPTION_BEHIND: either[:, 1],
        Near.OTHERS_NEXT: after[:, 0, 2],
    }
    for columns, tokens in ((by_first, first), (by_last, last)):
        table = np.stack([*columns.values()], axis=2).reshape(-1, len(columns))
        near[:, [*columns]] = table.take(tokens * slots + slot_of, axis=0)
    sums = np.concatenate([np.zeros((len(both), 1), np.float32), np.cumsum(both[:, :-1], axis=1)], axis=1)
    ends, begins = np.where(first >= 0, last + 1, 0), np.maximum(first, 0)
    near[:, Near.WITHIN] = (sums[slot_of, ends] - sums[slot_of, begins]) / np.maximum(ends - begins, 1)
    near[:, Near.MOST_BEFORE] = best_of_slot(both[:, read.before[:, :3]].max(axis=2)[slot_of, first], slot_of)
    return near


def mentioned(read: ReadQuery, slots: Sequence[Slot], names: Vectors, descriptions: Vectors) -> Vectors:
    """Return [S, MENTIONED] what the query says of a slot.

    The share of its name, whether any of that, whether negated, and how much of its description.
    """
    flags = np.zeros((len(slots), MENTIONED), np.float32)
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
    """Return [S, P + 1]: for each slot and token, the most that the token says any other slot."""
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
    """Return [M, 3] how many words of a candidate the query has, for those that were not read from it (options, say).

    The share of its stems that the query has. Then the number of these, where the stems of its ``note`` count too and
    one that n candidates of the slot have counts 1 / n, so that what tells options apart weighs most; divided by the
    slot's best candidate. Then whether it is the slot's best by the share and the weighted number together.
    """
    known = {one: number for number, one in enumerate(read.at)}
    said: list[tuple[int, int]] = []
    own, has = np.zeros(len(values), np.float32), np.zeros((len(values), len(known)), np.float32)
    listed = [row for row in values.listed if values.texts[row]]
    for row in listed:
        words = stems(values.texts[row]) or stems(values.distinct[row].note)  # of a number what is said of it
        found = words & known.keys()
        own[row] = len(found) / max(len(words), 1)
        if values.distinct[row].note:
            found |= stems(values.distinct[row].note) & known.keys()
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
    """Return [M, len(Fit)]: what a candidate is to its slot."""
    which = values.which
    fit = np.zeros((len(which), len(Fit)), np.float32)
    fit[call.y0[call.y0 >= 0], Fit.DRAFTED] = 1
    for begin, end in _runs(call.slot_of):
        slot, own = call.slots[int(call.slot_of[begin])], call.candidates[begin:end]
        if slot.schema.default is not MISSING:
            default = key_of(slot.schema.default)
            given = takewhile(lambda one: one.source != "span", own)  # a valid default is among these, which come first
            fit[[begin + i for i, one in enumerate(given) if key_of(one.value) == default], Fit.DEFAULT] = 1
        bounds = _bounds(slot)
        if bounds is not None:
            fit[begin:end, Fit.BETWEEN_BOUNDS] = [_between(one.value, *bounds) for one in own]
        shown = shapes_in(slot.schema.description)
        if shown:
            fit[begin:end, [Fit.AS_SHOWN, Fit.NOT_AS_SHOWN]] = values.written_as(shown)[which[begin:end]]
    told = np.zeros(len(values), np.float32)
    told[values.listed] = [_stands(read, values.distinct[row].value, values.texts[row]) for row in values.listed]
    drafted, is_said = fit[:, Fit.DRAFTED], told[which]
    fit[:, Fit.SAID] = is_said
    fit[:, Fit.DRAFTED_SAID], fit[:, Fit.DRAFTED_UNSAID] = drafted * is_said, drafted * (1 - is_said)
    capital, quoted = read.marked(values.starts, values.ends)
    fit[:, Fit.CAPITALS], fit[:, Fit.QUOTED] = capital[which], quoted[which]
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
    """Return the share of a value's parts, the items of an array, that stand in the query word by word."""
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
