"""Lists: enumerations, ranges, what is written as JSON, and what a text has several of."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import pairwise

from ..text import Json, JsonTextError, parse, parse_lenient, same
from .base import Operator, is_number, once_per_query
from .numbers import all_numbers, digits_of, write_number
from .words import may_begin, may_end, quoted_in, singular, words_of

_SEPARATOR = re.compile(r"(,? (?:and(?: also)?|or|&|as well as|plus) )|, ?")
_BREAK = re.compile(r"[.;:!?]\s|[\n()\[\]{}]")
_BRACKETS = re.compile(r"[\[(]([^\[\]()]{1,400})[\])]")
_RANGE = re.compile(r" ?(?:-|\u2013) ?| (?:to|and|through|until|till) (?:\w{1,2} ?= ?)?")
_NUMERAL = re.compile(r"([-+]?\d{1,15}(\.\d{1,15})?)(?:st|nd|rd|th| ?\u00b0? ?([NSEW]))?", re.A)
_ITEM_WORDS = 4  # of an item in a list
_LEADING = re.compile(r"\b(?:(?:the|a|an|some|my|both|its|their|his|her|also)\s+)+", re.I)
_COUNTED = re.compile(
    r"\b(?:\d{1,6}|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|twenty|a|an|some)\s+(?:dozen\s+)?",
    re.I,
)
_BEFORE_ITEM = (  # what a word ends with that ``_LEADING`` or ``_COUNTED`` takes off
    *("the", "a", "an", "some", "my", "both", "its", "their", "his", "her", "also", "dozen", *"0123456789"),
    *("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "twenty"),
)
_MEASURED = re.compile(r"[A-Za-z]+(?: [A-Za-z]+)? of ")
_QUOTES = " '\"`\u2018\u2019\u201c\u201d"
_WORD = re.compile(r"\S+")
LONG_TEXT = 1024  # characters; in a longer text fewer cuts of an enumeration are tried
MAX_ITEMS = 64  # of an enumeration
MAX_SERIES = 8  # members of which every run is an array; of more, only those from the first or to the last
MAX_LITERAL = 2000  # characters of an array in JSON


def _find_list(text: str, now: dt.datetime | None) -> Iterator[tuple[int, int, Json]]:
    """Find enumerations ("a, b and c", "[1, 2]") as arrays; of numbers where every item is one.

    Where the first item begins and the last one ends, the text does not say: every number of words up to four is tried.
    """
    for match in _BRACKETS.finditer(text):
        yield match.start(), match.end(), _items(match.group(1))
    for start, end, parts in _enumerated(text):
        numbers = [_as_number(part) for part in parts] if parts[-1][-1].isdigit() or parts[-1][0].isdigit() else [None]
        yield start, end, [*(parts if None in numbers else numbers)]


def _find_bare_list(text: str, now: dt.datetime | None) -> Iterator[tuple[int, int, Json]]:
    """Find enumerations without the articles of their items, without their numbers, and in the singular."""
    for start, end, parts in _enumerated(text):
        for spelt in dict.fromkeys(zip(*map(_bared, parts), strict=True)):
            if spelt != parts and "" not in spelt:
                yield start, end, [*spelt]


@lru_cache(maxsize=512)
def _bared(item: str) -> tuple[str, str, str, str]:
    """Return an item without its article, also without its number, then in the singular, or without its measure."""
    bare = kind = item
    before_space = (item + ".").lower().split()[:-1]
    if not item.isascii() or any(word.endswith(_BEFORE_ITEM) for word in before_space):
        bare = _LEADING.sub("", item)
        kind = _COUNTED.sub("", bare, count=1)
    return bare, kind, singular(kind), _MEASURED.sub("", kind) if " of " in kind else kind


@once_per_query
def _enumerated(text: str) -> Iterator[tuple[int, int, tuple[str, ...]]]:
    """Yield enumerations: where they may begin and end, and their items."""
    begin = 0
    for stop in [*(match.start() for match in _BREAK.finditer(text)), len(text)]:
        yield from _enumerations(text, begin, stop)
        begin = stop + 1


def _enumerations(text: str, begin: int, stop: int) -> Iterator[tuple[int, int, tuple[str, ...]]]:
    """Yield those of one sentence: items parted by commas, up to the first "and" or an item too long."""
    separators = list(_SEPARATOR.finditer(text, begin, stop))
    first = 0
    while first < len(separators):
        last = first
        while separators[last].group(1) is None and last + 1 < min(len(separators), first + MAX_ITEMS):
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
) -> Iterator[tuple[int, int, tuple[str, ...]]]:
    """Yield the enumeration between two separators, with every number of words in its first and its last item."""
    head_from = separators[first - 1].end() if first else begin
    tail_to = separators[last + 1].start() if last + 1 < len(separators) else stop
    head_to, tail_from = separators[first].start(), separators[last].end()
    most = _ITEM_WORDS if len(text) <= LONG_TEXT else _ITEM_WORDS // 2
    heads = [match for match in _WORD.finditer(text, head_from, head_to)][-most:]
    tails = [match for match in _WORD.finditer(text, tail_from, tail_to)][:most]
    begins = [match.start() for match in heads if match.start() == head_from or may_begin(match.group())]
    ends = [match.end() for match in tails if match.end() == tail_to or may_end(match.group())]
    parts = (_part(text[a.end() : b.start()]) for a, b in pairwise(separators[first : last + 1]))
    inner = tuple(filter(None, parts))
    lasts = [(end, part) for end in ends if (part := _part(text[tail_from:end]))]
    for start in begins:
        part = _part(text[start:head_to])
        before = (part, *inner) if part else inner
        for end, other in lasts:
            yield start, end, (*before, other)


def _part(text: str) -> str:
    return text.strip(_QUOTES).rstrip(".?!")


def _items(text: str) -> list[Json]:
    pieces = _SEPARATOR.sub("\n", text).split("\n")
    parts: list[Json] = [part for piece in pieces if (part := _part(piece))]
    numbers = [_as_number(part) for part in parts]
    return [*numbers] if parts and None not in numbers else parts


def _as_number(text: str) -> int | float | None:
    match = _NUMERAL.fullmatch(text)
    if match is None:
        return None
    number = float(match.group(1)) if match.group(2) else int(match.group(1))
    return -number if match.group(3) in ("S", "W") else number


def _write_list(value: Json, now: dt.datetime | None) -> Iterator[str]:
    parts = _parts(value)
    for text in (", ".join(parts[:-1]) + " and " + parts[-1], "[" + ", ".join(parts) + "]") if parts else ():
        if same(_items(text.strip("[]")), value):
            yield text


def _write_bare_list(value: Json, now: dt.datetime | None) -> Iterator[str]:
    parts = _parts(value)
    text = ", ".join(f"the {part}" for part in parts[:-1]) + f" and the {parts[-1]}" if parts else ""
    if parts and any(same(found, value) for _, _, found in _find_bare_list(text, now)):
        yield text


def _parts(value: Json) -> list[str]:
    """Return an array's items as they are written in an enumeration, or none where one cannot be."""
    if not isinstance(value, list) or not 2 <= len(value) <= 16:
        return []
    parts = [repr(item) if is_number(item) else item for item in value]
    if not all(isinstance(part, str) and _is_item(part) for part in parts):
        return []
    bounded = may_begin(parts[0].split()[0]) and may_end(parts[-1].split()[-1])  # else a sentence around it hides them
    return parts if bounded else []


