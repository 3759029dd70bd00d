"""Run tasks interleaved in one pinned process, and keep every time.

Tasks take turns in blocks, so that a slow spell of the machine meets all of them. Each block begins with a call that is
not counted, which brings the weights back into the caches; after it the threads that the task has left spinning are
given the time to go to sleep, as they would take the cores of the next one.
"""

from __future__ import annotations

import gc
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..errors import TrmInputError
from ..inputs import Array

PERCENTILES = {"p50_us": 50.0, "p90_us": 90.0, "p99_us": 99.0, "p999_us": 99.9}
SETTLE_S = 0.005  # of a runtime whose threads spin for a while after a call
_BLOCK_S = 0.1
_LEAST = {"p90_us": 10, "p99_us": 100, "p999_us": 1000}  # samples below which it would be the maximum


@dataclass(frozen=True)
class Task:
    """Something to time: ``call`` runs once, and may return the microseconds that its inner part took.

    ``settle_s`` is how long its threads spin after a call before they sleep.
    """

    name: str
    call: Callable[[], float | None]
    threads: int = 1
    settle_s: float = 0.0


@dataclass
class Samples:
    """What one task took, call by call.

    ``preempted`` marks calls during which the scheduler took the core away; ``waited_us`` is how long the calling
    thread waited for a core that another thread had, empty where the system does not say.
    """

    wall_us: list[float] = field(default_factory=list)
    inner_us: list[float] = field(default_factory=list)
    preempted: list[bool] = field(default_factory=list)
    waited_us: list[float] = field(default_factory=list)
    minor_faults: int = 0
    major_faults: int = 0
    ticks: int = 0  # fixed rate: deadlines that passed
    late: int = 0  # fixed rate: answers that came after the next tick
    skipped: int = 0  # fixed rate: ticks that passed while an answer was late
    wake_us: list[float] = field(default_factory=list)  # fixed rate: how late the process woke

    def summary(self) -> dict[str, Any]:
        """Return percentiles, and what disturbed the calls."""
        out: dict[str, Any] = percentiles(self.wall_us)
        calm = np.asarray(self.wall_us)[~np.asarray(self.preempted, bool)]
        out["preempted_calls"] = int(sum(self.preempted))
        known = len(self.waited_us) == len(self.wall_us) > 0
        out["waited_p50"] = float(np.median(np.divide(self.waited_us, self.wall_us))) if known else None
        out["minor_faults"], out["major_faults"] = self.minor_faults, self.major_faults
        out["calm"] = percentiles(calm)
        tail, middle = out["calm"]["p999_us"], out["calm"]["p50_us"]
        out["calm_p999_over_p50"] = tail / middle if tail and middle else None
        if len(self.inner_us) == len(self.wall_us) > 0:
            out["inner_p50_us"] = float(np.median(self.inner_us))
            out["overhead_p50_us"] = float(np.median(np.subtract(self.wall_us, self.inner_us)))
        return out

    def rate_summary(self, rate: float) -> dict[str, Any]:
        """Return the summary of a fixed-rate run; times are from the scheduled wake to the answer."""
        return self.summary() | {
            "rate_hz": rate,
            "ticks": self.ticks,
            "misses": self.late + self.skipped,
            "late": self.late,
            "skipped": self.skipped,
            "wake": percentiles(self.wake_us),
        }


def percentiles(times_us: Sequence[float] | Array) -> dict[str, Any]:
    """Return calls, p50, p90, p99, p99.9 and the maximum; None for those that would be the maximum of so few calls."""
    times = np.asarray(times_us, np.float64)
    if not times.size:
        return {"calls": 0, **dict.fromkeys(PERCENTILES), "max_us": None}
    values = dict(zip(PERCENTILES, np.percentile(times, list(PERCENTILES.values())).tolist(), strict=True))
    values |= {name: None for name, least in _LEAST.items() if times.size < least}
    return {"calls": int(times.size), **values, "max_us": float(times.max())}


def latency_summary(times_us: Sequence[float]) -> dict[str, Any]:
    """Return calls, p50, p99 (None below 100 calls) and the maximum: what a command prints beside an answer."""
    found = percentiles(times_us)
    return {name: found[name] for name in ("calls", "p50_us", "p99_us", "max_us")}


def latency_text(latency: dict[str, Any]) -> str:
    """Return :func:`latency_summary` for people."""
    tail = "" if latency["p99_us"] is None else f"p99 {latency['p99_us']:.1f} us, "
    return f"over {latency['calls']} calls: p50 {latency['p50_us']:.1f} us, {tail}max {latency['max_us']:.1f} us"


