"""Typed spans: the values that a text spells out, and the texts that spell out a value.

An operator turns a span of a query into a value ("twenty five" into 25, "3 pm" into "15:00") and, for labelling and for
synthetic queries, a value back into texts in which it finds the value. ``OPERATORS`` is the registry; every operator is
a pair of small functions. What an operator writes, it finds (a test holds it to that).
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any, TypeVar

from .text import Json, same

MAX_TEXT = 4096  # characters of a query that are looked at
MAX_WORDS = 8  # of a verbatim span


@dataclass(frozen=True)
class Span:
    """A value, and the characters ``start`` to ``end`` of the text that an operator read it from."""

    start: int
    end: int
    value: Json
    operator: str


Find = Callable[[str, "dt.datetime | None"], Iterable[tuple[int, int, Json]]]
Found = TypeVar("Found")
Write = Callable[[Json, "dt.datetime | None"], Iterator[str]]


@dataclass(frozen=True)
class Operator:
    """A way to read values from a text and to write them; ``now`` is what relative dates are relative to, if given."""

    name: str
    find: Find
    write: Write


def find_spans(text: str, now: dt.datetime | None = None) -> list[Span]:
    """Return what every operator finds in the first MAX_TEXT characters, in the order of the registry."""
    text = text[:MAX_TEXT]
    return [Span(start, end, value, one.name) for one in OPERATORS for start, end, value in one.find(text, now)]


def spellings(value: Json, now: dt.datetime | None = None) -> list[tuple[str, str]]:
    """Return (operator, text) pairs: the texts in which that operator finds the value."""
    return [(one.name, text) for one in OPERATORS for text in one.write(value, now)]


def once_per_query(find: Callable[..., Iterator[Found]]) -> Callable[..., tuple[Found, ...]]:
    """Keep what several operators start from, for the last few queries."""

    @lru_cache(maxsize=8)
    def kept(*arguments: Any) -> tuple[Found, ...]:
        return tuple(find(*arguments))

    return kept


# ---- words -----------------------------------------------------------------------------------------------------------

_TOKEN = re.compile(r"[^\s,;:!?\"()\[\]{}]+")
_POSSESSIVE = re.compile(r"['\u2019]s$")
_QUOTED = re.compile(r"(?<![A-Za-z0-9])(['\"`\u2018\u201c])(.{1,200}?)['\"`\u2019\u201d](?![A-Za-z0-9])", re.S)
_ENDS = ".'\u2019"


def _find_words(text: str, now: dt.datetime | None) -> Iterable[tuple[int, int, Json]]:
    """Find runs of up to MAX_WORDS words, without what punctuation ends them."""
    return _runs(text)


@once_per_query
def _runs(text: str) -> Iterator[tuple[int, int, str]]:
    tokens = [(match.start(), match.end()) for match in _TOKEN.finditer(text)]
    for first, (start, _) in enumerate(tokens):
        for _, end in tokens[first : first + MAX_WORDS]:
            span = text[start:end].rstrip(_ENDS)
            owner = _POSSESSIVE.sub("", span)
            yield from ((start, start + len(run), run) for run in dict.fromkeys((span, owner)) if run)
            if text[end : end + 1] == "." and text[end + 1 : end + 2].isspace():
                break


def _write_text(value: Json, now: dt.datetime | None) -> Iterator[str]:
    if isinstance(value, str) and any((start, end) == (0, len(value)) for start, end, _ in _find_words(value, now)):
        yield value


def _find_quoted(text: str, now: dt.datetime | None) -> Iterator[tuple[int, int, Json]]:
    for match in _QUOTED.finditer(text):
        yield match.start(2), match.end(2), match.group(2)


def _write_quoted(value: Json, now: dt.datetime | None) -> Iterator[str]:
    if isinstance(value, str) and 0 < len(value) <= 200 and not re.search(r"['\"`\u2018\u2019\u201c\u201d]", value):
        yield f"'{value}'"


def _folded(fold: Callable[[str], str]) -> tuple[Find, Write]:
    """Return an operator's functions: runs of up to three words, spelt otherwise."""

    def find(text: str, now: dt.datetime | None) -> Iterator[tuple[int, int, Json]]:
        for start, end, words in _find_words(text, now):
            if words.count(" ") < 3 and (folded := fold(words)) != words:
                yield start, end, folded

    def write(value: Json, now: dt.datetime | None) -> Iterator[str]:
        for text in _write_text(value, now):
            for spelt in (text.lower(), text.title(), text.replace("_", " "), text + "s"):
                if spelt != text and fold(spelt) == text and spelt.count(" ") < 3 and any(_write_text(spelt, now)):
                    yield spelt

    return find, write


