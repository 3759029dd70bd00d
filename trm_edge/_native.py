"""The compiled engine, or an error that says how to get it."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path


def _why(error: ImportError) -> str:
    """Return what is wrong, and what to do about it."""
    here = Path(__file__).parent
    if any(here.glob("_core*.so")):
        return f"is there and does not load: {error}"
    if (here.parent / "CMakeLists.txt").is_file():
        return (
            f"is not in the source tree {here.parent}, which is what was imported: run `pip install -e .` there, or, "
            f"where the package is installed, start Python in another folder ({error})"
        )
    return f"is missing: install the package again ({error})"


def _check_interpreter() -> None:
    """Raise where importing the engine would hang: in a sub-interpreter, before Python 3.12."""
    if sys.version_info >= (3, 12):
        return
    try:
        interpreters = import_module("_xxsubinterpreters")
    except ImportError:  # then none can be made either
        return
    if interpreters.get_current() != interpreters.get_main():
        raise ImportError("trm_edge: runs in the main interpreter of a process, and this is a sub-interpreter")


_check_interpreter()
try:
    from . import _core as core
except ImportError as error:
    raise ImportError(f"trm_edge's compiled engine (trm_edge._core) {_why(error)}") from error

PRECISIONS = {None: 0, "fp32": 1, "bf16": 2, "int8": 3, "fp16": 4, "w8a16": 5}
"""``enum trm_precision`` of the C ABI; None: as the bundle was calibrated, else float32. The last two are for a GPU."""

__all__ = ["PRECISIONS", "core"]
