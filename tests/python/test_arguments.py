"""Wrong arguments: refused by every backend, with the field, what was expected and what was given; and all that is
accepted as an array."""

from __future__ import annotations

import array
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from runners import RUNNERS, STEPPING, Open, plain_bundle

from trm_edge import Refiner, Status, TrmError, TrmInputError, TrmNotBegunError
from trm_edge.golden import random_inputs
from trm_edge.inputs import as_array, check_features

Change = Callable[[dict[str, Any]], dict[str, Any]]

# The heads that the table below speaks of.
HEADS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "actions": ("actions", "rope", {}),
    "features": ("actions", "rope", {"feature_size": 2}),
    "mlp_t": ("actions", "mlp_t", {}),
    "slots": ("slots", "rope", {}),
    "tokens": ("tokens", "rope", {}),
    "no-context": ("actions", "rope", {"max_context": 0, "context_size": 0}),
}


def f32(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.float32)


def i32(*values: int) -> np.ndarray:
    return np.asarray(values, np.int32)


def big_endian(a: np.ndarray) -> np.ndarray:
    return a.astype(a.dtype.newbyteorder(">"))


def with_value(a: np.ndarray, value: float) -> np.ndarray:
    changed = a.copy()
    changed.reshape(-1)[-1] = value
    return changed


def _set(name: str, value: Any) -> Change:
    """Return a change of argument ``name``: to a value, or to what a function makes of the right one."""
    return lambda call: {name: value(call.get(name)) if callable(value) else value}


def _case(head: str, name: str, value: Any, *words: str) -> Any:
    """One wrong call; its message starts with ``name`` and holds all ``words``."""
    shown = getattr(value, "__name__", None) or (f"{value.dtype}{list(value.shape)}" if hasattr(value, "dtype") else "")
    label = f"{head}-{name}-{shown or repr(value)[:24]}-{'-'.join(words)[:24]}"
    return pytest.param(head, _set(name, value), name, words, id=label)


def _dtype_cases() -> list[Any]:
    """Every array argument, in every wrong dtype."""
    cases = []
    arrays = [
        *(("actions", name, "float32") for name in ("x", "y0")),
        *(("features", "features", "float32"), ("slots", "slots", "float32"), ("slots", "candidates", "float32")),
        *(("slots", "y0", "int32"), ("tokens", "x", "int32"), ("slots", "mask", "bool")),
    ]
    for head, name, right in arrays:
        for wrong in ("float64", "float16", "int64", "int32", "uint8", "bool", "float32", "complex64", "object", "U8"):
            if wrong == right:
                continue
            shown = {"U8": "<U8"}.get(wrong, wrong)
            change = _set(name, lambda a, to=wrong: a.astype(to))
            cases.append(pytest.param(head, change, name, (right, shown), id=f"{head}-{name}-{wrong}"))
        if right != "bool":
            shown = {"float32": ">f4", "int32": ">i4"}[right]
            cases.append(pytest.param(head, _set(name, big_endian), name, (right, shown), id=f"{head}-{name}-swapped"))
    return cases


def _shape_cases() -> list[Any]:
    """Every array argument with a row, a column or a dimension too many or too few, and without dimensions."""
    cases = []
    arrays = [
        *(("actions", "y0", "rc"), ("actions", "x", "c"), ("features", "features", "rc"), ("slots", "slots", "c")),
        *(("slots", "candidates", "c"), ("slots", "mask", "rc"), ("slots", "y0", "r"), ("tokens", "x", "r")),
        *(("mlp_t", "x", "c"), ("mlp_t", "y0", "rc")),
    ]
    makers: dict[str, tuple[str, Callable[[np.ndarray], np.ndarray]]] = {
        "a row more": ("r", lambda a: np.concatenate([a, a[:1]])),
        "a row less": ("r", lambda a: a[:-1]),
        "a column more": ("c", lambda a: np.concatenate([a, a[:, :1]], axis=1)),
        "a column less": ("c", lambda a: a[:, :-1]),
        "transposed": ("c", lambda a: a.T),
        "flat": ("c", lambda a: a.reshape(-1)),
        "a dimension more": ("rc", lambda a: a[None]),
        "a scalar": ("rc", lambda a: a.reshape(-1)[0]),
        "a 0-d array": ("rc", lambda a: a.reshape(-1)[0].reshape(())),
    }
    for head, name, fixed in arrays:
        for label, (needs, make) in makers.items():
            if set(needs) & set(fixed):
                cases.append(pytest.param(head, _set(name, make), name, ("expected",), id=f"{head}-{name}-{label}"))
    return cases


