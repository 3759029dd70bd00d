"""Real examples with other values: what an answer has and a query says is replaced in both.

A value is replaced only where that is clean: the query says it once (a text at most twice, for one argument), nothing
else is read from the same words, and no argument is implied by something that is replaced ("London" for the country
"UK"). A new value is of the old one's kind: another option, a text of the same pool or of the same property elsewhere,
a code of the same pattern, a number of like size, a day or a time written in the same style.
"""

from __future__ import annotations

import copy
import random
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from function_call.bfcl import Example, fits
from function_call.kinds import words_of
from function_call.replacements import (
    DATES,
    TIMES,
    Leaf,
    Others,
    Place,
    Stay,
    is_vague,
    property_key,
    read_day,
    replaced,
)
from function_call.values import Rng
from trm_edge.json_slots import SchemaError, Tool, compile_tool
from trm_edge.json_slots.drafts import read_json
from trm_edge.json_slots.operators import Span, find_spans
from trm_edge.json_slots.schema import MISSING, Array, Choice, Object, Scalar
from trm_edge.json_slots.text import dumps
from trm_edge.json_slots.validation import violation

KEPT = 0.25  # share of the values that could be replaced and are not
TRIES = 4
_NUMBERS = ("number", "percent", "number words")
_ORDERED = re.compile(r"start|end|min|max|lower|upper|initial|final|from|to\b|begin|low|high")
_DAY_NAMES = re.compile(r"\b(mon|tues|wednes|thurs|fri|satur|sun)day\b|\btoday\b|\btomorrow\b", re.I)


def substituted(example: Example, seed: int, others: Others | None = None) -> Example | None:
    """Return an example with other values, or None where none of its values can be replaced cleanly.

    Parameters
    ----------
    example
        A real one; its identity gets the seed at its end.
    seed
        Other seeds make other variants.
    others
        What ``texts_of`` gives for the examples that may be drawn from.
    """
    try:
        tool = _compiled(example.tool)
    except (SchemaError, StopIteration):
        return None
    spans = list(find_spans(example.query))
    for attempt in range(TRIES):
        rng = random.Random(f"{seed} {attempt} {example.identity} {example.query}")
        made = _variant(example, tool, spans, rng, others or {})
        if made is not None:
            return replace(made, identity=f"{example.identity}~{seed}")
    return None


def variants(example: Example, count: int, seed: int = 0, others: Others | None = None) -> list[Example]:
    """Return up to ``count`` different variants of an example."""
    found = {example.query: example}
    for i in range(2 * count):
        one = substituted(example, 1000 * seed + i, others) if len(found) <= count else None
        if one is not None:
            found.setdefault(one.query, one)
    return list(found.values())[1:]


def texts_of(examples: Iterable[Example]) -> dict[str, list[str]]:
    """Return the texts that queries say as they are in the answers, by what the property is."""
    found: dict[str, dict[str, None]] = {}
    for example in examples:
        properties = example.tool["parameters"].get("properties", {})
        for name, values in example.answer.items():
            for value in values[:1]:
                if isinstance(value, str) and 0 < len(value.split()) <= 5 and _verbatim(example.query, value):
                    about = str(properties.get(name, {}).get("description", ""))
                    found.setdefault(property_key(example.name, name, about), {})[value] = None
    return {name: list(texts) for name, texts in found.items()}


def redrafted(arguments: str, changes: Sequence[tuple[Any, Any]]) -> str:
    """Return drafted arguments as they would be for a variant, so that it is right and wrong where the draft was."""
    value, _ = read_json(arguments) if changes else (MISSING, False)
    resay = resaying(changes)

    def changed(part: Any) -> Any:
        if isinstance(part, dict):
            return {name: changed(inner) for name, inner in part.items()}
        whole = next((new for old, new in changes if type(old) is type(part) and old == part), MISSING)
        if whole is not MISSING:
            return whole
        if isinstance(part, list):
            return [changed(inner) for inner in part]
        return resay(part) if isinstance(part, str) else part

    return arguments if value is MISSING else dumps(changed(value))


def resaying(changes: Sequence[tuple[Any, Any]]) -> Callable[[str], str]:
    """Return what puts the texts of a variant in place of the example's."""
    texts = {old.lower(): new for old, new in changes if isinstance(old, str) and old and isinstance(new, str)}
    if not texts:
        return lambda text: text
    said = re.compile("|".join(map(re.escape, sorted(texts, key=len, reverse=True))), re.I)
    return lambda text: said.sub(lambda match: texts[match.group().lower()], text)


