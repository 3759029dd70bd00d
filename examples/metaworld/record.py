"""Record Meta-World's scripted experts: what they saw, what they commanded, and what they would do from there.

The experts run under the limits that a robot would have (actions in -1..1, at most 0.25 a tick), so that what they
show can be done. Meta-World steps at 80 Hz. In a pushed episode something shoves the hand now and then: the motion
then is not the one that was commanded, and a chunk that was planned before the push is wrong after it.

Meta-World ignores ``reset(seed=)``. Here an episode's object, goal and pushes are drawn from ``(seed, task, episode)``
and handed over by ``set_task``, so that an episode does not depend on those before it.

    python examples/metaworld/record.py --episodes 2
"""

from __future__ import annotations

import argparse
import pickle
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

TASKS = ("pick-place-v3", "peg-insert-side-v3")
DOF = 4  # hand x, y, z in centimetres a tick; gripper effort
CHUNK = 8  # T: ticks that the head corrects
LOWER, UPPER = -1.0, 1.0  # Meta-World's action box
VELOCITY = 0.25  # per tick: by axis, 96 to 99 % of the moves of an expert without it; both succeed under it
TICKS = 150  # longest episode
AFTER_SUCCESS = 8  # ticks recorded after success
_NEAREST = {"pick-place-v3": 0.15, "peg-insert-side-v3": 0.1}  # object to goal; Meta-World redraws nearer ones

_PER_TICK = ("observations", "actions")
_PER_LABEL = ("label_ticks", "labels")

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Episode:
    """One demonstration of N ticks, and expert chunks from M of them."""

    task: int
    number: int
    observations: Array  # [N, 39] float64, before the action of the same tick
    actions: Array  # [N, 4] float32, commanded, within the limits
    success: bool
    label_ticks: Array  # [M] int
    labels: Array  # [M, T, 4] float32: the expert's next T actions, undisturbed, from the state at that tick


class Arena:
    """One task's simulator with its scripted expert."""

    def __init__(self, task: int) -> None:
        from metaworld.env_dict import ALL_V3_ENVIRONMENTS
        from metaworld.policies import ENV_POLICY_MAP

        self.task = task
        self.name = TASKS[task]
        self._class = ALL_V3_ENVIRONMENTS[self.name]
        self._env = self._class()
        self._policy = ENV_POLICY_MAP[self.name]()

    def reset(self, rng: np.random.Generator) -> Array:
        """Place object and goal as ``rng`` says and return the first observation [39]."""
        from metaworld.types import Task

        space = self._env._random_reset_space
        place = rng.uniform(space.low, space.high)
        while np.linalg.norm(place[:2] - place[3:5]) < _NEAREST[self.name]:
            place = rng.uniform(space.low, space.high)
        layout = {"env_cls": self._class, "rand_vec": place, "partially_observable": False}
        self._env.set_task(Task(env_name=self.name, data=pickle.dumps(layout)))
        observation, _ = self._env.reset()
        return np.asarray(observation)

    def expert(self, observation: Array, last: Array) -> Array:
        """Return the expert's action [4] float32, held within the limits from ``last`` on."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the experts ask for more than the action box and say so at every tick
            wanted = self._policy.get_action(observation)
        return limit(wanted, last)

    def act(self, action: Array) -> tuple[Array, bool]:
        """Run one tick; return the next observation and whether the task is done."""
        observation, _, _, _, info = self._env.step(action)
        return np.asarray(observation), bool(info["success"])

    def look_ahead(self, observation: Array, last: Array) -> Array:
        """Return the expert's next T actions [T, 4] from here, without a disturbance; the simulator is put back."""
        import mujoco

        env, kind = self._env, mujoco.mjtState.mjSTATE_INTEGRATION
        state = np.empty(mujoco.mj_stateSize(env.model, kind))
        mujoco.mj_getState(env.model, env.data, state, kind)
        before = env._prev_obs
        chunk = np.empty((CHUNK, DOF), np.float32)
        for t in range(CHUNK):
            chunk[t] = last = self.expert(observation, last)
            if t + 1 < CHUNK:
                observation = self._act_without_reward(last.astype(np.float64))
        mujoco.mj_setState(env.model, env.data, state, kind)
        mujoco.mj_forward(env.model, env.data)  # derived values; it also moves the solver's warm start, hence again:
        mujoco.mj_setState(env.model, env.data, state, kind)
        env._prev_obs = before
        return chunk

    def _act_without_reward(self, action: Array) -> Array:
        """Do what ``act`` does, but for the reward, which takes half of its time."""
        import mujoco

        env, space = self._env, self._env.sawyer_observation_space
        env.set_xyz_action(action[:3])
        env.do_simulation([action[3], -action[3]], n_frames=env.frame_skip)
        mujoco.mj_forward(env.model, env.data)
        return np.clip(env._get_obs(), space.low, space.high)


