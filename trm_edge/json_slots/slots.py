"""Slots of a tool call: a draft and a query become choices, and choices become JSON again.

    bound = JsonSlots(tool).bind(query, draft)      # schema -> slots -> candidates -> mask and y0
    resolved = bound.decode(indices, logits)        # choices -> JSON, valid or none

A slot is a place in the arguments that holds one scalar, or one array of scalars. Objects are their slots; an array of
objects has as many elements as the draft's, or up to ``MAX_ELEMENTS`` that may all be left out.
"""

from __future__ import annotations

import datetime as dt
import heapq
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeGuard

import numpy as np

from ..errors import TrmInputError
from .candidates import Candidate, Key, candidates_of, key_of
from .operators import find_spans
from .schema import MISSING, Array, Missing, Object, Schema, SchemaError, Tool, compile_tool, escaped, violation
from .text import Json, JsonTextError, dumps, parse, parse_lenient

MAX_ELEMENTS = 3  # of an array of objects that the draft does not have
MAX_SLOTS = 256
MAX_TRIES = 256  # joint choices that are looked at before the draft is taken, or nothing

Path = tuple[str | int, ...]


@dataclass(frozen=True)
class Slot:
    """A place in the arguments. ``optional`` where nothing may stand there, by itself or with what it is in."""

    path: Path
    schema: Schema
    optional: bool

    @property
    def pointer(self) -> str:
        """Return the slot's JSON pointer."""
        return "".join("/" + escaped(str(part)) for part in self.path)


@dataclass(frozen=True)
class Draft:
    """A draft of the arguments: its text, the value read from it, if any, and whether it is valid as it stands."""

    text: str
    value: Json | Missing
    valid: bool


@dataclass(frozen=True)
class Resolved:
    """What became of a draft.

    ``status`` is ``unchanged`` (``json`` is the draft's own text), ``resolved`` (``json`` is new), ``abstained``
    (``json`` is the draft's, as it is valid) or ``unresolved`` (``json`` is None). Whatever ``json`` holds is valid.
    """

    status: str
    json: str | None
    draft: str


class JsonSlots:
    """The slots of one tool, compiled once.

    Parameters
    ----------
    tool
        What ``compile_tool`` takes, or a compiled ``Tool``.
    """

    def __init__(self, tool: Any) -> None:
        self.tool = tool if isinstance(tool, Tool) else compile_tool(tool)

    def bind(self, query: str, draft: str | None = None, now: dt.datetime | None = None) -> Bound:
        """Return the slots, candidates and first choices for one call.

        Parameters
        ----------
        query
            What the user said.
        draft
            The text of the arguments as a language model wrote them; None or empty where there is none.
        now
            What relative dates in the query are relative to; without it they are not read.

        Raises
        ------
        TrmInputError
            Where an argument has another type, or the draft needs more than MAX_SLOTS slots.
        """
        for name, text in (("query", query), ("draft", "" if draft is None else draft)):
            if not isinstance(text, str):
                raise TrmInputError(f"{name}: expected text, got {type(text).__name__}")
        if now is not None and not isinstance(now, dt.datetime):
            raise TrmInputError(f"now: expected a datetime, got {type(now).__name__}")
        arguments = self.tool.arguments
        read = read_draft(arguments, draft or "")
        slots = list(_slots(arguments, (), False, read.value))
        if len(slots) > MAX_SLOTS:
            raise SchemaError(f"tool {self.tool.name}: expected at most {MAX_SLOTS} slots, got {len(slots)}")
        spans = find_spans(query, now)
        chosen = [_at(read.value, slot.path) for slot in slots]
        own = [
            candidates_of(slot.schema, slot.optional, value, spans) for slot, value in zip(slots, chosen, strict=True)
        ]
        table = _Table()
        rows = [{key: table.number_of(key, candidate) for key, candidate in some.items()} for some in own]
        mask = np.zeros((len(slots), len(table.candidates)), dtype=bool)
        for i, row in enumerate(rows):
            mask[i, list(row.values())] = True
        y0 = np.array([row.get(key_of(value), -1) for row, value in zip(rows, chosen, strict=True)], dtype=np.int32)
        return Bound(self.tool, query, read, tuple(slots), tuple(table.candidates), mask, y0)


