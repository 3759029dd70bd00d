"""Candidates: what a slot of a tool call may become, given the query, the draft and the schema.

A slot's answer is one choice among: nothing (where it may be left out), the draft's own value, the values that the
schema names (``enum``, ``const``, ``default``, true and false, null), literals quoted in its description (for an array
also those of them that the query mentions), those of any number of ``examples`` (the names of a household, say) that
the query mentions, and what the operators read from the query, brought to the slot's type. Only values that are valid
for the slot are candidates.

What was read is brought to the types once per query (``TypedSpans``); a slot without constraints takes it as it is.
What a schema names is kept per slot.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from functools import cached_property, lru_cache
from itertools import combinations
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from .coercion import JOINTS, NUMERAL, coerced, fold_of, number_in, number_of, with_offset
from .described import literals_in, notes_in
from .operators import OPERATORS, Operator, Spans
from .operators.times import TIME_UNIT
from .operators.words import OTHER_WORDS, PARTICLES, singular
from .schema import MISSING, Array, Choice, Missing, Named, Object, Scalar, Schema, takes_null
from .slots import Slot
from .text import Json, identity_of
from .validation import FORMATS, violation

SOURCES = ("omit", "draft", "option", "default", "literal", "mentioned", "span", "tool")
MANY = 1000  # candidates of a slot, of which a head may not see all
WORDS = re.compile(r"[^\W_]+")
MAX_REPEATED = 16  # numbers that a query has again
MAX_ITEM_WORDS = 4  # of the one item of an array that is read from the query
MAX_MENTIONED = 4  # items of an array that the query may mention, of which every subset is a candidate
_STYLES = {  # operators that spell words otherwise, only for a slot whose description has a value of that style
    "snake": re.compile(r"[A-Za-z0-9]_[A-Za-z0-9]"),
    "camel": re.compile(r"\b[a-z]+[A-Z][a-z]"),
    "lower": re.compile(r"\blower[ -]?case\b", re.I),
    "title": re.compile(r"['\"`(,] ?[A-Z][a-z]+ [A-Z][a-z]+\b|\b[Tt]itle[ -]?case\b"),
}
_SPELT = {"words": "digits", "number": "digits", "number words": "words"}  # how numbers are that may be repeated
_WRITTEN = ("number", "number words", "ordinal")  # operators whose numbers may be meant as text: an account, a year


class Candidate(NamedTuple):
    """A value (``MISSING``: leave the slot out) and its source, one of ``SOURCES``.

    A span also has an operator and its place in the query; ``note`` is what is said about a value elsewhere, and
    ``named`` what the arguments of a tool name.
    """

    value: Json | Missing
    source: str
    operator: str = ""
    start: int = -1
    end: int = -1
    note: str = ""
    named: tuple[Named, ...] = ()


def _span(value: Json, operator: str, start: int, end: int) -> Candidate:
    """Return what was read from the query; this is the fastest way to make one."""
    return tuple.__new__(Candidate, (value, "span", operator, start, end, "", ()))


Key = Any  # of a text itself, of another value a tuple
ByKey = dict[Key, Candidate]
_encode = json.JSONEncoder(allow_nan=False).encode


def candidates_of(slot: Slot, draft: Json | Missing, spans: Spans) -> list[Candidate]:
    """Return a slot's candidates, those of the draft and the schema before the query's.

    Each value comes once, but for numbers that the query has at several places, which different slots may mean, and
    number words beside a literal: "thirty second" where a description says "half: 30".
    """
    read = _readings(spans)
    own: ByKey = {}
    for candidate in _proposals(slot, draft, read):
        own.setdefault(key_of(candidate.value), candidate)
    group = {} if isinstance(slot.schema, Scalar) and slot.schema.options is not None else _read_for(slot.schema, read)
    if not own.keys().isdisjoint(group.keys()):
        group = {key: one for key, one in group.items() if key not in own or _adds_place(one, own[key])}
    return [*own.values(), *group.values(), *_repeated(group, read)]


def _adds_place(span: Candidate, known: Candidate) -> bool:
    return known.source == "literal" and span.operator == "number words"


def most_said_first(candidates: list[Candidate], query: str) -> list[Candidate]:
    """Return candidates with the options in the order of how many of their words the query has.

    A head sees no more than ``max_candidates`` of a slot, the first ones.
    """
    said = set(WORDS.findall(query.lower()))
    options = [one for one in candidates if one.source == "option"]
    options.sort(key=lambda one: -sum(word in said for word in WORDS.findall(str(one.value).lower())))
    ordered = iter(options)
    return [next(ordered) if one.source == "option" else one for one in candidates]


def key_of(value: Json | Missing) -> Key:
    """Return what tells values apart as JSON text does: 1, 1.0, true and "1" are four; a text is its own."""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return "texts", tuple(value)
    if isinstance(value, (list, dict)):
        return "json", _encode(value)
    return "float" if isinstance(value, float) else type(value).__name__, value


# ---- from the draft and the schema -----------------------------------------------------------------------------------


def _proposals(slot: Slot, draft: Json | Missing, read: TypedSpans) -> Iterator[Candidate]:
    """Yield the candidates that are no spans, in the order in which they stand before these; values may come twice."""
    schema = slot.schema
    if slot.optional:
        yield Candidate(MISSING, "omit")
    if draft is not MISSING:
        if violation(schema, draft) is None:
            yield Candidate(draft, "draft")
        for value in (*coerced(schema, draft), *with_offset(schema, draft, read.now), *number_in(schema, draft)):
            yield Candidate(value, "draft")
    options, literals = _named_by(slot)
    yield from options
    if isinstance(schema, Scalar) and schema.options is not None:
        return
    for alternative in schema.alternatives if isinstance(schema, Choice) else (schema,):
        if isinstance(alternative, Scalar) and alternative.examples:
            yield from _exemplified(alternative, read)
    yield from literals
    if isinstance(schema, Array) and isinstance(schema.items, Scalar):
        yield from (Candidate(several, "mentioned") for several in _mentioned(schema, read) if _fits(several, schema))


_named: WeakKeyDictionary[Slot, tuple[list[Candidate], list[Candidate]]] = WeakKeyDictionary()


def _named_by(slot: Slot) -> tuple[list[Candidate], list[Candidate]]:
    """Return what a slot's schema names whatever the query says: its options and its default, then literals."""
    found = _named.get(slot)
    if found is None:
        found = _named[slot] = _options_and_literals(slot)
    return found


