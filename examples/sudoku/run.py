"""Train the Sudoku heads from nothing and measure them through the compiled engine.

    pip install -e '.[train,export]' && python examples/sudoku/run.py

For each of two seeds it trains three heads of the same size, for the same number of weight updates:

``recursive``
    as ``sudoku.toml`` says: a batch is refined over K = 8 steps, with an update after each.
``same-puzzles``
    its twin trained with K = 1: the same batches, puzzle for puzzle, in 8 passes of fresh order.
``new-puzzles``
    the same twin with a new batch for every update, so that it sees 8 times as many puzzles.

All are exported, and the fused engine solves the test puzzles with each at k = 1..16. ``results.json`` beside this
file gets the rates; the first seed's recursive head becomes the package's ``trm_edge/data/sudoku.trm``. A run that was
interrupted goes on where it stood, a measured one is not measured again.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import puzzles
import torch

import trm_edge
from trm_edge.export.bundle_writer import export_bundle
from trm_edge.files import write_atomically
from trm_edge.profiling.machine import machine_facts
from trm_edge.train import RunConfig, Trainer, load_config

HERE = Path(__file__).parent
SHIPPED = HERE.parents[1] / "trm_edge" / "data" / "sudoku.trm"
KINDS = ("recursive", "same-puzzles", "new-puzzles")
SEEDS = (1, 2)
STEPS = 16
DATA_SEED = 0
MAX_BYTES = 1_500_000


def main() -> None:
    """Draw, train, export, evaluate, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=HERE / "runs", help="folder of the runs; a trial wants its own")
    parser.add_argument("--updates", type=int, help="a trial of so many weight updates, which ships nothing")
    arguments = parser.parse_args()
    started = time.monotonic()
    config = load_config(HERE / "sudoku.toml")
    if arguments.updates:
        config = replace(config, train=replace(config.train, max_updates=arguments.updates))
    data = draw_puzzles(config)
    arguments.runs.mkdir(exist_ok=True)
    runs = [train_and_measure(kind, seed, config, arguments.runs) for kind in KINDS for seed in SEEDS]
    print(table(runs))
    print(f"seeds {list(SEEDS)}, puzzles drawn with seed {DATA_SEED}; {time.monotonic() - started:.0f} s")
    if not arguments.updates:
        results = {"data": data, "environment": environment(), "runs": runs}
        write_atomically(HERE / "results.json", (json.dumps(results, indent=1) + "\n").encode())
        ship(arguments.runs / f"recursive-{SEEDS[0]}.trm")
        check(runs)


def draw_puzzles(config: RunConfig) -> dict[str, Any]:
    """Write ``data/train.npz`` and ``data/test.npz`` where they are not there yet; return what they hold."""
    paths = puzzles.stored_split((config.folder / config.data.train).parent, DATA_SEED)
    facts: dict[str, Any] = {"seed": DATA_SEED}
    for (name, path), classes in zip(paths.items(), puzzles.split_classes(), strict=True):
        x = np.load(path)["x"]
        facts[name] = {"puzzles": len(x), "puzzles_by_givens": puzzles.count_givens(x), "grid_classes": len(classes)}
    return facts


def train_and_measure(kind: str, seed: int, config: RunConfig, folder: Path) -> dict[str, Any]:
    """Train one head, export it, and solve the test puzzles with it."""
    steps = config.train.steps if kind == "recursive" else 1
    own = replace(config, train=replace(config.train, seed=seed, steps=steps))
    out = folder / f"{kind}-{seed}"
    measured = out.with_suffix(".json")
    if measured.is_file():
        return dict(json.loads(measured.read_text()))
    print(f"{out.name}: K = {steps} in training, {own.train.max_updates} weight updates", flush=True)
    trainer = SamePuzzles(own, out, resume=True, passes=config.train.steps) if kind == "same-puzzles" else None
    result = (trainer or Trainer(own, out, resume=True)).run()
    if result.interrupted:
        raise SystemExit("interrupted; the same command goes on from here")
    export_bundle(result.model, out.with_suffix(".trm"))
    test = np.load((config.folder / config.data.train).parent / "test.npz")
    solved, lost = solve(out.with_suffix(".trm"), test["x"], test["target"])
    facts = {
        "kind": kind,
        "seed": seed,
        "training_steps": steps,
        "weight_updates": result.updates,
        "puzzles_seen": own.train.batch_size * result.updates // (1 if kind == "new-puzzles" else config.train.steps),
        "training_seconds": round(result.seconds, 1),
        "lost_again": lost,
        "by_step": [rate(int(count), len(test["x"])) for count in solved],
    }
    write_atomically(measured, json.dumps(facts).encode())
    return facts