WRONG = [
    *_dtype_cases(),
    *_shape_cases(),
    # what is no array
    _case("actions", "x", "text", "float32"),
    _case("actions", "x", b"text", "float32"),
    _case("actions", "x", ..., "float32"),
    _case("actions", "x", 3, "float32"),
    _case("actions", "x", {"a": 1}, "float32"),
    _case("actions", "y0", [[1.0], [1.0, 2.0]], "cannot be read as an array"),
    _case("actions", "y0", [["a"] * 3] * 5, "float32"),
    _case("actions", "y0", [[None] * 3] * 5, "float32"),
    _case("actions", "y0", [[10**400] * 3] * 5, "float32"),
    _case("actions", "y0", [[1e300] * 3] * 5, "finite"),
    _case("actions", "y0", [[True] * 3] * 5, "float32", "bool"),
    _case("slots", "y0", [0.0] * 4, "int32"),
    _case("slots", "y0", [2**31] * 4, "int32"),
    _case("slots", "y0", [-(2**63)] * 4, "int32"),
    _case("slots", "mask", [[1] * 6] * 4, "bool"),
    # sizes, shapes and what the spec says of them
    _case("actions", "x", f32(7, 7), "max_context = 6", "7"),
    _case("actions", "x", f32(2, 8), "7]", "[2, 8]"),
    _case("actions", "x", f32(0, 8), "7]", "[0, 8]"),
    _case("actions", "x", [], "[0]"),
    _case("actions", "y0", f32(5, 4), "[5, 3]", "[5, 4]"),
    _case("actions", "y0", f32(0, 3), "[5, 3]", "[0, 3]"),
    _case("features", "features", f32(4, 2), "[5, 2]", "[4, 2]"),
    _case("mlp_t", "x", f32(5, 7), "6 rows", "L = 13", "got 5", "L = 12"),
    _case("mlp_t", "x", f32(0, 7), "6 rows", "L = 13", "got 0", "L = 7"),
    _case("mlp_t", "x", None, "6 rows", "L = 13", "got 0", "L = 7"),
    _case("mlp_t", "x", f32(7, 7), "max_context = 6", "7"),
    _case("no-context", "x", f32(1, 0), "max_context = 0", "1"),
    _case("no-context", "x", f32(1, 1), "0]", "[1, 1]"),
    _case("slots", "slots", f32(5, 5), "answer_rows = 4", "5"),
    _case("slots", "candidates", f32(7, 4), "max_candidates = 6", "7"),
    _case("slots", "mask", np.ones((4, 5), bool), "[4, 6]", "[4, 5]"),
    _case("slots", "mask", np.ones((6, 4), bool), "[4, 6]", "[6, 4]"),
    _case("tokens", "x", i32(*range(7)), "[9]", "[7]"),
    # values
    _case("actions", "y0", lambda a: with_value(a, np.nan), "finite"),
    _case("actions", "y0", lambda a: with_value(a, np.inf), "finite"),
    _case("actions", "y0", lambda a: with_value(a, -np.inf), "finite"),
    _case("actions", "last_action", np.float32([0, np.nan, 0]), "finite"),
    _case("actions", "last_action", np.float32([np.inf, 0, 0]), "finite"),
    _case("actions", "last_action", f32(2), "[3]", "[2]"),
    _case("actions", "last_action", f32(1, 3), "[3]", "[1, 3]"),
    _case("actions", "last_action", np.zeros(3), "float32", "float64"),
    _case("actions", "last_action", 0.5, "float32"),
    _case("slots", "y0", i32(6, -1, -1, -1), "slot 0", "candidate 6"),
    _case("slots", "y0", i32(-1, -1, -1, -2), "slot 3", "candidate -2"),
    _case("slots", "y0", i32(-1, -(2**31), -1, -1), "slot 1"),
    _case("slots", "y0", i32(-1, 2**31 - 1, -1, -1), "slot 1"),
    _case("tokens", "x", i32(0, 1, 2, 3, 4, 5, 6, 7, 0), "0..6", "7"),
    _case("tokens", "x", i32(0, 1, 2, 3, -1, 5, 6, 6, 0), "0..6", "-1"),
    _case("tokens", "puzzle_id", 4, "0..3", "4"),
    _case("tokens", "puzzle_id", -1, "0..3", "-1"),
    _case("tokens", "puzzle_id", 2**40, "0..3", str(2**40)),
    _case("tokens", "puzzle_id", -(2**40), "0..3", str(-(2**40))),
    _case("tokens", "puzzle_id", "a", "int", "'a'"),
    _case("tokens", "puzzle_id", 1.0, "int", "1.0"),
    _case("tokens", "puzzle_id", True, "int", "True"),
    _case("tokens", "puzzle_id", None, "int", "None"),
    _case("tokens", "puzzle_id", i32(1, 2), "int"),
    # absent and unused
    _case("actions", "y0", None, "draft", "None"),
    _case("features", "features", None, "[5, 2]", "None"),
    *(_case("slots", name, None, "None") for name in ("slots", "candidates", "mask")),
    _case("tokens", "x", None, "int32"),
    _case("tokens", "y0", i32(*range(9)), "tokens head takes none"),
    *(_case("actions", name, f32(5, 2), "takes none") for name in ("features", "slots", "candidates")),
    _case("actions", "mask", np.ones((5, 2), bool), "takes none"),
    _case("actions", "puzzle_id", 1, "takes none"),
    _case("actions", "puzzle_id", "a", "int"),
    _case("slots", "features", f32(4, 2), "takes none"),
    _case("slots", "puzzle_id", 1, "takes none"),
    _case("slots", "last_action", f32(3), "no meaning", "slots"),
    _case("tokens", "last_action", f32(3), "no meaning", "tokens"),
    *(_case("tokens", name, f32(9, 2), "takes none") for name in ("features", "slots", "candidates")),
    # steps and halt
    *(_case("actions", "steps", steps, "0..1024", str(steps)) for steps in (-1, 1025, 2**40, -(2**40), 10**30)),
    *(
        _case("actions", "steps", steps, "int", repr(steps))
        for steps in (1.5, 2.0, "3", None, np.float32(2), True, np.True_)
    ),
    *(_case("actions", "steps", steps, "int") for steps in (np.asarray([1, 2]), np.asarray(1.5), [3])),
    _case("tokens", "steps", 0, "1..1024", "0"),
    *(_case("actions", "halt", halt, "0..1", repr(halt)) for halt in (2.0, -0.1, float("nan"), float("inf"), "x", 2)),
    *(_case("actions", "halt", halt, "0..1") for halt in (np.zeros(2), [0.5], -1.0, -1, 1j, 10**400)),
]


