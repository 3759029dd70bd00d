"""A query as its tokens: where words stand, what stands beside them, what a query mentions of a text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from .candidates import Candidate
from .providers import Tokens, Vectors
from .wording import LEAD_OF, STOP_WORDS, stem, unit_of

MAX_MENTION = 16  # tokens of a text that is looked for in the query
BEFORE, BEHIND = 6, 2  # words of the clause that are looked at, beside a span
_ARTICLES = frozenset(("the", "a", "an", "my", "your", "our", "his", "her", "their", "its"))
_BREAKS = frozenset(",;.!?") | {"and"}  # end a clause, as a number does
# A run of words in capitals, or a code of capitals and digits.
CAPITALS = re.compile(r"(?<![\w.])[A-Z][\w'&.-]*(?:(?: of| the| de)? [A-Z0-9][\w'&.-]*)*\b|\b(?=\w*[A-Z])\w*\d[\w/-]*")
_QUOTES = "'\"`\u2018\u2019\u201c\u201d"

Indices = np.ndarray[Any, np.dtype[np.int64]]
Flags = np.ndarray[Any, np.dtype[np.bool_]]


class ReadQuery:
    """The tokens of a query, with flags [P] float32 and sums of vectors over any run of them.

    ``capital``, ``digit``, ``mark`` (punctuation), ``stop`` (a word of ``STOP_WORDS``), ``first`` (of a sentence) and
    ``place`` (0 for the first token, 1 for the 32nd) are flags; ``vectors [P, W]`` have length 1. ``at`` has the tokens
    of every stem; those of a unit that is abbreviated behind a number too.
    """

    def __init__(self, text: str, tokens: Tokens) -> None:
        self.text = text
        self.tokens = tokens
        self.vectors = direction(tokens.vectors)
        words = [text[start:end].strip() for start, end in zip(tokens.starts, tokens.ends, strict=True)]
        self.words = [word.casefold() for word in words]
        self.capital = _flags(word[:1].isupper() for word in words)
        self.digit = _flags(any(character.isdigit() for character in word) for word in words)
        self.mark = _flags(bool(word) and not any(character.isalnum() for character in word) for word in words)
        self.stop = _flags(word in STOP_WORDS for word in self.words)
        ends = [True, *(word in (".", "?", "!") for word in words)]
        self.first = _flags(ends[: len(words)])
        self.place = np.arange(len(words), dtype=np.float32) / 32
        self.at: dict[str, list[int]] = {}
        for place, word in enumerate(self.words):
            if word not in STOP_WORDS and not self.mark[place]:
                self.at.setdefault(stem(word), []).append(place)
            unit = unit_of(word, self.words[place - 1] if place else "")
            if unit:
                self.at.setdefault(stem(unit), []).append(place)
        self._sums = np.concatenate([np.zeros((1, self.vectors.shape[1])), np.cumsum(self.vectors, axis=0)])
        self._runs: dict[str, tuple[int, int]] | None = None
        self._beside()

    def __len__(self) -> int:
        return len(self.words)

    def _beside(self) -> None:
        """Work out the words before and behind every token, the nearest first, up to the end of the clause."""
        count = len(self)
        plain = np.flatnonzero(self.mark == 0)
        breaks = np.array([word in _BREAKS for word in self.words], bool) | (self.digit > 0)
        passed = np.concatenate([[0], np.cumsum(breaks)])  # breaks in front of a token
        places = np.arange(count)
        left = np.searchsorted(plain, places)[:, None] - 1 - np.arange(BEFORE)
        right = np.searchsorted(plain, places, side="right")[:, None] + np.arange(BEHIND)
        padded = np.append(plain, -1)
        before = padded[np.where(left >= 0, left, -1)]
        behind = padded[np.where(right < len(plain), right, -1)]
        self.before = np.where((before >= 0) & (passed[before] == passed[:count, None]), before, -1)
        self.behind = np.where((behind >= 0) & (passed[behind] == passed[1:, None]), behind, -1)
        lead = np.array([LEAD_OF.get(word, -1) for word in self.words], np.int64)
        light = np.array([word in _ARTICLES or word in _QUOTES for word in self.words], bool)
        solid = np.append(np.flatnonzero(~light), -1)
        nearest = solid[np.searchsorted(solid[:-1], places) - 1]
        self.lead = np.append(lead, -1)[nearest]  # of the word in front of a token, articles apart

    def tokens_of(self, candidates: Sequence[Candidate], texts: Sequence[str]) -> tuple[Indices, Indices]:
        """Return the first and last token [M] of each candidate: a span's own, or where its text is; else -1."""
        count = len(candidates)
        first, last = np.full(count, -1, np.int64), np.full(count, -1, np.int64)
        starts = np.array([candidate.start for candidate in candidates], np.int64)
        ends = np.array([candidate.end for candidate in candidates], np.int64)
        spans = np.flatnonzero(starts >= 0)
        if len(self):
            first[spans] = np.clip(np.searchsorted(self.tokens.ends, starts[spans], side="right"), 0, len(self) - 1)
            last[spans] = np.searchsorted(self.tokens.starts, ends[spans], side="left") - 1
            last[spans] = np.clip(last[spans], first[spans], len(self) - 1)
            for row in np.flatnonzero(starts < 0).tolist():
                first[row], last[row] = self.find(texts[row])
        return first, last

    def pooled(self, first: Indices, last: Indices) -> Vectors:
        """Return [M, W]: the direction of the sum of a run of tokens; zeros for -1."""
        inside = (first >= 0)[:, None]
        sums = self._sums[np.where(inside[:, 0], last + 1, 0)] - self._sums[np.where(inside[:, 0], first, 0)]
        return direction(np.where(inside, sums, 0))

    def beside(self, first: Indices, last: Indices) -> tuple[Vectors, Vectors]:
        """Return [M, W] before and behind a run: the next word of the clause, and the one after that by half."""
        padded = np.concatenate([self.vectors, np.zeros((1, self.vectors.shape[1]), np.float32)])
        left, right = self.window(first, last)
        before = padded[left[:, 0]] + padded[left[:, 1]] / 2
        behind = padded[right[:, 0]] + padded[right[:, 1]] / 2
        return direction(before), direction(behind)

    def window(self, first: Indices, last: Indices) -> tuple[Indices, Indices]:
        """Return the words [M, BEFORE] before and [M, BEHIND] behind a run, -1 where the clause has no more."""
        left = np.concatenate([self.before, np.full((1, BEFORE), -1)])[first]
        right = np.concatenate([self.behind, np.full((1, BEHIND), -1)])[last]
        return left, right

    def edges(self, first: Indices, last: Indices) -> list[Vectors]:
        """Return flags [M] of a run's ends: stop words and marks in and around it, capitals around it, its place."""
        if not len(self):
            return [np.zeros(len(first), np.float32)] * 12
        inside = first >= 0
        left, right = np.maximum(first, 0), np.maximum(last, 0)
        before, behind = left - 1, right + 1
        has_before, has_behind = inside & (before >= 0), inside & (behind < len(self))
        behind = np.minimum(behind, len(self) - 1)
        flags = [
            inside & (self.stop[left] > 0),
            inside & (self.stop[right] > 0),
            has_before & (self.stop[before] > 0),
            has_behind & (self.stop[behind] > 0),
            inside & ~(has_before & (self.mark[before] == 0)),
            inside & ~(has_behind & (self.mark[behind] == 0)),
            has_before & (self.capital[before] > 0),
            has_behind & (self.capital[behind] > 0),
            inside & (self.capital[left] > 0),
            inside & (self.capital[right] > 0),
            np.where(inside, self.place[left], 0),
            np.where(inside, (len(self) - 1 - right) / 32, 0),
        ]
        return [np.asarray(flag, np.float32) for flag in flags]

    def marked(self, candidates: Sequence[Candidate]) -> tuple[Flags, Flags]:
        """Return [M] of the spans: which are whole runs of words in capitals, and which stand in quotation marks."""
        text = self.text
        runs = {match.span() for match in CAPITALS.finditer(text, len(text.partition(" ")[0]))}
        opened = {i + 1 for i, character in enumerate(text) if character in _QUOTES}
        closed = {i - 1 for i in opened}
        capital = [one.start >= 0 and (one.start, one.end) in runs for one in candidates]
        quoted = [one.start in opened and one.end in closed for one in candidates]
        return np.array(capital, bool), np.array(quoted, bool)

    def mentions(self, texts: Sequence[Vectors]) -> Vectors:
        """Return per text [k, W] how well the query's tokens cover its own: the mean of the best cosines, 0 to 1."""
        result = np.zeros(len(texts), np.float32)
        lengths = np.array([len(text) for text in texts])
        if not len(self) or not lengths.sum():
            return result
        best = (np.concatenate([text for text in texts if len(text)]) @ self.vectors.T).max(axis=1)
        some = np.flatnonzero(lengths)
        begins = np.concatenate([[0], np.cumsum(lengths[some])[:-1]])
        result[some] = np.add.reduceat(best, begins) / lengths[some]
        return result

    def find(self, text: str) -> tuple[int, int]:
        """Return the first and last token of a text that stands in the query but for case and punctuation, or -1."""
        if self._runs is None:
            self._runs = {}
            words = [_folded(word) for word in self.words]
            for first, begin in enumerate(words):
                run = ""
                for last in range(first, min(first + MAX_MENTION, len(words))) if begin else ():
                    run += words[last]
                    if words[last]:
                        self._runs[run] = first, last
        return self._runs.get(_folded(text), (-1, -1))


def direction(vectors: np.ndarray[Any, np.dtype[Any]]) -> Vectors:
    """Return vectors [..., W] of length 1; zeros stay zeros."""
    norm = np.sqrt(np.square(vectors).sum(axis=-1, keepdims=True))
    unit: Vectors = np.asarray(vectors / np.maximum(norm, 1e-12), np.float32)
    return unit


def _folded(text: str) -> str:
    return "".join(character for character in text.casefold() if character.isalnum())


def _flags(values: Any) -> Vectors:
    return np.array([float(value) for value in values], np.float32)