def _options_and_literals(slot: Slot) -> tuple[list[Candidate], list[Candidate]]:
    schema, notes = slot.schema, notes_in(slot.schema.description)
    options = [Candidate(value, "option", note=notes.get(str(value), "")) for value in _options(schema)]
    if isinstance(schema, Array) and schema.min_items == 0:
        options.append(Candidate([], "option"))
    if schema.default is not MISSING and violation(schema, schema.default) is None:
        options.append(Candidate(schema.default, "default"))
    literals = [
        Candidate(value, "literal", note=notes.get(str(value), ""))
        for literal in _literals(schema)
        for value in coerced(schema, literal)
    ]
    return options, literals


def _options(schema: Schema) -> Iterator[Json]:
    if isinstance(schema, Scalar):
        if schema.options is not None:
            free = _is_free(schema)
            yield from (option for option in schema.options if free or violation(schema, option) is None)
        elif schema.type == "boolean":
            yield from (True, False)
    elif isinstance(schema, Choice):
        for alternative in schema.alternatives:
            yield from (option for option in _options(alternative) if violation(schema, option) is None)
    elif isinstance(schema, Array) and isinstance(schema.items, Scalar) and schema.items.options is not None:
        yield from ([option] for option in _options(schema.items) if _fits([option], schema))
    if takes_null(schema):
        yield None


def _exemplified(schema: Scalar, read: TypedSpans) -> Iterator[Candidate]:
    """Yield those of a string's examples that the query mentions, but for case and what joins words."""
    known = _by_fold(schema.examples)
    for fold, (start, end) in read.phrases.items():
        for value in known.get(fold, ()):
            if violation(schema, value) is None:
                yield Candidate(value, "mentioned", "words", start, end)


