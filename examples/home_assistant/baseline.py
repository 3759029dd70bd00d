"""The baseline on Home Assistant's intents: a regression on character n-grams names the intent, rules fill the slots.

    pip install home-assistant-intents hassil scikit-learn && python examples/home_assistant/baseline.py

It trains on 30 sentences of each training template and is tested on 5 of each template held out, in three splits. A
call is exact where intent and every slot are those of one of the sentence's readings. Two sets of rules are measured:

``short``
    the hundred lines below: units, words of enums, look-ups of known places and names, "in the X", what remains.
``long``
    ``rules.py``, three times as many, made right sentence by sentence on training templates. Their author had read all
    templates, the held-out ones too: no learner has that.

Values are those of training (``seen``), or of the pools' other fifth (``unseen``), which no rule can look up.
"""

from __future__ import annotations

import argparse
import json
import math
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

from rules import DURATIONS, THE, UNITS, Rules, Slots, digits, duration, looked_up
from sentences import Sentence, generate, is_right, pools, readings, split
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from tools import all_templates, tools

TRAIN_PER_TEMPLATE, TEST_PER_TEMPLATE = 30, 5
TRAIN_SEED, TEST_SEED = 0, 1
NUMBERS = ("brightness", "percentage", "position", "temperature", "volume_level", "volume_step")
NOT_NAMES = re.compile(
    r"the|my|our|an?|to|from|off|on|of|in|by|for|and|add|take|remove|increase|decrease|cancel|stop|pause|resume|continue"
    r"|set|start|create|how|long|much|time|is|left|remaining|status|what|timers?|all"
)
NOT_PLACES = re.compile(
    r"\b(?:here|room|area|space|house|home|apartment|flat|over|base|dock|lights?|lighting|lamps?|fans?|switch(?:es)?|is|are"
    r"|doors?|windows?|shutters?|blinds?)\b"
)
PEOPLE = rf"(?:is \w+(?:one|body)|who is|how many (?:people|persons) are) (?:(?:in|on|at|of|around|throughout) )?{THE}"
KIND = re.compile(
    r"(?<=^play )(?:the )?(artist|album|track|song|playlist|podcast|movie|(?:tv )?show) (?=.)"
    r"| (artist|album|track|song|playlist|podcast|movie|(?:tv )?show)$"
)
KINDS = {"song": "track", "show": "tv_show", "tv show": "tv_show"}
SYNONYMS = {
    **{"shut": "closed", "shutting": "closing", "automatic": "auto", "focused": "focus", "diffused": "diffuse"},
    **{"candle light": "1900", "warm white": "2700", "cold white": "4000", "cool white": "4000", "day ?light": "6500"},
}
TEXTS = {  # by slot, what stands around free text
    "message": r"(?:broadcast|announce) (?:everywhere )?(?:that )?(.+)",
    "search_query": rf"play {THE}(.+?)(?: (?:in|on) .*)?",
    "item": r"(?:add|put|check|complete|delete|remove) (?:off )?(.+?) (?:off )?(?:to|off|from|on|in) .*",
}
TITLES = ("intent", "exact, short rules", "exact, long rules", "own reading only", "intent given")


# ---- rules -----------------------------------------------------------------------------------------------------------


