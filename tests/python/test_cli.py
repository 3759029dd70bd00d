"""The command line: what it prints for people and for programs, its exit codes, and the files it writes."""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from models import calibrated, make_bundle, make_spec, random_weights
from runners import plain_bundle

import trm_edge
from trm_edge import Status, TrmSpec, cli
from trm_edge.backends.graph import GraphBackend
from trm_edge.backends.reference import ReferenceBackend
from trm_edge.bundle import Bundle, GoldenCase, bundle_bytes, read_bundle, write_bundle
from trm_edge.calib import command as calib_command
from trm_edge.cli import EXAMPLE, main
from trm_edge.export import command as export_command
from trm_edge.golden import golden_arguments, random_inputs, verify
from trm_edge.quantization import QuantizedModel, uniform

TOP = Path(__file__).parents[2]
GOLDEN = sorted((TOP / "tests/golden/bundles").glob("*.trm"))
OFFICIAL = TOP / "tests/golden/official"

Capture = pytest.CaptureFixture[str]


pytestmark = pytest.mark.usefixtures("no_overrides")


def run(capsys: Capture, *argv: object) -> tuple[int, str, str]:
    """Return exit code, output and error output of a command."""
    try:
        code = main([str(a) for a in argv])
    except SystemExit as exit_:
        code = int(exit_.code or 0)
    return code, *capsys.readouterr()


def failed(capsys: Capture, *argv: object) -> str:
    """Run a command that must fail with exit code 2, without a traceback; return the one line that says why."""
    code, out, err = run(capsys, *argv)
    assert (code, out) == (2, "")
    assert err.startswith(f"trm-edge {argv[0]}: ") and err.count("\n") == 1 and "Traceback" not in err
    return err


def save(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return path


def command(*argv: object) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "trm_edge.cli", *map(str, argv)]
    return subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)


def test_options_may_stand_anywhere_about_a_sentence(capsys: Capture) -> None:
    code, told, _ = run(capsys, "demo", "slots", "--json", "turn", "on", "--steps", 1, "the", "lights")
    assert code == 0
    assert [call["sentence"] for call in json.loads(told)["calls"]] == ["turn on the lights"]
    for words in (("demo", "slots", "--jsn", "turn"), ("verify", EXAMPLE, "--jsn", 1)):
        code, _, error = run(capsys, *words)
        assert code == 2 and "unrecognized arguments: --jsn" in error


@pytest.mark.parametrize(("closing", "code"), [("| true", 141), (">&-", 0)])
def test_a_reader_that_has_gone_is_no_bad_input(closing: str, code: int) -> None:
    script = f"set -o pipefail; {sys.executable} -m trm_edge.cli inspect {closing}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (code, "")


# ---- Usage -----------------------------------------------------------------------------------------------------------


