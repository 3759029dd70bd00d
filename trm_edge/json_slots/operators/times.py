"""Times of day, times of a date, and durations."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator
from itertools import pairwise

from ..text import Json
from .base import Find, Operator, Write, is_number, is_whole, may_have, offset_at, once_per_query
from .dates import dates_of, read_date, today_of
from .numbers import all_numbers

MAX_PAIRS = 12  # of a date and a time that may stand anywhere in a text; of more, only neighbours are one
_CLOCK = re.compile(
    r"(?<![\d:.])([01]?\d|2[0-3])(?:(?::|\.(?=\d\d ?[ap]\.?m))([0-5]\d))?(?::([0-5]\d))?"
    r"(?: ?([ap])(?:m\b|\.m\.))?(?![\d:])",
    re.I,
)
_TIMED = re.compile(r"\d(?::\d| ?[ap]\.?m|\.\d)", re.I)  # stands where a time of day in digits does
_DAYTIME = re.compile(
    r"\b([1-9]|1[0-2])(?::([0-5]\d))?(?: o'clock)?,? (?:in the (morning|afternoon|evening)|at (night))", re.I
)
_NAMED_TIME = re.compile(r"\b(noon|midday|midnight)\b", re.I)
TIME_UNIT = re.compile(
    r"[ -]?(seconds?|secs?|minutes?|mins?|hours?|hrs?|days?|nights?|weeks?|months?|years?|decades?)\b", re.I
)
_ONE = re.compile(r"\b(?:an?|one|next|past|last|upcoming|coming|this|per|every|each) (?=[a-z])", re.I)
_FEET = re.compile(r"(?<![\d.])(\d{1,3}) ?(?:ft|feet|foot|') ?(\d{1,2})(?: ?(?:in\b|inch|\"|''))?", re.I)
_SECONDS = {"sec": 1, "min": 60, "hour": 3600, "hr": 3600, "day": 86400, "night": 86400, "week": 604800}
_IN_DAYS = {"month": 30, "year": 365, "decade": 3650}
_STEPS = (1, 60, 3600, 86400, 604800)


@once_per_query
def _clocks(text: str) -> Iterator[tuple[int, int, tuple[int, int, int]]]:
    """Find times of day as (hour, minute, second) in 24 hours."""
    for match in _CLOCK.finditer(text) if _TIMED.search(text) is not None else ():
        hour, minute, second, half = match.groups()
        if minute is None and half is None:
            continue  # a bare number
        number = int(hour)
        if half is not None:
            if not 1 <= number <= 12:
                continue
            number = number % 12 + (12 if half.lower() == "p" else 0)
        yield match.start(), match.end(), (number, int(minute or 0), int(second or 0))
    for match in _DAYTIME.finditer(text) if may_have(text, ("in the", "at night")) else ():
        late = match.group(3) is None or match.group(3).lower() != "morning"
        yield match.start(), match.end(), (int(match.group(1)) % 12 + 12 * late, int(match.group(2) or 0), 0)
    for match in _NAMED_TIME.finditer(text) if may_have(text, ("noon", "midday", "midnight")) else ():
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


@once_per_query
def _moments(text: str, today: dt.date | None) -> Iterator[tuple[int, int, dt.date, tuple[int, int, int]]]:
    """Find dates with a time: every pair, or where there are many, those that stand side by side."""
    dates, clocks = dates_of(text, today), _clocks(text)
    few = len(dates) * len(clocks) <= MAX_PAIRS
    for first, last, day in dates:
        for start, end, time in clocks:
            if few or 0 <= start - last <= 12 or 0 <= first - end <= 12:
                yield min(first, start), max(last, end), day, time


def _moment(style: str) -> tuple[Find, Write]:
    """Return an operator's functions: a date and a time, in a style of ``str.format``; {6} is the offset from UTC."""

    def find(text: str, now: dt.datetime | None) -> Iterator[tuple[int, int, Json]]:
        for start, end, day, time in _moments(text, today_of(now)):
            yield start, end, _spelt(dt.datetime.combine(day, dt.time(*time)), style, now)

    def write(value: Json, now: dt.datetime | None) -> Iterator[str]:
        found = _read_moment(value, style, now)
        if found is not None:
            yield f"{found.date().isoformat()} at {found.time().isoformat()}"

    return find, write


