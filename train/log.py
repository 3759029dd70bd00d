"""The log of a run: JSON lines that a resumed run continues exactly, a progress display, and a plot."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from trm_edge.errors import TrmInputError, TrmIOError
from trm_edge.extras import import_extra
from trm_edge.picture import pyplot, save

from .losses import StepLoss
from .parallel import Group

_START = b'{"kind": "'


class JsonLines:
    """Append-only log of one JSON object a line, without times, so that equal runs write equal bytes.

    A line reaches the system in one write. The file is locked, so that no two runs train in one folder.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with self._named():
            self._stream = path.open("ab", buffering=0)
        try:
            # Goes with the process, however it ends; of this handle alone, so that reading the log does not unlock it.
            fcntl.flock(self._stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                raise TrmInputError(
                    f"{path.parent}: another process trains here; wait for its end, or name another folder with --out"
                ) from None  # else: a file system without locks

    def cut(self, length: int) -> None:
        """Take off what stands behind the last checkpoint; where the end is lost, keep the whole lines."""
        with self._named():
            self._stream.truncate(self._path.read_bytes().rfind(b"\n", 0, length) + 1)

    def write(self, record: dict[str, Any]) -> None:
        """Append one record."""
        line = memoryview(json.dumps(record).encode() + b"\n")
        with self._named():
            while line:  # a disk that fills up takes a part first, and refuses the rest
                line = line[self._stream.write(line) :]

    def length(self) -> int:
        """Bytes written so far, which are on the disk when this returns."""
        with self._named():
            os.fsync(self._stream.fileno())
            return os.fstat(self._stream.fileno()).st_size

    def close(self) -> None:
        """Close the file."""
        with self._named():
            self._stream.close()

    @contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise TrmIOError(f"{self._path}: cannot be written: {error.strerror or error}") from None


class LogSums:
    """Means by step since the last record: the terms of the loss, how many answers were right, the gradient's norm."""

    def __init__(self, state: dict[str, Any] | None = None) -> None:
        state = state or {"batches": 0, "norm": 0.0, "right": [], "terms": {}}
        self._batches, self._norm = state["batches"], state["norm"]
        self._right, self._terms = list(state["right"]), dict(state["terms"])

    def state(self) -> dict[str, Any]:
        """Return what :meth:`__init__` takes."""
        return {"batches": self._batches, "norm": self._norm, "right": self._right, "terms": self._terms}

    def add(self, losses: list[StepLoss], norm: float) -> None:
        """Count one batch."""
        self._batches += 1
        self._norm += norm
        self._right = _add(self._right, [_share(loss.right) for loss in losses])
        for name in losses[0].terms:
            values = [float(loss.terms[name].detach()) for loss in losses]
            self._terms[name] = _add(self._terms.get(name, []), values)

    def record(self, group: Group) -> dict[str, Any]:
        """Return the means over batches and processes, and start again."""
        names = list(self._terms)
        rows = torch.tensor([self._right, *(self._terms[name] for name in names)], dtype=torch.float64) / self._batches
        group.average([rows])
        norm, lists = self._norm / self._batches, rows.tolist()
        self.__init__()  # type: ignore[misc]
        return {"terms": dict(zip(names, lists[1:], strict=True)), "right": lists[0], "gradient_norm": norm}


def _share(right: torch.Tensor) -> float:
    return float(right.double().mean()) if len(right) else 0.0


def _add(sums: list[float], values: list[float]) -> list[float]:
    return [s + v for s, v in zip(sums, values, strict=True)] if sums else values


class Progress:
    """A tqdm bar on a terminal, plain lines elsewhere; both on standard error.

    Where nobody reads it any more, a run goes on without.
    """

    def __init__(self, total: int, done: int, quiet: bool) -> None:
        self._quiet = quiet
        self._bar = None
        if not quiet and sys.stderr.isatty():
            self._bar = import_extra("tqdm", "the progress bar", "train").tqdm(total=total, initial=done, unit="update")

    def advance(self, updates: int) -> None:
        """Count updates."""
        with self._unheard():
            if self._bar is not None:
                self._bar.update(updates)

    def say(self, text: str) -> None:
        """Print a line."""
        with self._unheard():
            if self._bar is not None:
                self._bar.write(text, file=sys.stderr)
            elif not self._quiet:
                print(text, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Leave the terminal as it was."""
        with self._unheard():
            if self._bar is not None:
                self._bar.close()

    @contextmanager
    def _unheard(self) -> Iterator[None]:
        try:
            yield
        except OSError:  # a pipe without a reader, a terminal that is gone
            self._quiet, self._bar = True, None


def describe(record: dict[str, Any]) -> str:
    """Return a train record as a line for people."""
    terms = "  ".join(f"{name} {sum(by_step) / len(by_step):.4f}" for name, by_step in record["terms"].items())
    return f"{terms}  right {record['right'][-1]:.3f}"


def is_log(path: Path) -> bool:
    """Whether a file is empty or begins as a log does."""
    with path.open("rb") as stream:
        start = stream.read(len(_START))
    return _START.startswith(start)


def read_log(path: Path) -> list[dict[str, Any]]:
    """Return the records of a log."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def plot_curve(log: Path, picture: Path) -> None:
    """Plot the loss by update, and the validation metric by update (one line a step) beside it, as a PNG."""
    plt = pyplot("the curve of a training run", "train")
    records = read_log(log)
    train = [r for r in records if r["kind"] == "train"]
    checks = [r for r in records if r["kind"] == "validation"]
    figure, axes = plt.subplots(1, 2 if checks else 1, figsize=(10 if checks else 5, 4), squeeze=False)
    loss = axes[0, 0]
    for name in train[0]["terms"] if train else ():
        loss.plot(
            [r["update"] for r in train], [sum(r["terms"][name]) / len(r["terms"][name]) for r in train], label=name
        )
    loss.set(xlabel="weight update", ylabel="loss, mean over steps", yscale="log")
    if train:
        loss.legend()
    if checks:
        _plot_validation(axes[0, 1], checks)
    figure.tight_layout()
    save(figure, picture, dpi=120)


def _plot_validation(axis: Any, checks: list[dict[str, Any]]) -> None:
    metric = checks[0]["metric"]
    steps = len(checks[0]["by_step"])
    for k in sorted({0, 1, 2, 3, steps // 2, steps - 1} & set(range(steps))):
        axis.plot([r["update"] for r in checks], [r["by_step"][k] for r in checks], marker=".", label=f"k = {k + 1}")
    axis.set(xlabel="weight update", ylabel=f"validation: {metric}")
    axis.legend()
