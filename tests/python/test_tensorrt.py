"""Engines built by TensorRT-RTX without a GPU: what networks compute, what engines say of themselves, what is refused.

No engine is run: that takes a GPU which TensorRT-RTX knows. The networks that they are built from are, in NumPy.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from models import CASES, calibrated
from runners import plain_bundle

import trm_edge
from trm_edge.backends.graph import graph_feeds
from trm_edge.backends.onnx_runtime import create_session
from trm_edge.bundle import Bundle, read_bundle, write_bundle
from trm_edge.cli import main
from trm_edge.engine import RTX_GPUS, manifest_path, precisions_of, read_engine
from trm_edge.errors import TrmInputError, TrmUnsupportedError
from trm_edge.golden import random_inputs, relative_error, run_reference
from trm_edge.graph import GRAPH_PRECISIONS, input_signature, output_signature
from trm_edge.inputs import check_inputs
from trm_edge.reference import ReferenceModel, StepOutput

onnx = pytest.importorskip("onnx")
pytest.importorskip("ml_dtypes")
trt = pytest.importorskip("tensorrt_rtx", reason="needs TensorRT-RTX: pip install 'trm-edge[tensorrt]'")

from network_interpreter import NetworkRunner  # noqa: E402

from trm_edge.export import build_engine  # noqa: E402
from trm_edge.export.onnx_typed import build_typed  # noqa: E402
from trm_edge.export.tensorrt import FORMS  # noqa: E402
from trm_edge.export.tensorrt_network import facts, parse, parse_loop  # noqa: E402

EXAMPLE = Path(trm_edge.__file__).parent / "data" / "example.trm"
WORDS = {"fp32": "Float", "fp16": "Half", "bf16": "BFloat16", "int8": "Int8", "fp8": "FP8"}


class Quiet(trt.ILogger):  # type: ignore[misc]
    def __init__(self) -> None:
        trt.ILogger.__init__(self)

    def log(self, severity: Any, message: str) -> None:
        pass


LOG = Quiet()
BUILDER = trt.Builder(LOG)


def network_of(bundle: Bundle, form: str, steps: int = 2, precision: str = "fp32") -> Any:
    if form == "loop":
        return parse_loop(trt, BUILDER, LOG, build_typed(bundle, "step", 1, precision))
    return parse(trt, BUILDER, LOG, build_typed(bundle, form, steps, precision))


def evaluations(bundle: Bundle, steps: int) -> int:
    """Evaluations of a block in ``steps`` steps."""
    spec = bundle.spec
    return steps * spec.h_cycles * (spec.l_cycles + 1) * spec.num_layers


# ---- Networks --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("kind", "mixer"), CASES)
def test_networks_hold_one_step_or_all(kind: str, mixer: str, form: str) -> None:
    """Trip counts, numbers of layers, inputs, outputs and weights, from the parsed network."""
    bundle = plain_bundle(kind, mixer)
    graph_form = "unrolled" if form == "unrolled" else "onnx-loop"
    network = network_of(bundle, form, steps=3)
    found = facts(trt, network)
    trips = {"unrolled": (), "loop": (("COUNT", "steps"),), "onnx-loop": (("COUNT", "steps"), ("WHILE", ""))}
    assert found.trip_limits == trips[form]

    blocks = evaluations(bundle, 3 if form == "unrolled" else 1)
    inside = {"attention": 6, "mlp_t": 4}[bundle.spec.mixer] * blocks
    assert found.layers["MATRIX_MULTIPLY"] - inside == matmuls_around(bundle, 3 if form == "unrolled" else 1)
    assert found.layers["SOFTMAX"] == (blocks if bundle.spec.mixer == "attention" else 0)

    inputs = [(network.get_input(i).name, tuple(network.get_input(i).shape)) for i in range(network.num_inputs)]
    wanted = input_signature(bundle.spec, graph_form)
    assert dict(inputs) == {n: tuple(-1 if isinstance(d, str) else d for d in dims) for n, (_, dims) in wanted.items()}
    outputs = {network.get_output(i).name: network.get_output(i) for i in range(network.num_outputs)}
    assert set(outputs) == set(output_signature(bundle.spec, graph_form, 3))
    for name, (dtype, dims) in output_signature(bundle.spec, graph_form, 3).items():
        assert np.dtype(trt.nptype(outputs[name].dtype)) == dtype
        shape = tuple(outputs[name].shape)
        assert len(shape) == len(dims) and all(s in (d, -1) for s, d in zip(shape, dims, strict=True))

    for name in (name for name in bundle.tensors if name.startswith("blocks.")):
        left = ".token_mixer." in name
        stored = found.weights[name if left else f"{name}.t"]
        np.testing.assert_array_equal(stored, bundle.tensors[name] if left else bundle.tensors[name].T)


def matmuls_around(bundle: Bundle, steps: int) -> int:
    """Products outside the blocks: encoders once a call, decoder and halt head once a step."""
    spec = bundle.spec
    if spec.answer == "slots":  # keys, slots, context, and by step: query, scores, halt
        return 3 + 3 * steps
    return (2 if spec.answer == "actions" else 0) + 2 * steps


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("kind", "mixer"), CASES)
def test_networks_compute_what_the_oracle_does(kind: str, mixer: str, form: str) -> None:
    """Layer by layer, loops included, for each number of steps."""
    bundle = plain_bundle(kind, mixer, l_cycles=1)
    runner = NetworkRunner(network_of(bundle, form, steps=3))
    call = random_inputs(bundle.spec, np.random.default_rng(1))
    truth = run_reference(ReferenceModel(bundle.spec, bundle.tensors), check_inputs(bundle.spec, **call), 3)
    for steps in (3,) if form == "unrolled" else (1, 3):
        assert_agrees(runner.run(feeds_of(bundle, call, form, steps)), truth[:steps])
        assert runner.trips == ([] if form == "unrolled" else [steps])


@pytest.mark.parametrize("form", ["loop", "onnx-loop"])
@pytest.mark.parametrize(
    ("kind", "sizes"), [("actions", {"context_rows": 0}), ("slots", {"answer_rows": 1, "candidates": 1})]
)
def test_the_smallest_calls(kind: str, sizes: dict[str, int], form: str) -> None:
    bundle = plain_bundle(kind)
    call = random_inputs(bundle.spec, np.random.default_rng(0), **sizes)
    truth = run_reference(ReferenceModel(bundle.spec, bundle.tensors), check_inputs(bundle.spec, **call), 2)
    assert_agrees(NetworkRunner(network_of(bundle, form)).run(feeds_of(bundle, call, form, 2)), truth)


@pytest.mark.parametrize("precision", ["fp16", "int8"])
@pytest.mark.parametrize("kind", ["actions", "slots", "tokens"])
def test_rounded_loops_compute_what_their_graph_does(kind: str, precision: str) -> None:
    """As ONNX Runtime runs it; roundings at a tie may go either way, so not each call to the last bit."""
    pytest.importorskip("onnxruntime")
    bundle = calibrated(plain_bundle(kind), "static", steps=2)
    session = create_session(build_typed(bundle, "onnx-loop", 1, precision).SerializeToString(), threads=1)
    runner = NetworkRunner(network_of(bundle, "loop", precision=precision))
    found = []
    for seed in range(5):
        feeds = feeds_of(bundle, random_inputs(bundle.spec, np.random.default_rng(seed)), "loop", 2)
        ours = runner.run(feeds)
        names = [output.name for output in session.get_outputs()]
        theirs = dict(zip(names, session.run(names, feeds), strict=True))
        name = "logits_steps" if "logits_steps" in ours else "y_steps"
        found.append(relative_error(ours[name], theirs[name]))
    ulp = 2.0**-10  # of float16; its roundings differ with the order of each sum, so with the processor
    assert np.median(found) <= (2 * ulp if precision == "fp16" else 1e-2) and min(found) <= ulp, found


def feeds_of(bundle: Bundle, call: dict[str, Any], form: str, steps: int) -> dict[str, np.ndarray]:
    inputs = check_inputs(bundle.spec, **call)
    feeds = graph_feeds(bundle.spec, inputs, inputs.x if inputs.y0 is None else inputs.y0)
    return feeds if form == "unrolled" else feeds | {"steps": np.asarray(steps, np.int64)}


def assert_agrees(out: dict[str, np.ndarray], truth: list[StepOutput]) -> None:
    assert len(out["y_steps"]) == len(out["halt_logits"]) == len(truth)
    np.testing.assert_array_equal(out["y"], out["y_steps"][-1])
    for k, step in enumerate(truth):
        assert relative_error(out["halt_logits"][k], np.float64(step.halt_logit)) <= 1e-5
        got = out["y_steps"] if step.logits is None else out["logits_steps"]
        assert relative_error(got[k], step.y if step.logits is None else step.logits) <= 1e-5
        if step.logits is not None:
            np.testing.assert_array_equal(out["y_steps"][k], step.y)


# ---- Engines ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("form", "precision", "kind", "mixer"),
    [
        ("unrolled", "fp16", "actions", "rope"),
        ("loop", "int8", "actions", "rope"),
        ("onnx-loop", "bf16", "slots", "learned"),
        ("loop", "fp32", "tokens", "mlp_t"),
        ("unrolled", "fp8", "tokens", "none"),
    ],
)
def test_engines_multiply_in_the_format_that_was_asked_for(form: str, precision: str, kind: str, mixer: str) -> None:
    """By the engine's own list of layers, for every evaluation of every block matrix."""
    bundle = calibrated(plain_bundle(kind, mixer), "static", steps=2)
    built = build_engine(bundle, form, 2, precision)
    times = evaluations(bundle, 2 if form == "unrolled" else 1) // bundle.spec.num_layers
    names = [name.removesuffix(".weight") for name in bundle.tensors if name.startswith("blocks.")]
    assert built.products == {name: Counter({WORDS[precision]: times}) for name in names}
    assert built.manifest.gpus == (("sm89", "sm120") if precision == "fp8" else ("sm86", "sm89", "sm120"))
    assert (built.manifest.library, built.manifest.precision) == ("tensorrt_rtx", precision)
    built.manifest.require_engine(built.data)


