"""Every term of the loss against a value worked out by hand, and the targets of each step."""

from __future__ import annotations

import math

import numpy as np
import pytest
from models import make_spec

torch = pytest.importorskip("torch")

from trm_edge.train.config import LossConfig  # noqa: E402
from trm_edge.train.losses import (  # noqa: E402
    action_error,
    cross_entropy,
    is_right,
    left_out_penalty,
    limit_excess,
    log_stablemax,
    right_choices,
    smoothness,
    step_loss,
)
from trm_edge.train.model import StepOutput, TrmHead  # noqa: E402
from trm_edge.train.targets import step_target  # noqa: E402

INF = math.inf


def action_head(**limits) -> TrmHead:
    """Return a head for 4 steps of 2 joints, std 2 and 4."""
    head = TrmHead(make_spec("actions", answer_rows=4, dof=2))
    head.w("normalization.y0.std")[:] = torch.tensor([2.0, 4.0])
    for name, value in limits.items():
        head.w(f"limits.{name}")[:] = value
    return head


def test_cross_entropy_is_a_mean_over_examples_of_means_over_entries():
    logits = torch.tensor([[[0.0, math.log(3)], [0.0, 0.0]], [[0.0, 0.0], [0.0, math.log(7)]]])
    target = torch.tensor([[1, -100], [0, 0]])
    first, second = -math.log(3 / 4), (math.log(2) + math.log(8)) / 2
    assert float(cross_entropy(logits, target, -100)) == pytest.approx((first + second) / 2)


def test_cross_entropy_ignores_rows_without_candidates():
    logits = torch.tensor([[[0.0, 0.0, -INF], [-INF, -INF, -INF]]], requires_grad=True)
    loss = cross_entropy(logits, torch.tensor([[1, -1]]), -1)
    loss.backward()
    assert loss.item() == pytest.approx(math.log(2))
    assert logits.grad.isfinite().all()
    assert logits.grad[0, 0, 0] == pytest.approx(0.5)


def test_cross_entropy_against_several_right_classes_takes_what_they_hold_together():
    logits = torch.tensor([[[0.0, math.log(2), 0.0, -INF], [-INF, -INF, -INF, -INF]]], requires_grad=True)
    right = torch.tensor([[[True, False, True, False], [False, False, False, False]]])
    loss = cross_entropy(logits, torch.tensor([[0, -1]]), -1, right=right)
    loss.backward()
    assert loss.item() == pytest.approx(math.log(2))
    assert logits.grad.isfinite().all()
    assert logits.grad[0, 0].tolist() == pytest.approx([-0.25, 0.5, -0.25, 0])


