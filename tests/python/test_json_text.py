"""JSON text: what strict reading takes and refuses, and what lenient reading makes of what language models write."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from json_cases import broken

from trm_edge.json_slots.text import (
    MAX_CHARACTERS,
    MAX_DEPTH,
    JsonTextError,
    depth,
    dumps,
    parse,
    parse_lenient,
    same,
    source_of,
)

ACCEPTED = [
    ("{}", {}),
    ("[]", []),
    (" \t\r\n[ \t1\r\n,\n2 ] \n", [1, 2]),
    ("null", None),
    ("true", True),
    ("false", False),
    ('""', ""),
    ('"\\u0061\\u30AF\\uD834\\uDD1E"', "a\u30af\U0001d11e"),
    ('"\\"\\\\\\/\\b\\f\\n\\r\\t"', '"\\/\b\f\n\r\t'),
    ('"\u2028\u2029\x7f\U0010ffff"', "\u2028\u2029\x7f\U0010ffff"),
    ('"\\u0000"', "\0"),
    ('"/* no comment */ // nor this"', "/* no comment */ // nor this"),
    ("-0", 0),
    ("-0.0", 0.0),
    ("0e1", 0.0),
    ("0E+1", 0.0),
    ("1.5e-3", 0.0015),
    ("123456789012345678901234567890", 123456789012345678901234567890),
    ("1e-400", 0.0),
    ('{"":0,"a":{"":[]}}', {"": 0, "a": {"": []}}),
    ('{"a":1,"A":2}', {"a": 1, "A": 2}),
    ('"\\ud800"', "\ud800"),  # RFC 8259 section 8.2 lets a lone surrogate through
]

REFUSED = [
    *("", " ", "\f1", "\u00a01", "\ufeff{}", "nul", "True", "None", "NaN", "Infinity", "-Infinity", "undefined", "a"),
    *("01", "-01", "+1", "1.", ".5", "-.5", "1e", "1e+", "1.e1", "0x10", "1_000", "- 1", "--1", "1 2", "\uff11", "-"),
    *("1e400", "-1e400", "1" * 500),
    *("'a'", '"a', 'a"', '"\\x41"', '"\\u12"', '"\\u12G4"', '"\\"', '"\t"', '"\n"', '"\x00"', '"a" "b"'),
    *("[", "]", "[1", "[1,", "[1,]", "[,1]", "[1 2]", "[1,,2]", "[1}", "[]]", "[1]x", "[:]", "[a]", "[1;2]"),
    *("{", "}", '{"a"', '{"a":', '{"a":1', '{"a":1,}', "{,}", '{"a" 1}', '{"a":1 "b":2}', "{a:1}", "{'a':1}", "{1:1}"),
    *('{"a":1}}', '{"a"::1}', '{"a":1]', '{"a":1,,"b":2}', '{"a":1}//', '{"a":1}/**/', '{"a":1}#', "{{}}", '{"a":}'),
    *('{"a":1,"a":1}', '[{"x":{"b":0,"b":0}}]'),
]

LENIENT = [
    ('Sure! Here is the call:\n```json\n{"city": "Paris"}\n```\nAnything else?', {"city": "Paris"}),
    ("```\n[1, 2]", [1, 2]),
    ('{"a": 1', {"a": 1}),
    ('{"a": [1, 2', {"a": [1, 2]}),
    ('{"a": "cut of', {"a": "cut of"}),
    ('{"a": {"b": [true, {"c": "d"', {"a": {"b": [True, {"c": "d"}]}}),
    ('{"a": 1, "b"', {"a": 1}),
    ('{"a": 1, "b":', {"a": 1}),
    ('{"a": 1,}', {"a": 1}),
    ("[1, 2, ,3,]", [1, 2, 3]),
    ('{"a": 1 "b": 2}', {"a": 1, "b": 2}),
    ('{"a": [1, 2}', {"a": [1, 2]}),
    ("{'a': 'it''s', 'b': True, 'c': None}", {"a": "it''s", "b": True, "c": None}),
    ("{name: John Smith, age: 30}", {"name": "John Smith", "age": 30}),
    ('{"a": NaN, "b": -Infinity, "c": 1e999}', {"a": None, "b": None, "c": None}),
    ('{"say": "he said "hi" to me", "b": 2}', {"say": 'he said "hi" to me', "b": 2}),
    ('{"a": "say "yes", then go", "b": 2}', {"a": 'say "yes", then go', "b": 2}),
    ('{"code": "print("hi")\\nx = {"a": 1}", "b": 2}', {"code": 'print("hi")\nx = {"a": 1}', "b": 2}),
    ('{"a": "b/"c"/d", "e": "f"}', {"a": 'b/"c"/d', "e": "f"}),
    ("{a: http://x.y/#z, b: 2}", {"a": "http://x.y/#z", "b": 2}),
    ('{"a": "x", b: 1, "c": "y",}', {"a": "x", "b": 1, "c": "y"}),
    ('{"a": 1, // one\n "b": /* two */ 2} # end', {"a": 1, "b": 2}),
    ('{"a": "line\nbreak"}', {"a": "line\nbreak"}),
    ("{\u201ca\u201d: \u201cb\u201d}", {"a": "b"}),
    ('{"a" = 1, "b" => 2}', {"a": 1, "b": 2}),
    ('{"a": .5, "b": 5., "c": +3}', {"a": 0.5, "b": 5.0, "c": 3}),
    ('{"a": "\\ud834\\udd1e \\q"}', {"a": "\U0001d11e q"}),
    ('{"a": 1, "a": 2}', {"a": 2}),
    ('{"a": "```\\n{"}', {"a": "```\n{"}),
    ('[{"n": 1}, {"n": 2}]', [{"n": 1}, {"n": 2}]),
    ("{", {}),
]

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
containers = st.lists(values, max_size=4) | st.dictionaries(st.text(), values, max_size=4)


@pytest.mark.parametrize(("text", "value"), ACCEPTED)
def test_json_is_read(text, value):
    assert same(parse(text), value)
    if "\\ud800" not in text:
        assert same(parse(text.encode()), value)


@pytest.mark.parametrize("text", REFUSED)
def test_what_is_not_json_is_refused(text):
    with pytest.raises(JsonTextError, match="JSON: "):
        parse(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1,\n "b" 2}', "line 2 column 6"),
        ('{"a": 1, "b": 2, "a": 3}', "'a' comes twice"),
        ("NaN", "NaN is not JSON"),
        ("1e999", "1e999 is beyond float64"),
        ("1" * 401, "401 digits"),
        (b"\xff", "byte 0"),
        ("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1), f"deeper than {MAX_DEPTH}"),
        ("[" * 100_000, f"deeper than {MAX_DEPTH}|Expecting"),
        (" " * (MAX_CHARACTERS + 1), f"at most {MAX_CHARACTERS} characters"),
        (None, "expected text, got NoneType"),
    ],
)
def test_refusals_say_what_is_wrong(text, message):
    with pytest.raises(JsonTextError, match=message):
        parse(text)


def test_the_deepest_document_is_read_by_both():
    text = "[" * MAX_DEPTH + "]" * MAX_DEPTH
    assert depth(parse(text)) == MAX_DEPTH
    assert same(parse_lenient(text), parse(text))
    with pytest.raises(JsonTextError, match="deeper"):
        parse_lenient("[" + text)


@pytest.mark.parametrize(("text", "value"), LENIENT)
def test_what_was_meant_is_found(text, value):
    assert same(parse_lenient(text), value)


@pytest.mark.parametrize("text", ["", "no call here", '"a string"', "42", "}"])
def test_a_text_without_object_or_array_is_refused(text):
    with pytest.raises(JsonTextError, match="neither an object nor an array"):
        parse_lenient(text)


@given(containers, st.sampled_from([None, 1]))
def test_every_part_of_a_document_is_found_in_its_own_spelling(value, indent):
    text = f" {json.dumps(value, indent=indent)}\n"
    assert source_of(text, ()) == text
    for name, part in value.items() if isinstance(value, dict) else enumerate(value):
        assert same(parse(source_of(text, (name,))), part)
        assert source_of(text, (name,)).strip() == source_of(text, (name,))
        for inner, own in part.items() if isinstance(part, dict) else ():
            assert same(parse(source_of(text, (name, inner))), own)


@given(values)
def test_values_survive_a_round_trip(value):
    assert same(parse(dumps(value)), value)


@given(containers, st.sampled_from([None, 1]))
def test_lenient_reading_agrees_with_strict_reading_on_json(value, indent):
    text = json.dumps(value, indent=indent, ensure_ascii=indent is None)
    assert same(parse_lenient(text), parse(text))


@settings(max_examples=300)
@given(containers, st.randoms(use_true_random=False), st.integers(1, 6))
def test_broken_json_is_read_or_refused(value, rng, edits):
    text = broken(json.dumps(value), rng, edits)
    try:
        result = parse_lenient(text)
    except JsonTextError:
        assert not any(opening in text for opening in "{[")
    else:
        assert isinstance(result, (dict, list))
        parse(dumps(result))


@pytest.mark.parametrize(
    "unit", ['"/*', '{"', "[,", '"a" ', "{a:", "//\n", "/*", "'", '\\"', "{]", '": "', "1 ", "```{", '{"a" "b" ']
)
def test_a_long_text_is_read_or_refused(unit):
    """A reader that is quadratic in any of these would hang here: they are a quarter of a million characters long."""
    try:
        result = parse_lenient("[" + unit * (250_000 // len(unit)))
    except JsonTextError as error:
        assert "deeper" in str(error)
    else:
        assert isinstance(result, list)
