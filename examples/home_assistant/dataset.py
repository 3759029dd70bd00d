"""Training examples of the Home Assistant head: for every sentence the choice of a tool, and its slots.

A household's tools name its areas, floors and devices as ``examples``. Here every sentence is said in another
household, which lacks some of these names, as users also say others; of some households nothing is known. In half of
the sentences the free texts (names, areas, items, ...) are invented words, so that the head learns where a sentence has
them and not which there are. A quarter of the slots' examples come with a draft, right or wrong in the ways of
``trm_edge.train.tool_calls.KINDS``, so that the head also corrects what a language model wrote.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from sentences import Pools, Sentence, pools
from tools import tools
from tqdm import tqdm

from trm_edge.json_slots import Featurizer, JsonSlots
from trm_edge.json_slots.features import TOKEN_FLAGS
from trm_edge.json_slots.resolver import bind_tools
from trm_edge.json_slots.schema import Scalar
from trm_edge.train.packed import pack
from trm_edge.train.tool_calls import KINDS, call_arrays, corrupted, label

DRAFTED_SHARE = 0.25
INVENTED_SHARE = 0.5
UNKNOWN_SHARE = 0.3  # of the households, nothing is known
KNOWN_SHARE = 0.85  # of the names in the others
BLURRED_WORDS = 0.1  # whose vectors are taken away while training
_ONSETS = tuple(
    ["b", "br", "c", "d", "dr", "f", "fl", "g", "gr", "h", "j", "k", "l", "m", "n", "p", "r", "s", "st", "t", "v", "w"]
)
_RHYMES = tuple(
    ["a", "ack", "al", "an", "ar", "e", "ell", "en", "er", "ick", "ill", "in", "o", "oll", "on", "or", "u", "um", "y"]
)


def compiled(household: Pools | None) -> dict[str, JsonSlots]:
    """Return the tools of a household, compiled, by name."""
    return {tool["name"]: JsonSlots(tool) for tool in tools(household)}


def write(path: Path, sentences: Sequence[Sentence], featurizer: Featurizer, seed: int) -> dict[str, int]:
    """Write a packed data set, and return how many examples it has of each kind, and what the candidates lack."""
    rng, slots = np.random.default_rng(seed), compiled(None)
    known = {tool["name"]: tool for tool in tools(pools())}
    own = [one.tool for one in slots.values()]
    names = [tool.name for tool in own]
    calls: list[dict[str, Any]] = []
    counts = {"tools": 0, "slots": 0, "missing": 0}
    for drawn in _shown(sentences, path.name):
        sentence = invented(drawn, slots[drawn.intent], rng) if rng.random() < INVENTED_SHARE else drawn
        tool = slots[sentence.intent]
        if rng.random() >= UNKNOWN_SHARE:
            tool = JsonSlots(as_household(known[sentence.intent], drawn.slots, sentence.slots, rng))
        choice = bind_tools(own, sentence.text, featurizer)
        calls.append(call_arrays(choice, np.array([names.index(sentence.intent)])))
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
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **pack(calls))
    return counts


def as_household(
    tool: dict[str, Any], drawn: Mapping[str, Any], said: Mapping[str, Any], rng: np.random.Generator
) -> dict[str, Any]:
    """Return a tool as a household has it: it lacks some names; invented words stand for those they came for."""
    other = {drawn[name]: said[name] for name in said if isinstance(drawn[name], str)}

    def known(part: Any) -> Any:
        if not isinstance(part, dict):
            return [known(one) for one in part] if isinstance(part, list) else part
        kept = {name: known(value) for name, value in part.items() if name != "examples"}
        if "examples" in part:
            names = [other.get(name, name) for name in part["examples"]]
            kept["examples"] = [name for name in names if rng.random() < KNOWN_SHARE]
        return kept

    made: dict[str, Any] = known(tool)
    return made


def invented(sentence: Sentence, tool: JsonSlots, rng: np.random.Generator) -> Sentence:
    """Return a sentence whose free texts are other words, one to three, that no language has."""
    text, values = sentence.text, dict(sentence.slots)
    for name, value in sentence.slots.items():
        schema = tool.tool.arguments.properties[name]
        free = isinstance(schema, Scalar) and schema.type == "string" and schema.options is None
        places = list(re.finditer(rf"(?<!\w){re.escape(value)}(?!\w)", text)) if free else []
        if len(places) == 1:
            words = " ".join(_word(rng) for _ in range(int(rng.choice((1, 2, 3), p=(0.45, 0.4, 0.15)))))
            text = text[: places[0].start()] + words + text[places[0].end() :]
            values[name] = words
    return replace(sentence, text=text, slots=values)


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
