"""Graphs in the formats of TensorRT engines, run on the CPU and compared with oracles; how a device makes the weights.

These graphs are what engines are built from: all of an engine's numbers that can be checked without a GPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from models import CASES, calibrated
from runners import plain_bundle

import trm_edge
from trm_edge.backends.graph import graph_feeds
from trm_edge.bundle import Bundle
from trm_edge.engine import stored_matrix
from trm_edge.errors import TrmInputError, TrmUnsupportedError
from trm_edge.golden import random_inputs, relative_error, run_reference
from trm_edge.inputs import check_inputs
from trm_edge.quantization import QuantizedModel, uniform
from trm_edge.reference import ReferenceModel, StepOutput

onnx = pytest.importorskip("onnx")
ml_dtypes = pytest.importorskip("ml_dtypes")
pytest.importorskip("onnxruntime")

from trm_edge.export.onnx_typed import build_typed  # noqa: E402

STEPS = 3
FORMS = ("unrolled", "onnx-loop", "step")
IN_TURN = [(*case, FORMS[i % 3]) for i, case in enumerate(CASES)] + [("actions", "rope", form) for form in FORMS[1:]]


class Float8Model(ReferenceModel):
    """The oracle with the block matrices rounded to float8: a weight by channel, an input by its int8 range."""

    def __init__(self, bundle: Bundle) -> None:
        super().__init__(bundle.spec, bundle.tensors)
        self._bundle = bundle

    def product(self, name: str, a: np.ndarray, k: int) -> np.ndarray:
        assert self._bundle.quantization is not None
        weight = self._bundle.tensors[f"{name}.weight"].astype(np.float64)
        most = np.abs(weight).max(axis=1, keepdims=True)
        scale = float(self._bundle.quantization.scale(name, k)) * 127 / 448
        return (_float8(a / scale) * scale) @ (_float8(weight / most * 448) * most / 448).T


def _float8(values: np.ndarray) -> np.ndarray:
    near: np.ndarray = np.clip(values, -448, 448).astype(np.float32).astype(ml_dtypes.float8_e4m3fn)
    return near.astype(np.float64)


def calls(bundle: Bundle, count: int = 6) -> Iterator[dict[str, Any]]:
    rng = np.random.default_rng(5)
    return (random_inputs(bundle.spec, rng) for _ in range(count))


def truth(model: ReferenceModel, call: dict[str, Any]) -> list[Any]:
    return [_values(step) for step in run_reference(model, check_inputs(model.spec, **call), STEPS)]


def _values(step: StepOutput) -> Any:
    return step.y if step.logits is None else step.logits


def errors(bundle: Bundle, precision: str, loop: str, model: ReferenceModel) -> list[float]:
    """Errors of a graph against an oracle, step by step over some calls."""
    graph = build_typed(bundle, loop, STEPS, precision)
    onnx.checker.check_model(graph, full_check=True)
    refiner = trm_edge.load(graph.SerializeToString(), backend="onnxruntime")
    assert refiner.precision == precision
    found = []
    for call in calls(bundle):
        out = refiner.refine(**call, steps=STEPS, trajectory=True)
        got = out.trajectory if out.logits is None else out.logits
        assert got is not None
        found += [relative_error(a, b) for a, b in zip(got, truth(model, call), strict=True)]
    return found


def rounding(bundle: Bundle, model: ReferenceModel) -> list[float]:
    """Errors of one oracle against the float64 one."""
    exact = ReferenceModel(bundle.spec, bundle.tensors)
    return [
        relative_error(a, b)
        for call in calls(bundle)
        for a, b in zip(truth(model, call), truth(exact, call), strict=True)
    ]


@pytest.mark.parametrize(("kind", "mixer", "loop"), IN_TURN)
def test_fp32_is_the_oracle(kind: str, mixer: str, loop: str) -> None:
    bundle = plain_bundle(kind, mixer, l_cycles=1)
    assert max(errors(bundle, "fp32", loop, ReferenceModel(bundle.spec, bundle.tensors))) <= 1e-5


@pytest.mark.parametrize(("kind", "mixer", "loop"), IN_TURN)
def test_fp16_errs_far_less_than_bf16_would(kind: str, mixer: str, loop: str) -> None:
    bundle = plain_bundle(kind, mixer, l_cycles=1)
    found = errors(bundle, "fp16", loop, ReferenceModel(bundle.spec, bundle.tensors))
    coarser = rounding(bundle, QuantizedModel(bundle.spec, bundle.tensors, uniform(bundle.spec, "bf16")))
    assert 1e-5 < np.median(found) <= 0.4 * np.median(coarser), (np.median(found), np.median(coarser))


@pytest.mark.parametrize(("kind", "mixer", "loop"), IN_TURN)
def test_fp8_follows_its_oracle(kind: str, mixer: str, loop: str) -> None:
    bundle = calibrated(plain_bundle(kind, mixer, l_cycles=1), "static", steps=STEPS)
    rounded = Float8Model(bundle)
    near, far = errors(bundle, "fp8", loop, rounded), rounding(bundle, rounded)
    assert np.median(near) <= 0.25 * np.median(far), (np.median(near), np.median(far))


@pytest.mark.parametrize("loop", FORMS)
@pytest.mark.parametrize(("kind", "mixer"), [("actions", "rope"), ("tokens", "mlp_t")])
def test_int8_follows_its_oracle(kind: str, mixer: str, loop: str) -> None:
    bundle = calibrated(plain_bundle(kind, mixer, l_cycles=1), "static", steps=STEPS)
    assert bundle.quantization is not None
    rounded = QuantizedModel(bundle.spec, bundle.tensors, bundle.quantization)
    near, far = errors(bundle, "int8", loop, rounded), rounding(bundle, rounded)
    assert np.median(near) <= 0.25 * np.median(far), (np.median(near), np.median(far))


@pytest.mark.parametrize(("kind", "mixer"), [("actions", "rope"), ("slots", "learned"), ("tokens", "mlp_t")])
def test_bf16_errs_little_more_than_its_oracle(kind: str, mixer: str) -> None:
    """By ONNX's own evaluator, as ONNX Runtime has no such product. Results are rounded too, unlike the oracle's."""
    from onnx.reference import ReferenceEvaluator

    bundle = plain_bundle(kind, mixer, l_cycles=1)
    evaluator = ReferenceEvaluator(build_typed(bundle, "unrolled", STEPS, "bf16"))
    exact = ReferenceModel(bundle.spec, bundle.tensors)
    found = []
    for call in calls(bundle):
        inputs = check_inputs(bundle.spec, **call)
        feeds = graph_feeds(bundle.spec, inputs, inputs.x if inputs.y0 is None else inputs.y0)
        out = dict(zip(evaluator.output_names, evaluator.run(None, feeds), strict=True))
        got = out.get("logits_steps", out["y_steps"])
        found += [relative_error(a, b) for a, b in zip(got, truth(exact, call), strict=True)]
    oracle = rounding(bundle, QuantizedModel(bundle.spec, bundle.tensors, uniform(bundle.spec, "bf16")))
    assert 0.5 * np.median(oracle) <= np.median(found) <= 2 * np.median(oracle), (np.median(found), np.median(oracle))


def products(graph: Any) -> Iterator[tuple[Any, str]]:
    """Yield the type of every product's result, by shape inference, with its name."""
    inferred = onnx.shape_inference.infer_shapes(graph, strict_mode=True, data_prop=True)
    types = {value.name: value.type.tensor_type.elem_type for value in inferred.graph.value_info}
    for node in graph.graph.node:
        if node.op_type == "MatMul":
            yield types[node.output[0]], node.output[0]


