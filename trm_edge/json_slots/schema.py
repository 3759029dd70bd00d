"""The schema of a tool's arguments: compiled once from JSON Schema, refused where a part is not understood.

Tools come as OpenAI's ``tools`` entries, MCP's, BFCL's (with its own type names) or pydantic models. Understood are:

- objects, nested: ``properties``, ``required``, ``additionalProperties`` (true or false), ``minProperties``,
  ``maxProperties``, ``dependentRequired``;
- arrays of one schema: ``items``, ``minItems``, ``maxItems``, ``uniqueItems``;
- strings, numbers, integers, booleans: ``enum``, ``const``, bounds, lengths, ``multipleOf``, ``format``;
- null beside a type; ``anyOf`` and ``oneOf`` of one schema and null, or of scalars; ``allOf`` of one schema;
- ``default``, and local ``$ref`` that do not recurse; ``examples`` of a string: names that a query may well mention.

Everything else that could refuse a value is an error that names it by its JSON pointer: with a schema that is only half
understood, an invalid call could pass for a valid one.
"""

from __future__ import annotations

import datetime
import ipaddress
import json
import math
import re
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cached_property
from typing import Any, NamedTuple

from ..errors import TrmInputError
from .text import MAX_DEPTH, Json, same, type_name

MAX_EXAMPLES = 1024  # of a string that are looked at
MAX_NODES = 4096  # of a compiled schema, after $ref are filled in


class SchemaError(TrmInputError):
    """A tool's schema is not JSON Schema, or has a part that is not supported. The message has its JSON pointer."""


class Missing:
    """The one value of ``MISSING``, where null would be a value."""

    def __repr__(self) -> str:
        return "MISSING"


MISSING = Missing()
Path = tuple[str | int, ...]  # to a part of a value


@dataclass(frozen=True)
class Scalar:
    """A string, number, integer, boolean or null.

    ``options`` are the values of ``enum`` or ``const``; bounds hold for numbers, lengths (in characters) and ``format``
    for strings. ``type`` is ``"null"`` where nothing but null is allowed. ``examples`` constrain nothing.
    """

    pointer: str
    type: str
    description: str = ""
    nullable: bool = False
    default: Json | Missing = MISSING
    options: tuple[Json, ...] | None = None
    minimum: float | None = None
    maximum: float | None = None
    exclusive_minimum: float | None = None
    exclusive_maximum: float | None = None
    multiple_of: float | None = None
    min_length: int = 0
    max_length: int | None = None
    format: str | None = None
    examples: tuple[str, ...] = ()


@dataclass(frozen=True)
class Choice:
    """One of several scalars (``oneOf``: exactly one of them takes the value; ``anyOf``: at least one)."""

    pointer: str
    alternatives: tuple[Scalar, ...]
    exactly_one: bool
    description: str = ""
    nullable: bool = False
    default: Json | Missing = MISSING


@dataclass(frozen=True)
class Array:
    """An array whose items have one schema."""

    pointer: str
    items: Schema
    description: str = ""
    nullable: bool = False
    default: Json | Missing = MISSING
    min_items: int = 0
    max_items: int | None = None
    unique: bool = False


@dataclass(frozen=True)
class Object:
    """An object; ``closed`` where no other names than those of ``properties`` are allowed."""

    pointer: str
    properties: Mapping[str, Schema] = field(default_factory=dict)
    required: frozenset[str] = frozenset()
    closed: bool = False
    description: str = ""
    nullable: bool = False
    default: Json | Missing = MISSING
    min_properties: int = 0
    max_properties: int | None = None
    dependent_required: Mapping[str, frozenset[str]] = field(default_factory=dict)


Schema = Scalar | Choice | Array | Object


