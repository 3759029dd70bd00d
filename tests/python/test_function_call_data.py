"""``benchmarks/function_call``: the folds of BFCL, and what heads are trained on beside them."""

import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = str(Path(__file__).parents[2] / "benchmarks")
with_bfcl = pytest.mark.skipif(
    importlib.util.find_spec("bfcl_eval") is None, reason="needs pip install --no-deps bfcl-eval"
)


@pytest.fixture(autouse=True)
def folder() -> Iterator[None]:
    sys.path.insert(0, BENCHMARKS)
    yield
    sys.path.remove(BENCHMARKS)
    for name in [n for n in sys.modules if n.split(".")[0] == "function_call"]:
        del sys.modules[name]


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
