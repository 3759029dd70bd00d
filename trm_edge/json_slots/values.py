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