@dataclass(frozen=True, eq=False)
class Tool:
    """A function that can be called: its name, what it is for, and the schema of its arguments.

    Equal only to itself, so that what is made of tools can be kept beside them.
    """

    name: str
    description: str
    arguments: Object

    @cached_property
    def named(self) -> tuple[Named, ...]:
        """Return what the schemas of its arguments name, one entry per argument that has any of it."""
        found = []
        for name, schema in self.arguments.properties.items():
            scalars = list(_scalars(schema))
            examples = frozenset(text for one in scalars for text in one.examples)
            options = frozenset(o for one in scalars for o in one.options or () if isinstance(o, str))
            if examples or options:
                found.append(Named(name in self.arguments.required, examples, options))
        return tuple(found)


class Named(NamedTuple):
    """The examples and the options (texts only) of an argument, and whether it must be given."""

    required: bool
    examples: frozenset[str]
    options: frozenset[str]


def _scalars(schema: Schema) -> Iterator[Scalar]:
    """Yield the scalars that a schema is made of."""
    parts: Iterable[Schema]
    if isinstance(schema, Scalar):
        yield schema
        return
    if isinstance(schema, Object):
        parts = schema.properties.values()
    else:
        parts = schema.alternatives if isinstance(schema, Choice) else (schema.items,)
    for part in parts:
        yield from _scalars(part)


# ---- tools -----------------------------------------------------------------------------------------------------------


def compile_tool(tool: Any) -> Tool:
    """Compile a tool given as OpenAI's ``tools`` entry, MCP's, BFCL's, or a pydantic model.

    Raises
    ------
    SchemaError
        Where it is none of these, or its schema has a part that is not supported.
    """
    model_schema = getattr(tool, "model_json_schema", None)
    if callable(model_schema):
        schema = model_schema()
        name = getattr(tool, "__name__", None) or type(tool).__name__
        description = schema.get("description", "") if isinstance(schema, dict) else ""
        return Tool(name, description, compile_arguments(schema))
    if not isinstance(tool, Mapping):
        raise SchemaError(f"tool: expected an object or a pydantic model, got {type(tool).__name__}")
    inner = tool.get("function", tool)
    if not isinstance(inner, Mapping):
        raise SchemaError(f"tool /function: expected an object, got {type(inner).__name__}")
    name = inner.get("name")
    if not isinstance(name, str) or not name:
        raise SchemaError(f"tool /name: expected a name, got {name!r}")
    description = inner.get("description") or ""
    if not isinstance(description, str):
        raise SchemaError(f"tool {name} /description: expected text, got {type(description).__name__}")
    keys = [key for key in ("parameters", "inputSchema", "input_schema") if key in inner]
    schema = inner[keys[0]] if keys else {"type": "object", "properties": {}}
    try:
        return Tool(name, description, compile_arguments(schema))
    except SchemaError as error:
        raise SchemaError(f"tool {name}: {error}") from None


def compile_arguments(schema: Json) -> Object:
    """Compile the JSON Schema of a tool's arguments, which must be an object's.

    Raises
    ------
    SchemaError
        With the JSON pointer of what is malformed or not supported.
    """
    schema = _as_json(schema)
    compiled = _Compiler(schema).compile(schema, "", ())
    if not isinstance(compiled, Object):
        raise SchemaError(f"/: expected the schema of an object, got that of {_kind(compiled)}")
    if compiled.nullable:
        raise SchemaError("/: arguments are an object, and cannot be null")
    return compiled


def _as_json(schema: Json) -> Json:
    """Return a schema as its JSON text would be read: no tuples, no NaN, nothing that could not be written."""
    try:
        return json.loads(json.dumps(schema, allow_nan=False))
    except RecursionError:
        raise SchemaError("/: the schema is too deep") from None
    except (TypeError, ValueError) as error:
        raise SchemaError(f"/: the schema is not JSON: {error}") from None


def walk(schema: Schema) -> Iterator[Schema]:
    """Yield a schema and all that it holds, from left to right."""
    yield schema
    inner: tuple[Schema, ...] = ()
    if isinstance(schema, Object):
        inner = tuple(schema.properties.values())
    elif isinstance(schema, Array):
        inner = (schema.items,)
    elif isinstance(schema, Choice):
        inner = schema.alternatives
    for part in inner:
        yield from walk(part)


