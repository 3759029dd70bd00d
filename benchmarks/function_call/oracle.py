"""The ceiling of any head that chooses among the candidates: how many BFCL answers they hold.

    python benchmarks/function_call/oracle.py                       every set, without a draft
    python benchmarks/function_call/oracle.py --sets live_simple --misses 20

For every example the choices that make a right answer are looked up, decoded to JSON, and given to BFCL's own checker;
only what passes counts. Times are of the processor, for binding; "short" is at most 64 words and 12 slots. Needs
pip install --no-deps bfcl-eval.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import re
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from function_call.bfcl import SETS, Example, examples, fits, labels, passes
from trm_edge.files import write_atomically
from trm_edge.json_slots import JsonSlots, SchemaError, SlotInputs
from trm_edge.json_slots.schema import MISSING

OUTCOMES = ("right", "missing", "wrong", "refused")
SHORT_WORDS, SHORT_SLOTS = 64, 12
_DATED = re.compile(r"\d[-/.]\d|\d:\d\d")


def measure(example: Example, now: dt.datetime | None = None) -> dict[str, Any]:
    """Return whether the candidates hold a right answer, how many there are, and what they lack."""
    try:
        slots = JsonSlots(example.tool)
    except SchemaError as error:
        return {"outcome": "refused", "why": str(error)}
    begun = time.thread_time()
    bound = slots.bind(example.query, now=now)
    seconds = time.thread_time() - begun
    size = {"slots": len(bound.slots), "candidates": len(bound.candidates), "seconds": seconds}
    size["short"] = len(example.query.split()) <= SHORT_WORDS and len(bound.slots) <= SHORT_SLOTS
    found = labels(bound, example.answer)
    if found is None:
        return {"outcome": "missing", **size, "lacking": lacking(bound, example.answer)}
    resolved = bound.decode(found.chosen)
    if resolved.json is None:
        return {"outcome": "unresolved", **size}
    right = passes(example, json.loads(resolved.json))
    return {"outcome": "right" if right else "wrong", **size, "json": resolved.json}


def lacking(bound: SlotInputs, answer: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the slots that have no right value among their candidates, with the kind of what is wanted."""
    found = []
    for slot, row in zip(bound.slots, bound.mask, strict=True):
        values = [MISSING if value == "" else value for value in _wanted(answer, slot.path)]
        offered = [bound.candidates[j].value for j in np.flatnonzero(row)]
        if not any(fits(value, other) for value in values for other in offered):
            found.append((slot.pointer, _kind(values)))
    return found or [("", "object without properties")]


def _wanted(answer: dict[str, Any], path: tuple[Any, ...]) -> list[Any]:
    """Return the right values of a slot: BFCL lists them per argument, and per property within one."""
    values: list[Any] = [answer]
    for part in path:
        inner: list[Any] = []
        for value in values:
            if isinstance(part, int):
                inner += value[part : part + 1] if isinstance(value, list) else [""]
            elif isinstance(value, dict):
                listed = value.get(part, "")
                inner += listed if isinstance(listed, list) else [listed]
        values = inner or [""]
    return values


def _kind(values: list[Any]) -> str:
    value = next((value for value in values if value is not MISSING), "")
    if isinstance(value, str):
        return "date or time" if _DATED.search(value) else "text"
    return {bool: "boolean", list: "array", dict: "object"}.get(type(value), "number")


def main() -> None:
    """Print a line per set, what is lacking by kind, and some misses where asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=SETS)
    parser.add_argument("--misses", type=int, default=0, help="print as many examples of each set that are not right")
    parser.add_argument("--now", type=dt.datetime.fromisoformat, help="what dates are relative to; BFCL does not say")
    parser.add_argument("--json", type=Path, help="report to write")
    arguments = parser.parse_args()
    report = {}
    JsonSlots({"name": "warm"}).bind("up in Paris", now=arguments.now)
    print(f"{'set':14} {'n':>5} {'right':>7} {'missing':>8} {'wrong':>6} {'refused':>8} {'candidates':>11} ", end="")
    print(f"{'bind ms, short: p50, p99':>25} {'all: p99, max':>16}")
    for name in arguments.sets:
        rows = [(example, measure(example, arguments.now)) for example in examples(name)]
        count = {what: sum(row["outcome"] == what for _, row in rows) for what in OUTCOMES}
        print(f"{name:14} {len(rows):5} {100 * count['right'] / len(rows):6.1f}% ", end="")
        print(f"{count['missing']:8} {count['wrong']:6} {count['refused']:8} {_sizes([row for _, row in rows])}")
        kinds = Counter(kind for _, row in rows for kind in {kind for _, kind in row.get("lacking", [])})
        print("  lacking: " + ", ".join(f"{kind} {times}" for kind, times in kinds.most_common()), flush=True)
        for example, row in [pair for pair in rows if pair[1]["outcome"] != "right"][: arguments.misses]:
            print(f"  {example.identity}: {row['outcome']} {row.get('json', row.get('why', row.get('lacking', '')))}")
            print(f"    {example.query[:200]}\n    {json.dumps(example.answer)[:300]}")
        report[name] = {"count": len(rows), **count, "rows": [{"id": e.identity, **row} for e, row in rows]}
    if arguments.json is not None:
        write_atomically(arguments.json, (json.dumps(report, indent=1) + "\n").encode())


def _sizes(rows: list[dict[str, Any]]) -> str:
    """Return the columns of candidates and times."""
    bound = [row for row in rows if "seconds" in row]
    short = np.percentile([1e3 * row["seconds"] for row in bound if row["short"]], [50, 99])
    every = np.percentile([1e3 * row["seconds"] for row in bound], [99, 100])
    median = np.median([row["candidates"] for row in bound])
    return f"{median:11.0f} {short[0]:19.2f}, {short[1]:4.1f} {every[0]:10.1f}, {every[1]:4.1f}"


if __name__ == "__main__":
    main()
