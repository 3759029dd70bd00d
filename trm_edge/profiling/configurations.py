"""A bundle opened by backend, precision and number of threads, its answers checked before anything is timed."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..backends import SUFFIXES
from ..bundle import Bundle, GoldenCase
from ..errors import TrmUnsupportedError
from ..golden import record_golden, verify
from ..refiner import Refiner, load
from .timing import Task, pinned

_EXPORT_S = 600


@dataclass(frozen=True)
class Configuration:
    """One way to run the bundle, and what the comparison with the oracle said."""

    name: str
    refiner: Refiner
    threads: int
    check: dict[str, Any]

    def task(self, calls: Sequence[Mapping[str, Any]], steps: int) -> Task:
        """Return the task that refines ``calls`` in turn; it returns the time inside the backend."""
        refine, inputs = self.refiner.refine, itertools.cycle(calls)
        return Task(self.name, lambda: refine(**next(inputs), steps=steps).duration_us, self.threads)


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
    choice: Choice, source: Path, golden: Bundle, steps: int, cpus: Sequence[int], graph: Path | None, folder: Path
) -> Configuration:
    """Open and check one configuration; its threads inherit the cores.

    Parameters
    ----------
    choice
        What to open.
    source
        The bundle's file.
    golden
        The bundle with golden cases, see :func:`with_golden`.
    steps
        K, which an unrolled graph is exported for.
    cpus
        Cores of the run; this configuration takes the first ``threads``.
    graph, folder
        An exported file for backends that read one; None: export it into ``folder``.

    Raises
    ------
    TrmError
        It cannot be opened here; the message says why.
    """
    file: Path = source
    suffix = SUFFIXES.get(choice.backend)
    if suffix is not None:
        file = graph if graph is not None else _export(source, folder, suffix, steps, choice.precision)
    with pinned(cpus[: choice.threads]):
        refiner = load(file, backend=choice.backend, precision=choice.precision, threads=choice.threads)
        check = check_answers(refiner, golden)
    return Configuration(f"{refiner.backend} {refiner.precision} x{choice.threads}", refiner, choice.threads, check)


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
