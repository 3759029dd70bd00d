"""Arrays that stay on the GPU: DLPack and ``__cuda_array_interface__``, streams, and calls that do not wait."""

from __future__ import annotations

import ctypes
import gc
import subprocess
import sys
import threading
import weakref
from typing import Any

import numpy as np
import pytest
from models import calibrated, make_bundle
from runners import plain_bundle

import trm_edge
from trm_edge import Status, dlpack
from trm_edge._native import core
from trm_edge.bundle import bundle_bytes
from trm_edge.golden import random_inputs
from trm_edge.on_device import place, stream_handle

NO_GPU = core.cuda_missing()
gpu = pytest.mark.skipif(bool(NO_GPU), reason=f"backend cuda: {NO_GPU}")
BUNDLE = plain_bundle("actions", feature_size=2, hidden_size=64, num_heads=2, inner_size=64, draft="optional")
WAYS = ["fused", "phases", "plain"]


# ---- Capsules --------------------------------------------------------------------------------------------------------


class Handed:
    """A NumPy array that only says what DLPack asks for."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def __dlpack__(self, **_: Any) -> object:
        return dlpack.give(self.array.ctypes.data, self.array.shape, self.array.dtype, (dlpack.CPU, 0), self.array)

    def __dlpack_device__(self) -> tuple[int, int]:
        return dlpack.CPU, 0


@pytest.mark.parametrize("dtype", [np.float32, np.int32, np.uint8, np.float64])
@pytest.mark.parametrize("shape", [(2, 3), (5,), (0, 4), ()])
def test_a_capsule_says_what_the_array_is(dtype: type, shape: tuple[int, ...]) -> None:
    array = np.arange(int(np.prod(shape))).reshape(shape).astype(dtype)
    taken = dlpack.take(Handed(array).__dlpack__())
    assert (taken.address, taken.shape, taken.dtype) == (array.ctypes.data, shape, array.dtype)
    assert taken.device == (dlpack.CPU, 0) and taken.strides is None
    assert np.array_equal(np.from_dlpack(Handed(array)), array)


class Watched:
    """Something that says when nobody needs it any more."""


def test_a_capsule_keeps_its_owner_until_nobody_needs_it() -> None:
    array, owner = np.arange(3, dtype=np.float32), Watched()
    gone = weakref.ref(owner)

    capsules = [dlpack.give(array.ctypes.data, array.shape, array.dtype, (dlpack.CPU, 0), owner) for _ in range(2)]
    del owner
    used, unused = dlpack.take(capsules[0]), capsules.pop()
    gc.collect()
    assert gone() is not None
    del unused, capsules
    assert gone() is not None and used.shape == (3,)
    del used
    gc.collect()
    assert gone() is None


def test_an_error_of_whoever_drops_a_capsule_is_told() -> None:
    class OnGpu(Handed):
        def __dlpack__(self, **_: Any) -> object:
            return dlpack.give(self.array.ctypes.data, self.array.shape, self.array.dtype, (dlpack.CUDA, 0), self)

        def __dlpack_device__(self) -> tuple[int, int]:
            return dlpack.CUDA, 0

    for _ in range(3):
        with pytest.raises((BufferError, RuntimeError, ValueError)):
            np.from_dlpack(OnGpu(np.ones(3, np.float32)))


def test_a_tensor_may_outlive_the_interpreter() -> None:
    pytest.importorskip("torch")
    code = (
        "import sys, torch, numpy as np; from trm_edge import dlpack\n"
        "a = np.ones(3, np.float32)\n"
        "class A:\n"
        "    def __dlpack__(self, **k): return dlpack.give(a.ctypes.data, a.shape, a.dtype, (1, 0), a)\n"
        "    def __dlpack_device__(self): return 1, 0\n"
        "sys.kept = torch.kept = torch.from_dlpack(A()); sys.capsule = A().__dlpack__()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_strides_of_others_are_read() -> None:
    torch = pytest.importorskip("torch")
    tensor = torch.arange(12, dtype=torch.float32).reshape(3, 4)
    for part, dense in ((tensor, True), (tensor[:, :2], False), (tensor.T, False), (tensor[1:], True)):
        taken = dlpack.take(part.__dlpack__())
        assert taken.shape == tuple(part.shape) and taken.address == part.data_ptr()
        assert dlpack.is_dense(taken.shape, taken.strides) == dense


def test_what_is_no_fresh_capsule_is_refused() -> None:
    capsule = Handed(np.ones(3, np.float32)).__dlpack__()
    dlpack.take(capsule)
    for wrong in (capsule, 42, None, "dltensor"):
        with pytest.raises(BufferError, match="fresh DLPack capsule"):
            dlpack.take(wrong)


@pytest.mark.parametrize(
    ("strides", "dense"), [(None, True), ((3, 1), True), ((1, 2), False), ((6, 1), False), ((9, 1), False)]
)
def test_dense_is_row_major_without_gaps(strides: tuple[int, ...] | None, dense: bool) -> None:
    assert dlpack.is_dense((2, 3), strides) == dense


# ---- What is taken, without a GPU ------------------------------------------------------------------------------------


class Described:
    """What pycuda's arrays say of themselves; the memory is the host's, and nobody reads it."""

    def __init__(self, array: np.ndarray, **changes: Any) -> None:
        self.array = array
        data = {"shape": array.shape, "typestr": array.dtype.str, "data": (array.ctypes.data, False), "version": 3}
        self.__cuda_array_interface__ = data | {"strides": array.strides} | changes


def taken(value: object, *, handshake: bool = True, write: bool = False) -> tuple[object, list[tuple[int, int]]]:
    waits: list[tuple[int, int]] = []
    placed, owner = place("x", value, np.float32, 7, lambda *streams: waits.append(streams), handshake, write)
    assert (owner is not None) == isinstance(placed, tuple)
    return placed, waits


@pytest.mark.parametrize("handshake", [True, False])
def test_arrays_are_taken_where_they_are(handshake: bool) -> None:
    array = np.ones((2, 3), np.float32)
    expected = (array.ctypes.data, 1, 2, 2, 3)
    assert taken(Described(array), handshake=handshake) == (expected, [])
    assert taken(Described(array, stream=5), handshake=handshake) == (expected, [(5, 7)])
    assert taken(Described(array, stream=7), handshake=handshake) == (expected, [])
    assert taken(Described(array), handshake=handshake, write=True) == (expected, [])
    assert taken(None) == (None, [])
    host, _ = taken([[1.0, 2.0]])
    assert isinstance(host, np.ndarray) and host.dtype == np.float32


def test_pinned_memory_is_the_hosts() -> None:
    class Pinned(Handed):
        def __dlpack_device__(self) -> tuple[int, int]:
            return 3, 0

        def __dlpack__(self, **asked: Any) -> object:
            assert asked.get("stream") is None  # as torch has it
            return super().__dlpack__()

    placed, _ = taken(Pinned(np.ones((2, 3), np.float32)))
    assert isinstance(placed, np.ndarray) and placed.shape == (2, 3)


@pytest.mark.parametrize(
    ("value", "write", "match"),
    [
        (Described(np.ones((2, 3))), False, "x: expected dtype float32, got float64"),
        (Described(np.ones((2, 6), np.float32)[:, ::2]), False, "x: expected a dense"),
        (Described(np.ones((2, 3), np.float32), strides=(14, 5)), False, "x: expected a dense"),
        (Described(np.ones((1, 2, 3), np.float32)), False, "x: expected one or two dimensions"),
        (Described(np.ones(3, np.float32), data=None), False, "x: its __cuda_array_interface__ cannot be read"),
        (Described(np.ones(3, np.float32), typestr="what"), False, "x: its __cuda_array_interface__ cannot be read"),
        (Described(np.ones(3, np.float32), typestr="|V0"), False, "x: expected dtype float32"),
        (Described(np.ones(3, np.float32), mask=np.ones(3)), False, "x: is masked"),
        (Described(np.ones(3, np.float32), data=(64, True)), True, "x: is read-only"),
    ],
)
def test_what_cannot_be_taken_is_named(value: object, write: bool, match: str) -> None:
    with pytest.raises(trm_edge.TrmInputError, match=match):
        taken(value, write=write)


def test_an_array_that_needs_a_gradient_is_read_but_not_written() -> None:
    torch = pytest.importorskip("torch")
    tensor = torch.ones(2, 3, requires_grad=True)
    placed, _ = taken(tensor)
    assert isinstance(placed, np.ndarray)
    with pytest.raises(trm_edge.TrmInputError, match="x: requires a gradient"):
        taken(tensor, write=True)


def test_an_array_that_may_not_be_written_is_not_handed_over_for_it_either() -> None:
    class ReadOnly(Handed, Described):
        def __dlpack_device__(self) -> tuple[int, int]:
            return 2, 0

    array = np.ones((2, 3), np.float32)
    value = ReadOnly(array)
    Described.__init__(value, array, data=(array.ctypes.data, True))
    assert isinstance(taken(value)[0], tuple)
    with pytest.raises(trm_edge.TrmInputError, match="x: is read-only"):
        taken(value, write=True)


class OfTorch:
    cuda_stream = 0


class OfCupy:
    ptr = 12


class OfPycuda:
    handle = 13


class OfNumba:
    handle = ctypes.c_void_p(14)


class DefaultOfNumba:
    handle = ctypes.c_void_p(0)


class OfCudaCore:
    handle = object()

    def __cuda_stream__(self) -> tuple[int, int]:
        return 0, 15


def test_streams_of_every_library_are_addresses() -> None:
    streams = (OfTorch(), OfCupy(), OfPycuda(), OfNumba(), DefaultOfNumba(), OfCudaCore(), 16, 0)
    assert [stream_handle(stream) for stream in streams] == [1, 12, 13, 14, 1, 15, 16, 1]
    for wrong in ("fast", -1, None, object()):
        with pytest.raises(trm_edge.TrmInputError, match="stream: expected a CUDA stream"):
            stream_handle(wrong)


def test_a_stream_of_another_gpu_is_refused() -> None:
    class OfAnother(OfTorch):
        class device:
            index = 1

    class OfCupyThere(OfCupy):
        device_id = 1

    for stream in (OfAnother(), OfCupyThere()):
        with pytest.raises(trm_edge.TrmInputError, match="stream: is one of GPU 1"):
            stream_handle(stream)


@pytest.mark.parametrize("backend", ["fused", "reference"])
def test_other_backends_say_whose_it_is(backend: str) -> None:
    refiner = trm_edge.load(bundle_bytes(BUNDLE), backend=backend)
    with pytest.raises(trm_edge.TrmUnsupportedError, match=f"for backend cuda, this is {backend}"):
        refiner.refine_on_device(**random_inputs(BUNDLE.spec, np.random.default_rng(0)))


# ---- On the GPU ------------------------------------------------------------------------------------------------------


@pytest.fixture(params=WAYS)
def refiner(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> trm_edge.Refiner:
    monkeypatch.setenv("TRM_EDGE_CUDA_WAY", request.param)
    precision = "fp32" if request.param == "plain" else "bf16"
    return trm_edge.load(bundle_bytes(BUNDLE), backend="cuda", precision=precision)


def call_of(seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    call = random_inputs(BUNDLE.spec, rng)
    return call | {
        "last_action": np.clip(call["y0"][0] + 0.1 * rng.standard_normal(BUNDLE.spec.dof), -1, 1).astype("f4")
    }


def torch_on_gpu() -> Any:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("PyTorch sees no GPU")
    return torch


def on_gpu(call: dict[str, Any]) -> dict[str, Any]:
    """Put arrays on the GPU; on an emulated one nobody can, and those of the host are copied in the call."""
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        return call
    return {name: torch.tensor(value, device="cuda") for name, value in call.items()}


def same(got: trm_edge.Refinement, expected: trm_edge.Refinement) -> None:
    assert (got.status, got.steps_run) == (expected.status, expected.steps_run)
    np.testing.assert_allclose(got.y, expected.y, atol=2e-6)
    np.testing.assert_allclose(got.halt_logits, expected.halt_logits, atol=1e-6)
    np.testing.assert_allclose(got.confidence, expected.confidence, atol=1e-6)


@gpu
@pytest.mark.gpu
@pytest.mark.parametrize("steps", [0, 1, 4, 16])
def test_the_answer_is_that_of_refine(refiner: trm_edge.Refiner, steps: int) -> None:
    for seed in range(3):
        call = call_of(seed)
        expected = refiner.refine(**call, steps=steps, trajectory=True)
        answer = refiner.refine_on_device(**on_gpu(call), steps=steps, trajectory=True)
        same(answer.wait(), expected)
        np.testing.assert_allclose(answer.wait().trajectory, expected.trajectory, atol=2e-6)
        host = refiner.refine_on_device(**call, steps=steps)  # arrays of the host, and without waiting
        same(host.wait(), expected)
        mixed = on_gpu(call) | {"last_action": call["last_action"], "y0": call["y0"]}
        same(refiner.refine_on_device(**mixed, steps=steps).wait(), expected)


@gpu
@pytest.mark.gpu
def test_without_a_draft_it_is_the_mean_action(refiner: trm_edge.Refiner) -> None:
    call = call_of(3)
    del call["y0"]
    same(refiner.refine_on_device(**on_gpu(call)).wait(), refiner.refine(**call))


@gpu
@pytest.mark.gpu
def test_halting_is_that_of_refine(refiner: trm_edge.Refiner) -> None:
    seen = set()
    for seed in range(4):
        call = call_of(seed)
        logits = refiner.refine(**call, steps=8).halt_logits.astype(np.float64)
        confidences = np.sort(1 / (1 + np.exp(-logits)))
        between = [0.0, *((confidences[1:] + confidences[:-1]) / 2)[np.diff(confidences) > 1e-4], 1.0]
        for halt in between:
            expected = refiner.refine(**call, steps=8, halt=halt)
            assert expected.steps_run == next((k + 1 for k in range(8) if 1 / (1 + np.exp(-logits[k])) >= halt), 8)
            same(refiner.refine_on_device(**on_gpu(call), steps=8, halt=halt).wait(), expected)
            seen.add(expected.steps_run)
    assert len(seen) > 2


@gpu
@pytest.mark.gpu
def test_what_is_not_finite_gives_the_draft_inside_the_limits(refiner: trm_edge.Refiner) -> None:
    call = call_of(0)
    good = refiner.refine(**call)
    for name in ("x", "features"):
        bad = call | {name: np.where(np.arange(call[name].size).reshape(call[name].shape) == 1, np.nan, call[name])}
        bad[name] = bad[name].astype(np.float32)
        same(refiner.refine_on_device(**on_gpu(bad)).wait(), refiner.refine(**bad))
    draft = call["y0"].copy()
    draft[2, 1] = np.inf
    broken = refiner.refine_on_device(**on_gpu(call | {"y0": draft})).wait()
    draft[2, 1] = BUNDLE.tensors["normalization.y0.mean"][1]
    patched = refiner.refine(**call | {"y0": draft}, steps=0)
    assert broken.status == Status.NONFINITE and broken.steps_run == 0 and np.isnan(broken.confidence)
    np.testing.assert_allclose(broken.y, patched.y, atol=1e-6)
    lost = refiner.refine_on_device(**on_gpu(call | {"last_action": call["last_action"] * np.float32(np.nan)})).wait()
    assert lost.status == Status.NONFINITE and np.isfinite(lost.y).all()
    huge = call | {"x": np.full_like(call["x"], 3e38)}
    same(refiner.refine_on_device(**on_gpu(huge)).wait(), refiner.refine(**huge))
    same(refiner.refine_on_device(**on_gpu(call)).wait(), good)


@gpu
@pytest.mark.gpu
def test_limits_hold_on_the_gpu(refiner: trm_edge.Refiner) -> None:
    call = call_of(1)
    far = call | {"last_action": np.full(BUNDLE.spec.dof, 50, np.float32)}
    expected = refiner.refine(**far)
    assert expected.status == Status.OUTSIDE_LIMITS
    same(refiner.refine_on_device(**on_gpu(far)).wait(), expected)


@gpu
@pytest.mark.gpu
def test_the_answer_stays_on_the_gpu(refiner: trm_edge.Refiner) -> None:
    torch = torch_on_gpu()
    call = call_of(2)
    expected = torch.tensor(refiner.refine(**call).y)
    answer = refiner.refine_on_device(**on_gpu(call))
    for taken in (torch.from_dlpack(answer.y), torch.as_tensor(answer.y, device="cuda")):
        assert taken.is_cuda and taken.dtype == torch.float32
        torch.testing.assert_close(taken.cpu(), expected, atol=2e-6, rtol=0)
    out = torch.full(expected.shape, torch.nan, device="cuda")
    assert refiner.refine_on_device(**on_gpu(call), out=out).y is out
    refiner.refine_on_device(**on_gpu(call_of(3))).wait()
    torch.testing.assert_close(out.cpu(), expected, atol=2e-6, rtol=0)


@gpu
@pytest.mark.gpu
def test_a_stream_of_the_callers_orders_everything(refiner: trm_edge.Refiner) -> None:
    torch = torch_on_gpu()
    stream = torch.cuda.Stream()
    expected = [refiner.refine(**call_of(seed)).y for seed in range(6)]
    answers = []
    with torch.cuda.stream(stream):
        for seed in range(6):
            call = on_gpu(call_of(seed))
            late = {name: torch.zeros_like(value) for name, value in call.items()}
            torch.cuda._sleep(200_000)
            for name, value in call.items():
                late[name].copy_(value)  # after the sleep: who reads too early reads zeros
            answers.append(torch.empty(expected[0].shape, device="cuda"))
            refiner.refine_on_device(**late, out=answers[-1], stream=stream)
    stream.synchronize()
    for got, want in zip(answers, expected, strict=True):
        np.testing.assert_allclose(got.cpu().numpy(), want, atol=2e-6)


@gpu
@pytest.mark.gpu
def test_our_own_stream_waits_for_its_inputs(refiner: trm_edge.Refiner) -> None:
    torch = torch_on_gpu()
    expected = refiner.refine(**call_of(4)).y

    class OnlyDescribed:
        def __init__(self, tensor: Any) -> None:
            self.__cuda_array_interface__, self.tensor = tensor.__cuda_array_interface__, tensor

    for wrap in (lambda tensor: tensor, OnlyDescribed):
        call = on_gpu(call_of(4))
        late = {name: torch.zeros_like(value) for name, value in call.items()}
        torch.cuda.synchronize()
        torch.cuda._sleep(2_000_000)
        for name, value in call.items():
            late[name].copy_(value)
        answer = refiner.refine_on_device(**{name: wrap(value) for name, value in late.items()})
        np.testing.assert_allclose(torch.from_dlpack(answer.y).cpu().numpy(), expected, atol=2e-6)


@gpu
@pytest.mark.gpu
def test_the_default_stream_is_a_stream(refiner: trm_edge.Refiner) -> None:
    torch = torch_on_gpu()
    call, out = on_gpu(call_of(1)), torch.empty(call_of(1)["y0"].shape, device="cuda")
    answer = refiner.refine_on_device(**call, steps=5, out=out, stream=torch.cuda.current_stream())
    same(answer.wait(), refiner.refine(**call_of(1), steps=5))


@gpu
@pytest.mark.gpu
def test_the_next_call_may_start_from_the_answer_before(refiner: trm_edge.Refiner) -> None:
    torch = torch_on_gpu()
    call, other = call_of(2), refiner.clone()
    for give_out in (False, True):
        given = on_gpu(call)
        out = torch.empty(call["y0"].shape, device="cuda") if give_out else None
        answer = refiner.refine_on_device(**given, out=out)
        actions = out if out is not None else torch.from_dlpack(answer.y)
        first = actions.cpu().numpy()
        expected = other.refine(**call | {"y0": first, "last_action": first[3]})
        again = refiner.refine_on_device(**given | {"y0": actions, "last_action": actions[3]}, out=out)
        same(again.wait(), expected)


@gpu
@pytest.mark.gpu
def test_pinned_arrays_are_copied(refiner: trm_edge.Refiner) -> None:
    torch = torch_on_gpu()
    call = call_of(3)
    pinned = {name: torch.tensor(value).pin_memory() for name, value in call.items()}
    answer = refiner.refine_on_device(**pinned)
    for tensor in pinned.values():
        tensor.zero_()
    same(answer.wait(), refiner.refine(**call))


@gpu
@pytest.mark.gpu
def test_what_is_written_is_there_on_the_default_stream(refiner: trm_edge.Refiner) -> None:
    torch = torch_on_gpu()
    expected = refiner.refine(**call_of(4)).y
    torch.cuda._sleep(2_000_000)
    out = torch.zeros(expected.shape, device="cuda")  # after the sleep; the answer comes after that
    refiner.refine_on_device(**call_of(4), out=out)
    np.testing.assert_allclose(out.cpu().numpy(), expected, atol=2e-6)


@gpu
@pytest.mark.gpu
def test_refiners_in_a_chain_wait_for_each_other(refiner: trm_edge.Refiner) -> None:
    torch = torch_on_gpu()
    other, call = refiner.clone(), call_of(5)
    first = torch.from_dlpack(refiner.refine_on_device(**on_gpu(call), steps=16).y).cpu().numpy()
    expected = other.refine(**call | {"y0": first})
    for stream in (None, torch.cuda.Stream()):
        first = refiner.refine_on_device(**on_gpu(call), steps=16)
        same(other.refine_on_device(**on_gpu(call) | {"y0": first.y}, stream=stream).wait(), expected)


@gpu
@pytest.mark.gpu
def test_pycuda_and_cupy_arrays_are_taken(refiner: trm_edge.Refiner) -> None:
    gpuarray = pytest.importorskip("pycuda.gpuarray")
    pytest.importorskip("pycuda.autoprimaryctx")
    call = call_of(5)
    expected = refiner.refine(**call)
    given = {name: gpuarray.to_gpu(value) for name, value in call.items()}
    out = gpuarray.empty(expected.y.shape, np.float32)
    same(refiner.refine_on_device(**given, out=out).wait(), expected)
    np.testing.assert_allclose(out.get(), expected.y, atol=2e-6)


@gpu
@pytest.mark.gpu
@pytest.mark.parametrize(
    ("way", "precision"), [*((way, precision) for way in WAYS for precision in ("fp16", "w8a16")), ("plain", "int8")]
)
def test_lower_precisions_are_those_of_refine(way: str, precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRM_EDGE_CUDA_WAY", way)
    refiner = trm_edge.load(bundle_bytes(BUNDLE), backend="cuda", precision=precision)
    assert refiner.precision == precision
    for seed, steps in enumerate((1, 4, 16)):
        call = call_of(seed)
        same(refiner.refine_on_device(**on_gpu(call), steps=steps).wait(), refiner.refine(**call, steps=steps))


@gpu
@pytest.mark.gpu
def test_every_call_begins_with_the_scales_of_the_first_step(monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = calibrated(make_bundle("actions", "rope"), "static-per-step")
    monkeypatch.setenv("TRM_EDGE_CUDA_WAY", "plain")
    refiner = trm_edge.load(bundle_bytes(bundle), backend="cuda", precision="int8")
    call = random_inputs(bundle.spec, np.random.default_rng(4))
    expected = refiner.clone().refine(**call, steps=3)
    for _ in range(2):
        same(refiner.refine_on_device(**on_gpu(call), steps=3).wait(), expected)


@gpu
@pytest.mark.gpu
@pytest.mark.parametrize("own_stream", [True, False])
def test_a_refiner_that_goes_waits_for_its_answer(refiner: trm_edge.Refiner, own_stream: bool) -> None:
    torch = torch_on_gpu()
    call = call_of(1)
    expected = refiner.refine(**call, steps=16)
    leaving, given = refiner.clone(), on_gpu(call)
    out = torch.zeros(expected.y.shape, device="cuda")
    gone = weakref.ref(leaving)
    torch.cuda._sleep(2_000_000)  # on the default stream, which is what both calls come after
    stream = None if own_stream else torch.cuda.current_stream()
    leaving.refine_on_device(**given, steps=16, out=out, stream=stream)
    del leaving
    assert gone() is None
    with torch.cuda.stream(torch.cuda.Stream()):  # which waits for nothing: the answer is there already
        got = out.cpu().numpy()
    np.testing.assert_allclose(got, expected.y, atol=2e-6)
    same(refiner.refine(**call, steps=16), expected)


@gpu
@pytest.mark.gpu
def test_an_answer_on_the_gpu_outlives_its_refiner(refiner: trm_edge.Refiner) -> None:
    torch = torch_on_gpu()
    call = call_of(2)
    expected = refiner.refine(**call).y
    actions = torch.from_dlpack(refiner.clone().refine_on_device(**on_gpu(call)).y)
    gc.collect()
    np.testing.assert_allclose(actions.cpu().numpy(), expected, atol=2e-6)


@gpu
@pytest.mark.gpu
def test_a_refiner_that_goes_waits_before_it_lets_go_of_its_inputs(
    refiner: trm_edge.Refiner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where an answer keeps the session, whose own end would come too late."""
    leaving, call, happened, wait = refiner.clone(), call_of(3), [], core.Session.wait

    def watched(session: core.Session, steps: int, trajectory: bool) -> tuple[Any, ...]:
        found = wait(session, steps, trajectory)
        happened.append("waited")
        return found

    first = refiner.clone().refine_on_device(**call)
    expected = refiner.refine(**call | {"y0": first.wait().y}).y
    monkeypatch.setattr(core.Session, "wait", watched)
    memory = weakref.ref(first.y, lambda _: happened.append("input"))
    y = leaving.refine_on_device(**call | {"y0": first.y}).y
    del first
    assert memory() is not None and not happened
    del leaving
    assert happened == ["waited", "input"]
    same(refiner.refine_on_device(**call | {"y0": y}).wait(), refiner.clone().refine(**call | {"y0": expected}))


