"""Values that schemas name, as options or examples, where the query says them.

They tell what else a run of words may be: a part of a longer name, another slot's value, a number; and they tell which
tool is meant, where only some of them know what the query names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from .fit import best_of_slot
from .providers import Vectors
from .reading import Flags, Indices, ReadQuery, folded
from .schema import Named
from .values import Values

if TYPE_CHECKING:
    from .calls import SlotInputs

BESIDES, OF_TOOLS = 3, 5  # columns of ``besides`` and ``known_of_tools``
_NAMED = frozenset(("mentioned", "option"))


def besides(read: ReadQuery, call: SlotInputs, values: Values) -> Vectors:
    """Return [M, BESIDES] what a candidate's words are besides.

    Part of a longer value that a schema names; the share of them that other slots' values are, and that numbers are.
    """
    flags = np.zeros((len(values.which), BESIDES), np.float32)
    if not len(read):
        return flags
    first, last, slot_of = values.first[values.which], values.last[values.which], call.slot_of
    sources = np.array([one.source in _NAMED for one in values.own], bool)
    named = np.flatnonzero(sources[values.which] & (first >= 0))
    length = last - first
    within = (first[:, None] >= first[named]) & (last[:, None] <= last[named]) & (length[:, None] < length[named])
    flags[:, 0] = within.any(axis=1) & (first >= 0)
    told = np.zeros((len(call.slots), len(read)), bool)
    for row in named.tolist():
        told[slot_of[row], first[row] : last[row] + 1] = True
    counted = np.zeros((1, len(read)), bool)
    for row, one in enumerate(values.own):
        if one.source == "span" and isinstance(one.value, (int, float)):
            counted[0, values.first[row] : values.last[row] + 1] = True
    flags[:, 1] = _share(told.sum(axis=0) - told > 0, slot_of, first, last)
    flags[:, 2] = _share(counted, np.zeros_like(slot_of), first, last)
    return flags


def known_of_tools(read: ReadQuery, call: SlotInputs, values: Values) -> Vectors:
    """Return [M, OF_TOOLS] what the query names of a tool's values; zeros for what is no tool.

    The share of the query's words that its examples are, and its options; these words, of which one that several tools
    know counts 1 over their number; whether no tool has more of that; and how many of the arguments that it must have
    name values of which the query says none.
    """
    flags = np.zeros((len(values), OF_TOOLS), np.float32)
    tools = [row for row, one in enumerate(values.own) if one.named]
    if not tools or not len(read):
        return flags[values.which]
    named = tuple(values.own[row].named for row in tools)
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


def _share(marked: Flags, rows: Indices, first: Indices, last: Indices) -> Vectors:
    """Return [M] the share of a candidate's tokens that are marked [S, P] in its row; 0 without tokens."""
    sums = np.concatenate([np.zeros((len(marked), 1), np.float32), np.cumsum(marked, axis=1)], axis=1)
    begins, ends = np.maximum(first, 0), np.where(first >= 0, last + 1, 0)
    share: Vectors = np.where(first >= 0, (sums[rows, ends] - sums[rows, begins]) / np.maximum(ends - begins, 1), 0)
    return share