def _singular(words: str) -> str:
    """Return the last word's singular by English's regular endings."""
    for ending, instead in (("ies", "y"), ("sses", "ss"), ("shes", "sh"), ("ches", "ch"), ("xes", "x"), ("s", "")):
        if words.endswith(ending) and not words.endswith("ss"):
            return words[: len(words) - len(ending)] + instead
    return words


# ---- numbers ---------------------------------------------------------------------------------------------------------

_SCALES = {"hundred": 100, "thousand": 1000, "k": 1000, "million": 10**6, "mn": 10**6, "billion": 10**9, "bn": 10**9}
_SCALES |= {"m": 10**6, "b": 10**9, "dozen": 12}
_DIGITS = r"(?:\d{1,3}(?:,\d{3}){1,5}|\d{1,15})(?:\.\d{1,15})?"
_NUMBER = re.compile(
    rf"(?<![\w.,:])([-+\u2212]?)[$\u20ac\u00a3\u00a5]?({_DIGITS}(?:[eE][-+]?\d{{1,3}}(?!\w))?|\.\d{{1,15}})(?!\d|[.,:]\d)"
)
_SCALE = re.compile(r" ?(hundred|thousand|million|mn|billion|bn|dozen|[kKmMbB])(?![\w])")
_PERCENT = re.compile(r" ?(?:%|percent\b|per cent\b|pct\b)")
_UNITS = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
    *("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
)
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_WORDS = {name: value for value, name in enumerate(_UNITS)} | {name: 20 + 10 * i for i, name in enumerate(_TENS)}
_WORD = re.compile(r"[A-Za-z]+")
_ORDINALS = {
    **{"first": 1, "second": 2, "third": 3, "fifth": 5, "eighth": 8, "ninth": 9, "twelfth": 12, "twentieth": 20},
    **{name + "th": _WORDS[name] for name in ("four", "six", "seven", "ten", "eleven", *_UNITS[13:])},
}
_ORDINAL = re.compile(r"(?<![\w.])(\d{1,4})(?:st|nd|rd|th)\b")


def _exact(number: float) -> int | float:
    """Return a whole float as an int, and others without the noise of a multiplication."""
    rounded = round(float(number), 12)
    return int(rounded) if rounded.is_integer() and abs(rounded) < 2**53 else rounded


@once_per_query
def _digits(text: str) -> Iterator[tuple[re.Match[str], int | float]]:
    for match in _NUMBER.finditer(text):
        digits = match.group(2).replace(",", "")
        number = int(digits) if digits.isdecimal() else float(digits)
        yield match, -number if match.group(1) in ("-", "\u2212") else number


def _find_number(text: str, now: dt.datetime | None) -> Iterator[tuple[int, int, Json]]:
    """Find digits, with groups of three, a sign, a currency, and a word that multiplies ("$2.5 million")."""
    for match, number in _digits(text):
        yield match.start(), match.end(), number
        scale = _SCALE.match(text, match.end())
        if scale is not None:
            yield match.start(), scale.end(), _exact(number * _SCALES[scale.group(1).lower()])


def _write_number(value: Json, now: dt.datetime | None) -> Iterator[str]:
    if not _is_number(value) or not abs(value) < 1e15 or (isinstance(value, float) and "e" in repr(value)):
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
    for match, number in _digits(text):
        percent = _PERCENT.match(text, match.end())
        if percent is not None:
            yield match.start(), percent.end(), round(number / 100, 15)


