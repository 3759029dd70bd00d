"""Discrete action tokens: chunks in bins, refined as slots."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from trm_edge.demo import RECORDED, read_recorded

EXAMPLE = Path(__file__).parents[2] / "examples" / "action_tokens.py"


@pytest.fixture(scope="module")
def tokens() -> ModuleType:
    pytest.importorskip("torch")
    spec = importlib.util.spec_from_file_location("action_tokens", EXAMPLE)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["action_tokens"] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("bins", [2, 3, 21, 256])
def test_a_bin_is_the_nearest_one(tokens: ModuleType, bins: int) -> None:
    actions = np.random.default_rng(0).uniform(-1, 1, (50, 8, 4)).astype(np.float32)
    centres = tokens.from_bins(tokens.to_bins(actions, bins), bins)
    assert np.abs(centres - actions).max() <= 1 / (bins - 1) + 1e-6
    np.testing.assert_array_equal(tokens.to_bins(centres, bins), tokens.to_bins(actions, bins))
    assert tokens.to_bins(np.float32([-9, -1, 1, 9]), bins).tolist() == [0, 0, bins - 1, bins - 1]


def test_slots_are_the_entries_time_first(tokens: ModuleType) -> None:
    recorded = {n: v[:3] for n, v in read_recorded(RECORDED).items() if n != "tasks"}
    examples = tokens.as_slots(recorded)
    assert examples["y0"].shape == (3, 32) and examples["mask"].shape == (3, 32, 21)
    np.testing.assert_array_equal(examples["target"].reshape(3, 8, 4), tokens.to_bins(recorded["target"]))
    assert examples["slots"][0, 5, :12].tolist() == [0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0]  # t = 1, dimension 1
    np.testing.assert_array_equal(examples["slots"][2, 5, 12:30], recorded["features"][2, 1])
    np.testing.assert_array_equal(examples["slots"][2, 5, 30:], recorded["last_action"][2])


def test_a_head_of_bins_learns_and_runs_in_the_engine(tokens: ModuleType, tmp_path: Path) -> None:
    recorded = read_recorded(RECORDED)
    train, test = tokens.split(recorded)
    assert not set(recorded["episode"][train]) & set(recorded["episode"][test])
    examples = tokens.as_slots({n: v for n, v in recorded.items() if len(v) == len(train)})
    held_out = {name: values[test] for name, values in examples.items()}
    bundle = tokens.train_head({n: v[train] for n, v in examples.items()}, tmp_path, updates=120, quiet=True)
    answers = tokens.refine_all(bundle, held_out)
    assert answers.shape == (tokens.STEPS, test.sum(), 32)
    exact, _ = tokens.measure(answers[0], held_out, recorded["target"][test])
    draft_exact, _ = tokens.measure(held_out["y0"], held_out, recorded["target"][test])
    assert exact > draft_exact + 0.05
