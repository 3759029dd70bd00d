"""Facts about an NVIDIA GPU: from nvidia-smi, and on a Jetson from nvpmodel and /sys."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..files import StrPath

GPU_BACKENDS = ("cuda", "tensorrt")

# Names in a report, and nvidia-smi's.
_FACTS = {
    "name": "name",
    "driver": "driver_version",
    "memory_mib": "memory.total",
    "max_sm_mhz": "clocks.max.sm",
    "max_memory_mhz": "clocks.max.mem",
    "power_limit_w": "power.limit",
}
_STATE = {
    "sm_mhz": "clocks.sm",
    "memory_mhz": "clocks.mem",
    "celsius": "temperature.gpu",
    "power_w": "power.draw",
    "performance_state": "pstate",
}
_WAIT_S = 20


def gpu_facts(root: StrPath = "/") -> dict[str, Any]:
    """Return what does not change during a run, of the first GPU: name, driver, limits, a Jetson's power mode.

    What the system does not tell is left out. ``root`` is where /sys lies, for tests.
    """
    facts = _query(_FACTS)
    most = _gpu_clock(Path(root), "max_freq")
    if most is not None:
        facts.setdefault("max_sm_mhz", most)
    mode = [line.strip() for line in _output(["nvpmodel", "-q"]).splitlines() if line.strip()]
    return facts | ({"power_mode": ", ".join(mode)} if mode else {})


def gpu_state(root: StrPath = "/") -> dict[str, Any]:
    """Return what changes during a run: clocks [MHz], temperature [C] and power [W]; as :func:`gpu_facts`."""
    state = _query(_STATE)
    clock = _gpu_clock(Path(root), "cur_freq")
    if clock is not None:
        state.setdefault("sm_mhz", clock)
    return state


def describe_gpu(facts: dict[str, Any], state: dict[str, Any]) -> str:
    """Return one line for people, of whichever of the two is given."""
    units = {"driver": "driver {}", "power_limit_w": "limit {:.0f} W", "power_mode": "power mode {}"}
    units |= {"name": "{}", "sm_mhz": "{:.0f} MHz", "celsius": "{:.0f} C", "power_w": "{:.0f} W"}
    known = facts | state
    return ", ".join(form.format(known[name]) for name, form in units.items() if name in known)


def _query(fields: dict[str, str]) -> dict[str, Any]:
    text = _output(["nvidia-smi", f"--query-gpu={','.join(fields.values())}", "--format=csv,noheader,nounits"])
    values = [value.strip() for value in text.partition("\n")[0].split(",")]
    if len(values) != len(fields):
        return {}
    return {name: _value(value) for name, value in zip(fields, values, strict=True) if not value.startswith("[")}


def _value(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _output(words: Sequence[str]) -> str:
    """Return what a program prints; nothing where it is missing or fails."""
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=_WAIT_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return "" if done.returncode else done.stdout


def _gpu_clock(top: Path, name: str) -> float | None:
    """Return a clock of a Jetson's GPU in MHz: its nvidia-smi does not tell."""
    for file in sorted((top / "sys/class/devfreq").glob(f"*gpu*/{name}")):
        try:
            return int(file.read_text()) / 1e6
        except (OSError, ValueError):
            continue
    return None