class ShortRules:
    """Fills slots by a few rules that read the tool's schema and know the common values of the pools.

    Parameters
    ----------
    templates
        The numbers of the training templates, which say what kinds of devices an intent can name.
    """

    def __init__(self, templates: Iterable[int]) -> None:
        self.properties = {tool["name"]: tool["parameters"]["properties"] for tool in tools()}
        common = pools("common")
        self.values: dict[str, dict[str, str]] = {intent: {} for intent in self.properties}
        for number in templates:
            template = all_templates()[number]
            domains = (template.data.requires_context or {}).get("domain", [])
            self.values[template.intent] |= {name: "name" for domain in domains for name in common["name"][domain]}
        for intent, values in self.values.items():
            places = {value: slot for slot in ("floor", "area") for value in common[slot]}
            values |= {value: slot for value, slot in places.items() if slot in self.properties[intent]}

    def fill(self, intent: str, text: str) -> Slots:
        """Return the slots of an intent that a sentence fills."""
        text = re.sub(r"^please | please$", "", text.lower().rstrip(".?"))
        properties = self.properties[intent]
        kind: Slots = {}
        if "media_class" in properties and (said := KIND.search(text)):
            kind = {"media_class": KINDS.get(said[1] or said[2], said[1] or said[2])}
            text = KIND.sub("", text, count=1)
        for slot, pattern in TEXTS.items():
            found = re.fullmatch(pattern, text) if slot in properties else None
            if found:
                return {**kind, slot: found[1], **self._places(intent, text[found.end(1) :])}
        people = re.match(PEOPLE, text)
        if intent == "HassGetState" and people:
            return {"domain": "person", "state": text[people.end() :]}
        for word, meaning in SYNONYMS.items():
            text = re.sub(rf"\b{word}\b", meaning, text)
        text = re.sub(r"(?<=\d)[ -]*(?=%|°|k\b|[a-z])", " ", digits(text))
        if properties.keys() & {*UNITS, "start_minutes"}:
            return self._timer(intent, text)
        places = self._places(intent, text)
        return {**self._numbers(intent, text), **self._enums(intent, text, places), **places}

    def _numbers(self, intent: str, text: str) -> Slots:
        number = re.search(r"\d+(?:\.5)?", text)
        slot = next((name for name in NUMBERS if name in self.properties[intent]), None)
        if intent == "HassLightSet" and "temperature" in text:
            slot = "temperature"
        sign = -1 if re.search(r"\b(?:down|decrease)\b", text) else 1
        if number and slot:
            value = float(number[0]) if "." in number[0] else int(number[0])
            return {slot: value * sign if slot == "volume_step" else value}
        level = re.search(r"\b(?:(max|maximum|highest)|min|minimum|lowest)\b", text)
        if slot == "brightness" and level:
            return {slot: 100 if level[1] else 1}
        return {slot: "down" if sign < 0 else "up"} if slot == "volume_step" else {}

    def _enums(self, intent: str, text: str, places: Slots) -> Slots:
        slots: Slots = {}
        for slot, schema in self.properties[intent].items():
            options: list[str] = next((one["enum"] for one in schema.get("anyOf", [schema]) if "enum" in one), [])
            said = [option for option in options if re.search(rf"\b{option.replace('_', ' ')}s?\b", text)]
            if said and slot not in ("volume_step", "domain"):
                slots[slot] = max(said, key=lambda option: (text.rfind(option), len(option)))
        kinds = self.properties[intent].get("domain", {}).get("enum", [])
        if "name" in places:
            slots.pop("device_class", None)
        elif slots.get("state") in ("locked", "unlocked"):
            slots = {"state": slots["state"], "domain": "lock"}
        elif "device_class" in slots:
            slots["domain"] = "cover"
        elif said := [kind for kind in kinds if kind in text.replace("lamp", "light")]:
            slots["domain"] = said[0]
        elif kinds == ["light"]:
            slots["domain"] = "light"
        return slots

    def _places(self, intent: str, text: str) -> Slots:
        """Look up names, areas and floors; one that is not known may stand after "in the" or "on the"."""
        found, rest = looked_up(self.values[intent], text)
        unknown = re.search(rf"\b(?:in|on|at|of|to|for|from|off) {THE}([a-z][a-z' ]+?)(?: (?:list|to|by|\d).*)?$", rest)
        slot = next((name for name in ("name", "area") if name in self.properties[intent]), None)
        if unknown and slot and not found and not NOT_PLACES.search(unknown[1]):
            found[slot] = unknown[1]
        return found

    def _timer(self, intent: str, text: str) -> Slots:
        start = re.search(rf"(?:{DURATIONS}) timer|timer for (?:{DURATIONS})", text)
        if intent == "HassStartTimer":
            slots = duration(text)
        else:
            slots = {f"start_{unit}": value for unit, value in duration(start[0] if start else "").items()}
            if "minutes" in self.properties[intent]:
                slots |= duration(text.replace(start[0], "") if start else text)
        bare = " ".join(re.sub(rf"\b(?:(?:in|after|by|for|to|from|off) )?{DURATIONS}", " ", text).split())
        if intent == "HassStartTimer" and "timer" not in text:
            return slots | {"conversation_command": bare}
        named = re.search(rf"timers? (?:named|called|for|in) {THE}(.+?)(?: (?:by|for|from|off))?$", bare)
        words = [word for word in re.sub(r" timers?\b.*", "", bare).split() if not NOT_NAMES.fullmatch(word)]
        name = named[1] if named else " ".join(words)
        if not name or (intent == "HassStartTimer" and not named):
            return slots
        area = name in self.values[intent] or "name" not in self.properties[intent]
        return slots | {"area" if area else "name": name}


