"""The command ``trm-edge profile``."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .._native import core
from ..backends import NAMES, SUFFIXES
from ..bundle import Bundle, read_bundle
from ..errors import TrmInputError, TrmUnsupportedError
from ..files import check_folder, read_call, refuse_overwriting, write_atomically
from ..golden import golden_arguments, random_inputs
from ..inputs import check_inputs, check_steps
from ..picture import check_picture
from ..plain import plain
from ..provenance import STEPS, steps_to_run
from ..shipped import example as shipped_example
from ..spec import TrmSpec
from .configurations import Configuration, open_configuration, parse_choices, with_golden
from .gpu import GPU_BACKENDS, gpu_facts, gpu_state
from .machine import machine_facts, machine_state
from .report import FORMAT, FORMAT_VERSION, compare, format_comparison, format_report, read_report
from .roofline import Work, bandwidth, register_loop, register_peak, tuned_iterations
from .timing import Progress, Samples, Task, choose_cpus, closed_loop, fixed_rate, pinned

SUMMARY = "measure the latency of a bundle on this machine"
DETAILS = """\
Check the answers, then time refinements in a process pinned to its cores: in a closed loop, woken at fixed rates, and
after idling, with every configuration interleaved. Beside them: page faults, calls that the scheduler interrupted, the
part of the time that Python takes, and the share of the machine's peak, measured in the same run.

  trm-edge profile push.trm
  trm-edge profile push.trm --backend fused,onnxruntime --threads 1,2 --rate 1000 --json today.json --plot today.png
  trm-edge profile push.trm --backend cuda,tensorrt,onnxruntime --rate none --json gpu.json --plot gpu.png
  trm-edge profile --compare before.json today.json

Threads of a session sleep after the longest gap between two calls here, but after 0.2 seconds at most: until then they
spin, as in a session of their own, and when it is another configuration's turn they are asleep.

Exit code 1 where an answer is wrong; what is wrong is not timed. p99 needs 100 calls, p99.9 1000."""

_PRECISIONS = ("fp32", "bf16", "int8", "fp64", "fp16", "w8a16")
_LOOP = " | register loop"


def add_arguments(parser: argparse.ArgumentParser, example: Path) -> None:
    """Add the command's arguments."""
    parser.add_argument("bundle", nargs="?", type=Path, default=example, help="a .trm file (default: the shipped one)")
    parser.add_argument("--backend", default="fused", help=f"of {', '.join(NAMES)}; several: a,b (default: fused)")
    parser.add_argument("--precision", help=f"of {', '.join(_PRECISIONS)}; several: a,b (default: the bundle's own)")
    parser.add_argument("--threads", default="1", help="threads of a session; several: 1,2 (default: 1)")
    parser.add_argument("--steps", type=int, help=f"refinement steps (default: as trained, else {STEPS})")
    parser.add_argument("--input", type=Path, help=".npz file with the arrays of one call (default: golden, or random)")
    parser.add_argument("--graph", type=Path, help="exported file for backends that read one (default: export it)")
    parser.add_argument("--rate", default="1000,100", help="wakes per second, or none (default: 1000,100)")
    parser.add_argument("--spin-us", type=float, default=0.0, help="busy-wait so long before a wake (default: 0)")
    parser.add_argument("--idle-ms", default="5", help="sleep before a call, or none (default: 5)")
    amount = parser.add_mutually_exclusive_group()
    amount.add_argument("--calls", type=int, help="calls per configuration and mode")
    amount.add_argument("--seconds", type=float, help="time per configuration and mode (default: 3)")
    parser.add_argument("--cpu", help="cores to pin to, the first for one thread (default: the last ones)")
    parser.add_argument(
        "--json", nargs="?", const="-", metavar="OUT", help="write the report as JSON; without OUT to standard output"
    )
    parser.add_argument("--plot", type=Path, help="picture to write, .png, .svg or .pdf")
    parser.add_argument("--compare", nargs=2, type=Path, metavar=("A", "B"), help="compare two reports; nothing is run")