@pytest.fixture(scope="module")
def heads() -> dict[tuple[str, str], tuple[Refiner, dict[str, Any], bytes]]:
    """Refiners by head and runner, each with a right call and the bytes of its answer."""
    return {}


def _head(
    heads: dict[tuple[str, str], tuple[Refiner, dict[str, Any], bytes]], name: str, runner: str, open_refiner: Open
) -> tuple[Refiner, dict[str, Any], bytes]:
    if (name, runner) not in heads:
        kind, mixer, changes = HEADS[name]
        bundle = plain_bundle(kind, mixer, **changes)
        refiner = open_refiner(runner, bundle)
        call = random_inputs(bundle.spec, np.random.default_rng(1))
        heads[name, runner] = refiner, call, refiner.refine(**call).y.tobytes()
    return heads[name, runner]


@pytest.mark.parametrize("runner", [RUNNERS[0], "onnxruntime-step", "onnxruntime-loop", "reference"])
@pytest.mark.parametrize(("head", "change", "field", "words"), WRONG)
def test_a_wrong_call_is_refused_by_name_and_harms_nothing(
    heads: Any, head: str, change: Change, field: str, words: tuple[str, ...], runner: str, open_refiner: Open
) -> None:
    refiner, call, answer = _head(heads, head, runner, open_refiner)
    with pytest.raises(TrmInputError) as caught:
        refiner.refine(**call | change(call))
    assert caught.value.status == Status.INVALID_ARGUMENT
    assert isinstance(caught.value, ValueError) and isinstance(caught.value, TrmError)
    message = str(caught.value)
    assert message.startswith(f"{field}: "), message
    for word in words:
        assert word in message, message
    assert refiner.refine(**call).y.tobytes() == answer


