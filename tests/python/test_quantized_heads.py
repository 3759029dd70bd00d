"""What examples/quantized measures: paired losses by hand, the engine on both shipped heads, and what was recorded."""

from __future__ import annotations

import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import trm_edge

pytest.importorskip("torch", reason="needs pip install 'trm-edge[train]'")

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def example() -> ModuleType:
    """Return ``examples/quantized/run.py``, which is a script, not a package."""
    spec = importlib.util.spec_from_file_location("quantized_run", EXAMPLES / "quantized" / "run.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    before = list(sys.path)
    sys.modules[spec.name] = module  # dataclasses look their module up
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path[:] = before
    return module


def test_losses_are_paired(example: ModuleType, tmp_path: Path) -> None:
    task = replace(example.metaworld_task(tmp_path, 4), metric="exact rate", groups=np.arange(4))
    exact = np.array([[1, 1], [1, 1], [0, 1], [0, 1]], float)
    own = np.array([[1, 1], [0, 1], [1, 1], [1, 1]], float)
    first, second = example.compare(task, own, exact)
    assert (first["value"], first["loss"], first["lost"], first["gained"]) == (0.75, -0.25, 1, 2)
    assert first["within"] and first["low"] < -0.25 < first["high"]
    assert second == {"value": 1, "loss": 0, "low": 0, "high": 0, "within": True, "lost": 0, "gained": 0}
    assert not example.compare(task, exact, own)[0]["within"]
    worse = example.compare(replace(task, metric="rms error"), 1.21 * (1 + exact), 1 + exact)
    assert [step["loss"] for step in worse] == pytest.approx([0.1, 0.1])
    assert all(step["low"] == pytest.approx(step["high"]) == pytest.approx(0.1) for step in worse)  # by the same factor
    assert not worse[0]["within"] and "lost" not in worse[0]


def test_the_engine_is_measured_on_both_heads(example: ModuleType, tmp_path: Path) -> None:
    tasks = [example.metaworld_task(tmp_path, 12)]
    x, target = example.puzzles.make_split(0, 12, seed=0)["test"]
    bundle = Path(trm_edge.__file__).parent / "data" / "sudoku.trm"

    def scores(refiner: trm_edge.Refiner) -> np.ndarray:
        return example.puzzles.solved_by_step(refiner, x, target, 16).astype(float)

    tasks.append(example.Task("sudoku", bundle, tmp_path / "none.npz", 16, "exact rate", scores, np.arange(12)))
    for task in tasks:
        runs = ((name, task.bundle, name) for name in ("fp32", "bf16", "int8"))
        result = example.measure(task, runs)
        assert result["cases"] == 12 and [row["scheme"] for row in result["rows"]] == ["fp32", "bf16", "int8"]
        values = [[step["value"] for step in row["by_step"]] for row in result["rows"]]
        assert {len(row) for row in values} == {task.steps}
        assert all(step["loss"] == 0 for step in result["rows"][0]["by_step"])
        assert np.abs(np.subtract(values[2], values[0])).max() < 0.2
        assert "fp32" in example.table(result)
    rounded = trm_edge.load(bundle, backend="fused", precision="int8")
    row = [
        (rounded.refine(p, steps=16, trajectory=True).trajectory == t).all(axis=1)
        for p, t in zip(x, target, strict=True)
    ]
    assert values[2] == np.mean(row, axis=0).tolist()


def test_what_was_recorded_is_of_the_same_puzzles(example: ModuleType) -> None:
    recorded = json.loads((EXAMPLES / "quantized" / "results.json").read_text())
    heads, limit = recorded["heads"], recorded["limit"]
    trained = json.loads((EXAMPLES / "sudoku" / "results.json").read_text())["runs"][0]
    for name in ("sudoku", "sudoku, fine-tuned"):
        rates = [step["value"] for step in heads[name]["rows"][0]["by_step"]]
        assert rates == [step["rate"] for step in trained["by_step"]]
    assert [row["scheme"] for row in heads["metaworld"]["rows"]] == list(example.SCHEMES)
    steps = [step for head in heads.values() for row in head["rows"] for step in row["by_step"]]
    assert all(step["within"] == (step["loss"] <= limit) for step in steps)
    assert all(step["low"] <= step["loss"] <= step["high"] for step in steps)
