"""Values for the properties of tools that synthetic queries give, and how a query says them.

What a property is about is read from its name, then from its description; then a value of that kind is drawn from the
pools, or made.
"""

from __future__ import annotations

import datetime as dt
import random
import re
import string
from collections.abc import Callable
from typing import Any, NamedTuple

from function_call.kinds import kind_of, words_of
from function_call.pools import POOLS
from trm_edge.json_slots.operators import spellings
from trm_edge.json_slots.schema import MISSING, Array, Choice, Scalar, Schema
from trm_edge.json_slots.validation import violation

Rng = random.Random


class Drawn(NamedTuple):
    """A value, the text that a query has for it, and its kind."""

    value: Any
    text: str
    kind: str


_CITY_STATE = re.compile(r"city,? ?(?:and |or |& ?)?\(?(?:state|country)|, [A-Z]{2}\b", re.I)
_QUOTED = re.compile(r"(?<!\w)['\"`]([\w][^'\"`\n:]{0,30})['\"`](?!\w)")
_NO_LITERAL = re.compile(r"^(?:dontcare|any|all|none|null|true|false|n/?a|default)$|YY|HH|%|\d{4}-|City|format", re.I)
_STYLES = (  # of dates, by what a description shows
    (r"dd/mm/yyyy", "%d/%m/%Y"),
    (r"mm[/]dd[/]yyyy|\d\d/\d\d/\d{4}", "%m/%d/%Y"),
    (r"dd-mm-yyyy", "%d-%m-%Y"),
    (r"mm-dd-yyyy", "%m-%d-%Y"),
)
NUMBER_WORDS = 0.25  # share of small whole numbers that are written as words


# ---- scalars ---------------------------------------------------------------------------------------------------------


def draw(name: str, schema: Schema, rng: Rng, now: dt.datetime | None) -> Drawn | None:
    """Return a value for a property, valid for its schema, or None where none is found."""
    if isinstance(schema, Choice):
        schema = schema.alternatives[0]
    for _ in range(4):
        drawn = _array(name, schema, rng, now) if isinstance(schema, Array) else _scalar(name, schema, rng, now)
        if drawn is None or violation(schema, drawn.value) is None:
            return drawn
    return None


def _scalar(name: str, schema: Schema, rng: Rng, now: dt.datetime | None) -> Drawn | None:
    if not isinstance(schema, Scalar) or schema.type == "null":
        return None
    if schema.options is not None:
        return _option(name, schema, rng)
    if schema.type == "boolean":
        usual = schema.default if isinstance(schema.default, bool) else False
        value = rng.random() < (0.25 if usual else 0.8)
        return Drawn(value, "", "boolean")
    if schema.type in ("integer", "number"):
        return number(name, schema, rng)
    return text(name, schema.description, rng, now)


def _option(name: str, schema: Scalar, rng: Rng) -> Drawn | None:
    options = [one for one in schema.options or () if not _NO_LITERAL.search(str(one)) and one is not None]
    kept = [one for one in options if one != schema.default] or options
    if {str(one).lower() for one in schema.options or ()} >= {"true", "false"}:
        wanted = rng.choice(("true", "true", "false"))
        value = next(one for one in schema.options or () if str(one).lower() == wanted)
        return Drawn(value, "", "boolean")
    if not kept:
        return None
    value = rng.choice(kept)
    said = re.sub(r"[_\s]+", " ", str(value))
    said = said.lower() if said.isupper() and len(said) > 3 else said
    return Drawn(value, said, "option" if isinstance(value, str) else "number option")


def literals_of(description: str) -> list[str]:
    """Return what a description quotes as possible values."""
    return [one for one in _QUOTED.findall(description) if not _NO_LITERAL.search(one)]