@pytest.mark.parametrize("runner", STEPPING)
def test_a_call_that_is_refused_ends_the_recursion_before_it(runner: str, open_refiner: Open) -> None:
    bundle = plain_bundle("actions", feature_size=2)
    refiner = open_refiner(runner, bundle)
    call = random_inputs(bundle.spec, np.random.default_rng(2))
    refiner.begin(**call)
    first = refiner.step().y.tobytes()
    wrong = [{"x": f32(7, 7)}, {"x": [["a"]]}, {"y0": None}, {"features": f32(5, 3)}, {"last_action": f32(4)}]
    calls = [(start, change) for change in (*wrong, {"puzzle_id": 1}) for start in (refiner.begin, refiner.refine)]
    for start, change in [*calls, (refiner.refine, {"steps": -1}), (refiner.refine, {"halt": 2.0})]:
        refiner.begin(**call)
        refiner.step()
        with pytest.raises(TrmInputError, match=next(iter(change))):
            start(**call | change)
        with pytest.raises(TrmNotBegunError, match="begin"):
            refiner.step()
    refiner.begin(**call)
    assert refiner.step().y.tobytes() == first


@pytest.mark.parametrize("runner", STEPPING)
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, MemoryError])
def test_a_call_whose_array_fails_ends_the_recursion_before_it(
    error: type[BaseException], runner: str, open_refiner: Open
) -> None:
    class Failing:
        def __array__(self, *_: object, **__: object) -> np.ndarray:
            raise error("no array")

    bundle = plain_bundle("actions", feature_size=2)
    refiner = open_refiner(runner, bundle)
    call = random_inputs(bundle.spec, np.random.default_rng(2))
    for start in (refiner.begin, refiner.refine):
        refiner.begin(**call)
        refiner.step()
        with pytest.raises(error, match="no array"):
            start(**call | {"x": Failing()})
        with pytest.raises(TrmNotBegunError, match="begin"):
            refiner.step()