def run(arguments: argparse.Namespace) -> int:
    """Run the command and return the exit code."""
    if arguments.compare:
        _check_nothing_else(arguments)
        _check_destination(arguments.json, *arguments.compare)
        result = compare(*map(read_report, arguments.compare))
        _write(arguments.json, result, format_comparison(result))
        return 0
    sources = (arguments.bundle, arguments.input, arguments.graph)
    _check_destination(arguments.json, *sources)
    if arguments.plot is not None:
        check_picture(arguments.plot, "the picture of a profile", "demo")
        refuse_overwriting(arguments.plot, *sources)
    settings = Settings(arguments)
    report, samples = profile(settings)
    _write(arguments.json, report, format_report(report))
    if arguments.plot is not None:  # last: nothing that goes wrong with a picture costs the report
        from .plot import draw

        draw(arguments.plot, report, samples)
    return 0 if all(row["check"]["passed"] for row in report["configurations"]) else 1


def _check_nothing_else(arguments: argparse.Namespace) -> None:
    """Raise where a comparison was given what only a measurement takes."""
    parser = argparse.ArgumentParser()
    add_arguments(parser, shipped_example())
    for name, default in vars(parser.parse_args([])).items():
        if name not in ("compare", "json") and getattr(arguments, name) != default:
            option = "bundle" if name == "bundle" else f"--{name.replace('_', '-')}"
            raise TrmInputError(f"{option}: --compare reads two reports and measures nothing; leave {option} out")


