"""Training examples of a fold's head: real queries, and the same with other values, with drafts.

    python benchmarks/function_call/calls.py --fold 0 --out runs/fold0.npz

A query comes with no draft, with the language model's where there is one (``drafts/``; in a variant, with the variant's
values), or with one made wrong in the ways of ``trm_edge.train.tool_calls.KINDS``. Where several tools are offered,
their choice is an example of its own; synthetic queries get other tools of the fold beside theirs.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from function_call.bfcl import Example, labels
from function_call.drafts import drafts
from function_call.folds import function_key, split
from function_call.llm import call_of, thought_of
from function_call.substitution import redrafted, resaying, texts_of, variants
from function_call.synthetic import generated
from trm_edge.json_slots import Featurizer, JsonSlots, SchemaError, Tool
from trm_edge.json_slots.features import featurizer_for
from trm_edge.json_slots.resolver import bind_tools
from trm_edge.spec import TrmSpec
from trm_edge.train import load_config
from trm_edge.train.packed import pack
from trm_edge.train.tool_calls import KINDS, call_arrays, corrupted

VALUES, REPEATS = 12, 2  # how often a real query comes with other values, and as it is (with other drafts)
UNDRAFTED = 0.3  # share of the queries that come without a draft
MODEL_SHARE = 0.85  # of the others for which there is a draft of the language model, those that get it
DRAFTED = dict(zip(KINDS[1:], (0.3, 0.2, 0.35, 0.15), strict=True))  # shares of the other drafts
MAY_DECLINE_SHARE = 0.5  # of the choices, with the right tool and without it, where a head may decline
STRANGE, MAX_STRANGERS = 0.5, 4  # of those without it, which offer some of the fold's tools; how many at most
OFFERED = 3  # tools beside a synthetic query's own


def sources(fold: int, synthetic: int = 0, values: int = VALUES, repeats: int = REPEATS) -> Iterator[Example]:
    """Yield a fold's training examples, with ``synthetic`` queries made up for every tool."""
    part = split(fold)
    others = texts_of(part.train)
    for example in part.train:
        for _ in range(repeats):
            yield example
        yield from variants(example, values, fold, others)
    rng = random.Random(fold)
    for number, made in enumerate(generated(part.tools, synthetic, fold)):
        example = made.as_example(f"synthetic_{number}")
        beside = [tool for tool in rng.sample(part.tools, OFFERED) if tool["name"] != example.name]
        tools = [*beside, *example.tools]
        rng.shuffle(tools)
        yield Example(example.identity, example.query, tools, example.name, example.answer)


