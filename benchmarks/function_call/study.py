"""The study: which arm makes the right call of functions that no head has seen.

    python benchmarks/function_call/study.py                                  five folds; trains what is missing
    python benchmarks/function_call/study.py --folds 0 --variants head "one step" "with texts"
    python benchmarks/function_call/study.py --heads fold0.trm fold1.trm      heads from elsewhere, of folds 0, 1, ...

Every example of the folds is asked once by every arm, and BFCL's own checker judges the call. Arms that need a language
model read its drafts from ``drafts/``; examples without one count for the others only. ``rules`` are told the right
tool, which the others have to choose; of a draft, the function is kept, or chosen anew where an arm is "renamed".
Variants other than ``head`` answer the arms "head" and "grammar + head, renamed". Heads answer after two steps; what
they say after k = 1..8 is read from one more pass, whose last step names the tool. A bonus of the draft's choices other
than the default is asked apart. Harm: right drafts that are made wrong; repair: wrong drafts that are made right.
Heads and answers are kept in ``cache/`` by the hash of what made them; how long a head was trained stands beside it.
Needs pip install --no-deps bfcl-eval.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from function_call.bfcl import SETS, Example, compiled, labels, passes
from function_call.drafts import MARKS, drafts, judged, wilson
from function_call.folds import FOLDS, split
from function_call.heads import CACHE, VARIANTS, code, hash_of, head, provider_for
from function_call.llm import call_of, thought_of
from function_call.rules import grammar_and_rules, rules_only
from trm_edge.files import write_atomically
from trm_edge.json_slots import ContextProvider, JsonSlots, ResolvedCall, Resolver
from trm_edge.json_slots.validation import violation
from trm_edge.refiner import Refiner, load

STEPS = 8
SERVED = 2  # steps of an answer: as many as a head is trained for
MODEL_ARMS = ("direct", "grammar", "cot", "vote")  # of the language model alone
ARMS = ("oracle", "rules", "head", *MODEL_ARMS, "grammar + rules", "grammar + head", "grammar + head, renamed")
PAIRS = (
    ("grammar + head, renamed", "grammar + rules"),
    ("grammar + head", "grammar + rules"),
    *(("grammar + head", arm) for arm in MODEL_ARMS),
    ("grammar + rules", "grammar"),
    *(("head", arm) for arm in MODEL_ARMS),
    *((arm, "grammar") for arm in MODEL_ARMS if arm != "grammar"),
)
KINDS = ("string", "integer", "number", "boolean", "array", "object")  # of arguments, by their schema
THRESHOLDS = (0.0, 0.3, 0.5, 0.7, 0.9)
DRAFTED = {"grammar + head": False, "grammar + head, renamed": True}  # arms, and whether the function is chosen anew
BONUS = 1.0  # of the arms
BONUSES = (0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0)

Row = dict[str, Any]


def set_of(example: Example) -> str:
    """Return the set that an identity belongs to."""
    return next(name for name in sorted(SETS, key=len, reverse=True) if example.identity.startswith(name))


class Asked:
    """Asks every arm for the call of an example.

    Parameters
    ----------
    head
        That answers slots.
    alone
        Ask only what depends on the head, without keeping a draft's function.
    provider
        What reads texts for the head, where hashed n-grams do not.
    thoughts
        Whether it is given the language model's thought about a query, where there is one.
    """

    def __init__(
        self, head: Refiner, alone: bool = False, provider: ContextProvider | None = None, thoughts: bool = False
    ) -> None:
        self.alone = alone
        self.by_bonus = [Resolver(head, provider, steps=SERVED, draft_bonus=bonus) for bonus in BONUSES]
        self.served = self.by_bonus[BONUSES.index(BONUS)]
        self.looked_at = Resolver(head, provider, steps=STEPS, draft_bonus=BONUS, by_step=True)
        self.drafts = {arm: drafts(arm) for arm in MODEL_ARMS}
        self.thoughts = (
            {name: thought_of(made["text"]) for name, made in self.drafts["cot"].items()} if thoughts else {}
        )

    def row(self, example: Example) -> Row:
        """Return what every arm makes of an example: right or wrong, for the head by step too."""
        tools = compiled(example)
        row: Row = {"id": example.identity, "set": set_of(example), "invalid": 0, "unresolved": 0, "marks": {}}
        if example.name not in tools:
            for arm in ("rules", "head"):
                self._mark(row, arm, example, "")
            return row | {"oracle": False, "refused": True}
        own = tools[example.name]
        self._head(row, "head", tools, example, None)
        draft = self.drafts["grammar"].get(example.identity)
        name, arguments = call_of(draft["text"]) if draft is not None else (None, None)
        call = {"name": name, "arguments": arguments or ""}
        if draft is not None:
            self._head(row, "grammar + head, renamed", tools, example, call, rename=True)
        if self.alone:
            return row
        row["oracle"] = self._oracle(own, example)
        self._mark(row, "rules", example, call_text(example.name, rules_only(own.tool, example.query)))
        for arm, rows in self.drafts.items():
            if example.identity in rows:
                made = rows[example.identity]
                self._mark(row, arm, example, made["text"])
                row[f"{arm} seconds"] = made["prompt_seconds"] + made["seconds"]
                row[f"{arm} tokens"] = made["prompt_tokens"] + made["tokens"]
        if draft is not None:
            row["named"] = name == example.name
            ruled = grammar_and_rules(tools[name].tool, example.query, arguments or "") if name in tools else None
            self._mark(row, "grammar + rules", example, call_text(name, ruled))
            self._head(row, "grammar + head", tools, example, call)
            for arm, rename in DRAFTED.items():
                row[f"{arm} by bonus"] = [
                    row[arm] if one is self.served else self._right(one, tools, example, call, rename)
                    for one in self.by_bonus
                ]
        return row

    def _right(
        self, resolver: Resolver, tools: Mapping[str, JsonSlots], example: Example, draft: Any, rename: bool
    ) -> bool:
        call = self._asked(resolver, tools, example, draft, rename)
        return call.name == example.name and _passes(example, call.json)

    def _asked(
        self, resolver: Resolver, tools: Mapping[str, JsonSlots], example: Example, draft: Any, rename: bool
    ) -> ResolvedCall:
        thought = self.thoughts.get(example.identity, "")
        return resolver.resolve_tool_call(list(tools.values()), example.query, draft, rename=rename, thought=thought)

    def _head(
        self,
        row: Row,
        arm: str,
        tools: Mapping[str, JsonSlots],
        example: Example,
        draft: Any,
        rename: bool = False,
    ) -> None:
        begun = time.process_time()
        call = self._asked(self.served, tools, example, draft, rename)
        row[f"{arm} seconds"] = time.process_time() - begun
        self._mark(row, arm, example, call_text(call.name, call.json))
        by_step = self._asked(self.looked_at, tools, example, draft, rename).by_step
        row[f"{arm} by step"] = [name == example.name and _passes(example, text) for name, text in by_step]
        answers = [(call.name, call.json), *by_step]
        made = [(name, json.loads(text)) for name, text in answers if name is not None and text is not None]
        row["invalid"] += sum(violation(tools[name].tool.arguments, value) is not None for name, value in made)
        row["unresolved"] += call.json is None
        row[f"{arm} confidence"], row[f"{arm} named"] = call.confidence, call.name == example.name

    def _mark(self, row: Row, arm: str, example: Example, text: str) -> None:
        """Say of an arm's call whether it is right, and what else holds of it."""
        row["marks"][arm] = marks = judged(example, text)
        row[arm] = marks["right"]

    def _oracle(self, slots: JsonSlots, example: Example) -> bool:
        inputs = slots.bind(example.query)
        found = labels(inputs, example.answer)
        text = None if found is None else inputs.decode(found.chosen).json
        return text is not None and passes(example, json.loads(text))