def test_what_is_multiplied_in_which_format() -> None:
    bundle = calibrated(plain_bundle("actions"), "static", steps=2)
    spec, kinds = bundle.spec, onnx.TensorProto
    blocks = 2 * 4 * spec.num_layers * spec.h_cycles * (spec.l_cycles + 1)
    count = {p: [kind for kind, _ in products(build_typed(bundle, "unrolled", 2, p))] for p in ("fp32", "fp16", "bf16")}
    assert len(set(map(len, count.values()))) == 1
    assert set(count["fp32"]) == {kinds.FLOAT} and set(count["fp16"]) == {kinds.FLOAT16}
    assert count["bf16"].count(kinds.BFLOAT16) == blocks and set(count["bf16"]) == {kinds.BFLOAT16, kinds.FLOAT}
    for precision, kind in (("int8", kinds.INT8), ("fp8", kinds.FLOAT8E4M3FN)):
        graph = build_typed(bundle, "unrolled", 2, precision).graph
        assert [node.op_type for node in graph.node].count("QuantizeLinear") == blocks
        weights = [t for t in graph.initializer if t.name.startswith("blocks.") and "scale" not in t.name]
        assert len(weights) == 4 * spec.num_layers and {t.data_type for t in weights} == {kind}


def test_a_mixed_calibration_keeps_its_formats() -> None:
    bundle = calibrated(plain_bundle("actions"), "static", steps=2, down="bf16", out="fp32")
    graph = build_typed(bundle, "unrolled", 2, "int8").graph
    names = sorted(t.name for t in graph.initializer if t.name.startswith("blocks.0") and "scale" not in t.name)
    tails = ["attention.out.weight.t", "attention.qkv.int8.t", "mlp.down.bf16.t", "mlp.gate_up.int8.t"]
    assert names == [f"blocks.0.{tail}" for tail in tails]
    bundle = calibrated(plain_bundle("actions"), "dynamic", out="fp32", blocks="bf16")
    weights = [t for t in build_typed(bundle, "step", 1, "bf16").graph.initializer if t.name.startswith("blocks.")]
    halves = [t.name for t in weights if t.data_type == onnx.TensorProto.BFLOAT16]
    assert len(weights) == 8 and len(halves) == 6 and not any("attention.out" in name for name in halves)


