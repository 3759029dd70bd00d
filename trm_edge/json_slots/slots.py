"""Slots: the places of a tool's arguments that are decided one by one, and what a draft has there.

A slot is a place that holds one scalar, or one array of scalars. Objects are their slots; an array of objects has as
many elements as the draft's, or up to ``MAX_ELEMENTS`` that may all be left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TypeGuard

from .schema import MISSING, Array, Missing, Object, Path, Schema, pointer_of
from .text import Json

MAX_SLOTS = 256  # of a call
MAX_ELEMENTS = 3  # of an array of objects that the draft does not have


@dataclass(frozen=True, eq=False)
class Slot:
    """A place in the arguments. ``optional`` where nothing may stand there, by itself or with what it is in.

    Equal only to itself, so that what is made of slots can be kept beside them.
    """

    path: Path
    schema: Schema
    optional: bool

    @property
    def pointer(self) -> str:
        """Return the slot's JSON pointer."""
        return pointer_of(self.path)


def slots_of(schema: Schema, path: Path, optional: bool, draft: Json | Missing) -> Iterator[Slot]:
    """Yield the slots of a schema at ``path``, from left to right, given what the draft has there."""
    if isinstance(schema, Object):
        for name, inner in schema.properties.items():
            missing_may = optional or schema.nullable or name not in schema.required
            yield from slots_of(inner, (*path, name), missing_may, at(draft, (name,)))
    elif has_elements(schema):
        given = isinstance(draft, list) and bool(draft)
        for index in range(elements_of(schema, draft)):
            inner_optional = optional or schema.nullable or (not given and index >= schema.min_items)
            yield from slots_of(schema.items, (*path, index), inner_optional, at(draft, (index,)))
    else:
        yield Slot(path, schema, optional)


def elements_of(schema: Array, draft: Json | Missing) -> int:
    """Return how many elements an array of objects has slots for."""
    return len(draft) if isinstance(draft, list) and draft else max(MAX_ELEMENTS, schema.min_items)


def has_elements(schema: Schema) -> TypeGuard[Array]:
    """Whether it is an array of objects, which has slots of its own."""
    return isinstance(schema, Array) and isinstance(schema.items, Object)


def at(value: Json | Missing, path: Path) -> Json | Missing:
    """Return what a value has at a path, or ``MISSING``."""
    for part in path:
        named = isinstance(part, str) and isinstance(value, Mapping) and part in value
        if not named and not (isinstance(part, int) and isinstance(value, list) and part < len(value)):
            return MISSING
        value = value[part]  # type: ignore[index]
    return value