def text(name: str, description: str, rng: Rng, now: dt.datetime | None) -> Drawn:
    """Return a string for a property."""
    kind = kind_of(name, description)
    literals = literals_of(description)
    if kind in _MAKERS:
        return _MAKERS[kind](name, description, rng, now)
    if len(literals) > 1 and kind != "city" and rng.random() < (0.9 if kind in ("word", "unit") else 0.4):
        value = rng.choice(literals)
        return Drawn(value, value, kind)
    if kind == "city" and _CITY_STATE.search(description):
        value = rng.choice(POOLS["city_state"])
        return Drawn(value, value if rng.random() < 0.5 else value.split(",")[0], kind)
    if kind == "currency":
        return _currency(description, rng)
    if kind == "unit":
        return _unit(name, description, rng)
    value = rng.choice(POOLS[kind])
    if value.startswith("the "):
        return Drawn(value.removeprefix("the "), value, kind)
    if kind in ("message", "note", "subject", "word", "command") and rng.random() < 0.8:
        return Drawn(value, f"{(mark := rng.choice(QUOTES))[0]}{value}{mark[1]}", kind)
    return Drawn(value, value, kind)


QUOTES = ("''", '""', "''", "\u201c\u201d")


def _currency(description: str, rng: Rng) -> Drawn:
    value = rng.choice(POOLS["currency"])
    said = [one for name, one in spellings(value) if name == "currency"]
    return Drawn(value, rng.choice(said) if said and rng.random() < 0.5 else value, "currency")


def _unit(name: str, description: str, rng: Rng) -> Drawn:
    scales = (
        (r"temperature|weather|celsius", ("celsius", "fahrenheit")),
        (r"speed|velocity", ("km/h", "mph", "m/s")),
        (r"distance|radius|length|miles|kilomet", ("miles", "kilometers", "meters", "feet", "km")),
        (r"weight|mass", ("kilograms", "pounds", "grams", "kg")),
        (r"area", ("square meters", "square feet")),
    )
    about = f"{words_of(name)} {description}".lower()
    pool = next((several for pattern, several in scales if re.search(pattern, about)), POOLS["unit"])
    value = rng.choice(pool)
    return Drawn(value, value, "unit")


# ---- made texts ------------------------------------------------------------------------------------------------------


def date_style(description: str) -> str:
    """Return the ``strftime`` style that a description asks for."""
    return next((style for shown, style in _STYLES if re.search(shown, description, re.I)), "%Y-%m-%d")


def _a_day(rng: Rng, now: dt.datetime | None) -> dt.date:
    if now is not None and rng.random() < 0.5:
        return now.date() + dt.timedelta(days=rng.randrange(-10, 60))
    return dt.date(2015, 1, 1) + dt.timedelta(days=rng.randrange(4000))


def _date(name: str, description: str, rng: Rng, now: dt.datetime | None) -> Drawn:
    day = _a_day(rng, now)
    value = day.strftime(date_style(description))
    said = [one for operator, one in spellings(value, now) if "date" in operator and "part" not in operator]
    said += [f"{day:%B} {ordinal(day.day)} {day.year}", f"{day:%b} {day.day}, {day.year}"]
    return Drawn(value, value if rng.random() < 0.3 else rng.choice(said), "date")


def ordinal(number: int) -> str:
    """Return "1st" for 1."""
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"


def _time(name: str, description: str, rng: Rng, now: dt.datetime | None) -> Drawn:
    hour, minute = rng.randrange(24), rng.choice((0, 0, 30, 15, 45, rng.randrange(60)))
    value = f"{hour:02}:{minute:02}" + (":00" if re.search(r"HH:MM:SS", description) else "")
    half = f"{hour % 12 or 12}" + (f":{minute:02}" if minute else "") + rng.choice(("am pm", " am pm", " AM PM")[:3])
    half = re.sub(r"am pm|AM PM", lambda match: match.group().split()[hour >= 12], half)
    return Drawn(value, value if rng.random() < 0.3 else half, "time")


def _datetime(name: str, description: str, rng: Rng, now: dt.datetime | None) -> Drawn:
    day, clock = _a_day(rng, now), _time("", "", rng, now)
    joined = "T" if re.search(r"\dT\d|ISO|T00|DDT", description) else " "
    seconds = "" if re.search(r"HH:mm'|HH:MM'|HH:MM(?!:)", description) else ":00"
    value = f"{day.strftime(date_style(description))}{joined}{clock.value}{seconds}"
    end = "Z" if re.search(r"Z'|Z\b", description) and joined == "T" else ""
    said = f"{day:%B} {day.day}, {day.year} at {clock.text}"
    return Drawn(value + end, value + end if rng.random() < 0.3 else said, "datetime")


