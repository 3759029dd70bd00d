"""Manifests of TensorRT engines, what may be loaded, and the choices of the backend that need no TensorRT and no GPU.

The calls into TensorRT themselves have not run anywhere: no test here says that they work.
"""

from __future__ import annotations

import ctypes
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from runners import plain_bundle

import trm_edge
from trm_edge import engine as contract
from trm_edge.backends import tensorrt as backend
from trm_edge.backends import tensorrt_session
from trm_edge.bundle import bundle_bytes, read_bundle
from trm_edge.cli import main
from trm_edge.engine import (
    EngineManifest,
    call_sizes,
    check_gpus,
    choose_profile,
    make_profiles,
    manifest_bytes,
    manifest_path,
    parse_manifest,
    precisions_of,
    profile_shapes,
    read_engine,
    shapes,
    varying_sizes,
    why_not,
)
from trm_edge.errors import (
    TrmBundleError,
    TrmDeviceError,
    TrmError,
    TrmInputError,
    TrmIOError,
    TrmUnsupportedError,
    TrmVersionError,
)
from trm_edge.graph import GRAPH_PRECISIONS, GraphInfo, input_signature, output_signature
from trm_edge.inputs import check_inputs

ENGINE = b"not really an engine"
BUNDLE = read_bundle(bundle_bytes(plain_bundle("actions")))


def manifest_of(kind: str = "actions", loop: str = "unrolled", **changes: Any) -> EngineManifest:
    bundle = BUNDLE if kind == "actions" else read_bundle(bundle_bytes(plain_bundle(kind)))
    info = GraphInfo(bundle.spec, loop, 3 if loop == "unrolled" else 0, bundle.tensors, bundle.sha256, "fp16")
    manifest = EngineManifest(
        engine_sha256="",
        engine_bytes=0,
        library="tensorrt_rtx",
        library_version="1.7.1.116",
        gpus=("sm86", "sm89"),
        precision="fp16",
        weights="included",
        profiles=make_profiles(bundle.spec, [2] if kind == "actions" else []),
        graph=info,
    )
    return replace(manifest.sealed(ENGINE), **changes)


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    (tmp_path / "head.engine").write_bytes(ENGINE)
    manifest_path(tmp_path / "head.engine").write_bytes(manifest_bytes(manifest_of()))
    return tmp_path / "head.engine"


# ---- inspect ---------------------------------------------------------------------------------------------------------


