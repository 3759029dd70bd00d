"""The picture of a calibration: error by step, what each matrix costs, and the task's metric by step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from trm_edge.extras import import_extra
from trm_edge.picture import pyplot, save

from .calibrate import Calibration

_EXACT, _ROUNDED, _LIMIT = "#222222", "#2b5c8a", "#c44e52"
_COLOURS = {"int8": _ROUNDED, "bf16": "#8da0cb", "fp32": "#bbbbbb"}


def draw(path: Path, result: Calibration) -> None:
    """Write the picture of ``result`` to ``path``; the suffix says which kind."""
    panels = 2 if result.metric_name is None else 3
    plt = pyplot("the picture of a calibration", "calib")
    figure, axes = plt.subplots(1, panels, figsize=(4.6 * panels, 4.2), layout="constrained")
    _draw_errors(axes[0], result)
    _draw_sensitivity(axes[1], result)
    if result.metric_name is not None:
        _draw_metric(axes[2], result)
    figure.suptitle(f"{result.method}: {result.measured} calls, {'passed' if result.passed else 'FAILED'}")
    save(figure, path, dpi=130)


def _draw_errors(axis: Any, result: Calibration) -> None:
    steps = np.arange(1, result.steps + 1)
    low, high = np.percentile(result.quantized.errors, [5, 95], axis=0)
    axis.fill_between(steps, low, high, color=_ROUNDED, alpha=0.2, lw=0, label="5 % to 95 % of the calls")
    axis.plot(steps, result.quantized.median, "o-", color=_ROUNDED, label="median")
    axis.plot(steps, result.quantized.largest, "^:", color=_ROUNDED, lw=1, label="largest")
    axis.axhline(result.max_error, color=_LIMIT, lw=1, ls="--", label="allowed (median)")
    scale = "log" if np.max(result.quantized.largest) > 0 else "linear"  # where nothing is rounded, nothing is off
    axis.set(yscale=scale, xlabel="refinement step", ylabel="relative error", title="error of the trajectory")
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.legend(fontsize=8, frameon=False)
    axis.grid(lw=0.3)


def _draw_sensitivity(axis: Any, result: Calibration) -> None:
    names = list(result.sensitivity)[::-1]
    precision = result.quantization.precision
    colours = [_COLOURS[precision[name]] for name in names]
    axis.barh([name.removeprefix("blocks.") for name in names], [result.sensitivity[n] for n in names], color=colours)
    axis.set(xlabel="error with this matrix alone in int8", title="sensitivity")
    patch = import_extra("matplotlib.patches", "the picture of a calibration", "calib").Patch
    kinds = [kind for kind in _COLOURS if kind in precision.values()]
    handles = [patch(color=_COLOURS[kind], label=f"kept in {kind}") for kind in kinds]
    axis.tick_params(axis="y", labelsize=8)
    axis.tick_params(axis="x", labelsize=8)
    axis.legend(handles=handles, fontsize=8, frameon=False, loc="lower right")
    axis.grid(axis="x", lw=0.3)


def _draw_metric(axis: Any, result: Calibration) -> None:
    steps = np.arange(1, result.steps + 1)
    axis.plot(steps, result.exact.metric, "o-", color=_EXACT, label="float")
    axis.plot(steps, result.quantized.metric, "s--", color=_ROUNDED, label=result.quantization.summary)
    axis.set(xlabel="refinement step", ylabel=result.metric_name, title="the task's metric")
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.legend(fontsize=8, frameon=False)
    axis.grid(lw=0.3)
