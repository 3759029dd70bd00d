"""Whole runs on tiny problems: they learn, they export, and no death of the process changes their result."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from train_cases import SPECS, as_toml, make_config, nearest_target

import trm_edge
from trm_edge.cli import main
from trm_edge.golden import verify

torch = pytest.importorskip("torch")

from trm_edge.bundle import read_bundle  # noqa: E402
from trm_edge.export import export_bundle  # noqa: E402
from trm_edge.train import Trainer, load_config, parse_config  # noqa: E402
from trm_edge.train.config import LossConfig  # noqa: E402
from trm_edge.train.data import to_tensors  # noqa: E402
from trm_edge.train.evaluation import evaluate, summary  # noqa: E402
from trm_edge.train.limits import shares_beyond  # noqa: E402
from trm_edge.train.log import JsonLines, Progress, read_log  # noqa: E402
from trm_edge.train.losses import action_error, is_right, step_loss  # noqa: E402
from trm_edge.train.model import TrmHead, load_weights  # noqa: E402
from trm_edge.train.optimizer import learning_rate, make_optimizer, update_average  # noqa: E402
from trm_edge.train.signals import StopRequest  # noqa: E402
from trm_edge.train.state import read_state  # noqa: E402
from trm_edge.train.trainer import load_data, new_head  # noqa: E402

# Runs that are killed: short intervals, so that a death loses something and hits a write now and then.
LIVELY = {"max_updates": 120, "checkpoint_every": 4, "log_every": 4, "eval_every": 20, "eval_steps": 2}


def train(config: dict, out: Path, **options):
    """Run a configuration in this process."""
    return Trainer(parse_config(config), out, quiet=True, **options).run()


def assert_same_run(one: Path, other: Path) -> None:
    """Compare weights, averages, optimiser and log, bit for bit."""
    states = [read_state(folder / "state.pt") for folder in (one, other)]
    for part in ("head", "averaged"):
        assert all(torch.equal(states[0][part][name], states[1][part][name]) for name in states[0][part])
    moments = [state["optimizer"]["state"] for state in states]
    assert all(torch.equal(moments[0][i][n], moments[1][i][n]) for i in moments[0] for n in moments[0][i])
    assert (one / "log.jsonl").read_bytes() == (other / "log.jsonl").read_bytes()
    models = [torch.load(folder / "model.pt", weights_only=True)["state_dict"] for folder in (one, other)]
    assert all(torch.equal(models[0][name], models[1][name]) for name in models[0])


@pytest.mark.parametrize(("kind", "at_least"), [("tokens", 0.9), ("slots", 0.8)])
def test_learns_to_answer_exactly(tmp_path, kind, at_least):
    config = make_config(kind, tmp_path, train={"max_updates": 400})
    result = train(config, tmp_path / "run")
    assert result.evaluation.metric == "exact rate"
    assert result.evaluation.by_step[1] >= at_least
    first, *_, last = (r for r in read_log(tmp_path / "run" / "log.jsonl") if r["kind"] == "train")
    assert last["terms"]["answer"][-1] < first["terms"]["answer"][-1] / 3


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"train": {"update": "sum", "max_updates": 200}},
        {"loss": {"targets": "schedule"}},
        {"data": {"features_fn": "train_cases:nearest_target", "augment": "train_cases:flip_signs"}},
    ],
    ids=["plain", "sum", "schedule", "hooks"],
)
def test_learns_a_correction(tmp_path, changes):
    result = train(make_config("actions", tmp_path, **changes), tmp_path / "run")
    assert result.evaluation.draft > 0.6
    assert result.evaluation.by_step[1] < 0.2 * result.evaluation.draft


def test_stepping_with_fresh_features_is_what_validation_measures(tmp_path):
    """The way that docs/training.md shows: the first features for the first step, then those of every answer."""
    changes = {"data": {"features_fn": "train_cases:nearest_target"}, "train": {"steps": 3, "max_updates": 30}}
    config = parse_config(make_config("actions", tmp_path, **changes))
    done = Trainer(config, tmp_path / "run", quiet=True).run()
    export_bundle(done.model, tmp_path / "head.trm")
    refiner = trm_edge.load(tmp_path / "head.trm", backend="fused")
    assert refiner.provenance("features_fn") == "train_cases:nearest_target"
    assert refiner.provenance("trained_steps") == "3"
    head = load_weights(TrmHead(refiner.spec), read_bundle(tmp_path / "head.trm").tensors)
    _, validation = load_data(config)
    errors = []
    for number in range(len(validation)):
        arrays = validation.take(np.array([number]))
        batch = to_tensors(arrays, "cpu")
        refiner.begin(arrays["x"][0], arrays["y0"][0], features=arrays["features"][0])
        out = refiner.step()
        for _ in range(2):
            y_hat = torch.from_numpy(out.trajectory[-1][None])
            out = refiner.step(features=nearest_target(y_hat, batch)[0].numpy())
        errors.append(float(action_error(head, torch.from_numpy(out.trajectory[-1][None]), batch["target"])[0]))
    assert np.mean(errors) == pytest.approx(done.evaluation.by_step[2], rel=1e-4)


def test_validation_measures_what_refine_answers(tmp_path):
    config = make_config("actions", tmp_path, train={"max_updates": 40, "eval_steps": 3})
    config["limits"] = {"lower": [-0.4, -9.0], "upper": [0.3, 9.0], "velocity": [0.2, 0.5]}
    done = Trainer(parse_config(config), tmp_path / "run", quiet=True).run()
    export_bundle(done.model, tmp_path / "head.trm")
    refiner = trm_edge.load(tmp_path / "head.trm", backend="fused")
    head = load_weights(TrmHead(refiner.spec), read_bundle(tmp_path / "head.trm").tensors)
    _, validation = load_data(parse_config(config))
    for steps, measured in enumerate([done.evaluation.draft, *done.evaluation.by_step]):
        errors = []
        for number in range(len(validation)):
            arrays = validation.take(np.array([number]))
            call = {name: arrays[name][0] for name in ("x", "y0", "features") if name in arrays}
            answer = torch.from_numpy(refiner.refine(**call, steps=steps).y[None])
            errors.append(float(action_error(head, answer, torch.from_numpy(arrays["target"]))[0]))
        assert measured == pytest.approx(np.mean(errors), rel=1e-4)


@pytest.mark.parametrize("kind", ["tokens", "slots"])
def test_examples_that_ask_for_nothing_are_not_counted(tmp_path, capsys, kind):
    config = make_config(kind, tmp_path, train={"max_updates": 60, "eval_steps": 2})
    path = Path(config["data"]["train"])
    with np.load(path) as stored:
        arrays = dict(stored)
    silent = np.arange(len(arrays["target"])) % 2 == 0
    nothing = -100 if kind == "tokens" else -1
    arrays["target"] = np.where(silent[:, None], nothing, arrays["target"]).astype(arrays["target"].dtype)
    np.savez(path, **arrays)
    done = Trainer(parse_config(config), tmp_path / "run").run()
    assert "% of the examples ask for nothing: all their targets are left open" in capsys.readouterr().err
    _, validation = load_data(parse_config(config))
    assert done.evaluation.examples == validation.asking < len(validation)
    head = load_weights(TrmHead(parse_config(config).spec), {n: v.numpy() for n, v in weights_of(done.model).items()})
    batch = to_tensors(validation.take(np.arange(len(validation))), "cpu")
    with torch.no_grad():
        outs = head.refine(batch, 2)
    asked = (batch["target"] != nothing).any(1)
    for k, out in enumerate(outs):
        right = is_right(head, out.y, batch, 0.0)
        assert right[~asked].all()
        assert done.evaluation.by_step[k] == pytest.approx(float(right[asked].double().mean()))
    loss = step_loss(head, outs[0], batch["target"], batch, LossConfig())
    assert len(loss.right) == int(asked.sum())
    logits, labels = outs[0].halt_logit[asked], is_right(head, outs[0].y, batch, 0.0)[asked]
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logits, labels.float())
    assert float(loss.terms["halt"]) == pytest.approx(0.5 * float(expected))
    arrays["target"] = np.full_like(arrays["target"], nothing)
    np.savez(path, **arrays)
    with pytest.raises(
        trm_edge.TrmInputError, match=f"target: expected something that is asked, got {nothing} everywhere"
    ):
        load_data(parse_config(config))


def weights_of(model: Path) -> dict:
    """Return the tensors of a checkpoint."""
    return torch.load(model, weights_only=True)["state_dict"]


def test_a_schedule_makes_the_answer_better_step_by_step(tmp_path):
    changes = {"steps": 4, "update": "sum", "max_updates": 200, "checkpoint_every": 200}
    config = make_config("actions", tmp_path, train=changes, loss={"targets": "schedule"})
    by_step = train(config, tmp_path / "run").evaluation
    errors = [by_step.draft, *by_step.by_step]
    shares = [error / errors[0] for error in errors]
    assert shares == pytest.approx([1, 0.75, 0.5, 0.25, 0], abs=0.2)


@pytest.mark.parametrize("kind", ["tokens", "actions", "slots"])
def test_trained_head_runs_in_the_engine(tmp_path, kind):
    config = make_config(kind, tmp_path, train={"max_updates": 60})
    if kind == "actions":
        config["limits"] = {"lower": [-9.0, -9.0], "upper": [9.0, 9.0], "velocity": [20.0, 20.0]}
    result = train(config, tmp_path / "run")
    export_bundle(result.model, tmp_path / "head.trm")
    bundle = read_bundle(tmp_path / "head.trm")
    refiner = trm_edge.load(tmp_path / "head.trm", backend="fused")
    assert all(check.passed for check in verify(refiner, bundle))
    head = load_weights(TrmHead(bundle.spec), bundle.tensors)
    examples, _ = load_data(parse_config(config))
    for number in range(4):
        arrays = examples.take(np.array([number]))
        with torch.no_grad():
            outs = head.refine({name: torch.from_numpy(np.ascontiguousarray(a)) for name, a in arrays.items()}, 3)
        call = {n: arrays[n][0] for n in ("x", "y0", "features", "slots", "candidates", "mask") if n in arrays}
        got = refiner.refine(**({"y0": None} | call), steps=3, trajectory=True)
        for k, out in enumerate(outs):
            np.testing.assert_allclose(got.halt_logits[k], out.halt_logit[0], rtol=1e-3, atol=1e-3)
            if kind == "actions":
                np.testing.assert_allclose(got.trajectory[k], out.y[0], rtol=1e-4, atol=1e-4)
            else:
                np.testing.assert_allclose(got.logits[k], out.logits[0], rtol=1e-3, atol=1e-3)


def test_learns_without_drafts(tmp_path):
    config = make_config("actions", tmp_path, data={"draft_dropout": 0.5})
    config["spec"] = config["spec"] | {"draft": "optional"}
    assert train(config, tmp_path / "mixed").evaluation.by_step[1] < 0.6
    with np.load(config["data"]["train"]) as stored:
        absent = {n: stored[n] for n in stored.files if n != "y0"} | {"target": stored["x"][:, [0, 0, 0, 0]] + 5}
    np.savez(config["data"]["train"], **absent)
    with pytest.raises(trm_edge.TrmInputError, match=r"data\.draft_dropout takes drafts away.*y0 is missing"):
        train(config, tmp_path / "refused")
    config["data"] = config["data"] | {"draft_dropout": 0.0}
    evaluation = train(config, tmp_path / "absent").evaluation
    assert evaluation.by_step[1] < 0.2 * evaluation.draft


def test_left_out_slots_are_punished_where_the_data_say_how(tmp_path):
    config = make_config("slots", tmp_path, train={"max_updates": 20}, loss={"left_out": 1.0})
    with pytest.raises(trm_edge.TrmInputError, match="omit"):
        train(config, tmp_path / "run")
    with np.load(config["data"]["train"]) as stored:
        arrays = dict(stored)
    omit = np.zeros(arrays["candidates"].shape[:2], bool)
    omit[:, 0] = True
    np.savez(config["data"]["train"], **arrays, omit=omit)
    train(config, tmp_path / "run")
    first, *_ = read_log(tmp_path / "run" / "log.jsonl")
    assert first["terms"]["left_out"][0] > 0


def test_bfloat16_and_last_cycle_learn_too(tmp_path):
    config = make_config("actions", tmp_path, train={"precision": "bfloat16", "grad_cycles": "last"})
    config["spec"] = config["spec"] | {"h_cycles": 2}
    result = train(config, tmp_path / "run")
    assert result.evaluation.by_step[1] < 0.2 * result.evaluation.draft


@pytest.mark.parametrize("update", ["step", "sum"])
def test_resume_is_bit_exact(tmp_path, update):
    changes = {**LIVELY, "max_updates": 48, "update": update, "schedule": "constant"}
    config = make_config("slots", tmp_path, data={"draft_dropout": 0.3}, train=changes, loss={"targets": "schedule"})
    with np.load(config["data"]["train"]) as stored:
        arrays = dict(stored)
    np.savez(config["data"]["train"], **arrays, y0=arrays["mask"].argmax(-1) - ~arrays["mask"].any(-1))
    train(config, tmp_path / "straight")
    for part in (20, 40, 48):
        train(config | {"train": config["train"] | {"max_updates": part}}, tmp_path / "parts", resume=True)
    assert_same_run(tmp_path / "straight", tmp_path / "parts")


def test_time_limit_ends_a_run_that_can_go_on(tmp_path):
    config = make_config("tokens", tmp_path, train={**LIVELY, "max_updates": 40})
    train(config, tmp_path / "straight")
    short = config | {"train": config["train"] | {"max_seconds": 1e-9}}
    assert train(short, tmp_path / "short").updates < 40
    trainer = Trainer(parse_config(config), tmp_path / "short", resume=True, quiet=True)
    assert trainer.run().updates == 40


def test_a_run_is_not_overwritten_nor_continued_as_another(tmp_path):
    config = make_config("tokens", tmp_path, train={**LIVELY, "max_updates": 8})
    train(config, tmp_path / "run")
    with pytest.raises(trm_edge.TrmInputError, match=r"holds a run.*--resume.*--out"):
        train(config, tmp_path / "run")
    other = config | {"train": config["train"] | {"learning_rate": 0.5}}
    with pytest.raises(trm_edge.TrmInputError, match=r"train\.learning_rate.*started with 0\.004, now it is 0\.5"):
        train(other, tmp_path / "run", resume=True)
    make_config("tokens", tmp_path, examples=1001)
    with pytest.raises(trm_edge.TrmInputError, match=r"data\.train: the examples are not those"):
        train(config, tmp_path / "run", resume=True)


def test_a_run_is_not_continued_on_another_validation_file(tmp_path):
    config = make_config("tokens", tmp_path, train={"max_updates": 4})
    other = tmp_path / "other.npz"
    other.write_bytes(Path(config["data"]["train"]).read_bytes())
    config["data"] = {name: value for name, value in config["data"].items() if name != "validation_share"}
    config["data"]["validation"] = str(other)
    train(config, tmp_path / "run")
    train(config, tmp_path / "run", resume=True)
    with np.load(other) as stored:
        arrays = {name: values[:-1] for name, values in stored.items()}
    np.savez(other, **arrays)
    with pytest.raises(trm_edge.TrmInputError, match=r"data\.validation: the examples are not those"):
        train(config, tmp_path / "run", resume=True)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda state: state.pop("updates"),
        lambda state: state.update(head={}),
        lambda state: state.update(config=3),
        lambda state: state.update(evaluation={"loss": 1.0, "odd": 2}),
        lambda state: state["random"].update(numpy=["MT19937"]),
    ],
)
def test_a_state_that_training_did_not_write_is_one_clear_error(tmp_path, spoil):
    config = make_config("tokens", tmp_path, train={"max_updates": 2})
    train(config, tmp_path / "run")
    state = read_state(tmp_path / "run" / "state.pt")
    spoil(state)
    torch.save(state, tmp_path / "run" / "state.pt")
    with pytest.raises(trm_edge.TrmBundleError, match=r"state\.pt: not as training wrote it.*--out"):
        train(config, tmp_path / "run", resume=True)


def test_divergence_is_an_error_and_keeps_the_checkpoint(tmp_path):
    config = make_config("actions", tmp_path, train={"max_updates": 8, "checkpoint_every": 2})
    train(config, tmp_path / "run")
    trainer = Trainer(
        parse_config(config | {"train": config["train"] | {"max_updates": 16}}),
        tmp_path / "run",
        resume=True,
        quiet=True,
    )
    before = (tmp_path / "run" / "state.pt").read_bytes()
    trainer.head.w("y_init").data[:] = float("nan")
    with pytest.raises(trm_edge.TrmError, match=r"diverged.*update 8.*learning_rate"):
        trainer.run()
    assert (tmp_path / "run" / "state.pt").read_bytes() == before


def test_divergence_before_the_first_checkpoint_says_that_there_is_none(tmp_path):
    trainer = Trainer(parse_config(make_config("actions", tmp_path)), tmp_path / "run", quiet=True)
    trainer.head.w("y_init").data[:] = float("nan")
    with pytest.raises(trm_edge.TrmError, match=r"run holds no checkpoint yet\. Try"):
        trainer.run()


def limits_said(folder: Path, capsys, **limits) -> str:
    """Train for an update and return what was said."""
    config = make_config("actions", folder, train={"max_updates": 1}, limits=limits)
    Trainer(parse_config(config), folder / f"run{len(list(folder.iterdir()))}").run()
    return capsys.readouterr().err


def test_training_says_which_limits_there_are_and_what_breaks_them(tmp_path, capsys):
    assert "warning: limits: none; nothing bounds the actions" in limits_said(tmp_path, capsys)
    assert "warning: limits: no velocity\n" in limits_said(tmp_path, capsys, lower=[-99.0] * 2, upper=[99.0] * 2)
    wide = {"lower": [-99.0] * 2, "upper": [99.0] * 2, "velocity": [99.0] * 2}
    said = limits_said(tmp_path, capsys, **wide)
    assert "warning" not in said and "\nlimits: 0.0 % of" in "\n" + said.replace("%", " %")
    said = limits_said(tmp_path, capsys, **wide | {"upper": [99.0, 0.0], "velocity": [99.0, 1e-9]})
    shares = [float(text) for text in re.findall(r"([\d.]+)%", said.split("beyond the velocity")[0])]
    assert "warning: limits: " in said and said.count(" in dimension 1) of") == 2
    assert 20 < shares[0] < 30 and 40 < shares[1] < 60 and shares[2:] == [50, 100]


@pytest.mark.parametrize("name", ["lower", "upper", "velocity"])
def test_each_limit_may_stand_alone(tmp_path, name):
    config = parse_config(make_config("actions", tmp_path, limits={name: [-2.0 if name == "lower" else 2.0] * 2}))
    head = new_head(config, load_data(config)[0])
    assert [n for n in ("lower", "upper", "velocity") if head.w(f"limits.{n}").isfinite().all()] == [name]


def test_shares_beyond_the_limits_by_hand():
    target = np.array([[[0.0], [0.5], [2.0]], [[0.1], [0.2], [0.3]]], np.float32)
    one = np.ones(1, np.float32)
    target = np.concatenate([target, target * 0], axis=-1)  # a second dimension that stays where it is
    for rows, *limits, expected in (
        (target, -one, one, one * 0.5, [[1 / 6, 0], [1 / 4, 0]]),
        (target, -one, one * 2, one * np.float32(1.5), [[0, 0], [0, 0]]),
        (target[:, :1], -one, one, one, [[0, 0], [0, 0]]),
    ):
        np.testing.assert_allclose(shares_beyond(rows, *limits), expected)


def test_the_line_of_an_evaluation_says_its_unit(tmp_path):
    result = train(make_config("actions", tmp_path, train={"max_updates": 1}), tmp_path / "run")
    assert summary(result.evaluation).startswith("rms error (mean over chunks, in units of std): draft ")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_is_named_by_the_log():
    path = Path("/dev/full")
    log = JsonLines.__new__(JsonLines)
    log._path, log._stream = path, path.open("ab", buffering=0)  # a device cannot be cut to a length
    with pytest.raises(trm_edge.TrmIOError, match=r"/dev/full: cannot be written: No space left"):
        log.write({"kind": "train"})


@pytest.mark.parametrize(
    ("hook", "name", "message"),
    [
        ("augment", "bad_augment", r"data\.augment.*x: expected float32, got float64"),
        ("augment", "nothing", r"data\.augment.*expected a dictionary of arrays, got NoneType"),
        ("augment", "lists", r"data\.augment.*x: expected a NumPy array of float32, got list"),
        (
            "augment",
            "one_argument",
            r"data\.augment: expected a function of \(batch, rng\), got TypeError: one_argument\(\)",
        ),
        ("augment", "wrong_inside", r"data\.augment: .*has no len\(\)\n  File .*line \d+, in wrong_inside\n.*len\(3\)"),
        ("features_fn", "one_argument", r"data\.features_fn: expected a function of \(y_hat, batch\), got TypeError: "),
        ("features_fn", "nothing", r"data\.features_fn: expected a tensor \[32, 4, 2\], got NoneType"),
        ("features_fn", "not_finite", r"data\.features_fn: expected finite features of finite answers, got NaN or Inf"),
        ("augment", "fewer", r"returned a wrong batch: x: expected 32 examples, got 5"),
        ("features_fn", "bad_features", r"data\.features_fn: expected features \[32, 4, 2\], got \[32, 1, 2\]"),
    ],
)
def test_hooks_that_return_nonsense_are_named(tmp_path, hook, name, message):
    config = make_config("actions", tmp_path, data={hook: f"train_cases:{name}"})
    with pytest.raises(trm_edge.TrmInputError, match=message):
        train(config, tmp_path / "run")


def test_progress_is_a_bar_on_a_terminal_and_lines_elsewhere(capsys, monkeypatch):
    plain = Progress(10, 0, quiet=False)
    plain.advance(4)
    plain.say("a line")
    plain.close()
    assert capsys.readouterr().err == "a line\n"
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    bar = Progress(10, 2, quiet=False)
    bar.advance(4)
    bar.say("a line")
    bar.close()
    shown = capsys.readouterr().err
    assert "a line" in shown
    assert "6/10" in shown


def test_learning_rate_warms_up_and_follows_the_cosine():
    train_config = parse_config({"spec": {**SPEC}, "data": {"train": "no.npz"}}).train
    cosine = replace(train_config, warmup_updates=10, max_updates=110, schedule="cosine", learning_rate=1.0)
    assert [learning_rate(cosine, u) for u in (0, 4, 10, 60, 110)] == pytest.approx([0.1, 0.5, 1, 0.5, 0])
    assert learning_rate(replace(cosine, schedule="constant"), 90) == 1.0


def test_the_average_forgets_the_random_start():
    spec = parse_config({"spec": SPEC, "data": {"train": "no.npz"}}).spec
    head, averaged = TrmHead(spec), TrmHead(spec).requires_grad_(False)
    start = averaged.w("y_init").clone()
    update_average(averaged, head, 0.9, updates=1)
    torch.testing.assert_close(averaged.w("y_init"), start * 2 / 11 + head.w("y_init").detach() * 9 / 11)
    for updates in range(200, 204):
        update_average(averaged, head, 0.9, updates)
    far = (averaged.w("y_init") - head.w("y_init")).abs() / (start - head.w("y_init")).abs()
    torch.testing.assert_close(far.detach(), torch.full((8,), 2 / 11 * 0.9**4), rtol=1e-3, atol=1e-4)


SPEC = {
    **{"answer": "tokens", "hidden_size": 8, "inner_size": 8, "l_cycles": 1, "h_cycles": 1, "registers": 1},
    **{"answer_rows": 2, "vocab_size": 3, "num_puzzles": 1, "puzzle_size": 8, "num_heads": 2},
}
BAD_CONFIGS = [
    ("[spec]\n", r"lacks the table \[data\]"),
    ("[data]\ntrain = 'x'\n", r"lacks the table \[spec\]"),
    ("[extra]\n", r"unknown table \[extra\]"),
    ("train = 3\n", r"train: expected a table"),
    ("[spec]\nanswer = 'tokens'\nsize = 3\n[data]\ntrain = 'x'\n", "unknown field.* size"),
    ("SPEC[data]\n", r"\[data\] is incomplete.*train"),
    ("SPEC[data]\ntrain = 'x'\nvalid = 'y'\n", r"data\.valid: unknown field"),
    ("SPEC[data]\ntrain = 3\n", r"data\.train: expected str, got 3"),
    ("SPEC[data]\ntrain = 'x'\n[train]\nsteps = 0\n", r"train\.steps: expected 1\.\.1024, got 0"),
    ("SPEC[data]\ntrain = 'x'\n[train]\nsteps = true\n", r"train\.steps: expected int, got True"),
    ("SPEC[data]\ntrain = 'x'\n[train]\nupdate = 'all'\n", r"train\.update: expected one of step, sum, got 'all'"),
    ("SPEC[data]\ntrain = 'x'\n[train]\nlearning_rate = 0\n", r"train\.learning_rate: expected > 0"),
    ("SPEC[data]\ntrain = 'x'\n[train]\nlearning_rate = inf\n", r"train\.learning_rate: expected a finite number"),
    ("SPEC[data]\ntrain = 'x'\n[train]\nencoder_rate = inf\n", r"train\.encoder_rate: expected a finite number"),
    ("SPEC[data]\ntrain = 'x'\n[train]\nthreads = 1025\n", r"train\.threads: expected 1\.\.1024, got 1025"),
    ("SPEC[data]\ntrain = 'x'\n[train]\nema = nan\n", r"train\.ema: expected 0"),
    ("SPEC[data]\ntrain = 'x'\n[train]\nzero_init_residual = true\nstart = 'a.pt'\n", r"zero_init_residual: only for"),
    ("SPEC[data]\ntrain = 'x'\n[loss]\nlimits = 1\n", r"loss\.limits: only for actions"),
    ("SPEC[data]\ntrain = 'x'\n[loss]\nstep_weights = [1]\n", r"loss\.step_weights: expected train\.steps = 8"),
    ("SPEC[data]\ntrain = 'x'\n[train]\nsteps = 2\n[loss]\nstep_weights = [inf, 1]\n", r"step_weights: .*finite.*inf"),
    ("SPEC[data]\ntrain = 'x'\n[train]\nsteps = 2\n[loss]\nstep_weights = [2, -1]\n", r"step_weights: .*got -1"),
    ("SPEC[data]\ntrain = 'x'\n[loss]\nhalt_tolerance = 0.2\n", r"loss\.halt_tolerance: only for actions"),
    ("ACTIONS[data]\ntrain = 'x'\n[loss]\ncross_entropy = 'stablemax'\n", r"loss\.cross_entropy: only for slots, tok"),
    ("ACTIONS[data]\ntrain = 'x'\n[loss]\nlimits = 1\n", r"loss\.limits: there are none.*give \[limits\]"),
    ("SPEC[data]\ntrain = 'x'\n[limits]\nlower = [1]\n", r"limits\.lower: expected spec\.dof = 0"),
    ("ACTIONS[data]\ntrain = 'x'\n[limits]\nupper = [inf, 1e40]\n", r"limits\.upper: expected .*float32 .*got 1e\+40"),
    ("SPEC[data]\ntrain = 'x'\nfeatures_fn = 'a:b'\n", r"data\.features_fn: this head has no features"),
    ("SPEC[data]\ntrain = 'x'\nvalidation = 'y'\nvalidation_share = 0.1\n", r"data\.validation_share"),
    ("SPEC[data]\ntrain = 'x.npz'\n", r"x\.npz: not a readable"),
    ("SPEC[data]\ntrain = 'ok.npz'\naugment = 'nowhere:f'\n", r"data\.augment: nowhere cannot be imported"),
    ("SPEC[data]\ntrain = 'ok.npz'\naugment = 'broken_hook:f'\n", r"broken_hook cannot be imported: SyntaxError: "),
    ("SPEC[data]\ntrain = 'ok.npz'\naugment = '.a:f'\n", r"data\.augment: \.a cannot be imported: TypeError: "),
    ("SPEC[data]\ntrain = 'ok.npz'\nvalidation_share = 0.1\n", r"data\.validation_share: 0\.1 of 3 .* to evaluate on"),
    ("SPEC[data]\ntrain = 'ok.npz'\n[train]\nbatch_size = 1\ndevice = 'gpu'\n", r"train\.device: .*, got 'gpu': "),
    ("SPEC[data]\ntrain = 'ok.npz'\n[train]\nbatch_size = 1\ndevice = 'meta'\n", r"train\.device: .*, got 'meta', "),
    ("SPEC[data]\ntrain = 'ok.npz'\naugment = 'json:f'\n", r"data\.augment: json has no function 'f'"),
    ("SPEC[data]\ntrain = 'ok.npz'\naugment = 'json'\n", r"data\.augment: expected 'module:function'"),
    ("SPEC[data]\ntrain = 'ok.npz'\n", r"train\.batch_size: expected.*at most the 3 training examples, got 128"),
    ("not toml", "not a TOML file"),
]


@pytest.mark.parametrize(("text", "message"), BAD_CONFIGS)
def test_wrong_configurations_are_refused_by_name(tmp_path, capsys, text, message):
    np.savez(tmp_path / "ok.npz", x=np.zeros((3, 2), np.int32), target=np.zeros((3, 2), np.int32))
    (tmp_path / "broken_hook.py").write_text("def f(:\n")
    path = tmp_path / "bad.toml"
    for name, spec in (("SPEC", SPEC), ("ACTIONS", SPECS["actions"])):
        text = text.replace(name, as_toml({"spec": spec}) + "\n")
    path.write_text(text)
    assert main(["train", str(path), "--out", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert pytest.importorskip("re").search(message, error), error
    assert str(path) in error or "ok.npz" in text or "x.npz" in text


def test_command_leaves_model_log_state_and_curve(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = make_config("tokens", tmp_path, train={**LIVELY, "max_updates": 10, "steps": 3})
    Path("push.toml").write_text(as_toml(config))
    assert main(["train", "push.toml", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["model"] == "runs/push/model.pt"
    assert result["updates"] == 12  # the batch that reaches max_updates is finished
    assert len(result["evaluation"]["by_step"]) == 2
    assert sorted(os.listdir("runs/push")) == ["curve.png", "log.jsonl", "model.pt", "state.pt"]
    assert Path("runs/push/curve.png").read_bytes().startswith(b"\x89PNG")
    assert main(["train", "push.toml", "--resume"]) == 0
    assert "k = 1..2" in capsys.readouterr().out
    assert main(["train", "push.toml"]) == 2


def test_a_model_without_its_state_and_another_log_are_not_overwritten(tmp_path):
    config = parse_config(make_config("tokens", tmp_path, train={"max_updates": 4}))
    Trainer(config, tmp_path / "run", quiet=True).run()
    (tmp_path / "run" / "state.pt").unlink()
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    for resume in (False, True):
        with pytest.raises(trm_edge.TrmInputError, match=r"model\.pt: is there without its state\.pt.*--out"):
            Trainer(config, tmp_path / "run", quiet=True, resume=resume)
    assert {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()} == before
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "log.jsonl").write_text("mine\n")
    with pytest.raises(trm_edge.TrmInputError, match=r"log\.jsonl: is no log of a run"):
        Trainer(config, tmp_path / "other", quiet=True)
    assert (tmp_path / "other" / "log.jsonl").read_text() == "mine\n"
    (tmp_path / "other" / "log.jsonl").write_text('{"kind": "train", "update": 4}\n{"ki')  # died before it saved
    assert Trainer(config, tmp_path / "other", quiet=True, resume=True).run().updates == 4


def test_an_interrupted_run_gives_no_older_evaluation(tmp_path, monkeypatch):
    config = make_config("tokens", tmp_path, train=LIVELY | {"eval_every": 4})
    original = Trainer._train_batch

    def train_batch(self):
        original(self)
        if self.updates >= 10:
            os.kill(os.getpid(), signal.SIGHUP)

    monkeypatch.setattr(Trainer, "_train_batch", train_batch)
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # which whoever runs the tests may ignore
    try:
        result = train(config, tmp_path / "run")
    finally:
        signal.signal(signal.SIGHUP, before)
    assert result.interrupted and result.updates == 10 and result.evaluation is None
    assert [r["update"] for r in read_log(tmp_path / "run" / "log.jsonl") if r["kind"] == "validation"] == [4, 8]


def test_a_loss_of_limits_needs_some_of_the_start(tmp_path):
    config = make_config("actions", tmp_path, train={"max_updates": 2})
    plain = train(config, tmp_path / "plain").model
    begun = config | {"train": config["train"] | {"start": str(plain)}, "loss": {"limits": 1.0}}
    with pytest.raises(
        trm_edge.TrmInputError, match=r"loss\.limits: .*model\.pt has no limits to exceed; give \[limits\]"
    ):
        train(begun, tmp_path / "run")
    begun["limits"] = {"lower": [-9.0, -9.0]}
    assert train(begun, tmp_path / "run").updates == 2


def test_a_run_goes_on_without_the_file_that_it_began_from(tmp_path):
    config = make_config("tokens", tmp_path, train={"max_updates": 4})
    start = train(config, tmp_path / "first").model
    begun = config | {"train": config["train"] | {"start": str(start), "max_updates": 8}}
    train(begun, tmp_path / "whole")
    half = begun | {"train": begun["train"] | {"max_updates": 4}}
    train(half, tmp_path / "run")
    start.unlink()
    assert train(begun, tmp_path / "run", resume=True).updates == 8
    with pytest.raises(trm_edge.TrmIOError):
        train(begun, tmp_path / "anew")


def test_a_warm_up_longer_than_the_run_is_told(tmp_path, capsys):
    for warmup, told in ((61, True), (60, False)):
        config = make_config("tokens", tmp_path, train={"max_updates": 60, "warmup_updates": warmup})
        Trainer(parse_config(config), tmp_path / str(warmup)).run()
        assert ("the learning rate rises over 61 updates, longer than this run" in capsys.readouterr().err) == told


def test_a_step_of_weight_0_is_no_update(tmp_path):
    config = make_config("actions", tmp_path, train={"steps": 3, "max_updates": 6}, loss={"step_weights": [0, 1, 0.5]})
    trainer = Trainer(parse_config(config), tmp_path / "run", quiet=True)
    updated = []
    original = trainer._update
    trainer._update = lambda: updated.append(trainer.updates) or original()
    assert trainer.run().updates == 6
    assert (len(updated), trainer.batches) == (6, 3)


@pytest.mark.parametrize(
    ("changes", "refused"),
    [
        ({"train": {"max_updates": 16}}, "train.max_updates"),
        ({"train": {"max_updates": 16, "schedule": "constant"}}, "train.schedule"),
        ({"train": {"checkpoint_every": 3}}, None),
        ({"data": {"train": "moved.npz"}}, None),
        ({"data": {"train": "other.npz"}}, "data.train: the examples are not those"),
    ],
    ids=str,
)
def test_what_may_differ_where_a_run_goes_on(tmp_path, changes, refused):
    config = make_config("tokens", tmp_path, train={"max_updates": 8, "schedule": "cosine"})
    train(config, tmp_path / "run")
    data = Path(config["data"]["train"])
    (tmp_path / "moved.npz").write_bytes(data.read_bytes())
    make_config("tokens", tmp_path, examples=999)
    data.rename(tmp_path / "other.npz")
    if "data" not in changes:
        changes = changes | {"data": {"train": "moved.npz"}}
    changed = {
        table: fields
        | {name: str(tmp_path / v) if table == "data" else v for name, v in changes.get(table, {}).items()}
        for table, fields in config.items()
    }
    if refused is None:
        assert train(changed, tmp_path / "run", resume=True).updates == 8
    else:
        with pytest.raises(trm_edge.TrmInputError, match=refused):
            train(changed, tmp_path / "run", resume=True)


def test_a_run_goes_on_where_nobody_reads_what_it_says(tmp_path):
    config = make_config("tokens", tmp_path, train={"max_updates": 60, "log_every": 2, "eval_steps": 2})
    (tmp_path / "c.toml").write_text(as_toml(config))
    command = f"{sys.executable} -m trm_edge.train {tmp_path / 'c.toml'} --out {tmp_path / 'run'} 2>&1 | head -n 1"
    subprocess.run(["bash", "-c", command], check=True, timeout=120, capture_output=True)
    assert read_state(tmp_path / "run" / "state.pt")["updates"] == 60


def test_a_hang_up_that_is_ignored_ends_nothing():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopRequest() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop.requested
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_folder_takes_one_run_at_a_time_within_a_process_too(tmp_path):
    config = parse_config(make_config("tokens", tmp_path, train={"max_updates": 4}))
    first = Trainer(config, tmp_path / "run", quiet=True)
    (tmp_path / "run" / "log.jsonl").read_bytes()  # closing another handle does not unlock the file
    with pytest.raises(trm_edge.TrmInputError, match="another process trains here"):
        Trainer(config, tmp_path / "run", quiet=True, resume=True)
    assert first.run().updates == 4


def test_encoder_rate_is_that_of_the_maps_around_the_blocks(tmp_path):
    config = parse_config(make_config("tokens", tmp_path, train={"encoder_rate": 5.0}), tmp_path)
    head = TrmHead(config.spec)
    rates = {
        id(parameter): group["scale"]
        for group in make_optimizer(head, config.train).param_groups
        for parameter in group["params"]
    }
    fast = {name for name, parameter in head.named_parameters() if rates[id(parameter)] == 5.0}
    assert fast == {"answer_decoder.weight", "halt_head.weight", "halt_head.bias"}
    assert set(rates.values()) == {1.0, 5.0}


def test_python_takes_paths_as_text(tmp_path, monkeypatch):
    """As its docstring shows it: read, train, export."""
    monkeypatch.chdir(tmp_path)
    Path("push.toml").write_text(as_toml(make_config("tokens", tmp_path, train={**LIVELY, "max_updates": 4})))
    Trainer(load_config("push.toml"), "runs/push", quiet=True).run()
    export_bundle("runs/push/model.pt", "push.trm")
    assert all(check.passed for check in verify(trm_edge.load("push.trm"), read_bundle("push.trm")))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> tuple[Path, Path]:
    """Return a configuration file and the folder of its undisturbed run."""
    folder = tmp_path_factory.mktemp("undisturbed")
    config = make_config("actions", folder, train=LIVELY)
    path = folder / "run.toml"
    path.write_text(as_toml(config))
    train(config, folder / "run")
    return path, folder / "run"


def start(config: Path, out: Path, *launcher: str) -> subprocess.Popen:
    """Start a training process."""
    command = [sys.executable, *(launcher or ("-m", "trm_edge.train")), str(config), "--out", str(out), "--resume"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for_training(process: subprocess.Popen, out: Path, limit: float = 120) -> None:
    """Wait until the process logs something new, or ends."""
    log = out / "log.jsonl"
    begun = log.stat().st_mtime_ns if log.exists() else 0
    end = time.monotonic() + limit
    while process.poll() is None and time.monotonic() < end:
        if log.exists() and log.stat().st_size and log.stat().st_mtime_ns != begun:
            return
        time.sleep(0.005)


def kill_and_resume(config: Path, out: Path, kills: int, seed: int, within: float) -> int:
    """Kill a run ``kills`` times, up to ``within`` seconds after it began to log, checking its files each time.

    Returns how many kills hit a run that had not ended by itself.
    """
    rng, hits = random.Random(seed), 0
    for _ in range(kills):
        process = start(config, out)
        wait_for_training(process, out)
        time.sleep(rng.random() * within)
        process.kill()
        process.communicate()
        hits += process.returncode == -signal.SIGKILL
        if (out / "state.pt").exists():
            read_state(out / "state.pt")
        if (out / "model.pt").exists():
            torch.load(out / "model.pt", weights_only=True)
    process = start(config, out)
    _, error = process.communicate(timeout=300)
    assert process.returncode == 0, error
    return hits


def test_killed_runs_resume_to_the_same_bits(tmp_path):
    config = make_config("actions", tmp_path, train={**LIVELY, "max_updates": 600, "checkpoint_every": 10})
    (tmp_path / "run.toml").write_text(as_toml(config))
    train(config, tmp_path / "whole")
    assert kill_and_resume(tmp_path / "run.toml", tmp_path / "run", kills=3, seed=0, within=0.1) >= 2
    assert_same_run(tmp_path / "whole", tmp_path / "run")
    assert sorted(os.listdir(tmp_path / "run")) == ["curve.png", "log.jsonl", "model.pt", "state.pt"]


KILLED_WHILE_WRITING = """
import os, signal, sys
from trm_edge.cli import main
os.replace = lambda *paths: os.kill(os.getpid(), signal.SIGKILL)
main(["train", *sys.argv[1:]])
"""


def test_what_a_kill_left_of_a_write_goes_with_the_next_run(undisturbed, tmp_path):
    config, run = undisturbed
    killed = start(config, tmp_path / "run", "-c", KILLED_WHILE_WRITING)
    _, error = killed.communicate(timeout=120)
    assert killed.returncode == -signal.SIGKILL, error
    assert [name for name in os.listdir(tmp_path / "run") if name.startswith(".trm-edge.")]
    again = start(config, tmp_path / "run")
    _, error = again.communicate(timeout=120)
    assert again.returncode == 0, error
    assert sorted(os.listdir(tmp_path / "run")) == sorted(os.listdir(run))


def test_no_two_processes_train_in_one_folder(undisturbed, tmp_path):
    config, run = undisturbed
    first = Trainer(load_config(config), tmp_path / "run", quiet=True)
    (tmp_path / "run" / ".trm-edge.0").touch()  # what the first one is writing
    second = start(config, tmp_path / "run")
    _, error = second.communicate(timeout=120)
    assert second.returncode == 2 and "run: another process trains here" in error, error
    assert (tmp_path / "run" / ".trm-edge.0").exists()
    first.run()
    assert_same_run(tmp_path / "run", run)
    again = start(config, tmp_path / "run")
    _, error = again.communicate(timeout=120)
    assert again.returncode == 0, error


@pytest.mark.parametrize("left", [None, b'{"kind": "tr'])
def test_a_run_whose_log_is_lost_goes_on_with_a_new_one(tmp_path, left):
    config = make_config("tokens", tmp_path, train={**LIVELY, "max_updates": 8})
    train(config, tmp_path / "run")
    (tmp_path / "run" / "log.jsonl").unlink()
    if left is not None:
        (tmp_path / "run" / "log.jsonl").write_bytes(left)
    train(config | {"train": config["train"] | {"max_updates": 16}}, tmp_path / "run", resume=True)
    assert [r["update"] for r in read_log(tmp_path / "run" / "log.jsonl") if r["kind"] == "train"] == [12, 16]


def test_a_log_that_has_lost_its_end_keeps_the_whole_lines(tmp_path):
    config = make_config("tokens", tmp_path, train={**LIVELY, "max_updates": 8})
    train(config, tmp_path / "run")
    log = tmp_path / "run" / "log.jsonl"
    log.write_bytes(log.read_bytes()[:-5])
    kept = [line for line in log.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
    train(config | {"train": config["train"] | {"max_updates": 16}}, tmp_path / "run", resume=True)
    assert kept and log.read_bytes().startswith(b"".join(kept))
    assert [r["update"] for r in read_log(log)[len(kept) :] if r["kind"] == "train"] == [12, 16]


@pytest.mark.slow
def test_twenty_kills_resume_to_the_same_bits(tmp_path):
    config = make_config("actions", tmp_path, train={**LIVELY, "max_updates": 3000, "checkpoint_every": 10})
    (tmp_path / "run.toml").write_text(as_toml(config))
    train(config, tmp_path / "whole")
    assert kill_and_resume(tmp_path / "run.toml", tmp_path / "run", kills=20, seed=1, within=0.5) >= 15
    assert_same_run(tmp_path / "whole", tmp_path / "run")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_save_and_leave(undisturbed, tmp_path, number):
    config, whole = undisturbed
    process = start(config, tmp_path / "run")
    wait_for_training(process, tmp_path / "run")
    process.send_signal(number)
    out, error = process.communicate(timeout=120)
    if process.returncode == 0:
        pytest.skip("the run ended before the signal arrived")
    assert process.returncode == 130, error
    assert "interrupted, go on with --resume" in out
    done = read_state(tmp_path / "run" / "state.pt")["updates"]
    assert 0 < done < LIVELY["max_updates"]
    assert main(["train", str(config), "--out", str(tmp_path / "run"), "--resume"]) == 0
    assert_same_run(whole, tmp_path / "run")


def disturb_validation(monkeypatch, number: int, what) -> None:
    """Call ``what`` at the beginning of validation ``number`` (from 1) of the runs that follow."""
    calls = iter(range(1, 1000))

    def disturbed(*arguments, **options):
        if next(calls) == number:
            what()
        return evaluate(*arguments, **options)

    monkeypatch.setattr("trm_edge.train.trainer.evaluate", disturbed)


VALIDATED = {**LIVELY, "max_updates": 30, "checkpoint_every": 10, "eval_every": 10, "log_every": 10}


@pytest.mark.parametrize("validation", [2, 3])  # on the way, and the last one
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_validation_which_the_resumed_run_makes_up_for(tmp_path, monkeypatch, number, validation):
    changes = {"features_fn": "train_cases:noisy_features"}
    config = make_config("actions", tmp_path, data=changes, train=VALIDATED)
    train(config, tmp_path / "whole")
    disturb_validation(monkeypatch, validation, lambda: os.kill(os.getpid(), number))
    result = train(config, tmp_path / "run")
    assert result.interrupted and result.updates == 10 * validation
    logged = [r["update"] for r in read_log(tmp_path / "run" / "log.jsonl") if r["kind"] == "validation"]
    assert logged == [10, 20][: validation - 1]
    assert not train(config, tmp_path / "run", resume=True).interrupted
    assert_same_run(tmp_path / "whole", tmp_path / "run")


@pytest.mark.parametrize("checkpoint_every", [10, 1000])
@pytest.mark.parametrize("validation", [2, 3])
def test_a_death_within_a_validation_loses_nothing(tmp_path, monkeypatch, validation, checkpoint_every):
    changes = VALIDATED | {"checkpoint_every": checkpoint_every}
    config = make_config("actions", tmp_path, data={"features_fn": "train_cases:noisy_features"}, train=changes)
    train(config, tmp_path / "whole")

    def die():
        raise RuntimeError("dead")

    disturb_validation(monkeypatch, validation, die)
    trainer = Trainer(parse_config(config), tmp_path / "run", quiet=True)
    with pytest.raises(RuntimeError, match="dead"):
        trainer.run()
    trainer._log.close()
    assert read_state(tmp_path / "run" / "state.pt")["updates"] == 10 * validation
    train(config, tmp_path / "run", resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "run")


TRAIN_AND_LOOK = """
import os, sys
from trm_edge.cli import main
code = main(["train", *sys.argv[1:]])
threads = {open(f"/proc/self/task/{task}/comm").read() for task in os.listdir("/proc/self/task")}
sys.exit(code or (f"still running: {threads}" if any("gloo" in name for name in threads) else 0))
"""


def test_two_processes_give_the_result_of_one_and_leave_no_thread(tmp_path):
    config = make_config("actions", tmp_path, train={**LIVELY, "max_updates": 20}, loss={"targets": "schedule"})
    (tmp_path / "run.toml").write_text(as_toml(config))
    whole = tmp_path / "whole"
    train(config, whole)
    script = tmp_path / "train_and_look.py"
    script.write_text(TRAIN_AND_LOOK)
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script))
    process = start(tmp_path / "run.toml", tmp_path / "run", *launcher)
    _, error = process.communicate(timeout=300)
    assert process.returncode == 0, error
    one, two = (read_state(folder / "state.pt") for folder in (whole, tmp_path / "run"))
    assert two["updates"] == one["updates"]
    for name, values in one["averaged"].items():
        torch.testing.assert_close(two["averaged"][name], values, rtol=1e-3, atol=1e-5)
    logs = [read_log(folder / "log.jsonl") for folder in (whole, tmp_path / "run")]
    assert [r["update"] for r in logs[0]] == [r["update"] for r in logs[1]]
    assert logs[1][-1]["by_step"] == pytest.approx(logs[0][-1]["by_step"], rel=1e-4)