def choose_cpus(count: int, asked: Sequence[int] | None = None) -> list[int]:
    """Return the cores to run on: those asked for, or the last ones that this process may use."""
    allowed = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))
    cpus = list(asked) if asked else allowed[::-1][:count]
    wrong = [cpu for cpu in cpus if cpu not in allowed]
    if wrong:
        raise TrmInputError(f"--cpu: expected cores of {allowed}, got {wrong[0]}")
    if len(set(cpus)) != len(cpus):
        raise TrmInputError(f"--cpu: expected each core once, got {cpus}")
    if len(cpus) < count:
        raise TrmInputError(f"--threads: {count} threads need {count} cores, {len(cpus)} are there ({cpus})")
    return cpus


@contextmanager
def pinned(cpus: Sequence[int]) -> Iterator[None]:
    """Keep this thread, and threads that it starts, on ``cpus``; afterwards it runs where it ran before."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, set(cpus))
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def _quiet() -> Iterator[None]:
    """Run without the garbage collector, whose pauses are not the task's."""
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class Counters:
    """Context switches, waits for the core and page faults since the last look.

    They are those of this thread; switches and faults of the process where ``threads`` > 1.
    """

    def __init__(self, threads: int = 1) -> None:
        thread = getattr(resource, "RUSAGE_THREAD", resource.RUSAGE_SELF)
        self._who = thread if threads == 1 else resource.RUSAGE_SELF
        try:
            self._schedule: int | None = os.open("/proc/thread-self/schedstat", os.O_RDONLY)
        except OSError:  # not Linux, or a kernel without scheduler statistics
            self._schedule = None
        self._last = self._read()

    def close(self) -> None:
        """Close what the scheduler's figures are read from."""
        if self._schedule is not None:
            os.close(self._schedule)
            self._schedule = None

    def _read(self) -> tuple[int, int, int, int]:
        usage = resource.getrusage(self._who)
        waited = 0 if self._schedule is None else int(os.pread(self._schedule, 96, 0).split()[1])
        return usage.ru_nivcsw, usage.ru_minflt, usage.ru_majflt, waited

    def start(self) -> None:
        """Forget what was before."""
        self._last = self._read()

    def add_to(self, samples: Samples) -> None:
        """Add what happened since :meth:`start`."""
        switches, minor, major, waited = (now - then for now, then in zip(self._read(), self._last, strict=True))
        samples.preempted.append(switches > 0)
        if self._schedule is not None:
            samples.waited_us.append(waited / 1e3)
        samples.minor_faults += minor
        samples.major_faults += major


def closed_loop(
    tasks: Sequence[Task],
    *,
    calls: int | None = None,
    seconds: float = 1.0,
    idle_ms: float = 0.0,
    cpus: Sequence[int] | None = None,
    progress: Callable[[float], None] | None = None,
) -> dict[str, Samples]:
    """Call each task again and again, in turns.

    Parameters
    ----------
    tasks
        What to time; names must differ.
    calls, seconds
        Calls of each task; None: for this long, each.
    idle_ms
        Sleep so long before every call, as a controller that waits does.
    cpus
        Cores to run on; a task takes its first ``threads``. None: wherever the process is.
    progress
        Called after every block with the share that is done, 0..1.
    """

    def block(task: Task, samples: Samples, counters: Counters, budget: _Budget) -> None:
        end = time.perf_counter() + _BLOCK_S
        while True:
            if idle_ms:
                time.sleep(idle_ms / 1e3)
            budget.count(_time_once(task, samples, counters) + idle_ms / 1e3)
            if not budget.left() or time.perf_counter() >= end:
                return

    return _in_turns(tasks, block, _Budget(calls, seconds), cpus, progress)


def _time_once(task: Task, samples: Samples, counters: Counters) -> float:
    """Time one call and return its seconds."""
    counters.start()
    before = time.perf_counter_ns()
    inner = task.call()
    wall = time.perf_counter_ns() - before
    counters.add_to(samples)
    samples.wall_us.append(wall / 1e3)
    if inner is not None:
        samples.inner_us.append(inner)
    return wall / 1e9


