"""Latency of one refinement: the fused engine against other engines, each at its best, answers checked first.

    python benchmarks/latency.py                                  D=512 H=8 I=1536, L = 8..256, K = 4 steps
    python benchmarks/latency.py --small                          D=128 H=4 I=384
    python benchmarks/latency.py --bundle push.trm --precision fp32,int8 --threads 1
    ONEDNN_MAX_CPU_ISA=AVX2 TRM_EDGE_ISA=avx2 python benchmarks/latency.py --peers fused,openvino

For every L, precision and number of threads each engine tries all of its forms (see ``peers/common.py``). A form whose
median error against the float64 oracle is more than ten times that of rounded weights alone is shown as wrong and takes
no further part; of the others the fastest is kept. The engines then take turns in one process, pinned to its cores. The
table shows the median, p99 and maximum, the ratio of medians to the fused engine's, and the share of the register peak
measured in the same run. `trm-edge profile --compare A.json B.json` compares two runs.

Needs pip install 'trm-edge[bench]'.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from peers import PEERS, PeerError, Problem
from peers.common import Run, median_error
from threadpoolctl import ThreadpoolController

import trm_edge
from trm_edge.bundle import Bundle, read_bundle
from trm_edge.files import check_folder, refuse_overwriting, write_atomically
from trm_edge.golden import golden_arguments, random_inputs
from trm_edge.inputs import Inputs
from trm_edge.plain import plain
from trm_edge.profiling import Samples, Task, Work, bandwidth, closed_loop, machine_facts, pinned, register_peak
from trm_edge.profiling.machine import describe, machine_state
from trm_edge.profiling.report import FORMAT, FORMAT_VERSION, number
from trm_edge.profiling.timing import SETTLE_S, Progress, choose_cpus
from trm_edge.spec import TrmSpec, identity_statistics

WRONG = 10.0  # times the error of rounded weights alone
FLOOR = 1e-6  # no error below this is wrong: float32 itself
WAITED = 0.05  # share of a call, in the median: an engine that waits longer than this for its core is not ranked
SMALL = {"hidden": 128, "heads": 4, "inner": 384}
MODEL: dict[str, Any] = {  # what random models are like, where the command line does not say
    **{"hidden": 512, "heads": 8, "inner": 1536, "mixer": "attention", "token_inner": 256},
    **{"l_cycles": 2, "h_cycles": 1, "rows": [8, 16, 32, 64, 128, 256]},
}
ENVIRONMENT = (
    *("TRM_EDGE_ISA", "ONEDNN_MAX_CPU_ISA", "FBGEMM_ENABLE_INSTRUCTIONS", "ATEN_CPU_CAPABILITY"),
    *("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "KMP_BLOCKTIME"),
)


@dataclass
class Entry:
    """One engine in one precision: the form that was kept, and what became of the others."""

    peer: str
    precision: str
    threads: int
    tries: list[dict[str, Any]]
    form: str = ""
    error: float | None = None
    run: Run | None = None

    def task(self, inputs: list[Inputs]) -> Task:
        """Return the task that refines the inputs in turn."""
        assert self.run is not None
        return _task(f"{self.precision} {self.peer}", self.run, inputs, self.threads)


def random_bundle(arguments: argparse.Namespace, rows: int) -> Bundle:
    """Return an actions head of L = ``rows`` with random weights and gentle residual branches."""
    if rows < 4:
        raise SystemExit(f"--rows: expected at least 4, got {rows}")
    mlp_t = arguments.mixer == "mlp_t"
    answer = min(8, rows - 2)
    spec = TrmSpec(
        answer="actions",
        hidden_size=arguments.hidden,
        inner_size=arguments.inner,
        mixer=arguments.mixer,
        num_heads=0 if mlp_t else arguments.heads,
        token_inner_size=arguments.token_inner if mlp_t else 0,
        positions="none" if mlp_t else "rope",
        l_cycles=arguments.l_cycles,
        h_cycles=arguments.h_cycles,
        registers=1,
        answer_rows=answer,
        dof=7,
        max_context=rows - 1 - answer,
        context_size=64,
    )
    rng = np.random.default_rng(0)
    tensors: dict[str, Any] = identity_statistics(spec)
    for name, shape in spec.tensor_shapes().items():
        if name not in tensors:
            scale = 0.3 if name.endswith(("out.weight", "down.weight")) else 1.0
            fan_in = shape[-1] if name.endswith(".weight") else 1
            tensors[name] = (scale * rng.standard_normal(shape) / np.sqrt(fan_in)).astype(np.float32)
    return Bundle(spec, tensors)


def problems(arguments: argparse.Namespace) -> list[Problem]:
    """Return what is measured: a bundle, or random models of every L."""
    rng = np.random.default_rng(1)
    if arguments.bundle is None:
        made = [random_bundle(arguments, rows) for rows in arguments.rows]
        return [
            Problem(b, arguments.steps, [random_inputs(b.spec, rng) for _ in range(arguments.inputs)]) for b in made
        ]
    bundle = read_bundle(arguments.bundle)
    calls = [golden_arguments(case) for case in bundle.golden[:1]]  # one: times of different sizes do not mix
    calls = calls or [random_inputs(bundle.spec, rng) for _ in range(arguments.inputs)]
    return [Problem(bundle, arguments.steps, calls)]


class Cell:
    """One problem with one number of threads: every engine is chosen, then all are timed in turns."""

    def __init__(self, problem: Problem, threads: int, cpus: list[int], arguments: argparse.Namespace) -> None:
        self.problem, self.threads, self.cpus = problem, threads, cpus[:threads]
        self.arguments = arguments
        self.inputs = problem.inputs()
        self.truth = problem.truth()
        self.limits: dict[str, float] = {}
        self.notes: list[str] = []

    def run(self, progress: Progress) -> list[dict[str, Any]]:
        """Return a row of the report for every engine and precision."""
        entries = self._choose(progress)
        kept = [entry for entry in entries if entry.run is not None]
        peaks = {p: [self._peak(p)] for p in dict.fromkeys(entry.precision for entry in kept)}
        samples: dict[str, Samples] = {}
        if kept:
            samples = closed_loop(
                [entry.task(self.inputs) for entry in kept],
                seconds=self.arguments.seconds,
                cpus=self.cpus,
                progress=progress.stage(f"L={self.problem.rows()}, threads {self.threads}"),
            )
        for precision, found in peaks.items():
            found.append(self._peak(precision))
        return [self._row(entry, samples, peaks) for entry in entries]

    def _choose(self, progress: Progress) -> list[Entry]:
        entries = []
        wanted = list(itertools.product(self.arguments.precision, self.arguments.peers))
        for i, (precision, name) in enumerate(wanted):
            progress.stage(f"L={self.problem.rows()}: trying {name} {precision}")(i / len(wanted))
            if precision not in PEERS[name].precisions:
                continue
            if precision not in self.limits:
                self.limits[precision] = max(FLOOR, WRONG * self.problem.yardstick(precision))
            entries.append(self._best_form(name, precision))
        return entries

    def _best_form(self, name: str, precision: str) -> Entry:
        """Build every form of an engine, check it, let those that are right take turns, and keep the fastest."""
        peer, right = PEERS[name](), dict[str, tuple[Run, float]]()
        entry = Entry(name, precision, self.threads, [])
        for form in peer.forms(precision):
            if self.arguments.forms and form not in self.arguments.forms and name != "fused":
                continue
            attempt: dict[str, Any] = {"form": form, "error": None, "p50_us": None, "reason": None}
            entry.tries.append(attempt)
            try:
                with pinned(self.cpus):
                    run = peer.build(self.problem, precision, self.threads, form)
                    error = median_error([run(inputs) for inputs in self.inputs], self.truth)
            except PeerError as problem:
                attempt["reason"] = str(problem)
                continue
            attempt["error"] = error
            if error <= self.limits[precision]:
                right[form] = run, error
            else:
                attempt["reason"] = f"WRONG: error {error:.1e}, allowed {self.limits[precision]:.1e}"
        tasks = [_task(form, run, self.inputs, self.threads) for form, (run, _) in right.items()]
        samples = closed_loop(tasks, seconds=self.arguments.try_seconds, cpus=self.cpus)
        for attempt in entry.tries:
            if attempt["form"] in samples:
                attempt["p50_us"] = samples[attempt["form"]].summary()["p50_us"]
        if right:
            entry.form = min(right, key=lambda form: float(np.median(samples[form].wall_us)))
            entry.run, entry.error = right[entry.form]
        return entry

    def _peak(self, precision: str) -> float | None:
        with pinned(self.cpus[:1]):
            return register_peak(precision)

    def _row(self, entry: Entry, samples: dict[str, Samples], peaks: dict[str, list[float | None]]) -> dict[str, Any]:
        spec, rows = self.problem.bundle.spec, self.problem.rows()
        work = Work.of(spec, rows, self.problem.steps)
        row: dict[str, Any] = {
            "name": f"D{spec.hidden_size} {spec.mixer} L{rows} x{self.threads} {entry.precision} {entry.peer}",
            "backend": entry.peer,
            "precision": entry.precision,
            "threads": self.threads,
            "rows": rows,
            "steps": self.problem.steps,
            "evaluations": work.evaluations,
            "sha256": self.problem.digest(),
            "form": entry.form,
            "version": self.arguments.versions[entry.peer],
            "check": {"passed": entry.run is not None, "error": entry.error, "allowed": self.limits[entry.precision]},
            "tries": entry.tries,
        }
        if entry.run is None:
            return row
        times = samples[f"{entry.precision} {entry.peer}"].summary()
        found = [peak for peak in peaks[entry.precision] if peak]
        copied = bandwidth(work.weight_bytes(entry.precision))
        peak = max(found, default=None)
        row["closed_loop"] = times
        row["roofline"] = work.facts(times["p50_us"], entry.precision, self.threads, peak, copied)
        return row


def _task(name: str, run: Run, inputs: list[Inputs], threads: int) -> Task:
    turn = itertools.cycle(inputs)

    def call() -> None:
        run(next(turn))

    return Task(name, call, threads, SETTLE_S if threads > 1 else 0.0)


def print_cell(rows: list[dict[str, Any]], problem: Problem, threads: int) -> None:
    """Print the table of a cell."""
    spec = problem.bundle.spec
    print(
        f"\nD={spec.hidden_size} I={spec.inner_size} {spec.mixer} L={problem.rows()} K={problem.steps}, "
        f"{threads} thread{'s' if threads > 1 else ''}"
    )
    print("  precision  engine       form             error       p50 us     p99 us     max us  / fused  share  waited")
    for row in rows:
        head = f"  {row['precision']:<9}  {row['backend']:<11}  {row['form'] or '-':<15}"
        if "closed_loop" not in row:
            print(f"{head}  {'; '.join(dict.fromkeys(t['reason'] for t in row['tries'])) or 'no form was tried'}")
            continue
        times, share = row["closed_loop"], row["roofline"]["share_of_peak"]
        fused = ratio_to_fused(row, rows)
        print(
            f"{head}  {row['check']['error']:.1e}  {times['p50_us']:11.1f} {number(times['p99_us'], '10.1f')} "
            f"{times['max_us']:10.1f}  {'-' if fused is None else f'{fused:.2f}':>7}  "
            f"{'-' if share is None else f'{100 * share:.0f} %':>5}  {100 * waited(row):5.1f} %"
        )
        for attempt in row["tries"]:
            if attempt["reason"]:
                print(f"{'':<13}{row['backend']:<11}  {attempt['form']:<15}  {attempt['reason']}")
    for line in verdicts(rows):
        print(f"  {line}")
    sys.stdout.flush()


def ratio_to_fused(row: dict[str, Any], rows: list[dict[str, Any]]) -> float | None:
    """Return the median of a row over that of the fused engine in the same precision."""
    for other in rows:
        if other["backend"] == "fused" and other["precision"] == row["precision"] and "closed_loop" in other:
            return row["closed_loop"]["p50_us"] / other["closed_loop"]["p50_us"]
    return None


def waited(row: dict[str, Any]) -> float:
    """Return the median share of a call in which another thread had the core, of the engine's own pool or not."""
    return float(row["closed_loop"]["waited_p50"] or 0.0)


