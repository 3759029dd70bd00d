"""Validation: whether a value is one that a schema allows, and if not, where and why."""

from __future__ import annotations

import datetime
import ipaddress
import math
import re
import uuid
from fractions import Fraction
from typing import Any, NamedTuple

from .schema import Array, Choice, Object, Path, Scalar, Schema, pointer_of, takes_null
from .text import Json, identity_of, type_name

MAX_LISTED = 32  # options in a message


class Violation(NamedTuple):
    """What is wrong with a value: the path of a part, what was expected there, and what it is."""

    path: Path
    expected: str
    given: str

    def __str__(self) -> str:
        return f"{pointer_of(self.path) or '/'}: expected {self.expected}, got {self.given}"


def violation(schema: Schema, value: Json, at: Path = ()) -> Violation | None:
    """Return what is wrong with a value, or None where it is valid."""
    if value is None and takes_null(schema):
        return None
    if isinstance(schema, Object):
        return _object_violation(schema, value, at)
    if isinstance(schema, Array):
        return _array_violation(schema, value, at)
    if isinstance(schema, Choice):
        fits = sum(violation(one, value, at) is None for one in schema.alternatives)
        if fits and schema.exactly_one:  # then no other may fit, not even in doubt
            fits = sum(_scalar_violation(one, value, at, doubtful=True) is None for one in schema.alternatives)
        if fits == 1 or (fits > 1 and not schema.exactly_one):
            return None
        wanted = f"{'one' if schema.exactly_one else 'any'} of {len(schema.alternatives)} alternatives"
        return Violation(at, wanted, f"{shown(value)}, which fits {fits}")
    return _scalar_violation(schema, value, at)


def _object_violation(schema: Object, value: Json, at: Path) -> Violation | None:
    if not isinstance(value, dict):
        return Violation(at, "an object", shown(value))
    for name in sorted(schema.required - value.keys()):
        return Violation(at, f"the property {name!r}", "none")
    for name, inner in value.items():
        known = schema.properties.get(name)
        if known is None and schema.closed:
            return Violation(at, f"only the properties {', '.join(schema.properties) or '(none)'}", repr(name))
        known = known or schema.others
        wrong = violation(known, inner, (*at, name)) if known is not None else None
        if wrong is not None:
            return wrong
    most = math.inf if schema.max_properties is None else schema.max_properties
    if not schema.min_properties <= len(value) <= most:
        return Violation(at, f"{schema.min_properties} to {most} properties", str(len(value)))
    for name, needed in schema.dependent_required.items():
        if name in value and not needed <= value.keys():
            return Violation(at, f"beside {name!r} also {sorted(needed - value.keys())}", "none")
    return None


def _array_violation(schema: Array, value: Json, at: Path) -> Violation | None:
    if not isinstance(value, list):
        return Violation(at, "an array", shown(value))
    most = math.inf if schema.max_items is None else schema.max_items
    if not schema.min_items <= len(value) <= most:
        return Violation(at, f"{schema.min_items} to {most} items", str(len(value)))
    before: set[Any] = set()
    for index, item in enumerate(value):
        wrong = violation(schema.items, item, (*at, index))
        if wrong is not None:
            return wrong
        if schema.unique:
            identity = identity_of(item)
            if identity in before:
                return Violation((*at, index), "an item that did not come before", shown(item))
            before.add(identity)
    return None


def _scalar_violation(schema: Scalar, value: Json, at: Path, doubtful: bool = False) -> Violation | None:
    """Return what is wrong; ``doubtful``: what only some validators would find wrong is not."""
    if not has_type(value, schema.type):
        return Violation(at, f"a value of type {schema.type}", shown(value))
    if schema.options is not None and identity_of(value) not in schema.allowed:
        return Violation(at, f"one of {_listed(schema.options)}", shown(value))
    if isinstance(value, str):
        most = math.inf if schema.max_length is None else schema.max_length
        if not schema.min_length <= len(value) <= most:
            return Violation(at, f"{schema.min_length} to {most} characters", str(len(value)))
        if schema.format in FORMATS and not doubtful and not FORMATS[schema.format](value):
            return Violation(at, f"the format {schema.format}", shown(value))
    elif schema.type in ("number", "integer"):
        return _number_violation(schema, value, at, doubtful)
    return None


def _number_violation(schema: Scalar, value: float, at: Path, doubtful: bool) -> Violation | None:
    if schema.minimum is not None and value < schema.minimum:
        return Violation(at, f"at least {schema.minimum}", shown(value))
    if schema.maximum is not None and value > schema.maximum:
        return Violation(at, f"at most {schema.maximum}", shown(value))
    if schema.exclusive_minimum is not None and value <= schema.exclusive_minimum:
        return Violation(at, f"more than {schema.exclusive_minimum}", shown(value))
    if schema.exclusive_maximum is not None and value >= schema.exclusive_maximum:
        return Violation(at, f"less than {schema.exclusive_maximum}", shown(value))
    if schema.multiple_of is not None:
        seen = _multiple_seen(value, schema.multiple_of)
        if not (any(seen) if doubtful else all(seen)):
            return Violation(at, f"a multiple of {schema.multiple_of}", shown(value))
    return None


def _multiple_seen(value: float, of: float) -> tuple[bool, ...]:
    """Whether it is a multiple by each way to look: as decimals are written, and as Python's numbers divide."""
    written = (Fraction(repr(value)) / Fraction(repr(of))).denominator == 1
    try:
        return written, value % of == 0 if isinstance(of, int) else (value / of).is_integer()
    except OverflowError:  # an integer beyond float64: some see it so, some otherwise
        return True, False