_tools: dict[int, tuple[Any, Tool]] = {}


def _compiled(tool: dict[str, Any]) -> Tool:
    known = _tools.get(id(tool))
    if known is None or known[0] is not tool:
        known = _tools[id(tool)] = (tool, compile_tool(tool))
    return known[1]


class Change(NamedTuple):
    """A new value for a leaf, and the texts that say it in its places."""

    leaf: Leaf
    value: Any
    texts: list[str]


# ---- what a query says -----------------------------------------------------------------------------------------------


def _variant(example: Example, tool: Tool, spans: list[Span], rng: Rng, others: Others) -> Example | None:
    answer = copy.deepcopy(example.answer)
    leaves = list(_leaves(tool.arguments, answer, example.name))
    for leaf in leaves:
        _place(leaf, example.query, spans)
        if _DAY_NAMES.search(example.query) and any(read_day(str(place.value)) for place in leaf.places):
            leaf.places = []  # another day would have another name
    _drop_shared(leaves)
    changed = _drawn(leaves, rng, others)
    if not changed or not _keeps_order(changed):
        return None
    edits = [edit for leaf, _, texts in changed for edit in zip(leaf.places, texts, strict=True)]
    values = [(leaf.value, value) for leaf, value, _ in changed]
    query = _edited(example.query, edits)
    read = list(find_spans(query))
    for leaf, value, _ in changed:
        if violation(leaf.schema, value) is not None:
            return None
        leaf.values[:], leaf.value = [value], value
    if not all(_is_said(leaf, query, read) for leaf in leaves if leaf.places):
        return None
    changes = (*values, *((place.text, text) for place, text in edits))
    return replace(example, query=query, answer=answer, changes=changes)


def _drawn(leaves: list[Leaf], rng: Rng, others: Others) -> list[Change]:
    """Return new values for some of the leaves; none where only some of several days would move."""
    days = [leaf for leaf in leaves if any(read_day(str(place.value)) for place in leaf.places)]
    dated = all(str(day.year) in place.text for leaf in days for place in leaf.places if (day := read_day(place.value)))
    implied = [leaf for leaf in leaves if not leaf.places and _is_implied(leaf)]
    stay = Stay(
        texts=any(isinstance(leaf.value, (str, list)) for leaf in implied),
        numbers=any(isinstance(leaf.value, (int, float)) for leaf in implied),
        shift=rng.choice((-1, 1)) * rng.randrange(2, 300 if dated else 25),
    )
    days_stay = rng.random() < KEPT
    changed: list[Change] = []
    for leaf in leaves:
        stays = days_stay if leaf in days else rng.random() < KEPT
        made = replaced(leaf, stay, rng, others) if leaf.places and not stays else None
        if made is not None:
            changed.append(Change(leaf, *made))
    if sum(change.leaf in days for change in changed) not in (0, len(days)):
        return []
    if any(isinstance(change.value, str) for change in changed):
        _leave_out_implied(leaves)
    return changed


def _leave_out_implied(leaves: list[Leaf]) -> None:
    """Take from what may be left out the values that a query implied, and no longer does."""
    for leaf in leaves:
        usual = not isinstance(leaf.value, str) or is_vague(leaf.value) or fits(leaf.value, leaf.schema.default)
        if not leaf.places and leaf.optional and "" in leaf.values and not usual:
            leaf.values[:] = [""]


def _leaves(schema: Object, answer: dict[str, Any], function: str) -> Iterator[Leaf]:
    """Yield the arguments of an answer; within objects their parts, of the first object that is right."""
    for name, inner in schema.properties.items():
        values = answer.get(name)
        if not isinstance(values, list):
            continue
        first = next((value for value in values if value != ""), "")
        if isinstance(inner, Object) and isinstance(first, dict):
            values[:] = [first]
            yield from _leaves(inner, first, function)
        elif isinstance(inner, Array) and isinstance(inner.items, Object) and isinstance(first, list):
            values[:] = [first]
            for part in first:
                if isinstance(part, dict):
                    yield from _leaves(inner.items, part, function)
        elif isinstance(inner, (Scalar, Choice, Array)):
            yield Leaf(name, function, inner, values, name not in schema.required, [])


