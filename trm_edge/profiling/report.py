"""One JSON-ready dictionary of a run, its tables, and the comparison of two.

``{"format": "trm_edge.profile", "format_version": 1, "machine", "state", "model", "settings", "peaks_gflops",
"configurations": [{"name", "check", "closed_loop", "fixed_rate", "idle_then_fire", "roofline", ...}], "skipped"}``
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

from ..errors import TrmInputError
from ..files import StrPath, read_file
from .gpu import describe_gpu
from .machine import describe

FORMAT, FORMAT_VERSION = "trm_edge.profile", 1

_MACHINE = (
    "cpu",
    "architecture",
    "board",
    "cores",
    "virtual",
    "governor",
    "caches",
    "huge_pages",
    "kernel",
    "affinity",
    "scheduler",
    "python",
    "numpy",
    "gpu",
)
_MODEL = ("sha256", "rows", "steps", "evaluations")
_SETTINGS = ("calls", "seconds", "cpus", "spin_us", "inputs", "environment")
_ROW = ("isa", "version", "park_after_us", "form", "sha256", "evaluations", "steps")


def read_report(path: StrPath) -> dict[str, Any]:
    """Read a report's JSON, or raise :class:`TrmInputError`."""
    name = os.fspath(path)
    try:
        report = json.loads(read_file(path))
    except (ValueError, RecursionError) as error:
        raise TrmInputError(f"{name}: not a JSON file: {error}") from None
    if not isinstance(report, dict) or report.get("format") != FORMAT:
        raise TrmInputError(f"{name}: not a report of trm-edge profile: format is not {FORMAT!r}")
    if report.get("format_version") != FORMAT_VERSION:
        raise TrmInputError(
            f"{name}: format_version: expected {FORMAT_VERSION}, got {report.get('format_version')!r}; profile again"
        )
    rows = report.get("configurations")
    if not isinstance(rows, list) or not all(isinstance(row, dict) and "name" in row for row in rows):
        raise TrmInputError(f"{name}: configurations: expected a list of objects with a name")
    try:
        format_comparison(compare(report, report))  # all that a comparison reads has to be of its type
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise TrmInputError(
            f"{name}: not as trm-edge profile writes a report ({type(error).__name__}: {error}); profile again"
        ) from None
    return report


