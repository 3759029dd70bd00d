"""The schema of a tool's arguments as it is compiled: types of values, and what each allows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

from ..errors import TrmInputError
from .text import Json, identity_of


class SchemaError(TrmInputError):
    """A tool's schema is not JSON Schema, or has a part that is not supported. The message has its JSON pointer."""


class Missing:
    """The one value of ``MISSING``, where null would be a value."""

    def __repr__(self) -> str:
        return "MISSING"

    def __reduce__(self) -> str:
        return "MISSING"  # a copy is the same one


MISSING = Missing()
Path = tuple[str | int, ...]  # to a part of a value


@dataclass(frozen=True)
class Scalar:
    """A string, number, integer, boolean or null.

    ``options`` are the values of ``enum`` or ``const``; bounds hold for numbers, lengths (in characters) and ``format``
    for strings. ``type`` is ``"null"`` where nothing but null is allowed, and ``"any"`` where everything is, arrays and
    objects too: then only what the draft has can stand there. ``examples`` constrain nothing.
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

    @cached_property
    def allowed(self) -> frozenset[Any]:
        """Return the identities of the options."""
        return frozenset(map(identity_of, self.options or ()))


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
    """An object; ``closed`` where no other names than those of ``properties`` are allowed.

    Where ``others`` is there, what stands under other names has that schema; only a draft has any.
    """

    pointer: str
    properties: Mapping[str, Schema] = field(default_factory=dict)
    required: frozenset[str] = frozenset()
    closed: bool = False
    others: Schema | None = None
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
            scalars = [part for part in walk(schema) if isinstance(part, Scalar)]
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


def takes_null(schema: Schema) -> bool:
    """Whether null is a valid value."""
    return schema.nullable or (isinstance(schema, Scalar) and schema.type == "null")


def pointer_of(path: Path) -> str:
    """Return a path as a JSON pointer."""
    return "".join("/" + escaped(str(part)) for part in path)


def escaped(name: str) -> str:
    """Return a name as a part of a JSON pointer (RFC 6901)."""
    return name.replace("~", "~0").replace("/", "~1")
