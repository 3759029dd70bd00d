"""Rules written by hand that fill the slots of a named Home Assistant intent: the rival of a head that learned to.

They know the words of the training templates, the package's lists and the common values of the pools. What is left of a
sentence when all of that is gone is taken for a name, an area or a floor by the words around it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any

from hassil.expression import Expression, Group, ListReference, RuleReference, TextChunk
from hassil.intents import TextSlotList
from hassil.numbers import get_rbnf_engine
from hassil.sample import sample_expression
from sentences import pools
from tools import Template, all_templates, package, tools

Slots = dict[str, Any]

THE = r"(?:(?:the|my|our) )*"
PLACE = r"(?:in|on|at|of|across|around|throughout|for|with)"
DURATION = r"(?:\d+|half|1/2) (?:and )?(?:an? )?(?:(?:half|1/2) )?(?:hour|minute|second)s?"
DURATIONS = rf"{DURATION}(?: (?:and )?{DURATION})*"
UNITS = ("hours", "minutes", "seconds")
NUMBERS = ("percentage", "position", "volume_level", "temperature", "brightness")
PEOPLE = re.compile(r"(?:is (?:any|some|every)(?:one|body)|who is|how many (?:people|persons) are) ")
SEVERAL = re.compile(rf"(?:(?:is|are) )?(?:there )?{THE}(?:any|some|all|every|each|which|what|how many)\b")
VERB = re.compile(r"^(?:open|raise|lift|close|shut|lower)(?: up| down)?\b(?! floor)")
ASKED = re.compile(
    rf"(?:where(?: i|')?s|where can i find|do you know|tell me|what(?: i|')?s|how(?: i|')?s)"
    rf"(?: (?:the )?(?:current )?(?:state|value) of)? {THE}"
)


class Rules:
    """Fills slots by hand-written rules.

    Parameters
    ----------
    templates
        The numbers of the training templates.
    """

    def __init__(self, templates: Iterable[int]) -> None:
        self.properties = {tool["name"]: set(tool["parameters"]["properties"]) for tool in tools()}
        own: dict[str, list[Template]] = {}
        for number in templates:
            own.setdefault(all_templates()[number].intent, []).append(all_templates()[number])
        self.known = {intent: _vocabulary(some) for intent, some in own.items()}
        self.options = {intent: _options(some) for intent, some in own.items()}
        self.values = {intent: _values(some, self.properties[intent]) for intent, some in own.items()}

    def fill(self, intent: str, text: str) -> Slots:
        """Return the slots of an intent that a sentence fills."""
        raw = re.sub(r"^please | please$", "", text.lower().rstrip(".?"))
        plain = re.sub(r"(?<=\d)[ -]*(?=%|°|k\b|percent|hour|minute|second)", " ", digits(raw))
        plain = re.sub(r"\bday light\b", "daylight", plain)
        if intent.endswith(("Timer", "Timers", "TimerStatus")):
            slots = self._timer(intent, raw, plain)
            return {slot: value for slot, value in slots.items() if slot in self.properties[intent]}
        if "List" in intent:
            return _list_item(intent, raw)
        if intent == "HassBroadcast":
            return {"message": re.sub(r"^(?:broadcast|announce) (?:everywhere )?(?:that )?", "", raw)}
        if intent == "HassMediaSearchAndPlay":
            return self._search(raw)
        if intent == "HassGetState":
            return self._state(raw, plain)
        slots = self._enums(intent, plain)
        slots |= self._entities(intent, plain, "device_class" in slots)
        if "name" in slots:
            slots.pop("device_class", None)
        return slots

    # ---- enums and numbers -------------------------------------------------------------------------------------------

    def _enums(self, intent: str, text: str) -> Slots:
        """Return what the words of the package's lists and the numbers say."""
        slots: Slots = {}
        for slot, words in self.options[intent].items():
            said = [(m.end(), len(word), word) for word in words for m in re.finditer(rf"\b{word}\b", text)]
            if said:
                slots[slot] = words[max(said)[2]]
        number = re.search(r"\d+(?:\.5)?", text)
        value = (float(number[0]) if "." in number[0] else int(number[0])) if number else None
        properties = self.properties[intent]
        if "volume_step" in properties:
            down = re.search(r"\b(?:down|decrease)\b", text)
            slots["volume_step"] = ("down" if down else "up") if value is None else -value if down else value
        elif value is not None and properties & {*NUMBERS}:
            warmth = intent == "HassLightSet" and re.search(r"\b(?:temperature|kelvin|k)\b", text)
            slots["temperature" if warmth else next(slot for slot in NUMBERS[::-1] if slot in properties)] = value
        if intent == "HassLightSet" and "temperature" in slots:
            slots.pop("color", None)
        return slots

    # ---- places and names --------------------------------------------------------------------------------------------

    def _entities(self, intent: str, text: str, of_class: bool) -> Slots:
        """Look up names, areas and floors, then take what is left over; say the domain where there is no name."""
        text = re.sub(r"\btv shows?\b", "show", text) if "Media" in intent else text
        found, rest = looked_up(self.values[intent], VERB.sub("|", text) if of_class else text)
        if of_class and found.get("name") in _words("cover_classes"):
            del found["name"]
        for left in _left_over(rest, self.known[intent]):
            slot = self._slot_of(intent, rest, left, of_class)
            if slot and slot not in found and not (slot != "name" and {"area", "floor"} & found.keys()):
                found[slot] = left
        if "domain" not in self.properties[intent] or "name" in found:
            return found
        if of_class:
            return found | {"domain": "cover"}
        fan = intent != "HassLightSet" and re.search(r"\bfans?\b", text)
        return found | {"domain": "fan" if fan else "light"}

    def _slot_of(self, intent: str, text: str, left: str, of_class: bool) -> str | None:
        slots = self.properties[intent]
        if "floor" in slots and re.search(rf"{re.escape(left)} floor\b", text):
            return "floor"
        group = of_class or re.search(r"\b(?:lights?|lamps?|lighting|fans?)\b", text)
        if "area" in slots and (group or "name" not in slots or re.search(rf"\b{PLACE} {THE}{re.escape(left)}", text)):
            return "area"
        return "name" if "name" in slots else None

    # ---- states ------------------------------------------------------------------------------------------------------

    def _state(self, raw: str, text: str) -> Slots:
        zone = rf"(?:{PLACE} )?{THE}"
        if people := PEOPLE.match(text):
            return {"domain": "person", "state": re.sub(rf"^{zone}", "", raw[people.end() :])}
        several = SEVERAL.match(text)
        asked = ASKED.match(text)
        values = self.values["HassGetState"]
        if several:
            values = {value: slot for value, slot in values.items() if slot != "name"}
        rest = text if several else re.sub(rf"^(?:is|are) (?:there )?{THE}", "", text)
        found, rest = looked_up(values, rest)
        names = pools("common")["name"]
        name = found.get("name")
        if asked and not (several and self._group(text, None)):
            return {"name": text[asked.end() :]}
        if name in names["person"]:
            return {"name": name, "state": re.sub(rf"^{zone}", "", raw.split(name, 1)[1].strip())}
        sensor = name in names["binary_sensor"] and name not in names["cover"] + names["lock"]
        lists = (
            ("bs_open_states", "bs_occupancy_states") if sensor else ("cover_states", "lock_states", "on_off_states")
        )
        words = _words(*lists)
        said = [(m.start(), m[0]) for m in re.finditer(rf"\b(?:{'|'.join(words)})\b", rest)]
        said = [one for one in said if not re.match(rf"on {THE}\S", rest[one[0] :])] or said
        if said:
            found["state"] = words[said[-1][1]]
        if several:
            return found | self._group(rest, found.get("state"))
        if name is None and said:
            found["name"] = rest[: said[-1][0]].removesuffix("securely ").strip()
        return found

    def _group(self, text: str, state: str | None) -> Slots:
        """Return the kind of the devices that are asked for."""
        if state in ("locked", "unlocked"):
            return {"domain": "lock"}
        for word, domain in (("light", "light"), ("lamp", "light"), ("fan", "fan"), ("switch", "switch")):
            if re.search(rf"\b{word}(?:s|es|ing)?\b", text):
                return {"domain": domain}
        words = _words("cover_classes")
        classes = sorted((word for word in words if re.search(rf"\b{word}\b", text)), key=len)
        return {"domain": "cover", "device_class": words[classes[-1]]} if classes else {}

    # ---- timers, media, lists ----------------------------------------------------------------------------------------

    def _timer(self, intent: str, raw: str, text: str) -> Slots:
        slots: Slots = {}
        start = re.search(rf"({DURATIONS}) timer|timer for ({DURATIONS})", text)
        if intent == "HassStartTimer":
            if not re.search(r"\btimer\b", text):
                return duration(text) | {"conversation_command": _command(raw)}
            slots = duration(text)
        else:
            if intent in ("HassIncreaseTimer", "HassDecreaseTimer"):
                slots = duration(text[: start.start()] + text[start.end() :] if start else text)
            slots |= {f"start_{unit}": value for unit, value in duration(start[0] if start else "").items()}
        bare = " ".join(re.sub(rf"\b(?:(?:in|after|by|for) )?(?:an? )?{DURATIONS}", " ", text).split())
        places = rf"timers? (?:in|on) {THE}(.+?)(?: (?:by|for))?$"
        if named := re.search(r"timer (?:named|called|for) (.+?)(?: (?:by|for|from|off))?$", bare):
            return slots | {"name": named[1]}
        if placed := re.search(places, bare):
            return slots | {"area": placed[1]}
        known = self.known[intent] | {"by", "to", "from", "off", "timer", "timers"}
        left = next(_left_over(bare, known), None)
        if left and intent != "HassStartTimer":
            area = left in pools("common")["area"] or intent == "HassCancelAllTimers"
            slots["area" if area else "name"] = left
        return slots

    def _search(self, raw: str) -> Slots:
        slots: Slots = {}
        rest = raw.removeprefix("play ")
        words = _words("media_class")
        kinds = "|".join(sorted(words, key=len, reverse=True))
        for slot, word in (("area", "in"), ("name", "on")):
            if placed := re.search(rf" {word} {THE}((?:(?! in ).)+)$", rest):
                slots[slot] = placed[1]
                rest = rest[: placed.start()]
        if kind := re.match(rf"(?:the )?({kinds}) (?=.)", rest) or re.search(rf" ({kinds})$", rest):
            slots["media_class"] = words[kind[1]]
            rest = (rest[: kind.start()] + rest[kind.end() :]).strip()
        return {**slots, "search_query": rest}


