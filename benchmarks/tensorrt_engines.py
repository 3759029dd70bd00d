"""Build TensorRT-RTX engines, without a GPU, and print what comes out: build time, size, layers, number formats.

    python benchmarks/tensorrt_engines.py            unrolled K = 1..5 and both loops, in fp16, bf16 and int8; for sm86,
                                                     sm89 and sm120 in one engine, K = 1 and the loop for each alone too
    python benchmarks/tensorrt_engines.py --quick    three engines, for CI
    python benchmarks/tensorrt_engines.py --bundle head.trm --precision int8,fp8 --gpu sm89 --markdown

Heads are the shipped example, and random weights of the official size (D=512, H=8, I=1536); int8 and fp8 take their
scales from random calls, which is as good as any for what is shown here. Each engine is built once. Times are those of
the processor, graph and parser included, as the machine may do other things meanwhile. Nothing is run.

Needs pip install 'trm-edge[tensorrt]'. Ends with 1 where an engine cannot be built, or multiplies a block matrix in
another format than was asked for.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np

import trm_edge
from trm_edge.bundle import Bundle, read_bundle
from trm_edge.calib.calls import Call
from trm_edge.calib.collect import collect, input_scales
from trm_edge.engine import why_not
from trm_edge.errors import TrmError
from trm_edge.export import build_engine, build_onnx
from trm_edge.export.tensorrt import BuiltEngine
from trm_edge.golden import random_inputs
from trm_edge.inputs import check_inputs
from trm_edge.profiling import machine_facts
from trm_edge.quantization import Quantization, matrix_names
from trm_edge.spec import TrmSpec, identity_statistics

EXAMPLE = trm_edge.example()
GPUS = ("sm86", "sm89", "sm120")
FORMATS = {"fp32": "Float", "fp16": "Half", "bf16": "BFloat16", "int8": "Int8", "fp8": "FP8"}
CALLS = 2  # that scales are taken from


@dataclass(frozen=True)
class Case:
    """One engine to build."""

    head: str
    loop: str
    steps: int
    precision: str
    gpus: tuple[str, ...]


def main() -> int:
    """Build and print; return the exit code."""
    arguments = _arguments()
    heads = {name: _scaled(bundle) for name, bundle in _heads(arguments)}
    cases = _quick(next(iter(heads))) if arguments.quick else list(_cases(heads, arguments))
    library, facts = _library(), machine_facts()
    print(f"{library} on {facts['cpu']}, {len(cases)} engines")
    for name, bundle in heads.items():
        sizes = [build_onnx(replace(bundle, quantization=None), "unrolled", k).ByteSize() for k in range(1, 6)]
        growth = max(after / before - 1 for before, after in pairwise(sizes))
        loop = build_onnx(replace(bundle, quantization=None), "onnx-loop").ByteSize()
        print(
            f"{name}: {bundle.spec.parameter_count():,} parameters; ONNX unrolled K=1..5 {_list(sizes)} bytes, "
            f"at most {growth:.2%} more a step; onnx-loop {loop:,}"
        )
    print()
    _print_row(arguments, "head", "form", "precision", "GPUs", "CPU, s", "MB", "layers", "block products")
    if arguments.markdown:
        _print_row(arguments, *["---"] * 8)
    wrong = 0
    for case in cases:
        start = time.process_time()
        try:
            built = build_engine(heads[case.head], case.loop, case.steps, case.precision, gpus=case.gpus)
        except TrmError as error:
            wrong += 1
            _print_row(arguments, *_label(case), "-", "-", "-", f"FAILED: {error}")
            continue
        formats = sum(built.products.values(), Counter[str]())
        right = formats == {FORMATS[case.precision]: _block_products(heads[case.head].spec, case)}
        wrong += not right
        _print_row(
            arguments,
            *_label(case),
            *_measured(built, time.process_time() - start, formats),
            "" if right else "UNEXPECTED",
        )
    return 1 if wrong else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, help="build this head alone")
    parser.add_argument("--precision", default="fp16,bf16,int8", help="comma-separated (default: fp16,bf16,int8)")
    parser.add_argument("--gpu", default=",".join(GPUS), help="comma-separated: what one engine is for")
    parser.add_argument("--steps", default="1,2,3,4,5", help="K of the unrolled engines (default: 1,2,3,4,5)")
    parser.add_argument("--quick", action="store_true", help="three engines of the shipped example")
    parser.add_argument("--markdown", action="store_true", help="print a table of markdown")
    return parser.parse_args()


def _heads(arguments: argparse.Namespace) -> Iterator[tuple[str, Bundle]]:
    yield (arguments.bundle or EXAMPLE).stem, read_bundle(arguments.bundle or EXAMPLE)
    if not (arguments.bundle or arguments.quick):
        spec = TrmSpec(
            answer="actions",
            hidden_size=512,
            inner_size=1536,
            l_cycles=2,
            h_cycles=1,
            registers=1,
            answer_rows=8,
            num_heads=8,
            positions="rope",
            max_context=23,
            context_size=512,
            dof=7,
        )
        yield "official size", Bundle(spec, _random_weights(spec))


def _random_weights(spec: TrmSpec) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    shapes = spec.tensor_shapes().items()
    drawn = {n: (0.3 * rng.standard_normal(s) / np.sqrt(s[-1])).astype(np.float32) for n, s in shapes}
    return drawn | identity_statistics(spec)


def _scaled(bundle: Bundle) -> Bundle:
    """Return the bundle with static scales, from random calls."""
    rng, spec = np.random.default_rng(0), bundle.spec
    calls = [Call(check_inputs(spec, **random_inputs(spec, rng)), None) for _ in range(CALLS)]
    scales = input_scales(collect(spec, bundle.tensors, calls, 2, lambda: None), "static", "minmax")
    return replace(bundle, quantization=Quantization("static", dict.fromkeys(matrix_names(spec), "int8"), scales))


def _quick(head: str) -> list[Case]:
    return [
        Case(head, "unrolled", 2, "fp16", GPUS),
        Case(head, "loop", 1, "int8", GPUS),
        Case(head, "onnx-loop", 1, "bf16", GPUS),
    ]


def _cases(heads: Iterable[str], arguments: argparse.Namespace) -> Iterator[Case]:
    forms = [("unrolled", int(k)) for k in arguments.steps.split(",")] + [("loop", 1), ("onnx-loop", 1)]
    for head in heads:
        for precision in arguments.precision.split(","):
            gpus = [gpu for gpu in arguments.gpu.split(",") if not why_not(precision, gpu)]
            for loop, steps in forms:
                alone = gpus if len(gpus) > 1 and (loop, steps) in (("unrolled", 1), ("loop", 1)) else []
                for chosen in [tuple(gpus), *((gpu,) for gpu in alone)]:
                    yield Case(head, loop, steps, precision, chosen)


def _block_products(spec: TrmSpec, case: Case) -> int:
    steps = case.steps if case.loop == "unrolled" else 1
    return 4 * spec.num_layers * spec.h_cycles * (spec.l_cycles + 1) * steps


def _label(case: Case) -> tuple[str, str, str, str]:
    form = f"unrolled K={case.steps}" if case.loop == "unrolled" else case.loop
    return case.head, form, case.precision, " ".join(case.gpus)


def _measured(built: BuiltEngine, seconds: float, formats: Counter[str]) -> tuple[str, str, str, str]:
    layers = sum(built.network.layers.values())
    products = ", ".join(f"{count} {name}" for name, count in formats.most_common())
    return f"{seconds:.1f}", f"{len(built.data) / 1e6:.2f}", f"{layers}", products


def _print_row(arguments: argparse.Namespace, *cells: str) -> None:
    if arguments.markdown:
        print("| " + " | ".join(cell for cell in cells if cell) + " |", flush=True)
    else:
        widths = (14, 13, 10, 17, 9, 7, 7, 16)
        print("".join(f"{cell:<{width}}" for cell, width in zip(cells, (*widths, 0), strict=False)), flush=True)


def _library() -> str:
    import tensorrt_rtx

    return f"tensorrt_rtx {tensorrt_rtx.__version__}"


def _list(numbers: Iterable[int]) -> str:
    return ", ".join(f"{number:,}" for number in numbers)


if __name__ == "__main__":
    sys.exit(main())
