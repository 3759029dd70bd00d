"""Drafts: a call, or its arguments, in the forms that language models write and their clients hand over."""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import TrmInputError
from .schema import MISSING, Missing, Object
from .text import Json, JsonLimitError, JsonTextError, document_of, dumped, dumps, parse, parse_lenient, source_of
from .validation import violation

_NAMES = ("name", "function", "tool_name", "tool", "action")  # what the function of a call is called
_ARGUMENTS = ("arguments", "parameters", "input", "args", "tool_input", "action_input")  # what its arguments are called
_BEFORE_ARGUMENTS = re.compile(rf"['\"]?\b(?:{'|'.join(_ARGUMENTS)})\b['\"]?\s*[:=]\s*")
MAX_PYTHON = 4096  # characters of a call in Python's form


@dataclass(frozen=True)
class Draft:
    """A draft of the arguments: its text, the value read from it, if any, and whether it is valid as it stands.

    ``too_large`` is one that is beyond what is looked at: nothing is known of it, and nothing is put in its place.
    """

    text: str
    value: Json | Missing
    valid: bool
    too_large: bool = False


def read_draft(arguments: Object, text: str) -> Draft:
    """Read a draft strictly, and leniently where that fails.

    Where it is not valid, arguments are also looked for in a text within the text, a list of one, and a whole call.
    """
    if not text.strip():
        return Draft(text, MISSING, False)
    try:
        value, strictly = read_json(text)
        valid = strictly and violation(arguments, value) is None
        return Draft(text, value if valid else _unwrapped(arguments, value), valid)
    except JsonLimitError:
        return Draft(text, MISSING, False, too_large=True)


def read_json(text: str) -> tuple[Json | Missing, bool]:
    """Return what a text holds, read strictly, and leniently where that fails; and whether it was strictly.

    Raises
    ------
    JsonLimitError
        Where it is too long or too deep to be looked at.
    """
    for reader in (parse, parse_lenient):
        try:
            return reader(text), reader is parse
        except JsonLimitError:
            raise
        except JsonTextError:
            continue
    return MISSING, False


def _unwrapped(arguments: Object, value: Json | Missing) -> Json | Missing:
    if isinstance(value, str):
        value, _ = read_json(value)
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if (
        isinstance(value, Mapping)
        and value.keys() <= {*_NAMES, *_ARGUMENTS}
        and not value.keys() & arguments.properties
    ):
        inner = next((value[key] for key in _ARGUMENTS if key in value), value)
        return read_json(inner)[0] if isinstance(inner, str) else inner
    return value


# ---- whole calls -----------------------------------------------------------------------------------------------------


def read_call(draft: Any, names: Collection[str | None] = ()) -> tuple[str | None, str | None]:
    """Return name and text of the arguments of a drafted call, each None where it cannot be told.

    Parameters
    ----------
    draft
        An object with a name and arguments under one of the keys that are common (OpenAI's ``name`` and ``arguments``,
        Anthropic's ``input``, ReAct's ``action`` and ``action_input``), the arguments as an object or text;
        ``{"function": ...}`` around it, ``{"tool_calls": [...]}`` or a list around that, of one call; what has a
        ``model_dump`` that returns one of these, as the clients' own classes have; or the text of any of them, also
        with prose around it. With ``names`` also ``{name: arguments}``, arguments without a name, and a text that names
        one function and has its arguments behind it, as JSON or as Python writes a call.
    names
        The functions that are offered, as far as they have names.

    Raises
    ------
    TrmInputError
        Where it is something else, holds several calls, or its arguments cannot be written as JSON. A text is never
        refused.
    """
    offered = {name for name in names if name is not None}
    if isinstance(draft, str):
        return _written_call(draft, offered)
    _, call = _call_in(draft)
    if call is None:
        if draft is None or draft == []:
            return None, None
        draft = dumped(draft)
        given = f"{len(draft)} in a list" if isinstance(draft, list) else type(draft).__name__
        raise TrmInputError(f"draft: expected one call as text, an object or None, got {given}")
    name, _, arguments = _parts(call, offered)
    if isinstance(arguments, Mapping):
        try:
            arguments = dumps(dict(arguments))
        except (TypeError, ValueError, RecursionError) as error:
            raise TrmInputError(f"draft: its arguments are not JSON: {error}") from None
    return name, arguments if isinstance(arguments, str) else None


