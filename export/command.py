"""The command ``trm-edge export SRC DST``; what happens follows from DST's suffix."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from trm_edge.bundle import Bundle, read_bundle
from trm_edge.cli import add_command
from trm_edge.errors import TrmInputError
from trm_edge.files import check_folder, refuse_overwriting
from trm_edge.graph import GRAPH_PRECISIONS, LOOPS
from trm_edge.limits import missing_limits, missing_text
from trm_edge.provenance import STEPS, refreshed_note

_ENGINE_LOOPS = ("unrolled", "loop", "onnx-loop")


def register(commands: Any) -> None:
    """Add the command to the command line; called through the entry point group ``trm_edge.commands``."""
    parser = add_command(
        commands,
        "export",
        _run,
        "turn a checkpoint into a bundle, or a bundle into an ONNX graph or a TensorRT engine",
        "What happens follows from DST's suffix.\n\n"
        "  trm-edge export head.pt head.trm                  a checkpoint of trm_edge, golden vectors included\n"
        "  trm-edge export step_0 head.trm --official all_config.yaml --dataset dataset.json\n"
        "                                                    a checkpoint of the official TRM trainer\n"
        "  trm-edge export head.trm head.onnx --loop unrolled --steps 4\n"
        "  trm-edge export head.trm head.onnx --loop onnx-loop   the number of steps is an input\n"
        "  trm-edge export head.trm head.onnx --loop step        one step; the host keeps the carry\n"
        "  trm-edge export head.trm head.engine --loop loop --precision fp16 --gpu sm86,sm89,sm120\n\n"
        "A graph of a calibrated bundle holds its scales as Q/DQ: scheme static in every form, static-per-step in the\n"
        "unrolled one, dynamic in none. bf16 matrices round their operands and multiply as floats.\n\n"
        "Unrolled for few steps, onnx-loop for many: ONNX Runtime takes long to load many unrolled steps.\n\n"
        "An engine has a manifest beside it, head.engine.json, without which it is not loaded. Its form is unrolled,\n"
        "loop (TensorRT's own, the number of steps is an input) or onnx-loop (the same from the ONNX graph). TensorRT\n"
        "for RTX builds for several GPUs, and without one; the TensorRT of a Jetson builds for its own GPU.\n\n"
        "Needs pip install 'trm-edge[export]', and for engines 'trm-edge[tensorrt]'.",
    )
    parser.add_argument("src", type=Path, help="a checkpoint (any name) or, for .onnx and .engine, a .trm bundle")
    parser.add_argument("dst", type=Path, help="a .trm, .onnx or .engine file, written atomically")
    parser.add_argument("--official", type=Path, metavar="YAML", help="the official trainer's all_config.yaml")
    parser.add_argument("--dataset", type=Path, metavar="JSON", help="the official dataset's dataset.json")
    loops = tuple(dict.fromkeys((*LOOPS, *_ENGINE_LOOPS)))
    parser.add_argument("--loop", choices=loops, help="form of the graph or engine (default: unrolled)")
    parser.add_argument(
        "--steps",
        type=int,
        help=f"of an unrolled graph (default: as trained, else {STEPS}), or of the golden vectors (default: {STEPS})",
    )
    parser.add_argument(
        "--precision",
        choices=GRAPH_PRECISIONS,
        help="of an engine (default: as calibrated); fp32: export a calibrated bundle as a float graph",
    )
    parser.add_argument("--seed", type=int, help=".trm: seed of the golden vectors' inputs (default: 0)")
    parser.add_argument("--gpu", metavar="NAMES", help=".engine: GPUs as sm86,sm89,sm120, or what of them can run it")
    parser.add_argument("--context", metavar="LENGTHS", help=".engine: an optimisation profile up to each, as 4,16,64")
    parser.add_argument(
        "--strip-weights", action="store_true", default=None, help=".engine: leave the block matrices out (needs a GPU)"
    )


def _run(arguments: argparse.Namespace) -> int:
    suffix = arguments.dst.suffix
    if suffix == ".trm":
        _refuse(arguments, "only for .onnx and .engine; a bundle has no form", "loop")
        _refuse(arguments, "only for .onnx and .engine; trm-edge calibrate sets a bundle's precision", "precision")
    if suffix != ".trm":
        _refuse(arguments, "only for .trm; export the checkpoint to a bundle first", "official", "dataset")
        _refuse(arguments, "only for .trm, whose golden vectors it draws", "seed")
        if arguments.loop not in (None, "unrolled"):
            _refuse(arguments, f"only for unrolled graphs; {arguments.loop} runs any number of them", "steps")
    if suffix != ".engine":
        _refuse(arguments, "only for .engine", "gpu", "context", "strip_weights")
    refuse_overwriting(arguments.dst, arguments.src)
    check_folder(arguments.dst)
    if suffix == ".trm":
        _say_limits(_export_bundle(arguments))
    elif suffix in (".onnx", ".engine"):
        note = refreshed_note(read_bundle(arguments.src).provenance.get("features_fn"))
        if note and arguments.loop != "step":
            print(f"{note}, of the bundle or of a graph of --loop step", file=sys.stderr)
        (_export_onnx if suffix == ".onnx" else _export_engine)(arguments)
    else:
        raise TrmInputError(f"{arguments.dst}: expected a name that ends in .trm, .onnx or .engine, got {suffix!r}")
    print(f"{arguments.dst}: {arguments.dst.stat().st_size:,} bytes; {_how_to_check(arguments)}")
    return 0


def _refuse(arguments: argparse.Namespace, why: str, *names: str) -> None:
    given = [f"--{name.replace('_', '-')}" for name in names if getattr(arguments, name) is not None]
    if given:
        raise TrmInputError(f"{', '.join(given)}: {why}")


def _say_limits(bundle: Bundle) -> None:
    """Say which limits an actions head lacks: what it answers is then not bounded there."""
    missing = missing_limits(bundle.tensors) if bundle.spec.answer == "actions" else ()
    if missing:
        print(f"limits: {missing_text(missing)}")


def _export_bundle(arguments: argparse.Namespace) -> Bundle:
    from .bundle_writer import export_bundle

    return export_bundle(
        arguments.src,
        arguments.dst,
        official=arguments.official,
        dataset=arguments.dataset,
        steps=STEPS if arguments.steps is None else arguments.steps,
        seed=arguments.seed or 0,
    )


def _export_onnx(arguments: argparse.Namespace) -> None:
    from .onnx_graph import export_onnx

    export_onnx(arguments.src, arguments.dst, arguments.loop or "unrolled", arguments.steps, arguments.precision)


def _export_engine(arguments: argparse.Namespace) -> None:
    from .tensorrt import export_engine

    built = export_engine(
        arguments.src,
        arguments.dst,
        arguments.loop or "unrolled",
        arguments.steps,
        arguments.precision,
        gpus=arguments.gpu.split(",") if arguments.gpu else (),
        context=_lengths(arguments.context) if arguments.context else (),
        strip_weights=bool(arguments.strip_weights),
    )
    manifest = built.manifest
    library, gpus = f"{manifest.library} {manifest.library_version}", ", ".join(manifest.gpus)
    print(f"built by {library} in {built.seconds:.1f} s for {gpus}, {manifest.precision}")
    total: Counter[str] = sum(built.products.values(), Counter())
    formats = ", ".join(f"{count} in {name}" for name, count in total.most_common()) or "it does not say"
    print(f"products of block matrices, by the engine's own list of layers: {formats}")


def _lengths(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise TrmInputError(f"--context: expected whole numbers as 4,16,64, got {text!r}") from None


def _how_to_check(arguments: argparse.Namespace) -> str:
    where = " (on its GPU)" if arguments.dst.suffix == ".engine" else ""
    if arguments.precision == "fp8":
        return f"verify has no oracle of fp8; compare its answers with the bundle's by trm-edge refine{where}"
    dst, src = (shlex.quote(str(path)) for path in (arguments.dst, arguments.src))
    golden = "" if arguments.dst.suffix == ".trm" else f" --golden {src}"
    return f"check it with: trm-edge verify {dst}{golden}{where}"
