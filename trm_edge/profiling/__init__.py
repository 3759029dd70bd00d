"""Latency on this machine: ``trm-edge profile``, and the parts of it that other measurements use.

``timing``          run several tasks interleaved in one pinned process; closed loop, fixed rate, idle-then-fire
``machine``         what the machine is and does: processor, caches, governor, temperatures, load
``roofline``        work of a refinement, and the peaks that were measured beside it
``configurations``  a bundle opened per backend, precision and number of threads, its answers checked first
``report``          one JSON-ready dictionary of a whole run, its table, and the comparison of two
``plot``            the picture; the only file that needs matplotlib
"""

from .machine import machine_facts
from .report import compare, format_comparison, read_report
from .roofline import Work, bandwidth, register_loop, register_peak
from .timing import Samples, Task, closed_loop, fixed_rate, percentiles, pinned

__all__ = [
    "Samples",
    "Task",
    "Work",
    "bandwidth",
    "closed_loop",
    "compare",
    "fixed_rate",
    "format_comparison",
    "machine_facts",
    "percentiles",
    "pinned",
    "read_report",
    "register_loop",
    "register_peak",
]
