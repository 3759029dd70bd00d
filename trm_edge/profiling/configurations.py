"""A bundle opened by backend, precision and number of threads, its answers checked before anything is timed."""

from __future__ import annotations

import itertools
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..backends import SUFFIXES
from ..bundle import Bundle, GoldenCase
from ..errors import Status, TrmUnsupportedError
from ..golden import record_golden, verify
from ..refiner import Refiner, load
from .gpu import GPU_BACKENDS
from .timing import SETTLE_S, Task, pinned

_EXPORT_S = 600
_LONGEST_SPIN_S = 0.2


@dataclass(frozen=True)
class Configuration:
    """One way to run the bundle, and what the comparison with the oracle said.

    ``park_after_us`` is after which time threads of the engine sleep, ``settle_s`` how long they are waited for.
    """

    name: str
    refiner: Refiner
    threads: int
    check: dict[str, Any]
    park_after_us: int | None = None
    settle_s: float = 0.0

    @property
    def on_cpu(self) -> bool:
        """Whether it runs on the cores whose peak is measured."""
        return self.refiner.backend not in GPU_BACKENDS

    def task(self, calls: Sequence[Mapping[str, Any]], steps: int) -> Task:
        """Return the task that refines ``calls`` in turn; it returns the time inside the backend."""
        refine, inputs = self.refiner.refine, itertools.cycle(calls)
        return Task(self.name, lambda: refine(**next(inputs), steps=steps).duration_us, self.threads, self.settle_s)


@dataclass(frozen=True)
class Choice:
    """What to open: names as :func:`trm_edge.load` takes them; precision None is the bundle's own."""

    backend: str
    precision: str | None
    threads: int

    @property
    def name(self) -> str:
        """Name before it is open."""
        return f"{self.backend} {self.precision or 'own precision'} x{self.threads}"


def with_golden(bundle: Bundle, calls: Sequence[Mapping[str, Any]], steps: int) -> Bundle:
    """Return ``bundle`` with golden cases of at most ``steps`` steps: its own, or of ``calls`` where it has none."""
    cases = bundle.golden or record_golden(bundle.spec, bundle.tensors, calls, steps)
    return replace(bundle, golden=[_cut(case, steps) for case in cases])


def open_configuration(
    choice: Choice,
    source: Path,
    golden: Bundle,
    calls: Sequence[Mapping[str, Any]],
    steps: int,
    *,
    cpus: Sequence[int],
    graph: Path | None,
    folder: Path,
    longest_gap_s: float,
) -> Configuration:
    """Open and check one configuration; its threads inherit the cores.

    Threads of the engine that spin between calls, as they do in a session of its own, would take the cores of every
    other configuration. So they sleep after the longest gap that calls have here, or 0.2 seconds, and are waited for.

    Parameters
    ----------
    choice
        What to open.
    source
        The bundle's file.
    golden
        The bundle with golden cases, see :func:`with_golden`.
    calls
        What will be timed.
    steps
        K, which an unrolled graph is exported for.
    cpus
        Cores of the run; this configuration takes the first ``threads``.
    graph, folder
        An exported file for backends that read one; None: export it into ``folder``.
    longest_gap_s
        The longest time from one call to the next.

    Raises
    ------
    TrmError
        It cannot be opened here, or a call ends before its last step; the message says why.
    """
    file: Path = source
    suffix = SUFFIXES.get(choice.backend)
    if suffix is not None:
        file = graph if graph is not None else _export(source, folder, suffix, steps, choice.precision)
    with pinned(cpus[: choice.threads]):
        spins = choice.backend == "fused" and choice.threads > 1
        spin_s = min(1.5 * longest_gap_s + 1e-3, _LONGEST_SPIN_S) if spins else 0.0
        parked = round(spin_s * 1e6) if spins else None
        refiner = load(
            file,
            backend=choice.backend,
            precision=choice.precision,
            threads=choice.threads,
            park_after_us=parked,
        )
        check = check_answers(refiner, golden)
        if check["passed"]:
            _check_all_steps(refiner, calls, steps)
    settle_s = 0.0 if choice.threads == 1 else SETTLE_S + spin_s
    time.sleep(settle_s)
    name = f"{refiner.backend} {refiner.precision} x{choice.threads}"
    return Configuration(name, refiner, choice.threads, check, parked, settle_s)


def _check_all_steps(refiner: Refiner, calls: Sequence[Mapping[str, Any]], steps: int) -> None:
    """Raise where a call is over before its last step: its time is not that of a refinement."""
    for call in calls:
        out = refiner.refine(**call, steps=steps)
        if out.status == Status.NONFINITE:
            raise TrmUnsupportedError(
                f"a call to time has the status NONFINITE after {out.steps_run} of {steps} steps; give finite inputs"
            )


def check_answers(refiner: Refiner, golden: Bundle) -> dict[str, Any]:
    """Compare every step of every golden case with the oracle, as ``trm-edge verify``; JSON-ready."""
    checks = verify(refiner, golden)
    worst = max(checks, key=lambda c: np.nan_to_num(c.error / c.tolerance, nan=np.inf))
    return {
        "passed": all(c.passed for c in checks),
        "cases": len(golden.golden),
        "error": worst.error if np.isfinite(worst.error) else None,
        "allowed": worst.tolerance,
        "mismatches": sum(c.mismatches for c in checks),
    }


def _cut(case: GoldenCase, steps: int) -> GoldenCase:
    return GoldenCase(case.inputs, {name: values[:steps] for name, values in case.outputs.items()})


def _export(source: Path, folder: Path, suffix: str, steps: int, precision: str | None) -> Path:
    """Export the graph with the command of that name, in a process of its own: the runtime knows no exporter."""
    # An .onnx graph is float32, or as the bundle was calibrated.
    named = precision == "fp32" if suffix == ".onnx" else precision is not None
    chosen = ["--precision", str(precision)] if named else []
    target = folder / f"{'-'.join([source.stem, *chosen[1:]])}{suffix}"
    if target.exists():
        return target
    words = [sys.executable, "-m", "trm_edge.cli", "export", str(source), str(target)]
    words += ["--loop", "unrolled", "--steps", str(steps), *chosen]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=_EXPORT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise TrmUnsupportedError(f"exporting {source} for this backend failed: {error}") from None
    if done.returncode or not target.exists():
        last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise TrmUnsupportedError(
            f"this backend reads a {target.suffix} file and exporting one failed ({last}); "
            f"export it elsewhere and name it with --graph FILE{target.suffix}"
        )
    return target


def parse_choices(backends: Sequence[str], precisions: Sequence[str | None], threads: Sequence[int]) -> list[Choice]:
    """Return every combination, in order."""
    return [Choice(b, p, t) for b in backends for p in precisions for t in threads]