def has_type(value: Json, name: str) -> bool:
    """Return whether a value is of a type of JSON Schema, or any; 1.0 is an integer, true is none."""
    if name == "any":
        return True
    if isinstance(value, bool):
        return name == "boolean"
    if name == "integer":
        return isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    return type_name(value) == name


def shown(value: Json) -> str:
    """Return a value for a message, cut where it is long."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _listed(options: tuple[Json, ...]) -> str:
    """Return the first options for a message."""
    more = len(options) - MAX_LISTED
    return f"{[*options[:MAX_LISTED]]}" + (f" or {more} others" if more > 0 else "")


# ---- formats ---------------------------------------------------------------------------------------------------------

_DATE = re.compile(r"\d{4}-\d\d-\d\d", re.A)
_TIME = re.compile(r"(\d\d):(\d\d):(\d\d)(?:\.\d+)?(?:[zZ]|[+-](\d\d):(\d\d))", re.A)
_EMAIL = re.compile(r"[^@\s]+@[^@\s]+")
_POINTER = re.compile(r"(?:/(?:[^~/]|~[01])*)*")
_RELATIVE_POINTER = re.compile(rf"(?:0|[1-9]\d*)(?:#|{_POINTER.pattern})", re.A)
MAX_REGEX = 1000  # characters
MAX_HOSTNAME = 253  # characters, by RFC 1123
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_HOSTNAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_DURATION = re.compile(  # RFC 3339, appendix A
    r"P(?:\d+W|(?:\d+Y(?:\d+M(?:\d+D)?)?|\d+M(?:\d+D)?|\d+D)?(?:T(?:\d+H(?:\d+M(?:\d+S)?)?|\d+M(?:\d+S)?|\d+S))?)", re.A
)
_PLAIN = r"[A-Za-z0-9._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2}"  # what RFC 3986 has everywhere in a URI
_PATH = rf"(?:{_PLAIN}|[:@])"
_REFERENCE = re.compile(
    rf"(?:(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*):)?"
    rf"(?://(?:(?:{_PLAIN}|:)*@)?(?:\[(?P<address>[0-9A-Fa-f:.]+)\]|(?:{_PLAIN})*)(?::\d*)?(?:/{_PATH}*)*"
    rf"|/(?:{_PATH}+(?:/{_PATH}*)*)?|(?P<first>{_PATH}+)(?:/{_PATH}*)*|)"
    rf"(?:\?(?:{_PATH}|[/?])*)?(?:\#(?:{_PATH}|[/?])*)?",
    re.A,
)


def _is_date(text: str) -> bool:
    try:
        return _DATE.fullmatch(text) is not None and bool(datetime.date.fromisoformat(text))
    except ValueError:
        return False


def _is_time(text: str) -> bool:
    """RFC 3339's full-time, but for leap seconds, which many validators refuse."""
    match = _TIME.fullmatch(text)
    if match is None:
        return False
    hour, minute, second, ahead, minutes = (int(part or 0) for part in match.groups())
    return max(hour, ahead) < 24 and max(minute, second, minutes) < 60


def _is_date_time(text: str) -> bool:
    return text[10:11] in ("T", "t") and _is_date(text[:10]) and _is_time(text[11:])


def _is_email(text: str) -> bool:
    return _EMAIL.fullmatch(text) is not None


def _is_uuid(text: str) -> bool:
    try:
        return str(uuid.UUID(text)) == text.lower()
    except ValueError:
        return False


def _is_hostname(text: str) -> bool:
    return len(text) <= MAX_HOSTNAME and _HOSTNAME.fullmatch(text) is not None


def _is_duration(text: str) -> bool:
    return len(text) > 1 and _DURATION.fullmatch(text) is not None


def _is_reference(text: str, absolute: bool = False) -> bool:
    """RFC 3986's URI-reference; a path without a scheme has no colon in its first part. ``absolute``: its URI."""
    match = _REFERENCE.fullmatch(text)
    if match is None or (match["address"] is not None and not _is_address(6)(match["address"])):
        return False
    return match["scheme"] is not None or (not absolute and ":" not in (match["first"] or ""))


def _is_uri(text: str) -> bool:
    return _is_reference(text, absolute=True)


def _is_address(version: int) -> Any:
    def check(text: str) -> bool:
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            return False
        return address.version == version and "%" not in text

    return check


def _is_regex(text: str) -> bool:
    try:
        return len(text) <= MAX_REGEX and bool(re.compile(text))
    except (re.error, OverflowError, RecursionError):
        return False


FORMATS = {
    "date": _is_date,
    "time": _is_time,
    "date-time": _is_date_time,
    "email": _is_email,
    "uuid": _is_uuid,
    "ipv4": _is_address(4),
    "ipv6": _is_address(6),
    "idn-email": _is_email,
    "json-pointer": lambda text: _POINTER.fullmatch(text) is not None,
    "relative-json-pointer": lambda text: _RELATIVE_POINTER.fullmatch(text) is not None,
    "regex": _is_regex,
    "hostname": _is_hostname,
    "duration": _is_duration,
    "uri": _is_uri,
    "uri-reference": _is_reference,
}
"""Formats that are checked. Others are remarks, as JSON Schema has it: ``int32``, ``password``, ``color``."""
UNCHECKED = ("idn-hostname", "iri", "iri-reference", "uri-template")
"""Formats that cannot be checked here, and are checked elsewhere."""
