"""Home Assistant's intents as tools: 42 functions with JSON Schemas, read from ``home_assistant_intents``.

    pip install home-assistant-intents hassil && python examples/home_assistant/tools.py

The package says which slots the sentences of an intent can fill, from which lists of values; descriptions are added
here. What a household calls its devices, rooms and lists is free text; a household's own tools have its names as the
``examples`` of these slots.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import home_assistant_intents
from hassil.expression import Group
from hassil.expression import Sentence as Expression
from hassil.intents import IntentData, Intents, RangeSlotList, TextSlotList

DATA = Path(home_assistant_intents.__file__).parent / "data" / "en.json"

INTENTS = {
    "HassBroadcast": "Say a message on every speaker of the home.",
    "HassCancelAllTimers": "Cancel all timers, of the home or of one area.",
    "HassCancelTimer": "Cancel one timer, named by its area, its name or the time it was set for.",
    "HassClimateGetTemperature": "Tell how warm it is, here, in an area or by a thermostat.",
    "HassClimateSetFanMode": "Set the fan mode of the heating or air conditioning.",
    "HassClimateSetTemperature": "Set the target temperature of the heating or air conditioning.",
    "HassDecreaseTimer": "Take time off a running timer.",
    "HassFanSetSpeed": "Set the speed of fans in percent.",
    "HassGetCurrentDate": "Tell today's date.",
    "HassGetCurrentTime": "Tell what time it is.",
    "HassGetState": "Tell the state of a device, or which, how many, any or all devices are in a state; "
    "who is, how many people are, or whether everyone is, at a place.",
    "HassGetWeather": "Tell the weather, at home or at a named place.",
    "HassIncreaseTimer": "Add time to a running timer.",
    "HassLawnMowerDock": "Stop mowing and send the lawn mower to its dock.",
    "HassLawnMowerStartMowing": "Start mowing the lawn.",
    "HassLightSet": "Dim or brighten lights: set their brightness in percent, their color or color temperature.",
    "HassListAddItem": "Add an item to a named to-do list.",
    "HassListCompleteItem": "Check an item off a named to-do list.",
    "HassListRemoveItem": "Delete an item from a named to-do list.",
    "HassMediaNext": "Skip to the next track.",
    "HassMediaPause": "Pause or stop the music, show or movie that plays.",
    "HassMediaPlayerMute": "Mute a media player.",
    "HassMediaPlayerUnmute": "Unmute a media player.",
    "HassMediaPrevious": "Go back to the previous track, or play it again.",
    "HassMediaSearchAndPlay": "Search for music, a show or a movie and play it.",
    "HassMediaUnpause": "Resume what was paused on a media player.",
    "HassNevermind": "Do nothing: the user took the request back.",
    "HassPauseTimer": "Pause a running timer.",
    "HassRespond": "Answer a greeting, as hi or hello, or a question about the assistant itself.",
    "HassSetPosition": "Set how far a cover or valve is open, in percent.",
    "HassSetVolume": "Set the volume to a level in percent.",
    "HassSetVolumeRelative": "Turn the volume up or down, by a step or by percent.",
    "HassShoppingListAddItem": "Add an item to the shopping list.",
    "HassShoppingListCompleteItem": "Check an item off the shopping list, or remove it.",
    "HassStartTimer": "Start a timer, or run a command after some time.",
    "HassTimerStatus": "Tell how much time is left on a timer.",
    "HassTurnOff": "Turn off, deactivate, close or unlock a device, or all of a kind.",
    "HassTurnOn": "Turn on, activate, open or lock a device, run a scene or script, or press a button.",
    "HassUnpauseTimer": "Resume a paused timer.",
    "HassVacuumCleanArea": "Let a vacuum clean an area.",
    "HassVacuumReturnToBase": "Send a vacuum back to its base.",
    "HassVacuumStart": "Start a vacuum, or clean a floor.",
}

SLOTS = {
    "area": "Area or room of the home, without an article.",
    "brightness": "Brightness in percent; 100 for max, maximum or highest, 1 for min, minimum or lowest.",
    "color": "Color of the light.",
    "conversation_command": "Command to run when the time is over, as the user says it.",
    "device_class": "Kind of cover.",
    "domain": "Kind of device; person for people.",
    "fan_mode": "Fan mode; auto for automatic.",
    "floor": "Floor of the home, without the word floor.",
    "hours": "Hours of the duration.",
    "item": "Item of the list, as the user says it.",
    "media_class": "Kind of media.",
    "message": "What to say, word for word.",
    "minutes": "Minutes of the duration; 30 for half an hour.",
    "name": "Name of the device, person, place, scene or script, without an article.",
    "percentage": "Speed in percent.",
    "position": "Position in percent.",
    "search_query": "Title, artist or genre to search for.",
    "seconds": "Seconds of the duration; 30 for half a minute.",
    "start_hours": "Hours that the timer was set for.",
    "start_minutes": "Minutes that the timer was set for.",
    "start_seconds": "Seconds that the timer was set for.",
    "state": "State that is asked for; closed for shut; of a person, the zone.",
    "temperature": "Target temperature in degrees.",
    "volume_level": "Volume in percent.",
    "volume_step": "Direction; up for increase, down for decrease; or change in percent, which is negative for down.",
}

SLOTS_OF_INTENTS = {  # where a slot means something else than elsewhere
    ("HassLightSet", "temperature"): (
        "In kelvin; 1900 for candle light, 2700 for warm white, 4000 for cold or cool white, "
        "6500 for daylight or day light."
    ),
    **{(intent, "name"): "Name of the list." for intent in INTENTS if intent.startswith("HassList")},
    **{(intent, "name"): "Name of the timer." for intent in INTENTS if intent.endswith("Timer")},
    ("HassTimerStatus", "name"): "Name of the timer.",
}


NAMED = ("area", "floor", "name", "zone")  # the lists whose values a household has, rather than a sentence


class Household(NamedTuple):
    """A list that a household fills: its name, and the domains of the devices where it is ``name``."""

    list_name: str
    domains: tuple[str, ...]


class Template(NamedTuple):
    """A sentence template: the intent that it belongs to, what the intent's data say of it, and its text."""

    intent: str
    data: IntentData
    expression: Expression


