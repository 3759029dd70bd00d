"""Joint choices: what the slots of a call choose together, where each by itself would take what is likeliest.

Two slots seldom mean the same words of a query, what stands out in it (a number, a quotation, a name) is seldom meant
for none, and what the tool's own name says is seldom a value ("status of the nap timer" to ``timer_status``). So a
joint choice is worth the sum of its logits, less ``TOOL_SAID`` for a value with words of the tool's name, less
``SHARED`` for every two slots that take words which the query has only once, and less ``UNUSED`` for what stands out
and no slot takes. It is looked for by greedy search: from each slot's likeliest choice on, the one change of one slot
that gains most is made, for as long as one gains anything. What a draft has and is likeliest stays, so that a right
draft is not made wrong here. By the same measure a tool is chosen with its arguments.

What stands out in the query is called a mark here, and has a bit in the integers that are sets of marks.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .reading import Indices
from .wording import said_in, stems

if TYPE_CHECKING:
    from .calls import SlotInputs

SHARED = 6.0  # logits
TOOL_SAID = 3.0  # logits
UNUSED = (  # logits, and how it is written
    (2.0, re.compile(r"(?<![A-Za-z0-9.])\d(?:[\d,.]*\d)?(?![A-Za-z])")),  # a number
    (2.0, re.compile(r"(?<!\w)(['\"])(?:(?!\1)[^\n]){1,80}\1(?!\w)")),  # a quotation
    (1.0, re.compile(r"(?<=[a-z,;:] )[A-Z][\w'-]+(?: (?:of |the |de )?[A-Z][\w'-]+)*")),  # a name
)
MAX_CHANGES = 8
MAX_MARKS = 16  # of what stands out in a query

Chosen = np.ndarray[Any, np.dtype[np.int32]]
Logits = np.ndarray[Any, np.dtype[np.float32]]
Place = tuple[int, int]  # the characters of a query from, to


class Taken(NamedTuple):
    """The words of a query that a candidate takes for its slot.

    ``start`` and ``end`` are -1 where it takes none, or where the query has them twice and other slots may take them.
    """

    start: int
    end: int
    marks: int  # the marks that overlap these words, a bit each


NOTHING = Taken(-1, -1, 0)


def joint_choices(inputs: SlotInputs, logits: Logits, drafted: Chosen) -> Chosen:
    """Return [K, S] what slots choose together after each step, by ``logits [K, S, M]``; -1 where there is nothing.

    ``drafted`` [S] are the candidates of a draft, which stay where they are the likeliest; -1 for none.
    """
    slots = _Slots(inputs)
    worth = logits[:, inputs.slot_of, np.arange(len(inputs.candidates))]  # a candidate is one slot's only
    found = [slots.settled(np.where(np.isnan(after), -np.inf, after), drafted.tolist()) for after in worth]
    return np.array(found, np.int32)


def less_what_names_the_tool(inputs: SlotInputs, logits: Logits) -> None:
    """Take ``TOOL_SAID`` off the logits [K, S, M] of words of the query, in small letters, that the tool's name has."""
    places = said_in(inputs.query, stems(inputs.tool.name))
    if not places:
        return
    starts, ends = inputs.spans
    overlap = np.zeros(len(starts), bool)
    for start, end in places:
        overlap |= (starts < end) & (ends > start)
    found = ((j, inputs.candidates[j]) for j in np.flatnonzero(overlap).tolist())
    said = [j for j, one in found if one.source == "span" and isinstance(one.value, str) and one.value.islower()]
    logits[:, inputs.slot_of[said], said] -= TOOL_SAID


def given_up(inputs: SlotInputs, logits: Logits, chosen: Sequence[int], drafted: Chosen, bonus: float) -> float:
    """Return the difference, in logits, between the best choice of each slot by itself and a joint choice.

    The best choices pay nothing for words that they share or leave unused; the joint choice does, and it may have lost
    logits to be valid for the schema. So a large difference says that the query does not suit the tool.

    Parameters
    ----------
    logits
        [S, M], with ``bonus`` on the candidates ``drafted``.
    chosen
        [S] the joint choice; -1 for none.
    drafted
        [S] the draft's candidates, -1 for none. Their bonus counts where they are chosen, not in the best choices.
    """
    slots = _Slots(inputs)
    worth = logits[inputs.slot_of, np.arange(len(inputs.candidates))]
    bare = worth.copy()
    bare[drafted[drafted >= 0]] -= bonus
    taken = [slots.taken(j) for j in chosen]
    likeliest = [float(np.nanmax(bare[begin:end], initial=-np.inf)) for begin, end in slots.ranges]
    lost = sum(max(0.0, most - float(worth[j])) for most, j in zip(likeliest, chosen, strict=True) if j >= 0)
    sharing = sum(slots.sharers(taken, slot, one) for slot, one in enumerate(taken)) / 2
    return lost + SHARED * sharing + slots.unused(_union(taken))


