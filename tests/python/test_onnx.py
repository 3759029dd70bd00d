"""ONNX graphs against the float64 oracle, step by step, through the onnxruntime backend."""

from __future__ import annotations

import threading
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from models import CASES, make_spec, random_weights

import trm_edge
from trm_edge import Refiner
from trm_edge.backends.onnx_runtime import OnnxRuntimeBackend
from trm_edge.bundle import Bundle, read_bundle, write_bundle
from trm_edge.errors import (
    Status,
    TrmBundleError,
    TrmInputError,
    TrmIOError,
    TrmNotBegunError,
    TrmUnsupportedError,
    TrmVersionError,
)
from trm_edge.golden import random_inputs, relative_error, run_reference
from trm_edge.graph import LOOPS, input_signature, output_signature, parse_metadata
from trm_edge.inputs import check_inputs
from trm_edge.reference import ReferenceModel, StepOutput
from trm_edge.spec import TrmSpec, identity_statistics

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from trm_edge.export import build_engine, build_onnx, export_onnx  # noqa: E402

TOLERANCE = 1e-5
MOST = 8  # steps


def bundle_of(kind: str, mixer: str = "rope", **changes: Any) -> Bundle:
    spec = make_spec(kind, mixer, **changes)
    return Bundle(spec, random_weights(spec))


def graph(bundle: Bundle, loop: str, steps: int = 4) -> Any:
    model = build_onnx(bundle, loop, steps)
    onnx.checker.check_model(model, full_check=True)
    return model


def backend(bundle: Bundle, loop: str, steps: int = 4, threads: int = 1) -> Refiner:
    return opened(build_onnx(bundle, loop, steps).SerializeToString(), threads=threads)


def opened(source: Path | bytes, threads: int = 1) -> Refiner:
    return trm_edge.load(source, backend="onnxruntime", threads=threads)


def oracle(bundle: Bundle, call: dict[str, Any], steps: int) -> list[StepOutput]:
    return run_reference(ReferenceModel(bundle.spec, bundle.tensors), check_inputs(bundle.spec, **call), steps)


def assert_agrees(spec: TrmSpec, out: Any, truth: list[StepOutput], steps: int) -> None:
    """Every step of ``out`` (with its trajectory) is the oracle's."""
    assert out.steps_run == len(out.halt_logits) == len(out.trajectory) == steps
    for k in range(steps):
        assert relative_error(out.halt_logits[k], np.float64(truth[k].halt_logit)) <= TOLERANCE
        if spec.answer == "actions":
            assert relative_error(out.trajectory[k], truth[k].y) <= TOLERANCE
        else:
            assert out.trajectory.dtype == np.int32
            assert relative_error(out.logits[k], truth[k].logits) <= TOLERANCE
            np.testing.assert_array_equal(out.trajectory[k], truth[k].y)


@pytest.mark.parametrize(("kind", "mixer"), CASES)
def test_every_step_agrees_with_the_oracle(kind: str, mixer: str) -> None:
    bundle = bundle_of(kind, mixer, l_cycles=1)  # ONNX Runtime's time to load an unrolled graph grows with its calls
    call = random_inputs(bundle.spec, np.random.default_rng(3))
    truth = oracle(bundle, call, MOST)
    any_steps = [backend(bundle, "onnx-loop"), backend(bundle, "step")]
    for steps in range(1, MOST + 1):
        for runner in (*any_steps, backend(bundle, "unrolled", steps)):
            assert_agrees(bundle.spec, runner.refine(**call, steps=steps, trajectory=True), truth, steps)


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize(("kind", "mixer"), CASES)
def test_checker_and_signature(kind: str, mixer: str, loop: str) -> None:
    bundle = bundle_of(kind, mixer)
    model = graph(bundle, loop, 3)
    assert (model.ir_version, {o.domain: o.version for o in model.opset_import}[""]) == (9, 19)
    assert [v.name for v in model.graph.input] == list(input_signature(bundle.spec, loop))
    assert [v.name for v in model.graph.output] == list(output_signature(bundle.spec, loop, 3))


