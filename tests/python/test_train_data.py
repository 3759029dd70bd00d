"""Training data: what is refused and how, statistics over real rows only, batches as a function of their number."""

from __future__ import annotations

import numpy as np
import pytest
from models import make_spec

import trm_edge
from trm_edge.context import stack_context

torch = pytest.importorskip("torch")

from trm_edge.train.data import (  # noqa: E402
    Examples,
    batch_index,
    batches,
    check_arrays,
    split,
    statistics,
)
from trm_edge.train.load import load_examples  # noqa: E402
from trm_edge.train.packed import check_packed, pack  # noqa: E402


def action_arrays(n: int = 6, spec=None) -> dict[str, np.ndarray]:
    spec = spec or make_spec("actions")
    rng = np.random.default_rng(0)
    arrays = {
        "x": rng.standard_normal((n, spec.max_context, spec.context_size)).astype(np.float32),
        "x_len": rng.integers(0, spec.max_context - 1, n).astype(np.int32),
        "y0": rng.standard_normal((n, spec.answer_rows, spec.dof)).astype(np.float32),
        "target": rng.standard_normal((n, spec.answer_rows, spec.dof)).astype(np.float32),
    }
    if spec.feature_size:
        arrays["features"] = rng.standard_normal((n, spec.answer_rows, spec.feature_size)).astype(np.float32)
    return arrays


def slot_arrays(n: int = 6) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    s_len, m_len = np.full(n, 3, np.int32), np.full(n, 5, np.int32)
    mask = np.zeros((n, 4, 6), bool)
    mask[:, :3, :5] = True
    target = np.full((n, 4), -1, np.int32)
    target[:, :3] = rng.integers(0, 5, (n, 3))
    return {
        "x": rng.standard_normal((n, 5, 6)).astype(np.float32),
        "slots": rng.standard_normal((n, 4, 5)).astype(np.float32),
        "candidates": rng.standard_normal((n, 6, 4)).astype(np.float32),
        **{"mask": mask, "target": target, "s_len": s_len, "m_len": m_len},
    }


def token_arrays(n: int = 6) -> dict[str, np.ndarray]:
    x = np.random.default_rng(0).integers(0, 7, (n, 9)).astype(np.int32)
    return {"x": x, "target": x[:, ::-1].copy()}


ARRAYS = {"actions": action_arrays, "slots": slot_arrays, "tokens": token_arrays}


def nan_at(array: np.ndarray, *where: int) -> np.ndarray:
    copy = array.copy()
    copy[where] = np.nan
    return copy


BAD = [
    ("actions", {"y0": None}, "y0: missing"),
    ("actions", {"features": np.zeros((6, 5, 2), np.float32)}, "features: unknown"),
    ("actions", {"x": np.zeros((6, 6, 7))}, "x: expected float32, got float64"),
    ("actions", {"x": np.zeros((6, 6, 8), np.float32)}, r"x: expected shape \[6, P, 7\]|x: expected shape \[N, P, 7\]"),
    ("actions", {"x": np.zeros((6, 9, 7), np.float32)}, "x: expected at most spec.max_context = 6, got 9"),
    ("actions", {"target": np.zeros((5, 5, 3), np.float32)}, r"target: expected shape \[6, 5, 3\], got \[5, 5, 3\]"),
    ("actions", {"x_len": np.full(6, 7, np.int32)}, "x_len: expected 0..6, got 7 in example 0"),
    ("actions", {"target": nan_at(action_arrays()["target"], 2, 0, 0)}, "target: expected finite values.*example 2"),
    ("slots", {"mask": np.ones((6, 4, 6), bool)}, "mask: example 0: True beyond s_len"),
    ("slots", {"target": np.full((6, 4), 5, np.int32)}, "target: example 0, slot 0: candidate 5 is outside its mask"),
    ("slots", {"y0": np.full((6, 4), -2, np.int32)}, "y0: expected -1..5, got -2 in example 0"),
    ("slots", {"mask": np.ones((6, 4, 6), np.int32)}, "mask: expected bool, got int32"),
    ("slots", {"candidates": None}, "candidates: missing"),
    ("tokens", {"x": np.full((6, 9), 7, np.int32)}, "x: expected 0..6, got 7 in example 0"),
    ("tokens", {"target": np.full((6, 9), -1, np.int32)}, "target: expected 0..6, got -1"),
    ("tokens", {"target": np.zeros((6, 9), np.float32)}, "target: expected int32 or int64, got float32"),
    ("tokens", {"puzzle_id": np.full(6, 4, np.int32)}, "puzzle_id: expected 0..3, got 4"),
    ("tokens", {"x": np.zeros((0, 9), np.int32), "target": np.zeros((0, 9), np.int32)}, "x: holds no example"),
]


