"""The resolver: a head that chooses among a call's candidates, and everything around it.

    resolver = Resolver("home.trm")
    call = resolver.resolve_tool_call(tools, "dim the lights in the kitchen to 20 percent")
    call.name, call.json        # a function of the tools, and arguments that its schema allows; or None

One ``Resolver`` serves one thread at a time, as its ``Refiner`` does; ``clone()`` makes another on the same weights.
"""

from __future__ import annotations

import datetime as dt
import json
import math
import threading
import time
import unicodedata
from collections import Counter, OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from ..backends import Source
from ..errors import Status, TrmInputError, TrmVersionError
from ..inputs import check_flag, check_int
from ..refiner import Refiner, load, thread_refiner
from .calls import JsonSlots, Resolved, SlotInputs, check_call, read_part
from .candidates import Candidate
from .compilation import tool_name
from .drafts import Draft, read_call
from .features import FEATURES, Featurizer, featurizer_for
from .joint import Chosen, Logits, given_up, joint_choices, less_what_names_the_tool
from .operators.base import is_number
from .providers import ContextProvider
from .schema import MISSING, Object, Scalar, SchemaError, Tool
from .slots import Slot
from .text import Json

STEPS = 2  # of a call
MAX_BONUS = 1e6  # beyond which nothing changes
MAX_TRIED = 3  # tools, of which the arguments are chosen too before one of them is
UNRESOLVED = 6.0  # what a tool gives up that has no valid arguments: only a tool about as likely is taken instead
KEPT_TOOLS = 256  # compiled, of a resolver
_CACHED_RESOLVERS = 4  # that resolve_tool_call keeps
NO_TOOL = Tool("", "", Object(""))  # whose slot the choice of a tool is


@dataclass(frozen=True)
class ResolvedCall:
    """A tool call.

    Attributes
    ----------
    name
        The function; None where there is no tool, or none of them fits.
    status
        That of ``Resolved``, for the arguments.
    json
        The arguments, valid for the function's schema, or None.
    draft
        The text of the arguments as they were drafted.
    confidence
        0 to 1: the head's own estimate that every slot is right; 1 where there was nothing to choose, -1 where the
        head's numbers left float32, and the draft was left as it is.
    by_step
        (name, arguments) after each refinement step, or after the last one only (``Resolver(by_step=...)``).
    duration_us
        Wall time of the call.
    """

    name: str | None
    status: str
    json: str | None
    draft: str
    confidence: float
    by_step: tuple[tuple[str | None, str | None], ...]
    duration_us: float = field(default=0.0, compare=False)


@dataclass(frozen=True, eq=False)
class Decision:
    """What a head decided about the slots of a call, after each of the K steps that are told.

    Attributes
    ----------
    y
        [K, S]: the candidate of each slot, -1 for none.
    logits
        [K, S, M]: what ``y`` was chosen by, with the draft's bonus; -inf for the candidates of other slots.
    confidence
        The head's, after the last step; -1 where its numbers left float32, and nothing was chosen.
    drafted
        [S]: the candidates that got the draft's bonus, -1 for none.
    """

    y: Chosen
    logits: Logits
    confidence: float
    drafted: Chosen


class _Ranked(NamedTuple):
    """How likely tools are after each step that is told, [K, N]; whether none of them is likelier, [K]."""

    likely: Logits
    none: list[bool]
    confidence: float


