"""Words: the text itself, whole and in parts, quotations, and words that are spelt otherwise."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate, pairwise
from typing import NamedTuple

from ..text import Json
from .base import Find, Operator, Write, once_per_query

MAX_WORDS = 8  # of a verbatim span
ANYWHERE = 2  # words of a run that may stand anywhere
MAX_NAME = 4  # words of a name
SHORT_WORD = 3  # letters of a word that names may have without a capital: "de"
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
would should will please me which who whose into it it's i'm i'd you do does did off up out down"""
_NOT_LAST, _NOT_FIRST = frozenset(_ENDERS.split()), frozenset(_STARTERS.split())
PARTICLES = {"on": "off", "off": "on", "up": "down", "down": "up", "in": "out", "out": "in"}  # with their opposites
_NOT_ALONE = _NOT_LAST | _NOT_FIRST - PARTICLES.keys()


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
    small: bool  # it begins with a small letter and is no function word, or a short one ("de")

    @property
    def joins(self) -> bool:
        """Whether it is a function word."""
        return not (self.begins and self.closes)


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
        small = word[0].islower() and len(word) > SHORT_WORD and may[1] and may[2]
        yield Word._make((start, end, word, stops, *may, start + len(bare), ends_at, mark in ("!", "?"), small))


def _find_words(text: str, now: dt.datetime | None) -> Iterable[tuple[int, int, Json]]:
    """Find runs of up to MAX_WORDS words, without what punctuation ends them."""
    return runs_of(text)


@once_per_query
def runs_of(text: str) -> Iterator[tuple[int, int, str]]:
    """Yield the runs of words that a value may be: without punctuation at the end, without "'s", with its "?"."""
    for likely, run in _every_run(text):
        if likely:
            yield run


def _find_other_words(text: str, now: dt.datetime | None) -> Iterator[tuple[int, int, Json]]:
    """Find the runs that are no likely values, and may still be one that a schema names."""
    for likely, run in _every_run(text):
        if not likely:
            yield run


@once_per_query
def _every_run(text: str) -> Iterator[tuple[bool, tuple[int, int, str]]]:
    """Yield runs of words that begin and end as values do, and whether each is a likely one."""
    words, gaps = words_of(text), _gaps(text)
    most = max(LEAST_WORDS, min(MAX_WORDS, MAX_RUNS // max(len(words), 1)))
    for first, word in enumerate(words):
        start = word.start + (word.text[0] in _STARTS and len(word.text) > 1)
        for last, other in enumerate(words[first : first + (most if word.begins else 1)], start=first):
            if word.alone if last == first else other.closes:
                likely = gaps.hold(first, last + 1)
                if not likely and last - first >= MAX_NAME:
                    continue
                if other.bare_end > start:
                    yield likely, (start, other.bare_end, text[start : other.bare_end])
                if other.owner_end > start:
                    yield likely, (start, other.owner_end, text[start : other.owner_end])
                if other.asked and last > first:
                    yield likely, (start, other.end + 1, text[start : other.end + 1])
            if other.stops:
                break


class _Gaps(NamedTuple):
    """The places in front of each of W words, and the one behind the last.

    Attributes
    ----------
    marked
        [W + 1]: at the text's ends, and where a mark stands.
    parted
        [W + 1]: there, and beside a function word or a number.
    small
        [W + 1]: how many words with a small letter stand before; 0 everywhere in a text whose names have no capitals.
    cased
        Whether they have.
    """

    marked: Sequence[bool]
    parted: Sequence[bool]
    small: Sequence[int]
    cased: bool

    def hold(self, first: int, end: int) -> bool:
        """Whether the words between two places are likely to be a value.

        Two words are. More have to stand between marks, function words or numbers, or be a name: up to four, with
        capitals. A text of more has a mark at one end; where names have no capitals, it may end with the query.
        """
        if end - first <= ANYWHERE:
            return True
        apart = self.parted[first] and self.parted[end]
        if end - first <= MAX_NAME:
            return apart or self.small[first] == self.small[end]
        if self.cased:
            return apart and (self.marked[first] or self.marked[end])
        return apart or first == 0 or end + 1 == len(self.marked)


def _gaps(text: str) -> _Gaps:
    words = words_of(text)
    pairs = tuple(pairwise(words))
    marked = [True, *(_is_marked(one, other) for one, other in pairs), True]
    parted = [True, *(_is_marked(one, other) or _parts(one, other) for one, other in pairs), True]
    cased = any(_is_name(other.text) and not one.stops for one, other in pairs)
    small = [0, *accumulate(word.small and cased for word in words)]
    return _Gaps(marked, parted, small, cased)


def _is_marked(one: Word, other: Word) -> bool:
    """Whether a mark stands between two words in a row."""
    return one.bare_end < one.end or other.start > one.end + 1 or other.text[0] in _STARTS


def _parts(one: Word, other: Word) -> bool:
    """Whether a value may well end between two words in a row: where either is a function word or a number."""
    return one.joins or other.joins or one.text[0].isdecimal() or other.text[0].isdecimal()


def _is_name(word: str) -> bool:
    return word[0].isupper() and word != "I" and word[:2] not in ("I'", "I\u2019")


def _write_words(value: Json, now: dt.datetime | None) -> Iterator[str]:
    if isinstance(value, str) and value.count(" ") < MAX_NAME and (0, len(value), value) in runs_of(value):
        yield value


def _write_other_words(value: Json, now: dt.datetime | None) -> Iterator[str]:
    text = f"see Bo first {value} last"
    if isinstance(value, str) and any(found == value for _, _, found in _find_other_words(text, now)):
        yield text


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


OTHER_WORDS = Operator("other words", _find_other_words, _write_other_words)
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