# ---- validation ------------------------------------------------------------------------------------------------------


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
        wanted = "one" if schema.exactly_one else "any"
        return Violation(
            at, f"{wanted} of {len(schema.alternatives)} alternatives", f"{_shown(value)}, which fits {fits}"
        )
    return _scalar_violation(schema, value, at)


def takes_null(schema: Schema) -> bool:
    """Whether null is a valid value."""
    return schema.nullable or (isinstance(schema, Scalar) and schema.type == "null")


def _object_violation(schema: Object, value: Json, at: Path) -> Violation | None:
    if not isinstance(value, dict):
        return Violation(at, "an object", _shown(value))
    for name in sorted(schema.required - value.keys()):
        return Violation(at, f"the property {name!r}", "none")
    for name, inner in value.items():
        known = schema.properties.get(name)
        if known is None and schema.closed:
            return Violation(at, f"only the properties {', '.join(schema.properties) or '(none)'}", repr(name))
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
        return Violation(at, "an array", _shown(value))
    most = math.inf if schema.max_items is None else schema.max_items
    if not schema.min_items <= len(value) <= most:
        return Violation(at, f"{schema.min_items} to {most} items", str(len(value)))
    for index, item in enumerate(value):
        wrong = violation(schema.items, item, (*at, index))
        if wrong is not None:
            return wrong
        if schema.unique and any(same(item, other) for other in value[:index]):
            return Violation((*at, index), "an item that did not come before", _shown(item))
    return None


def _scalar_violation(schema: Scalar, value: Json, at: Path, doubtful: bool = False) -> Violation | None:
    """Return what is wrong; ``doubtful``: what only some validators would find wrong is not."""
    if not _has_type(value, schema.type):
        return Violation(at, f"a value of type {schema.type}", _shown(value))
    if schema.options is not None and not any(same(value, option) for option in schema.options):
        return Violation(at, f"one of {[*schema.options]}", _shown(value))
    if isinstance(value, str):
        most = math.inf if schema.max_length is None else schema.max_length
        if not schema.min_length <= len(value) <= most:
            return Violation(at, f"{schema.min_length} to {most} characters", str(len(value)))
        if schema.format in FORMATS and not FORMATS[schema.format](value):
            return Violation(at, f"the format {schema.format}", _shown(value))
    elif schema.type in ("number", "integer"):
        return _number_violation(schema, value, at, doubtful)
    return None


def _number_violation(schema: Scalar, value: float, at: Path, doubtful: bool) -> Violation | None:
    if schema.minimum is not None and value < schema.minimum:
        return Violation(at, f"at least {schema.minimum}", _shown(value))
    if schema.maximum is not None and value > schema.maximum:
        return Violation(at, f"at most {schema.maximum}", _shown(value))
    if schema.exclusive_minimum is not None and value <= schema.exclusive_minimum:
        return Violation(at, f"more than {schema.exclusive_minimum}", _shown(value))
    if schema.exclusive_maximum is not None and value >= schema.exclusive_maximum:
        return Violation(at, f"less than {schema.exclusive_maximum}", _shown(value))
    if schema.multiple_of is not None:
        seen = _multiple_seen(value, schema.multiple_of)
        if not (any(seen) if doubtful else all(seen)):
            return Violation(at, f"a multiple of {schema.multiple_of}", _shown(value))
    return None


def _multiple_seen(value: float, of: float) -> tuple[bool, ...]:
    """Whether it is a multiple by each way to look: as decimals are written, and as Python's numbers divide."""
    written = (Fraction(repr(value)) / Fraction(repr(of))).denominator == 1
    try:
        return written, value % of == 0 if isinstance(of, int) else (value / of).is_integer()
    except OverflowError:  # an integer beyond float64: some see it so, some otherwise
        return True, False


def _has_type(value: Json, name: str) -> bool:
    if isinstance(value, bool):
        return name == "boolean"
    if name == "integer":
        return isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    return type_name(value) == name