def _write_percent(value: Json, now: dt.datetime | None) -> Iterator[str]:
    if _is_number(value) and abs(value) <= 10:
        percent = _exact(round(value * 100, 10))
        if "e" not in repr(percent) and same(round(percent / 100, 15), value):
            yield f"{percent}%"
            yield f"{percent} percent"


def _find_number_words(text: str, now: dt.datetime | None) -> Iterator[tuple[int, int, Json]]:
    """Find spelt numbers: "twenty-five", "one hundred and three", "two million", "a dozen"."""
    words = [(match.start(), match.end(), match.group().lower()) for match in _WORD.finditer(text)]
    at = 0
    while at < len(words):
        count, value = _spelt(text, words, at)
        if count == 0:
            at += 1
            continue
        yield words[at][0], words[at + count - 1][1], value
        at += count


def _spelt(text: str, words: list[tuple[int, int, str]], at: int) -> tuple[int, int]:
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
    if _is_whole(value) and 0 <= value < 10**6:
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


def _find_ordinal(text: str, now: dt.datetime | None) -> Iterator[tuple[int, int, Json]]:
    for match in _ORDINAL.finditer(text):
        yield match.start(), match.end(), int(match.group(1))
    yield from _named(text, _ORDINALS)


def _write_ordinal(value: Json, now: dt.datetime | None) -> Iterator[str]:
    if _is_whole(value) and 0 < value < 10_000:
        ending = "th" if value // 10 % 10 == 1 else {1: "st", 2: "nd", 3: "rd"}.get(value % 10, "th")
        yield f"{value}{ending}"
        yield from (name for name, number in _ORDINALS.items() if number == value)


def _named(text: str, values: Mapping[str, float]) -> Iterator[tuple[int, int, Json]]:
    """Find the words that a table has a number for."""
    for match in _WORD.finditer(text):
        if match.group().lower() in values:
            yield match.start(), match.end(), values[match.group().lower()]


def _is_number(value: Json) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_whole(value: Json) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


_COMPASS = re.compile(r" ?\u00b0? ?([NSEWnsew])\b")
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
    for match, number in _digits(text):
        quarter = _COMPASS.match(text, match.end())
        if quarter is not None:
            yield match.start(), quarter.end(), -number if quarter.group(1) in "SWsw" else number


def _write_coordinate(value: Json, now: dt.datetime | None) -> Iterator[str]:
    if _is_number(value) and value != 0 and abs(value) <= 180 and "e" not in repr(value):
        yield f"{abs(value)!r} {'W' if value < 0 else 'E'}"


def _find_prefixed(text: str, now: dt.datetime | None) -> Iterator[tuple[int, int, Json]]:
    """Find quantities with a prefix of their unit, in the unit itself: "50mH" is 0.05."""
    for match, number in _digits(text):
        prefix = _PREFIXED.match(text, match.end())
        if prefix is not None:
            yield match.start(), prefix.end(), float(f"{number!r}e{_PREFIXES[prefix.group(1)]}")


def _write_prefixed(value: Json, now: dt.datetime | None) -> Iterator[str]:
    if isinstance(value, float) and 1e-3 <= abs(value) < 1:
        milli = _exact(value * 1000)
        if float(f"{milli!r}e-3") == value:
            yield f"{milli} mA"


def _find_times(text: str, now: dt.datetime | None) -> Iterator[tuple[int, int, Json]]:
    return _named(text, _TIMES)


def _write_times(value: Json, now: dt.datetime | None) -> Iterator[str]:
    if _is_number(value):
        yield from (name for name, number in _TIMES.items() if number == value)


# ---- dates and times -------------------------------------------------------------------------------------------------

