"""Recording in Meta-World: one seed, one trajectory; other episodes, others; labels that leave no trace."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.slow

pytest.importorskip("metaworld", reason="needs pip install metaworld")
pytest.importorskip("torch", reason="needs pip install 'trm-edge[train]'")

FOLDER = Path(__file__).parents[2] / "examples/metaworld"


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Import a script of the example by its name."""
    monkeypatch.syspath_prepend(FOLDER)
    names = ("record", "base", "dataset", "oneshot")
    yield importlib.import_module
    for name in names:
        sys.modules.pop(name, None)


@pytest.mark.parametrize("task", [0, 1])
def test_a_seed_gives_one_trajectory_whatever_came_before(task: int, example: Any) -> None:
    record = example("record")
    first, second = record.Arena(task), record.Arena(task)
    alone = record.record(first, 0, 3, pushed=True)
    other = record.record(second, 0, 4, pushed=True)
    again = record.record(second, 0, 3, pushed=True)
    np.testing.assert_array_equal(alone.observations, again.observations)
    np.testing.assert_array_equal(alone.actions, again.actions)
    assert np.abs(alone.observations[0, 4:7] - other.observations[0, 4:7]).max() > 1e-3  # the object lies elsewhere
    seeded = record.record(second, 1, 3, pushed=True)
    assert np.abs(alone.observations[0] - seeded.observations[0]).max() > 1e-3


@pytest.mark.parametrize("task", [0, 1])
def test_looking_ahead_leaves_no_trace_and_tells_the_future(task: int, example: Any) -> None:
    record = example("record")
    arena = record.Arena(task)
    plain = record.record(arena, 0, 3, pushed=False)
    labelled = record.record(arena, 0, 3, pushed=False, label_every=1)
    np.testing.assert_array_equal(plain.observations, labelled.observations)
    ticks = len(plain.actions) - record.CHUNK
    future = np.stack([plain.actions[t : t + record.CHUNK] for t in range(ticks)])
    np.testing.assert_array_equal(labelled.labels[:ticks], future)  # undisturbed, the expert does what it foresaw


@pytest.mark.parametrize("task", [0, 1])
def test_experts_succeed_within_the_limits(task: int, example: Any) -> None:
    record = example("record")
    arena = record.Arena(task)
    episodes = [record.record(arena, 0, number, pushed=False) for number in range(5)]
    assert all(episode.success for episode in episodes)
    for episode in episodes:
        moves = np.diff(episode.actions.astype(np.float64), axis=0, prepend=0)
        assert np.abs(moves).max() <= record.VELOCITY and np.abs(episode.actions).max() <= 1


def test_samples_are_what_a_robot_has_at_hand(example: Any, tmp_path: Path) -> None:
    record, base, dataset = example("record"), example("base"), example("dataset")
    episodes = record.record_many(0, range(2), pushed=0.5, label_every=8)
    record.save(tmp_path / "demos.npz", episodes)
    for kept, episode in zip(record.load(tmp_path / "demos.npz"), episodes, strict=True):
        assert (kept.task, kept.number, kept.success) == (episode.task, episode.number, episode.success)
        np.testing.assert_array_equal(kept.observations, episode.observations)
        np.testing.assert_array_equal(kept.labels, episode.labels)
    policy = base.train(episodes, updates=20, seed=0, batch=32)
    data, again = (dataset.build(policy, episodes, seed=1, ages=2) for _ in range(2))
    for name, values in data.items():
        np.testing.assert_array_equal(values, again[name])
        assert np.isfinite(values).all(), name
    count = len(data["x"])
    assert data["x"].shape == (count, 3, 51) and data["features"].shape == (count, 8, 18)
    assert (data["age"] <= np.minimum(data["tick"], dataset.MAX_AGE)).all() and data["age"].max() > 0
    moves = np.diff(data["target"].astype(np.float64), axis=1, prepend=data["last_action"][:, None])
    assert np.abs(moves).max() <= record.VELOCITY


def test_a_proposal_is_shifted_and_its_end_held(example: Any) -> None:
    dataset = example("dataset")
    proposal = np.arange(dataset.HORIZON * 4, dtype=np.float32).reshape(-1, 4)
    np.testing.assert_array_equal(dataset.shifted(proposal, 0), proposal[:8])
    np.testing.assert_array_equal(dataset.shifted(proposal, 8), proposal[[8, 9, 10, 11, 11, 11, 11, 11]])
    features = dataset.draft_features(dataset.shifted(proposal, 8), proposal[7], 8)
    np.testing.assert_array_equal(features[:, -1], [0, 0, 0, 0, 1, 1, 1, 1])
    np.testing.assert_array_equal(features[0, 4:8], np.full(4, 4 - 0.25, np.float32))