class Resolver:
    """Resolves tool calls with a head of kind ``slots``.

    Parameters
    ----------
    head
        A ``.trm`` bundle, or a ``Refiner``.
    provider
        Where vectors come from; None: ``HashedNgrams`` of the width that the head was trained with.
    steps
        Refinement steps, 1 to 64. Heads lose with more than they were trained with, which here is two or three.
    abstain_below
        Confidence below which the draft is left as it is. So is a valid draft where the query is nothing that the head
        can read: it has more tokens than the head's ``max_context``, or no words, or most of them in another script
        than the Latin one that heads have learned.
    draft_bonus
        What is added to the logits of the draft's choices, 0 to 1e6: how much better (by its logarithm) another one
        must be to be taken.
    joint
        Whether slots are chosen together, so that they share no words and leave none that stand out (``joint.py``), and
        a tool with its slots; or each by itself.
    by_step
        Whether a call tells its answer after every step, which costs time, or after the last one only.
    decline_bonus
        Where there is no draft, what is added to the logit of choosing no tool, -1e6 to 1e6: 0 as the head has learned,
        less to decline less often. None: a tool is always chosen, as it must be by heads that were not trained to
        decline; those that ship were.

    Raises
    ------
    TrmVersionError
        The head says that it was trained on features of another release.
    TrmInputError
        An argument is wrong, or the head does not fit it: another kind of answer, a provider of another width for a
        head that takes vectors, a ``decline_bonus`` for a head that says that it has not learned to decline.
    """

    def __init__(
        self,
        head: Any,
        provider: ContextProvider | None = None,
        *,
        steps: int = STEPS,
        abstain_below: float = 0.0,
        draft_bonus: float = 4.0,
        joint: bool = True,
        by_step: bool = False,
        decline_bonus: float | None = None,
    ) -> None:
        self.refiner = head if isinstance(head, Refiner) else load(head)
        spec = self.refiner.spec
        if spec.answer != "slots":
            raise TrmInputError(f"head: expected one that answers slots, got one that answers {spec.answer}")
        steps = check_int("steps", steps)
        if not 1 <= steps <= 64:
            raise TrmInputError(f"steps: expected an int in 1..64, got {steps!r}")
        if not is_number(draft_bonus) or not 0 <= draft_bonus <= MAX_BONUS:
            raise TrmInputError(f"draft_bonus: expected 0..{MAX_BONUS:g}, got {draft_bonus!r}")
        if not is_number(abstain_below) or math.isnan(abstain_below):
            raise TrmInputError(f"abstain_below: expected a number, got {abstain_below!r}")
        if decline_bonus is not None and (not is_number(decline_bonus) or not -MAX_BONUS <= decline_bonus <= MAX_BONUS):
            raise TrmInputError(f"decline_bonus: expected None or {-MAX_BONUS:g}..{MAX_BONUS:g}, got {decline_bonus!r}")
        _check_training(self.refiner, decline_bonus)
        self.steps, self.abstain_below, self.draft_bonus = steps, abstain_below, draft_bonus
        self.joint, self.by_step = check_flag("joint", joint), check_flag("by_step", by_step)
        self.decline_bonus = decline_bonus
        self.featurizer = featurizer_for(spec, provider)
        self._compiled = lru_cache(maxsize=KEPT_TOOLS)(lambda text: JsonSlots(json.loads(text)))

    def clone(self) -> Resolver:
        """Return another resolver on the same weights, for another thread."""
        return Resolver(
            self.refiner.clone(),
            self.featurizer.provider,
            steps=self.steps,
            abstain_below=self.abstain_below,
            draft_bonus=self.draft_bonus,
            joint=self.joint,
            by_step=self.by_step,
            decline_bonus=self.decline_bonus,
        )

    def compile(self, tool: Any) -> JsonSlots:
        """Return a tool's slots with all its texts read, so that its first call takes no longer than others.

        Takes what ``compile_tool`` takes; ``resolve`` and ``resolve_tool_call`` take what it returns.
        """
        slots = JsonSlots(tool)
        slots.bind("", None, self.featurizer)
        return slots

    def resolve(
        self, tool: Any, query: str, draft: str | None = None, *, now: dt.datetime | None = None, thought: str = ""
    ) -> ResolvedCall:
        """Resolve the arguments of one tool.

        Parameters
        ----------
        tool
            What ``compile_tool`` takes, a compiled ``Tool``, or a ``JsonSlots`` that is kept from call to call.
        query
            What the user said; where that is nothing, and there is no draft, there is no call.
        draft
            The text of the arguments as a language model wrote them, if there is one.
        now
            What relative dates are relative to.
        thought
            A language model's short chain of thought about the query, for a head that was trained with some.
        """
        begun = time.perf_counter()
        check_call(query, draft, now, thought)
        slots = self._slots_of(tool)
        if not query.strip() and not (draft or "").strip():
            return ResolvedCall(slots.tool.name, "unresolved", None, draft or "", 1.0, (), _since(begun))
        inputs = slots.bind(query, draft, self.featurizer, now, thought)
        call, _ = self._resolved(inputs, self.choose(inputs))
        return replace(call, duration_us=_since(begun))

    def _resolved(self, inputs: SlotInputs, decision: Decision) -> tuple[ResolvedCall, Resolved]:
        """Return the call that a decision makes, and its arguments with what they were made of."""
        if decision.confidence < 0:
            by_step = [inputs.abstain()] * len(decision.y)
        else:
            by_step = [inputs.decode(y, logits) for y, logits in zip(decision.y, decision.logits, strict=True)]
        unsure = decision.confidence < self.abstain_below or (
            inputs.draft.valid and not (is_readable(inputs.query) and self.featurizer.sees_all(inputs.query))
        )
        last = inputs.abstain() if unsure else by_step[-1]
        steps = tuple((inputs.tool.name, one.json) for one in by_step)
        return ResolvedCall(inputs.tool.name, last.status, last.json, last.draft, decision.confidence, steps), last

    def resolve_tool_call(
        self,
        tools: Sequence[Any],
        query: str,
        draft: Any = None,
        *,
        now: dt.datetime | None = None,
        rename: bool = False,
        thought: str = "",
    ) -> ResolvedCall:
        """Choose a tool, unless the draft names one of them, and resolve its arguments.

        Where the head may decline and no tool fits, the call has no name and is ``unresolved``.

        Parameters
        ----------
        tools
            Each as ``resolve`` takes it; their names differ.
        query
            What the user said.
        draft
            A call as ``read_call`` takes it: an object, a client's own class, or text; None where there is none. Where
            it names a tool that stays, the other tools are not compiled.
        now
            What relative dates are relative to.
        rename
            Choose a tool also where the draft names one and there is a query to choose by; arguments that it has for
            another one are not looked at.
        thought
            As ``resolve`` takes it.
        """
        begun = time.perf_counter()
        check_call(query, None, now, thought)
        names = _names_of(tools)
        name, drafted = read_call(draft, names)
        arguments = drafted or ""
        silent = not query.strip()
        if not tools or (silent and name is None):
            return _no_call(begun, arguments)
        _check_unique(names)
        if name is not None and name in names and (not rename or len(tools) == 1 or silent):
            own = tools[names.index(name)]
            return replace(self.resolve(own, query, arguments, now=now, thought=thought), duration_us=_since(begun))
        if silent and not arguments.strip():
            return _no_call(begun)
        call = self._chosen_call([self._slots_of(tool) for tool in tools], name, arguments, query, now, thought)
        return replace(call, duration_us=_since(begun))

    def _chosen_call(
        self,
        tools: Sequence[JsonSlots],
        name: str | None,
        arguments: str,
        query: str,
        now: dt.datetime | None,
        thought: str,
    ) -> ResolvedCall:
        """Return the call of the tool that suits the query, ``name`` being the draft's; its duration is left open."""
        known = [slots.tool.name for slots in tools]
        may_decline = name is None and not arguments.strip()
        ranked = self._rank(tools, query, thought, known.index(name) if name in known else -1, may_decline)
        if ranked.confidence < 0:
            return _no_call(0.0, arguments, -1.0)
        best = ranked.likely.argmax(axis=1).tolist()
        named = [None if none else known[j] for none, j in zip(ranked.none, best, strict=True)]
        if named[-1] is None:
            return _no_call(0.0, "", ranked.confidence, tuple((one, None) for one in named))
        drafts = ["" if name in known and name != other else arguments for other in known]
        call = self._best_call(tools, ranked.likely[-1].tolist(), drafts, query, now, thought)
        named[-1] = call.name
        steps = [(one, json if one == call.name else None) for one, (_, json) in zip(named, call.by_step, strict=True)]
        return replace(call, confidence=min(call.confidence, ranked.confidence), by_step=tuple(steps))

    def _rank(self, tools: Sequence[JsonSlots], query: str, thought: str, drafted: int, may_decline: bool) -> _Ranked:
        """Return how likely each tool is; ``drafted`` is the draft's, -1 for none."""
        may_decline = may_decline and self.decline_bonus is not None
        most = self.refiner.spec.max_candidates - may_decline
        if len(tools) > most:
            raise TrmInputError(f"tools: expected at most {most}, as this head takes no more, got {len(tools)}")
        inputs = bind_tools([one.tool for one in tools], query, self.featurizer, thought, may_decline)
        chosen = self.choose(inputs, [drafted])
        likely = chosen.logits[:, 0, int(may_decline) :]
        none = np.zeros(len(likely), bool)
        if may_decline:
            none = chosen.logits[:, 0, 0] + np.float32(self.decline_bonus) > likely.max(axis=1)
        return _Ranked(likely, none.tolist(), chosen.confidence)

    def _best_call(
        self,
        tools: Sequence[JsonSlots],
        likely: Sequence[float],
        drafts: Sequence[str],
        query: str,
        now: dt.datetime | None,
        thought: str,
    ) -> ResolvedCall:
        """Return the call of the tool that is worth most: by its logit, ``likely``, less what its arguments give up."""
        best, most = None, -math.inf
        for j in sorted(range(len(tools)), key=lambda j: -likely[j])[: MAX_TRIED if self.joint else 1]:
            if best is not None and likely[j] <= most:
                break  # it can only be worth less
            inputs = tools[j].bind(query, drafts[j], self.featurizer, now, thought)
            chosen = self.choose(inputs)
            call, made = self._resolved(inputs, chosen)
            worth = likely[j] - self._lost(inputs, chosen, made)
            if best is None or worth > most:
                best, most = call, worth
        assert best is not None
        return best

    def _lost(self, inputs: SlotInputs, decision: Decision, made: Resolved) -> float:
        """Return what the arguments of a tool give up; nothing where the head abstains."""
        if made.chosen is None:
            return UNRESOLVED if made.json is None else 0.0
        return given_up(inputs, decision.logits[-1], made.chosen, decision.drafted, self.draft_bonus)

    def _slots_of(self, tool: Any) -> JsonSlots:
        """Return a tool's slots; of tools that come as JSON the last ones are kept."""
        if isinstance(tool, JsonSlots):
            return tool
        if not isinstance(tool, dict):
            return JsonSlots(tool)
        try:
            text = json.dumps(tool)
        except (TypeError, ValueError, RecursionError):
            return JsonSlots(tool)  # which says what is wrong
        return self._compiled(text)

    def choose(self, inputs: SlotInputs, drafted: Sequence[int] | None = None) -> Decision:
        """Let the head choose; slots or candidates beyond the head's maxima are asked in several calls.

        ``drafted`` are the candidates that get the draft's bonus, -1 for none; without it they are ``inputs.drafted``.
        """
        favoured = inputs.drafted if drafted is None else np.asarray(drafted, np.int32)
        asked = self._ask(inputs, favoured)
        if asked.confidence < 0:
            return asked
        y = self._favour(inputs, asked)
        if self.joint and len(inputs.slots) > 0:
            less_what_names_the_tool(inputs, asked.logits)
            y = joint_choices(inputs, asked.logits, favoured)
        return replace(asked, y=y)

    def _ask(self, inputs: SlotInputs, favoured: Chosen) -> Decision:
        """Return what the head says of every slot by itself, without the draft's bonus."""
        spec, arrays = self.refiner.spec, inputs.arrays
        y = np.full((self.steps, len(inputs.slots)), -1, np.int32)
        logits = np.full((self.steps, len(inputs.slots), len(inputs.candidates)), -np.inf, np.float32)
        confidence = 1.0
        for rows, columns in _groups(inputs, spec.answer_rows, spec.max_candidates):
            out = self.refiner.refine(
                arrays["x"],
                _shifted(inputs.y0[rows], columns),
                self.steps,
                trajectory=True,
                slots=arrays["slots"][rows],
                candidates=arrays["candidates"][columns],
                mask=np.ascontiguousarray(arrays["mask"][rows, columns]),
            )
            if out.status == Status.NONFINITE:
                confidence = -1.0
                break
            assert out.trajectory is not None and out.logits is not None
            y[:, rows] = np.where(out.trajectory >= 0, out.trajectory + columns.start, -1)
            logits[:, rows, columns] = out.logits
            confidence = min(confidence, float(out.confidence))
        told = slice(None if self.by_step else -1, None)
        return Decision(y[told], logits[told], confidence, favoured)

    def _favour(self, inputs: SlotInputs, asked: Decision) -> Chosen:
        """Add the draft's bonus to the logits and return what each slot chooses by itself then."""
        y, logits, favoured = asked.y, asked.logits, asked.drafted
        rows = np.flatnonzero(favoured >= 0)
        if len(rows) and (self.draft_bonus or inputs.draft.valid):
            if inputs.draft.valid:
                # Its values are right as far as anybody knows, so that only what the query says may change them.
                unsaid = inputs.unsaid
                logits[:, inputs.slot_of[unsaid], unsaid] = -np.inf
            logits[:, rows, favoured[rows]] += self.draft_bonus
            y[:, rows] = logits[:, rows].argmax(axis=2)
        return y


