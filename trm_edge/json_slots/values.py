"""The values of a call: its distinct candidates, which several slots may share, and what each is by itself.

What does not depend on the slot is worked out once per value; ``which`` says the value of every candidate.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from functools import cached_property, lru_cache

import numpy as np

from .candidates import SOURCES, Candidate
from .operators import OPERATORS
from .providers import Vectors
from .reading import ReadQuery
from .schema import MISSING
from .text import Json
from .wording import shape, words_of

MAX_TEXT = 400  # characters of a value that are looked at
PLACES = 64  # for operators, in the order of their registry
MARKS = ("@", "/", "_", "-", ".")
_SOURCE_OF = {name: number for number, name in enumerate(SOURCES)}
_PLACE_OF = {one.name: len(SOURCES) + number for number, one in enumerate(OPERATORS)}
_KINDS = len(SOURCES) + PLACES  # the column of the first flag of a value's type
_WRITTEN = _KINDS + 5
_NUMBERS = _WRITTEN + 9 + len(MARKS) + 1
OWN_FLAGS = _NUMBERS + 7
_DIGIT = re.compile(r"\d")
NESTED = 3  # columns of ``nested``
_RUNS = frozenset(("words", "part of a word", "lower", "title", "snake", "camel", "singular"))  # of any few words


class Values:
    """The distinct candidates of a call, U of them.

    Attributes
    ----------
    own
        The candidates.
    which
        [M] int: the value of every candidate of the call.
    texts
        What each is written as.
    first, last
        [U] int: where it stands in the query, as ``ReadQuery.tokens_of`` says it.
    """

    def __init__(self, candidates: Sequence[Candidate], read: ReadQuery) -> None:
        distinct = {id(one): one for one in candidates}
        place = {identity: number for number, identity in enumerate(distinct)}
        self.own = list(distinct.values())
        self.which = np.array([place[id(one)] for one in candidates], np.int64)
        self.texts = [text_of(one) for one in self.own]
        self.first, self.last = read.tokens_of(self.own, self.texts)

    def __len__(self) -> int:
        return len(self.own)

    @cached_property
    def shapes(self) -> list[str]:
        """How the texts among them are written, "" for other values."""
        return [shape(one.value) if isinstance(one.value, str) else "" for one in self.own]

    def flags(self) -> Vectors:
        """Return [U, OWN_FLAGS]: source, operator, type, how it is written, what number it is."""
        flags = np.zeros((len(self), OWN_FLAGS), np.float32)
        rows = np.arange(len(self))
        flags[rows, [_SOURCE_OF[one.source] for one in self.own]] = 1
        read_by = [(row, _PLACE_OF[one.operator]) for row, one in enumerate(self.own) if one.operator in _PLACE_OF]
        if read_by:
            flags[tuple(np.array(read_by).T)] = 1
        flags[:, _WRITTEN:_NUMBERS] = [_written(text) for text in self.texts]
        numeric, numbers = np.zeros(len(self), bool), np.zeros(len(self))
        for row, one in enumerate(self.own):
            value = one.value
            if isinstance(value, str):
                flags[row, _KINDS] = 1
            elif isinstance(value, bool):
                flags[row, _KINDS + (1 if value else 2)] = 1
            elif isinstance(value, (int, float)):
                numeric[row], numbers[row] = True, min(max(value, -1e30), 1e30)
            elif isinstance(value, list):
                flags[row, OWN_FLAGS - 1] = len(value) / 4
            else:
                flags[row, _KINDS + (4 if value is MISSING else 3)] = 1
        flags[numeric | (flags[:, _KINDS + 1 : _KINDS + 5].any(axis=1)), _WRITTEN + 5 : _WRITTEN + 8] = 0  # no case
        size, whole = np.abs(numbers), numeric & (numbers == np.round(numbers))
        year = whole & (numbers >= 1800) & (numbers <= 2100)
        columns = [numeric, np.sign(numbers), np.log10(size + 1) / 4, whole, numeric & (size <= 1), year]
        flags[:, _NUMBERS : OWN_FLAGS - 1] = np.stack(columns, axis=1)
        return flags

    def nested(self) -> Vectors:
        """Return [U, NESTED]: is a span part of a longer one of its operator; of how many it is, how many it holds.

        Spans are compared with those of their type only, and texts that are mere runs of words not at all.
        """
        flags = np.zeros((len(self), NESTED), np.float32)
        spans = ((row, one) for row, one in enumerate(self.own) if one.start >= 0)
        rows = np.array([row for row, one in spans if one.operator not in _RUNS or not isinstance(one.value, str)], int)
        if not len(rows):
            return flags
        some = [self.own[row] for row in rows.tolist()]
        kinds = np.array([_kind(one.value) for one in some])
        starts, ends = np.array([one.start for one in some]), np.array([one.end for one in some])
        read_by = np.array([_PLACE_OF.get(one.operator, 0) for one in some])
        within = (starts[:, None] >= starts) & (ends[:, None] <= ends) & (kinds[:, None] == kinds)
        within &= (ends - starts)[:, None] < ends - starts
        flags[rows, 0] = (within & (read_by[:, None] == read_by)).any(axis=1)
        flags[rows, 1] = np.log1p(within.sum(axis=1)) / 2
        flags[rows, 2] = np.log1p(within.sum(axis=0)) / 2
        return flags


def _kind(value: Json) -> int:
    return 0 if isinstance(value, str) else 1 if isinstance(value, list) else 2


def text_of(candidate: Candidate) -> str:
    """Return what a value is written as; an option that is an identifier as its words."""
    value = candidate.value
    if value is MISSING:
        return ""
    if isinstance(value, str):
        return value if candidate.source == "span" else words_of(value[:MAX_TEXT])
    if isinstance(value, list):
        return ", ".join(part if isinstance(part, str) else repr(part) for part in value)
    return "null" if value is None else str(value).lower()


@lru_cache(maxsize=1 << 14)
def _written(text: str) -> tuple[float, ...]:
    words = text.count(" ") + 1 if text else 0
    return (
        *(words == 1, words == 2, words == 3, words > 3),
        math.log1p(len(text)) / 4,
        *(text.istitle(), text.islower(), text.isupper()),
        _DIGIT.search(text) is not None,
        *(mark in text for mark in MARKS),
        not text[-1:].isalnum(),
    )