@pytest.mark.parametrize("name", ["example", "metaworld", "sudoku", "home_assistant", "tool_calls"])
def test_an_unrolled_file_hardly_grows_by_a_step(name: str) -> None:
    bundle = read_bundle(Path(trm_edge.__file__).parent / "data" / f"{name}.trm")
    sizes = [build_onnx(bundle, "unrolled", steps).ByteSize() for steps in range(1, 6)]
    assert all(after < 1.02 * before for before, after in pairwise(sizes)), sizes


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("rows", [0, 1, 3, 6])
@pytest.mark.parametrize("mixer", ["rope", "learned", "none"])
def test_context_of_any_length(mixer: str, rows: int, loop: str) -> None:
    bundle = bundle_of("actions", mixer, feature_size=4)
    call = random_inputs(bundle.spec, np.random.default_rng(rows), context_rows=rows)
    out = backend(bundle, loop).refine(**call, steps=4, trajectory=True)
    assert_agrees(bundle.spec, out, oracle(bundle, call, 4), 4)


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize(("slots", "candidates", "context"), [(1, 1, 0), (1, 6, 5), (4, 1, 2), (3, 5, 0), (2, 3, 1)])
@pytest.mark.parametrize("mixer", ["rope", "learned"])
def test_slots_of_any_size(mixer: str, slots: int, candidates: int, context: int, loop: str) -> None:
    bundle = bundle_of("slots", mixer)
    rng = np.random.default_rng(slots)
    call = random_inputs(bundle.spec, rng, answer_rows=slots, candidates=candidates, context_rows=context)
    out = backend(bundle, loop).refine(**call, steps=4, trajectory=True)
    assert_agrees(bundle.spec, out, oracle(bundle, call, 4), 4)


@pytest.mark.parametrize("loop", LOOPS)
def test_slots_masks_and_ties(loop: str) -> None:
    bundle = bundle_of("slots")
    call = random_inputs(bundle.spec, np.random.default_rng(0))
    call["candidates"][:] = call["candidates"][0]  # all keys equal: every allowed candidate ties
    call["mask"][:] = [[0, 0, 1, 0, 1, 1], [0] * 6, [1] * 6, [0, 0, 0, 0, 0, 1]]
    call["y0"] = np.asarray([4, -1, -1, 5], np.int32)
    runner = backend(bundle, loop)
    out = runner.refine(**call, steps=4, trajectory=True)
    assert_agrees(bundle.spec, out, oracle(bundle, call, 4), 4)
    assert out.y.tolist() == [2, -1, 0, 5]
    assert np.isneginf(out.logits[~np.broadcast_to(call["mask"], out.logits.shape)]).all()


@pytest.mark.parametrize("loop", LOOPS)
def test_slots_without_candidates_or_rows(loop: str) -> None:
    bundle = bundle_of("slots")
    runner = backend(bundle, loop)
    call = random_inputs(bundle.spec, np.random.default_rng(0), candidates=0)
    out = runner.refine(**call, steps=3, trajectory=True)
    truth = oracle(bundle, call, 3)
    assert out.y.tolist() == [-1] * 4
    assert out.logits.shape == (3, 4, 0)
    assert relative_error(out.halt_logits, np.asarray([t.halt_logit for t in truth])) <= TOLERANCE
    empty = random_inputs(bundle.spec, np.random.default_rng(0), answer_rows=0)
    out = runner.refine(**empty, steps=3, trajectory=True)
    assert (out.steps_run, out.y.shape) == (0, (0,))


@pytest.mark.parametrize("loop", LOOPS)
def test_optional_draft_and_no_context(loop: str) -> None:
    bundle = bundle_of("actions", draft="optional", max_context=0, context_size=0)
    for draft in (None, np.ones((5, 3), np.float32)):
        call = {"x": None, "y0": draft}
        out = backend(bundle, loop).refine(**call, steps=4, trajectory=True)
        assert_agrees(bundle.spec, out, oracle(bundle, call, 4), 4)


@pytest.mark.parametrize("mixer", ["rope", "mlp_t"])
def test_optional_draft_with_context(mixer: str) -> None:
    bundle = bundle_of("actions", mixer, draft="optional")
    call = random_inputs(bundle.spec, np.random.default_rng(1)) | {"y0": None}
    out = backend(bundle, "onnx-loop").refine(**call, steps=4, trajectory=True)
    assert_agrees(bundle.spec, out, oracle(bundle, call, 4), 4)


