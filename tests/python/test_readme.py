"""The Python of the README and of the guide to tool calls runs as it stands, and so do the other guides' examples."""

from __future__ import annotations

import json
import re
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from models import make_spec

import trm_edge
from trm_edge.graph import input_signature, output_signature

TOP = Path(__file__).parents[2]
PAGES = ("README.md", "docs/tool_calls.md")
pytestmark = pytest.mark.usefixtures("no_overrides")
BLOCKS = [block for page in PAGES for block in re.findall(r"```python\n(.*?)```", (TOP / page).read_text(), re.DOTALL)]


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.split("\n")[0])
def test_a_block_of_python_runs(block: str, capsys: pytest.CaptureFixture[str]) -> None:
    found: dict[str, object] = {}
    exec(compile(block, "page", "exec"), found)
    if "out" in found:
        assert isinstance(found["out"], trm_edge.Refinement)
        assert capsys.readouterr().out == "OK\n"
    else:
        assert found["call"].name == "HassLightSet"  # type: ignore[attr-defined]


def test_no_block_is_missed() -> None:
    assert len(BLOCKS) == 3


def test_files_that_ship_are_found_by_name() -> None:
    for name in ("example.trm", "home_assistant.trm", "metaworld.trm", "sudoku.trm", "tool_calls.trm"):
        assert trm_edge.load(trm_edge.example(name)).spec.num_layers == 2
    with pytest.raises(trm_edge.TrmInputError, match=r"name: expected one of example\.trm, .*, got '\.\./x'"):
        trm_edge.example("../x")


def test_a_status_is_printed_by_its_name() -> None:
    assert (str(trm_edge.Status.NONFINITE), f"{trm_edge.Status.OK:>4}", int(trm_edge.Status.BUSY)) == (
        "NONFINITE",
        "  OK",
        -7,
    )


def test_the_page_for_robots_trains_what_it_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    from trm_edge.cli import main

    page = (TOP / "docs" / "robots.md").read_text()
    shown = re.search(r"```toml\n(.*?)```", page, re.S)
    assert shown is not None
    monkeypatch.chdir(tmp_path)
    text, replaced = re.subn(r"max_updates = \d+", "max_updates = 4", shown[1])
    assert replaced == 1
    Path("push.toml").write_text(text)
    rng = np.random.default_rng(0)
    sizes = {"x": (3, 51), "y0": (8, 4), "target": (8, 4), "features": (8, 18)}
    np.savez("push.npz", **{name: rng.random((256, *size), np.float32) for name, size in sizes.items()})
    first, second = re.findall(r"```sh\n(.*?)```", page, re.S)
    cut = re.search(r"```python\n(.*?)```", page, re.S)
    assert cut is not None
    exec(compile(cut[1], "page", "exec"), {})
    for line in first.splitlines()[:4] + second.splitlines():
        words = line.split("#")[0].split()
        assert words[0] == "trm-edge"
        assert main(words[1:]) == 0, line


def test_the_page_on_training_trains_what_it_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch")
    from trm_edge.cli import main

    page = (TOP / "docs" / "training.md").read_text()
    (shown,) = re.findall(r"```toml\n(.*?)```", page, re.S)
    make, use = re.findall(r"```python\n(.*?)```", page, re.S)
    (commands,) = re.findall(r"```sh\n(.*?)```", page, re.S)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sort.toml").write_text(shown.replace("max_updates = 800", "max_updates = 4"))
    exec(compile(make, "page", "exec"), {})
    for line in commands.splitlines():
        assert main(line.partition("#")[0].split()[1:]) == 0
    capsys.readouterr()
    exec(compile(use, "page", "exec"), {})
    assert re.fullmatch(r"\[(\d ){5}\d\] 0\.\d+\n", capsys.readouterr().out)


def test_the_page_on_training_has_every_field_with_its_default() -> None:
    from trm_edge.spec import TrmSpec
    from trm_edge.train import config

    page = (TOP / "docs" / "training.md").read_text()
    kinds = {
        "spec": TrmSpec,
        **{name: getattr(config, f"{name.title()}Config") for name in ("data", "train", "loss", "limits")},
    }
    for name, kind in kinds.items():
        part = page.split(f"### `[{name}]`")[1].split("\n#")[0]
        shown = dict(re.findall(r"^\| `(\w+)` \| *(.*?) *\|", part, re.M))
        defaults = {one.name: "" if one.default is MISSING else _as_toml(one.default) for one in fields(kind)}
        assert {key: _as_toml(_read(text)) if text else "" for key, text in shown.items()} == defaults, name


def _as_toml(value: object) -> str:
    return json.dumps(list(value) if isinstance(value, tuple) else value)


def _read(text: str) -> object:
    return float("inf") if text == "inf" else json.loads(text.strip("`"))


def test_the_page_on_onnx_runs_graphs_as_the_sdk_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("onnx", "onnxruntime"):
        pytest.importorskip(package)
    from trm_edge.cli import main

    page = (TOP / "docs" / "onnx.md").read_text()
    monkeypatch.chdir(tmp_path)
    Path("head.trm").write_bytes(trm_edge.example().read_bytes())
    commands = [*re.findall(r"```sh\n(.*)\n```", page), *re.findall(r"`(trm-edge export .* step\.onnx .*)`:", page)]
    assert len(commands) == 2
    found: dict[str, Any] = {}
    for line, block in zip(commands, re.findall(r"```python\n(.*?)```", page, re.S), strict=True):
        assert main(line.split()[1:]) == 0
        exec(compile(block, "page", "exec"), found)
    out = trm_edge.load("head.trm", backend="fused").refine(found["x"], found["draft"], steps=4, trajectory=True)
    np.testing.assert_allclose(found["y"], out.y, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found["answer"], out.trajectory[-1], rtol=1e-4, atol=1e-5)
    assert found["confidence"] == pytest.approx(out.confidence, rel=1e-4)


@pytest.mark.parametrize("loop", ["unrolled", "onnx-loop", "step"])
@pytest.mark.parametrize("kind", ["actions", "slots", "tokens"])
def test_the_page_on_onnx_names_every_input_and_output(kind: str, loop: str) -> None:
    page = (TOP / "docs" / "onnx.md").read_text()
    inputs, outputs = page.split("## Inputs")[1].split("## What the host")[0].split("## Outputs")
    spec = make_spec(kind, **({"feature_size": 3} if kind == "actions" else {}))
    assert [name for name in input_signature(spec, loop) if f"`{name}`" not in inputs] == []
    assert [name for name in output_signature(spec, loop) if f"`{name}`" not in outputs] == []


def test_the_page_on_the_model_gives_the_recorded_answers(capsys: pytest.CaptureFixture[str]) -> None:
    page = (TOP / "docs" / "model.md").read_text()
    found: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(compile(block, "page", "exec"), found)
    errors = [float(line) for line in capsys.readouterr().out.split()]
    assert len(errors) == 4 and max(errors) < 1e-12


@pytest.mark.parametrize(
    ("kind", "mixer"), [("actions", "learned"), ("slots", "learned"), ("tokens", "learned"), ("tokens", "mlp_t")]
)
def test_the_page_on_the_model_names_every_tensor(kind: str, mixer: str) -> None:
    page = (TOP / "docs" / "model.md").read_text()
    table = page.split("## The tensors")[1].split("## The file")[0]
    features = {"feature_size": 3} if kind == "actions" else {}
    names = {re.sub(r"\.\d+\.", ".<i>.", name) for name in make_spec(kind, mixer, **features).tensor_shapes()}
    assert [name for name in names if f"`{name}`" not in table and not name.startswith("normalization.")] == []
