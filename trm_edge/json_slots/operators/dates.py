"""Dates: written out, completed with what else the text says, or relative to a given or a stated day."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator

from ..text import Json
from .base import Find, Operator, Write, is_whole, may_have, once_per_query
from .numbers import spelt_of

MAX_DATES = 16  # of a text
_MONTHS = (
    *("january", "february", "march", "april", "may", "june", "july", "august", "september", "october"),
    *("november", "december"),
)
_MONTH = "|".join(f"{name[:3]}(?:{name[3:]})?" if len(name) > 3 else name for name in _MONTHS)
_MONTH_STARTS = tuple(name[:3] for name in _MONTHS)
_MONTH = _MONTH.replace("sep(?:tember)?", "sep(?:t(?:ember)?)?")
_DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_DAY = r"(\d{1,2})(?:st|nd|rd|th)?"
_DIGIT = re.compile(r"\d")
_JOINED = re.compile(r"\d(?:[-/.]\d|\d{7})")
_ISO_DATE = re.compile(r"(?<![\d.-])(\d{4})([-/.])(\d{1,2})\2(\d{1,2})(?![\d-]|\.\d)")
_COMPACT_DATE = re.compile(r"(?<![\w.-])((?:19|20)\d\d)(0[1-9]|1[0-2])([0-3]\d)(?![\w-]|\.\d)")
_SLASHED_DATE = re.compile(r"(?<![\d/-])(\d{1,2})([/-])(\d{1,2})\2(\d{4})(?![\d/-])")
_DOTTED_DATE = re.compile(r"(?<![\d.])(\d{1,2})\.(\d{1,2})\.(\d{4})(?![\d.])")
_MONTH_FIRST = re.compile(rf"\b({_MONTH})\.?,? ?(?:the )?{_DAY}(?:(?:,| of)? ?(\d{{4}}))?\b", re.I)
_YEAR_FIRST = re.compile(rf"\b(\d{{4}}),? ({_MONTH})\.? {_DAY}\b", re.I)
_YEAR_DAY_FIRST = re.compile(rf"\b(\d{{4}}),? {_DAY}(?: of)? ({_MONTH})\b", re.I)
_DAY_FIRST = re.compile(rf"\b{_DAY}(?: of)?(?: this)? ({_MONTH})\.?,?(?: (\d{{4}}))?\b", re.I)
_DAY_ALONE = re.compile(r"\b(?:the|to|and|until|till) (\d{1,2})(?:st|nd|rd|th)\b", re.I)
_MONTH_NAME = re.compile(rf"(?=[adfjmnos])\b({_MONTH})(?![a-z])", re.I)  # what it looks ahead for decides soonest
_YEAR = re.compile(r"(?<![\w.,/-])((?:19|20)\d\d)(?!\w|[.,/-]\d)")
_SHORT_YEAR = re.compile(r"(?<!\w)['\u2019](\d\d)\b(?!['\u2019])")
_STATED = re.compile(r"\b(?:today|today's date|now|currently|current date)\b[^.?!\n]{0,24}$", re.I)
_STATED_BEHIND = re.compile(r" ?(?:is |as )?(?:today|right now)\b", re.I)
_RELATIVE = re.compile(
    r"\b(today|tonight|(?:day after )?tomorrow|yesterday"
    rf"|(?:(next|this|last|coming|upcoming) )?({'|'.join(_DAYS)})( next week)?"
    r"|(next|this|upcoming) (week|weekend|month)|in (\d{1,3}|an?|\w{3,5}) (day|week|month)s?"
    r"|(\d{1,3}) (day|week|month)s? (?:ago|from now|later))\b",
    re.I,
)
_STAY = re.compile(r"\b(\d{1,3}|an?|\w{3,5})[ -](day|night|week|month)s?\b", re.I)
_LENGTHS = {"day": 1, "night": 1, "week": 7, "month": 30}

_IN_DIGITS = (  # with the groups of year, month and day
    *((_ISO_DATE, (1, 3, 4)), (_SLASHED_DATE, (4, 1, 3)), (_SLASHED_DATE, (4, 3, 1)), (_DOTTED_DATE, (3, 2, 1))),
    (_COMPACT_DATE, (1, 2, 3)),
)
_WITH_MONTH = (
    *((_MONTH_FIRST, (3, 1, 2)), (_DAY_FIRST, (3, 2, 1)), (_YEAR_FIRST, (1, 2, 3)), (_YEAR_DAY_FIRST, (1, 3, 2))),
)
_WITHOUT_YEAR = ((_MONTH_FIRST, (1, 2)), (_DAY_FIRST, (2, 1)))


@once_per_query
def dates_of(text: str, today: dt.date | None) -> Iterator[tuple[int, int, dt.date]]:
    """Yield dates: with a year, then without (of the years that the text names, or the next such day), then relative.

    Where a text says what day it is ("today is March 5, 2024"), that is ``today``.
    """
    found: list[tuple[int, int, dt.date]] = []
    if _DIGIT.search(text) is not None:
        found += _full_dates(text)
        stated = [day for start, end, day in found if _is_today(text, start, end)]
        today = stated[0] if stated else today
        found += _yearless_dates(text, today, dict.fromkeys(day.year for _, _, day in found))
    if today is not None:
        found += _relative_dates(text, today)
    yield from list(dict.fromkeys(found))[:MAX_DATES]


def _is_today(text: str, start: int, end: int) -> bool:
    return bool(_STATED.search(text, max(0, start - 48), start) or _STATED_BEHIND.match(text, end))


@once_per_query
def _months(text: str) -> Iterator[tuple[int, int, int]]:
    """Yield the months that a text names, as numbers."""
    for match in _MONTH_NAME.finditer(text) if may_have(text, _MONTH_STARTS) else ():
        yield match.start(), match.end(), _month(match.group(1))


@once_per_query
def _matches(pattern: re.Pattern[str], text: str) -> Iterator[re.Match[str]]:
    yield from pattern.finditer(text)


def _full_dates(text: str) -> Iterator[tuple[int, int, dt.date]]:
    patterns = (_IN_DIGITS if _JOINED.search(text) else ()) + (_WITH_MONTH if _months(text) else ())
    for pattern, order in patterns:
        for match in _matches(pattern, text):
            year, month, day = (match.group(i) for i in order)
            found = _date(int(year), _month(month), int(day)) if year is not None else None
            if found is not None:
                yield match.start(), match.end(), found


def _yearless_dates(text: str, today: dt.date | None, known: dict[int, None]) -> Iterator[tuple[int, int, dt.date]]:
    days = list(_month_days(text))
    years = dict.fromkeys(int(match.group(1)) for match in _YEAR.finditer(text)) | known if days else known
    for start, end, month, day in days:
        for year in [*years][:2]:
            found = _date(year, month, day)
            if found is not None:
                yield start, end, found
        found = _date(today.year, month, day) if today is not None else None
        if today is not None and found is not None:
            ahead = found if found >= today else _date(today.year + 1, month, day)
            if ahead is not None:
                yield start, end, ahead


def _month_days(text: str) -> Iterator[tuple[int, int, int, int]]:
    """Yield days without a year, also those of the one month that a text names ("the 10th")."""
    months = {month for _, _, month in _months(text)}
    for pattern, order in _WITHOUT_YEAR if months else ():
        for match in _matches(pattern, text):
            if match.group(3) is None:
                month, day = (match.group(i) for i in order)
                yield match.start(), match.end(), _month(month), int(day)
    if len(months) == 1:
        for match in _DAY_ALONE.finditer(text):
            yield match.start(1), match.end(), min(months), int(match.group(1))


def _month(text: str) -> int:
    return int(text) if text.isdecimal() else 1 + _MONTH_STARTS.index(text[:3].lower())


def _date(year: int, month: int, day: int) -> dt.date | None:
    try:
        return dt.date(year, month, day)
    except ValueError:  # no such day
        return None


def today_of(now: dt.datetime | None) -> dt.date | None:
    """Return the day of now, if it is known."""
    return None if now is None else now.date()


def _relative_dates(text: str, today: dt.date) -> Iterator[tuple[int, int, dt.date]]:
    for match in _RELATIVE.finditer(text):
        for ahead in _ahead(match, today):
            try:
                yield match.start(), match.end(), today + dt.timedelta(days=ahead)
            except OverflowError:  # the calendar ends in 9999
                continue


def _ahead(match: re.Match[str], today: dt.date) -> tuple[int, ...]:
    """Return how many days ahead of today may be meant."""
    word, which, weekday, week, of_period, period, count, unit, later, later_unit = match.groups()
    if weekday:
        ahead = (_DAYS.index(weekday.lower()) - today.weekday()) % 7
        which = (which or "").lower()
        if which == "last":
            return (ahead - 7,)
        if week:
            return (ahead + 7 if ahead + today.weekday() < 7 else ahead,)
        return (ahead or 7, ahead + 7) if which == "next" else (ahead, ahead or 7)
    if period:
        to_monday = 7 - today.weekday()
        nearest = {"week": to_monday, "weekend": (5 - today.weekday()) % 7, "month": 30}[period.lower()]
        return (0 if of_period.lower() == "this" and period.lower() != "weekend" else nearest,)
    if unit or later_unit:
        number = _count(count or later)
        back = -1 if word.lower().endswith("ago") else 1
        return (back * number * _LENGTHS[(unit or later_unit).lower()],) if number else ()
    return ({"tomorrow": 1, "yesterday": -1, "day after tomorrow": 2}.get(word.lower(), 0),)


def _count(word: str) -> int:
    """Return the number that a word spells, or 0."""
    if word.isdecimal():
        return int(word)
    found = spelt_of(word) if word.lower() not in ("a", "an") else ((0, 0, 1),)
    return found[0][2] if found else 0


def _dated(style: str) -> tuple[Find, Write]:
    """Return an operator's functions: dates written in a style of ``strftime``."""

    def find(text: str, now: dt.datetime | None) -> Iterator[tuple[int, int, Json]]:
        for start, end, found in dates_of(text, today_of(now)):
            yield start, end, _styled(found, style)

    def write(value: Json, now: dt.datetime | None) -> Iterator[str]:
        day = read_date(value, style)
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


