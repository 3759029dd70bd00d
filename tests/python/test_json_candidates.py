"""Candidates: what a slot may become, in which order, and that all of it is valid."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from json_cases import schemas

from trm_edge.json_slots import JsonSlots
from trm_edge.json_slots.candidates import SOURCES, Candidate, candidates_of, key_of, operators_for
from trm_edge.json_slots.compilation import compile_arguments
from trm_edge.json_slots.operators import MAX_TEXT, OPERATORS, find_spans
from trm_edge.json_slots.schema import MISSING, SchemaError, walk
from trm_edge.json_slots.slots import Slot
from trm_edge.json_slots.validation import violation


def slot(schema, **parts):
    return compile_arguments({"type": "object", "properties": {"a": {**schema, **parts}}}).properties["a"]


def found_in(query, schema, optional=False, draft=MISSING):
    return candidates_of(Slot((), schema, optional), draft, find_spans(query))


def values(schema, query, optional=False, draft=MISSING):
    return [one.value for one in found_in(query, schema, optional, draft)]


TEXT, NUMBER, INTEGER = slot({"type": "string"}), slot({"type": "number"}), slot({"type": "integer"})


WORDS = ["Paris,", "and", "5", "3.5%", "twelve", "first", "living", "rooms", "'a'", "[1]", "May 5, 2024", "7:30 pm"]


def array(items, **parts):
    return slot({"type": "array", "items": items, **parts})


def test_what_a_slot_may_be_comes_in_the_order_of_the_sources():
    schema = slot({"type": "string", "default": "c", "description": "Such as 'd', in lower case."})
    found = found_in("E", schema, True, "b")
    assert [(one.value, one.source) for one in found] == [
        *((MISSING, "omit"), ("b", "draft"), ("c", "default"), ("d", "literal"), ("E", "span"), ("e", "span"))
    ]
    assert all(one.source in SOURCES for one in found)


@pytest.mark.parametrize(
    ("description", "query", "values"),
    [
        ("Place, in lower case.", "from Old Town", {"Old Town", "old town"}),
        ("Place, such as 'Big Lake'.", "to old town", {"old town", "Old Town"}),
        ("Place, in title case", "to old town", {"old town", "Old Town"}),
        ("A file, as in my_file", "find Old Town", {"Old Town", "old_town"}),
        ("Place.", "from Old Town", {"Old Town"}),
        ("Place.", "to old town", {"old town"}),
    ],
)
def test_words_are_spelt_otherwise_where_the_description_does_so(description, query, values):
    spelt = {"old town", "Old Town", "old_town", "oldTown"}
    schema = slot({"type": "string", "description": description})
    assert {one.value for one in found_in(query, schema)} & spelt == values


def test_a_value_of_the_draft_stays_the_drafts_where_the_query_has_it_too():
    found = found_in("to Paris", TEXT, False, "Paris")
    assert [one.source for one in found if one.value == "Paris"] == ["draft"]


def test_a_span_is_where_it_was_read():
    (one,) = (one for one in found_in("for twenty five people", INTEGER) if one.value == 25)
    assert one == Candidate(25, "span", "number words", 4, 15)


@pytest.mark.parametrize(
    ("query", "number", "places"),
    [
        ("add 20 minutes to the 20-second timer", 20, [(4, 6), (22, 24)]),
        ("$5 for Ann, $5 for Bob, $5 for me", 5, [(0, 2), (12, 14), (24, 26)]),
        ("ten cups and ten plates", 10, [(0, 3), (13, 16)]),
        ("three sides of 3 and 4", 3, [(15, 16)]),  # said once, and again in words: as a rule of the same thing
        ("add 5 seconds to the five-hour timer", 5, [(4, 5), (21, 25)]),  # but not of different units
        ("a room for a night", 1, [(0, 1)]),  # implied
    ],
)
@pytest.mark.parametrize("schema", [NUMBER, INTEGER, slot({"anyOf": [{"type": "string"}, {"type": "number"}]})])
def test_a_number_that_the_query_repeats_is_a_candidate_at_each_place(schema, query, number, places):
    found = [one for one in found_in(query, schema) if one.value == number and not isinstance(one.value, str)]
    assert [(one.start, one.end) for one in found] == places


@pytest.mark.parametrize(
    ("description", "query", "particles"),
    [
        ("The item.", "check off paint on the list", set()),
        ("State of the light: on or off.", "turn the light off", {"off"}),
        ("Whether it is ON or OFF", "put it on", {"on"}),
        ("Up/down", "turn it up, not down, and in", {"up", "down"}),
        ("Based on what is in the room", "in the room, on the wall", set()),
    ],
)
def test_a_particle_alone_is_a_value_where_the_description_names_it_beside_its_opposite(description, query, particles):
    schema = slot({"type": "string", "description": description})
    assert set(values(schema, query)) & {"on", "off", "up", "down", "in", "out", "me", "do"} == particles
    assert [one for one in values(array({"type": "string"}), query) if one in (["off"], ["on"], ["in"])] == []


def test_an_example_that_is_a_particle_is_mentioned():
    assert "off" in values(slot({"type": "string", "examples": ["off", "eco"]}), "turn the heating off")


@pytest.mark.parametrize("text", ["1.10", "3.0", "1e3", "2.50"])
def test_a_number_that_is_meant_as_text_keeps_its_digits(text):
    slots = JsonSlots({"name": "f", "parameters": {"type": "object", "properties": {"v": {"type": "string"}}}})
    for draft in (f'{{"v": {text}}}', f"{{v: {text},}}"):
        inputs = slots.bind("", draft)
        assert json.loads(inputs.decode(inputs.drafted).json) == {"v": text}


def test_number_words_stand_beside_a_literal_of_the_same_value():
    schema = slot({"type": "integer", "description": "In seconds, half a minute is `30`"})
    found = [one for one in found_in("add thirty second", schema) if one.value == 30]
    assert [(one.source, one.start) for one in found] == [("literal", -1), ("span", 4)]
    assert [one.source for one in found_in("add 30 second", schema) if one.value == 30] == ["literal"]


def test_a_repeated_number_that_is_not_valid_or_the_drafts_is_not_offered_again():
    query = "add 20 minutes to the 20-second timer"
    assert 20 not in values(slot({"type": "integer", "maximum": 10}), query)
    assert values(INTEGER, query, draft=20).count(20) == 1
    assert len(found_in(" and ".join(["7"] * 100), INTEGER)) < 20


@pytest.mark.parametrize(
    ("schema", "query", "expected"),
    [
        (TEXT, "room 12", "12"),
        (TEXT, "table for four", "4"),
        (NUMBER, "2.5 km", 2.5),
        (INTEGER, "in 3.0 hours", 3),
        (NUMBER, "see 'id:7434'", 7434),
        (array({"type": "number"}), "of 1, 2 and 3.5", [1.0, 2.0, 3.5]),
        (array({"type": "integer"}), "of 1, 2 and 3", [1, 2, 3]),
        (array({"type": "string"}), "of 1, 2 and 3", ["1", "2", "3"]),
        (array({"type": "string"}), "buy tea and milk", ["tea", "milk"]),
        (array({"type": "string"}), "about War", ["War"]),
        (array({"type": "number"}), "above 7", [7.0]),
        (array({"type": "array", "items": {"type": "integer"}}), "table [[1, 2], [3, 4]]", [[1, 2], [3, 4]]),
        (array({"type": "string"}), "nothing", []),
        (array({"type": "string", "enum": ["Big Red", "b"]}), "a big-red, B", ["Big Red", "b"]),
        (slot({"oneOf": [{"type": "integer"}, {"type": "string"}]}), "room 12", 12),
    ],
)
def test_spans_are_brought_to_the_type_of_the_slot(schema, query, expected):
    assert any(key_of(value) == key_of(expected) for value in values(schema, query)), values(schema, query)


@pytest.mark.parametrize(
    ("schema", "query", "expected"),
    [
        (INTEGER, "2.5 km", 2.5),
        (slot({"type": "integer", "maximum": 9}), "10 or 9", 10),
        (slot({"type": "string", "maxLength": 3}), "long", "long"),
        (slot({"type": "string", "format": "date"}), "tomorrow", "tomorrow"),
        (slot({"type": "string", "enum": ["x"]}), "y", "y"),
        (array({"type": "string"}, minItems=2), "tea", ["tea"]),
        (array({"type": "integer"}, uniqueItems=True), "1, 1", [1, 1]),
        (array({"type": "string"}, minItems=1), "tea", []),
    ],
)
def test_what_is_not_valid_is_no_candidate(schema, query, expected):
    assert all(key_of(value) != key_of(expected) for value in values(schema, query))


@pytest.mark.parametrize(
    ("options", "query", "expected"),
    [
        (["Points", "Rebounds", "Assists"], "point and rebound stats", ["Points", "Rebounds"]),
        (["strengths", "weaknesses"], "its strength and weakness", ["strengths", "weaknesses"]),
        (["Goals Scored", "Assists Made", "Fouls"], "the overall goal and assist", ["Goals Scored", "Assists Made"]),
        (["tolls", "ferries", "highways"], "avoiding highways and toll roads", ["highways", "tolls"]),
        (["a", "b", "c"], "no word of it", ["b"]),
    ],
)
def test_an_array_is_offered_the_options_that_the_query_mentions(options, query, expected):
    assert expected in values(array({"type": "string", "enum": options}), query)


def test_examples_and_choices_of_a_description_are_candidates():
    schema = slot(
        {"type": "string", "description": "Type. E.g. dessert, main course, breakfast. By (walk, bike, or drive)."}
    )
    assert {"dessert", "main course", "breakfast", "walk", "bike", "drive"} <= {*values(schema, "")}


def test_examples_of_the_schema_are_candidates_where_the_query_mentions_them():
    rooms = ["Living Room", "den", "attic", 7, None, "", "den"]
    for schema in (
        slot({"type": "string", "examples": rooms}),
        slot({"anyOf": [{"type": "string", "enum": ["all"]}, {"type": "string", "examples": rooms}]}),
    ):
        found = found_in("light the living-room and the den", schema)
        said = [one for one in found if one.source == "mentioned"]
        assert said == [
            Candidate("Living Room", "mentioned", "words", 10, 21),
            Candidate("den", "mentioned", "words", 30, 33),
        ]
        assert "attic" not in [one.value for one in found]
    short = slot({"type": "string", "examples": rooms, "maxLength": 5})
    assert "Living Room" not in values(short, "light the living-room"), "an example that is not valid"


@pytest.mark.parametrize("examples", ["den", 3, {"a": 1}, [["den"]], [{}]])
def test_examples_of_another_kind_change_nothing(examples):
    assert slot({"type": "string", "examples": examples}).examples == ()
    assert slot({"type": "integer", "examples": ["den", 3]}).examples == ()


def test_names_are_spelt_as_the_description_spells_them():
    query = "dim the living room"
    assert "living_room" in values(slot({"type": "string", "description": "A room, e.g. guest_room."}), query)
    assert "livingRoom" in values(slot({"type": "string", "description": "A room, e.g. guestRoom."}), query)
    assert not {"living_room", "livingRoom"} & {*values(TEXT, query)}


def test_keys_tell_values_apart_as_json_does():
    several = [1, 1.0, True, "1", None, [1], [1.0], [True], ["1"], [["1"]], [], {}, {"1": 1}]
    assert len({key_of(value) for value in several}) == len(several)


@settings(max_examples=300, deadline=None)
@given(schemas, st.text("abc XY,.'and[1]2 5%", max_size=60), st.booleans())
def test_every_candidate_is_valid(schema, query, optional):
    try:
        arguments = compile_arguments({"type": "object", "properties": {"a": schema}})
    except SchemaError:
        return
    for one in found_in(query, arguments.properties["a"], optional):
        if one.value is MISSING:
            assert optional
        else:
            assert violation(arguments.properties["a"], one.value) is None


@settings(max_examples=300, deadline=None)
@given(schemas, st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join))
def test_operators_that_are_left_out_would_change_nothing(schema, query):
    try:
        arguments = compile_arguments({"type": "object", "properties": {"a": schema}})
    except SchemaError:
        return
    some = operators_for(walk(arguments))
    every, fewer = (
        candidates_of(Slot((), arguments.properties["a"], False), MISSING, find_spans(query, None, operators))
        for operators in (OPERATORS, some)
    )
    assert repr(every) == repr(fewer)


def test_a_tool_runs_the_operators_that_its_slots_need():
    named = slot({"type": "string", "description": "Such as living_room."})
    names = {schema: {one.name for one in operators_for([schema])} for schema in (TEXT, NUMBER, named)}
    assert not names[TEXT] & {"list", "percent", "duration", "snake"}
    assert names[TEXT] >= {"words", "date", "number"}
    assert names[named] - names[TEXT] == {"snake"}
    assert names[NUMBER] >= {"words", "percent", "duration"}
    assert not names[NUMBER] & {"date", "list"}
    assert operators_for([slot({"type": "boolean"}), slot({"type": "string", "enum": ["a"]})]) == ()


def test_the_same_query_has_the_same_candidates_in_the_same_order():
    query = "Compare Paris, Rome and New York by 40% of 12, 'a' and 'b', on March 5, 2024"
    for schema in (TEXT, NUMBER, INTEGER, array({"type": "string"}), array({"type": "number"})):
        first = found_in(query, schema, True)
        find_spans("another query")
        again = found_in(query, schema, True)
        assert first == again


@pytest.mark.parametrize(
    "unit", ["word ", "Name ", "a, ", "1 ", "'a' ", "May 5 at 3 pm ", "[1], ", "x and y, ", "Paris, "]
)
def test_a_long_query_has_a_bounded_number_of_candidates(unit):
    """Against growth with the square of the length: values in proportion to the characters, whatever they are."""
    spans = find_spans(unit * MAX_TEXT)
    assert sum(len(span.value) if isinstance(span.value, list) else 1 for span in spans) < 8 * MAX_TEXT
    for schema in (TEXT, NUMBER, array({"type": "string"})):
        assert len(candidates_of(Slot((), schema, False), MISSING, spans)) < 4 * MAX_TEXT
