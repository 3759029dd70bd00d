"""Every way to run a bundle: each backend, and the fused engine on each instruction set of this machine."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from models import make_spec, random_weights

import trm_edge
from trm_edge._native import core
from trm_edge.bundle import Bundle, bundle_bytes
from trm_edge.golden import random_inputs

ISAS = core.supported_isas().split(",")
GPU = [] if core.cuda_missing() else ["cuda-plain"]  # the way that runs every model, in float32
STEPPING = [*(f"fused-{isa}" for isa in ISAS), *GPU, "onnxruntime-step", "reference"]
"""Runners that offer ``begin`` and ``step``."""

RUNNERS = [*STEPPING, "onnxruntime-loop"]
_CHOSEN_BY = {"fused": "TRM_EDGE_ISA", "cuda": "TRM_EDGE_CUDA_WAY"}
FLOAT32 = [name for name in RUNNERS if name != "reference"]

Open = Callable[[str, Bundle], trm_edge.Refiner]
"""Type of the fixture ``open_refiner``."""


@functools.lru_cache(maxsize=64)
def _bundle(kind: str, mixer: str, seed: int, gentle: float, changes: tuple[tuple[str, Any], ...]) -> Bundle:
    spec = make_spec(kind, mixer, **dict(changes))
    return Bundle(spec, random_weights(spec, seed, gentle))


def plain_bundle(kind: str, mixer: str = "rope", *, seed: int = 0, gentle: float = 0.3, **changes: Any) -> Bundle:
    """Return a bundle without golden cases; the same one for the same arguments."""
    return _bundle(kind, mixer, seed, gentle, tuple(sorted(changes.items())))


BUNDLE = plain_bundle("actions")
CALL = random_inputs(BUNDLE.spec, np.random.default_rng(0))


def answer(any_refiner: trm_edge.Refiner, call: dict[str, Any] = CALL, **options: Any) -> bytes:
    return any_refiner.refine(**call, **options).y.tobytes()


def open_runner(name: str, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> trm_edge.Refiner:
    """Load ``bundle`` with the runner of that name, and prove that it is the one."""
    backend, _, rest = name.partition("-")
    if backend == "onnxruntime":
        pytest.importorskip("onnxruntime")
        pytest.importorskip("onnx")
        from trm_edge.export import build_onnx

        graph = build_onnx(bundle, {"step": "step", "loop": "onnx-loop"}[rest]).SerializeToString()
        refiner = trm_edge.load(graph, backend="onnxruntime")
    elif backend in _CHOSEN_BY:
        monkeypatch.setenv(_CHOSEN_BY[backend], rest)
        refiner = trm_edge.load(bundle_bytes(bundle), backend=backend)
        monkeypatch.delenv(_CHOSEN_BY[backend])
        assert refiner.isa is not None and refiner.isa.split()[-1] == rest
    else:
        refiner = trm_edge.load(bundle_bytes(bundle), backend=backend)
    assert refiner.backend == backend
    return refiner
