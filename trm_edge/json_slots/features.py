"""Features: a call's slots and candidates as the float arrays that a head of kind ``slots`` takes.

Every text passes through one context provider of width W, so that nothing here depends on which functions a head has
seen: a slot is its name, its description, its tool and its type; a candidate is its text, the words beside it in the
query, and how well these fit the slot that it is a candidate of.

==========  =========================================================================================================
x           [P, W + TOKEN_FLAGS]: a row per token of the query
slots       [S, 3 W + SLOT_FLAGS]: name, description, tool; type, constraints, draft, what the query mentions of it
candidates  [M, W + CANDIDATE_FLAGS]: a span's words before and behind it, else the text; source, operator, place, fit
==========  =========================================================================================================

A head for functions that it has not seen does without the vectors (W = 0): flags, some of which compare vectors, say
how things fit together, and vectors what they are, which it could only know by heart.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import TrmInputError
from ..spec import TrmSpec
from .fit import covered, leads, mentioned, nearness, order, own_fit, said, strongest, taken
from .providers import ContextProvider, HashedNgrams, Vectors
from .reading import ReadQuery, direction
from .schema import MISSING
from .slot_flags import name_of, ranks, schema_flags
from .slots import at
from .values import MAX_TEXT, Values
from .wording import subjects, words_of

if TYPE_CHECKING:
    from .calls import SlotInputs

TOKEN_FLAGS, SLOT_FLAGS, CANDIDATE_FLAGS = 6, 63, 177
FLAG_SIZE = np.float32(8)  # what flags are scaled by: beside the many entries of vectors they would be drowned
FLAGS_WIDTH = 128  # of the hashed n-grams that flags compare, where rows have no vectors
STRONGEST = 9  # flags of a slot that are the most of its candidates


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
    vectors
        Whether rows have vectors, or only flags.
    """

    def __init__(self, provider: ContextProvider, max_context: int = 64, vectors: bool = True) -> None:
        self.provider = provider
        self.max_context = max_context
        self.vectors = vectors
        width = provider.width if vectors else 0
        self.context_size = width + TOKEN_FLAGS
        self.slot_size = 3 * width + SLOT_FLAGS
        self.candidate_size = width + CANDIDATE_FLAGS
        self._size = np.float32(math.sqrt(provider.width))  # brings the entries of directions to the order of 1
        self._rows = lru_cache(maxsize=1 << 13)(self._unit_rows)
        self._pooled = lru_cache(maxsize=1 << 13)(lambda text: direction(self._rows(text).sum(axis=0)))

    def features(self, call: SlotInputs) -> Features:
        """Return the arrays of a call."""
        read = ReadQuery(call.query, self.provider.tokens(call.query))
        if not call.slots:
            nothing = np.zeros((0, self.slot_size), np.float32), np.zeros((0, self.candidate_size), np.float32)
            return Features(self._context(read), *nothing)
        names = self._stacked([name_of(slot) for slot in call.slots])
        descriptions = self._stacked([slot.schema.description for slot in call.slots])
        tools = self._stacked([f"{words_of(call.tool.name)} {call.tool.description}"] * len(call.slots))
        spoken = said(read, call.slots)
        rows = np.zeros((0, self.candidate_size), np.float32)
        most = np.zeros((len(call.slots), STRONGEST), np.float32)
        if call.candidates:
            rows, most = self._candidates(call, read, names, descriptions, spoken)
        flags = [self._slot_flags(call, read), mentioned(read, call.slots, *spoken), most]
        vectors = np.concatenate([names, descriptions, tools], axis=1)
        return Features(self._context(read), self._row(vectors, *flags), rows)

    def _row(self, vectors: Vectors, *flags: np.ndarray[Any, np.dtype[Any]]) -> Vectors:
        """Return vectors and flags [n] or [n, k] side by side, scaled so that a head sees both."""
        scaled: Vectors = _columns(flags) * FLAG_SIZE
        return np.concatenate([vectors * self._size, scaled], axis=1) if self.vectors else scaled

    def _unit_rows(self, text: str) -> Vectors:
        return direction(self.provider.tokens(text[:MAX_TEXT]).vectors)

    def _stacked(self, texts: Sequence[str]) -> Vectors:
        stacked = np.zeros((len(texts), self.provider.width), np.float32)
        for row, text in enumerate(texts):
            stacked[row] = self._pooled(text)
        return stacked

    def _context(self, read: ReadQuery) -> Vectors:
        x = self._row(read.vectors, read.capital, read.digit, read.mark, read.stop, read.first, read.place)
        if len(x) > self.max_context:
            half = self.max_context // 2
            x = np.concatenate([x[: self.max_context - half], x[len(x) - half :]])
        return x

    def _slot_flags(self, call: SlotInputs, read: ReadQuery) -> Vectors:
        """Return what is known of slots without their candidates: the schema, the draft, what the query mentions."""
        known = []
        for slot, chosen in zip(call.slots, call.y0.tolist(), strict=True):
            drafted = at(call.draft.value, slot.path)
            flags = [call.draft.value is not MISSING, drafted is not MISSING, chosen >= 0]
            known.append([*schema_flags(slot), *subjects(name_of(slot), slot.schema.description), *flags])
        names = read.mentions([self._rows(name_of(slot)) for slot in call.slots])
        descriptions = read.mentions([self._rows(slot.schema.description) for slot in call.slots])
        return np.column_stack([np.array(known, np.float32), ranks(call.slots), names, descriptions])

    def _candidates(
        self, call: SlotInputs, read: ReadQuery, names: Vectors, descriptions: Vectors, spoken: tuple[Vectors, Vectors]
    ) -> tuple[Vectors, Vectors]:
        """Return a row per candidate, and per slot the most that one of its candidates has."""
        values = Values(call.candidates, read)
        which, slot_of, count = values.which, call.slot_of, len(call.slots)
        vectors, cover, alike = self._vectors(values, read, np.concatenate([names, descriptions]))
        inside, edges = values.first >= 0, _columns(read.edges(values.first, values.last))
        likeness = alike[which[:, None], np.arange(0, 6 * count, count) + slot_of[:, None]]
        near = nearness(read, *spoken, values.first[which], values.last[which], slot_of)
        told = covered(read, values, slot_of)
        fit = own_fit(read, call, values)
        spans = np.log1p(np.bincount(slot_of[inside[which]], minlength=count))[slot_of] / 4
        shown = [near[0], near[2], near[5], near[7], told[0], fit[:, 4], fit[:, 8], fit[:, 9], spans]

        gone = taken(call.y0, values.first[which], values.last[which], slot_of)
        alone = [values.flags()[which], fit, leads(read, values.first)[which], inside[which], cover[which]]
        beside = [
            likeness,
            edges[which],
            *order(values, call.slots, slot_of),
            *near,
            *told,
            gone,
            values.nested()[which],
        ]
        return self._row(vectors[which], *alone, *beside), strongest(shown, slot_of, count)

    def _vectors(self, values: Values, read: ReadQuery, slots: Vectors) -> tuple[Vectors, Vectors, Vectors]:
        """Return a vector per value [U, W], how well the query covers it [U, 2], and cosines with k others [U, 3 k]."""
        text, (before, behind) = read.pooled(values.first, values.last), read.beside(values.first, values.last)
        cover = np.zeros((len(values), 2), np.float32)
        cover[:, 0] = 1
        apart = np.flatnonzero(values.first < 0).tolist()
        text[apart] = self._stacked([values.texts[row] for row in apart])
        cover[apart, 0] = read.mentions([self._rows(values.texts[row]) for row in apart])
        notes = [row for row in apart if values.own[row].note]
        before[notes] = self._stacked([values.own[row].note for row in notes])
        cover[notes, 1] = read.mentions([self._rows(values.own[row].note) for row in notes])
        spanned = np.array([one.start >= 0 for one in values.own], bool)[:, None]
        inside = (values.first >= 0)[:, None]
        beside = before + np.roll(behind, self.provider.width // 2, axis=1)
        vectors = direction(np.where(spanned, beside, text + before * ~inside)) if self.vectors else text[:, :0]
        return vectors, cover, np.concatenate([part @ slots.T for part in (text, before, behind)], axis=1)


def featurizer_for(spec: TrmSpec, provider: ContextProvider | None = None) -> Featurizer:
    """Return the featurizer whose arrays a head takes; without a provider, of hashed n-grams.

    Raises
    ------
    TrmInputError
        Where the provider's width is another one than the head was trained with.
    """
    width = spec.context_size - TOKEN_FLAGS
    made = Featurizer(provider or HashedNgrams(width or FLAGS_WIDTH), spec.max_context, vectors=width > 0)
    for name in ("context_size", "slot_size", "candidate_size"):
        own, given = getattr(spec, name), getattr(made, name)
        if own != given:
            raise TrmInputError(
                f"provider: this head expects {name} {own}, a provider of width {made.provider.width} "
                f"makes {given}; give the provider that the head was trained with"
            )
    return made


def _columns(parts: Sequence[np.ndarray[Any, np.dtype[Any]]]) -> Vectors:
    """Return arrays [n] and [n, k] side by side."""
    return np.column_stack([np.asarray(part, np.float32) for part in parts])