@lru_cache(maxsize=256)
def _by_fold(texts: tuple[str, ...]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for text in texts:
        found.setdefault(fold_of(text), []).append(text)
    return found


def _mentioned(schema: Array, read: TypedSpans) -> list[list[Json]]:
    """Return arrays of those possible items that the query mentions, in its order: all, then fewer of them.

    An item is mentioned where the query has its words in any number and case, or (after those) one of its words.
    """
    literals = (value for literal in _literals(schema) for value in coerced(schema.items, literal))
    possible = {str(value): value for value in (*_options(schema.items), *literals) if value is not None}
    whole = sorted((read.phrases[fold], text) for text in possible if (fold := fold_of(text)) in read.phrases)
    partly = sorted(
        (min(at), text) for text in possible if (at := [read.stems[s] for s in _stems(text) if s in read.stems])
    )
    several: dict[tuple[str, ...], None] = {}
    for found in (whole, partly):
        names = [text for _, text in found]
        several[tuple(names)] = None
        if len(names) <= MAX_MENTIONED:
            several |= dict.fromkeys(some for size in (3, 2, 1) for some in combinations(names, size))
    return [[possible[text] for text in names] for names in several]


def _stems(text: str) -> Iterator[str]:
    """Yield the words of a text without the regular endings of English: "walking dogs" is "walk", "dog".

    Candidates are compared by these and not by ``wording.stem``, which takes different words for one.
    """
    for word in JOINTS.split(text.lower()):
        if len(word) > 2:
            yield _stem(word)


@lru_cache(maxsize=4096)
def _stem(word: str) -> str:
    word = singular(word)
    for ending in ("ing", "ed", "er", "e"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word[: len(word) - len(ending)]
    return word


def _literals(schema: Schema) -> Iterator[Json]:
    """Yield the literals of a description, of an array's also those of its items'."""
    yield from literals_in(schema.description)
    if isinstance(schema, Array) and not isinstance(schema.items, Object):
        yield from literals_in(schema.items.description)


# ---- from the query --------------------------------------------------------------------------------------------------


def operators_for(schemas: Iterable[Schema]) -> tuple[Operator, ...]:
    """Return the operators whose spans may become candidates of slots with these schemas, or parts of them."""
    names: set[str] = set()
    for schema in schemas:
        if isinstance(schema, Array):  # of texts and of numbers too, as arrays of one
            names.update(one.name for one in OPERATORS if one.name not in _STYLES)
        elif isinstance(schema, Scalar) and schema.type == "string" and (schema.options is None or schema.examples):
            apart = () if schema.examples else (OTHER_WORDS.name,)
            names.update(one.name for one in OPERATORS if one.makes == "texts" and one.name not in (*_STYLES, *apart))
            names.update(_WRITTEN, _styles_shown(schema))
        elif isinstance(schema, Scalar) and schema.type in ("number", "integer") and schema.options is None:
            names.update(one.name for one in OPERATORS if one.makes == "numbers")
            names.add("words")  # of which some are numerals
    return tuple(one for one in OPERATORS if one.name in names)


def _styles_shown(schema: Scalar) -> list[str]:
    """Return the styles of names that a description has one of."""
    return [style for style, shown in _STYLES.items() if shown.search(schema.description)]


@lru_cache(maxsize=256)
def _particles_named(description: str) -> frozenset[str]:
    """Return the particles that a description names beside their opposites: "on or off"."""
    words = set(WORDS.findall(description.lower()))
    return frozenset(one for one, other in PARTICLES.items() if one in words and other in words)


class TypedSpans:
    """The spans of one query by type: each group is what a slot of that type may take if it has no constraints.

    Attributes
    ----------
    now
        What relative dates are relative to.
    texts, numbers
        What was read as a text, and as a number.
    named
        What the operators wrote that only some slots take: names in a style (``_STYLES``), and other runs of words.
    particles
        Words as "off", which only slots take whose description names them.
    repeated
        The numbers that were read before, at other places.
    several
        What was read as an array, of any items.
    """

    def __init__(self, spans: Spans) -> None:
        self.now, self._text = spans.now, spans.text
        self.texts: ByKey = {}
        self.named: dict[str, ByKey] = {style: {} for style in (*_STYLES, OTHER_WORDS.name)}
        self.particles: ByKey = {}
        self.numbers: ByKey = {}
        self.repeated: list[Candidate] = []
        self.several: list[Candidate] = []
        self._arrays: dict[str, ByKey] = {}
        for operator, found in spans.groups:
            group = self.named.get(operator, self.texts)
            for start, end, value in found:
                if isinstance(value, str):
                    texts = self.particles if value in PARTICLES else group
                    if value not in texts:
                        texts[value] = _span(value, operator, start, end)
                    if operator == "words" and value[-1].isdecimal() and NUMERAL.fullmatch(value):
                        self._add_number(number_of(value), operator, start, end)
                elif isinstance(value, list):
                    self.several.append(_span(value, operator, start, end))
                else:
                    self._add_number(value, operator, start, end)
                    if operator in _WRITTEN and isinstance(value, int):
                        self.texts.setdefault(str(value), _span(str(value), operator, start, end))

    def _add_number(self, value: Json, operator: str, start: int, end: int) -> None:
        key, one = key_of(value), _span(value, operator, start, end)
        first = self.numbers.setdefault(key, one)
        if first is one or not self._may_be_meant_twice(first, one) or len(self.repeated) == MAX_REPEATED:
            return
        known = [first, *(other for other in self.repeated if key_of(other.value) == key)]
        if all(end <= other.start or other.end <= start for other in known):
            self.repeated.append(one)

    def _may_be_meant_twice(self, one: Candidate, other: Candidate) -> bool:
        """Whether numbers are two: "5 hours and five seconds", but not "three sides of 3", which says one again."""
        spelt = {_SPELT.get(one.operator), _SPELT.get(other.operator)}
        if None in spelt:
            return False
        return len(spelt) == 1 or all(TIME_UNIT.match(self._text, number.end) for number in (one, other))

    @cached_property
    def integers(self) -> ByKey:
        """Return the numbers that are whole, as integers."""
        found: ByKey = {}
        for candidate in map(_whole, self.numbers.values()):
            if isinstance(candidate.value, int):
                found.setdefault(key_of(candidate.value), candidate)
        return found

    def arrays(self, name: str) -> ByKey:
        """Return the arrays of texts, of numbers or of integers; of one item too."""
        found = self._arrays.get(name)
        if found is None:
            singles: Iterable[Candidate] = self.numbers.values() if name == "number" else self.integers.values()
            if name == "string":
                singles = [one for text, one in self.texts.items() if text.count(" ") < MAX_ITEM_WORDS]
            found = self._arrays[name] = _arrays_of(name, [*self.several, *singles])
        return found

    @cached_property
    def folded(self) -> list[tuple[Candidate, tuple[str, ...]]]:
        """Return the arrays with their items folded."""
        flat = [(one, [part for part in _list(one) if not isinstance(part, (list, dict))]) for one in self.several]
        return [
            (one, tuple(fold_of(str(part)) for part in parts)) for one, parts in flat if len(parts) == len(_list(one))
        ]

    @cached_property
    def phrases(self) -> dict[str, tuple[int, int]]:
        """Return where the query has its words and runs of words, folded."""
        found: dict[str, tuple[int, int]] = {}
        for text, one in (*self.texts.items(), *self.named[OTHER_WORDS.name].items(), *self.particles.items()):
            if one.operator in ("words", "singular", "part of a word", OTHER_WORDS.name):
                found.setdefault(fold_of(text), (one.start, one.end))
        return found

    @cached_property
    def stems(self) -> dict[str, int]:
        """Return where the query has words of these stems."""
        found: dict[str, int] = {}
        for text, one in self.texts.items():
            if one.operator in ("words", "part of a word") and " " not in text:
                for stem in _stems(text):
                    found.setdefault(stem, one.start)
        return found


@lru_cache(maxsize=4)
def _readings(spans: Spans) -> TypedSpans:
    return TypedSpans(spans)


def _read_for(schema: Schema, read: TypedSpans) -> ByKey:
    """Return what was read from the query and is valid for a slot."""
    if isinstance(schema, Scalar):
        group = _group_for(schema, read)
        return group if _is_free(schema) else {key: one for key, one in group.items() if _is_valid(schema, one)}
    if isinstance(schema, Choice):
        found = {key: one for some in schema.alternatives for key, one in _group_for(some, read).items()}
        return {key: one for key, one in found.items() if _is_valid(schema, one)}
    if isinstance(schema, Array):
        items = schema.items
        if isinstance(items, Scalar) and items.options is not None:
            return _arrays_of_options(schema, read)
        if isinstance(items, Scalar) and _is_free(items) and items.type in ("string", "number", "integer"):
            group = read.arrays(items.type)
            free = schema.min_items <= 1 and schema.max_items is None and not schema.unique
            return group if free else {key: one for key, one in group.items() if _fits(one.value, schema)}
        return _arrays(schema, [*read.several, *read.texts.values(), *read.numbers.values()])
    return {}


def _repeated(group: ByKey, read: TypedSpans) -> Iterator[Candidate]:
    """Yield the numbers of a group from the other places where the query has them."""
    for one in read.repeated:
        form = one if key_of(one.value) in group else _whole(one)
        if key_of(form.value) in group:
            yield form


def _whole(number: Candidate) -> Candidate:
    """Return a number as an integer, where it is whole."""
    value = number.value
    return number._replace(value=int(value)) if isinstance(value, float) and value.is_integer() else number


def _group_for(schema: Scalar, read: TypedSpans) -> ByKey:
    """Return what was read from the query of a scalar's type, whatever its constraints."""
    if schema.options is None:
        if schema.type == "string":
            named = [read.named[style] for style in _styles_shown(schema)]
            if read.particles and (shown := _particles_named(schema.description)):
                named.append({word: one for word, one in read.particles.items() if word in shown})
            return read.texts | {key: one for some in named for key, one in some.items()} if named else read.texts
        if schema.type == "number":
            return read.numbers
        if schema.type == "integer":
            return read.integers
    return {}


def _is_free(schema: Scalar) -> bool:
    """Whether every value of the type, or every option, is valid; no text that was read is empty."""
    bounds = (schema.minimum, schema.maximum, schema.exclusive_minimum, schema.exclusive_maximum, schema.multiple_of)
    lengths = schema.min_length <= (schema.options is None) and schema.max_length is None
    return bounds == (None,) * 5 and lengths and schema.format not in FORMATS


def _is_valid(schema: Schema, candidate: Candidate) -> bool:
    return violation(schema, candidate.value) is None


def _arrays(schema: Array, candidates: Iterable[Candidate]) -> ByKey:
    """Return the valid arrays that values may stand for. This takes longer than the other ways, but fits any items."""
    found: ByKey = {}
    for one in candidates:
        for value in coerced(schema, one.value):
            found.setdefault(key_of(value), _span(value, one.operator, one.start, one.end))
    return found


def _arrays_of(name: str, candidates: Iterable[Candidate]) -> ByKey:
    """Return arrays of a type, made of arrays and of single values."""
    found: ByKey = {}
    for one in candidates:
        parts = one.value if isinstance(one.value, list) else [one.value]
        value = [_as_item(part, name) for part in parts]
        if value and MISSING not in value:
            key = ("texts", tuple(value)) if name == "string" else key_of(value)
            found.setdefault(key, _span(value, one.operator, one.start, one.end))
    return found


def _arrays_of_options(schema: Array, read: TypedSpans) -> ByKey:
    """Return the arrays whose items are options of the array's items, but for letters' case and what joins words."""
    known = {fold_of(str(option)): option for option in _options(schema.items)}
    found: ByKey = {}
    for one, folds in read.folded:
        value = [known[fold] for fold in folds if fold in known]
        if len(value) == len(folds) > 0 and _fits(value, schema):
            found.setdefault(key_of(value), _span(value, one.operator, one.start, one.end))
    return found


def _list(candidate: Candidate) -> list[Json]:
    return candidate.value if isinstance(candidate.value, list) else []


def _as_item(value: Json, name: str) -> Json | Missing:
    """Return a value as one of a type, or MISSING. Numbers are floats: readers with types refuse [1, 2.5]."""
    if name == "string":
        if isinstance(value, str):
            return value
        return str(value) if isinstance(value, int) and not isinstance(value, bool) else MISSING
    number = number_of(value)
    if number is None:
        return MISSING
    if name == "number":
        return float(number) if abs(number) < 2**53 else number
    return int(number) if isinstance(number, int) or number.is_integer() else MISSING


def _fits(value: Json, schema: Array) -> bool:
    """Whether an array of valid items is valid."""
    if not schema.min_items <= len(value) <= (len(value) if schema.max_items is None else schema.max_items):
        return False
    return not schema.unique or len(set(map(identity_of, value))) == len(value)
