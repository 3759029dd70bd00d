"""The study's figures: paired tests, shares by set, harm and repair, and what abstaining gives."""

import itertools
import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import trm_edge
from trm_edge.json_slots.features import featurizer_for
from trm_edge.json_slots.resolver import bind_tools
from trm_edge.refiner import load

HEAD = Path(trm_edge.__file__).parent / "data" / "tool_calls.trm"
pytestmark = pytest.mark.usefixtures("function_call")


def study():
    pytest.importorskip("tqdm")
    import function_call.study as module

    return module


def marks(right, strings):
    types = {"string": (strings, 2), "boolean": (1, 1)} if right else {}
    return {**dict.fromkeys(("json", "valid", "complete"), True), "right": right, "name": right, "types": types}


def row(identity, grammar, head, confidence, alone=True):
    steps = [False] * 3 + [head] * 5
    return {
        **{"id": identity, "set": study().set_of(type("E", (), {"identity": identity})()), "oracle": True},
        **{"rules": False, "head": alone, "head by step": [alone] * 8, "head confidence": 0.5},
        **{"grammar": grammar, "grammar + rules": grammar, "grammar + head": head},
        **{"grammar + head by step": steps, "grammar + head confidence": confidence},
        **{"grammar + head, renamed": alone, "grammar + head, renamed by step": [alone] * 8},
        **{"grammar + head, renamed confidence": confidence},
        "marks": {"grammar": marks(grammar, 1), "head": marks(alone, 2)}
        | ({} if grammar else {"cot": marks(False, 0)}),
        **{"grammar seconds": 2.0, "grammar tokens": 100, "head seconds": 0.25},
        **{"grammar + head by bonus": [head] * 5 + [grammar] * 3, "grammar + head, renamed by bonus": [alone] * 8},
    }


ROWS = (
    ("simple_python_0", True, True, 0.9),
    ("simple_python_1", True, False, 0.2),
    ("multiple_3", False, True, 0.8),
    ("live_simple_7-1-0", False, True, 0.4),
    ("live_multiple_9-0-0", False, False, 0.6),
)


def test_mcnemar_is_the_binomial_test_of_what_differs():
    mcnemar = study().mcnemar
    assert mcnemar([True] * 5, [True] * 5) == 1
    assert mcnemar([True] * 6 + [False], [False] * 6 + [False]) == pytest.approx(2 / 2**6)
    assert mcnemar([True, False], [False, True]) == 1
    assert mcnemar([True] * 9 + [False], [False] * 9 + [True]) == pytest.approx(2 * 11 / 2**10)


def test_a_set_is_told_by_the_longest_name():
    set_of = study().set_of
    names = [set_of(type("E", (), {"identity": one[0]})()) for one in ROWS]
    assert names == ["simple_python", "simple_python", "multiple", "live_simple", "live_multiple"]


def test_report_counts_harm_repair_and_abstention():
    found = study().report([row(*one) for one in ROWS])
    assert found["all"]["grammar"] == {
        "right": 0.4,
        "interval": pytest.approx((0.1176, 0.7693), abs=1e-3),
        "count": 5,
    }
    assert found["multiple"]["grammar + head"]["right"] == 1
    assert found["paired"]["grammar + head"] == {"harm": 0.5, "repair": pytest.approx(2 / 3)}
    assert found["paired"]["grammar + head against grammar"]["difference"] == pytest.approx(0.2)
    assert found["by step"]["grammar + head"] == [0] * 3 + [pytest.approx(0.6)] * 5
    kept = found["by confidence"]["grammar + head"]
    assert kept["0.3"] == {"right": pytest.approx(0.8), "harm": 0, "changed": 0.8}
    assert kept["0.9"] == {"right": 0.4, "harm": 0, "changed": 0.2}
    bonus = found["by bonus"]["grammar + head"]
    assert [*bonus] == ["0.0", "1.0", "2.0", "3.0", "4.0", "5.0", "6.0", "7.0"]
    assert bonus["4.0"] == {"right": pytest.approx(0.6), "harm": 0.5, "p": 1.0}
    assert bonus["5.0"] == {"right": pytest.approx(0.4), "harm": 0, "p": 1.0}
    assert found["calibration"]["head"] == [[5, 0.5, 1.0]]
    assert "grammar + head, renamed" in study().table(found)