def _call_in(value: Any) -> tuple[tuple[str | int, ...], Mapping[str, Any] | None]:
    """Return the object of the one call that a value is or holds, and where; None where there is none, or several."""
    path: tuple[str | int, ...] = ()
    value = dumped(value)
    if isinstance(value, Mapping) and isinstance(value.get("tool_calls"), list):
        path, value = ("tool_calls",), value["tool_calls"]
    if isinstance(value, list) and len(value) == 1:
        path, value = (*path, 0), dumped(value[0])
    if isinstance(value, Mapping) and isinstance(value.get("function"), Mapping):
        path, value = (*path, "function"), value["function"]
    return path, value if isinstance(value, Mapping) else None


def _parts(call: Mapping[str, Any], names: Collection[str]) -> tuple[str | None, str | None, Any]:
    """Return a call's name, the key of its arguments, None where they are the call itself, and the arguments."""
    named = next((key for key in _NAMES if isinstance(call.get(key), str)), None)
    name = None if named is None else call[named]
    key = next((key for key in _ARGUMENTS if key in call), None)
    if key is not None or not names:
        return name, key, None if key is None else call[key]
    if name in names:
        return name, None, {other: value for other, value in call.items() if other != named}
    for only in call if len(call) == 1 else ():
        if only in names:
            return only, only, call[only]
    return None, None, call or None


def _written_call(text: str, names: Collection[str]) -> tuple[str | None, str | None]:
    """Read a call from a text. Its arguments are told as they are spelt there, broken where they are."""
    text = _without_thoughts(text)
    try:
        value, strictly = read_json(text)
    except JsonLimitError:
        return None, text
    path, call = _call_in(value)
    if call is None:
        name = _named_in(text, names)
        return name, None if name is None else _python_arguments(text, name)
    name, key, arguments = _parts(call, names)
    name = _named_in(text, names) if name is None else name
    if not isinstance(arguments, Mapping):
        return name, arguments if isinstance(arguments, str) else None
    if key is None and arguments is not call:  # beside the name
        return name, dumps(dict(arguments))
    if strictly:
        return name, source_of(text, path if key is None else (*path, key))
    begun = _BEFORE_ARGUMENTS.search(text) if key is not None else None
    behind = document_of(text[text.find("{", 0 if begun is None else begun.end()) :])
    return name, behind if read_json(behind)[0] == arguments else dumps(dict(arguments))


def _without_thoughts(text: str) -> str:
    """Return a text without what a model thinks aloud in it, between ``<think>`` and ``</think>``."""
    kept, at = [], 0
    while (begin := text.find("<think>", at)) >= 0 and (end := text.find("</think>", begin)) >= 0:
        kept.append(text[at:begin])
        at = end + len("</think>")
    return "".join([*kept, text[at:]])


def _named_in(text: str, names: Collection[str]) -> str | None:
    """Return the one function that a text names, or None."""
    found = [one for one in names if re.search(rf"(?<![\w-]){re.escape(one)}(?![\w-])", text)]
    return found[0] if len(found) == 1 else None


def _python_arguments(text: str, name: str) -> str | None:
    """Return the arguments of a call that a text writes as Python does, ``name(city="Paris")``, as JSON, or None."""
    begun, end = text.find(f"{name}("), text.rfind(")")
    if begun < 0 or not begun < end < begun + MAX_PYTHON:
        return None
    try:
        call = ast.parse(text[begun : end + 1], mode="eval").body
        if not isinstance(call, ast.Call) or call.args:
            return None
        return dumps({one.arg: ast.literal_eval(one.value) for one in call.keywords if one.arg is not None})
    except (SyntaxError, TypeError, ValueError, MemoryError, RecursionError):
        return None
