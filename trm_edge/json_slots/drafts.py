"""Drafts: a call, or its arguments, in the forms that language models write and their clients hand over."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import TrmInputError
from .schema import MISSING, Missing, Object
from .text import Json, JsonTextError, dumped, dumps, parse, parse_lenient
from .validation import violation

_ARGUMENTS = ("arguments", "parameters", "input", "args")  # what a call's arguments are called


@dataclass(frozen=True)
class Draft:
    """A draft of the arguments: its text, the value read from it, if any, and whether it is valid as it stands."""

    text: str
    value: Json | Missing
    valid: bool


def read_draft(arguments: Object, text: str) -> Draft:
    """Read a draft strictly, and leniently where that fails.

    Where it is not valid, arguments are also looked for in a text within the text, a list of one, and a whole call.
    """
    if not text.strip():
        return Draft(text, MISSING, False)
    value, strictly = read_json(text)
    valid = strictly and violation(arguments, value) is None
    return Draft(text, value if valid else _unwrapped(arguments, value), valid)


def read_json(text: str) -> tuple[Json | Missing, bool]:
    """Return what a text holds, read strictly, and leniently where that fails; and whether it was strictly."""
    for reader in (parse, parse_lenient):
        try:
            return reader(text), reader is parse
        except JsonTextError:
            continue
    return MISSING, False


def _unwrapped(arguments: Object, value: Json | Missing) -> Json | Missing:
    if isinstance(value, str):
        value, _ = read_json(value)
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, Mapping) and value.keys() <= {"name", *_ARGUMENTS} and not value.keys() & arguments.properties:
        inner = next((value[key] for key in _ARGUMENTS if key in value), value)
        return read_json(inner)[0] if isinstance(inner, str) else inner
    return value


def read_call(draft: Any) -> tuple[str | None, str | None]:
    """Return name and text of the arguments of a drafted call, each None where it cannot be told.

    Taken are a call's text; an object with ``name`` and ``arguments`` (Anthropic: ``input``), an object or text;
    ``{"function": ...}`` around it, ``{"tool_calls": [...]}`` or a list around that, of one call; and what has a
    ``model_dump`` that returns one of these, as the clients' own classes have.

    Raises
    ------
    TrmInputError
        Where it is something else, holds several calls, or its arguments cannot be written as JSON. A text is never
        refused.
    """
    written = isinstance(draft, str)
    if written:
        draft, _ = read_json(draft)
        draft = None if draft is MISSING else draft
    draft = dumped(draft)
    if isinstance(draft, Mapping) and isinstance(draft.get("tool_calls"), list):
        draft = draft["tool_calls"]
    if isinstance(draft, list) and len(draft) == 1:
        draft = dumped(draft[0])
    if not isinstance(draft, Mapping):
        if draft is None or draft == [] or written:
            return None, None
        given = f"{len(draft)} in a list" if isinstance(draft, list) else type(draft).__name__
        raise TrmInputError(f"draft: expected one call as text, an object or None, got {given}")
    call = draft["function"] if isinstance(draft.get("function"), Mapping) else draft
    name = call.get("name", call.get("function"))
    arguments = next((call[key] for key in _ARGUMENTS if key in call), None)
    if isinstance(arguments, Mapping):
        try:
            arguments = dumps(dict(arguments))
        except (TypeError, ValueError, RecursionError) as error:
            raise TrmInputError(f"draft: its arguments are not JSON: {error}") from None
    return (name if isinstance(name, str) else None), (arguments if isinstance(arguments, str) else None)