class Settings:
    """The command's arguments, checked."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.bundle: Path = arguments.bundle
        self.input: Path | None = arguments.input
        self.graph: Path | None = arguments.graph
        backends = _names("--backend", arguments.backend, NAMES)
        if self.graph is not None and not set(backends) & set(SUFFIXES):
            raise TrmInputError(f"--graph: for backends {' and '.join(SUFFIXES)}; none of them is asked for")
        precisions = [None] if arguments.precision is None else _names("--precision", arguments.precision, _PRECISIONS)
        threads = [int(n) for n in _numbers("--threads", arguments.threads, whole=True)]
        self.choices = parse_choices(backends, precisions, threads)
        self.gpu = any(backend in GPU_BACKENDS for backend in backends)
        self.rates = [] if arguments.rate == "none" else list(dict.fromkeys(_numbers("--rate", arguments.rate)))
        idle = [] if arguments.idle_ms == "none" else _numbers("--idle-ms", arguments.idle_ms)
        if len(idle) > 1:
            raise TrmInputError(f"--idle-ms: expected one number, got {arguments.idle_ms!r}")
        self.idle_ms = idle[0] if idle else None
        self.spin_us = float(arguments.spin_us)
        if not 0 <= self.spin_us <= 1e6:
            raise TrmInputError(f"--spin-us: expected 0 to 1e6, got {arguments.spin_us}")
        self.calls: int | None = arguments.calls
        self.seconds = 3.0 if arguments.seconds is None else float(arguments.seconds)
        if self.calls is not None and self.calls < 1:
            raise TrmInputError(f"--calls: expected at least 1, got {self.calls}")
        if not 0 < self.seconds < 1e6:
            raise TrmInputError(f"--seconds: expected more than 0, got {self.seconds}")
        asked = None if arguments.cpu is None else [int(n) for n in _numbers("--cpu", arguments.cpu, True, 0)]
        self.cpus = choose_cpus(max(threads), asked)
        self.steps: int | None = arguments.steps

    def longest_gap_s(self) -> float:
        """Return the longest time from one call to the next, in seconds."""
        return max([1 / rate for rate in self.rates] + [(self.idle_ms or 0) / 1e3])

    def amount(self) -> dict[str, Any]:
        """Return how long to measure, as the functions of ``timing`` take it."""
        return {"calls": self.calls, "seconds": self.seconds, "cpus": self.cpus}

    def facts(self, inputs: str) -> dict[str, Any]:
        """Return the settings for the report."""
        return {
            "calls": self.calls,
            "seconds": None if self.calls is not None else self.seconds,
            "cpus": self.cpus,
            "rates_hz": self.rates,
            "spin_us": self.spin_us,
            "idle_ms": self.idle_ms,
            "inputs": inputs,
        }


def profile(settings: Settings) -> tuple[dict[str, Any], dict[str, Samples]]:
    """Run everything; return the report and the closed-loop samples by configuration."""
    bundle = read_bundle(settings.bundle)
    steps = check_steps(steps_to_run(settings.steps, bundle.provenance.get("trained_steps")), bundle.spec.answer)
    if steps < 1:
        raise TrmInputError("--steps: expected at least 1, got 0")
    calls, inputs = _calls(settings.input, bundle)
    progress = Progress()
    try:
        before = _state(settings)
        opened, skipped = _open(settings, bundle, calls, steps, progress)
        sound = [c for c in opened if c.check["passed"]]
        on_cpu = [c for c in sound if c.on_cpu]
        peaks = _Peaks(on_cpu, settings.cpus)
        timed = _measure(settings, sound, calls, steps, progress, peaks)
    finally:
        progress.close()
    spec = bundle.spec
    work = Work.of(spec, rows_of(spec, calls[0]), steps)
    with pinned(settings.cpus[:1]):
        rates = {p: bandwidth(work.weight_bytes(p)) for p in {c.refiner.precision for c in on_cpu}}
    rows = [_row(c, timed, work, peaks, rates, settings.idle_ms) for c in opened]
    report = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "trm_edge": core.__version__,
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": machine_facts(cpu=settings.cpus[0]) | ({"gpu": gpu_facts()} if settings.gpu else {}),
        "state": {"before": before, "after": _state(settings)},
        "model": {
            "file": settings.bundle,
            "sha256": bundle.sha256,
            "parameters": spec.parameter_count(),
            "steps": steps,
            "rows": work.rows,
            "evaluations": work.evaluations,
            **spec.to_dict(),
        },
        "settings": settings.facts(inputs),
        "peaks_gflops": {p: None if v is None else v / 1e9 for p, v in peaks.values().items()},
        "configurations": rows,
        "skipped": skipped,
    }
    return plain(report), timed["closed"]


def _state(settings: Settings) -> dict[str, Any]:
    return machine_state() | ({"gpu": gpu_state()} if settings.gpu else {})


def _open(
    settings: Settings, bundle: Bundle, calls: Sequence[Mapping[str, Any]], steps: int, progress: Progress
) -> tuple[list[Configuration], list[dict[str, str]]]:
    """Open and check every configuration that this machine has; say why for the others."""
    opened: dict[str, Configuration] = {}
    skipped: list[dict[str, str]] = []
    golden = with_golden(bundle, calls, steps)
    show = progress.stage("opening and checking")
    with tempfile.TemporaryDirectory(prefix="trm-edge-") as folder:
        for i, choice in enumerate(settings.choices):
            show(i / len(settings.choices))
            try:
                found = open_configuration(
                    *(choice, settings.bundle, golden, calls, steps),
                    cpus=settings.cpus,
                    graph=settings.graph,
                    folder=Path(folder),
                    longest_gap_s=settings.longest_gap_s(),
                )
                opened.setdefault(found.name, found)
            except TrmUnsupportedError as error:
                skipped.append({"name": choice.name, "reason": str(error)})
    if not opened:
        raise TrmUnsupportedError("; ".join(f"{entry['name']}: {entry['reason']}" for entry in skipped))
    return list(opened.values()), skipped


def _measure(
    settings: Settings,
    sound: Sequence[Configuration],
    calls: Sequence[Mapping[str, Any]],
    steps: int,
    progress: Progress,
    peaks: _Peaks,
) -> dict[Any, dict[str, Samples]]:
    """Return the samples of every mode: ``closed``, ``idle`` and each rate."""
    tasks = [c.task(calls, steps) for c in sound]
    timed: dict[Any, dict[str, Samples]] = {"closed": {}, "idle": {}}
    if not tasks:
        return timed
    amount = settings.amount()
    peaks.sample()
    pairs = [(task, _companion(c, task, settings.cpus)) for c, task in zip(sound, tasks, strict=True)]
    everything = [task for pair in pairs for task in pair if task is not None]
    timed["closed"] = closed_loop(everything, **amount, progress=progress.stage("closed loop"))
    peaks.sample()
    for rate in settings.rates:
        show = progress.stage(f"{rate:g} Hz")
        timed[rate] = fixed_rate(tasks, rate, spin_us=settings.spin_us, **amount, progress=show)
    if settings.idle_ms is not None:
        show = progress.stage("idle, then fire")
        timed["idle"] = closed_loop(tasks, idle_ms=settings.idle_ms, **amount, progress=show)
    peaks.sample()
    return timed


def _companion(configuration: Configuration, task: Task, cpus: Sequence[int]) -> Task | None:
    """Return a register loop that takes as long as ``task``: what the machine itself adds to a tail."""
    wanted = configuration.on_cpu and configuration.threads == 1
    loop = register_loop(configuration.refiner.precision) if wanted else None
    if loop is None:
        return None
    with pinned(cpus[:1]):
        times = []
        for _ in range(7):
            start = time.perf_counter()
            task.call()
            times.append(time.perf_counter() - start)
        iterations = tuned_iterations(loop, float(np.median(times)))
    return Task(task.name + _LOOP, lambda: loop(iterations)[1] * 1e6)


class _Peaks:
    """Register peaks of the precisions in use, looked for several times along the run."""

    def __init__(self, configurations: Sequence[Configuration], cpus: Sequence[int]) -> None:
        self._cpus = cpus
        self._found: dict[str, float] = dict.fromkeys((c.refiner.precision for c in configurations), 0.0)

    def sample(self) -> None:
        """Measure each once more."""
        with pinned(self._cpus[:1]):
            for precision, most in self._found.items():
                self._found[precision] = max(most, register_peak(precision) or 0.0)

    def values(self) -> dict[str, float | None]:
        """Return the FLOP/s of one core, by precision."""
        return {precision: most or None for precision, most in self._found.items()}


def _row(
    configuration: Configuration,
    timed: Mapping[Any, Mapping[str, Samples]],
    work: Work,
    peaks: _Peaks,
    rates: Mapping[str, float],
    idle_ms: float | None,
) -> dict[str, Any]:
    """Return one configuration's part of the report."""
    refiner, name = configuration.refiner, configuration.name
    row: dict[str, Any] = {
        "name": name,
        "backend": refiner.backend,
        "isa": refiner.isa,
        "version": _version(refiner.backend),
        "precision": refiner.precision,
        "threads": configuration.threads,
        "park_after_us": configuration.park_after_us,
        "check": configuration.check,
    }
    if name not in timed["closed"]:
        return row
    closed = timed["closed"][name].summary()
    row["closed_loop"] = closed | {"histogram": histogram(timed["closed"][name])}
    row["fixed_rate"] = [samples[name].rate_summary(rate) for rate, samples in timed.items() if isinstance(rate, float)]
    if name in timed["idle"]:
        row["idle_then_fire"] = timed["idle"][name].summary() | {"idle_ms": idle_ms}
    row["roofline"] = work.facts(
        closed["p50_us"],
        refiner.precision,
        configuration.threads,
        peaks.values().get(refiner.precision) if configuration.on_cpu else None,
        rates.get(refiner.precision) if configuration.on_cpu else None,
    )
    loop = timed["closed"].get(name + _LOOP)
    if loop is not None:
        mine, machine = closed["calm_p999_over_p50"], loop.summary()["calm_p999_over_p50"]
        ratio = mine / machine if mine and machine else None
        row["steadiness"] = {"call": mine, "register_loop": machine, "ratio": ratio}
    return row


