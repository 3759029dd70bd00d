"""Words: the text itself, quotations, and words that are spelt otherwise."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Iterable, Iterator

from ..text import Json
from .base import Find, Operator, Write, once_per_query

MAX_WORDS = 8  # of a verbatim span

_TOKEN = re.compile(r"[^\s,;:!?\"()\[\]{}]+")
_POSSESSIVE = re.compile(r"['\u2019]s$")
_QUOTED = re.compile(r"(?<![A-Za-z0-9])(['\"`\u2018\u201c])(.{1,200}?)['\"`\u2019\u201d](?![A-Za-z0-9])", re.S)
_ENDS = ".'\u2019"


def _find_words(text: str, now: dt.datetime | None) -> Iterable[tuple[int, int, Json]]:
    """Find runs of up to MAX_WORDS words, without what punctuation ends them."""
    return _runs(text)


@once_per_query
def _runs(text: str) -> Iterator[tuple[int, int, str]]:
    tokens = [(match.start(), match.end()) for match in _TOKEN.finditer(text)]
    for first, (start, _) in enumerate(tokens):
        for _, end in tokens[first : first + MAX_WORDS]:
            span = text[start:end].rstrip(_ENDS)
            owner = _POSSESSIVE.sub("", span)
            yield from ((start, start + len(run), run) for run in dict.fromkeys((span, owner)) if run)
            if text[end : end + 1] == "." and text[end + 1 : end + 2].isspace():
                break


def _write_words(value: Json, now: dt.datetime | None) -> Iterator[str]:
    if isinstance(value, str) and any((start, end) == (0, len(value)) for start, end, _ in _find_words(value, now)):
        yield value


def _find_quoted(text: str, now: dt.datetime | None) -> Iterator[tuple[int, int, Json]]:
    for match in _QUOTED.finditer(text):
        yield match.start(2), match.end(2), match.group(2)


def _write_quoted(value: Json, now: dt.datetime | None) -> Iterator[str]:
    if isinstance(value, str) and 0 < len(value) <= 200 and not re.search(r"['\"`\u2018\u2019\u201c\u201d]", value):
        yield f"'{value}'"


def _folded(fold: Callable[[str], str]) -> tuple[Find, Write]:
    """Return an operator's functions: runs of up to three words, spelt otherwise."""

    def find(text: str, now: dt.datetime | None) -> Iterator[tuple[int, int, Json]]:
        for start, end, words in _find_words(text, now):
            if words.count(" ") < 3 and (spelt := fold(words)) != words:
                yield start, end, spelt

    def write(value: Json, now: dt.datetime | None) -> Iterator[str]:
        for text in _write_words(value, now):
            for spelt in (text.lower(), text.title(), text.replace("_", " "), text + "s"):
                if spelt != text and fold(spelt) == text and spelt.count(" ") < 3 and any(_write_words(spelt, now)):
                    yield spelt

    return find, write


def _singular(words: str) -> str:
    """Return the last word's singular by English's regular endings."""
    for ending, instead in (("ies", "y"), ("sses", "ss"), ("shes", "sh"), ("ches", "ch"), ("xes", "x"), ("s", "")):
        if words.endswith(ending) and not words.endswith("ss"):
            return words[: len(words) - len(ending)] + instead
    return words


OPERATORS = (
    Operator("words", _find_words, _write_words),
    Operator("quoted", _find_quoted, _write_quoted),
    Operator("lower", *_folded(str.lower)),
    Operator("title", *_folded(str.title)),
    Operator("snake", *_folded(lambda words: words.lower().replace(" ", "_"))),
    Operator("singular", *_folded(_singular)),
)
