"""Values that schemas name, as options or examples, where the query says them.

They are evidence against other readings of the same words: "kitchen" is less likely a room where the query has the
"kitchen light" that a schema names. And they are evidence for a tool, where only some tools know what the query names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from .candidates import SOURCES
from .fit import best_of_slot
from .providers import Vectors
from .reading import ReadQuery, folded
from .schema import Named
from .values import NUMBER, SOURCE_OF, Values

if TYPE_CHECKING:
    from .calls import SlotInputs

BESIDES, OF_TOOLS = 3, 5  # columns of ``besides`` and ``known_of_tools``
_ARE_NAMED = np.array([source in ("mentioned", "option") for source in SOURCES])


def besides(read: ReadQuery, call: SlotInputs, values: Values) -> Vectors:
    """Return [M, BESIDES] what else the words of a candidate may be.

    Whether they are part of a longer value that a schema names; the share of them that belongs to values that the
    schemas of other slots name; the share that was read as numbers.
    """
    flags = np.zeros((len(values.which), BESIDES), np.float32)
    if not len(read):
        return flags
    first, last, slot_of = values.first[values.which], values.last[values.which], call.slot_of
    named = np.flatnonzero(_ARE_NAMED[values.sources][values.which] & (first >= 0))
    length = last - first
    within = (first[:, None] >= first[named]) & (last[:, None] <= last[named]) & (length[:, None] < length[named])
    flags[:, 0] = within.any(axis=1) & (first >= 0)
    slots = len(call.slots)
    marked = np.zeros((slots + 1, len(read)), bool)  # what slots' values are, then what numbers are
    for row in named.tolist():
        marked[slot_of[row], first[row] : last[row] + 1] = True
    for row in np.flatnonzero((values.sources == SOURCE_OF["span"]) & (values.kinds == NUMBER)).tolist():
        marked[slots, values.first[row] : values.last[row] + 1] = True
    marked[:slots] = marked[:slots].sum(axis=0) - marked[:slots] > 0
    sums = np.zeros((slots + 1, len(read) + 1))
    np.cumsum(marked, axis=1, out=sums[:, 1:])
    begins, ends = np.maximum(first, 0), np.where(first >= 0, last + 1, 0)
    lengths = np.maximum(ends - begins, 1)
    flags[:, 1] = (sums[slot_of, ends] - sums[slot_of, begins]) / lengths
    flags[:, 2] = (sums[slots, ends] - sums[slots, begins]) / lengths
    return flags


def known_of_tools(read: ReadQuery, call: SlotInputs, values: Values) -> Vectors:
    """Return [M, OF_TOOLS] how much of a query a tool's options and examples explain; zeros for what is no tool.

    The share of the query's tokens that are in its examples; the share in its options; the number of tokens in either,
    where one that n tools know counts 1 / n; whether that is the largest of all tools; and how many required arguments
    have options or examples of which the query says none.
    """
    flags = np.zeros((len(values), OF_TOOLS), np.float32)
    tools = [row for row, one in enumerate(values.distinct) if one.named]
    if not tools or not len(read):
        return flags[values.which]
    named = tuple(values.distinct[row].named for row in tools)
    index = _index(named)
    said: set[tuple[int, int]] = set()
    marked = np.zeros((2, len(tools), len(read)), bool)
    for run, (first, last) in read.runs.items():
        for number, argument, options in index.get(run, ()) or index.get(run.removesuffix("s"), ()):
            marked[options, number, first : last + 1] = True
            said.add((number, argument))
    either = marked.any(axis=0)
    flags[tools, :2] = marked.mean(axis=2).T
    flags[tools, 2] = (either / np.maximum(either.sum(axis=0), 1)).sum(axis=1)
    flags[tools, 4] = [
        sum(one.required and (number, argument) not in said for argument, one in enumerate(own))
        for number, own in enumerate(named)
    ]
    flags = flags[values.which]
    flags[:, 3] = best_of_slot(flags[:, 2], call.slot_of)
    return flags


@lru_cache(maxsize=64)
def _index(named: tuple[tuple[Named, ...], ...]) -> Mapping[str, Sequence[tuple[int, int, int]]]:
    """Return which tools name a text, by number, in which argument, and whether as an option (1) or an example (0)."""
    found: dict[str, list[tuple[int, int, int]]] = {}
    for number, own in enumerate(named):
        for argument, one in enumerate(own):
            for options, texts in enumerate((one.examples, one.options)):
                for fold in {folded(text) for text in texts} - {""}:
                    found.setdefault(fold, []).append((number, argument, options))
    return found