@pytest.mark.parametrize(("kind", "changes", "message"), BAD)
def test_wrong_data_is_refused_by_name(kind, changes, message):
    arrays = {n: a for n, a in (ARRAYS[kind]() | changes).items() if a is not None}
    with pytest.raises(trm_edge.TrmInputError, match=message):
        check_arrays(make_spec(kind), arrays)


@pytest.mark.parametrize("kind", ["actions", "slots", "tokens"])
def test_right_data_is_taken(kind):
    assert len(Examples(make_spec(kind), check_arrays(make_spec(kind), ARRAYS[kind]()))) == 6


def test_calls_without_a_candidate_are_taken():
    arrays = {n: a for n, a in slot_arrays().items() if n not in ("m_len", "y0")}
    arrays |= {
        "candidates": arrays["candidates"][:, :0],
        "mask": arrays["mask"][:, :, :0],
        "target": np.full((6, 4), -1),
    }
    examples = Examples(make_spec("slots"), check_arrays(make_spec("slots"), arrays))
    assert examples.take(np.arange(6))["mask"].shape == (6, 3, 0)


@pytest.mark.parametrize("kind", ["actions", "tokens"])
def test_only_calls_of_slots_are_meant_as_packed(tmp_path, kind):
    """An actions head whose context lacks a dimension is told so, not which arrays packed calls have."""
    np.savez(tmp_path / "flat.npz", x=np.zeros((6, 7), np.float32), x_len=np.ones(6, np.int32))
    with pytest.raises(
        trm_edge.TrmInputError, match=r"y0: missing; a head of actions|x_len: unknown for a head of tok"
    ):
        load_examples(tmp_path / "flat.npz", make_spec(kind))


def test_padding_may_hold_anything():
    arrays = action_arrays()
    arrays["x"][:, 5:] = np.nan
    check_arrays(make_spec("actions"), arrays)


def test_mlp_t_takes_full_rows_only():
    spec = make_spec("actions", "mlp_t")
    with pytest.raises(trm_edge.TrmInputError, match="fix the context at 6 rows"):
        check_arrays(spec, action_arrays())
    full = {n: a for n, a in action_arrays().items() if n != "x_len"}
    check_arrays(spec, full)
    with pytest.raises(trm_edge.TrmInputError, match="fix the context at 6 rows"):
        check_arrays(spec, full | {"x": full["x"][:, :5]})


def test_statistics_are_over_real_rows():
    spec = make_spec("actions", feature_size=2)
    arrays = action_arrays(spec=spec)
    arrays["features"][..., 1] = 3  # never changes
    for example, length in zip(arrays["x"], arrays["x_len"], strict=True):
        example[length:] = 1e9
    found = statistics(Examples(spec, arrays))
    real = np.concatenate([e[:n] for e, n in zip(arrays["x"], arrays["x_len"], strict=True)]).astype(np.float64)
    both = np.concatenate([arrays["y0"], arrays["target"]]).reshape(-1, 3).astype(np.float64)
    assert found["normalization.x.mean"] == pytest.approx(real.mean(0), rel=1e-6)
    assert found["normalization.x.std"] == pytest.approx(real.std(0), rel=1e-6)
    assert found["normalization.y0.std"] == pytest.approx(both.std(0), rel=1e-6)
    assert found["normalization.features.std"][1] == 1


@pytest.mark.parametrize("packed", [False, True])
def test_whole_groups_are_held_out(packed):
    group = np.repeat(np.int32([7, 3, 9, 4, 5, 8]), [1, 9, 2, 8, 4, 6])
    arrays = slot_arrays(30) | {"group": group}
    examples = Examples(make_spec("slots"), check_arrays(make_spec("slots"), arrays))
    if packed:
        calls = [
            {
                **{"x": x, "slots": slots[:3], "candidates": candidates[:5], "target": np.arange(3)},
                "slot_of": np.arange(5) % 3,
            }
            for x, slots, candidates in zip(arrays["x"], arrays["slots"], arrays["candidates"], strict=True)
        ]
        examples = check_packed(make_spec("slots"), pack(calls) | {"group": group})
    numbers = {row.tobytes(): number for row, number in zip(examples.rows("x")[::5], group, strict=True)}
    seen = set()
    for seed in range(20):
        left, held = split(examples, 0.3, seed)
        parts = [{numbers[row.tobytes()] for row in part.rows("x")[::5]} for part in (left, held)]
        assert not parts[0] & parts[1] and parts[0] | parts[1] == set(group.tolist())
        assert len(held) >= 9 and len(left) + len(held) == 30
        assert len(held) - max(np.sum(group == number) for number in parts[1]) < 9
        assert "group" not in held.take(np.arange(2))
        seen.add(frozenset(parts[1]))
    assert len(seen) > 5
    one = Examples(make_spec("slots"), arrays | {"group": np.zeros(30, np.int32)})
    with pytest.raises(trm_edge.TrmInputError, match="leaves none to train on; give another share, or more examples"):
        split(one, 0.3, 0)