def _is_item(text: str) -> bool:
    return 1 <= len(text.split()) <= _ITEM_WORDS and not _BREAK.search(text + " ") and bool(text.strip("."))


def _find_range(text: str, now: dt.datetime | None) -> Iterator[tuple[int, int, Json]]:
    """Find two numbers with "to", "and" or a dash between them, as an array of the two."""
    for (left, low), (right, high) in pairwise(digits_of(text)):
        if _RANGE.fullmatch(text, left.end(), right.start()) is not None:
            yield left.start(), right.end(), [low, high]


def _write_range(value: Json, now: dt.datetime | None) -> Iterator[str]:
    if isinstance(value, list) and len(value) == 2:
        low, high = (list(write_number(part, now))[:1] for part in value)
        yield from (f"{a} to {b}" for a in low for b in high)


# ---- what a text has several of --------------------------------------------------------------------------------------


def _series(members: Sequence[tuple[int, int, Json]]) -> Iterator[tuple[int, int, Json]]:
    """Yield every run of two and more members as an array; of many members, those from the first or to the last."""
    count = len(members)
    if count <= MAX_SERIES:
        runs = [(first, last) for first in range(count) for last in range(first + 1, count)]
    else:
        runs = [(0, last) for last in range(1, min(count, MAX_ITEMS))]
        runs += [(first, count - 1) for first in range(max(1, count - MAX_ITEMS), count - 1)]
    for first, last in runs:
        yield members[first][0], members[last][1], [value for _, _, value in members[first : last + 1]]


