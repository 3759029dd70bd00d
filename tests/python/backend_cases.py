"""Models and calls of every shape for tests of backends, and what their answers are compared by."""

from __future__ import annotations

from typing import Any

import numpy as np
from models import CASES
from runners import plain_bundle

from trm_edge import Refinement, Status
from trm_edge.bundle import Bundle
from trm_edge.golden import random_inputs, relative_error, run_reference
from trm_edge.inputs import check_inputs
from trm_edge.limits import NAMES
from trm_edge.reference import ReferenceModel, StepOutput, masked_argmax, project_limits
from trm_edge.spec import TrmSpec

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


def draft_of(bundle: Bundle, call: dict[str, Any], last_action: np.ndarray | None = None) -> np.ndarray:
    """Return the answer where no step counts: the draft, inside the limits."""
    spec, y0 = bundle.spec, call["y0"]
    if spec.answer == "tokens":
        return call["x"]
    if spec.answer == "slots":
        return np.full(len(call["slots"]), -1, np.int32) if y0 is None else y0
    given = np.tile(bundle.tensors["normalization.y0.mean"], (spec.answer_rows, 1)) if y0 is None else y0
    return projected(bundle, given, last_action)
