"""A query as its tokens: where words stand, what stands beside them, what a query mentions of a text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from .candidates import Candidate
from .providers import Tokens, Vectors

STOP_WORDS = frozenset(
    re.findall(
        r"\w+",
        "a an the of in on at to for from by with and or is are was be it i me my we you your please can could would "
        "want need that this as into over between what which how do does",
    )
)
MAX_MENTION = 5  # tokens of a text that is looked for in the query

Indices = np.ndarray[Any, np.dtype[np.int64]]


class ReadQuery:
    """The tokens of a query, with flags [P] float32 and sums of vectors over any run of them.

    ``capital``, ``digit``, ``mark`` (punctuation), ``stop`` (a word of ``STOP_WORDS``), ``first`` (of a sentence) and
    ``place`` (0 for the first token, 1 for the 32nd) are flags; ``vectors [P, W]`` have length 1.
    """

    def __init__(self, text: str, tokens: Tokens) -> None:
        self.tokens = tokens
        self.vectors = direction(tokens.vectors)
        words = [text[start:end] for start, end in zip(tokens.starts, tokens.ends, strict=True)]
        self.words = [word.strip().casefold() for word in words]
        self.capital = _flags(word.strip()[:1].isupper() for word in words)
        self.digit = _flags(any(character.isdigit() for character in word) for word in words)
        self.mark = _flags(bool(word) and not any(character.isalnum() for character in word) for word in self.words)
        self.stop = _flags(word in STOP_WORDS for word in self.words)
        ends = [True, *(word in (".", "?", "!") for word in self.words)]
        self.first = _flags(ends[: len(words)])
        self.place = np.arange(len(words), dtype=np.float32) / 32
        self._sums = np.concatenate([np.zeros((1, self.vectors.shape[1])), np.cumsum(self.vectors, axis=0)])
        self._runs: dict[str, tuple[int, int]] | None = None

    def __len__(self) -> int:
        return len(self.words)

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
                first[row], last[row] = self._found(texts[row])
        return first, last

    def pooled(self, first: Indices, last: Indices) -> Vectors:
        """Return [M, W]: the direction of the sum of a run of tokens; zeros for -1."""
        inside = (first >= 0)[:, None]
        sums = self._sums[np.where(inside[:, 0], last + 1, 0)] - self._sums[np.where(inside[:, 0], first, 0)]
        return direction(np.where(inside, sums, 0))

    def beside(self, first: Indices, last: Indices) -> tuple[Vectors, Vectors]:
        """Return [M, W] before and behind a run: the next token, and the one after that by half."""
        padded = np.concatenate([np.zeros((2, self.vectors.shape[1]), np.float32), self.vectors])
        padded = np.concatenate([padded, np.zeros((2, padded.shape[1]), np.float32)])
        inside = (first >= 0)[:, None]
        left, right = np.maximum(first, 0) + 2, np.maximum(last, 0) + 2
        before = padded[left - 1] + padded[left - 2] / 2
        behind = padded[np.minimum(right + 1, len(padded) - 1)] + padded[np.minimum(right + 2, len(padded) - 1)] / 2
        return direction(np.where(inside, before, 0)), direction(np.where(inside, behind, 0))

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

    def _found(self, text: str) -> tuple[int, int]:
        """Return the first and last token of a text that stands in the query but for case and punctuation, or -1."""
        if self._runs is None:
            self._runs = {}
            for size in range(MAX_MENTION, 0, -1):
                for i in range(len(self) - size + 1):
                    self._runs["".join(self.words[i : i + size])] = (i, i + size - 1)
        folded = "".join(character for character in text.casefold() if character.isalnum())
        return self._runs.get(folded, (-1, -1)) if folded else (-1, -1)


def direction(vectors: np.ndarray[Any, np.dtype[Any]]) -> Vectors:
    """Return vectors [..., W] of length 1; zeros stay zeros."""
    norm = np.sqrt(np.square(vectors).sum(axis=-1, keepdims=True))
    unit: Vectors = np.asarray(vectors / np.maximum(norm, 1e-12), np.float32)
    return unit


def _flags(values: Any) -> Vectors:
    return np.array([float(value) for value in values], np.float32)