def test_it_runs_as_a_module() -> None:
    done = command("verify", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["passed"] is True
    assert command("verify", "missing.trm").returncode == 2


def test_a_command_of_another_package_that_fails_is_left_out(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    broken = EntryPoint("broken", "no_such_package:add", "trm_edge.commands")
    monkeypatch.setattr(cli, "entry_points", lambda group: [broken])
    code, out, err = run(capsys, "inspect", "--json")
    assert code == 0 and json.loads(out)["spec"]["answer"] == "actions"
    assert "command broken is left out: ModuleNotFoundError" in err


def test_it_says_its_version(capsys: Capture) -> None:
    with pytest.raises(SystemExit) as left:
        main(["--version"])
    assert left.value.code == 0 and capsys.readouterr().out == f"trm-edge {trm_edge.__version__}\n"


def test_it_is_installed_as_a_command() -> None:
    script = Path(sys.executable).parent / "trm-edge"
    if not script.exists():
        pytest.skip("the package's scripts are elsewhere")
    done = subprocess.run([script, "inspect", "--json"], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["spec"]["answer"] == "actions"


def commands() -> dict[str, argparse.ArgumentParser]:
    actions = cli._parser()._actions
    return next(dict(a.choices) for a in actions if isinstance(a, argparse._SubParsersAction))


def test_help_lists_every_command_and_each_shows_an_example(capsys: Capture) -> None:
    code, out, _ = run(capsys, "--help")
    assert code == 0
    assert {"inspect", "verify", "refine", "export"} <= set(commands())
    for name in commands():
        assert re.search(rf"^ +{name}\s+\w", out, re.M), name
        code, text, _ = run(capsys, name, "--help")
        assert code == 0
        assert re.search(rf"^  trm-edge {name}\b", text, re.M), f"{name} --help shows no example"


def test_the_options_in_the_examples_exist(capsys: Capture) -> None:
    for name in commands():
        _, text, _ = run(capsys, name, "--help")
        usage, rest = text.split("\n\n", 1)
        options = {word for line in re.findall(rf"^  trm-edge {name} .*$", rest, re.M) for word in line.split()}
        for option in (word for word in options if word.startswith("--")):
            assert option in usage or name == "inspect", f"{name}: {option}"


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["bogus"],
        ["verify", "--bogus"],
        ["verify", "a", "b"],
        ["refine", "--steps", "x"],
        ["refine", "--steps", "1.5"],
        ["refine", "--halt", "x"],
        ["refine", "--repeat"],
        ["verify", "--backend", "gpu"],
    ],
)
def test_wrong_usage_exits_with_2(argv: list[str], capsys: Capture) -> None:
    code, out, err = run(capsys, *argv)
    assert (code, out) == (2, "")
    assert "usage: trm-edge" in err


@pytest.mark.parametrize("name", ["inspect", "verify", "refine"])
def test_a_file_that_cannot_be_read_exits_with_2(name: str, tmp_path: Path, capsys: Capture) -> None:
    assert "missing.trm" in failed(capsys, name, tmp_path / "missing.trm")
    assert tmp_path.name in failed(capsys, name, tmp_path)
    (tmp_path / "text.trm").write_text("not a bundle, but longer than eight bytes")
    assert "text.trm" in failed(capsys, name, tmp_path / "text.trm")
    cut = tmp_path / "cut.trm"
    cut.write_bytes(EXAMPLE.read_bytes()[:-1])
    assert "cut.trm" in failed(capsys, name, cut)
    assert "cut.trm" in failed(capsys, name, cut, "--json")


# ---- inspect ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [EXAMPLE, *GOLDEN], ids=lambda p: p.stem)
def test_inspect_says_what_a_bundle_holds(path: Path, capsys: Capture) -> None:
    bundle = read_bundle(path)
    code, out, err = run(capsys, "inspect", path, "--json")
    assert (code, err) == (0, "")
    facts = json.loads(out)
    assert TrmSpec.from_dict(facts["spec"]) == bundle.spec
    assert facts["bytes"] == path.stat().st_size and facts["sha256"] == bundle.sha256
    assert facts["parameters"] == bundle.spec.parameter_count()
    assert facts["golden_cases"] == len(bundle.golden) == 2
    assert facts["provenance"] == bundle.provenance
    code, out, err = run(capsys, "inspect", path)
    assert (code, err) == (0, "")
    for word in (bundle.spec.answer, bundle.spec.mixer, f"{facts['parameters']:,}", bundle.sha256):
        assert word in out


def test_inspect_says_what_checks_a_graph(capsys: Capture) -> None:
    assert "head.onnx: an ONNX graph, and inspect" in (said := failed(capsys, "inspect", "head.onnx"))
    assert "trm-edge verify head.onnx --golden BUNDLE.trm" in said


def test_inspect_leaves_out_what_a_head_does_not_use(capsys: Capture) -> None:
    assert "draft " in run(capsys, "inspect", EXAMPLE)[1]
    _, out, _ = run(capsys, "inspect", EXAMPLE.with_name("sudoku.trm"))
    assert "rope_theta" not in out and "draft " not in out


def test_inspect_without_a_name_shows_the_shipped_example(capsys: Capture) -> None:
    assert run(capsys, "inspect") == run(capsys, "inspect", EXAMPLE)


def test_output_that_its_encoding_cannot_show_is_escaped(tmp_path: Path) -> None:
    name = "caf\N{LATIN SMALL LETTER E WITH ACUTE}.trm"
    shutil.copy(EXAMPLE, tmp_path / name)
    command = [sys.executable, "-m", "trm_edge.cli", "inspect", str(tmp_path / name)]
    for encoding, shown in (("ascii", b"caf\\xe9.trm: actions"), ("utf-8", f"{name}: actions".encode())):
        environment = os.environ | {"PYTHONIOENCODING": encoding}
        done = subprocess.run(command, env=environment, capture_output=True, check=True)
        assert shown in done.stdout and done.stderr == b""


def test_inspect_prints_json_for_limits_that_are_infinite(tmp_path: Path, capsys: Capture) -> None:
    bundle = plain_bundle("actions")
    tensors = dict(bundle.tensors) | {"limits.upper": np.full(3, np.inf, np.float32)}
    write_bundle(tmp_path / "free.trm", Bundle(bundle.spec, tensors))
    code, out, _ = run(capsys, "inspect", tmp_path / "free.trm", "--json")
    assert code == 0
    facts = json.loads(out, parse_constant=lambda text: pytest.fail(f"{text} is no JSON"))
    assert facts["limits"]["limits.upper"] == [None] * 3


# ---- verify ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["auto", "fused", "reference"])
@pytest.mark.parametrize("path", [EXAMPLE, *GOLDEN], ids=lambda p: p.stem)
def test_verify_passes_what_was_shipped(path: Path, backend: str, capsys: Capture) -> None:
    code, out, err = run(capsys, "verify", path, "--backend", backend, "--json")
    assert (code, err) == (0, "")
    facts = json.loads(out)
    assert facts["passed"] is True
    assert facts["backend"] == ("fused" if backend == "auto" else backend)
    bundle = read_bundle(path)
    steps = [c for c in facts["checks"] if c["output"] == "step"]
    assert [(c["case"], c["step"]) for c in steps] == [(case, k) for case in (0, 1) for k in (1, 2, 3, 4)]
    assert any(c["output"] == "projected" for c in facts["checks"]) == bundle.spec.answer_is_float
    assert all(c["passed"] and c["error"] <= c["tolerance"] < 1e-3 for c in facts["checks"])
    code, out, err = run(capsys, "verify", path, "--backend", backend)
    assert (code, err) == (0, "")
    assert out.rstrip().endswith("verified")


def _altered(bundle: Bundle, output: str, change: Any) -> Bundle:
    """Return the bundle with one golden output of its second case changed, to be sealed again."""
    first, second = bundle.golden
    value = np.array(second.outputs[output])
    outputs = dict(second.outputs) | {output: change(value)}
    return Bundle(bundle.spec, bundle.tensors, [first, GoldenCase(second.inputs, outputs)], bundle.provenance)


def _off_by(step: int, factor: float) -> Any:
    def change(value: np.ndarray) -> np.ndarray:
        value[step] = value[step] * factor
        return value

    return change


@pytest.mark.parametrize(
    ("kind", "output", "change", "step"),
    [
        ("actions", "y", _off_by(2, 1.001), 3),
        ("actions", "halt_logits", _off_by(0, 1.001), 1),
        ("actions", "projected", _off_by(3, 1.001), 4),
        ("actions", "y", _off_by(3, np.nan), 4),
        ("slots", "logits", _off_by(1, 1.001), 2),
        ("tokens", "logits", _off_by(3, 1.001), 4),
        ("tokens", "y", lambda y: (y + 1) % 7, 1),
        ("slots", "halt_logits", _off_by(3, np.nan), 4),
    ],
)
def test_verify_fails_with_1_where_the_golden_vectors_differ(
    kind: str, output: str, change: Any, step: int, tmp_path: Path, capsys: Capture
) -> None:
    good = make_bundle(kind)
    write_bundle(tmp_path / "good.trm", good)
    assert run(capsys, "verify", tmp_path / "good.trm")[0] == 0
    write_bundle(tmp_path / "bad.trm", _altered(good, output, change))
    code, out, err = run(capsys, "verify", tmp_path / "bad.trm", "--json")
    assert (code, err) == (1, "")
    facts = json.loads(out)
    wrong = [(c["case"], c["step"]) for c in facts["checks"] if not c["passed"]]
    assert facts["passed"] is False and wrong[0] == (1, step)
    code, out, err = run(capsys, "verify", tmp_path / "bad.trm")
    assert (code, err) == (1, "")
    assert "FAILED" in out and "verified" not in out


def test_verify_wants_golden_vectors(tmp_path: Path, capsys: Capture) -> None:
    write_bundle(tmp_path / "bare.trm", plain_bundle("actions"))
    assert "no golden vectors" in failed(capsys, "verify", tmp_path / "bare.trm")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda i, o: (i, {n: v for n, v in o.items() if n != "y"}),
        lambda i, o: (i, o | {"y": o["y"][:-1]}),
        lambda i, o: (i, o | {"halt_logits": o["halt_logits"][0]}),
        lambda i, o: (i, o | {"fp32_error": o["fp32_error"][:0]}),
        lambda i, o: (i, o | {"fp32_error": np.full(4, np.inf)}),
        lambda i, o: (i, o | {"fp32_error": np.full(4, np.nan)}),
        lambda i, o: (i, o | {"fp32_error": np.float64(1)}),
        lambda i, o: (i | {"steps": np.int32([3])}, o),
        lambda i, o: (i | {"bogus": np.int32([3])}, o),
        lambda i, o: (i | {"puzzle_id": np.zeros(0, np.int32)}, o),
        lambda i, o: (i | {"x": i["x"][:, :-1]}, o),
        lambda i, o: (i | {"y0": i["y0"] * np.float32(np.nan)}, o),
        lambda i, o: ({n: v for n, v in i.items() if n != "y0"}, o),
    ],
)
def test_golden_vectors_that_make_no_sense_are_refused(spoil: Any, tmp_path: Path, capsys: Capture) -> None:
    bundle = make_bundle("actions")
    case = GoldenCase(*spoil(dict(bundle.golden[0].inputs), dict(bundle.golden[0].outputs)))
    write_bundle(tmp_path / "odd.trm", Bundle(bundle.spec, bundle.tensors, [case]))
    failed(capsys, "verify", tmp_path / "odd.trm")