def _place(leaf: Leaf, query: str, spans: list[Span]) -> None:
    """Find where a query says one of the right values of a leaf."""
    leaf.value = next((one for one in leaf.values if one not in ("", None)), None)
    for value in _longest_said(leaf.values, query):
        if isinstance(value, list):
            found = [_places_of(item, query, spans) for item in value]
            places = [one[0] for one in found if len(one) == 1]
            whole = len(places) == len(value) > 0
        else:
            places = _places_of(value, query, spans)
            whole = 0 < len(places) <= (2 if isinstance(value, str) else 1)
        if whole:
            leaf.places, leaf.value = places, value
            return


def _longest_said(values: list[Any], query: str) -> list[Any]:
    """Return right values: days, then the longest of the texts that the query has as they are, then in their order."""
    stated = [value for value in values if value not in ("", None) and not isinstance(value, bool)]
    days = [value for value in stated if isinstance(value, str) and read_day(value)]
    said = [value for value in stated if isinstance(value, str) and _verbatim(query, value) and not days]
    return [*days, *sorted(said, key=len, reverse=True), *stated]


def _places_of(value: Any, query: str, spans: list[Span]) -> list[Place]:
    if isinstance(value, str):
        found = _verbatim(query, value) or _verbatim(query, value.replace("_", " "))
        if found:
            return [Place(*span, query[slice(*span)], "words", value, _is_bound(query, *span)) for span in found]
        wanted = (*DATES, *TIMES, "place", "city", "currency")
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        wanted = _NUMBERS
    else:
        return []
    places = {
        (one.start, one.end): Place(
            one.start, one.end, query[one.start : one.end], one.operator, value, _is_bound(query, one.start, one.end)
        )
        for one in spans
        if one.operator in wanted and fits(value, one.value)
    }
    return _outermost(list(places.values())) if wanted is not _NUMBERS else list(places.values())


def _is_bound(query: str, start: int, end: int) -> bool:
    """Whether "the" stands before a name, or a comma and another name behind it."""
    return query[:start].lower().endswith("the ") or _OWNED.match(query, end) is not None


def _outermost(places: list[Place]) -> list[Place]:
    return [
        one for one in places if not any(o.start <= one.start and one.end <= o.end and o is not one for o in places)
    ]


_OWNED = re.compile(r",? [A-Z]{2}\b|, [A-Z][a-z]+")  # behind a place, the state or country that it is in


def _verbatim(query: str, text: str) -> list[tuple[int, int]]:
    pattern = rf"(?<![\w.]){re.escape(text)}(?!\w|[.,]\d)"
    return [match.span() for match in re.finditer(pattern, query, re.I)] if text.strip() else []


def _drop_shared(leaves: list[Leaf]) -> None:
    """Take the places from leaves whose words say something else too."""
    spans = [(place.start, place.end, leaf) for leaf in leaves for place in leaf.places]
    shared = {
        id(leaf)
        for start, end, leaf in spans
        for begin, stop, other in spans
        if (start < stop and begin < end) and (leaf is not other or (start, end) != (begin, stop))
    }
    for leaf in leaves:
        if id(leaf) in shared:
            leaf.places = []


def _is_implied(leaf: Leaf) -> bool:
    """Whether a query must imply an argument that it does not say: no option, no default, and not to be left out."""
    if leaf.value is None or "" in leaf.values or isinstance(leaf.value, bool):
        return False
    options = getattr(leaf.schema, "options", None)
    return options is None and not fits(leaf.value, leaf.schema.default)


def _is_said(leaf: Leaf, query: str, spans: list[Span]) -> bool:
    """Whether a query says the value of a leaf in as many places as it should."""
    items = leaf.value if isinstance(leaf.value, list) else [leaf.value]
    count = 1 if isinstance(leaf.value, list) else len(leaf.places)
    return all(len(_places_of(item, query, spans)) == count for item in items)


def _keeps_order(changed: list[Change]) -> bool:
    """Whether what begins and ends, or bounds, something still does so in order."""
    pairs = [
        (before, after)
        for leaf, before, after in ((change.leaf, change.leaf.value, change.value) for change in changed)
        if isinstance(after, (int, float)) and _ORDERED.search(words_of(leaf.name))
    ]
    return sorted(pairs) == sorted(pairs, key=lambda pair: (pair[1], pair[0]))


def _edited(query: str, edits: list[tuple[Place, str]]) -> str:
    for place, text in sorted(edits, key=lambda edit: -edit[0].start):
        before = query[: place.start]
        if re.search(r"\b[Aa]n? $", before) and text[:1].isalpha():
            article = "an" if text[:1].lower() in "aeio" else "a"
            before = re.sub(r"([Aa])n? $", lambda match, a=article: match.group(1) + a[1:] + " ", before)
        query = before + text + query[place.end :]
    return query
