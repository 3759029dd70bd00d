"""The registry of backends: the one place that names them.

A backend's own library is imported only when that backend is loaded.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from pathlib import Path

from ..errors import TrmInputError, TrmUnsupportedError
from .host import Answer, Backend

Source = str | os.PathLike[str] | bytes

__all__ = ["NAMES", "Answer", "Backend", "Source", "available_backends", "open_backend"]


def _fused(source: Source, threads: int) -> Backend:
    from .fused import FusedBackend

    _require_one_thread("fused", threads)
    return FusedBackend(source)


def _onnxruntime(source: Source, threads: int) -> Backend:
    from .onnx_runtime import OnnxRuntimeBackend

    return OnnxRuntimeBackend(source, threads=threads)


def _reference(source: Source, threads: int) -> Backend:
    from ..bundle import read_bundle
    from .reference import ReferenceBackend

    _require_one_thread("reference", threads)
    return ReferenceBackend(read_bundle(source))


def _require_one_thread(backend: str, threads: int) -> None:
    if threads != 1:
        raise TrmUnsupportedError(f"threads: the {backend} backend runs one thread a session, got {threads}")


_OPENERS: dict[str, Callable[[Source, int], Backend]] = {
    "fused": _fused,
    "onnxruntime": _onnxruntime,
    "reference": _reference,
}
_NEEDS = {"onnxruntime": "onnxruntime"}

NAMES = tuple(_OPENERS)


def available_backends() -> list[str]:
    """Return the names of the backends whose libraries are installed here, best first."""
    return [name for name in NAMES if name not in _NEEDS or importlib.util.find_spec(_NEEDS[name])]


def open_backend(source: Source, backend: str, threads: int) -> Backend:
    """Open ``source`` with the backend of that name; ``auto`` takes TRM_EDGE_BACKEND, or what the file asks for.

    ``.onnx`` files are for ``onnxruntime``, bundles for the others.
    """
    if not isinstance(threads, int) or threads < 1:
        raise TrmInputError(f"threads: expected an int >= 1, got {threads!r}")
    name = backend
    if name == "auto":
        name = os.environ.get("TRM_EDGE_BACKEND") or ("onnxruntime" if _is_onnx(source) else "fused")
    if not isinstance(name, str) or name not in _OPENERS:
        raise TrmInputError(f"backend: expected auto, {', '.join(NAMES)}, got {name!r}")
    if name == "onnxruntime" and not isinstance(source, bytes) and not _is_onnx(source):
        path = Path(source)
        raise TrmInputError(
            f"{path}: the onnxruntime backend reads .onnx graphs; make one with "
            f"`trm-edge export {path} {path.with_suffix('.onnx')} --loop step`"
        )
    if name != "onnxruntime" and _is_onnx(source):
        raise TrmInputError(f"{source!r}: backend {name} reads .trm bundles, not ONNX graphs")
    return _OPENERS[name](source, threads)


def _is_onnx(source: Source) -> bool:
    return not isinstance(source, bytes) and Path(source).suffix == ".onnx"