# ---- refine ----------------------------------------------------------------------------------------------------------


def _call(kind: str) -> tuple[Bundle, dict[str, Any]]:
    bundle = plain_bundle(kind, **({"feature_size": 2} if kind == "actions" else {}))
    call = random_inputs(bundle.spec, np.random.default_rng(1))
    return bundle, call | ({"last_action": np.zeros(3, np.float32)} if kind == "actions" else {})


def _given(call: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in call.items() if value is not None}


@pytest.mark.parametrize("kind", ["actions", "slots", "tokens"])
def test_refine_takes_the_arrays_of_a_file_and_writes_the_answer(kind: str, tmp_path: Path, capsys: Capture) -> None:
    bundle, call = _call(kind)
    write_bundle(tmp_path / "head.trm", bundle)
    tick, result = save(tmp_path / "tick.npz", **_given(call)), tmp_path / "answer.npz"
    result.write_text("what stood here before")
    words = ["refine", tmp_path / "head.trm", "--input", tick, "--steps", 3, "--repeat", 100, "--output", result]
    code, out, err = run(capsys, *words, "--json")
    assert (code, err) == (0, "")
    facts = json.loads(out, parse_constant=lambda text: pytest.fail(f"{text} is no JSON"))
    expected = trm_edge.load(tmp_path / "head.trm").refine(**call, steps=3, trajectory=True)
    assert facts["y"] == expected.y.tolist()
    assert (facts["status"], facts["steps_run"], facts["latency"]["calls"]) == ("OK", 3, 100)
    assert 0 < facts["latency"]["p50_us"] <= facts["latency"]["p99_us"] <= facts["latency"]["max_us"]
    with np.load(result) as stored:
        names = {"y", "trajectory", "halt_logits"} | ({"logits"} if kind != "actions" else set())
        assert set(stored.files) == names
        for name in names:
            np.testing.assert_array_equal(stored[name], getattr(expected, name))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["answer.npz", "head.trm", "tick.npz"]
    code, out, err = run(capsys, *words)
    assert (code, err) == (0, "")
    assert [line.split()[:2] for line in out.splitlines() if line.startswith("  step")] == [
        ["step", str(k)] for k in (1, 2, 3)
    ]
    assert "latency over 100 calls: p50" in out and "us, p99 " in out