@gpu
@pytest.mark.gpu
def test_an_answer_that_was_written_over_is_refused(refiner: trm_edge.Refiner) -> None:
    torch = torch_on_gpu()
    first = refiner.refine_on_device(**on_gpu(call_of(0)))
    kept = first.wait()
    lost = refiner.refine_on_device(**on_gpu(call_of(1)))
    refiner.refine(**call_of(2))
    for use in (lost.wait, lambda: torch.from_dlpack(lost.y), lambda: lost.status, lambda: torch.from_dlpack(first.y)):
        with pytest.raises(trm_edge.TrmInputError, match="called again since"):
            use()
    assert first.wait() is kept


@gpu
@pytest.mark.gpu
def test_an_answer_in_the_memory_of_another_refiner_keeps_it(refiner: trm_edge.Refiner) -> None:
    other, call = refiner.clone(), call_of(0)
    theirs = other.refine_on_device(**call_of(1)).y
    memory = weakref.ref(theirs)
    y = refiner.refine_on_device(**call, out=theirs).y
    del theirs
    gc.collect()
    assert memory() is not None
    same_memory = [array.__cuda_array_interface__["data"] for array in (memory(), y)]
    assert same_memory[0] == same_memory[1]
    other.refine(**call)
    with pytest.raises(trm_edge.TrmInputError, match="called again since"):
        y.__dlpack__()