def _list_item(intent: str, raw: str) -> Slots:
    adds = "Add" in intent
    verb = "(?:add|put)" if adds else "(?:check off|check|complete off|complete|delete off|delete|remove off|remove)"
    joint = "(?:to|on|in)" if adds else "(?:off|from|on|in)"
    found = re.match(rf"{verb} (.+) {joint} (?:my |the )?(.*?)(?: ?\blist)?$", raw)
    if not found:
        return {}
    item = found[1].removesuffix(" off")
    return {"item": item} if "Shopping" in intent else {"item": item, "name": found[2]}


def duration(text: str) -> Slots:
    """Return the hours, minutes and seconds that a text names, half ones as 30 of the next unit."""
    found: Slots = {}
    for number, half, unit in re.findall(
        r"(\d+|half|1/2) (and (?:a )?(?:half|1/2) |an? )?(hour|minute|second)s?", text
    ):
        index = UNITS.index(f"{unit}s")
        if number in ("half", "1/2"):
            found[UNITS[index + 1]] = 30
        else:
            found[UNITS[index]] = int(number)
            found |= {UNITS[index + 1]: 30} if half.startswith("and") else {}
    return found


def _command(raw: str) -> str:
    """Return a command without the duration that comes before or after it."""
    number = rf"(?:[\d./]+|half|and|an?|{'|'.join(sorted(set(' '.join(_number_words()).split())))})"
    one = rf"{number}(?: {number})*[ -](?:hour|minute|second)s?"
    return re.sub(rf"^(?:in|after) {one}(?: {one})* | (?:in|after) {one}(?: {one})*$", "", raw)