def _version(backend: str) -> str | None:
    """Return the version of the runtime behind a backend; None where that is this package."""
    found = (getattr(sys.modules.get(name), "__version__", None) for name in (backend, f"{backend}_rtx"))
    return next(filter(None, found), None)


def histogram(samples: Samples, bins: int = 60) -> dict[str, Any]:
    """Return counts between edges that grow by a constant factor."""
    times = np.maximum(np.asarray(samples.wall_us), 1e-3)
    edges = np.geomspace(times.min() * 0.999, times.max() * 1.001, bins + 1)
    return {"edges_us": edges, "counts": np.histogram(times, edges)[0]}


def _calls(path: Path | None, bundle: Bundle) -> tuple[list[Mapping[str, Any]], str]:
    """Return the arguments of the calls to time, and a word for where they come from."""
    if path is not None:
        return [read_call(path)], str(path)
    if bundle.golden:
        cases: list[Mapping[str, Any]] = [golden_arguments(case) for case in bundle.golden]
        most = max(rows_of(bundle.spec, case) for case in cases)  # times of different sizes make no percentile
        largest = [case for case in cases if rows_of(bundle.spec, case) == most]
        return largest, f"the largest of the golden cases, {len(largest)} of {len(cases)}, in turn"
    rng = np.random.default_rng(0)
    return [random_inputs(bundle.spec, rng) for _ in range(4)], "4 random inputs, in turn"