@gpu
@pytest.mark.gpu
def test_wrong_arrays_are_named(refiner: trm_edge.Refiner) -> None:
    torch = torch_on_gpu()
    call = on_gpu(call_of(0))
    wrong = [
        ({"x": call["x"].double()}, "x: expected dtype float32, got float64"),
        ({"x": call["x"].T}, "x: expected"),
        ({"y0": call["y0"][:-1]}, r"y0: expected shape \["),
        ({"out": torch.empty(2, 2, device="cuda")}, "out: expected shape"),
        ({"out": np.empty(call["y0"].shape, np.float32)}, "out: expected an array on the GPU"),
        ({"out": call["y0"].int()}, "out: expected dtype float32"),
        ({"steps": 17}, r"steps: expected 0\.\.16"),
        ({"stream": "fast"}, "stream: expected"),
    ]
    for change, match in wrong:
        with pytest.raises(trm_edge.TrmInputError, match=match):
            refiner.refine_on_device(**call | change)
    with pytest.raises(trm_edge.TrmInputError, match=r"x: .*refine_on_device"):
        refiner.refine(**call)
    refiner.begin(**call_of(0))
    refiner.step()
    refiner.refine_on_device(**call).wait()
    with pytest.raises(trm_edge.TrmNotBegunError):
        refiner.step()


