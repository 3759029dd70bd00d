"""Values brought to a slot's type: "5" is 5, "Yes" and 1 are true, "a" is ["a"]."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator

from .operators.base import offset_at
from .operators.numbers import all_numbers
from .schema import MISSING, Array, Choice, Scalar, Schema
from .text import Json, WrittenFloat
from .validation import violation

MAX_NUMBER = 64  # characters of a number that is written as text
NUMERAL = re.compile(r"\s*[-+]?\d{1,15}(\.\d{1,15})?\s*", re.A)
TRUE, FALSE = ("true", "yes", "y", "on", "1", "enabled"), ("false", "no", "n", "off", "0", "disabled")
JOINTS = re.compile(r"[\s_-]+")  # what joins the words of a name


def coerced(schema: Schema, value: Json) -> Iterator[Json]:
    """Yield the valid values of a slot's type that a value may stand for: "5" is 5, "Yes" is true, "a" is ["a"]."""
    for found in _coerced(schema, value):
        if violation(schema, found) is None:
            yield found


def _coerced(schema: Schema, value: Json) -> Iterator[Json]:
    if isinstance(schema, Scalar):
        yield from _as_scalar(schema, value)
    elif isinstance(schema, Choice):
        for alternative in schema.alternatives:
            yield from _as_scalar(alternative, value)
    elif isinstance(schema, Array):
        parts = value if isinstance(value, list) else [value]
        items = [next(coerced(schema.items, part), MISSING) for part in parts]
        if not any(item is MISSING for item in items):
            yield items


def _as_scalar(schema: Scalar, value: Json) -> Iterator[Json]:
    if schema.options is not None and isinstance(value, str):
        folded = fold_of(value)
        yield from (option for option in schema.options if isinstance(option, str) and fold_of(option) == folded)
    if schema.type in ("number", "integer"):
        number = number_of(value)
        if isinstance(number, float) and number.is_integer() and schema.type == "integer":
            number = int(number)
        if number is not None:
            yield number
    elif schema.type == "boolean":
        word = str(value).strip().lower()
        if word in TRUE:
            yield True
        elif word in FALSE:
            yield False
    elif schema.type == "string":
        if isinstance(value, str):
            yield value
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            yield value.text if isinstance(value, WrittenFloat) else str(value)


def with_offset(schema: Schema, value: Json, now: dt.datetime | None) -> Iterator[Json]:
    """Yield the date-time that a value is but for its offset from UTC, with that of the zone of ``now``."""
    if not isinstance(schema, Scalar) or schema.format != "date-time" or not isinstance(value, str):
        return
    try:
        moment = dt.datetime.fromisoformat(value)
    except ValueError:
        return
    if moment.tzinfo is None:
        found = f"{moment.isoformat()}{offset_at(moment.date(), moment.time(), now)}"
        if violation(schema, found) is None:
            yield found


def number_in(schema: Schema, value: Json) -> Iterator[Json]:
    """Yield the number that a text has one of, where a number is wanted: "40 percent" is 40."""
    if isinstance(schema, Scalar) and schema.type in ("number", "integer") and isinstance(value, str):
        found = {number for _, _, number, _ in all_numbers(value[:MAX_NUMBER])}
        for number in found if len(found) == 1 else ():
            yield from coerced(schema, number)


def number_of(value: Json) -> int | float | None:
    """Return the number that a value is, or that a text writes in digits."""
    if isinstance(value, bool):
        return None
    if isinstance(value, (int, float)):
        return value
    if isinstance(value, str) and NUMERAL.fullmatch(value):
        return float(value) if "." in value else int(value)
    return None


def fold_of(text: str) -> str:
    """Return a text without case and without what joins its words."""
    return JOINTS.sub("", text).casefold()