def _find_all_numbers(text: str, now: dt.datetime | None) -> Iterator[tuple[int, int, Json]]:
    """Find numbers in their order, wherever they stand: "40% of A, 60% of B" is [40, 60]; percentages as fractions."""
    numbers = all_numbers(text)
    yield from _series([(start, end, value) for start, end, value, _ in numbers])
    yield from _series([(start, end, round(value / 100, 15)) for start, end, value, percent in numbers if percent])
    every = [(start, end, value) for start, end, value, percent in numbers if not percent]
    if len(every) < len(numbers):
        yield from _series(every)


def _write_all_numbers(value: Json, now: dt.datetime | None) -> Iterator[str]:
    if isinstance(value, list) and 2 <= len(value) <= MAX_SERIES:
        texts = [next(write_number(item, now), "") for item in value]
        if all(texts):
            yield " of these, ".join(texts) + " of those"


def _find_all_quoted(text: str, now: dt.datetime | None) -> Iterator[tuple[int, int, Json]]:
    yield from _series([*quoted_in(text)])


def _write_all_quoted(value: Json, now: dt.datetime | None) -> Iterator[str]:
    if isinstance(value, list) and 2 <= len(value) <= MAX_SERIES and all(isinstance(item, str) for item in value):
        text = " besides ".join(f'"{item}"' for item in value)
        if any(found == value for _, _, found in _find_all_quoted(text, now)):
            yield text


def _find_all_names(text: str, now: dt.datetime | None) -> Iterator[tuple[int, int, Json]]:
    """Find names, runs of words with capitals that do not begin a sentence, in their order."""
    yield from _series([*_names(text)])


def _names(text: str) -> Iterator[tuple[int, int, str]]:
    begin = end = -1
    opens = True
    for word in words_of(text):
        named = word.text[:1].isupper() and not (opens and begin < 0)
        if begin >= 0 and not (named and text[end : word.start] == " "):
            yield begin, end, text[begin:end].rstrip(".'\u2019")
            begin = -1
        if named:
            begin, end = (word.start if begin < 0 else begin), word.end
        if begin >= 0 and (word.stops or word.text.endswith(("'s", "\u2019s"))):
            yield begin, end, re.sub(r"['\u2019]s$", "", text[begin:end].rstrip("."))
            begin = -1
        opens = word.stops
    if begin >= 0:
        yield begin, end, text[begin:end].rstrip(".'\u2019")


def _write_all_names(value: Json, now: dt.datetime | None) -> Iterator[str]:
    if isinstance(value, list) and 2 <= len(value) <= MAX_SERIES and all(isinstance(item, str) for item in value):
        text = "x " + " besides ".join(value) + ", x"
        if any(found == value for _, _, found in _find_all_names(text, now)):
            yield text


# ---- JSON ------------------------------------------------------------------------------------------------------------


def _find_json(text: str, now: dt.datetime | None) -> Iterator[tuple[int, int, Json]]:
    """Find arrays as JSON or Python writes them, arrays of arrays too."""
    depth, begin = 0, -1
    for match in re.finditer(r"[\[\]]", text):
        if match.group() == "[":
            begin = match.start() if depth == 0 else begin
            depth += 1
        elif depth > 0:
            depth -= 1
            if depth == 0 and match.end() - begin <= MAX_LITERAL:
                yield from _literal(text, begin, match.end())


def _literal(text: str, begin: int, end: int) -> Iterator[tuple[int, int, Json]]:
    for read in (parse, parse_lenient):
        try:
            yield begin, end, read(text[begin:end])
        except JsonTextError:
            continue
        return


def _write_json(value: Json, now: dt.datetime | None) -> Iterator[str]:
    if isinstance(value, list) and value and all(map(is_number, value)):
        yield repr(value)


OPERATORS = (
    Operator("list", _find_list, _write_list, "arrays"),
    Operator("list without articles", _find_bare_list, _write_bare_list, "arrays"),
    Operator("range", _find_range, _write_range, "arrays"),
    Operator("all numbers", _find_all_numbers, _write_all_numbers, "arrays"),
    Operator("all quoted", _find_all_quoted, _write_all_quoted, "arrays"),
    Operator("all names", _find_all_names, _write_all_names, "arrays"),
    Operator("array", _find_json, _write_json, "arrays"),
)
