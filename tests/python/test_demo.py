"""``trm-edge demo``: the shipped head and its recorded inputs, what it claims of them, and how it fails."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import trm_edge
from trm_edge import demo
from trm_edge.bundle import read_bundle
from trm_edge.cli import main
from trm_edge.golden import verify

Capture = pytest.CaptureFixture[str]

shipped = pytest.mark.skipif(
    not (demo.BUNDLE.exists() and demo.RECORDED.exists()),
    reason="the demo's files are not there; write them with python examples/metaworld/run.py",
)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "_LATENCY_CALLS", 100)


@pytest.fixture(scope="module")
def facts() -> dict[str, Any]:
    """What ``trm-edge demo --json`` says, over 4 steps."""
    bundle, recorded = read_bundle(demo.BUNDLE), demo.read_recorded(demo.RECORDED)
    answers = demo.refine_all(trm_edge.load(demo.BUNDLE, backend="fused"), recorded, 4)
    return {"rows": demo.measure(answers, bundle, recorded), "answers": answers, "recorded": recorded, "bundle": bundle}


def row(facts: dict[str, Any], answer: str, projected: bool = False) -> demo.Row:
    (found,) = [r for r in facts["rows"] if (r.answer, r.projected) == (answer, projected)]
    return found  # type: ignore[no-any-return]


# ---- What is shipped -------------------------------------------------------------------------------------------------


@shipped
def test_the_files_are_small_and_the_head_verifies() -> None:
    assert demo.BUNDLE.stat().st_size + demo.RECORDED.stat().st_size < 2_000_000
    bundle = read_bundle(demo.BUNDLE)
    assert bundle.golden and all(check.passed for check in verify(trm_edge.load(demo.BUNDLE), bundle))
    assert np.isfinite(bundle.tensors["limits.velocity"]).all()


@shipped
def test_the_recorded_inputs_fit_the_head(facts: dict[str, Any]) -> None:
    recorded, spec = facts["recorded"], facts["bundle"].spec
    count = len(recorded["x"])
    assert count >= 200 and len(np.unique(recorded["episode"])) >= 20
    assert recorded["y0"].shape == recorded["target"].shape == (count, spec.answer_rows, spec.dof)
    assert set(recorded["task"].tolist()) == set(range(len(recorded["tasks"])))
    for name in ("x", "y0", "features", "last_action", "target", "fresh"):
        assert recorded[name].dtype == np.float32 and np.isfinite(recorded[name]).all(), name


@shipped
def test_the_error_falls_and_no_violation_is_left(facts: dict[str, Any]) -> None:
    draft, last = row(facts, "draft"), row(facts, "step 4", projected=True)
    assert row(facts, "step 4").excess[2] < draft.excess[1]  # smaller even before the projection
    assert last.change is not None and last.change[2] < 0  # the whole interval of the paired difference
    assert last.error[2] < row(facts, "draft", projected=True).error[1]
    assert draft.violations[1] > 0 and row(facts, "expert").violations == (0, 0, 0)
    assert row(facts, "expert").error == (0, 0, 0)
    for answer in ("draft", "step 1", "step 2", "step 3", "step 4"):
        kept = row(facts, answer, projected=True)
        assert kept.violations == kept.excess == (0, 0, 0)


@shipped
def test_the_engine_and_the_oracle_measure_the_same(facts: dict[str, Any]) -> None:
    few = {name: values[:8] for name, values in facts["recorded"].items() if name != "tasks"}
    exact = demo.refine_all(trm_edge.load(demo.BUNDLE, backend="reference"), few, 4)
    for kind, values in exact.items():
        np.testing.assert_allclose(facts["answers"][kind][:, :8], values, atol=1e-4)


# ---- The command -----------------------------------------------------------------------------------------------------


@shipped
def test_it_prints_a_table_and_draws_a_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    assert main(["demo"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    for words in ("draft", "step 4, projected", "expert", "p99", str(demo.PLOT)):
        assert words in out
    assert max(map(len, out.splitlines())) <= 120
    assert (tmp_path / demo.PLOT).read_bytes().startswith(b"\x89PNG")


@shipped
def test_json_is_for_programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["demo", "actions", "--json", "--steps", "2"]) == 0
    said = json.loads(capsys.readouterr().out, parse_constant=lambda text: pytest.fail(f"{text} is no JSON"))
    assert said["backend"] == "fused" and said["steps"] == 2 and said["plot"] is None
    assert [(r["answer"], r["projected"]) for r in said["rows"]] == [
        *[(answer, projected) for answer in ("draft", "step 1", "step 2") for projected in (False, True)],
        ("expert", False),
    ]
    for line in said["rows"]:
        for name in demo.METRICS:
            value, low, high = line[name]
            assert low <= value <= high
    assert 0 < said["latency"]["p50_us"] <= said["latency"]["p99_us"] <= said["latency"]["max_us"]
    assert list(tmp_path.iterdir()) == []


@shipped
def test_without_matplotlib_the_table_stands_and_a_plot_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setattr(demo.importlib.util, "find_spec", lambda name: None)
    monkeypatch.chdir(tmp_path)
    assert main(["demo", "--steps", "1"]) == 0
    assert "trm-edge[demo]" in capsys.readouterr().out
    assert main(["demo", "--plot", "a.png"]) == 2
    assert "trm-edge[demo]" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@shipped
def test_the_runtime_loads_without_matplotlib() -> None:
    import subprocess

    words = "import sys, trm_edge.cli; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", words], timeout=120, check=False).returncode == 0


@shipped
@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--steps", "0"], "--steps"),
        (["--steps", "-1"], "steps"),
        (["--steps", "100000"], "steps"),
        (["--steps", "1", "--plot", "missing/folder/a.png"], "cannot be written"),
        (["--steps", "1", "--plot", "a.txt"], "expected a picture's name"),
    ],
)
def test_wrong_arguments_exit_with_2(
    argv: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    if "--plot" in argv:
        pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    assert main(["demo", *argv]) == 2
    out, err = capsys.readouterr()
    assert out == "" and says in err and err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_kind_is_bad_usage(capsys: Capture) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["demo", "bogus"])
    assert exit_.value.code == 2 and "usage: trm-edge demo" in capsys.readouterr().err


def test_recorded_inputs_that_are_damaged_are_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(trm_edge.TrmIOError, match=r"missing\.npz"):
        demo.read_recorded(tmp_path / "missing.npz")
    (tmp_path / "text.npz").write_text("no archive")
    np.savez(tmp_path / "few.npz", x=np.zeros(3))
    (tmp_path / "cut.npz").write_bytes(demo.RECORDED.read_bytes()[:-1000])
    for name in ("text.npz", "few.npz", "cut.npz"):
        with pytest.raises(trm_edge.TrmInputError, match=name):
            demo.read_recorded(tmp_path / name)


# ---- The measures ----------------------------------------------------------------------------------------------------


def test_metrics_by_hand() -> None:
    limits = {"lower": [-1.0], "upper": [1.0], "velocity": [0.5]}
    tensors = {f"limits.{name}": np.array(value, np.float32) for name, value in limits.items()}
    bundle: Any = type("Limits", (), {"tensors": tensors})
    answer = np.array(
        [[[0.5], [1.25], [1.25], [0.0]]], np.float32
    )  # a step of 0.75, out of bounds twice, a fall of 1.25
    recorded = {"last_action": np.zeros((1, 1), np.float32), "target": np.zeros_like(answer)}
    got = demo.answer_metrics(answer, bundle, recorded)
    assert got["violations"][0] == 3 / 4
    assert got["error"][0] == pytest.approx((0.25 + 2 * 1.5625) / 4)
    assert got["excess"][0] == pytest.approx((0.25**2 + 0.25**2 + 0.75**2) / 4)
    assert got["roughness"][0] == pytest.approx(((0.75 - 0.5) ** 2 + 0.75**2 + 1.25**2) / 3)


def test_intervals_resample_episodes_not_steps() -> None:
    episode = np.repeat(np.arange(40), 10)
    rng = np.random.default_rng(0)
    values = rng.standard_normal(40)[episode]  # the steps of an episode are copies of one another
    bootstrap = demo.Bootstrap(episode)
    value, low, high = bootstrap.interval(*bootstrap.mean(values))
    assert value == pytest.approx(values.mean())
    assert (high - low) / 2 == pytest.approx(1.96 * values[::10].std() / np.sqrt(40), rel=0.15)
