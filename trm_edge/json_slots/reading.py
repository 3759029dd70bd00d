"""A query as its tokens: where words stand, what stands beside them, what a query mentions of a text.

A candidate is a run of tokens. What depends on its first or its last token alone is computed once per token, in tables
with P + 1 rows, and looked up for all candidates at once. The last row, which index -1 reaches, is for candidates that
do not stand in the query.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property, lru_cache
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np

from .providers import Tokens, Vectors, direction
from .wording import LEAD_OF, NEGATIONS, STOP_WORDS, stem, unit_of

MAX_MENTION = 16  # tokens of a text that is looked for in the query
BEFORE, BEHIND = 6, 2  # words of the clause that are looked at, beside a span
PLACE = 5  # the column of ``ReadQuery.flags`` that says where a token is
EDGES = 12  # columns of ``ReadQuery.edges``
_ARTICLES = frozenset(("the", "a", "an", "my", "your", "our", "his", "her", "their", "its"))
_BREAKS = frozenset(",;.!?") | {"and"}  # end a clause, as a number does
# A run of words in capitals, or a code of capitals and digits.
CAPITALS = re.compile(r"(?<![\w.])[A-Z][\w'&.-]*(?:(?: of| the| de)? [A-Z0-9][\w'&.-]*)*\b|\b(?=\w*[A-Z])\w*\d[\w/-]*")
_QUOTES = "'\"`\u2018\u2019\u201c\u201d"
_QUOTE = re.compile(f"[{_QUOTES}]")

Indices = np.ndarray[Any, np.dtype[np.int64]]
Flags = np.ndarray[Any, np.dtype[np.bool_]]


class Word(NamedTuple):
    """What a word of a query is by itself."""

    folded: str
    bare: str  # folded, without what is no letter or digit
    flags: bytes  # capital, digit, mark (punctuation), stop (a word of STOP_WORDS)
    stem: str | None  # of a word that is neither a mark nor a stop word
    ends: bool  # a sentence ends with it
    breaks: bool  # a clause ends with it
    light: bool  # an article or a quotation mark
    lead: int  # its place in LEADS, or -1
    negates: bool
    units: tuple[str, str]  # that it abbreviates, "" for none: by itself, and behind a number


@lru_cache(maxsize=1 << 13)
def _word(text: str) -> Word:
    folded = text.casefold()
    digit = any(map(str.isdigit, text))
    mark, stop = bool(text) and not any(map(str.isalnum, text)), folded in STOP_WORDS
    return Word(
        folded,
        _bare(folded),
        bytes((text[:1].isupper(), digit, mark, stop)),
        None if mark or stop else stem(folded),
        text in (".", "?", "!"),
        digit or folded in _BREAKS,
        folded in _ARTICLES or folded in _QUOTES,
        LEAD_OF.get(folded, -1),
        folded in NEGATIONS,
        (unit_of(folded, ""), unit_of(folded, "0")),
    )


class Rows(NamedTuple):
    """The vectors [n, W] of the tokens of several texts; how many each has; which have some, and where those begin."""

    vectors: Vectors
    lengths: Indices
    some: Indices
    begins: Indices

    @staticmethod
    def of(texts: Sequence[Vectors]) -> Rows:
        """Join the vectors [k, W] of each text."""
        lengths = np.array([len(text) for text in texts], np.int64)
        some = np.flatnonzero(lengths)
        begins = np.cumsum(lengths[some]) - lengths[some]
        return Rows(np.concatenate(texts) if len(some) else np.zeros((0, 0), np.float32), lengths, some, begins)


class ReadQuery:
    """The tokens of a query, P of them, and what stands beside each.

    Attributes
    ----------
    words
        The tokens, folded.
    vectors
        [P, W], of length 1.
    flags
        [P, 6]: capital, digit, mark, stop, whether it is the first of a sentence, and its place (1 is the 32nd).
    at
        The tokens of every stem; those of a unit that is abbreviated behind a number too.
    before, behind
        [P + 1, BEFORE] and [P + 1, BEHIND]: the words before and behind a token, the nearest first, -1 where its clause
        has no more.
    lead
        [P + 1]: the place in LEADS of the word in front of a token, articles apart, or -1.
    negated
        [P]: whether one of the two words before a token negates.
    """

    def __init__(self, text: str, tokens: Tokens) -> None:
        self.text = text
        self.tokens = tokens
        self.vectors = direction(tokens.vectors)
        places = zip(tokens.starts.tolist(), tokens.ends.tolist(), strict=True)
        read = [_word(text[start:end].strip()) for start, end in places]
        self.words = [word.folded for word in read]
        self.flags = np.zeros((len(read), 6), np.float32)
        if read:
            self.flags[:, :4] = np.frombuffer(b"".join([word.flags for word in read]), np.uint8).reshape(-1, 4)
            self.flags[:, 4] = [True, *(word.ends for word in read[:-1])]
            self.flags[:, PLACE] = np.arange(len(read), dtype=np.float32) / 32
        self.at: dict[str, list[int]] = {}
        for place, word in enumerate(read):
            if word.stem is not None:
                self.at.setdefault(word.stem, []).append(place)
            unit = word.units[place > 0 and self.words[place - 1][-1:].isdigit()]
            if unit:
                self.at.setdefault(stem(unit), []).append(place)
        self._bare = [word.bare for word in read]
        self._beside(read)

    def __len__(self) -> int:
        return len(self.words)

    def _beside(self, read: Sequence[Word]) -> None:
        """Set ``before`` and ``behind``, ``lead`` and ``negated``.

        "Plain" tokens are those that are no punctuation. Two tokens are in one clause where ``passed`` is the same.
        """
        count = len(read)
        is_plain = self.flags[:, 2] == 0
        plain, until = np.flatnonzero(is_plain), np.cumsum(is_plain)  # until: plain tokens up to each, itself included
        passed = np.zeros(count + 1, np.int64)  # breaks in front of a token
        np.cumsum([word.breaks for word in read], out=passed[1:])
        left = (until - is_plain)[:, None] - 1 - np.arange(BEFORE)
        right = until[:, None] + np.arange(BEHIND)
        padded = np.append(plain, -1)
        before = padded[np.maximum(left, -1)]
        behind = padded[np.minimum(right, len(plain))]
        self.before = np.full((count + 1, BEFORE), -1)
        self.behind = np.full((count + 1, BEHIND), -1)
        self.before[:-1] = np.where((before >= 0) & (passed[before] == passed[:-1, None]), before, -1)
        self.behind[:-1] = np.where((behind >= 0) & (passed[behind] == passed[1:, None]), behind, -1)
        solid = [-1, *(place if not word.light else -1 for place, word in enumerate(read))]
        in_front = list(accumulate(solid, max))[:count]  # the last token before each that is no article
        self.lead = np.array([*(read[place].lead if place >= 0 else -1 for place in in_front), -1], np.int64)
        negates = np.array([*(word.negates for word in read), False])
        self.negated = negates[self.before[:-1, :2]].any(axis=1)

    def tokens_of(self, starts: Indices, ends: Indices, texts: Sequence[str]) -> tuple[Indices, Indices]:
        """Return the first and last token [M] of each candidate: a span's own, or where its text is; else -1.

        ``starts`` and ``ends`` [M] are those of spans, -1 for what is none.
        """
        first, last = np.full(len(starts), -1, np.int64), np.full(len(starts), -1, np.int64)
        if len(self):
            spans = np.flatnonzero(starts >= 0)
            most = len(self) - 1
            first[spans] = np.minimum(np.searchsorted(self.tokens.ends, starts[spans], side="right"), most)
            last[spans] = np.searchsorted(self.tokens.starts, ends[spans], side="left") - 1
            last[spans] = np.minimum(np.maximum(last[spans], first[spans]), most)
            for row in np.flatnonzero(starts < 0).tolist():
                first[row], last[row] = self.find(texts[row])
        return first, last

    def pooled(self, first: Indices, last: Indices) -> Vectors:
        """Return [M, W]: the direction of the sum of a run of tokens; zeros for -1."""
        inside = first >= 0
        total = self._sums.take(np.where(inside, last + 1, 0), axis=0)
        total -= self._sums.take(np.where(inside, first, 0), axis=0)
        return direction(total)

    @cached_property
    def _sums(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Return [P + 1, W] the sums of the vectors in front of a token."""
        sums = np.zeros((len(self) + 1, self.vectors.shape[1]))
        sums[1:] = np.cumsum(self.vectors, axis=0)
        return sums

    @cached_property
    def beside(self) -> tuple[Vectors, Vectors]:
        """Return [P + 1, W] before and behind a token: the next word of the clause, and the one after that by half."""
        padded = np.concatenate([self.vectors, np.zeros((1, self.vectors.shape[1]), np.float32)])
        before = padded[self.before[:, 0]] + padded[self.before[:, 1]] / 2
        behind = padded[self.behind[:, 0]] + padded[self.behind[:, 1]] / 2
        return direction(before), direction(behind)

    def edges(self, first: Indices, last: Indices) -> Vectors:
        """Return flags [M, EDGES] of a run's two ends, in turns, zeros for -1.

        A stop word at the end, a stop word beside it, a mark or nothing beside it, a capital beside it, a capital at
        the end, how far it is from the query's own end.
        """
        flags = np.zeros((len(first), EDGES), np.float32)
        flags[:, 0::2], flags[:, 1::2] = self._ends[0].take(first, axis=0), self._ends[1].take(last, axis=0)
        return flags

    @cached_property
    def _ends(self) -> tuple[Vectors, Vectors]:
        """Return the columns of ``edges`` by first and by last token."""
        capital, _, mark, stop, _, place = self.flags.T
        left, right = np.zeros((2, len(self) + 1, EDGES // 2), np.float32)
        if len(self):
            for table, at, beside in ((left, slice(1, -1), slice(0, -1)), (right, slice(0, -2), slice(1, None))):
                table[:-1, 0], table[at, 1] = stop, stop[beside]
                table[:-1, 2], table[at, 2] = 1, mark[beside]
                table[at, 3], table[:-1, 4] = capital[beside], capital
            left[:-1, 5], right[:-1, 5] = place, np.arange(len(self) - 1, -1, -1) / 32
        return left, right

    def marked(self, starts: Indices, ends: Indices) -> tuple[Flags, Flags]:
        """Return [M] of the spans: which are whole runs of words in capitals, and which stand in quotation marks."""
        runs, quotes = self._marks
        return runs[starts] == ends, quotes[starts] & quotes[ends + 1]

    @cached_property
    def _marks(self) -> tuple[Indices, Flags]:
        """Return by place in the text: where a run of capitals ends that begins there; whether it is behind a quote.

        The last place, which index -1 takes, has neither.
        """
        runs, quotes = np.zeros(len(self.text) + 2, np.int64), np.zeros(len(self.text) + 2, bool)
        for one in CAPITALS.finditer(self.text, len(self.text.partition(" ")[0])):
            runs[one.start()] = one.end()
        quotes[[one.end() for one in _QUOTE.finditer(self.text)]] = True
        return runs, quotes

    def mentions(self, texts: Rows) -> Vectors:
        """Return per text [k] how well the query's tokens cover its own: the mean of the best cosines, 0 to 1."""
        result = np.zeros(len(texts.lengths), np.float32)
        if len(self) and len(texts.vectors):
            best = (texts.vectors @ self.vectors.T).max(axis=1)
            result[texts.some] = np.add.reduceat(best, texts.begins) / texts.lengths[texts.some]
        return result

    @cached_property
    def runs(self) -> dict[str, tuple[int, int]]:
        """Return the first and last token of every run of words, by its letters and digits without case."""
        runs: dict[str, tuple[int, int]] = {}
        for first, begin in enumerate(self._bare):
            run = ""
            for last in range(first, min(first + MAX_MENTION, len(self))) if begin else ():
                run += self._bare[last]
                if self._bare[last]:
                    runs[run] = first, last
        return runs

    def find(self, text: str) -> tuple[int, int]:
        """Return the first and last token of a text that stands in the query but for case and punctuation, or -1.

        Of several places it is the last.
        """
        wanted, (every, begins, ends) = folded(text), self._joined
        at = every.rfind(wanted) if wanted else -1
        while at >= 0:
            first, last = begins.get(at, -1), ends.get(at + len(wanted), -1)
            if first >= 0 and 0 <= last < first + MAX_MENTION:
                return first, last
            at = every.rfind(wanted, 0, at + len(wanted) - 1)
        return -1, -1

    @cached_property
    def _joined(self) -> tuple[str, dict[int, int], dict[int, int]]:
        """Return the query's letters and digits, without case, and the tokens that begin and end at a place in them."""
        begins: dict[int, int] = {}
        ends: dict[int, int] = {}
        length = 0
        for place, bare in enumerate(self._bare):
            if bare:
                begins[length] = place
                length += len(bare)
                ends[length] = place
        return "".join(self._bare), begins, ends


def folded(text: str) -> str:
    """Return a text's letters and digits, without case."""
    return _bare(text.casefold())


@lru_cache(maxsize=1 << 13)
def _bare(folded: str) -> str:
    """Return the letters and digits of a text that is folded."""
    return folded if folded.isalnum() else "".join(filter(str.isalnum, folded))
