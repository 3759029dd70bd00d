"""What is known of a slot by its schema and its place: flags that say nothing of the query."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

from .providers import Vectors
from .schema import MISSING, Array, Choice, Scalar, Schema
from .slots import Slot
from .wording import words_of

TYPES = ("string", "integer", "number", "boolean", "null", "array", "choice")
FORMAT_FLAGS = ("date", "date-time", "time", "email", "uri")
RANKS = 2  # columns of ``ranks``


def name_of(slot: Slot) -> str:
    """Return a slot's own name as words; the elements of an array have their array's."""
    return words_of(next((part for part in reversed(slot.path) if isinstance(part, str)), ""))


def kind_of(schema: Schema) -> str:
    """Return what makes slots rivals for the same values: their type, whole numbers or not."""
    if isinstance(schema, Scalar):
        return "number" if schema.type == "integer" else schema.type
    return type(schema).__name__


def schema_flags(slot: Slot) -> list[float]:
    """Return the flags of a slot's type, options, examples, bounds, format and depth."""
    schema = slot.schema
    inner = schema.items if isinstance(schema, Array) else schema
    own = "array" if isinstance(schema, Array) else "choice" if isinstance(schema, Choice) else ""
    scalar = inner if isinstance(inner, Scalar) else None
    kinds = {own, scalar.type if scalar is not None else own}
    options = scalar.options if scalar is not None and scalar.options is not None else ()
    form = scalar.format if scalar is not None else None
    bounds = () if scalar is None else (scalar.minimum, scalar.maximum)
    number = next((part for part in slot.path if isinstance(part, int)), 0)
    alternatives = inner.alternatives if isinstance(inner, Choice) else (scalar,)
    return [
        *(float(name in kinds) for name in TYPES),
        float(schema.nullable),
        float(slot.optional),
        float(bool(options)),
        math.log1p(len(options)) / 3,
        float(schema.default is not MISSING),
        float(any(bound is not None for bound in bounds)),
        *(float(form == name) for name in FORMAT_FLAGS),
        float(form is not None and form not in FORMAT_FLAGS),
        (len(slot.path) - 1) / 2,
        number / 3,
        float(not slot.path),
        float(any(one is not None and bool(one.examples) for one in alternatives)),
    ]


SCHEMA_FLAGS = len(schema_flags(Slot((), Scalar("", "null"), False)))  # as many as any other slot has


def ranks(slots: Sequence[Slot]) -> Vectors:
    """Return [S, RANKS]: how many slots of the same kind come before, and how many there are."""
    kinds = [kind_of(slot.schema) for slot in slots]
    total, seen = Counter(kinds), Counter[str]()
    counted = np.zeros((len(slots), RANKS), np.float32)
    for row, kind in enumerate(kinds):
        counted[row] = seen[kind] / 4, total[kind] / 4
        seen[kind] += 1
    return counted
