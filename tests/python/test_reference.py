"""The oracle against a second formulation of the model, in torch and float64, and against the rules it stands for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from models import CASES
from runners import plain_bundle

from trm_edge.bundle import Bundle
from trm_edge.golden import random_inputs, run_reference
from trm_edge.inputs import check_inputs
from trm_edge.reference import ReferenceModel, masked_argmax, rms_norm, rotate, silu, softmax

torch = pytest.importorskip("torch")
F = torch.nn.functional

torch.set_num_threads(1)  # the tensors are tiny

EXACT = 1e-12  # float64 rounding, amplified by a few steps


class TorchModel:
    """The model as a torch user would write it: scaled_dot_product_attention, complex rotations, F.rms_norm."""

    def __init__(self, bundle: Bundle) -> None:
        self.spec = bundle.spec
        self.w = {name: torch.from_numpy(np.array(value)).double() for name, value in bundle.tensors.items()}

    def run(self, call: dict[str, Any], steps: int) -> list[dict[str, Any]]:
        spec = self.spec
        registers, answer, context = self._embed(call)
        rows, places = len(answer), spec.registers
        e = torch.cat([registers, answer, context])
        positions = self._positions(rows, len(context))
        if spec.positions == "learned":
            e = e + self.w["position_embedding"][positions]
        y, z = (self.w[name].expand(len(e), -1) for name in ("y_init", "z_init"))
        y = torch.cat([y[:places], y[places : places + rows] + self._draft(call, rows), y[places + rows :]])
        outputs = []
        for _ in range(steps):
            for _ in range(spec.h_cycles):
                for _ in range(spec.l_cycles):
                    z = self._net(z + y + e, positions)
                y = self._net(y + z, positions)
            outputs.append(self._decode(call, y, places, rows))
        return outputs

    def _positions(self, rows: int, context: int) -> Any:
        start = self.spec.registers + self.spec.answer_rows
        return torch.cat([torch.arange(self.spec.registers + rows), torch.arange(start, start + context)])

    def _normed(self, name: str, value: Any) -> Any:
        mean, std = self.w[f"normalization.{name}.mean"], self.w[f"normalization.{name}.std"]
        return (torch.from_numpy(value).double() - mean) / std

    def _embed(self, call: dict[str, Any]) -> tuple[Any, Any, Any]:
        spec, w = self.spec, self.w
        none = torch.zeros(0, spec.hidden_size, dtype=torch.float64)
        if spec.answer == "tokens":
            registers = none
            if spec.registers:
                row = w["puzzle_embedding"][call["puzzle_id"]]
                padded = F.pad(row, (0, spec.registers * spec.hidden_size - len(row)))
                registers = padded.unflatten(0, (spec.registers, spec.hidden_size))
            return registers, F.embedding(torch.from_numpy(call["x"]).long(), w["token_embedding"]), none
        context = F.linear(self._normed("x", call["x"]), w["context_encoder.weight"]) if spec.max_context else none
        if spec.answer == "slots":
            return w["registers"], F.linear(self._normed("slots", call["slots"]), w["slot_encoder.weight"]), context
        answer = w["time_embedding"]
        if spec.feature_size:
            answer = answer + F.linear(self._normed("features", call["features"]), w["features_encoder.weight"])
        return w["registers"], answer, context

    def _keys(self, call: dict[str, Any]) -> Any:
        return F.linear(self._normed("candidates", call["candidates"]), self.w["key.weight"])

    def _draft(self, call: dict[str, Any], rows: int) -> Any:
        if self.spec.answer == "tokens" or (self.spec.answer == "actions" and call["y0"] is None):
            return torch.zeros(rows, self.spec.hidden_size, dtype=torch.float64)
        if self.spec.answer == "actions":
            return F.linear(self._normed("y0", call["y0"]), self.w["answer_encoder.weight"])
        chosen = [-1] * rows if call["y0"] is None else call["y0"].tolist()
        keys = self._keys(call)
        return torch.stack([self.w["key_none"] if c < 0 else keys[c] for c in chosen])

    def _net(self, h: Any, positions: Any) -> Any:
        spec = self.spec
        for i in range(spec.num_layers):
            block = f"blocks.{i}."
            if spec.mixer == "attention":
                mixed = self._attention(h, block, positions)
                h = F.rms_norm(h + mixed, h.shape[-1:], eps=spec.norm_eps)
            else:
                columns = h.mT.contiguous()
                columns = columns + self._swiglu(columns, block + "token_mixer.")
                h = F.rms_norm(columns, columns.shape[-1:], eps=spec.norm_eps).mT
            h = F.rms_norm(h + self._swiglu(h, block + "mlp."), h.shape[-1:], eps=spec.norm_eps)
        return h

    def _attention(self, h: Any, block: str, positions: Any) -> Any:
        heads = self.spec.num_heads
        q, k, v = (
            F.linear(h, part).unflatten(-1, (heads, -1)).transpose(0, 1)
            for part in self.w[block + "attention.qkv.weight"].chunk(3)
        )
        if self.spec.positions == "rope":
            q, k = (self._turn(t, positions) for t in (q, k))
        mixed = F.scaled_dot_product_attention(q[None], k[None], v[None])[0]
        return F.linear(mixed.transpose(0, 1).flatten(1), self.w[block + "attention.out.weight"])

    def _turn(self, heads: Any, positions: Any) -> Any:
        """Multiply each pair (i, i + half) as a complex number by exp(i * position * theta^(-2i / size))."""
        size = heads.shape[-1]
        rates = self.spec.rope_theta ** (-torch.arange(0, size, 2, dtype=torch.float64) / size)
        turn = torch.polar(torch.ones(len(positions), size // 2, dtype=torch.float64), torch.outer(positions, rates))
        pairs = torch.complex(*heads.chunk(2, dim=-1)) * turn
        return torch.cat([pairs.real, pairs.imag], dim=-1)

    def _swiglu(self, h: Any, name: str) -> Any:
        gate, up = self.w[name + "gate_up.weight"].chunk(2)
        return F.linear(F.silu(F.linear(h, gate)) * F.linear(h, up), self.w[name + "down.weight"])

    def _decode(self, call: dict[str, Any], y: Any, places: int, rows: int) -> dict[str, Any]:
        spec, w = self.spec, self.w
        halt = float(F.linear(y[0], w["halt_head.weight"], w["halt_head.bias"]))
        answer = y[places : places + rows]
        if spec.answer == "actions":
            base = w["normalization.y0.mean"] if call["y0"] is None else torch.from_numpy(call["y0"]).double()
            moved = F.linear(answer, w["answer_decoder.weight"]) * w["normalization.y0.std"]
            return {"halt": halt, "y": (base + moved).numpy(), "logits": None}
        if spec.answer == "tokens":
            logits = F.linear(answer, w["answer_decoder.weight"])
            return {"halt": halt, "y": logits.argmax(-1).numpy(), "logits": logits.numpy()}
        logits = F.linear(answer, w["query.weight"]) @ self._keys(call).mT / spec.hidden_size**0.5
        logits = logits.masked_fill(~torch.from_numpy(call["mask"]), -torch.inf)
        chosen = torch.where(logits.isneginf().all(-1), -1, logits.argmax(-1))
        return {"halt": halt, "y": chosen.numpy(), "logits": logits.numpy()}


SECOND_OPINIONS: list[tuple[str, str, dict[str, Any]]] = [
    *((kind, mixer, {}) for kind, mixer in CASES),
    ("actions", "rope", {"feature_size": 3, "draft": "optional"}),
    ("actions", "mlp_t", {"feature_size": 2, "draft": "optional"}),
    ("actions", "rope", {"max_context": 0, "context_size": 0}),
    ("actions", "rope", {"hidden_size": 32, "num_heads": 16, "rope_theta": 50.0, "norm_eps": 1e-2}),
    ("actions", "learned", {"num_layers": 3, "l_cycles": 1, "h_cycles": 3}),
    ("tokens", "rope", {"registers": 0, "puzzle_size": 0}),
    ("tokens", "mlp_t", {"registers": 1, "puzzle_size": 24}),
]


def oracle(bundle: Bundle, call: dict[str, Any], steps: int = 3) -> list[Any]:
    return run_reference(ReferenceModel(bundle.spec, bundle.tensors), check_inputs(bundle.spec, **call), steps)


@pytest.mark.parametrize(("kind", "mixer", "changes"), SECOND_OPINIONS)
def test_every_step_agrees_with_a_second_formulation(kind: str, mixer: str, changes: dict[str, Any]) -> None:
    bundle = plain_bundle(kind, mixer, **changes)
    spec, rng = bundle.spec, np.random.default_rng(0)
    smaller: dict[str, int] = {}
    if mixer in ("rope", "learned", "none") and spec.max_context:
        smaller["context_rows"] = 2
    if kind == "slots":
        smaller |= {"answer_rows": 3, "candidates": 5}
    calls = [random_inputs(spec, rng), random_inputs(spec, rng, **smaller)]
    if kind == "slots" or spec.draft == "optional":
        calls.append(calls[0] | {"y0": None})
    for call in calls:
        for step, other in zip(oracle(bundle, call), TorchModel(bundle).run(call, 3), strict=True):
            assert step.halt_logit == pytest.approx(other["halt"], rel=EXACT)
            np.testing.assert_allclose(step.y, other["y"], rtol=EXACT, atol=EXACT)
            if other["logits"] is not None:
                np.testing.assert_allclose(step.logits, other["logits"], rtol=EXACT, atol=EXACT)
                assert step.y.dtype == np.int32


def test_functions_agree_with_torch() -> None:
    rng = np.random.default_rng(1)
    h = rng.standard_normal((5, 8)) * 4
    t = torch.from_numpy(h)
    np.testing.assert_allclose(rms_norm(h, 1e-5), F.rms_norm(t, (8,), eps=1e-5), rtol=EXACT)
    np.testing.assert_allclose(silu(h), F.silu(t), rtol=EXACT)
    np.testing.assert_allclose(softmax(h), F.softmax(t, -1), rtol=EXACT)
    with np.errstate(all="raise", under="ignore"):
        np.testing.assert_array_equal(silu(np.float64([-1e4, 0.0, 1e4])), [0.0, 0.0, 1e4])
        np.testing.assert_array_equal(softmax(np.float64([[1e4, -1e4]])), [[1.0, 0.0]])


def test_rotations_keep_lengths_and_depend_on_distance_alone() -> None:
    rng = np.random.default_rng(2)
    q, k = rng.standard_normal((2, 1, 1, 10))
    np.testing.assert_allclose(np.linalg.norm(rotate(q, [7], 100.0)), np.linalg.norm(q), rtol=EXACT)
    np.testing.assert_array_equal(rotate(q, [0], 100.0), q)
    scores = [(rotate(q, [p + 3], 100.0) * rotate(k, [p], 100.0)).sum() for p in (0, 5, 40)]
    np.testing.assert_allclose(scores, scores[0], rtol=1e-9)
    assert abs(scores[0] - (rotate(q, [4], 100.0) * rotate(k, [0], 100.0)).sum()) > 1e-3


@pytest.mark.parametrize("mixer", ["rope", "learned", "none"])
def test_fewer_slots_move_no_context_position(mixer: str) -> None:
    """A head made for S_max slots places its context after all of them, however many a call has."""
    large, small = (plain_bundle("slots", mixer, answer_rows=n) for n in (4, 2))
    weights = {name: large.tensors[name] for name in small.spec.tensor_shapes()}
    if mixer == "learned":  # registers, two slots, then the context's rows of the larger head
        table = large.tensors["position_embedding"]
        weights["position_embedding"] = np.concatenate([table[:3], table[5:]])
    call = random_inputs(small.spec, np.random.default_rng(3))
    a, b = (oracle(bundle, call)[-1] for bundle in (large, Bundle(small.spec, weights)))
    model = ReferenceModel(large.spec, large.tensors)
    assert model.spec.row_positions(2, 5)[3:] == [5, 6, 7, 8, 9]
    same = np.allclose(a.logits, b.logits, rtol=1e-9)
    assert same == (mixer != "rope"), "rope is relative: only there does the gap show"


@pytest.mark.parametrize(("mixer", "moves"), [("none", False), ("rope", True), ("learned", True)])
def test_the_order_of_context_rows_matters_where_positions_say_so(mixer: str, moves: bool) -> None:
    bundle = plain_bundle("actions", mixer)
    call = random_inputs(bundle.spec, np.random.default_rng(4))
    a, b = (oracle(bundle, c)[-1].y for c in (call, call | {"x": call["x"][::-1].copy()}))
    assert np.allclose(a, b, rtol=1e-9) != moves


def test_permuted_slots_without_positions_give_permuted_answers() -> None:
    bundle = plain_bundle("slots", "none")
    call = random_inputs(bundle.spec, np.random.default_rng(5))
    order = [2, 0, 3, 1]
    permuted = call | {name: call[name][order] for name in ("slots", "mask", "y0")}
    a, b = (oracle(bundle, c)[-1] for c in (call, permuted))
    np.testing.assert_allclose(b.logits, a.logits[order], rtol=1e-9)
    choices = [5, 1, 0, 4, 2, 3]
    where = np.argsort(choices)
    renamed = call | {"candidates": call["candidates"][choices], "mask": call["mask"][:, choices]}
    renamed["y0"] = np.where(call["y0"] < 0, -1, where[call["y0"]]).astype(np.int32)
    np.testing.assert_allclose(oracle(bundle, renamed)[-1].logits, a.logits[:, choices], rtol=1e-9)


def test_the_halt_logit_reads_row_0_and_the_answer_its_own_rows() -> None:
    bundle = plain_bundle("actions")
    model = ReferenceModel(bundle.spec, bundle.tensors)
    inputs = check_inputs(bundle.spec, **random_inputs(bundle.spec, np.random.default_rng(6)))
    carry, step = model.step(model.begin(inputs))
    assert carry.y.shape == carry.z.shape == carry.e.shape == (2 + 5 + 6, 24)
    w = model.w
    assert step.halt_logit == pytest.approx(w["halt_head.weight"][0] @ carry.y[0] + w["halt_head.bias"][0])
    moved = carry.y[2:7] @ w["answer_decoder.weight"].T
    np.testing.assert_allclose(step.y, inputs.y0 + w["normalization.y0.std"] * moved, rtol=EXACT)


def test_only_answer_rows_of_the_first_y_carry_the_draft() -> None:
    bundle = plain_bundle("actions", draft="optional")
    model = ReferenceModel(bundle.spec, bundle.tensors)
    call = random_inputs(bundle.spec, np.random.default_rng(7))
    with_draft, without = (model.begin(check_inputs(bundle.spec, **c)) for c in (call, call | {"y0": None}))
    changed = (with_draft.y != without.y).any(axis=1)
    assert changed.tolist() == [False] * 2 + [True] * 5 + [False] * 6
    np.testing.assert_array_equal(with_draft.e, without.e)
    np.testing.assert_array_equal(without.y, np.tile(model.w["y_init"], (13, 1)))


def test_a_missing_draft_is_the_mean_action() -> None:
    bundle = plain_bundle("actions", draft="optional")
    call = random_inputs(bundle.spec, np.random.default_rng(8))
    mean = np.tile(bundle.tensors["normalization.y0.mean"], (5, 1))
    for a, b in zip(*(oracle(bundle, call | {"y0": y0}) for y0 in (None, mean)), strict=True):
        np.testing.assert_allclose(a.y, b.y, rtol=EXACT)


def test_inputs_are_normalised_by_the_statistics_of_the_bundle() -> None:
    """Statistics and raw inputs that change together change nothing."""
    bundle = plain_bundle("actions", feature_size=2)
    call = random_inputs(bundle.spec, np.random.default_rng(9))
    tensors, shifted = dict(bundle.tensors), dict(call)
    for name in ("x", "features"):
        tensors[f"normalization.{name}.mean"] = np.float32(2) * bundle.tensors[f"normalization.{name}.mean"]
        tensors[f"normalization.{name}.std"] = np.float32(2) * bundle.tensors[f"normalization.{name}.std"]
        shifted[name] = np.float32(2) * call[name]
    a, b = oracle(bundle, call), oracle(Bundle(bundle.spec, tensors), shifted)
    np.testing.assert_allclose(a[-1].y, b[-1].y, rtol=EXACT)
    assert not np.allclose(a[-1].y, oracle(bundle, shifted)[-1].y, rtol=1e-3)


def test_ties_go_to_the_lowest_index_and_closed_rows_to_none() -> None:
    inf = np.inf
    logits = np.float64([[1, 3, 3], [3, 3, 3], [-inf, -inf, -5], [-inf, -inf, -inf], [-inf, 0, 0]])
    assert masked_argmax(logits).tolist() == [1, 0, 2, -1, 1]
    assert masked_argmax(np.zeros((2, 0))).tolist() == [-1, -1]
    assert masked_argmax(np.zeros((0, 3))).shape == (0,)
    assert masked_argmax(logits).dtype == np.int32


def test_a_refresh_keeps_y_and_z_and_renews_e() -> None:
    bundle = plain_bundle("actions", feature_size=2)
    model = ReferenceModel(bundle.spec, bundle.tensors)
    rng = np.random.default_rng(10)
    call, other = random_inputs(bundle.spec, rng), random_inputs(bundle.spec, rng)
    carry, _ = model.step(model.begin(check_inputs(bundle.spec, **call)))
    fresh = model.refresh(carry, x=other["x"], features=other["features"])
    np.testing.assert_array_equal(fresh.y, carry.y)
    np.testing.assert_array_equal(fresh.z, carry.z)
    expected = model.begin(check_inputs(bundle.spec, **other | {"y0": call["y0"]})).e
    np.testing.assert_array_equal(fresh.e, expected)
    assert not np.array_equal(carry.e, expected)


def test_float32_runs_in_float32() -> None:
    bundle = plain_bundle("actions")
    inputs = check_inputs(bundle.spec, **random_inputs(bundle.spec, np.random.default_rng(11)))
    model = ReferenceModel(bundle.spec, bundle.tensors, np.float32)
    carry, step = model.step(model.begin(inputs))
    assert carry.y.dtype == carry.z.dtype == carry.e.dtype == step.y.dtype == np.float32
