"""Graphs with Q/DQ against the fake-quantised oracle, and what a form cannot express."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from models import CASES, calibrated, make_bundle
from runners import plain_bundle

import trm_edge
from trm_edge.backends.graph import graph_feeds
from trm_edge.backends.onnx_runtime import create_session
from trm_edge.bundle import Bundle, bundle_bytes, read_bundle, write_bundle
from trm_edge.cli import main
from trm_edge.errors import Status, TrmBundleError, TrmInputError, TrmUnsupportedError
from trm_edge.golden import random_inputs, relative_error, run_reference, verify
from trm_edge.graph import parse_metadata
from trm_edge.inputs import check_inputs
from trm_edge.quantization import QuantizedModel
from trm_edge.reference import ReferenceModel

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from trm_edge.export import build_onnx  # noqa: E402
from trm_edge.export.onnx_products import RoundedProducts  # noqa: E402

DATA = Path(trm_edge.__file__).parent / "data"
FORMS = [("static", loop) for loop in ("unrolled", "onnx-loop", "step")] + [("static-per-step", "unrolled")]


def refiner_of(bundle: Bundle, loop: str, steps: int = 3) -> trm_edge.Refiner:
    model = build_onnx(bundle, loop, steps)
    onnx.checker.check_model(model, full_check=True)
    return trm_edge.load(model.SerializeToString(), backend="onnxruntime")


def values(output: Any) -> Any:
    return output.y if output.logits is None else output.logits


def assert_follows(bundle: Bundle, loop: str, calls: int = 8) -> None:
    """The graph's answers lie by the fake-quantised oracle's, far nearer than those lie by the float oracle's.

    float32 may round an activation at a tie to the other neighbour, which moves an answer by a part of a step of the
    grid: medians over calls are compared.
    """
    assert bundle.quantization is not None
    refiner = refiner_of(bundle, loop)
    assert refiner.precision == bundle.quantization.summary == refiner.clone().precision
    rounded = QuantizedModel(bundle.spec, bundle.tensors, bundle.quantization)
    exact = ReferenceModel(bundle.spec, bundle.tensors)
    rng, near, far = np.random.default_rng(4), [], []
    for _ in range(calls):
        call = random_inputs(bundle.spec, rng)
        inputs = check_inputs(bundle.spec, **call)
        out = refiner.refine(**call, steps=3, trajectory=True)
        for k, (a, b) in enumerate(zip(*(run_reference(m, inputs, 3) for m in (rounded, exact)), strict=True)):
            got = out.trajectory[k] if out.logits is None else out.logits[k]  # type: ignore[index]
            near.append(relative_error(got, values(a)))
            far.append(relative_error(values(a), values(b)))
    assert np.median(near) <= 0.25 * np.median(far), (np.median(near), np.median(far))
    assert np.min(near) <= 1e-4, "not once the same grid"


@pytest.mark.parametrize(("scheme", "loop"), FORMS)
@pytest.mark.parametrize(("kind", "mixer"), CASES)
def test_graphs_follow_the_fake_quantised_oracle(kind: str, mixer: str, scheme: str, loop: str) -> None:
    assert_follows(calibrated(plain_bundle(kind, mixer, l_cycles=1), scheme, steps=3), loop)


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
@pytest.mark.parametrize("mixer", ["rope", "mlp_t"])
def test_mixed_precisions_follow_it_too(mixer: str, precision: str) -> None:
    assert_follows(calibrated(plain_bundle("tokens", mixer), "static", steps=3, down=precision), "unrolled")


def test_matrices_all_in_bf16_need_no_scales() -> None:
    bundle = calibrated(plain_bundle("actions"), "dynamic", blocks="bf16")
    assert_follows(bundle, "onnx-loop")


@pytest.mark.parametrize("name", ["example", "metaworld", "sudoku"])
def test_shipped_heads_verify_as_int8_graphs(name: str) -> None:
    bundle = calibrated(read_bundle(DATA / f"{name}.trm"), "static")
    checks = verify(refiner_of(bundle, "onnx-loop"), bundle)
    assert checks and all(check.passed for check in checks), [c for c in checks if not c.passed]


def test_clipping_is_symmetric() -> None:
    """QuantizeLinear alone would reach -128."""
    bundle = calibrated(plain_bundle("actions"), "static")
    assert bundle.quantization is not None
    small = {name: scale / np.float32(4) for name, scale in bundle.quantization.input_scale.items()}
    quantization = type(bundle.quantization)("static", bundle.quantization.precision, small)
    assert_follows(Bundle(bundle.spec, bundle.tensors, quantization=quantization), "step")


@pytest.mark.parametrize("loop", ["unrolled", "onnx-loop", "step"])
@pytest.mark.parametrize("kind", ["actions", "slots", "tokens"])
def test_a_row_that_overflows_is_nonfinite_as_in_the_fused_engine(kind: str, loop: str) -> None:
    bundle = calibrated(plain_bundle(kind, l_cycles=1), "static", steps=3)
    call = random_inputs(bundle.spec, np.random.default_rng(0))
    if kind == "tokens":
        embedding = bundle.tensors["token_embedding"].copy()
        embedding[call["x"][1]] = 1e20
        bundle = replace(bundle, tensors={**bundle.tensors, "token_embedding": embedding})
    else:
        call["x"][1] = 1e20
    got = refiner_of(bundle, loop).refine(**call, steps=3)
    fused = trm_edge.load(bundle_bytes(bundle)).refine(**call, steps=3)
    assert got.status == fused.status == Status.NONFINITE and got.steps_run == fused.steps_run == 0
    np.testing.assert_array_equal(got.y, fused.y)


@pytest.mark.parametrize("kind", ["actions", "slots"])
def test_nan_in_the_context_reaches_every_output(kind: str) -> None:
    """For hosts that run the graph without this package, which ends such a call before the graph runs."""
    bundle = calibrated(plain_bundle(kind), "static")
    inputs = check_inputs(bundle.spec, **random_inputs(bundle.spec, np.random.default_rng(0)))
    inputs.x[1, 0] = np.nan
    session = create_session(build_onnx(bundle, "unrolled", 2).SerializeToString(), 1)
    name = "y_steps" if kind == "actions" else "logits_steps"
    values, halt = session.run([name, "halt_logits"], graph_feeds(bundle.spec, inputs, inputs.y0))
    assert np.isnan(halt).all() and not np.isfinite(values).any()  # logits outside the mask are -inf


@pytest.mark.parametrize("loop", ["unrolled", "onnx-loop", "step"])
def test_looking_for_nan_changes_no_answer(loop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = calibrated(plain_bundle("slots"), "static")
    call = random_inputs(bundle.spec, np.random.default_rng(0))
    out = refiner_of(bundle, loop).refine(**call, steps=3, trajectory=True)
    monkeypatch.setattr(RoundedProducts, "hides_nan", False)
    plain = refiner_of(bundle, loop).refine(**call, steps=3, trajectory=True)
    for name in ("y", "logits", "halt_logits"):
        np.testing.assert_array_equal(getattr(out, name), getattr(plain, name))


@pytest.mark.parametrize("mixer", ["rope", "mlp_t"])
def test_an_output_channel_of_zeros_has_a_scale_that_engines_take(mixer: str) -> None:
    bundle = plain_bundle("actions", mixer)
    name = next(name for name in bundle.tensors if name.endswith("gate_up.weight"))
    weight = bundle.tensors[name].copy()
    weight[3] = 0
    bundle = calibrated(replace(bundle, tensors={**bundle.tensors, name: weight}), "static")
    graph = build_onnx(bundle, "unrolled", 1).graph
    scales = [onnx.numpy_helper.to_array(t) for t in graph.initializer if t.name.endswith(".scale")]
    assert scales and all((scale > 0).all() for scale in scales)
    assert_follows(bundle, "unrolled")


def test_everything_is_inlined_and_weights_are_shared() -> None:
    bundle = calibrated(plain_bundle("actions"), "static-per-step", steps=3)
    one, three = (build_onnx(bundle, "unrolled", steps) for steps in (1, 3))
    assert not one.functions and not three.functions
    weights = [t for t in three.graph.initializer if t.name.startswith("blocks.")]
    assert {t.name for t in weights} == {t.name for t in one.graph.initializer if t.name.startswith("blocks.")}
    kinds = {t.name.rsplit(".", 2)[-2 if t.name.endswith(".t") else -1]: t.data_type for t in weights}
    assert kinds == {"int8": onnx.TensorProto.INT8, "scale": onnx.TensorProto.FLOAT}
    spec, evaluations = bundle.spec, 3 * bundle.spec.h_cycles * (bundle.spec.l_cycles + 1)
    count = [node.op_type for node in three.graph.node].count
    assert count("QuantizeLinear") == 4 * spec.num_layers * evaluations
    assert count("DequantizeLinear") == 2 * count("QuantizeLinear")
    made = {node.output[0]: node for node in three.graph.node}
    block = [n for n in three.graph.node if n.op_type == "MatMul" and all(i in made for i in n.input)]
    dequantized = [n for n in block if all(made[i].op_type == "DequantizeLinear" for i in n.input)]
    assert len(dequantized) == count("QuantizeLinear")


@pytest.mark.parametrize(
    ("scheme", "loop", "message"),
    [
        *(("dynamic", loop, "calibrate with --scheme static") for loop in ("unrolled", "onnx-loop", "step")),
        *(("static-per-step", loop, "export it with --loop unrolled") for loop in ("onnx-loop", "step")),
    ],
)
def test_a_form_refuses_what_it_cannot_express(
    scheme: str, loop: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = tmp_path / "head.trm", tmp_path / "head.onnx"
    write_bundle(source, calibrated(make_bundle("actions"), scheme))
    with pytest.raises(TrmUnsupportedError, match=message):
        build_onnx(read_bundle(source), loop)
    assert main(["export", str(source), str(out), "--loop", loop]) == 2
    assert message in capsys.readouterr().err and not out.exists()
    assert main(["export", str(source), str(out), "--loop", loop, "--precision", "fp32"]) == 0
    assert trm_edge.load(out).precision == "fp32"
    assert main(["verify", str(out), "--golden", str(source)]) == 0


def test_an_exported_graph_verifies_against_its_bundle(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = tmp_path / "head.trm", tmp_path / "head.onnx"
    write_bundle(source, calibrated(make_bundle("tokens", "mlp_t"), "static-per-step"))
    assert main(["export", str(source), str(out)]) == 0
    assert main(["verify", str(out), "--golden", str(source)]) == 0
    assert "onnxruntime, int8" in capsys.readouterr().out


def test_precisions_that_there_are_not() -> None:
    bundle = plain_bundle("actions")
    with pytest.raises(TrmInputError, match="precision: expected fp32"):
        build_onnx(bundle, precision="int4")
    metadata = {p.key: p.value for p in build_onnx(bundle).metadata_props}
    assert "trm_edge.precision" not in metadata and parse_metadata(metadata).precision == "fp32"
    with pytest.raises(TrmBundleError, match=r"trm_edge\.precision: expected one of fp32, fp16, bf16, int8, fp8"):
        parse_metadata(metadata | {"trm_edge.precision": "int4"})