def test_right_choices_are_those_of_the_slot_and_only_of_the_final_target():
    batch = {
        "target": torch.tensor([[0, 2, -1]]),
        "right": torch.tensor([[True, True, True, True]]),
        "mask": torch.tensor([[[True, True, False, False], [False, False, True, False], [False, False, False, True]]]),
    }
    assert right_choices(batch["target"], batch)[0].int().tolist() == [[1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]
    drafted = torch.tensor([[1, 2, -1]])
    assert right_choices(drafted, batch)[0].int().tolist() == [[0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]
    head = TrmHead(make_spec("slots"))
    answers = torch.tensor([[[1, 2, 3]], [[1, 2, -1]], [[-1, 2, 3]], [[2, 2, 3]], [[1, 3, 3]]])
    assert [bool(is_right(head, y, batch, 0.0)) for y in answers] == [True, True, False, False, False]


@pytest.mark.parametrize("kind", ["softmax", "stablemax"])
def test_cross_entropy_without_any_candidate_is_zero(kind):
    logits = torch.zeros(2, 3, 0, requires_grad=True)
    loss = cross_entropy(logits, torch.full((2, 3), -1), -1, kind)
    loss.backward()
    assert loss.item() == 0


def test_stablemax_by_hand():
    # s(2) = 3, s(-1) = 1/2, s(-inf) = 0
    share = log_stablemax(torch.tensor([[2.0, -1.0, -INF]], dtype=torch.float64)).exp()
    assert share[0].tolist() == pytest.approx([3 / 3.5, 0.5 / 3.5, 0])
    logits = torch.tensor([[[2.0, -1.0, -INF], [-INF, -INF, -INF]]], requires_grad=True)
    loss = cross_entropy(logits, torch.tensor([[1, -1]]), -1, "stablemax")
    loss.backward()
    assert loss.item() == pytest.approx(-math.log(0.5 / 3.5))
    assert logits.grad.isfinite().all()


def test_left_out_penalty_by_hand():
    # Candidate 2 leaves a slot out. Slot 0 must not: p(omit) = 2/4. Slot 1 is left out rightly, slot 2 has no target.
    logits = torch.tensor([[[0.0, 0.0, math.log(2)], [0.0, 0.0, 5.0], [0.0, 0.0, 5.0], [-INF, -INF, 1.0]]])
    batch = {"omit": torch.tensor([[False, False, True]]), "target": torch.tensor([[0, 2, -1, 2]])}
    assert float(left_out_penalty(logits, batch)) == pytest.approx(math.log(2))
    batch["required"] = torch.tensor([[True, True, False, True]])
    expected = (math.log(2) + math.log((2 + math.e**5) / 2)) / 2  # slot 3 can only be left out: nothing to ask of it
    logits.requires_grad_()
    loss = left_out_penalty(logits, batch)
    loss.backward()
    assert loss.item() == pytest.approx(expected)
    assert logits.grad.isfinite().all()


def test_smoothness_by_hand():
    y = torch.tensor([[[0.0, 0.0], [1.0, 0.0], [4.0, 0.0], [9.0, 8.0]]])
    # second differences: joint 0: 2, 2; joint 1: 0, 8; over std 2 and 4: 1, 1, 0, 2
    assert float(smoothness(y, torch.tensor([2.0, 4.0]))) == pytest.approx((1 + 1 + 0 + 4) / 4)
    assert float(smoothness(y[:, :2], torch.tensor([2.0, 4.0]))) == 0


def test_limit_excess_by_hand():
    head = action_head(lower=-1.0, upper=1.0, velocity=2.0)
    y = torch.tensor([[[0.0, 0.0], [3.0, 0.0], [1.0, -5.0], [1.0, -5.0]]], requires_grad=True)
    # outside: 2 in joint 0 (1 std), 4 twice in joint 1 (1 std each); too fast: 3 - 2 (1/2 std), 5 - 2 (3/4 std)
    loss = limit_excess(head, y)
    assert loss.item() == pytest.approx((1 + 1 + 1) / 8 + (0.25 + 0.5625) / 8)
    loss.backward()
    assert y.grad.isfinite().all()


def test_limits_that_are_infinite_cost_nothing():
    y = torch.randn(2, 4, 2, requires_grad=True)
    loss = limit_excess(action_head(), y)
    loss.backward()
    assert loss.item() == 0
    assert not y.grad.any()


def test_action_loss_and_halt_by_hand():
    head = action_head()
    y = torch.zeros(2, 4, 2)
    target = torch.zeros(2, 4, 2)
    target[1, :, 0] = 2.0  # one std in joint 0: mean square 1/2, root 0.707
    out = StepOutput(y, None, torch.tensor([0.0, math.log(3)]))
    batch = {"target": target, "y0": y}
    assert action_error(head, y, target).tolist() == pytest.approx([0, 0.5**0.5])
    loss = step_loss(head, out, target, batch, LossConfig(halt=0.5, halt_tolerance=0.7))
    assert loss.right.tolist() == [True, False]
    assert float(loss.terms["answer"]) == pytest.approx(0.25)
    assert float(loss.terms["halt"]) == pytest.approx(0.5 * (math.log(2) + math.log(4)) / 2)
    assert float(loss.total) == pytest.approx(sum(float(t) for t in loss.terms.values()))
    assert is_right(head, y, batch, 0.71).tolist() == [True, True]


def test_right_means_every_supervised_entry():
    head = TrmHead(make_spec("tokens", answer_rows=3))
    y = torch.tensor([[1, 2, 3], [1, 2, 3], [1, 2, 3]])
    batch = {"target": torch.tensor([[1, 2, 3], [1, -100, 3], [1, 2, 0]])}
    assert is_right(head, y, batch, 0).tolist() == [True, True, False]


def test_targets_move_from_the_draft_to_the_answer():
    head = TrmHead(make_spec("actions", answer_rows=2, dof=1))
    batch = {"y0": torch.zeros(1, 2, 1), "target": torch.full((1, 2, 1), 4.0)}
    order = torch.zeros(1, 2)
    assert [float(step_target(head, batch, k, 4, order).mean()) for k in (1, 2, 3, 4)] == [1, 2, 3, 4]
    assert torch.equal(step_target(head, batch, 1, 4, None), batch["target"])


def test_targets_of_slots_and_tokens_are_revealed_for_good():
    order = torch.tensor([[0.1, 0.6, 0.3, 0.9]])
    batch = {"y0": torch.tensor([[0, 0, -1, 0]]), "target": torch.tensor([[1, 1, 1, -1]])}
    slots = [step_target(TrmHead(make_spec("slots")), batch, k, 4, order).tolist()[0] for k in (1, 2, 3, 4)]
    assert slots == [[1, 0, -1, -1], [1, 0, 1, -1], [1, 1, 1, -1], [1, 1, 1, -1]]
    batch = {"x": torch.tensor([[0, 0, 5, 0]]), "target": torch.tensor([[1, 2, 3, -100]])}
    tokens = [step_target(TrmHead(make_spec("tokens")), batch, k, 2, order).tolist()[0] for k in (1, 2)]
    assert tokens == [[1, 0, 3, -100], [1, 2, 3, -100]]


def test_losses_of_random_slots_have_finite_gradients():
    rng = np.random.default_rng(0)
    spec = make_spec("slots")
    mask = torch.from_numpy(rng.random((8, 4, 6)) < 0.3)
    scores = torch.randn(8, 4, 6, requires_grad=True)
    logits = scores.masked_fill(~mask, -INF)
    target = torch.where(mask.any(-1), mask.int().argmax(-1), -1)
    batch = {"target": target, "omit": torch.from_numpy(rng.random((8, 6)) < 0.3)}
    out = StepOutput(target, logits, torch.zeros(8, requires_grad=True))
    for kind in ("softmax", "stablemax"):
        loss = step_loss(TrmHead(spec), out, target, batch, LossConfig(left_out=1.0, cross_entropy=kind))
        (gradient,) = torch.autograd.grad(loss.total, scores, retain_graph=True)
        assert loss.total.isfinite()
        assert gradient.isfinite().all()
