"""The torch head against the float64 oracle: same answers, whatever the padding; gradients where they belong."""

from __future__ import annotations

import numpy as np
import pytest
from models import CASES, make_spec, random_weights

from trm_edge.golden import random_inputs, relative_error, run_reference
from trm_edge.inputs import check_inputs
from trm_edge.reference import ReferenceModel

torch = pytest.importorskip("torch")

from trm_edge.train.data import to_tensors  # noqa: E402
from trm_edge.train.model import TrmHead, load_weights, masked_argmax, rms_norm  # noqa: E402

torch.set_num_threads(1)

STEPS = 3
FLOAT32_TOLERANCE = 1e-5

VARIANTS = [(kind, mixer, {}) for kind, mixer in CASES]
VARIANTS += [("actions", mixer, {"feature_size": 4}) for mixer in ("rope", "learned", "mlp_t")]
VARIANTS += [("actions", "rope", {"draft": "optional"}), ("actions", "rope", {"max_context": 0, "context_size": 0})]
VARIANTS += [("slots", "rope", {"max_context": 0, "context_size": 0}), ("actions", "mlp_t", {"num_layers": 1})]
VARIANTS += [
    ("tokens", "rope", {"registers": 0, "puzzle_size": 0}),
    ("tokens", "mlp_t", {"l_cycles": 1, "h_cycles": 1}),
]


def make_batch(calls: list[dict], pad: float = 0.0) -> dict:
    """Return calls of ``refine`` of differing sizes as one padded batch, what is padded being ``pad``."""
    batch = {}
    for name in calls[0]:
        arrays = [np.asarray(call[name]) for call in calls if call[name] is not None]
        if not arrays:
            continue
        most = np.max([a.shape for a in arrays], axis=0)
        fill = {"f": pad, "i": -1, "b": False}[arrays[0].dtype.kind]
        stack = np.full((len(arrays), *most), fill, arrays[0].dtype)
        for i, array in enumerate(arrays):
            stack[(i, *(slice(n) for n in array.shape))] = array
        batch[name] = stack
    if "puzzle_id" not in batch:
        batch["x_len"] = np.asarray([len(call["x"]) for call in calls])
    if "slots" in batch:
        batch["s_len"] = np.asarray([len(call["slots"]) for call in calls])
        batch["m_len"] = np.asarray([len(call["candidates"]) for call in calls])
    return to_tensors(batch)


def make_calls(spec, count: int = 3) -> list[dict]:
    """Return calls whose sizes differ where the spec lets them."""
    rng = np.random.default_rng(5)
    calls = []
    for i in range(count):
        sizes = {}
        if spec.mixer == "attention" and spec.answer != "tokens":
            sizes["context_rows"] = max(0, spec.max_context - 2 * i)
            if spec.answer == "slots":
                sizes |= {"answer_rows": spec.answer_rows - i, "candidates": spec.max_candidates - i}
        calls.append(random_inputs(spec, rng, **sizes))
    return calls


def assert_agrees(out, index: int, truth) -> None:
    """Compare example ``index`` of a step with the oracle's step; larger parts of a batch are padding."""
    halt = abs(float(out.halt_logit[index]) - truth.halt_logit) / max(1, abs(truth.halt_logit))
    assert halt <= FLOAT32_TOLERANCE
    if truth.logits is None:
        assert relative_error(out.y[index].numpy(), truth.y) <= FLOAT32_TOLERANCE
        return
    rows, width = truth.logits.shape
    logits = out.logits[index].numpy()
    assert relative_error(logits[:rows, :width], truth.logits) <= FLOAT32_TOLERANCE
    assert np.isneginf(logits[:, width:]).all()
    assert (out.y[index, :rows].numpy() == truth.y).all()
    assert (out.y[index, rows:].numpy() == -1).all()


@pytest.mark.parametrize(("kind", "mixer", "changes"), VARIANTS)
def test_agrees_with_the_oracle_in_a_padded_batch(kind, mixer, changes):
    spec = make_spec(kind, mixer, **changes)
    tensors = random_weights(spec)
    calls = make_calls(spec)
    head, oracle = load_weights(TrmHead(spec), tensors), ReferenceModel(spec, tensors)
    with torch.no_grad():
        together = head.refine(make_batch(calls, pad=np.nan), STEPS)
        alone = [head.refine(make_batch([call]), STEPS) for call in calls]
    for i, call in enumerate(calls):
        truths = run_reference(oracle, check_inputs(spec, **call), STEPS)
        for k, truth in enumerate(truths):
            assert_agrees(together[k], i, truth)
            assert_agrees(alone[i][k], 0, truth)


@pytest.mark.parametrize(("kind", "mixer"), CASES)
def test_state_dict_has_the_names_and_shapes_of_the_spec(kind, mixer):
    spec = make_spec(kind, mixer, **({"feature_size": 4} if kind == "actions" else {}))
    head = TrmHead(spec)
    assert {name: tuple(t.shape) for name, t in head.state_dict().items()} == spec.tensor_shapes()
    assert sum(p.numel() for p in head.parameters()) == spec.parameter_count()
    moved = TrmHead(spec).double()
    assert all(moved.w(name).dtype == torch.float64 for name in spec.tensor_shapes())