def _id(name: str, description: str, rng: Rng, now: dt.datetime | None) -> Drawn:
    some = [one for one in _QUOTED.findall(description) if re.search(r"\d", one)]
    if some and rng.random() < 0.5:
        value = mutated(rng.choice(some), rng)
    else:
        value = mutated(
            rng.choice(("A12-334", "12345", "ABC123", "user-123", "7890", "X9-4471-B", "id_4821", "98765")), rng
        )
    return Drawn(value, value if rng.random() < 0.75 else f"'{value}'", "id")


def mutated(value: str, rng: Rng) -> str:
    """Return a text of the same pattern: other digits, and other letters in runs of capitals beside them."""
    out = [rng.choice(string.digits[1:]) if char.isdecimal() else char for char in value]
    if re.search(r"\d", value):
        runs = [match for match in re.finditer(r"[A-Z]+", value) if len(match.group()) <= 4]
        for match in runs:
            for i in range(*match.span()):
                out[i] = rng.choice(string.ascii_uppercase)
    return "".join(out)


def _uuid(name: str, description: str, rng: Rng, now: dt.datetime | None) -> Drawn:
    digits = "".join(rng.choice("0123456789abcdef") for _ in range(32))
    value = "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))
    return Drawn(value, value, "id") if rng.random() < 0.4 else _id(name, "", rng, now)


def _version(name: str, description: str, rng: Rng, now: dt.datetime | None) -> Drawn:
    value = ".".join(str(rng.randrange(1, 12)) for _ in range(3 if rng.random() < 0.8 else 2))
    return Drawn(value, rng.choice(("", "v", "")) + value, "version")


def _phone(name: str, description: str, rng: Rng, now: dt.datetime | None) -> Drawn:
    value = mutated(rng.choice(("555-123-4567", "+1 415 555 0132", "07700 900123")), rng)
    return Drawn(value, value, "phone")


def _password(name: str, description: str, rng: Rng, now: dt.datetime | None) -> Drawn:
    value = (
        rng.choice(("Secret", "pass", "Winter", "qwerty", "hello")) + mutated("123", rng) + rng.choice(("", "!", "#"))
    )
    return Drawn(value, value if rng.random() < 0.5 else f"'{value}'", "password")


def _username(name: str, description: str, rng: Rng, now: dt.datetime | None) -> Drawn:
    value = rng.choice(POOLS["first_name"]).lower() + rng.choice(("", "_", ".")) + mutated("12", rng)
    return Drawn(value, value if rng.random() < 0.6 else f"'{value}'", "username")


def _position(name: str, description: str, rng: Rng, now: dt.datetime | None) -> Drawn:
    value = f"{rng.uniform(-60, 65):.4f}, {rng.uniform(-150, 150):.4f}"
    return Drawn(value, value, "position")


def _year_season(name: str, description: str, rng: Rng, now: dt.datetime | None) -> Drawn:
    if re.search(r"year|\d{4}", description):
        year = rng.randrange(2005, 2024)
        value = f"{year}-{year + 1}"
    else:
        value = rng.choice(POOLS["season"])
    return Drawn(value, value, "season")


_MAKERS: dict[str, Callable[[str, str, Rng, dt.datetime | None], Drawn]] = {
    "date": _date,
    "time": _time,
    "datetime": _datetime,
    "id": _id,
    "uuid": _uuid,
    "version": _version,
    "phone": _phone,
    "password": _password,
    "username": _username,
    "season": _year_season,
    "position": _position,
}


# ---- numbers ---------------------------------------------------------------------------------------------------------

