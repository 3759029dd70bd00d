"""The command ``trm-edge calibrate SRC.trm DST.trm``."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from trm_edge.bundle import read_bundle, write_bundle
from trm_edge.cli import add_command
from trm_edge.errors import TrmInputError
from trm_edge.files import check_folder, refuse_overwriting
from trm_edge.picture import check_picture
from trm_edge.plain import plain
from trm_edge.provenance import STEPS, refreshed_note, steps_to_run
from trm_edge.quantization import SCHEMES

from .calibrate import MAX_ERROR, MAX_LOSS, Calibration, calibrate
from .calls import golden_calls, load_calls, split_calls
from .observers import OBSERVERS

MAX_CALLS = 256  # of --data, unless --calls says otherwise

DETAILS = """\
Choose scales for int8 matrices from recorded calls, and report what rounding does to the answer of every step.

  trm-edge calibrate push.trm push-int8.trm --data push.npz
  trm-edge calibrate push.trm push-int8.trm --data push.npz --scheme static --observer mse --plot push.png
  trm-edge calibrate push.trm push-mixed.trm --data push.npz --max-error 0.01 --mixed

--scheme    dynamic: a scale per row, worked out by the engine; static: one a matrix input; static-per-step: one a
            matrix input and step.
--data      training data, an .npz or a folder of .safetensors shards, packed or not; with targets the task's own
            metric is measured too. Without it the bundle's golden vectors stand in, which are random.

