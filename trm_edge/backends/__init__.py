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
from ..inputs import check_flag, check_int
from .host import Backend

Source = StrPath | bytes

__all__ = ["NAMES", "SUFFIXES", "Backend", "Options", "Source", "available_backends", "open_backend"]


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

    return CudaBackend(source, precision=options.precision)


def _onnxruntime(source: Source, options: Options) -> Backend:
    from .onnx_runtime import OnnxRuntimeBackend

    return _of_its_precision(OnnxRuntimeBackend(source, threads=options.threads), "graph", options)


def _tensorrt(source: Source, options: Options) -> Backend:
    from .tensorrt import TensorRtBackend

    if isinstance(source, bytes):
        raise TrmInputError("source: the tensorrt backend reads an .engine file with its manifest beside it, not bytes")
    return _of_its_precision(TensorRtBackend(source), "engine", options)


def _of_its_precision(opened: Backend, what: str, options: Options) -> Backend:
    """Return a backend whose file says its precision, if that is what is asked for."""
    if options.precision not in (None, opened.precision):
        raise TrmUnsupportedError(f"precision: this {what} runs {opened.precision}, got {options.precision!r}")
    return opened


def _reference(source: Source, options: Options) -> Backend:
    from ..bundle import read_bundle
    from .reference import ReferenceBackend, oracle

    bundle = read_bundle(source)
    return ReferenceBackend(bundle, oracle(bundle, options.precision))


def _has_cuda() -> bool:
    return not core.cuda_missing()


def _has_tensorrt() -> bool:
    from .tensorrt import missing

    return not missing()


def _has_onnxruntime() -> bool:
    return importlib.util.find_spec("onnxruntime") is not None


@dataclass(frozen=True)
class _Entry:
    """One backend: how it is opened, whether what it needs is here, and what it takes.

    ``suffix`` is that of its files, which ``trm-edge export --loop LOOP`` makes; without one it reads bundles.
    """

    open: Callable[[Source, Options], Backend]
    is_here: Callable[[], bool] = lambda: True
    takes_threads: bool = False
    suffix: str = ""
    loop: str = ""


_ENTRIES = {
    "fused": _Entry(_fused, takes_threads=True),
    "cuda": _Entry(_cuda, _has_cuda),
    "tensorrt": _Entry(_tensorrt, _has_tensorrt, suffix=".engine", loop="loop"),
    "onnxruntime": _Entry(_onnxruntime, _has_onnxruntime, takes_threads=True, suffix=".onnx", loop="step"),
    "reference": _Entry(_reference),
}
NAMES = tuple(_ENTRIES)
SUFFIXES = {name: entry.suffix for name, entry in _ENTRIES.items() if entry.suffix}
"""Of the files of backends that read something else than bundles."""


def available_backends() -> list[str]:
    """Return the names of the backends whose libraries, and GPU, are here, best first."""
    return [name for name, entry in _ENTRIES.items() if entry.is_here()]


def open_backend(source: Source, backend: str, options: Options) -> Backend:
    """Open ``source`` with the backend of that name; ``auto`` takes TRM_EDGE_BACKEND, or what the file asks for.

    ``.onnx`` files are for ``onnxruntime``, ``.engine`` files for ``tensorrt``, bundles for the others.
    """
    options = replace(options, threads=check_int("threads", options.threads), pin=check_flag("pin", options.pin))
    if options.threads < 1:
        raise TrmInputError(f"threads: expected an int >= 1, got {options.threads}")
    suffix = "" if isinstance(source, bytes) else Path(source).suffix
    owner = next((name for name, own in SUFFIXES.items() if own == suffix), "")
    name = backend
    if name == "auto":
        name = os.environ.get("TRM_EDGE_BACKEND") or owner or "fused"
    if not isinstance(name, str) or name not in _ENTRIES:
        raise TrmInputError(f"backend: expected auto, {', '.join(NAMES)}, got {name!r}")
    entry = _ENTRIES[name]
    if entry.suffix and name != owner and not isinstance(source, bytes):
        path = Path(source)
        raise TrmInputError(
            f"{path}: the {name} backend reads {entry.suffix} files; make one with "
            f"`trm-edge export {path} {path.with_suffix(entry.suffix)} --loop {entry.loop}`"
        )
    if owner and name != owner:
        raise TrmInputError(f"{os.fsdecode(source)}: {suffix} files are for backend {owner}; {name} reads .trm bundles")
    if options.threads != 1 and not entry.takes_threads:
        raise TrmUnsupportedError(f"threads: the {name} backend has one thread a session, got {options.threads}")
    if name != "fused" and (options.pin or options.park_after_us is not None):
        raise TrmUnsupportedError(f"pin, park_after_us: for the threads of backend fused, not of {name}")
    return entry.open(source, options)