def looked_up(values: Mapping[str, str], text: str) -> tuple[Slots, str]:
    """Return the slots of the values that a text has, the longest first, and the text with | in their places."""
    found: Slots = {}
    spelled = {**values, **{f"{value} floor": slot for value, slot in values.items() if slot == "floor"}}
    for value in sorted(spelled, key=len, reverse=True):
        slot = spelled[value]
        if slot in found or (slot != "name" and {"area", "floor"} & found.keys()):
            continue
        pattern = rf"\b{re.escape(value)}\b" + (r"(?! doors?\b)" if value == "garage" else "")
        if re.search(pattern, text):
            found[slot] = value.removesuffix(" floor") if slot == "floor" else value
            text = re.sub(pattern, "|", text, count=1)
    return found, text


def _left_over(text: str, known: set[str]) -> Iterator[str]:
    """Yield the runs of words that are neither known nor numbers."""
    run: list[str] = []
    for word in [*text.split(), "|"]:
        if word == "|" or word in known or re.fullmatch(r"[\d.%°]+", word):
            if run:
                yield " ".join(run)
            run = []
        else:
            run.append(word)


# ---- what is known ---------------------------------------------------------------------------------------------------


def _vocabulary(templates: Iterable[Template]) -> set[str]:
    words = {word for template in templates for word in _literals(template.expression.expression)}
    return words | {f"{word}{end}" for word in words for end in ("s", "es")} | {"percent", "degrees", "k", "kelvin"}