def compare(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """Return the ratios ``after / before`` of every configuration in both reports, and what differs around them."""
    old = {row["name"]: row for row in before["configurations"]}
    new = {row["name"]: row for row in after["configurations"]}
    rows, both = [], [name for name in old if name in new]
    for name in both:
        for what, times in _timings(old[name]).items():
            other = _timings(new[name]).get(what)
            if other is None:
                continue
            counts = [times["calls"], other["calls"]]
            pairs = {key: _pair(times.get(key), other.get(key)) for key in ("p50_us", "p99_us", "p999_us", "max_us")}
            if max(counts) > 2 * min(counts):
                pairs["max_us"][2] = None  # that of more calls is larger, whatever they are of
            rows.append(
                {
                    "name": name,
                    "what": what,
                    **pairs,
                    "calls": counts,
                    "misses": [_misses(times), _misses(other)],
                    "share_of_peak": [_share(old[name]), _share(new[name])],
                }
            )
    return {
        "rows": rows,
        "only_in_first": [name for name in old if name not in new],
        "only_in_second": [name for name in new if name not in old],
        "machine_differs": _differing(before.get("machine"), after.get("machine"), _MACHINE),
        "model_differs": _differing(before.get("model"), after.get("model"), _MODEL),
        "settings_differ": {
            **_differing(before, after, ("trm_edge",)),
            **_differing(before.get("settings"), after.get("settings"), _SETTINGS),
            **{
                f"{key} of {name}": values
                for name in both
                for key, values in _differing(old[name], new[name], _ROW).items()
            },
        },
    }


def format_comparison(result: Mapping[str, Any]) -> str:
    """Return the comparison as a table for people."""
    lines = []
    for key, what in (
        ("machine_differs", "THE MACHINES DIFFER"),
        ("model_differs", "THE MODELS DIFFER"),
        ("settings_differ", "THE SETTINGS DIFFER"),
    ):
        for name, (first, second) in result[key].items():
            lines.append(f"{what}: {name}: {first} / {second}")
    width = max([len("configuration"), *(len(row["name"]) for row in result["rows"])])
    lines.append(
        f"{'configuration':<{width}}  {'mode':<14} {'p50 A':>10} {'p50 B':>10}  p50 B/A  p99 B/A  max B/A  misses"
    )
    for row in result["rows"]:
        first, second, _ = row["p50_us"]
        ratios = "".join(f"  {number(row[key][2], '7.3f')}" for key in ("p50_us", "p99_us", "max_us"))
        misses = "" if row["misses"] == [None, None] else f"  {' / '.join(_of_ticks(one) for one in row['misses'])}"
        values = f"{number(first, '10.1f')} {number(second, '10.1f')}"
        lines.append(f"{row['name']:<{width}}  {row['what']:<14} {values}{ratios}{misses}")
    for key, which in (("only_in_first", "A"), ("only_in_second", "B")):
        lines += [f"only in {which}: {name}" for name in result[key]]
    lines.append(
        "times in us; a ratio below 1: B is faster; - in p99: below 100 calls; in max: over twice the calls in one"
    )
    return "\n".join(lines)


def format_report(report: Mapping[str, Any]) -> str:
    """Return the report as tables for people."""
    model, settings = report["model"], report["settings"]
    lines = [
        f"{model['file']}: {model['answer']} head, D={model['hidden_size']} I={model['inner_size']} {model['mixer']}, "
        f"L={model['rows']}, K={model['steps']} ({model['evaluations']} evaluations of net)",
        describe(report["machine"]),
        *(
            [f"GPU: {describe_gpu(gpu, {}) or 'nothing known'}"]
            if (gpu := report["machine"].get("gpu")) is not None
            else []
        ),
        *_state_lines(report["state"]),
        f"cores {settings['cpus']}; inputs: {settings['inputs']}",
        "",
    ]
    rows = report["configurations"]
    width = max([len("configuration"), *(len(row["name"]) for row in rows)])
    lines.append(
        f"{'configuration':<{width}}  {'error':>8} {'p50':>10} {'p90':>10} {'p99':>10} {'p99.9':>10} {'max':>10}"
        "   calls  preempted  share   python"
    )
    for row in rows:
        check = row["check"]
        error = number(check["error"], "8.1e")
        times = row.get("closed_loop")
        if times is None:
            lines.append(f"{row['name']:<{width}}  {error} WRONG: allowed {check['allowed']:.1e}; not timed")
            continue
        share = _share(row)
        lines.append(
            f"{row['name']:<{width}}  {error} {_times(times)} {times['calls']:7d}  {times['preempted_calls']:9d}  "
            f"{'-' if share is None else f'{100 * share:.1f} %':>6}  {number(times.get('overhead_p50_us'), '5.1f')}"
        )
    lines += _mode_lines(rows, width)
    lines += [f"skipped: {entry['name']}: {entry['reason']}" for entry in report["skipped"]]
    peaks = {name: value for name, value in report["peaks_gflops"].items() if value}
    if peaks:
        lines.append("register peaks of one core: " + ", ".join(f"{n} {v:.1f} GFLOP/s" for n, v in peaks.items()))
    elif any(row.get("closed_loop") for row in rows):
        lines.append("share: '-' as this build has no register loop to measure the peak with")
    if any((_share(row) or 0) > 1 for row in rows):
        lines.append("a share above 100 %: other work slowed the loop that measures the peak; profile again without it")
    lines.append(
        "times in us, wall clock around the call; python: part of it outside the backend; - where there are too few "
        "calls: 10 for p90, 100 for p99, 1000 for p99.9"
    )
    return "\n".join(lines)


def _mode_lines(rows: list[dict[str, Any]], width: int) -> list[str]:
    lines: list[str] = []
    rated = [(row, mode) for row in rows for mode in row.get("fixed_rate") or []]
    if rated:
        lines += ["", f"{'fixed rate: wake to answer':<{width + 10}} {_heads()}   ticks  misses   wake p50    wake max"]
        for row, mode in rated:
            wake = f"{number(mode['wake']['p50_us'], '10.1f')} {number(mode['wake']['max_us'], '11.1f')}"
            name = f"{row['name']:<{width}} {mode['rate_hz']:6g} Hz"
            lines.append(f"{name} {_times(mode)} {mode['ticks']:7d} {mode['misses']:7d} {wake}")
    idle = [(row, row["idle_then_fire"]) for row in rows if row.get("idle_then_fire")]
    if idle:
        lines += ["", f"{'idle, then fire':<{width + 10}} {_heads()}   calls   p50 / closed loop"]
        for row, mode in idle:
            ratio = mode["p50_us"] / row["closed_loop"]["p50_us"]
            lines.append(
                f"{row['name']:<{width}} {mode['idle_ms']:6g} ms {_times(mode)} {mode['calls']:7d}   {ratio:17.2f}"
            )
    steady = [(row, row["steadiness"]) for row in rows if row.get("steadiness")]
    if steady:
        lines += ["", "p99.9 / p50 without preempted calls, against an equally long register loop"]
        for row, values in steady:
            lines.append(
                f"{row['name']:<{width}}  {number(values['call'], '6.3f')}  register loop "
                f"{number(values['register_loop'], '6.3f')}  ratio {number(values['ratio'], '6.3f')}"
            )
    return [*lines, ""]


def _heads() -> str:
    return " ".join(f"{head:>10}" for head in ("p50", "p90", "p99", "p99.9", "max"))


def _times(values: Mapping[str, Any]) -> str:
    return " ".join(number(values[key], "10.1f") for key in ("p50_us", "p90_us", "p99_us", "p999_us", "max_us"))


def _state_lines(state: Mapping[str, Any]) -> list[str]:
    lines = []
    for when in ("before", "after"):
        values = state[when]
        mhz, hot = values["mhz"], values["celsius"]
        facts = [f"load {values['load'][0]}"] if values["load"] else []
        facts += [f"{min(mhz):.0f}..{max(mhz):.0f} MHz"] if mhz else []
        facts += [f"hottest {max(hot.values()):.0f} C"] if hot else []
        gpu = describe_gpu({}, values.get("gpu", {}))
        facts += [f"GPU {gpu}"] if gpu else []
        lines.append(f"{when}: {', '.join(facts) or 'nothing known'}")
    first, last = state["before"]["steal_s"], state["after"]["steal_s"]
    if first is not None and last is not None and last - first > 0.05:
        lines.append(f"the hypervisor took {last - first:.2f} s of the cores during the run")
    return lines


def number(value: float | None, form: str) -> str:
    """Return a number in ``form``, or a - as wide."""
    width = int("".join(c for c in form.split(".")[0] if c.isdigit()) or 0)
    return f"{'-':>{width}}" if value is None else f"{value:{form}}"


def _misses(times: Mapping[str, Any]) -> list[int] | None:
    """Return the missed ticks and all of them; None in another mode."""
    return [times["misses"], times["ticks"]] if "misses" in times else None


def _of_ticks(misses: list[int] | None) -> str:
    return "-" if misses is None else f"{misses[0]} of {misses[1]}"


def _timings(row: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return every timing of a configuration by mode."""
    timings = {"closed loop": row.get("closed_loop")}
    timings |= {f"{mode['rate_hz']:g} Hz": mode for mode in row.get("fixed_rate") or []}
    if idle := row.get("idle_then_fire"):
        timings[f"idle {idle['idle_ms']:g} ms"] = idle
    return {what: times for what, times in timings.items() if times}


def _pair(first: float | None, second: float | None) -> list[float | None]:
    return [first, second, second / first if first and second is not None else None]


def _share(row: Mapping[str, Any]) -> float | None:
    share: float | None = (row.get("roofline") or {}).get("share_of_peak")
    return share


def _differing(first: Any, second: Any, names: tuple[str, ...]) -> dict[str, list[Any]]:
    first, second = first or {}, second or {}
    return {name: [first.get(name), second.get(name)] for name in names if first.get(name) != second.get(name)}
