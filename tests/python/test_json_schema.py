"""Schemas of tools: what is compiled, what is refused by pointer, and validation against the package ``jsonschema``."""

import copy
import json
import pickle
import re
import sys
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from json_cases import json_values, plausible, roots, scalars
from jsonschema import Draft202012Validator

from trm_edge.json_slots.calls import JsonSlots, Resolved
from trm_edge.json_slots.compilation import compile_arguments, compile_tool
from trm_edge.json_slots.schema import MISSING, Array, Choice, Object, Scalar, SchemaError, walk
from trm_edge.json_slots.validation import FORMATS as CHECKED
from trm_edge.json_slots.validation import violation

WEATHER = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "description": "where, for instance Paris"},
        "days": {"type": "integer", "minimum": 1, "maximum": 14, "default": 1},
        "unit": {"type": "string", "enum": ["metric", "imperial"]},
    },
    "required": ["city"],
    "additionalProperties": False,
}


def obj(**properties: Any) -> dict[str, Any]:
    """Return the schema of an object with these properties."""
    return {"type": "object", "properties": properties}


class TestTools:
    @pytest.mark.parametrize(
        "tool",
        [
            {"type": "function", "function": {"name": "weather", "description": "d", "parameters": WEATHER}},
            {"type": "function", "name": "weather", "description": "d", "parameters": WEATHER, "strict": True},
            {"name": "weather", "description": "d", "inputSchema": WEATHER},
            {"name": "weather", "description": "d", "input_schema": WEATHER},
            {"name": "weather", "description": "d", "parameters": {**WEATHER, "type": "dict"}},
        ],
    )
    def test_every_form_gives_the_same_tool(self, tool):
        compiled = compile_tool(tool)
        assert (compiled.name, compiled.description) == ("weather", "d")
        assert compiled.arguments == compile_arguments(WEATHER)

    def test_a_model_that_writes_its_own_schema_is_taken(self):
        class Weather:
            @staticmethod
            def model_json_schema() -> dict[str, Any]:
                return {**WEATHER, "title": "Weather", "description": "d"}

        compiled = compile_tool(Weather)
        assert (compiled.name, compiled.description) == ("Weather", "d")
        assert compiled.arguments.properties == compile_arguments(WEATHER).properties

    def test_what_is_dumped_as_a_tool_is_taken_as_one(self):
        class McpTool:
            @staticmethod
            def model_json_schema() -> dict[str, Any]:
                raise AssertionError("the schema of the class, not of the tool")

            def model_dump(self, exclude_none: bool) -> dict[str, Any]:
                assert exclude_none
                return {"name": "weather", "inputSchema": WEATHER}

        compiled = compile_tool(McpTool())
        assert (compiled.name, compiled.arguments) == ("weather", compile_arguments(WEATHER))

    def test_a_model_without_a_schema_is_refused(self):
        class Broken:
            @staticmethod
            def model_json_schema() -> dict[str, Any]:
                raise ValueError("no schema for a Callable")

        with pytest.raises(SchemaError, match="tool Broken: pydantic makes no JSON Schema of it: no schema for"):
            compile_tool(Broken)

    @pytest.mark.parametrize("parameters", [{}, {"parameters": {}}, {"parameters": None}])
    def test_a_tool_without_parameters_takes_none(self, parameters):
        assert compile_tool({"name": "stop", **parameters}).arguments.properties == {}

    def test_a_tool_can_be_copied(self):
        tool = compile_tool({"name": "weather", "parameters": WEATHER})
        for copied in (copy.deepcopy(tool), pickle.loads(pickle.dumps(tool))):
            assert copied.arguments == tool.arguments
            assert copied.arguments.properties["city"].default is MISSING

    def test_bfcl_names_of_types_are_known(self):
        names = {"float": "number", "tuple": "array", "dict": "object", "String": "string", "int": "integer"}
        for given_name, name in names.items():
            schema = {"type": given_name, **({"items": {"type": "string"}} if name == "array" else {})}
            compiled = compile_arguments(obj(a=schema)).properties["a"]
            assert (compiled.type if isinstance(compiled, Scalar) else type(compiled).__name__.lower()) == name

    @pytest.mark.parametrize(
        ("tool", "message"),
        [
            (3, "expected an object or a pydantic model, got int"),
            ({"function": 3}, "/function: expected an object, got int"),
            ({"parameters": WEATHER}, "/name: expected a name, got None"),
            ({"name": "f", "description": 3}, "f /description: expected text, got int"),
            (
                {"name": "f", "parameters": {"type": "string"}},
                "tool f: /: expected the schema of an object, got that of",
            ),
        ],
    )
    def test_what_is_no_tool_is_refused(self, tool, message):
        with pytest.raises(SchemaError, match=message):
            compile_tool(tool)


