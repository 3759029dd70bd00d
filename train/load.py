"""Training examples from files: one ``.npz``, or a folder of ``.safetensors`` shards that are joined along N."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from trm_edge.errors import TrmInputError
from trm_edge.extras import import_extra
from trm_edge.files import read_npz
from trm_edge.spec import TrmSpec

from .data import Arrays, Examples, check_arrays
from .packed import check_packed, is_packed


def load_examples(path: Path, spec: TrmSpec) -> Examples:
    """Read ``path`` and check it, or raise :class:`TrmInputError` that names file, array and example."""
    if path.is_dir():
        arrays = _read_shards(path)
    elif path.suffix == ".npz":
        arrays = read_npz(path)
    else:
        raise TrmInputError(f"{path}: expected an .npz file or a folder of .safetensors shards, and found neither")
    try:
        if spec.answer == "slots" and is_packed(arrays):
            return check_packed(spec, arrays)
        return Examples(spec, check_arrays(spec, arrays))
    except TrmInputError as error:
        raise TrmInputError(f"{path}: {error}") from None


def _read_shards(folder: Path) -> Arrays:
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