# ---- In graphs -------------------------------------------------------------------------------------------------------


def load_fused(monkeypatch: pytest.MonkeyPatch, precision: str = "bf16") -> trm_edge.Refiner:
    monkeypatch.setenv("TRM_EDGE_CUDA_WAY", "fused")
    return trm_edge.load(bundle_bytes(BUNDLE), backend="cuda", precision=precision)


def captured(refiner: trm_edge.Refiner, call: dict[str, Any], **options: Any) -> tuple[Any, dict[str, Any], Any, Any]:
    """Capture one call; return the graph, its inputs and its output on the GPU, and the answer."""
    torch = torch_on_gpu()
    given, out, graph = on_gpu(call), torch.zeros(call["y0"].shape, device="cuda"), torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        answer = refiner.refine_on_device(**given, out=out, stream=torch.cuda.current_stream(), **options)
    return graph, given, out, answer


def replayed(graph: Any, given: dict[str, Any], out: Any, call: dict[str, Any]) -> np.ndarray:
    """Return what a replay makes of ``call``, whose arrays have the shapes of the call that was captured."""
    torch = torch_on_gpu()
    out.fill_(torch.nan)
    for name, value in call.items():
        given[name].copy_(torch.tensor(value))
    graph.replay()
    torch.cuda.synchronize()
    values: np.ndarray = out.cpu().numpy()
    return values


