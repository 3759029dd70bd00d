"""Backend ``cuda``: every way to run it against the oracle, at every step; and what it says where no GPU is.

In float32, ``cuda-plain`` is one of the runners of all tests of backends; here are the lower precisions and the ways of
their own, with models of the sizes that the fused kernels take.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from models import calibrated, make_bundle, with_huge_keys
from runners import plain_bundle
from test_precision import errors_of, oracle_values, own_error

import trm_edge
from trm_edge._native import core
from trm_edge.bundle import Bundle, bundle_bytes
from trm_edge.golden import random_inputs
from trm_edge.quantization import Quantization, uniform

BF16 = "avx512bf16"  # the instruction set whose oracle rounds attention's operands too, as the GPU does
SAME = 0.8  # of the oracle's own error; another rounding would part the two by 1.4 times it
NO_GPU = core.cuda_missing()
WAYS = ["fused", "phases", "plain"]
SHARED = ["bf16", "fp16", "w8a16"]  # what all ways multiply
gpu = pytest.mark.skipif(bool(NO_GPU), reason=f"backend cuda: {NO_GPU}")

# name: (kind, mixer, changed fields): every instance of the fused kernels, and what sizes alone do not show
FUSED: dict[str, tuple[str, str, dict[str, Any]]] = {
    "64/32": ("actions", "rope", {"hidden_size": 64, "num_heads": 2, "inner_size": 32, "feature_size": 2}),
    "47 rows": ("actions", "rope", {"hidden_size": 64, "num_heads": 2, "inner_size": 96, "max_context": 40}),
    "128/32": ("slots", "rope", {"hidden_size": 128, "num_heads": 4, "inner_size": 384, "max_context": 20}),
    "256/32": ("actions", "learned", {"hidden_size": 256, "num_heads": 8, "inner_size": 160, "max_context": 40}),
    "256/64": ("actions", "rope", {"hidden_size": 256, "num_heads": 4, "inner_size": 768, "max_context": 3}),
    "one layer": ("tokens", "none", {"hidden_size": 512, "num_heads": 8, "inner_size": 96, "num_layers": 1}),
    "512/64": ("actions", "rope", {"hidden_size": 512, "num_heads": 8, "inner_size": 1536, "max_context": 24}),
    "97 rows": ("tokens", "rope", {"hidden_size": 64, "num_heads": 2, "inner_size": 96, "answer_rows": 94}),
    "three layers": ("actions", "rope", {"hidden_size": 64, "num_heads": 2, "inner_size": 64, "num_layers": 3}),
    "many cycles": (
        "slots",
        "rope",
        {"hidden_size": 64, "num_heads": 2, "inner_size": 64, "l_cycles": 6, "h_cycles": 3},
    ),
}


def load(way: str, bundle: Bundle, monkeypatch: pytest.MonkeyPatch, precision: str | None) -> trm_edge.Refiner:
    monkeypatch.setenv("TRM_EDGE_CUDA_WAY", way)
    refiner = trm_edge.load(bundle_bytes(bundle), backend="cuda", precision=precision)
    assert refiner.backend == "cuda" and (refiner.isa or "").endswith(way)
    return refiner


def model(name: str, **more: Any) -> Bundle:
    kind, mixer, changes = FUSED[name]
    return plain_bundle(kind, mixer, **(changes | more))


# ---- Where there is no GPU -------------------------------------------------------------------------------------------


def test_the_backend_is_offered_where_it_can_run() -> None:
    assert ("cuda" in trm_edge.available_backends()) == (not NO_GPU)


@pytest.mark.skipif(not NO_GPU, reason="a GPU is here")
def test_without_a_gpu_the_error_says_why() -> None:
    with pytest.raises(trm_edge.TrmUnsupportedError, match=r"backend cuda: .+"):
        trm_edge.load(bundle_bytes(plain_bundle("actions")), backend="cuda")


def test_threads_are_for_the_processor() -> None:
    with pytest.raises(trm_edge.TrmUnsupportedError, match="threads"):
        trm_edge.load(bundle_bytes(plain_bundle("actions")), backend="cuda", threads=2)


def test_nothing_waits_for_the_whole_device() -> None:
    # That ends the captures of all threads, whatever their modes: also those of other sessions' graphs.
    sources = list((Path(__file__).parents[2] / "csrc" / "cuda").iterdir())
    assert sources and not [file.name for file in sources if "cudaDeviceSynchronize" in file.read_text()]


# ---- Against the oracle ----------------------------------------------------------------------------------------------


@gpu
@pytest.mark.gpu
@pytest.mark.parametrize("precision", SHARED)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", FUSED)
def test_the_first_evaluations_are_those_of_the_oracle(
    name: str, way: str, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # One step of two evaluations: further on, values that round to another neighbour part the two. Float16's neighbours
    # are so close that sums in float32 and float64 part at them within four blocks: one layer.
    bundle = model(name, l_cycles=1, h_cycles=1, **({"num_layers": 1} if precision == "fp16" else {}))
    refiner = load(way, bundle, monkeypatch, precision)
    assert refiner.precision == precision
    how = uniform(bundle.spec, precision)
    parted = np.median(errors_of(refiner, bundle, oracle_values(bundle, how, 1, BF16)))
    assert parted <= SAME * np.median(own_error(bundle, how, 1))


@gpu
@pytest.mark.gpu
@pytest.mark.parametrize("precision", SHARED)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", FUSED)
def test_the_error_at_every_step_is_that_of_the_oracle(
    name: str, way: str, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = model(name)
    refiner = load(way, bundle, monkeypatch, precision)
    engine = errors_of(refiner, bundle, oracle_values(bundle, None, 4))
    own = own_error(bundle, uniform(bundle.spec, precision), 4, BF16)
    assert np.median(engine) <= 1.2 * np.median(own)
    assert (np.median(engine, axis=0) <= 1.5 * np.median(own, axis=0)).all()


@gpu
@pytest.mark.gpu
@pytest.mark.parametrize("scheme", ["", "dynamic", "static", "static-per-step"])
@pytest.mark.parametrize(("kind", "mixer"), [("actions", "rope"), ("slots", "none"), ("tokens", "mlp_t")])
def test_int8_is_that_of_the_oracle(kind: str, mixer: str, scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = plain_bundle(kind, mixer) if not scheme else calibrated(make_bundle(kind, mixer), scheme)
    how: Quantization = bundle.quantization or uniform(bundle.spec, "int8")
    refiner = load("plain", bundle, monkeypatch, "int8")
    assert refiner.precision == "int8"
    apart = np.median(errors_of(refiner, bundle, oracle_values(bundle, how, 1, BF16)))
    assert apart <= SAME * np.median(own_error(bundle, how, 1))


# ---- What a session keeps --------------------------------------------------------------------------------------------


@gpu
@pytest.mark.gpu
@pytest.mark.parametrize("precision", SHARED)
@pytest.mark.parametrize("way", WAYS)
def test_all_steps_at_once_are_the_steps_one_by_one(way: str, precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = model("47 rows")
    refiner = load(way, bundle, monkeypatch, precision)
    rng = np.random.default_rng(5)
    for _ in range(4):
        call = random_inputs(bundle.spec, rng)
        whole = refiner.refine(**call, steps=20, trajectory=True)  # more than one run
        refiner.begin(**call)
        for k in range(20):
            assert whole.trajectory is not None
            assert np.array_equal(refiner.step().trajectory[0], whole.trajectory[k])  # type: ignore[index]
        early = refiner.refine(**call, steps=20, halt=0.0)
        assert early.steps_run == 1 and early.status == trm_edge.Status.HALTED


@gpu
@pytest.mark.gpu
@pytest.mark.parametrize("precision", SHARED)
@pytest.mark.parametrize("way", WAYS)
def test_fresh_context_between_steps(way: str, precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = model("47 rows")
    refiner, plain = load(way, bundle, monkeypatch, precision), load("plain", bundle, monkeypatch, precision)
    rng = np.random.default_rng(6)
    call, fresh = random_inputs(bundle.spec, rng), random_inputs(bundle.spec, rng)
    rows = len(call["x"])
    fresh = {"x": np.resize(fresh["x"], (rows, bundle.spec.context_size)).astype(np.float32)}
    answers = []
    for one in (refiner, plain):
        one.begin(**call)
        one.step()
        answers.append(one.step(**fresh).y)
    np.testing.assert_allclose(answers[0], answers[1], atol=0.05)


@gpu
@pytest.mark.gpu
@pytest.mark.parametrize("way", ["fused", "phases"])
def test_models_of_one_kernel_run_side_by_side(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a kernel may have of shared memory is said once for all models, of which the second needs less."""
    rng = np.random.default_rng(12)
    larger = load(way, model("three layers"), monkeypatch, "bf16")
    call = random_inputs(larger.spec, rng)
    before = larger.refine(**call, steps=1).y
    smaller = load(way, model("64/32"), monkeypatch, "bf16")
    smaller.refine(**random_inputs(smaller.spec, rng), steps=1)
    np.testing.assert_array_equal(larger.refine(**call, steps=1).y, before)


