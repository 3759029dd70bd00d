"""Measure what bf16 and int8 do to the task of the two shipped heads, by step, and fine-tune where that is too much.

    pip install -e '.[train,calib,demo]' && python examples/quantized/run.py

The compiled engine runs each head in each of ``SCHEMES`` and is compared with itself in float32, call by call:

``sudoku``
    share of puzzles solved exactly, on the 2,000 unseen ones of examples/sudoku; calibrated on training puzzles.
``metaworld``
    RMSE of the projected chunk to the expert's, on recorded control steps of every second test episode; calibrated on
    the other episodes.

The Sudoku head is then fine-tuned through the rounded forward (``train.fake_quant = "calibrated"``) for a ``static``
scheme, and once more as long in float32, which shows what longer training does alone. Both are calibrated anew and
measured. What is written: ``results.json`` beside this file and ``docs/quantized.png``. A stage whose file stands in
the work folder is not made again.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

import trm_edge
from trm_edge import demo
from trm_edge.bundle import read_bundle, write_bundle
from trm_edge.calib import calibrate, load_calls
from trm_edge.export import export_bundle
from trm_edge.files import write_atomically
from trm_edge.picture import pyplot, save
from trm_edge.profiling.machine import machine_facts
from trm_edge.train import Trainer, load_config

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SUDOKU = ROOT / "examples" / "sudoku"
sys.path.insert(0, str(SUDOKU))
import puzzles  # noqa: E402

LIMIT = 0.005  # what the task's metric may lose
CALLS = 256  # to calibrate with; every second one gives ranges, the others decide what --mixed keeps
SCHEMES: dict[str, dict[str, Any]] = {  # by name: the precision to load, or how to calibrate
    "fp32": {"precision": "fp32"},
    "bf16": {"precision": "bf16"},
    "int8 dynamic": {"precision": "int8"},
    "int8 static, minmax": {"scheme": "static", "observer": "minmax"},
    "int8 static, mse": {"scheme": "static", "observer": "mse"},
    "int8 static-per-step, minmax": {"scheme": "static-per-step", "observer": "minmax"},
    "int8 static-per-step, mse": {"scheme": "static-per-step", "observer": "mse"},
    "int8 static, mse, --mixed": {"scheme": "static", "observer": "mse", "mixed": True},
}
TUNED = ("fp32", "int8 static, minmax", "int8 static, mse")  # schemes that fine-tuned heads are measured in
TUNED_FOR = "int8 static, mse"
TUNING = {"max_updates": 1600, "learning_rate": 5e-4, "ema": 0.99, "precision": "float32"}  # else as sudoku.toml

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Task:
    """One head and what it is asked. ``scores`` gives ``[N, steps]``: 1 for solved, or a chunk's mean squared error.

    ``groups [N]`` numbers what is independent: puzzles, or episodes.
    """

    name: str
    bundle: Path
    calibration: Path
    steps: int
    metric: str
    scores: Callable[[trm_edge.Refiner], Array]
    groups: Array


def main() -> None:
    """Calibrate, fine-tune, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "quantized", help="working folder")
    parser.add_argument(
        "--cases", type=int, help="a trial on so many puzzles and chunks, which tunes and writes nothing"
    )
    arguments = parser.parse_args()
    started = time.monotonic()
    torch.set_num_threads(1)
    work: Path = arguments.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    sudoku, metaworld = sudoku_task(arguments.cases), metaworld_task(work, arguments.cases)
    results = {task.name: measure(task, shipped_runs(task, work)) for task in (sudoku, metaworld)}
    if arguments.cases is None:
        results["sudoku, fine-tuned"] = measure(sudoku, tuned_runs(sudoku, work))
        content = {"limit": LIMIT, "environment": environment(), "heads": results}
        write_atomically(HERE / "results.json", (json.dumps(content, indent=1) + "\n").encode())
        draw(ROOT / "docs" / "quantized.png", results)
    for name, result in results.items():
        print(f"\n{name}\n{table(result)}")
    print(f"\n{time.monotonic() - started:.0f} s")


def sudoku_task(cases: int | None) -> Task:
    """Return the Sudoku head's task: the puzzles that examples/sudoku/run.py measures."""
    paths = puzzles.stored_split(SUDOKU / "data")
    with np.load(paths["test"]) as test:
        x, target = test["x"][:cases], test["target"][:cases]
    bundle = Path(trm_edge.__file__).parent / "data" / "sudoku.trm"

    def scores(refiner: trm_edge.Refiner) -> Array:
        return puzzles.solved_by_step(refiner, x, target, 16).astype(float)

    return Task("sudoku", bundle, paths["train"], 16, "exact rate", scores, np.arange(len(x)))