def test_inspect_says_what_an_engine_is(engine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = manifest_of()
    assert main(["inspect", str(engine), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["sha256"], facts["bytes"]) == (manifest.engine_sha256, len(ENGINE))
    assert (facts["gpus"], facts["loop"], facts["steps"]) == (["sm86", "sm89"], "unrolled", 3)
    assert facts["bundle_sha256"] == BUNDLE.sha256 and facts["spec"] == BUNDLE.spec.to_dict()
    assert main(["inspect", str(engine)]) == 0
    out = capsys.readouterr().out
    for word in (
        "fp16, 3 steps, unrolled",
        "tensorrt_rtx 1.7.1.116, for sm86, sm89",
        "profile 0   P 0..2",
        BUNDLE.sha256,
    ):
        assert word in out


def test_inspect_refuses_an_engine_that_is_not_the_manifests(engine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    engine.write_bytes(ENGINE + b"!")
    assert main(["inspect", str(engine)]) == 2
    assert "TensorRT was not given it" in capsys.readouterr().err
    manifest_path(engine).unlink()
    assert main(["inspect", str(engine)]) == 2
    assert "manifest" in capsys.readouterr().err


# ---- Manifests -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loop", ["unrolled", "onnx-loop"])
@pytest.mark.parametrize("kind", ["actions", "slots", "tokens"])
def test_a_manifest_reads_back(kind: str, loop: str) -> None:
    manifest = manifest_of(kind, loop)
    again = parse_manifest(manifest_bytes(manifest))
    assert replace(again, graph=manifest.graph) == manifest
    assert (again.graph.spec, again.graph.loop, again.graph.steps) == (manifest.graph.spec, loop, manifest.graph.steps)
    assert again.graph.bundle_sha256 == manifest.graph.bundle_sha256
    for name, values in again.graph.statistics.items():
        np.testing.assert_array_equal(values, manifest.graph.statistics[name])


WRONG: list[tuple[str, Any, str]] = [
    ("format", "trm_edge.onnx", "not a manifest"),
    ("format_version", 2, "version 2 .* reads 1"),
    ("format_version", True, "version True"),
    ("engine_sha256", "0" * 63, "engine_sha256"),
    ("engine_sha256", "0" * 64 + "\n", "engine_sha256"),
    ("engine_sha256", "F" * 64, "engine_sha256"),
    ("engine_sha256", None, "engine_sha256"),
    ("engine_bytes", 0, "engine_bytes"),
    ("engine_bytes", "20", "engine_bytes"),
    ("engine_bytes", True, "engine_bytes"),
    ("library", "os", "library"),
    ("library", ["tensorrt"], "library"),
    ("library_version", "1.7\n", "library_version"),
    ("library_version", "", "library_version"),
    ("gpus", [], "gpus"),
    ("gpus", "sm89", "gpus"),
    ("gpus", ["sm89", 86], "gpus"),
    ("gpus", ["current"], "gpus"),
    ("precision", "int4", "precision"),
    ("precision", "int8", "its graph is in fp16"),
    ("weights", "elsewhere", "weights"),
    ("profiles", [], "profiles"),
    ("profiles", {}, "profiles"),
    ("profiles", [{}], "exactly the sizes P"),
    ("profiles", [{"P": [0, 6, 6], "S": [1, 1, 1]}], "exactly the sizes P"),
    ("profiles", [{"P": [0, 7, 7]}], "P: expected 0 <= min <= opt <= max <= 6"),
    ("profiles", [{"P": [-1, 6, 6]}], "P: expected"),
    ("profiles", [{"P": [0, 6]}], "P: expected"),
    ("profiles", [{"P": [0, 6, True]}], "P: expected"),
    ("profiles", [{"P": [0, 6, 2]}], "P: expected"),
    ("profiles", [{"P": [0, 6, 6]}] * 65, "1 to 64"),
    ("graph", {}, "not a trm_edge graph"),
    ("graph", [], "graph: expected an object of strings"),
    ("graph", {"trm_edge.format": 1}, "graph: expected an object of strings"),
    ("unknown", 1, "see to unknown"),
    ("weights", ..., "see to weights"),
]


@pytest.mark.parametrize(("name", "value", "match"), WRONG)
def test_a_manifest_is_not_trusted(name: str, value: Any, match: str, engine: Path) -> None:
    entries = json.loads(manifest_bytes(manifest_of()))
    if value is ...:
        del entries[name]
    else:
        entries[name] = value
    manifest_path(engine).write_text(json.dumps(entries))
    with pytest.raises(TrmBundleError, match=rf"(?s)head\.engine\.json: .*{match}") as caught:
        read_engine(engine)
    assert isinstance(caught.value, TrmVersionError) == (name == "format_version")


def test_a_graph_of_the_step_form_is_no_engine() -> None:
    with pytest.raises(TrmBundleError, match="got step"):
        parse_manifest(manifest_bytes(manifest_of(loop="step")))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"null",
        b'"text"',
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"a": NaN}',
        b'{"a": 1.5}',
        b'{"a": 1, "a": 1}',
        b"9" * 10_000,
        b" " * (contract.MAX_MANIFEST + 1),
    ],
)
def test_what_is_no_manifest(data: bytes) -> None:
    with pytest.raises(TrmBundleError, match="manifest"):
        parse_manifest(data)


def test_flipped_bytes_of_a_manifest_never_escape() -> None:
    whole, rng = manifest_bytes(manifest_of("slots")), np.random.default_rng(0)
    refused = 0
    for _ in range(500):
        data = bytearray(whole)
        data[rng.integers(len(data))] = rng.integers(256)
        try:
            parse_manifest(bytes(data))
        except TrmBundleError:
            refused += 1
    assert refused > 400


# ---- What is not loaded ----------------------------------------------------------------------------------------------


