"""Everything that a run needs to go on: one file, written atomically, read without running code."""

from __future__ import annotations

import io
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch

from trm_edge.errors import TrmBundleError, TrmInputError
from trm_edge.export.checkpoint import read_torch
from trm_edge.files import write_atomically

FORMAT = "trm_edge.training_state"
VERSION = 3


def write_state(path: Path, state: dict[str, Any]) -> None:
    """Write ``state`` (tensors and plain containers), with the states of all random generators."""
    stream = io.BytesIO()
    torch.save({"format": FORMAT, "version": VERSION, "random": _random_states(), **state}, stream)
    write_atomically(path, stream.getvalue())


def read_state(path: Path) -> dict[str, Any]:
    """Read a state, or raise :class:`TrmBundleError`; the random generators are left alone."""
    content, _ = read_torch(path)
    if not isinstance(content, dict) or content.get("format") != FORMAT or content.get("version") != VERSION:
        raise TrmBundleError(f"{path}: not a training state of version {VERSION}, which this release reads")
    return content


def restore_random(states: dict[str, Any]) -> None:
    """Set torch's, NumPy's and Python's global generators."""
    torch.set_rng_state(states["torch"])
    name, keys, *rest = states["numpy"]
    np.random.set_state((name, np.asarray(keys, np.uint32), *rest))
    version, values, gauss = states["python"]
    random.setstate((version, tuple(values), gauss))


def seed_everything(seed: int) -> None:
    """Seed torch's, NumPy's and Python's global generators, for weights and for hooks that use them."""
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)


def check_same_run(stored: dict[str, Any], now: dict[str, Any]) -> None:
    """Raise :class:`TrmInputError` where a configuration differs in what could change the result.

    How long to go on may differ, but for the end of a cosine schedule, which all its rates depend on; so may how often
    to save, and where the examples are, whose digest is compared.
    """
    free = {("train", "max_seconds"), ("train", "checkpoint_every"), ("data", "train"), ("data", "validation")}
    if now["train"]["schedule"] == "constant":
        free.add(("train", "max_updates"))
    for table, fields in now.items():
        for name, value in fields.items():
            before = stored[table].get(name)
            if before != value and (table, name) not in free:
                raise TrmInputError(
                    f"{table}.{name}: the run to resume was started with {before!r}, now it is {value!r}; "
                    "take the old value, or start anew in another folder with --out"
                )


def _random_states() -> dict[str, Any]:
    name, keys, *rest = np.random.get_state()
    version, values, gauss = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "numpy": [name, np.asarray(keys).tolist(), *rest],
        "python": [version, list(values), gauss],
    }