_RANGES = r"""
count 12 21 0: century
year 1900 2025 0: \byear$|^years$
coordinate -60 65 4: \blat(itude)?\b
coordinate -150 150 4: \blo?ng(itude)?\b
share 0.05 0.95 2: probab|fraction|allele|confidence
percent 2 60 0: percent|discount
rate 0.01 0.12 3: rate\b|yield|interest|inflation
rating 1 5 1: rating|stars?\b|score
money 20 9000 0: price|cost|amount|budget|salary|income|investment|deposit|loan|principal|revenue|payment|\bfee|capital
money 20 9000 0: balance|value of|profit|money|premium|worth|fund
age 18 80 0: \bage\b
mass 2 120 0: weight|mass
temperature 5 95 0: temperature|temp\b
whole id 100 99999 0: \bid\b|identifier|(account|order|case|tracking|serial|room|flight|member|employee) number
port 1024 9999 0: \bport\b
count 5 100 0: page size|per page|limit|max|timeout|page
count 1 12 0: adults|guests|passengers|participants|seats|tickets|rooms|beds|baths|people|persons|children|num|count
count 1 12 0: number of|quantity|top|results|how many|size|servings
length of time 2 30 0: days|hours|weeks|months|years|minutes|duration|length of stay|period|term\b
length of time 2 60 0: time|seconds
measure 2 250 0: distance|radius|length|height|width|depth|base|side|area|volume|altitude
measure 1 120 0: velocity|speed|acceleration|force|power|current|voltage|resistance|energy|charge|pressure|density
"""  # kind, least, most, decimals: of the name, or of a description


class _Range(NamedTuple):
    kind: str
    low: float
    high: float
    digits: int


def _read_ranges() -> list[tuple[re.Pattern[str], _Range]]:
    rows = []
    for line in _RANGES.strip().split("\n"):
        head, _, pattern = line.partition(": ")
        kind, low, high, digits = head.rsplit(" ", 3)
        rows.append((re.compile(pattern), _Range(kind, float(low), float(high), int(digits))))
    return rows


_BY_RANGE = _read_ranges()
_UNIT = re.compile(
    r"\bin (?:the )?(?:unit of )?((?:square |cubic )?(?:meters?|kilometers?|miles|feet|inches|kilograms|kg|pounds|lbs"
    r"|grams|liters|gallons|seconds|minutes|hours|days|weeks|months|years|dollars|USD|amperes?|volts|ohms|newtons|coulombs"
    r"|joules|watts|hertz|hz|m/s\^?2?|km/h|mph|tesla|moles?|pascals?|degrees|milliseconds|centimeters|cm|km|atm)"
    r"(?: per \w+(?: squared)?)?)\b",
    re.I,
)
_BETWEEN = re.compile(
    r"(?:from|between|range(?:s|d)?(?: is| of| from)?|the range of) (\d+(?:\.\d+)?) ?(?:to|and|-) (\d+(?:\.\d+)?)",
    re.I,
)


def number(name: str, schema: Scalar, rng: Rng) -> Drawn:
    """Return a number for a property, in the range that its name and description suggest."""
    called, about = words_of(name), schema.description.split(". ")[0].lower()
    kind, low, high, digits = _range_of(called, about)
    if stated := _BETWEEN.search(schema.description):
        low, high = float(stated.group(1)), float(stated.group(2))
        digits, kind = (digits if high - low <= 10 else 0), ("rating" if kind == "rating" else "count")
    low = low if schema.minimum is None else max(low, schema.minimum)
    high = max(low, high if schema.maximum is None else min(high, schema.maximum))
    whole = schema.type == "integer"
    if whole and kind in ("share", "rate"):
        kind, low, high = "percent", 2, 20
    value: float = round(rng.uniform(low, high), 0 if whole else digits)
    if kind == "money" and rng.random() < 0.7:
        value = max(round(value, -2), 50) * rng.choice((1, 1, 1, 10))
    if kind == "length of time" and "year" in f"{called} {about}":
        value = rng.randrange(1, 31)
    if not whole and digits == 0 and kind not in ("whole id", "port", "year") and rng.random() < 0.35:
        value = round(value + rng.randrange(1, 100) / 100, 2)
    if whole or float(value).is_integer():
        value = int(value)
    unit = _UNIT.search(schema.description)
    return Drawn(value, _said(value, kind, unit.group(1) if unit else "", rng), kind)


