"""The registry of backends: the one place that names them.

A backend's own library is imported only when that backend is loaded.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from .._native import core
from ..errors import TrmInputError, TrmUnsupportedError
from ..files import StrPath
from ..inputs import check_int
from .host import Backend

Source = StrPath | bytes

__all__ = ["NAMES", "Backend", "Options", "Source", "available_backends", "open_backend"]


@dataclass(frozen=True)
class Options:
    """How a model is to be run; see :func:`trm_edge.load`."""

    precision: str | None = None
    threads: int = 1
    pin: bool = False
    park_after_us: int | None = None


def _fused(source: Source, options: Options) -> Backend:
    from .fused import FusedBackend

    return FusedBackend(
        source,
        precision=options.precision,
        threads=options.threads,
        pin=options.pin,
        park_after_us=options.park_after_us,
    )


def _cuda(source: Source, options: Options) -> Backend:
    from .fused import CudaBackend

    if options.threads != 1:
        raise TrmUnsupportedError(f"threads: the cuda backend is driven by one thread a session, got {options.threads}")
    return CudaBackend(source, precision=options.precision)


def _onnxruntime(source: Source, options: Options) -> Backend:
    from .onnx_runtime import OnnxRuntimeBackend

    opened = OnnxRuntimeBackend(source, threads=options.threads)
    if options.precision not in (None, opened.precision):
        raise TrmUnsupportedError(f"precision: this graph runs {opened.precision}, got {options.precision!r}")
    return opened


def _tensorrt(source: Source, options: Options) -> Backend:
    from .tensorrt import TensorRtBackend

    if isinstance(source, bytes):
        raise TrmInputError("source: the tensorrt backend reads an .engine file with its manifest beside it, not bytes")
    if options.threads != 1:
        raise TrmUnsupportedError(
            f"threads: the tensorrt backend is driven by one thread a session, got {options.threads}"
        )
    opened = TensorRtBackend(source)
    if options.precision not in (None, opened.precision):
        raise TrmUnsupportedError(f"precision: this engine runs {opened.precision}, got {options.precision!r}")
    return opened


def _reference(source: Source, options: Options) -> Backend:
    from ..bundle import read_bundle
    from .reference import ReferenceBackend, oracle

    if options.threads != 1:
        raise TrmUnsupportedError(f"threads: the reference backend runs one thread a session, got {options.threads}")
    bundle = read_bundle(source)
    return ReferenceBackend(bundle, oracle(bundle, options.precision))


_OPENERS: dict[str, Callable[[Source, Options], Backend]] = {
    "fused": _fused,
    "cuda": _cuda,
    "tensorrt": _tensorrt,
    "onnxruntime": _onnxruntime,
    "reference": _reference,
}
_NEEDS = {"onnxruntime": "onnxruntime"}
_FILES = {"onnxruntime": (".onnx", "step"), "tensorrt": (".engine", "loop")}  # what backends read that read no bundles

NAMES = tuple(_OPENERS)


def available_backends() -> list[str]:
    """Return the names of the backends whose libraries, and GPU, are here, best first."""
    return [name for name in NAMES if _is_here(name)]


def _is_here(name: str) -> bool:
    if name == "cuda":
        return not core.cuda_missing()
    if name == "tensorrt":
        from .tensorrt import missing

        return not missing()
    return name not in _NEEDS or importlib.util.find_spec(_NEEDS[name]) is not None


def open_backend(source: Source, backend: str, options: Options) -> Backend:
    """Open ``source`` with the backend of that name; ``auto`` takes TRM_EDGE_BACKEND, or what the file asks for.

    ``.onnx`` files are for ``onnxruntime``, ``.engine`` files for ``tensorrt``, bundles for the others.
    """
    options = replace(options, threads=check_int("threads", options.threads))
    if options.threads < 1:
        raise TrmInputError(f"threads: expected an int >= 1, got {options.threads}")
    suffix = "" if isinstance(source, bytes) else Path(source).suffix
    owner = next((name for name, (own, _) in _FILES.items() if own == suffix), "")
    name = backend
    if name == "auto":
        name = os.environ.get("TRM_EDGE_BACKEND") or owner or "fused"
    if not isinstance(name, str) or name not in _OPENERS:
        raise TrmInputError(f"backend: expected auto, {', '.join(NAMES)}, got {name!r}")
    if name in _FILES and name != owner and not isinstance(source, bytes):
        path, (own, loop) = Path(source), _FILES[name]
        raise TrmInputError(
            f"{path}: the {name} backend reads {own} files; make one with "
            f"`trm-edge export {path} {path.with_suffix(own)} --loop {loop}`"
        )
    if owner and name != owner:
        raise TrmInputError(f"{os.fsdecode(source)}: {suffix} files are for backend {owner}; {name} reads .trm bundles")
    if name != "fused" and (options.pin or options.park_after_us is not None):
        raise TrmUnsupportedError(f"pin, park_after_us: for the threads of backend fused, not of {name}")
    return _OPENERS[name](source, options)
