"""What an operator is: a way to read values of one kind from a text, and to write them into one."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple, TypeVar

from ..text import Json

MAX_TEXT = 4096  # characters of a query that are looked at


class Span(NamedTuple):
    """A value, and the characters ``start`` to ``end`` of the text that an operator read it from."""

    start: int
    end: int
    value: Json
    operator: str


Found = tuple[int, int, Json]  # the first three of a span


class Spans:
    """The spans of one text. Equal only to itself, so that what is made of them can be kept beside them.

    A query has hundreds, of which few are looked at one by one: ``groups`` has them as plain tuples, by operator.
    """

    def __init__(
        self, text: str, groups: Iterable[tuple[str, Iterable[Found]]], now: dt.datetime | None = None
    ) -> None:
        self.text = text
        self.groups = [(operator, tuple(found)) for operator, found in groups]
        self.now = now

    def __len__(self) -> int:
        return sum(len(found) for _, found in self.groups)

    def __iter__(self) -> Iterator[Span]:
        return (Span(*one, operator) for operator, found in self.groups for one in found)


Find = Callable[[str, "dt.datetime | None"], Iterable[Found]]
Kept = TypeVar("Kept")
Write = Callable[[Json, "dt.datetime | None"], Iterator[str]]


@dataclass(frozen=True)
class Operator:
    """A way to read values from a text and to write them; ``now`` is what relative dates are relative to, if given.

    ``makes`` is what it finds: "texts", "numbers" or "arrays".
    """

    name: str
    find: Find
    write: Write
    makes: str = "texts"


def offset_at(day: dt.date, time: dt.time, now: dt.datetime | None) -> str:
    """Return what RFC 3339 has behind a time, for the zone of ``now``: "+09:00"; "Z" where it has none."""
    zone = None if now is None else now.tzinfo
    offset = dt.datetime.combine(day, time, zone).utcoffset()
    minutes = 0 if offset is None else round(offset.total_seconds() / 60)
    return "Z" if minutes == 0 else f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02}:{abs(minutes) % 60:02}"


def once_per_query(find: Callable[..., Iterator[Kept]]) -> Callable[..., tuple[Kept, ...]]:
    """Decorate a generator that several operators start from: it runs once per query, for the last few queries."""

    @lru_cache(maxsize=8)
    def kept(*arguments: Any) -> tuple[Kept, ...]:
        return tuple(find(*arguments))

    return kept


def may_have(text: str, words: Iterable[str]) -> bool:
    """Whether a pattern that needs one of these words, in small letters, is worth a try, whatever the text's case."""
    if not text.isascii():  # letters that are others in small ones
        return True
    lowered = text.lower()
    return any(word in lowered for word in words)


def is_number(value: Json) -> bool:
    """Whether it is a number, which true is not."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def is_whole(value: Json) -> bool:
    """Whether it is an integer, which true is not."""
    return isinstance(value, int) and not isinstance(value, bool)