_MONTHS = (
    *("january", "february", "march", "april", "may", "june", "july", "august", "september", "october"),
    *("november", "december"),
)
_MONTH = "|".join(f"{name[:3]}(?:{name[3:]})?" if len(name) > 3 else name for name in _MONTHS)
_DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_ISO_DATE = re.compile(r"(?<![\d-])(\d{4})[-/](\d{1,2})[-/](\d{1,2})(?![\d-])")
_SLASHED_DATE = re.compile(r"(?<![\d/])(\d{1,2})/(\d{1,2})/(\d{4})(?![\d/])")
_DOTTED_DATE = re.compile(r"(?<![\d.])(\d{1,2})\.(\d{1,2})\.(\d{4})(?![\d.])")
_MONTH_FIRST = re.compile(rf"\b({_MONTH})\.? ?(\d{{1,2}})(?:st|nd|rd|th)?(?:,? ?(\d{{4}}))?\b", re.I)
_YEAR_FIRST = re.compile(rf"\b(\d{{4}}),? ({_MONTH})\.? (\d{{1,2}})(?:st|nd|rd|th)?\b", re.I)
_DAY_FIRST = re.compile(rf"\b(\d{{1,2}})(?:st|nd|rd|th)?(?: of)? ({_MONTH})\.?,?(?: (\d{{4}}))?\b", re.I)
_RELATIVE = re.compile(
    r"\b(today|tonight|(?:day after )?tomorrow|yesterday"
    rf"|(next |this |last )?({'|'.join(_DAYS)})|in (\d{{1,3}}) days)\b",
    re.I,
)
_CLOCK = re.compile(
    r"(?<![\d:.])([01]?\d|2[0-3])(?::([0-5]\d))?(?::([0-5]\d))?(?: ?([ap])(?:m\b|\.m\.))?(?![\d:])", re.I
)
_NAMED_TIME = re.compile(r"\b(noon|midday|midnight)\b", re.I)


_DATES = (  # with the groups of year, month and day
    *((_ISO_DATE, (1, 2, 3)), (_SLASHED_DATE, (3, 1, 2)), (_SLASHED_DATE, (3, 2, 1)), (_DOTTED_DATE, (3, 2, 1))),
    *((_MONTH_FIRST, (3, 1, 2)), (_DAY_FIRST, (3, 2, 1)), (_YEAR_FIRST, (1, 2, 3))),
)


@once_per_query
def _dates(text: str, today: dt.date | None) -> Iterator[tuple[int, int, dt.date]]:
    """Find dates, written out or (where ``today`` is given) relative. Without a year, the next such day counts."""
    for pattern, order in _DATES:
        for match in pattern.finditer(text):
            year, month, day = (match.group(i) for i in order)
            found = _date(year, month, day, today)
            if found is not None:
                yield match.start(), match.end(), found
    if today is not None:
        for match in _RELATIVE.finditer(text):
            try:
                yield match.start(), match.end(), _relative(match, today)
            except OverflowError:  # the calendar ends in 9999
                continue


def _today(now: dt.datetime | None) -> dt.date | None:
    return None if now is None else now.date()


def _date(year: str | None, month: str, day: str, today: dt.date | None) -> dt.date | None:
    number = int(month) if month.isdecimal() else 1 + [name[:3] for name in _MONTHS].index(month[:3].lower())
    try:
        if year is not None:
            return dt.date(int(year), number, int(day))
        if today is None:
            return None
        found = dt.date(today.year, number, int(day))
        return found if found >= today else dt.date(today.year + 1, number, int(day))
    except ValueError:  # no such day
        return None


def _relative(match: re.Match[str], today: dt.date) -> dt.date:
    word = match.group(1).lower()
    if match.group(4):
        return today + dt.timedelta(days=int(match.group(4)))
    if match.group(3):
        ahead = (_DAYS.index(match.group(3).lower()) - today.weekday()) % 7
        if word.startswith("last "):
            return today + dt.timedelta(days=ahead - 7)
        return today + dt.timedelta(days=ahead or (7 if word.startswith("next ") else 0))
    return today + dt.timedelta(days={"tomorrow": 1, "yesterday": -1, "day after tomorrow": 2}.get(word, 0))


