"""Every backend against the float64 oracle: each step, refresh, halting, non-finite values and limits."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from models import CASES
from runners import FLOAT32, RUNNERS, STEPPING, plain_bundle

from trm_edge import Refinement, Refiner, Status, TrmNotBegunError, TrmUnsupportedError
from trm_edge._native import core
from trm_edge.bundle import Bundle, bundle_bytes
from trm_edge.golden import random_inputs, relative_error, run_reference
from trm_edge.inputs import check_inputs
from trm_edge.limits import NAMES
from trm_edge.reference import ReferenceModel, StepOutput, masked_argmax, project_limits
from trm_edge.spec import TrmSpec

Open = Callable[[str, Bundle], Refiner]

TOLERANCE = 1e-5
STEPS = 4

# name: (kind, mixer, changed fields); head sizes 2, 6, 8, 10, 22 and 32, inner sizes that are no multiple of anything
VARIANTS: dict[str, tuple[str, str, dict[str, Any]]] = {
    **{f"{kind}-{mixer}": (kind, mixer, {}) for kind, mixer in CASES},
    "features": ("actions", "rope", {"feature_size": 3}),
    "features-learned": ("actions", "learned", {"feature_size": 1}),
    "features-mlp_t": ("actions", "mlp_t", {"feature_size": 2}),
    "optional": ("actions", "rope", {"draft": "optional"}),
    "optional-features": ("actions", "learned", {"draft": "optional", "feature_size": 2}),
    "optional-mlp_t": ("actions", "mlp_t_learned", {"draft": "optional"}),
    "no-context": ("actions", "rope", {"max_context": 0, "context_size": 0}),
    "no-context-mlp_t": ("actions", "mlp_t", {"max_context": 0, "context_size": 0}),
    "no-context-slots": ("slots", "learned", {"max_context": 0, "context_size": 0}),
    "no-registers": ("tokens", "rope", {"registers": 0, "puzzle_size": 0}),
    "no-registers-mlp_t": ("tokens", "mlp_t_learned", {"registers": 0, "puzzle_size": 0}),
    "one-row": ("actions", "rope", {"answer_rows": 1, "registers": 1}),
    "heads-of-2": ("actions", "rope", {"hidden_size": 32, "num_heads": 16, "inner_size": 33}),
    "heads-of-6": ("slots", "rope", {"hidden_size": 24, "num_heads": 4, "inner_size": 1}),
    "heads-of-10": ("actions", "rope", {"hidden_size": 40, "num_heads": 4, "inner_size": 33, "dof": 7}),
    "heads-of-22": ("tokens", "rope", {"hidden_size": 22, "num_heads": 1, "inner_size": 45}),
    "heads-of-32": ("slots", "rope", {"hidden_size": 64, "num_heads": 2, "inner_size": 20, "max_context": 17}),
    "wide": ("actions", "mlp_t", {"hidden_size": 64, "token_inner_size": 33, "answer_rows": 17, "inner_size": 100}),
    "many-candidates": ("slots", "none", {"max_candidates": 37, "answer_rows": 3}),
    "many-tokens": ("tokens", "learned", {"vocab_size": 33, "answer_rows": 35}),
    "one-layer": ("actions", "rope", {"num_layers": 1, "l_cycles": 1, "h_cycles": 1}),
    "three-layers": ("actions", "mlp_t", {"num_layers": 3, "l_cycles": 3, "h_cycles": 1}),
    "theta-and-eps": ("actions", "rope", {"rope_theta": 500.0, "norm_eps": 1e-3}),
}


def variant(name: str, **more: Any) -> Bundle:
    kind, mixer, changes = VARIANTS[name]
    return plain_bundle(kind, mixer, **(changes | more))


def sizes(spec: TrmSpec) -> list[dict[str, int]]:
    """Sizes of a call that the spec leaves free: none, one, some, most."""
    contexts = sorted({0, 1, 3, spec.max_context}) if spec.mixer == "attention" and spec.max_context else [None]
    if spec.answer != "slots":
        return [{} if p is None else {"context_rows": p} for p in contexts]
    return [
        {"context_rows": p or 0, "answer_rows": s, "candidates": m}
        for p, s, m in [
            (contexts[0], 1, 1),
            (contexts[-1], spec.answer_rows, spec.max_candidates),
            (contexts[-1], 1, spec.max_candidates),
            (contexts[0], spec.answer_rows, 1),
            (contexts[len(contexts) // 2], 2, 3),
            (contexts[-1], 2, 0),
        ]
    ]


def calls(spec: TrmSpec, seed: int = 5) -> list[dict[str, Any]]:
    """Arguments of every size, with a draft and, where it may be left out, without."""
    rng = np.random.default_rng(seed)
    made = [random_inputs(spec, rng, **size) for size in sizes(spec)]
    if spec.answer == "slots":
        closed = random_inputs(spec, rng)
        closed["mask"][0] = False
        closed["y0"][0] = -1
        made.append(closed)
    if spec.answer == "slots" or spec.draft == "optional":
        made.append(made[-1] | {"y0": None})
    return made


def oracle(bundle: Bundle, call: dict[str, Any], steps: int = STEPS) -> list[StepOutput]:
    return run_reference(ReferenceModel(bundle.spec, bundle.tensors), check_inputs(bundle.spec, **call), steps)


def projected(bundle: Bundle, y: np.ndarray, last_action: np.ndarray | None = None) -> np.ndarray:
    return project_limits(y, *(bundle.tensors[f"limits.{name}"] for name in NAMES), last_action)[0]


def assert_step(spec: TrmSpec, out: Refinement, k: int, truth: StepOutput, tolerance: float = TOLERANCE) -> None:
    """Row ``k`` of the outputs is the oracle's step."""
    assert out.trajectory is not None
    assert relative_error(out.halt_logits[k], np.float64(truth.halt_logit)) <= tolerance
    if spec.answer == "actions":
        assert out.logits is None
        assert relative_error(out.trajectory[k], truth.y) <= tolerance
    else:
        assert out.logits is not None and truth.logits is not None
        assert relative_error(out.logits[k], truth.logits) <= tolerance
        np.testing.assert_array_equal(out.trajectory[k], truth.y)
        np.testing.assert_array_equal(out.trajectory[k], masked_argmax(out.logits[k]))


