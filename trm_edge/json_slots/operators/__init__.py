"""Typed spans: the values that a text spells out, and the texts that spell out a value.

An operator turns a span of a query into a value ("twenty five" into 25, "3 pm" into "15:00") and, for labelling and for
synthetic queries, a value back into texts in which it finds the value. ``OPERATORS`` is the registry; every operator is
a pair of small functions, and every module holds those of one kind. What an operator writes, it finds (a test holds it
to that).
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

from ..text import Json
from . import dates, lists, numbers, places, times, words
from .base import MAX_TEXT, Operator, Span, Spans, once_per_query

__all__ = ["MAX_TEXT", "OPERATORS", "Operator", "Span", "Spans", "find_spans", "once_per_query", "spellings"]

OPERATORS = (
    *(*words.OPERATORS, *numbers.OPERATORS, *dates.OPERATORS),
    *(*times.OPERATORS, *places.OPERATORS, *lists.OPERATORS, words.OTHER_WORDS),
)


def find_spans(text: str, now: dt.datetime | None = None, operators: Sequence[Operator] = OPERATORS) -> Spans:
    """Return what operators find in the first MAX_TEXT characters, in their order, which is that of the registry."""
    text = text[:MAX_TEXT]
    return Spans((one.name, one.find(text, now)) for one in operators)


def spellings(value: Json, now: dt.datetime | None = None) -> list[tuple[str, str]]:
    """Return (operator, text) pairs: the texts in which that operator finds the value."""
    return [(one.name, text) for one in OPERATORS for text in one.write(value, now)]