def _range_of(called: str, about: str) -> _Range:
    if re.search(r"\bid\b", called):
        return _Range("whole id", 100, 99999, 0)
    if re.search(r"number of years|in years|years (?:for|to|over)", about):
        return _Range("length of time", 1, 30, 0)
    named = next((found for pattern, found in _BY_RANGE if pattern.search(called)), None)
    told = next((found for pattern, found in _BY_RANGE if len(called) > 3 and pattern.search(about)), None)
    return named or told or _Range("plain", 1, 100, 0)


def _said(value: float, kind: str, unit: str, rng: Rng) -> str:
    shown = f"{value:,}" if abs(value) >= 1000 and kind == "money" and rng.random() < 0.6 else f"{value}"
    if kind in ("rate", "share") and not isinstance(value, int) and rng.random() < (0.75 if kind == "rate" else 0.2):
        percents = [one for name, one in spellings(value) if name == "percent"]
        shown = rng.choice(percents) if percents else shown
    elif kind == "percent":
        shown += rng.choice(("%", "%", " percent"))
    elif kind == "money" and unit.lower() in ("", "dollars", "usd"):
        shown = rng.choice((f"${shown}", f"${shown}", f"{shown} dollars", shown))
    elif kind in ("count", "length of time", "age") and 1 < value <= 20 and rng.random() < NUMBER_WORDS:
        shown = next((one for name, one in spellings(value) if name == "number words"), shown)
    if unit and kind != "money" and "%" not in shown and "percent" not in shown and rng.random() < 0.85:
        return f"{shown} {unit.lower() if len(unit) > 3 else unit}"
    return shown


# ---- arrays ----------------------------------------------------------------------------------------------------------


def _array(name: str, schema: Array, rng: Rng, now: dt.datetime | None) -> Drawn | None:
    items = schema.items
    if not isinstance(items, Scalar) or items.type == "boolean":
        return None
    about = items if items.description else Scalar(items.pointer, items.type, schema.description, options=items.options)
    count = max(
        schema.min_items, rng.choice((1, 2, 2, 3, 3, 4, 5) if items.type != "string" else (1, 1, 2, 2, 3, 3, 4))
    )
    count = max(count, 2) if re.search(r"coordinate|point|range|bounds", name, re.I) else count
    count = count if schema.max_items is None else min(count, schema.max_items)
    drawn = [_item(words_of(name), about, rng, now) for _ in range(4 * count)]
    distinct = {str(one.value): one for one in drawn if one is not None}
    some = list(distinct.values())[:count]
    if not some:
        return None
    values, texts = [one.value for one in some], [one.text for one in some]
    if items.type != "string":
        texts = [str(value) for value in values]
        if len(texts) > 2 and rng.random() < 0.5:
            return Drawn(values, f"[{', '.join(texts)}]", "numbers")
        if len(texts) > 2 and rng.random() < 0.3:
            return Drawn(values, ", ".join(texts), "numbers")
    joined = texts[0] if len(texts) == 1 else ", ".join(texts[:-1]) + f" and {texts[-1]}"
    return Drawn(values, joined, "list" if items.type == "string" else "numbers")


def _item(words: str, about: Scalar, rng: Rng, now: dt.datetime | None) -> Drawn | None:
    if about.type == "string" and about.options is None:
        literals = literals_of(about.description)
        if len(literals) > 2:
            value = rng.choice(literals)
            return Drawn(value, re.sub("_", " ", value), "literal")
        return text(singular(words), about.description, rng, now)
    if about.type != "string" and about.default is MISSING and kind_of(words, "") == "word":
        value = rng.randrange(1, 60) if about.type == "integer" else round(rng.uniform(0.5, 60), rng.choice((0, 1, 2)))
        return Drawn(value, str(value), "number")
    return _scalar(singular(words), about, rng, now)


def singular(words: str) -> str:
    """Return a name for one of several: "cities" is "city"."""
    for ending, one in (("ies", "y"), ("sses", "ss"), ("s", "")):
        if words.endswith(ending) and not words.endswith(("ss", "us", "is")):
            return words.removesuffix(ending) + one
    return words