class TestParts:
    def test_parts_are_kept(self):
        weather = compile_arguments(WEATHER)
        assert weather.closed and weather.required == {"city"}
        assert weather.properties["city"] == Scalar("/properties/city", "string", "where, for instance Paris")
        assert weather.properties["days"].default == 1 and weather.properties["city"].default is MISSING
        assert weather.properties["unit"].options == ("metric", "imperial")
        assert [part.pointer for part in walk(weather)] == [
            "/",
            *(f"/properties/{name}" for name in ("city", "days", "unit")),
        ]

    @pytest.mark.parametrize(
        "schema",
        [
            {"type": ["string", "null"]},
            {"type": "string", "nullable": True},
            {"anyOf": [{"type": "string"}, {"type": "null"}]},
            {"oneOf": [{"type": "null"}, {"type": "string"}]},
        ],
    )
    def test_null_beside_a_type(self, schema):
        compiled = compile_arguments(obj(a=schema)).properties["a"]
        assert isinstance(compiled, Scalar) and compiled.type == "string" and compiled.nullable

    def test_alternatives_of_scalars(self):
        parts = [{"type": "integer"}, {"type": "string"}, {"type": "null"}]
        choice = compile_arguments(obj(a={"anyOf": parts, "description": "d", "default": 3})).properties["a"]
        assert isinstance(choice, Choice) and choice.nullable and not choice.exactly_one
        assert (choice.description, choice.default) == ("d", 3)
        assert [one.type for one in choice.alternatives] == ["integer", "string"]

    def test_references_are_filled_in(self):
        schema = {
            "$defs": {"Point": obj(x={"type": "number"}), "a/b~": {"$ref": "#/$defs/Point"}},
            **obj(
                p={"$ref": "#/$defs/Point", "description": "d"},
                q={"type": "array", "items": {"$ref": "#/$defs/a~1b~0"}},
            ),
        }
        compiled = compile_arguments(schema)
        point, points = compiled.properties["p"], compiled.properties["q"]
        assert isinstance(point, Object) and point.description == "d" and [*point.properties] == ["x"]
        assert isinstance(points, Array) and isinstance(points.items, Object)

    def test_a_type_may_follow_from_the_options(self):
        properties = compile_arguments(obj(a={"enum": ["x", "y"]}, b={"const": 3}, c={"enum": [1, 2.5]})).properties
        assert [part.type for part in properties.values()] == ["string", "integer", "number"]

    def test_options_of_another_type_do_not_count(self):
        part = compile_arguments(obj(a={"type": ["string", "null"], "enum": ["x", 3, None]})).properties["a"]
        assert part.options == ("x",) and part.nullable

    @pytest.mark.parametrize(
        ("schema", "message"),
        [
            (obj(a={"type": "string", "pattern": "a+"}), "/properties/a/pattern: not supported"),
            (obj(**{"a/b": {"type": "string", "pattern": "a+"}}), "/properties/a~1b/pattern: not supported"),
            (obj(a={"oneOf": [{}, {"type": "null"}]}), "/properties/a/oneOf: what may be anything"),
            (obj(a={"type": "array", "items": [{"type": "string"}]}), "/properties/a/items: expected an object"),
            (obj(a={"type": "array", "prefixItems": [], "items": {"type": "string"}}), "/a/prefixItems: not supported"),
            (obj(a={"type": "quantity"}), "/properties/a/type: expected a type of JSON Schema, got 'quantity'"),
            (obj(a={"type": ["string", "array"]}), "/properties/a/type: several types are supported for scalars only"),
            (
                obj(a={"type": ["string", "quantity"]}),
                "/properties/a/type: expected a type of JSON Schema, got 'quantity'",
            ),
            (obj(a={"type": ["string", "integer"], "items": {}}), "/properties/a/items: not supported here"),
            (obj(a={"type": ["string", "integer"], "enum": [True]}), "/properties/a/enum: no value of the types"),
            (obj(a={"type": []}), "/properties/a/type"),
            (obj(a={"minimum": 3}), "/properties/a: expected a type"),
            (obj(a=False), "/properties/a: expected an object, got False"),
            (obj(a={"enum": ["x", [1]]}), "/properties/a/enum: expected scalars"),
            (obj(a={"enum": []}), "/properties/a/enum: expected scalars"),
            (obj(a={"type": ["any"]}), "/properties/a/type: expected a type"),
            (obj(a={"oneOf": [{"enum": ["x", None]}, {"type": ["integer", "null"]}]}), "null fits 2 alternatives"),
            (obj(a={"$ref": "#T"}), "expected a local reference by pointer, '#/...', got '#T'"),
            (obj(a={"$id": "http://example.com/s", **obj()}), r"/properties/a/\$id: supported at the root only"),
            (obj(a={"type": "array", "items": obj(), "minItems": 10**9}), "/properties/a/minItems: supported up to"),
            (obj(a={"type": "string", "format": "idn-hostname"}), "/properties/a/format: idn-hostname is not"),
            (obj(a={"type": "number", "minimum": 10**400}), "/properties/a/minimum: expected a number"),
            (obj(a={"type": "string", "enum": []}), "/properties/a/enum: expected a list of values"),
            (obj(a={"type": "string", "enum": [1, 2]}), "/properties/a/enum: no value of type string is left"),
            (obj(a={"type": "object", "enum": [{}]}), "/properties/a/enum: supported for scalars, not for object"),
            (
                obj(a={"anyOf": [obj(), {"type": "string"}]}),
                "/properties/a/anyOf/0: several alternatives are supported",
            ),
            (obj(a={"allOf": [obj(), obj()]}), "/properties/a/allOf: supported with one schema, got 2"),
            (obj(a={"not": {"type": "string"}, "type": "string"}), "/properties/a/not: not supported"),
            (obj(a={"type": "string", "minLength": -1}), "/properties/a/minLength: expected a whole number from 0"),
            (obj(a={"type": "number", "minimum": "1"}), "/properties/a/minimum: expected a number"),
            (obj(a={"type": "number", "multipleOf": 0}), "/properties/a/multipleOf: expected a positive number"),
            (obj(a={"type": "string", "description": 3}), "/properties/a/description: expected text"),
            (obj(a={"$ref": "http://example.com/s"}), "/properties/a/.ref: expected a local reference"),
            (obj(a={"$ref": "#/$defs/none"}), "/properties/a/.ref: there is no #/.defs/none"),
            ({**obj(a={"$ref": "#/$defs/T"}), "$defs": {"T": obj(t={"$ref": "#/$defs/T"})}}, "refers to itself"),
            ({**obj(a={"$ref": "#"})}, r"/properties/a/properties/a/\$ref: # refers to itself"),
            ({**obj(), "required": ["a"]}, "/required: 'a' is no property"),
            ({**obj(), "required": "a"}, "/required: expected a list of names"),
            ({**obj(), "additionalProperties": {"pattern": "a"}}, "/additionalProperties/pattern: not supported"),
            ({**obj(), "patternProperties": {}}, "/patternProperties: not supported"),
            ({"type": ["object", "null"]}, "cannot be null"),
            ({"type": "object", "properties": 3}, "/properties: expected an object, got 3"),
            (None, "/: expected an object, got None"),
            (obj(a={"type": "number", "default": float("nan")}), "/: the schema is not JSON: Out of range float"),
            (obj(a={"type": "string", "enum": {"x"}}), "/: the schema is not JSON: .*set is not JSON serializable"),
        ],
    )
    def test_what_is_not_supported_is_named(self, schema, message):
        with pytest.raises(SchemaError, match=message):
            compile_arguments(schema)

    def test_references_are_fragments_of_an_address(self):
        definitions = {"a b": {"type": "integer"}, "a%b": {"type": "string"}, "a%25b": {"type": "null"}}
        schema = {**obj(a={"$ref": "#/$defs/a%20b"}, b={"$ref": "#/$defs/a%25b"}), "$defs": definitions}
        properties = compile_arguments(schema).properties
        assert [properties[name].type for name in "ab"] == ["integer", "string"]

    def test_references_that_multiply_are_stopped(self):
        definitions = {
            f"d{i}": obj(a={"$ref": f"#/$defs/d{i + 1}"}, b={"$ref": f"#/$defs/d{i + 1}"}) for i in range(40)
        }
        with pytest.raises(SchemaError, match="more than 4096 parts"):
            compile_arguments({**obj(a={"$ref": "#/$defs/d0"}), "$defs": {**definitions, "d40": obj()}})

    def test_chains_and_depth_are_stopped(self):
        chain = {f"d{i}": {"$ref": f"#/$defs/d{i + 1}"} for i in range(500)}
        with pytest.raises(SchemaError, match="more than 64 references"):
            compile_arguments({**obj(a={"$ref": "#/$defs/d0"}), "$defs": chain})
        deep: dict[str, Any] = {"type": "string"}
        for _ in range(sys.getrecursionlimit() * 2):
            deep = {"type": "array", "items": deep}
        with pytest.raises(SchemaError, match="too deep"):
            compile_arguments(obj(a=deep))