def test_shards_and_npz_hold_the_same(tmp_path):
    save_file = pytest.importorskip("safetensors.numpy").save_file
    arrays = slot_arrays(7)
    np.savez(tmp_path / "all.npz", **arrays)
    folder = tmp_path / "shards"
    folder.mkdir()
    for number, part in enumerate((slice(0, 3), slice(3, 7))):
        save_file({n: np.ascontiguousarray(a[part]) for n, a in arrays.items()}, folder / f"{number:04}.safetensors")
    spec = make_spec("slots")
    one, many = load_examples(tmp_path / "all.npz", spec), load_examples(folder, spec)
    assert one.digest() == many.digest()
    (folder / "0002.safetensors").write_bytes(b"no")
    with pytest.raises(trm_edge.TrmInputError, match=r"0002\.safetensors: not a readable shard"):
        load_examples(folder, spec)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [("no.npz", b"junk", "not a readable .npz"), ("no.csv", b"", "expected an .npz file or a folder")],
)
def test_unreadable_files(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(trm_edge.TrmInputError, match=message):
        load_examples(tmp_path / name, make_spec("tokens"))


def test_npz_with_pickles_is_refused(tmp_path):
    np.savez(tmp_path / "bad.npz", x=np.array([{}], object))
    with pytest.raises(trm_edge.TrmInputError, match=r"not a readable \.npz"):
        load_examples(tmp_path / "bad.npz", make_spec("tokens"))


def test_batches_leave_out_padding_that_none_needs():
    spec = make_spec("actions")
    examples = Examples(spec, check_arrays(spec, action_arrays()))
    index = np.array([1, 4])
    batch = examples.take(index)
    longest = int(examples.arrays["x_len"][index].max())
    assert batch["x"].shape[1] == longest
    slots = Examples(make_spec("slots"), check_arrays(make_spec("slots"), slot_arrays()))
    assert slots.take(index)["mask"].shape == (2, 3, 5)
    assert sum(len(b["x"]) for b in batches(examples, 4)) == 6


def test_every_epoch_holds_every_example_once_in_another_order():
    numbers = [np.concatenate([batch_index(10, 5, 2 * epoch + i, seed=3) for i in (0, 1)]) for epoch in (0, 1)]
    assert all(sorted(epoch) == list(range(10)) for epoch in numbers)
    assert not np.array_equal(*numbers)
    assert np.array_equal(batch_index(10, 5, 3, seed=3), numbers[1][5:])


def test_split_parts_do_not_meet():
    spec = make_spec("tokens")
    examples = Examples(spec, token_arrays(50))
    left, held = split(examples, 0.2, seed=0)
    assert (len(left), len(held)) == (40, 10)
    rows = np.concatenate([left.arrays["x"], held.arrays["x"]])
    assert sorted(map(bytes, rows)) == sorted(map(bytes, examples.arrays["x"]))


def test_stack_context_pads_and_marks_the_origin():
    scene, joints = np.arange(6, dtype=np.float32).reshape(2, 3), np.array([[7, 8]], np.float32)
    x = stack_context({"scene": scene, "joints": joints})
    assert x.dtype == np.float32
    assert x.tolist() == [[0, 1, 2, 1, 0], [3, 4, 5, 1, 0], [7, 8, 0, 0, 1]]
    many = stack_context({"scene": np.stack([scene] * 4), "joints": np.stack([joints] * 4)})
    assert np.array_equal(many, np.stack([x] * 4))
    empty = stack_context({"scene": scene, "joints": joints[:0]})
    assert empty.shape == (2, 5)


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        ({}, "at least one source"),
        ([np.zeros((1, 3), np.float32)], "expected arrays by name, got list"),
        ({"joints": np.zeros(3, np.float32)}, r"joints: expected \[..., rows, width\]"),
        ({"joints": np.zeros((1, 3))}, "joints: expected dtype float32"),
        ({"a": np.zeros((2, 1, 3), np.float32), "b": np.zeros((1, 3), np.float32)}, "b: expected leading dimensions"),
    ],
)
def test_stack_context_refuses(sources, message):
    with pytest.raises(trm_edge.TrmInputError, match=message):
        stack_context(sources)


def test_batches_of_like_lengths_hold_every_example_once_too():
    lengths = np.random.default_rng(0).integers(1, 1000, (1005, 2))
    plain = [batch_index(1005, 10, i, seed=3) for i in range(100)]
    alike = [batch_index(1005, 10, i, seed=3, lengths=lengths) for i in range(100)]
    assert sorted(np.concatenate(alike)) == sorted(np.concatenate(plain))
    spread = [sum(np.ptp(lengths[index], axis=0) for index in chosen) for chosen in (plain, alike)]
    assert (spread[1] < spread[0] / (6, 4)).all()
    assert np.argsort([lengths[index, 0].mean() for index in alike[:16]]).tolist() != list(range(16))
