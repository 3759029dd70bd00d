"""Places and currencies: cities with their state or country, countries by other names, ISO 4217."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from ..text import Json
from .base import Operator, may_have, once_per_query
from .words import runs_of

MAX_NAMESAKES = 3  # cities of one name, the largest ones

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


# ---- cities and countries --------------------------------------------------------------------------------------------

_BEFORE_PLACE = re.compile(r"\b(?:in|to|from|at|near|for|of|around|visit) $", re.I)


class City(NamedTuple):
    """A city, the code of its state in the United States or of its country, and how that may be written."""

    name: str
    code: str
    regions: tuple[str, ...]
    people: int


@lru_cache(maxsize=1)
def _gazetteer() -> tuple[dict[str, tuple[City, ...]], dict[str, tuple[str, str]]]:
    """Return the cities by their names in lower case, the largest first, and countries as (name, code) by theirs."""
    cities: dict[str, list[City]] = {}
    countries: dict[str, tuple[str, str]] = {}
    for line in (Path(__file__).parent / "cities.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            continue
        code, name, others, inside = line.split("|")
        aliases = [other for other in others.split(",") if other]
        if code.startswith("US-"):
            code = code[3:]
            regions: tuple[str, ...] = (code,)
        else:
            countries |= {other.lower(): (name, code) for other in (name, *aliases)}
            regions = (name, *(other for other in aliases[:1] if other.isupper()), code)
        for entry in inside.split(";") if inside else ():
            names, _, thousands = entry.rpartition(":")
            city, *nicknames = names.split("=")
            for known in (city, *nicknames):
                cities.setdefault(known.lower(), []).append(City(city, code, regions, int(thousands)))
    return {
        name: tuple(sorted(some, key=lambda city: -city.people)[:MAX_NAMESAKES]) for name, some in cities.items()
    }, countries


@once_per_query
def _known_names(text: str) -> Iterator[tuple[int, int, str, str]]:
    """Yield the runs of words that are a city's or a country's name, also in lower case."""
    cities, countries = _gazetteer()
    for start, end, words in runs_of(text):
        name = words.lower()
        if name in cities or name in countries:
            yield start, end, words, name


@once_per_query
def _cities(text: str) -> Iterator[tuple[int, int, str, tuple[City, ...]]]:
    """Yield the cities that a text names: with a capital, or behind a word such as "in"."""
    known, _ = _gazetteer()
    for start, end, words, name in _known_names(text):
        if name in known and (words[0].isupper() or _BEFORE_PLACE.search(text, max(0, start - 8), start)):
            yield start, end, words, known[name]


def _find_city(text: str, now: dt.datetime | None) -> Iterator[tuple[int, int, Json]]:
    """Find cities as "City, ST" or "City, Country", where the text says neither."""
    for start, end, words, found in _cities(text):
        for city in found:
            names = (city.name,) if words.lower() == city.name.lower() else (city.name, words.title())
            yield from ((start, end, f"{name}, {region}") for name in names for region in city.regions)


def _write_city(value: Json, now: dt.datetime | None) -> Iterator[str]:
    name, comma, _ = value.rpartition(", ") if isinstance(value, str) else ("", "", "")
    if comma and any(found == value for _, _, found in _find_city(f"in {name}", now)):
        yield f"in {name}"


def _find_full_name(text: str, now: dt.datetime | None) -> Iterator[tuple[int, int, Json]]:
    """Find cities by another name or in small letters: "LA" is "Los Angeles", "in paris" is "Paris"."""
    for start, end, words, found in _cities(text):
        if words != found[0].name:
            yield start, end, found[0].name


def _write_full_name(value: Json, now: dt.datetime | None) -> Iterator[str]:
    if isinstance(value, str) and value.lower() in _gazetteer()[0]:
        for name, found in _gazetteer()[0].items():
            if found[0].name == value:
                yield f"in {name}"


def _find_region(text: str, now: dt.datetime | None) -> Iterator[tuple[int, int, Json]]:
    """Find the state or the country that a city lies in, by its code and by its name."""
    for start, end, _, found in _cities(text):
        city = found[0]
        yield start, end, city.code
        if len(city.regions) == 1:
            yield from ((start, end, name.title()) for name, code in _STATES.items() if code == city.code)
        else:
            yield start, end, city.regions[0]


def _write_region(value: Json, now: dt.datetime | None) -> Iterator[str]:
    for name in ("Los Angeles", "Chicago", "Paris", "Tokyo") if isinstance(value, str) else ():
        if any(found == value for _, _, found in _find_region(f"in {name}", now)):
            yield f"in {name}"


def _find_country(text: str, now: dt.datetime | None) -> Iterator[tuple[int, int, Json]]:
    """Find countries by name, short name or adjective, as their name and as ISO 3166 writes them."""
    _, countries = _gazetteer()
    for start, end, words, known in _known_names(text):
        name, code = countries.get(known, ("", ""))
        if name and words[0].isupper():
            yield start, end, name
            yield start, end, code


def _write_country(value: Json, now: dt.datetime | None) -> Iterator[str]:
    if isinstance(value, str):
        for other, (name, code) in _gazetteer()[1].items():
            if value in (name, code) and "." not in other:
                yield other.title() if len(other) > 3 else other.upper()


# ---- currencies -----------------------------------------------------------------------------------------------------

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
_CURRENCY_WORDS = tuple(dict.fromkeys(name.split()[-1] for name in _CURRENCIES))
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
    for match in _CURRENCY.finditer(text) if may_have(text, _CURRENCY_WORDS) else ():
        name = match.group().lower()
        for known in (name, name.removesuffix("s"), name.removesuffix("es")):
            if known in _CURRENCIES:
                yield match.start(), match.end(), _CURRENCIES[known]
                break


def _write_currency(value: Json, now: dt.datetime | None) -> Iterator[str]:
    yield from (name for name, code in _CURRENCIES.items() if code == value)


OPERATORS = (
    Operator("place", _find_place, _write_place),
    Operator("city", _find_city, _write_city),
    Operator("full name", _find_full_name, _write_full_name),
    Operator("region", _find_region, _write_region),
    Operator("country", _find_country, _write_country),
    Operator("currency", _find_currency, _write_currency),
)