@pytest.mark.parametrize(
    ("schema", "value", "message"),
    [
        (WEATHER, {}, "/: expected the property 'city', got none"),
        (WEATHER, {"city": 3}, "/city: expected a value of type string, got 3"),
        (WEATHER, {"city": "x", "days": True}, "/days: expected a value of type integer, got True"),
        (WEATHER, {"city": "x", "days": 15}, "/days: expected at most 14, got 15"),
        (WEATHER, {"city": "x", "unit": "kelvin"}, "/unit: expected one of .'metric', 'imperial'., got 'kelvin'"),
        (WEATHER, {"city": "x", "town": "y"}, "/: expected only the properties city, days, unit, got 'town'"),
        (WEATHER, [], "/: expected an object"),
        (obj(**{"a/b": {"type": "null"}}), {"a/b": 0}, "/a~1b: expected a value of type null"),
        (obj(a={"type": "array", "items": {"type": "integer"}, "uniqueItems": True}), {"a": [1, 2, 1.0]}, "/a/2: "),
        ({**obj(), "dependentRequired": {"a": ["b"]}}, {"a": 1}, "beside 'a' also .'b'."),
        ({**obj(), "minProperties": 1}, {}, "expected 1 to inf properties, got 0"),
    ],
)
def test_violations_say_where_and_what(schema, value, message):
    wrong = violation(compile_arguments(schema), value)
    assert re.search(message, str(wrong)) is not None


