"""``benchmarks/function_call``: the folds of BFCL, and what heads are trained on beside them."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = str(Path(__file__).parents[2] / "benchmarks")
pytestmark = pytest.mark.usefixtures("function_call")
with_bfcl = pytest.mark.skipif(
    importlib.util.find_spec("bfcl_eval") is None, reason="needs pip install --no-deps bfcl-eval"
)


# ---- folds -----------------------------------------------------------------------------------------------------------


def example(identity: str, name: str, query: str) -> Any:
    from function_call.bfcl import Example

    return Example(identity, query, [{"name": name, "parameters": {"type": "dict", "properties": {}}}], name, {})


def test_examples_of_one_function_or_one_query_stay_together() -> None:
    from function_call.folds import assigned

    several = [example(f"s_{i}", f"tool{i}", f"query {i}") for i in range(40)]
    several += [example("s_dotted", "Tool.1", "another"), example("s_asked", "other", "Another!")]
    folds = assigned({"s": several})
    assert folds["s_1"] == folds["s_dotted"] == folds["s_asked"]
    assert len(folds) == 42
    counts = [list(folds.values()).count(fold) for fold in range(5)]
    assert max(counts) - min(counts) <= 1


def test_published_folds_are_of_like_size() -> None:
    from function_call.folds import FILE

    for folds in json.loads(FILE.read_text(encoding="utf-8")).values():
        sizes = [len(identities) for identities in folds]
        assert max(sizes) - min(sizes) <= 0.02 * sum(sizes) / len(sizes) or max(sizes) - min(sizes) == 1


@with_bfcl
def test_published_folds_are_those_that_are_made() -> None:
    from function_call.folds import FILE, assigned, every_set, published

    sets = every_set()
    assert published(sets, assigned(sets)) == FILE.read_text(encoding="utf-8")


@with_bfcl
def test_every_example_is_tested_once_by_a_head_that_never_saw_its_function() -> None:
    from function_call.folds import FOLDS, every_set, function_key, query_key, split

    tested: list[str] = []
    for fold in range(FOLDS):
        part = split(fold)
        right = {function_key(one.name) for one in part.test}
        asked = {query_key(one.query) for one in part.test}
        assert right.isdisjoint(function_key(one.name) for one in part.train)
        assert right.isdisjoint(function_key(tool["name"]) for one in part.train for tool in one.tools)
        assert right.isdisjoint(function_key(tool["name"]) for tool in part.tools)
        assert asked.isdisjoint(query_key(one.query) for one in part.train)
        assert all(one.tool for one in part.train)
        tested += [one.identity for one in part.test]
    assert sorted(tested) == sorted(one.identity for several in every_set().values() for one in several)


# ---- synthetic queries -----------------------------------------------------------------------------------------------

FLIGHTS = {
    "name": "flights.search",
    "description": "Search for flights between two cities on a given date.",
    "parameters": {
        "type": "dict",
        "properties": {
            "from_city": {"type": "string", "description": "The city to depart from, such as 'Berkeley, CA'."},
            "to_city": {"type": "string", "description": "The city to arrive at, in the format 'City, State'."},
            "departure_date": {"type": "string", "description": "The date, in the format 'MM/DD/YYYY'."},
            "number_of_tickets": {"type": "integer", "description": "From 1 to 6 tickets."},
            "seating_class": {"type": "string", "enum": ["Economy", "Premium Economy", "Business"]},
            "include_bags": {"type": "boolean", "description": "Whether bags are included.", "default": False},
            "airlines": {"type": "array", "items": {"type": "string"}, "description": "Airlines to take."},
            "payer": {
                "type": "dict",
                "properties": {"name": {"type": "string"}, "max_price": {"type": "float"}},
                "required": ["name"],
            },
        },
        "required": ["from_city", "to_city", "departure_date"],
    },
}


def test_synthetic_arguments_are_valid_and_said() -> None:
    from function_call.kinds import words_of
    from function_call.synthetic import is_held, synthetic

    from trm_edge.json_slots import compile_tool
    from trm_edge.json_slots.validation import violation

    schema = compile_tool(FLIGHTS).arguments
    made = synthetic(FLIGHTS, 60)
    assert len(made) == 60 == len({one.query for one in made})
    for one in made:
        assert violation(schema, one.arguments) is None
        assert one.arguments["from_city"].split(",")[0].lower() in one.query.lower()
        assert one.arguments["from_city"] != one.arguments["to_city"]
        assert one.arguments.get("number_of_tickets", 1) in range(1, 7)
        assert ("include_bags" in one.arguments) == ("bags" in one.query.lower())
    assert {name for one in made for name in one.arguments} == set(FLIGHTS["parameters"]["properties"])
    assert sum(map(is_held, made)) >= 0.85 * len(made)
    assert words_of("_numberOfTickets") == "number of tickets"


def test_what_begins_does_not_end_before() -> None:
    from function_call.synthetic import synthetic

    year = {"type": "integer"}
    properties = {"from_year": year, "to_year": year}
    tool = {"name": "f", "parameters": {"type": "dict", "properties": properties, "required": [*properties]}}
    made = synthetic(tool, 20)
    assert len(made) == 20
    assert all(one.arguments["from_year"] <= one.arguments["to_year"] for one in made)


def test_synthetic_answers_have_the_form_of_bfcl() -> None:
    from function_call.synthetic import Synthetic

    one = Synthetic(FLIGHTS, "", {"airlines": ["Delta"], "payer": {"name": "Ann"}, "legs": [{"to": "Rome"}]})
    assert one.answer == {"airlines": [["Delta"]], "payer": [{"name": ["Ann"]}], "legs": [[{"to": ["Rome"]}]]}
    assert one.as_example("s").tool is FLIGHTS


def test_unsupported_tools_have_no_synthetic_queries() -> None:
    from function_call.synthetic import synthetic

    assert synthetic({"name": "f", "parameters": {"type": "dict", "properties": {"a": {"type": "any"}}}}, 3) == []


SCRIPT = """
import json, sys
sys.path.insert(0, sys.argv[1])
from function_call.bfcl import Example
from function_call.substitution import texts_of, variants
from function_call.synthetic import synthetic
tool, answer = json.loads(sys.argv[2]), json.loads(sys.argv[3])
real = Example("r", sys.argv[4], [tool], tool["name"], answer)
made = [[one.query, one.arguments] for one in synthetic(tool, 20, seed=4)]
made += [[one.query, one.answer] for one in variants(real, 10, others=texts_of([real]))]
print(json.dumps(made))
"""
ASKED = "Find 2 Economy tickets from Oakland to Denver, CO on April 5th 2023 with Delta and Qantas"
ANSWER = {
    "from_city": ["Oakland, CA"],
    "to_city": ["Denver, CO"],
    "departure_date": ["04/05/2023"],
    "number_of_tickets": [2, ""],
    "seating_class": ["Economy", ""],
    "include_bags": ["", False],
    "airlines": [["Delta", "Qantas"]],
}


def test_what_is_made_is_the_same_in_every_process() -> None:
    outputs = []
    for hash_seed in ("1", "2"):
        command = [sys.executable, "-c", SCRIPT, BENCHMARKS, json.dumps(FLIGHTS), json.dumps(ANSWER), ASKED]
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        outputs.append(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)
    assert outputs[0] == outputs[1]
    assert len(json.loads(outputs[0])) == 30


# ---- other values in real queries ------------------------------------------------------------------------------------


def variants_of(query: str, answer: dict[str, list[Any]], tool: dict[str, Any] = FLIGHTS, count: int = 20) -> list[Any]:
    from function_call.bfcl import Example
    from function_call.substitution import variants

    return variants(Example("real", query, [tool], tool["name"], answer), count)


def one_property(schema: dict[str, Any], name: str = "value") -> dict[str, Any]:
    return {"name": "f", "parameters": {"type": "dict", "properties": {name: schema}, "required": [name]}}


def test_values_are_replaced_in_query_and_answer_alike() -> None:
    from function_call.synthetic import is_held

    made = variants_of(ASKED, ANSWER)
    assert len(made) == 20
    for one in made:
        answer = {name: values[0] for name, values in one.answer.items()}
        city, state = answer["to_city"].split(", ")
        assert f"to {city}, {state} on" in one.query
        assert f"from {answer['from_city'].split(',')[0]} to" in one.query
        assert f"Find {answer['number_of_tickets']} {answer['seating_class']} tickets" in one.query
        assert one.query.endswith(" and ".join(answer["airlines"]))
        _, day, year = answer["departure_date"].split("/")
        assert f" {day.lstrip('0')}" in one.query and year in one.query
        assert is_held(one)
    changed = {name for one in made for name, values in one.answer.items() if values != ANSWER[name]}
    assert changed == {*ANSWER} - {"include_bags"}
    assert ANSWER["to_city"] == ["Denver, CO"]


def test_a_variant_has_the_draft_of_its_query_with_the_values_that_it_says() -> None:
    from function_call.substitution import redrafted, resaying

    drafted = {"from_city": "Oakland, CA", "to_city": "Oakland", "number_of_tickets": 2, "airlines": ["Delta", "Delta"]}
    drafted |= {"departure_date": "May", "seating_class": "economy class", "include_bags": False}
    for one in variants_of(ASKED, ANSWER):
        answer = {name: values[0] for name, values in one.answer.items()}
        draft = json.loads(redrafted(json.dumps(drafted), one.changes))
        assert draft["from_city"] == answer["from_city"]
        assert draft["number_of_tickets"] == answer["number_of_tickets"]
        assert draft["airlines"] == [answer["airlines"][0]] * 2
        assert draft["seating_class"].lower() == f"{answer['seating_class']} class".lower()
        assert draft["departure_date"] == "May" and draft["include_bags"] is False
        assert resaying(one.changes)("from oakland, CA?").lower() == f"from {answer['from_city']}?".lower()
    assert redrafted('{"to_city": ', ()) == '{"to_city": '
    assert redrafted("nothing", [("nothing", "all")]) == "nothing"


@pytest.mark.parametrize(
    ("schema", "query", "values", "pattern"),
    [
        ({"type": "integer"}, "a radius of 10 meters", [10], r"a radius of (\d0) meters"),
        ({"type": "float"}, "at 5% a year", [0.05], r"at (\d)% a year"),
        ({"type": "integer"}, "for five people", [5], r"for ([a-z]+) people"),
        ({"type": "string"}, "order A12-334 please", ["A12-334"], r"order ([A-Z]\d\d-\d\d\d) please"),
        ({"type": "string", "enum": ["red_hot", "mild"]}, "make it mild", ["mild"], r"make it (red hot)"),
        ({"type": "array", "items": {"type": "integer"}}, "sum 12, 7 and 9", [[12, 7, 9]], r"sum (\d\d, \d and \d)"),
    ],
)
def test_a_replaced_value_is_of_the_same_kind(
    schema: dict[str, Any], query: str, values: list[Any], pattern: str
) -> None:
    made = variants_of(query, {"value": values}, one_property(schema), 6)
    assert made
    for one in made:
        assert re.fullmatch(pattern, one.query)
        assert one.answer["value"] != values


@pytest.mark.parametrize(
    ("answer", "query"),
    [
        ({"value": ["Paris"]}, "weather in Paris, France"),  # the country would be wrong
        ({"value": ["UK"]}, "weather in London"),  # implied
        ({"value": [5]}, "5 of these and 5 of those"),  # said twice
        ({"value": ["2023-10-01"]}, "this Sunday 2023-10-01"),  # another day has another name
    ],
)
def test_what_is_not_clean_stays(answer: dict[str, list[Any]], query: str) -> None:
    kind = "integer" if answer == {"value": [5]} else "string"
    assert variants_of(query, answer, one_property({"type": kind, "description": "The city."})) == []


def test_nothing_that_implies_another_argument_is_replaced() -> None:
    tool = one_property({"type": "string"}, "city")
    tool["parameters"]["properties"]["country"] = {"type": "string"}
    assert variants_of("weather in London", {"city": ["London"], "country": ["UK", "United Kingdom"]}, tool) == []


@with_bfcl
def test_nothing_made_for_a_fold_is_of_a_function_that_it_tests() -> None:
    from function_call.folds import FOLDS, function_key, split
    from function_call.substitution import texts_of, variants
    from function_call.synthetic import synthetic

    for fold in range(FOLDS):
        part = split(fold)
        right = {function_key(one.name) for one in part.test}
        made = [one.tool["name"] for tool in part.tools[::40] for one in synthetic(tool, 1)]
        made += [one.name for real in part.train[::40] for one in variants(real, 1, others=texts_of(part.train[::40]))]
        assert len(made) > 20
        assert right.isdisjoint(map(function_key, made))