@pytest.mark.parametrize("mixer", ["rope", "mlp_t"])
def test_tokens_without_registers(mixer: str) -> None:
    bundle = bundle_of("tokens", mixer, registers=0, puzzle_size=0, token_inner_size=10 if mixer == "mlp_t" else 0)
    call = random_inputs(bundle.spec, np.random.default_rng(1))
    assert "puzzle_id" not in input_signature(bundle.spec, "step")
    for loop in LOOPS:
        assert_agrees(
            bundle.spec, backend(bundle, loop).refine(**call, steps=4, trajectory=True), oracle(bundle, call, 4), 4
        )


# ---- the graph's structure -----------------------------------------------------------------------


def feeds(bundle: Bundle, **more: Any) -> dict[str, Any]:
    call = random_inputs(bundle.spec, np.random.default_rng(2))
    return {name: np.asarray(value) for name, value in call.items() if value is not None} | more


def test_loop_runs_exactly_as_often_as_asked() -> None:
    bundle = bundle_of("actions")
    model = graph(bundle, "onnx-loop")
    (loop,) = (node for node in model.graph.node if node.op_type == "Loop")
    constants = {n.output[0]: n.attribute[0].t for n in model.graph.node if n.op_type == "Constant"}
    assert loop.input[0] == "steps"
    assert bool(onnx.numpy_helper.to_array(constants[loop.input[1]]))
    body = loop.attribute[0].g
    (condition,) = (node for node in body.node if node.output[0] == body.output[0].name)
    assert condition.op_type == "Constant"
    assert bool(onnx.numpy_helper.to_array(condition.attribute[0].t))

    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    runs = {}
    for steps in (1, 2, 5, 16):
        runs[steps] = dict(
            zip(names, session.run(names, feeds(bundle, steps=np.asarray(steps, np.int64))), strict=True)
        )
        assert len(runs[steps]["y_steps"]) == len(runs[steps]["halt_logits"]) == steps
        np.testing.assert_array_equal(runs[steps]["y"], runs[steps]["y_steps"][-1])
    for steps in (1, 2, 5):
        np.testing.assert_array_equal(runs[16]["y_steps"][:steps], runs[steps]["y_steps"])
        np.testing.assert_array_equal(runs[16]["halt_logits"][:steps], runs[steps]["halt_logits"])


def test_onnx_reference_evaluator_agrees() -> None:
    """A second engine, so that nothing leans on a habit of ONNX Runtime's."""
    from onnx.reference import ReferenceEvaluator

    bundle = bundle_of("slots")
    inputs = feeds(bundle)
    names = list(output_signature(bundle.spec, "unrolled", 3))
    got = dict(zip(names, ReferenceEvaluator(graph(bundle, "unrolled", 3)).run(names, inputs), strict=True))
    truth = oracle(bundle, inputs, 3)
    for k in range(3):
        assert relative_error(got["logits_steps"][k], truth[k].logits) <= TOLERANCE
        np.testing.assert_array_equal(got["y_steps"][k], truth[k].y)


@pytest.mark.parametrize("loop", LOOPS)
def test_net_is_one_function_called_often(loop: str) -> None:
    bundle = bundle_of("actions")
    spec, steps = bundle.spec, 3
    model = graph(bundle, loop, steps)
    (function,) = model.functions
    assert (function.domain, function.name) == ("trm_edge", "net")
    nodes = list(model.graph.node)
    for node in model.graph.node:
        if node.op_type == "Loop":
            nodes += node.attribute[0].g.node
    calls = [node for node in nodes if node.domain == "trm_edge"]
    per_step = spec.h_cycles * (spec.l_cycles + 1)
    assert len(calls) == per_step * (steps if loop == "unrolled" else 1)
    assert len({tuple(call.input[1:]) for call in calls}) == 1  # the same weights every time
    initializers = {tensor.name for tensor in model.graph.initializer}
    blocks = {name for name in initializers if name.startswith("blocks.")}
    assert len(blocks) == len([n for n in spec.tensor_shapes() if n.startswith("blocks.")])
    assert blocks < set(calls[0].input)
    assert not any(node.op_type == "Softmax" for node in nodes)  # nothing of net stands outside it