@pytest.mark.parametrize("runner", STEPPING)
def test_step_refuses_a_wrong_refresh_and_keeps_the_recursion(runner: str, open_refiner: Open) -> None:
    bundle = plain_bundle("actions", feature_size=2)
    refiner = open_refiner(runner, bundle)
    call = random_inputs(bundle.spec, np.random.default_rng(3), context_rows=4)
    refiner.begin(**call)
    expected = [refiner.step().y.tobytes() for _ in range(2)]
    wrong: list[tuple[dict[str, Any], tuple[str, ...]]] = [
        ({"x": f32(3, 7)}, ("x: begin was given 4 rows", "got 3")),
        ({"x": f32(5, 7)}, ("x: begin was given 4 rows", "got 5")),
        ({"x": f32(0, 7)}, ("x: begin was given 4 rows", "got 0")),
        ({"x": f32(7, 7)}, ("x: ", "max_context = 6", "7")),
        ({"x": f32(4, 6)}, ("x: ", "7]", "[4, 6]")),
        ({"x": np.zeros((4, 7))}, ("x: ", "float32", "float64")),
        ({"features": f32(5, 3)}, ("features: ", "[5, 2]", "[5, 3]")),
        ({"features": f32(4, 2)}, ("features: ", "[5, 2]", "[4, 2]")),
        ({"features": "text"}, ("features: ", "float32")),
        ({"last_action": f32(4)}, ("last_action: ", "[3]", "[4]")),
        ({"last_action": np.full(3, np.nan, np.float32)}, ("last_action: ", "finite")),
        ({"x": f32(4, 7), "features": f32(5, 2), "last_action": f32(4)}, ("last_action: ", "[3]", "[4]")),
    ]
    refiner.begin(**call)
    for change, words in wrong:
        with pytest.raises(TrmInputError) as caught:
            refiner.step(**change)
        for word in words:
            assert word in str(caught.value)
    assert [refiner.step().y.tobytes() for _ in range(2)] == expected


@pytest.mark.parametrize("runner", STEPPING)
def test_step_refuses_what_the_kind_has_no_use_for(runner: str, open_refiner: Open) -> None:
    for head, change, words in [
        ("tokens", {"x": i32(*range(7), 0, 0)}, ("x: ", "begin again")),
        ("tokens", {"last_action": f32(3)}, ("last_action: ", "tokens")),
        ("tokens", {"features": f32(9, 2)}, ("features: ", "takes none")),
        ("slots", {"features": f32(4, 2)}, ("features: ", "takes none")),
        ("slots", {"last_action": f32(3)}, ("last_action: ", "slots")),
        ("actions", {"features": f32(5, 2)}, ("features: ", "takes none")),
        ("mlp_t", {"x": f32(5, 7)}, ("x: ", "6 rows", "got 5")),
    ]:
        kind, mixer, changes = HEADS[head]
        bundle = plain_bundle(kind, mixer, **changes)
        refiner = open_refiner(runner, bundle)
        call = random_inputs(bundle.spec, np.random.default_rng(4))
        refiner.begin(**call)
        first = refiner.step().y.tobytes()
        refiner.begin(**call)
        with pytest.raises(TrmInputError) as caught:
            refiner.step(**change)
        for word in words:
            assert word in str(caught.value)
        assert refiner.step().y.tobytes() == first


# ---- What is accepted ------------------------------------------------------------------------------------------------


def strided(a: np.ndarray) -> np.ndarray:
    """Return equal values that are not dense in memory."""
    wide = np.zeros((*a.shape[:-1], 2 * a.shape[-1] + 1), a.dtype)
    wide[..., ::2][..., : a.shape[-1]] = a
    return wide[..., ::2][..., : a.shape[-1]]


def unaligned(a: np.ndarray) -> np.ndarray:
    raw = np.zeros(a.nbytes + 1, np.uint8)
    view = raw[1:].view(a.dtype).reshape(a.shape)
    view[...] = a
    return view


def read_only(a: np.ndarray) -> np.ndarray:
    copy = a.copy()
    copy.flags.writeable = False
    return copy


def with_metadata(a: np.ndarray) -> np.ndarray:
    return a.view(np.dtype(a.dtype.str, metadata={"unit": "rad"}))


@pytest.mark.parametrize("kind", ["actions", "slots", "tokens"])
def test_features_are_checked_where_a_head_has_none(kind: str) -> None:
    spec = plain_bundle(kind).spec
    assert check_features(spec, None) is None
    with pytest.raises(TrmInputError, match=f"features: this {kind} head takes none"):
        check_features(spec, np.zeros((5, 1), np.float32))


