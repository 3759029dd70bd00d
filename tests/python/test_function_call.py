"""``benchmarks/function_call``: the choices that an answer asks for, on examples of our own."""

import json
from typing import Any

import pytest

from trm_edge.json_slots import JsonSlots

pytestmark = pytest.mark.usefixtures("function_call")
STRING, INTEGER = {"type": "string"}, {"type": "integer"}
ORDER = {
    "name": "order",
    "parameters": {
        "type": "dict",
        "properties": {
            "dish": STRING,
            "count": INTEGER,
            "spicy": {"type": "boolean"},
            "place": {"type": "dict", "properties": {"city": STRING, "zip": STRING}},
            "extras": {"type": "array", "items": {"type": "dict", "properties": {"name": STRING, "count": INTEGER}}},
        },
        "required": ["dish"],
    },
}
QUERY = "Two pizzas to Paris, with 3 olives and one anchovy"


def labelled(answer: dict[str, list[Any]], draft: str | None = None, **options: Any) -> Any:
    from function_call.bfcl import labels

    bound = JsonSlots(ORDER).bind(QUERY, draft)
    found = labels(bound, answer, **options)
    return None if found is None else json.loads(bound.decode(found.chosen).json)


@pytest.mark.parametrize(
    ("answer", "call"),
    [
        ({"dish": ["pizza"], "count": [2]}, {"dish": "pizza", "count": 2}),
        ({"dish": ["PIZZAS", "pizza"], "spicy": [True, ""]}, {"dish": "pizzas", "spicy": True}),
        ({"dish": ["calzone", "pizza"], "count": [9, ""]}, {"dish": "pizza"}),
        (
            {"dish": ["pizza"], "place": [{"city": ["Paris"], "zip": ["75001", ""]}]},
            {"dish": "pizza", "place": {"city": "Paris"}},
        ),
        (
            {"dish": ["pizza"], "extras": [[{"name": ["olives"], "count": [3]}, {"name": ["anchovy"]}]]},
            {"dish": "pizza", "extras": [{"name": "olives", "count": 3}, {"name": "anchovy"}]},
        ),
        ({"dish": ["pizza"], "place": [{"city": ["Rome"]}, ""]}, {"dish": "pizza"}),
        ({"dish": ["calzone"]}, None),
        ({"dish": ["pizza"], "count": [9]}, None),
        ({"dish": ["pizza"], "unknown": [1]}, None),
        ({}, None),  # the dish is required
    ],
)
def test_labels_are_the_choices_of_a_right_answer(answer, call):
    assert labelled(answer) == call


@pytest.mark.parametrize(
    ("answer", "draft", "call"),
    [
        ({"dish": ["pizza"], "spicy": [True, ""]}, None, {"dish": "pizza"}),
        ({"dish": ["pizza"], "spicy": [True, ""]}, '{"spicy": true}', {"spicy": True, "dish": "pizza"}),
        ({"dish": ["pizza"], "spicy": [True]}, None, {"dish": "pizza", "spicy": True}),
        ({"dish": ["pizza"], "count": [2, ""]}, None, {"dish": "pizza", "count": 2}),
    ],
)
def test_what_nobody_said_is_left_out_where_it_may_be(answer, draft, call):
    assert labelled(answer, draft, only_said=True) == call


def test_values_are_compared_as_the_leaderboard_does():
    from function_call.bfcl import fits

    assert fits("New York, NY", "new-york NY") and fits([1, "A b"], [1.0, "ab"])
    assert not fits(1, True) and not fits("1", 1) and not fits([1], [1, 2])


@pytest.mark.slow
def test_the_leaderboard_s_own_checker_takes_what_the_labels_make():
    pytest.importorskip("bfcl_eval", reason="pip install --no-deps bfcl-eval")
    from function_call.bfcl import examples
    from function_call.oracle import measure

    outcomes = [measure(example)["outcome"] for example in examples("simple_python")]
    assert outcomes.count("right") > 0.85 * len(outcomes) and outcomes.count("wrong") <= 4