@pytest.mark.parametrize("path", [EXAMPLE, *GOLDEN], ids=lambda p: p.stem)
def test_refine_without_an_input_takes_the_first_golden_case(path: Path, capsys: Capture) -> None:
    code, out, err = run(capsys, "refine", path, "--repeat", 1, "--json")
    assert (code, err) == (0, "")
    expected = trm_edge.load(path).refine(**golden_arguments(read_bundle(path).golden[0]))
    assert json.loads(out)["y"] == expected.y.tolist()
    assert run(capsys, "refine", path, "--repeat", 1)[0] == 0


@pytest.mark.parametrize(
    ("limits", "label"),
    [
        ({}, "answer, limits applied "),
        ({"velocity": np.inf}, "answer, limits: no velocity "),
        ({"lower": -np.inf, "upper": np.inf, "velocity": np.inf}, "answer, limits: none "),
    ],
    ids=["all", "bounds", "none"],
)
def test_refine_says_which_limits_the_answer_keeps(
    limits: dict[str, float], label: str, tmp_path: Path, capsys: Capture
) -> None:
    bundle, _ = _call("actions")
    for name, value in limits.items():
        bundle.tensors[f"limits.{name}"][:] = value
    write_bundle(tmp_path / "head.trm", replace(bundle, golden=read_bundle(EXAMPLE).golden[:0]))
    tick = save(tmp_path / "tick.npz", **_given(_call("actions")[1]))
    code, out, _ = run(capsys, "refine", tmp_path / "head.trm", "--input", tick, "--repeat", 1)
    assert code == 0 and label in out


@pytest.mark.parametrize(
    ("said", "steps"), [("3", 3), (None, 4), ("", 4), ("0", 4), ("12345", 4), ("\u0663", 4), ("-3", 4), ("three", 4)]
)
def test_refine_and_calibrate_run_as_many_steps_as_training_did(
    said: str | None, steps: int, tmp_path: Path, capsys: Capture
) -> None:
    pytest.importorskip("tqdm")
    provenance = {} if said is None else {"trained_steps": said}
    write_bundle(tmp_path / "head.trm", replace(read_bundle(EXAMPLE), provenance=provenance))
    code, out, err = run(capsys, "refine", tmp_path / "head.trm", "--repeat", 1, "--json")
    assert (code, err, json.loads(out)["steps_run"]) == (0, "", steps)
    code, out, err = run(
        capsys, "calibrate", tmp_path / "head.trm", tmp_path / "int8.trm", "--json", "--max-error", 0.5
    )
    assert (code, err, json.loads(out)["steps"]) == (0, "", steps)


def test_commands_say_where_training_had_fresh_features(tmp_path: Path, capsys: Capture) -> None:
    pytest.importorskip("tqdm")
    pytest.importorskip("onnx")
    head, said = tmp_path / "head.trm", "features that hooks:make makes anew from every answer"
    write_bundle(head, replace(read_bundle(EXAMPLE), provenance={"features_fn": "hooks:make"}))
    for words, notes in (
        (("refine", head, "--repeat", 1), True),
        (("calibrate", head, tmp_path / "int8.trm", "--max-error", 0.5), True),
        (("export", head, tmp_path / "a.onnx", "--loop", "unrolled", "--steps", 1), True),
        (("export", head, tmp_path / "b.onnx", "--loop", "step"), False),
    ):
        code, _, err = run(capsys, *words)
        assert code == 0 and (said in err) == notes


@pytest.mark.parametrize("loop", ["unrolled", "onnx-loop", "step"])
def test_a_graph_says_what_its_head_was_trained_for(loop: str, tmp_path: Path, capsys: Capture) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    said = {"trained_steps": "3", "features_fn": "hooks:make", "source": "caf\u00e9.pt"}
    head, graph = tmp_path / "head.trm", tmp_path / "a.onnx"
    write_bundle(head, replace(read_bundle(EXAMPLE), provenance=said))
    assert run(capsys, "export", head, graph, "--loop", loop)[0] == 0
    refiner = trm_edge.load(graph)
    assert {name: refiner.provenance(name) for name in (*said, "none")} == said | {"none": None}
    assert refiner.most_steps == (3 if loop == "unrolled" else 1024)
    tick = save(tmp_path / "tick.npz", **_given(golden_arguments(read_bundle(EXAMPLE).golden[0])))
    code, out, err = run(capsys, "refine", graph, "--input", tick, "--repeat", 1, "--json")
    assert (code, json.loads(out)["steps_run"]) == (0, 3)
    assert "features that hooks:make makes anew" in err


