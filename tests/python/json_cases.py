"""Strategies for JSON Schemas, values that tend to fit them, and broken JSON text."""

import random
from typing import Any

from hypothesis import strategies as st

names = st.sampled_from(["a", "b", "c", "d/e"])
numbers = st.integers(-5, 5) | st.sampled_from([0.1, 0.3, 0.5, 1.5, 2.0, -1.0, 1e300])
scalars = (
    st.none() | st.booleans() | numbers | st.text("ab1", max_size=4) | st.sampled_from(["2024-02-29", "a@b", "::1"])
)
json_values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3), max_leaves=6
)
positive = st.sampled_from([1, 2, 3, 0.5, 0.1, 0.25])


def parts(**optional: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=optional)


def typed(name: str, **optional: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    kinds = st.sampled_from([name, name, [name, "null"]])
    return st.builds(lambda kind, rest: {"type": kind, **rest}, kinds, parts(**optional))


def number_schema(name: str) -> st.SearchStrategy[dict[str, Any]]:
    return typed(
        name,
        minimum=numbers,
        maximum=numbers,
        exclusiveMinimum=numbers,
        exclusiveMaximum=numbers,
        multipleOf=positive,
        enum=st.lists(scalars, min_size=1, max_size=4),
        format=st.sampled_from(["int32", "date"]),
    )


scalar_schemas = st.one_of(
    number_schema("number"),
    number_schema("integer"),
    typed("boolean", const=scalars),
    typed("null"),
    st.sampled_from([{}, {"description": "anything"}, True]),
    st.builds(lambda options: {"enum": options}, st.lists(scalars, min_size=1, max_size=4)),
    st.builds(lambda value: {"const": value}, scalars),
    st.builds(
        lambda kinds, rest: {"type": kinds, **rest},
        st.lists(
            st.sampled_from(["string", "integer", "number", "boolean", "null"]), min_size=2, max_size=4, unique=True
        ),
        parts(enum=st.lists(scalars, min_size=1, max_size=4)),
    ),
    typed(
        "string",
        minLength=st.integers(0, 3),
        maxLength=st.integers(0, 4),
        enum=st.lists(scalars, min_size=1, max_size=4),
        const=scalars,
        format=st.sampled_from(["date", "email", "ipv6", "ipv4", "uuid", "uri", "duration", "hostname", "none"]),
    ),
)


def compound(inner: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    arrays = st.builds(
        lambda items, rest: {"type": "array", "items": items, **rest},
        inner,
        parts(minItems=st.integers(0, 2), maxItems=st.integers(0, 3), uniqueItems=st.booleans()),
    )
    objects = st.builds(object_schema, st.dictionaries(names, inner, max_size=3), st.data(), object_parts)
    chosen = st.lists(scalar_schemas, min_size=1, max_size=3)
    either = st.builds(lambda key, some: {key: some}, st.sampled_from(["anyOf", "oneOf"]), chosen)
    maybe = st.builds(lambda one: {"anyOf": [one, {"type": "null"}]}, inner)
    return arrays | objects | either | maybe


object_parts = parts(
    additionalProperties=st.booleans() | number_schema("integer") | st.just({"type": "string"}),
    minProperties=st.integers(0, 2),
    maxProperties=st.integers(0, 3),
    dependentRequired=st.dictionaries(names, st.lists(names, max_size=2, unique=True), max_size=1),
)


def object_schema(properties: dict[str, Any], data: Any, rest: dict[str, Any]) -> dict[str, Any]:
    required = [name for name in properties if data.draw(st.integers(0, 3))]
    return {"type": "object", "properties": properties, "required": required, **rest}


schemas = st.recursive(scalar_schemas, compound, max_leaves=6)
roots = st.builds(object_schema, st.dictionaries(names, schemas, min_size=1, max_size=2), st.data(), st.just({}))


def plausible(schema: Any, draw: Any) -> Any:
    """Return a value that is likely to fit a schema, so that valid ones are seen often."""
    if draw(st.integers(0, 9)) == 0:
        return draw(json_values)
    for key in ("anyOf", "oneOf") if schema is not True else ():
        if key in schema:
            return plausible(draw(st.sampled_from(schema[key])), draw)
    if schema is not True and ("enum" in schema or "const" in schema):
        return draw(st.sampled_from(schema.get("enum", [schema.get("const")])))
    if schema is True or "type" not in schema:
        return draw(json_values)
    kind = schema["type"] if isinstance(schema["type"], str) else draw(st.sampled_from(schema["type"]))
    if kind == "object":
        some = [name for name in schema["properties"] if name in schema["required"] or draw(st.booleans())]
        return {name: plausible(schema["properties"][name], draw) for name in some}
    if kind == "array":
        return [plausible(schema["items"], draw) for _ in range(draw(st.integers(0, 3)))]
    simple = {
        "null": st.none(),
        "boolean": st.booleans(),
        "integer": st.integers(-5, 5),
        "number": numbers,
        "string": st.text("ab1", max_size=4) | st.sampled_from(["2024-02-29", "a@b", "::1"]),
    }
    return draw(simple[kind])


def broken(text: str, rng: random.Random, edits: int) -> str:
    """Cut, delete, double, insert and replace as a language model, or a network, might."""
    for _ in range(edits):
        at = rng.randrange(len(text) + 1)
        kind = rng.randrange(5)
        if kind == 0:
            text = text[:at] if rng.random() < 0.3 else text
        elif kind == 1:
            text = text[:at] + text[at + 1 :]
        elif kind == 2:
            text = text[:at] + text[at : at + 3] * 2 + text[at + 3 :]
        else:
            text = text[:at] + rng.choice("{}[]\",:'\\/#*`=0eE-+.ntu \n\u201c") + text[at + kind - 3 :]
    return text
