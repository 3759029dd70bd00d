"""The refiner as an object: loading, cloning, threads, fork, pickling."""

from __future__ import annotations

import contextlib
import os
import pickle
import re
import select
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from runners import BUNDLE, CALL, FLOAT32, RUNNERS, STEPPING, answer, plain_bundle

import trm_edge
from trm_edge import (
    Refiner,
    Status,
    TrmBundleError,
    TrmBusyError,
    TrmError,
    TrmInputError,
    TrmIOError,
    TrmUnsupportedError,
)
from trm_edge._native import core
from trm_edge.bundle import Bundle, bundle_bytes
from trm_edge.golden import random_inputs

Open = Callable[[str, Bundle], Refiner]

pytestmark = pytest.mark.usefixtures("no_overrides")


# ---- Loading ---------------------------------------------------------------------------------------------------------


def test_a_path_its_text_and_its_bytes_load_the_same_model(path: Path) -> None:
    answers = {answer(trm_edge.load(source)) for source in (path, str(path), path.read_bytes())}
    assert len(answers) == 1


def test_a_refiner_says_what_it_is(path: Path) -> None:
    loaded = trm_edge.load(path)
    assert (loaded.backend, loaded.precision, loaded.spec) == ("fused", "fp32", BUNDLE.spec)
    assert loaded.isa in core.supported_isas().split(",")
    assert str(path) in repr(loaded) and "actions" in repr(loaded) and "fused" in repr(loaded)
    assert f"{path.stat().st_size} bytes" in repr(trm_edge.load(path.read_bytes()))
    oracle = trm_edge.load(path, backend="reference")
    assert (oracle.backend, oracle.precision, oracle.isa) == ("reference", "fp64", None)


@pytest.mark.parametrize("backend", ["fused", "reference", "onnxruntime"])
def test_a_missing_file_is_an_io_error_that_names_it(backend: str, tmp_path: Path) -> None:
    missing = tmp_path / ("missing.onnx" if backend == "onnxruntime" else "missing.trm")
    with pytest.raises(TrmIOError, match=re.escape(missing.name)) as caught:
        trm_edge.load(missing, backend=backend)
    assert isinstance(caught.value, OSError) and caught.value.status == Status.IO_ERROR


@pytest.mark.parametrize("backend", ["fused", "reference"])
def test_a_directory_an_empty_and_a_foreign_file_are_refused(backend: str, tmp_path: Path) -> None:
    with pytest.raises(TrmIOError, match=re.escape(tmp_path.name)):
        trm_edge.load(tmp_path, backend=backend)
    for name, content in (("empty.trm", b""), ("short.trm", b"1234567"), ("text.trm", b"not a bundle at all")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(TrmBundleError, match=re.escape(name)) as caught:
            trm_edge.load(tmp_path / name, backend=backend)
        assert caught.value.status == Status.INVALID_BUNDLE
        with pytest.raises(TrmBundleError):
            trm_edge.load(content, backend=backend)


@pytest.mark.parametrize("backend", ["fused", "reference"])
def test_a_name_that_is_no_text_loads(backend: str, path: Path) -> None:
    strange = Path(os.fsdecode(os.fsencode(path.parent) + b"/\xff\xfe h\xc3\xa9ad.trm"))
    path.rename(strange)
    assert trm_edge.load(strange, backend=backend).spec == BUNDLE.spec


def test_a_name_with_a_null_is_refused_and_not_cut_there(path: Path) -> None:
    for use in (trm_edge.load, lambda source: trm_edge.refine(**CALL, model=source)):
        with pytest.raises(TrmInputError, match="null"):
            use(f"{path}\0.old")


@pytest.mark.parametrize("source", [None, 3, ["head.trm"], bytearray(b"x"), object()])
def test_a_source_that_is_no_path_is_refused(source: Any) -> None:
    with pytest.raises(TrmInputError, match=r"source: expected a path or bytes"):
        trm_edge.load(source)
    with pytest.raises(TrmInputError, match=r"model: expected a path or bytes"):
        trm_edge.refine(**CALL, model=source)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"backend": "gpu"}, TrmInputError, ("backend", "fused", "reference", "'gpu'")),
        ({"backend": ""}, TrmInputError, ("backend", "''")),
        ({"backend": None}, TrmInputError, ("backend", "None")),
        ({"backend": ["fused"]}, TrmInputError, ("backend", "fused")),
        ({"precision": "int4"}, TrmInputError, ("precision", "'fp32'", "'bf16'", "'int8'", "'fp16'", "'int4'")),
        ({"precision": "fp16"}, TrmUnsupportedError, ("precision: fp16 is for backend cuda", "fp32, bf16 and int8")),
        ({"precision": "w8a16"}, TrmUnsupportedError, ("precision: w8a16 is for backend cuda", "fp32, bf16 and int8")),
        ({"precision": "fp64"}, TrmUnsupportedError, ("precision: fp64 is for backend reference",)),
        ({"precision": "int4", "backend": "reference"}, TrmUnsupportedError, ("precision", "int8", "'int4'")),
        ({"precision": "fp32", "backend": "reference"}, TrmUnsupportedError, ("precision", "fp64", "'fp32'")),
        ({"precision": 32}, TrmInputError, ("precision", "32")),
        ({"threads": 65}, TrmInputError, ("threads", "1..64", "65")),
        ({"park_after_us": -1}, TrmInputError, ("park_after_us", "-1")),
        ({"park_after_us": "1"}, TrmInputError, ("park_after_us", "'1'")),
        ({"pin": True, "backend": "reference"}, TrmUnsupportedError, ("pin", "fused", "reference")),
        ({"threads": 2, "backend": "reference"}, TrmUnsupportedError, ("threads", "2")),
        ({"threads": 0}, TrmInputError, ("threads", "0")),
        ({"threads": -1}, TrmInputError, ("threads", "-1")),
        ({"threads": 1.0}, TrmInputError, ("threads", "1.0")),
        ({"threads": "1"}, TrmInputError, ("threads", "'1'")),
        ({"threads": None}, TrmInputError, ("threads", "None")),
        ({"threads": True}, TrmInputError, ("threads", "an int", "True")),
        ({"park_after_us": True}, TrmInputError, ("park_after_us", "an int", "True")),
        ({"backend": "onnxruntime"}, TrmInputError, ("head.trm", "trm-edge export", "--loop step")),
    ],
)
def test_a_wrong_option_is_refused_by_name(
    options: dict[str, Any], error: type[TrmError], words: tuple[str, ...], path: Path
) -> None:
    with pytest.raises(error) as caught:
        trm_edge.load(path, **options)
    for word in words:
        assert word in str(caught.value)