Every second call gives the ranges, the others are measured; below four calls, all of them do both; dynamic measures
all. Where the error of the median call exceeds --max-error in any step, or the task's metric loses more than --max-loss
in the last one, nothing is written and the exit code is 1. Errors of actions are those of (y - mean) / std, relative to
the largest such value.
Needs pip install 'trm-edge[calib]' for the progress bar and the picture."""


def register(commands: Any) -> None:
    """Add the command to the command line; called through the entry point group ``trm_edge.commands``."""
    parser = add_command(commands, "calibrate", run, "choose int8 scales and report their error by step", DETAILS)
    parser.add_argument("src", type=Path, help="a .trm bundle")
    parser.add_argument("dst", type=Path, help="the calibrated .trm bundle, written atomically")
    parser.add_argument(
        "--data", type=Path, help="recorded calls, .npz or a folder of shards (default: the golden vectors)"
    )
    parser.add_argument("--scheme", choices=SCHEMES, default="dynamic", help="where scales come from")
    parser.add_argument(
        "--observer", choices=tuple(OBSERVERS), help="how a range becomes a scale, for static schemes (default: minmax)"
    )
    parser.add_argument(
        "--steps", type=int, help=f"steps that are calibrated and measured (default: as trained, else {STEPS})"
    )
    parser.add_argument("--calls", type=int, help=f"most calls to take from --data (default: {MAX_CALLS})")
    parser.add_argument("--max-error", type=float, default=MAX_ERROR, help=f"error allowed (default: {MAX_ERROR})")
    parser.add_argument("--max-loss", type=float, help=f"loss allowed of the task's metric (default: {MAX_LOSS})")
    parser.add_argument(
        "--mixed", action="store_true", help="keep sensitive matrices in bf16, then fp32, until it passes"
    )
    parser.add_argument("--force", action="store_true", help="write DST even where it does not pass")
    parser.add_argument("--plot", type=Path, help="picture to write, .png, .svg or .pdf")
    parser.add_argument("--json", action="store_true", help="print the report as JSON, and no progress")


def run(arguments: argparse.Namespace) -> int:
    """Calibrate and return the exit code."""
    _check(arguments)
    bundle = read_bundle(arguments.src)
    most = MAX_CALLS if arguments.calls is None else arguments.calls
    calls = load_calls(arguments.data, bundle.spec, most) if arguments.data else golden_calls(bundle)
    if arguments.max_loss is not None and not any(call.asks for call in split_calls(calls, arguments.scheme)[1]):
        raise TrmInputError(
            "--max-loss: of the task's metric, which needs calls with a target; those that are measured ask nothing"
        )
    if note := refreshed_note(bundle.provenance.get("features_fn")):
        print(note, file=sys.stderr)
    result = calibrate(
        bundle,
        calls,
        scheme=arguments.scheme,
        observer=arguments.observer or "minmax",
        steps=steps_to_run(arguments.steps, bundle.provenance.get("trained_steps")),
        max_error=arguments.max_error,
        max_loss=MAX_LOSS if arguments.max_loss is None else arguments.max_loss,
        mixed=arguments.mixed,
        progress=not arguments.json and sys.stderr.isatty(),
    )
    _keep(arguments, result)
    return 0 if result.passed else 1


def _check(arguments: argparse.Namespace) -> None:
    """Raise where an option is wrong or would be ignored, or nothing could be written, before the work."""
    for option, allowed in (("--max-error", arguments.max_error), ("--max-loss", arguments.max_loss)):
        if allowed is not None and not allowed >= 0:
            raise TrmInputError(f"{option}: expected >= 0, got {allowed}")
    if arguments.observer and arguments.scheme == "dynamic":
        raise TrmInputError("--observer: for --scheme static and static-per-step; dynamic finds its scales on the way")
    if arguments.calls is not None and arguments.data is None:
        raise TrmInputError("--calls: of --data, which is not given")
    if arguments.calls is not None and arguments.calls < 1:
        raise TrmInputError(f"--calls: expected at least 1, got {arguments.calls}")
    if arguments.dst.suffix != ".trm":
        raise TrmInputError(f"{arguments.dst}: expected a name that ends in .trm")
    refuse_overwriting(arguments.dst, arguments.src, arguments.data)
    check_folder(arguments.dst)
    if arguments.plot:
        check_picture(arguments.plot, "the picture of a calibration", "calib")
        refuse_overwriting(arguments.plot, arguments.src, arguments.data)


def _keep(arguments: argparse.Namespace, result: Calibration) -> None:
    """Write the bundle where it passed or is wanted anyway, and tell the result."""
    written = result.passed or arguments.force
    if written:
        write_bundle(arguments.dst, result.bundle)
    if arguments.json:
        print(json.dumps(report(result) | {"written": str(arguments.dst) if written else None}))
    else:
        print_report(result, arguments.src, random=arguments.data is None)
        print(f"{arguments.dst}: {'written' if written else 'not written; --mixed may help, --force writes it'}")
    if arguments.plot:  # last: nothing that goes wrong with a picture costs the calibration
        from .plot import draw

        draw(arguments.plot, result)


def report(result: Calibration) -> dict[str, Any]:
    """Return the report as plain values for JSON; what is not finite is None."""
    quantization = result.quantization
    facts: dict[str, Any] = {
        "scheme": quantization.scheme,
        "observer": result.observer,
        "steps": result.steps,
        "calls": {"calibrated": result.calibrated, "measured": result.measured},
        "held_out": result.held_out,
        "precision": dict(quantization.precision),
        "input_scale": {name: scale.tolist() for name, scale in quantization.input_scale.items()},
        "error": result.quantized.error,
        "median_error": result.quantized.median.tolist(),
        "largest_error": result.quantized.largest.tolist(),
        "sensitivity": result.sensitivity,
        "metric": result.metric_name,
        "metric_float": None if result.exact.metric is None else result.exact.metric.tolist(),
        "metric_quantized": None if result.quantized.metric is None else result.quantized.metric.tolist(),
        "metric_loss": result.metric_loss,
        "max_error": result.max_error,
        "max_loss": result.max_loss,
        "passed": result.passed,
    }
    cleaned: dict[str, Any] = plain(facts)
    return cleaned


def print_report(result: Calibration, name: Path, *, random: bool) -> None:
    """Print the trajectory report."""
    quantization, rounded, metric = result.quantization, result.quantized, result.metric_name or ""
    source = "held-out calls" if result.held_out else "calls, those that gave the ranges"
    if random:
        source = "random calls, those of the golden vectors"
    print(f"{name}: {result.method}, measured on {result.measured} {source}\n")
    if metric == "rms error":
        print("rms error: over all values of all chunks inside the limits, in units of std\n")
    print(f"step  median error  largest error{f'   {metric}: float  {quantization.summary}' if metric else ''}")
    for k in range(result.steps):
        line = f"{k + 1:>4}  {rounded.median[k]:12.2e}  {rounded.largest[k]:13.2e}"
        if result.exact.metric is not None and rounded.metric is not None:
            line += f"   {result.exact.metric[k]:{len(metric) + 7}.4f}  {rounded.metric[k]:.4f}"
        print(line)
    print("\nmatrix                          alone in int8  kept in")
    for matrix, error in result.sensitivity.items():
        print(f"{matrix:<30}  {error:13.2e}  {quantization.precision[matrix]}")
    if "int8" not in quantization.precision.values():
        print("no matrix is left in int8: the bundle will be no faster than in the precisions above")
    print(f"\nerror {rounded.error:.2e} (median call, worst step), allowed {result.max_error:.2e}")
    if result.metric_loss is not None:
        unit = "of the float model's" if metric == "rms error" else "of the calls that ask for something"
        change = f"{'better' if result.metric_loss < 0 else 'worse'} by {abs(result.metric_loss):.2%} {unit}"
        print(f"{metric} in step {result.steps}: {change}, allowed {result.max_loss:.2%} worse")
        if metric == "exact rate" and result.metric_loss > result.max_loss and result.max_loss < 1 / result.measured:
            share = f"one of {result.measured} calls is {1 / result.measured:.2%}"
            print(f"{share}: measure more (--data), or allow it (--max-loss)")
    print("passed" if result.passed else "FAILED: rounding moves the answers too far")