def metaworld_task(work: Path, cases: int | None) -> Task:
    """Return the Meta-World head's task; the file of calls to calibrate with is written to the work folder."""
    recorded = demo.read_recorded(demo.RECORDED)
    tasks = {"tasks": recorded.pop("tasks")}
    odd = np.unique(recorded["episode"], return_inverse=True)[1] % 2 == 1
    path = work / "metaworld-calibration.npz"
    np.savez_compressed(path, **{name: recorded[name][~odd] for name in ("x", "y0", "features", "target")})
    held = {name: array[odd][:cases] for name, array in recorded.items()} | tasks
    bundle = read_bundle(demo.BUNDLE)

    def scores(refiner: trm_edge.Refiner) -> Array:
        steps = demo.refine_all(refiner, held, 4)["projected"][1:]
        return np.stack([demo.answer_metrics(answer, bundle, held)["error"] for answer in steps], axis=1)

    return Task("metaworld", demo.BUNDLE, path, 4, "rms error", scores, held["episode"])


def shipped_runs(task: Task, work: Path) -> Iterator[tuple[str, Path, str | None]]:
    """Yield every scheme of the shipped head: its name, the bundle and the precision to load it with."""
    for name in SCHEMES:
        yield name, *prepared(task, task.bundle, name, work)


def tuned_runs(task: Task, work: Path) -> Iterator[tuple[str, Path, str | None]]:
    """Yield the shipped head in float32, then both fine-tuned heads in each of ``TUNED``."""
    yield "fp32", *prepared(task, task.bundle, "fp32", work)
    start, _ = prepared(task, task.bundle, TUNED_FOR, work)
    for title, fake_quant in (("tuned", "calibrated"), ("trained longer", "none")):
        bundle = work / f"{task.name}-{fake_quant}.trm"
        if not bundle.is_file():
            config = load_config(SUDOKU / "sudoku.toml")
            tuning = replace(config.train, **TUNING, start=str(start), fake_quant=fake_quant)
            print(f"{title}: {tuning.max_updates} weight updates", flush=True)
            result = Trainer(replace(config, train=tuning), work / f"{task.name}-{fake_quant}", resume=True).run()
            if result.interrupted:
                raise SystemExit("interrupted; the same command goes on from here")
            export_bundle(result.model, bundle)
        for name in TUNED:
            yield f"{title}, {name}", *prepared(task, bundle, name, work)


def prepared(task: Task, bundle: Path, name: str, work: Path) -> tuple[Path, str | None]:
    """Return the bundle of scheme ``name``, calibrated where it wants that, and the precision to load it with."""
    how = dict(SCHEMES[name])
    if "precision" in how:
        return bundle, how["precision"]
    path = work / f"{bundle.stem}-{name.removeprefix('int8 ').replace(', ', '-').replace('--', '')}.trm"
    if not path.is_file():
        print(f"{path.name}: calibrating", flush=True)
        plain = read_bundle(bundle)
        calls = load_calls(task.calibration, plain.spec, CALLS)
        write_bundle(path, calibrate(plain, calls, steps=task.steps, progress=sys.stderr.isatty(), **how).bundle)
    return path, None


def measure(task: Task, runs: Iterator[tuple[str, Path, str | None]]) -> dict[str, Any]:
    """Run the engine on every run and compare each with the first, and with its own weights in float32."""
    rows, exact, own = [], None, None
    for name, bundle, precision in runs:
        print(f"{task.name}: {name}", flush=True)
        scores = task.scores(trm_edge.load(bundle, backend="fused", precision=precision))
        exact = scores if exact is None else exact
        own = scores if precision == "fp32" else own
        quantization = read_bundle(bundle).quantization
        kept = {} if quantization is None else {p: quantization.matrices(p) for p in ("bf16", "fp32")}
        row = {"scheme": name, "kept": kept, "by_step": compare(task, scores, exact)}
        if own is not exact:
            row["against_own_fp32"] = compare(task, scores, own)
        rows.append(row)
    return {"metric": task.metric, "cases": len(task.groups), "groups": len(np.unique(task.groups)), "rows": rows}