_own = threading.local()  # resolvers, as one serves one thread at a time


def resolve_tool_call(
    tools: Sequence[Any],
    query: str,
    draft: Any = None,
    *,
    model: Source,
    now: dt.datetime | None = None,
    rename: bool = False,
    thought: str = "",
    **options: Any,
) -> ResolvedCall:
    """Resolve a call with the head at ``model``: ``options`` as for :class:`Resolver`, the rest as for its method.

    The last few models and options stay loaded, with a session per thread; a file that changed on disk is loaded again.
    """
    key = thread_refiner(model), *sorted(options.items())
    kept: OrderedDict[Any, Resolver] = _own.__dict__.setdefault("resolvers", OrderedDict())
    try:
        hash(key)
    except TypeError:
        return Resolver(key[0], **options).resolve_tool_call(
            tools, query, draft, now=now, rename=rename, thought=thought
        )
    if key not in kept:
        kept[key] = Resolver(key[0], **options)
    kept.move_to_end(key)
    while len(kept) > _CACHED_RESOLVERS:
        kept.popitem(last=False)
    return kept[key].resolve_tool_call(tools, query, draft, now=now, rename=rename, thought=thought)


def bind_tools(
    tools: Sequence[Tool], query: str, featurizer: Featurizer | None, thought: str = "", may_decline: bool = False
) -> SlotInputs:
    """Return the inputs of the choice of a tool: one slot, whose candidates are the tools, or none of them, then they.

    Where none may be chosen, it is what the slot begins with.
    """
    query = read_part(query)
    slots, candidates = _tool_slot(tuple(tools), may_decline)
    draft, y0 = Draft("", MISSING, False), np.full(1, may_decline - 1, np.int32)
    slot_of = np.zeros(len(candidates), np.int64)
    inputs = SlotInputs(NO_TOOL, query, draft, slots, candidates, slot_of, y0, thought)
    return inputs if featurizer is None else inputs.with_features(featurizer)


