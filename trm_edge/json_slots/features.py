"""Features: a call's slots and candidates as the float arrays that a head of kind ``slots`` takes.

Every text passes through one context provider of width W, so that nothing here depends on which functions a head has
seen: a slot is its name, its description, its tool and its type; a candidate is its text, the words beside it in the
query, and how well these fit the slot that it is a candidate of.

==========  =========================================================================================================
x           [P, W + TOKEN_FLAGS]: a row per token of the query, and of a language model's chain of thought, if any
slots       [S, 3 W + SLOT_FLAGS]: name, description, tool; type, constraints, draft, what the query mentions of it
candidates  [M, W + CANDIDATE_FLAGS]: a span's words before and behind it, else the text; source, operator, place, fit
==========  =========================================================================================================

A head that has to work for functions it has not been trained on gets no vectors (W = 0). Flags, some of which are
similarities of vectors, say how well a candidate matches its slot, and that carries over to other functions; from the
vectors themselves a head would only memorise the words of those that it was trained on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import TrmInputError
from ..spec import TrmSpec
from .fit import MENTIONED, Fit, Near, covered, leads, mentioned, nearness, order, own_fit, said, strongest, taken
from .known import BESIDES, OF_TOOLS, besides, known_of_tools
from .providers import ContextProvider, HashedNgrams, Vectors, direction
from .reading import EDGES, PLACE, ReadQuery, Rows
from .schema import MISSING
from .slot_flags import RANKS, SCHEMA_FLAGS, name_of, ranks, schema_flags
from .slots import Slot, at
from .values import MAX_TEXT, NESTED, OWN_FLAGS, SOURCE_OF, Values
from .wording import LEADS, SUBJECTS, subjects, words_of

if TYPE_CHECKING:
    from .calls import SlotInputs

FEATURES = "tool calls 1"  # what the columns mean. Another meaning is another version: heads know columns by place
TOKEN_FLAGS = 6
FLAG_SIZE = np.float32(8)  # what flags are scaled by: beside the many entries of vectors they would be drowned
FLAGS_WIDTH = 128  # of the hashed n-grams that flags compare, where rows have no vectors
_STRONG_NEAR = [Near.NAME_PREVIOUS, Near.NAME_BEFORE, Near.DESCRIPTION_PREVIOUS, Near.DESCRIPTION_BEFORE]
_STRONG_FIT = [Fit.AS_SHOWN, Fit.CAPITALS, Fit.QUOTED]
STRONGEST = len(_STRONG_NEAR) + len(_STRONG_FIT) + 3  # flags of a slot that are the most of its candidates
_SLOT_WIDTHS = {  # the groups of a slot's flags, in their order
    "schema": SCHEMA_FLAGS,  # type, options, bounds, format
    "subjects": len(SUBJECTS),  # what its name and its description are about
    "draft": 3,  # whether there is a draft, whether that has the slot, whether one of the candidates is the draft's
    "ranks": RANKS,  # its place among the slots of its type
    "likeness": 2,  # how similar the query's words are to its name, and to its description
    "mentioned": MENTIONED,  # how many of these words the query has
    "strongest": STRONGEST,  # the maximum of some flags over its candidates
}
SLOT_FLAGS = sum(_SLOT_WIDTHS.values())
_WIDTHS = {  # the groups of a candidate's flags, in their order
    "value": OWN_FLAGS,  # source, operator, type, spelling, size of a number
    "fit": len(Fit),  # what it is to its slot: drafted, the default, written as the description shows
    "lead": len(LEADS),  # the kind of word in front of it: "from", "at", "called"
    "inside": 1,  # whether its text stands in the query
    "cover": 2,  # how similar the query's words are to its own, and to its note
    "likeness": 6,  # cosines of its text, the words before and the words behind, with its slot's name and description
    "edges": EDGES,  # what its first and its last word are, and the words outside them
    "order": 2,  # whether it comes in the query where its slot comes in the schema
    "near": len(Near),  # whether the words around it say its slot, or another
    "told": 3,  # of an option and the like: how many of its words the query has
    "taken": 1,  # whether the draft uses its words for another slot
    "nested": NESTED,  # whether it is part of a longer span
    "besides": BESIDES,  # what else its words may be: an option's, a number's
    "of tools": OF_TOOLS,  # of a tool: which of its examples and options the query names
}
_ENDS = dict(zip(_WIDTHS, accumulate(_WIDTHS.values()), strict=True))
_AT = {name: slice(end - _WIDTHS[name], end) for name, end in _ENDS.items()}
CANDIDATE_FLAGS = sum(_WIDTHS.values())


@dataclass(frozen=True, eq=False)
class Features:
    """The float32 arrays of one call."""

    x: Vectors
    slots: Vectors
    candidates: Vectors


@dataclass(frozen=True, eq=False)
class KnownSlots:
    """What a featurizer knows of a tool's slots before any query.

    Attributes
    ----------
    vectors
        [S, 3 W]: of a slot's name, its description, its tool.
    pairs
        [2 S, W]: of the names, then of the descriptions.
    names, descriptions
        The vectors of the words of each.
    flags
        [S, k]: by the schema, and by ``SUBJECTS``.
    ranks
        [S, 2]: among the slots of their kind.
    """

    vectors: Vectors
    pairs: Vectors
    names: Rows
    descriptions: Rows
    flags: Vectors
    ranks: Vectors


class Featurizer:
    """Turns calls into arrays with the vectors of one provider; keeps those of texts that it has seen.

    Parameters
    ----------
    provider
        Where vectors come from.
    max_context
        Rows of ``x``; of a longer query the first and the last half are kept, of a thought what there is room for.
    vectors
        Whether rows have vectors, or only flags.
    """

    def __init__(self, provider: ContextProvider, max_context: int = 64, vectors: bool = True) -> None:
        if not isinstance(getattr(provider, "width", None), int) or not callable(getattr(provider, "tokens", None)):
            raise TrmInputError(f"provider: expected one with a width and tokens, got {type(provider).__name__}")
        self.provider = provider
        self.max_context = max_context
        self.vectors = vectors
        width = provider.width if vectors else 0
        self.context_size = width + TOKEN_FLAGS
        self.slot_size = 3 * width + SLOT_FLAGS
        self.candidate_size = width + CANDIDATE_FLAGS
        self._size = np.float32(math.sqrt(provider.width))  # brings the entries of directions to the order of 1
        self._rows = lru_cache(maxsize=1 << 13)(self._unit_rows)
        self._known = lru_cache(maxsize=1 << 7)(self._read_slots)  # of so many tools
        self._query = lru_cache(maxsize=2)(lambda query: ReadQuery(query, provider.tokens(query)))  # of the last calls
        self._thought = lru_cache(maxsize=2)(self._read_thought)
        self._texts = lru_cache(maxsize=8)(self._read_texts)  # of their candidates
        self._pooled = lru_cache(maxsize=1 << 13)(lambda text: direction(self._rows(text).sum(axis=0)))

    def features(self, call: SlotInputs) -> Features:
        """Return the arrays of a call."""
        read = self._query(call.query)
        if not call.slots:
            nothing = np.zeros((0, self.slot_size), np.float32), np.zeros((0, self.candidate_size), np.float32)
            return Features(self._context(read, call.thought), *nothing)
        known = self._known(call.slots, f"{words_of(call.tool.name)} {call.tool.description}")
        spoken = said(read, call.slots)
        rows = np.zeros((0, self.candidate_size), np.float32)
        most = np.zeros((len(call.slots), STRONGEST), np.float32)
        if call.candidates:
            rows, most = self._candidates(call, read, known, spoken)
        flags = [self._slot_flags(call, read, known), mentioned(read, call.slots, *spoken), most]
        return Features(self._context(read, call.thought), self._row(known.vectors, *flags), rows)

    def sees_all(self, query: str) -> bool:
        """Whether ``x`` has a row for every token of a query, or only for its first and last ones."""
        return len(self._query(query).tokens.starts) <= self.max_context

    def _row(self, vectors: Vectors, *flags: np.ndarray[Any, np.dtype[Any]]) -> Vectors:
        """Return vectors and flags [n] or [n, k] side by side, scaled so that a head sees both."""
        scaled: Vectors = _columns(flags) * FLAG_SIZE
        return np.concatenate([vectors * self._size, scaled], axis=1) if self.vectors else scaled

    def _unit_rows(self, text: str) -> Vectors:
        return direction(self.provider.tokens(text[:MAX_TEXT]).vectors)

    def _read_texts(self, texts: tuple[str, ...]) -> tuple[Vectors, Rows]:
        """Return the direction [k, W] of each text, and the vectors of their words."""
        directions = np.zeros((len(texts), self.provider.width), np.float32)
        for row, text in enumerate(texts):
            directions[row] = self._pooled(text)
        return directions, Rows.of([self._rows(text) for text in texts])

    def _read_slots(self, slots: tuple[Slot, ...], tool: str) -> KnownSlots:
        names, name_rows = self._read_texts(tuple(map(name_of, slots)))
        descriptions, rows = self._read_texts(tuple(slot.schema.description for slot in slots))
        tools = np.repeat(self._pooled(tool)[None], len(slots), axis=0)
        flags = [[*schema_flags(slot), *subjects(name_of(slot), slot.schema.description)] for slot in slots]
        return KnownSlots(
            np.concatenate([names, descriptions, tools], axis=1),
            np.concatenate([names, descriptions]),
            name_rows,
            rows,
            np.array(flags, np.float32),
            ranks(slots),
        )

    def _context(self, read: ReadQuery, thought: str) -> Vectors:
        x = self._row(read.vectors, read.flags)
        if len(x) > self.max_context:
            half = self.max_context // 2
            x = np.concatenate([x[: self.max_context - half], x[len(x) - half :]])
        if thought and len(x) < self.max_context:
            x = np.concatenate([x, self._thought(read.text, thought)[: self.max_context - len(x)]])
        return x

    def _read_thought(self, query: str, thought: str) -> Vectors:
        """Return a row per token of a thought, read behind its query; their places are counted down from 0."""
        both = f"{query}\n{thought}"
        read = ReadQuery(both, self.provider.tokens(both))
        own = np.flatnonzero(read.tokens.starts > len(query))
        flags = read.flags[own]
        flags[:, PLACE] = -np.arange(1, len(own) + 1, dtype=np.float32) / 32
        return self._row(read.vectors[own], flags)

    def _slot_flags(self, call: SlotInputs, read: ReadQuery, known: KnownSlots) -> Vectors:
        """Return what is known of slots without their candidates: the schema, the draft, what the query mentions."""
        given = call.draft.value is not MISSING
        drafted = [at(call.draft.value, slot.path) is not MISSING for slot in call.slots]
        flags = np.array([[given] * len(drafted), drafted, call.y0 >= 0], np.float32).T
        names, descriptions = read.mentions(known.names), read.mentions(known.descriptions)
        return _columns([known.flags, flags, known.ranks, names, descriptions])

    def _candidates(
        self, call: SlotInputs, read: ReadQuery, known: KnownSlots, spoken: tuple[Vectors, Vectors]
    ) -> tuple[Vectors, Vectors]:
        """Return a row per candidate, and per slot the maximum of some columns over its candidates.

        Slots share most values, so flags that do not depend on the slot are computed once per distinct value (a row of
        ``shared``) and copied to each candidate with it; the rest is then written per candidate.
        """
        values = Values(call.candidates, read)
        which, slot_of, count = values.which, call.slot_of, len(call.slots)
        first, last = values.first[which], values.last[which]
        vectors, cover, alike = self._vectors(values, read, known.pairs)
        width = vectors.shape[1]
        shared = np.zeros((len(values), self.candidate_size), np.float32)
        shared[:, :width] = vectors * self._size
        flags = shared[:, width:]
        own_flags = values.flags()
        flags[:, _AT["value"]] = own_flags
        flags[:, _AT["lead"]] = leads(read, values.first)
        flags[:, _AT["inside"]] = (values.first >= 0)[:, None]
        flags[:, _AT["cover"]] = cover
        flags[:, _AT["edges"]] = read.edges(values.first, values.last)
        flags[:, _AT["nested"]] = values.nested()
        flags *= FLAG_SIZE

        rows = shared.take(which, axis=0)  # which takes half the time of indexing
        fit, near = own_fit(read, call, values), nearness(read, *spoken, first, last, slot_of)
        told = covered(read, values, slot_of)
        by_candidate = {
            "fit": fit,
            "likeness": alike[which, :, slot_of],
            "order": order(values, call.slots, slot_of),
            "near": near,
            "told": told,
            "taken": taken(call.y0, first, last, slot_of)[:, None],
            "besides": besides(read, call, values),
            "of tools": known_of_tools(read, call, values),
        }
        for name, columns in by_candidate.items():
            np.multiply(columns, FLAG_SIZE, out=rows[:, width:][:, _AT[name]])
        mentioned_as = own_flags[:, SOURCE_OF["mentioned"]]
        spans = np.log1p(np.bincount(slot_of[first >= 0], minlength=count)) / 4
        strong = [near[:, _STRONG_NEAR], told[:, 0], fit[:, _STRONG_FIT], spans[slot_of], mentioned_as[which]]
        return rows, strongest(_columns(strong), slot_of, count)

    def _vectors(self, values: Values, read: ReadQuery, slots: Vectors) -> tuple[Vectors, Vectors, Vectors]:
        """Return a vector per value [U, W], how well the query covers it [U, 2], and cosines with slots [U, 6, S].

        The cosines are of the text and of the words before and behind it, each with names, then with descriptions.
        """
        text, (before, behind) = read.pooled(values.first, values.last), read.beside
        before, behind = before.take(values.first, axis=0), behind.take(values.last, axis=0)
        cover = np.zeros((len(values), 2), np.float32)
        cover[:, 0] = 1
        apart = np.flatnonzero(values.first < 0).tolist()
        text[apart], rows = self._texts(tuple(values.texts[row] for row in apart))
        cover[apart, 0] = read.mentions(rows)
        notes = [row for row in apart if values.distinct[row].note]
        if notes:
            before[notes], rows = self._texts(tuple(values.distinct[row].note for row in notes))
            cover[notes, 1] = read.mentions(rows)
        alike = np.concatenate([part @ slots.T for part in (text, before, behind)], axis=1)
        alike = alike.reshape(len(values), 6, len(slots) // 2)
        if not self.vectors:
            return text[:, :0], cover, alike
        others = np.flatnonzero(values.starts < 0)
        half = self.provider.width - self.provider.width // 2
        vectors = before + np.concatenate([behind[:, half:], behind[:, :half]], axis=1)
        vectors[others] = text[others] + before[others] * (values.first[others] < 0)[:, None]
        return direction(vectors), cover, alike


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
    columns = [part[:, None] if part.ndim == 1 else part for part in parts]
    return np.concatenate(columns, axis=1, dtype=np.float32)