def _shown(value: Json) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _kind(schema: Schema) -> str:
    return schema.type if isinstance(schema, Scalar) else type(schema).__name__.lower()


def pointer_of(path: Path) -> str:
    """Return a path as a JSON pointer."""
    return "".join("/" + escaped(str(part)) for part in path)


def escaped(name: str) -> str:
    """Return a name as a part of a JSON pointer (RFC 6901)."""
    return name.replace("~", "~0").replace("/", "~1")


# ---- formats ---------------------------------------------------------------------------------------------------------

_DATE = re.compile(r"\d{4}-\d\d-\d\d", re.A)
_TIME = re.compile(r"(\d\d):(\d\d):(\d\d)(?:\.\d+)?(?:[zZ]|[+-](\d\d):(\d\d))", re.A)
_EMAIL = re.compile(r"[^@\s]+@[^@\s]+")


def _is_date(text: str) -> bool:
    try:
        return _DATE.fullmatch(text) is not None and bool(datetime.date.fromisoformat(text))
    except ValueError:
        return False


def _is_time(text: str) -> bool:
    """RFC 3339's full-time; a leap second only where it ends a day in UTC."""
    match = _TIME.fullmatch(text)
    if match is None:
        return False
    hour, minute, second = (int(part) for part in match.groups()[:3])
    ahead = [int(part or 0) for part in match.groups()[3:]]
    if hour > 23 or minute > 59 or ahead[0] > 23 or ahead[1] > 59:
        return False
    if second < 60:
        return True
    sign = -1 if "-" in text else 1
    return second == 60 and (hour * 60 + minute - sign * (ahead[0] * 60 + ahead[1])) % 1440 == 1439


def _is_date_time(text: str) -> bool:
    return text[10:11] in ("T", "t") and _is_date(text[:10]) and _is_time(text[11:])


def _is_uuid(text: str) -> bool:
    try:
        return str(uuid.UUID(text)) == text.lower()
    except ValueError:
        return False


def _is_address(version: int) -> Any:
    def check(text: str) -> bool:
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            return False
        return address.version == version and "%" not in text

    return check


FORMATS = {
    "date": _is_date,
    "time": _is_time,
    "date-time": _is_date_time,
    "email": lambda text: _EMAIL.fullmatch(text) is not None,
    "uuid": _is_uuid,
    "ipv4": _is_address(4),
    "ipv6": _is_address(6),
}
"""Formats that are checked. Others are remarks, as JSON Schema has it: ``int32``, ``password``, ``uri``."""


# ---- compilation -----------------------------------------------------------------------------------------------------

_TYPE_NAMES = {  # BFCL writes Python's and Java's names
    **dict.fromkeys(("object", "dict", "hashmap"), "object"),
    **dict.fromkeys(("array", "list", "tuple"), "array"),
    **dict.fromkeys(("string", "str", "char"), "string"),
    **dict.fromkeys(("integer", "int", "long"), "integer"),
    **dict.fromkeys(("number", "float", "double"), "number"),
    **dict.fromkeys(("boolean", "bool"), "boolean"),
    "null": "null",
}
_REMARKS = {"title", "description", "examples", "example", "deprecated", "readOnly", "writeOnly"}
_REMARKS |= {"$schema", "$id", "$comment", "$defs", "definitions", "strict"}
_COMMON = _REMARKS | {"type", "default", "nullable", "enum", "const", "optional"}
_NUMBERS = {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "format"}
_KEYS = {
    "object": {
        *("properties", "required", "additionalProperties", "minProperties", "maxProperties", "dependentRequired"),
        "propertyOrdering",
    },
    "array": {"items", "minItems", "maxItems", "uniqueItems"},
    "string": {"minLength", "maxLength", "format"},
    "integer": _NUMBERS,
    "number": _NUMBERS,
    "boolean": set(),
    "null": set(),
}