def test_absent_draft_is_the_mean_action():
    spec = make_spec("actions", "rope", draft="optional")
    tensors = random_weights(spec)
    (call,) = make_calls(spec, 1)
    truths = run_reference(ReferenceModel(spec, tensors), check_inputs(spec, call["x"], None), 2)
    with torch.no_grad():
        outs = load_weights(TrmHead(spec), tensors).refine(make_batch([{"x": call["x"], "y0": None}]), 2)
    for out, truth in zip(outs, truths, strict=True):
        assert_agrees(out, 0, truth)


@pytest.mark.parametrize("positions", ["rope", "learned", "none"])
@pytest.mark.parametrize("kind", ["actions", "slots"])
def test_padding_changes_neither_answers_nor_gradients(kind, positions):
    spec = make_spec(kind, positions)
    head = load_weights(TrmHead(spec), random_weights(spec))
    calls = make_calls(spec)

    def gradients(pad: float) -> tuple[list, dict]:
        head.zero_grad()
        outs = head.refine(make_batch(calls, pad), 2)
        score = sum(
            (torch.where(o.logits.isfinite(), o.logits, 0) if kind == "slots" else o.y).sin().sum() for o in outs
        )
        (score + outs[-1].halt_logit.sum()).backward()
        return outs, {name: p.grad.clone() for name, p in head.named_parameters()}

    zeros, with_zeros = gradients(0.0)
    loud, with_loud = gradients(1e6)
    assert all(torch.equal(a.halt_logit, b.halt_logit) for a, b in zip(zeros, loud, strict=True))
    assert all(torch.equal(with_zeros[name], with_loud[name]) for name in with_zeros)
    assert all(with_zeros[name].isfinite().all() for name in with_zeros)


@pytest.mark.parametrize("mixer", ["rope", "mlp_t"])
def test_differentiable_in_x_and_y0(mixer):
    spec = make_spec(
        "actions", mixer, hidden_size=12, inner_size=6, answer_rows=2, max_context=2, context_size=3, dof=2
    )
    head = load_weights(TrmHead(spec), random_weights(spec)).double().requires_grad_(False)
    torch.manual_seed(0)
    x = torch.randn(2, 2, 3, dtype=torch.float64, requires_grad=True)
    y0 = torch.randn(2, 2, 2, dtype=torch.float64, requires_grad=True)

    def answer(x, y0):
        outs = head.refine({"x": x, "y0": y0}, 2)
        return outs[-1].y, outs[-1].halt_logit

    assert torch.autograd.gradcheck(answer, (x, y0))


def test_last_cycle_only_gives_gradients_of_one_cycle():
    spec = make_spec("tokens", "mlp_t", h_cycles=3)
    head = load_weights(TrmHead(spec), random_weights(spec))
    batch = make_batch(make_calls(spec))
    _, full = head.step(head.begin(batch), batch)
    full_grad = torch.autograd.grad(full.logits.sin().sum(), head.w("y_init"))[0]
    _, out = head.step(head.begin(batch), batch, grad_cycles="last")
    assert torch.equal(out.logits, full.logits)
    assert torch.autograd.grad(out.logits.sin().sum(), head.w("y_init"), allow_unused=True)[0] is None
    assert full_grad.abs().max() > 0


def test_an_untrained_action_head_returns_the_draft_and_does_not_halt():
    spec = make_spec("actions")
    batch = make_batch(make_calls(spec))
    with torch.no_grad():
        out = TrmHead(spec).refine(batch, 2)[-1]
    assert torch.equal(out.y, batch["y0"])
    assert (out.halt_logit == -5).all()


def test_initial_weights_have_the_stated_spread():
    torch.manual_seed(0)
    head = TrmHead(make_spec("tokens", "learned", hidden_size=96, inner_size=256, vocab_size=500))
    wide = head.w("blocks.0.mlp.gate_up.weight")
    assert float(wide.detach().std()) == pytest.approx(96**-0.5, rel=0.02)
    assert float(wide.detach().abs().max()) <= 2 / 0.8796 * 96**-0.5
    assert float(head.w("token_embedding").detach().std()) == pytest.approx(0.5**0.5, rel=0.02)
    assert not head.w("halt_head.weight").any()


@pytest.mark.parametrize(("kind", "mixer"), CASES)
def test_blocks_with_zeroed_residuals_are_norms_of_their_input_and_learn(kind, mixer):
    torch.manual_seed(0)
    spec = make_spec(kind, mixer)
    head = TrmHead(spec)
    head.zero_residuals()
    batch = make_batch(make_calls(spec, count=1))
    h = torch.randn(head.begin(batch).y.shape)
    out = head._net(h, head._rows(batch), 1)
    normed = h
    for _ in range(spec.num_layers):
        normed = rms_norm(normed, 0 if spec.mixer == "mlp_t" else -1, spec.norm_eps)
        normed = rms_norm(normed, -1, spec.norm_eps)
    torch.testing.assert_close(out, normed)
    (out * torch.randn(h.shape)).sum().backward()
    for name, weight in head.named_parameters():
        if name.startswith("blocks.") and name.endswith((".out.weight", ".down.weight")):
            assert weight.grad.any(), name


def test_masked_argmax_takes_the_lowest_of_ties_and_none_of_an_empty_row():
    inf = float("inf")
    logits = torch.tensor([[1.0, 2, 2], [-inf, -inf, -inf], [-inf, -3, -inf]])
    assert masked_argmax(logits).tolist() == [1, -1, 1]
    assert masked_argmax(torch.zeros(2, 0)).tolist() == [-1, -1]