def another_dtype_object(a: np.ndarray) -> np.ndarray:
    native = a.dtype.newbyteorder("=") if a.dtype != np.bool_ else a.dtype
    return a.view(np.dtype(native, copy=True))


class Subclass(np.ndarray):
    pass


def torch_tensor(a: np.ndarray) -> Any:
    return pytest.importorskip("torch").from_numpy(a.copy())


def torch_tensor_with_grad(a: np.ndarray) -> Any:
    tensor = torch_tensor(a)
    return tensor.requires_grad_() if tensor.is_floating_point() else tensor


SPELLINGS: list[Callable[[np.ndarray], Any]] = [
    np.ndarray.tolist,
    lambda a: tuple(map(tuple, a.tolist())) if a.ndim == 2 else tuple(a.tolist()),
    list,
    strided,
    np.asfortranarray,
    lambda a: a[::-1].copy()[::-1],
    unaligned,
    read_only,
    with_metadata,
    another_dtype_object,
    lambda a: a.view(Subclass),
    memoryview,
    torch_tensor,
    torch_tensor_with_grad,
]


@pytest.mark.parametrize("runner", [RUNNERS[0], "onnxruntime-step", "reference"])
@pytest.mark.parametrize("spell", SPELLINGS, ids=lambda f: getattr(f, "__name__", "?"))
def test_every_spelling_of_an_array_gives_the_same_answer(
    spell: Callable[[np.ndarray], Any], runner: str, open_refiner: Open
) -> None:
    for kind, extra in (("actions", {"feature_size": 2}), ("slots", {}), ("tokens", {})):
        bundle = plain_bundle(kind, **extra)
        refiner = open_refiner(runner, bundle)
        call = random_inputs(bundle.spec, np.random.default_rng(5))
        if kind == "actions":
            call["last_action"] = np.float32([0.1, -0.2, 0.3])
        expected = refiner.refine(**call, trajectory=True)
        spelt = {n: spell(v) if isinstance(v, np.ndarray) else v for n, v in call.items()}
        out = refiner.refine(**spelt, trajectory=True)
        assert out.y.tobytes() == expected.y.tobytes()
        assert out.trajectory.tobytes() == expected.trajectory.tobytes()
        last = {"last_action": spelt.pop("last_action")} if kind == "actions" else {}
        refiner.begin(**spelt)
        again = {} if kind == "tokens" else {"x": spelt["x"]}
        assert refiner.step(**again, **last).trajectory[0].tobytes() == expected.trajectory[0].tobytes()


@pytest.mark.parametrize("runner", RUNNERS)
def test_no_context_may_be_none_or_empty(runner: str, open_refiner: Open) -> None:
    bundle = plain_bundle("actions")
    refiner = open_refiner(runner, bundle)
    call = random_inputs(bundle.spec, np.random.default_rng(6))
    answers = {refiner.refine(**call | {"x": x}).y.tobytes() for x in (None, f32(0, 7), f32(2, 7)[2:], f32(7, 0).T)}
    assert len(answers) == 1


@pytest.mark.parametrize("runner", RUNNERS)
def test_integers_of_any_kind_are_steps_and_puzzle_ids(runner: str, open_refiner: Open) -> None:
    bundle = plain_bundle("tokens")
    refiner = open_refiner(runner, bundle)
    call = random_inputs(bundle.spec, np.random.default_rng(7)) | {"puzzle_id": 1}
    expected = refiner.refine(**call, steps=1).y.tobytes()
    for one in (1, np.int64(1), np.uint8(1), np.asarray(1)):
        assert refiner.refine(**call | {"puzzle_id": one}, steps=one).y.tobytes() == expected
    head = plain_bundle("actions")
    call = random_inputs(head.spec, np.random.default_rng(7))
    refiner = open_refiner(runner, head)
    for nothing in (0, np.int64(0)):
        assert refiner.refine(**call, puzzle_id=nothing).status == Status.OK