def rows_of(spec: TrmSpec, call: Mapping[str, Any]) -> int:
    """Return L of a call."""
    inputs = check_inputs(spec, **{name: value for name, value in call.items() if name != "last_action"})
    return spec.registers + inputs.answer_rows + (0 if spec.answer == "tokens" else len(inputs.x))


def _check_destination(where: str | None, *sources: Path | None) -> None:
    """Raise where the report could not be written, or would replace what is read or can be loaded."""
    if where is None or where == "-":
        return
    suffix = Path(where).suffix
    if suffix in (".trm", *SUFFIXES.values()):  # it may stand behind --json and yet be meant as the bundle
        raise TrmInputError(
            f"--json {where}: a report is not written to a {suffix} file; name the bundle first, as in "
            f"`trm-edge profile {where} --json`, or a file such as report.json"
        )
    refuse_overwriting(where, *sources)
    check_folder(where)


def _write(where: str | None, report: Mapping[str, Any], text: str) -> None:
    """Write JSON to a file and the table to standard output, or JSON alone to standard output."""
    if where == "-":
        print(json.dumps(plain(report)))
        return
    try:
        if where is not None:
            write_atomically(where, (json.dumps(plain(report), indent=1) + "\n").encode())
    finally:  # a file that cannot be written does not cost what was measured
        print(text)


def _names(option: str, text: str, known: Sequence[str]) -> list[str]:
    names = list(dict.fromkeys(part.strip() for part in text.split(",")))
    for name in names:
        if name not in known:
            raise TrmInputError(f"{option}: expected of {', '.join(known)}, got {name!r}")
    return names


def _numbers(option: str, text: str, whole: bool = False, least: float | None = None) -> list[float]:
    """Return a list like ``1000,100``."""
    kind: Callable[[str], float] = int if whole else float
    least = (1.0 if whole else 1e-3) if least is None else least
    try:
        values = [float(kind(part)) for part in text.split(",")]
    except ValueError:
        raise TrmInputError(f"{option}: expected numbers such as 1,2, got {text!r}") from None
    for value in values:
        if not least <= value <= 1e6:
            raise TrmInputError(f"{option}: expected numbers of {least:g} to 1e6, got {value:g}")
    return values