def assert_types(spec: TrmSpec, out: Refinement) -> None:
    dtype = np.float32 if spec.answer == "actions" else np.int32
    assert out.y.dtype == dtype
    assert out.halt_logits.dtype == np.float32
    assert out.trajectory is None or out.trajectory.dtype == dtype
    assert out.logits is None or out.logits.dtype == np.float32
    assert isinstance(out.status, Status) and isinstance(out.steps_run, int) and isinstance(out.confidence, float)


def assert_same(a: Refinement, b: Refinement) -> None:
    """Two outcomes are equal, bit for bit."""
    assert (a.status, a.steps_run) == (b.status, b.steps_run)
    np.testing.assert_equal(a.confidence, b.confidence)
    for name in ("y", "halt_logits", "trajectory", "logits"):
        first, second = getattr(a, name), getattr(b, name)
        assert (first is None) == (second is None), name
        if first is not None:
            assert first.dtype == second.dtype and first.shape == second.shape, name
            assert first.tobytes() == second.tobytes(), name


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
    """Unscaled weights amplify rounding, so the measure is another float32 engine's error, by a median."""
    bundle = _ratio_case(width, mixer)
    fused, other = (open_refiner(name, bundle) for name in (RUNNERS[0], "onnxruntime-loop"))
    rng = np.random.default_rng(9)
    ratios = []
    for _ in range(32):
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


# ---- Outcomes other than OK ------------------------------------------------------------------------------------------


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


def draft_of(bundle: Bundle, call: dict[str, Any], last_action: np.ndarray | None = None) -> np.ndarray:
    """Return the answer where no step counts: the draft, inside the limits."""
    spec, y0 = bundle.spec, call["y0"]
    if spec.answer == "tokens":
        return call["x"]
    if spec.answer == "slots":
        return np.full(len(call["slots"]), -1, np.int32) if y0 is None else y0
    given = np.tile(bundle.tensors["normalization.y0.mean"], (spec.answer_rows, 1)) if y0 is None else y0
    return projected(bundle, given, last_action)


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
    session = core.Session(core.Model(None, bundle_bytes(bundle), 0), 1, False, -1)
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