def test_arms_are_compared_on_the_examples_that_both_have():
    rows = [row(*one) for one in ROWS]
    assert not any("vote" in pair for pair in study().report(rows)["paired"])
    for one, vote in zip(rows, (True, True, False), strict=False):
        one["vote"] = vote
    paired = study().report(rows)["paired"]
    assert paired["grammar + head against vote"]["count"] == 3
    assert paired["vote against grammar"] == {"count": 3, "difference": pytest.approx(0), "p": 1.0}
    assert paired["grammar + head against grammar"]["count"] == 5


def test_report_says_what_holds_of_calls_and_what_they_cost():
    found = study().report([row(*one) for one in ROWS])["marks"]
    assert found["grammar"]["name"] == 0.4
    assert found["grammar"]["valid"] == 1
    assert found["grammar"]["types"] == {"string": (0.5, 4), "boolean": (1, 2)}  # of the calls of the right tool
    assert (found["grammar"]["seconds"], found["grammar"]["tokens"]) == (2, 100)
    assert found["head"]["types"]["string"] == (1, 10)
    assert (found["head"]["seconds"], found["head"]["tokens"]) == (0.25, None)
    assert found["cot"]["right"] == 0  # of the three that it has
    assert found["cot"]["types"] == {}
    assert "rules" not in found
    assert re.search(
        r"grammar +40.0 +40.0 +100.0 +100.0 +100.0 +50.0 +100.0 +2.000 +100\n",
        study().table(study().report([row(*one) for one in ROWS])),
    )


def test_a_variant_is_compared_on_the_same_examples():
    first = [row(*one) for one in ROWS]
    line = study().variant_line("one step", [row(*one, alone=False) for one in ROWS], first)
    assert line.startswith("variant one step: head 0.0 [0, 43] of 5, against 100.0, p 0.062")


def test_rows_without_a_draft_count_for_the_other_arms():
    first = {name: value for name, value in row(*ROWS[0]).items() if "grammar" not in name}
    found = study().report([first, row(*ROWS[2])])
    assert found["all"]["head"]["count"] == 2
    assert found["all"]["grammar"]["count"] == 1


def test_the_study_asks_every_arm_and_keeps_the_answers(tmp_path, monkeypatch, capsys):
    pytest.importorskip("bfcl_eval")
    module = study()
    from function_call import drafts, folds

    drafted = drafts.drafts("vote").keys() & drafts.drafts("direct").keys()
    test = [one for one in folds.split(0).test if one.identity in drafted or len(one.tools) > 2][:12]
    monkeypatch.setattr(module, "split", lambda fold: replace(folds.split(fold), test=test))
    report = tmp_path / "report.json"
    command = ["study.py", "--heads", str(HEAD), "--cache", str(tmp_path), "--json", str(report)]
    monkeypatch.setattr(sys, "argv", command)
    module.main()
    printed = capsys.readouterr().out
    assert "the head's answers: 0 invalid" in printed
    found = json.loads(report.read_text())
    for arm in module.ARMS:
        assert found["report"]["all"][arm]["count"] > 3, arm
    for row in found["rows"]["head"]:
        for arm, marks in row["marks"].items():
            assert marks["valid"] or arm in module.MODEL_ARMS or not marks["json"], (row["id"], arm)
            assert row[arm] == marks["right"]
            assert marks["name"] or not marks["right"]
            asked = marks["types"].values()
            assert all(right <= count for right, count in asked)
            assert not marks["right"] or all(right == count for right, count in asked), (row["id"], arm)
    monkeypatch.setattr(module, "Asked", None)  # the answers are kept
    module.main()
    assert capsys.readouterr().out == printed


def test_none_is_right_for_a_head_that_may_decline_where_its_tool_is_not_offered(monkeypatch):
    load_config = pytest.importorskip("trm_edge.train", exc_type=ImportError).load_config
    pytest.importorskip("bfcl_eval")
    study()
    from function_call import calls, folds

    offered = []

    def recorded(tools, query, featurizer, thought, may_decline):
        offered.append([tool.name for tool in tools])
        return bind_tools(tools, query, featurizer, thought, may_decline)

    monkeypatch.setattr(calls, "bind_tools", recorded)
    part = folds.split(0)
    spec = load_config(Path(calls.__file__).with_name("head.toml")).spec
    maker = calls.Maker(featurizer_for(spec), spec, 0, part.tools)
    for example in [one for one in part.train if len(one.tools) > 1][:20] + part.train[:20]:
        tools = [slots.tool for tool in example.tools if (slots := maker.slots(tool)) is not None]
        offered.clear()
        for made, names in zip(list(maker._or_none(tools, example)), offered, strict=True):
            right = [0] if example.name not in names else [1 + names.index(example.name)]
            assert made["target"].tolist() == right == np.flatnonzero(made["right"]).tolist()
            assert made["omit"].tolist() == [True, *[False] * len(names)]
    assert 20 < maker.counts["tools or none"] < 60


