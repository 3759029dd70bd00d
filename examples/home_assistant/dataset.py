"""Training examples of the Home Assistant head: for every sentence the choice of a tool, and its slots.

A household's tools name its areas, floors and devices as ``examples``. Here every sentence is said in one of many
households. Half of the names in each are invented words, so that the head learns where a sentence has a name and not
which there are; its tools lack some of them, as users also say others, and of some households nothing is known. Free
text that no household names (items, titles, ...) is invented by half, too, sometimes behind an area's name; an area
becomes a floor now and then, and the other way round. In half of the choices none of the tools may be chosen, which is
right for sentences that ask for nothing of a house (``foreign.py``). A quarter of the slots' examples come with a
draft, right or wrong in the ways of ``trm_edge.train.tool_calls.KINDS``, so that the head also corrects what a language
model wrote.
"""

from __future__ import annotations

import math
import re
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from foreign import foreign
from hassil.intents import RangeSlotList
from sentences import Pools, Sentence, generate, pools
from tools import NAMED, all_templates, filled_by, tools
from tqdm import tqdm

from trm_edge.json_slots import Featurizer, JsonSlots
from trm_edge.json_slots.features import TOKEN_FLAGS
from trm_edge.json_slots.resolver import bind_tools
from trm_edge.json_slots.schema import Choice, Scalar
from trm_edge.train.packed import pack
from trm_edge.train.tool_calls import KINDS, call_arrays, corrupted, label

PER_TEMPLATE = 12, 60  # sentences: of many templates of a kind, and of a few
DENSITY = 80  # times the root of a kind's templates: its sentences
DRAFTED_SHARE = 0.25
INVENTED_SHARE = 0.5
NESTED_SHARE = 0.15  # of the invented free texts, those that begin with an area's name: a "study break" timer
HOUSEHOLDS = 40
UNKNOWN_SHARE = 0.05  # of the households, nothing is known
KNOWN_SHARE = 0.95  # of the names in the others
MOVED_SHARE = 0.15  # of the areas that could as well be floors, and of the floors
MAY_DECLINE_SHARE = 0.5  # of the choices of a tool, those where none may be chosen
FOREIGN_SHARE = 0.15  # foreign sentences, per sentence
INVENTED_WORDS = 500  # that some of them are made of
BLURRED_WORDS = 0.1  # whose vectors are taken away while training
_ONSETS = tuple(
    ["b", "br", "c", "d", "dr", "f", "fl", "g", "gr", "h", "j", "k", "l", "m", "n", "p", "r", "s", "st", "t", "v", "w"]
)
_RHYMES = tuple(
    ["a", "ack", "al", "an", "ar", "e", "ell", "en", "er", "ick", "ill", "in", "o", "oll", "on", "or", "u", "um", "y"]
)


class Household(NamedTuple):
    """What a household calls what the pools name, and its tools by name."""

    called: dict[str, str]
    tools: dict[str, JsonSlots]


def compiled(household: Pools | None) -> dict[str, JsonSlots]:
    """Return the tools of a household, compiled, by name."""
    return {tool["name"]: JsonSlots(tool) for tool in tools(household)}


def drawn(templates: Iterable[int], seed: int) -> list[Sentence]:
    """Draw sentences of the training templates: more of each, the fewer there are of its kind."""
    kinds = {number: _kind(number) for number in templates}
    sizes = Counter(kinds.values())
    wanted: dict[int, list[int]] = {}
    for number, kind in kinds.items():
        wanted.setdefault(int(np.clip(DENSITY / math.sqrt(sizes[kind]), *PER_TEMPLATE)), []).append(number)
    return [one for count, numbers in sorted(wanted.items()) for one in generate(numbers, count, seed)]


def _kind(number: int) -> tuple[Any, ...]:
    """Return what templates of a kind share: the intent, the slots that no words say, and those that are no number."""
    template = all_templates()[number]
    texts = {name for name, source in filled_by(template) if not isinstance(source, RangeSlotList)}
    return template.intent, *sorted(template.data.slots.items()), *sorted(texts)