@gpu
@pytest.mark.gpu
def test_a_call_in_a_graph_is_made_again_by_every_replay(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = torch_on_gpu()
    monkeypatch.setenv("TRM_EDGE_CUDA_WAY", "fused")
    refiner = trm_edge.load(bundle_bytes(BUNDLE), backend="cuda", precision="bf16")
    calls = [call_of(seed) for seed in range(4)]
    rows = min(len(call["x"]) for call in calls)
    calls = [call | {"x": call["x"][:rows]} for call in calls]
    expected = [refiner.refine(**call, halt=0.5, steps=6) for call in calls]
    given, out = on_gpu(calls[0]), torch.zeros(expected[0].y.shape, device="cuda")
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        stream = torch.cuda.current_stream()
        with pytest.raises(trm_edge.TrmInputError, match="y0: expected memory of the GPU"):
            refiner.refine_on_device(**given | {"y0": calls[0]["y0"]}, out=out, stream=stream)
        with pytest.raises(trm_edge.TrmInputError, match="y: expected memory of the GPU"):
            refiner.refine_on_device(**given, stream=stream)
        answer = refiner.refine_on_device(**given, steps=6, halt=0.5, out=out, stream=stream)
    with pytest.raises(trm_edge.TrmNotBegunError, match="has not been launched"):
        answer.wait()
    for call, want in zip(calls, expected, strict=True):
        for name, value in call.items():
            given[name].copy_(torch.tensor(value))
        graph.replay()
        torch.cuda.synchronize()
        np.testing.assert_allclose(out.cpu().numpy(), want.y, atol=2e-6)
        same(answer.wait(), want)


@gpu
@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_a_replay_halts_where_refine_does(precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    refiner = load_fused(monkeypatch, precision)
    calls, halt = [call_of(seed) for seed in range(4)], 0.004  # which they reach at different steps
    expected = [refiner.refine(**call, steps=8, halt=halt) for call in calls]
    assert len({want.steps_run for want in expected}) > 1
    assert any(want.status == Status.HALTED for want in expected)
    graph, given, out, answer = captured(refiner, calls[0], steps=8, halt=halt)
    for i in (0, 1, 2, 3, 1, 0):  # after a long one a short one, and the other way round
        np.testing.assert_allclose(replayed(graph, given, out, calls[i]), expected[i].y, atol=2e-6)
        same(answer.wait(), expected[i])


@gpu
@pytest.mark.gpu
def test_two_graphs_of_one_refiner_are_replayed_in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    refiner = load_fused(monkeypatch)
    calls = [call_of(seed) for seed in range(3)]
    expected = {steps: [refiner.refine(**call, steps=steps) for call in calls] for steps in (2, 5)}
    graphs = {steps: captured(refiner, calls[0], steps=steps) for steps in (2, 5)}
    for i in range(3):
        for steps, (graph, given, out, _) in graphs.items():
            np.testing.assert_allclose(replayed(graph, given, out, calls[i]), expected[steps][i].y, atol=2e-6)
    same(graphs[5][3].wait(), expected[5][2])
    with pytest.raises(trm_edge.TrmInputError, match="called again since"):
        graphs[2][3].wait()


@gpu
@pytest.mark.gpu
def test_calls_and_replays_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    refiner = load_fused(monkeypatch)
    calls = [call_of(seed) for seed in range(3)]
    expected = [refiner.refine(**call, trajectory=True) for call in calls]
    graph, given, out, _ = captured(refiner, calls[0])
    for _ in range(2):
        np.testing.assert_allclose(replayed(graph, given, out, calls[0]), expected[0].y, atol=2e-6)
        same(refiner.refine(**calls[1]), expected[1])
        np.testing.assert_allclose(replayed(graph, given, out, calls[2]), expected[2].y, atol=2e-6)
        same(refiner.refine_on_device(**on_gpu(calls[1])).wait(), expected[1])
        np.testing.assert_allclose(replayed(graph, given, out, calls[1]), expected[1].y, atol=2e-6)
        refiner.begin(**calls[0])
        for k in range(4):
            np.testing.assert_allclose(refiner.step().trajectory, expected[0].trajectory[k : k + 1], atol=2e-6)


@gpu
@pytest.mark.gpu
def test_a_call_without_a_step_has_to_be_followed_by_one_before_a_capture(monkeypatch: pytest.MonkeyPatch) -> None:
    refiner, call = load_fused(monkeypatch), call_of(2)
    expected = refiner.clone().refine(**call)
    refiner.refine(**call, steps=0)
    with pytest.raises(trm_edge.TrmUnsupportedError, match="make a call with a step and wait for it"):
        captured(refiner, call)
    refiner.refine(**call, steps=1)
    graph, given, out, answer = captured(refiner, call)
    np.testing.assert_allclose(replayed(graph, given, out, call), expected.y, atol=2e-6)
    same(answer.wait(), expected)


@gpu
@pytest.mark.gpu
def test_refiners_work_while_another_thread_captures(
    refiner: trm_edge.Refiner, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch = torch_on_gpu()
    call, other = call_of(3), load_fused(monkeypatch)
    expected, want = refiner.clone().refine(**call), other.refine(**call)
    given, out, graph = on_gpu(call), torch.zeros(want.y.shape, device="cuda"), torch.cuda.CUDAGraph()
    under_way, over = threading.Event(), threading.Event()
    failed: list[BaseException] = []

    def capture() -> None:
        try:
            with torch.cuda.graph(graph):
                other.refine_on_device(**given, out=out, stream=torch.cuda.current_stream())
                under_way.set()
                assert over.wait(60)
        except BaseException as error:
            failed.append(error)
        finally:
            under_way.set()

    thread = threading.Thread(target=capture)
    thread.start()
    try:
        assert under_way.wait(60)
        same(refiner.refine(**call), expected)
        same(refiner.refine_on_device(**call).wait(), expected)
        same(refiner.clone().refine(**call), expected)  # made, used and gone meanwhile
    finally:
        over.set()
        thread.join()
    assert not failed
    np.testing.assert_allclose(replayed(graph, given, out, call), want.y, atol=2e-6)


@gpu
@pytest.mark.gpu
def test_what_cannot_be_captured_says_why(refiner: trm_edge.Refiner) -> None:
    torch = torch_on_gpu()
    call, out = on_gpu(call_of(0)), torch.empty(call_of(0)["y0"].shape, device="cuda")
    fused = (refiner.isa or "").endswith("fused")
    if fused:
        refiner.refine_on_device(**call, out=out)  # under way
    graph = torch.cuda.CUDAGraph()
    match = "the session may still be at work" if fused else "for the way 'fused'"
    with torch.cuda.graph(graph), pytest.raises(trm_edge.TrmUnsupportedError, match=match):
        refiner.refine_on_device(**call, out=out, stream=torch.cuda.current_stream())
    same(refiner.refine_on_device(**call).wait(), refiner.refine(**call_of(0)))


@gpu
@pytest.mark.gpu
def test_heads_without_actions_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = plain_bundle("tokens")
    refiner = trm_edge.load(bundle_bytes(bundle), backend="cuda")
    call = random_inputs(bundle.spec, np.random.default_rng(0))
    with pytest.raises(trm_edge.TrmUnsupportedError, match="for action heads, this one is for tokens"):
        refiner.refine_on_device(call["x"])
