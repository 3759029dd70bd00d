"""Home Assistant's domain: its tools compile, sentences mean valid calls, held-out templates are kept apart."""

from __future__ import annotations

import importlib
import json
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from trm_edge.json_slots import Featurizer, HashedNgrams, compile_tool
from trm_edge.json_slots.validation import violation

for package in ("home_assistant_intents", "hassil"):
    pytest.importorskip(package, reason=f"the sentence templates need {package}")

PARTS = (("target", "s_len"), ("omit", "m_len"))  # of a packed data set, with how many rows an example has of each
EXAMPLE = Path(__file__).parents[2] / "examples" / "home_assistant"


def neighbour(name: str) -> ModuleType:
    """Return a module of the example, which is a script's neighbour, not a package."""
    sys.path.insert(0, str(EXAMPLE))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(EXAMPLE))


tools = neighbour("tools")
sentences = neighbour("sentences")


@pytest.fixture(scope="module")
def made() -> list:
    """Return three sentences of every template."""
    return sentences.generate(range(len(tools.all_templates())), 3, seed=5)


def test_there_are_42_intents_and_862_templates() -> None:
    assert len(tools.tools()) == 42
    assert len(tools.all_templates()) == 862
    assert {one["name"] for one in tools.tools()} == set(tools.INTENTS)


def test_the_tools_compile_and_describe_themselves() -> None:
    for tool in tools.tools():
        assert compile_tool(tool).name == tool["name"]
        assert tool["description"]
        assert all(schema["description"] for schema in tool["parameters"]["properties"].values())


def test_parameters_are_what_the_templates_say() -> None:
    by_name = {tool["name"]: tool["parameters"] for tool in tools.tools()}
    assert by_name["HassNevermind"] == {"type": "object", "properties": {}, "additionalProperties": False}
    assert by_name["HassListAddItem"]["required"] == ["item", "name"]
    light = by_name["HassLightSet"]["properties"]
    assert light["domain"]["enum"] == ["light"]
    assert (light["brightness"]["minimum"], light["brightness"]["maximum"]) == (0, 100)
    assert (light["temperature"]["type"], light["temperature"]["maximum"]) == ("integer", 10000)
    assert by_name["HassClimateSetTemperature"]["properties"]["temperature"]["type"] == "number"
    words, percent = by_name["HassSetVolumeRelative"]["properties"]["volume_step"]["anyOf"]
    assert words["enum"] == ["down", "up"]
    assert percent["minimum"] == -100


def test_a_household_s_tools_name_what_it_has() -> None:
    known = {tool["name"]: tool["parameters"]["properties"] for tool in tools.tools(sentences.pools())}
    plain = {tool["name"]: tool["parameters"]["properties"] for tool in tools.tools()}
    assert known["HassLightSet"]["area"]["examples"] == sentences.pools()["area"]
    assert set(known["HassLightSet"]["name"]["examples"]) < set(known["HassTurnOn"]["name"]["examples"])
    assert "examples" not in known["HassStartTimer"]["name"], "a timer's name is the user's"
    assert "examples" not in plain["HassLightSet"]["area"]
    del known["HassLightSet"]["area"]["examples"]
    assert known["HassLightSet"]["area"] == plain["HassLightSet"]["area"]


@pytest.fixture(scope="module")
def dataset() -> ModuleType:
    """Return ``dataset.py``."""
    pytest.importorskip("torch", reason="training data are packed by trm_edge.train")
    return neighbour("dataset")


def test_training_households_have_invented_words_and_lack_some_names(dataset: ModuleType) -> None:
    home = dataset.household(True, np.random.default_rng(0))
    areas = sentences.pools()["area"]
    invented = [name for name in areas if home.called[name] != name]
    assert 8 <= len(invented) <= 24
    known = home.tools["HassLightSet"].tool.arguments.properties["area"].examples
    assert set(known) < {home.called[name] for name in areas}
    assert set(known) & set(areas), "some names stay as they are"
    nothing = dataset.household(False, np.random.default_rng(0))
    assert not any(one.examples for one in nothing.tools["HassLightSet"].tool.named)


