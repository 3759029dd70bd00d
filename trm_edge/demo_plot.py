"""The picture of ``trm-edge demo``: error by step, beside one chunk as the expert, the base and the head see it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .inputs import Array
from .picture import pyplot, save

if TYPE_CHECKING:
    from .demo import Row

_WHAT = ("the picture of the demo", "demo")
_DOF = ("hand x", "hand y", "hand z", "gripper")
_EXPERT, _DRAFT, _HEAD = "#222222", "#c44e52", "#2b5c8a"


def draw(path: Path, rows: list[Row], answers: dict[str, Array], recorded: dict[str, Array]) -> None:
    """Write the picture of a demo run to ``path``."""
    figure: Any = pyplot(*_WHAT).figure(figsize=(11.5, 4.8), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(1, 1.55))
    _draw_error(left.subplots(), rows, f"{len(recorded['x'])} control steps, 95 % intervals")
    _draw_chunk(right, answers, recorded)
    save(figure, path, dpi=150)


def _draw_error(axes: Any, rows: list[Row], title: str) -> None:
    """Draw the RMSE by step with its interval; step 0 is the draft."""
    for projected, colour, marker, label in ((False, "#8da0cb", "o", "as decoded"), (True, _HEAD, "s", "projected")):
        chosen = [row for row in rows if row.step is not None and row.projected == projected]
        step = np.array([row.step for row in chosen]) + (0.06 if projected else -0.06)
        value, low, high = np.array([row.error for row in chosen]).T
        axes.errorbar(step, value, (value - low, high - value), fmt=f"{marker}-", color=colour, capsize=3, label=label)
    steps = sorted({row.step for row in rows if row.step is not None})
    axes.set_xticks(steps, ["draft", *map(str, steps[1:])])
    axes.set_ylim(bottom=0)
    axes.set_xlabel("refinement step")
    axes.set_ylabel("RMSE to the expert's chunk, action units")
    axes.set_title(title, fontsize=10)
    axes.grid(axis="y", lw=0.4)
    axes.legend(frameon=False, fontsize=9)


def _draw_chunk(figure: Any, answers: dict[str, Array], recorded: dict[str, Array]) -> None:
    """Draw one control step: the expert's chunk, the draft, every step, and the last one projected."""
    i = typical_step(answers, recorded)
    raw, final = answers["raw"][:, i], answers["projected"][-1, i]
    ticks = np.arange(len(final) + 1)
    figure.suptitle(
        f"One chunk, of median gain: {recorded['tasks'][recorded['task'][i]]}, age of the draft {recorded['age'][i]}",
        fontsize=10,
    )
    panels, colours = figure.subplots(2, 2, sharex=True), pyplot(*_WHAT).get_cmap("viridis")
    for d, axes in enumerate(panels.flat):
        start = recorded["last_action"][i, d]
        axes.plot(ticks, [start, *recorded["target"][i, :, d]], color=_EXPERT, lw=3, alpha=0.8, label="expert")
        axes.plot(ticks, [start, *raw[0, :, d]], "o--", color=_DRAFT, ms=3, lw=1.2, label="draft")
        for k in range(1, len(raw)):
            colour = colours(0.85 * (k - 1) / max(1, len(raw) - 2))
            axes.plot(ticks, [start, *raw[k, :, d]], color=colour, lw=1.2, label=f"step {k}")
        axes.plot(ticks, [start, *final[:, d]], "s", color=_HEAD, ms=4, label=f"step {len(raw) - 1}, projected")
        low, high = axes.get_ylim()
        middle, half = (low + high) / 2, max(0.3, (high - low) / 2)  # no panel zooms into next to nothing
        axes.set_ylim(middle - half, middle + half)
        axes.set_title(_DOF[d] if d < len(_DOF) else f"dof {d}", fontsize=9)
        axes.grid(lw=0.3)
    for axes in panels[-1]:
        axes.set_xlabel("tick (0: the last action)")
    for axes in panels[:, 0]:
        axes.set_ylabel("action", fontsize=9)
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False, fontsize=8)


def typical_step(answers: dict[str, Array], recorded: dict[str, Array]) -> int:
    """Return the control step that is drawn: of those where the expert moves most, the one with the median gain.

    The gain is that of the last step on the draft, both projected, so that nobody picks the prettiest.
    """
    target = recorded["target"]
    before, after = (np.sqrt(((answers["projected"][k] - target) ** 2).mean((1, 2))) for k in (0, -1))
    motion = np.ptp(target, axis=1).mean(axis=1)
    moving = np.flatnonzero(motion >= np.quantile(motion, 0.75))
    return int(moving[np.argsort((before - after)[moving])[len(moving) // 2]])
