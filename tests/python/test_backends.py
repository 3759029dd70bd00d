"""Every backend against the float64 oracle: each step, and refreshed inputs."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from backend_cases import (
    STEPS,
    TOLERANCE,
    VARIANTS,
    assert_same,
    assert_step,
    assert_types,
    calls,
    oracle,
    projected,
    variant,
)
from runners import RUNNERS, STEPPING, Open, plain_bundle

from trm_edge import Status, TrmNotBegunError, TrmUnsupportedError, project_limits
from trm_edge.bundle import Bundle
from trm_edge.golden import random_inputs, relative_error
from trm_edge.inputs import check_inputs
from trm_edge.reference import ReferenceModel

# ---- Every step ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("runner", RUNNERS)
@pytest.mark.parametrize("name", VARIANTS)
def test_every_step_agrees_with_the_oracle(name: str, runner: str, open_refiner: Open) -> None:
    bundle = variant(name)
    spec, refiner = bundle.spec, open_refiner(runner, bundle)
    assert refiner.spec == spec
    for call in calls(spec):
        truth = oracle(bundle, call)
        out = refiner.refine(**call, steps=STEPS, trajectory=True)
        assert_types(spec, out)
        assert (out.status, out.steps_run, len(out.halt_logits)) == (Status.OK, STEPS, STEPS)
        assert out.trajectory is not None and len(out.trajectory) == STEPS
        for k in range(STEPS):
            assert_step(spec, out, k, truth[k])
        last = out.trajectory[-1]
        expected = projected(bundle, last) if spec.answer == "actions" else last
        assert out.y.tobytes() == expected.tobytes()
        assert out.confidence == pytest.approx(1 / (1 + math.exp(-float(out.halt_logits[-1]))))
        assert out.duration_us > 0


@pytest.mark.parametrize("runner", RUNNERS)
@pytest.mark.parametrize("kind", ["actions", "slots", "tokens"])
def test_fewer_steps_are_the_first_of_more_and_a_trajectory_changes_no_answer(
    kind: str, runner: str, open_refiner: Open
) -> None:
    bundle = plain_bundle(kind)
    refiner = open_refiner(runner, bundle)
    call = random_inputs(bundle.spec, np.random.default_rng(6))
    full = refiner.refine(**call, steps=5, trajectory=True)
    for steps in range(1, 6):
        out = refiner.refine(**call, steps=steps)
        assert out.trajectory is None and out.logits is None
        assert out.steps_run == steps
        assert out.halt_logits.tobytes() == full.halt_logits[:steps].tobytes()
        y = full.trajectory[steps - 1]
        assert out.y.tobytes() == (projected(bundle, y) if kind == "actions" else y).tobytes()


@pytest.mark.parametrize("runner", RUNNERS)
def test_no_slots_return_at_once(runner: str, open_refiner: Open) -> None:
    bundle = plain_bundle("slots")
    refiner = open_refiner(runner, bundle)
    call = random_inputs(bundle.spec, np.random.default_rng(7), answer_rows=0)
    out = refiner.refine(**call, trajectory=True)
    assert (out.status, out.steps_run, out.y.shape, out.y.dtype) == (Status.OK, 0, (0,), np.int32)
    assert math.isnan(out.confidence)
    assert out.trajectory.shape == (0, 0) and out.logits.shape == (0, 0, 6)
    if runner in STEPPING:
        refiner.begin(**call)
        out = refiner.step()
        assert (out.status, out.steps_run, out.y.shape) == (Status.OK, 0, (0,))


@pytest.mark.parametrize("runner", RUNNERS)
def test_equal_logits_choose_the_lowest_index(runner: str, open_refiner: Open) -> None:
    bundle = plain_bundle("slots")
    refiner = open_refiner(runner, bundle)
    call = random_inputs(bundle.spec, np.random.default_rng(8)) | {"y0": None}
    call["candidates"][:] = call["candidates"][0]
    call["mask"][:] = [[0, 0, 1, 0, 1, 1], [1] * 6, [0] * 6, [0, 0, 0, 0, 0, 1]]
    out = refiner.refine(**call, trajectory=True)
    assert out.y.tolist() == [2, 0, -1, 5]
    assert np.isneginf(out.logits[:, ~call["mask"]]).all()
    assert np.isfinite(out.logits[:, call["mask"]]).all()


def _ratio_case(width: int, mixer: str) -> Bundle:
    changes: dict[str, Any] = {"answer_rows": 8, "max_context": 7, "hidden_size": width, "inner_size": 3 * width}
    changes |= {"num_heads": 4} if mixer == "rope" else {"token_inner_size": 32}
    return plain_bundle("actions", mixer, gentle=1.0, **changes)


@pytest.mark.parametrize("width", [64, 128])
@pytest.mark.parametrize("mixer", ["rope", "mlp_t"])
def test_rounding_is_amplified_no_more_than_by_onnx_runtime(mixer: str, width: int, open_refiner: Open) -> None:
    """Unscaled weights amplify rounding, so the measure is another float32 engine's error, by a median.

    Single ratios differ by a factor of two, so that of 128 calls the median is known to a tenth.
    """
    bundle = _ratio_case(width, mixer)
    fused, other = (open_refiner(name, bundle) for name in (RUNNERS[0], "onnxruntime-loop"))
    rng = np.random.default_rng(9)
    ratios = []
    for _ in range(128):
        call = random_inputs(bundle.spec, rng)
        truth = oracle(bundle, call)[-1].y
        errors = [relative_error(r.refine(**call, trajectory=True).trajectory[-1], truth) for r in (fused, other)]
        ratios.append(errors[0] / errors[1])
    assert np.median(ratios) <= 1.2, f"median {np.median(ratios):.3f}"


# ---- Stepping --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("runner", STEPPING)
@pytest.mark.parametrize(
    "name",
    (
        *("actions-rope", "actions-mlp_t_learned", "slots-learned", "tokens-rope", "tokens-mlp_t"),
        *("optional-features", "no-context-slots", "no-registers", "heads-of-10"),
    ),
)
def test_refine_is_begin_and_steps_bit_for_bit(name: str, runner: str, open_refiner: Open) -> None:
    bundle = variant(name)
    refiner = open_refiner(runner, bundle)
    for call in calls(bundle.spec, seed=10):
        refiner.begin(**call)
        steps = [refiner.step() for _ in range(3)]
        for k, step in enumerate(steps, 1):
            whole = refiner.refine(**call, steps=k, trajectory=True)
            assert (step.steps_run, step.status) == (k, whole.status)
            assert step.y.tobytes() == whole.y.tobytes()
            assert step.confidence == whole.confidence
            for part in ("halt_logits", "trajectory", "logits"):
                one, all_ = getattr(step, part), getattr(whole, part)
                assert (one is None) == (all_ is None)
                assert one is None or (len(one) == 1 and one.tobytes() == all_[-1:].tobytes())


@pytest.mark.parametrize("runner", STEPPING)
@pytest.mark.parametrize("name", ["features", "features-mlp_t", "actions-learned", "slots-rope"])
def test_fresh_context_and_features_replace_the_old_and_state_is_kept(
    name: str, runner: str, open_refiner: Open
) -> None:
    bundle = variant(name)
    spec, refiner, model = bundle.spec, open_refiner(runner, bundle), ReferenceModel(bundle.spec, bundle.tensors)
    rng = np.random.default_rng(11)
    call = random_inputs(spec, rng)
    carry = model.begin(check_inputs(spec, **call))
    refiner.begin(**call)
    for k in range(8):
        fresh: dict[str, Any] = {}
        if k & 1:
            fresh["x"] = rng.standard_normal(call["x"].shape).astype(np.float32)
        if k & 2 and spec.feature_size:
            fresh["features"] = rng.standard_normal(call["features"].shape).astype(np.float32)
        carry, truth = model.step(model.refresh(carry, **fresh))
        out = refiner.step(**fresh)
        assert (out.status, out.steps_run) == (Status.OK, k + 1)
        assert_step(spec, out, 0, truth)
    unchanged = oracle(bundle, call, 8)[-1]
    gap = relative_error(unchanged.halt_logit, np.float64(truth.halt_logit))
    assert gap > 100 * TOLERANCE, "the refresh made no difference, so this test shows nothing"


@pytest.mark.parametrize("runner", STEPPING)
def test_last_action_is_kept_until_a_step_brings_a_fresh_one(runner: str, open_refiner: Open) -> None:
    bundle = plain_bundle("actions")
    refiner = open_refiner(runner, bundle)
    call = random_inputs(bundle.spec, np.random.default_rng(12))
    first, second = np.full(3, 0.1, np.float32), np.full(3, -0.4, np.float32)
    refiner.begin(**call, last_action=first)
    for fresh, valid in ((None, first), (second, second), (None, second)):
        out = refiner.step(last_action=fresh)
        assert out.y.tobytes() == projected(bundle, out.trajectory[-1], valid).tobytes()
        assert (np.abs(out.y[0].astype(np.float64) - valid) <= bundle.tensors["limits.velocity"]).all()


@pytest.mark.parametrize("runner", STEPPING)
def test_limits_put_a_draft_inside_without_the_head(runner: str, open_refiner: Open) -> None:
    bundle = variant("features")
    refiner = open_refiner(runner, bundle)
    limits = refiner.limits
    assert limits is not None
    for name, values in limits._asdict().items():
        assert values.dtype == np.float32
        assert values.tobytes() == bundle.tensors[f"limits.{name}"].tobytes()
        values[:] = 0  # a copy
    call = random_inputs(bundle.spec, np.random.default_rng(15))
    last = np.full(3, 0.1, np.float32)
    assert refiner.limits is not None
    inside = project_limits(call["y0"], **refiner.limits._asdict(), last_action=last).actions
    assert inside.tobytes() == refiner.refine(**call, steps=0, last_action=last).y.tobytes()
    assert inside.tobytes() != call["y0"].tobytes()
    assert open_refiner(runner, variant("slots-rope")).limits is None


@pytest.mark.parametrize("runner", STEPPING)
@pytest.mark.parametrize("name", ["optional-features", "slots-rope", "tokens-rope"])
def test_begin_copies_its_arrays(name: str, runner: str, open_refiner: Open) -> None:
    bundle = variant(name)
    refiner = open_refiner(runner, bundle)
    call = random_inputs(bundle.spec, np.random.default_rng(13))
    last = np.zeros(3, np.float32) if bundle.spec.answer == "actions" else None
    refiner.begin(**call, last_action=last)
    expected = [refiner.step() for _ in range(2)]
    refiner.begin(**call, last_action=last)
    for value in (*call.values(), last):
        if isinstance(value, np.ndarray):
            value[:] = 1
    for step in expected:
        assert_same(refiner.step(), step)


@pytest.mark.parametrize("runner", STEPPING)
def test_step_copies_what_it_is_given(runner: str, open_refiner: Open) -> None:
    bundle = variant("features")
    refiner = open_refiner(runner, bundle)
    rng = np.random.default_rng(14)
    call = random_inputs(bundle.spec, rng)
    fresh = {name: rng.standard_normal(call[name].shape).astype(np.float32) for name in ("x", "features")}
    fresh["last_action"] = np.zeros(3, np.float32)
    refiner.begin(**call)
    refiner.step(**{name: value.copy() for name, value in fresh.items()})
    expected = refiner.step()
    refiner.begin(**call)
    refiner.step(**fresh)
    for value in fresh.values():
        value[:] = 7
    assert_same(refiner.step(), expected)


@pytest.mark.parametrize("runner", STEPPING)
def test_refine_ends_a_recursion_that_was_begun(runner: str, open_refiner: Open) -> None:
    bundle = plain_bundle("actions")
    refiner = open_refiner(runner, bundle)
    call = random_inputs(bundle.spec, np.random.default_rng(15))
    with pytest.raises(TrmNotBegunError, match="begin"):
        refiner.step()
    refiner.begin(**call)
    refiner.step()
    refiner.refine(**call)
    with pytest.raises(TrmNotBegunError, match="begin"):
        refiner.step()


def test_a_graph_that_cannot_step_says_so(open_refiner: Open) -> None:
    bundle = plain_bundle("actions")
    refiner = open_refiner("onnxruntime-loop", bundle)
    call = random_inputs(bundle.spec, np.random.default_rng(16))
    for run in (lambda: refiner.begin(**call), refiner.step):
        with pytest.raises(TrmUnsupportedError, match="--loop step"):
            run()