# ---- measures --------------------------------------------------------------------------------------------------------


class Filler(Protocol):
    """What fills the slots of a named intent."""

    def fill(self, intent: str, text: str) -> Slots:
        """Return the slots that a sentence fills."""


def classifier(sentences: Sequence[Sentence]) -> Any:
    """Return a regression on tf-idf of character n-grams, trained to name the intent of a text."""
    made = make_pipeline(
        TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True),
        LogisticRegression(C=100, max_iter=300),  # C = 10 is half a point worse
    )
    return made.fit([sentence.text for sentence in sentences], [sentence.intent for sentence in sentences])


def wilson(right: int, total: int, z: float = 1.96) -> tuple[float, float]:
    """Return Wilson's interval of a share: https://doi.org/10.1080/01621459.1927.10502953."""
    share, spread = right / total, z * z / total
    middle = share + spread / 2
    half = z * math.sqrt(share * (1 - share) / total + spread / (4 * total))
    return (middle - half) / (1 + spread), (middle + half) / (1 + spread)


def measure(test: Sequence[Sentence], intents: Sequence[str], fillers: dict[str, Filler]) -> dict[str, int]:
    """Count the test sentences, those of several readings, right intents and exact calls.

    ``slots_*`` are exact calls where the rules are told the intent, ``own_*`` those of the sentence's own reading.
    """
    counts = dict.fromkeys(("sentences", "ambiguous", "intent"), 0)
    for sentence, intent in zip(test, intents, strict=True):
        allowed = readings(sentence)
        own = allowed[:1]
        found = {"sentences": True, "ambiguous": len(allowed) > 1, "intent": intent in {name for name, _ in allowed}}
        for name, rules in fillers.items():
            slots = rules.fill(intent, sentence.text)
            found[f"exact_{name}"] = is_right(intent, slots, allowed)
            found[f"own_{name}"] = is_right(intent, slots, own)
            found[f"slots_{name}"] = is_right(sentence.intent, rules.fill(sentence.intent, sentence.text), allowed)
        for key, value in found.items():
            counts[key] = counts.get(key, 0) + value
    return counts


def run(k: int) -> dict[str, dict[str, int]]:
    """Train on a split and measure it, with seen and unseen values."""
    train, held = split(k)
    model = classifier(generate(train, TRAIN_PER_TEMPLATE, TRAIN_SEED))
    fillers: dict[str, Filler] = {"short": ShortRules(train), "long": Rules(train)}
    found = {}
    for name, unseen in (("seen", False), ("unseen", True)):
        test = generate(held, TEST_PER_TEMPLATE, TEST_SEED, unseen)
        found[name] = measure(test, model.predict([sentence.text for sentence in test]), fillers)
    return found


def shown(name: str, counts: dict[str, int]) -> str:
    """Return a line of the table."""
    total = counts["sentences"]
    cells = [f"{name:<10}{total:>6}{counts['ambiguous'] / total:>8.1%}"]
    for key in ("intent", "exact_short", "exact_long"):
        low, high = wilson(counts[key], total)
        cells.append(f"{counts[key] / total:>7.1%} [{low:.1%}, {high:.1%}]")
    cells += [f"{counts[key] / total:>7.1%}" for key in ("own_short", "own_long", "slots_short", "slots_long")]
    return "  ".join(cells)


def main() -> None:
    """Measure every split and their sum."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the counts to this file")
    parser.add_argument("--splits", type=int, nargs="+", default=[0, 1, 2], choices=[0, 1, 2])
    arguments = parser.parse_args()
    print(f"{'values':<10}{'tested':>6}{'several':>8}", *(f"{title:<22}" for title in TITLES), sep="  ")
    results = {}
    for k in arguments.splits:
        results[str(k)] = run(k)
        for name, counts in results[str(k)].items():
            print(shown(f"{k} {name}", counts), flush=True)
    for name in ("seen", "unseen"):
        every = [result[name] for result in results.values()]
        print(shown(f"all {name}", {key: sum(one[key] for one in every) for key in every[0]}))
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
