"""Places and currencies."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator

from ..text import Json
from .base import Operator

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


OPERATORS = (
    Operator("place", _find_place, _write_place),
    Operator("currency", _find_currency, _write_currency),
)