def _dated(style: str) -> tuple[Find, Write]:
    """Return an operator's functions: dates written in a style of ``strftime``."""

    def find(text: str, now: dt.datetime | None) -> Iterator[tuple[int, int, Json]]:
        for start, end, found in _dates(text, _today(now)):
            yield start, end, _styled(found, style)

    def write(value: Json, now: dt.datetime | None) -> Iterator[str]:
        day = _read_date(value, style)
        if day is None:
            return
        month = _MONTHS[day.month - 1].title()
        yield f"{month} {day.day}, {day.year:04}"
        yield f"{day.day} {month} {day.year:04}"
        yield day.isoformat()
        if now is not None and (day - now.date()).days == 1:
            yield "tomorrow"

    return find, write


def _styled(day: dt.date, style: str) -> str:
    return style.replace("%Y", f"{day.year:04}").replace("%m", f"{day.month:02}").replace("%d", f"{day.day:02}")


def _read_date(value: Json, style: str) -> dt.date | None:
    if not isinstance(value, str):
        return None
    try:
        day = dt.datetime.strptime(value, style).date()
    except ValueError:
        return None
    return day if _styled(day, style) == value else None


@once_per_query
def _clocks(text: str) -> Iterator[tuple[int, int, tuple[int, int, int]]]:
    """Find times of day as (hour, minute, second) in 24 hours."""
    for match in _CLOCK.finditer(text):
        hour, minute, second, half = match.groups()
        if minute is None and half is None:
            continue  # a bare number
        number = int(hour)
        if half is not None:
            if not 1 <= number <= 12:
                continue
            number = number % 12 + (12 if half.lower() == "p" else 0)
        yield match.start(), match.end(), (number, int(minute or 0), int(second or 0))
    for match in _NAMED_TIME.finditer(text):
        yield match.start(), match.end(), (0 if match.group().lower() == "midnight" else 12, 0, 0)


def _find_clock_parts(text: str, now: dt.datetime | None) -> Iterator[tuple[int, int, Json]]:
    """Find hours, in 24 and as written, and minutes of a time of day."""
    for start, end, (hour, minute, _) in _clocks(text):
        for part in dict.fromkeys((hour, hour % 12 or 12, minute)):
            yield start, end, part


def _write_clock_parts(value: Json, now: dt.datetime | None) -> Iterator[str]:
    if _is_whole(value) and 0 <= value < 60:
        yield f"9:{value:02}"
        if value < 24:
            yield f"{value:02}:30"


def _find_date_time(style: str) -> Find:
    """Return a way to find a date with the time that follows it, or stands before it."""

    def find(text: str, now: dt.datetime | None) -> Iterator[tuple[int, int, Json]]:
        for first, last, day in _dates(text, _today(now)):
            for start, end, time in _clocks(text):
                behind, ahead = start - last, first - end
                if 0 <= behind <= 12 or 0 <= ahead <= 12:
                    yield min(first, start), max(last, end), day.isoformat() + style.format(*time)

    return find


def _write_date_time(style: str) -> Write:
    def write(value: Json, now: dt.datetime | None) -> Iterator[str]:
        if not isinstance(value, str):
            return
        day, separator, clock = value[:10], style[:1], value[11:]
        if value[10:11] != separator or _read_date(day, "%Y-%m-%d") is None:
            return
        for text in _clocked(style[1:])[1](clock, now):
            for date in _dated("%Y-%m-%d")[1](day, None):
                yield f"{date} at {text}"

    return write


