"""Draw ``docs/sudoku.png``: one puzzle as the shipped head fills it in, beside the exact-solve rate by step.

    pip install -e '.[demo]' && python examples/sudoku/plot.py

The rates are those of ``results.json``, which run.py wrote; the puzzle is solved here by the fused engine.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.ticker

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import puzzles

import trm_edge

HERE = Path(__file__).parent
BUNDLE = HERE.parents[1] / "trm_edge" / "data" / "sudoku.trm"
PICTURE = HERE.parents[1] / "docs" / "sudoku.png"
SHOWN = (0, 1, 2, 4, 6, 8)
GIVEN, RIGHT, WRONG, WRONG_CELL = "#222222", "#2b5c8a", "#b03030", "#f6dcd8"
LINES = {
    "recursive": ("#2b5c8a", "o", "K = 8 steps, carry kept"),
    "new-puzzles": ("#8a8a8a", "s", "K = 1, 8 times as many puzzles"),
    "same-puzzles": ("#c4743a", "^", "K = 1, the same puzzles"),
}


def main() -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, default=BUNDLE)
    parser.add_argument("--results", type=Path, default=HERE / "results.json")
    parser.add_argument("--out", type=Path, default=PICTURE)
    arguments = parser.parse_args()
    puzzle, target, steps = find_example(trm_edge.load(arguments.bundle, backend="fused"))
    plt.rcParams.update({"font.family": "DejaVu Sans", "font.size": 11})
    figure = plt.figure(figsize=(11, 4.8), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(1.32, 1), wspace=0.04)
    left.suptitle("An unseen puzzle, as the compiled engine fills it in", fontsize=12)
    for axes, k in zip(left.subplots(2, 3).flat, SHOWN, strict=True):
        draw_board(axes, k, puzzle, target, steps[k - 1] if k else puzzle)
    draw_rates(right.subplots(), json.loads(arguments.results.read_text()))
    arguments.out.parent.mkdir(exist_ok=True)
    figure.savefig(arguments.out, dpi=150)
    print(f"{arguments.out}: {arguments.out.stat().st_size:,} bytes")


def find_example(refiner: trm_edge.Refiner) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the first test puzzle that every board of the picture improves, with its solution and its steps.

    Most puzzles are solved sooner. One that starts far off and takes more than 6 steps shows what each of them does.
    """
    for puzzle, target in zip(*puzzles.make_split(0, 2000, seed=5)["test"], strict=True):
        steps = refiner.refine(puzzle, steps=SHOWN[-1], trajectory=True).trajectory
        assert steps is not None
        wrong = (steps[[k - 1 for k in SHOWN[1:]]] != target).sum(axis=1)
        if wrong[0] >= 10 and wrong[-1] == 0 and (np.diff(wrong) < 0).all():
            return puzzle, target, steps
    raise SystemExit("no puzzle among 2,000 starts far off and gets better with every board of the picture")


def draw_board(axes: Any, k: int, puzzle: np.ndarray, target: np.ndarray, answer: np.ndarray) -> None:
    """Draw the answer of step ``k``: givens in bold, wrong cells shaded."""
    for cell, (given, right, digit) in enumerate(zip(puzzle, target, answer, strict=True)):
        row, column = divmod(cell, 6)
        wrong = digit not in (0, right)
        if wrong:
            axes.add_patch(plt.Rectangle((column, row), 1, 1, color=WRONG_CELL, lw=0))
        if digit:
            colour = GIVEN if given else WRONG if wrong else RIGHT
            weight = "bold" if given else "normal"
            style = {"ha": "center", "va": "center_baseline", "fontsize": 13}
            axes.text(column + 0.5, row + 0.52, str(digit), color=colour, weight=weight, **style)
    for line in range(7):
        axes.plot([0, 6], [line, line], color="#555555", lw=1.5 if line % 2 == 0 else 0.4, solid_capstyle="projecting")
        axes.plot([line, line], [0, 6], color="#555555", lw=1.5 if line % 3 == 0 else 0.4, solid_capstyle="projecting")
    count = int((answer != target).sum())
    note = f"{int((puzzle > 0).sum())} givens" if k == 0 else "solved" if count == 0 else f"{count} wrong"
    axes.set_title(f"k = {k}:  {note}", fontsize=11)
    axes.set_xlim(-0.05, 6.05)
    axes.set_ylim(6.05, -0.05)
    axes.set_aspect("equal")
    axes.axis("off")


def draw_rates(axes: Any, results: dict[str, Any]) -> None:
    """Exact-solve rate by step with its interval: a colour a kind of run, a line a seed.

    The axis is logarithmic in what is left unsolved, as all runs crowd near 100 %.
    """
    for kind, (colour, marker, label) in LINES.items():
        for number, run in enumerate(run for run in results["runs"] if run["kind"] == kind):
            columns = ([entry[name] for entry in run["by_step"]] for name in ("rate", "low", "high"))
            rest, most, least = (100 * (1 - np.array(column)) for column in columns)
            steps = np.arange(1, len(rest) + 1)
            axes.fill_between(steps, least, most, color=colour, alpha=0.18, lw=0)
            style = {"color": colour, "ms": 5, "lw": 1.5, "mfc": "white" if number else colour}
            axes.plot(steps, rest, f"{marker}-", label=None if number else label, **style)
    axes.set_yscale("log")
    axes.set_ylim(100, 0.5)
    solved = (0, 50, 80, 90, 95, 98, 99)
    axes.set_yticks([100 - rate for rate in solved], [str(rate) for rate in solved])
    axes.yaxis.set_minor_locator(matplotlib.ticker.NullLocator())
    axes.set_xlim(0.5, 16.5)
    axes.set_xticks([1, 2, 4, 6, 8, 10, 12, 14, 16])
    axes.set_xlabel("refinement step k")
    axes.set_ylabel("solved exactly, %, with 95 % intervals")
    count, updates = results["data"]["test"]["puzzles"], results["runs"][0]["weight_updates"]
    axes.set_title(f"{count:,} unseen puzzles; two seeds a colour,\n{updates:,} weight updates each", fontsize=12)
    axes.grid(axis="y", lw=0.4)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=10, loc="lower right", title="trained with", alignment="left")


if __name__ == "__main__":
    main()
