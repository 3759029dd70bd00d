"""Compilation: a tool's JSON Schema becomes a ``schema``, once, and is refused where a part is not understood.

Tools come as OpenAI's ``tools`` entries, MCP's, BFCL's (with its own type names) or pydantic models. Understood are:

- objects, nested: ``properties``, ``required``, ``additionalProperties``, ``minProperties``, ``maxProperties``,
  ``dependentRequired``;
- arrays of one schema, or of anything: ``items``, ``minItems``, ``maxItems``, ``uniqueItems``;
- strings, numbers, integers, booleans, or several of them: ``enum``, ``const``, bounds, lengths, ``multipleOf``,
  ``format``;
- null beside a type (also as OpenAPI's ``nullable``, which validators of JSON Schema do not know); ``anyOf`` and
  ``oneOf`` of one schema and null, or of scalars; ``allOf`` of one schema;
- what says nothing of its type, and may be anything;
- ``default``, and local ``$ref`` that do not recurse; ``examples`` of a string: names that a query may well mention.

Everything else that could refuse a value is an error that names it by its JSON pointer: with a schema that is only half
understood, an invalid call could pass for a valid one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import unquote

from .schema import MISSING, Array, Choice, Object, Scalar, Schema, SchemaError, Tool, escaped
from .slots import MAX_SLOTS
from .text import MAX_DEPTH, Json, dumped, is_finite, same
from .validation import UNCHECKED, has_type, shown

MAX_EXAMPLES = 1024  # of a string that are looked at
MAX_NODES = 4096  # of a compiled schema, after $ref are filled in
MAX_DESCRIPTION = 4096  # characters of a description that are looked at


def compile_tool(tool: Any) -> Tool:
    """Compile a tool given as OpenAI's ``tools`` entry, MCP's, BFCL's, or a pydantic model.

    Raises
    ------
    SchemaError
        Where it is none of these, or its schema has a part that is not supported.
    """
    if isinstance(tool, type) and callable(getattr(tool, "model_json_schema", None)):
        tool = _of_model(tool)
    tool = dumped(tool, exclude_none=True)  # an entry of tools as MCP's and OpenAI's clients have it
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
    schema = (inner[keys[0]] if keys else None) or {"type": "object", "properties": {}}  # a function of no arguments
    try:
        return Tool(name, description, compile_arguments(schema))
    except SchemaError as error:
        raise SchemaError(f"tool {name}: {error}") from None


def tool_name(tool: Any) -> str | None:
    """Return the name of a tool as ``compile_tool`` takes it, without compiling it; None where it has none."""
    if isinstance(tool, type):
        return tool.__name__
    tool = dumped(tool, exclude_none=True)
    inner = tool.get("function", tool) if isinstance(tool, Mapping) else None
    name = inner.get("name") if isinstance(inner, Mapping) else None
    return name if isinstance(name, str) else None


def _of_model(model: Any) -> Json:
    """Return a pydantic model as a tool."""
    try:
        schema = model.model_json_schema()
    except Exception as error:  # pydantic's own, which is not imported here
        raise SchemaError(f"tool {model.__name__}: pydantic makes no JSON Schema of it: {error}") from None
    description = schema.get("description", "") if isinstance(schema, dict) else ""
    return {"name": model.__name__, "description": description, "parameters": schema}


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


def _kind(schema: Schema) -> str:
    return schema.type if isinstance(schema, Scalar) else type(schema).__name__.lower()


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
_REMARKS |= {"$schema", "$id", "$comment", "$defs", "definitions", "$anchor", "strict", "externalDocs", "discriminator"}
_REMARKS |= {"contentEncoding", "contentMediaType", "markdownDescription", "enumDescriptions", "enumNames"}
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
_OF_TYPES = set().union(*_KEYS.values())


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
        schema = {} if schema is True else schema
        if not isinstance(schema, dict):
            raise SchemaError(f"{at or '/'}: expected an object, got {shown(schema)}")
        if at and "$id" in schema:
            raise SchemaError(f"{at}/$id: supported at the root only, as references within would mean something else")
        if "$ref" in schema:
            return self.reference(schema, at, behind)
        for key in ("anyOf", "oneOf", "allOf"):
            if key in schema:
                return self.combined(schema, key, at, behind)
        given = schema["type"] if "type" in schema else self.implied_types(schema, at)
        if isinstance(given, list) and len([one for one in given if one != "null"]) > 1:
            return self.one_of_types(schema, given, at, behind)
        name, nullable = self.type_of(schema, given, at)
        self.check_keys(schema, _COMMON | _OF_TYPES, at)  # those of another type constrain nothing
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
        """Raise for a keyword that is not known; those that begin with "x-" are anybody's own."""
        for key in schema:
            if key not in known and not key.startswith("x-"):
                raise SchemaError(f"{at}/{escaped(key)}: not supported here")

    def type_of(self, schema: Mapping[str, Json], given: Json, at: str) -> tuple[str, bool]:
        """Return the type's name in JSON Schema, and whether null is allowed beside it."""
        nullable = schema.get("nullable", False)
        if not isinstance(nullable, bool):
            raise SchemaError(f"{at}/nullable: expected true or false, got {shown(nullable)}")
        if isinstance(given, list):
            others = [name for name in given if name != "null"]
            if not given:
                raise SchemaError(f"{at}/type: expected a type, got an empty list")
            nullable = nullable or "null" in given
            given = others[0] if others else "null"
            if given == "any" and "type" not in schema:
                return given, False
        if not isinstance(given, str) or given.lower() not in _TYPE_NAMES:
            raise SchemaError(f"{at}/type: expected a type of JSON Schema, got {shown(given)}")
        name = _TYPE_NAMES[given.lower()]
        return name, nullable and name != "null"

    def one_of_types(self, schema: Mapping[str, Json], given: list[Json], at: str, behind: tuple[str, ...]) -> Schema:
        """Compile a schema of several types of scalars; a constraint of one of them leaves the others alone."""
        names = [_TYPE_NAMES.get(one.lower()) if isinstance(one, str) else None for one in given]
        for name, one in zip(names, given, strict=True):
            if name is None:
                raise SchemaError(f"{at}/type: expected a type of JSON Schema, got {shown(one)}")
            if name in ("object", "array"):
                raise SchemaError(f"{at}/type: several types are supported for scalars only, got {given}")
        types = [name for name in dict.fromkeys(names) if name is not None and name != "null"]
        self.check_keys(schema, _COMMON.union(*(_KEYS[name] for name in types)), at)
        options = schema.get("enum", [schema["const"]] if "const" in schema else [None])
        nullable = "null" in names and isinstance(options, list) and None in options
        alternatives = []
        for name in types:
            own = {key: value for key, value in schema.items() if key in _KEYS[name] or key in ("enum", "const")}
            if isinstance(options, list) and options != [None] and not any(has_type(one, name) for one in options):
                continue
            alternatives.append(self.compile({**own, "type": name}, at, behind))
        if not alternatives:
            raise SchemaError(f"{at}/enum: no value of the types {given} is left")
        scalars = tuple(one for one in alternatives if isinstance(one, Scalar))
        return _beside(Choice(at, scalars, False, nullable=nullable), schema, at)

    def implied_types(self, schema: Mapping[str, Json], at: str) -> list[Json]:
        """Return the types of a schema that names none: what its other parts say."""
        if "properties" in schema:
            return ["object"]
        if "items" in schema:
            return ["array"]
        options = schema.get("enum", [schema["const"]] if "const" in schema else None)
        if isinstance(options, list):
            names = dict.fromkeys(map(_scalar_name, options))
            if None in names or not names:
                raise SchemaError(
                    f"{at}/{'enum' if 'enum' in schema else 'const'}: expected scalars, got {shown(options)}"
                )
            return [name for name in names if name != "integer" or "number" not in names]
        if not at or schema.keys() & _OF_TYPES:
            raise SchemaError(f"{at or '/'}: expected a type")
        return ["any"]

    def reference(self, schema: Mapping[str, Json], at: str, behind: tuple[str, ...]) -> Schema:
        """Compile what a ``$ref`` points to, with the description and default beside it."""
        target = schema["$ref"]
        self.check_keys(schema, _REMARKS | {"$ref", "default"}, at)
        if not isinstance(target, str) or not (target == "#" or target.startswith("#/")):
            raise SchemaError(f"{at}/$ref: expected a local reference by pointer, '#/...', got {shown(target)}")
        if target in behind:
            raise SchemaError(f"{at}/$ref: {target} refers to itself")
        if len(behind) >= MAX_DEPTH:
            raise SchemaError(f"{at}/$ref: more than {MAX_DEPTH} references lead here")
        found: Json = self.root
        for part in unquote(target[1:]).split("/")[1:]:
            part = part.replace("~1", "/").replace("~0", "~")
            if isinstance(found, dict) and part in found:
                found = found[part]
            elif isinstance(found, list) and part.isdecimal() and int(part) < len(found):
                found = found[int(part)]
            else:
                raise SchemaError(f"{at}/$ref: there is no {target}")
        return _beside(self.compile(found, at, (*behind, target)), schema, at)

    def combined(self, schema: Mapping[str, Json], key: str, at: str, behind: tuple[str, ...]) -> Schema:
        """Compile ``anyOf``, ``oneOf`` or ``allOf``: to the one alternative beside null, or a ``Choice`` of scalars."""
        self.check_keys(schema, _REMARKS | {key, "default", "nullable"}, at)
        parts = schema[key]
        if not isinstance(parts, list) or not parts:
            raise SchemaError(f"{at}/{key}: expected a list of schemas, got {shown(parts)}")
        compiled = [self.compile(part, f"{at}/{key}/{i}", behind) for i, part in enumerate(parts)]
        if key == "allOf":
            if len(compiled) > 1:
                raise SchemaError(f"{at}/allOf: supported with one schema, got {len(compiled)}")
            return _beside(compiled[0], schema, at)
        for one in compiled:
            if isinstance(one, Scalar) and one.type == "any":
                if key == "oneOf":
                    raise SchemaError(f"{at}/oneOf: what may be anything could not be told from the others")
                return _beside(one, schema, at)
        others = [one for one in compiled if not (isinstance(one, Scalar) and one.type == "null")]
        nulls = sum(one.nullable for one in others) + len(compiled) - len(others)
        if key == "oneOf" and nulls > 1:
            raise SchemaError(f"{at}/oneOf: null fits {nulls} alternatives, so it could not be told apart")
        if not others:
            return _beside(compiled[0], schema, at)
        if len(others) == 1:
            return _beside(replace(others[0], nullable=nulls > 0), schema, at)
        scalars: list[Scalar] = []
        for i, one in enumerate(others):
            if isinstance(one, (Array, Object)):
                raise SchemaError(f"{at}/{key}/{i}: several alternatives are supported for scalars only")
            if isinstance(one, Choice):
                if key == "oneOf" or one.exactly_one:
                    raise SchemaError(f"{at}/{key}/{i}: alternatives within oneOf are not supported")
                scalars += one.alternatives
            else:
                scalars.append(replace(one, nullable=False))
        return _beside(Choice(at, tuple(scalars), key == "oneOf", nullable=nulls > 0), schema, at)

    def object(self, schema: Mapping[str, Json], at: str, behind: tuple[str, ...], common: dict[str, Any]) -> Object:
        properties = schema.get("properties", {})
        if not isinstance(properties, dict):
            raise SchemaError(f"{at}/properties: expected an object, got {shown(properties)}")
        compiled = {
            name: self.compile(inner, f"{at}/properties/{escaped(name)}", behind) for name, inner in properties.items()
        }
        required = _names(schema.get("required", []), f"{at}/required")
        extra = schema.get("additionalProperties", True)
        others = self.compile(extra, f"{at}/additionalProperties", behind) if isinstance(extra, dict) else None
        if not isinstance(extra, (bool, dict)):
            raise SchemaError(f"{at}/additionalProperties: expected true or false, got {shown(extra)}")
        dependent = schema.get("dependentRequired", {})
        if not isinstance(dependent, dict):
            raise SchemaError(f"{at}/dependentRequired: expected an object, got {shown(dependent)}")
        if unknown := required - compiled.keys():
            raise SchemaError(f"{at}/required: {min(unknown)!r} is no property")
        return Object(
            properties=compiled,
            required=required,
            closed=extra is False,
            others=others,
            min_properties=_count(schema, "minProperties", at) or 0,
            max_properties=_count(schema, "maxProperties", at),
            dependent_required={
                name: _names(names, f"{at}/dependentRequired/{escaped(name)}") for name, names in dependent.items()
            },
            **common,
        )

    def array(self, schema: Mapping[str, Json], at: str, behind: tuple[str, ...], common: dict[str, Any]) -> Array:
        unique = schema.get("uniqueItems", False)
        if not isinstance(unique, bool):
            raise SchemaError(f"{at}/uniqueItems: expected true or false, got {shown(unique)}")
        items, least = self.compile(schema.get("items", {}), f"{at}/items", behind), _count(schema, "minItems", at) or 0
        if isinstance(items, Object) and least > MAX_SLOTS:
            raise SchemaError(f"{at}/minItems: supported up to {MAX_SLOTS} for an array of objects, got {least}")
        return Array(
            items=items,
            min_items=least,
            max_items=_count(schema, "maxItems", at),
            unique=unique,
            **common,
        )

    def scalar(self, schema: Mapping[str, Json], at: str, name: str, common: dict[str, Any]) -> Scalar:
        """Compile a scalar; ``enum`` and ``const`` become its options, null among them whether it is nullable."""
        options = _options_of(schema, at, name, common["nullable"])
        if options is not None:
            common = common | {"nullable": None in options}  # null is an option beside others
            options = [option for option in options if option is not None]
            if not options:
                return Scalar(type="null", **common | {"nullable": False})
        form = schema.get("format")
        if form is not None and not isinstance(form, str):
            raise SchemaError(f"{at}/format: expected a name, got {shown(form)}")
        if name == "string" and form in UNCHECKED:
            raise SchemaError(f"{at}/format: {form} is not supported, as some validators check it and it is not here")
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