@gpu
@pytest.mark.gpu
@pytest.mark.parametrize(
    ("setting", "precision", "isa"),
    [
        ("CTAS_EACH=0", "bf16", "phases"),
        ("CTAS_EACH=0", "fp32", "plain"),
        ("PTX_VERSION=75", "bf16", "plain"),
        ("WITHOUT_CODE=1", "bf16", ""),
        ("WITHOUT_CODE=1", "fp32", ""),
    ],
)
def test_what_a_gpu_lacks(setting: str, precision: str, isa: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel that does not fit all at once gives way to the phases, one that is empty to `plain`.

    A build without code for the GPU says so.
    """
    bundle = bundle_bytes(model("64/32"))
    if not (trm_edge.load(bundle, backend="cuda").isa or "").startswith("sm_99"):
        pytest.skip("only an emulated GPU can be told to lack something")
    name, value = setting.split("=")
    monkeypatch.setenv(f"TRM_EMULATED_{name}", value)
    if isa:
        assert trm_edge.load(bundle, backend="cuda", precision=precision).isa == f"sm_99 {isa}"
        monkeypatch.setenv("TRM_EDGE_CUDA_WAY", "fused")
        with pytest.raises(trm_edge.TrmUnsupportedError, match="'fused' cannot run this model"):
            trm_edge.load(bundle, backend="cuda", precision=precision)
    else:
        with pytest.raises(trm_edge.TrmUnsupportedError, match=r"no code for this GPU.*TRM_EDGE_CUDA_TARGETS"):
            trm_edge.load(bundle, backend="cuda", precision=precision)


@gpu
@pytest.mark.gpu
def test_kernels_that_are_empty_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a build for Turing alone has them: a newer GPU compiles its PTX, and would leave each draft as it is."""
    bundle = model("64/32")
    refiner = load("fused", bundle, monkeypatch, "bf16")
    if not (refiner.isa or "").startswith("sm_99"):
        pytest.skip("only an emulated GPU can be told to do nothing")
    call = random_inputs(bundle.spec, np.random.default_rng(11))
    with monkeypatch.context() as idle:
        idle.setenv("TRM_EMULATED_IDLE", "1")
        with pytest.raises(trm_edge.TrmDeviceError, match="the kernel did not run"):
            refiner.refine(**call)
    assert refiner.refine(**call).steps_run == 4
    monkeypatch.setenv("TRM_EMULATED_PTX_VERSION", "75")
    for way in ("fused", "phases"):
        with pytest.raises(trm_edge.TrmUnsupportedError, match=r"capability 7.5, where they are empty; set TRM"):
            load(way, bundle, monkeypatch, "bf16")


@gpu
@pytest.mark.gpu
@pytest.mark.parametrize(("way", "precision"), [*((way, "bf16") for way in WAYS), ("fused", "fp16"), ("plain", "int8")])
def test_a_begin_that_is_refused_leaves_nothing_behind(
    way: str, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = model("47 rows")
    refiner = load(way, bundle, monkeypatch, precision)
    call = random_inputs(bundle.spec, np.random.default_rng(10))
    expected = load(way, bundle, monkeypatch, precision).refine(**call, steps=3, trajectory=True).trajectory
    assert expected is not None
    for steps in (0, 1):
        refiner.begin(**call)
        for _ in range(steps):
            refiner.step()
        with pytest.raises(trm_edge.TrmInputError, match="y0"):
            refiner.begin(**call | {"y0": call["y0"][:-1]})
        with pytest.raises(trm_edge.TrmNotBegunError):
            refiner.step()
        refiner.begin(**call)
        for k in range(3):
            assert np.array_equal(refiner.step().trajectory[0], expected[k])  # type: ignore[index]


@gpu
@pytest.mark.gpu
@pytest.mark.parametrize("precision", SHARED)
@pytest.mark.parametrize("way", WAYS)
def test_a_nan_stays_in_its_own_call(way: str, precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = model("47 rows")
    refiner = load(way, bundle, monkeypatch, precision)
    rng = np.random.default_rng(7)
    calls = [random_inputs(bundle.spec, rng, context_rows=rows) for rows in (20, 3)]
    before = [refiner.refine(**call, trajectory=True) for call in calls]
    huge = dict(calls[0], x=np.full_like(calls[0]["x"], 3e38))
    assert refiner.refine(**huge).status == trm_edge.Status.NONFINITE
    for call, first in zip(reversed(calls), reversed(before), strict=True):
        again = refiner.refine(**call, trajectory=True)
        assert again.status == first.status
        assert np.array_equal(again.trajectory, first.trajectory)  # type: ignore[arg-type]


# ---- Where float16 ends ----------------------------------------------------------------------------------------------


@gpu
@pytest.mark.gpu
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("part", ["keys", "rows"])
def test_what_is_beyond_float16_ends_a_call(part: str, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = model("47 rows")
    call = random_inputs(bundle.spec, np.random.default_rng(9), context_rows=20)
    if part == "keys":  # whose scores may be minus infinity, and so their weights 0
        bundle = with_huge_keys(bundle)
    else:
        call["x"] = call["x"] * np.float32(1e5)
    out = load(way, bundle, monkeypatch, "fp16").refine(**call)
    assert out.status == trm_edge.Status.NONFINITE and out.steps_run == 0
    assert load(way, bundle, monkeypatch, "bf16").refine(**call).steps_run == 4


@gpu
@pytest.mark.gpu
@pytest.mark.parametrize("way", WAYS)
def test_a_weight_beyond_float16_is_named(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle, name = model("64/32"), "blocks.1.mlp.down.weight"
    weight = bundle.tensors[name].copy()
    weight[0, 0] = -70000
    with pytest.raises(trm_edge.TrmUnsupportedError, match=f"fp16: {name} holds 70000, beyond float16; use bf16"):
        load(way, replace(bundle, tensors={**bundle.tensors, name: weight}), monkeypatch, "fp16")


@gpu
@pytest.mark.gpu
def test_fused_says_what_it_multiplies(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(trm_edge.TrmUnsupportedError, match="all matrices in bf16, or all in fp16 or w8a16"):
        load("fused", model("64/32"), monkeypatch, "fp32")


# ---- Many calls ------------------------------------------------------------------------------------------------------


@gpu
@pytest.mark.gpu
@pytest.mark.slow
def test_a_hundred_thousand_calls_give_one_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = model("128/32")
    refiner = load("fused", bundle, monkeypatch, "bf16")
    call = random_inputs(bundle.spec, np.random.default_rng(8))
    first = refiner.refine(**call)
    for _ in range(100_000):
        assert np.array_equal(refiner.refine(**call).y, first.y)
