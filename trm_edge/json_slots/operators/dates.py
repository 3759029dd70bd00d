"""Dates and times of day, written out or relative to a given now."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator

from ..text import Json
from .base import Find, Operator, Write, is_whole, once_per_query

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
    if is_whole(value) and 0 <= value < 60:
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


OPERATORS = (
    Operator("date", *_dated("%Y-%m-%d")),
    Operator("US date", *_dated("%m/%d/%Y")),
    Operator("European date", *_dated("%d/%m/%Y")),
    Operator("date-time", _find_date_time("T{:02}:{:02}:{:02}"), _write_date_time("T{:02}:{:02}:{:02}")),
    Operator("date and time", _find_date_time(" {:02}:{:02}:{:02}"), _write_date_time(" {:02}:{:02}:{:02}")),
    Operator("date and minute", _find_date_time(" {:02}:{:02}"), _write_date_time(" {:02}:{:02}")),
    Operator("time", *_clocked("{:02}:{:02}")),
    Operator("time with seconds", *_clocked("{:02}:{:02}:{:02}")),
    Operator("part of a time", _find_clock_parts, _write_clock_parts),
)