BOUNDS = [
    ({"type": "integer", "minimum": 2}, [2, 2.0], [1, 2.5, True, "2"]),
    ({"type": "integer", "maximum": 2}, [2, -9], [3]),
    ({"type": "number", "exclusiveMinimum": 2}, [2.5], [2, 1]),
    ({"type": "number", "exclusiveMaximum": 2}, [1.5], [2, 3]),
    ({"type": "number", "multipleOf": 0.5}, [1, 1.5, -0.5, 0], [0.7]),
    ({"type": "integer", "multipleOf": 3}, [0, 3, 10**30 * 3], [1, 10**30]),
    ({"type": "string", "minLength": 1, "maxLength": 2}, ["a", "\U0001d11e\U0001d11e"], ["", "abc"]),
    (
        {"type": "array", "items": {"type": "integer"}, "minItems": 1, "maxItems": 2},
        [[1], [1, 1]],
        [[], [1, 2, 3], ["a"]],
    ),
    ({"type": "array", "items": {"enum": [1, 2]}, "uniqueItems": True}, [[1, 2], []], [[1, 1.0]]),
    (
        {"type": "array", "items": {"type": ["number", "null"]}, "uniqueItems": True},
        [[0, 1, 2.5, None], [2**53, 2**53 + 1]],
        [[1, 2, 1.0], [None, 1, None]],
    ),
    ({"const": "a"}, ["a"], ["b", None]),
    ({"type": ["integer", "null"], "enum": [1, None]}, [1, 1.0, None], [2, True]),
    ({"type": ["integer", "null"], "enum": [1]}, [1], [None]),
    ({"type": ["string", "integer"], "minLength": 2, "minimum": 3}, ["ab", 3, 4.0], ["a", 2, 3.5, None, True]),
    ({"type": ["string", "number", "null"], "enum": ["a", 1, None, True]}, ["a", 1.0, None], ["b", 2, True]),
    ({"type": ["boolean", "integer", "null"], "enum": [1]}, [1], [None, True]),
    ({"oneOf": [{"type": "number"}, {"type": "integer"}]}, [1.5], [1, "a"]),
    ({"anyOf": [{"type": "number"}, {"type": "integer"}]}, [1.5, 1], ["a", None]),
    ({"oneOf": [{"type": "integer", "maximum": 3}, {"type": "null"}]}, [3, None], [4]),
    # 1e300 is no multiple of 3 as it is written, and one as float64 has it: no validator may find two that fit.
    (
        {"oneOf": [{"type": "number", "multipleOf": 3}, {"type": "number", "multipleOf": 1}]},
        [1, 2.0, 10**30],
        [3, 0.5, 1e300],
    ),
    ({"anyOf": [{"type": "number", "multipleOf": 3}, {"type": "number", "enum": [1e300]}]}, [3, 6.0, 1e300], [1, 0.5]),
    ({**obj(a={"type": "integer"}), "maxProperties": 1}, [{}, {"b": 1}], [{"a": 1, "b": 1}, {"a": "x"}]),
    ({**obj(a={"type": "integer"}), "minProperties": 1}, [{"a": 1}], [{}]),
    ({**obj(), "dependentRequired": {"a": ["b"]}}, [{}, {"b": 1}, {"a": 1, "b": 1}], [{"a": 1}]),
    ({**obj(a={"type": "null"}), "additionalProperties": False}, [{}, {"a": None}], [{"b": None}]),
]


