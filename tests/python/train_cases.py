"""Tiny problems that a head learns in seconds, one for each kind, as configurations and data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

_SMALL: dict[str, Any] = {"hidden_size": 32, "inner_size": 64, "l_cycles": 1, "h_cycles": 1, "registers": 1}
_ATTENTION = {"mixer": "attention", "num_heads": 2, "positions": "rope", "num_layers": 1}
SPECS: dict[str, dict[str, Any]] = {
    "tokens": {
        **_SMALL,
        **{"answer": "tokens", "answer_rows": 6, "vocab_size": 10, "num_puzzles": 1, "puzzle_size": 32},
        **{"mixer": "mlp_t", "token_inner_size": 32},
    },
    "actions": {
        **_SMALL,
        **_ATTENTION,
        **{"answer": "actions", "answer_rows": 4, "dof": 2, "max_context": 3, "context_size": 2, "feature_size": 2},
    },
    "slots": {
        **_SMALL,
        **_ATTENTION,
        **{"answer": "slots", "answer_rows": 3, "max_context": 2, "context_size": 4, "slot_size": 4},
        **{"candidate_size": 4, "max_candidates": 5},
    },
}
TRAIN = {"steps": 2, "batch_size": 32, "max_updates": 300, "learning_rate": 4e-3, "warmup_updates": 20, "ema": 0.98}
TRAIN |= {"eval_steps": 4, "eval_every": 100, "checkpoint_every": 100, "log_every": 20}


def make_config(kind: str, folder: Path, examples: int = 1000, **tables: dict[str, Any]) -> dict[str, Any]:
    """Write the data of problem ``kind`` to ``folder`` and return its configuration; ``tables`` override fields."""
    np.savez(folder / f"{kind}.npz", **MAKERS[kind](examples, np.random.default_rng(1)))
    config = {
        "spec": SPECS[kind],
        "data": {"train": str(folder / f"{kind}.npz"), "validation_share": 0.2},
        "train": TRAIN,
        "loss": {},
    }
    for name, changes in tables.items():
        config[name] = config.get(name, {}) | changes
    return config


def as_toml(config: dict[str, Any]) -> str:
    """Return the configuration as the text of a TOML file."""

    def value(item: Any) -> str:
        if isinstance(item, bool):
            return str(item).lower()
        return f'"{item}"' if isinstance(item, str) else str(item)

    return "\n".join(
        line
        for name, table in config.items()
        for line in (f"[{name}]", *(f"{k} = {value(v)}" for k, v in table.items()))
    )


def _reversal(n: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Digits, to be written backwards; the first example ignores its last digit."""
    x = rng.integers(0, 10, (n, 6)).astype(np.int32)
    target = x[:, ::-1].copy()
    target[0, -1] = -100
    return {"x": x, "target": target}


def _offset(n: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Move a chunk by the offset that the first context row holds; later rows are padding in half the examples."""
    x = rng.standard_normal((n, 3, 2)).astype(np.float32)
    y0 = rng.standard_normal((n, 4, 2)).astype(np.float32)
    target = y0 + x[:, :1]
    x_len = np.where(np.arange(n) % 2, 1, 3).astype(np.int32)
    x[x_len == 1, 1:] = np.nan
    return {"x": x, "x_len": x_len, "y0": y0, "target": target, "features": y0 * 0}


def _matching(n: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Find the candidate that equals a slot's features; the last slot of half the examples is padding."""
    candidates = rng.standard_normal((n, 5, 4)).astype(np.float32)
    candidates /= np.linalg.norm(candidates, axis=-1, keepdims=True)  # scores are linear in them
    target = rng.integers(0, 5, (n, 3)).astype(np.int32)
    slots = np.take_along_axis(candidates, target[..., None].astype(np.int64), 1)
    mask = rng.random((n, 3, 5)) < 0.6
    np.put_along_axis(mask, target[..., None].astype(np.int64), True, 2)
    s_len = np.where(np.arange(n) % 2, 2, 3).astype(np.int32)
    mask[s_len == 2, 2], target[s_len == 2, 2] = False, -1
    return {
        **{"x": rng.standard_normal((n, 2, 4)).astype(np.float32), "slots": slots, "candidates": candidates},
        **{"mask": mask, "target": target, "s_len": s_len},
    }


MAKERS = {"tokens": _reversal, "actions": _offset, "slots": _matching}


def nearest_target(y_hat: Any, batch: Any) -> Any:
    """Compute features from the current answer, for the test of the hook between steps."""
    return batch["y0"] - y_hat


def noisy_features(y_hat: Any, batch: Any) -> Any:
    """Draw from the global generator at every call, which a resumed run has to find as it was."""
    return batch["y0"] - y_hat + 0.01 * y_hat.new_empty(y_hat.shape).normal_()


def bad_features(y_hat: Any, batch: Any) -> Any:
    """Return features of a shape that no head of the problem takes."""
    return y_hat[:, :1]


def not_finite(y_hat: Any, batch: Any) -> Any:
    """Return features with a NaN."""
    return batch["y0"] * float("nan")


def fewer(batch: dict[str, np.ndarray], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Return some of the examples."""
    return {name: array[:5] for name, array in batch.items()}


def flip_signs(batch: dict[str, np.ndarray], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Negate some examples of the problem ``actions``, which stays the same problem."""
    sign = np.where(rng.random(len(batch["x"])) < 0.5, -1, 1).astype(np.float32)[:, None, None]
    return batch | {name: batch[name] * sign for name in ("x", "y0", "target")}


def bad_augment(batch: dict[str, np.ndarray], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Return what no head can take."""
    return batch | {"x": batch["x"].astype(np.float64)}


def one_argument(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Take less than a hook is given."""
    return batch


def wrong_inside(*_: Any) -> Any:
    """Raise a TypeError in a line of its own."""
    return len(3)  # type: ignore[arg-type]


def nothing(*_: Any) -> None:
    """Return None, as a hook does that changes its arguments and forgets to return them."""


def lists(batch: dict[str, np.ndarray], rng: np.random.Generator) -> dict[str, list[Any]]:
    """Return lists instead of arrays."""
    return {name: array.tolist() for name, array in batch.items()}
