"""The picture of ``latency.py``: median time over L, a panel for every precision and number of threads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trm_edge.picture import pyplot, save

COLOURS = {"fused": "#2b5c8a", "onnxruntime": "#c44e52", "openvino": "#4f9d69", "torch": "#8c6bb1"}


def draw(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write the picture of a report's rows to ``path``."""
    timed = [row for row in rows if "closed_loop" in row]
    precisions = list(dict.fromkeys(row["precision"] for row in timed))
    threads = sorted({row["threads"] for row in timed})
    if not timed:
        return
    figure, panels = pyplot("the picture of the latencies", "bench").subplots(
        len(threads),
        len(precisions),
        figsize=(4 * len(precisions), 3.4 * len(threads)),
        squeeze=False,
        sharex=True,
        sharey=True,
        layout="constrained",
    )
    for i, count in enumerate(threads):
        for j, precision in enumerate(precisions):
            axes = panels[i][j]
            own = [row for row in timed if (row["threads"], row["precision"]) == (count, precision)]
            _panel(axes, own)
            axes.set_title(f"{precision}, {count} thread{'s' if count > 1 else ''}", fontsize=10)
    for axes in panels[-1]:
        axes.set_xlabel("rows L")
    for axes in panels[:, 0]:
        axes.set_ylabel("median time of a refinement, us")
    save(figure, path, dpi=150)


def _panel(axes: Any, rows: list[dict[str, Any]]) -> None:
    import matplotlib.ticker as ticker

    sizes = sorted({row["rows"] for row in rows})
    for peer in dict.fromkeys(row["backend"] for row in rows):
        own = sorted((row for row in rows if row["backend"] == peer), key=lambda row: row["rows"])
        x, y = [row["rows"] for row in own], [row["closed_loop"]["p50_us"] for row in own]
        axes.plot(x, y, "o-", color=COLOURS.get(peer, "#7a7a7a"), ms=4, lw=1.5, label=peer)
        if peer == "fused":
            for row, left, low in zip(own, x, y, strict=True):
                share = row["roofline"]["share_of_peak"]
                if share is not None:
                    axes.annotate(
                        f"{100 * share:.0f} %",
                        (left, low),
                        (0, -11),
                        textcoords="offset points",
                        fontsize=7,
                        ha="center",
                    )
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(sizes)
    axes.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
    axes.grid(which="both", lw=0.3)
    axes.legend(fontsize=8, frameon=False)
