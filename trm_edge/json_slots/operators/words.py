"""Words: the text itself, whole and in parts, quotations, and words that are spelt otherwise."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from typing import NamedTuple

from ..text import Json
from .base import Find, Operator, Write, once_per_query

MAX_WORDS = 8  # of a verbatim span
SHORT = 4  # words of a run that may be anywhere; a longer one is an end of the text, or between function words
MAX_RUNS = 512  # of a text: in a longer one the spans are shorter
MAX_FOLDED = 3  # words of a run that is also spelt otherwise
MAX_SENTENCES = 32  # of a text
MAX_SENTENCE = 600  # characters of one
LEAST_WORDS = 2  # of a verbatim span, that the longest text still has

# Chinese and Japanese part no words: there every character counts as one.
_TOKEN = re.compile(
    r"[\u3040-\u30ff\u3400-\u9fff]|[^\s,;:!?\"()\[\]{}\u3001\u3002\uff01\uff0c\uff1a\uff1b\uff1f\u3040-\u30ff\u3400-\u9fff]+"
)
_QUOTED = re.compile(r"(?<![A-Za-z0-9])(['\"`\u2018\u201c])(.{1,200}?)['\"`\u2019\u201d](?![A-Za-z0-9])", re.S)
_ENDS = ".'\u2019*"
_STARTS = "'\u2018*"
_SENTENCE_END = re.compile(r"([.!?]['\"*)]*)(?:\s+|$)|([\u3002\uff01\uff1f])|(?:\n|\\n)+")
_CLAUSE = re.compile(  # what it looks ahead for decides soonest
    r"(?=[acfinst:])(?:\b(?:to|that|about|saying|says?|named|called|titled|translate|is|for)|:)\s+(?=\S)", re.I
)
_SHORTENED = re.compile(r"(?:[A-Za-z]\.)+|[A-Z][a-z]{1,2}\.")  # "U.S.", "Mr."
_INNER = re.compile(r"(?<=[A-Za-z])[-/](?=[A-Za-z])|(?<=[\w)])=(?=[\w(+-])")

# What is never the first or the last word of a value, so that half of all runs need not be offered.
_ENDERS = """the a an of to for at and or with from by is are was were as that my your its into about than then if be
has have i we you which who while whose when where this these those can could would should will please me"""
_STARTERS = """of and or is are was were to for at on in with from by that as than then if be has have i we can could
would should will please me which who whose into it it's i'm i'd you do does did"""
_NOT_LAST, _NOT_FIRST = frozenset(_ENDERS.split()), frozenset(_STARTERS.split())
_NOT_ALONE = _NOT_LAST | _NOT_FIRST - {"on", "in", "do", "me"}


class Word(NamedTuple):
    """A word of a text: where it is, and what it is to a run of words."""

    start: int
    end: int
    text: str
    stops: bool  # a sentence ends behind it
    alone: bool  # a value may be it alone
    begins: bool  # a value may begin with it
    closes: bool  # a value may end with it
    bare_end: int  # its end without punctuation
    owner_end: int  # and without "'s", where it has that, else -1
    asked: bool  # a question mark or an exclamation mark follows


def may_begin(word: str) -> bool:
    """Whether a value may begin with a word: not with "of"."""
    return word not in _NOT_FIRST


def may_end(word: str) -> bool:
    """Whether a value may end with a word: not with "the"."""
    return word.rstrip(_ENDS) not in _NOT_LAST


@once_per_query
def words_of(text: str) -> Iterator[Word]:
    """Yield the words of a text in their order."""
    for match in _TOKEN.finditer(text):
        start, end, word = match.start(), match.end(), match.group()
        bare = word.rstrip(_ENDS)
        owner = len(bare) - 2 if bare[-2:] in ("'s", "\u2019s") and len(bare) > 2 else -1
        mark, behind = text[end : end + 1], text[end + 1 : end + 2]
        ends = word[-1] == "." and mark.isspace() and not _SHORTENED.fullmatch(word)
        stops = ends or mark in ("\n", "\u3002") or (mark in ("!", "?") and behind.isspace())
        ends_at = start + owner if owner > 0 else -1
        may = (word not in _NOT_ALONE, word not in _NOT_FIRST, bare not in _NOT_LAST)
        yield Word._make((start, end, word, stops, *may, start + len(bare), ends_at, mark in ("!", "?")))