def _clocked(style: str) -> tuple[Find, Write]:
    """Return an operator's functions: times of day in 24 hours, with or without seconds."""

    def find(text: str, now: dt.datetime | None) -> Iterator[tuple[int, int, Json]]:
        for start, end, time in _clocks(text):
            yield start, end, style.format(*time)

    def write(value: Json, now: dt.datetime | None) -> Iterator[str]:
        match = re.fullmatch(r"(\d\d):(\d\d)(?::(\d\d))?", value, re.A) if isinstance(value, str) else None
        if match is None:
            return
        hour, minute, second = int(match.group(1)), int(match.group(2)), int(match.group(3) or 0)
        if hour > 23 or minute > 59 or second > 59 or style.format(hour, minute, second) != value:
            return
        yield value
        if second == 0:
            half = "am" if hour < 12 else "pm"
            yield f"{hour % 12 or 12}{half}" if minute == 0 else f"{hour % 12 or 12}:{minute:02} {half}"

    return find, write


# ---- places ----------------------------------------------------------------------------------------------------------

_STATES = {
    **{"alabama": "AL", "alaska": "AK", "arizona": "AZ", "arkansas": "AR", "california": "CA", "colorado": "CO"},
    **{"connecticut": "CT", "delaware": "DE", "florida": "FL", "georgia": "GA", "hawaii": "HI", "idaho": "ID"},
    **{"illinois": "IL", "indiana": "IN", "iowa": "IA", "kansas": "KS", "kentucky": "KY", "louisiana": "LA"},
    **{"maine": "ME", "maryland": "MD", "massachusetts": "MA", "michigan": "MI", "minnesota": "MN"},
    **{"mississippi": "MS", "missouri": "MO", "montana": "MT", "nebraska": "NE", "nevada": "NV", "ohio": "OH"},
    **{"new hampshire": "NH", "new jersey": "NJ", "new mexico": "NM", "new york": "NY", "north carolina": "NC"},
    **{"north dakota": "ND", "oklahoma": "OK", "oregon": "OR", "pennsylvania": "PA", "rhode island": "RI"},
    **{"south carolina": "SC", "south dakota": "SD", "tennessee": "TN", "texas": "TX", "utah": "UT"},
    **{"vermont": "VT", "virginia": "VA", "washington": "WA", "west virginia": "WV", "wisconsin": "WI"},
    "wyoming": "WY",
}
_CITY = r"([A-Z][\w.'-]{0,20}(?: [A-Z][\w.'-]{0,20}){0,2})"
_STATE_NAMES = "|".join(sorted(_STATES, key=len, reverse=True))
_PLACE = re.compile(rf"(?<![\w]){_CITY},? \(?((?i:{_STATE_NAMES})|[A-Z]{{2}})(?!\w)")


def _find_place(text: str, now: dt.datetime | None) -> Iterator[tuple[int, int, Json]]:
    """Find cities with their state, as "City, ST"."""
    for match in _PLACE.finditer(text):
        state = _STATES.get(match.group(2).lower(), match.group(2))
        if state in _STATES.values():
            yield match.start(), match.end(), f"{match.group(1)}, {state}"


def _write_place(value: Json, now: dt.datetime | None) -> Iterator[str]:
    match = re.fullmatch(rf"{_CITY}, ([A-Z]{{2}})", value) if isinstance(value, str) else None
    names = [name for name, short in _STATES.items() if match is not None and short == match.group(2)]
    for name in names:
        assert match is not None
        yield f"{match.group(1)}, {match.group(2)}"
        yield f"{match.group(1)}, {name.title()}"


# ---- currencies ------------------------------------------------------------------------------------------------------

_CURRENCIES = {
    **{"dollar": "USD", "us dollar": "USD", "united states dollar": "USD", "american dollar": "USD", "$": "USD"},
    **{
        "euro": "EUR",
        "\u20ac": "EUR",
        "pound": "GBP",
        "british pound": "GBP",
        "pound sterling": "GBP",
        "\u00a3": "GBP",
    },
    **{"yen": "JPY", "japanese yen": "JPY", "yuan": "CNY", "chinese yuan": "CNY", "renminbi": "CNY", "rupee": "INR"},
    **{"indian rupee": "INR", "canadian dollar": "CAD", "australian dollar": "AUD", "new zealand dollar": "NZD"},
    **{"swiss franc": "CHF", "franc": "CHF", "won": "KRW", "peso": "MXN", "mexican peso": "MXN", "real": "BRL"},
    **{"rand": "ZAR", "ruble": "RUB", "swedish krona": "SEK", "norwegian krone": "NOK", "zloty": "PLN", "lira": "TRY"},
    **{"hong kong dollar": "HKD", "singapore dollar": "SGD", "baht": "THB", "thai baht": "THB"},
}
_CURRENCY = re.compile(
    "[$\u20ac\u00a3]|\\b(?:"
    + "|".join(
        sorted((re.escape(name) for name in _CURRENCIES if name.isascii() and name != "$"), key=len, reverse=True)
    )
    + ")(?:e?s)?\\b",
    re.I,
)