class Maker:
    """Turns examples into the arrays of calls.

    With ``strangers`` an example also gives the choice of its tool or of none, and that of none where its tool is not
    among those offered: the others of the example, or some strangers.

    Parameters
    ----------
    featurizer
        That of the head.
    spec
        Its maxima; what is larger is left out.
    seed
        Of the drafts.
    strangers
        Tools, for heads that may decline.
    thoughts
        Whether a query comes with the language model's thought about it, where there is one.
    """

    def __init__(
        self,
        featurizer: Featurizer,
        spec: TrmSpec,
        seed: int,
        strangers: Sequence[dict[str, Any]] = (),
        thoughts: bool = False,
    ) -> None:
        self.featurizer, self.spec = featurizer, spec
        self.rng = np.random.default_rng(seed)
        self.strangers, self.offers = strangers, random.Random(seed)
        self.counts = {"tools": 0, "tools or none": 0, "slots": 0, "missing": 0, "too large": 0}
        self._rows = drafts("grammar")
        self._thoughts = drafts("cot") if thoughts else {}
        self._slots: dict[str, JsonSlots | None] = {}

    def calls(self, example: Example) -> Iterator[dict[str, Any]]:
        """Yield the arrays of an example: the choice of its tool, and its slots."""
        compiled = [slots.tool for tool in example.tools if (slots := self.slots(tool)) is not None]
        names = [tool.name for tool in compiled]
        if example.name not in names:
            return
        thought = self._thought(example)
        if len(names) > 1 and len(set(names)) == len(names):
            self.counts["tools"] += 1
            choice = bind_tools(compiled, example.query, self.featurizer, thought)
            target = np.array([names.index(example.name)])
            yield call_arrays(choice, target, np.arange(len(names)) == target)
        if self.strangers and len(set(names)) == len(names):
            yield from self._or_none(compiled, example)
        slots = self.slots(example.tool)
        if slots is None or not slots.tool.arguments.properties:
            return
        first = slots.bind(example.query)
        right = labels(first, example.answer, only_said=True)
        answer = None if right is None else first.decode(right.chosen).json
        if answer is None:
            self.counts["missing"] += 1
            return
        draft = self._draft(example, slots, json.loads(answer))
        inputs = slots.bind(example.query, draft, self.featurizer, thought=thought)
        found = labels(inputs, example.answer, only_said=True)
        if found is None:
            self.counts["missing"] += 1
        elif len(inputs.slots) > self.spec.answer_rows or len(inputs.candidates) > self.spec.max_candidates:
            self.counts["too large"] += 1
        else:
            self.counts["slots"] += 1
            yield call_arrays(inputs, found.chosen, found.right)

    def _or_none(self, tools: Sequence[Tool], example: Example) -> Iterator[dict[str, Any]]:
        others = [tool for tool in tools if tool.name != example.name]
        if not others or self.offers.random() < STRANGE:
            key = function_key(example.name)
            drawn = self.offers.sample(self.strangers, self.offers.randint(1, MAX_STRANGERS))
            found = {tool["name"]: self.slots(tool) for tool in drawn if function_key(tool["name"]) != key}
            others = [slots.tool for slots in found.values() if slots is not None]
        for offered in (tools, others):
            if offered and self.offers.random() < MAY_DECLINE_SHARE:
                self.counts["tools or none"] += 1
                inputs = bind_tools(offered, example.query, self.featurizer, self._thought(example), may_decline=True)
                right = np.array([one.value == example.name for one in inputs.candidates])
                right[0] = not right.any()
                yield call_arrays(inputs, np.flatnonzero(right), right)

    def slots(self, tool: dict[str, Any]) -> JsonSlots | None:
        """Return a tool, compiled once, or None where its schema is not supported."""
        key = json.dumps(tool, sort_keys=True)
        if key not in self._slots:
            try:
                self._slots[key] = JsonSlots(tool)
            except SchemaError:
                self._slots[key] = None
        return self._slots[key]

    def _thought(self, example: Example) -> str:
        row = self._thoughts.get(example.identity.partition("~")[0])
        return "" if row is None else resaying(example.changes)(thought_of(row["text"]))

    def _draft(self, example: Example, slots: JsonSlots, right: dict[str, Any]) -> str:
        if self.rng.random() < UNDRAFTED:
            return ""
        row = self._rows.get(example.identity.partition("~")[0])
        name, arguments = call_of(row["text"]) if row is not None else (None, None)
        if name == example.name and arguments is not None and self.rng.random() < MODEL_SHARE:
            return redrafted(arguments, example.changes)
        kind = str(self.rng.choice(list(DRAFTED), p=list(DRAFTED.values())))
        return corrupted(slots, example.query, right, kind, self.rng)


def write(path: Path, examples: Iterable[Example], maker: Maker) -> dict[str, int]:
    """Write a packed data set, and return how many examples it has of each kind."""
    shown = tqdm(examples, desc=path.name, unit=" queries", disable=None)
    calls = [call for example in shown for call in maker.calls(example)]
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **pack(calls))
    return maker.counts


def main() -> None:
    """Write the examples of a fold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fold", type=int, choices=range(5), required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--synthetic", type=int, default=0, help="queries made up for every tool; they did not help")
    arguments = parser.parse_args()
    spec = load_config(Path(__file__).parent / "head.toml").spec
    featurizer = featurizer_for(spec)
    maker = Maker(featurizer, spec, arguments.fold)
    print(write(arguments.out, sources(arguments.fold, arguments.synthetic), maker))


if __name__ == "__main__":
    main()