class SamePuzzles(Trainer):
    """Trains on the batches that a run of one pass would see, in several passes, each in an order of its own."""

    def __init__(self, *arguments: Any, passes: int, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.different = -(-self.config.train.max_updates // passes)

    def batch(self, number: int) -> dict[str, torch.Tensor]:
        """Return batch ``number`` of the passes: one that a run of one pass would see, its augmentation included."""
        turn, place = divmod(number, self.different)
        order = np.random.default_rng([self.config.train.seed, 3, turn]).permutation(self.different)
        return super().batch(int(order[place]))


def solve(bundle: Path, x: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, int]:
    """Solve puzzles with the fused engine.

    Returns
    -------
    solved, lost
        How many are solved exactly at each of ``STEPS`` steps, and how many were so once and are not at the last one.
    """
    right = puzzles.solved_by_step(trm_edge.load(bundle, backend="fused"), x, target, STEPS)
    return right.sum(axis=0), int((right.any(axis=1) & ~right[:, -1]).sum())


def rate(solved: int, puzzles: int) -> dict[str, float]:
    """Return the share that was solved and its 95 % interval (Wilson, JASA 1927)."""
    z = 1.959964
    share = solved / puzzles
    scale = 1 + z * z / puzzles
    middle = (share + z * z / (2 * puzzles)) / scale
    half = z * math.sqrt(share * (1 - share) / puzzles + (z / (2 * puzzles)) ** 2) / scale
    return {"solved": solved, "rate": share, "low": max(0.0, middle - half), "high": min(1.0, middle + half)}


def ship(bundle: Path) -> None:
    """Copy a bundle into the package."""
    content = bundle.read_bytes()
    if len(content) > MAX_BYTES:
        raise SystemExit(f"{bundle} takes {len(content):,} bytes, more than {MAX_BYTES:,}")
    write_atomically(SHIPPED, content)


def check(runs: list[dict[str, Any]]) -> None:
    """Exit with a message unless every recursive head solves 90 % and more by step, and more than any twin.

    Twins count as they were trained, at k = 1, and as far as the heads go.
    """
    twins = max(run["by_step"][k]["high"] for run in runs for k in (0, STEPS - 1) if run["kind"] != "recursive")
    for run in (run for run in runs if run["kind"] == "recursive"):
        rates = [entry["rate"] for entry in run["by_step"]]
        rising = rates[0] < rates[1] < rates[3] < rates[7] <= rates[15]
        if not (rates[15] >= 0.9 and rising and run["by_step"][15]["low"] > twins):
            raise SystemExit(f"seed {run['seed']}: the recursion did not learn what it should; see the table")


def table(runs: list[dict[str, Any]]) -> str:
    """Lay the exact-solve rates out by step, one column a run."""
    names = [f"{run['kind']} {run['seed']}" for run in runs]
    lines = ["exact-solve rate in %, with its 95 % interval", "  k  " + "".join(f"{name:<20}" for name in names)]
    for k in range(STEPS):
        cells = (run["by_step"][k] for run in runs)
        shown = (f"{100 * c['rate']:5.1f} [{100 * c['low']:.1f}, {100 * c['high']:.1f}]" for c in cells)
        lines.append(f"{k + 1:>3}  " + "".join(f"{cell:<20}" for cell in shown))
    lines.append("solved once, lost at the last step: " + ", ".join(str(run["lost_again"]) for run in runs))
    return "\n".join(lines)


def environment() -> dict[str, str]:
    """Return what the figures depend on beside the code."""
    versions = {"python": platform.python_version(), "numpy": np.__version__, "torch": str(torch.__version__)}
    return {"machine": machine_facts()["cpu"], "threads": "1", "trm_edge": trm_edge.__version__, **versions}


if __name__ == "__main__":
    main()
