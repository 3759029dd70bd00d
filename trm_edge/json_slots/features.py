"""Features: a call's slots and candidates as the float arrays that a head of kind ``slots`` takes.

Every text passes through one context provider of width W, so that nothing here depends on which functions a head has
seen: a slot is its name, its description, its tool and its type; a candidate is its text, the words beside it in the
query, and how well these fit the slot that it is a candidate of.

==========  =========================================================================================================
x           [P, W + TOKEN_FLAGS]: a row per token of the query
slots       [S, 3 W + SLOT_FLAGS]: name, description, tool; type, constraints, draft, what the query mentions of it
candidates  [M, 3 W + CANDIDATE_FLAGS]: text, words before, words behind; source, operator, value, place, fit
==========  =========================================================================================================
"""

from __future__ import annotations

import math
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from .candidates import SOURCES, Candidate, key_of
from .providers import ContextProvider, Vectors, words_of
from .reading import ReadQuery, direction
from .schema import MISSING, Array, Choice, Scalar, Schema, Tool
from .slots import Draft, Slot, at

TOKEN_FLAGS, SLOT_FLAGS, CANDIDATE_FLAGS = 6, 32, 72
MAX_TEXT = 400  # characters of a description or a value that are looked at
TYPES = ("string", "integer", "number", "boolean", "null", "array", "choice")
FORMATS = ("date", "date-time", "time", "email", "uri")
_PLACES = 16  # that operators' names are hashed to, so that a new one moves none

Indices = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True, eq=False)
class Features:
    """The float32 arrays of one call."""

    x: Vectors
    slots: Vectors
    candidates: Vectors


