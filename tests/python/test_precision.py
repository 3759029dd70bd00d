"""bf16 and int8 in the fused engine against the fake-quantised oracle, on every instruction set; threads."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
import threading
import time
from typing import Any

import numpy as np
import pytest
from models import CASES, calibrated, make_bundle
from runners import ISAS, plain_bundle

import trm_edge
from trm_edge._native import core
from trm_edge.bundle import Bundle, bundle_bytes
from trm_edge.golden import random_inputs, relative_error, run_reference, verify
from trm_edge.inputs import check_inputs
from trm_edge.quantization import Quantization, QuantizedModel, uniform
from trm_edge.reference import ReferenceModel

CALLS = 32
SAME = 0.6  # of the oracle's own error: another rounding would part the two by 1.4 times it


def load_on(isa: str, bundle: Bundle, monkeypatch: pytest.MonkeyPatch, **options: Any) -> trm_edge.Refiner:
    monkeypatch.setenv("TRM_EDGE_ISA", isa)
    refiner = trm_edge.load(bundle_bytes(bundle), **options)
    assert refiner.isa == isa
    return refiner


def drawn(bundle: Bundle) -> list[dict[str, Any]]:
    rng = np.random.default_rng(3)
    return [random_inputs(bundle.spec, rng) for _ in range(CALLS)]


_KNOWN: dict[tuple[int, str, int, bool], tuple[Bundle, list[list[np.ndarray]]]] = {}


def oracle_values(bundle: Bundle, how: Quantization | None, steps: int, isa: str = "") -> list[list[np.ndarray]]:
    """Return answers or logits of an oracle for the drawn calls, by call and step; float64 where ``how`` is None."""
    bf16_attention = isa == "avx512bf16"
    key = (id(bundle), str(how), steps, bf16_attention)
    if key not in _KNOWN:
        spec, tensors = bundle.spec, bundle.tensors
        model = (
            ReferenceModel(spec, tensors)
            if how is None
            else QuantizedModel(spec, tensors, how, bf16_attention=bf16_attention)
        )
        runs = [run_reference(model, check_inputs(spec, **call), steps) for call in drawn(bundle)]
        values = [[out.y if out.logits is None else out.logits for out in run] for run in runs]
        _KNOWN[key] = (bundle, values)  # the bundle is kept, so that no other gets its id
    return _KNOWN[key][1]


def errors_of(refiner: trm_edge.Refiner, bundle: Bundle, truth: list[list[np.ndarray]]) -> np.ndarray:
    """Return the engine's errors against ``truth``, ``[CALLS, steps]``."""
    rows = []
    for call, steps in zip(drawn(bundle), truth, strict=True):
        out = refiner.refine(**call, steps=len(steps), trajectory=True)
        got = out.trajectory if out.logits is None else out.logits
        assert got is not None
        rows.append([relative_error(a, b) for a, b in zip(got, steps, strict=True)])
    return np.asarray(rows)


def own_error(bundle: Bundle, how: Quantization, steps: int, isa: str = "") -> np.ndarray:
    """Return the errors of the fake-quantised oracle against the float64 one, ``[CALLS, steps]``."""
    pairs = zip(oracle_values(bundle, how, steps, isa), oracle_values(bundle, None, steps), strict=True)
    return np.asarray([[relative_error(a, b) for a, b in zip(*pair, strict=True)] for pair in pairs])