def test_unrolling_shares_the_weights() -> None:
    spec = make_spec(
        "tokens", hidden_size=512, inner_size=1536, num_heads=8, registers=16, puzzle_size=512, answer_rows=81
    )
    spec = TrmSpec.from_dict(spec.to_dict() | {"l_cycles": 6, "h_cycles": 3})
    rng = np.random.default_rng(0)
    tensors = {n: rng.standard_normal(s, np.float32) for n, s in spec.tensor_shapes().items()}
    bundle = Bundle(spec, tensors | identity_statistics(spec))
    sizes = {}
    for steps in (1, 8):
        model = build_onnx(bundle, "unrolled", steps)
        weights = sum(len(tensor.raw_data) for tensor in model.graph.initializer)
        sizes[steps] = (weights, model.ByteSize())
    assert sizes[1][0] == sizes[8][0]
    growth = (sizes[8][1] - sizes[1][1]) / 7 / sizes[1][1]
    assert growth < 0.02


@pytest.mark.parametrize("loop", LOOPS)
def test_metadata_is_enough_for_a_host(loop: str) -> None:
    bundle = bundle_of("actions")
    bundle.tensors["limits.lower"][0] = -np.inf
    bundle.tensors["limits.velocity"][1] = np.inf
    props = {p.key: p.value for p in graph(bundle, loop, 3).metadata_props}
    assert props["trm_edge.format"] == "trm_edge.onnx"
    assert props["projection"] == "host"
    info = parse_metadata(props)
    assert (info.spec, info.loop, info.steps) == (bundle.spec, loop, 3 if loop == "unrolled" else 0)
    for name in ("limits.lower", "limits.upper", "limits.velocity", "normalization.y0.mean"):
        np.testing.assert_array_equal(info.statistics[name], bundle.tensors[name])


def test_export_from_a_bundle_file(tmp_path: Any) -> None:
    bundle = bundle_of("tokens")
    write_bundle(tmp_path / "a.trm", bundle)
    export_onnx(tmp_path / "a.trm", tmp_path / "a.onnx", "onnx-loop")
    runner = opened(tmp_path / "a.onnx")
    assert len(runner._backend.info.bundle_sha256) == 64
    call = random_inputs(bundle.spec, np.random.default_rng(0))
    assert_agrees(bundle.spec, runner.refine(**call, steps=5, trajectory=True), oracle(bundle, call, 5), 5)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.onnx", "a.trm"]


def test_a_damaged_file_is_refused_by_its_checksum(tmp_path: Any) -> None:
    write_bundle(tmp_path / "a.trm", bundle_of("actions"))
    export_onnx(tmp_path / "a.trm", tmp_path / "a.onnx", "step")
    data = (tmp_path / "a.onnx").read_bytes()
    assert opened(data).spec.answer == "actions"
    rng, key = np.random.default_rng(0), data.rindex(b"trm_edge.sha256")
    weight = max(onnx.load_from_string(data).graph.initializer, key=lambda tensor: len(tensor.raw_data)).raw_data
    begin = data.index(weight)
    places = [*rng.integers(0, key, 20).tolist(), *rng.integers(begin, begin + len(weight), 20).tolist(), key + 17]
    for place in places:
        damaged = bytearray(data)
        damaged[place] ^= 1  # of a weight the least that a file can be off by, which no tolerance would tell
        with pytest.raises(TrmBundleError, match="damaged: its content does not match its checksum"):
            opened(bytes(damaged))


def test_a_graph_changed_on_purpose_has_no_checksum(tmp_path: Any) -> None:
    write_bundle(tmp_path / "a.trm", bundle_of("actions"))
    export_onnx(tmp_path / "a.trm", tmp_path / "a.onnx", "step")
    model = onnx.load(tmp_path / "a.onnx")
    model.producer_name = "another tool"
    with pytest.raises(TrmBundleError, match=r"take the entry trm_edge\.sha256 out of its metadata"):
        opened(model.SerializeToString())
    kept = {entry.key: entry.value for entry in model.metadata_props if entry.key != "trm_edge.sha256"}
    onnx.helper.set_model_props(model, kept)
    assert opened(model.SerializeToString()).spec.answer == "actions"