def test_the_size_of_a_loop_does_not_depend_on_the_steps() -> None:
    bundle = plain_bundle("tokens", "mlp_t")
    loops = {len(build_engine(bundle, "loop", steps, "fp16", gpus=["sm86"]).data) for steps in (1, 5)}
    one, three = (len(build_engine(bundle, "unrolled", steps, "fp16", gpus=["sm86"]).data) for steps in (1, 3))
    assert len(loops) == 1 and one < three


def test_profiles_cut_the_context() -> None:
    bundle = plain_bundle("actions")
    built = build_engine(bundle, "unrolled", 1, "fp32", gpus=["sm89"], context=[0, 2])
    assert [profile["P"] for profile in built.manifest.profiles] == [(0, 0, 0), (1, 2, 2), (3, 6, 6)]


@pytest.mark.parametrize("gpu", RTX_GPUS)
def test_the_table_of_precisions_is_what_tensorrt_rtx_builds(gpu: str) -> None:
    """Every precision that the table has for a GPU; those that it has not are refused before TensorRT is asked."""
    bundle = calibrated(plain_bundle("tokens", "mlp_t"), "static", steps=1)
    for precision in GRAPH_PRECISIONS:
        if precision in precisions_of(gpu):
            assert build_engine(bundle, "unrolled", 1, precision, gpus=[gpu]).data
        else:
            with pytest.raises(TrmUnsupportedError, match=f"gpu: {precision} on {gpu}: "):
                build_engine(bundle, "unrolled", 1, precision, gpus=[gpu])