@dataclass(frozen=True, eq=False)
class Bound:
    """One call's slots and candidates.

    Attributes
    ----------
    mask
        [S, M] bool: which candidates a slot may take.
    y0
        [S] int32: the draft's choices; -1 where its value is not valid for the slot, or is missing and must not be.
    """

    tool: Tool
    query: str
    draft: Draft
    slots: tuple[Slot, ...]
    candidates: tuple[Candidate, ...]
    mask: np.ndarray[Any, np.dtype[np.bool_]]
    y0: np.ndarray[Any, np.dtype[np.int32]]

    def decode(
        self, indices: Sequence[int] | np.ndarray[Any, Any], logits: np.ndarray[Any, Any] | None = None
    ) -> Resolved:
        """Turn a choice per slot into JSON that is valid, or say that there is none.

        Parameters
        ----------
        indices
            [S] int: candidates; -1 for the draft's value, or nothing where that is not valid.
        logits
            [S, M] float: where the joint choice is not valid, the next best by their sum are tried, up to MAX_TRIES.

        Raises
        ------
        TrmInputError
            Where shapes or indices do not fit the slots and their mask.
        """
        first = self._checked(indices)
        if self.draft.valid and all(
            index < 0 or key_of(self.candidates[index].value) == key_of(_at(self.draft.value, slot.path))
            for slot, index in zip(self.slots, first, strict=True)
        ):
            return Resolved("unchanged", self.draft.text, self.draft.text)
        for choice in self._choices(first, logits):
            value = self._assembled(choice)
            if violation(self.tool.arguments, value) is None:
                return Resolved("resolved", dumps(value), self.draft.text)
        return self.abstain()

    def abstain(self) -> Resolved:
        """Return the draft if it is valid, else nothing, with status ``unresolved``."""
        if self.draft.valid:
            return Resolved("abstained", self.draft.text, self.draft.text)
        return Resolved("unresolved", None, self.draft.text)

    def _checked(self, indices: Sequence[int] | np.ndarray[Any, Any]) -> list[int]:
        array = np.asarray(indices)
        if array.shape != (len(self.slots),) or (array.size and array.dtype.kind not in "iu"):
            raise TrmInputError(
                f"indices: expected integers [{len(self.slots)}], got {array.dtype} {list(array.shape)}"
            )
        chosen = [int(index) for index in array]
        for slot, row, index in zip(self.slots, self.mask, chosen, strict=True):
            if index >= len(self.candidates) or index < -1 or (index >= 0 and not row[index]):
                raise TrmInputError(f"indices: {index} is no candidate of {slot.pointer}")
        return chosen

    def _choices(self, first: list[int], logits: np.ndarray[Any, Any] | None) -> Iterator[list[int]]:
        """Yield the given joint choice, then others by falling sum of logits."""
        yield first
        if logits is None:
            return
        scores = np.asarray(logits, dtype=np.float64)
        if scores.shape != self.mask.shape:
            raise TrmInputError(f"logits: expected {list(self.mask.shape)}, got {list(scores.shape)}")
        scores = np.where(self.mask & ~np.isnan(scores), scores, -np.inf)
        orders = [
            [int(j) for j in np.argsort(-row, kind="stable") if allowed[j]]
            for row, allowed in zip(scores, self.mask, strict=True)
        ]
        orders = [order or [-1] for order in orders]
        begin = (0,) * len(orders)
        heap: list[tuple[float, tuple[int, ...]]] = [(0.0, begin)]
        seen = {begin}
        for _ in range(MAX_TRIES):
            if not heap:
                return
            loss, ranks = heapq.heappop(heap)
            choice = [order[rank] for order, rank in zip(orders, ranks, strict=True)]
            if choice != first:
                yield choice
            for i, rank in enumerate(ranks):
                after = (*ranks[:i], rank + 1, *ranks[i + 1 :])
                if rank + 1 < len(orders[i]) and after not in seen:
                    seen.add(after)
                    step = scores[i, orders[i][rank]] - scores[i, orders[i][rank + 1]]
                    heapq.heappush(heap, (loss + (float(step) if np.isfinite(step) else 1e9), after))

    def _assembled(self, choice: list[int]) -> Json:
        """Return the draft's value with every slot set to its choice; names that the schema does not know are kept."""
        result = _kept(self.tool.arguments, self.draft.value)
        for slot, index in zip(self.slots, choice, strict=True):
            value = self.candidates[index].value if index >= 0 else _at(self.draft.value, slot.path)
            if value is not MISSING and (index >= 0 or violation(slot.schema, value) is None):
                _set(result, slot.path, value)
        return _pruned(self.tool.arguments, result, self.draft.value)