@pytest.mark.parametrize(("loop", "steps"), [("loop", 4), ("unrolled", 0), ("unrolled", 1025)])
def test_wrong_arguments(loop: str, steps: int) -> None:
    with pytest.raises(TrmInputError, match="expected"):
        build_onnx(bundle_of("actions"), loop, steps)


@pytest.mark.parametrize("steps", ["4", 2.5, True])
def test_steps_that_are_no_integer(steps: Any) -> None:
    for build in (build_onnx, build_engine):  # which looks at them before it asks for TensorRT
        with pytest.raises(TrmInputError, match=f"steps: expected an int, got {steps!r}"):
            build(bundle_of("actions"), "unrolled", steps)
    assert build_onnx(bundle_of("actions"), "unrolled", np.int64(2)).metadata_props


@pytest.mark.parametrize(("said", "steps"), [("3", 3), ("", 4), ("many", 4)])
def test_an_unrolled_graph_has_as_many_steps_as_the_head_was_trained_for(said: str, steps: int) -> None:
    bundle = bundle_of("actions")
    bundle.provenance["trained_steps"] = said
    assert opened(build_onnx(bundle).SerializeToString()).most_steps == steps
    assert opened(build_onnx(bundle, steps=2).SerializeToString()).most_steps == 2


def test_too_large_for_one_file(monkeypatch: pytest.MonkeyPatch) -> None:
    from trm_edge.export import onnx_graph

    monkeypatch.setattr(onnx_graph, "_MAX_BYTES", 1000)
    with pytest.raises(TrmUnsupportedError, match="one ONNX file holds at most"):
        build_onnx(bundle_of("actions"), "step")


# ---- the backend ---------------------------------------------------------------------------------


def test_stepping_equals_refining_and_takes_fresh_inputs() -> None:
    bundle = bundle_of("actions", feature_size=2)
    runner = backend(bundle, "step")
    rng = np.random.default_rng(0)
    call = random_inputs(bundle.spec, rng)
    whole = runner.refine(**call, steps=3, trajectory=True)
    runner.begin(**call)
    for k in range(3):
        np.testing.assert_array_equal(runner.step().trajectory[0], whole.trajectory[k])

    fresh = {name: random_inputs(bundle.spec, rng)[name] for name in ("x", "features")}
    model = ReferenceModel(bundle.spec, bundle.tensors)
    carry, _ = model.step(model.begin(check_inputs(bundle.spec, **call)))
    _, truth = model.step(model.refresh(carry, **fresh))
    runner.begin(**call)
    runner.step()
    assert relative_error(runner.step(fresh["x"], fresh["features"]).trajectory[0], truth.y) <= TOLERANCE


@pytest.mark.parametrize("loop", ["unrolled", "onnx-loop"])
def test_stepping_needs_the_step_form(loop: str) -> None:
    runner = backend(bundle_of("actions"), loop)
    for what in (lambda: runner.begin(None, None), runner.step):
        with pytest.raises(TrmUnsupportedError, match="--loop step"):
            what()


def test_step_before_begin() -> None:
    with pytest.raises(TrmNotBegunError):
        backend(bundle_of("actions"), "step").step()


def test_unrolled_has_a_largest_number_of_steps() -> None:
    bundle = bundle_of("actions")
    runner = backend(bundle, "unrolled", 3)
    call = random_inputs(bundle.spec, np.random.default_rng(0))
    assert runner.refine(**call, steps=2, trajectory=True).steps_run == 2
    with pytest.raises(TrmInputError, match=r"--steps 3, got 4"):
        runner.refine(**call, steps=4)


