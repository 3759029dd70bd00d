"""Five folds of BFCL in which every example is tested once by a head that never saw its function.

    python benchmarks/function_call/folds.py            sizes per set and fold
    python benchmarks/function_call/folds.py --write    make folds.json anew

Examples stay together where the right function has the same name (but for case, dots and underscores) or the query the
same words; whole groups are dealt so that every set is spread evenly. A tool may stand as a mere distractor anywhere,
but ``split`` takes what is right in the test fold out of the tools of the training part. Needs
pip install --no-deps bfcl-eval.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from function_call.bfcl import SETS, Example, examples
from trm_edge.files import write_atomically

FOLDS = 5
EVERY = FOLDS  # as a fold: one that tests nothing, and trains on all
FILE = Path(__file__).with_name("folds.json")


@dataclass(frozen=True)
class Split:
    """One fold's two parts. ``tools`` are those of ``train``, one for each name and set of properties."""

    test: list[Example]
    train: list[Example]
    tools: list[dict[str, Any]]


def function_key(name: str) -> str:
    """Return what is the same for two spellings of a function's name."""
    return re.sub(r"[._]", "", name).lower()


def query_key(query: str) -> str:
    """Return what is the same for two spellings of a query."""
    return " ".join(re.findall(r"\w+", query.lower())) or query


@lru_cache(maxsize=1)
def every_set() -> dict[str, list[Example]]:
    """Return the examples of all sets."""
    return {name: examples(name) for name in SETS}


def fold_of() -> dict[str, int]:
    """Return the fold of every identity, as published in folds.json."""
    published = json.loads(FILE.read_text(encoding="utf-8"))
    return {
        f"{name}_{rest}": fold
        for name, folds in published.items()
        for fold, identities in enumerate(folds)
        for rest in identities
    }


def split(fold: int) -> Split:
    """Return what a fold tests and what a head for it may be trained on.

    No function that is right in the test part is a tool of the training part, not even as a distractor.
    """
    folds = fold_of()
    known = [example for several in every_set().values() for example in several]
    test = [example for example in known if folds[example.identity] == fold]
    held_out = {function_key(example.name) for example in test}
    train: list[Example] = []
    tools: dict[tuple[str, ...], dict[str, Any]] = {}
    for example in known:
        if folds[example.identity] == fold or function_key(example.name) in held_out:
            continue
        kept = [tool for tool in example.tools if function_key(tool["name"]) not in held_out]
        train.append(replace(example, tools=kept))
        for tool in kept:
            names = tool["parameters"].get("properties", {})
            tools.setdefault((function_key(tool["name"]), *sorted(names)), tool)
    return Split(test, train, list(tools.values()))


# ---- dealing ---------------------------------------------------------------------------------------------------------


def assigned(sets: Mapping[str, Sequence[Example]]) -> dict[str, int]:
    """Return a fold for every identity: the largest groups first, each to where it disturbs the balance least.

    Then single groups move to other folds, or change places, as long as that makes the folds more even.
    """
    set_of = {example.identity: name for name, several in sets.items() for example in several}
    groups = _groups([example for several in sets.values() for example in several])
    names = list(sets)
    sizes = [[sum(set_of[identity] == name for identity in group) for name in names] for group in groups]
    means = [max(1.0, len(several) / FOLDS) for several in sets.values()]
    totals = [[0] * len(names) for _ in range(FOLDS)]
    places: list[int] = []

    def strain(total: Sequence[int]) -> float:
        return sum(((count - mean) / mean) ** 2 for count, mean in zip(total, means, strict=True))

    def with_(total: Sequence[int], size: Sequence[int], sign: int) -> list[int]:
        return [count + sign * more for count, more in zip(total, size, strict=True)]

    for size in sizes:
        loss = [strain(with_(total, size, 1)) - strain(total) for total in totals]
        places.append(loss.index(min(loss)))
        totals[places[-1]] = with_(totals[places[-1]], size, 1)

    def improves(i: int, to: int, j: int | None) -> bool:
        """Move group i to a fold, and group j (if any) to where i was, if that is more even."""
        source = places[i]
        a, b = with_(totals[source], sizes[i], -1), with_(totals[to], sizes[i], 1)
        if j is not None:
            a, b = with_(a, sizes[j], 1), with_(b, sizes[j], -1)
        better = strain(a) + strain(b) < strain(totals[source]) + strain(totals[to]) - 1e-12
        if better:
            totals[source], totals[to], places[i] = a, b, to
            if j is not None:
                places[j] = source
        return better

    kinds: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for i, size in enumerate(sizes):
        kinds[tuple(size)].append(i)
    moving = True
    while moving:
        moving = False
        for i in range(len(groups)):
            for to in range(FOLDS):
                partners = [next((j for j in some if places[j] == to), None) for some in kinds.values()]
                options = [None, *(j for j in partners if j is not None)]
                moving |= any(improves(i, to, j) for j in options if to != places[i])
    return {identity: place for group, place in zip(groups, places, strict=True) for identity in group}


def _groups(known: Sequence[Example]) -> list[list[str]]:
    """Return the identities that must stay together (union-find), the largest group first."""
    parent = list(range(len(known)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    first: dict[tuple[str, str], int] = {}
    for i, example in enumerate(known):
        for key in (("function", function_key(example.name)), ("query", query_key(example.query))):
            parent[root(i)] = root(first.setdefault(key, i))
    found: dict[int, list[str]] = {}
    for i, example in enumerate(known):
        found.setdefault(root(i), []).append(example.identity)
    return sorted(found.values(), key=lambda group: (-len(group), group[0]))


def published(sets: Mapping[str, Sequence[Example]], folds: Mapping[str, int]) -> str:
    """Return the text of folds.json: per set and fold the identities, without the set's name."""
    lines = []
    for name, several in sets.items():
        rows = [
            json.dumps([e.identity.removeprefix(f"{name}_") for e in several if folds[e.identity] == fold])
            for fold in range(FOLDS)
        ]
        lines.append(f'"{name}": [\n' + ",\n".join(rows) + "\n]")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def main() -> None:
    """Print the sizes of the folds, after making them where asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="make folds.json anew")
    arguments = parser.parse_args()
    sets = every_set()
    if arguments.write:
        write_atomically(FILE, published(sets, assigned(sets)).encode())
    folds = fold_of()
    for name, several in sets.items():
        counts = [sum(folds[example.identity] == fold for example in several) for fold in range(FOLDS)]
        print(f"{name:14} {len(several):5}  " + " ".join(f"{count:5}" for count in counts))
    parts = [split(fold) for fold in range(FOLDS)]
    print(f"{'training':14} {'':5}  " + " ".join(f"{len(part.train):5}" for part in parts))
    print(f"{'tools':14} {'':5}  " + " ".join(f"{len(part.tools):5}" for part in parts))


if __name__ == "__main__":
    main()