class _Slots:
    """The slots of a call with their candidates, and the words of the query that these take.

    Attributes
    ----------
    inputs, query, candidates, slot_of
        The call and what of it is looked at most.
    lowered
        The query in small letters, of the same length, so that places in it are places in the query.
    ranges
        By slot, from where to where its candidates go.
    marks, costs
        Where the marks are, and what each costs that no slot takes.
    """

    def __init__(self, inputs: SlotInputs) -> None:
        self.inputs, self.query, self.candidates, self.slot_of = inputs, inputs.query, inputs.candidates, inputs.slot_of
        lowered = inputs.query.lower()
        self.lowered = lowered if len(lowered) == len(self.query) else self.query
        ends = np.cumsum(np.bincount(inputs.slot_of, minlength=len(inputs.slots))).tolist()
        self.ranges = list(zip([0, *ends], ends, strict=False))
        marks = [(match.span(), cost) for cost, mark in UNUSED for match in mark.finditer(self.query)][:MAX_MARKS]
        self.marks, self.costs = [mark for mark, _ in marks], [cost for _, cost in marks]
        self._taken: dict[int, Taken] = {-1: NOTHING}
        self._takers: dict[int, list[tuple[int, Indices]]] = {}
        self._unused: dict[int, float] = {}

    def settled(self, logits: Logits, drafted: Sequence[int]) -> list[int]:
        """Return the joint choice that greedy search finds by ``logits [M]``, a candidate per slot, -1 for none.

        Changes that are tried: a slot that shares words to its likeliest candidate that shares none (``apart``), and
        any slot to its likeliest candidate among those that take an unused mark.
        """
        chosen = [begin + int(logits[begin:end].argmax()) if begin < end else -1 for begin, end in self.ranges]
        stays = [j >= 0 and j == draft for j, draft in zip(chosen, drafted, strict=True)]
        taken = [self.taken(j) for j in chosen]
        likeliest: dict[int, list[tuple[int, int]]] = {}  # (slot, candidate) by mark
        for _ in range(MAX_CHANGES):
            sharing = [self.sharers(taken, slot, one) for slot, one in enumerate(taken)]
            used = _union(taken)
            unused = self.unused(used)
            changes = list(self.apart(taken, sharing, logits))
            for mark in (mark for mark in range(len(self.marks)) if not used >> mark & 1):
                if mark not in likeliest:
                    likeliest[mark] = [(slot, int(own[logits[own].argmax()])) for slot, own in self.takers(mark)]
                changes += likeliest[mark]
            most, best = 0.0, None
            for slot, j in changes:
                new = self.taken(j)
                gain = float(logits[j] - logits[chosen[slot]]) + SHARED * sharing[slot] + unused
                if stays[slot] or gain - self.unused(used | new.marks) <= most:
                    continue  # an upper bound of the gain, and cheap: it shares nothing, and the old marks stay used
                others = [*taken[:slot], *taken[slot + 1 :]]
                gain -= SHARED * self.sharers(taken, slot, new) + self.unused(_union(others) | new.marks)
                if gain > most:
                    most, best = gain, (slot, j)
            if best is None:
                break
            slot, j = best
            chosen[slot], taken[slot] = j, self.taken(j)
        return chosen

    def sharers(self, taken: Sequence[Taken], slot: int, own: Taken) -> int:
        """Return how many other slots take words that a slot takes, where the query has them only once."""
        start, end, _ = own
        if end < 0:
            return 0
        return sum(start < its[1] and its[0] < end for other, its in enumerate(taken) if other != slot)

    def apart(self, taken: Sequence[Taken], sharing: Sequence[int], logits: Logits) -> Iterator[tuple[int, int]]:
        """Yield (slot, candidate) for slots that share words: the likeliest that takes no words of others."""
        for slot in (slot for slot, others in enumerate(sharing) if others):
            begin, end = self.ranges[slot]
            starts, ends = (some[begin:end] for some in self.inputs.spans)
            free = np.ones(end - begin, bool)
            for other, its in enumerate(taken):
                if other != slot and its.end > 0:
                    free &= (starts >= its.end) | (ends <= its.start)
            if free.any():
                yield slot, begin + int(np.where(free, logits[begin:end], -np.inf).argmax())

    def unused(self, used: int) -> float:
        """Return what the marks cost that are not used."""
        cost = self._unused.get(used)
        if cost is None:
            cost = sum(cost for number, cost in enumerate(self.costs) if not used >> number & 1)
            self._unused[used] = cost
        return cost

    def takers(self, mark: int) -> list[tuple[int, Indices]]:
        """Return the candidates that were read from words of a mark, by slot."""
        if mark not in self._takers:
            start, end = self.marks[mark]
            starts, ends = self.inputs.spans
            found = np.flatnonzero((starts >= 0) & (starts < end) & (ends > start))
            at = found.searchsorted([end for _, end in self.ranges]).tolist()
            parts = enumerate(zip([0, *at], at, strict=False))
            self._takers[mark] = [(slot, found[first:last]) for slot, (first, last) in parts if first < last]
        return self._takers[mark]

    def taken(self, candidate: int) -> Taken:
        """Return the words that a candidate was read from, or where its value stands; nothing for -1."""
        if candidate not in self._taken:
            place = self._place(candidate)
            self._taken[candidate] = NOTHING if place is None else self._words(*place)
        return self._taken[candidate]

    def _words(self, start: int, end: int) -> Taken:
        marks = sum(1 << number for number, mark in enumerate(self.marks) if mark[0] < end and start < mark[1])
        once = self.query.count(self.query[start:end]) == 1
        return Taken(start, end, marks) if once else Taken(-1, -1, marks)

    def _place(self, candidate: int) -> Place | None:
        value, _, _, start, end, *_ = self.candidates[candidate]
        if start >= 0:
            return start, end
        if not isinstance(value, (str, int, float)) or isinstance(value, bool):
            return None
        text = str(value).removesuffix(".0").replace("_", " ").lower()
        at = self.lowered.find(text) if text else -1
        while at >= 0:
            end = at + len(text)
            end += text[-1].isalpha() and self.lowered[end : end + 1] == "s"  # "shutters" say "shutter"
            around = self.query[at - 1 : at] if at else "", self.query[end : end + 1]
            if not any(map(str.isalnum, around)):
                return at, end
            at = self.lowered.find(text, at + 1)
        return None


def _union(taken: Iterable[Taken]) -> int:
    """Return the marks that are among the words of any."""
    marks = 0
    for one in taken:
        marks |= one.marks
    return marks