def verdicts(rows: list[dict[str, Any]]) -> list[str]:
    """Return a line per precision: the fused engine against the best of the others."""
    lines = []
    for precision in dict.fromkeys(row["precision"] for row in rows):
        others = [
            row for row in rows if row["precision"] == precision and row["backend"] != "fused" and "closed_loop" in row
        ]
        if not others:
            continue
        best = min(others, key=lambda row: row["closed_loop"]["p50_us"])
        own = [row for row in rows if row["precision"] == precision and row["backend"] == "fused"]
        shared = [row for row in [*own, *others] if "closed_loop" in row and waited(row) > WAITED]
        if shared:
            names = ", ".join(f"{row['backend']} {row['form']} ({100 * waited(row):.0f} %)" for row in shared)
            lines.append(f"{precision}: no ratio: another thread had the core during {names}")
            continue
        ratio = ratio_to_fused(best, rows)
        if ratio is not None:
            lines.append(
                f"{precision}: the best peer, {best['backend']} {best['form']}, takes {ratio:.2f}x the time of fused"
            )
    return lines


def main() -> int:
    """Measure, print one table per L and number of threads, write JSON and plot.

    Returns 1 where the fused engine's answers are wrong, 2 for bad input.
    """
    arguments = _parse()
    # NumPy encodes and decodes around some peers. From L = 32 its OpenBLAS would start workers, which spin on the core
    # that the peer is timed on.
    with ThreadpoolController().select(internal_api="openblas").limit(limits=1):
        try:
            rows = measure(arguments)
        except trm_edge.TrmError as error:
            print(f"latency.py: {error}", file=sys.stderr)
            return 2
    return 1 if any(row["backend"] == "fused" and not row["check"]["passed"] for row in rows) else 0


