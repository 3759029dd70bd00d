"""``trm-edge profile``: what is counted, reported and refused. No assertion depends on how fast the machine is."""

from __future__ import annotations

import itertools
import json
import mmap
import os
import shutil
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from models import calibrated, make_bundle, make_spec
from runners import plain_bundle

from trm_edge import TrmInputError, TrmIOError, profiling
from trm_edge.bundle import read_bundle, write_bundle
from trm_edge.cli import main
from trm_edge.golden import golden_arguments
from trm_edge.profiling import command, configurations, roofline, timing
from trm_edge.profiling.command import histogram
from trm_edge.profiling.configurations import Choice, open_configuration
from trm_edge.profiling.gpu import describe_gpu, gpu_facts, gpu_state
from trm_edge.profiling.machine import describe, machine_facts, machine_state
from trm_edge.profiling.report import format_report
from trm_edge.profiling.timing import Counters, Samples, Task, percentiles

Capture = pytest.CaptureFixture[str]


pytestmark = pytest.mark.usefixtures("no_overrides")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("profile") / "small.trm"
    write_bundle(path, make_bundle("actions"))
    return path


def run(capsys: Capture, *argv: object) -> tuple[int, str, str]:
    try:
        code = main(["profile", *map(str, argv)])
    except SystemExit as exit_:
        code = int(exit_.code or 0)
    return code, *capsys.readouterr()


QUICK = ("--calls", 6, "--rate", "1000", "--idle-ms", "1")


# ---- Timing ----------------------------------------------------------------------------------------------------------


def test_percentiles_are_those_of_numpy() -> None:
    times = np.random.default_rng(0).lognormal(size=5000)
    found = percentiles(times)
    for key, q in (("p50_us", 50), ("p90_us", 90), ("p99_us", 99), ("p999_us", 99.9)):
        assert found[key] == pytest.approx(np.percentile(times, q))
    assert (found["calls"], found["max_us"]) == (5000, times.max())


@pytest.mark.parametrize(("name", "least"), [("p90_us", 10), ("p99_us", 100), ("p999_us", 1000)])
def test_few_calls_have_no_far_tail(name: str, least: int) -> None:
    assert percentiles(np.arange(float(least - 1)))[name] is None
    assert percentiles(np.arange(float(least)))[name] is not None


def test_a_percentile_of_no_calls_is_none() -> None:
    assert percentiles([]) == {
        "calls": 0,
        "p50_us": None,
        "p90_us": None,
        "p99_us": None,
        "p999_us": None,
        "max_us": None,
    }


def test_tasks_take_turns_and_each_gets_its_calls() -> None:
    order: list[str] = []
    tasks = [Task(name, lambda name=name: order.append(name)) for name in "abc"]
    samples = profiling.closed_loop(tasks, calls=5)
    assert {name: len(s.wall_us) for name, s in samples.items()} == {"a": 5, "b": 5, "c": 5}
    assert "".join(order) == "aaaaaabbbbbbcccccc"  # one more each, to warm up


def test_slow_tasks_are_interleaved_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "_BLOCK_S", 1e-9)
    order: list[str] = []
    profiling.closed_loop([Task(n, lambda n=n: order.append(n)) for n in "ab"], calls=2)
    assert order == list("aabb") * 2  # every block warms up with a call that is not counted


def test_the_time_inside_gives_the_overhead() -> None:
    samples = profiling.closed_loop([Task("t", lambda: 1.0)], calls=4)["t"].summary()
    assert samples["inner_p50_us"] == 1.0
    assert samples["overhead_p50_us"] == pytest.approx(samples["p50_us"] - 1.0)
    assert "inner_p50_us" not in profiling.closed_loop([Task("t", lambda: None)], calls=4)["t"].summary()


def test_preempted_calls_are_counted_and_left_out_of_the_calm_ones() -> None:
    samples = Samples([1.0, 50.0, 2.0, 3.0], preempted=[False, True, False, False])
    found = samples.summary()
    assert (found["preempted_calls"], found["max_us"]) == (1, 50.0)
    assert (found["calm"]["calls"], found["calm"]["max_us"]) == (3, 3.0)


def test_page_faults_are_counted() -> None:
    samples = Samples()
    with closing(Counters()) as counters:
        counters.start()
        with mmap.mmap(-1, 1 << 24) as pages:  # which malloc might have had before
            pages[:] = bytes(1 << 24)
        counters.add_to(samples)
    assert samples.minor_faults > 0


