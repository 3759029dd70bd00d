"""Fixtures that several test files share."""

from __future__ import annotations

import os

# The matrices are tiny: BLAS threads that wait for each other cost more than they bring. Read when NumPy is imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from runners import BUNDLE, Open, open_runner

from trm_edge.bundle import write_bundle

settings.register_profile("trm_edge", deadline=None, derandomize=True)
settings.load_profile("trm_edge")


@pytest.fixture
def top() -> Path:
    """Return the root of the source tree."""
    return Path(__file__).parents[2]


@pytest.fixture
def function_call(monkeypatch: pytest.MonkeyPatch, top: Path) -> Iterator[None]:
    """Let a test import the benchmarks' package ``function_call``, and forget it afterwards."""
    monkeypatch.syspath_prepend(str(top / "benchmarks"))
    yield
    for name in [n for n in sys.modules if n.split(".")[0] == "function_call"]:
        del sys.modules[name]


@pytest.fixture
def open_refiner(monkeypatch: pytest.MonkeyPatch) -> Open:
    """Return a function that loads a bundle with a runner of ``runners.RUNNERS``."""
    monkeypatch.delenv("TRM_EDGE_BACKEND", raising=False)
    return lambda name, bundle: open_runner(name, bundle, monkeypatch)


@pytest.fixture
def no_overrides(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget what the environment says of backends and instruction sets."""
    for name in ("TRM_EDGE_BACKEND", "TRM_EDGE_ISA", "TRM_EDGE_CUDA_WAY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return the file of ``runners.BUNDLE``."""
    write_bundle(tmp_path / "head.trm", BUNDLE)
    return tmp_path / "head.trm"