def test_an_engine_that_fits_its_manifest(engine: Path) -> None:
    manifest, data = read_engine(engine)
    assert data == ENGINE and manifest.gpus == ("sm86", "sm89")
    manifest.require_library("tensorrt_rtx", "1.7.1.116")
    manifest.require_gpu("sm89")
    manifest.require_bundle(BUNDLE)


def test_what_does_not_fit_says_both_sides() -> None:
    manifest = manifest_of()
    with pytest.raises(TrmVersionError, match=r"built by tensorrt_rtx 1\.7\.1\.116, and this is tensorrt_rtx 1\.8\.0"):
        manifest.require_library("tensorrt_rtx", "1.8.0")
    with pytest.raises(TrmVersionError, match=r"and this is tensorrt 10\.3\.0"):
        manifest.require_library("tensorrt", "10.3.0")
    with pytest.raises(
        TrmUnsupportedError, match=r"built for sm86, sm89, and this GPU is sm120; export it with --gpu sm120"
    ):
        manifest.require_gpu("sm120")
    other = read_bundle(bundle_bytes(plain_bundle("actions", seed=1)))
    with pytest.raises(TrmBundleError, match=f"{BUNDLE.sha256}, got one with {other.sha256}"):
        manifest.require_bundle(other)


def test_a_foreign_engine_is_never_deserialised(engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorRT is not even imported before the engine's bytes are those of its manifest."""

    def reached(name: str = "") -> Any:
        raise AssertionError("TensorRT was asked for")

    monkeypatch.setattr(backend, "import_library", reached)
    with pytest.raises(AssertionError, match="asked for"):
        trm_edge.load(engine)
    for data in (ENGINE + b"\0", ENGINE[:-1], ENGINE[:-1] + b"E", b""):
        engine.write_bytes(data)
        with pytest.raises(TrmBundleError, match=r"head\.engine: .*TensorRT was not given it"):
            trm_edge.load(engine)
    engine.write_bytes(ENGINE)
    manifest_path(engine).write_text("{}")
    with pytest.raises(TrmBundleError, match="not a manifest"):
        trm_edge.load(engine)
    manifest_path(engine).unlink()
    with pytest.raises(TrmIOError, match=r"head\.engine\.json: .* with the manifest that was written with it"):
        trm_edge.load(engine)
    manifest_path(engine).write_bytes(manifest_bytes(manifest_of()))
    engine.unlink()
    with pytest.raises(TrmIOError, match=r"head\.engine: cannot be read"):
        trm_edge.load(engine)


def test_other_releases_are_refused_before_a_gpu_is_looked_for(engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = ModuleType("tensorrt_rtx")
    library.__version__ = "9.9"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", library)
    with pytest.raises(TrmVersionError, match=r"and this is tensorrt_rtx 9\.9"):
        trm_edge.load(engine)


# ---- The registry ----------------------------------------------------------------------------------------------------


def test_missing_libraries_name_the_extra(engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("tensorrt_rtx", "tensorrt"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(TrmUnsupportedError, match=r"pip install 'trm-edge\[tensorrt\]'"):
        trm_edge.load(engine)
    with pytest.raises(TrmUnsupportedError, match=r"tensorrt_rtx cannot be imported .* tensorrt cannot be imported"):
        backend.import_library()


def test_it_is_not_offered_where_something_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.util import find_spec

    there = {"tensorrt_rtx": False, "tensorrt": False, "pycuda": False}

    def found(name: str) -> Any:
        return there[name] or None if name in there else find_spec(name)

    monkeypatch.setattr("importlib.util.find_spec", found)
    assert backend.missing() == "neither tensorrt_rtx nor tensorrt is installed"
    assert "tensorrt" not in trm_edge.available_backends()
    there["tensorrt"] = True
    assert backend.missing() == "pycuda is not installed"
    there["pycuda"] = True
    monkeypatch.setitem(sys.modules, "pycuda", None)
    assert "pycuda" in backend.missing()
    assert "tensorrt" not in trm_edge.available_backends()


def test_files_and_their_backends(engine: Path, path: Path) -> None:
    with pytest.raises(
        TrmInputError, match=r"reads \.engine files; make one with `trm-edge export .*head\.trm .*\.engine"
    ):
        trm_edge.load(path, backend="tensorrt")
    for name in ("fused", "reference", "onnxruntime"):
        with pytest.raises(TrmInputError, match=r"\.engine files are for backend tensorrt|reads \.onnx files"):
            trm_edge.load(engine, backend=name)
    with pytest.raises(TrmInputError, match="not bytes"):
        trm_edge.load(ENGINE, backend="tensorrt")
    with pytest.raises(TrmUnsupportedError, match=r"threads: .* got 2"):
        trm_edge.load(engine, threads=2)


# ---- GPUs and precisions ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gpu", "runs"),
    [
        ("sm75", ["fp16"]),
        ("sm80", ["fp32", "fp16", "bf16", "int8"]),
        ("sm86", ["fp32", "fp16", "bf16", "int8"]),
        ("sm87", ["fp32", "fp16", "bf16", "int8"]),
        *((gpu, list(GRAPH_PRECISIONS)) for gpu in ("sm89", "sm90", "sm110", "sm120", "sm121")),
        ("sm70", []),
    ],
)
def test_precisions_of_a_gpu(gpu: str, runs: list[str]) -> None:
    assert list(precisions_of(gpu)) == runs
    assert [precision for precision in GRAPH_PRECISIONS if not why_not(precision, gpu)] == runs
    for precision in set(GRAPH_PRECISIONS) - set(runs):
        with pytest.raises(
            TrmUnsupportedError, match=f"{precision} on {gpu}: .*{gpu} runs {', '.join(runs) or 'none'}"
        ):
            check_gpus(["sm120", gpu], precision)


def test_names_of_gpus() -> None:
    assert check_gpus(["sm86", "sm89", "sm86"], "int8") == ("sm86", "sm89")
    for names in ([], ["89"], ["sm8"], ["SM89"], ["sm89 "], ["sm89\n"]):
        with pytest.raises(TrmInputError, match="gpu: expected"):
            check_gpus(names, "fp16")


# ---- Profiles and shapes ---------------------------------------------------------------------------------------------


def test_profiles_cut_the_context() -> None:
    spec = plain_bundle("slots").spec  # up to 5 context rows, 4 slots, 6 candidates
    rest = {"S": (1, 4, 4), "M": (1, 6, 6)}
    assert make_profiles(spec) == ({"P": (0, 5, 5), **rest},)
    cut = make_profiles(spec, [3, 1])
    assert cut == ({"P": (0, 1, 1), **rest}, {"P": (2, 3, 3), **rest}, {"P": (4, 5, 5), **rest})
    for rows in range(6):
        index = choose_profile(cut, {"P": rows, "S": 2, "M": 6})
        assert cut[index]["P"][0] <= rows <= cut[index]["P"][2]
    with pytest.raises(
        TrmInputError, match=r"no profile for P = 3, S = 5, M = 1; it was built for P in 0\.\.1, S in 1\.\.4"
    ):
        choose_profile(cut, {"P": 3, "S": 5, "M": 1})
    for lengths in ([6], [-1]):
        with pytest.raises(TrmInputError, match="context: expected lengths of 0 to 5"):
            make_profiles(spec, lengths)


@pytest.mark.parametrize(("kind", "mixer"), [("tokens", "rope"), ("actions", "mlp_t")])
def test_what_does_not_vary_has_one_profile(kind: str, mixer: str) -> None:
    spec = plain_bundle(kind, mixer).spec
    assert varying_sizes(spec) == {} and make_profiles(spec) == ({},)
    assert choose_profile(make_profiles(spec), {}) == 0
    with pytest.raises(TrmInputError, match="context: the context of this head does not vary"):
        make_profiles(spec, [3])


@pytest.mark.parametrize("kind", ["actions", "slots", "tokens"])
def test_shapes_of_a_call_are_those_of_its_arrays(kind: str) -> None:
    from trm_edge.backends.graph import graph_feeds
    from trm_edge.golden import random_inputs

    spec = plain_bundle(kind).spec
    for seed in range(8):
        call = random_inputs(spec, np.random.default_rng(seed))
        inputs = check_inputs(spec, **call)
        feeds = graph_feeds(spec, inputs, inputs.x if inputs.y0 is None else inputs.y0)
        sizes = call_sizes(spec, feeds)
        assert shapes(input_signature(spec, "unrolled"), sizes) == {name: array.shape for name, array in feeds.items()}
        outputs = shapes(output_signature(spec, "onnx-loop"), sizes | {"K": 7})
        assert outputs["y_steps"] == (7, *outputs["y"]) and outputs["halt_logits"] == (7,)
        choose_profile(make_profiles(spec), sizes)


def test_no_candidates_are_one_that_no_slot_may_take() -> None:
    from trm_edge.backends.graph import graph_feeds

    spec = plain_bundle("slots").spec
    inputs = check_inputs(
        spec,
        np.zeros((0, spec.context_size), np.float32),
        None,
        slots=np.zeros((2, spec.slot_size), np.float32),
        candidates=np.zeros((0, spec.candidate_size), np.float32),
        mask=np.zeros((2, 0), np.bool_),
    )
    feeds = graph_feeds(spec, inputs, np.full(2, -1, np.int32))
    assert call_sizes(spec, feeds) == {"P": 0, "S": 2, "M": 1} and not feeds["mask"].any()


def test_profile_shapes_leave_out_what_is_fixed() -> None:
    manifest = manifest_of()
    first, second = (profile_shapes(manifest.graph, profile) for profile in manifest.profiles)
    assert first == {"x": [(0, 7), (2, 7), (2, 7)]} and second == {"x": [(3, 7), (6, 7), (6, 7)]}
    assert profile_shapes(manifest_of("tokens").graph, {}) == {}


def test_stored_matrices_that_there_are_not() -> None:
    for name in (
        "blocks.0.mlp.down.int4",
        "blocks.9.mlp.down.fp16",
        "registers",
        "",
        ".t",
        "blocks.0.mlp.down.weight.t.t",
    ):
        with pytest.raises(TrmError, match="asks for the weight"):
            contract.stored_matrix(BUNDLE, name)


# ---- Captured graphs -------------------------------------------------------------------------------------------------


class Driver:
    """The functions of libcuda that a capture calls: what was left capturing, and which graphs were left."""

    def __init__(self, ends: bool = True, instantiates: bool = True) -> None:
        self.ends, self.instantiates = ends, instantiates
        self.capturing, self.graphs = False, 0

    def cuStreamBeginCapture_v2(self, stream: Any, mode: Any) -> int:
        self.capturing = True
        return 0

    def cuStreamEndCapture(self, stream: Any, graph: Any) -> int:
        self.capturing = False
        graph._obj.value = 7
        self.graphs += 1
        return 0 if self.ends else 1

    def cuGraphInstantiateWithFlags(self, executable: Any, graph: Any, flags: Any) -> int:
        return 0 if self.instantiates else 1

    def cuGraphDestroy(self, graph: Any) -> int:
        self.graphs -= 1
        return 0

    def cuGraphExecDestroy(self, executable: Any) -> int:
        return 0


@pytest.mark.parametrize("failure", [None, "end", "instantiate", TrmDeviceError("refused"), MemoryError("host")])
def test_a_capture_leaves_neither_a_graph_nor_a_capturing_stream(failure: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = Driver(ends=failure != "end", instantiates=failure != "instantiate")
    monkeypatch.setattr(ctypes, "CDLL", lambda name: driver)
    stream = ModuleType("stream")
    stream.handle = 1  # type: ignore[attr-defined]

    def enqueue() -> None:
        if isinstance(failure, Exception):
            raise failure

    if isinstance(failure, MemoryError):
        with pytest.raises(MemoryError):
            tensorrt_session._Graph.capture(stream, enqueue)
    else:
        assert (tensorrt_session._Graph.capture(stream, enqueue) is None) == (failure is not None)
    assert (driver.capturing, driver.graphs) == (False, 0)