def read_date(value: Json, style: str) -> dt.date | None:
    """Return the date that a text in a style of ``strftime`` is, if it is one."""
    if not isinstance(value, str):
        return None
    try:
        day = dt.datetime.strptime(value, style).date()
    except ValueError:
        return None
    return day if _styled(day, style) == value else None


def _find_end_of_stay(text: str, now: dt.datetime | None) -> Iterator[tuple[int, int, Json]]:
    """Find the day that a stay from a date ends on: "from 1 June 2022 for 3 nights" is "2022-06-04"."""
    stays = [*_STAY.finditer(text)][:4]
    for start, end, day in dates_of(text, today_of(now))[:4] if stays else ():
        for stay in stays:
            days = _count(stay.group(1)) * _LENGTHS[stay.group(2).lower()]
            try:
                yield min(start, stay.start()), max(end, stay.end()), (day + dt.timedelta(days=days)).isoformat()
            except OverflowError:  # the calendar ends in 9999
                continue


def _write_end_of_stay(value: Json, now: dt.datetime | None) -> Iterator[str]:
    day = read_date(value, "%Y-%m-%d")
    if day is not None and day.toordinal() > 3:
        yield f"{(day - dt.timedelta(days=3)).isoformat()} for 3 nights"


def _find_date_parts(text: str, now: dt.datetime | None) -> Iterator[tuple[int, int, Json]]:
    """Find the day, the month and the year of a date, the number of a month that is named, and "'19" as a year."""
    for start, end, day in dates_of(text, today_of(now)):
        for part in dict.fromkeys((day.day, day.month, day.year)):
            yield start, end, part
    yield from _months(text)
    for match in _SHORT_YEAR.finditer(text):
        short = int(match.group(1))
        yield match.start(), match.end(), short + (2000 if short < 50 else 1900)


def _write_date_parts(value: Json, now: dt.datetime | None) -> Iterator[str]:
    if is_whole(value) and 1 <= value <= 12:
        yield _MONTHS[value - 1].title()
    if is_whole(value) and 1 <= value <= 28:
        yield f"2024-02-{value:02}"


OPERATORS = (
    Operator("date", *_dated("%Y-%m-%d")),
    Operator("US date", *_dated("%m/%d/%Y")),
    Operator("European date", *_dated("%d/%m/%Y")),
    Operator("day first", *_dated("%d-%m-%Y")),
    Operator("end of a stay", _find_end_of_stay, _write_end_of_stay),
    Operator("part of a date", _find_date_parts, _write_date_parts, "numbers"),
)