def test_heads_with_thoughts_are_trained_and_asked_with_those_that_were_written(monkeypatch):
    load_config = pytest.importorskip("trm_edge.train", exc_type=ImportError).load_config
    pytest.importorskip("bfcl_eval")
    module = study()
    from function_call import calls, drafts, folds

    written = drafts.drafts("cot")
    example = next(one for one in folds.split(0).test if one.identity in written and len(one.query.split()) < 20)
    spec = load_config(Path(calls.__file__).with_name("head.toml")).spec
    without, thinking = (calls.Maker(featurizer_for(spec), spec, 0, thoughts=thoughts) for thoughts in (False, True))
    for short, long in zip(without.calls(example), thinking.calls(example), strict=True):
        assert len(long["x"]) > len(short["x"])
        np.testing.assert_array_equal(long["x"][: len(short["x"])], short["x"])
    heard = []

    def recorded(self, tools, query, draft, *, rename, thought):
        heard.append(thought)
        return asked_of(self, tools, query, draft, rename=rename, thought=thought)

    asked_of = module.Resolver.resolve_tool_call
    monkeypatch.setattr(module.Resolver, "resolve_tool_call", recorded)
    rows = [module.Asked(load(HEAD), True, thoughts=thoughts).row(example) for thoughts in (False, True)]
    assert [row["invalid"] for row in rows] == [0, 0]
    assert heard == [""] * 4 + [written[example.identity]["text"].partition("\n")[0]] * 4


def test_irrelevant_queries_are_asked_of_heads_that_saw_neither_query_nor_tool():
    pytest.importorskip("bfcl_eval")
    study()
    from function_call import declining, folds

    asked = declining.dealt((0, 1))
    identities = [example.identity for several in asked.values() for name, example in several if name != declining.FITS]
    assert len(identities) == len(set(identities)) > 300
    for fold, several in asked.items():
        part = folds.split(fold)
        tools = {folds.function_key(tool["name"]) for tool in part.tools}
        queries = {folds.query_key(example.query) for example in part.train}
        for name, example in several:
            if name != declining.FITS:
                assert folds.query_key(example.query) not in queries
                assert not tools & {folds.function_key(tool["name"]) for tool in example.tools}
    fitting = [example for name, example in asked[0] if name == declining.FITS]
    assert fitting == folds.split(0).test


def test_what_is_declined_is_counted_where_no_tool_fits_and_where_one_does():
    pytest.importorskip("bfcl_eval")
    study()
    from function_call import declining

    every = declining.dealt((0,))[0]
    few = [*every[:12], *[pair for pair in every if pair[0] == "irrelevance"][:12], *every[-12:]]
    rows = list(declining.rows(load(HEAD), few))
    assert len(rows) == 36
    declined = [[row["declined"] for row in rows if (row["set"] == declining.FITS) == fits] for fits in (True, False)]
    assert sum(declined[0]) < 6 < 12 < sum(declined[1])
    for row in rows:
        assert row["declined"] == (row["margin"] > 0)
        assert ("right" in row) == (row["set"] == declining.FITS)
    lines = declining.report(rows)
    assert f"irrelevance: {sum(r['declined'] for r in rows if r['set'] == 'irrelevance')} of 12 declined" in lines[1]
    kept = sum(row["right"] and not row["declined"] for row in rows if "right" in row)
    assert lines[3].endswith(f"{kept} where none may be")
    assert next(line for line in lines if "+0" in line).endswith(f"right calls {kept}")


def test_a_head_is_trained_once_for_its_examples_and_configuration(tmp_path, monkeypatch):
    pytest.importorskip("torch")
    pytest.importorskip("bfcl_eval")
    study()
    from function_call import heads

    few = list(itertools.islice(heads.sources(0), 60))
    monkeypatch.setattr(heads, "sources", lambda fold: few)
    first = heads.head(0, "head", tmp_path, updates=2)
    other = heads.head(0, "one step", tmp_path, updates=2)
    assert first != other
    assert len(list(tmp_path.glob("fold0-*.npz"))) == 1
    assert json.loads(first.with_suffix(".json").read_text())["updates"] == 2
    monkeypatch.setattr(heads, "Trainer", None)
    monkeypatch.setattr(heads, "write", None)
    assert heads.head(0, "head", tmp_path, updates=2) == first
    with pytest.raises(TypeError):
        heads.head(0, "head", tmp_path, updates=3)