@pytest.mark.parametrize("loop", ["unrolled", "step"])
def test_weights_stand_once(loop: str) -> None:
    bundle = plain_bundle("actions")
    for precision in ("fp32", "fp16", "bf16"):
        one, three = (build_typed(bundle, loop, steps, precision) for steps in (1, 3))
        assert [t.name for t in one.graph.initializer] == [t.name for t in three.graph.initializer]
        used = {name for node in one.graph.node for name in node.input}
        assert {t.name for t in one.graph.initializer} <= used, "an initialiser that nothing reads"


@pytest.mark.parametrize("mixer", ["rope", "mlp_t"])
@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16", "int8"])
def test_a_device_makes_the_weights_of_an_engine(precision: str, mixer: str) -> None:
    """A stripped engine is refitted by name, and by the same values."""
    bundle = calibrated(plain_bundle("tokens", mixer), "static", steps=2)
    stored = [
        tensor
        for tensor in build_typed(bundle, "unrolled", 2, precision).graph.initializer
        if tensor.name.startswith("blocks.") and not tensor.name.endswith("scale")
    ]
    assert len(stored) == 4 * bundle.spec.num_layers
    for tensor in stored:
        expected = onnx.numpy_helper.to_array(tensor)
        made = stored_matrix(bundle, tensor.name)
        if precision == "bf16":
            expected = expected.view(np.uint16)
        assert made.dtype == expected.dtype and made.flags.c_contiguous
        np.testing.assert_array_equal(made, expected)


@pytest.mark.parametrize("precision", ["int8", "fp8"])
def test_scales_that_are_missing(precision: str) -> None:
    with pytest.raises(TrmUnsupportedError, match=f"precision {precision}: .* `trm-edge calibrate --scheme static`"):
        build_typed(plain_bundle("actions"), "unrolled", 2, precision)
    with pytest.raises(
        TrmUnsupportedError, match="--scheme dynamic, whose scales a graph of form unrolled cannot hold"
    ):
        build_typed(calibrated(plain_bundle("actions"), "dynamic"), "unrolled", 2, precision)
    by_step = calibrated(plain_bundle("actions"), "static-per-step", steps=2)
    with pytest.raises(TrmUnsupportedError, match="--scheme static-per-step, whose scales a graph of form step cannot"):
        build_typed(by_step, "step", 2, precision)
    assert build_typed(by_step, "unrolled", 2, precision).graph.node


def test_precisions_that_there_are_not() -> None:
    with pytest.raises(TrmInputError, match="precision: expected one of fp32, fp16, bf16, int8, fp8, got 'int4'"):
        build_typed(plain_bundle("actions"), "unrolled", 2, "int4")


def test_a_weight_beyond_float16_is_refused() -> None:
    bundle = plain_bundle("actions")
    tensors = dict(bundle.tensors)
    tensors["blocks.0.mlp.down.weight"] = tensors["blocks.0.mlp.down.weight"] * np.float32(1e8)
    with pytest.raises(
        TrmUnsupportedError, match=r"fp16: blocks\.0\.mlp\.down\.weight\.t holds .*, beyond float16; use bf16"
    ):
        build_typed(Bundle(bundle.spec, tensors), "unrolled", 1, "fp16")
    assert build_typed(Bundle(bundle.spec, tensors), "unrolled", 1, "bf16").graph.node
