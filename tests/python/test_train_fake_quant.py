"""Training through a rounded forward: it is the oracle's, gradients pass it, and a run starts from trained weights."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from models import CASES, calibrated, make_spec, random_weights
from train_cases import SPECS, make_config

from trm_edge.bundle import Bundle, write_bundle
from trm_edge.errors import TrmInputError
from trm_edge.golden import random_inputs, relative_error, run_reference
from trm_edge.inputs import check_inputs
from trm_edge.quantization import SCHEMES, Quantization, QuantizedModel, uniform
from trm_edge.reference import ReferenceModel
from trm_edge.spec import TrmSpec

torch = pytest.importorskip("torch")

from test_train_model import make_batch  # noqa: E402

from trm_edge.train import Trainer, TrmHead, load_weights, parse_config  # noqa: E402
from trm_edge.train.evaluation import evaluate  # noqa: E402
from trm_edge.train.model import fake_bf16, fake_int8, fake_static  # noqa: E402

torch.set_num_threads(1)


def narrowed(bundle: Bundle, by: float) -> Quantization:
    """Return the calibration of ``bundle`` with input scales so many times smaller: values are clipped."""
    assert bundle.quantization is not None
    scales = {name: scale / np.float32(by) for name, scale in bundle.quantization.input_scale.items()}
    return replace(bundle.quantization, input_scale=scales)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize(("kind", "mixer"), CASES)
def test_the_forward_is_the_fake_quantised_oracle(kind: str, mixer: str, scheme: str) -> None:
    """In float64, so that no tie is rounded the other way: the same numbers, also of clipped and of bf16 matrices."""
    spec = make_spec(kind, mixer)
    tensors = random_weights(spec)
    precision = {"blocks.0.mlp.down": "bf16", "blocks.1.mlp.gate_up": "fp32"}
    how = narrowed(calibrated(Bundle(spec, tensors), scheme, steps=2, **precision), 3)
    call = random_inputs(spec, np.random.default_rng(1))
    batch = {n: t.double() if t.is_floating_point() else t for n, t in make_batch([call, call]).items()}
    outs = load_weights(TrmHead(spec, how).double(), tensors).refine(batch, 3)
    inputs = check_inputs(spec, **call)
    rounded = run_reference(QuantizedModel(spec, tensors, how), inputs, 3)
    exact = run_reference(ReferenceModel(spec, tensors), inputs, 3)
    for out, want, other in zip(outs, rounded, exact, strict=True):
        got, want, other = (o.y if o.logits is None else o.logits for o in (out, want, other))
        assert relative_error(got[1].detach().numpy(), want) <= 1e-9 < 1e-4 < relative_error(other, want)


def test_gradients_pass_the_rounding() -> None:
    values = torch.tensor([[1.0, 0.3, -0.7], [0.0, 0.0, 0.0]], requires_grad=True)
    rounded = fake_int8(values, -1)
    np.testing.assert_allclose(rounded[0].detach() * 127, [127, 38, -89], rtol=1e-6)
    (rounded * torch.tensor([1.0, 2.0, 3.0])).sum().backward()
    assert values.grad is not None
    np.testing.assert_array_equal(values.grad, [[1, 2, 3], [1, 2, 3]])
    spec = make_spec("tokens", "mlp_t")
    head = load_weights(TrmHead(spec, uniform(spec, "int8")), random_weights(spec))
    call = random_inputs(spec, np.random.default_rng(2))
    head.refine(make_batch([call, call]), 2)[-1].logits.sum().backward()  # type: ignore[union-attr]
    gradients = {name: p.grad for name, p in head.named_parameters() if name.startswith("blocks.")}
    assert all(g is not None and bool(g.abs().sum() > 0) for g in gradients.values())


def test_what_is_clipped_has_no_gradient() -> None:
    values = torch.tensor([1.0, 0.304, -0.7, 4.0, -3.0], requires_grad=True)
    rounded = fake_static(values, 0.01)
    np.testing.assert_allclose(rounded.detach(), [1, 0.3, -0.7, 1.27, -1.27], rtol=1e-6)
    rounded.sum().backward()
    assert values.grad is not None
    np.testing.assert_array_equal(values.grad, [1, 1, 1, 0, 0])


def test_bf16_is_rounded_to_even_and_has_a_gradient() -> None:
    values = torch.tensor([1.00390625, 1.01171875, -3.0], requires_grad=True)
    rounded = fake_bf16(values)
    np.testing.assert_array_equal(rounded.detach(), [1.0, 1.015625, -3.0])
    rounded.sum().backward()
    assert values.grad is not None
    np.testing.assert_array_equal(values.grad, [1, 1, 1])


def test_a_run_fine_tunes_a_trained_head(tmp_path: Path) -> None:
    spec = TrmSpec(**SPECS["tokens"])
    first = parse_config(make_config("tokens", tmp_path), tmp_path)
    result = Trainer(first, tmp_path / "first", quiet=True).run()
    tables = {"start": "first/model.pt", "fake_quant": "int8", "max_updates": 20, "learning_rate": 1e-4}
    tuned = parse_config(make_config("tokens", tmp_path, train=tables), tmp_path)
    trainer = Trainer(tuned, tmp_path / "tuned", quiet=True)
    before, after = torch.load(result.model, weights_only=True)["state_dict"], trainer.head.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    second = trainer.run()
    assert result.evaluation is not None and second.evaluation is not None
    assert second.evaluation.by_step[-1] >= result.evaluation.by_step[-1] - 0.05
    rates = json.loads((tmp_path / "tuned" / "log.jsonl").read_text().splitlines()[-1])
    assert rates["kind"] == "validation"
    # a bundle does as well, and a head of other sizes is refused by name
    tensors = {name: value.numpy() for name, value in before.items()}
    write_bundle(tmp_path / "first.trm", Bundle(spec, tensors))
    again = parse_config(make_config("tokens", tmp_path, train=tables | {"start": "first.trm"}), tmp_path)
    assert torch.equal(Trainer(again, tmp_path / "b", quiet=True).head.w("y_init"), before["y_init"])
    other = parse_config(make_config("tokens", tmp_path, train=tables, spec={"inner_size": 32}), tmp_path)
    with pytest.raises(TrmInputError, match=r"train.start: .*model.pt has inner_size = 64, \[spec\] says 32"):
        Trainer(other, tmp_path / "c", quiet=True)


def test_fine_tuning_wins_back_what_coarse_scales_lose(tmp_path: Path) -> None:
    spec = TrmSpec(**SPECS["tokens"])
    result = Trainer(parse_config(make_config("tokens", tmp_path), tmp_path), tmp_path / "first", quiet=True).run()
    tensors = {n: t.numpy() for n, t in torch.load(result.model, weights_only=True)["state_dict"].items()}
    coarse = replace(calibrated(Bundle(spec, tensors), "static"), quantization=None)
    coarse = replace(coarse, quantization=narrowed(calibrated(coarse, "static"), 1 / 20))  # about 6 levels
    write_bundle(tmp_path / "coarse.trm", coarse)
    tables = {"start": "coarse.trm", "fake_quant": "calibrated", "max_updates": 100, "learning_rate": 1e-3}
    config = parse_config(make_config("tokens", tmp_path, train=tables), tmp_path)
    trainer = Trainer(config, tmp_path / "tuned", quiet=True)
    assert trainer.validation_set is not None and result.evaluation is not None
    before = evaluate(trainer.averaged, trainer.validation_set, 4)
    after = trainer.run().evaluation
    assert after is not None
    assert before.by_step[-1] < result.evaluation.by_step[-1] - 0.1
    assert after.by_step[-1] > before.by_step[-1] + 0.1
    # a resumed run rounds as it did, or not at all
    write_bundle(tmp_path / "coarse.trm", replace(coarse, quantization=narrowed(coarse, 2)))
    with pytest.raises(TrmInputError, match=r"train.start: .*coarse.trm is calibrated otherwise than when the run"):
        Trainer(config, tmp_path / "tuned", resume=True, quiet=True)


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({"fake_quant": "int4"}, r"train\.fake_quant: expected one of none, int8, calibrated, got 'int4'"),
        ({"fake_quant": "calibrated"}, r"train\.fake_quant: .*train\.start, which must be a \.trm bundle .*got ''"),
        ({"fake_quant": "calibrated", "start": "model.pt"}, r"`trm-edge calibrate` wrote, got 'model.pt'"),
    ],
)
def test_other_roundings_are_refused(tables: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(TrmInputError, match=message):
        parse_config(make_config("tokens", tmp_path, train=tables), tmp_path)


def test_scales_that_are_not_there_are_asked_for(tmp_path: Path) -> None:
    spec = TrmSpec(**SPECS["tokens"])
    write_bundle(tmp_path / "plain.trm", Bundle(spec, random_weights(spec)))
    tables = {"start": "plain.trm", "fake_quant": "calibrated"}
    config = parse_config(make_config("tokens", tmp_path, train=tables), tmp_path)
    with pytest.raises(
        TrmInputError, match=r"train.fake_quant: .*plain.trm is not calibrated; run `trm-edge calibrate"
    ):
        Trainer(config, tmp_path / "run", quiet=True)
