"""Training through the int8 forward: it is the oracle's, gradients pass it, and a run starts from trained weights."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from models import CASES, make_spec, random_weights
from train_cases import SPECS, make_config

from trm_edge.bundle import Bundle, write_bundle
from trm_edge.errors import TrmInputError
from trm_edge.golden import random_inputs, relative_error, run_reference
from trm_edge.inputs import check_inputs
from trm_edge.quantization import QuantizedModel, uniform
from trm_edge.spec import TrmSpec

torch = pytest.importorskip("torch")

from test_train_model import make_batch  # noqa: E402

from trm_edge.train import Trainer, TrmHead, load_weights, parse_config  # noqa: E402
from trm_edge.train.model import fake_int8  # noqa: E402

torch.set_num_threads(1)


@pytest.mark.parametrize(("kind", "mixer"), CASES)
def test_the_forward_is_the_fake_quantised_oracle(kind: str, mixer: str) -> None:
    """In float64, so that no tie is rounded the other way: the same numbers."""
    spec = make_spec(kind, mixer)
    tensors = random_weights(spec)
    call = random_inputs(spec, np.random.default_rng(1))
    batch = {n: t.double() if t.is_floating_point() else t for n, t in make_batch([call, call]).items()}
    outs = load_weights(TrmHead(spec, "int8").double(), tensors).refine(batch, 3)
    inputs = check_inputs(spec, **call)
    model = QuantizedModel(spec, tensors, uniform(spec, "int8"))
    for out, truth in zip(outs, run_reference(model, inputs, 3), strict=True):
        got, want = (out.y, truth.y) if truth.logits is None else (out.logits, truth.logits)
        assert got is not None and want is not None
        assert relative_error(got[1].detach().numpy(), want) <= 1e-9


def test_gradients_pass_the_rounding() -> None:
    values = torch.tensor([[1.0, 0.3, -0.7], [0.0, 0.0, 0.0]], requires_grad=True)
    rounded = fake_int8(values, -1)
    np.testing.assert_allclose(rounded[0].detach() * 127, [127, 38, -89], rtol=1e-6)
    (rounded * torch.tensor([1.0, 2.0, 3.0])).sum().backward()
    assert values.grad is not None
    np.testing.assert_array_equal(values.grad, [[1, 2, 3], [1, 2, 3]])
    spec = make_spec("tokens", "mlp_t")
    head = load_weights(TrmHead(spec, "int8"), random_weights(spec))
    call = random_inputs(spec, np.random.default_rng(2))
    head.refine(make_batch([call, call]), 2)[-1].logits.sum().backward()  # type: ignore[union-attr]
    gradients = {name: p.grad for name, p in head.named_parameters() if name.startswith("blocks.")}
    assert all(g is not None and bool(g.abs().sum() > 0) for g in gradients.values())


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


def test_other_roundings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TrmInputError, match=r"train\.fake_quant: expected one of none, int8, got 'int4'"):
        parse_config(make_config("tokens", tmp_path, train={"fake_quant": "int4"}), tmp_path)