def test_sentences_are_said_as_a_household_calls_things(dataset: ModuleType) -> None:
    rng = np.random.default_rng(1)
    home = dataset.household(True, rng)._replace(called={"kitchen": "brol", "lights off": "no name"})
    sentence = sentences.Sentence("kitchen lights off", "HassTurnOff", {"area": "kitchen", "domain": "light"}, 0)
    said = dataset.said_in(home, sentence, rng)
    assert (said.text, said.slots) == ("brol lights off", {"area": "brol", "domain": "light"})
    asked = sentences.Sentence("is the lamp off", "HassGetState", {"name": "lamp", "state": "off"}, 0)
    assert {dataset.said_in(home, asked, rng).slots["state"] for _ in range(20)} == {"off"}, "an option stays"
    assert len({dataset.said_in(home, asked, rng).slots["name"] for _ in range(20)}) > 5
    names = [dataset.said_in(home, asked, rng).slots["name"] for _ in range(200)]
    nested = [name for name in names if name.startswith(("brol ", "office ", "garage "))]
    assert nested, "a free text that begins with an area's name, as the household calls it"


def test_the_fewer_templates_of_a_kind_the_more_sentences_of_each(dataset: ModuleType) -> None:
    train, _ = sentences.split(0)
    counts = Counter(sentence.template for sentence in dataset.drawn(train, seed=1))
    assert set(counts) == set(train)
    of = {number: tools.all_templates()[number].intent for number in train}
    alone = [counts[number] for number in train if of[number] == "HassListAddItem"]
    many = [counts[number] for number in train if of[number] == "HassDecreaseTimer"]
    assert alone == [60]
    assert 12 <= min(many) <= sum(many) / len(many) < 30


def test_areas_become_floors_and_mean_the_same_otherwise(dataset: ModuleType) -> None:
    tool = dataset.compiled(sentences.pools())["HassTurnOff"]
    sentence = sentences.Sentence("kitchen lights off", "HassTurnOff", {"area": "kitchen", "domain": "light"}, 0)
    texts = [dataset.moved(sentence, tool, np.random.default_rng(seed)) for seed in range(60)]
    others = [one for one in texts if one is not sentence]
    assert 2 <= len(others) <= 20
    for one in others:
        assert one.slots["floor"] in sentences.pools()["floor"]
        assert one.slots == {"floor": one.slots["floor"], "domain": "light"}
        assert one.text == f"{one.slots['floor']} lights off"
    twice = sentences.Sentence("kitchen in kitchen", "HassTurnOff", {"area": "kitchen"}, 0)
    assert all(dataset.moved(twice, tool, np.random.default_rng(seed)) is twice for seed in range(60))


def test_foreign_sentences_ask_for_nothing_of_a_house() -> None:
    everyday = neighbour("foreign").everyday()
    assert len(set(everyday)) == len(everyday) > 50
    assert [text for text in everyday if sentences.recognized(text)] == []


def test_foreign_queries_of_tests_are_kept_from_training() -> None:
    pytest.importorskip("bfcl_eval")
    foreign = neighbour("foreign")
    training, held_out = foreign.queries()
    assert not set(training) & set(held_out)
    assert len(training) > 1000 < 4 * len(held_out)
    invented = ["bra", "ticko", "alur", "stoll"]
    drawn = foreign.foreign(200, 7, invented)
    assert drawn == foreign.foreign(200, 7, invented) != foreign.foreign(200, 8, invented)
    known = " ".join(training).lower()
    for text in drawn:
        assert text.lower() in known or set(text.split()) <= set(invented)
    assert not any(text in drawn for text in held_out)


