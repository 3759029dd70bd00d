"""Sentences for Home Assistant's intents: expanded from the package's templates, each with the call that it means.

    python examples/home_assistant/sentences.py     # writes splits.json, the templates held out by each split

A template is expanded at random with hassil's own expressions: optional parts, alternatives, permutations, rules and
lists. Lists of the package give their values; what a household or a user makes up (names, areas, items, titles) is in
``pools.json``, of which every fifth value is kept back as unseen.

Some sentences have more than one reading, as templates of two intents, or of one, take them: see ``readings``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from random import Random
from typing import Any

from hassil.expression import (
    Alternative,
    Expression,
    Group,
    ListReference,
    Permutation,
    RuleReference,
    TextChunk,
)
from hassil.intents import RangeSlotList, SlotList, TextSlotList
from hassil.numbers import get_rbnf_engine
from hassil.recognize import recognize_all
from tools import all_templates, package

HERE = Path(__file__).parent
SPLITS = HERE / "splits.json"
UNSEEN_EVERY = 5  # of the values of a pool, one is unseen; also of an intent's templates, one is held out
WORDS_SHARE = 0.25  # of the numbers, written as words
CAPITAL_SHARE, STOP_SHARE, PLEASE_SHARE = 0.1, 0.1, 0.05
ANY_AREA = "<area of the device that listens>"

_NUMBER = re.compile(r"\x02([\d.]+)\x03")  # as an expansion marks it
_NOT_A_NAME = re.compile(
    r"^(the|my|our|a|an|in|on|at|of|off|across|around|throughout)\b|((hour|minute|second)s?|please)$", re.I
)
_QUESTION = re.compile(r"(what|who|how|is|are|where|which|do|any|some|when)\b")

Pools = dict[str, Any]
Reading = tuple[str, dict[str, Any]]


@dataclass(frozen=True)
class Sentence:
    """A sentence as a user types it, the call that it means, and the number of its template."""

    text: str
    intent: str
    slots: dict[str, Any]
    template: int


# ---- pools and splits ------------------------------------------------------------------------------------------------


@lru_cache(maxsize=3)
def pools(part: str = "common") -> Pools:
    """Return the values of the made-up lists: the ``common`` ones, the ``unseen`` ones, or ``all``.

    Names are by the domain of their device.
    """
    every: Pools = json.loads((HERE / "pools.json").read_text(encoding="utf-8"))

    def some(values: list[str]) -> list[str]:
        return [v for i, v in enumerate(values) if part == "all" or (i % UNSEEN_EVERY == 4) == (part == "unseen")]

    return {
        name: {domain: some(names) for domain, names in values.items()} if isinstance(values, dict) else some(values)
        for name, values in every.items()
    }


def held_out(k: int) -> list[int]:
    """Draw the templates of split k: a fifth of every intent's, at least one where it has several."""
    numbers: dict[str, list[int]] = {}
    for number, template in enumerate(all_templates()):
        numbers.setdefault(template.intent, []).append(number)
    drawn: list[int] = []
    for intent, own in numbers.items():
        if len(own) > 1:
            drawn += Random(f"{intent} {k}").sample(own, max(1, round(len(own) / UNSEEN_EVERY)))
    return sorted(drawn)


def split(k: int) -> tuple[list[int], list[int]]:
    """Return the templates to train on and those held out, as split k (0, 1 or 2) is published in ``splits.json``."""
    test: list[int] = json.loads(SPLITS.read_text(encoding="utf-8"))["held_out"][k]
    return sorted(set(range(len(all_templates()))) - set(test)), test


# ---- expansion -------------------------------------------------------------------------------------------------------


def generate(templates: Iterable[int], per_template: int, seed: int, unseen: bool = False) -> list[Sentence]:
    """Expand templates at random.

    Parameters
    ----------
    templates
        Their numbers, in the order of the package's file.
    per_template
        How many sentences of each, at most: a text that came before is drawn again, a few times.
    seed
        The same seed gives the same sentences; those of a template do not depend on the others, but for doubles.
    unseen
        Take made-up values from the unseen fifth of the pools.
    """
    values = pools("unseen" if unseen else "common")
    made: dict[str, Sentence] = {}
    for number in templates:
        rng = Random(f"{seed} {number} {unseen}")
        found = 0
        for _ in range(4 * per_template):
            if found == per_template:
                break
            sentence = _sentence(number, values, rng)
            if sentence.text.casefold() not in made:
                made[sentence.text.casefold()] = sentence
                found += 1
    return list(made.values())


def _sentence(number: int, values: Pools, rng: Random) -> Sentence:
    template = all_templates()[number]
    slots: dict[str, Any] = dict(template.data.slots)
    domains = (template.data.requires_context or {}).get("domain", [])
    expression = template.expression.expression
    marked = _Expansion(values, domains, rng, slots).text(expression)
    text = _NUMBER.sub(lambda found: _written(found, rng), " ".join(marked.lower().split()))
    return Sentence(_typed(text, _ends_open(expression), rng), template.intent, slots, number)


