"""Recorded examples in files: one ``.npz``, or a folder of ``.safetensors`` shards that are joined along N.

The arrays are those of :mod:`trm_edge.train.data` (padded) or :mod:`trm_edge.train.packed`; this is what training and
calibration both know of them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from .errors import TrmInputError
from .extras import import_extra
from .files import StrPath, read_npz
from .inputs import Array

PARTS: dict[str, dict[str, int]] = {
    "x": {"x": 0},
    "s": {"slots": 0, "mask": 0, "y0": 0, "target": 0, "required": 0},
    "m": {"candidates": 0, "mask": 1, "omit": 0, "right": 0},
}
"""Array and axis of one example that ``<part>_len`` counts: context rows, slots, candidates."""

IGNORED = {"slots": -1, "tokens": -100}
"""Target of an entry that nothing is asked of."""

PACKED: dict[str, str] = {
    **{"x": "x", "slots": "s", "target": "s", "y0": "s"},
    **{"candidates": "m", "slot_of": "m", "omit": "m", "right": "m"},
}
"""Part whose rows an array has, where those of all examples stand one after another."""


def is_packed(arrays: Mapping[str, Array]) -> bool:
    """Whether arrays of slots are meant as packed."""
    return "slot_of" in arrays or ("x" in arrays and "x_len" in arrays and arrays["x"].ndim == 2)


def read_arrays(path: StrPath) -> dict[str, Array]:
    """Return the arrays of ``path``, unchecked.

    Raises :class:`TrmInputError` or :class:`TrmIOError`, whose message names the file.
    """
    place = Path(path)
    if place.is_dir():
        return _read_shards(place)
    if place.suffix == ".npz":
        return read_npz(place)
    raise TrmInputError(
        f"{os.fspath(path)}: expected an .npz file or a folder of .safetensors shards, and found neither"
    )


def _read_shards(folder: Path) -> dict[str, Array]:
    load = import_extra("safetensors.numpy", "reading .safetensors shards", "train").load_file
    paths = sorted(folder.glob("*.safetensors"))
    if not paths:
        raise TrmInputError(f"{folder}: holds no .safetensors shard")
    shards = []
    for path in paths:
        try:
            shards.append(load(path))
        except Exception as error:  # safetensors has an exception type of its own, and raises OSError too
            raise TrmInputError(f"{path}: not a readable shard: {error}") from None
        if set(shards[-1]) != set(shards[0]):
            raise TrmInputError(f"{path}: expected the arrays of {paths[0].name}, got {sorted(shards[-1])}")
    try:
        return {name: np.concatenate([shard[name] for shard in shards]) for name in shards[0]}
    except ValueError as error:
        raise TrmInputError(f"{folder}: shards do not fit together: {error}") from None
