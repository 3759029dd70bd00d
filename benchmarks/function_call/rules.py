"""Hand rules that fill the slots of a call from the query: the rival that a trained head must beat.

They choose among the same candidates as a head does, slot by slot: an option that the query mentions, a quoted text,
a date, a place or a name in capitals, numbers in their order, what stands beside the slot's name. The weights were set
by hand on BFCL's simple_python; no other set was looked at.
"""

from __future__ import annotations

import re
from typing import Any

from trm_edge.json_slots import JsonSlots, SlotInputs
from trm_edge.json_slots.candidates import Candidate
from trm_edge.json_slots.reading import CAPITALS
from trm_edge.json_slots.schema import MISSING, Array, Schema
from trm_edge.json_slots.slots import Slot
from trm_edge.json_slots.wording import STOP_WORDS, words_of

_PLACE = re.compile(r"\b(location|city|place|address|destination|origin|region|state|country|area|where)\b", re.I)
_CITY_STATE = re.compile(r"city,? ?(and |or )?\(?(state|country)|, [A-Z]{2}\b|San Francisco", re.I)
_RATE = re.compile(r"percent|rate|ratio|probab|fraction|share|decimal", re.I)
_DATES = (
    ("date", r"YYYY-MM-DD"),
    ("US date", r"MM[/-]DD[/-]YYYY"),
    ("European date", r"DD/MM/YYYY"),
    ("day first", r"DD-MM-YYYY"),
    ("time", r"\bHH:MM\b|24-hour"),
    ("date", r"\bdate\b|\bday\b"),
    ("time", r"\btime\b"),
)
_NUMBERS = {"words": 3.0, "number": 3.0, "number words": 1.0, "percent": 2.0, "part of a date": 1.0, "ordinal": 1.5}
THRESHOLD = 2.5  # points that a span needs in an optional slot
DRAFTED = 2.5  # points that a span needs where there is a draft


def rules_only(tool: Any, query: str) -> str | None:
    """Return the arguments that the rules make of a query, or None where they do not make valid ones."""
    bound = JsonSlots(tool).bind(query)
    return bound.decode(_choices(bound)).json


def grammar_and_rules(tool: Any, query: str, draft: str) -> str | None:
    """Return a draft's arguments, with the rules' values where the draft's do not stand in the query."""
    bound = JsonSlots(tool).bind(query, draft)
    return bound.decode(_choices(bound)).json


def _choices(bound: SlotInputs) -> list[int]:
    """Return a choice per slot: the best pairs of slot and candidate first, and no part of the query twice."""
    chosen = {i: int(j) for i, j in enumerate(bound.y0) if _stands(bound, int(j))}
    used = [_span(bound.candidates[j]) for j in chosen.values()]
    pairs = []
    for j, i in enumerate(bound.slot_of.tolist()):
        points = _points(bound.query, bound.slots[i], bound.candidates[j])
        pairs.append((-points, i, bound.candidates[j].start, j))
    for lost, i, _, j in sorted(pairs):
        start, end = _span(bound.candidates[j])
        overlaps = any(start < stop and begin < end for begin, stop in used)
        if i in chosen or (overlaps and end > 0):
            continue
        drafted = int(bound.y0[i])
        chosen[i] = drafted if drafted >= 0 and -lost < DRAFTED else j
        used.append((start, end))
    return [chosen.get(i, int(bound.y0[i])) for i in range(len(bound.slots))]


def _span(candidate: Candidate) -> tuple[int, int]:
    return candidate.start, candidate.end


def _stands(bound: SlotInputs, drafted: int) -> bool:
    """Whether a drafted value stands in the query, every part of it."""
    if drafted < 0 or bound.candidates[drafted].value is MISSING:
        return False
    value = bound.candidates[drafted].value
    parts = value if isinstance(value, list) else [value]
    return bool(parts) and all(_mentioned(str(part).removesuffix(".0"), bound.query) for part in parts)