def _options_of(schema: Mapping[str, Json], at: str, name: str, nullable: bool) -> list[Any] | None:
    """Return the values of a type that ``enum`` and ``const`` leave, null among them where it may be; None without."""
    options: list[Any] | None = None
    for key in ("enum", "const"):
        if key not in schema:
            continue
        values = [schema[key]] if key == "const" else schema[key]
        if not isinstance(values, list) or not values:
            raise SchemaError(f"{at}/{key}: expected a list of values, got {shown(values)}")
        if any(isinstance(value, (list, dict)) for value in values):
            raise SchemaError(f"{at}/{key}: supported for scalars only")
        kept = values if options is None else [v for v in values if any(same(v, o) for o in options)]
        options = [v for v in kept if has_type(v, name) or (v is None and nullable)]
        if not options:
            raise SchemaError(f"{at}/{key}: no value of type {name} is left")
    return options


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
    for name in ("boolean", "integer", "number", "string", "null"):
        if has_type(value, name):
            return name
    return None


def _text(schema: Mapping[str, Json], key: str, at: str) -> str:
    value = schema.get(key) or ""
    if not isinstance(value, str):
        raise SchemaError(f"{at}/{key}: expected text, got {shown(value)}")
    return value[:MAX_DESCRIPTION]


def _names(value: Json, at: str) -> frozenset[str]:
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise SchemaError(f"{at}: expected a list of names, got {shown(value)}")
    return frozenset(value)


def _count(schema: Mapping[str, Json], key: str, at: str) -> int | None:
    value = schema.get(key)
    if value is None:
        return None
    if not has_type(value, "integer") or value < 0:
        raise SchemaError(f"{at}/{key}: expected a whole number from 0, got {shown(value)}")
    return int(value)


def _number(schema: Mapping[str, Json], key: str, at: str) -> float | None:
    value = schema.get(key)
    if value is None:
        return None
    if not has_type(value, "number") or not is_finite(value) or (key == "multipleOf" and not value > 0):
        raise SchemaError(
            f"{at}/{key}: expected a {'positive ' if key == 'multipleOf' else ''}number, got {shown(value)}"
        )
    number: float = value
    return number