def test_none_of_the_tools_is_right_for_foreign_sentences_only(dataset: ModuleType, tmp_path: Path) -> None:
    pytest.importorskip("bfcl_eval")
    said = sentences.generate(range(0, 800, 40), 1, seed=3)
    counts = dataset.write(tmp_path / "few.npz", said, Featurizer(HashedNgrams(8), 32), seed=1)
    assert (counts["tools"], counts["foreign"]) == (len(said), int(dataset.FOREIGN_SHARE * len(said)))
    made = np.load(tmp_path / "few.npz")
    slots, candidates = (np.split(made[name], np.cumsum(made[length])[:-1]) for name, length in PARTS)
    tools = len(dataset.compiled(None))
    choices = [
        (int(target[0]), len(omit), omit) for target, omit in zip(slots, candidates, strict=True) if len(target) == 1
    ]
    declined = [omit for target, count, omit in choices if count == tools + 1 and target == 0]
    assert len(declined) == counts["foreign"] > 0
    assert all(omit[0] and not omit[1:].any() for omit in declined)
    with_none = sum(count == tools + 1 and target > 0 for target, count, _ in choices)
    without = sum(count == tools for _, count, _ in choices)
    assert with_none + without == len(said)
    assert 0 < with_none < len(said)


def test_what_sentences_mean_is_valid(made: list) -> None:
    arguments = {tool["name"]: compile_tool(tool).arguments for tool in tools.tools()}
    assert len(made) > 2400
    for sentence in made:
        assert violation(arguments[sentence.intent], sentence.slots) is None, sentence


def test_every_template_gives_sentences_as_users_type_them(made: list) -> None:
    assert {sentence.template for sentence in made} == set(range(862))
    assert all(sentence.intent == tools.all_templates()[sentence.template].intent for sentence in made)
    texts = [sentence.text for sentence in made]
    assert len({text.casefold() for text in texts}) == len(texts)
    assert all(text == " ".join(text.split()) and text.isprintable() for text in texts)
    assert not set("".join(texts)) & set("[]{}<>|")
    assert any(text[0].isupper() for text in texts)
    assert any(text.endswith("?") for text in texts)
    assert any("twenty" in text for text in texts)
    assert not any(letter + unit in text for text in texts for letter in "eny" for unit in "%°")


def test_hassil_reads_sentences_as_they_are_meant(made: list) -> None:
    some = random.Random(0).sample(made, 300)
    read = [sentences.is_right(one.intent, one.slots, sentences.recognized(one.text)) for one in some]
    assert sum(read) >= 0.98 * len(some)


