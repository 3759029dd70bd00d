"""``trm_edge.refine``: what it takes, and the models that it keeps."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from runners import CALL, answer, plain_bundle

import trm_edge
from trm_edge import (
    Refiner,
    TrmBundleError,
    TrmIOError,
    refiner,
)
from trm_edge.bundle import bundle_bytes, write_bundle

pytestmark = pytest.mark.usefixtures("no_overrides")


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Return the list of sources that ``trm_edge.refine`` loads from here on."""
    seen: list[Any] = []
    original = refiner.load

    def load(source: Any, **options: Any) -> Refiner:
        seen.append(source)
        return original(source, **options)

    monkeypatch.setattr(refiner, "load", load)
    return seen


def test_refine_takes_what_a_refiner_takes(path: Path) -> None:
    options = {"halt": 0.0, "trajectory": True, "last_action": np.zeros(3, np.float32)}
    expected = trm_edge.load(path).refine(**CALL, **options)
    out = trm_edge.refine(CALL["x"], CALL["y0"], 4, model=path, backend="fused", precision="fp32", **options)
    assert (out.status, out.y.tobytes()) == (expected.status, expected.y.tobytes())
    with pytest.raises(TypeError, match="model"):
        trm_edge.refine(**CALL)
    with pytest.raises(TypeError, match="bogus"):
        trm_edge.refine(**CALL, model=path, bogus=1)


def test_refine_loads_a_model_once(path: Path, loads: list[Any]) -> None:
    answers = {trm_edge.refine(**CALL, model=model).y.tobytes() for model in [path, str(path), path, path]}
    assert len(answers) == 1 and len(loads) == 1


def test_refine_loads_bytes_once(path: Path, loads: list[Any]) -> None:
    data = bundle_bytes(plain_bundle("actions", seed=77))
    for _ in range(3):
        trm_edge.refine(**CALL, model=bytes(bytearray(data)))
    assert len(loads) == 1


def test_refine_tells_options_apart(path: Path, loads: list[Any]) -> None:
    for backend in ("fused", "reference", "fused", "auto"):
        trm_edge.refine(**CALL, model=path, backend=backend)
    assert len(loads) == 3
    trm_edge.refine(**CALL, model=path, precision="int8")
    assert len(loads) == 4


def test_refine_loads_a_changed_file_again(path: Path, loads: list[Any]) -> None:
    before = trm_edge.refine(**CALL, model=path).y.tobytes()
    write_bundle(path, plain_bundle("actions", seed=5))  # of the same size
    after = trm_edge.refine(**CALL, model=path).y.tobytes()
    assert before != after == answer(trm_edge.load(path))
    path.unlink()
    with pytest.raises(TrmIOError):
        trm_edge.refine(**CALL, model=path)


def test_refine_keeps_a_few_models(tmp_path: Path, loads: list[Any]) -> None:
    paths = [tmp_path / f"{seed}.trm" for seed in range(6)]
    for seed, each in enumerate(paths):
        write_bundle(each, plain_bundle("actions", seed=seed))
        trm_edge.refine(**CALL, model=each)
    assert len(loads) == 6
    trm_edge.refine(**CALL, model=paths[-1])
    assert len(loads) == 6, "the newest is kept"
    trm_edge.refine(**CALL, model=paths[0])
    assert len(loads) == 7, "the oldest is not"


def test_refine_gives_each_thread_a_session_of_one_model(path: Path, loads: list[Any]) -> None:
    expected = trm_edge.refine(**CALL, model=path).y.tobytes()
    start = threading.Barrier(4)

    def work(_: int) -> set[bytes]:
        start.wait(timeout=30)
        return {trm_edge.refine(**CALL, model=path).y.tobytes() for _ in range(50)}

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(work, range(4))) == [{expected}] * 4
    assert len(loads) == 1


def test_a_model_that_loads_slowly_holds_up_nobody_else(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other.trm"
    write_bundle(other, plain_bundle("actions", seed=9))
    original, begun, go_on, loaded = refiner.load, threading.Event(), threading.Event(), []

    def load(source: Any, **options: Any) -> Refiner:
        loaded.append(source)
        if source == path:
            begun.set()
            assert go_on.wait(timeout=30)
        return original(source, **options)

    monkeypatch.setattr(refiner, "load", load)
    with ThreadPoolExecutor(2) as pool:
        slow = [pool.submit(trm_edge.refine, **CALL, model=path) for _ in range(2)]
        assert begun.wait(timeout=30)
        trm_edge.refine(**CALL, model=other)
        assert not any(one.done() for one in slow)
        go_on.set()
        assert {one.result().y.tobytes() for one in slow} == {answer(original(path))}
    assert loaded == [path, other], "who waits for a model does not load it again"


def test_a_model_that_does_not_load_drops_no_other(path: Path, tmp_path: Path, loads: list[Any]) -> None:
    trm_edge.refine(**CALL, model=path)
    for number in range(6):
        broken = tmp_path / f"{number}.trm"
        broken.write_bytes(b"no")
        with pytest.raises(TrmBundleError):
            trm_edge.refine(**CALL, model=broken)
    with ThreadPoolExecutor(1) as pool:  # a thread that has no session of its own yet
        pool.submit(trm_edge.refine, **CALL, model=path).result()
    assert loads.count(path) == 1
