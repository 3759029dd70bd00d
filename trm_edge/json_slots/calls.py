"""Calls of a tool: a draft and a query become choices, and choices become JSON again.

inputs = JsonSlots(tool).bind(query, draft, featurizer)   # schema -> slots -> candidates -> arrays
out = refiner.refine(**inputs.arrays)                     # who chooses
resolved = inputs.decode(out.y, out.logits)               # choices -> JSON, valid or none
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice, takewhile
from typing import Any

import numpy as np

from ..errors import TrmInputError
from .answer import assembled, best_valid, concerned, misplaced, says_anything
from .candidates import MANY, Candidate, candidates_of, key_of, most_said_first, operators_for
from .compilation import compile_tool
from .drafts import Draft, read_draft
from .features import Features, Featurizer
from .operators import MAX_TEXT, find_spans
from .schema import MISSING, Missing, Object, SchemaError, Tool, walk
from .slots import MAX_SLOTS, Slot, at, has_elements, slots_of
from .text import Json, dumps, joined
from .validation import violation


@dataclass(frozen=True)
class Resolved:
    """What became of a draft.

    ``status`` is ``unchanged`` (``json`` is the draft's own text), ``resolved`` (``json`` is new), ``abstained``
    (``json`` is the draft's, as it is valid) or ``unresolved`` (``json`` is None). Whatever ``json`` holds is valid.
    ``chosen`` are the candidates that it was made of, by slot; None where it is abstained or unresolved.
    """

    status: str
    json: str | None
    draft: str
    chosen: tuple[int, ...] | None = None


class JsonSlots:
    """The slots of one tool, compiled once.

    Parameters
    ----------
    tool
        What ``compile_tool`` takes, or a compiled ``Tool``.
    """

    def __init__(self, tool: Any) -> None:
        self.tool = tool if isinstance(tool, Tool) else compile_tool(tool)
        arguments = self.tool.arguments
        parts = list(walk(arguments))
        self._operators = operators_for(parts)
        fixed = not any(map(has_elements, parts))  # else their number follows from the draft
        self._slots = _first_slots(arguments, MISSING) if fixed else None

    def bind(
        self,
        query: str,
        draft: str | None = None,
        featurizer: Featurizer | None = None,
        now: dt.datetime | None = None,
        thought: str = "",
    ) -> SlotInputs:
        """Return the slots, candidates and first choices for one call.

        Parameters
        ----------
        query
            What the user said; of more than MAX_TEXT characters the first and the last half of as many count.
        draft
            The text of the arguments as a language model wrote them; None or empty where there is none. One that is
            too long or too deep to be read, or needs more than MAX_SLOTS slots, stays as it is: nothing is put in its
            place.
        featurizer
            Makes the arrays that a head takes; without it there are none, and the caller chooses by other means.
        now
            What relative dates in the query are relative to; without it they are not read.
        thought
            A language model's short chain of thought about the query: more context, of which nothing is a candidate.

        Raises
        ------
        TrmInputError
            Where an argument has another type, or the tool has more than MAX_SLOTS slots.
        """
        check_call(query, draft, now, thought)
        query = read_part(query)
        arguments = self.tool.arguments
        read = read_draft(arguments, draft or "")
        slots = _first_slots(arguments, read.value) if self._slots is None else self._slots
        if len(slots) > MAX_SLOTS:
            if self._slots is not None or read.value is MISSING:  # it is not the draft that needs so many
                raise SchemaError(f"tool {self.tool.name}: expected at most {MAX_SLOTS} slots, got more")
            read, slots = replace(read, too_large=not read.valid), ()
        if read.too_large:
            slots = ()
        spans = find_spans(query, now, self._operators)
        candidates: list[Candidate] = []
        y0 = np.full(len(slots), -1, np.int32)
        counts = []
        for i, slot in enumerate(slots):
            drafted = at(read.value, slot.path)
            own = candidates_of(slot, drafted, spans)
            if len(own) > MANY:
                own = most_said_first(own, query)
            if drafted is not MISSING or slot.optional:
                y0[i] = _place_of(drafted, own, len(candidates))
            candidates += own
            counts.append(len(own))
        slot_of = np.repeat(np.arange(len(slots)), counts)
        inputs = SlotInputs(self.tool, query, read, slots, tuple(candidates), slot_of, y0, thought)
        return inputs if featurizer is None else inputs.with_features(featurizer)


def _first_slots(arguments: Object, draft: Json | Missing) -> tuple[Slot, ...]:
    """Return the slots of arguments, given what a draft has there; of too many no more than that tells."""
    return tuple(islice(slots_of(arguments, (), False, draft), MAX_SLOTS + 1))


def read_part(query: str) -> str:
    """Return what is looked at of a query: all of it, or its two ends, where what is asked mostly stands."""
    if len(query) > MAX_TEXT:
        half = MAX_TEXT // 2
        query = f"{query[: half - 1]}\n{query[-half:]}"
    return joined(query)


def _place_of(value: Json | Missing, candidates: Sequence[Candidate], offset: int) -> int:
    """Return which candidate has a drafted value, or -1; a valid one has, and stands before those of the query."""
    key = key_of(value)
    for place, one in enumerate(takewhile(lambda one: one.source != "span", candidates), start=offset):
        if key_of(one.value) == key:
            return place
    return -1


def check_call(query: str, draft: str | None, now: dt.datetime | None, thought: str) -> None:
    """Raise :class:`TrmInputError` where an argument of a call has another type."""
    for name, text in (("query", query), ("draft", "" if draft is None else draft), ("thought", thought)):
        if not isinstance(text, str):
            raise TrmInputError(f"{name}: expected text, got {type(text).__name__}")
    if now is not None and not isinstance(now, dt.datetime):
        raise TrmInputError(f"now: expected a datetime, got {type(now).__name__}")


@dataclass(frozen=True, eq=False)
class SlotInputs:
    """One call's slots and candidates, and the arrays that a head takes.

    Attributes
    ----------
    candidates
        Those of the first slot, then those of the second, and so on.
    slot_of
        [M] int: the slot that a candidate belongs to, rising.
    y0
        [S] int32: the draft's choices; -1 where its value is not valid for the slot, or is missing and must not be.
        Without a draft they are those of an empty one.
    features
        Float arrays, or None where it was bound without a featurizer.
    """

    tool: Tool
    query: str
    draft: Draft
    slots: tuple[Slot, ...]
    candidates: tuple[Candidate, ...]
    slot_of: np.ndarray[Any, np.dtype[np.int64]]
    y0: np.ndarray[Any, np.dtype[np.int32]]
    thought: str = ""
    features: Features | None = None

    def with_features(self, featurizer: Featurizer) -> SlotInputs:
        """Return the same with the float arrays that ``featurizer`` makes."""
        return replace(self, features=featurizer.features(self))

    @property
    def mask(self) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Return [S, M] bool: which candidates a slot may take."""
        mask: np.ndarray[Any, np.dtype[np.bool_]] = np.arange(len(self.slots))[:, None] == self.slot_of
        return mask

    @property
    def drafted(self) -> np.ndarray[Any, np.dtype[np.int32]]:
        """Return [S] int32: the candidates that are the draft's, as it stands or as the one thing that it may mean.

        -1 where there is none, or no draft.
        """
        if self.draft.value is MISSING:
            return np.full(len(self.slots), -1, np.int32)
        found: np.ndarray[Any, np.dtype[np.int32]] = self.y0.copy()
        for i, own in self._meant.items():
            if found[i] < 0 and len(own) == 1:
                found[i] = own[0]
        return found

    @cached_property
    def _meant(self) -> dict[int, list[int]]:
        """Return, by slot, the candidates that the draft gave: its value, or what that may mean."""
        meant: dict[int, list[int]] = {}
        for j, one in enumerate(self.candidates):
            if one.source == "draft":
                meant.setdefault(int(self.slot_of[j]), []).append(j)
        return meant

    @cached_property
    def spans(self) -> tuple[np.ndarray[Any, np.dtype[np.int64]], np.ndarray[Any, np.dtype[np.int64]]]:
        """Return [M] where the words begin and end that candidates were read from, -1 for none."""
        starts, ends = [one.start for one in self.candidates], [one.end for one in self.candidates]
        return np.array(starts, np.int64), np.array(ends, np.int64)

    @cached_property
    def unsaid(self) -> list[int]:
        """Return the candidates that a description names and neither the query nor the draft has."""
        lowered = self.query.lower()
        texts = {j: one for j, one in enumerate(self.candidates) if one.source == "literal"}
        return [j for j, one in texts.items() if j not in self.y0 and str(one.value).lower() not in lowered]

    @property
    def arrays(self) -> dict[str, np.ndarray[Any, Any]]:
        """Return what ``Refiner.refine`` takes, by name."""
        if self.features is None:
            raise TrmInputError("arrays: there are none; bind with a featurizer")
        made = self.features
        return {"x": made.x, "y0": self.y0, "slots": made.slots, "candidates": made.candidates, "mask": self.mask}

    def decode(
        self, indices: Sequence[int] | np.ndarray[Any, Any], logits: np.ndarray[Any, Any] | None = None
    ) -> Resolved:
        """Turn a choice per slot into JSON that is valid, or say that there is none.

        Parameters
        ----------
        indices
            [S] int: candidates; -1 for the draft's value, or nothing where that is not valid.
        logits
            [S, M] float: where the joint choice is not valid, the next best by their sum are tried, up to 256.

        Raises
        ------
        TrmInputError
            Where shapes or indices do not fit the slots and their mask.
        """
        first = self._checked(indices)
        if self.draft.valid and all(
            index < 0 or key_of(self.candidates[index].value) == key_of(at(self.draft.value, slot.path))
            for slot, index in zip(self.slots, first, strict=True)
        ):
            return Resolved("unchanged", self.draft.text, self.draft.text, tuple(first))
        shape = [len(self.slots), len(self.candidates)]
        try:
            scores = None if logits is None else np.asarray(logits, dtype=np.float64)
        except (TypeError, ValueError):
            raise TrmInputError(f"logits: expected floats {shape}, got {type(logits).__name__}") from None
        if scores is not None and [*scores.shape] != shape:
            raise TrmInputError(f"logits: expected {shape}, got {list(scores.shape)}")
        found = None if self.draft.too_large else best_valid(first, self.mask, scores, self._attempt)
        if found is None or self._loses(*found):
            return self.abstain()
        value, chosen = found
        if self.draft.valid and key_of(value) == key_of(self.draft.value):
            return Resolved("unchanged", self.draft.text, self.draft.text, tuple(chosen))
        return Resolved("resolved", dumps(value), self.draft.text, tuple(chosen))

    def _attempt(self, choice: Sequence[int]) -> tuple[Json, list[int] | None]:
        """Return what a choice makes, and the slots of which one has to change for it to be valid, None where it is."""
        value = assembled(self.tool.arguments, self.draft, self.slots, self.candidates, choice)
        wrong = violation(self.tool.arguments, value)
        return value, None if wrong is None else concerned(self.tool.arguments, wrong.path, self.slots)

    def _loses(self, value: Json, choice: Sequence[int]) -> bool:
        """Whether an answer leaves out what the draft has but may not have there, and nothing like it could be kept.

        A call without it means something else: of a refund whose amount is not valid, all would be refunded.
        """
        if self.draft.valid or self.draft.value is MISSING or not self.slots:  # then there is no such value
            return False
        if not all(says_anything(at(value, path)) for path in misplaced(self.tool.arguments, self.draft.value)):
            return True
        for i, (slot, j) in enumerate(zip(self.slots, choice, strict=True)):
            drafted = at(self.draft.value, slot.path)
            left_out = j < 0 or self.candidates[j].value is MISSING
            if left_out and i not in self._meant and drafted is not MISSING and drafted not in (None, ""):
                return True
        return False

    def abstain(self) -> Resolved:
        """Return the draft if it is valid, else nothing, with status ``unresolved``."""
        if self.draft.valid:
            return Resolved("abstained", self.draft.text, self.draft.text)
        return Resolved("unresolved", None, self.draft.text)

    def _checked(self, indices: Sequence[int] | np.ndarray[Any, Any]) -> list[int]:
        try:
            array = np.asarray(indices)
        except ValueError:  # of lists of different lengths
            raise TrmInputError(f"indices: expected integers [{len(self.slots)}], got {indices!r}") from None
        if array.shape != (len(self.slots),) or (array.size and array.dtype.kind not in "iu"):
            raise TrmInputError(
                f"indices: expected integers [{len(self.slots)}], got {array.dtype} {list(array.shape)}"
            )
        chosen = [int(index) for index in array]
        for i, (slot, index) in enumerate(zip(self.slots, chosen, strict=True)):
            if not -1 <= index < len(self.candidates) or (index >= 0 and self.slot_of[index] != i):
                raise TrmInputError(f"indices: {index} is no candidate of {slot.pointer}")
        return chosen
