"""``benchmarks/latency.py``: every peer gives the right answer before its time means something."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from models import random_weights

from trm_edge.backends.onnx_runtime import int8_saturates
from trm_edge.bundle import Bundle, write_bundle
from trm_edge.golden import random_inputs
from trm_edge.profiling import read_report
from trm_edge.spec import TrmSpec

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

BENCHMARKS = str(Path(__file__).parents[2] / "benchmarks")


@pytest.fixture(scope="module", autouse=True)
def folder() -> Iterator[None]:
    sys.path.insert(0, BENCHMARKS)
    yield
    sys.path.remove(BENCHMARKS)
    for name in [n for n in sys.modules if n.split(".")[0] in ("latency", "latency_plot", "peers")]:
        del sys.modules[name]


def module(name: str) -> Any:
    return importlib.import_module(name)


@pytest.mark.parametrize(
    "words",
    [
        *(["--rows", "8", "3"], ["--steps", "0"], ["--threads", "1,0"], ["--inputs", "0"], ["--cpu", "-1"]),
        *(["--seconds", "-1"], ["--seconds", "nan"], ["--try-seconds", "0"]),
    ],
    ids=" ".join,
)
def test_numbers_out_of_range_are_refused_by_name(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["latency.py", *words])
    with pytest.raises(SystemExit) as left:
        module("latency").main()
    assert left.value.code == 2 and f"error: {words[0]}: expected" in capsys.readouterr().err


def make_problem(mixer: str = "attention", kind: str = "actions", rows: int = 12) -> Any:
    attention = mixer == "attention"
    shapes: dict[str, Any] = {
        "actions": {"answer_rows": 4, "dof": 3, "max_context": rows - 5, "context_size": 6, "registers": 1},
        "tokens": {"answer_rows": rows, "vocab_size": 7, "num_puzzles": 1, "registers": 0},
    }[kind]
    spec = TrmSpec(
        answer=kind,
        hidden_size=32,
        inner_size=64,
        mixer=mixer,
        num_heads=4 if attention else 0,
        token_inner_size=0 if attention else 24,
        positions="rope" if attention else "none",
        l_cycles=2,
        h_cycles=2,
        **shapes,
    )
    rng = np.random.default_rng(3)
    calls = [random_inputs(spec, rng) for _ in range(3)]
    return module("peers").Problem(Bundle(spec, random_weights(spec)), 3, calls)


def error_of(peer: str, form: str, precision: str, problem: Any, threads: int = 1) -> float:
    peers, common = module("peers"), module("peers.common")
    run = peers.PEERS[peer]().build(problem, precision, threads, form)
    return common.median_error([run(inputs) for inputs in problem.inputs()], problem.truth())


def allowed(precision: str, problem: Any) -> float:
    latency = module("latency")
    return max(latency.FLOOR, latency.WRONG * problem.yardstick(precision))


ORT = ["net", "step", "whole", "export", "net-contrib", "step-contrib", "whole-contrib"]


@pytest.mark.parametrize("mixer", ["attention", "mlp_t"])
@pytest.mark.parametrize(("peer", "form"), [("fused", "refine"), *(("onnxruntime", form) for form in ORT)])
def test_float32_is_right_in_every_form(peer: str, form: str, mixer: str) -> None:
    problem = make_problem(mixer)
    assert error_of(peer, form, "fp32", problem) <= allowed("fp32", problem)


@pytest.mark.parametrize("mixer", ["attention", "mlp_t"])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
def test_torch_is_right(precision: str, mixer: str) -> None:
    pytest.importorskip("torch")
    problem = make_problem(mixer)
    forms = ["eager-all", "eager-autocast"] if precision == "bf16" else ["eager"]
    for form in forms:
        error = error_of("torch", form, precision, problem)
        assert error <= allowed(precision, problem)
        assert precision == "fp32" or error > 1e-5  # it runs in the precision it says


@pytest.mark.slow
@pytest.mark.parametrize("form", ["compiled", "frozen"])
def test_compiled_torch_is_right(form: str) -> None:
    pytest.importorskip("torch")
    problem = make_problem()
    try:
        error = error_of("torch", form, "fp32", problem)
    except module("peers").PeerError as reason:
        pytest.skip(str(reason))
    assert error <= allowed("fp32", problem)


@pytest.mark.parametrize("form", ["net", "step", "whole"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_openvino_is_right(precision: str, form: str) -> None:
    pytest.importorskip("openvino")
    problem = make_problem()
    try:
        error = error_of("openvino", form, precision, problem)
    except module("peers").PeerError as reason:
        pytest.skip(str(reason))
    assert error <= allowed(precision, problem)
    assert precision == "fp32" or error > 1e-5


@pytest.mark.parametrize("mixer", ["attention", "mlp_t"])
@pytest.mark.parametrize("form", ["step", "whole"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_jax_is_right(precision: str, form: str, mixer: str) -> None:
    pytest.importorskip("jax.numpy")
    problem = make_problem(mixer)
    error = error_of("jax", form, precision, problem)
    assert error <= allowed(precision, problem)
    assert precision == "fp32" or error > 1e-5
    with pytest.raises(module("peers").PeerError, match="2 threads"):
        error_of("jax", form, precision, problem, threads=2)


def test_openvino_is_right_where_rows_equal_heads() -> None:
    pytest.importorskip("openvino")
    problem = make_problem(rows=8)
    assert error_of("openvino", "net", "fp32", problem) <= allowed("fp32", problem)


def test_openvino_int8_quantises_all_matrices() -> None:
    pytest.importorskip("openvino")
    pytest.importorskip("nncf")
    if int8_saturates():
        pytest.skip("OpenVINO's int8 products saturate on x86-64 without VNNI")
    problem = make_problem()
    error = error_of("openvino", "net", "int8", problem)
    assert 1e-4 < error <= allowed("int8", problem)


@pytest.mark.parametrize("form", ["net", "whole-contrib", "export"])
def test_onnxruntime_int8_quantises_all_matrices(form: str) -> None:
    problem = make_problem()
    assert 1e-4 < error_of("onnxruntime", form, "int8", problem) <= allowed("int8", problem)


def test_a_matrix_left_in_float32_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime.quantization as quantization

    def leave_all(before: Path, after: Path, **_: Any) -> None:
        after.write_bytes(before.read_bytes())

    monkeypatch.setattr(quantization, "quantize_dynamic", leave_all)
    with pytest.raises(module("peers").PeerError, match="left 8 of 8 matrices"):
        error_of("onnxruntime", "net", "int8", make_problem())


def test_two_threads_and_other_kinds() -> None:
    problem = make_problem(kind="tokens")
    for form in ("net", "export"):
        assert error_of("onnxruntime", form, "fp32", problem, threads=2) <= allowed("fp32", problem)
    assert error_of("fused", "refine", "fp32", problem) <= allowed("fp32", problem)


def test_what_a_release_does_not_have_is_a_reason_not_a_crash() -> None:
    with pytest.raises(module("peers").PeerError, match="threads"):
        module("peers").PEERS["fused"]().build(make_problem(), "fp32", 4096, "refine")


def test_rounding_to_bfloat16_is_that_of_torch() -> None:
    torch = pytest.importorskip("torch")
    values = np.random.default_rng(0).standard_normal((50, 7)).astype(np.float32)
    want = torch.from_numpy(values).bfloat16().float().numpy()
    np.testing.assert_array_equal(module("peers.common").round_bf16(values), want)


def test_rounding_to_int8_is_per_channel() -> None:
    values = np.asarray([[1.0, -127.0, 0.4], [0.5, 0.1, -1.27], [0.0, 0.0, 0.0]], np.float32)
    rounded = module("peers.common").round_int8(values)
    np.testing.assert_allclose(rounded, [[1, -127, 0], [0.5, 0.1, -1.27], [0, 0, 0]], atol=1e-6)


def run(monkeypatch: pytest.MonkeyPatch, *argv: object) -> None:
    monkeypatch.setattr(sys, "argv", ["latency.py", *map(str, argv)])
    module("latency").main()


QUICK = ("--peers", "fused,onnxruntime", "--forms", "net,whole-contrib", "--seconds", 0.02, "--try-seconds", 0.01)


def test_the_benchmark_ranks_what_is_right(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out, plot = tmp_path / "l.json", tmp_path / "l.png"
    sizes = ("--hidden", 32, "--heads", 2, "--inner", 48, "--rows", 6, 9, "--threads", 1, "--precision", "fp32,int8")
    run(monkeypatch, *QUICK, *sizes, "--json", out, "--plot", plot)
    text = capsys.readouterr().out
    assert "L=6" in text and "L=9" in text and "the best peer, onnxruntime" in text
    report = read_report(out)
    rows = {row["name"]: row for row in report["configurations"]}
    row = rows["D32 attention L9 x1 fp32 onnxruntime"]
    assert row["check"]["passed"] and row["closed_loop"]["calls"] > 0 and row["roofline"]["flop"] > 0
    assert {attempt["form"] for attempt in row["tries"]} == {"net", "whole-contrib"}
    assert row["form"] == min(row["tries"], key=lambda attempt: attempt["p50_us"])["form"]
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_a_wrong_engine_is_shown_as_wrong_and_not_timed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    peers = module("peers")
    right = peers.PEERS["onnxruntime"].build

    def wrong(*arguments: Any) -> Any:
        run = right(*arguments)
        return lambda inputs: run(inputs) + 1

    monkeypatch.setattr(peers.PEERS["onnxruntime"], "build", wrong)
    problem = make_problem()
    path, out = tmp_path / "b.trm", tmp_path / "l.json"
    write_bundle(path, problem.bundle)
    run(monkeypatch, *QUICK, "--bundle", path, "--threads", 1, "--precision", "fp32", "--json", out)
    assert "WRONG" in capsys.readouterr().out
    rows = {row["backend"]: row for row in json.loads(out.read_text())["configurations"]}
    assert "closed_loop" in rows["fused"] and "closed_loop" not in rows["onnxruntime"]
    assert not rows["onnxruntime"]["check"]["passed"]