def read_draft(arguments: Object, text: str) -> Draft:
    """Read a draft strictly, and leniently where that fails."""
    if not text.strip():
        return Draft(text, MISSING, False)
    try:
        value = parse(text)
        return Draft(text, value, violation(arguments, value) is None)
    except JsonTextError:
        pass
    try:
        return Draft(text, parse_lenient(text), False)
    except JsonTextError:
        return Draft(text, MISSING, False)


# ---- schema -> slots -------------------------------------------------------------------------------------------------


def _slots(schema: Schema, path: Path, optional: bool, draft: Json | Missing) -> Iterator[Slot]:
    if isinstance(schema, Object):
        for name, inner in schema.properties.items():
            missing_may = optional or schema.nullable or name not in schema.required
            yield from _slots(inner, (*path, name), missing_may, _at(draft, (name,)))
    elif _has_elements(schema):
        given = len(draft) if isinstance(draft, list) else 0
        least = schema.min_items
        for index in range(given or max(MAX_ELEMENTS, least)):
            inner_optional = optional or schema.nullable or (not given and index >= least)
            yield from _slots(schema.items, (*path, index), inner_optional, _at(draft, (index,)))
    else:
        yield Slot(path, schema, optional)


def _has_elements(schema: Schema) -> TypeGuard[Array]:
    """Whether it is an array of objects, which has slots of its own."""
    return isinstance(schema, Array) and isinstance(schema.items, Object)


def _at(value: Json | Missing, path: Path) -> Json | Missing:
    for part in path:
        named = isinstance(part, str) and isinstance(value, Mapping) and part in value
        if not named and not (isinstance(part, int) and isinstance(value, list) and part < len(value)):
            return MISSING
        value = value[part]  # type: ignore[index]
    return value


class _Table:
    """The candidates that all slots share, each once."""

    def __init__(self) -> None:
        self.candidates: list[Candidate] = []
        self.numbers: dict[tuple[object, ...], int] = {}

    def number_of(self, key: Key, candidate: Candidate) -> int:
        """Return where a candidate, with the key of its value, stands; it is added where it is new."""
        origin = (candidate.source, candidate.operator, candidate.start, candidate.end)
        number = self.numbers.setdefault((key, *origin), len(self.candidates))
        if number == len(self.candidates):
            self.candidates.append(candidate)
        return number


# ---- choices -> JSON -------------------------------------------------------------------------------------------------


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
    if _has_elements(schema):
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
            holds = isinstance(inner, Object) or _has_elements(inner)
            was = _at(draft, (name,))
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
    if _has_elements(schema) and isinstance(value, list):
        drafted = [_at(draft, (i,)) for i in range(len(value))]
        parts = [
            (_pruned(schema.items, item, was), was)
            for item, was in zip(value, drafted, strict=True)
            if item is not MISSING
        ]
        return [part for part, was in parts if part or was == {}]
    return value