def limit(action: Array, last: Array) -> Array:
    """Return ``action`` [4] within the bounds and within one velocity step of ``last``, rounded inwards."""
    low = np.nextafter((last - VELOCITY).astype(np.float32), np.float32(2))
    high = np.nextafter((last + VELOCITY).astype(np.float32), np.float32(-2))
    return np.clip(np.clip(action, low, high), LOWER, UPPER).astype(np.float32)


def record(arena: Arena, seed: int, number: int, pushed: bool, label_every: int = 0) -> Episode:
    """Record episode ``number``; with ``label_every`` = m the expert's chunk is recorded at every m-th tick."""
    rng = np.random.default_rng([seed, arena.task, number])
    observation = arena.reset(rng)
    pushes = _draw_pushes(rng) if pushed else np.zeros((TICKS, DOF))
    last = np.zeros(DOF, np.float32)
    seen, done, ticks, labels = [], [], [], []
    end = None
    for t in range(TICKS):
        if label_every and t % label_every == 0:
            ticks.append(t)
            labels.append(arena.look_ahead(observation, last))
        seen.append(observation)
        last = arena.expert(observation, last)
        done.append(last)
        observation, success = arena.act(last + pushes[t])  # the simulator clips to the action box
        if success and end is None:
            end = t + AFTER_SUCCESS
        if t == end:
            break
    return Episode(
        arena.task,
        number,
        np.asarray(seen),
        np.asarray(done, np.float32),
        end is not None,
        np.asarray(ticks, np.int64),
        np.asarray(labels, np.float32).reshape(-1, CHUNK, DOF),
    )


def record_many(seed: int, numbers: range, pushed: float, label_every: int = 0) -> list[Episode]:
    """Record episodes ``numbers`` of every task; a share ``pushed`` of them, spread evenly, is disturbed."""
    episodes = []
    for task in range(len(TASKS)):
        arena = Arena(task)
        for i, number in enumerate(numbers):
            disturbed = int((i + 1) * pushed) > int(i * pushed)
            episodes.append(record(arena, seed, number, disturbed, label_every))
    return episodes


def save(path: Path, episodes: list[Episode]) -> None:
    """Write episodes to an .npz file: everything end to end, with the lengths beside it."""
    with path.open("wb") as stream:
        np.savez_compressed(
            stream,
            ticks=[len(e.actions) for e in episodes],
            label_counts=[len(e.labels) for e in episodes],
            **{name: np.array([getattr(e, name) for e in episodes]) for name in ("task", "number", "success")},
            **{name: np.concatenate([getattr(e, name) for e in episodes]) for name in _PER_TICK + _PER_LABEL},
        )


def load(path: Path) -> list[Episode]:
    """Read what :func:`save` wrote."""
    with np.load(path) as stored:
        parts = {n: np.split(stored[n], np.cumsum(stored["ticks"])[:-1]) for n in _PER_TICK}
        parts |= {n: np.split(stored[n], np.cumsum(stored["label_counts"])[:-1]) for n in _PER_LABEL}
        facts = zip(stored["task"].tolist(), stored["number"].tolist(), stored["success"].tolist(), strict=True)
    return [
        Episode(task, number, success=success, **{name: values[i] for name, values in parts.items()})
        for i, (task, number, success) in enumerate(facts)
    ]


def _draw_pushes(rng: np.random.Generator) -> Array:
    """Draw pushes [TICKS, 4]: one starts every 25 ticks on average, 3 to 8 ticks long, 0.5 to 1 strong, any way."""
    pushes = np.zeros((TICKS, DOF))
    for start in np.flatnonzero(rng.random(TICKS) < 1 / 25):
        way = rng.standard_normal(3)
        strength = rng.uniform(0.5, 1.0)
        pushes[start : start + rng.integers(3, 9), :3] = strength * way / np.linalg.norm(way)
    return pushes


def main() -> None:
    """Record a few episodes and say what came out."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--episodes", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    start = time.perf_counter()
    for episode in record_many(arguments.seed, range(arguments.episodes), pushed=0.5, label_every=4):
        print(
            f"{TASKS[episode.task]:<20} episode {episode.number}: {len(episode.actions)} ticks, "
            f"{len(episode.labels)} expert chunks, success {episode.success}"
        )
    print(f"{time.perf_counter() - start:.1f} s")


if __name__ == "__main__":
    main()
