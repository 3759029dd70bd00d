"""The ceiling of any head that chooses among the candidates: how many BFCL answers they hold.

    python benchmarks/function_call/oracle.py                       every set, without a draft
    python benchmarks/function_call/oracle.py --sets live_simple --misses 20

For every example the choices that make a right answer are looked up, decoded to JSON, and given to BFCL's own checker;
only what passes counts. Needs pip install --no-deps bfcl-eval.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from function_call.bfcl import SETS, Example, examples, labels, passes
from trm_edge.files import write_atomically
from trm_edge.json_slots import JsonSlots, SchemaError


def measure(example: Example) -> dict[str, Any]:
    """Return whether the candidates hold a right answer, and how large they are."""
    try:
        slots = JsonSlots(example.tool)
    except SchemaError as error:
        return {"outcome": "refused", "why": str(error)}
    begun = time.perf_counter()
    bound = slots.bind(example.query)
    seconds = time.perf_counter() - begun
    size = {"slots": len(bound.slots), "candidates": len(bound.candidates), "seconds": seconds}
    chosen = labels(bound, example.answer)
    if chosen is None:
        return {"outcome": "missing", **size}
    resolved = bound.decode(chosen)
    if resolved.json is None:
        return {"outcome": "unresolved", **size}
    right = passes(example, json.loads(resolved.json))
    return {"outcome": "right" if right else "wrong", **size, "json": resolved.json}


def main() -> None:
    """Print a line per set, and some misses where asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=SETS)
    parser.add_argument("--misses", type=int, default=0, help="print as many examples of each set that are not right")
    parser.add_argument("--json", type=Path, help="report to write")
    arguments = parser.parse_args()
    report = {}
    titles = f"{'set':14} {'n':>5} {'right':>7} {'missing':>8} {'wrong':>6} {'refused':>8} {'candidates':>11}"
    print(f"{titles} {'bind ms p50, p99':>17}")
    for name in arguments.sets:
        rows = [(example, measure(example)) for example in examples(name)]
        count = {
            what: sum(row["outcome"] == what for _, row in rows) for what in ("right", "missing", "wrong", "refused")
        }
        bound = [row for _, row in rows if "seconds" in row]
        sizes = np.median([row["candidates"] for row in bound])
        p50, p99 = np.percentile([1e3 * row["seconds"] for row in bound], [50, 99])
        print(
            f"{name:14} {len(rows):5} {100 * count['right'] / len(rows):6.1f}% {count['missing']:8} {count['wrong']:6} "
            f"{count['refused']:8} {sizes:11.0f} {p50:10.2f}, {p99:5.1f}",
            flush=True,
        )
        for example, row in [pair for pair in rows if pair[1]["outcome"] != "right"][: arguments.misses]:
            print(f"  {example.identity}: {row['outcome']} {row.get('json', row.get('why', ''))}")
            print(f"    {example.query[:200]}\n    {json.dumps(example.answer)[:300]}")
        report[name] = {"count": len(rows), **count, "rows": [{"id": e.identity, **row} for e, row in rows]}
    if arguments.json is not None:
        write_atomically(arguments.json, (json.dumps(report, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
