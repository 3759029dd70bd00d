"""Outcomes other than OK, by every backend: halting, no steps, non-finite values and limits."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from backend_cases import (
    STEPS,
    assert_same,
    assert_types,
    calls,
    draft_of,
    oracle,
    projected,
    variant,
)
from runners import FLOAT32, RUNNERS, STEPPING, Open, plain_bundle

from trm_edge import Refinement, Status
from trm_edge._native import core
from trm_edge.bundle import Bundle, bundle_bytes
from trm_edge.golden import random_inputs


@pytest.mark.parametrize("runner", RUNNERS)
@pytest.mark.parametrize("kind", ["actions", "slots", "tokens"])
def test_halt_stops_after_the_first_step_that_reaches_it(kind: str, runner: str, open_refiner: Open) -> None:
    bundle = plain_bundle(kind)
    refiner = open_refiner(runner, bundle)
    call = random_inputs(bundle.spec, np.random.default_rng(17))
    full = refiner.refine(**call, steps=6, trajectory=True)
    confidence = 1 / (1 + np.exp(-full.halt_logits.astype(np.float64)))
    for halt in (0.0, *np.sort(confidence) * (1 - 1e-4), 1.0):
        reached = np.flatnonzero(confidence >= halt)
        steps = int(reached[0]) + 1 if reached.size else 6
        out = refiner.refine(**call, steps=6, halt=float(halt), trajectory=True)
        assert out.steps_run == steps
        assert out.status == (Status.HALTED if steps < 6 else Status.OK)
        assert out.trajectory.tobytes() == full.trajectory[:steps].tobytes()
        assert out.halt_logits.tobytes() == full.halt_logits[:steps].tobytes()
        assert out.logits is None or out.logits.tobytes() == full.logits[:steps].tobytes()
        assert out.confidence == pytest.approx(confidence[steps - 1])
    assert refiner.refine(**call, steps=1, halt=0.0).status == Status.OK, "the last step is no early one"


@pytest.mark.parametrize("runner", RUNNERS)
@pytest.mark.parametrize("name", ["actions-rope", "actions-mlp_t", "optional", "slots-rope"])
def test_zero_steps_return_the_projected_draft(name: str, runner: str, open_refiner: Open) -> None:
    bundle = variant(name)
    spec, refiner = bundle.spec, open_refiner(runner, bundle)
    for call in calls(spec, seed=18):
        call = call if call["y0"] is None else call | {"y0": call["y0"] * (3 if spec.answer == "actions" else 1)}
        out = refiner.refine(**call, steps=0, trajectory=True)
        assert_types(spec, out)
        assert (out.status, out.steps_run, out.halt_logits.shape) == (Status.OK, 0, (0,))
        assert math.isnan(out.confidence)
        assert out.y.tobytes() == draft_of(bundle, call).tobytes()
        assert out.trajectory.shape == (0, *out.y.shape)
        given = call["y0"]
        assert given is None or not np.shares_memory(out.y, given)


@pytest.mark.parametrize("runner", RUNNERS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    ("name", "array"),
    [("features", "x"), ("features", "features"), ("optional", "x"), ("features-mlp_t", "x")]
    + [("slots-rope", array) for array in ("x", "slots", "candidates")],
)
def test_a_nonfinite_input_gives_the_projected_draft(
    name: str, array: str, bad: float, runner: str, open_refiner: Open
) -> None:
    bundle = variant(name)
    spec, refiner = bundle.spec, open_refiner(runner, bundle)
    call = random_inputs(spec, np.random.default_rng(19))
    if name == "optional":
        call["y0"] = None
    good = refiner.refine(**call)
    value = call[array].copy()
    value[-1, -1] = bad
    spoilt = call | {array: value}
    for options in ({}, {"halt": 0.0}, {"steps": 0}):
        out = refiner.refine(**spoilt, **options, trajectory=True)
        assert (out.status, out.steps_run, out.halt_logits.shape) == (Status.NONFINITE, 0, (0,))
        assert out.y.tobytes() == draft_of(bundle, spoilt).tobytes()
        assert out.trajectory.shape == (0, *out.y.shape) and math.isnan(out.confidence)
        assert call["y0"] is None or not np.shares_memory(out.y, call["y0"])
    assert refiner.refine(**call).y.tobytes() == good.y.tobytes()


@pytest.mark.parametrize("runner", FLOAT32)
@pytest.mark.parametrize("name", ["actions-rope", "actions-learned", "actions-mlp_t", "slots-rope"])
def test_an_overflow_inside_gives_the_projected_draft(name: str, runner: str, open_refiner: Open) -> None:
    """x is finite and its encoding is not: 3e38 over a standard deviation below 0.8 (float64 has room for more)."""
    bundle = variant(name)
    refiner = open_refiner(runner, bundle)
    call = random_inputs(bundle.spec, np.random.default_rng(20))
    good = refiner.refine(**call)
    spoilt = call | {"x": np.full_like(call["x"], 3e38)}
    out = refiner.refine(**spoilt, trajectory=True)
    assert (out.status, out.steps_run) == (Status.NONFINITE, 0)
    assert out.y.tobytes() == draft_of(bundle, spoilt).tobytes()
    assert len(out.trajectory) == len(out.halt_logits) == 0 and math.isnan(out.confidence)
    assert refiner.refine(**call).y.tobytes() == good.y.tobytes()


@pytest.mark.parametrize("name", ["actions-rope", "actions-mlp_t", "slots-rope"])
def test_engines_agree_on_what_overflows(name: str, open_refiner: Open) -> None:
    """Squares of what lies beyond 1e19 do not fit into float32; an engine that went on would answer nonsense.

    The band around 1e19 itself is left out: there the order of a sum decides whether it overflows.
    """
    bundle = variant(name)
    refiners = {runner: open_refiner(runner, bundle) for runner in FLOAT32}
    rng = np.random.default_rng(26)
    for exponent in (4, 8, 12, 16, 21, 25, 29, 33, 37):
        call = random_inputs(bundle.spec, rng)
        call["x"] *= np.float32(10.0**exponent)
        outcomes = {(out.status, out.steps_run) for out in (r.refine(**call) for r in refiners.values())}
        assert len(outcomes) == 1, f"1e{exponent}: {outcomes}"
        if not 9 <= exponent <= 18:  # between, a product of gate and up may overflow, or not
            assert outcomes == ({(Status.OK, STEPS)} if exponent < 9 else {(Status.NONFINITE, 0)}), f"1e{exponent}"


def _overflowing_later() -> tuple[Bundle, dict[str, Any], int]:
    """Return a head whose answer overflows float32 after a few good steps, a call, and the number of those steps.

    The overflow is in the last multiplication, by a huge standard deviation, where all backends have the same factors.
    """

    def scaled(std: float) -> Bundle:
        std_of_y0 = np.full(plain.spec.dof, std, np.float32)
        decoder = 100 * plain.tensors["answer_decoder.weight"]
        changes = {"normalization.y0.std": std_of_y0, "answer_decoder.weight": decoder}
        return Bundle(plain.spec, dict(plain.tensors) | changes)

    plain = plain_bundle("actions", "rope", gentle=1.0)
    rng = np.random.default_rng(21)
    for _ in range(100):
        call = random_inputs(plain.spec, rng)
        moves = [float(np.abs(step.y).max()) / 1e35 for step in oracle(scaled(1e35), call, 5)]
        good = int(np.argmax(moves))
        if good >= 2 and moves[good] > 1.2 * max(moves[:good]):
            return scaled(float(np.finfo(np.float32).max) / (1.1 * max(moves[:good]))), call, good
    raise AssertionError("no such call among these")


@pytest.mark.parametrize("runner", RUNNERS)
def test_an_overflow_in_a_later_step_cuts_the_trajectory_there(runner: str, open_refiner: Open) -> None:
    bundle, call, good = _overflowing_later()
    refiner = open_refiner(runner, bundle)
    out = refiner.refine(**call, steps=5, trajectory=True)
    assert (out.status, out.steps_run) == (Status.NONFINITE, good)
    assert len(out.trajectory) == len(out.halt_logits) == good
    assert out.confidence == pytest.approx(1 / (1 + math.exp(-float(out.halt_logits[-1]))))
    assert out.y.tobytes() == draft_of(bundle, call).tobytes()
    if runner in STEPPING:
        refiner.begin(**call)
        steps = [refiner.step() for _ in range(good + 1)]
        assert [s.status for s in steps] == [Status.OK] * good + [Status.NONFINITE]
        assert [s.steps_run for s in steps] == [*range(1, good + 1), good]
        assert_same_draft(steps[-1], bundle, call)


def assert_same_draft(out: Refinement, bundle: Bundle, call: dict[str, Any]) -> None:
    assert out.status == Status.NONFINITE
    assert out.y.tobytes() == draft_of(bundle, call).tobytes()
    assert out.halt_logits.shape == (0,) and math.isnan(out.confidence)
    assert out.trajectory.shape == (0, *out.y.shape)


def test_the_engine_reports_the_confidence_of_the_last_step_that_counts() -> None:
    bundle, call, good = _overflowing_later()
    session = core.Session(core.Model(None, bundle_bytes(bundle), 0, 0), 1, False, -1)
    names = ("x", "y0", "features", "slots", "candidates", "mask", "last_action")
    out = session.refine(tuple(call.get(name) for name in names), 0, 5, -1.0, True)
    assert (out[1], out[2]) == (good, Status.NONFINITE)
    assert out[3] == pytest.approx(1 / (1 + math.exp(-float(out[5][good - 1]))), rel=1e-6)


@pytest.mark.parametrize("runner", STEPPING)
@pytest.mark.parametrize(("name", "array"), [("features", "x"), ("features", "features"), ("slots-rope", "x")])
def test_a_nonfinite_refresh_leaves_the_recursion_standing(
    name: str, array: str, runner: str, open_refiner: Open
) -> None:
    bundle = variant(name)
    refiner = open_refiner(runner, bundle)
    call = random_inputs(bundle.spec, np.random.default_rng(22))
    refiner.begin(**call)
    undisturbed = [refiner.step() for _ in range(3)]
    bad = call[array].copy()
    bad[0, 0] = np.nan
    refiner.begin(**call)
    assert_same(refiner.step(), undisturbed[0])
    out = refiner.step(**{array: bad})
    assert out.steps_run == 1
    assert_same_draft(out, bundle, call)
    assert_same(refiner.step(), undisturbed[1])
    assert_same(refiner.step(), undisturbed[2])


@pytest.mark.parametrize("runner", STEPPING)
def test_a_recursion_begun_with_a_nonfinite_input_starts_once_it_is_refreshed(runner: str, open_refiner: Open) -> None:
    bundle = variant("features")
    refiner = open_refiner(runner, bundle)
    call = random_inputs(bundle.spec, np.random.default_rng(23))
    expected = refiner.refine(**call, steps=2, trajectory=True)
    nan = {name: np.full_like(call[name], np.nan) for name in ("x", "features")}
    refiner.begin(**call | nan)
    for fresh in ({}, {"x": call["x"]}, {"features": call["features"]}):
        out = refiner.step(**fresh)  # one of the two is still missing each time
        assert out.steps_run == 0
        assert_same_draft(out, bundle, call)
    out = refiner.step(x=call["x"], features=call["features"])
    assert (out.status, out.steps_run) == (Status.OK, 1)
    assert refiner.step().y.tobytes() == expected.y.tobytes()


@pytest.mark.parametrize("runner", RUNNERS)
@pytest.mark.parametrize("name", ["actions-rope", "actions-mlp_t", "optional"])
def test_a_last_action_far_outside_is_approached_at_the_velocity_limit(
    name: str, runner: str, open_refiner: Open
) -> None:
    bundle = variant(name)
    refiner = open_refiner(runner, bundle)
    call = random_inputs(bundle.spec, np.random.default_rng(24))
    last = np.float32([9, -9, 0])
    inside = np.zeros(3, np.float32)
    assert refiner.refine(**call, last_action=inside).status == Status.OK
    for options in ({}, {"steps": 0}, {"halt": 0.0}):
        out = refiner.refine(**call, **options, last_action=last, trajectory=True)
        assert out.status == Status.OUTSIDE_LIMITS
        start = out.trajectory[-1] if out.steps_run else call["y0"]
        assert out.y.tobytes() == projected(bundle, start, last).tobytes()
        moves = np.diff(np.concatenate([last[None], out.y]).astype(np.float64), axis=0)
        assert (np.abs(moves) <= bundle.tensors["limits.velocity"]).all()
        np.testing.assert_allclose(
            moves[:, :2], bundle.tensors["limits.velocity"][:2] * np.tile([-1, 1], (5, 1)), rtol=1e-5
        )
    spoilt = call | {"x": np.full_like(call["x"], np.nan)}
    out = refiner.refine(**spoilt, last_action=last)
    assert out.status == Status.NONFINITE, "a non-finite value goes before limits"
    assert out.y.tobytes() == draft_of(bundle, spoilt, last).tobytes()
    if runner in STEPPING:
        refiner.begin(**call, last_action=last)
        assert refiner.step().status == Status.OUTSIDE_LIMITS
        assert refiner.step(last_action=inside).status == Status.OK


@pytest.mark.parametrize("runner", RUNNERS)
def test_inputs_are_never_modified(runner: str, open_refiner: Open) -> None:
    for name in ("optional-features", "slots-rope", "tokens-rope"):
        bundle = variant(name)
        refiner = open_refiner(runner, bundle)
        call = random_inputs(bundle.spec, np.random.default_rng(25))
        before = {key: np.copy(value) for key, value in call.items() if value is not None}
        out = refiner.refine(**call)
        out.y[:] = 0
        for key, value in before.items():
            np.testing.assert_array_equal(call[key], value)
