"""Answers: a choice per slot becomes JSON, with what the draft has beside its slots."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import takewhile
from typing import Any

import numpy as np

from .candidates import Candidate
from .drafts import Draft
from .schema import MISSING, Missing, Object, Path, Schema
from .slots import Slot, at, elements_of, has_elements
from .text import Json
from .validation import violation

MAX_TRIES = 256  # joint choices that are looked at before the draft is taken, or nothing


def best_valid(
    first: list[int],
    mask: np.ndarray[Any, np.dtype[np.bool_]],
    logits: np.ndarray[Any, Any] | None,
    attempt: Callable[[list[int]], tuple[Json, Collection[int] | None]],
) -> tuple[Json, list[int]] | None:
    """Return the object of a valid joint choice, and the choice: ``first`` if it is valid, else the likeliest.

    It is a best-first search over joint choices, by the sum of their logits. The candidates of each slot are ranked; a
    choice that is not valid is followed by those that are one rank lower in one of the slots that are to blame, so that
    none is tried that would be wrong for the same reason.

    Parameters
    ----------
    first
        What is tried first, a candidate per slot, -1 for none.
    mask
        [S, M]: which candidates are whose.
    logits
        [S, M]; without them nothing but ``first`` is tried.
    attempt
        Makes the object of a joint choice, and says which slots are to blame, of which one at least has to change for
        it to be valid; None where it is valid.

    Returns
    -------
    tuple or None
        None where none of the first MAX_TRIES choices is valid.
    """
    value, blamed = attempt(first)
    if blamed is None:
        return value, first
    if logits is None:
        return None
    scores = np.where(mask & ~np.isnan(logits), logits, -np.inf).astype(np.float64)
    orders = [
        [int(j) for j in np.argsort(-row, kind="stable") if allowed[j]]
        for row, allowed in zip(scores, mask, strict=True)
    ]
    orders = [order or [-1] for order in orders]
    begin = (0,) * len(orders)
    heap: list[tuple[float, tuple[int, ...]]] = [(0.0, begin)]
    seen = {begin}
    for _ in range(MAX_TRIES):
        if not heap:
            break
        loss, ranks = heapq.heappop(heap)
        choice = [order[rank] for order, rank in zip(orders, ranks, strict=True)]
        value, blamed = attempt(choice)
        if blamed is None:
            return value, choice
        for i in blamed:
            rank = ranks[i]
            after = (*ranks[:i], rank + 1, *ranks[i + 1 :])
            if rank + 1 < len(orders[i]) and after not in seen:
                seen.add(after)
                step = scores[i, orders[i][rank]] - scores[i, orders[i][rank + 1]]
                heapq.heappush(heap, (loss + (float(step) if np.isfinite(step) else 1e9), after))
    return None


def concerned(arguments: Object, path: Path, slots: Sequence[Slot]) -> list[int]:
    """Return the slots that are to blame, of which one has to change, where a value is wrong at ``path``.

    They are those of that part; of an array of objects all, as those that are left out are not counted; of an object
    that may be left out, or null, all too, as it is there only because one of them was chosen.
    """
    part: Path = ()
    schema: Schema = arguments
    for name in takewhile(lambda name: isinstance(name, str), path):
        if not isinstance(schema, Object) or name not in schema.properties:
            break
        may_go = name not in schema.required
        schema, part = schema.properties[str(name)], (*part, name)
        if isinstance(schema, Object) and (may_go or schema.nullable):
            break
    return [i for i, slot in enumerate(slots) if slot.path[: len(part)] == part]


def misplaced(schema: Schema, was: Json | Missing, path: Path = ()) -> Iterator[Path]:
    """Yield where a draft has something else than the object or the array of objects that belongs there."""
    if isinstance(schema, Object) and isinstance(was, Mapping):
        for name, inner in schema.properties.items():
            yield from misplaced(inner, at(was, (name,)), (*path, name))
    elif has_elements(schema) and isinstance(was, list):
        for i, element in enumerate(was):
            yield from misplaced(schema.items, element, (*path, i))
    elif (isinstance(schema, Object) or has_elements(schema)) and says_anything(was):
        yield path


def says_anything(value: Json | Missing) -> bool:
    """Whether a value is, or has within, a number, a truth value or a text that is not empty."""
    if isinstance(value, (Mapping, list)):
        return any(map(says_anything, value.values() if isinstance(value, Mapping) else value))
    return value is not MISSING and value not in (None, "")


def assembled(
    arguments: Object, draft: Draft, slots: Sequence[Slot], candidates: Sequence[Candidate], choice: Sequence[int]
) -> Json:
    """Return the draft's value with every slot set to its choice; names that the schema does not know are kept."""
    chosen: dict[Path, Json] = {}
    for slot, index in zip(slots, choice, strict=True):
        value = candidates[index].value if index >= 0 else at(draft.value, slot.path)
        if value is not MISSING and (index >= 0 or violation(slot.schema, value) is None):
            chosen[slot.path] = value
    made = _built(arguments, (), draft.value, chosen)
    return _built(arguments, (), {}, {}) if made is MISSING or made is None else made


def _built(schema: Schema, path: Path, was: Json | Missing, chosen: Mapping[Path, Json]) -> Json | Missing:
    """Return what stands at a path, where the draft has ``was``; MISSING where nothing within is chosen.

    Then too it stays where the draft has it empty, and is null where the draft has null. What an object must have is
    there, empty, or null where it may be.
    """
    part: Json
    if isinstance(schema, Object):
        drafted = was if isinstance(was, Mapping) else {}
        part = {}
        for name in dict.fromkeys([*drafted, *schema.properties]):
            inner = schema.properties.get(name)
            if inner is not None:
                value = _built(inner, (*path, name), at(drafted, (name,)), chosen)
            else:
                value = MISSING if schema.closed else drafted[name]
            if value is not MISSING:
                part[name] = value
    elif has_elements(schema):
        elements = (_built(schema.items, (*path, i), at(was, (i,)), chosen) for i in range(elements_of(schema, was)))
        part = [element for element in elements if element is not MISSING]
    else:
        return chosen.get(path, MISSING)
    if not part and was != part:
        return None if was is None and schema.nullable else MISSING
    if isinstance(schema, Object):
        for name, inner in schema.properties.items():
            if name in schema.required and name not in part and (isinstance(inner, Object) or has_elements(inner)):
                empty: Json = {} if isinstance(inner, Object) else []
                part[name] = None if inner.nullable else _built(inner, (), empty, {})
    return part