class _Compiler:
    """Compiles one document; ``root`` is where local references start."""

    def __init__(self, root: Json) -> None:
        self.root = root
        self.nodes = 0

    def compile(self, schema: Json, at: str, behind: tuple[str, ...]) -> Schema:
        """Compile the schema at a pointer; ``behind`` are the references that led here."""
        self.nodes += 1
        if self.nodes > MAX_NODES:
            raise SchemaError(f"{at or '/'}: the schema has more than {MAX_NODES} parts")
        if at.count("/") > 3 * MAX_DEPTH:
            raise SchemaError(f"{at or '/'}: the schema is too deep")
        if not isinstance(schema, dict):
            raise SchemaError(f"{at or '/'}: expected an object, got {_shown(schema)}")
        if "$ref" in schema:
            return self.reference(schema, at, behind)
        for key in ("anyOf", "oneOf", "allOf"):
            if key in schema:
                return self.combined(schema, key, at, behind)
        name, nullable = self.type_of(schema, at)
        self.check_keys(schema, _COMMON | _KEYS[name], at)
        common = {
            "pointer": at or "/",
            "description": _text(schema, "description", at),
            "nullable": nullable,
            "default": schema.get("default", MISSING),
        }
        if name == "object":
            compiled: Schema = self.object(schema, at, behind, common)
        elif name == "array":
            compiled = self.array(schema, at, behind, common)
        else:
            compiled = self.scalar(schema, at, name, common)
        if name in ("object", "array") and ("enum" in schema or "const" in schema):
            raise SchemaError(f"{at}/{'enum' if 'enum' in schema else 'const'}: supported for scalars, not for {name}")
        return compiled

    def check_keys(self, schema: Mapping[str, Json], known: set[str], at: str) -> None:
        for key in schema:
            if key not in known and not key.startswith("x-"):
                raise SchemaError(f"{at}/{escaped(key)}: not supported here")

    def type_of(self, schema: Mapping[str, Json], at: str) -> tuple[str, bool]:
        """Return the type's name in JSON Schema, and whether null is allowed beside it."""
        given = schema.get("type", MISSING)
        nullable = schema.get("nullable", False)
        if not isinstance(nullable, bool):
            raise SchemaError(f"{at}/nullable: expected true or false, got {_shown(nullable)}")
        if isinstance(given, list):
            others = [name for name in given if name != "null"]
            if len(others) > 1 or not given:
                raise SchemaError(f"{at}/type: expected one type, or one and null, got {given}")
            nullable = nullable or "null" in given
            given = others[0] if others else "null"
        if given is MISSING:
            given = self.implied_type(schema, at)
        if not isinstance(given, str) or given.lower() not in _TYPE_NAMES:
            raise SchemaError(f"{at}/type: expected a type of JSON Schema, got {_shown(given)}")
        name = _TYPE_NAMES[given.lower()]
        return name, nullable and name != "null"

    def implied_type(self, schema: Mapping[str, Json], at: str) -> str:
        """Return the type of a schema that names none: what its other parts say."""
        if "properties" in schema:
            return "object"
        if "items" in schema:
            return "array"
        options = schema.get("enum", [schema["const"]] if "const" in schema else None)
        if isinstance(options, list):
            names = {_scalar_name(option) for option in options if option is not None}
            if names == {"integer", "number"}:
                names = {"number"}
            if len(names) == 1 and None not in names:
                return str(names.pop())
            if not names and options:
                return "null"
        raise SchemaError(f"{at or '/'}: expected a type")

    def reference(self, schema: Mapping[str, Json], at: str, behind: tuple[str, ...]) -> Schema:
        target = schema["$ref"]
        self.check_keys(schema, _REMARKS | {"$ref", "default"}, at)
        if not isinstance(target, str) or not target.startswith("#"):
            raise SchemaError(f"{at}/$ref: expected a local reference, got {_shown(target)}")
        if target in behind:
            raise SchemaError(f"{at}/$ref: {target} refers to itself")
        if len(behind) >= MAX_DEPTH:
            raise SchemaError(f"{at}/$ref: more than {MAX_DEPTH} references lead here")
        found: Json = self.root
        for part in target[1:].split("/")[1:]:
            part = part.replace("~1", "/").replace("~0", "~")
            if isinstance(found, dict) and part in found:
                found = found[part]
            elif isinstance(found, list) and part.isdecimal() and int(part) < len(found):
                found = found[int(part)]
            else:
                raise SchemaError(f"{at}/$ref: there is no {target}")
        return _beside(self.compile(found, at, (*behind, target)), schema, at)

    def combined(self, schema: Mapping[str, Json], key: str, at: str, behind: tuple[str, ...]) -> Schema:
        self.check_keys(schema, _REMARKS | {key, "default", "nullable"}, at)
        parts = schema[key]
        if not isinstance(parts, list) or not parts:
            raise SchemaError(f"{at}/{key}: expected a list of schemas, got {_shown(parts)}")
        compiled = [self.compile(part, f"{at}/{key}/{i}", behind) for i, part in enumerate(parts)]
        if key == "allOf":
            if len(compiled) > 1:
                raise SchemaError(f"{at}/allOf: supported with one schema, got {len(compiled)}")
            return _beside(compiled[0], schema, at)
        others = [one for one in compiled if not (isinstance(one, Scalar) and one.type == "null")]
        nulls = sum(one.nullable for one in others) + len(compiled) - len(others)
        if key == "oneOf" and nulls > 1:
            raise SchemaError(f"{at}/oneOf: null fits {nulls} alternatives, so it could not be told apart")
        if not others:
            return _beside(compiled[0], schema, at)
        if len(others) == 1:
            return _beside(replace(others[0], nullable=nulls > 0), schema, at)
        scalars = []
        for i, one in enumerate(others):
            if isinstance(one, (Array, Object)):
                raise SchemaError(f"{at}/{key}/{i}: several alternatives are supported for scalars only")
            if isinstance(one, Choice):
                raise SchemaError(f"{at}/{key}/{i}: alternatives within alternatives are not supported")
            scalars.append(replace(one, nullable=False))
        return _beside(Choice(at, tuple(scalars), key == "oneOf", nullable=nulls > 0), schema, at)

    def object(self, schema: Mapping[str, Json], at: str, behind: tuple[str, ...], common: dict[str, Any]) -> Object:
        properties = schema.get("properties", {})
        if not isinstance(properties, dict):
            raise SchemaError(f"{at}/properties: expected an object, got {_shown(properties)}")
        compiled = {
            name: self.compile(inner, f"{at}/properties/{escaped(name)}", behind) for name, inner in properties.items()
        }
        required = _names(schema.get("required", []), f"{at}/required")
        extra = schema.get("additionalProperties", True)
        if isinstance(extra, dict) and extra:
            raise SchemaError(f"{at}/additionalProperties: a schema for other names is not supported")
        if not isinstance(extra, (bool, dict)):
            raise SchemaError(f"{at}/additionalProperties: expected true or false, got {_shown(extra)}")
        dependent = schema.get("dependentRequired", {})
        if not isinstance(dependent, dict):
            raise SchemaError(f"{at}/dependentRequired: expected an object, got {_shown(dependent)}")
        for name in sorted(required - compiled.keys()):
            raise SchemaError(f"{at}/required: {name!r} is no property")
        return Object(
            properties=compiled,
            required=required,
            closed=extra is False,
            min_properties=_count(schema, "minProperties", at) or 0,
            max_properties=_count(schema, "maxProperties", at),
            dependent_required={
                name: _names(names, f"{at}/dependentRequired/{escaped(name)}") for name, names in dependent.items()
            },
            **common,
        )

    def array(self, schema: Mapping[str, Json], at: str, behind: tuple[str, ...], common: dict[str, Any]) -> Array:
        if "items" not in schema:
            raise SchemaError(f"{at or '/'}: expected items, the schema of the array's elements")
        unique = schema.get("uniqueItems", False)
        if not isinstance(unique, bool):
            raise SchemaError(f"{at}/uniqueItems: expected true or false, got {_shown(unique)}")
        return Array(
            items=self.compile(schema["items"], f"{at}/items", behind),
            min_items=_count(schema, "minItems", at) or 0,
            max_items=_count(schema, "maxItems", at),
            unique=unique,
            **common,
        )

    def scalar(self, schema: Mapping[str, Json], at: str, name: str, common: dict[str, Any]) -> Scalar:
        options = None
        for key in ("enum", "const"):
            if key not in schema:
                continue
            values = [schema[key]] if key == "const" else schema[key]
            if not isinstance(values, list) or not values:
                raise SchemaError(f"{at}/{key}: expected a list of values, got {_shown(values)}")
            if any(isinstance(value, (list, dict)) for value in values):
                raise SchemaError(f"{at}/{key}: supported for scalars only")
            kept = values if options is None else [v for v in values if any(same(v, o) for o in options)]
            options = [v for v in kept if _has_type(v, name) or (v is None and common["nullable"])]
            if not options:
                raise SchemaError(f"{at}/{key}: no value of type {name} is left")
        if options is not None and common["nullable"]:
            common["nullable"] = any(option is None for option in options)
            options = [option for option in options if option is not None]
        if options == [] and common["nullable"]:
            return Scalar(type="null", **{**common, "nullable": False})
        form = schema.get("format")
        if form is not None and not isinstance(form, str):
            raise SchemaError(f"{at}/format: expected a name, got {_shown(form)}")
        return Scalar(
            type=name,
            options=None if options is None else tuple(options),
            minimum=_number(schema, "minimum", at),
            maximum=_number(schema, "maximum", at),
            exclusive_minimum=_number(schema, "exclusiveMinimum", at),
            exclusive_maximum=_number(schema, "exclusiveMaximum", at),
            multiple_of=_number(schema, "multipleOf", at),
            min_length=_count(schema, "minLength", at) or 0,
            max_length=_count(schema, "maxLength", at),
            format=form,
            examples=_examples(schema, name),
            **common,
        )


