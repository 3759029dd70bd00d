"""Candidates: what a slot of a tool call may become, given the query, the draft and the schema.

A slot's answer is one choice among: nothing (where it may be left out), the draft's own value, the values that the
schema names (``enum``, ``const``, ``default``, true and false, null), literals quoted in its description (for an array
also those of them that the query mentions), and what the operators read from the query, brought to the slot's type.
Only values that are valid for the slot are candidates.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .operators import Span
from .schema import MISSING, Array, Choice, Missing, Object, Scalar, Schema, takes_null, violation
from .text import Json, dumps

SOURCES = ("omit", "draft", "option", "default", "literal", "mentioned", "span", "tool")
_LITERAL = re.compile(r"(?<!\w)(['\"`])([^'\"`\n]{1,80})\1(?!\w)")
_EXAMPLE = re.compile(r"\b(?:e\.g\.|such as|for example|for instance),? ([A-Za-z][^.;()'\"\n]{0,60})", re.I)
_NUMERAL = re.compile(r"\s*[-+]?\d{1,15}(\.\d{1,15})?\s*", re.A)
_JOINTS = re.compile(r"[\s_-]+")
_LITERAL_NUMBER = re.compile(r"(?<![\w.])-?\d{1,9}(?:\.\d{1,6})?(?![\w.]\w)")


@dataclass(frozen=True)
class Candidate:
    """A value (``MISSING``: leave the slot out) and its source, one of ``SOURCES``.

    A span also has an operator and its place in the query; ``note`` is what is said about an option elsewhere.
    """

    value: Json | Missing
    source: str
    operator: str = ""
    start: int = -1
    end: int = -1
    note: str = ""


def candidates_of(schema: Schema, optional: bool, draft: Json | Missing, spans: Sequence[Span]) -> dict[Key, Candidate]:
    """Return a slot's candidates by ``key_of`` their values, those of the draft and the schema before the query's."""
    found: dict[Key, Candidate] = {}
    for candidate in _proposals(schema, optional, draft, spans):
        found.setdefault(key_of(candidate.value), candidate)
    return found


Key = tuple[str, Json]


def key_of(value: Json | Missing) -> Key:
    """Return what tells values apart as JSON text does: 1, 1.0, true and "1" are four."""
    if isinstance(value, (list, dict)):
        return "json", dumps(value)
    return type(value).__name__, value


def _proposals(schema: Schema, optional: bool, draft: Json | Missing, spans: Sequence[Span]) -> Iterator[Candidate]:
    if optional:
        yield Candidate(MISSING, "omit")
    if draft is not MISSING:
        if violation(schema, draft) is None:
            yield Candidate(draft, "draft")
        for value in coerced(schema, draft):
            yield Candidate(value, "draft")
    for value in _options(schema):
        yield Candidate(value, "option")
    if schema.default is not MISSING and violation(schema, schema.default) is None:
        yield Candidate(schema.default, "default")
    if isinstance(schema, Scalar) and schema.options is not None:
        return
    for literal in _literals(schema):
        for value in coerced(schema, literal):
            yield Candidate(value, "literal")
    if isinstance(schema, Array) and isinstance(schema.items, Scalar):
        for value in coerced(schema, _mentioned(schema, spans)):
            yield Candidate(value, "mentioned")
    numeric = isinstance(schema, Scalar) and schema.type in ("number", "integer")
    for span in spans:
        if numeric and isinstance(span.value, str) and not _NUMERAL.fullmatch(span.value):
            continue  # what spells a number otherwise, an operator has read as one
        for value in coerced(schema, span.value):
            yield Candidate(value, "span", span.operator, span.start, span.end)


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
        folded = _fold(value)
        yield from (option for option in schema.options if isinstance(option, str) and _fold(option) == folded)
    if schema.type in ("number", "integer"):
        number = _number(value)
        if isinstance(number, float) and number.is_integer() and schema.type == "integer":
            number = int(number)
        if number is not None:
            yield number
    elif schema.type == "boolean":
        word = value.lower() if isinstance(value, str) else value
        if isinstance(word, bool):
            yield word
        elif word in ("true", "yes", "on"):
            yield True
        elif word in ("false", "no", "off"):
            yield False
    elif schema.type == "string":
        if isinstance(value, str):
            yield value
        elif isinstance(value, int) and not isinstance(value, bool):
            yield str(value)


def _number(value: Json) -> int | float | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, (int, float)):
        return value
    if isinstance(value, str) and _NUMERAL.fullmatch(value):
        return float(value) if "." in value else int(value)
    return None


def _fold(text: str) -> str:
    return _JOINTS.sub("", text).casefold()


def _options(schema: Schema) -> Iterator[Json]:
    if isinstance(schema, Scalar):
        if schema.options is not None:
            yield from (option for option in schema.options if violation(schema, option) is None)
        elif schema.type == "boolean":
            yield from (True, False)
    elif isinstance(schema, Choice):
        for alternative in schema.alternatives:
            yield from (option for option in _options(alternative) if violation(schema, option) is None)
    if takes_null(schema):
        yield None


def _mentioned(schema: Array, spans: Sequence[Span]) -> list[Json]:
    """Return those of an array's possible items that the query mentions, in its order."""
    starts: dict[str, int] = {}
    for span in spans:
        if span.operator in ("words", "singular") and isinstance(span.value, str):
            starts.setdefault(_fold(span.value), span.start)
    possible = {str(value): value for value in (*_options(schema.items), *_literals(schema))}
    found = [(starts[_fold(text)], text) for text in possible if _fold(text) in starts]
    return [possible[text] for _, text in sorted(found)]


def _literals(schema: Schema) -> Iterator[Json]:
    """Yield what a description quotes or gives as an example, and the numbers that it names."""
    texts = [schema.description]
    if isinstance(schema, Array) and not isinstance(schema.items, Object):
        texts.append(schema.items.description)
    for text in texts:
        for match in _LITERAL.finditer(text):
            yield match.group(2)
        for match in _EXAMPLE.finditer(text):
            yield match.group(1).strip()
        for match in _LITERAL_NUMBER.finditer(text):
            yield _number(match.group())
