"""What a slot's description says of its values: which they are, what they stand for, how they are written.

Values that become candidates are read by stricter patterns than those whose shape alone counts.
"""

from __future__ import annotations

import re
from functools import lru_cache

from .coercion import number_of
from .text import Json
from .wording import shape

MAX_LITERALS = 32  # of a description
_QUOTED = re.compile(r"(?<!\w)(['\"`])([^'\"`\n]{1,80})\1(?!\w)")
_EXAMPLE = re.compile(r"\b(?:e\.g\.|such as|for example|for instance),? ([A-Za-z][^.;()'\"\n]{0,60})", re.I)
_CHOICES = re.compile(r"\(([A-Za-z][\w -]{0,30}(?:, ?[A-Za-z][\w -]{0,33}){2,12})\)")  # "(walk, bike, drive)"
_NUMBER = re.compile(r"(?<![\w.])-?\d{1,9}(?:\.\d{1,6})?(?![\w.]\w)")
_SENTENCE = re.compile(r"[;()]|\.(?!\d)")
# As in: "2700 for warm white".
_MEANING = re.compile(r"\s*(?:and |or )?['\"`]?([^\s'\"`]{1,40})['\"`]? (?:for|means) (.{1,80})")
_TEMPLATE = re.compile(r"\b(?:[YMDHS]{1,4}[-/:. T]){1,5}[YMDHS]{1,4}\b|\b(?:[ymdhs]{1,4}[-/:.]){1,5}[ymdhs]{1,4}\b")
_CITY = re.compile(r"city,? ?(?:and |or )?\(?(?:state|country)", re.I)
_SHOWN_EXAMPLE = re.compile(r"(?:e\.g\.|such as|for example|for instance|like),? ([^.;()'\"\n]{1,40})", re.I)


@lru_cache(maxsize=1024)
def literals_in(text: str) -> tuple[Json, ...]:
    """Return what a description quotes or gives as an example, then the numbers that it names."""
    found = [match.group(2) for match in _QUOTED.finditer(text)]
    for match in (*_EXAMPLE.finditer(text), *_CHOICES.finditer(text)):
        items = [part.strip().removeprefix("or ") for part in match.group(1).split(",")]
        found += [match.group(1).strip(), *(items if len(items) > 2 else ())]
    numbers = [number_of(match.group()) for match in _NUMBER.finditer(text)]
    return (*dict.fromkeys(found), *numbers)[:MAX_LITERALS]


@lru_cache(maxsize=1024)
def notes_in(text: str) -> dict[str, str]:
    """Return what a description says that values stand for: "2700 for warm white, 4000 for cold or cool white"."""
    notes: dict[str, str] = {}
    for sentence in _SENTENCE.split(text):
        value = ""
        for clause in sentence.split(","):
            meaning = _MEANING.fullmatch(clause)
            if meaning is not None:
                value, notes[meaning.group(1)] = meaning.group(1), meaning.group(2)
            elif value:
                notes[value] += f",{clause}"
    return notes


@lru_cache(maxsize=1 << 12)
def shapes_in(description: str) -> frozenset[str]:
    """Return the shapes of the values that a description shows: quoted, as an example, or as a template."""
    shown = [match.group(2) for match in _QUOTED.finditer(description)]
    shown += [match.group(1).strip() for match in _SHOWN_EXAMPLE.finditer(description)]
    found = {shape(text) for text in shown}
    found |= {re.sub(r"[A-Za-z]", "9", match.group().replace("T", " ")) for match in _TEMPLATE.finditer(description)}
    if _CITY.search(description):
        found |= {"Xx, X", "Xx, Xx"}
    return frozenset(found - {"x", "Xx", "X", "9"})
