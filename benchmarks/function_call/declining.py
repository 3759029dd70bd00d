"""Whether a head knows that no tool fits: BFCL's queries for which there is none, and those for which there is one.

    python benchmarks/function_call/declining.py                            heads of five folds; trains what is missing
    python benchmarks/function_call/declining.py --heads fold0.trm fold1.trm

Without a draft, every example of a fold is asked of the head that never saw its function, and every irrelevant one of a
head whose training had neither the query nor a tool that is offered. To decline is right for these, and wrong for the
others; by how much none is likelier than the best tool (in logits) tells what another threshold would give. Needs
pip install --no-deps bfcl-eval.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from function_call.bfcl import NO_TOOL_FITS, Example, compiled, irrelevant
from function_call.drafts import judged, wilson
from function_call.folds import FOLDS, function_key, query_key, split
from function_call.heads import CACHE, MAY_DECLINE, head
from function_call.study import SERVED, call_text
from trm_edge.files import write_atomically
from trm_edge.json_slots import Resolver
from trm_edge.json_slots.resolver import bind_tools
from trm_edge.refiner import load

FITS = "a tool fits"  # beside NO_TOOL_FITS
THRESHOLDS = (-4.0, -3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0, 4.0)

Row = dict[str, Any]


def dealt(folds: Sequence[int]) -> dict[int, list[tuple[str, Example]]]:
    """Return (set, example) that a fold's head is asked; an irrelevant one is asked once, in turns if several may."""
    asked = {fold: [(FITS, example) for example in split(fold).test] for fold in folds}
    known = {fold: _seen(fold) for fold in folds}
    for name in NO_TOOL_FITS:
        for number, example in enumerate(irrelevant(name)):
            keys = {("query", query_key(example.query))} | {
                ("tool", function_key(one["name"])) for one in example.tools
            }
            clean = [fold for fold in folds if not keys & known[fold]]
            if clean:
                asked[clean[number % len(clean)]].append((name, example))
    return asked


def _seen(fold: int) -> set[tuple[str, str]]:
    part = split(fold)
    queries = {("query", query_key(example.query)) for example in part.train}
    return queries | {("tool", function_key(tool["name"])) for tool in part.tools}


def rows(head: Any, examples: Sequence[tuple[str, Example]]) -> Iterator[Row]:
    """Yield by how much none is likelier than the best tool, and whether the call would be right, and is."""
    always, may = (Resolver(head, steps=SERVED, decline_bonus=bonus) for bonus in (None, 0.0))
    for name, example in tqdm(examples, disable=None):
        tools = compiled(example)
        if not tools:
            continue
        inputs = bind_tools([one.tool for one in tools.values()], example.query, may.featurizer, may_decline=True)
        none, *others = may.choose(inputs).logits[-1, 0].tolist()
        call = may.resolve_tool_call(list(tools.values()), example.query)
        row = {"id": example.identity, "set": name, "margin": none - max(others), "declined": call.name is None}
        if name == FITS:
            forced = always.resolve_tool_call(list(tools.values()), example.query)
            row["right"] = judged(example, call_text(forced.name, forced.json))["right"]
        yield row


def report(found: Sequence[Row]) -> list[str]:
    """Return lines for people: how many are declined by set, and what other thresholds would give."""
    sets = {name: [row for row in found if row["set"] == name] for name in (FITS, *NO_TOOL_FITS)}
    lines = []
    for name, some in sets.items():
        hits = sum(row["declined"] for row in some)
        low, high = wilson(hits, len(some))
        share = f"{100 * hits / len(some):.1f} % [{100 * low:.0f}, {100 * high:.0f}]"
        lines.append(f"{name}: {hits} of {len(some)} declined, {share}")
    fits = np.array([row["margin"] for row in sets[FITS]])
    right = np.array([row["right"] for row in sets[FITS]])
    kept = right & ~np.array([row["declined"] for row in sets[FITS]])
    lines.append(f"right calls: {right.sum()} where a tool has to be taken, {kept.sum()} where none may be")
    for name in NO_TOOL_FITS:
        others = np.array([row["margin"] for row in sets[name]])
        above = (others[:, None] > fits).mean()
        lines.append(f"{name}: none is likelier than for a query that a tool fits in {100 * above:.1f} % of the pairs")
    for threshold in THRESHOLDS:
        shares = {name: np.mean([row["margin"] > threshold for row in some]) for name, some in sets.items()}
        shown = ", ".join(f"{name} {100 * share:.1f}" for name, share in shares.items())
        left = (right & (fits <= threshold)).sum()
        lines.append(
            f"declined where none is likelier by more than {threshold:+.0f}, percent: {shown}; right calls {left}"
        )
    return lines


def main() -> None:
    """Ask the heads, and print what they decline."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--heads", type=Path, nargs="+", help="bundles of folds 0, 1, ... in order, instead of those")
    parser.add_argument("--cache", type=Path, default=CACHE)
    parser.add_argument("--json", type=Path, help="rows to write")
    arguments = parser.parse_args()
    folds = range(FOLDS if arguments.heads is None else len(arguments.heads))
    found: list[Row] = []
    for fold, examples in dealt(folds).items():
        bundle = head(fold, MAY_DECLINE, arguments.cache) if arguments.heads is None else arguments.heads[fold]
        found += rows(load(bundle), examples)
    print("\n".join(report(found)))
    if arguments.json is not None:
        write_atomically(arguments.json, (json.dumps(found, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