def answers(fold: int, bundle: Path, alone: bool, cache: Path, thoughts: bool = False) -> list[Row]:
    """Return the rows of a fold by one head; kept by the hash of the head, the drafts and the code."""
    kept = cache / f"answers-{hash_of([bundle, *code()], json.dumps([fold, alone, thoughts]))}.json"
    if kept.exists():
        rows: list[Row] = json.loads(kept.read_text())
        return rows
    refiner = load(bundle)
    asked = Asked(refiner, alone, provider_for(refiner.spec, cache), thoughts)
    rows = [asked.row(example) for example in tqdm(split(fold).test, desc=f"fold {fold}", disable=None)]
    write_atomically(kept, (json.dumps(rows) + "\n").encode())
    return rows


def call_text(name: str | None, arguments: str | None) -> str:
    """Return a call as a language model writes one; nothing where there is none."""
    if name is None or arguments is None:
        return ""
    return json.dumps({"name": name, "arguments": json.loads(arguments)})


def _passes(example: Example, text: str | None) -> bool:
    try:
        value = None if text is None else json.loads(text)
    except ValueError:
        return False
    return isinstance(value, dict) and passes(example, value)


def mcnemar(one: Sequence[bool], other: Sequence[bool]) -> float:
    """Return the two-sided p of an exact McNemar test on paired outcomes."""
    gained = sum(a and not b for a, b in zip(one, other, strict=True))
    lost = sum(b and not a for a, b in zip(one, other, strict=True))
    count = gained + lost
    tail = sum(math.comb(count, i) for i in range(min(gained, lost) + 1)) / 2**count
    return min(1.0, 2 * tail)