def _points(query: str, slot: Slot, candidate: Candidate) -> float:
    """Return how well a candidate fits a slot, by hand: the highest is taken."""
    value, source = candidate.value, candidate.source
    name = words_of(str(next((part for part in reversed(slot.path) if isinstance(part, str)), "")))
    about = f"{name} {slot.schema.description}"
    if source == "omit":
        return THRESHOLD
    if source in ("option", "default", "literal", "mentioned"):
        if isinstance(value, bool):
            return (3.0 if value else 0.5) if _all_words(name, query) else 0.2 + 0.1 * (value is slot.schema.default)
        text = value if isinstance(value, str) else ""
        if source != "default" and text and _mentioned(text.replace("_", " "), query):
            return 5.0 + 0.01 * len(text)
        if source == "option" and text and _all_words(words_of(text), query):
            return 4.0
        return {"default": 0.4, "option": 0.1, "literal": 0.0, "mentioned": 3.0}[source]
    if source != "span":
        return 0.15
    points = _span_points(query, slot.schema, about, candidate) + _nearness(query, name, about, candidate)
    return points - (1.0 if slot.optional else 0.0)


def _nearness(query: str, name: str, about: str, candidate: Candidate) -> float:
    """Return points for what is said about the slot beside a span, in front of it up to the last number or comma."""
    clause = re.split(r"\d|[,;:](?= |$)|\band\b", query[: candidate.start].rstrip(" =:'\"($"))[-1]
    before, behind = _stems(clause)[-6:], _stems(re.split(r"[,;.] |\d", query[candidate.end :])[0])[:2]
    names = set(_stems(name)) - STOP_WORDS
    described = set(_stems(about)) - STOP_WORDS
    points = 1.5 * bool(names & {*before[-2:]}) + 0.5 * bool(names & {*before}) + 0.8 * bool(names & {*behind})
    points += 0.3 * bool(described & {*before[-2:]}) + 0.4 * bool(described & {*behind[:1]})
    near = (before or [""])[-1]
    where = {"from": r"origin|start|from|depart", "to": r"dest|end|to\b|arriv"}.get(near, "")
    points += 0.6 * bool(where and re.search(where, name)) + 0.3 * (near in ("in", "near", "at") and _is_place(about))
    return points


def _span_points(query: str, schema: Schema, about: str, candidate: Candidate) -> float:
    """Return the points of a span by its operator and the slot's type."""
    value, operator = candidate.value, candidate.operator
    if isinstance(schema, Array):
        if not isinstance(value, list) or len(value) < 2:
            return 0.5 + 0.5 * _is_run(query, candidate) + 0.5 * (operator in _NUMBERS)
        text = query[candidate.start : candidate.end]
        alike = re.fullmatch(r"[-\d.,\s$%]+", text) or all(re.fullmatch(CAPITALS, str(part)) for part in value)
        return (2.5 if alike else 1.0) + (operator in ("list", "all numbers", "all names")) + 0.05 * len(value)
    if isinstance(value, (int, float)):
        rate = 2.0 if operator == "percent" and _RATE.search(about) and "percent" not in about.lower() else 0.0
        return _NUMBERS.get(operator, 0.0) + rate + 0.02 * (candidate.end - candidate.start)
    if operator == "quoted":
        return 4.0
    if operator in ("place", "city"):
        return 4.0 if _is_place(about) and _CITY_STATE.search(about) else 0.5
    wanted = next((one for one, pattern in _DATES if re.search(pattern, about)), None)
    if operator == wanted:
        return 4.0
    if operator != "words":
        return 0.05
    if _is_run(query, candidate):
        return 3.0 + 0.3 * _is_place(about) - 0.5 * bool(wanted)
    lone = set(re.findall(r"\w+", str(value).lower())).isdisjoint(STOP_WORDS) and candidate.start > 0
    after = query[: candidate.start].rstrip().rpartition(" ")[2].lower() in STOP_WORDS
    return 0.3 * lone + 0.3 * (lone and after) + 0.001 * candidate.start / len(query) + 0.01


def _is_run(query: str, candidate: Candidate) -> bool:
    """Whether a span is a run of words in capitals, as long as it goes; the first word of a query is none."""
    return any(
        match.span() == (candidate.start, candidate.end) for match in CAPITALS.finditer(query, len(query.split(" ")[0]))
    )


def _is_place(about: str) -> bool:
    return _PLACE.search(about) is not None


def _mentioned(text: str, query: str) -> bool:
    return bool(text) and re.search(rf"(?<!\w){re.escape(text)}(?!\w)", query, re.I) is not None


def _all_words(name: str, query: str) -> bool:
    stems = set(_stems(query))
    words = [word for word in _stems(name) if word not in STOP_WORDS and word not in ("include", "get", "is", "has")]
    return bool(words) and all(word in stems for word in words)


def _stems(text: str) -> list[str]:
    return [word[:5] if len(word) > 5 else word.rstrip("s") for word in re.findall(r"[a-z]+", text.lower())]