def test_dense_arrays_and_buffers_are_not_copied() -> None:
    dense = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert as_array("x", dense, np.float32) is dense
    assert np.shares_memory(as_array("x", read_only(dense)[:], np.float32), dense) is False
    assert np.shares_memory(as_array("x", memoryview(dense), np.float32), dense)
    assert np.shares_memory(as_array("x", with_metadata(dense), np.float32), dense)
    assert np.shares_memory(as_array("x", dense.view(Subclass), np.float32), dense)
    buffer = array.array("i", range(4))
    taken = as_array("y0", buffer, np.int32)
    buffer[2] = 77
    assert taken.tolist() == [0, 1, 77, 3]
    raw = bytearray(dense.tobytes())
    taken = as_array("x", memoryview(raw).cast("f", (2, 3)), np.float32)
    raw[:4] = np.float32(9).tobytes()
    assert taken[0, 0] == 9
    copied = as_array("x", strided(dense), np.float32)
    assert copied.flags.c_contiguous and np.array_equal(copied, dense)


@pytest.mark.parametrize("runner", RUNNERS)
def test_what_a_subclass_means_beside_its_values_is_not_passed_on(runner: str, open_refiner: Open) -> None:
    dense = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert type(as_array("x", dense.view(Subclass), np.float32)) is np.ndarray
    bundle = plain_bundle("actions")
    refiner = open_refiner(runner, bundle)
    call = random_inputs(bundle.spec, np.random.default_rng(8))
    masked = np.ma.array(call["x"], mask=call["x"] > 0)
    with pytest.raises(TrmInputError, match="x: expected an array without a mask"):
        refiner.refine(**call | {"x": masked})


def test_torch_tensors_are_not_copied() -> None:
    torch = pytest.importorskip("torch")
    for tensor in (torch.zeros(2, 3), torch.zeros(2, 3, requires_grad=True), torch.nn.Parameter(torch.zeros(2, 3))):
        taken = as_array("x", tensor, np.float32)
        assert taken.ctypes.data == tensor.data_ptr()
        with torch.no_grad():
            tensor[1, 2] = 5
        assert taken[1, 2] == 5
    flags = torch.ones(2, 3, dtype=torch.bool)
    assert as_array("mask", flags, np.bool_).ctypes.data == flags.data_ptr()
    transposed = torch.arange(6.0).reshape(2, 3).T
    assert np.array_equal(as_array("x", transposed, np.float32), [[0, 3], [1, 4], [2, 5]])


@pytest.mark.parametrize("dtype", ["float64", "bfloat16", "float16", "int64"])
def test_torch_tensors_of_another_dtype_are_refused(dtype: str) -> None:
    torch = pytest.importorskip("torch")
    with pytest.raises(TrmInputError, match=r"^x: "):
        as_array("x", torch.zeros(2, 3, dtype=getattr(torch, dtype)), np.float32)


def test_a_tensor_elsewhere_is_refused() -> None:
    torch = pytest.importorskip("torch")
    with pytest.raises(TrmInputError, match=r"^x: .*dense array on the CPU"):
        as_array("x", torch.zeros(2, 3, device="meta"), np.float32)


def test_any_byte_but_zero_is_true_in_a_mask(open_refiner: Open) -> None:
    bundle = plain_bundle("slots")
    call = random_inputs(bundle.spec, np.random.default_rng(8)) | {"y0": None}
    odd = (call["mask"].astype(np.uint8) * 2).view(np.bool_)
    for runner in RUNNERS:
        refiner = open_refiner(runner, bundle)
        assert refiner.refine(**call | {"mask": odd}).y.tolist() == refiner.refine(**call).y.tolist()
