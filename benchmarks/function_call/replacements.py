"""Other values for an argument that a query says: of the same kind, and said in the same way."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

from function_call.bfcl import fits
from function_call.kinds import kind_of, words, words_of
from function_call.pools import PLACES, POOLS
from function_call.values import Rng, literals_of, mutated, ordinal
from trm_edge.json_slots.operators import find_spans, spellings
from trm_edge.json_slots.schema import Array, Schema

DATES = ("date", "US date", "European date", "day first")
TIMES = ("time", "time with seconds")
_YEAR = re.compile(r"(?:19|20)\d\d")

Others = Mapping[str, Sequence[str]]


@dataclass(eq=False)
class Leaf:
    """An argument, or a part of one: its right values (a list that can be changed), and where the query says it."""

    name: str
    function: str
    schema: Schema
    values: list[Any]
    optional: bool
    places: list[Place]
    value: Any = None


class Place(NamedTuple):
    """Characters of a query that say a value, as an operator reads it; ``bound`` where words beside it hang on it."""

    start: int
    end: int
    text: str
    operator: str
    value: Any
    bound: bool = False


class Stay(NamedTuple):
    """What must stay in a query, as something implied may hang on it, and by how many days its dates are moved."""

    texts: bool
    numbers: bool
    shift: int


def property_key(function: str, name: str, about: str) -> str:
    """Return what properties share whose texts may stand for each other: name and kind; general names a function."""
    called = words_of(name)
    general = function if called in _GENERAL or kind_of(name, about) == "word" else ""
    return f"{general} {called} {kind_of(name, about)}"


_GENERAL = words(
    "type name id query title category value text content key label model status mode method keyword topic search "
    "command prompt question message body description input"
)


# ---- one value -------------------------------------------------------------------------------------------------------


def replaced(leaf: Leaf, stay: Stay, rng: Rng, others: Others) -> tuple[Any, list[str]] | None:
    """Return a new value for a leaf, and the texts that say it in its places."""
    if isinstance(leaf.value, list):
        items = leaf.schema.items if isinstance(leaf.schema, Array) else leaf.schema
        made = []
        for place in leaf.places:
            known = {str(one[0]).lower() for one in made} | {str(one).lower() for one in leaf.value}
            one = _other(leaf, items, place, stay, rng, others)
            if one is None or str(one[0]).lower() in known:
                return None
            made.append(one)
        return [value for value, _ in made], [text for _, text in made]
    one = _other(leaf, leaf.schema, leaf.places[0], stay, rng, others)
    if one is None or fits(leaf.value, one[0]):
        return None
    return one[0], [one[1]] * len(leaf.places)


def _other(leaf: Leaf, schema: Schema, place: Place, stay: Stay, rng: Rng, others: Others) -> tuple[Any, str] | None:
    options = getattr(schema, "options", None)
    if options is not None:
        return _other_option(options, place, rng)
    if isinstance(place.value, (int, float)):
        return None if stay.numbers else _other_number(leaf.name, place, rng)
    if place.operator in DATES or read_day(place.value):
        return _other_day(place, stay.shift)
    if place.operator in TIMES:
        return _other_time(place, rng)
    if place.operator == "currency":
        return None if stay.texts else _other_currency(place, rng)
    if re.search(r"\d", place.text) and " " not in place.text and "@" not in place.text:
        return _other_code(place, rng)
    literals = [one for one in literals_of(schema.description) if not fits(place.value, one)]
    known = {one.lower() for one in literals_of(schema.description)}
    if place.value.lower() in known and literals:
        value = _cased(rng.choice(literals), place.text)
        return value, value.replace("_", " ") if "_" not in place.text else value
    return None if stay.texts else _other_text(leaf, schema, place, rng, others)


def _other_option(options: Sequence[Any], place: Place, rng: Rng) -> tuple[Any, str] | None:
    usable = [one for one in options if isinstance(one, type(place.value)) and not is_vague(str(one))]
    usable = [one for one in usable if not fits(place.value, one) and len(str(one).split("_")) <= 3]
    if not usable or is_vague(str(place.value)):
        return None
    value = rng.choice(usable)
    text = str(value) if "_" in place.text else str(value).replace("_", " ")
    return value, _cased(text, place.text)


def is_vague(text: str) -> bool:
    """Whether a text stands for no certain value."""
    return text.lower() in ("dontcare", "any", "all", "none", "true", "false", "other", "default", "n/a", "")


def _cased(text: str, like: str) -> str:
    """Return a text with the case of another: all small, or a capital first."""
    if like == like.lower() and like.isalpha():
        return text.lower()
    if like[:1].isupper() and like[1:] == like[1:].lower():
        return text[:1].upper() + (text[1:].lower() if text.isupper() and len(text) > 3 else text[1:])
    return text


def _other_number(name: str, place: Place, rng: Rng) -> tuple[Any, str] | None:
    value, text = place.value, place.text
    if place.operator == "number words":
        number = rng.choice([n for n in range(2, 13) if n != value])
        said = [one for operator, one in spellings(number) if operator == "number words"]
        return (type(value)(number), _cased(said[0], text)) if said and value > 1 else None
    digits = re.match(r"-?[\d,]*\.?\d+", text)
    if digits is None or (place.operator == "number" and abs(value) <= 1 and "." not in text):
        return None
    if place.operator == "number" and digits.group() != text:
        return None
    shown = _other_digits(digits.group(), words_of(name), re.search(r"percent|%", text) is not None, rng)
    number = float(shown.replace(",", ""))
    if place.operator == "percent":
        number = round(number / 100, 15)
    if float(number).is_integer() and not isinstance(value, float):
        number = int(number)
    if isinstance(value, int) and not isinstance(number, int):
        return None
    return number, shown + text[digits.end() :]


def _other_digits(text: str, words: str, is_percent: bool, rng: Rng) -> str:
    """Return other digits: as many, with as many decimals and final zeros; years stay years."""
    if _YEAR.fullmatch(text):
        return str(rng.randrange(1950, 2024))
    if re.fullmatch(r"1[4-8]\d\d", text) and re.search(r"year|date|time", words):
        return str(rng.randrange(1400, 1900))
    whole, point, decimals = text.lstrip("-").replace(",", "").partition(".")
    zeros = len(whole) - len(whole.rstrip("0")) if not point else 0
    size = len(whole) - zeros
    low = 0 if whole == "0" else (2 if len(whole) == 1 else 10 ** (size - 1))
    high = 1 if whole == "0" else (6 if re.search(r"rating|star", words) and size == 1 else 10**size)
    new = str(rng.randrange(low, high)) + "0" * zeros
    new = str(min(int(new), 90)) if is_percent else new
    if "," in text:
        new = f"{int(new):,}"
    small = len(decimals) - len(decimals.lstrip("0")) if whole == "0" else 0
    fraction = "0" * small + "".join(rng.choice("123456789") for _ in decimals[small:])
    return ("-" if text.startswith("-") else "") + new + point + fraction


def _other_code(place: Place, rng: Rng) -> tuple[Any, str] | None:
    if _YEAR.fullmatch(place.text):
        value = str(rng.randrange(1950, 2024))
    elif clock := re.fullmatch(r"(\d{1,2}):(\d\d)", place.text):
        hours = (7, 12) if int(clock.group(1)) < 12 else (13, 22)
        value = f"{rng.randrange(*hours):0{len(clock.group(1))}}:{rng.choice(('00', '15', '30', '45'))}"
    elif re.search(r"\d[*^/+]|[*^]\d|[a-z]\(|\dx|https?:|\d[-/]\d\d?[-/]\d|\d:\d", place.text) or len(place.text) < 2:
        return None
    else:
        value = mutated(place.text, rng)
    return value, value


def _other_currency(place: Place, rng: Rng) -> tuple[Any, str] | None:
    value = rng.choice(POOLS["currency"])
    said = [one for operator, one in spellings(value) if operator == "currency"]
    return (value, rng.choice(said)) if said else None


def _other_text(leaf: Leaf, schema: Schema, place: Place, rng: Rng, others: Others) -> tuple[Any, str] | None:
    old = place.value
    kind = kind_of(leaf.name, schema.description)
    if place.bound and kind in PLACES:
        return None
    if place.operator in ("place", "city") or old in POOLS["city_state"]:
        return _other_city(place, rng)
    if kind == "email" and "@" in old:
        value = rng.choice(POOLS["email"])
        return value, value
    usable = [one for one in _like(old, kind) if _shape(one) == _shape(place.text)]
    alike = [
        one
        for one in others.get(property_key(leaf.function, leaf.name, schema.description), ())
        if _shape(one) == _shape(place.text)
    ]
    known = [*usable, *alike] if rng.random() < 0.5 else (usable or alike)
    known = [one for one in known if one.lower() != old.lower() and not one.startswith("the ")]
    if not known:
        return None
    value = rng.choice(known)
    return value, value


def _other_city(place: Place, rng: Rng) -> tuple[Any, str] | None:
    """Return another city: of the United States where the old one is, else with its country in the same form."""
    tail = place.value.rpartition(", ")[2]
    if place.bound:
        return None
    if tail in {one.rpartition(", ")[2] for one in POOLS["city_state"]}:
        value = rng.choice(POOLS["city_state"])
        return value, value if "," in place.text else value.split(",")[0]
    city = rng.choice(POOLS["city"])
    known = [one.value for one in find_spans(city) if one.operator == "city"]
    alike = [one for one in known if (len(one.rpartition(", ")[2]) == 2) == (len(tail) == 2)]
    return (alike[0], city) if alike and "," not in place.text else None


def _like(text: str, kind: str) -> Sequence[str]:
    """Return the pool that has a text; of several, that of the kind, and never one of places for what is no place."""
    homes = _homes().get(text.lower(), ())
    if kind in homes:
        return POOLS[kind]
    return POOLS[homes[0]] if homes and homes[0] != "word" else ()


@lru_cache(maxsize=1)
def _homes() -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for kind, texts in POOLS.items():
        for text in texts:
            found[text.lower()] = (*found.get(text.lower(), ()), kind)
    return found


def _shape(text: str) -> tuple[bool, int, bool, bool]:
    """Return what a text must share with another to stand for it: capitals, commas, digits, being one code."""
    return text[:1].isupper(), text.count(","), bool(re.search(r"\d", text)), text.isupper() and len(text) > 1


# ---- days and times --------------------------------------------------------------------------------------------------


def read_day(text: str) -> dt.date | None:
    """Return the day that a text is in one of the usual styles."""
    for style in ("%Y-%m-%d", "%m/%d/%Y", "%d/%m/%Y", "%d-%m-%Y"):
        try:
            return dt.datetime.strptime(text, style).date()
        except ValueError:
            continue
    return None


def _day_styles(day: dt.date) -> list[str]:
    """Return the ways in which people write a day."""
    nth = ordinal(day.day)
    texts = []
    for month in (f"{day:%B}", f"{day:%b}", f"{day:%b}."):
        for number in (str(day.day), nth):
            for year in (f", {day.year}", f" {day.year}", ""):
                texts.append(f"{month} {number}{year}")
            texts += [f"{number} {month} {day.year}", f"{number} of {month} {day.year}", f"{number} {month}"]
            texts += [f"{number} of {month}", f"{number} {month}, {day.year}", f"{month} the {number}"]
    numbers = [f"{day.year}-{day:%m}-{day:%d}", f"{day.year}/{day:%m}/{day:%d}", f"{day.year}.{day.month}.{day.day}"]
    return [*texts, *numbers, f"{day:%m}/{day:%d}/{day.year}", f"{day.month}/{day.day}/{day.year}"]


def _other_day(place: Place, shift: int) -> tuple[str, str] | None:
    """Move a day; with no year beside it within its year. All days of a query are moved alike."""
    style = next((s for s in ("%Y-%m-%d", "%m/%d/%Y", "%d/%m/%Y", "%d-%m-%Y") if _parses(place.value, s)), None)
    if style is None:
        return None
    day = dt.datetime.strptime(place.value, style).date()
    styles = [text.lower() for text in _day_styles(day)]
    if place.text == place.value:
        other = day + dt.timedelta(days=shift)
        return other.strftime(style), other.strftime(style)
    if place.text.lower() not in styles:
        return None
    at = styles.index(place.text.lower())
    other = day + dt.timedelta(days=shift)
    if str(day.year) not in place.text and other.year != day.year:
        return None
    return other.strftime(style), _day_styles(other)[at]


def _parses(text: str, style: str) -> bool:
    try:
        return dt.datetime.strptime(text, style).strftime(style) == text
    except ValueError:
        return False


def _time_styles(hour: int, minute: int) -> list[str]:
    half, twelve = ("am", "pm")[hour >= 12], hour % 12 or 12
    texts = [f"{hour:02}:{minute:02}", f"{hour}:{minute:02}"]
    for end in (half, f" {half}", half.upper(), f" {half.upper()}", f" {half[0]}.m."):
        texts += [f"{twelve}:{minute:02}{end}", f"{twelve}{end}" if minute == 0 else ""]
    return texts


def _other_time(place: Place, rng: Rng) -> tuple[str, str] | None:
    hour, minute, *rest = (int(part) for part in place.value.split(":"))
    styles = _time_styles(hour, minute)
    if place.text not in styles or any(rest):
        return None
    minute = rng.choice((0, 15, 30, 45)) if minute else 0
    hour = rng.randrange(7, 22)
    value = f"{hour:02}:{minute:02}" + (":00" if rest else "")
    return value, _time_styles(hour, minute)[styles.index(place.text)]