@pytest.mark.parametrize(("schema", "good", "bad"), BOUNDS)
def test_bounds_hold_as_jsonschema_has_them(schema, good, bad):
    schema = obj(a=schema)
    compiled, oracle = compile_arguments(schema), Draft202012Validator(schema)
    assert [violation(compiled, {"a": value}) for value in good] == [None] * len(good)
    assert [value for value in bad if violation(compiled, {"a": value}) is None] == []
    assert all(oracle.is_valid({"a": value}) for value in good)
    assert not any(oracle.is_valid({"a": value}) for value in bad)


FORMATS = [
    ("date", "2024-02-29", "2023-02-29", "2024-2-29", "20240229", "2024-W09-4", "\u0662024-02-29"),
    ("time", "23:59:59Z", "23:59:60Z", "12:00:60Z", "24:00:00Z", "12:00", "12:00:00", "12:60:00Z"),
    ("time", "15:59:59-08:00", "15:59:60-08:00", "12:00:00+24:00"),
    ("date-time", "2024-02-29T12:00:00.5+01:00", "2024-02-29 12:00:00Z", "2024-02-30T12:00:00Z", "2024-02-29"),
    ("email", "a@b.c", "a.b.c", "a@", "a b@c"),
    ("uuid", "2eb8aa08-aa98-11ea-b4aa-73b441d16380", "2eb8aa08aa9811eab4aa73b441d16380", "2eb8"),
    ("ipv4", "127.0.0.1", "127.0.0", "127.0.0.256", "::1", "127.0.0.01"),
    ("ipv6", "::1", "127.0.0.1", "fe80::1%eth0", "12345::"),
    ("idn-email", "\u00e9@b.c", "a.b.c", "a b@c"),
    ("regex", "(a|b)+", "(", "a{2,1}", "(" * 2000 + ")" * 2000),
    ("json-pointer", "/a~1b/0", "a/b", "/a~2", "/a~"),
    ("relative-json-pointer", "1/a", "/a", "01", "-1", "1a"),
    ("hostname", "a-b.c", "a_b.c", "-a.b", "a-.b", "a..b", "a.", "x" * 64, ".".join(["abc"] * 64)),
    ("duration", "P1Y2M3DT4H5M6S", "P", "PT", "P1YT", "P1W2D", "2 hours", "P1.5D", "-P1D", "PT1S1M"),
    (
        "uri",
        "http://u:p@[::1]:80/a%20b?c#d",
        "example",
        "http://x.y/a b",
        "a:%zz",
        "http://[1::2::3]/",
        "http://\u00e9.x",
    ),
    ("uri", "urn:isbn:1", "//host/path", "1a:b", ":a", "http://x.y/[a]"),
    ("uri-reference", "../a?b#c", "1:b/c", "a b", "a#b#c"),
]


