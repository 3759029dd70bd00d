"""The command line: ``trm-edge inspect | verify | refine | profile | demo``, and commands that other folders register.

Exit codes: 0 ok, 1 the check failed, 2 bad usage or input, 130 interrupted, 141 nobody reads the output any more.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
from collections.abc import Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import numpy as np

from . import __version__, demo
from .backends import NAMES
from .bundle import Bundle, read_bundle
from .engine import read_engine
from .errors import TrmError, TrmInputError
from .files import check_folder, read_call, refuse_overwriting, write_atomically
from .golden import golden_arguments, verify
from .inputs import Array
from .limits import Limits, missing_limits, missing_text
from .plain import plain
from .profiling import command as profiling
from .profiling.timing import latency_summary, latency_text
from .provenance import STEPS, refreshed_note, steps_to_run
from .quantization import PRECISIONS, Quantization
from .refinement import Refinement, confidence_of
from .refiner import Refiner, load
from .shipped import example

EXAMPLE = example()
"""The bundle that ships with the package; commands use it where none is named."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # what its encoding lacks, a file's name that is no text
    try:
        return _run(argv)
    except KeyboardInterrupt:  # before there was a command
        print("trm-edge: interrupted", file=sys.stderr)
        return 130


def _run(argv: Sequence[str] | None) -> int:
    parser = _parser()
    arguments, more = parser.parse_known_args(argv)
    if more and (arguments.command != "demo" or any(word.startswith("-") for word in more)):
        parser.error(f"unrecognized arguments: {' '.join(more)}")
    if more:
        arguments.text += more  # of a sentence behind an option
    try:
        code = int(arguments.run(arguments))
        if sys.stdout is not None:  # which it is where the caller has closed it
            sys.stdout.flush()  # a full disk or a closed pipe is met here, not at exit
        return code
    except TrmError as error:
        print(f"trm-edge {arguments.command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"trm-edge {arguments.command}: interrupted", file=sys.stderr)
        return 130
    except OSError as error:
        if error.filename is not None:  # a file that went away meanwhile
            print(f"trm-edge {arguments.command}: {error.filename}: {error.strerror}", file=sys.stderr)
            return 2
        # Of standard output, which has no name here.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is left in the buffer
        if isinstance(error, BrokenPipeError):
            return 141  # as a shell says it of who is stopped by a reader that has gone
        print(f"trm-edge {arguments.command}: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="trm-edge",
        description="Export, check and run Tiny Recursive Models.",
        epilog="A first look: `trm-edge verify` and `trm-edge refine` use a bundle that ships with the package.",
    )
    parser.add_argument("--version", action="version", version=f"trm-edge {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_inspect(commands)
    _add_verify(commands)
    _add_refine(commands)
    _add_profile(commands)
    _add_demo(commands)
    for entry in sorted(entry_points(group="trm_edge.commands"), key=lambda e: e.name):
        try:
            entry.load()(commands)
        except Exception as error:  # another package's, which the commands of this one do not need
            print(f"trm-edge: command {entry.name} is left out: {error!r}", file=sys.stderr)
    return parser


def add_command(commands: Any, name: str, run: Any, summary: str, details: str) -> argparse.ArgumentParser:
    """Add a subcommand whose ``run(arguments) -> exit code`` is called with the parsed arguments."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=summary, description=details, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.set_defaults(run=run)
    return parser


def _add_bundle(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", nargs="?", type=Path, default=EXAMPLE, help="a .trm file (default: the shipped one)")
    parser.add_argument("--json", action="store_true", help="print JSON for programs")


def _add_backend(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--backend", default="auto", choices=("auto", *NAMES), help="what runs the model")
    parser.add_argument("--precision", help="fp32, bf16, int8, fp16, w8a16, ... (default: as calibrated, else fp32)")
    parser.add_argument("--threads", type=int, default=1, help="threads of the engine (default: 1)")


def _load(arguments: argparse.Namespace) -> Refiner:
    """Return the model that the arguments of ``_add_backend`` name."""
    return load(arguments.bundle, backend=arguments.backend, precision=arguments.precision, threads=arguments.threads)


def _add_inspect(commands: Any) -> None:
    parser = add_command(
        commands,
        "inspect",
        _inspect,
        "say what a bundle or a TensorRT engine holds",
        "Print a bundle's model, sizes, limits, calibration and provenance, after checking the whole file.\n"
        "Of an .engine print what the manifest beside it says, after checking that it is of that engine.\n\n"
        "  trm-edge inspect push.trm\n  trm-edge inspect push.trm --json | jq .spec\n  trm-edge inspect push.engine",
    )
    _add_bundle(parser)


def _inspect(arguments: argparse.Namespace) -> int:
    if arguments.bundle.suffix == ".engine":
        return _inspect_engine(arguments)
    if arguments.bundle.suffix == ".onnx":
        raise TrmInputError(
            f"{arguments.bundle}: an ONNX graph, and inspect reads bundles and engines; "
            f"check it with: trm-edge verify {arguments.bundle} --golden BUNDLE.trm"
        )
    bundle = read_bundle(arguments.bundle)
    facts = {
        "file": str(arguments.bundle),
        "bytes": arguments.bundle.stat().st_size,
        "sha256": bundle.sha256,
        "parameters": bundle.spec.parameter_count(),
        "golden_cases": len(bundle.golden),
        "spec": bundle.spec.to_dict(),
        "limits": {n: bundle.tensors[n].tolist() for n in bundle.tensors if n.startswith("limits.")},
        "provenance": dict(bundle.provenance),
        "quantization": None if bundle.quantization is None else vars(bundle.quantization),
    }
    if arguments.json:
        print(json.dumps(plain(facts), indent=2))
        return 0
    spec = bundle.spec
    print(f"{facts['file']}: {spec.answer} head, {facts['parameters']:,} parameters, {facts['bytes']:,} bytes")
    print(f"  network     {spec.num_layers} x {spec.mixer}, D={spec.hidden_size}, I={spec.inner_size}")
    print(f"  recursion   {spec.h_cycles} x ({spec.l_cycles} + 1) evaluations of net a step")
    print(f"  rows        {spec.registers} registers, {spec.answer_rows} answer, {spec.max_context} context")
    left_out = {"answer", "num_layers", "mixer", "hidden_size", "inner_size"}  # said above, or of no use to this head
    left_out |= set() if spec.answer == "actions" else {"draft"}
    left_out |= set() if spec.positions == "rope" else {"rope_theta"}
    for name, value in spec.to_dict().items():
        if value not in (0, "none") and name not in left_out:
            print(f"  {name:<18} {value}")
    for name, values in facts["limits"].items():
        print(f"  {name:<18} {np.array2string(np.asarray(values), precision=4, threshold=8)}")
    if bundle.quantization is not None:
        print(f"  quantization {_described(bundle.quantization)}")
    for name, text in bundle.provenance.items():
        print(f"  provenance.{name}: {text}")
    print(f"  golden cases {len(bundle.golden)}, sha256 {bundle.sha256}")
    return 0


def _inspect_engine(arguments: argparse.Namespace) -> int:
    manifest, _ = read_engine(arguments.bundle)
    graph = manifest.graph
    facts = {
        "file": str(arguments.bundle),
        "bytes": manifest.engine_bytes,
        "sha256": manifest.engine_sha256,
        "library": manifest.library,
        "library_version": manifest.library_version,
        "gpus": list(manifest.gpus),
        "precision": manifest.precision,
        "weights": manifest.weights,
        "loop": graph.loop,
        "steps": graph.steps if graph.loop == "unrolled" else None,
        "profiles": [{name: list(sizes) for name, sizes in profile.items()} for profile in manifest.profiles],
        "bundle_sha256": graph.bundle_sha256,
        "spec": graph.spec.to_dict(),
    }
    if arguments.json:
        print(json.dumps(plain(facts), indent=2))
        return 0
    steps = f"{graph.steps} steps, unrolled" if graph.loop == "unrolled" else f"any number of steps, {graph.loop}"
    print(f"{facts['file']}: {graph.spec.answer} head, {manifest.precision}, {steps}, {manifest.engine_bytes:,} bytes")
    print(f"  built by    {manifest.library} {manifest.library_version}, for {', '.join(manifest.gpus)}")
    print(f"  weights     {manifest.weights}")
    for number, profile in enumerate(manifest.profiles):
        sizes = ", ".join(f"{name} {least}..{most} (best {best})" for name, (least, best, most) in profile.items())
        print(f"  profile {number}   {sizes or 'no size varies'}")
    print(f"  of bundle   sha256 {graph.bundle_sha256}")
    print(f"  engine      sha256 {manifest.engine_sha256}")
    return 0


def _described(quantization: Quantization) -> str:
    """Say scheme and precisions; the matrices of the rarer precisions by name."""
    steps = f", {quantization.steps} steps" if quantization.scheme == "static-per-step" else ""
    groups = {precision: quantization.matrices(precision) for precision in PRECISIONS}
    most = max(groups, key=lambda precision: len(groups[precision]))
    parts = [f"{len(groups[most])} matrices {most}"]
    parts += [f"{precision}: {' '.join(names)}" for precision, names in groups.items() if names and precision != most]
    return f"{quantization.scheme}{steps}; {'; '.join(parts)}"


def _add_verify(commands: Any) -> None:
    parser = add_command(
        commands,
        "verify",
        _verify,
        "check this machine against the bundle's golden vectors",
        "Run the recorded inputs through a backend and compare every step with the float64 oracle's outputs that the\n"
        "bundle carries. Exit code 1 where a step is off by more than max(1e-5, 4 x the error of plain float32),\n"
        "or in int8 and bf16 by more than 1.5 x the largest error that rounding so causes in the oracle.\n\n"
        "  trm-edge verify push.trm\n"
        "  trm-edge verify push.trm --precision int8       as int8 would run it without a calibration\n"
        "  trm-edge verify push.onnx --golden push.trm     an exported graph against the bundle it came from\n"
        "  trm-edge verify push.engine --golden push.trm   a TensorRT engine, on its GPU",
    )
    _add_bundle(parser)
    _add_backend(parser)
    parser.add_argument("--golden", type=Path, help="bundle that holds the golden vectors (default: BUNDLE itself)")


def _verify(arguments: argparse.Namespace) -> int:
    if arguments.golden is None and arguments.bundle.suffix in (".onnx", ".engine"):
        raise TrmInputError(f"{arguments.bundle}: holds no golden vectors; name the bundle it came from with --golden")
    bundle = read_bundle(arguments.golden or arguments.bundle)
    if not bundle.golden:
        raise TrmInputError(f"{arguments.golden or arguments.bundle}: holds no golden vectors to check against")
    refiner = _load(arguments)
    if refiner.spec != bundle.spec:
        raise TrmInputError(f"--golden: {arguments.golden} is of another head, its spec is not {arguments.bundle}'s")
    checks = verify(refiner, bundle)
    passed = all(check.passed for check in checks)
    where = refiner.backend + (f" ({refiner.isa})" if refiner.isa else "")
    if arguments.json:
        rows = [{**vars(check), "passed": check.passed} for check in checks]
        print(json.dumps(plain({"backend": refiner.backend, "isa": refiner.isa, "passed": passed, "checks": rows})))
        return 0 if passed else 1
    print(f"{arguments.bundle} on {where}, {refiner.precision}")
    print("case  step  output      error      allowed  wrong")
    for check in checks:
        mark = "" if check.passed else "  FAILED"
        print(
            f"{check.case:>4}  {check.step:>4}  {check.output:<9}  {check.error:8.2e}  {check.tolerance:8.2e}  "
            f"{check.mismatches:>5}{mark}"
        )
    other = f"; are those of {arguments.golden} of other weights?" if arguments.golden else ""
    print("verified" if passed else f"FAILED: {where} does not reproduce the bundle's golden vectors here{other}")
    return 0 if passed else 1


def _add_refine(commands: Any) -> None:
    parser = add_command(
        commands,
        "refine",
        _refine,
        "refine one input and print the answer by step and the latency",
        "Refine the arrays of an .npz file (names as the arguments of Refiner.refine: x, y0, features, slots,\n"
        "candidates, mask, last_action, puzzle_id), or the bundle's first golden case where none is given.\n\n"
        "  trm-edge refine                                    the shipped example\n"
        "  trm-edge refine push.trm --input tick.npz --steps 4 --output answer.npz\n"
        "  trm-edge refine push.trm --repeat 10000            latency over many calls",
    )
    _add_bundle(parser)
    _add_backend(parser)
    parser.add_argument("--input", type=Path, help=".npz file with the arrays of one call")
    parser.add_argument("--steps", type=int, help=f"refinement steps (default: as trained, else {STEPS})")
    parser.add_argument("--halt", type=float, help="stop after the first step with this confidence, 0..1")
    parser.add_argument("--repeat", type=int, default=200, help="calls to time (default: 200)")
    parser.add_argument("--output", type=Path, help=".npz file to write y, trajectory, halt_logits and logits to")


def _refine(arguments: argparse.Namespace) -> int:
    if arguments.repeat < 1:
        raise TrmInputError(f"--repeat: expected at least 1, got {arguments.repeat}")
    if arguments.output:
        refuse_overwriting(arguments.output, arguments.input, arguments.bundle)
        check_folder(arguments.output)
    refiner = _load(arguments)
    call = read_call(arguments.input) if arguments.input else _first_golden(arguments.bundle)
    steps = steps_to_run(arguments.steps, refiner.provenance("trained_steps"), refiner.most_steps)
    if note := refreshed_note(refiner.provenance("features_fn")):
        print(note, file=sys.stderr)
    out = refiner.refine(**call, steps=steps, halt=arguments.halt, trajectory=True)
    times = [refiner.refine(**call, steps=steps, halt=arguments.halt).duration_us for _ in range(arguments.repeat)]
    latency = latency_summary(times)
    if arguments.output:
        _write_npz(arguments.output, out)
    if arguments.json:
        facts = out._asdict() | {
            "status": out.status.name,
            "backend": refiner.backend,
            "isa": refiner.isa,
            "latency": latency,
        }
        print(json.dumps(plain(facts)))
        return 0
    where = refiner.backend + (f" ({refiner.isa})" if refiner.isa else "")
    print(f"{refiner.spec.answer} head on {where}: status {out.status.name}, {out.steps_run} steps")
    _print_steps(call.get("y0"), out, refiner.limits)
    print(f"latency {latency_text(latency)}")
    return 0


def _add_profile(commands: Any) -> None:
    profiling.add_arguments(
        add_command(commands, "profile", profiling.run, profiling.SUMMARY, profiling.DETAILS), EXAMPLE
    )


def _add_demo(commands: Any) -> None:
    parser = add_command(
        commands,
        "demo",
        _demo,
        "refine action chunks recorded in a simulator, or turn sentences into function calls",
        "actions: refine stale chunks of a small policy, recorded in Meta-World, with the compiled engine; print\n"
        "error to the expert's, roughness and limit violations by step, with intervals and latency; draw a picture.\n"
        "slots: turn sentences into calls of Home Assistant functions, without a language model, step by step.\n\n"
        "  trm-edge demo\n"
        "  trm-edge demo actions --steps 4 --plot demo.png    the picture needs pip install 'trm-edge[demo]'\n"
        "  trm-edge demo slots dim the bedroom to 20 percent  without a sentence: type or pipe them, or see examples\n"
        "  trm-edge demo --json                               no picture unless --plot names one",
    )
    parser.add_argument("what", nargs="?", default="actions", choices=("actions", "slots"), help="kind of answer")
    parser.add_argument("text", nargs="*", help="slots: a sentence")
    parser.add_argument("--json", action="store_true", help="print JSON for programs")
    parser.add_argument("--steps", type=int, help=f"refinement steps (default: {demo.STEPS}; slots: 2)")
    parser.add_argument("--plot", type=Path, help=f"actions: picture to write (default: {demo.PLOT})")


def _demo(arguments: argparse.Namespace) -> int:
    if arguments.what == "slots":
        if arguments.plot is not None:
            raise TrmInputError("--plot: only for actions")
        from . import demo_slots  # whose imports the other commands need not wait for

        return demo_slots.run(arguments)
    if arguments.text:
        raise TrmInputError(f"expected no sentence for actions, got {arguments.text[0]!r}")
    return demo.run(arguments)


def _print_steps(draft: Array | None, out: Refinement, limits: Limits | None) -> None:
    """Print draft, each step's answer with its confidence and its move, and the final answer."""
    assert out.trajectory is not None
    previous = draft
    if draft is not None:
        print(f"  draft                                  {_brief(draft)}")
    for k, answer in enumerate(out.trajectory):
        moved = _moved(previous, answer)
        print(f"  step {k + 1:<3} confidence {confidence_of(out.halt_logits[k]):5.3f}  {moved:<13} {_brief(answer)}")
        previous = answer
    label = "answer"
    if limits is not None:
        missing = missing_limits({f"limits.{name}": values for name, values in limits._asdict().items()})
        label += f", limits: {missing_text(missing)}" if missing else ", limits applied"
    print(f"  {label:<38} {_brief(out.y)}")


def _moved(previous: Array | None, answer: Array) -> str:
    if previous is None or previous.shape != answer.shape:
        return ""
    if answer.dtype == np.float32:
        return f"moved {float(np.abs(answer - previous).max(initial=0.0)):.4f}"
    return f"changed {int((answer != previous).sum())}"


def _brief(values: Array) -> str:
    flat = values.reshape(-1)
    shown = " ".join(f"{v:.3f}" if values.dtype == np.float32 else str(v) for v in flat[:6])
    return f"[{shown}{' ...' if flat.size > 6 else ''}]"


def _first_golden(path: Path) -> dict[str, Any]:
    bundle: Bundle | None = None if path.suffix in (".onnx", ".engine") else read_bundle(path)
    if bundle is None or not bundle.golden:
        raise TrmInputError(f"{path}: holds no golden vectors; name the arrays of a call with --input FILE.npz")
    return golden_arguments(bundle.golden[0])


def _write_npz(path: Path, out: Refinement) -> None:
    arrays = {n: getattr(out, n) for n in ("y", "trajectory", "halt_logits", "logits") if getattr(out, n) is not None}
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    write_atomically(path, stream.getvalue())


if __name__ == "__main__":
    sys.exit(main())