def _literals(expression: Expression) -> Iterator[str]:
    if isinstance(expression, TextChunk):
        yield from re.findall(r"[\w']+", expression.original_text.lower())
    elif isinstance(expression, RuleReference):
        yield from _literals(package().expansion_rules[expression.rule_name].expression)
    elif isinstance(expression, Group):
        for item in expression.items:
            yield from _literals(item)
    elif isinstance(expression, ListReference):
        yield from (word for text in _words(expression.list_name) for word in text.split())


def _options(templates: Iterable[Template]) -> dict[str, dict[str, Any]]:
    """Return by slot the words of the package's lists and what they stand for."""
    found: dict[str, dict[str, Any]] = {}
    for template in templates:
        expression = template.expression.expression
        if isinstance(expression, Group):
            for reference in expression.list_references(package().expansion_rules):
                if words := _words(reference.list_name):
                    found.setdefault(reference.slot_name, {}).update(words)
    return found


@lru_cache(maxsize=64)
def _words(*lists: str) -> dict[str, Any]:
    return {
        text.strip(): value.value_out
        for values in (package().slot_lists.get(name) for name in lists)
        if isinstance(values, TextSlotList)
        for value in values.values
        for text in sample_expression(value.text_in)
    }


def _values(templates: Iterable[Template], properties: set[str]) -> dict[str, str]:
    """Return the common values of the pools that an intent may mention, and their slots."""
    common = pools("common")
    domains = {domain for one in templates for domain in (one.data.requires_context or {}).get("domain", [])}
    names = [name for domain in sorted(domains) for name in common["name"][domain]]
    offered = {"floor": common["floor"], "area": common["area"], "name": names}
    return {value: slot for slot, values in offered.items() if slot in properties for value in values}


@lru_cache(maxsize=1)
def _number_words() -> dict[str, int]:
    engine = get_rbnf_engine("en")
    return {engine.format_number(n).text.replace("-", " "): n for n in (*range(101), *range(1000, 10001, 100))}


@lru_cache(maxsize=1)
def _number_pattern() -> re.Pattern[str]:
    return re.compile(rf"\b({'|'.join(sorted(_number_words(), key=len, reverse=True))})\b")


def digits(text: str) -> str:
    """Return a text with its number words as digits."""
    return _number_pattern().sub(lambda found: str(_number_words()[found[0]]), text)
