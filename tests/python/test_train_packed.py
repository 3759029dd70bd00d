"""Packed examples: the same batches as padded ones, and every fault named."""

import json

import numpy as np
import pytest

pytest.importorskip("torch")

from models import make_spec

from trm_edge.bundle import read_bundle, write_bundle
from trm_edge.errors import TrmInputError
from trm_edge.export import export_bundle
from trm_edge.golden import verify
from trm_edge.json_slots import Featurizer, HashedNgrams, JsonSlots, Resolver
from trm_edge.refiner import load
from trm_edge.train import Trainer
from trm_edge.train.config import parse_config
from trm_edge.train.data import check_arrays, statistics
from trm_edge.train.load import load_examples
from trm_edge.train.packed import check_packed, pack
from trm_edge.train.tool_calls import KINDS, call_arrays, corrupted, for_tool_calls, label

SPEC = make_spec("slots")


def calls(count=7, seed=0):
    """Return calls of random sizes, each candidate belonging to one slot."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        rows, slots = rng.integers(0, 6), rng.integers(1, 5)
        slot_of = np.sort(np.concatenate([np.arange(slots), rng.integers(0, slots, rng.integers(0, 3))]))
        first = np.searchsorted(slot_of, np.arange(slots))
        made.append(
            {
                "x": rng.standard_normal((rows, 6)).astype(np.float32),
                "slots": rng.standard_normal((slots, 5)).astype(np.float32),
                "candidates": rng.standard_normal((len(slot_of), 4)).astype(np.float32),
                "slot_of": slot_of,
                "target": first.astype(np.int32),
                "y0": np.where(rng.random(slots) < 0.5, first, -1).astype(np.int32),
                "omit": rng.random(len(slot_of)) < 0.2,
                "right": rng.random(len(slot_of)) < 0.5,
            }
        )
    return made


def test_batches_are_padded_arrays_that_hold_the_calls():
    made = calls()
    packed = check_packed(SPEC, pack(made))
    index = np.array([5, 0, 3])
    batch = check_arrays(SPEC, packed.take(index))
    for row, call in zip(range(3), (made[i] for i in index), strict=True):
        slots, candidates = len(call["slots"]), len(call["candidates"])
        assert batch["s_len"][row] == slots
        assert batch["candidates"][row, :candidates] == pytest.approx(call["candidates"], abs=2e-3)
        assert np.array_equal(batch["mask"][row, :slots, :candidates], np.arange(slots)[:, None] == call["slot_of"])
        assert not batch["mask"][row, slots:].any() and not batch["mask"][row, :, candidates:].any()
        assert np.array_equal(
            batch["target"][row],
            np.pad(call["target"], (0, 4 - slots), constant_values=-1)[: len(batch["target"][row])],
        )
        for name in ("omit", "right"):
            assert np.array_equal(batch[name][row, :candidates], call[name])


def test_a_subset_holds_the_same_examples():
    packed = check_packed(SPEC, pack(calls()))
    some = packed.subset(np.array([1, 4, 6]))
    one, other = some.take(np.array([0, 1, 2])), packed.take(np.array([1, 4, 6]))
    assert len(some) == 3
    assert all(np.array_equal(one[name], other[name]) for name in other)


def test_unsigned_integers_are_taken_too():
    made = [{name: array for name, array in call.items() if name != "y0"} for call in calls()]
    arrays = pack(made)
    unsigned = {
        n: a.astype(np.uint64 if n.endswith("_len") else np.uint8) for n, a in arrays.items() if a.dtype.kind == "i"
    }
    one, other = (check_packed(SPEC, given).subset(np.arange(1, 6)) for given in (arrays, arrays | unsigned))
    one, other = one.take(np.arange(5)), other.take(np.arange(5))
    assert all(np.array_equal(one[name], other[name]) for name in one)


def test_a_batch_of_narrow_integers_is_one_that_an_augmentation_may_return():
    arrays = pack(calls())
    narrow = {n: a.astype(np.int16) if a.dtype.kind == "i" else a for n, a in arrays.items()}
    batch = check_packed(SPEC, narrow).take(np.arange(3))
    checked = check_arrays(SPEC, batch)
    assert all(np.array_equal(checked[name], check_packed(SPEC, arrays).take(np.arange(3))[name]) for name in batch)


def test_statistics_are_over_all_rows():
    made = calls()
    found = statistics(check_packed(SPEC, pack(made)))
    rows = np.concatenate([call["candidates"] for call in made])
    assert found["normalization.candidates.mean"] == pytest.approx(rows.mean(0), abs=2e-3)
    assert found["normalization.candidates.std"] == pytest.approx(rows.std(0), abs=2e-3)


BAD = [
    ({"target": lambda a: a["target"] * 0}, "target: expected a candidate of its slot"),
    ({"y0": lambda a: a["y0"] - 2}, "y0: expected a candidate of its slot or -1"),
    ({"slot_of": lambda a: a["slot_of"] + 4}, "slot_of: expected a slot of its example"),
    ({"slot_of": lambda a: a["slot_of"].astype(float)}, "slot_of: expected integers"),
    ({"x": lambda a: np.full_like(a["x"], np.nan)}, "x: expected finite"),
    ({"x": lambda a: a["x"][1:]}, "x: expected floats"),
    ({"slots": lambda a: a["slots"][:, 1:]}, r"slots: expected floats \[\d+, 5\]"),
    ({"m_len": lambda a: a["m_len"] + 9}, r"m_len: expected 0\.\.spec\.max_candidates = 6"),
    ({"s_len": lambda a: a["s_len"][1:]}, r"s_len: expected integers \[7\]"),
    ({"x_len": lambda a: a["x_len"][:0]}, "x_len: holds no example"),
    ({"x_len": lambda a: a["x_len"][0]}, r"x_len: expected integers \[1\], got int64 \[\]"),
    ({"omit": lambda a: a["omit"].astype(int)}, "omit: expected bool"),
    ({"right": lambda a: a["right"][1:]}, "right: expected bool"),
    ({"other": lambda a: a["x"]}, "other: unknown among packed slots"),
    ({"candidates": lambda a: None}, "candidates: missing"),
]


@pytest.mark.parametrize(("changes", "message"), BAD)
def test_wrong_data_is_refused_by_name(changes, message):
    arrays = pack(calls())
    arrays |= {name: change(arrays) for name, change in changes.items()}
    with pytest.raises(TrmInputError, match=message):
        check_packed(SPEC, {name: array for name, array in arrays.items() if array is not None})


TOOL = JsonSlots(
    {
        "name": "paint",
        "parameters": {
            "type": "object",
            "properties": {"color": {"type": "string", "enum": ["red", "blue", "green"]}, "coats": {"type": "integer"}},
            "required": ["color"],
        },
    }
)


def test_a_number_that_the_query_has_twice_is_right_at_both_places():
    inputs = TOOL.bind("5 coats of red on 5 doors", None, Featurizer(HashedNgrams(16)))
    made = call_arrays(inputs, label(inputs, {"color": "red", "coats": 5}))
    right = [(inputs.candidates[j].value, inputs.candidates[j].start) for j in np.flatnonzero(made["right"])]
    assert right == [("red", -1), (5, 0), (5, 18)]


def test_a_head_learns_calls_from_a_packed_file(tmp_path):
    featurizer, rng, made = Featurizer(HashedNgrams(16)), np.random.default_rng(0), []
    for i in range(240):
        color, coats = ("red", "blue", "green")[i % 3], int(rng.integers(2, 9))
        arguments = {"color": color, "coats": coats} if i % 2 else {"color": color}
        query = f"paint it {color}" + (f" with {coats} coats" if i % 2 else "")
        draft = corrupted(TOOL, query, arguments, KINDS[i % len(KINDS)], rng)
        inputs = TOOL.bind(query, draft, featurizer)
        target = label(inputs, arguments)
        assert target is not None
        made.append(call_arrays(inputs, target))
    np.savez(tmp_path / "calls.npz", **pack(made))
    spec = {
        **{"answer": "slots", "mixer": "attention", "num_heads": 2, "positions": "rope", "hidden_size": 32},
        **{"inner_size": 48, "l_cycles": 1, "h_cycles": 1, "registers": 1, "answer_rows": 2, "max_context": 8},
        **{"context_size": featurizer.context_size, "slot_size": featurizer.slot_size},
        **{"candidate_size": featurizer.candidate_size, "max_candidates": 128},
    }
    train = {"steps": 2, "batch_size": 32, "max_updates": 160, "learning_rate": 3e-3, "warmup_updates": 10, "ema": 0.9}
    config = parse_config(
        {
            "spec": spec,
            "data": {"train": str(tmp_path / "calls.npz"), "validation_share": 0.2},
            "train": train | {"eval_steps": 3},
            "loss": {"left_out": 0.1},
        }
    )
    result = Trainer(config, tmp_path / "run").run()
    assert result.evaluation is not None
    assert result.evaluation.by_step[-1] > 0.8
    assert len(load_examples(tmp_path / "calls.npz", config.spec)) == 240

    head = tmp_path / "head.trm"
    made = export_bundle(result.model, head)
    write_bundle(head, for_tool_calls(made, [TOOL], "three coats of red", TOOL.tool.name, "", declines=False))
    assert all(check.passed for check in verify(load(head), read_bundle(head)))
    sizes = [(len(case.inputs["slots"]), len(case.inputs["candidates"])) for case in read_bundle(head).golden]
    assert sizes == [(1, 1), (2, len(TOOL.bind("three coats of red").candidates))]
    call = Resolver(head, featurizer.provider).resolve_tool_call([TOOL], "three coats of red")
    assert json.loads(call.json) == {"color": "red", "coats": 3}
    with pytest.raises(TrmInputError, match="has not learned to decline"):
        Resolver(head, featurizer.provider, decline_bonus=0)


class TestDrafts:
    def test_kinds_are_what_they_say(self):
        rng, arguments = np.random.default_rng(1), {"color": "red", "coats": 3}
        assert corrupted(TOOL, "", arguments, "none", rng) == ""
        assert corrupted(TOOL, "", arguments, "right", rng) == '{"color": "red", "coats": 3}'
        wrong = [corrupted(TOOL, "paint 4 or 5", arguments, "wrong", rng) for _ in range(40)]
        assert sum(text != '{"color": "red", "coats": 3}' for text in wrong) > 20
        assert all(len(corrupted(TOOL, "", arguments, "broken", rng)) <= 27 for _ in range(20))
        assert all(
            "color" not in t or "coats" not in t
            for t in (corrupted(TOOL, "", arguments, "partial", rng) for _ in range(9))
        )

    def test_an_answer_that_is_not_among_the_candidates_has_no_label(self):
        assert label(TOOL.bind("paint it"), {"color": "red", "coats": 77}) is None