@pytest.mark.parametrize("loop", LOOPS)
def test_limits_halting_and_no_steps(loop: str) -> None:
    bundle = bundle_of("actions")
    runner = backend(bundle, loop)
    call = random_inputs(bundle.spec, np.random.default_rng(0))
    last = np.zeros(3, np.float32)
    out = runner.refine(**call, steps=4, last_action=last)
    assert out.status == Status.OK
    moves = np.abs(np.diff(np.concatenate([last[None], out.y]), axis=0))
    assert (moves <= bundle.tensors["limits.velocity"] + 1e-6).all()
    assert (out.y >= bundle.tensors["limits.lower"]).all()
    out = runner.refine(**call, steps=4, halt=0.0, trajectory=True)
    assert (out.status, out.steps_run, len(out.trajectory)) == (Status.HALTED, 1, 1)
    out = runner.refine(**call, steps=0, trajectory=True)
    assert (out.status, out.steps_run, out.trajectory.shape) == (Status.OK, 0, (0, 5, 3))


@pytest.mark.parametrize("loop", LOOPS)
def test_nonfinite_values_give_the_draft(loop: str) -> None:
    bundle = bundle_of("slots")
    call = random_inputs(bundle.spec, np.random.default_rng(0))
    call["x"][0, 0] = np.nan
    out = backend(bundle, loop).refine(**call, steps=3)
    assert out.status == Status.NONFINITE
    np.testing.assert_array_equal(out.y, call["y0"])
    call["x"][0, 0] = 0
    bundle.tensors["halt_head.weight"][:] = 3e38
    out = backend(bundle, loop).refine(**call, steps=3)
    assert out.status == Status.NONFINITE
    np.testing.assert_array_equal(out.y, call["y0"])


def test_clones_share_the_weights_and_run_at_once() -> None:
    bundle = bundle_of("actions")
    runner = backend(bundle, "step")
    call = random_inputs(bundle.spec, np.random.default_rng(0))
    other = runner.clone()
    assert other._backend._graph is runner._backend._graph
    runner.begin(**call)
    with pytest.raises(TrmNotBegunError):
        other.step()
    truth = runner.refine(**call, steps=4).y
    results: list[Any] = []
    threads = [
        threading.Thread(target=lambda r=r: results.append(r.refine(**call, steps=4).y))
        for r in (runner.clone(), runner.clone())
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 2
    for y in results:
        np.testing.assert_array_equal(y, truth)


def test_more_threads() -> None:
    bundle = bundle_of("tokens")
    call = random_inputs(bundle.spec, np.random.default_rng(0))
    out = backend(bundle, "onnx-loop", threads=2).refine(**call, steps=3, trajectory=True)
    assert_agrees(bundle.spec, out, oracle(bundle, call, 3), 3)


# ---- files that are not what they should be ------------------------------------------------------


def foreign_graph() -> bytes:
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Identity", ["x"], ["y"])], "g", [value("x", 1, [1])], [value("y", 1, [1])]
    )
    opset = [onnx.helper.make_opsetid("", 19)]
    return onnx.helper.make_model(graph, opset_imports=opset, ir_version=9).SerializeToString()