def _find_words(text: str, now: dt.datetime | None) -> Iterable[tuple[int, int, Json]]:
    """Find runs of up to MAX_WORDS words, without what punctuation ends them."""
    return runs_of(text)


@once_per_query
def runs_of(text: str) -> Iterator[tuple[int, int, str]]:
    """Yield the runs of words that a value may be: without punctuation at the end, without "'s", with its "?"."""
    words = words_of(text)
    most = max(LEAST_WORDS, min(MAX_WORDS, MAX_RUNS // max(len(words), 1)))
    parted = [True, *(_parts(text, one, other) for one, other in pairwise(words)), True]  # in front of each word
    for first, word in enumerate(words):
        start = word.start + (word.text[0] in _STARTS and len(word.text) > 1)
        for last, other in enumerate(words[first : first + (most if word.begins else 1)], start=first):
            may = word.alone if last == first else other.closes
            if may and last - first >= SHORT and not (first == 0 or last + 1 == len(words)):
                may = parted[first] and parted[last + 1]
            if may:
                if other.bare_end > start:
                    yield start, other.bare_end, text[start : other.bare_end]
                if other.owner_end > start:
                    yield start, other.owner_end, text[start : other.owner_end]
                if other.asked and last > first:
                    yield start, other.end + 1, text[start : other.end + 1]
            if other.stops:
                break


def _parts(text: str, one: Word, other: Word) -> bool:
    """Whether a value may well end between two words in a row: at punctuation, or where either is a function word."""
    marked = one.bare_end < one.end or other.start > one.end + 1
    return marked or not one.alone or not other.alone


def _write_words(value: Json, now: dt.datetime | None) -> Iterator[str]:
    if isinstance(value, str) and any((start, end) == (0, len(value)) for start, end, _ in _find_words(value, now)):
        yield value


def _find_quoted(text: str, now: dt.datetime | None) -> Iterable[tuple[int, int, Json]]:
    return quoted_in(text)


@once_per_query
def quoted_in(text: str) -> Iterator[tuple[int, int, str]]:
    """Yield what stands in quotes, each with where it is."""
    for match in _QUOTED.finditer(text):
        yield match.start(2), match.end(2), match.group(2)


def _write_quoted(value: Json, now: dt.datetime | None) -> Iterator[str]:
    if isinstance(value, str) and 0 < len(value) <= 200 and not re.search(r"['\"`\u2018\u2019\u201c\u201d]", value):
        yield f"'{value}'"


def _find_sentences(text: str, now: dt.datetime | None) -> Iterator[tuple[int, int, Json]]:
    """Find the whole text, its sentences, what follows a colon in one, and what follows a word such as "that"."""
    yield from _stripped(text, 0, len(text))
    for begin, end in sentences_of(text)[:MAX_SENTENCES]:
        yield from _stripped(text, begin, end)
        for match in _CLAUSE.finditer(text, begin, end):
            long = text.count(" ", match.end(), end) >= MAX_WORDS - 1
            if long or text[match.start()] == ":" or text[end - 1] in "?!":
                yield from _stripped(text, match.end(), end)


@once_per_query
def sentences_of(text: str) -> Iterator[tuple[int, int]]:
    """Yield where each sentence of a text begins and ends; a line's end is also a sentence's."""
    begin = 0
    for match in _SENTENCE_END.finditer(text):
        end = max(match.end(1), match.end(2), match.start())
        if text[begin:end].strip():
            yield begin, end
        begin = match.end()
    if text[begin:].strip():
        yield begin, len(text)


def _stripped(text: str, begin: int, end: int) -> Iterator[tuple[int, int, str]]:
    """Yield a part of a text without the marks of a list or of emphasis around it."""
    while begin < end and text[begin] in " \t\n*#-":
        begin += 1
    while begin < end and text[end - 1] in " \t\n*":
        end -= 1
    if 1 < end - begin <= MAX_SENTENCE:
        yield begin, end, text[begin:end]


def _write_sentence(value: Json, now: dt.datetime | None) -> Iterator[str]:
    if isinstance(value, str) and "\n" not in value and value[-1:] in (".", "?") and len(value) < MAX_SENTENCE:
        text = f"Note:\n{value}\n"
        if any(found == value for _, _, found in _find_sentences(text, now)):
            yield f"\n{value}\n"


def _find_parts(text: str, now: dt.datetime | None) -> Iterator[tuple[int, int, Json]]:
    """Find the parts of words with a hyphen, a slash or "=": "gas" in "gas-fueled", "3x+2" in "y=3x+2"."""
    for word in words_of(text) if any(mark in text for mark in "-/=") and _INNER.search(text) is not None else ():
        cuts = [match.start() for match in _INNER.finditer(word.text)]
        for begin, end in zip([-1, *cuts], [*cuts, len(word.text)], strict=True) if 0 < len(cuts) < 3 else ():
            part = word.text[begin + 1 : end].rstrip(_ENDS)
            if part:
                yield word.start + begin + 1, word.start + begin + 1 + len(part), part


def _write_part(value: Json, now: dt.datetime | None) -> Iterator[str]:
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z]{2,20}", value):
        yield f"{value}-like"


@once_per_query
def _short_runs(text: str) -> Iterator[tuple[int, int, str]]:
    for run in runs_of(text):
        if run[2].count(" ") < MAX_FOLDED:
            yield run


@once_per_query
def _names(text: str) -> Iterator[tuple[int, int, str]]:
    """Yield the short runs of several words that a name may be made of."""
    for run in _short_runs(text):
        if " " in run[2] and _ARE_WORDS.fullmatch(run[2]):
            yield run


def _folded(
    runs: Callable[[str], Iterable[tuple[int, int, str]]], fold: Callable[[str], str], *others: Callable[[str], str]
) -> tuple[Find, Write]:
    """Return an operator's functions: runs of up to MAX_FOLDED words, spelt otherwise; ``others`` undo it."""

    def find(text: str, now: dt.datetime | None) -> Iterator[tuple[int, int, Json]]:
        for start, end, words in runs(text):
            spelt = fold(words)
            if spelt != words:
                yield start, end, spelt

    def write(value: Json, now: dt.datetime | None) -> Iterator[str]:
        if isinstance(value, str) and len(value) <= 80:
            for spelt in (other(value) for other in others):
                if spelt != value and any(found == value for _, _, found in find(f"x: {spelt}, x", now)):
                    yield spelt

    return find, write


def _title(words: str) -> str:
    """Return two words in lower case with capitals."""
    return words.title() if words.count(" ") == 1 and words.islower() and words.isascii() else words


def _snake(words: str) -> str:
    return "_".join(words.lower().split())


def _camel(words: str) -> str:
    first, *rest = words.lower().split()
    return first + "".join(word.capitalize() for word in rest)


def _spaced(words: str) -> str:
    """Return the words of a name: "living_room" and "livingRoom" are "living room"."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])|_", " ", words).lower()


def singular(words: str) -> str:
    """Return the last word's singular by English's regular endings, and some irregular ones."""
    head, _, last = words.rpartition(" ")
    if last.lower() in _IRREGULAR:
        return f"{head} {_IRREGULAR[last.lower()]}".lstrip()
    if not words.endswith("s"):
        return words
    for ending, instead in (("ies", "y"), ("sses", "ss"), ("shes", "sh"), ("ches", "ch"), ("xes", "x"), ("s", "")):
        if words.endswith(ending) and not words.endswith("ss"):
            return words[: len(words) - len(ending)] + instead
    return words


_ARE_WORDS = re.compile(r"[A-Za-z]\w*(?: [A-Za-z0-9]\w*){1,2}")
_IRREGULAR = {"women": "woman", "men": "man", "children": "child", "people": "person", "mice": "mouse", "feet": "foot"}
_IRREGULAR |= {"teeth": "tooth", "geese": "goose", "dice": "die", "lives": "life", "leaves": "leaf", "knives": "knife"}


OPERATORS = (
    Operator("words", _find_words, _write_words),
    Operator("quoted", _find_quoted, _write_quoted),
    Operator("sentence", _find_sentences, _write_sentence),
    Operator("part of a word", _find_parts, _write_part),
    Operator("lower", *_folded(_short_runs, str.lower, str.upper, str.title)),
    Operator("title", *_folded(_short_runs, _title, str.lower)),
    Operator("snake", *_folded(_names, _snake, _spaced, lambda name: _spaced(name).title())),
    Operator("camel", *_folded(_names, _camel, _spaced, lambda name: _spaced(name).title())),
    Operator("singular", *_folded(_short_runs, singular, lambda word: word + "s")),
)