@lru_cache(maxsize=32)
def _tool_slot(tools: tuple[Tool, ...], may_decline: bool) -> tuple[tuple[Slot, ...], tuple[Candidate, ...]]:
    names: tuple[Json, ...] = tuple(tool.name for tool in tools)
    notes = [" ".join([tool.description, *tool.arguments.properties]) for tool in tools]
    own = [Candidate(tool.name, "tool", note=note, named=tool.named) for tool, note in zip(tools, notes, strict=True)]
    candidates = (Candidate(MISSING, "omit"), *own) if may_decline else tuple(own)
    return (Slot((), Scalar("", "string", options=names), may_decline),), candidates


def _check_training(head: Refiner, decline_bonus: float | None) -> None:
    """Raise where a head says that it was not trained for what it is asked; many say nothing."""
    features = head.provenance("features")
    if features not in (None, FEATURES):
        raise TrmVersionError(
            f"head: it was trained on features {features!r}, this release makes {FEATURES!r}; "
            "install the release that trained it, or train it anew"
        )
    if decline_bonus is not None and head.provenance("declines") == "no":
        raise TrmInputError(
            f"decline_bonus: expected None, as this head has not learned to decline, got {decline_bonus!r}"
        )


def is_readable(query: str) -> bool:
    """Return whether a query has words or numbers, and at least half of its letters are Latin ones."""
    letters = [character for character in query if character.isalpha()]
    latin = sum(one.isascii() or unicodedata.name(one, "").startswith("LATIN") for one in letters)
    return 2 * latin >= len(letters) if letters else any(map(str.isdigit, query))


