"""Facts about the machine, from /proc and /sys: what a latency depends on and a reader wants to know."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

import numpy as np

from ..files import StrPath


def machine_facts(root: StrPath = "/", cpu: int = 0) -> dict[str, Any]:
    """Return what does not change during a run: processor, cores, caches, kernel, scheduling.

    ``cpu`` is the core whose caches and clock are told, where cores differ. What the system does not tell is None or
    left out. ``root`` is for tests.
    """
    top = Path(root)
    cpus = top / "sys/devices/system/cpu"
    own = cpus / f"cpu{cpu}"
    info = _cpuinfo(top)
    flags = (info.get("flags") or info.get("Features") or "").split()
    return {
        "cpu": info.get("model name") or _text(top / "proc/device-tree/model") or platform.machine(),
        "architecture": platform.machine(),
        "board": _text(top / "proc/device-tree/model"),
        "cores": len(list(cpus.glob("cpu[0-9]*"))) or os.cpu_count(),
        "smt": _text(cpus / "smt/active"),
        "isolated": _text(cpus / "isolated"),
        "virtual": "hypervisor" in flags,
        "governor": _common(cpus.glob("cpu[0-9]*/cpufreq/scaling_governor")),
        "frequency_driver": _text(own / "cpufreq/scaling_driver"),
        "max_mhz": _mhz(own / "cpufreq/cpuinfo_max_freq"),
        "boost": _text(cpus / "cpufreq/boost"),
        "caches": _caches(own / "cache"),
        "memory_mib": _memory(top / "proc/meminfo"),
        "huge_pages": _chosen(_text(top / "sys/kernel/mm/transparent_hugepage/enabled")),
        "kernel": platform.release(),
        "system": platform.system(),
        "scheduler": _scheduler(),
        "affinity": sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "python": platform.python_version(),
        "numpy": np.__version__,
    }


def machine_state(root: StrPath = "/") -> dict[str, Any]:
    """Return what changes during a run: load, frequencies, temperatures, time that a hypervisor took."""
    top = Path(root)
    cpu = top / "sys/devices/system/cpu"
    load = (_text(top / "proc/loadavg") or "").split()[:3]
    current = [_mhz(file) for file in sorted(cpu.glob("cpu[0-9]*/cpufreq/scaling_cur_freq"))]
    return {
        "load": [float(value) for value in load] or None,
        "mhz": [value for value in current if value is not None] or _cpuinfo_mhz(top),
        "celsius": _temperatures(top / "sys/class/thermal"),
        "steal_s": _steal(top / "proc/stat"),
    }


def describe(facts: dict[str, Any]) -> str:
    """Return one line for people."""
    caches = ", ".join(
        f"L{c['level']}{c['type'][0].lower() if c['level'] == 1 else ''} {c['size']}" for c in facts["caches"]
    )
    governor = facts["governor"] or "unknown"
    where = "virtual machine" if facts["virtual"] else "no hypervisor"
    return f"{facts['cpu']}, {facts['cores']} cores ({where}), {caches or 'caches unknown'}, governor {governor}"


def _text(file: Path) -> str | None:
    try:
        return file.read_bytes().decode(errors="replace").strip("\0\n ") or None
    except OSError:
        return None


def _cpuinfo(top: Path) -> dict[str, str]:
    """Return the first processor's entries."""
    pairs = (line.partition(":") for line in (_text(top / "proc/cpuinfo") or "").splitlines())
    entries: dict[str, str] = {}
    for key, _, value in pairs:
        entries.setdefault(key.strip(), value.strip())
    return entries


def _cpuinfo_mhz(top: Path) -> list[float] | None:
    lines = (_text(top / "proc/cpuinfo") or "").splitlines()
    return [float(line.partition(":")[2]) for line in lines if line.startswith("cpu MHz")] or None


def _common(files: Any) -> str | None:
    """Return the one text of all files, or all texts that stand in them."""
    found = sorted({text for text in map(_text, files) if text})
    return ", ".join(found) or None


def _mhz(file: Path) -> float | None:
    text = _text(file)
    return int(text) / 1000 if text and text.isdigit() else None


def _caches(folder: Path) -> list[dict[str, Any]]:
    caches = []
    for index in sorted(folder.glob("index[0-9]*")):
        level, kind, size = (_text(index / name) for name in ("level", "type", "size"))
        if level and level.isdigit() and kind and size:
            shared = _text(index / "shared_cpu_list")
            caches.append({"level": int(level), "type": kind, "size": size, "shared_by": shared})
    return caches


def _memory(file: Path) -> int | None:
    for line in (_text(file) or "").splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) // 1024
    return None


def _chosen(text: str | None) -> str | None:
    """Return the entry in brackets of ``always [madvise] never``."""
    return text[text.index("[") + 1 : text.index("]")] if text and "[" in text and "]" in text else text


def _temperatures(folder: Path) -> dict[str, float]:
    zones = {}
    for zone in sorted(folder.glob("thermal_zone[0-9]*")):
        text = _text(zone / "temp")
        try:
            value = int(text or "") / 1000
        except ValueError:
            continue
        zones[f"{zone.name} {_text(zone / 'type') or ''}".strip()] = value
    return zones


def _steal(file: Path) -> float | None:
    fields = (_text(file) or "").split("\n", 1)[0].split()
    ticks = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
    return int(fields[8]) / ticks if len(fields) > 8 and fields[0] == "cpu" else None


def _scheduler() -> str | None:
    if not hasattr(os, "sched_getscheduler"):
        return None
    names = {os.SCHED_OTHER: "other", os.SCHED_FIFO: "fifo", os.SCHED_RR: "rr", os.SCHED_BATCH: "batch"}
    policy = os.sched_getscheduler(0)
    return f"{names.get(policy, policy)}, nice {os.nice(0)}"