class Featurizer:
    """Turns calls into arrays with the vectors of one provider; keeps those of texts that it has seen.

    Parameters
    ----------
    provider
        Where vectors come from.
    max_context
        Rows of ``x``; of a longer query the first and the last half are kept.
    """

    def __init__(self, provider: ContextProvider, max_context: int = 64) -> None:
        self.provider = provider
        self.max_context = max_context
        self.context_size = provider.width + TOKEN_FLAGS
        self.slot_size = 3 * provider.width + SLOT_FLAGS
        self.candidate_size = 3 * provider.width + CANDIDATE_FLAGS
        self._size = np.float32(math.sqrt(provider.width))  # brings the entries of directions to the order of 1
        self._rows = lru_cache(maxsize=1 << 13)(self._unit_rows)
        self._pooled = lru_cache(maxsize=1 << 13)(lambda text: direction(self._rows(text).sum(axis=0)))

    def features(
        self,
        query: str,
        tool: Tool,
        slots: Sequence[Slot],
        draft: Draft,
        candidates: Sequence[Candidate],
        slot_of: Indices,
        y0: np.ndarray[Any, np.dtype[np.int32]],
    ) -> Features:
        """Return the arrays of a call; the parameters are the fields of ``SlotInputs``."""
        read = ReadQuery(query, self.provider.tokens(query))
        names = self._stacked([_name(slot) for slot in slots])
        descriptions = self._stacked([slot.schema.description for slot in slots])
        tools = self._stacked([f"{words_of(tool.name)} {tool.description}"] * len(slots))
        flags = self._slot_flags(read, slots, draft, y0)
        size = self._size
        return Features(
            self._context(read),
            np.concatenate([names * size, descriptions * size, tools * size, flags], axis=1),
            self._candidates(read, slots, names, descriptions, candidates, slot_of, y0),
        )

    def _unit_rows(self, text: str) -> Vectors:
        return direction(self.provider.tokens(text[:MAX_TEXT]).vectors)

    def _stacked(self, texts: Sequence[str]) -> Vectors:
        stacked = np.zeros((len(texts), self.provider.width), np.float32)
        for row, text in enumerate(texts):
            stacked[row] = self._pooled(text)
        return stacked

    def _context(self, read: ReadQuery) -> Vectors:
        flags = np.stack([read.capital, read.digit, read.mark, read.stop, read.first, read.place], axis=1)
        x = np.concatenate([read.vectors * self._size, flags], axis=1)
        if len(x) > self.max_context:
            half = self.max_context // 2
            x = np.concatenate([x[: self.max_context - half], x[len(x) - half :]])
        return x

    def _slot_flags(
        self, read: ReadQuery, slots: Sequence[Slot], draft: Draft, y0: np.ndarray[Any, np.dtype[np.int32]]
    ) -> Vectors:
        flags = np.zeros((len(slots), SLOT_FLAGS), np.float32)
        for row, slot in enumerate(slots):
            drafted = at(draft.value, slot.path)
            known = [*_schema_flags(slot), draft.value is not MISSING, drafted is not MISSING, y0[row] >= 0]
            flags[row, : len(known)] = known
        names = read.mentions([self._rows(_name(slot)) for slot in slots])
        descriptions = read.mentions([self._rows(slot.schema.description) for slot in slots])
        flags[:, -4:] = np.stack([*_ranks(slots).T, names, descriptions], axis=1)
        return flags

    def _candidates(
        self,
        read: ReadQuery,
        slots: Sequence[Slot],
        names: Vectors,
        descriptions: Vectors,
        candidates: Sequence[Candidate],
        slot_of: Indices,
        y0: np.ndarray[Any, np.dtype[np.int32]],
    ) -> Vectors:
        """Return a row per candidate; what depends on the query is worked out for all at once."""
        if not candidates:
            return np.zeros((0, self.candidate_size), np.float32)
        texts = [_text(candidate) for candidate in candidates]
        owners = slot_of.tolist()
        drafted = np.zeros(len(candidates), bool)
        drafted[y0[y0 >= 0]] = True
        own = [_own_flags(candidate, text) for candidate, text in zip(candidates, texts, strict=True)]
        fit = [
            _fit(candidate, slots[i].schema, was)
            for candidate, i, was in zip(candidates, owners, drafted.tolist(), strict=True)
        ]
        first, last = read.tokens_of(candidates, texts)
        inside = first >= 0
        text = read.pooled(first, last)
        similar = np.ones(len(candidates), np.float32)
        apart = np.flatnonzero(~inside).tolist()
        if apart:
            text[apart] = self._stacked([texts[row] for row in apart])
            similar[apart] = read.mentions([self._rows(texts[row]) for row in apart])
        before, behind = read.beside(first, last)
        noted = np.zeros(len(candidates), np.float32)
        notes = [row for row in apart if candidates[row].note]
        if notes:
            before[notes] = self._stacked([candidates[row].note for row in notes])
            noted[notes] = read.mentions([self._rows(candidates[row].note) for row in notes])
        size = self._size
        columns = [inside, similar, noted]
        for vectors in (text, before, behind):
            columns += [np.einsum("mw,mw->m", vectors, of[slot_of]) for of in (names, descriptions)]
        columns += [*read.edges(first, last), *_order(candidates, slots, slot_of)]
        flags = [np.stack(own), np.array(fit, np.float32), np.stack(columns, axis=1)]
        return np.concatenate([text * size, before * size, behind * size, *flags], axis=1)


# ---- slots -----------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=1 << 12)
def _spaced(name: str) -> str:
    return words_of(name)


def _name(slot: Slot) -> str:
    """Return a slot's own name; the elements of an array have their array's."""
    named = [part for part in slot.path if isinstance(part, str)]
    return _spaced(named[-1]) if named else ""


def _schema_flags(slot: Slot) -> list[float]:
    schema = slot.schema
    inner = schema.items if isinstance(schema, Array) else schema
    own = "array" if isinstance(schema, Array) else "choice" if isinstance(schema, Choice) else ""
    scalar = inner if isinstance(inner, Scalar) else None
    kinds = {own, scalar.type if scalar is not None else own}
    options = scalar.options if scalar is not None and scalar.options is not None else ()
    form = scalar.format if scalar is not None else None
    bounds = () if scalar is None else (scalar.minimum, scalar.maximum)
    number = next((part for part in slot.path if isinstance(part, int)), 0)
    return [
        *(float(name in kinds) for name in TYPES),
        float(schema.nullable),
        float(slot.optional),
        float(bool(options)),
        math.log1p(len(options)) / 3,
        float(schema.default is not MISSING),
        float(any(bound is not None for bound in bounds)),
        *(float(form == name) for name in FORMATS),
        float(form is not None and form not in FORMATS),
        (len(slot.path) - 1) / 2,
        number / 3,
        float(not slot.path),
    ]


