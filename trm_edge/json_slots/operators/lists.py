"""Lists: enumerations and ranges."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator
from itertools import pairwise

from ..text import Json, same
from .base import Operator, is_number
from .numbers import digits_of, write_number

_SEPARATOR = re.compile(r"(,? (?:and|or|&) )|, ?")
_BREAK = re.compile(r"[.;:!?]\s|[\n()\[\]{}]")
_BRACKETS = re.compile(r"[\[(]([^\[\]()]{1,400})[\])]")
_RANGE = re.compile(r" ?(?:-|\u2013) ?| (?:to|and|through|until|till) (?:\w{1,2} ?= ?)?")
_NUMERAL = re.compile(r"([-+]?\d{1,15}(\.\d{1,15})?)(?:st|nd|rd|th| ?\u00b0? ?([NSEW]))?", re.A)
_ITEM_WORDS = 4  # of an item in a list


def _find_list(text: str, now: dt.datetime | None) -> Iterator[tuple[int, int, Json]]:
    """Find enumerations ("a, b and c", "[1, 2]") as arrays; of numbers where every item is one.

    Where the first item begins and the last one ends, the text does not say: every number of words up to four is tried.
    """
    for match in _BRACKETS.finditer(text):
        yield match.start(), match.end(), _items(match.group(1))
    begin = 0
    for stop in [*(match.start() for match in _BREAK.finditer(text)), len(text)]:
        yield from _enumerations(text, begin, stop)
        begin = stop + 1


def _enumerations(text: str, begin: int, stop: int) -> Iterator[tuple[int, int, Json]]:
    """Find the enumerations of one sentence: items parted by commas, up to the first "and" or an item too long."""
    separators = list(_SEPARATOR.finditer(text, begin, stop))
    first = 0
    while first < len(separators):
        last = first
        while separators[last].group(1) is None and last + 1 < len(separators):
            between = text[separators[last].end() : separators[last + 1].start()].split()
            if not 1 <= len(between) <= _ITEM_WORDS:
                break
            last += 1
        yield from _cuts(text, separators, first, last, begin, stop)
        if last > first:  # what stands before the first comma, or after "and", may belong to the sentence
            yield from _cuts(text, separators, first + 1, last, begin, stop)
            yield from _cuts(text, separators, first, last - 1, begin, stop)
        first = last + 1


def _cuts(
    text: str, separators: list[re.Match[str]], first: int, last: int, begin: int, stop: int
) -> Iterator[tuple[int, int, Json]]:
    """Yield the enumeration between two separators, with every number of words in its first and its last item."""
    head_from = separators[first - 1].end() if first else begin
    tail_to = separators[last + 1].start() if last + 1 < len(separators) else stop
    heads = list(re.finditer(r"\S+", text[head_from : separators[first].start()]))[-_ITEM_WORDS:]
    tails = list(re.finditer(r"\S+", text[separators[last].end() : tail_to]))[:_ITEM_WORDS]
    for head in heads:
        for tail in tails:
            start, end = head_from + head.start(), separators[last].end() + tail.end()
            yield start, end, _items(text[start:end])


def _find_range(text: str, now: dt.datetime | None) -> Iterator[tuple[int, int, Json]]:
    """Find two numbers with "to", "and" or a dash between them, as an array of the two."""
    for (left, low), (right, high) in pairwise(digits_of(text)):
        if _RANGE.fullmatch(text, left.end(), right.start()) is not None:
            yield left.start(), right.end(), [low, high]


def _write_range(value: Json, now: dt.datetime | None) -> Iterator[str]:
    if isinstance(value, list) and len(value) == 2:
        low, high = (list(write_number(part, now))[:1] for part in value)
        yield from (f"{a} to {b}" for a in low for b in high)


def _items(text: str) -> Json:
    pieces = _SEPARATOR.sub("\n", text).split("\n")
    parts = [part for piece in pieces if (part := piece.strip(" '\"\u2018\u2019\u201c\u201d").rstrip("."))]
    numbers = [_as_number(part) for part in parts]
    return numbers if parts and None not in numbers else parts


def _as_number(text: str) -> int | float | None:
    match = _NUMERAL.fullmatch(text)
    if match is None:
        return None
    number = float(match.group(1)) if match.group(2) else int(match.group(1))
    return -number if match.group(3) in ("S", "W") else number


def _write_list(value: Json, now: dt.datetime | None) -> Iterator[str]:
    if not isinstance(value, list) or not 2 <= len(value) <= 16:
        return
    parts = [repr(item) if is_number(item) else item for item in value]
    if not all(isinstance(part, str) and _is_item(part) for part in parts):
        return
    for text in (", ".join(parts[:-1]) + " and " + parts[-1], "[" + ", ".join(parts) + "]"):
        if same(_items(text.strip("[]")), value):
            yield text


def _is_item(text: str) -> bool:
    return len(text.split()) <= _ITEM_WORDS and not _BREAK.search(text + " ") and bool(text.strip("."))


OPERATORS = (
    Operator("list", _find_list, _write_list),
    Operator("range", _find_range, _write_range),
)