def test_files_that_are_not_ours(capfd: pytest.CaptureFixture[str]) -> None:
    whole = build_onnx(bundle_of("actions"), "step").SerializeToString()
    no_text = whole.replace(b"trm_edge.statistics", b"trm_edge.\xff\xfe\xfdtistics")
    for data in (b"", b"not a graph", foreign_graph(), whole[: len(whole) // 2], whole[:-1], b"\x00" * 100, no_text):
        with pytest.raises(TrmBundleError):
            OnnxRuntimeBackend(data)
    assert capfd.readouterr() == ("", "")  # a library does not print


def test_missing_file(tmp_path: Any) -> None:
    with pytest.raises(TrmIOError, match=r"none\.onnx"):
        OnnxRuntimeBackend(tmp_path / "none.onnx")


def test_flipped_bytes_never_escape() -> None:
    """Any damage is a TrmBundleError or goes unseen in a weight; the statistics and the spec are read with care."""
    bundle = bundle_of("actions", hidden_size=6, inner_size=4, num_heads=1)
    whole = build_onnx(bundle, "onnx-loop").SerializeToString()
    call = random_inputs(bundle.spec, np.random.default_rng(0))
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(200):
        data = bytearray(whole)
        data[rng.integers(len(data))] = rng.integers(256)
        try:
            runner = opened(bytes(data))
            if runner.spec == bundle.spec:
                runner.refine(**call, steps=2)
        except TrmBundleError:
            refused += 1
    assert refused > 20


@pytest.mark.parametrize(
    ("key", "value", "match"),
    [
        ("trm_edge.format", "other", "not a trm_edge graph"),
        ("trm_edge.format_version", "2", "version '2' .* reads 1"),
        ("projection", "graph", "projection"),
        ("trm_edge.loop", "while", "trm_edge.loop"),
        ("trm_edge.loop", "unrolled", "trm_edge.steps"),
        ("trm_edge.steps", "4", "trm_edge.steps"),
        ("trm_edge.statistics", "[", "damaged JSON"),
        ("trm_edge.statistics", "[" * 100000, "damaged JSON"),
        ("trm_edge.statistics", "{}", "limits.lower"),
        ("trm_edge.statistics", "[1]", "limits.lower"),
        ("limits.upper", "[1, 2]", "expected 3 numbers"),
        ("limits.upper", "[1, 2, true]", "expected numbers"),
        ("limits.upper", "[1, 2, NaN]", "no NaN"),
        ("limits.upper", "[1, 2, 1" + "0" * 400 + "]", "out of range"),
        ("limits.upper", "[1, 2, -9]", "lower <= upper"),
        ("normalization.y0.mean", "[1, 2, Infinity]", "finite"),
        ("spec.dof", "4", "expected 4 numbers"),
        ("spec.hidden_size", "48", "carry_y"),
        ("spec.answer", "slots", "spec"),
        ("spec.max_context", "-1", "spec.max_context"),
        ("spec.num_layers", "", "spec.num_layers"),
    ],
)
def test_metadata_is_not_trusted(key: str, value: str, match: str) -> None:
    import json

    model = build_onnx(bundle_of("actions"), "step")
    props = {p.key: p.value for p in model.metadata_props}
    if "." in key and key in json.loads(props["trm_edge.statistics"]):
        statistics = {k: json.dumps(v) for k, v in json.loads(props["trm_edge.statistics"]).items()} | {key: value}
        props["trm_edge.statistics"] = "{" + ", ".join(f'"{k}": {v}' for k, v in statistics.items()) + "}"
    else:
        props[key] = value
    onnx.helper.set_model_props(model, props)
    with pytest.raises(TrmBundleError, match=match) as caught:
        OnnxRuntimeBackend(model.SerializeToString())
    assert isinstance(caught.value, TrmVersionError) == (key == "trm_edge.format_version")


def test_a_graph_that_returns_other_shapes() -> None:
    bundle = bundle_of("actions")
    model = build_onnx(bundle, "onnx-loop")
    (loop,) = (node for node in model.graph.node if node.op_type == "Loop")
    loop.input[0] = "seven"  # whatever the caller asks for
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(7, np.int64), "seven"))
    runner = opened(model.SerializeToString())
    with pytest.raises(TrmBundleError, match=r"output y_steps: expected float32 \[2, 5, 3\]"):
        runner.refine(**random_inputs(bundle.spec, np.random.default_rng(0)), steps=2)


def test_weights_in_other_files_are_refused(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = build_onnx(bundle_of("actions"), "step")
    tensor = next(t for t in model.graph.initializer if t.name.endswith("mlp.down.weight.t"))
    (tmp_path / "secret.bin").write_bytes(tensor.raw_data)
    monkeypatch.chdir(tmp_path)
    onnx.external_data_helper.set_external_data(tensor, "secret.bin")
    tensor.ClearField("raw_data")
    data = model.SerializeToString()
    (tmp_path / "a.onnx").write_bytes(data)
    for source in (data, tmp_path / "a.onnx"):
        with pytest.raises(TrmBundleError):
            OnnxRuntimeBackend(source)


def test_missing_onnxruntime_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    data = build_onnx(bundle_of("actions"), "step").SerializeToString()
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(TrmUnsupportedError, match=r"pip install 'trm-edge\[onnxruntime\]'"):
        OnnxRuntimeBackend(data)