def _spelt(moment: dt.datetime, style: str, now: dt.datetime | None) -> str:
    offset = offset_at(moment.date(), moment.time(), now)
    parts = moment.month, moment.day, moment.hour, moment.minute, moment.second
    return style.format(f"{moment.year:04}", *parts, offset)


def _read_moment(value: Json, style: str, now: dt.datetime | None) -> dt.datetime | None:
    """Return the moment that a text in a style is, if it is one."""
    if not isinstance(value, str) or not value.isascii():
        return None
    places = {"{0}": "%Y", "{1:02}": "%m", "{2:02}": "%d", "{3:02}": "%H", "{4:02}": "%M", "{5:02}": "%S", "{6}": "%z"}
    pattern = style
    for place, code in places.items():
        pattern = pattern.replace(place, code)
    try:
        found = dt.datetime.strptime(value, pattern)
    except ValueError:
        return None
    return found if _spelt(found, style, now) == value else None


def _find_whole_day(text: str, now: dt.datetime | None) -> Iterator[tuple[int, int, Json]]:
    """Find the first and the last second of a date."""
    for start, end, day in dates_of(text, today_of(now))[:4]:
        offset = offset_at(day, dt.time(), now)
        for separator, clock, zone in ((" ", "00:00:00", ""), (" ", "23:59:59", ""), ("T", "00:00:00", offset)):
            yield start, end, f"{day.isoformat()}{separator}{clock}{zone}"


def _write_whole_day(value: Json, now: dt.datetime | None) -> Iterator[str]:
    day = read_date(value[:10], "%Y-%m-%d") if isinstance(value, str) and len(value) > 10 else None
    if day is not None and value[10:] in (" 00:00:00", " 23:59:59", f"T00:00:00{offset_at(day, dt.time(), now)}"):
        yield day.isoformat()


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


def _find_half_day_time(text: str, now: dt.datetime | None) -> Iterator[tuple[int, int, Json]]:
    """Find times of day in twice twelve hours: "15:00" is "3:00 PM"."""
    for start, end, (hour, minute, _) in _clocks(text):
        yield start, end, f"{hour % 12 or 12}:{minute:02} {'AM' if hour < 12 else 'PM'}"


def _write_half_day_time(value: Json, now: dt.datetime | None) -> Iterator[str]:
    match = re.fullmatch(r"([1-9]|1[0-2]):([0-5]\d) ([AP])M", value, re.A) if isinstance(value, str) else None
    if match is not None:
        yield f"{int(match.group(1)) % 12 + 12 * (match.group(3) == 'P'):02}:{match.group(2)}"


# ---- durations -------------------------------------------------------------------------------------------------------


def _find_duration(text: str, now: dt.datetime | None) -> Iterator[tuple[int, int, Json]]:
    """Find durations in other units: "3 minutes" is 180, "the next week" 7, "a decade" 10, "1 hour 30 minutes" 90."""
    behind, total = -1, 0.0
    for start, end, number, unit in _amounts(text):
        yield from ((start, end, value) for value in _converted(number, unit))
        seconds = number * _SECONDS.get(unit, 0)
        if behind >= 0 and text[behind:start].strip(" ,") in ("", "and") and seconds:
            yield from ((start, end, value) for value in _converted(total + seconds, "sec"))
        behind, total = end, seconds
    for match in _FEET.finditer(text) if may_have(text, ("ft", "feet", "foot", "'")) else ():
        yield match.start(), match.end(), 12 * int(match.group(1)) + int(match.group(2))