def test_a_graph_of_fewer_steps_is_run_in_those(tmp_path: Path, capsys: Capture) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    assert run(capsys, "export", EXAMPLE, tmp_path / "a.onnx", "--steps", 2)[0] == 0
    call = golden_arguments(read_bundle(EXAMPLE).golden[0])
    tick = save(tmp_path / "tick.npz", **_given(call))
    code, out, _ = run(capsys, "refine", tmp_path / "a.onnx", "--input", tick, "--repeat", 1, "--json")
    assert (code, json.loads(out)["steps_run"]) == (0, 2)


def test_refine_reports_other_outcomes(tmp_path: Path, capsys: Capture) -> None:
    bundle, call = _call("actions")
    write_bundle(tmp_path / "head.trm", bundle)
    tick = save(tmp_path / "tick.npz", **_given(call) | {"x": np.full_like(call["x"], np.nan)})
    words = ["refine", tmp_path / "head.trm", "--input", tick, "--repeat", 1]
    code, out, _ = run(capsys, *words, "--json")
    facts = json.loads(out, parse_constant=lambda text: pytest.fail(f"{text} is no JSON"))
    assert (code, facts["status"], facts["confidence"], facts["steps_run"]) == (0, "NONFINITE", None, 0)
    code, out, _ = run(capsys, *words)
    assert code == 0 and Status.NONFINITE.name in out
    tick = save(tmp_path / "tick.npz", **_given(call))
    code, out, _ = run(capsys, *words, "--halt", 0, "--json")
    assert (code, json.loads(out)["status"], json.loads(out)["steps_run"]) == (0, "HALTED", 1)
    code, out, _ = run(capsys, *words, "--steps", 0, "--json")
    assert (code, json.loads(out)["steps_run"], json.loads(out)["trajectory"]) == (0, 0, [])
    assert run(capsys, *words, "--steps", 0)[0] == 0


def test_refine_prints_a_masked_head_as_json(capsys: Capture) -> None:
    path = next(p for p in GOLDEN if p.stem == "slots_attention")
    code, out, _ = run(capsys, "refine", path, "--repeat", 1, "--json")
    facts = json.loads(out, parse_constant=lambda text: pytest.fail(f"{text} is no JSON"))
    assert code == 0 and None in np.ravel(np.asarray(facts["logits"], object)).tolist()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--steps", -1), "steps: expected 0..1024"),
        (("--steps", 1025), "steps: expected 0..1024"),
        (("--halt", 2), "halt: expected"),
        (("--halt", "nan"), "halt: expected"),
        (("--repeat", 0), "--repeat: expected at least 1"),
        (("--backend", "onnxruntime"), "reads .onnx files"),
    ],
)
def test_refine_refuses_wrong_numbers(options: tuple[object, ...], words: str, capsys: Capture) -> None:
    assert words in failed(capsys, "refine", *options)


def _damaged_zip(path: Path) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", b"\x93NUMPY" + b"x" * 2000)
    data = bytearray(path.read_bytes())
    data[45:55] = b"\xff" * 10
    path.write_bytes(bytes(data))
    return path


def test_refine_refuses_files_that_hold_no_arrays(tmp_path: Path, capsys: Capture) -> None:
    text, empty, one = tmp_path / "text.npz", tmp_path / "empty.npz", tmp_path / "one.npy"
    text.write_text("no arrays")
    empty.write_bytes(b"")
    np.save(one, np.zeros(3))
    begun = tmp_path / "begun.npz"
    begun.write_bytes(b"PK\x03\x04 and no more")
    cut = save(tmp_path / "cut.npz", x=np.zeros(1000))
    cut.write_bytes(cut.read_bytes()[:-40])
    pickled = save(tmp_path / "pickled.npz", x=np.asarray([{}], object))
    damaged = _damaged_zip(tmp_path / "damaged.npz")
    for file in (text, empty, one, begun, cut, pickled, damaged, tmp_path / "missing.npz", tmp_path):
        assert file.name in failed(capsys, "refine", "--input", file)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"bogus": np.zeros(1)}, "unknown array 'bogus'; known: x, y0"),
        ({"x": np.zeros((3, 7))}, "x: expected dtype float32, got float64"),
        ({"y0": np.zeros((5, 2), np.float32)}, "y0: expected shape [5, 3], got [5, 2]"),
        ({"mask": np.ones((2, 2), bool)}, "mask: this actions head takes none"),
        ({"puzzle_id": np.int32([0, 1])}, "puzzle_id: expected one integer"),
        ({"puzzle_id": np.float32(0.5)}, "puzzle_id: expected one integer"),
        ({"puzzle_id": np.asarray("a")}, "puzzle_id: expected one integer"),
        ({"puzzle_id": np.int32(3)}, "puzzle_id: this actions head takes none"),
    ],
)
def test_refine_refuses_wrong_arrays(change: dict[str, Any], words: str, tmp_path: Path, capsys: Capture) -> None:
    bundle, call = _call("actions")
    write_bundle(tmp_path / "head.trm", bundle)
    tick = save(tmp_path / "tick.npz", **_given(call) | change)
    assert words in failed(capsys, "refine", tmp_path / "head.trm", "--input", tick)


