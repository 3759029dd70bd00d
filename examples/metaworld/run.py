"""Make the demo's head and its recorded inputs from nothing: record, base, dataset, head, export, table.

    python examples/metaworld/run.py                  needs pip install -e '.[train,demo]' metaworld

Every stage leaves its files in the work folder, and is skipped where they stand; ``--fresh`` starts over. The shipped
files are written at the end, with ``results.json`` beside this script: the demo's table, and the same measures of a
twin that was trained at one step, of a one-shot MLP on the same data, and of the base with a fresh observation.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import base
import dataset
import numpy as np
import oneshot
import record
import torch

import trm_edge
import trm_edge.cli
from trm_edge import demo
from trm_edge.bundle import Bundle, read_bundle
from trm_edge.export.bundle_writer import export_bundle
from trm_edge.profiling.machine import machine_facts
from trm_edge.train import Trainer, load_config

HERE = Path(__file__).parent
SEED = 0
# What is recorded of every task: numbers of the episodes, and every how many ticks the expert is asked for a chunk.
EPISODES = {"base": (range(200), 0), "train": (range(1000, 1200), 3), "validation": (range(1200, 1240), 3),
            "test": (range(2000, 2040), 4)}  # fmt: skip
PUSHED = 0.75  # share of episodes in which the hand is pushed
BASE_UPDATES = 4000
AGES = 3  # drafts of different age per labelled tick of a training episode
RECORDED = 8  # control steps of a test episode that are shipped
FIRST = {"steps": 1, "batch_size": 64, "max_updates": 3000, "learning_rate": 3e-3}  # before head.toml's own values
STEPS = 4

Array = np.ndarray[Any, np.dtype[Any]]
Arrays = dict[str, Array]


def main() -> None:
    """Run what has not been run yet, then write the shipped files and print the demo's table."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--work", type=Path, default=HERE.parents[1] / "build" / "metaworld", help="working folder")
    parser.add_argument("--fresh", action="store_true", help="forget what earlier runs left there")
    arguments = parser.parse_args()
    work: Path = arguments.work.resolve()
    if arguments.fresh:
        shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    print(f"seed {SEED}; {platform.machine()}, one thread, {os.cpu_count()} cores; work folder {work}", flush=True)

    for name in EPISODES:
        stage(work, f"{name}.episodes", lambda path, name=name: record_stage(path, name))
    stage(work, "base.pt", lambda path: base_stage(work, path))
    stage(work, "train.npz", lambda path: data_stage(work, path, "train", AGES, None))
    stage(work, "validation.npz", lambda path: data_stage(work, path, "validation", 1, 2 * RECORDED))
    stage(work, "test.npz", lambda path: test_stage(work, path))
    stage(work, "first", lambda path: train_stage(work, path, FIRST, start=None))
    stage(work, "head", lambda path: train_stage(work, path, {}, start=work / "first"))
    stage(work, "twin", lambda path: train_stage(work, path, {"steps": 1}, start=work / "first"))
    stage(work, "oneshot.npy", lambda path: oneshot_stage(work, path))

    shutil.copyfile(work / "test.npz", demo.RECORDED)
    export_bundle(work / "head" / "model.pt", demo.BUNDLE, steps=STEPS, seed=SEED)
    export_bundle(work / "twin" / "model.pt", work / "twin.trm", steps=STEPS, seed=SEED)
    results = compare(work)
    times = json.loads((work / "times.json").read_text())
    results |= {"seed": SEED, "seconds": times, "cpu": machine_facts()["cpu"]}
    (HERE / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    trm_edge.cli.main(["demo", "--plot", str(work / "demo.png")])
    print("\n".join(f"{name:<22}{seconds:8.1f} s" for name, seconds in times.items()))
    print(f"{'all stages':<22}{sum(times.values()):8.1f} s, seed {SEED}")


def stage(work: Path, name: str, make: Callable[[Path], None]) -> None:
    """Make ``work/name`` by ``make(path)`` unless it stands there; a stage that dies leaves nothing under that name."""
    target, times = work / name, work / "times.json"
    if target.exists():
        print(f"{name}: there already", flush=True)
        return
    beside = work / f"unfinished-{name}"
    shutil.rmtree(beside, ignore_errors=True)
    start = time.perf_counter()
    make(beside)
    beside.rename(target)
    seconds = time.perf_counter() - start
    known = json.loads(times.read_text()) if times.exists() else {}
    times.write_text(json.dumps(known | {name: seconds}))
    print(f"{name}: {seconds:.1f} s", flush=True)


def record_stage(path: Path, name: str) -> None:
    """Record the demonstrations of one set."""
    numbers, label_every = EPISODES[name]
    episodes = record.record_many(SEED, numbers, PUSHED, label_every)
    record.save(path, episodes)
    for task, title in enumerate(record.TASKS):
        done = [e.success for e in episodes if e.task == task]
        print(f"  {title}: {len(done)} episodes, the expert succeeds in {np.mean(done):.0%}; the others are left out")


def base_stage(work: Path, path: Path) -> None:
    """Train the frozen base on successful demonstrations."""
    demonstrations = [e for e in record.load(work / "base.episodes") if e.success]
    base.save(path, base.train(demonstrations, BASE_UPDATES, SEED))


def data_stage(work: Path, path: Path, name: str, ages: int, per_episode: int | None) -> None:
    """Build a training file of the head's samples."""
    write(path, dataset.training_arrays(samples(work, name, ages, per_episode)))


def test_stage(work: Path, path: Path) -> None:
    """Build the recorded inputs that are shipped."""
    stacked = samples(work, "test", 1, RECORDED)
    stacked["episode"] = stacked["episode"] + 10_000 * stacked["task"]  # numbers are counted per task
    write(path, stacked | {"tasks": np.array(record.TASKS)})


def samples(work: Path, name: str, ages: int, per_episode: int | None) -> Arrays:
    """Return the samples of one set of episodes."""
    episodes = record.load(work / f"{name}.episodes")
    seed = SEED + 1 + list(EPISODES).index(name)
    return dataset.build(base.load(work / "base.pt"), episodes, seed, ages, per_episode)


def train_stage(work: Path, folder: Path, changes: dict[str, Any], start: Path | None) -> None:
    """Train ``head.toml`` with ``changes`` to its [train], from the weights of the run in ``start``."""
    config = load_config(HERE / "head.toml")
    data = replace(config.data, train=str(work / "train.npz"), validation=str(work / "validation.npz"))
    trainer = Trainer(replace(config, data=data, train=replace(config.train, seed=SEED, **changes)), folder)
    if start is not None:
        weights = torch.load(start / "model.pt", weights_only=True)["state_dict"]
        trainer.head.load_state_dict(weights)
        trainer.averaged.load_state_dict(weights)
    trainer.run()


def oneshot_stage(work: Path, path: Path) -> None:
    """Train the MLP on the same data, and correct the test set with it."""
    with np.load(work / "train.npz") as stored:
        model = oneshot.train({name: stored[name] for name in stored.files}, updates=5000, batch=256, seed=SEED)
    print(f"  {sum(p.numel() for p in model.parameters()):,} parameters")
    with path.open("wb") as stream:
        np.save(stream, oneshot.predict(model, demo.read_recorded(work / "test.npz")))


def compare(work: Path) -> dict[str, Any]:
    """Measure head, twin and the other answers on the test set."""
    recorded, bundle = demo.read_recorded(work / "test.npz"), read_bundle(demo.BUNDLE)
    answers = {
        name: demo.refine_all(trm_edge.load(path, backend="fused"), recorded, STEPS)
        for name, path in (("head", demo.BUNDLE), ("twin trained at K=1", work / "twin.trm"))
    }
    results: dict[str, Any] = {
        name: [asdict(row) for row in demo.measure(steps, bundle, recorded)] for name, steps in answers.items()
    }
    others = {"one-shot MLP": np.load(work / "oneshot.npy"), "base, fresh observation": recorded["fresh"]}
    for name, answer in others.items():
        answers[name] = with_draft(answer, bundle, recorded)
        results[name] = [asdict(row) for row in demo.measure(answers[name], bundle, recorded) if row.step == 1]
    projected = answers["head"]["projected"]
    rivals = {f"{name}, step 1": answers[name]["projected"][1] for name in ("twin trained at K=1", "one-shot MLP")}
    results["paired differences of projected RMSE"] = {
        f"head step {k} - {name}": difference(projected[k], rival, recorded)
        for name, rival in rivals.items()
        for k in range(1, STEPS + 1)
    }
    groups = {title: recorded["task"] == i for i, title in enumerate(recorded["tasks"].tolist())}
    groups |= {f"age {a}..{b}": (recorded["age"] >= a) & (recorded["age"] <= b) for a, b in ((0, 2), (3, 5), (6, 8))}
    results["head by group, RMSE of projected draft and steps"] = {
        name: {"control_steps": int(chosen.sum()), "rmse": [rmse(answer, recorded, chosen) for answer in projected]}
        for name, chosen in groups.items()
    }
    return results


def with_draft(answer: Array, bundle: Bundle, recorded: Arrays) -> Arrays:
    """Return what ``demo.measure`` takes: the draft and one answer [N, T, dof], raw and projected."""
    limits = {name: bundle.tensors[f"limits.{name}"] for name in ("lower", "upper", "velocity")}

    def project(chunks: Array) -> Array:
        pairs = zip(chunks, recorded["last_action"], strict=True)
        return np.stack([trm_edge.project_limits(c, **limits, last_action=last).actions for c, last in pairs])

    raw = np.stack([recorded["y0"], answer])
    return {"raw": raw, "projected": np.stack([project(chunks) for chunks in raw])}


def difference(one: Array, other: Array, recorded: Arrays) -> tuple[float, float, float]:
    """Return RMSE(one) - RMSE(other) to the expert with its 95 % bootstrap interval over episodes."""
    resampled = demo.Bootstrap(recorded["episode"])
    errors = (((answer.astype(np.float64) - recorded["target"]) ** 2).mean((1, 2)) for answer in (one, other))
    (a, a_drawn), (b, b_drawn) = (resampled.mean(error) for error in errors)
    return resampled.interval(float(np.sqrt(a) - np.sqrt(b)), np.sqrt(a_drawn) - np.sqrt(b_drawn))


def rmse(answer: Array, recorded: Arrays, chosen: Array) -> float:
    """Return the RMSE to the expert over the chosen control steps."""
    return float(np.sqrt(((answer[chosen].astype(np.float64) - recorded["target"][chosen]) ** 2).mean()))


def write(path: Path, arrays: Arrays) -> None:
    """Write an .npz file under exactly this name."""
    with path.open("wb") as stream:
        np.savez_compressed(stream, **arrays)


if __name__ == "__main__":
    main()
