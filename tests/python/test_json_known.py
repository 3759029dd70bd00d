"""What queries name of a schema's values: parts of longer names, other slots' values, the tools that know them."""

import numpy as np

from trm_edge.json_slots import HashedNgrams, JsonSlots
from trm_edge.json_slots.candidates import candidates_of
from trm_edge.json_slots.features import Featurizer
from trm_edge.json_slots.known import BESIDES, OF_TOOLS, besides, known_of_tools
from trm_edge.json_slots.operators import find_spans
from trm_edge.json_slots.reading import ReadQuery
from trm_edge.json_slots.resolver import bind_tools
from trm_edge.json_slots.schema import MISSING, Named, Scalar
from trm_edge.json_slots.slots import Slot
from trm_edge.json_slots.values import Values


def tool(name, required=(), **properties):
    """Return a compiled tool with these properties."""
    schema = {"type": "object", "properties": properties, "required": list(required)}
    return JsonSlots({"name": name, "description": "", "parameters": schema})


ROOM = {"type": "string", "examples": ["kitchen", "garage"]}
DEVICE = {"type": "string", "examples": ["garage door", "fairy lights"]}
OPEN = tool("open", room=ROOM, device=DEVICE, minutes={"type": "integer"})
COLOR = tool("color", ["hue"], device=DEVICE, hue={"enum": ["red", "deep_blue"]})
WAIT = tool("wait", minutes={"type": "integer"})


def flags_of(slots, query):
    """Return the columns of ``known`` by slot and value."""
    call = slots.bind(query)
    read = ReadQuery(query, HashedNgrams(32).tokens(query))
    rows = besides(read, call, Values(call.candidates, read))
    assert rows.shape == (len(call.candidates), BESIDES)
    names = [call.slots[slot].path[0] for slot in call.slot_of]
    return {(name, one.value): row.tolist() for name, one, row in zip(names, call.candidates, rows, strict=True)}


def of_tools(query, *tools):
    """Return the columns of ``known_of_tools``, a row per tool."""
    call = bind_tools([one.tool for one in tools], query, None)
    read = ReadQuery(query, HashedNgrams(32).tokens(query))
    rows = known_of_tools(read, call, Values(call.candidates, read))
    assert rows.shape == (len(tools), OF_TOOLS)
    return rows


def test_a_name_within_a_longer_one_is_told():
    found = flags_of(OPEN, "open the garage door")
    assert found["room", "garage"][:2] == [1, 1], "part of a device's name, which is another slot's value"
    assert found["device", "garage door"][:2] == [0, 0.5], "the longest name; half of it is a room's"
    assert found["room", MISSING] == [0, 0, 0]
    assert flags_of(OPEN, "open the garage")["room", "garage"] == [0, 0, 0]


def test_words_that_are_a_number_are_told():
    found = flags_of(OPEN, "open twenty five kitchen doors")
    assert found["device", "twenty five"][2] == 1
    assert found["device", "twenty five kitchen"][2] == np.float32(2 / 3)
    assert found["room", "kitchen"][2] == 0


def test_tools_that_know_what_is_named_stand_out():
    rows = of_tools("set fairy lights to deep blue", OPEN, COLOR, WAIT)
    one = np.float32(1 / 6)
    assert np.allclose(rows[0], [2 * one, 0, 2 / 2, 0, 0])
    assert np.allclose(rows[1], [2 * one, 2 * one, 2 / 2 + 2, 1, 0])
    assert not rows[2].any()


def test_a_tool_lacks_what_it_must_have():
    rows = of_tools("open the garage doors", OPEN, COLOR)
    assert rows[:, 4].tolist() == [0, 1], "no color is named"
    assert rows[0, 0] == np.float32(2 / 4), "a plural is the same name"


def test_nothing_is_known_without_words_or_names():
    assert not of_tools("", OPEN, COLOR).any()
    assert not of_tools("open the garage", WAIT).any()
    assert not flags_of(OPEN, "")["room", MISSING][0]


def test_a_tool_names_examples_and_options_of_its_arguments():
    either = {"anyOf": [{"enum": ["on", "off"]}, {"type": "string", "examples": ["home"]}]}
    named = tool(
        "ask", ["state"], state=either, many={"type": "array", "items": ROOM}, count={"enum": [1, 2]}
    ).tool.named
    assert named == (
        Named(True, frozenset({"home"}), frozenset({"on", "off"})),
        Named(False, frozenset({"kitchen", "garage"}), frozenset()),
    )


def test_slots_are_told_whether_they_have_examples_and_whether_one_is_mentioned():
    featurizer = Featurizer(HashedNgrams(32), vectors=False)
    said, unsaid = (OPEN.bind(query, None, featurizer).features.slots for query in ("the kitchen", "the hall"))
    changed = [set(np.flatnonzero(one != other)) for one, other in zip(said, unsaid, strict=True)]
    assert said.shape[1] - 1 in changed[0], "the last of the strongest flags: mentioned"
    assert said.shape[1] - 1 not in changed[1]
    plain = tool("open", room={"type": "string"}).bind("the kitchen", None, featurizer).features.slots
    assert plain[0, -1] == 0


def notes_of(schema):
    """Return what is noted of a slot's candidates."""
    return {one.value: one.note for one in candidates_of(Slot((), schema, False), MISSING, find_spans(""))}


def test_numbers_that_a_description_explains_have_a_note():
    text = "In kelvin; 1900 for candle light, 2700 for warm, soft or mild white, 0.5 for nothing; 5 digits"
    notes = {1900: "candle light", 2700: "warm, soft or mild white", 5: "", 0.5: "nothing"}
    assert notes_of(Scalar("", "number", text)) == notes


def test_options_that_a_description_explains_have_a_note():
    schema = Scalar(
        "", "string", "The order ('asc' means rising, 'desc' for falling). Ask for more.", options=("asc", "desc")
    )
    assert notes_of(schema) == {"asc": "rising", "desc": "falling"}
