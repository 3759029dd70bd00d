"""Discrete action tokens as slots: the path for policies that answer in bins.

    pip install -e '.[train,export]' && python examples/action_tokens.py

A token-based policy says each entry of an action chunk as one of M bins. For the engine that is an answer of kind
``slots``: S = T * dof slots, one per entry, and M candidates, the bins, which every slot may take. Here the recorded
Meta-World chunks of the package (``trm_edge/data/metaworld.npz``) are binned, a small head learns on the first
episodes to correct the stale, binned drafts, and the fused engine refines those of the others.

It shows the path, not a good head: some 50 episodes are little to learn from. After 200 updates (a minute on one core)
57 % of the entries are in the expert's bin, against 37 % of the draft's, but the RMSE is no better (0.204 against
0.200): cross-entropy does not know how far off a wrong bin is. Later steps are slightly worse than the first.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import trm_edge
from trm_edge.demo import RECORDED, read_recorded
from trm_edge.export import export_bundle
from trm_edge.train import Trainer, parse_config

BINS = 21  # M, over the action box
LOW, HIGH = -1.0, 1.0
STEPS = 4
TRAIN_SHARE = 0.75  # of the episodes

SPEC: dict[str, Any] = {
    **{"answer": "slots", "hidden_size": 64, "num_heads": 4, "inner_size": 128, "positions": "rope"},
    **{"l_cycles": 2, "h_cycles": 1, "registers": 1, "max_candidates": BINS, "candidate_size": BINS + 1},
}


def to_bins(actions: np.ndarray, bins: int = BINS) -> np.ndarray:
    """Return the nearest bin of each entry: ``[...]`` float in the action box to int32 in 0..bins-1."""
    nearest = np.rint((actions - LOW) / (HIGH - LOW) * (bins - 1))
    return np.clip(nearest, 0, bins - 1).astype(np.int32)


def from_bins(indices: np.ndarray, bins: int = BINS) -> np.ndarray:
    """Return the centre of each bin, float32."""
    return (LOW + indices * (HIGH - LOW) / (bins - 1)).astype(np.float32)


def as_slots(recorded: dict[str, np.ndarray], bins: int = BINS) -> dict[str, np.ndarray]:
    """Turn recorded chunks ``[N, T, dof]`` into the training arrays of a slots head (S = T * dof, time first).

    A slot says which entry it is (one-hot time and dimension), the last action, and what is known of the draft there;
    a candidate says which bin it is, softly so that neighbours are alike, and its centre.
    """
    count, time_steps, dof = recorded["y0"].shape
    slots = time_steps * dof
    entry = np.concatenate([np.repeat(np.eye(time_steps), dof, axis=0), np.tile(np.eye(dof), (time_steps, 1))], axis=1)
    known = np.concatenate(
        [
            np.broadcast_to(entry, (count, *entry.shape)),
            np.repeat(recorded["features"], dof, axis=1),
            np.repeat(recorded["last_action"][:, None], slots, axis=1),
        ],
        axis=-1,
    )
    apart = np.arange(bins)[:, None] - np.arange(bins)
    candidates = np.concatenate([np.exp(-((apart / 2) ** 2)), from_bins(np.arange(bins), bins)[:, None]], axis=1)
    return {
        "x": recorded["x"],
        "slots": known.astype(np.float32),
        "candidates": np.broadcast_to(candidates.astype(np.float32), (count, *candidates.shape)).copy(),
        "mask": np.ones((count, slots, bins), bool),
        "y0": to_bins(recorded["y0"], bins).reshape(count, slots),
        "target": to_bins(recorded["target"], bins).reshape(count, slots),
    }


def train_head(examples: dict[str, np.ndarray], folder: Path, updates: int, quiet: bool = False) -> Path:
    """Train a head on ``examples`` and export it; returns the bundle."""
    np.savez(folder / "train.npz", **examples)
    sizes = {"answer_rows": examples["slots"].shape[1], "slot_size": examples["slots"].shape[2]}
    sizes |= {"max_context": examples["x"].shape[1], "context_size": examples["x"].shape[2]}
    train = {"steps": STEPS, "update": "sum", "batch_size": 32, "max_updates": updates, "schedule": "cosine"}
    config = parse_config(
        {
            "spec": SPEC | sizes,
            "data": {"train": "train.npz", "normalize": False},
            "train": train | {"learning_rate": 2e-3, "warmup_updates": 20, "ema": 0.99, "eval_steps": STEPS},
        },
        folder,
    )
    result = Trainer(config, folder / "run", quiet=quiet).run()
    export_bundle(result.model, folder / "tokens.trm")
    return folder / "tokens.trm"


def refine_all(bundle: Path, examples: dict[str, np.ndarray]) -> np.ndarray:
    """Return the bins that the fused engine chooses, ``[STEPS, N, S]``."""
    refiner = trm_edge.load(bundle, backend="fused")
    names = ("x", "y0", "slots", "candidates", "mask")
    answers = []
    for i in range(len(examples["x"])):
        answers.append(refiner.refine(**{n: examples[n][i] for n in names}, steps=STEPS, trajectory=True).trajectory)
    return np.stack(answers, axis=1)


def measure(bins: np.ndarray, examples: dict[str, np.ndarray], expert: np.ndarray) -> tuple[float, float]:
    """Return the share of entries in the expert's bin, and the RMSE of the bins' centres to its actions."""
    exact = float((bins == examples["target"]).mean())
    error = from_bins(bins) - expert.reshape(len(expert), -1)
    return exact, float(np.sqrt(np.mean(error**2)))


def split(recorded: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return masks of the control steps to train and to test on: disjoint episodes."""
    episodes = np.unique(recorded["episode"])
    train = np.isin(recorded["episode"], episodes[: int(TRAIN_SHARE * len(episodes))])
    return train, ~train


def main() -> None:
    """Bin, train, export, refine, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--updates", type=int, default=200, help="weight updates (default: 200)")
    arguments = parser.parse_args()
    started = time.monotonic()
    recorded = read_recorded(RECORDED)
    train, test = split(recorded)
    examples = as_slots({n: v for n, v in recorded.items() if len(v) == len(train)})
    held_out = {name: values[test] for name, values in examples.items()}
    expert = recorded["target"][test]
    with tempfile.TemporaryDirectory() as folder:
        bundle = train_head({n: v[train] for n, v in examples.items()}, Path(folder), arguments.updates)
        answers = refine_all(bundle, held_out)
    print(f"{train.sum()} control steps to train on, {test.sum()} to test; S = {held_out['y0'].shape[1]}, M = {BINS}")
    print("                in the expert's bin   RMSE to the expert")
    rows = {"draft": held_out["y0"], **{f"step {k + 1}": answer for k, answer in enumerate(answers)}}
    for name, bins in (rows | {"expert's bins": held_out["target"]}).items():
        exact, error = measure(bins, held_out, expert)
        print(f"{name:<15} {100 * exact:18.1f} %   {error:18.3f}")
    print(f"seed 0, {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