def _ranks(slots: Sequence[Slot]) -> Vectors:
    """Return [S, 2]: how many slots of the same type come before, and how many there are."""
    kinds = [_kind(slot.schema) for slot in slots]
    total, seen = Counter(kinds), Counter[str]()
    ranks = np.zeros((len(slots), 2), np.float32)
    for row, kind in enumerate(kinds):
        ranks[row] = seen[kind] / 4, total[kind] / 4
        seen[kind] += 1
    return ranks


def _kind(schema: Schema) -> str:
    if isinstance(schema, Scalar):
        return "number" if schema.type == "integer" else schema.type
    return type(schema).__name__


# ---- candidates ------------------------------------------------------------------------------------------------------


def _text(candidate: Candidate) -> str:
    value = candidate.value
    if value is MISSING:
        return ""
    if isinstance(value, str):
        return value if candidate.source == "span" else _spaced(value[:MAX_TEXT])
    if isinstance(value, list):
        return ", ".join(part if isinstance(part, str) else repr(part) for part in value)
    return "null" if value is None else str(value).lower()


def _own_flags(candidate: Candidate, text: str) -> Vectors:
    """Return what is known of a candidate by itself."""
    value = candidate.value
    size = len(value) if isinstance(value, list) else 0
    number = 0.0 if isinstance(value, bool) or not isinstance(value, (int, float)) else value
    return _flags_of(candidate.source, candidate.operator, type(value).__name__, text, size, float(number))


@lru_cache(maxsize=1 << 14)
def _flags_of(source: str, operator: str, kind: str, text: str, size: int, number: float) -> Vectors:
    words = text.count(" ") + 1 if text else 0
    hashed = [0.0] * _PLACES
    if operator:
        code = zlib.crc32(operator.encode())
        hashed[code % _PLACES] += 1
        hashed[code // _PLACES % _PLACES] -= 1
    numeric, flat = kind in ("int", "float"), kind in ("str", "list")
    magnitude = math.log10(min(abs(number), 1e30) + 1) / 4 if number == number else 0.0
    whole = numeric and number.is_integer()
    flags = [
        *(source == name for name in SOURCES),
        *hashed,
        kind == "str",
        kind == "bool" and text == "true",
        kind == "bool" and text == "false",
        kind == "NoneType",
        kind == "Missing",
        *(words == count for count in (1, 2, 3)),
        words > 3,
        math.log1p(len(text)) / 4,
        flat and text.istitle(),
        flat and text.islower(),
        flat and text.isupper(),
        any(character.isdigit() for character in text),
        not text[-1:].isalnum(),
        *(numeric, (number > 0) - (number < 0), magnitude, whole, numeric and abs(number) <= 1),
        whole and 1800 <= number <= 2100,
        size / 4,
    ]
    return np.array(flags, np.float32)


def _fit(candidate: Candidate, schema: Schema, drafted: bool) -> tuple[bool, bool, float]:
    """Return whether it is the draft's value, whether the default, and where it stands between the bounds."""
    value, place = candidate.value, 0.0
    if isinstance(schema, Scalar) and schema.minimum is not None and schema.maximum is not None:
        size = schema.maximum - schema.minimum
        if size > 0 and isinstance(value, (int, float)):
            place = float((value - schema.minimum) / size)
    return drafted, schema.default is not MISSING and key_of(value) == key_of(schema.default), place


def _order(candidates: Sequence[Candidate], slots: Sequence[Slot], slot_of: Indices) -> list[Vectors]:
    """Return whether a span comes in the query where its slot comes among those of its type, and how far it is off."""
    kinds = [_kind(slot.schema) for slot in slots]
    ranks = [kinds[:i].count(kind) for i, kind in enumerate(kinds)]
    wanted = [max(kinds.count(kind) - 1, 1) for kind in kinds]
    same = np.zeros(len(candidates), np.float32)
    off = np.zeros(len(candidates), np.float32)
    starts = np.array([candidate.start for candidate in candidates], np.int64)
    for i in range(len(slots)):
        rows = np.flatnonzero((slot_of == i) & (starts >= 0))
        if rows.size:
            places = np.unique(starts[rows])
            rank = np.searchsorted(places, starts[rows])
            same[rows] = rank == ranks[i]
            off[rows] = rank / max(len(places) - 1, 1) - ranks[i] / wanted[i]
    return [same, off]