@pytest.mark.skipif(
    not Path("/proc/thread-self/schedstat").exists(), reason="this kernel keeps no scheduler statistics"
)
def test_waits_for_the_core_are_measured() -> None:
    spin = "import os, time\nos.sched_setaffinity(0, {%d})\nprint(flush=True)\nwhile True: pass"
    cpu = max(os.sched_getaffinity(0))
    rival = subprocess.Popen([sys.executable, "-c", spin % cpu], stdout=subprocess.PIPE)
    try:
        assert rival.stdout is not None
        rival.stdout.readline()

        def work() -> None:
            end = time.thread_time() + 0.05
            while time.thread_time() < end:
                pass

        shared = profiling.closed_loop([Task("t", work)], calls=5, cpus=[cpu])["t"]
    finally:
        rival.kill()
        rival.wait()
    assert shared.summary()["waited_p50"] > 0.05  # about half, as two share the core
    assert Samples([1.0], preempted=[False]).summary()["waited_p50"] is None


def test_names_must_differ() -> None:
    with pytest.raises(TrmInputError, match="differ"):
        profiling.closed_loop([Task("a", lambda: None), Task("a", lambda: None)], calls=1)


def test_the_process_is_pinned_while_it_measures_and_free_afterwards() -> None:
    before = os.sched_getaffinity(0)
    cpus = timing.choose_cpus(1)
    seen: list[set[int]] = []
    profiling.closed_loop([Task("t", lambda: seen.append(os.sched_getaffinity(0)))], calls=2, cpus=cpus)
    assert seen == [set(cpus)] * 3
    assert os.sched_getaffinity(0) == before
    with pytest.raises(RuntimeError), profiling.pinned(cpus):
        raise RuntimeError
    assert os.sched_getaffinity(0) == before


def test_impossible_cores_are_refused() -> None:
    for count, asked in ((1, [10**6]), (10**4, None), (2, [min(os.sched_getaffinity(0))] * 2)):
        with pytest.raises(TrmInputError):
            timing.choose_cpus(count, asked)


class FakeTime:
    """A clock that moves when someone sleeps or works."""

    def __init__(self) -> None:
        self.now = 100.0
        self.slept = 0.0

    def clock(self) -> float:
        self.now += 1e-9  # so that a busy wait ends
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.slept += seconds

    def ticks(self, durations: list[float], rate: float, count: int, **options: float) -> Samples:
        work = iter(durations)

        def call() -> None:
            self.now += next(work)

        samples = Samples()
        with closing(Counters()) as counters:
            task = Task("t", call)
            timing.run_ticks(task, rate, count, samples, counters, clock=self.clock, sleep=self.sleep, **options)
        return samples


def test_fast_calls_miss_nothing() -> None:
    samples = FakeTime().ticks([0.004] * 5, 100, 5)
    found = samples.rate_summary(100)
    assert (found["ticks"], found["misses"], found["late"], found["skipped"]) == (5, 0, 0, 0)
    np.testing.assert_allclose(samples.wall_us, 4000, rtol=1e-4)


def test_a_slow_call_misses_its_deadline_and_the_ticks_it_ran_over() -> None:
    samples = FakeTime().ticks([0.004, 0.025, 0.004, 0.004, 0.004], 100, 6)
    found = samples.rate_summary(100)
    # tick 1 is answered 25 ms after its wake: late; ticks 2 and 3 passed meanwhile; 4 and 5 are in time again
    assert (found["ticks"], found["late"], found["skipped"], found["misses"]) == (6, 1, 2, 3)
    assert found["calls"] == 4
    np.testing.assert_allclose(samples.wall_us, [4000, 25000, 4000, 4000], rtol=1e-4)


def test_the_grid_is_absolute() -> None:
    fake = FakeTime()
    start = fake.now
    fake.ticks([0.001, 0.009, 0.005, 0.002], 100, 4)
    assert fake.now - start == pytest.approx(0.01 + 3 * 0.01 + 0.002, rel=1e-4)


def test_always_too_slow_misses_everything() -> None:
    found = FakeTime().ticks([0.015] * 10, 100, 10).rate_summary(100)
    assert (found["ticks"], found["misses"]) == (10, 10)


def test_a_busy_wait_replaces_sleep_before_the_tick() -> None:
    fake = FakeTime()
    fake.ticks([0.0] * 3, 1000, 3, spin_us=1.0)
    assert fake.slept == pytest.approx(0.003 - 3e-6, rel=1e-3)


def test_fixed_rate_runs_the_ticks_asked_for() -> None:
    samples = profiling.fixed_rate([Task("a", lambda: None), Task("b", lambda: None)], 1000, calls=7, spin_us=100)
    for s in samples.values():
        assert s.ticks == len(s.wall_us) + s.skipped >= 7
        assert s.ticks == 7 or s.skipped  # more only where the last answer was late
        assert all(w >= 0 for w in s.wake_us)


