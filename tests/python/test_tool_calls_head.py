"""The head that ships for tools of anybody's: plain calls of tools that are in no benchmark, and the guarantee."""

import json

import pytest

import trm_edge
from trm_edge.json_slots import Resolver
from trm_edge.json_slots.features import FEATURES

TOOLS = [
    {
        "name": "water_plants",
        "description": "Water the plants of a garden bed for some minutes.",
        "parameters": {
            "type": "object",
            "properties": {
                "bed": {"type": "string", "description": "The name of the garden bed."},
                "minutes": {"type": "integer", "description": "How many minutes the water runs.", "minimum": 1},
            },
            "required": ["bed", "minutes"],
        },
    },
    {
        "name": "send_parcel",
        "description": "Send a parcel to a person in a city.",
        "parameters": {
            "type": "object",
            "properties": {
                "recipient": {"type": "string", "description": "The name of the person who gets it."},
                "city": {"type": "string", "description": "The city where the person lives."},
                "weight": {"type": "number", "description": "The weight of the parcel in kilograms."},
                "express": {"type": "boolean", "description": "Whether it is sent by express.", "default": False},
            },
            "required": ["recipient", "city"],
            "additionalProperties": False,
        },
    },
    {
        "name": "tune_instrument",
        "description": "Tune a musical instrument to a pitch.",
        "parameters": {
            "type": "object",
            "properties": {
                "instrument": {"type": "string", "enum": ["guitar", "violin", "piano"]},
                "frequency": {"type": "number", "description": "The frequency of the pitch in hertz."},
            },
            "required": ["instrument"],
        },
    },
]


@pytest.fixture(scope="module")
def resolver():
    return Resolver(trm_edge.example("tool_calls.trm"))


CALLS = [
    ("Water the bed called Roses for 12 minutes.", "water_plants", {"bed": "Roses", "minutes": 12}),
    (
        "Send a parcel with a weight of 3.5 kg to the city of Berlin, the recipient is Ann.",
        "send_parcel",
        {"recipient": "Ann", "city": "Berlin", "weight": 3.5},
    ),
    ("Please tune the violin to 442 hertz", "tune_instrument", {"instrument": "violin", "frequency": 442}),
    ("Tune my guitar.", "tune_instrument", {"instrument": "guitar"}),
]


@pytest.mark.parametrize(("query", "name", "arguments"), CALLS)
def test_plain_calls_are_made_without_a_draft(resolver, query, name, arguments):
    call = resolver.resolve_tool_call(TOOLS, query)
    assert (call.name, json.loads(call.json)) == (name, arguments)


@pytest.mark.parametrize(("query", "name", "arguments"), CALLS)
def test_plain_calls_are_not_declined(resolver, query, name, arguments):
    call = Resolver(resolver.refiner.clone(), decline_bonus=0).resolve_tool_call(TOOLS, query)
    assert (call.name, json.loads(call.json)) == (name, arguments)


@pytest.mark.parametrize(
    "query",
    [
        "What is the capital of Peru?",
        "Tell me a joke",
        "Calculate the area of a triangle with a base of 10 and a height of 5.",
        "Who won the 1998 world cup?",
        "Thanks a lot!",
    ],
)
def test_what_no_tool_does_is_declined(resolver, query):
    call = Resolver(resolver.refiner.clone(), decline_bonus=0).resolve_tool_call(TOOLS, query)
    assert (call.name, call.json, call.status) == (None, None, "unresolved")
    assert resolver.resolve_tool_call(TOOLS, query).name is not None, "a tool is chosen unless a head may decline"


def test_the_head_says_what_it_was_trained_for(resolver):
    assert [resolver.refiner.provenance(name) for name in ("features", "declines")] == [FEATURES, "yes"]


def test_a_draft_is_mended(resolver):
    draft = {"name": "water_plants", "arguments": '{"bed": "Roses", "minutes": "twelve"}'}
    call = resolver.resolve_tool_call(TOOLS, "Water the bed called Roses for 12 minutes.", draft)
    assert (call.status, json.loads(call.json)) == ("resolved", {"bed": "Roses", "minutes": 12})


def test_a_right_draft_comes_back_byte_for_byte(resolver):
    text = '{ "instrument":"violin",  "frequency": 442 }'
    call = resolver.resolve_tool_call(
        TOOLS, "Please tune the violin to 442 hertz", {"name": "tune_instrument", "arguments": text}
    )
    assert (call.status, call.json) == ("unchanged", text)