def compare(task: Task, scores: Array, exact: Array) -> list[dict[str, Any]]:
    """Return the metric of every step, and what it loses against ``exact`` with its paired 95 % bootstrap interval.

    A solve rate loses by the difference, an RMSE relative to that of ``exact``; below 0 it gained.
    """
    resampled, steps = demo.Bootstrap(task.groups), []
    for own, other in zip(scores.T, exact.T, strict=True):
        (a, a_drawn), (b, b_drawn) = resampled.mean(own), resampled.mean(other)
        if task.metric == "exact rate":
            facts = {"lost": int((own < other).sum()), "gained": int((own > other).sum())}
            value, loss, drawn = a, b - a, b_drawn - a_drawn
        else:
            facts = {}
            value, loss, drawn = np.sqrt(a), np.sqrt(a / b) - 1, np.sqrt(a_drawn / b_drawn) - 1
        loss, low, high = resampled.interval(float(loss), drawn)
        steps.append({"value": float(value), "loss": loss, "low": low, "high": high, "within": loss <= LIMIT, **facts})
    return steps


def table(result: dict[str, Any]) -> str:
    """Lay out what each scheme loses, in %; a star marks more than the limit."""
    steps = [k for k in (1, 2, 3, 4, 8, 16) if k <= len(result["rows"][0]["by_step"])]
    percent = result["metric"] == "exact rate"
    unit = "percentage points" if percent else "% of it"
    lines = [f"{result['metric']} of the first line, then what the others lose in {unit} [95 %]; * beyond {LIMIT:.1%}"]
    lines.append(f"{'':<36}" + "".join(f"k = {k:<18}" for k in steps) + "missed at k")
    for number, row in enumerate(result["rows"]):
        cells = [row["by_step"][k - 1] for k in steps]
        if number == 0:
            shown = [f"{c['value']:.2%}" if percent else f"{c['value']:.4f}" for c in cells]
        else:
            shown = [
                f"{100 * c['loss']:+.2f} [{100 * c['low']:+.1f}, {100 * c['high']:+.1f}]" + "*" * (not c["within"])
                for c in cells
            ]
        lines.append(f"{row['scheme']:<36}" + "".join(f"{text:<22}" for text in shown) + missed(row["by_step"]))
        if "against_own_fp32" in row:
            lines[-1] += "; against its own fp32: " + missed(row["against_own_fp32"])
    return "\n".join(lines)


def missed(steps: list[dict[str, Any]]) -> str:
    """Return the numbers of the steps that lose more than the limit, or ``none``."""
    return " ".join(str(k + 1) for k, step in enumerate(steps) if not step["within"]) or "none"


def draw(path: Path, results: dict[str, Any]) -> None:
    """Write the picture: what each scheme loses by step, one panel a head; grey is within the limit."""
    figure, axes = pyplot("the picture", "demo").subplots(1, 3, figsize=(15, 5.8), layout="constrained")
    for axis, (name, result) in zip(axes, results.items(), strict=True):
        for number, row in enumerate(result["rows"][1:]):
            columns = [[100 * step[key] for step in row["by_step"]] for key in ("loss", "low", "high")]
            steps = np.arange(1, len(columns[0]) + 1)
            axis.plot(steps, columns[0], marker="osv^D*Xp"[number], ms=5, lw=1.3, label=row["scheme"])
            axis.fill_between(steps, columns[1], columns[2], alpha=0.12, lw=0)
        axis.axhspan(-100 * LIMIT, 100 * LIMIT, color="#888888", alpha=0.25, lw=0)
        axis.set_yscale("symlog", linthresh=1)
        axis.set_yticks([-10, -5, -2, -1, 0, 1, 2, 5, 10], ["-10", "-5", "-2", "-1", "0", "1", "2", "5", "10"])
        unit = "percentage points" if result["metric"] == "exact rate" else "% of float32's"
        axis.set(title=f"{name}: {result['cases']:,} calls", xlabel="refinement step k", ylim=(-12, 20))
        axis.set_ylabel(f"{result['metric']} lost against float32, {unit}")
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(lw=0.3)
        axis.legend(fontsize=9, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=2)
    save(figure, path, dpi=120)


def environment() -> dict[str, str]:
    """Return what the figures depend on beside the code."""
    isa = trm_edge.load(demo.BUNDLE, backend="fused").isa or ""
    versions = {"python": platform.python_version(), "numpy": np.__version__, "torch": str(torch.__version__)}
    return {"machine": machine_facts()["cpu"], "isa": isa, "trm_edge": trm_edge.__version__, **versions}


if __name__ == "__main__":
    main()