def measure(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure as the command line says; return the rows of the report."""
    cpus = choose_cpus(max(arguments.threads), arguments.cpu)
    for written in (arguments.json, arguments.plot):
        if written is not None:
            refuse_overwriting(written, arguments.bundle)
            check_folder(written)
    progress = Progress()
    arguments.versions = versions = {name: PEERS[name].version() for name in arguments.peers}
    before, machine = machine_state(), machine_facts(cpu=cpus[0])
    print(describe(machine))
    print(f"cores {cpus}, " + ", ".join(f"{name} {version}" for name, version in versions.items()))
    rows: list[dict[str, Any]] = []
    cases = problems(arguments)
    for problem, threads in itertools.product(cases, arguments.threads):
        found = Cell(problem, threads, cpus, arguments).run(progress)
        progress.close()
        print_cell(found, problem, threads)
        rows += found
        report = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "trm_edge": trm_edge.__version__,
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "machine": machine,
            "state": {"before": before, "after": machine_state()},
            "model": {"file": arguments.bundle, "steps": arguments.steps, **cases[0].bundle.spec.to_dict()},
            "settings": {
                "cpus": cpus,
                "seconds": arguments.seconds,
                "versions": versions,
                "environment": {name: os.environ[name] for name in ENVIRONMENT if name in os.environ},
            },
            "peaks_gflops": {
                r["precision"]: r["roofline"]["peak_gflops"] for r in rows if "roofline" in r and r["threads"] == 1
            },
            "configurations": rows,
            "skipped": [],
        }
        if arguments.json is not None:  # after every cell, so that a run that is cut short leaves what it has
            write_atomically(arguments.json, (json.dumps(plain(report), indent=1) + "\n").encode())
    if arguments.plot is not None:
        from latency_plot import draw

        draw(arguments.plot, rows)
    return rows


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hidden", type=int, help=f"D (default: {MODEL['hidden']})")
    parser.add_argument("--heads", type=int, help=f"H (default: {MODEL['heads']})")
    parser.add_argument("--inner", type=int, help=f"I (default: {MODEL['inner']})")
    parser.add_argument("--small", action="store_true", default=None, help="D=128 H=4 I=384")
    parser.add_argument("--mixer", choices=("attention", "mlp_t"), help="default: attention")
    parser.add_argument("--token-inner", type=int, help="inner width of the token mixing of mlp_t (default: 256)")
    parser.add_argument("--l-cycles", type=int, help="n (default: 2)")
    parser.add_argument("--h-cycles", type=int, help="default: 1")
    parser.add_argument("--rows", type=int, nargs="+", help="L, at least 4 (default: 8 to 256)")
    parser.add_argument("--bundle", type=Path, help="measure this .trm file in place of random models")
    parser.add_argument("--steps", type=int, default=4, help="K")
    parser.add_argument("--precision", type=_list(("fp32", "bf16", "int8")), default=["fp32", "bf16", "int8"])
    parser.add_argument("--threads", type=_list(None), default=[1, 2], help="several: 1,2")
    parser.add_argument("--peers", type=_list(tuple(PEERS)), default=None, help=f"of {', '.join(PEERS)}")
    parser.add_argument("--forms", type=lambda text: text.split(","), help="try only these forms of the other engines")
    parser.add_argument("--inputs", type=int, default=5, help="inputs over which the error's median is taken")
    parser.add_argument("--seconds", type=float, default=3.0, help="time to measure an engine in, per cell")
    parser.add_argument("--try-seconds", type=float, default=0.3, help="time to try a form in")
    parser.add_argument("--cpu", type=_list(None), default=None, help="cores to pin to (default: the last ones)")
    parser.add_argument("--json", type=Path, help="report to write; trm-edge profile --compare reads it")
    parser.add_argument("--plot", type=Path, help="picture to write")
    arguments = parser.parse_args()
    for name, numbers, least in (
        ("--rows", arguments.rows or [], 4),
        ("--steps", [arguments.steps], 1),
        ("--threads", arguments.threads, 1),
        ("--inputs", [arguments.inputs], 1),
        ("--cpu", arguments.cpu or [], 0),
    ):
        if min(numbers, default=least) < least:
            parser.error(f"{name}: expected at least {least}, got {min(numbers)}")
    for name, seconds in (("--seconds", arguments.seconds), ("--try-seconds", arguments.try_seconds)):
        if not 0 < seconds < 1e6:
            parser.error(f"{name}: expected more than 0, got {seconds:g}")
    given = [name for name in ("small", *MODEL) if getattr(arguments, name) is not None]
    for option, fixed in (("small", SMALL), ("bundle", ("small", *MODEL))):
        clash = [name for name in given if name in fixed] if getattr(arguments, option) else []
        if clash:
            parser.error(f"--{clash[0].replace('_', '-')}: --{option} says that; leave one of them out")
    chosen = MODEL | (SMALL if arguments.small else {})
    vars(arguments).update({name: value for name, value in chosen.items() if name not in given})
    missing = {name: PEERS[name].missing() for name in arguments.peers or PEERS}
    for name, reason in missing.items():
        if reason and arguments.peers:
            parser.error(f"--peers: {name}: {reason}")
        if reason:
            print(f"{name}: left out: {reason}", file=sys.stderr)
    arguments.peers = [name for name, reason in missing.items() if not reason]
    return arguments


def _list(known: tuple[str, ...] | None) -> Callable[[str], list[Any]]:
    """Return a parser of ``a,b``: names that are known, or numbers where None."""

    def read(text: str) -> list[Any]:
        parts = text.split(",")
        if known is None:
            return [int(part) for part in parts]
        for part in parts:
            if part not in known:
                raise argparse.ArgumentTypeError(f"expected of {', '.join(known)}, got {part!r}")
        return parts

    return read


if __name__ == "__main__":
    sys.exit(main())
