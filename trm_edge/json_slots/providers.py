"""Context providers: one vector per word or token of a text, from hashed n-grams, a language model, or the caller.

A provider is any object with ``width`` and ``tokens(text) -> Tokens``. The query, the names and descriptions of slots,
and the values of candidates all pass through the same one, so that a head can compare them.
"""

from __future__ import annotations

import math
import re
import zlib
from array import array
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import numpy as np

from ..errors import TrmInputError

Vectors = np.ndarray[Any, np.dtype[np.float32]]
Offsets = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True, eq=False)
class Tokens:
    """The tokens of a text.

    Attributes
    ----------
    vectors
        [P, W] float32, a row per token.
    starts, ends
        [P] int64: the characters of the text that a token covers, in rising order.
    """

    vectors: Vectors
    starts: Offsets
    ends: Offsets

    def __post_init__(self) -> None:
        count = len(self.starts)
        if self.vectors.ndim != 2 or self.vectors.dtype != np.float32 or len(self.vectors) != count:
            shape = list(self.vectors.shape)
            raise TrmInputError(f"vectors: expected float32 [{count}, width], got {self.vectors.dtype} {shape}")
        if self.starts.shape != (count,) or self.ends.shape != (count,):
            raise TrmInputError(f"ends: expected [{count}], as many as starts, got {list(self.ends.shape)}")
        if (self.starts[1:] < self.starts[:-1]).any() or (self.ends < self.starts).any():
            raise TrmInputError("starts: expected rising offsets, each not behind its end")
        if not np.isfinite(self.vectors).all():
            raise TrmInputError("vectors: expected finite values")


class ContextProvider(Protocol):
    """What a resolver asks for vectors."""

    @property
    def width(self) -> int:
        """W, the width of a vector."""
        ...

    def tokens(self, text: str) -> Tokens:
        """Return the tokens of a text, in order; a text without any gives 0 rows. Clones ask from several threads."""
        ...


_WORD = re.compile(r"[^\W_]+|[^\w\s]")


class HashedNgrams:
    """Words as signed sums of their hashed character n-grams: no language model, no table, nothing to download.

    A word's vector is the sum, over the word in brackets and its n-grams of 3 to 5 characters (Bojanowski et al.,
    arXiv 1607.04606), of a sign at a place that the n-gram's CRC-32 names (feature hashing, arXiv 0902.2206), brought
    to length 1. Case is folded; punctuation marks are words of their own. It is the same on every machine.

    Parameters
    ----------
    width
        W; more keeps more words apart.
    """

    def __init__(self, width: int = 64) -> None:
        if not 8 <= width <= 4096:
            raise TrmInputError(f"width: expected 8..4096, got {width}")
        self.width = width
        self._vector = lru_cache(maxsize=1 << 15)(self._hashed)

    def tokens(self, text: str) -> Tokens:
        """Return the words and punctuation marks of a text."""
        places = [match.span() for match in _WORD.finditer(text)]
        rows = bytearray().join([self._vector(text[start:end].casefold()) for start, end in places])
        offsets = np.array(places, np.int64).reshape(-1, 2)
        return Tokens(np.frombuffer(rows, np.float32).reshape(-1, self.width), offsets[:, 0], offsets[:, 1])

    def _hashed(self, word: str) -> bytes:
        """Return the float32 entries of a word's vector."""
        framed = f"<{word}>"
        grams = {framed} | {framed[i : i + n] for n in (3, 4, 5) for i in range(len(framed) - n + 1)}
        sums: dict[int, int] = {}
        for gram in grams:
            code = zlib.crc32(gram.encode("utf-8", "surrogatepass"))
            place = code % self.width
            sums[place] = sums.get(place, 0) + (1 if code >> 31 else -1)
        length = float(np.float32(math.sqrt(sum(one * one for one in sums.values()))))
        vector = array("f", bytes(4 * self.width))
        for place, one in sums.items() if length > 0 else ():
            vector[place] = one / length
        return vector.tobytes()


class GivenStates:
    """Vectors that the caller computed elsewhere, by text: hidden states of a served model, for instance.

    Parameters
    ----------
    states
        The tokens of every text that a call needs: the query, and names, descriptions and options of the tools. The
        error for a text that is missing quotes it.
    """

    def __init__(self, states: Mapping[str, Tokens]) -> None:
        widths = {tokens.vectors.shape[1] for tokens in states.values()}
        if len(widths) != 1:
            raise TrmInputError(f"states: expected vectors of one width, got {sorted(widths) or 'none'}")
        self.width = widths.pop()
        self._states = dict(states)

    def tokens(self, text: str) -> Tokens:
        """Return what was given for a text."""
        if text not in self._states:
            raise TrmInputError(f"states: expected the tokens of {text!r}, which were not given")
        return self._states[text]


class Joined:
    """The vectors of two providers side by side, W of both together: how words are spelt beside what they mean, say.

    Tokens are the first one's; the second one's part of a token's vector is the mean of its tokens that cover some of
    it, zeros where none does. Each part has length 1, so that a cosine is the mean of both cosines.

    Parameters
    ----------
    first, second
        Providers: ``Joined(HashedNgrams(128), LlamaStates(gguf))``.
    """

    def __init__(self, first: ContextProvider, second: ContextProvider) -> None:
        self.first, self.second = first, second
        self.width = first.width + second.width

    def tokens(self, text: str) -> Tokens:
        """Return the first provider's tokens of a text."""
        own, others = self.first.tokens(text), self.second.tokens(text)
        sums = np.zeros((len(others.starts) + 1, self.second.width))
        np.cumsum(direction(others.vectors), axis=0, out=sums[1:])
        begins = np.searchsorted(others.ends, own.starts, side="right")
        ends = np.maximum(np.searchsorted(others.starts, own.ends, side="left"), begins)
        means = direction(sums[ends] - sums[begins])  # of length 1, so not divided by their number
        return Tokens(np.concatenate([direction(own.vectors), means], axis=1), own.starts, own.ends)


def direction(vectors: np.ndarray[Any, np.dtype[Any]]) -> Vectors:
    """Return vectors [..., W] of length 1; zeros stay zeros."""
    norm = np.sqrt(np.square(vectors).sum(axis=-1, keepdims=True))
    unit: Vectors = np.empty(vectors.shape, np.float32)
    np.divide(vectors, np.maximum(norm, 1e-12), out=unit, casting="same_kind")
    return unit