def _amounts(text: str) -> Iterator[tuple[int, int, float, str]]:
    """Yield numbers with a unit of time behind them; "the next week" is one."""
    if not may_have(text, (*_SECONDS, *_IN_DAYS)):
        return
    found = [(start, end, value) for start, end, value, _ in all_numbers(text)]
    found += [(match.start(), match.end() - 1, 1) for match in _ONE.finditer(text)]
    for start, end, value in sorted(found):
        unit = TIME_UNIT.match(text, end)
        if unit is not None and abs(value) < 10**9:
            name = unit.group(1).lower()
            known = next(known for known in (*_SECONDS, *_IN_DAYS) if name.startswith(known))
            yield start, unit.end(), value, known


def _converted(number: float, unit: str) -> Iterator[int | float]:
    """Yield an amount of time in its own and in other units, as far as these are whole or half."""
    if unit in _IN_DAYS:
        days = number * _IN_DAYS[unit]
        more = {"month": (days,), "year": (number * 12, days), "decade": (number * 10, number * 120)}[unit]
        values = [number, *more]
    else:
        seconds = number * _SECONDS[unit]
        values = [number, *(seconds / step for step in _STEPS if 2 * seconds % step == 0)]
    yield from dict.fromkeys(int(value) if float(value).is_integer() else value for value in values)


def _write_duration(value: Json, now: dt.datetime | None) -> Iterator[str]:
    if not is_number(value) or not 0 < value < 10**6:
        return
    if is_whole(value) and value % 60 == 0:
        yield f"{value // 60} minutes"
    if is_whole(value) and value % 7 == 0:
        yield f"{value // 7} weeks"


def _find_time_between(text: str, now: dt.datetime | None) -> Iterator[tuple[int, int, Json]]:
    """Find how long it is from one time or date to the next: "from 15:30 to 15:32" is 120 seconds, or 2 minutes."""
    for (start, _, begin), (_, end, stop) in pairwise(sorted(_clocks(text))):
        seconds = sum((b - a) * unit for a, b, unit in zip(begin, stop, (3600, 60, 1), strict=True)) % 86400
        yield from ((start, end, value) for value in _converted(seconds, "sec") if value)
    dates = sorted(dates_of(text, today_of(now)))
    for i, (start, behind, first) in enumerate(dates):
        for ahead, end, last in dates[i + 1 : i + 4]:
            if ahead >= behind and first < last:
                yield start, end, (last - first).days


def _write_time_between(value: Json, now: dt.datetime | None) -> Iterator[str]:
    if is_whole(value) and 0 < value < 23:
        yield f"from 1:00 to {1 + value}:00"
    if is_whole(value) and 0 < value < 28:
        yield f"from 2024-02-01 to 2024-02-{1 + value:02}"


OPERATORS = (
    Operator("date-time", *_moment("{0}-{1:02}-{2:02}T{3:02}:{4:02}:{5:02}")),
    Operator("date-time with offset", *_moment("{0}-{1:02}-{2:02}T{3:02}:{4:02}:{5:02}{6}")),
    Operator("date and time", *_moment("{0}-{1:02}-{2:02} {3:02}:{4:02}:{5:02}")),
    Operator("date and minute", *_moment("{0}-{1:02}-{2:02} {3:02}:{4:02}")),
    Operator("European date and minute", *_moment("{2:02}/{1:02}/{0} {3:02}:{4:02}")),
    Operator("US date and minute", *_moment("{1:02}/{2:02}/{0} {3:02}:{4:02}")),
    Operator("whole day", _find_whole_day, _write_whole_day),
    Operator("time", *_clocked("{:02}:{:02}")),
    Operator("time with seconds", *_clocked("{:02}:{:02}:{:02}")),
    Operator("time in halves", _find_half_day_time, _write_half_day_time),
    Operator("part of a time", _find_clock_parts, _write_clock_parts, "numbers"),
    Operator("duration", _find_duration, _write_duration, "numbers"),
    Operator("time between", _find_time_between, _write_time_between, "numbers"),
)