@pytest.mark.parametrize(("name", "good", "bad"), [(name, good, bad) for name, good, *bad in FORMATS])
def test_formats(name, good, bad):
    schema = compile_arguments(obj(a={"type": "string", "format": name}))
    assert violation(schema, {"a": good}) is None
    assert [text for text in bad if violation(schema, {"a": text}) is None] == []


@pytest.mark.parametrize("anything", [{}, True, {"description": "whatever"}, {"anyOf": [{}, {"type": "null"}]}])
def test_what_may_be_anything_is_what_the_draft_has(anything: Any) -> None:
    tool = JsonSlots({"name": "f", "parameters": obj(a=anything, b={"type": "array"}, n={"type": "integer"})})
    for value in (None, 7, "x", [1, "y"], {"deep": [{}]}):
        draft = json.dumps({"a": value, "b": [value, 1], "n": 5})
        bound = tool.bind("take 6", draft)
        assert bound.decode(bound.y0) == Resolved("unchanged", draft, draft, tuple(bound.y0))
        (six,) = (j for j, one in enumerate(bound.candidates) if one.value == 6)
        assert json.loads(bound.decode([*bound.y0[:2], six]).json or "") == json.loads(draft) | {"n": 6}
    assert [one.value for one in tool.bind("take 6", None).candidates] == [MISSING, MISSING, [], MISSING, 6]


def test_other_names_have_a_schema_of_their_own() -> None:
    others = {"type": "object", "properties": {"n": {"type": "integer"}}, "additionalProperties": {"type": "string"}}
    tool = JsonSlots({"name": "f", "parameters": others})
    for more, status in (('"x": "y"', "resolved"), ('"x": 7', "unresolved")):
        bound = tool.bind("take 6", f'{{"n": "5", {more}}}')
        (six,) = (j for j, one in enumerate(bound.candidates) if one.value == 6)
        made = bound.decode([six])
        assert (made.status, made.json) == (status, '{"n": 6, "x": "y"}' if status == "resolved" else None)


# ---- against jsonschema ----------------------------------------------------------------------------------------------


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(["hostname", "duration", "uri", "uri-reference"]),
    st.lists(
        st.sampled_from(["http:", "//", "::1", "%20", *"a/?#[]@:%.-PT1Y"]),
        max_size=9,
    ),
)
def test_what_has_a_format_has_it_for_the_oracle_too(name: str, parts: list[str]) -> None:
    text, checker = "".join(parts), Draft202012Validator.FORMAT_CHECKER
    assert name in checker.checkers
    assert not CHECKED[name](text) or checker.conforms(text, name)


def seen_otherwise_by_the_oracle(schema: Any) -> bool:
    """Whether decimals decide: the oracle divides in float64 alone, by a rule of its own."""
    if isinstance(schema, dict):
        return isinstance(schema.get("multipleOf"), float) or any(map(seen_otherwise_by_the_oracle, schema.values()))
    return isinstance(schema, list) and any(map(seen_otherwise_by_the_oracle, schema))


@settings(max_examples=400, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much], deadline=None)
@given(roots, st.data())
def test_validation_agrees_with_jsonschema(schema, data):
    try:
        compiled = compile_arguments(schema)
    except SchemaError as error:
        assert any(part in str(error) for part in ("left", "null fits", "within oneOf", "may be anything")), (
            error
        )  # the only refusals that this strategy can meet
        return
    oracle = Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER)
    for _ in range(4):
        value = plausible(schema, data.draw)
        ours, theirs = violation(compiled, value) is None, oracle.is_valid(value)
        assert theirs or not ours, f"passed here, refused by jsonschema: {value}"
        assert ours or not theirs or seen_otherwise_by_the_oracle(schema), violation(compiled, value)


KEYWORDS = [
    *("type", "properties", "items", "enum", "const", "$ref", "anyOf", "oneOf", "allOf", "required", "a", "default"),
    *("additionalProperties", "dependentRequired", "minItems", "minimum", "description", "format", "nullable"),
]
hostile = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(KEYWORDS),
            inner | st.sampled_from(["object", "array", "string", "integer", "#", "#/properties/a", ["a"], ["null"]]),
            max_size=4,
        )
    ),
    max_leaves=10,
)


@settings(max_examples=500, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(hostile, json_values)
def test_any_json_is_compiled_or_refused(schema, value):
    try:
        compiled = compile_arguments(schema)
    except SchemaError:
        return
    violation(compiled, value)