def test_one_engine_for_turing_and_later() -> None:
    built = build_engine(plain_bundle("actions"), "unrolled", 1, "fp16", gpus=["sm75", "sm86"])
    assert built.manifest.gpus == ("sm75", "sm86")


# ---- The command -----------------------------------------------------------------------------------------------------


def test_the_command_writes_an_engine_and_its_manifest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = tmp_path / "head.trm", tmp_path / "head.engine"
    write_bundle(source, calibrated(read_bundle(EXAMPLE), "static", steps=2))
    assert main(["export", str(source), str(out), "--loop", "loop", "--gpu", "sm86,sm89,sm120"]) == 0
    said = capsys.readouterr().out
    assert "for sm86, sm89, sm120, int8" in said and "by the engine's own list of layers: 24 in Int8" in said
    assert sorted(p.name for p in tmp_path.iterdir()) == ["head.engine", "head.engine.json", "head.trm"]
    manifest, data = read_engine(out)
    assert manifest.library_version == trt.__version__ and len(data) == out.stat().st_size
    manifest.require_bundle(read_bundle(source))
    assert json.loads(manifest_path(out).read_text())["engine_bytes"] == len(data)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--precision", "int8"], "make one with `trm-edge calibrate --scheme static`"),
        (["--precision", "fp32", "--gpu", "sm75"], "no float32 products for Turing; sm75 runs fp16"),
        (["--gpu", "sm87"], "for any other, a Jetson say, export on the device"),
        (["--gpu", "sm86,"], "builds for sm75"),
        (["--loop", "step"], "loop: expected one of unrolled, loop, onnx-loop"),
        (["--steps", "0"], "steps: expected 1..1024"),
        (["--context", "4,x"], "--context: expected whole numbers"),
        (["--context", "16"], "context: expected lengths of 0 to 15"),
        (["--strip-weights"], "strip_weights: TensorRT-RTX can for one GPU at a time"),
        (["--dataset", "x"], "--dataset: only for .trm"),
    ],
)
def test_the_command_refuses(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(EXAMPLE), str(tmp_path / "a.engine"), *options]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", ["trm", "onnx"])
@pytest.mark.parametrize("option", [["--gpu", "sm86"], ["--context", "4"], ["--strip-weights"]])
def test_options_of_engines_alone(option: list[str], suffix: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(EXAMPLE), f"out.{suffix}", *option]) == 2
    assert f"{option[0]}: only for .engine" in capsys.readouterr().err