def report(rows: Sequence[Row]) -> dict[str, Any]:
    """Return the figures of all rows and of each set."""
    parts = {"all": list(rows)} | {name: [row for row in rows if row["set"] == name] for name in SETS}
    found: dict[str, Any] = {}
    for title, some in parts.items():
        found[title] = {arm: _share([row[arm] for row in some if arm in row]) for arm in ARMS}
    both = [row for row in rows if "grammar" in row]
    found["marks"] = {arm: _marks(rows, arm) for arm in ARMS if any(arm in row["marks"] for row in rows)}
    found["paired"] = {}
    for one, other in PAIRS:
        pairs = [(row[one], row[other]) for row in rows if one in row and other in row]
        if not pairs:
            continue
        mine, its = [a for a, _ in pairs], [b for _, b in pairs]
        found["paired"][f"{one} against {other}"] = {
            "count": len(pairs),
            "difference": _mean(mine) - _mean(its),
            "p": mcnemar(mine, its),
        }
    for arm in ("grammar + rules", *DRAFTED):
        found["paired"][arm] = {
            "harm": _harm([row[arm] for row in both], both),
            "repair": _mean([row[arm] for row in both if not row["grammar"]]),
        }
    found["by step"] = {
        arm: [_mean([row[f"{arm} by step"][k] for row in rows if f"{arm} by step" in row]) for k in range(STEPS)]
        for arm in ("head", *DRAFTED)
    }
    found["by confidence"] = {
        arm: {str(least): _abstaining(both, arm, least) for least in THRESHOLDS} for arm in DRAFTED
    }
    found["by bonus"] = {arm: _by_bonus(both, arm) for arm in DRAFTED}
    found["calibration"] = {arm: _calibration(both, arm) for arm in ("head", "grammar + head, renamed")}
    return found


def _marks(rows: Sequence[Row], arm: str) -> dict[str, Any]:
    """Return what holds of an arm's calls, in shares, and what one costs on average.

    By type: of the arguments of the calls that name the right tool.
    """
    asked = [row for row in rows if arm in row["marks"]]
    marks = [row["marks"][arm] for row in asked]
    found: dict[str, Any] = {mark: _mean([one[mark] for one in marks]) for mark in MARKS}
    found["types"] = {}
    for kind in KINDS:
        right, count = np.sum([one["types"].get(kind, (0, 0)) for one in marks], axis=0).tolist()
        if count:
            found["types"][kind] = right / count, count
    for cost in ("seconds", "tokens"):
        spent = [row[f"{arm} {cost}"] for row in asked if f"{arm} {cost}" in row]
        found[cost] = float(np.mean(spent)) if spent else None
    return found


def _harm(right: Sequence[bool], rows: Sequence[Row]) -> float:
    """Return the share of right drafts that an arm, ``right`` or not in every row, makes wrong."""
    return _mean([not hit for hit, row in zip(right, rows, strict=True) if row["grammar"]])


def _abstaining(rows: Sequence[Row], arm: str, least: float) -> dict[str, float]:
    """Return what becomes of drafts where the head changes only those that it is sure enough of."""
    taken = [row[arm] if row[f"{arm} confidence"] >= least else row["grammar"] for row in rows]
    return {
        "right": _mean(taken),
        "harm": _harm(taken, rows),
        "changed": _mean([row[f"{arm} confidence"] >= least for row in rows]),
    }


def _by_bonus(rows: Sequence[Row], arm: str) -> dict[str, dict[str, float]]:
    """Return what becomes of drafts by how much better another choice must be; p is against the hand rules."""
    found = {}
    for i, bonus in enumerate(BONUSES):
        hits = [row[f"{arm} by bonus"][i] for row in rows]
        found[str(bonus)] = {
            "right": _mean(hits),
            "harm": _harm(hits, rows),
            "p": mcnemar(hits, [row["grammar + rules"] for row in rows]),
        }
    return found


def _calibration(rows: Sequence[Row], arm: str, bins: int = 10) -> list[list[float]]:
    """Return per tenth of the confidence: how many, their mean confidence, and how many are right in truth."""
    confidence = np.array([row[f"{arm} confidence"] for row in rows])
    right = np.array([row[arm] for row in rows], bool)
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    found = []
    for i in range(bins):
        some = place == i
        if some.any():
            found.append([int(some.sum()), float(confidence[some].mean()), float(right[some].mean())])
    return found


def _share(hits: Sequence[bool]) -> dict[str, Any]:
    if not hits:
        return {"count": 0}
    return {"right": _mean(hits), "interval": wilson(sum(hits), len(hits)), "count": len(hits)}


def _mean(values: Sequence[bool]) -> float:
    return float(np.mean(values)) if len(values) else math.nan