def test_ticks_that_pass_behind_the_end_of_a_block_are_counted() -> None:
    found = FakeTime().ticks([0.004, 0.5, 0.004], 100, 2).rate_summary(100)
    assert (found["ticks"], found["late"], found["skipped"]) == (52, 1, 50)
    stalled = iter([False, True])  # the first call is not counted
    task = Task("t", lambda: time.sleep(0.25) if next(stalled, False) else None)
    samples = profiling.fixed_rate([task], 1000, calls=10)["t"]
    assert samples.skipped >= 249 and samples.ticks == len(samples.wall_us) + samples.skipped


@pytest.mark.parametrize(("rate", "seconds", "ticks"), [(1000.0, 0.03, 30), (2.0, 0.2, 1), (1000.0, 0.35, 350)])
def test_seconds_are_as_many_ticks(monkeypatch: pytest.MonkeyPatch, rate: float, seconds: float, ticks: int) -> None:
    monkeypatch.setattr(timing, "run_ticks", lambda task, rate, count, *_, **__: count)
    passed: list[float] = []
    profiling.fixed_rate([Task("t", lambda: None)], rate, seconds=seconds, progress=passed.append)
    at_once = max(10, round(0.1 * rate))
    assert passed == [min(1.0, (k + 1) * at_once / ticks) for k in range(-(-ticks // at_once))]


def test_idle_sleeps_before_each_call() -> None:
    moments: list[float] = []
    profiling.closed_loop([Task("t", lambda: moments.append(time.perf_counter()))], idle_ms=2.0, calls=3)
    assert (np.diff(moments) >= 0.002).all()


def test_the_next_task_waits_for_the_threads_of_the_one_before() -> None:
    moments: dict[str, float] = {}
    spins = Task("spins", lambda: moments.setdefault("spins", time.perf_counter()) and None, settle_s=0.02)
    profiling.closed_loop(
        [spins, Task("next", lambda: moments.setdefault("next", time.perf_counter()) and None)], calls=1
    )
    assert moments["next"] - moments["spins"] >= 0.02


def test_a_histogram_holds_every_call() -> None:
    times = np.random.default_rng(0).lognormal(size=500).tolist()
    found = histogram(Samples(times))
    assert found["counts"].sum() == 500
    assert len(found["edges_us"]) == len(found["counts"]) + 1
    assert histogram(Samples([5.0] * 3))["counts"].sum() == 3


# ---- Roofline --------------------------------------------------------------------------------------------------------


def test_work_is_counted_as_the_design_says() -> None:
    spec = make_spec("actions", hidden_size=48, inner_size=96, num_heads=3, l_cycles=2, h_cycles=3)
    work = roofline.Work.of(spec, rows=10, steps=4)
    assert work.evaluations == 4 * 3 * 3
    assert work.dense_flop == work.evaluations * 2 * 10 * 2 * (4 * 48**2 + 3 * 48 * 96)
    assert work.attention_flop == work.evaluations * 2 * 4 * 10 * 10 * 48
    assert work.weights == 2 * (4 * 48**2 + 3 * 48 * 96)


def test_token_mixing_counts_channels_as_rows() -> None:
    spec = make_spec("actions", "mlp_t")
    rows = spec.max_rows
    work = roofline.Work.of(spec, rows, 1)
    a_block = (
        2 * 3 * spec.token_inner_size * rows * spec.hidden_size + 2 * 3 * spec.inner_size * spec.hidden_size * rows
    )
    assert work.dense_flop == work.evaluations * 2 * a_block
    assert work.attention_flop == 0


def test_share_is_work_over_time_and_peak() -> None:
    work = roofline.Work(rows=8, evaluations=2, dense_flop=3e6, attention_flop=1e6, weights=1000)
    facts = work.facts(1000.0, "int8", 2, peak=4e9, bytes_per_s=1e9)
    assert facts["gflops"] == pytest.approx(4.0)
    assert facts["share_of_peak"] == pytest.approx(0.5)
    assert facts["weight_bytes"] == 1000
    assert work.facts(1000.0, "bf16", 1, None, None)["share_of_peak"] is None
    assert work.weight_bytes("bf16") == 2000


def test_a_register_loop_is_tuned_to_a_duration() -> None:
    assert roofline.tuned_iterations(lambda n: (2.0 * n, n * 1e-8), 0.02) == pytest.approx(2_000_000, rel=0.01)


def test_other_work_takes_nothing_from_the_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    loops = itertools.count()

    class Core:
        @staticmethod
        def register_loop(precision: int, iterations: int) -> tuple[float, float]:
            disturbed = next(loops) % 4 > 0  # three slices of four
            return 8.0 * iterations * precision, iterations * (3e-9 if disturbed else 1e-9)

    monkeypatch.setattr(roofline, "core", Core)
    assert roofline.register_peak("fp32", 1e-3) == pytest.approx(8e9)
    assert roofline.register_peak("fp64") is None


def test_the_engine_has_a_register_loop_for_every_precision() -> None:
    for precision in ("fp32", "bf16", "int8"):
        loop = roofline.register_loop(precision)
        assert loop is not None
        (few, _), (many, seconds) = loop(10), loop(1000)
        assert many == 100 * few > 0 and seconds > 0
    assert roofline.register_loop("fp16") is None


def test_bandwidth_is_positive() -> None:
    assert roofline.bandwidth(1 << 16, 1e-3) > 0


# ---- Machine ---------------------------------------------------------------------------------------------------------


def test_facts_are_read_from_the_system(tmp_path: Path) -> None:
    files = {
        "proc/cpuinfo": "processor\t: 0\nmodel name\t: Test CPU 9000\nflags\t: fpu hypervisor avx2\n",
        "proc/meminfo": "MemTotal:       2097152 kB\nMemFree: 1 kB\n",
        "proc/loadavg": "0.50 0.25 0.10 1/100 4242\n",
        "proc/stat": "cpu  1 2 3 4 5 6 7 250 0 0\ncpu0 1 1 1 1\n",
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "performance\n",
        "sys/devices/system/cpu/cpu1/cpufreq/scaling_governor": "powersave\n",
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "2000000\n",
        "sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq": "3500000\n",
        "sys/devices/system/cpu/cpu0/cache/index0/level": "1\n",
        "sys/devices/system/cpu/cpu0/cache/index0/type": "Data\n",
        "sys/devices/system/cpu/cpu0/cache/index0/size": "48K\n",
        "sys/devices/system/cpu/cpu1/cpufreq/cpuinfo_max_freq": "1800000\n",
        "sys/devices/system/cpu/isolated": "\n",
        "sys/kernel/mm/transparent_hugepage/enabled": "always [madvise] never\n",
        "sys/class/thermal/thermal_zone0/type": "x86_pkg_temp\n",
        "sys/class/thermal/thermal_zone0/temp": "61500\n",
        "sys/class/thermal/thermal_zone1/temp": "broken\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    facts = machine_facts(tmp_path)
    assert (facts["cpu"], facts["cores"], facts["virtual"]) == ("Test CPU 9000", 2, True)
    assert (facts["governor"], facts["max_mhz"], facts["memory_mib"]) == ("performance, powersave", 3500, 2048)
    assert facts["caches"] == [{"level": 1, "type": "Data", "size": "48K", "shared_by": None}]
    other = machine_facts(tmp_path, cpu=1)  # where cores differ, that of the run
    assert (other["max_mhz"], other["caches"], other["governor"]) == (1800, [], facts["governor"])
    assert (facts["huge_pages"], facts["isolated"], facts["board"]) == ("madvise", None, None)
    assert "Test CPU 9000" in describe(facts) and "L1d 48K" in describe(facts)
    state = machine_state(tmp_path)
    assert state["load"] == [0.5, 0.25, 0.1]
    assert state["celsius"] == {"thermal_zone0 x86_pkg_temp": 61.5}
    assert state["mhz"] == [2000]
    assert state["steal_s"] == pytest.approx(250 / os.sysconf("SC_CLK_TCK"))


def test_a_system_that_says_nothing_is_no_error(tmp_path: Path) -> None:
    facts = machine_facts(tmp_path)
    assert facts["caches"] == [] and facts["governor"] is None
    assert describe(facts)
    assert machine_state(tmp_path) == {"load": None, "mhz": None, "celsius": {}, "steal_s": None}
    json.dumps(machine_facts())


def test_a_gpu_is_described_by_what_its_tools_print(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replies = {
        "nvidia-smi": "case $1 in *clocks.max*) echo 'Test GPU, 580.1.2, 81559, 1980, [N/A], 700.00';;"
        " *) echo '1965, 2619, 47, 131.62, P0'; echo 'a second, 1, 1, 1, 1';; esac",
        "nvpmodel": "printf 'NV Power Mode: MAXN\\n0\\n'",
    }
    for name, script in replies.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    facts, state = gpu_facts(tmp_path), gpu_state(tmp_path)
    assert facts == {
        **{"name": "Test GPU", "driver": "580.1.2", "memory_mib": 81559.0, "max_sm_mhz": 1980.0},
        **{"power_limit_w": 700.0, "power_mode": "NV Power Mode: MAXN, 0"},
    }
    assert state == {
        **{"sm_mhz": 1965.0, "memory_mhz": 2619.0, "celsius": 47.0, "power_w": 131.62},
        "performance_state": "P0",
    }
    assert describe_gpu({}, state) == "1965 MHz, 47 C, 132 W"


def test_the_clock_of_a_jetson_comes_from_sys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpu_facts(tmp_path) == {} and gpu_state(tmp_path) == {}
    folder = tmp_path / "sys/class/devfreq/17000000.gpu"
    folder.mkdir(parents=True)
    (folder / "max_freq").write_text("1300500000\n")
    (folder / "cur_freq").write_text("306000000\n")
    assert gpu_facts(tmp_path) == {"max_sm_mhz": 1300.5} and gpu_state(tmp_path) == {"sm_mhz": 306.0}


# ---- The command -----------------------------------------------------------------------------------------------------


def test_a_report_is_written_and_read_again(capsys: Capture, bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "report.json"
    code, text, _ = run(capsys, bundle, *QUICK, "--json", out)
    assert code == 0
    assert "fused fp32 x1" in text and "1000 Hz" in text and "idle, then fire" in text
    report = profiling.read_report(out)
    row = report["configurations"][0]
    assert (row["backend"], row["precision"], row["threads"]) == ("fused", "fp32", 1)
    assert row["check"]["passed"] and row["check"]["cases"] == 2
    assert row["closed_loop"]["calls"] == 6
    assert sum(row["closed_loop"]["histogram"]["counts"]) == 6
    assert row["closed_loop"]["overhead_p50_us"] > 0
    assert [mode["rate_hz"] for mode in row["fixed_rate"]] == [1000] and row["fixed_rate"][0]["ticks"] >= 6
    assert row["idle_then_fire"]["calls"] == 6
    assert row["roofline"]["gflops"] > 0
    assert report["model"]["rows"] == 13 and report["model"]["steps"] == 4
    assert {"machine", "state", "settings", "peaks_gflops", "skipped", "time", "trm_edge"} <= set(report)


def test_threads_of_a_session_sleep_when_it_is_another_ones_turn(bundle: Path, tmp_path: Path) -> None:
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("needs two cores")
    whole, cpus = read_bundle(bundle), timing.choose_cpus(2)
    calls = [golden_arguments(whole.golden[0])]

    def burnt() -> float:
        before = time.process_time()
        time.sleep(0.3)
        return time.process_time() - before

    idle = burnt()
    made = open_configuration(
        *(Choice("fused", None, 2), bundle, whole, calls, 2), cpus=cpus, graph=None, folder=tmp_path, longest_gap_s=0.01
    )
    assert made.settle_s >= 0.015
    task = made.task(calls, 2)
    assert (task.threads, task.settle_s, made.park_after_us) == (2, made.settle_s, 16000)
    task.call()
    time.sleep(task.settle_s)
    assert burnt() - idle < 0.15  # a thread that spins on takes 0.3


def test_calls_that_end_early_are_not_timed(capsys: Capture, bundle: Path, tmp_path: Path) -> None:
    call = golden_arguments(read_bundle(bundle).golden[0])
    x = np.array(call["x"])
    x[0, 0] = np.nan
    np.savez(tmp_path / "nan.npz", **(call | {"x": x}))
    code, out, err = run(capsys, bundle, *QUICK, "--input", tmp_path / "nan.npz")
    assert (code, out) == (2, "") and "fused own precision x1: a call to time has the status NONFINITE after" in err


def test_a_gpu_has_no_share_of_a_cores_peak(capsys: Capture, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quick = ("--calls", 20, "--rate", "none", "--idle-ms", "none", "--backend", "fused,reference", "--json")
    row, *_ = json.loads(run(capsys, bundle, *quick)[1])["configurations"]
    assert row["roofline"]["share_of_peak"] > 0 and row["roofline"]["copy_gb_per_s"] > 0 and "steadiness" in row
    monkeypatch.setattr(configurations, "GPU_BACKENDS", ("fused",))
    row, *_ = json.loads(run(capsys, bundle, *quick)[1])["configurations"]
    assert row["roofline"]["gflops"] > 0 and "steadiness" not in row
    assert row["roofline"]["share_of_peak"] is row["roofline"]["copy_gb_per_s"] is None


def test_a_file_that_cannot_be_written_does_not_cost_the_measurement(
    capsys: Capture, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise TrmIOError("report.json: cannot be written: No space left on device")

    monkeypatch.setattr(command, "write_atomically", full)
    code, out, err = run(capsys, bundle, *QUICK, "--json", tmp_path / "report.json")
    assert code == 2 and "fused fp32 x1" in out and "No space left" in err


def test_json_alone_goes_to_standard_output(capsys: Capture, bundle: Path) -> None:
    code, out, err = run(capsys, bundle, "--calls", 3, "--rate", "none", "--idle-ms", "none", "--json")
    assert (code, err) == (0, "")
    row = json.loads(out)["configurations"][0]
    assert row["fixed_rate"] == [] and "idle_then_fire" not in row


def test_what_cannot_run_here_is_skipped_with_its_reason(capsys: Capture, bundle: Path) -> None:
    code, out, _ = run(capsys, bundle, *QUICK, "--backend", "fused,reference", "--precision", "fp32", "--json")
    report = json.loads(out)
    assert code == 0
    assert [row["name"] for row in report["configurations"]] == ["fused fp32 x1"]
    assert "fp64" in report["skipped"][0]["reason"]
    code, out, _ = run(capsys, bundle, *QUICK, "--backend", "fused,reference", "--precision", "fp64", "--json")
    report = json.loads(out)
    assert code == 0 and [row["name"] for row in report["configurations"]] == ["reference fp64 x1"]
    assert "fp64 is for backend reference" in report["skipped"][0]["reason"]
    code, out, err = run(capsys, bundle, *QUICK, "--backend", "reference", "--precision", "fp32")
    assert (code, out) == (2, "") and "fp64" in err


def test_a_graph_that_nobody_reads_is_refused(capsys: Capture, bundle: Path) -> None:
    code, _, err = run(capsys, bundle, *QUICK, "--graph", "push.onnx")
    assert code == 2 and "--graph: for backends tensorrt and onnxruntime" in err


def test_a_graph_is_exported_for_the_backend_that_reads_one(capsys: Capture, bundle: Path) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    code, out, _ = run(capsys, bundle, *QUICK, "--backend", "fused,onnxruntime", "--json")
    assert code == 0
    assert [row["backend"] for row in json.loads(out)["configurations"]] == ["fused", "onnxruntime"]


def test_a_calibrated_bundle_is_timed_in_float32_as_a_graph_too(capsys: Capture, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    path = tmp_path / "int8.trm"
    write_bundle(path, calibrated(make_bundle("actions"), "static"))
    code, out, _ = run(capsys, path, *QUICK, "--backend", "onnxruntime", "--precision", "fp32,int8", "--json")
    report = json.loads(out)
    assert code == 0 and report["skipped"] == []
    assert [row["name"] for row in report["configurations"]] == ["onnxruntime fp32 x1", "onnxruntime int8 x1"]


def test_a_wrong_answer_is_not_timed(capsys: Capture, bundle: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    other, graph = tmp_path / "other.trm", tmp_path / "other.onnx"
    write_bundle(other, make_bundle("actions", seed=5))
    assert main(["export", str(other), str(graph), "--loop", "unrolled", "--steps", "4"]) == 0
    capsys.readouterr()
    code, out, _ = run(capsys, bundle, *QUICK, "--backend", "fused,onnxruntime", "--graph", graph)
    assert code == 1
    assert "onnxruntime fp32 x1" in out and "WRONG" in out
    code, out, _ = run(capsys, bundle, *QUICK, "--backend", "onnxruntime", "--graph", graph)
    assert code == 1 and "WRONG" in out and "share:" not in out


def test_a_share_that_cannot_be_says_why(capsys: Capture, bundle: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    assert run(capsys, bundle, *QUICK, "--json", report)[0] == 0
    facts = json.loads(report.read_text())
    for share, told in ((6.06, True), (0.5, False)):
        facts["configurations"][0]["roofline"]["share_of_peak"] = share
        assert ("a share above 100 %: other work slowed" in format_report(facts)) == told


@pytest.mark.parametrize("kind", ["slots", "tokens"])
def test_other_kinds_and_bundles_without_golden_cases(capsys: Capture, kind: str, tmp_path: Path) -> None:
    path = tmp_path / "plain.trm"
    write_bundle(path, plain_bundle(kind))
    code, out, _ = run(capsys, path, *QUICK, "--steps", 2, "--json")
    report = json.loads(out)
    assert code == 0
    assert "random" in report["settings"]["inputs"]
    assert report["configurations"][0]["check"]["passed"]


def test_the_arrays_of_a_call_may_be_given(capsys: Capture, bundle: Path, tmp_path: Path) -> None:
    spec = make_spec("actions")
    x, y0 = np.ones((2, spec.context_size), np.float32), np.zeros((5, spec.dof), np.float32)
    np.savez(tmp_path / "tick.npz", x=x, y0=y0, last_action=np.zeros(spec.dof, np.float32))
    code, out, _ = run(capsys, bundle, *QUICK, "--input", tmp_path / "tick.npz", "--json")
    assert code == 0
    assert json.loads(out)["model"]["rows"] == 2 + 5 + 2


@pytest.mark.parametrize("puzzle_id", [np.zeros(0, np.int32), np.float32(0.7)])
def test_a_puzzle_id_that_is_no_integer_is_refused(
    puzzle_id: object, capsys: Capture, bundle: Path, tmp_path: Path
) -> None:
    np.savez(tmp_path / "tick.npz", puzzle_id=puzzle_id)
    code, _, err = run(capsys, bundle, *QUICK, "--input", tmp_path / "tick.npz")
    assert code == 2 and "tick.npz: puzzle_id: expected one integer" in err


@pytest.mark.parametrize(
    ("argv", "word"),
    [
        (("--backend", "warp"), "--backend"),
        (("--precision", "int3"), "--precision"),
        (("--threads", "0"), "--threads"),
        (("--threads", "two"), "--threads"),
        (("--threads", "100000"), "--threads"),
        (("--rate", "fast"), "--rate"),
        (("--rate", "0"), "--rate"),
        (("--rate", "nan"), "--rate"),
        (("--idle-ms", "-1"), "--idle-ms"),
        (("--idle-ms", "1,50"), "--idle-ms: expected one number, got '1,50'"),
        (("--calls", "0"), "--calls"),
        (("--seconds", "0"), "--seconds"),
        (("--seconds", "nan"), "--seconds"),
        (("--spin-us", "-1"), "--spin-us"),
        (("--steps", "0"), "--steps"),
        (("--cpu", "4096"), "--cpu"),
        (("--input", "missing.npz"), "missing.npz"),
    ],
)
def test_bad_usage_is_one_line(capsys: Capture, bundle: Path, argv: tuple[str, ...], word: str) -> None:
    code, out, err = run(capsys, bundle, *argv)
    assert (code, out) == (2, "")
    assert err.startswith("trm-edge profile: ") and word in err and err.count("\n") == 1


def test_a_missing_bundle(capsys: Capture) -> None:
    assert run(capsys, "missing.trm")[0] == 2


def test_a_plot_is_drawn(capsys: Capture, bundle: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    assert run(capsys, bundle, *QUICK, "--plot", tmp_path / "p.png")[0] == 0
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.skipif(sys.platform == "darwin", reason="its file systems take only UTF-8")
def test_a_plot_is_drawn_of_a_bundle_with_any_name(capsys: Capture, bundle: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    for name in (b"not UTF-8 \xff.trm", b"$x$ $\\frac.trm"):
        other = shutil.copy(bundle, tmp_path / os.fsdecode(name))
        assert run(capsys, other, *QUICK, "--plot", tmp_path / "p.png")[0] == 0
        (tmp_path / "p.png").unlink()


def test_what_cannot_be_written_is_refused_before_the_work(
    capsys: Capture, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(command, "profile", lambda *_: pytest.fail("it profiled"))
    for option, name, message in (
        ("--plot", "p.nonsense", "expected a picture's name"),
        ("--plot", "missing/p.png", "there is no folder"),
        ("--json", "missing/r.json", "there is no folder"),
    ):
        code, out, err = run(capsys, bundle, option, tmp_path / name)
        assert (code, out) == (2, "") and name in err and message in err


def test_a_bundle_behind_json_is_not_overwritten(capsys: Capture, bundle: Path) -> None:
    before = bundle.read_bytes()
    code, out, err = run(capsys, *QUICK, "--json", bundle)
    assert (code, out) == (2, "") and "name the bundle first" in err
    assert bundle.read_bytes() == before


def test_a_picture_that_fails_costs_no_report(
    capsys: Capture, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib")

    def fails(*_: object) -> None:
        raise TrmIOError("the disk is full")

    monkeypatch.setattr("trm_edge.profiling.plot.draw", fails)
    report = tmp_path / "r.json"
    code, out, err = run(capsys, bundle, *QUICK, "--json", report, "--plot", tmp_path / "p.png")
    assert code == 2 and "fused fp32 x1" in out and "the disk is full" in err
    assert profiling.read_report(report)["configurations"]


# ---- Comparison ------------------------------------------------------------------------------------------------------


def made_up(**changes: Any) -> dict[str, Any]:
    times = {"calls": 500, "p50_us": 100.0, "p90_us": 110.0, "p99_us": 120.0, "p999_us": None, "max_us": 200.0}
    return {
        "format": "trm_edge.profile",
        "format_version": 1,
        "machine": {"cpu": "A", "cores": 2},
        "model": {"sha256": "0", "steps": 4},
        "configurations": [
            {
                "name": "fused fp32 x1",
                "closed_loop": times,
                "fixed_rate": [times | {"rate_hz": 1000.0, "misses": 3, "ticks": 300}],
                "roofline": {"share_of_peak": 0.9},
            },
            {"name": "only here", "closed_loop": times},
        ],
    } | changes


def test_ratios_and_differences_are_told(capsys: Capture, tmp_path: Path) -> None:
    faster = json.loads(json.dumps(made_up(machine={"cpu": "B", "cores": 2})))
    faster["configurations"][0]["closed_loop"]["p50_us"] = 50.0
    faster["configurations"][1]["name"] = "only there"
    for name, report in (("a", made_up()), ("b", faster)):
        (tmp_path / f"{name}.json").write_text(json.dumps(report))
    code, out, _ = run(capsys, "--compare", tmp_path / "a.json", tmp_path / "b.json", "--json")
    result = json.loads(out)
    assert code == 0
    code, out, err = run(capsys, "--compare", tmp_path / "a.json", tmp_path / "b.json", "--json", tmp_path / "a.json")
    assert (code, out) == (2, "") and "is the file that is read" in err
    for option, more in (
        ("--plot", ("--plot", tmp_path / "p.png")),
        ("bundle", ("head.trm",)),
        ("--spin-us", ("--spin-us", 3)),
    ):
        code, out, err = run(capsys, *more, "--compare", tmp_path / "a.json", tmp_path / "b.json")
        assert (code, out) == (2, "") and f"{option}: --compare reads two reports" in err
    assert result["rows"][0]["p50_us"] == [100.0, 50.0, 0.5]
    assert result["rows"][0]["p999_us"] == [None, None, None]
    assert result["rows"][1]["misses"] == [[3, 300], [3, 300]]
    assert result["machine_differs"] == {"cpu": ["A", "B"]}
    assert result["model_differs"] == {}
    assert (result["only_in_first"], result["only_in_second"]) == (["only here"], ["only there"])
    code, out, _ = run(capsys, "--compare", tmp_path / "a.json", tmp_path / "b.json")
    assert code == 0 and "THE MACHINES DIFFER: cpu: A / B" in out and "0.500" in out and "3 of 300 / 3 of 300" in out
    assert "THE SETTINGS DIFFER" not in out


def test_settings_that_differ_are_told() -> None:
    one = made_up(settings={"calls": None, "seconds": 3.0, "cpus": [1], "spin_us": 0.0, "inputs": "golden"})
    other = made_up(settings={"calls": 3, "seconds": None, "cpus": [0], "spin_us": 500.0, "inputs": "golden"})
    one["configurations"][0] |= {
        "isa": "avx512",
        "idle_then_fire": one["configurations"][0]["closed_loop"] | {"idle_ms": 5.0},
    }
    few = other["configurations"][0]["closed_loop"] | {"calls": 3, "p99_us": None}
    other["configurations"][0] |= {"isa": "scalar", "closed_loop": few, "idle_then_fire": few | {"idle_ms": 50.0}}
    result = profiling.compare(one, other)
    assert result["settings_differ"] == {
        **{"calls": [None, 3], "seconds": [3.0, None], "cpus": [[1], [0]], "spin_us": [0.0, 500.0]},
        "isa of fused fp32 x1": ["avx512", "scalar"],
    }
    assert "THE SETTINGS DIFFER: isa of fused fp32 x1: avx512 / scalar" in profiling.format_comparison(result)
    closed = result["rows"][0]
    assert [row["what"] for row in result["rows"]] == [
        "closed loop",
        "1000 Hz",
        "closed loop",
    ]  # idle of another length
    assert closed["calls"] == [500, 3] and closed["p50_us"][2] == 1.0
    assert closed["p99_us"] == [120.0, None, None] and closed["max_us"] == [200.0, 200.0, None]


@pytest.mark.parametrize(
    "text",
    [
        *("", "[]", "{}", "\x00", "[" * 100_000),
        json.dumps(made_up(format_version=2)),
        json.dumps(made_up(configurations=3)),
        json.dumps(made_up(machine=["A"])),
        *(json.dumps(made_up(configurations=[{"name": "a", "closed_loop": v}])) for v in (3, {"p50_us": "1"})),
        *(json.dumps(made_up(configurations=[{"name": "a", "fixed_rate": v}])) for v in (3, [{}])),
        json.dumps(made_up(configurations=[{"name": []}])),
    ],
)
def test_what_is_no_report_is_refused(capsys: Capture, text: str, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    code, out, err = run(capsys, "--compare", path, path)
    assert (code, out) == (2, "") and "a.json" in err
    assert run(capsys, "--compare", tmp_path / "none.json", path)[0] == 2
