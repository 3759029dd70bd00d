"""The lower precisions: their definitions by hand, and the fake-quantised oracle against them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from models import CASES, calibrated, with_huge_keys
from runners import plain_bundle

import trm_edge
from trm_edge.bundle import bundle_bytes
from trm_edge.errors import TrmBundleError, TrmInputError, TrmUnsupportedError
from trm_edge.golden import random_inputs, relative_error, run_reference
from trm_edge.inputs import check_inputs
from trm_edge.quantization import (
    PRECISIONS,
    SCHEMES,
    Quantization,
    QuantizedModel,
    matrix_names,
    quantize_rows,
    quantize_static,
    quantize_weight,
    round_bf16,
    round_fp16,
    uniform,
)
from trm_edge.reference import ReferenceModel

torch = pytest.importorskip("torch")


def test_weights_by_hand() -> None:
    weight = np.float32([[127, 0.5, 1.5, -2.5, -127], [0, 0, 0, 0, 0], [-1, 0.5, 0.25, 0, 0], [1e-45, 0, 0, 0, 0]])
    q, scale = quantize_weight(weight)
    assert q.dtype == np.int8 and scale.dtype == np.float32
    np.testing.assert_array_equal(scale, np.float32([1, 0, np.float32(1 / 127), 0]))
    # half to even; 0.5 / float32(1 / 127) lies below 63.5 or above, as float64 division says
    near = int(np.rint(0.5 / np.float64(np.float32(1 / 127))))
    expected = [[127, 0, 2, -2, -127], [0] * 5, [-127, near, 32, 0, 0], [0] * 5]
    np.testing.assert_array_equal(q, expected)


def test_rows_by_hand() -> None:
    q, scale = quantize_rows(np.float64([[254, 1, 3, -5], [0, 0, 0, 0], [-1, 1, 0.5, 0]]))
    np.testing.assert_array_equal(scale[:, 0], [2, 0, 1 / 127])
    np.testing.assert_array_equal(q, [[127, 0, 2, -2], [0, 0, 0, 0], [-127, 127, 64, 0]])
    q, scale = quantize_rows(np.float64([[np.inf, 1], [np.nan, 1], [1, 1]]))
    with np.errstate(invalid="ignore"):
        values = q * scale
    assert np.isnan(values[:2]).any(axis=1).all() and np.isfinite(values[2]).all()


def test_static_by_hand() -> None:
    q = quantize_static(np.float64([[0.25, 0.75, -63.25, 64, -64, 1e9, np.nan]]), np.float64([[0.5]]))
    np.testing.assert_array_equal(q, [[0, 2, -126, 127, -127, 127, np.nan]])


def test_bf16_agrees_with_torch() -> None:
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2**32, 100_000, dtype=np.uint32)
    bits[:6] = [0x7F800000, 0xFF800000, 0x7F7FFFFF, 0x3F808000, 0x3F818000, 0x7FFFFFFF]  # Inf, most, ties, NaN
    values = bits.view(np.float32)
    expected = torch.from_numpy(values.copy()).bfloat16().float().numpy()
    np.testing.assert_array_equal(round_bf16(values), expected)
    exact = np.float64([1.00390625, 1.01171875, 1e300, -0.0])
    np.testing.assert_array_equal(round_bf16(exact), [1.0, 1.015625, np.inf, 0.0])
    assert round_bf16(exact).dtype == np.float64


def test_fp16_rounds_as_numpy_does_and_has_an_end() -> None:
    every = np.arange(2**16, dtype=np.uint16).view(np.float16)
    finite = every[np.isfinite(every)]
    np.testing.assert_array_equal(round_fp16(finite.astype(np.float32)), finite.astype(np.float32))
    values = np.float64([1 + 2**-11, 1 + 3 * 2**-11, 2**-24, 2**-25, 65519.9, -65519.9])  # the first two halfway
    np.testing.assert_array_equal(round_fp16(values), [1, 1 + 2**-9, 2**-24, 0, 65504, -65504])
    assert np.isnan(round_fp16(np.float32([65520, -65520, np.inf, -np.inf, np.nan]))).all()
    assert round_fp16(values).dtype == np.float64 and round_fp16(values.astype(np.float32)).dtype == np.float32


def test_fp16_rounds_what_attention_multiplies() -> None:
    bundle = plain_bundle("actions", "rope")
    model = QuantizedModel(bundle.spec, bundle.tensors, uniform(bundle.spec, "fp16"))
    rng = np.random.default_rng(4)
    query, key, value = rng.normal(size=(3, bundle.spec.num_heads, 5, 8))
    half = [np.float16(part).astype(np.float64) for part in (query, key, value)]
    scores = half[0] @ half[1].transpose(0, 2, 1)
    weights = np.float16(np.exp(scores - scores.max(axis=-1, keepdims=True))).astype(np.float64)
    expected = weights @ half[2] / weights.sum(axis=-1, keepdims=True)
    np.testing.assert_allclose(model.attend("blocks.0.attention.", query, key, value), expected, rtol=1e-12)


def test_w8a16_has_the_weights_of_int8_and_the_inputs_of_bf16() -> None:
    bundle = plain_bundle("actions", "rope")
    model = QuantizedModel(bundle.spec, bundle.tensors, uniform(bundle.spec, "w8a16"))
    rng = np.random.default_rng(6)
    for name in matrix_names(bundle.spec):
        weight = bundle.tensors[name + ".weight"].astype(np.float64)
        scale = np.float32(np.abs(weight).max(axis=1) / 127).astype(np.float64)[:, None]
        a = rng.normal(size=(4, weight.shape[1]))
        expected = round_bf16(a) @ (np.rint(weight / scale) * scale).T
        np.testing.assert_allclose(model.product(name, a, 1), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("part", ["keys", "rows"])
def test_what_is_beyond_float16_ends_a_call(part: str) -> None:
    bundle = plain_bundle("actions", "rope")
    call = random_inputs(bundle.spec, np.random.default_rng(5), context_rows=3)
    if part == "keys":  # whose scores may be minus infinity, and so their weights 0
        bundle = with_huge_keys(bundle)
    else:
        call["x"] = call["x"] * np.float32(1e5)
    out = trm_edge.load(bundle_bytes(bundle), backend="reference", precision="fp16").refine(**call)
    assert out.status == trm_edge.Status.NONFINITE and out.steps_run == 0
    assert trm_edge.load(bundle_bytes(bundle), backend="reference", precision="bf16").refine(**call).steps_run == 4


def test_a_weight_beyond_float16_is_named() -> None:
    bundle = plain_bundle("actions")
    weights = dict(bundle.tensors)
    name = "blocks.1.mlp.down.weight"
    weights[name] = weights[name].copy()
    weights[name][0, 0] = -70000
    with pytest.raises(TrmUnsupportedError, match=f"precision fp16: {name} holds 70000, beyond float16; use bf16"):
        trm_edge.load(bundle_bytes(replace(bundle, tensors=weights)), backend="reference", precision="fp16")


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("mixer", ["rope", "mlp_t"])
def test_a_product_is_what_its_definition_says(mixer: str, scheme: str) -> None:
    bundle = calibrated(plain_bundle("tokens", mixer), scheme, steps=3)
    quantization = bundle.quantization
    assert quantization is not None
    model = QuantizedModel(bundle.spec, bundle.tensors, quantization)
    rng = np.random.default_rng(1)
    for name in matrix_names(bundle.spec):
        weight = bundle.tensors[name + ".weight"].astype(np.float64)
        a = rng.standard_normal((3, weight.shape[1]))
        a[1] = 0
        scale_w = np.float32(np.abs(weight).max(axis=1) / 127).astype(np.float64)
        for k in (1, 2, 3, 4):
            if scheme == "dynamic":
                scale_a = np.abs(a).max(axis=1) / 127
            else:
                stored = quantization.input_scale[name]
                scale_a = np.full(3, stored[min(k, len(stored)) - 1], np.float64)
            truth = np.zeros((3, len(weight)))
            for r in range(3):
                for n in range(len(weight)):
                    qa = np.clip(np.rint(a[r] / (scale_a[r] or 1)), -127, 127).astype(np.int64)
                    qw = np.clip(np.rint(weight[n] / scale_w[n]), -127, 127).astype(np.int64)
                    truth[r, n] = int((qa * qw).sum()) * (scale_a[r] * scale_w[n])
            np.testing.assert_array_equal(model.product(name, a, k), truth)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16", "w8a16", "int8"])
@pytest.mark.parametrize(("kind", "mixer"), CASES)
def test_coarser_grids_err_more(kind: str, mixer: str, precision: str) -> None:
    bundle = plain_bundle(kind, mixer)
    inputs = check_inputs(bundle.spec, **random_inputs(bundle.spec, np.random.default_rng(2)))
    exact = run_reference(ReferenceModel(bundle.spec, bundle.tensors), inputs, 3)
    model = QuantizedModel(bundle.spec, bundle.tensors, uniform(bundle.spec, precision))
    grids = {"fp32": (0, 0), "fp16": (1e-7, 0.006), "bf16": (1e-6, 0.05), "w8a16": (1e-6, 0.1), "int8": (1e-5, 0.3)}
    low, high = grids[precision]
    for step, truth in zip(run_reference(model, inputs, 3), exact, strict=True):
        values, true = (step.y, truth.y) if step.logits is None else (step.logits, truth.logits)
        assert true is not None and low <= relative_error(values, true) <= high


def test_each_step_has_its_own_scale_and_streaming_counts_them() -> None:
    bundle = calibrated(plain_bundle("actions"), "static-per-step", steps=3)
    model = QuantizedModel(bundle.spec, bundle.tensors, bundle.quantization)  # type: ignore[arg-type]
    seen: list[int] = []
    plain = model.product
    model.product = lambda name, a, k: (seen.append(k), plain(name, a, k))[1]  # type: ignore[method-assign]
    inputs = check_inputs(bundle.spec, **random_inputs(bundle.spec, np.random.default_rng(3)))
    carry = model.begin(inputs)
    for _ in range(2):
        carry, _ = model.step(carry)
    carry, _ = model.step(model.refresh(carry, x=inputs.x * 2))
    assert carry.steps == 3
    assert seen == sorted(seen) and set(seen) == {1, 2, 3}


def spoilt(change: dict[str, Any], scheme: str = "static-per-step") -> Quantization:
    bundle = calibrated(plain_bundle("actions"), scheme, steps=2)
    assert bundle.quantization is not None
    fields = {**vars(bundle.quantization), **change}
    return Quantization(**fields)


FIRST = "blocks.0.attention.qkv"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scheme": "int4"}, r"quantization.scheme: expected one of dynamic, .*, got 'int4'"),
        ({"precision": {}}, rf"quantization.precision.{FIRST}: missing \(of 8\)"),
        ({"input_scale": {}}, rf"quantization.input_scale.{FIRST}: missing"),
        ({"scheme": "dynamic"}, "quantization.input_scale.blocks.0.attention.out: unknown"),
        ({"scheme": "static"}, "quantization.steps: expected 1..1 for static, and the scales have 2"),
    ],
)
def test_what_does_not_fit_the_spec_is_refused(change: dict[str, Any], message: str) -> None:
    bundle = plain_bundle("actions")
    with pytest.raises(TrmBundleError, match=message):
        QuantizedModel(bundle.spec, bundle.tensors, spoilt(change))


@pytest.mark.parametrize(
    "scale",
    [
        np.float64([1, 1]),
        np.float32([1]),
        np.float32([[1, 1]]),
        np.float32(1),
        np.float32([]),
        np.float32([1, 0]),
        np.float32([np.nan, 1]),
    ],
)
def test_scales_that_make_no_sense_are_refused(scale: Any) -> None:
    good = spoilt({})
    with pytest.raises(TrmBundleError, match=rf"tensor quantization.input_scale.{FIRST}: expected"):
        spoilt({"input_scale": {**good.input_scale, FIRST: scale}}).check(plain_bundle("actions").spec)


def test_one_word_for_a_mixture() -> None:
    spec = plain_bundle("actions").spec
    mixed = {**dict.fromkeys(matrix_names(spec), "bf16"), FIRST: "int8"}
    assert Quantization("dynamic", mixed).summary == "int8"
    expected = ["int8", "w8a16", "bf16", "fp16", "fp32"]
    assert [uniform(spec, precision).summary for precision in PRECISIONS] == expected
    with pytest.raises(TrmInputError, match="precision: expected one of int8, w8a16, bf16, fp16, fp32, got 'fp8'"):
        uniform(spec, "fp8")


@pytest.mark.parametrize("precision", ["fp16", "w8a16"])
def test_a_bundle_names_nothing_that_only_a_gpu_multiplies(precision: str) -> None:
    bundle = plain_bundle("actions")
    with pytest.raises(TrmBundleError, match=rf"{FIRST}: expected one of int8, bf16, fp32, got '{precision}'"):
        bundle_bytes(replace(bundle, quantization=uniform(bundle.spec, precision)))