@pytest.mark.parametrize("precision", ["bf16", "int8"])
@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(("kind", "mixer"), CASES)
def test_the_first_evaluations_are_those_of_the_oracle(
    kind: str, mixer: str, isa: str, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # One step of two evaluations: further on, values that round to another byte part the two.
    bundle = plain_bundle(kind, mixer, l_cycles=1, h_cycles=1)
    refiner = load_on(isa, bundle, monkeypatch, precision=precision)
    assert refiner.precision == precision
    how = uniform(bundle.spec, precision)
    parted = np.median(errors_of(refiner, bundle, oracle_values(bundle, how, 1, isa)))
    assert parted <= SAME * np.median(own_error(bundle, how, 1))


@pytest.mark.parametrize("precision", ["bf16", "int8"])
@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(("kind", "mixer"), [("actions", "rope"), ("slots", "none"), ("tokens", "mlp_t")])
def test_the_error_is_that_of_the_oracle(
    kind: str, mixer: str, isa: str, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = plain_bundle(kind, mixer, hidden_size=96, inner_size=160)
    refiner = load_on(isa, bundle, monkeypatch, precision=precision)
    engine = errors_of(refiner, bundle, oracle_values(bundle, None, 3))
    assert np.median(engine[:, -1]) <= 1.2 * np.median(own_error(bundle, uniform(bundle.spec, precision), 3)[:, -1])


@pytest.mark.parametrize("scheme", ["dynamic", "static", "static-per-step"])
@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(("kind", "mixer"), [("actions", "rope"), ("tokens", "mlp_t")])
def test_a_calibrated_bundle_runs_as_calibrated(
    kind: str, mixer: str, isa: str, scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = _mixed(kind, mixer, scheme)
    refiner = load_on(isa, bundle, monkeypatch)
    assert refiner.precision == "int8" and bundle.quantization is not None
    assert all(check.passed for check in verify(refiner, bundle))
    parted = np.median(errors_of(refiner, bundle, oracle_values(bundle, bundle.quantization, 1, isa)))
    assert parted <= SAME * np.median(own_error(bundle, bundle.quantization, 1))


@functools.lru_cache
def _mixed(kind: str, mixer: str, scheme: str) -> Bundle:
    return calibrated(make_bundle(kind, mixer), scheme, **{"mlp.down": "bf16", "mlp.gate_up": "fp32"})


def test_the_caller_may_choose_otherwise_than_the_calibration() -> None:
    bundle = calibrated(make_bundle("actions"), "static")
    data, call = bundle_bytes(bundle), random_inputs(bundle.spec, np.random.default_rng(0))
    plain = bundle_bytes(make_bundle("actions"))
    for precision in ("fp32", "bf16"):
        refiner = trm_edge.load(data, precision=precision)
        assert refiner.precision == precision
        assert (
            refiner.refine(**call).y.tobytes() == trm_edge.load(plain, precision=precision).refine(**call).y.tobytes()
        )
    assert (
        trm_edge.load(data, precision="int8").refine(**call).y.tobytes()
        == trm_edge.load(data).refine(**call).y.tobytes()
    )


@pytest.mark.parametrize(
    ("scheme", "precision"),
    [("", "bf16"), ("", "int8"), ("dynamic", "int8"), ("static", None), ("static-per-step", None), ("static", "bf16")],
)
@pytest.mark.parametrize(("kind", "mixer"), [("actions", "rope"), ("slots", "none"), ("tokens", "mlp_t")])
def test_the_reference_backend_rounds_as_the_engine_does(
    kind: str, mixer: str, scheme: str, precision: str | None
) -> None:
    bundle = _mixed(kind, mixer, scheme) if scheme else plain_bundle(kind, mixer)
    exact, data = oracle_values(bundle, None, 3), bundle_bytes(bundle)
    engine, rounded, plain = (
        trm_edge.load(data, backend=backend, precision=p)
        for backend, p in (("fused", precision), ("reference", precision), ("reference", "fp64"))
    )
    assert engine.precision == rounded.precision == (precision or "int8") and plain.precision == "fp64"
    assert rounded.clone().precision == rounded.precision
    how = bundle.quantization if scheme and precision != "bf16" else uniform(bundle.spec, precision or "int8")
    assert errors_of(rounded, bundle, oracle_values(bundle, how, 3)).max() <= 1e-6
    theirs, own, none = (np.median(errors_of(r, bundle, exact)[:, -1]) for r in (engine, rounded, plain))
    assert theirs <= 1.2 * own and none <= 1e-6 < 1e-4 < own


def test_each_step_has_its_scale_in_stepping_too() -> None:
    bundle = calibrated(make_bundle("actions"), "static-per-step", steps=3)
    call = random_inputs(bundle.spec, np.random.default_rng(0))
    refiner = trm_edge.load(bundle_bytes(bundle))
    whole = refiner.refine(**call, steps=5, trajectory=True).trajectory
    refiner.begin(**call)
    assert whole is not None
    for k in range(5):  # steps 4 and 5 take the third step's scales
        step = refiner.step().trajectory
        assert step is not None and step.tobytes() == whole[k : k + 1].tobytes()


@pytest.mark.parametrize("scheme", ["dynamic", "static"])
@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(("kind", "mixer"), [("actions", "rope"), ("tokens", "mlp_t")])
def test_a_value_that_is_not_finite_is_not_rounded_away(
    kind: str, mixer: str, isa: str, scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = calibrated(make_bundle(kind, mixer), scheme)
    tensors = dict(bundle.tensors)
    tensors["z_init"] = np.full_like(tensors["z_init"], 1e30)  # finite, but not its squares
    broken = Bundle(bundle.spec, tensors, quantization=bundle.quantization)
    refiner = load_on(isa, broken, monkeypatch)
    out = refiner.refine(**random_inputs(bundle.spec, np.random.default_rng(0)))
    assert out.status == trm_edge.Status.NONFINITE and out.steps_run == 0


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(("kind", "mixer"), [("actions", "rope"), ("actions", "mlp_t"), ("slots", "learned")])
def test_a_huge_context_has_an_answer_unless_it_is_not_finite(
    kind: str, mixer: str, isa: str, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = plain_bundle(kind, mixer)
    refiner = load_on(isa, bundle, monkeypatch, precision=precision)
    rng = np.random.default_rng(1)
    # Beyond these float32 ends: squares of rows, and of what a SwiGLU makes of them, which grows with the square.
    for factor in (1e2, 1e5, 1e8) if mixer == "mlp_t" else (1e2, 1e5, 1e8, 1e12, 1e16):
        call = random_inputs(bundle.spec, rng)
        out = refiner.refine(**(call | {"x": call["x"] * np.float32(factor)}), steps=4)
        assert (out.status, out.steps_run) == (trm_edge.Status.OK, 4), factor
    for value in (np.nan, np.inf, -np.inf):
        call = random_inputs(bundle.spec, rng)
        call["x"][-1, -1] = value
        out = refiner.refine(**call, steps=4)
        assert (out.status, out.steps_run) == (trm_edge.Status.NONFINITE, 0), value


# ---- Threads ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
@pytest.mark.parametrize("threads", [2, 3])
@pytest.mark.parametrize(("kind", "mixer"), CASES)
def test_threads_give_the_answer_of_one(kind: str, mixer: str, threads: int, precision: str) -> None:
    bundle = plain_bundle(kind, mixer, l_cycles=1, h_cycles=1)
    one = trm_edge.load(bundle_bytes(bundle), precision=precision)
    more = trm_edge.load(bundle_bytes(bundle), precision=precision, threads=threads, park_after_us=100)
    rng, gaps = np.random.default_rng(2), []
    for _ in range(8):
        call = random_inputs(bundle.spec, rng)
        a, b = (r.refine(**call, steps=1, trajectory=True) for r in (one, more))
        pair = (a.trajectory, b.trajectory) if a.logits is None else (a.logits, b.logits)
        gaps.append(relative_error(pair[1], pair[0]))
        assert more.refine(**call, steps=1, trajectory=True).y.tobytes() == b.y.tobytes()
    assert np.median(gaps) <= 1e-5


def test_sessions_with_threads_of_their_own_run_side_by_side() -> None:
    bundle = plain_bundle("actions", hidden_size=48)
    shared = trm_edge.load(bundle_bytes(bundle), threads=2, park_after_us=0)
    call = random_inputs(bundle.spec, np.random.default_rng(0))
    expected = shared.refine(**call).y.tobytes()
    answers: list[set[bytes]] = [set(), set()]

    def work(own: trm_edge.Refiner, seen: set[bytes]) -> None:
        for _ in range(200):
            seen.add(own.refine(**call).y.tobytes())

    workers = [threading.Thread(target=work, args=(shared.clone(), seen)) for seen in answers]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert answers == [{expected}, {expected}]


def test_parked_workers_wake_up() -> None:
    bundle = plain_bundle("actions")
    refiner = trm_edge.load(bundle_bytes(bundle), threads=2, park_after_us=0)
    call = random_inputs(bundle.spec, np.random.default_rng(0))
    answers = set()
    for _ in range(20):
        answers.add(refiner.refine(**call).y.tobytes())
        threading.Event().wait(0.002)  # long enough to fall asleep
    assert len(answers) == 1


def test_a_process_ends_while_workers_sleep() -> None:
    code = (
        "import threading, time, trm_edge\n"
        "refiner = trm_edge.load(trm_edge.example(), threads=2, park_after_us=0)\n"
        "threading.Thread(target=lambda kept: time.sleep(600), args=(refiner,), daemon=True).start()\n"
        "time.sleep(0.1)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_forked_child_gets_workers_of_its_own() -> None:
    bundle = plain_bundle("actions")
    refiner = trm_edge.load(bundle_bytes(bundle), threads=2, park_after_us=0)
    call = random_inputs(bundle.spec, np.random.default_rng(0))
    expected = refiner.refine(**call).y.tobytes()
    time.sleep(0.01)  # the worker sleeps when the child is made, and so do the child's own
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        for _ in range(20):
            same = refiner.refine(**call).y.tobytes() == expected
            time.sleep(0.002)
        os._exit(0 if same else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert refiner.refine(**call).y.tobytes() == expected


def test_a_forked_child_may_start_threads_before_it_renews_its_session() -> None:
    # They take over the descriptors, and the stacks, that the parent's workers had.
    bundle = plain_bundle("actions")
    refiner = trm_edge.load(bundle_bytes(bundle), threads=2, park_after_us=0)
    call = random_inputs(bundle.spec, np.random.default_rng(0)) | {"steps": 1}
    expected = refiner.refine(**call).y.tobytes()
    for _ in range(10):
        child = os.fork()
        if child == 0:
            signal.alarm(20)
            for _ in range(3):
                started = threading.Thread(target=time.sleep, args=(0,))
                started.start()
                started.join()
            os._exit(0 if refiner.refine(**call).y.tobytes() == expected else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.parametrize(("arguments", "word"), [((0, 1), "precision"), ((4, 1), "precision"), ((1, 0), "iterations")])
def test_a_wrong_register_loop_is_refused(arguments: tuple[int, int], word: str) -> None:
    with pytest.raises(trm_edge.TrmError, match=word):
        core.register_loop(*arguments)