def table(found: Mapping[str, Any]) -> str:
    """Return the report for people."""
    lines = [f"{'':16}" + "".join(f"{title:>26}" for title in found if title in ("all", *SETS))]
    for arm in ARMS:
        cells = [f"{_cell(found[title][arm]):>26}" for title in ("all", *SETS)]
        lines.append(f"{arm:16}" + "".join(cells))
    lines.append(f"{'':24}" + "".join(f"{title:>10}" for title in (*MARKS, *KINDS, "seconds", "tokens")))
    for arm, one in found["marks"].items():
        cells = [f"{100 * one[mark]:.1f}" for mark in MARKS]
        cells += [f"{100 * one['types'][kind][0]:.1f}" if kind in one["types"] else "" for kind in KINDS]
        lines.append(f"{arm:24}" + "".join(f"{cell:>10}" for cell in (*cells, *_costs(one))))
    for name, one in found["paired"].items():
        lines.append(f"{name}: " + ", ".join(f"{key} {value:.4g}" for key, value in one.items()))
    for arm, values in found["by step"].items():
        lines.append(f"{arm}, k = 1..{STEPS}: " + " ".join(f"{100 * value:.1f}" for value in values))
    for arm, several in found["by confidence"].items():
        for least, one in several.items():
            shown = ", ".join(f"{k} {100 * v:.1f} %" for k, v in one.items())
            lines.append(f"{arm}, changed from confidence {least} on: {shown}")
    for arm, several in found["by bonus"].items():
        for bonus, one in several.items():
            shown = f"right {100 * one['right']:.1f} %, harm {100 * one['harm']:.1f} %, p {one['p']:.4f}"
            lines.append(f"{arm}, bonus {bonus}: {shown}")
    for arm, parts in found["calibration"].items():
        shown = " ".join(f"{100 * sure:.0f}: {100 * right:.0f} ({count})" for count, sure, right in parts)
        lines.append(f"{arm}, confidence: right in percent (calls): {shown}")
    return "\n".join(lines)


def _costs(one: Mapping[str, Any]) -> tuple[str, str]:
    seconds, tokens = one["seconds"], one["tokens"]
    return "" if seconds is None else f"{seconds:.3f}", "" if tokens is None else f"{tokens:.0f}"


def _cell(one: Mapping[str, Any]) -> str:
    if not one["count"]:
        return "none"
    low, high = one["interval"]
    return f"{100 * one['right']:.1f} [{100 * low:.0f}, {100 * high:.0f}] of {one['count']}"


def variant_line(variant: str, rows: Sequence[Row], first: Sequence[Row]) -> str:
    """Return what a variant of the head gives beside the head itself, on the same examples."""
    parts = []
    for arm in ("head", "grammar + head, renamed"):
        pairs = [(row[arm], own[arm]) for row, own in zip(rows, first, strict=True) if arm in row]
        mine, others = [a for a, _ in pairs], [b for _, b in pairs]
        low, high = wilson(sum(mine), len(mine))
        shown = f"{100 * _mean(mine):.1f} [{100 * low:.0f}, {100 * high:.0f}] of {len(mine)}"
        parts.append(f"{arm} {shown}, against {100 * _mean(others):.1f}, p {mcnemar(mine, others):.3f}")
    return f"variant {variant}: " + "; ".join(parts)


def main() -> None:
    """Train what is missing, ask all arms, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folds", type=int, nargs="+", choices=range(FOLDS), default=list(range(FOLDS)))
    parser.add_argument(
        "--variants", nargs="+", choices=list(VARIANTS), default=["head"], help="the first for all arms"
    )
    parser.add_argument("--heads", type=Path, nargs="+", help="bundles of folds 0, 1, ... in order, instead of those")
    parser.add_argument("--cache", type=Path, default=CACHE)
    parser.add_argument("--json", type=Path, help="report to write")
    arguments = parser.parse_args()
    arguments.cache.mkdir(parents=True, exist_ok=True)
    folds = arguments.folds if arguments.heads is None else range(len(arguments.heads))
    rows: dict[str, list[Row]] = {variant: [] for variant in arguments.variants}
    for fold in folds:
        for variant, several in rows.items():
            bundle = arguments.heads[fold] if arguments.heads else head(fold, variant, arguments.cache)
            thoughts = VARIANTS[variant].get("examples", {}).get("thoughts", False)
            several += answers(fold, bundle, variant != arguments.variants[0], arguments.cache, thoughts)
    first = rows[arguments.variants[0]]
    found = report(first)
    print(table(found))
    for variant in arguments.variants[1:]:
        print(variant_line(variant, rows[variant], first))
    invalid, unresolved = (sum(row[name] for row in first) for name in ("invalid", "unresolved"))
    print(f"the head's answers: {invalid} invalid, {unresolved} unresolved")
    if arguments.json is not None:
        write_atomically(arguments.json, (json.dumps({"report": found, "rows": rows}, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