def _examples(schema: Mapping[str, Json], name: str) -> tuple[str, ...]:
    """Return the texts among a string's examples; an annotation is never an error."""
    given = schema.get("examples")
    if name != "string" or not isinstance(given, list):
        return ()
    return tuple(dict.fromkeys(one for one in given[:MAX_EXAMPLES] if isinstance(one, str) and one))


def _beside(compiled: Schema, schema: Mapping[str, Json], at: str) -> Schema:
    """Return what a reference or alternatives compile to, with the description and default that stand beside them."""
    return replace(
        compiled,
        pointer=at or "/",
        description=_text(schema, "description", at) or compiled.description,
        default=schema.get("default", compiled.default),
        nullable=compiled.nullable or schema.get("nullable") is True,
    )


def _scalar_name(value: Json) -> str | None:
    for name in ("boolean", "integer", "number", "string"):
        if _has_type(value, name):
            return name
    return None


def _text(schema: Mapping[str, Json], key: str, at: str) -> str:
    value = schema.get(key) or ""
    if not isinstance(value, str):
        raise SchemaError(f"{at}/{key}: expected text, got {_shown(value)}")
    return value


def _names(value: Json, at: str) -> frozenset[str]:
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise SchemaError(f"{at}: expected a list of names, got {_shown(value)}")
    return frozenset(value)


def _count(schema: Mapping[str, Json], key: str, at: str) -> int | None:
    value = schema.get(key)
    if value is None:
        return None
    if not _has_type(value, "integer") or value < 0:
        raise SchemaError(f"{at}/{key}: expected a whole number from 0, got {_shown(value)}")
    return int(value)


def _number(schema: Mapping[str, Json], key: str, at: str) -> float | None:
    value = schema.get(key)
    if value is None:
        return None
    if not _has_type(value, "number") or not math.isfinite(value) or (key == "multipleOf" and not value > 0):
        raise SchemaError(
            f"{at}/{key}: expected a {'positive ' if key == 'multipleOf' else ''}number, got {_shown(value)}"
        )
    number: float = value
    return number