def write(path: Path, sentences: Sequence[Sentence], featurizer: Featurizer, seed: int) -> dict[str, int]:
    """Write a packed data set, and return how many examples it has of each kind, and what the candidates lack."""
    rng, declining = np.random.default_rng(seed), np.random.default_rng((seed, 1))
    homes = [household(number >= UNKNOWN_SHARE * HOUSEHOLDS, rng) for number in range(HOUSEHOLDS)]
    names = list(homes[0].tools)
    calls: list[dict[str, Any]] = []
    counts = {"tools": 0, "foreign": 0, "slots": 0, "missing": 0}
    for drawn in _shown(sentences, path.name):
        home = homes[int(rng.integers(len(homes)))]
        tool = home.tools[drawn.intent]
        sentence = said_in(home, moved(drawn, tool, rng), rng)
        may = bool(declining.random() < MAY_DECLINE_SHARE)
        choice = bind_tools([one.tool for one in home.tools.values()], sentence.text, featurizer, may_decline=may)
        calls.append(call_arrays(choice, np.array([names.index(sentence.intent) + may])))
        counts["tools"] += 1
        if not tool.tool.arguments.properties:
            continue
        kind = str(rng.choice(KINDS[1:])) if rng.random() < DRAFTED_SHARE else "none"
        draft = corrupted(tool, sentence.text, sentence.slots, kind, rng)
        inputs = tool.bind(sentence.text, draft, featurizer)
        target = label(inputs, sentence.slots)
        counts["missing" if target is None else "slots"] += 1
        if target is not None:
            calls.append(call_arrays(inputs, target))
    invented = [_word(declining) for _ in range(INVENTED_WORDS)]
    for text in foreign(int(FOREIGN_SHARE * len(sentences)), seed, invented):
        home = homes[int(declining.integers(len(homes)))]
        choice = bind_tools([one.tool for one in home.tools.values()], text, featurizer, may_decline=True)
        calls.append(call_arrays(choice, np.array([0])))
        counts["foreign"] += 1
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **pack(calls))
    return counts


def household(known: bool, rng: np.random.Generator) -> Household:
    """Draw a household: invented words for half of its names, and tools that know most of them, or none."""
    called: dict[str, str] = {}

    def drawn(part: Any) -> Any:
        if isinstance(part, dict):
            return {name: drawn(inner) for name, inner in part.items()}
        for name in part:
            called.setdefault(name, _words(rng) if rng.random() < INVENTED_SHARE else name)
        return [called[name] for name in part if rng.random() < KNOWN_SHARE]

    named = {name: drawn(values) for name, values in pools().items() if name in NAMED}
    return Household(called, compiled(named if known else None))


def said_in(home: Household, sentence: Sentence, rng: np.random.Generator) -> Sentence:
    """Return a sentence as a household says it; half of the other free texts are words that no language has."""
    for name, value in sentence.slots.items():
        if isinstance(value, str) and _is_free(home.tools[sentence.intent], name, value):
            other = home.called.get(value) or (_free_text(home, rng) if rng.random() < INVENTED_SHARE else value)
            sentence = _replaced(sentence, name, name, other)
    return sentence


def moved(sentence: Sentence, tool: JsonSlots, rng: np.random.Generator) -> Sentence:
    """Return a sentence with a floor where it has an area, or the other way round, where its tool takes both."""
    if {"area", "floor"} <= tool.tool.arguments.properties.keys() and rng.random() < MOVED_SHARE:
        for name, other in (("area", "floor"), ("floor", "area")):
            value = sentence.slots.get(name)
            if isinstance(value, str) and f"{value} floor" not in sentence.text:
                return _replaced(sentence, name, other, str(rng.choice(pools()[other])))
    return sentence


def _replaced(sentence: Sentence, name: str, other: str, value: str) -> Sentence:
    """Return a sentence with another value in the one place of a slot's, as slot ``other``; itself if there is none."""
    own = sentence.slots[name]
    places = list(re.finditer(rf"(?<!\w){re.escape(own)}(?!\w)", sentence.text))
    if len(places) != 1:
        return sentence
    text = sentence.text[: places[0].start()] + value + sentence.text[places[0].end() :]
    return replace(
        sentence,
        text=text,
        slots={other if slot == name else slot: v for slot, v in sentence.slots.items()} | {other: value},
    )


def _is_free(tool: JsonSlots, name: str, value: str) -> bool:
    """Whether a slot takes any text, and has a value that is none of its options."""
    schema = tool.tool.arguments.properties[name]
    alternatives = schema.alternatives if isinstance(schema, Choice) else (schema,)
    scalars = [one for one in alternatives if isinstance(one, Scalar)]
    free = any(one.type == "string" and one.options is None for one in scalars)
    return free and not any(value in (one.options or ()) for one in scalars)


def _free_text(home: Household, rng: np.random.Generator) -> str:
    area = str(rng.choice(pools()["area"])) if rng.random() < NESTED_SHARE else ""
    return f"{home.called.get(area, area)} {_words(rng)}".lstrip()


def _words(rng: np.random.Generator) -> str:
    return " ".join(_word(rng) for _ in range(int(rng.choice((1, 2, 3), p=(0.45, 0.4, 0.15)))))


def _word(rng: np.random.Generator) -> str:
    return "".join(str(rng.choice(part)) for _ in range(int(rng.integers(1, 4))) for part in (_ONSETS, _RHYMES))


def blurred(arrays: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    """Take away the vectors of some words, so that no single one decides: the hook ``data.augment``."""
    x = arrays["x"].copy()
    x[..., : x.shape[-1] - TOKEN_FLAGS] *= rng.random((*x.shape[:2], 1)) >= BLURRED_WORDS
    return arrays | {"x": x}


def _shown(sentences: Sequence[Sentence], what: str) -> Iterable[Sentence]:
    bar: Iterable[Sentence] = tqdm(sentences, desc=what, unit=" sentences", disable=not sys.stderr.isatty())
    return bar
