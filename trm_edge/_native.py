"""The compiled engine, or an error that says how to get it."""

from __future__ import annotations

try:
    from . import _core as core
except ImportError as error:
    raise ImportError(
        "trm_edge's compiled engine (trm_edge._core) is missing or does not load; build it with "
        f"`pip install -e .` in the source tree, or reinstall the package ({error})"
    ) from error

PRECISIONS = {None: 0, "fp32": 1, "bf16": 2, "int8": 3, "fp16": 4, "w8a16": 5}
"""``enum trm_precision`` of the C ABI; None: as the bundle was calibrated, else float32. The last two are for a GPU."""

__all__ = ["PRECISIONS", "core"]