def fixed_rate(
    tasks: Sequence[Task],
    rate: float,
    *,
    calls: int | None = None,
    seconds: float = 1.0,
    spin_us: float = 0.0,
    cpus: Sequence[int] | None = None,
    progress: Callable[[float], None] | None = None,
) -> dict[str, Samples]:
    """Wake each task ``rate`` times a second; other arguments as :func:`closed_loop`, where a tick is a call.

    ``spin_us`` is busy-waited before every tick instead of slept, against late wakes.
    """
    ticks = max(1, round(seconds * rate)) if calls is None else calls
    at_once = max(10, round(_BLOCK_S * rate))

    def block(task: Task, samples: Samples, counters: Counters, budget: _Budget) -> None:
        count = min(at_once, ticks - budget.done)
        passed = run_ticks(task, rate, count, samples, counters, spin_us=spin_us)
        budget.count(passed / rate, passed)

    return _in_turns(tasks, block, _Budget(ticks, seconds), cpus, progress)


def run_ticks(
    task: Task,
    rate: float,
    ticks: int,
    samples: Samples,
    counters: Counters,
    *,
    spin_us: float = 0.0,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
) -> int:
    """Run ``ticks`` ticks on a fixed grid, add them to ``samples``, and return how many have passed.

    A call misses its deadline when its answer comes after the next tick. The ticks that pass meanwhile are skipped, and
    each is a miss of its own: nobody answered it. So there are more than ``ticks`` where the last answer is late.
    """
    start = clock() + 1 / rate
    tick = 0
    while tick < ticks:
        scheduled = start + tick / rate
        wait_until(scheduled, spin_us, clock, sleep)
        woke = clock()
        counters.start()
        ours = clock() - woke  # which is not the task's
        inner = task.call()
        answered = clock() - ours
        counters.add_to(samples)
        samples.wall_us.append((answered - scheduled) * 1e6)
        samples.wake_us.append((woke - scheduled) * 1e6)
        if inner is not None:
            samples.inner_us.append(inner)
        overrun = (answered - scheduled) * rate  # in ticks
        samples.late += overrun > 1
        skipped = int(overrun)
        samples.skipped += skipped
        samples.ticks += 1 + skipped
        tick += 1 + skipped
    return tick


def wait_until(
    moment: float,
    spin_us: float = 0.0,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Sleep until ``spin_us`` before ``moment``, then busy-wait."""
    while (left := moment - clock() - spin_us / 1e6) > 0:
        sleep(left)
    while clock() < moment:
        pass


@dataclass
class _Budget:
    """How much of a task's share is used up: calls where they are given, else seconds."""

    calls: int | None
    seconds: float
    done: int = 0
    spent: float = 0.0

    def count(self, seconds: float, calls: int = 1) -> None:
        self.done += calls
        self.spent += seconds

    def left(self) -> bool:
        return self.share() < 1

    def share(self) -> float:
        return self.done / self.calls if self.calls is not None else self.spent / self.seconds


_Block = Callable[[Task, Samples, Counters, _Budget], None]


def _in_turns(
    tasks: Sequence[Task],
    block: _Block,
    budget: _Budget,
    cpus: Sequence[int] | None,
    progress: Callable[[float], None] | None,
) -> dict[str, Samples]:
    if len({task.name for task in tasks}) != len(tasks):
        raise TrmInputError(f"tasks: expected names that differ, got {[task.name for task in tasks]}")
    samples = {task.name: Samples() for task in tasks}
    budgets = {task.name: replace(budget) for task in tasks}
    with _quiet():
        while any(budget.left() for budget in budgets.values()):
            for task in tasks:
                budget = budgets[task.name]
                if not budget.left():
                    continue
                with pinned(cpus[: task.threads]) if cpus else nullcontext():
                    task.call()
                    with closing(Counters(task.threads)) as counters:
                        block(task, samples[task.name], counters, budget)
                time.sleep(task.settle_s)
            if progress is not None:
                progress(min(1.0, sum(min(1.0, b.share()) for b in budgets.values()) / max(1, len(budgets))))
            gc.collect(0)
    return samples


class Progress:
    """One line on standard error that says what is under way; a new line every ten seconds where it is no terminal."""

    def __init__(self, stream: Any = None) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._start = self._shown = time.monotonic()
        self._terminal = bool(self._stream.isatty())
        self._open = False

    def stage(self, what: str) -> Callable[[float], None]:
        """Return a function that takes the share of ``what`` that is done."""

        def show(share: float) -> None:
            now = time.monotonic()
            if now - self._shown < (0.2 if self._terminal else 10.0):
                return
            self._shown = now
            text = f"{what}: {100 * share:3.0f} %, {now - self._start:.0f} s"
            self._stream.write(f"\r{text:<70}" if self._terminal else f"{text}\n")
            self._stream.flush()
            self._open = self._terminal

        return show

    def close(self) -> None:
        """Wipe the line."""
        if self._open:
            self._stream.write("\r" + " " * 70 + "\r")
            self._stream.flush()
