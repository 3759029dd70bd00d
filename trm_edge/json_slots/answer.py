"""Answers: a choice per slot becomes JSON, with what the draft has beside its slots."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import pairwise, takewhile
from typing import Any

import numpy as np

from .candidates import Candidate
from .schema import MISSING, Missing, Object, Path, Schema
from .slots import Draft, Slot, at, has_elements
from .text import Json
from .validation import violation

MAX_TRIES = 256  # joint choices that are looked at before the draft is taken, or nothing


def best_valid(
    first: list[int],
    mask: np.ndarray[Any, np.dtype[np.bool_]],
    logits: np.ndarray[Any, Any] | None,
    attempt: Callable[[list[int]], tuple[Json, Collection[int] | None]],
) -> Json | None:
    """Return what ``first`` makes if that is valid, else the valid choice with the largest sum of ``logits [S, M]``.

    ``attempt`` makes an object of a joint choice, and says which slots have to change, at least one of them, for it to
    be valid; None where it is. A choice is followed by those that are one rank worse in one of these slots, so that
    none is looked at which would be wrong for the same reason. None where there is no valid one among MAX_TRIES, or
    without ``logits``.
    """
    value, blamed = attempt(first)
    if blamed is None:
        return value
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
            return value
        for i in blamed:
            rank = ranks[i]
            after = (*ranks[:i], rank + 1, *ranks[i + 1 :])
            if rank + 1 < len(orders[i]) and after not in seen:
                seen.add(after)
                step = scores[i, orders[i][rank]] - scores[i, orders[i][rank + 1]]
                heapq.heappush(heap, (loss + (float(step) if np.isfinite(step) else 1e9), after))
    return None


def concerned(path: Path, slots: Sequence[Slot]) -> list[int]:
    """Return the slots of which one has to change where a value is wrong at ``path``.

    They are those of that part; of an array of objects all, as those that are left out are not counted.
    """
    part = tuple(takewhile(lambda name: isinstance(name, str), path))
    return [i for i, slot in enumerate(slots) if slot.path[: len(part)] == part]


def assembled(
    arguments: Object, draft: Draft, slots: Sequence[Slot], candidates: Sequence[Candidate], choice: Sequence[int]
) -> Json:
    """Return the draft's value with every slot set to its choice; names that the schema does not know are kept."""
    result = _kept(arguments, draft.value)
    for slot, index in zip(slots, choice, strict=True):
        value = candidates[index].value if index >= 0 else at(draft.value, slot.path)
        if value is not MISSING and (index >= 0 or violation(slot.schema, value) is None):
            _set(result, slot.path, value)
    return _pruned(arguments, result, draft.value)


def _kept(schema: Schema, draft: Json | Missing) -> Json:
    """Return the frame that choices are set into: the draft's unknown names, where the schema lets them stand."""
    if isinstance(schema, Object):
        known = schema.properties
        frame: dict[str, Json] = {}
        for name, value in draft.items() if isinstance(draft, Mapping) else ():
            if name not in known:
                if not schema.closed:
                    frame[name] = value
            else:
                frame[name] = _kept(known[name], value)
        return frame
    if has_elements(schema):
        return [_kept(schema.items, item) for item in (draft if isinstance(draft, list) else [])]
    return MISSING


def _set(frame: Json, path: Path, value: Json) -> None:
    for part, following in pairwise(path):
        empty: Json = [] if isinstance(following, int) else {}
        if isinstance(part, int):
            while len(frame) <= part:
                frame.append(MISSING)
            if not isinstance(frame[part], (dict, list)):
                frame[part] = empty
        elif not isinstance(frame.get(part), (dict, list)):
            frame[part] = empty
        frame = frame[part]
    frame[path[-1]] = value


def _pruned(schema: Schema, value: Json, draft: Json | Missing) -> Json:
    """Return a frame without what was not chosen; objects that are required, or that the draft has empty, stay."""
    if isinstance(schema, Object) and isinstance(value, dict):
        result: dict[str, Json] = {}
        names = [*value, *(name for name in schema.properties if name in schema.required and name not in value)]
        for name in names:
            inner = schema.properties.get(name)
            part = value.get(name, MISSING)
            if inner is None:
                result[name] = part
                continue
            holds = isinstance(inner, Object) or has_elements(inner)
            was = at(draft, (name,))
            if part is MISSING and holds and name in schema.required and not inner.nullable:
                part = {} if isinstance(inner, Object) else []
            part = _pruned(inner, part, was)
            if holds and not part and was is None and inner.nullable:
                part = None
            elif holds and not part and name not in schema.required and was not in ({}, []):
                part = MISSING
            if part is not MISSING:
                result[name] = part
        return result
    if has_elements(schema) and isinstance(value, list):
        drafted = [at(draft, (i,)) for i in range(len(value))]
        parts = [
            (_pruned(schema.items, item, was), was)
            for item, was in zip(value, drafted, strict=True)
            if item is not MISSING
        ]
        return [part for part, was in parts if part or was == {}]
    return value
