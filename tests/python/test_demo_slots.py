"""``trm-edge demo slots``: the shipped Home Assistant head, from a sentence to a call."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from jsonschema import Draft202012Validator

from trm_edge import demo_slots
from trm_edge.bundle import read_bundle
from trm_edge.cli import main
from trm_edge.golden import verify
from trm_edge.json_slots import JsonSlots, Resolver
from trm_edge.json_slots.features import FEATURES, featurizer_for
from trm_edge.json_slots.resolver import bind_tools
from trm_edge.refiner import load

TOOLS = json.loads(demo_slots.TOOLS.read_text())
PLAIN = [
    ("turn on the lights in the kitchen", "HassTurnOn", {"area": "kitchen", "domain": "light"}),
    ("set the volume to 30 percent in the office", "HassSetVolume", {"area": "office", "volume_level": 30}),
    ("add oat milk to my shopping list", "HassShoppingListAddItem", {"item": "oat milk"}),
    ("what time is it", "HassGetCurrentTime", {}),
    ("add 20 minutes to the 20 hour timer", "HassIncreaseTimer", {"minutes": 20, "start_hours": 20}),
]


@pytest.fixture(scope="module")
def resolver():
    return Resolver(demo_slots.HEAD)


@pytest.mark.parametrize(("sentence", "name", "arguments"), PLAIN)
def test_plain_sentences_become_their_calls(resolver, sentence, name, arguments):
    call = resolver.resolve_tool_call(TOOLS, sentence)
    assert (call.name, json.loads(call.json or "null")) == (name, arguments)


def test_what_a_house_cannot_do_is_no_call(capsys):
    assert main(["demo", "slots", "tell me a joke", "--steps", "2"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[-1] for line in shown[1:3]] == ["none of the functions", "the same"]
    assert shown[3].startswith("  unresolved, confidence")
    assert main(["demo", "slots", "--json", "who painted the mona lisa"]) == 0
    (call,) = json.loads(capsys.readouterr().out)["calls"]
    assert (call["name"], call["arguments"], call["status"]) == (None, None, "unresolved")


@pytest.mark.parametrize(("sentence", "name", "arguments"), PLAIN)
def test_plain_sentences_are_not_declined(sentence, name, arguments):
    call = Resolver(demo_slots.HEAD, decline_bonus=0).resolve_tool_call(TOOLS, sentence)
    assert (call.name, json.loads(call.json or "null")) == (name, arguments)


@pytest.mark.parametrize("sentence", ["", "colourless green ideas", "kitchen " * 200, "🙂", "set set set 7 7 7"])
def test_any_sentence_becomes_a_valid_call_or_none(resolver, sentence):
    call = resolver.resolve_tool_call([JsonSlots(tool) for tool in TOOLS], sentence)
    if not sentence:
        assert (call.name, call.status, call.json) == (None, "unresolved", None)
        return
    schema = next(tool["parameters"] for tool in TOOLS if tool["name"] == call.name)
    if call.json is not None:
        Draft202012Validator(schema).validate(json.loads(call.json))


def test_the_head_is_small_and_checks_out():
    assert demo_slots.HEAD.stat().st_size < 1_000_000
    assert len(TOOLS) == 42
    assert all(check.passed for check in verify(load(demo_slots.HEAD), read_bundle(demo_slots.HEAD)))


def test_a_sentence_is_shown_step_by_step(capsys):
    assert main(["demo", "slots", "turn", "on", "the", "lights", "--steps", "3"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0] == "turn on the lights"
    assert [line.split()[:2] for line in shown[1:4]] == [["step", str(k)] for k in (1, 2, 3)]
    assert "confidence" in shown[4]


def test_without_a_sentence_or_a_terminal_there_are_examples(capsys):
    assert main(["demo", "slots"]) == 0
    assert all(sentence in capsys.readouterr().out.splitlines() for sentence in demo_slots.SENTENCES[:1])


@pytest.mark.parametrize("stdin", [b"turn on the lights\n\nstop the timer", "file", subprocess.DEVNULL, "silent"])
def test_sentences_may_be_piped(stdin, tmp_path):
    (tmp_path / "said.txt").write_text("turn on the lights\nstop the timer\n")
    reading, writing = os.pipe()
    with open(tmp_path / "said.txt") as file, os.fdopen(reading), os.fdopen(writing, "w"):
        source = {"file": file, "silent": reading}.get(stdin, stdin) if not isinstance(stdin, bytes) else None
        given = {"input": stdin} if source is None else {"stdin": source}
        run = subprocess.run(
            [sys.executable, "-m", "trm_edge.cli", "demo", "slots", "--json"], **given, capture_output=True, check=True
        )
    calls = json.loads(run.stdout)["calls"]
    said = ["turn on the lights", "stop the timer"] if stdin == "file" or source is None else demo_slots.SENTENCES
    assert [call["sentence"] for call in calls] == list(said)


def test_sentences_are_asked_for_at_a_terminal(capsys, monkeypatch):
    typed = iter(["turn on the lights", ""])
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("builtins.input", lambda prompt: next(typed))
    assert main(["demo", "slots"]) == 0
    assert capsys.readouterr().out.count("confidence") == 1


def test_json_is_for_programs(capsys):
    assert main(["demo", "slots", "stop the timer", "--json"]) == 0
    (call,) = json.loads(capsys.readouterr().out)["calls"]
    assert call["sentence"] == "stop the timer"
    assert len(call["by_step"]) == demo_slots.STEPS
    with pytest.raises(SystemExit):
        main(["demo", "--help"])
    assert f"slots: {demo_slots.STEPS})" in " ".join(capsys.readouterr().out.split())
    assert isinstance(call["arguments"], dict)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["demo", "slots", "hello", "--steps", "0"], "--steps: expected at least 1"),
        (["demo", "slots", "hello", "--plot", "x.png"], "--plot: only for actions"),
        (["demo", "actions", "hello"], "expected no sentence for actions"),
    ],
)
def test_what_makes_no_sense_is_refused(capsys, arguments, message):
    assert main(arguments) == 2
    assert message in capsys.readouterr().err


def test_the_shipped_head_says_which_features_it_takes_and_they_are_what_is_made():
    """Who changes what columns mean makes another FEATURES, and trains the heads anew."""
    head = read_bundle(demo_slots.HEAD)
    assert (head.provenance["features"], head.provenance["declines"]) == (FEATURES, "yes")
    tools = [JsonSlots(tool) for tool in TOOLS]
    light = next(tool for tool in tools if tool.tool.name == "HassLightSet")
    query, featurizer = "dim the bedroom to 20 percent", featurizer_for(head.spec)
    calls = (
        bind_tools([one.tool for one in tools], query, featurizer),
        light.bind(query, '{"area": "kitchen"}', featurizer),
    )
    for call, golden in zip(calls, head.golden, strict=True):
        assert set(golden.inputs) == {name for name, array in call.arrays.items() if array is not None}
        for name, recorded in golden.inputs.items():
            np.testing.assert_allclose(call.arrays[name], recorded, rtol=0, atol=1e-5, err_msg=name)