def test_options_may_be_integers_of_numpy(path: Path) -> None:
    refiner = trm_edge.load(path, threads=np.int64(2), park_after_us=np.int32(0))  # type: ignore[arg-type]
    assert answer(pickle.loads(pickle.dumps(refiner))) == answer(refiner)


def test_own_precision_may_be_named(path: Path) -> None:
    assert trm_edge.load(path, precision="fp32").precision == "fp32"
    assert trm_edge.load(path, backend="reference", precision="fp64").precision == "fp64"


def test_a_graph_given_to_another_backend_is_refused(tmp_path: Path) -> None:
    for backend in ("fused", "reference"):
        with pytest.raises(TrmInputError, match=r"graph\.onnx.*\.trm"):
            trm_edge.load(tmp_path / "graph.onnx", backend=backend)


def test_the_environment_picks_the_backend_that_auto_means(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRM_EDGE_BACKEND", "reference")
    assert trm_edge.load(path).backend == "reference"
    assert trm_edge.load(path, backend="fused").backend == "fused"
    monkeypatch.setenv("TRM_EDGE_BACKEND", "")
    assert trm_edge.load(path).backend == "fused"
    monkeypatch.setenv("TRM_EDGE_BACKEND", "gpu")
    with pytest.raises(TrmInputError, match="'gpu'"):
        trm_edge.load(path)


def test_an_unknown_instruction_set_says_which_there_are(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRM_EDGE_ISA", "mmx")
    with pytest.raises(TrmUnsupportedError, match="TRM_EDGE_ISA=mmx") as caught:
        trm_edge.load(path)
    for isa in core.supported_isas().split(","):
        assert isa in str(caught.value)


def test_the_best_instruction_set_is_the_default(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert trm_edge.load(path).isa == core.supported_isas().split(",")[0]
    monkeypatch.setenv("TRM_EDGE_ISA", "")
    assert trm_edge.load(path).isa == core.supported_isas().split(",")[0]


# ---- Clones, threads, fork, pickle -----------------------------------------------------------------------------------


@pytest.mark.parametrize("runner", STEPPING)
def test_stepping_a_clone_disturbs_nobody(runner: str, open_refiner: Open) -> None:
    one = open_refiner(runner, BUNDLE)
    other_call = random_inputs(BUNDLE.spec, np.random.default_rng(1))
    one.begin(**CALL)
    alone = [one.step().y.tobytes() for _ in range(3)]
    one.begin(**other_call)
    other_alone = [one.step().y.tobytes() for _ in range(3)]
    assert alone != other_alone
    one.begin(**CALL)
    other = one.clone()
    other.begin(**other_call)
    for first, second in zip(alone, other_alone, strict=True):
        assert one.step().y.tobytes() == first
        assert other.step().y.tobytes() == second
    assert (other.backend, other.precision, other.isa, other.spec) == (one.backend, one.precision, one.isa, one.spec)


@pytest.mark.parametrize("runner", STEPPING)
def test_a_clone_has_not_begun_and_outlives_its_origin(runner: str, open_refiner: Open) -> None:
    one = open_refiner(runner, BUNDLE)
    expected = answer(one)
    one.begin(**CALL)
    other = one.clone()
    with pytest.raises(trm_edge.TrmNotBegunError):
        other.step()
    del one
    assert answer(other) == expected


@pytest.mark.parametrize("runner", RUNNERS)
def test_a_closed_refiner_says_so_and_leaves_its_clones(runner: str, open_refiner: Open) -> None:
    one = open_refiner(runner, BUNDLE).clone()
    expected = answer(one)
    other = one.clone()
    with one as entered:
        assert entered is one
        if runner in STEPPING:
            one.begin(**CALL)
    uses: list[Callable[[], object]] = [
        lambda: one.refine(**CALL),
        lambda: one.begin(**CALL),
        one.step,
        one.end,
        one.clone,
        lambda: one.spec,
        lambda: one.limits,
        lambda: one.provenance("source"),
        lambda: one.refine_on_device(**CALL),
    ]
    for use in uses:
        with pytest.raises(trm_edge.TrmInputError, match="this one is closed; load the model again"):
            use()
    one.close()
    assert repr(one).endswith(", closed>")
    assert answer(other) == expected


def test_closing_stops_the_workers(path: Path) -> None:
    def threads() -> int:
        return len(list(Path("/proc/self/task").iterdir()))

    before = threads()
    with trm_edge.load(path, threads=3) as refiner:
        refiner.refine(**CALL)
        assert threads() == before + 2
        kept = [refiner]  # a reference that lives on
    assert threads() == before and kept


@pytest.mark.parametrize("runner", STEPPING)
def test_an_ended_recursion_takes_no_step(runner: str, open_refiner: Open) -> None:
    one = open_refiner(runner, BUNDLE)
    one.begin(**CALL)
    first = one.step().y.tobytes()
    one.end()
    with pytest.raises(trm_edge.TrmNotBegunError):
        one.step()
    one.end()
    one.begin(**CALL)
    assert one.step().y.tobytes() == first


@pytest.mark.parametrize("runner", RUNNERS)
def test_clones_in_four_threads_give_the_answers_of_one(runner: str, open_refiner: Open) -> None:
    origin = open_refiner(runner, BUNDLE)
    rng = np.random.default_rng(2)
    calls = [random_inputs(BUNDLE.spec, rng) for _ in range(6)]
    expected = [answer(origin, call) for call in calls]
    start = threading.Barrier(4)

    def work(own: Refiner) -> list[list[bytes]]:
        start.wait(timeout=30)
        return [[answer(own, call) for call in calls] for _ in range(5)]

    with ThreadPoolExecutor(4) as pool:
        for rounds in pool.map(work, [origin, *(origin.clone() for _ in range(3))]):
            assert all(answers == expected for answers in rounds)


def _long_head() -> tuple[Bundle, dict[str, Any]]:
    """Return a head and a call that takes tens of milliseconds at the least on any backend."""
    bundle = plain_bundle("actions", hidden_size=64, num_heads=2, inner_size=192)
    return bundle, random_inputs(bundle.spec, np.random.default_rng(3))


@pytest.mark.parametrize("runner", RUNNERS)
def test_a_second_thread_is_told_that_the_session_is_busy(runner: str, open_refiner: Open) -> None:
    bundle, call = _long_head()
    shared = open_refiner(runner, bundle)
    steps = {"reference": 200, "onnxruntime-step": 400}.get(runner, 1024)
    long, short = (answer(shared, call, steps=n) for n in (steps, 1))
    results: list[bytes] = []

    def work() -> None:
        while not results:
            with contextlib.suppress(TrmBusyError):
                results.append(answer(shared, call, steps=steps))

    worker = threading.Thread(target=work)
    refused = 0
    worker.start()
    while worker.is_alive():
        try:
            assert answer(shared, call, steps=1) == short, "a wrong answer is worse than none"
        except TrmBusyError as error:
            refused += 1
            assert "clone" in str(error) or "session of its own" in str(error)
            time.sleep(0.001)
    worker.join()
    assert results == [long]
    assert refused, "the long call was over before a short one could meet it"
    assert answer(shared, call, steps=1) == short


def in_child(work: Callable[[], bytes], timeout: float = 30.0) -> bytes:
    """Return what ``work`` returns in a forked child; a child that hangs is killed and fails the test."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(writing, work())
            os._exit(0)
        finally:
            os._exit(1)
    os.close(writing)
    try:
        ready, _, _ = select.select([reading], [], [], timeout)
        data = os.read(reading, 1 << 16) if ready else b""
        deadline = time.monotonic() + timeout
        while os.waitpid(child, os.WNOHANG) == (0, 0):
            if not ready or time.monotonic() > deadline:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                pytest.fail("the child hung")
            time.sleep(0.005)
        return data
    finally:
        os.close(reading)


@pytest.mark.parametrize("runner", RUNNERS)
def test_a_forked_child_computes_the_same(runner: str, open_refiner: Open) -> None:
    parent = open_refiner(runner, BUNDLE)
    expected = answer(parent)
    assert in_child(lambda: answer(parent)) == expected
    assert answer(parent) == expected


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
@pytest.mark.parametrize("runner", RUNNERS)
def test_a_child_forked_in_the_middle_of_a_call_computes_the_same(runner: str, open_refiner: Open) -> None:
    bundle, call = _long_head()
    shared = open_refiner(runner, bundle)
    expected = answer(shared, call)
    stop = threading.Event()

    def keep_busy() -> None:
        while not stop.is_set():
            with contextlib.suppress(TrmBusyError):
                shared.refine(**call, steps=50)

    worker = threading.Thread(target=keep_busy)
    worker.start()
    try:
        caught_busy = False
        deadline = time.monotonic() + 30
        while not caught_busy and time.monotonic() < deadline:
            try:
                shared.begin(**call) if runner in STEPPING else shared.refine(**call, steps=0)
            except TrmBusyError:
                caught_busy = True
            except TrmError as error:
                pytest.fail(str(error))
        assert caught_busy, "the worker never held the session, so this test shows nothing"
        assert in_child(lambda: answer(shared, call) + answer(shared.clone(), call)) == 2 * expected
    finally:
        stop.set()
        worker.join()


def test_the_cache_works_in_a_forked_child(path: Path) -> None:
    expected = trm_edge.refine(**CALL, model=path).y.tobytes()
    assert in_child(lambda: trm_edge.refine(**CALL, model=path).y.tobytes()) == expected


@pytest.mark.parametrize("backend", ["fused", "reference"])
def test_a_refiner_can_be_pickled(backend: str, path: Path) -> None:
    for source in (path, path.read_bytes()):
        original = trm_edge.load(source, backend=backend)
        original.begin(**CALL)
        copy = pickle.loads(pickle.dumps(original))
        assert (copy.backend, copy.spec) == (backend, BUNDLE.spec)
        assert answer(copy) == answer(original)
        with pytest.raises(trm_edge.TrmNotBegunError):
            copy.step()


def test_a_relative_path_survives_a_change_of_directory(
    path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(path.parent)
    original = trm_edge.load(path.name)
    data = pickle.dumps(original)
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    assert answer(pickle.loads(data)) == answer(original)


def test_a_pickled_refiner_whose_file_is_gone_says_so(path: Path) -> None:
    data = pickle.dumps(trm_edge.load(path))
    path.unlink()
    with pytest.raises(TrmIOError, match=re.escape(path.name)):
        pickle.loads(data)


def test_a_pickled_graph_runs_again(open_refiner: Open) -> None:
    original = open_refiner("onnxruntime-step", BUNDLE)
    assert answer(pickle.loads(pickle.dumps(original))) == answer(original)


def test_a_refinement_can_be_pickled(path: Path) -> None:
    out = trm_edge.load(path).refine(**CALL, trajectory=True)
    copy = pickle.loads(pickle.dumps(out))
    for name, value in out._asdict().items():
        np.testing.assert_equal(getattr(copy, name), value)
    assert type(copy) is type(out)
    with pytest.raises(AttributeError):
        copy.steps_run = 0


@pytest.mark.parametrize("runner", FLOAT32)
def test_answers_do_not_depend_on_the_calls_before(runner: str, open_refiner: Open) -> None:
    bundle = plain_bundle("slots")
    used, fresh = open_refiner(runner, bundle), open_refiner(runner, bundle)
    rng = np.random.default_rng(4)
    call = random_inputs(bundle.spec, rng, answer_rows=2, context_rows=1, candidates=3)
    for _ in range(3):
        used.refine(**random_inputs(bundle.spec, rng))
    first, second = (r.refine(**call, trajectory=True) for r in (used, fresh))
    assert first.y.tobytes() == second.y.tobytes()
    assert first.logits.tobytes() == second.logits.tobytes()


def test_what_is_neither_true_nor_false_is_refused() -> None:
    with pytest.raises(trm_edge.TrmInputError, match="pin: expected True or False, got 'x'"):
        trm_edge.load(bundle_bytes(BUNDLE), pin="x")  # type: ignore[arg-type]
    refiner = trm_edge.load(bundle_bytes(BUNDLE))
    with pytest.raises(trm_edge.TrmInputError, match="trajectory: expected True or False, got 'no'"):
        refiner.refine(**CALL, trajectory="no")  # type: ignore[arg-type]
    assert refiner.refine(**CALL, trajectory=np.bool_(True)).trajectory is not None
