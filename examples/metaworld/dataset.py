"""The head's data: what a slow base leaves at hand at a control tick, and what the expert would do from there.

A tick is 12.5 ms. The base has looked at the scene ``age`` = 0..8 ticks ago (100 ms) and proposed 12 actions; ``age``
of them have passed, and where fewer than T = 8 are left the last one is held. Proprioception is fresh. The target is
the scripted expert's chunk from the *current* simulator state, rolled out without disturbance and then taken back,
rather than the demonstration's own later actions: those also answer pushes that nobody can foresee at this tick.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from base import HORIZON, FlowPolicy
from record import CHUNK, DOF, LOWER, TASKS, UPPER, VELOCITY, Episode

from trm_edge import stack_context

MAX_AGE = 8  # ticks
FEATURES = 4 * DOF + 2

Array = np.ndarray[Any, np.dtype[Any]]
Sample = dict[str, Array]


def shifted(chunk: Array, age: int) -> Array:
    """Return what is left of a proposal [HORIZON, DOF] after ``age`` ticks: [T, DOF], the last action held."""
    return chunk[np.minimum(age + np.arange(CHUNK), HORIZON - 1)]


def draft_features(draft: Array, last_action: Array, age: int) -> Array:
    """Return what is cheaply known of a draft [T, DOF] as [T, 18].

    Signed excess over the bounds, signed excess of each move over the velocity limit, distance from the last action,
    the draft itself, which so reaches every step of the recursion (four columns each); the draft's age, and whether an
    entry is held rather than proposed.
    """
    moves = np.diff(draft, axis=0, prepend=last_action[None])
    features = np.empty((CHUNK, FEATURES), np.float32)
    features[:, :DOF] = draft - np.clip(draft, LOWER, UPPER)
    features[:, DOF : 2 * DOF] = moves - np.clip(moves, -VELOCITY, VELOCITY)
    features[:, 2 * DOF : 3 * DOF] = draft - last_action
    features[:, 3 * DOF : 4 * DOF] = draft
    features[:, -2] = age / MAX_AGE
    features[:, -1] = age + np.arange(CHUNK) >= HORIZON
    return features


def proprioception(episode: Episode, tick: int, since: int) -> Array:
    """Return what the robot knows of itself [24], in units near 1.

    What stands now, what changed in one tick, and what changed since the base looked at tick ``since``; eight each:
    hand position (decimetres from the middle of the table; changes in units of 5 cm), gripper opening, last action.
    """
    now, before, then = (_own_state(episode, t) for t in (tick, max(tick - 1, 0), since))
    changes = np.stack([now - before, now - then])
    changes[:, :3] *= 2
    return np.concatenate([now, changes.reshape(-1)])


def context(scene: Array, episode: Episode, tick: int, age: int) -> Array:
    """Stack the context tokens of a tick [3, 51]: the stale scene latent, fresh proprioception, the task."""
    return stack_context(
        {
            "scene": scene[None],
            "proprioception": proprioception(episode, tick, tick - age)[None],
            "task": np.eye(len(TASKS), dtype=np.float32)[episode.task][None],
        }
    )


def samples(policy: FlowPolicy, episode: Episode, rng: np.random.Generator, ages: int) -> Iterator[Sample]:
    """Yield ``ages`` samples, each with an age drawn at random, of every labelled tick of an episode."""
    scenes, chunks = policy.propose(episode.observations, episode.task, seed=int(rng.integers(2**31)))
    for tick, label in zip(episode.label_ticks.tolist(), episode.labels, strict=True):
        last = _own_state(episode, tick)[4:]
        for _ in range(ages):
            age = int(rng.integers(min(tick, MAX_AGE) + 1))
            draft = shifted(chunks[tick - age], age)
            yield {
                "x": context(scenes[tick - age], episode, tick, age),
                "y0": draft,
                "features": draft_features(draft, last, age),
                "target": label,
                "last_action": last,
                "fresh": shifted(chunks[tick], 0),
                "age": np.int32(age),
                "task": np.int32(episode.task),
                "episode": np.int32(episode.number),
                "tick": np.int32(tick),
            }


def build(policy: FlowPolicy, episodes: list[Episode], seed: int, ages: int, per_episode: int | None = None) -> Sample:
    """Return the samples of successful episodes, stacked by name [N, ...].

    With ``per_episode``, that many are drawn from each episode, so that all weigh the same.
    """
    rng = np.random.default_rng(seed)
    kept: list[Sample] = []
    for episode in episodes:
        if not episode.success:
            continue
        drawn = list(samples(policy, episode, rng, ages))
        if per_episode is not None:
            chosen = rng.choice(len(drawn), min(per_episode, len(drawn)), replace=False)
            drawn = [drawn[i] for i in sorted(chosen)]
        kept += drawn
    return {name: np.stack([sample[name] for sample in kept]) for name in kept[0]}


def training_arrays(stacked: Sample) -> Sample:
    """Return the arrays of a training file: x, x_len, y0, features, target."""
    arrays = {name: stacked[name] for name in ("x", "y0", "features", "target")}
    return arrays | {"x_len": np.full(len(arrays["x"]), arrays["x"].shape[1], np.int32)}


def _own_state(episode: Episode, tick: int) -> Array:
    """Return hand position, gripper opening and the action before ``tick``, [8] float32."""
    last = episode.actions[tick - 1] if tick else np.zeros(DOF, np.float32)
    hand = (episode.observations[tick, :3] - (0, 0.6, 0.15)) / 0.1
    return np.concatenate([hand, episode.observations[tick, 3:4], last]).astype(np.float32)