@lru_cache(maxsize=1)
def package() -> Intents:
    """Return the English intents of the package, parsed."""
    return Intents.from_dict(json.loads(DATA.read_text(encoding="utf-8")))


@lru_cache(maxsize=1)
def all_templates() -> tuple[Template, ...]:
    """Return the sentence templates, in the file's order."""
    return tuple(
        Template(name, data, sentence)
        for name, intent in package().intents.items()
        for data in intent.data
        for sentence in data.sentences
    )


def tools(household: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
    """Return the intents as tools: ``name``, ``description`` and ``parameters`` (JSON Schema).

    ``household`` has the names of areas, floors and devices (by domain), which become ``examples``.
    """
    made = []
    for intent in package().intents:
        of_intent = [one for one in all_templates() if one.intent == intent]
        filled = [set(names) for names in (dict(filled_by(one)) for one in of_intent)]
        sources: dict[str, list[Any]] = {}
        for name, source in (pair for one in of_intent for pair in filled_by(one)):
            sources.setdefault(name, []).append(source)
        parameters: dict[str, Any] = {
            "type": "object",
            "properties": {name: _schema(intent, name, sources[name], household) for name in sorted(sources)},
            "additionalProperties": False,
        }
        required = set.intersection(*filled)
        if required:
            parameters["required"] = sorted(required)
        least = min(map(len, filled))
        if least > len(required):
            parameters["minProperties"] = least
        beside = {
            name: sorted(set.intersection(*(one for one in filled if name in one)) - required - {name})
            for name in sorted(sources.keys() - required)
        }
        if dependent := {name: others for name, others in beside.items() if others}:
            parameters["dependentRequired"] = dependent
        made.append({"name": intent, "description": INTENTS[intent], "parameters": parameters})
    return made


def filled_by(template: Template) -> Iterator[tuple[str, Any]]:
    """Yield the slots that a template fills, each with its constant or its list, of the package or of a household."""
    yield from template.data.slots.items()
    lists = package().slot_lists
    expression = template.expression.expression
    if not isinstance(expression, Group):
        raise TypeError(f"expected a group, as every template of hassil is, got {type(expression).__name__}")
    for reference in expression.list_references(package().expansion_rules):
        domains = tuple((template.data.requires_context or {}).get("domain", ()))
        yield reference.slot_name, lists.get(reference.list_name) or Household(reference.list_name, domains)


def _schema(intent: str, name: str, sources: Iterable[Any], household: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return what the values of all sources have in common: an enum, a number with bounds, text, or one of these."""
    words: set[str] = set()
    numbers: list[float] = []
    halves = free = False
    known: dict[str, None] = {}
    for source in sources:
        if isinstance(source, str):
            words.add(source)
        elif isinstance(source, TextSlotList):
            outs = [value.value_out for value in source.values]
            words.update(out for out in outs if isinstance(out, str))
            numbers += [out for out in outs if not isinstance(out, str)]
        elif isinstance(source, RangeSlotList):
            numbers += [bound * int(source.multiplier or 1) for bound in (source.start, source.stop)]
            halves |= source.fraction_type is not None
        else:
            free = True
            known |= dict.fromkeys(_known(source, household) if isinstance(source, Household) and household else ())
    alternatives: list[dict[str, Any]] = []
    if words:
        alternatives.append({"type": "string", "enum": sorted(words)})
    if numbers:
        kind = "number" if halves else "integer"
        alternatives.append({"type": kind, "minimum": min(numbers), "maximum": max(numbers)})
    if free:
        alternatives.append({"type": "string", "examples": list(known)} if known else {"type": "string"})
    description = SLOTS_OF_INTENTS.get((intent, name), SLOTS[name])
    if len(alternatives) == 1:
        return {**alternatives[0], "description": description}
    return {"anyOf": alternatives, "description": description}


def _known(source: Household, household: Mapping[str, Any]) -> list[str]:
    """Return the names that a household has for a list."""
    names = household.get(source.list_name, []) if source.list_name in NAMED else []
    return [name for domain in source.domains for name in names[domain]] if isinstance(names, Mapping) else list(names)


if __name__ == "__main__":
    print(json.dumps(tools(), indent=2))
