"""The picture of ``trm-edge profile``: times as they are distributed, and every configuration under its roofline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..picture import pyplot, save, ticker
from .timing import Samples

_WHAT = ("the picture of a profile", "demo")
_COLOURS = (
    *("#2b5c8a", "#c44e52", "#4f9d69", "#8c6bb1", "#d98c2b", "#5aa9c7", "#7a7a7a", "#b0679a"),
    *("#14304d", "#7d1f23", "#1f5a36", "#4a2c73", "#8a4f06", "#1d6680", "#333333", "#6e2a5c"),
)
_FEW = 4  # configurations whose legend has room inside the axes


def draw(path: Path, report: Mapping[str, Any], samples: Mapping[str, Samples]) -> None:
    """Write the picture of a report to ``path``; ``samples`` are those of the closed loop, by configuration."""
    rows = [row for row in report["configurations"] if row.get("closed_loop")]
    figure: Any = pyplot(*_WHAT).figure(figsize=(12, 6), layout="constrained")
    left, right = figure.subfigures(1, 2)
    top, bottom = left.subplots(2, 1, sharex=True)
    model, times = report["model"], {row["name"]: samples[row["name"]].wall_us for row in rows}
    draw_histogram(top, times)
    name = Path(model["file"]).name.encode(errors="replace").decode()  # which may be bytes that are no text
    top.set_title(f"{name}, L={model['rows']}, K={model['steps']}: closed loop", fontsize=10, parse_math=False)
    draw_tail(bottom, times)
    draw_roofline(right.subplots(), [row for row in rows if row["roofline"]["copy_gb_per_s"]], report["peaks_gflops"])
    save(figure, path, dpi=150)


def draw_histogram(axes: Any, times: Mapping[str, Sequence[float]]) -> None:
    """Draw the number of calls by time, in bins that grow by a constant factor."""
    everything = np.concatenate([np.asarray(values, float) for values in times.values()]) if times else np.ones(1)
    edges = np.geomspace(everything.min() * 0.98, everything.max() * 1.02, 121)
    for colour, (name, values) in zip(_cycle(len(times)), times.items(), strict=True):
        axes.hist(values, edges, histtype="stepfilled", color=colour, alpha=0.55, label=name)
    axes.set_ylabel("calls")
    axes.grid(lw=0.3)
    if times:
        outside = {"loc": "lower center", "bbox_to_anchor": (0.5, 1.08), "ncols": 2}
        axes.legend(fontsize=8, frameon=False, **(outside if len(times) > _FEW else {}))


def draw_tail(axes: Any, times: Mapping[str, Sequence[float]]) -> None:
    """Draw the share of calls that took longer than a time: a tail is a line that falls late."""
    for colour, values in zip(_cycle(len(times)), times.values(), strict=True):
        ordered = np.sort(np.asarray(values, float))
        beyond = 1 - np.arange(len(ordered)) / max(1, len(ordered))
        axes.step(ordered, beyond, where="pre", color=colour, lw=1.6)
        axes.plot([float(np.median(ordered))], [0.5], "o", color=colour, ms=4)
    axes.set_xscale("log")
    axes.set_yscale("log")
    _plain_ticks(axes)
    axes.set_xlabel("time of a call, us (wall clock)")
    axes.set_ylabel("share that took longer")
    axes.grid(which="both", lw=0.3)


def draw_roofline(axes: Any, rows: Sequence[Mapping[str, Any]], peaks: Mapping[str, float | None]) -> None:
    """Draw GFLOP/s over FLOP per byte of weights, below the measured peak and copy bandwidth of each precision."""
    points = [(row, row["roofline"]) for row in rows]
    reach = [p["flop_per_weight_byte"] for _, p in points] or [1.0]
    ridges = [peak / p["copy_gb_per_s"] for row, p in points if (peak := peaks.get(row["precision"]))]
    x = np.geomspace(min([*reach, *ridges]) / 4, max([*reach, *ridges]) * 4, 200)
    styles = dict(zip(dict.fromkeys(row["precision"] for row, _ in points), ("-", "--", ":", "-."), strict=False))
    for precision, style in styles.items():
        point = next(p for row, p in points if row["precision"] == precision)
        peak = peaks.get(precision)
        copy = point["copy_gb_per_s"]
        label = f"{precision}: " + (f"{peak:.0f} GFLOP/s" if peak else "peak not measured")
        roof = np.minimum(peak or np.inf, copy * x)
        axes.plot(x, roof, style, color="#333333", lw=1.1, label=f"{label}, {copy:.0f} GB/s")
    for colour, (row, point) in zip(_cycle(len(points)), points, strict=True):
        share = point["share_of_peak"]
        label = row["name"] + ("" if share is None else f": {100 * share:.0f} %")
        marker = "o" if row["threads"] == 1 else "s"
        axes.plot([point["flop_per_weight_byte"]], [point["gflops"]], marker, color=colour, ms=7, label=label)
    axes.set_xscale("log")
    axes.set_yscale("log")
    reached = [p["gflops"] for _, p in points] or [1.0]
    axes.set_ylim(min(reached) / 20, max([*reached, *(peak for peak in peaks.values() if peak)]) * 3)  # legend below
    axes.set_xlim(x[0], x[-1])
    axes.set_xlabel("FLOP per byte of weights (read once per evaluation of net)")
    axes.set_ylabel("GFLOP/s")
    axes.set_title("roofline of one core, measured in the same run", fontsize=10)
    axes.grid(which="both", lw=0.3)
    below = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.1), "ncols": 2}
    if points:
        axes.legend(fontsize=8, frameon=False, **(below if len(points) > _FEW else {"loc": "lower right"}))


def _cycle(count: int) -> list[str]:
    return [_COLOURS[i % len(_COLOURS)] for i in range(count)]


def _plain_ticks(axes: Any) -> None:
    """Write plain numbers on a logarithmic axis, also within a decade, as many as there is room for."""
    ticks, axis = ticker(*_WHAT), axes.xaxis
    least, most = axes.get_xlim()
    axis.set_major_locator(ticks.LogLocator(subs=(1.0, 2.0, 5.0) if most < 300 * least else (1.0,)))
    axis.set_major_formatter(ticks.FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(ticks.NullFormatter())