@dataclass(frozen=True)
class _Expansion:
    """One expansion: fills ``slots`` as it goes. Numbers are marked, to be written as digits or words afterwards."""

    values: Pools
    domains: Sequence[str]
    rng: Random
    slots: dict[str, Any]

    def text(self, expression: Expression) -> str:
        if isinstance(expression, TextChunk):
            return expression.original_text
        if isinstance(expression, RuleReference):
            return self.text(package().expansion_rules[expression.rule_name].expression)
        if isinstance(expression, ListReference):
            return self._value(expression)
        if not isinstance(expression, Group):
            raise TypeError(f"expected an expression of hassil, got {type(expression).__name__}")
        if isinstance(expression, Alternative):
            return self.text(self.rng.choice(expression.items))
        items = list(expression.items)
        if isinstance(expression, Permutation):
            self.rng.shuffle(items)
        return "".join(self.text(item) for item in items)

    def _value(self, reference: ListReference) -> str:
        name = reference.list_name
        known = package().slot_lists.get(name)
        if isinstance(known, RangeSlotList):
            number = _number(known, self.rng)
            self.slots[reference.slot_name] = number * int(known.multiplier or 1)
            return f"\x02{number}\x03"
        if isinstance(known, TextSlotList):
            value = self.rng.choice(known.values)
            self.slots[reference.slot_name] = value.value_out
            return self.text(value.text_in)
        pool = self.values[name]
        if isinstance(pool, dict):
            pool = pool[self.rng.choice(list(self.domains))]
        self.slots[reference.slot_name] = self.rng.choice(pool)
        return str(self.slots[reference.slot_name])


def _number(known: RangeSlotList, rng: Random) -> int | float:
    """Draw a number of a range; every other one is a multiple of five steps, as people like them."""
    step = known.step * (5 if rng.random() < 0.5 else 1)
    number = rng.randrange(-(-known.start // step), known.stop // step + 1) * step
    if known.fraction_type is not None and number < known.stop and rng.random() < 0.15:
        return number + 0.5
    return number


def _written(found: re.Match[str], rng: Random) -> str:
    """Write a number in digits, or in words where no unit is joined to it."""
    digits = found.group(1)
    joined = found.string[found.end() :].lstrip()[:1] in ("%", "°") or found.string[found.end() : found.end() + 1] > " "
    if joined or "." in digits or rng.random() >= WORDS_SHARE:
        return digits
    return str(get_rbnf_engine("en").format_number(int(digits)).text).replace("-", " ")


def _ends_open(expression: Expression) -> bool:
    """Whether a sentence ends with free text, of which "please" would become a part."""
    last = expression
    while isinstance(last, Group) and last.items:
        last = last.items[-1]
    return isinstance(last, ListReference) and last.list_name in pools() and last.list_name not in ("area", "floor")


def _typed(text: str, ends_open: bool, rng: Random) -> str:
    """Add what users add: a "please", a capital first letter, a full stop or question mark."""
    if rng.random() < PLEASE_SHARE:
        text = f"please {text}" if ends_open else f"{text} please"
    if rng.random() < CAPITAL_SHARE:
        text = text[0].upper() + text[1:]
    if rng.random() < STOP_SHARE:
        text += "?" if _QUESTION.match(text.lower()) else "."
    return text


# ---- readings --------------------------------------------------------------------------------------------------------


def readings(sentence: Sentence) -> list[Reading]:
    """Return the calls that a sentence may mean: its own, then the others by which hassil recognizes its text.

    Where hassil takes "the pizza", "in the garden" or "5 minutes" for a title, a name or an item, that is no reading.
    """
    found = [(sentence.intent, sentence.slots), *recognized(sentence.text)]
    distinct: dict[tuple[Any, ...], Reading] = {}
    for reading in found:
        distinct.setdefault(reading_key(*reading), reading)
    return list(distinct.values())


def is_right(intent: str, slots: dict[str, Any], allowed: Collection[Reading]) -> bool:
    """Whether a call is one of the readings: the same intent and slots, texts compared without their case."""
    wanted = reading_key(intent, slots)
    return any(wanted == reading_key(*reading) for reading in allowed)


def reading_key(intent: str, slots: dict[str, Any]) -> tuple[Any, ...]:
    """Return what equal calls have in common."""
    values = ((name, v.casefold() if isinstance(v, str) else v) for name, v in slots.items())
    return intent, *sorted(values)


@lru_cache(maxsize=65536)
def recognized(text: str) -> tuple[Reading, ...]:
    """Return the calls by which hassil recognizes a text, in a household that has all that the pools name."""
    results = recognize_all(text, package(), slot_lists=_household(), intent_context={"area": ANY_AREA}, language="en")
    found: list[Reading] = []
    for result in results:
        entities = [entity for entity in result.entities_list if entity.value != ANY_AREA]
        if not any(entity.is_wildcard and _NOT_A_NAME.search(entity.text.strip()) for entity in entities):
            found.append((result.intent.name, {entity.name: _plain(entity.value) for entity in entities}))
    return tuple(found)


def _plain(value: Any) -> Any:
    """Return hassil's value as JSON would have it: a whole number is an int."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value.strip() if isinstance(value, str) else value


@lru_cache(maxsize=1)
def _household() -> dict[str, SlotList]:
    """Return the lists that the package leaves to a household, with all values of the pools."""
    every = pools("all")
    names = [(name, name, {"domain": domain}) for domain, own in every["name"].items() for name in own]
    down = package().slot_lists["volume_step_down"]
    if not isinstance(down, RangeSlotList):
        raise TypeError(f"volume_step_down: expected a range, got {type(down).__name__}")
    return {
        "area": TextSlotList.from_strings(every["area"]),
        "floor": TextSlotList.from_strings(every["floor"]),
        "name": TextSlotList.from_tuples(names),
        # hassil 3.12 keeps number words by a range's bounds, without its multiplier: equal bounds would share a sign
        "volume_step_down": replace(down, stop=down.stop + 1),
    }


if __name__ == "__main__":
    SPLITS.write_text(json.dumps({"held_out": [held_out(k) for k in range(3)]}) + "\n", encoding="utf-8")
    print(f"{SPLITS.name}: {[len(held_out(k)) for k in range(3)]} templates held out")