def test_refine_wants_an_input_where_there_are_no_golden_vectors(tmp_path: Path, capsys: Capture) -> None:
    write_bundle(tmp_path / "bare.trm", plain_bundle("actions"))
    assert "--input FILE.npz" in failed(capsys, "refine", tmp_path / "bare.trm")


def test_an_output_that_cannot_be_written_leaves_nothing(tmp_path: Path, capsys: Capture) -> None:
    missing = tmp_path / "missing" / "answer.npz"
    code, _, err = run(capsys, "refine", "--repeat", 1, "--output", missing)
    assert code == 2 and "answer.npz" in err and "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("command", "out"),
    [
        (("refine", EXAMPLE, "--output"), "answer.npz"),
        (("calibrate", EXAMPLE), "int8.trm"),
        (("export", "no.pt"), "head.trm"),
        (("export", "no.trm"), "head.onnx"),
    ],
)
def test_a_folder_that_is_missing_is_known_before_the_work(
    command: tuple[object, ...], out: str, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, name in ((cli, "load"), (calib_command, "read_bundle")):
        monkeypatch.setattr(module, name, lambda *_, **__: pytest.fail("it began"))
    assert f"{out}: cannot be written: there is no folder" in failed(capsys, *command, tmp_path / "none" / out)


def test_an_output_is_whole_or_absent(tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "answer.npz"
    target.write_text("what stood here before")

    def full_disk(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    code, _, err = run(capsys, "refine", "--repeat", 1, "--output", target)
    assert code == 2 and "No space left on device" in err
    assert target.read_text() == "what stood here before"
    assert [p.name for p in tmp_path.iterdir()] == ["answer.npz"]


# ---- export ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["attn_rope", "attn_rope_bf16", "mlp_t"])
def test_an_official_checkpoint_becomes_a_bundle_and_a_graph_that_verify(
    name: str, tmp_path: Path, capsys: Capture
) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("onnxruntime")
    folder, bundle = OFFICIAL / name, tmp_path / "head.trm"
    source = [folder / "step_0", bundle, "--official", folder / "all_config.yaml"]
    code, _, err = run(capsys, "export", *source, "--dataset", folder / "dataset.json")
    assert (code, err) == (0, "")
    assert read_bundle(bundle).spec.answer == "tokens"
    assert run(capsys, "verify", bundle)[0] == 0
    for loop, options in (("step", ()), ("onnx-loop", ()), ("unrolled", ("--steps", 4))):
        graph = tmp_path / f"{loop}.onnx"
        code, _, err = run(capsys, "export", bundle, graph, "--loop", loop, *options)
        assert (code, err) == (0, "")
        code, out, err = run(capsys, "verify", graph, "--golden", bundle, "--json")
        assert (code, err) == (0, "")
        assert json.loads(out)["backend"] == "onnxruntime" and json.loads(out)["passed"] is True


@pytest.mark.parametrize("scheme", [None, "static-per-step"])
def test_a_graph_of_fewer_steps_than_were_recorded_is_verified_in_those(
    scheme: str | None, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    head, graph = tmp_path / "head.trm", tmp_path / "head.onnx"
    bundle = make_bundle("actions")
    write_bundle(head, bundle if scheme is None else calibrated(bundle, scheme))
    assert run(capsys, "export", head, graph, "--steps", 2)[0] == 0
    assert trm_edge.load(graph).most_steps == 2 and trm_edge.load(head).most_steps == 1024
    code, out, _ = run(capsys, "verify", graph, "--golden", head, "--json")
    checks = json.loads(out)["checks"]
    assert code == 0 and [c["step"] for c in checks if c["case"] == 0] == [1, 2, 2]
    monkeypatch.setattr(GraphBackend, "most_steps", 1)
    other = tmp_path / "other.trm"
    write_bundle(other, make_bundle("actions", seed=5))
    assert run(capsys, "verify", graph, "--golden", other)[0] == 1


def test_a_graph_that_is_not_of_the_bundle_fails_the_check(tmp_path: Path, capsys: Capture) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    spec = make_spec("tokens")
    other = Bundle(spec, random_weights(spec, seed=9))
    write_bundle(tmp_path / "other.trm", other)
    write_bundle(tmp_path / "head.trm", make_bundle("tokens"))
    assert run(capsys, "export", tmp_path / "other.trm", tmp_path / "other.onnx", "--loop", "step")[0] == 0
    code, out, _ = run(capsys, "verify", tmp_path / "other.onnx", "--golden", tmp_path / "head.trm")
    assert code == 1 and "FAILED" in out and "are those of" in out and "head.trm of other weights?" in out


def test_export_names_no_verify_that_always_fails(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_command, "_export_engine", lambda arguments: arguments.dst.write_bytes(b"engine"))
    command = ("export", EXAMPLE, tmp_path / "head.engine")
    assert "check it with: trm-edge verify" in run(capsys, *command, "--precision", "int8")[1]
    spaced = tmp_path / "my head.trm"
    spaced.write_bytes(EXAMPLE.read_bytes())
    said = run(capsys, "export", spaced, tmp_path / "my head.engine")[1]
    assert f"verify '{tmp_path}/my head.engine' --golden '{spaced}'" in said
    _, out, _ = run(capsys, *command, "--precision", "fp8")
    assert "verify has no oracle of fp8" in out and "trm-edge verify" not in out


def test_golden_vectors_of_another_head_are_refused(tmp_path: Path, capsys: Capture) -> None:
    for kind in ("tokens", "actions"):
        write_bundle(tmp_path / f"{kind}.trm", make_bundle(kind))
    message = failed(capsys, "verify", tmp_path / "tokens.trm", "--golden", tmp_path / "actions.trm")
    assert "actions.trm is of another head, its spec is not" in message


def test_a_model_is_verified_and_run_in_the_precision_that_is_asked_for(capsys: Capture) -> None:
    for precision in ("fp32", "bf16", "int8"):
        code, out, _ = run(capsys, "verify", EXAMPLE, "--precision", precision, "--threads", 2)
        assert code == 0 and out.splitlines()[0].endswith(f", {precision}")
        assert run(capsys, "refine", EXAMPLE, "--precision", precision, "--repeat", 1)[0] == 0
    assert "precision" in failed(capsys, "refine", EXAMPLE, "--precision", "int3")
    assert "threads" in failed(capsys, "refine", EXAMPLE, "--threads", 0)


def test_export_refuses_what_it_cannot_make(tmp_path: Path, capsys: Capture) -> None:
    pytest.importorskip("torch")
    assert "'.bin'" in failed(capsys, "export", EXAMPLE, tmp_path / "head.bin")
    assert "missing" in failed(capsys, "export", tmp_path / "missing", tmp_path / "head.trm")
    assert "missing.trm" in failed(capsys, "export", tmp_path / "missing.trm", tmp_path / "head.onnx")
    assert "steps" in failed(capsys, "export", EXAMPLE, tmp_path / "head.onnx", "--steps", 0)
    for loop in ("onnx-loop", "step"):
        refused = failed(capsys, "export", EXAMPLE, tmp_path / "head.onnx", "--loop", loop, "--steps", 4)
        assert f"--steps: only for unrolled graphs; {loop} runs any number of them" in refused
    assert "--seed: only for .trm" in failed(capsys, "export", EXAMPLE, tmp_path / "head.onnx", "--seed", 0)
    assert "--loop" in failed(capsys, "export", EXAMPLE, tmp_path / "head.trm", "--loop", "step")
    assert list(tmp_path.iterdir()) == []


def test_no_command_overwrites_what_it_reads(tmp_path: Path, capsys: Capture) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("matplotlib")
    head = tmp_path / "head.trm"
    head.write_bytes(EXAMPLE.read_bytes())
    (tmp_path / "link.trm").symlink_to(head)
    tick = tmp_path / "tick.npz"
    np.savez(tick, **random_inputs(read_bundle(EXAMPLE).spec, np.random.default_rng(0)))
    before = tick.read_bytes()
    for dst in (head, tmp_path / "link.trm"):
        assert "is the file that is read" in failed(capsys, "export", head, dst)
        assert "is the file that is read" in failed(capsys, "refine", head, "--input", tick, "--output", dst)
    assert "is the file that is read" in failed(capsys, "refine", head, "--input", tick, "--output", tick)
    assert "is the file that is read" in failed(capsys, "calibrate", head, head)
    bare = tick.rename(tmp_path / "tick")  # whose name says nothing of its kind
    calibration = ("calibrate", head, tmp_path / "int8.trm", "--data")
    for command in (("profile", head, "--json", bare, "--input"), ("profile", head, "--plot", bare, "--input")):
        assert "is the file that is read" in failed(capsys, *command, bare)
    assert "is the file that is read" in failed(capsys, *calibration, bare, "--plot", bare)
    tick = bare
    assert head.read_bytes() == EXAMPLE.read_bytes() and tick.read_bytes() == before


def test_a_file_of_the_wrong_kind_is_called_by_its_kind(tmp_path: Path, capsys: Capture) -> None:
    pytest.importorskip("torch")
    from trm_edge.export import save_checkpoint

    checkpoint, data = tmp_path / "model.pt", tmp_path / "push.npz"
    save_checkpoint(checkpoint, make_spec("actions"), random_weights(make_spec("actions")))
    np.savez(data, x=np.zeros(3, np.float32))
    hint = (
        "not a bundle but a zip file, as a checkpoint (.pt) or recorded data (.npz): export a checkpoint to .trm first"
    )
    assert hint in failed(capsys, "export", checkpoint, tmp_path / "a.onnx")
    assert "already a bundle" in failed(capsys, "export", EXAMPLE, tmp_path / "a.trm")
    for path in (checkpoint, data):
        for backend in ("fused", "reference"):
            assert hint in failed(capsys, "refine", path, "--backend", backend)


def test_export_says_which_limits_a_head_lacks(tmp_path: Path, capsys: Capture) -> None:
    pytest.importorskip("torch")
    from trm_edge.export import save_checkpoint

    spec, infinite = make_spec("actions"), np.full(3, np.inf, np.float32)
    weights = {name: v for name, v in random_weights(spec).items() if not name.startswith("limits.")}
    bounds = {"limits.lower": np.full(3, -1, np.float32), "limits.upper": np.full(3, 1, np.float32)}
    every = bounds | {"limits.velocity": np.ones(3, np.float32)}
    for limits, said in (({}, "limits: none\n"), (bounds | {"limits.velocity": infinite}, "limits: no velocity\n")):
        save_checkpoint(tmp_path / "a.pt", spec, weights | limits)
        assert said in run(capsys, "export", tmp_path / "a.pt", tmp_path / "a.trm")[1]
    save_checkpoint(tmp_path / "a.pt", spec, weights | every)
    assert "limits:" not in run(capsys, "export", tmp_path / "a.pt", tmp_path / "a.trm")[1]


def test_verify_does_not_pass_a_machine_that_returns_nan(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    """NaN compares as false, so a check written the wrong way round would let it through."""
    original = trm_edge.Refiner.refine
    for name in ("halt_logits", "trajectory", "y"):

        def spoilt(self: trm_edge.Refiner, *args: Any, field: str = name, **options: Any) -> Any:
            out = original(self, *args, **options)
            getattr(out, field).reshape(-1)[-1] = np.nan
            return out

        monkeypatch.setattr(trm_edge.Refiner, "refine", spoilt)
        code, out, _ = run(capsys, "verify")
        assert code == 1 and "FAILED" in out, name


def calibrated_file(tmp_path: Path, scheme: str, **precision: str) -> Path:
    path = tmp_path / "calibrated.trm"
    write_bundle(path, calibrated(make_bundle("actions"), scheme, **precision))
    return path


def test_inspect_says_how_a_bundle_is_rounded(tmp_path: Path, capsys: Capture) -> None:
    path = calibrated_file(tmp_path, "static-per-step", down="bf16")
    _, out, _ = run(capsys, "inspect", path)
    names = "blocks.0.mlp.down blocks.1.mlp.down"
    assert f"quantization static-per-step, 4 steps; 6 matrices int8; bf16: {names}\n" in out
    facts = json.loads(run(capsys, "inspect", path, "--json")[1])["quantization"]
    assert facts["scheme"] == "static-per-step" and facts["precision"]["blocks.1.mlp.down"] == "bf16"
    assert len(facts["input_scale"]["blocks.1.mlp.gate_up"]) == 4
    assert json.loads(run(capsys, "inspect", "--json")[1])["quantization"] is None


class Rounded(ReferenceBackend):
    """The fake-quantised oracle as a backend; ``error`` falsifies its answers."""

    def __init__(self, bundle: Bundle, precision: str, error: float = 0.0) -> None:
        own = bundle.quantization if bundle.quantization and bundle.quantization.summary == precision else None
        quantization = own or uniform(bundle.spec, precision)
        super().__init__(bundle, QuantizedModel(bundle.spec, bundle.tensors, quantization, np.float32))
        self.precision, self._error = precision, error

    def outputs(self, inputs: Any, steps: int) -> Any:
        for output in super().outputs(inputs, steps):
            yield replace(output, y=output.y + np.float32(self._error))


@pytest.mark.parametrize("scheme", [None, "dynamic", "static", "static-per-step"])
@pytest.mark.parametrize("precision", ["int8", "bf16"])
def test_a_lower_precision_may_err_as_its_oracle_does(precision: str, scheme: str | None) -> None:
    bundle = make_bundle("actions") if scheme is None else calibrated(make_bundle("actions"), scheme)
    checks = verify(trm_edge.Refiner(Rounded(bundle, precision), b"", ("auto", None, 1)), bundle)
    assert all(check.passed for check in checks)
    assert all(check.tolerance > 1e-4 for check in checks if check.output == "step")
    most = max(check.tolerance for check in checks)
    wrong = verify(trm_edge.Refiner(Rounded(bundle, precision, 10 * most), b"", ("auto", None, 1)), bundle)
    assert not any(check.passed for check in wrong if check.output == "step")


def test_what_is_allowed_is_the_largest_error_of_several_roundings(monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = make_bundle("tokens")
    refiner = trm_edge.load(bundle_bytes(bundle), precision="int8")
    several = [check.tolerance for check in verify(refiner, bundle)]
    monkeypatch.setattr("trm_edge.golden.NUDGES", 0)
    two = [check.tolerance for check in verify(refiner, bundle)]
    assert all(more >= less for more, less in zip(several, two, strict=True)) and several != two


def test_a_mixture_of_bf16_and_fp32_is_verified_as_it_is_and_all_in_bf16(tmp_path: Path) -> None:
    path = tmp_path / "mixed.trm"
    write_bundle(path, calibrated(make_bundle("actions"), "dynamic", qkv="bf16", blocks="fp32"))
    bundle = read_bundle(path)
    for precision in (None, "bf16"):
        refiner = trm_edge.load(path, precision=precision)
        assert refiner.precision == "bf16" and all(check.passed for check in verify(refiner, bundle))


def test_golden_errors_that_make_no_sense_are_refused() -> None:
    bundle = calibrated(make_bundle("actions"), "static")
    refiner = trm_edge.Refiner(Rounded(bundle, "int8"), b"", ("auto", None, 1))
    for error in (np.float64([1, 2]), np.float64([1, 2, 3, np.nan]), np.float64([1, 2, 3, -1])):
        case = replace(bundle.golden[0], outputs={**bundle.golden[0].outputs, "quantized_error": error})
        with pytest.raises(trm_edge.TrmBundleError, match="golden case 0: quantized_error: expected 4 finite errors"):
            verify(refiner, replace(bundle, golden=[case]))
