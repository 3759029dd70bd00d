"""Numbers: in digits and in words, with what stands before or behind them."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache

from ..text import Json, same
from .base import Operator, is_number, is_whole, once_per_query

LARGEST = 1e290  # so that no scale or prefix leads beyond float64
_SCALES = {"hundred": 100, "thousand": 1000, "k": 1000, "million": 10**6, "mn": 10**6, "billion": 10**9, "bn": 10**9}
_SCALES |= {"m": 10**6, "b": 10**9, "dozen": 12}
_DIGITS = r"(?:\d{1,3}(?:,\d{3}){1,5}|\d{1,15})(?:\.\d{1,15})?"
_NUMBER = re.compile(
    rf"(?=[-+\u2212$\u20ac\u00a3\u00a5.\d])(?<![A-Za-z0-9_.,:])(?<![A-Za-z]\^)([-+\u2212]?)[$\u20ac\u00a3\u00a5]?({_DIGITS}(?:[eE][-+]?\d{{1,3}}(?!\w))?|\.\d{{1,15}})(?!\d|[.,:]\d)"
)
_MINUS = re.compile(r"\b(?:minus|negative) $", re.I)
_SCALE = re.compile(r" ?(hundred|thousand|million|mn|billion|bn|dozen)(?!\w)|([kKMB])(?!\w)")
_SMALL_SCALE = re.compile(r"([mb])(?!\w)")  # of money; elsewhere "5m" is a length
_COMPASS = re.compile(r" ?\u00b0? ?([NSEWnsew])\b")
_PERCENT = re.compile(r" ?(?:%|percent\b|per cent\b|pct\b)")
_UNITS = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
    *("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
)
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_WORDS = {name: value for value, name in enumerate(_UNITS)} | {name: 20 + 10 * i for i, name in enumerate(_TENS)}
_BEGINS = {*_WORDS, "a"}
_WORD = re.compile(r"[A-Za-z]+")
_ORDINALS = {
    **{"first": 1, "second": 2, "third": 3, "fifth": 5, "eighth": 8, "ninth": 9, "twelfth": 12, "twentieth": 20},
    **{name + "th": _WORDS[name] for name in ("four", "six", "seven", "ten", "eleven", *_UNITS[13:])},
}
_DOWN = {"down", "lower", "less", "decrease", "reduce", "reduced", "drop", "below", "quieter", "dim", "loss", "lost"}
_ORDINAL = re.compile(r"(?<![\w.])(\d{1,4})(?:st|nd|rd|th)\b")


def _exact(number: float) -> int | float:
    """Return a whole float as an int, and others without the noise of a multiplication."""
    rounded = round(float(number), 12)
    return int(rounded) if rounded.is_integer() and abs(rounded) < 2**53 else rounded


@once_per_query
def digits_of(text: str) -> Iterator[tuple[re.Match[str], int | float]]:
    """Yield the numbers in digits, with where they stand."""
    for match in _NUMBER.finditer(text):
        digits = match.group(2).replace(",", "")
        number = int(digits) if digits.isdecimal() else float(digits)
        if abs(number) > LARGEST:
            continue
        minus = match.group(1) in ("-", "\u2212") or _MINUS.search(text, max(0, match.start() - 9), match.start())
        yield match, -number if minus else number


def _find_number(text: str, now: dt.datetime | None) -> Iterator[tuple[int, int, Json]]:
    """Find digits, with groups of three, a sign, a currency, and a word that multiplies ("$2.5 million")."""
    for match, number in digits_of(text):
        yield match.start(), match.end(), number
        end, scale = _scale_of(match)
        if scale != 1:
            yield match.start(), end, _exact(number * scale)


def _scale_of(match: re.Match[str]) -> tuple[int, int]:
    """Return where the word ends that multiplies a number, and by what: "$2.5 million", "10k", "£3m"."""
    text, end = match.string, match.end()
    scale = _SCALE.match(text, end)
    if scale is None and match.group().lstrip("-+\u2212")[0] in "$\u20ac\u00a3\u00a5":
        scale = _SMALL_SCALE.match(text, end)
    return (end, 1) if scale is None else (scale.end(), _SCALES[scale.group().strip().lower()])


def write_number(value: Json, now: dt.datetime | None) -> Iterator[str]:
    """Yield a number as it is written, in digits and, where it is whole, by its scale."""
    if not is_number(value) or not abs(value) < 1e15 or (isinstance(value, float) and "e" in repr(value)):
        return
    text = repr(value)
    yield text
    if isinstance(value, int) and abs(value) >= 1000:
        yield f"{value:,}"
        for name in ("thousand", "million", "billion"):
            if value % _SCALES[name] == 0 and 0 < abs(value) // _SCALES[name] < 1000:
                yield f"{value // _SCALES[name]} {name}"


def _find_percent(text: str, now: dt.datetime | None) -> Iterator[tuple[int, int, Json]]:
    """Find percentages as fractions: "5%" is 0.05 (the plain number is found without)."""
    for match, number in digits_of(text):
        percent = _PERCENT.match(text, match.end())
        if percent is not None:
            yield match.start(), percent.end(), round(number / 100, 15)


def _write_percent(value: Json, now: dt.datetime | None) -> Iterator[str]:
    if is_number(value) and abs(value) <= 10:
        percent = _exact(round(value * 100, 10))
        if "e" not in repr(percent) and same(round(percent / 100, 15), value):
            yield f"{percent}%"
            yield f"{percent} percent"


def _find_number_words(text: str, now: dt.datetime | None) -> Iterator[tuple[int, int, Json]]:
    """Find spelt numbers: "twenty-five", "one hundred and three", "two million", "a dozen"."""
    yield from spelt_of(text)


@once_per_query
def _lowered(text: str) -> Iterator[tuple[int, int, str]]:
    """Yield the words of a text in lower case, with where they stand."""
    for match in _WORD.finditer(text):
        yield match.start(), match.end(), match.group().lower()


@lru_cache(maxsize=8)
def _vocabulary(text: str) -> frozenset[str]:
    """Return the words of a text in lower case."""
    return frozenset(word for _, _, word in _lowered(text))


@once_per_query
def spelt_of(text: str) -> Iterator[tuple[int, int, int]]:
    """Yield the numbers in words, with where they stand."""
    words = () if _vocabulary(text).isdisjoint(_BEGINS) else _lowered(text)
    at = 0
    while at < len(words):
        count, value = _spelt(text, words, at) if words[at][2] in _BEGINS else (0, 0)
        if count == 0:
            at += 1
            continue
        yield words[at][0], words[at + count - 1][1], value
        at += count


@once_per_query
def all_numbers(text: str) -> Iterator[tuple[int, int, int | float, bool]]:
    """Yield the numbers of a text in their order, each read once, and whether a percent sign follows."""
    found: list[tuple[int, int, int | float, bool]] = [
        (start, end, value, False) for start, end, value in spelt_of(text)
    ]
    for match, number in digits_of(text):
        quarter, (end, scale) = _COMPASS.match(text, match.end()), _scale_of(match)
        percent = _PERCENT.match(text, match.end())
        if quarter is not None:
            found.append((match.start(), quarter.end(), -number if quarter.group(1) in "SWsw" else number, False))
        elif scale != 1:
            found.append((match.start(), end, _exact(number * scale), False))
        else:
            found.append((match.start(), match.end(), number, percent is not None))
    yield from sorted(found)


def _spelt(text: str, words: Sequence[tuple[int, int, str]], at: int) -> tuple[int, int]:
    """Return how many words from ``at`` on spell one number, and the number."""
    total, group, used, least = 0, 0, 0, 10**12
    room = 10**3  # what a further unit must be smaller than: 100 after tens of hundreds, 10 after "twenty"
    for i in range(at, len(words)):
        start, _, word = words[i]
        count = i - at + 1
        between = text[words[i - 1][1] : start] if i > at else ""
        if between.strip(" -"):
            break
        if word in _WORDS and _WORDS[word] < room:
            if group % 10 == 0 and (used > 0 or count == 1):
                group += _WORDS[word]
                room = 10 if _WORDS[word] >= 20 else 1
            else:
                break
        elif word == "a" and count == 1:
            group, room = 1, 1
            continue  # only before a scale
        elif word == "hundred" and 0 < group < 10:
            group, room = group * 100, 100
        elif word == "dozen" and group in range(1, 100):
            group, room = group * 12, 1
        elif word in ("thousand", "million", "billion") and group > 0 and _SCALES[word] < least:
            total, group, room, least = total + group * _SCALES[word], 0, 1000, _SCALES[word]
        elif word == "and" and used > 0 and room in (100, 1000):
            continue
        else:
            break
        used = count
    return used, total + group if used else 0


def _write_number_words(value: Json, now: dt.datetime | None) -> Iterator[str]:
    if is_whole(value) and 0 <= value < 10**6:
        yield _in_words(value)
        if value == 12:
            yield "a dozen"


def _in_words(value: int) -> str:
    if value >= 1000:
        rest = value % 1000
        return _in_words(value // 1000) + " thousand" + (" " + _in_words(rest) if rest else "")
    if value >= 100:
        rest = value % 100
        return _UNITS[value // 100] + " hundred" + (" and " + _in_words(rest) if rest else "")
    if value < 20:
        return _UNITS[value]
    return _TENS[value // 10 - 2] + ("-" + _UNITS[value % 10] if value % 10 else "")


@once_per_query
def _ordinals(text: str) -> Iterator[tuple[int, int, Json]]:
    for match in _ORDINAL.finditer(text):
        yield match.start(), match.end(), int(match.group(1))
    yield from _named(text, _ORDINALS)


def _find_ordinal(text: str, now: dt.datetime | None) -> Iterator[tuple[int, int, Json]]:
    yield from _ordinals(text)


def _write_ordinal(value: Json, now: dt.datetime | None) -> Iterator[str]:
    if is_whole(value) and 0 < value < 10_000:
        ending = "th" if value // 10 % 10 == 1 else {1: "st", 2: "nd", 3: "rd"}.get(value % 10, "th")
        yield f"{value}{ending}"
        yield from (name for name, number in _ORDINALS.items() if number == value)


def _named(text: str, values: Mapping[str, float]) -> Iterator[tuple[int, int, Json]]:
    """Find the words that a table has a number for."""
    for start, end, word in () if _vocabulary(text).isdisjoint(values) else _lowered(text):
        if word in values:
            yield start, end, values[word]


_PREFIXES = {"p": -12, "n": -9, "\u00b5": -6, "\u03bc": -6, "u": -6, "m": -3, "c": -2, "k": 3, "M": 6, "G": 9}
_PREFIXED = re.compile(r" ?([pn\u00b5\u03bcumckMG])(?:F|H|V|A|W|Hz|m|g|s|C|J|N|Pa|L|eV|\u03a9|ohms?)(?!\w)")
_TIMES: dict[str, float] = {
    "once": 1,
    "twice": 2,
    "thrice": 3,
    "annually": 1,
    "yearly": 1,
    "quarterly": 4,
    "monthly": 12,
    "weekly": 52,
}
_TIMES |= {"daily": 365, "half": 0.5, "pair": 2, "couple": 2, "double": 2, "triple": 3}


def _find_coordinate(text: str, now: dt.datetime | None) -> Iterator[tuple[int, int, Json]]:
    """Find degrees with a quarter of the compass; south and west are negative."""
    for match, number in digits_of(text):
        quarter = _COMPASS.match(text, match.end())
        if quarter is not None:
            yield match.start(), quarter.end(), -number if quarter.group(1) in "SWsw" else number


def _write_coordinate(value: Json, now: dt.datetime | None) -> Iterator[str]:
    if is_number(value) and value != 0 and abs(value) <= 180 and "e" not in repr(value):
        yield f"{abs(value)!r} {'W' if value < 0 else 'E'}"


def _find_prefixed(text: str, now: dt.datetime | None) -> Iterator[tuple[int, int, Json]]:
    """Find quantities with a prefix of their unit, in the unit itself: "50mH" is 0.05."""
    for match, number in digits_of(text):
        prefix = _PREFIXED.match(text, match.end())
        if prefix is not None and "e" not in repr(number):
            yield match.start(), prefix.end(), float(f"{number!r}e{_PREFIXES[prefix.group(1)]}")


def _write_prefixed(value: Json, now: dt.datetime | None) -> Iterator[str]:
    if isinstance(value, float) and 1e-3 <= abs(value) < 1:
        milli = _exact(value * 1000)
        if float(f"{milli!r}e-3") == value:
            yield f"{milli} mA"


_IMPLIED = {"a": 1, "an": 1, "single": 1, "myself": 1, "alone": 1, "top": 1, "only": 1, "me": 1, "both": 2}
_IMPLIED |= {"no": 0, "none": 0, "nothing": 0, "without": 0, "rest": 0, "stationary": 0}
_ABOVE = ("more than", "greater than", "over", "above", "exceeding")
_EXCLUDED = re.compile(rf"\b({'|'.join(_ABOVE)}|less than|fewer than|under|below) $", re.I)
_ATTACHED = re.compile(r"(?<=[A-Za-z])\d{1,9}(?![A-Za-z0-9_]|\.\d)")


def _find_times(text: str, now: dt.datetime | None) -> Iterator[tuple[int, int, Json]]:
    return _named(text, _TIMES)


def _write_times(value: Json, now: dt.datetime | None) -> Iterator[str]:
    if is_number(value):
        yield from (name for name, number in _TIMES.items() if number == value)


def _find_implied(text: str, now: dt.datetime | None) -> Iterator[tuple[int, int, Json]]:
    """Find words that mean none or one: "a taxi for myself" is 1, "from rest" is 0."""
    return _named(text, _IMPLIED)


def _write_implied(value: Json, now: dt.datetime | None) -> Iterator[str]:
    if is_number(value):
        yield from (name for name, number in _IMPLIED.items() if number == value)


def _find_next_to_bound(text: str, now: dt.datetime | None) -> Iterator[tuple[int, int, Json]]:
    """Find the whole number next to one that is excluded: "fewer than 5" is 4."""
    for match, number in digits_of(text):
        bound = _EXCLUDED.search(text, max(0, match.start() - 16), match.start())
        if bound is not None and isinstance(number, int):
            yield bound.start(), match.end(), number + (1 if bound.group(1).lower() in _ABOVE else -1)


def _write_next_to_bound(value: Json, now: dt.datetime | None) -> Iterator[str]:
    if is_whole(value) and 0 <= value < 10**12:
        yield f"fewer than {value + 1}"
        yield f"more than {value - 1}"


def _find_index(text: str, now: dt.datetime | None) -> Iterator[tuple[int, int, Json]]:
    """Find ordinals counted from nought: "the second item" is 1."""
    for start, end, value in _ordinals(text):
        yield start, end, value - 1


def _write_index(value: Json, now: dt.datetime | None) -> Iterator[str]:
    return _write_ordinal(value + 1, now) if is_whole(value) else iter(())


def _find_attached(text: str, now: dt.datetime | None) -> Iterator[tuple[int, int, Json]]:
    """Find the number that a name ends with: "P4" is 4."""
    for match in _ATTACHED.finditer(text):
        yield match.start(), match.end(), int(match.group())


def _write_attached(value: Json, now: dt.datetime | None) -> Iterator[str]:
    if is_whole(value) and 0 <= value < 10**9:
        yield f"P{value}"


def _find_decrease(text: str, now: dt.datetime | None) -> Iterator[tuple[int, int, Json]]:
    """Find by how much something goes down, as a negative number: "turn it down by 10" is -10."""
    if not _vocabulary(text).isdisjoint(_DOWN):
        for match, number in digits_of(text):
            if number > 0:
                yield match.start(), match.end(), -number
        for start, end, value in spelt_of(text):
            yield start, end, -value


def _write_decrease(value: Json, now: dt.datetime | None) -> Iterator[str]:
    if is_whole(value) and -(10**6) < value < 0:
        yield f"down by {-value}"
        yield f"lower it by {_in_words(-value)}"


OPERATORS = (
    Operator("number", _find_number, write_number, "numbers"),
    Operator("percent", _find_percent, _write_percent, "numbers"),
    Operator("number words", _find_number_words, _write_number_words, "numbers"),
    Operator("ordinal", _find_ordinal, _write_ordinal, "numbers"),
    Operator("times", _find_times, _write_times, "numbers"),
    Operator("coordinate", _find_coordinate, _write_coordinate, "numbers"),
    Operator("prefixed unit", _find_prefixed, _write_prefixed, "numbers"),
    Operator("implied number", _find_implied, _write_implied, "numbers"),
    Operator("next to a bound", _find_next_to_bound, _write_next_to_bound, "numbers"),
    Operator("index", _find_index, _write_index, "numbers"),
    Operator("decrease", _find_decrease, _write_decrease, "numbers"),
    Operator("attached number", _find_attached, _write_attached, "numbers"),
)
