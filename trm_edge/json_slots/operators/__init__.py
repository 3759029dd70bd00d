"""Typed spans: the values that a text spells out, and the texts that spell out a value.

An operator turns a span of a query into a value ("twenty five" into 25, "3 pm" into "15:00") and, for labelling and for
synthetic queries, a value back into texts in which it finds the value. ``OPERATORS`` is the registry; every operator is
a pair of small functions, and every module holds those of one kind. What an operator writes, it finds (a test holds it
to that).
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator, Sequence

from ..text import Json
from . import dates, lists, numbers, places, times, words
from .base import MAX_TEXT, Found, Operator, Span, Spans, once_per_query

__all__ = ["MAX_TEXT", "OPERATORS", "Operator", "Span", "Spans", "find_spans", "once_per_query", "spellings"]

OPERATORS = (
    *(*words.OPERATORS, *numbers.OPERATORS, *dates.OPERATORS),
    *(*times.OPERATORS, *places.OPERATORS, *lists.OPERATORS, words.OTHER_WORDS),
)


_LOOKALIKES = str.maketrans("\u017f\u0130\u0131\u212a", "sIik")  # a pattern without case takes these for the others


def find_spans(text: str, now: dt.datetime | None = None, operators: Sequence[Operator] = OPERATORS) -> Spans:
    """Return what operators find in the first MAX_TEXT characters, in their order, which is that of the registry."""
    text = text[:MAX_TEXT]
    plain = text if text.isascii() else text.translate(_LOOKALIKES)
    found = ((one.name, one.find(plain, now)) for one in operators)
    if plain != text:
        found = ((name, _as_written(text, plain, some)) for name, some in found)
    return Spans(text, found, now)


def _as_written(text: str, plain: str, spans: Iterable[Found]) -> Iterator[Found]:
    """Yield spans of ``plain`` with values that stand in it as ``text`` has them."""
    for start, end, value in spans:
        yield start, end, text[start:end] if isinstance(value, str) and value == plain[start:end] else value


def spellings(value: Json, now: dt.datetime | None = None) -> list[tuple[str, str]]:
    """Return (operator, text) pairs: the texts in which that operator finds the value."""
    return [(one.name, text) for one in OPERATORS for text in one.write(value, now)]