def _find_currency(text: str, now: dt.datetime | None) -> Iterator[tuple[int, int, Json]]:
    """Find currencies by name or sign, as ISO 4217 writes them."""
    for match in _CURRENCY.finditer(text):
        name = match.group().lower()
        for known in (name, name.removesuffix("s"), name.removesuffix("es")):
            if known in _CURRENCIES:
                yield match.start(), match.end(), _CURRENCIES[known]
                break


def _write_currency(value: Json, now: dt.datetime | None) -> Iterator[str]:
    yield from (name for name, code in _CURRENCIES.items() if code == value)


# ---- lists -----------------------------------------------------------------------------------------------------------

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
    for (left, low), (right, high) in pairwise(_digits(text)):
        if _RANGE.fullmatch(text, left.end(), right.start()) is not None:
            yield left.start(), right.end(), [low, high]


def _write_range(value: Json, now: dt.datetime | None) -> Iterator[str]:
    if isinstance(value, list) and len(value) == 2:
        low, high = (list(_write_number(part, now))[:1] for part in value)
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
    parts = [repr(item) if _is_number(item) else item for item in value]
    if not all(isinstance(part, str) and _is_item(part) for part in parts):
        return
    for text in (", ".join(parts[:-1]) + " and " + parts[-1], "[" + ", ".join(parts) + "]"):
        if same(_items(text.strip("[]")), value):
            yield text


def _is_item(text: str) -> bool:
    return len(text.split()) <= _ITEM_WORDS and not _BREAK.search(text + " ") and bool(text.strip("."))


OPERATORS = (
    Operator("words", _find_words, _write_text),
    Operator("quoted", _find_quoted, _write_quoted),
    Operator("lower", *_folded(str.lower)),
    Operator("title", *_folded(str.title)),
    Operator("snake", *_folded(lambda words: words.lower().replace(" ", "_"))),
    Operator("singular", *_folded(_singular)),
    Operator("number", _find_number, _write_number),
    Operator("percent", _find_percent, _write_percent),
    Operator("number words", _find_number_words, _write_number_words),
    Operator("ordinal", _find_ordinal, _write_ordinal),
    Operator("times", _find_times, _write_times),
    Operator("coordinate", _find_coordinate, _write_coordinate),
    Operator("prefixed unit", _find_prefixed, _write_prefixed),
    Operator("currency", _find_currency, _write_currency),
    Operator("date", *_dated("%Y-%m-%d")),
    Operator("US date", *_dated("%m/%d/%Y")),
    Operator("European date", *_dated("%d/%m/%Y")),
    Operator("date-time", _find_date_time("T{:02}:{:02}:{:02}"), _write_date_time("T{:02}:{:02}:{:02}")),
    Operator("date and time", _find_date_time(" {:02}:{:02}:{:02}"), _write_date_time(" {:02}:{:02}:{:02}")),
    Operator("date and minute", _find_date_time(" {:02}:{:02}"), _write_date_time(" {:02}:{:02}")),
    Operator("time", *_clocked("{:02}:{:02}")),
    Operator("time with seconds", *_clocked("{:02}:{:02}:{:02}")),
    Operator("part of a time", _find_clock_parts, _write_clock_parts),
    Operator("place", _find_place, _write_place),
    Operator("list", _find_list, _write_list),
    Operator("range", _find_range, _write_range),
)