def test_seeds_give_the_same_sentences_in_every_process() -> None:
    code = "import sentences; print([s.text for s in sentences.generate(range(0, 862, 50), 2, 1)])"
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code], cwd=EXAMPLE, env={"PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1
    first, other = (sentences.generate(range(0, 862, 50), 2, seed) for seed in (1, 2))
    assert first != other


def test_unseen_values_are_kept_from_training() -> None:
    common, unseen, every = (sentences.pools(part) for part in ("common", "unseen", "all"))
    for name, values in every.items():
        for kind in values if isinstance(values, dict) else [None]:
            parts = [part[name] if kind is None else part[name][kind] for part in (common, unseen, every)]
            assert not set(parts[0]) & set(parts[1])
            assert Counter(parts[0] + parts[1]) == Counter(parts[2])
            assert 0.1 <= len(parts[1]) / len(parts[2]) <= 0.2
    items = {s.slots["item"] for s in sentences.generate(range(862), 5, 0, unseen=True) if "Shopping" in s.intent}
    assert items <= set(unseen["shopping_list_item"])


@pytest.mark.parametrize("k", range(3))
def test_splits_hold_out_a_fifth_of_every_intent(k: int) -> None:
    train, test = sentences.split(k)
    assert sorted(train + test) == list(range(862))
    assert test == sentences.held_out(k)
    intents = [template.intent for template in tools.all_templates()]
    counts, held = Counter(intents), Counter(intents[number] for number in test)
    for intent, count in counts.items():
        assert held[intent] == (max(1, round(count / 5)) if count > 1 else 0)


def test_splits_differ() -> None:
    assert len({json.dumps(sentences.split(k)[1]) for k in range(3)}) == 3


def test_a_sentence_of_two_intents_has_both_readings() -> None:
    sentence = sentences.Sentence("start the roomba", "HassVacuumStart", {"name": "Roomba"}, 0)
    found = sentences.readings(sentence)
    assert found[0] == ("HassVacuumStart", {"name": "Roomba"})
    kitchen = sentences.Sentence("turn on kitchen speaker", "HassTurnOn", {"name": "kitchen speaker"}, 0)
    assert sentences.is_right("HassTurnOn", {"name": "Kitchen Speaker"}, sentences.readings(kitchen))
    assert not sentences.is_right("HassTurnOff", {"name": "kitchen speaker"}, sentences.readings(kitchen))


def test_the_first_reading_is_the_sentences_own(made: list) -> None:
    for sentence in random.Random(1).sample(made, 200):
        assert sentences.readings(sentence)[0] == (sentence.intent, sentence.slots)


def test_free_text_with_an_article_or_a_duration_is_no_reading() -> None:
    sentence = sentences.Sentence("pause my timer for 5 minutes please", "HassPauseTimer", {"start_minutes": 5}, 0)
    assert sentences.readings(sentence) == [("HassPauseTimer", {"start_minutes": 5})]


def test_number_words_keep_their_sign() -> None:
    for text, step in (("volume up fifty", 50), ("volume down fifty", -50)):
        sentence = sentences.Sentence(text, "HassSetVolumeRelative", {"volume_step": step}, 0)
        assert sentences.readings(sentence) == [("HassSetVolumeRelative", {"volume_step": step})]


# ---- the baseline ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def baseline() -> ModuleType:
    """Return ``baseline.py``."""
    pytest.importorskip("sklearn", reason="the baseline's regression needs scikit-learn")
    return neighbour("baseline")


@pytest.fixture(scope="module")
def fillers(baseline: ModuleType) -> dict:
    """Return both sets of rules, as they know the first split's training templates."""
    train, _ = sentences.split(0)
    return {"short": baseline.ShortRules(train), "long": baseline.Rules(train)}


@pytest.mark.parametrize(("name", "least"), [("short", 0.95), ("long", 0.99)])
def test_rules_fill_the_slots_of_training_templates(fillers: dict, name: str, least: float) -> None:
    some = sentences.generate(sentences.split(0)[0], 1, seed=9)
    right = [
        sentences.is_right(one.intent, fillers[name].fill(one.intent, one.text), sentences.readings(one))
        for one in some
    ]
    assert sum(right) / len(right) >= least


def test_rules_take_sentences_of_other_intents(fillers: dict) -> None:
    texts = [one.text for one in sentences.generate(range(0, 862, 60), 1, seed=2)]
    for rules in fillers.values():
        for intent in tools.INTENTS:
            known = rules.properties[intent]
            assert all(rules.fill(intent, text).keys() <= {*known} for text in texts)


def test_counts_take_any_reading_for_right(baseline: ModuleType, fillers: dict) -> None:
    both = sentences.Sentence("pause my kitchen timer", "HassPauseTimer", {"name": "kitchen"}, 0)
    counts = baseline.measure([both, both], ["HassPauseTimer", "HassTurnOn"], fillers)
    assert (counts["sentences"], counts["ambiguous"], counts["intent"]) == (2, 2, 1)
    assert (counts["exact_long"], counts["own_long"], counts["slots_long"]) == (1, 0, 2)


def test_wilsons_interval(baseline: ModuleType) -> None:
    low, high = baseline.wilson(8, 10)
    assert low == pytest.approx(0.4902, abs=1e-4)
    assert high == pytest.approx(0.9433, abs=1e-4)
    assert baseline.wilson(10, 10)[1] == pytest.approx(1)