def test_stripped_weights_want_a_gpu() -> None:
    bundle = calibrated(plain_bundle("actions"), "static")
    try:
        built = build_engine(bundle, "unrolled", 1, "fp32", gpus=["sm86"], strip_weights=True)
    except TrmUnsupportedError as error:
        assert "builds refittable weights on a machine with a GPU only" in str(error)
    else:
        assert built.manifest.weights == "stripped"
    with pytest.raises(TrmUnsupportedError, match="strip_weights: not for fp8"):
        build_engine(bundle, "unrolled", 1, "fp8", gpus=["sm89"], strip_weights=True)


def test_forms_that_there_are_not() -> None:
    with pytest.raises(
        TrmInputError, match="loop: expected one of unrolled, loop, onnx-loop for an engine, got 'step'"
    ):
        build_engine(plain_bundle("actions"), "step")


# ---- The runner ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("owner", "names"),
    [
        ("Runtime", "deserialize_cuda_engine"),
        (
            "ICudaEngine",
            "num_io_tensors get_tensor_name get_tensor_dtype get_tensor_shape create_execution_context",
        ),
        (
            "IExecutionContext",
            "active_optimization_profile set_optimization_profile_async set_input_shape set_tensor_address "
            "execute_async_v3 is_stream_capturable",
        ),
        ("Refitter", "get_all_weights set_named_weights get_missing_weights refit_cuda_engine"),
    ],
)
def test_the_names_that_the_runner_calls_exist(owner: str, names: str) -> None:
    """All that can be said of the runner here: it has not run."""
    source = (EXAMPLE.parents[1] / "backends" / "tensorrt_session.py").read_text()
    for name in names.split():
        assert hasattr(getattr(trt, owner), name) and f"{name}" in source