def _names_of(tools: Any) -> list[str | None]:
    """Return the name of each tool, or raise where they are no list."""
    if not isinstance(tools, Sequence) or isinstance(tools, (str, bytes)):
        raise TrmInputError(f"tools: expected a list of tools, got {type(tools).__name__}")
    return [_name_of(tool) for tool in tools]


def _check_unique(names: Sequence[str | None]) -> None:
    for name, count in Counter(names).items():
        if name is not None and count > 1:
            raise SchemaError(f"tools: expected every name once, got {name!r} more than once")


def _name_of(tool: Any) -> str | None:
    tool = tool.tool if isinstance(tool, JsonSlots) else tool
    return tool.name if isinstance(tool, Tool) else tool_name(tool)


def _no_call(
    begun: float, draft: str = "", confidence: float = 1.0, by_step: tuple[tuple[str | None, None], ...] = ()
) -> ResolvedCall:
    """Return the answer where there is no tool, or none that fits."""
    return ResolvedCall(None, "unresolved", None, draft, confidence, by_step, _since(begun))


def _since(begun: float) -> float:
    """Return the microseconds since a reading of ``perf_counter``."""
    return 1e6 * (time.perf_counter() - begun)


def _groups(inputs: SlotInputs, most_slots: int, most_candidates: int) -> Iterator[tuple[slice, slice]]:
    """Yield groups of slots in a row that a head can take at once, and their candidates, as slices.

    A slot that has more candidates than a head takes is a group of its own, with the first ones.
    """
    sizes = np.bincount(inputs.slot_of, minlength=len(inputs.slots)).tolist()
    first, begin, total, behind = 0, 0, 0, 0
    for i, size in enumerate(sizes):
        kept = min(size, most_candidates)
        if i > first and (i - first == most_slots or total + kept > most_candidates):
            yield slice(first, i), slice(begin, begin + total)
            first, begin, total = i, behind, 0
        total += kept
        behind += size
    if sizes:
        yield slice(first, len(sizes)), slice(begin, begin + total)


def _shifted(y0: np.ndarray[Any, np.dtype[np.int32]], columns: slice) -> np.ndarray[Any, np.dtype[np.int32]]:
    """Return choices counted from a group's first candidate; -1 for those that are outside of the group."""
    among = (y0 >= columns.start) & (y0 < columns.stop)
    return np.where(among, y0 - columns.start, -1).astype(np.int32)
