"""The values of a call: its distinct candidates, which several slots may share, and what each is by itself.

Flags that do not depend on the slot are computed once per distinct value, not once per candidate; ``which`` maps
candidates to values.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from functools import cached_property

import numpy as np

from .candidates import SOURCES, Candidate
from .operators import OPERATORS
from .providers import Vectors
from .reading import Indices, ReadQuery
from .schema import MISSING
from .text import Json
from .wording import shape, words_of

MAX_TEXT = 400  # characters of a value that are looked at
PLACES = 64  # for operators, in the order of their registry
MARKS = ("@", "/", "_", "-", ".")
SOURCE_OF = {name: number for number, name in enumerate(SOURCES)}
_PLACE_OF = {one.name: len(SOURCES) + number for number, one in enumerate(OPERATORS)}
_KINDS = len(SOURCES) + PLACES  # the column of the first flag of a value's type
NUMBER, _LIST = 5, 6  # kinds behind those that are flags
_WRITTEN = _KINDS + NUMBER
WRITTEN = 9 + len(MARKS) + 1  # columns of how a value is written
_NUMBERS = _WRITTEN + WRITTEN
OWN_FLAGS = _NUMBERS + 7
_DIGIT = re.compile(r"\d")
NESTED = 3  # columns of ``nested``
_RUNS = frozenset(("words", "part of a word", "lower", "title", "snake", "camel", "singular"))  # of any few words
_ARE_RUNS = np.zeros(_KINDS + 1, bool)  # by the places of operators; -1 is for none
_ARE_RUNS[[_PLACE_OF[name] for name in _RUNS]] = True


class Values:
    """The distinct candidates of a call, U of them.

    Attributes
    ----------
    distinct
        The candidates, each once.
    which
        [M] int: the value of every candidate of the call.
    kinds
        [U] int: the type of each, as ``_kind_of`` says it.
    sources
        [U] int: where each comes from, by number among ``SOURCES``.
    texts
        What each is written as.
    listed
        Those that are no spans, by number.
    starts, ends
        [U] int: where it stands in the query, as characters; -1 for what is not read from there.
    first, last
        [U] int: the same as tokens; also for what is not read from there but stands there, else -1.
    """

    def __init__(self, candidates: Sequence[Candidate], read: ReadQuery) -> None:
        identities = np.fromiter(map(id, candidates), np.int64, len(candidates))
        _, places, inverse = np.unique(identities, return_index=True, return_inverse=True)
        order = np.argsort(places)  # of their first candidates
        rank = np.empty(len(order), np.int64)
        rank[order] = np.arange(len(order))
        self.distinct = [candidates[place] for place in places[order].tolist()]
        self.which: Indices = rank[inverse]
        values, sources, operators, starts, ends, *_ = zip(*self.distinct, strict=True)
        self.sources = np.array([SOURCE_OF[source] for source in sources])
        self._operators = np.array([_PLACE_OF.get(operator, -1) for operator in operators])
        kinds = [0 if isinstance(value, str) else _kind_of(value) for value in values]
        self.kinds = np.array(kinds)
        self.texts = [
            one.value if kind == 0 and source == "span" else text_of(one)
            for one, kind, source in zip(self.distinct, kinds, sources, strict=True)
        ]
        self.listed = np.flatnonzero(self.sources != SOURCE_OF["span"]).tolist()
        self.starts, self.ends = np.array(starts, np.int64), np.array(ends, np.int64)
        self.first, self.last = read.tokens_of(self.starts, self.ends, self.texts)

    def __len__(self) -> int:
        return len(self.distinct)

    @cached_property
    def strings(self) -> list[str]:
        """The texts among them, "" for other values."""
        return [one.value if kind == 0 else "" for one, kind in zip(self.distinct, self.kinds.tolist(), strict=True)]

    def written_as(self, shapes: frozenset[str]) -> Vectors:
        """Return [U, 2]: which are written in one of these shapes, and which texts are not."""
        marks = {next((mark for mark in one if mark not in "xX9 "), "") for one in shapes}  # stand in texts as they are
        rows = {row for mark in marks for row, text in enumerate(self.strings) if mark in text}
        columns = np.zeros((len(self), 2), np.float32)
        columns[[row for row in rows if shape(self.strings[row]) in shapes], 0] = 1
        columns[:, 1] = list(map(bool, self.strings))
        columns[:, 1] *= 1 - columns[:, 0]
        return columns

    def flags(self) -> Vectors:
        """Return [U, OWN_FLAGS]: source, operator, type, how it is written, what number it is."""
        flags = np.zeros((len(self), OWN_FLAGS), np.float32)
        flags[np.arange(len(self)), self.sources] = 1
        read = np.flatnonzero(self._operators >= 0)
        flags[read, self._operators[read]] = 1
        flags[:, _WRITTEN:_NUMBERS] = _written(self.texts)
        typed, numeric = np.flatnonzero(self.kinds < NUMBER), np.flatnonzero(self.kinds == NUMBER)
        flags[typed, _KINDS + self.kinds[typed]] = 1
        flags[np.flatnonzero((self.kinds > 0) & (self.kinds <= NUMBER)), _WRITTEN + 5 : _WRITTEN + 8] = 0  # no case
        flags[numeric, _NUMBERS : OWN_FLAGS - 1] = _numbers([self.distinct[row].value for row in numeric.tolist()])
        for row in np.flatnonzero(self.kinds == _LIST).tolist():
            flags[row, OWN_FLAGS - 1] = len(self.distinct[row].value) / 4
        return flags

    def nested(self) -> Vectors:
        """Return [U, NESTED] how spans contain each other: "May 5" in "May 5, 2024".

        Whether a longer span of the same operator contains it; how many spans contain it; how many it contains, both as
        logarithms. Texts, arrays and other values are compared among themselves only, and texts that are any run of
        words not at all.
        """
        flags = np.zeros((len(self), NESTED), np.float32)
        apart = (self.kinds > 0) | ~_ARE_RUNS[self._operators]
        rows = np.flatnonzero((self.starts >= 0) & apart)
        if not len(rows):
            return flags
        kinds = np.minimum(self.kinds[rows], 1) + (self.kinds[rows] == _LIST)  # texts, lists, others
        read_by, starts, ends = self._operators[rows], self.starts[rows], self.ends[rows]
        lengths = ends - starts
        within = (starts[:, None] >= starts) & (ends[:, None] <= ends) & (kinds[:, None] == kinds)
        within &= lengths[:, None] < lengths
        flags[rows, 0] = (within & (read_by[:, None] == read_by)).any(axis=1)
        flags[rows, 1] = np.log1p(within.sum(axis=1)) / 2
        flags[rows, 2] = np.log1p(within.sum(axis=0)) / 2
        return flags


def _kind_of(value: Json) -> int:
    """Return the kind of a value: a text, true, false, null, nothing, a number, an array."""
    if isinstance(value, str):
        return 0
    if isinstance(value, bool):
        return 1 if value else 2
    if isinstance(value, (int, float)):
        return NUMBER
    return _LIST if isinstance(value, list) else 4 if value is MISSING else 3


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


def _written(texts: Sequence[str]) -> Vectors:
    """Return [U, WRITTEN] how texts are written: one to three words or more, length, case, digits, marks, the end."""
    flags = np.zeros((len(texts), WRITTEN), np.float32)
    words = np.array([text.count(" ") + 1 if text else 0 for text in texts])
    flags[:, :3], flags[:, 3] = words[:, None] == (1, 2, 3), words > 3
    flags[:, 4] = np.array([math.log1p(len(text)) for text in texts]) / 4
    every, no = "\n".join(texts), bytes(len(texts))
    columns = [
        *(bytes(map(str.istitle, texts)), bytes(map(str.islower, texts)), bytes(map(str.isupper, texts))),
        bytes([found is not None for found in map(_DIGIT.search, texts)]) if _DIGIT.search(every) else no,
        *(bytes([mark in text for text in texts]) if mark in every else no for mark in MARKS),
        bytes([not text[-1:].isalnum() for text in texts]),
    ]
    flags[:, 5:] = np.frombuffer(b"".join(columns), np.uint8).reshape(-1, len(texts)).T
    return flags


def _numbers(values: Sequence[float]) -> Vectors:
    """Return [n, 6]: that it is one, its sign, its size, whether it is whole, at most 1, a year."""
    numbers = np.array([min(max(value, -1e30), 1e30) for value in values], np.float64)
    size, whole = np.abs(numbers), numbers == np.round(numbers)
    year = whole & (numbers >= 1800) & (numbers <= 2100)
    columns = [np.ones(len(numbers)), np.sign(numbers), np.log10(size + 1) / 4, whole, size <= 1, year]
    return np.stack(columns, axis=1).astype(np.float32)
