"""The command ``trm-edge export SRC DST``; what happens follows from DST's suffix."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from trm_edge.cli import add_command
from trm_edge.errors import TrmInputError
from trm_edge.graph import LOOPS


def register(commands: Any) -> None:
    """Add the command to the command line; called through the entry point group ``trm_edge.commands``."""
    parser = add_command(
        commands,
        "export",
        _run,
        "turn a checkpoint into a bundle, or a bundle into an ONNX graph",
        "What happens follows from DST's suffix.\n\n"
        "  trm-edge export head.pt head.trm                  a checkpoint of trm_edge, golden vectors included\n"
        "  trm-edge export step_0 head.trm --official all_config.yaml --dataset dataset.json\n"
        "                                                    a checkpoint of the official TRM trainer\n"
        "  trm-edge export head.trm head.onnx --loop unrolled --steps 4\n"
        "  trm-edge export head.trm head.onnx --loop onnx-loop   the number of steps is an input\n"
        "  trm-edge export head.trm head.onnx --loop step        one step; the host keeps the carry\n\n"
        "A graph of a calibrated bundle holds its scales as Q/DQ: scheme static in every form, static-per-step in the\n"
        "unrolled one, dynamic in none. bf16 matrices round their operands and multiply as floats.\n\n"
        "Needs pip install 'trm-edge[export]'.",
    )
    parser.add_argument("src", type=Path, help="a checkpoint (any name) or, for .onnx, a .trm bundle")
    parser.add_argument("dst", type=Path, help="a .trm or .onnx file, written atomically")
    parser.add_argument("--official", type=Path, metavar="YAML", help="the official trainer's all_config.yaml")
    parser.add_argument("--dataset", type=Path, metavar="JSON", help="the official dataset's dataset.json")
    parser.add_argument("--loop", choices=LOOPS, help="form of the ONNX graph (default: unrolled)")
    parser.add_argument("--steps", type=int, default=4, help="steps of an unrolled graph, or of the golden vectors")
    parser.add_argument("--precision", choices=("fp32",), help="export a calibrated bundle as a float graph")
    parser.add_argument("--seed", type=int, default=0, help="seed of the golden vectors' inputs")


def _run(arguments: argparse.Namespace) -> int:
    suffix = arguments.dst.suffix
    if suffix == ".trm":
        if arguments.loop:
            raise TrmInputError("--loop: only for .onnx; a bundle has no form")
        if arguments.precision:
            raise TrmInputError("--precision: only for .onnx; trm-edge calibrate sets a bundle's precision")
        _export_bundle(arguments)
    elif suffix == ".onnx":
        if arguments.official or arguments.dataset:
            raise TrmInputError("--official, --dataset: only for .trm; export the checkpoint to a bundle first")
        _export_onnx(arguments)
    else:
        raise TrmInputError(f"{arguments.dst}: expected a name that ends in .trm or .onnx, got {suffix!r}")
    print(f"{arguments.dst}: {arguments.dst.stat().st_size:,} bytes; check it with: {_verify_command(arguments)}")
    return 0


def _export_bundle(arguments: argparse.Namespace) -> None:
    from .bundle_writer import export_bundle

    export_bundle(
        arguments.src,
        arguments.dst,
        official=arguments.official,
        dataset=arguments.dataset,
        steps=arguments.steps,
        seed=arguments.seed,
    )


def _export_onnx(arguments: argparse.Namespace) -> None:
    from .onnx_graph import export_onnx

    export_onnx(arguments.src, arguments.dst, arguments.loop or "unrolled", arguments.steps, arguments.precision)


def _verify_command(arguments: argparse.Namespace) -> str:
    golden = f" --golden {arguments.src}" if arguments.dst.suffix == ".onnx" else ""
    return f"trm-edge verify {arguments.dst}{golden}"
