"""Drafts: a call, or its arguments, in the forms that language models write and their clients hand over."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any

from ..errors import TrmInputError
from .coercion import fold_of
from .schema import MISSING, Array, Missing, Object, Schema
from .slots import has_elements
from .text import Json, JsonLimitError, JsonTextError, document_of, dumped, dumps, parse, parse_lenient, source_of
from .validation import violation

_NAMES = ("name", "function", "tool_name", "tool", "action")  # what the function of a call is called
_ARGUMENTS = ("arguments", "parameters", "input", "args", "tool_input", "action_input")  # what its arguments are called
_BEFORE_ARGUMENTS = re.compile(rf"['\"]?\b(?:{'|'.join(_ARGUMENTS)})\b['\"]?\s*[:=]\s*")
SPELT_ALIKE = 0.8  # of SequenceMatcher.ratio: "amout", "ammount"
MAX_COMPARED, MAX_NAME = 4096, 64  # pairs of names, and characters of one, that are compared for that
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

    Where it is not valid, arguments are also looked for in a text within the text, a list of one, and a whole call, and
    its parts are brought to the schema's shape (``shaped``).
    """
    if not text.strip():
        return Draft(text, MISSING, False)
    try:
        value, strictly = read_json(text)
        valid = strictly and violation(arguments, value) is None
        return Draft(text, value if valid else shaped(arguments, _unwrapped(arguments, value)), valid)
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


def shaped(schema: Schema, value: Json | Missing) -> Json | Missing:
    """Return a value with its parts where a schema has them, as far as there is no doubt where that is.

    JSON in a text is read where an object or an array is wanted; an object in a list of one, and one where an array of
    objects is wanted, are those; a name that no property has is that of the one property that is spelt like it, but
    for case and what joins its words, and, where such a name is refused, a letter or two.
    """
    if isinstance(value, str) and isinstance(schema, (Object, Array)):
        inner = _strictly(value)
        value = inner if isinstance(inner, (dict, list)) else value
    if isinstance(schema, Object):
        if isinstance(value, list) and len(value) == 1 and isinstance(value[0], Mapping):
            value = value[0]
        if not isinstance(value, Mapping):
            return value
        names = _spelt(schema, value)
        made: dict[str, Json] = {names[name]: inner for name, inner in value.items()}
        return {
            name: shaped(schema.properties[name], inner) if name in schema.properties else inner
            for name, inner in made.items()
        }
    if has_elements(schema):
        if isinstance(value, Mapping):
            value = [value]
        return [shaped(schema.items, one) for one in value] if isinstance(value, list) else value
    return value


def _strictly(text: str) -> Json | Missing:
    try:
        return parse(text)
    except JsonTextError:
        return MISSING


def _spelt(schema: Object, value: Mapping[str, Json]) -> dict[str, str]:
    """Return what the names of a value mean: themselves, or the properties that they are spelt like."""
    absent = {name: fold_of(name) for name in schema.properties if name not in value}
    strange = {name: fold_of(name) for name in value if name not in schema.properties}
    by_fold: dict[str, list[str]] = {}
    for own, fold in absent.items():
        by_fold.setdefault(fold, []).append(own)
    meant = _only_pairs([(name, own) for name, fold in strange.items() for own in by_fold.get(fold, ())])
    if schema.closed and len(absent) * len(strange) <= MAX_COMPARED:
        rest = [own for own in absent if own not in meant.values()]
        others = [name for name in strange if name not in meant]
        alike = [(name, own) for name in others for own in rest if _is_alike(strange[name], absent[own])]
        meant |= _only_pairs(alike)
    return {name: name for name in value} | meant


def _only_pairs(pairs: list[tuple[str, str]]) -> dict[str, str]:
    """Return those of pairs whose two names are in no other."""
    counts = Counter(name for pair in pairs for name in pair)
    return {name: own for name, own in pairs if counts[name] == counts[own] == 1}


def _is_alike(one: str, other: str) -> bool:
    matcher = SequenceMatcher(None, one[:MAX_NAME], other[:MAX_NAME], autojunk=False)
    return matcher.quick_ratio() >= SPELT_ALIKE and matcher.ratio() >= SPELT_ALIKE


# ---- whole calls -----------------------------------------------------------------------------------------------------


def read_call(draft: Any, names: Collection[str | None] = ()) -> tuple[str | None, str | None]:
    """Return name and text of the arguments of a drafted call, each None where it cannot be told.

    Parameters
    ----------
    draft
        An object with a name and arguments under one of the keys that are common (OpenAI's ``name`` and ``arguments``,
        Anthropic's ``input``, ReAct's ``action`` and ``action_input``), the arguments as an object or text;
        ``{"function": ...}`` around it, ``{"tool_calls": [...]}`` or a list around that, of one call; what has a
        ``model_dump`` that returns one of these, as the clients' own classes have; a client's message or its whole
        answer (``choices``, of one); or the text of any of them, also with prose around it. With ``names`` also
        ``{name: arguments}``, arguments without a name, and a text that names one function and has its arguments
        behind it, as JSON or as Python writes a call.
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
        if draft is None or draft == [] or _calls_nothing(_message_in(draft)[1]):
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
    path, value = _message_in(value)
    if _calls_nothing(value):
        return path, None
    if isinstance(value, Mapping) and isinstance(value.get("function_call"), Mapping):
        return (*path, "function_call"), value["function_call"]
    if isinstance(value, Mapping) and isinstance(value.get("tool_calls"), list):
        path, value = (*path, "tool_calls"), value["tool_calls"]
    if isinstance(value, list) and len(value) == 1:
        path, value = (*path, 0), dumped(value[0])
    if isinstance(value, Mapping) and isinstance(value.get("function"), Mapping):
        path, value = (*path, "function"), value["function"]
    return path, value if isinstance(value, Mapping) else None


def _message_in(value: Any) -> tuple[tuple[str | int, ...], Any]:
    """Return the message of a client's answer, and where it is; another value as it is."""
    value = dumped(value)
    if isinstance(value, Mapping) and isinstance(choices := value.get("choices"), list) and len(choices) == 1:
        choice = dumped(choices[0])
        if isinstance(choice, Mapping) and "message" in choice:
            return ("choices", 0, "message"), dumped(choice["message"])
    return (), value


def _calls_nothing(value: Any) -> bool:
    """Whether it is a client's message that makes no call."""
    if not isinstance(value, Mapping) or value.get("tool_calls") or value.get("function_call"):
        return False
    return "tool_calls" in value or (value.get("role") == "assistant" and "content" in value)


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
    """Return a text without what a model thinks aloud in it, between ``<think>`` and ``</think>``.

    The first of these may stand before the text, as chat templates write it.
    """
    kept: list[str] = []
    rest = text
    while "</think>" in rest:
        before, _, rest = rest.partition("</think>")
        said, opened, _ = before.partition("<think>")
        kept = [*kept, said] if opened else []
    return "".join([*kept, rest])


def _named_in(text: str, names: Collection[str]) -> str | None:
    """Return the one function that a text names, or None."""
    any_of = "|".join(map(re.escape, sorted(names, key=len, reverse=True)))
    found = set(re.findall(rf"(?<![\w-])(?:{any_of})(?![\w-])", text)) if names else set()
    return found.pop() if len(found) == 1 else None


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
