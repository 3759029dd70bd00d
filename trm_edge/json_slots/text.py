"""JSON text: strictly as RFC 8259 has it, or leniently, as a language model may write it.

Strict reading is the standard library's, narrowed: no NaN or Infinity, no name twice in an object, no number that
float64 cannot hold, no more than MAX_DEPTH levels and MAX_CHARACTERS characters. Lenient reading is for drafts that are
not JSON: it finds the first object or array in a text and guesses what was meant; having found one, it fails only where
that is too deep.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from ..errors import TrmInputError

Json = Any  # None, bool, int, float, str, list or dict of the same

MAX_DEPTH = 64
MAX_CHARACTERS = 1 << 20
MAX_DIGITS = 400  # of an integer; float64 ends at 309


class JsonTextError(TrmInputError):
    """A text is not JSON. The message says where and what was found."""


class JsonLimitError(JsonTextError):
    """A text is too long or too deep to be looked at."""


def parse(text: str | bytes) -> Json:
    """Read one JSON document, as RFC 8259 defines it.

    Parameters
    ----------
    text
        The document; bytes are UTF-8 without a byte order mark.

    Raises
    ------
    JsonTextError
        Where the text is not JSON, has a name twice in an object, or holds a number beyond float64.
    JsonLimitError
        Where it is deeper than MAX_DEPTH or longer than MAX_CHARACTERS.
    """
    text = _decoded(text)
    try:
        value = _STRICT.decode(text)
    except json.JSONDecodeError as error:
        raise JsonTextError(f"JSON: {error.msg}, line {error.lineno} column {error.colno}") from None
    except RecursionError:
        raise _too_deep() from None
    if depth(value) > MAX_DEPTH:
        raise _too_deep()
    return value


def parse_lenient(text: str | bytes) -> Json:
    """Read the first object or array of a text, forgiving what language models get wrong.

    Forgiven: prose and code fences around it, missing or wrong closing brackets, truncated text, missing or doubled
    commas, single and typographic quotes, quotes and line ends inside strings, bare names and words, Python's
    ``True``, ``None``, comments, NaN (read as null). Of a name that comes twice the last value counts.

    Raises
    ------
    JsonTextError
        Where there is neither a ``{`` nor a ``[``.
    JsonLimitError
        Where the text is deeper than MAX_DEPTH or longer than MAX_CHARACTERS.
    """
    return _LenientReader(joined(_decoded(text))).read()


def source_of(text: str, path: Sequence[str | int]) -> str:
    """Return how the part at ``path`` of a document that ``parse`` reads is spelt in it."""
    start, end = 0, len(text)
    for step in path:
        start, end = _part(text, start, step)
    return text[start:end]


def _part(text: str, start: int, step: str | int) -> tuple[int, int]:
    """Return from where to where a part stands of the object or array that begins at ``start``, but for blanks."""
    at, number = _behind_blanks(text, start) + 1, 0
    while True:
        at, name = _behind_blanks(text, at), number
        if isinstance(step, str):
            name, at = _STRICT.raw_decode(text, at)
            at = _behind_blanks(text, _behind_blanks(text, at) + 1)
        _, end = _STRICT.raw_decode(text, at)
        if name == step:
            return at, end
        at, number = _behind_blanks(text, end) + 1, number + 1


def _behind_blanks(text: str, at: int) -> int:
    match = _BLANK.match(text, at)
    assert match is not None
    return match.end()


def document_of(text: str) -> str:
    """Return the JSON document that a text begins with, or the text where that is none."""
    try:
        return text[: _STRICT.raw_decode(text)[1]]
    except (json.JSONDecodeError, JsonTextError, RecursionError):
        return text


def dumps(value: Json) -> str:
    """Write JSON in one line. Strings keep their characters; half a surrogate pair is escaped."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    return text if _SURROGATE.search(text) is None else json.dumps(value, allow_nan=False)


def same(a: Json, b: Json) -> bool:
    """Whether two values are equal as JSON Schema compares them: 1 equals 1.0, but not true."""
    if isinstance(a, str) and isinstance(b, str):
        return a == b
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(value, b[name]) for name, value in a.items())
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(same, a, b))
    return type_name(a) == type_name(b) and a == b


def identity_of(value: Json) -> Any:
    """Return what two values have in common where they are the ``same``; it can be hashed."""
    if isinstance(value, bool):
        return value, "boolean"
    if isinstance(value, dict):
        return frozenset((name, identity_of(inner)) for name, inner in value.items()), "object"
    return (tuple(map(identity_of, value)), "array") if isinstance(value, list) else value


def is_finite(number: float) -> bool:
    """Whether a number is one of float64's; integers may be larger."""
    try:
        return math.isfinite(number)
    except OverflowError:
        return False


def dumped(value: Any, **options: Any) -> Any:
    """Return what a client's own object holds, by its ``model_dump``; anything else as it is."""
    dump = None if isinstance(value, type) else getattr(value, "model_dump", None)
    return dump(**options) if callable(dump) else value


def joined(text: str) -> str:
    """Return a text whose halves of surrogate pairs are joined where they follow each other, as they are in JSON."""
    if _SURROGATE.search(text) is None:
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")


def type_name(value: Json) -> str:
    """Return the type of a value as JSON Schema calls it; an integral float is a ``number``, as an int is."""
    known = _TYPE_NAMES.get(type(value))
    if known is not None:
        return known
    for kind, name in _TYPE_NAMES.items():
        if isinstance(value, kind):
            return name
    raise TypeError(f"not a JSON value: {type(value).__name__}")


def depth(value: Json) -> int:
    """Return the levels of arrays and objects; a scalar has none."""
    level, values = 0, [value]
    while True:
        values = [v for v in values if isinstance(v, (dict, list))]
        if not values:
            return level
        level += 1
        values = [inner for v in values for inner in (v.values() if isinstance(v, dict) else v)]


_TYPE_NAMES: dict[type, str] = {
    **{type(None): "null", bool: "boolean", int: "number", float: "number"},
    **{str: "string", list: "array", dict: "object"},
}
_SURROGATE = re.compile("[\ud800-\udfff]")


def _too_deep() -> JsonLimitError:
    return JsonLimitError(f"JSON: deeper than {MAX_DEPTH} levels")


def _decoded(text: str | bytes) -> str:
    if isinstance(text, (bytes, bytearray)):
        try:
            text = bytes(text).decode("utf-8")
        except UnicodeDecodeError as error:
            raise JsonTextError(f"JSON: expected UTF-8, got byte {error.start} that is not") from None
    if not isinstance(text, str):
        raise JsonTextError(f"JSON: expected text, got {type(text).__name__}")
    if len(text) > MAX_CHARACTERS:
        raise JsonLimitError(f"JSON: expected at most {MAX_CHARACTERS} characters, got {len(text)}")
    return text


# ---- strict ----------------------------------------------------------------------------------------------------------


def _object(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    value = dict(pairs)
    if len(value) < len(pairs):
        twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise JsonTextError(f"JSON: name {twice[:80]!r} comes twice in one object")
    return value


def _integer(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise JsonTextError(f"JSON: number of {len(digits)} digits, expected at most {MAX_DIGITS}")
    return int(digits)


class WrittenFloat(float):
    """A number that was written otherwise than Python does, as 1.10, which may be meant as ``text``: a version, say."""

    text: str


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise JsonTextError(f"JSON: number {text[:40]} is beyond float64")
    if repr(value) == text:
        return value
    written = WrittenFloat(value)
    written.text = text
    return written


def _constant(name: str) -> Json:
    raise JsonTextError(f"JSON: {name} is not JSON")


_STRICT = json.JSONDecoder(
    object_pairs_hook=_object, parse_float=_float, parse_int=_integer, parse_constant=_constant, strict=True
)


# ---- lenient ---------------------------------------------------------------------------------------------------------

_FENCE = re.compile(r"```[ \t]*(?:json|javascript|js|python|py)?[ \t]*\r?\n?", re.I)
_SPACE = re.compile(r"(?:\s|//[^\n]*|#[^\n]*|/\*.*?(?:\*/|\Z)|\ufeff)*", re.S)
_BLANK = re.compile(r"\s*")
_NUMBER = re.compile(r"[-+]?(?:\d{1,400}(?:\.\d{0,400})?|\.\d{1,400})(?:[eE][-+]?\d{1,6})?(?=[\s,}\]:]|\Z|//|/\*|#)")
_WORD = re.compile(r"(?:[^,{}\[\]:\"\n\r]|:(?=//))+")
# What stands behind a value that has a name, from its comma on.
_NEXT = re.compile(r",\s*(?:[\"'\u201c\u2018`{}\],]|[\w$.-]{1,64}\s*[:=]|//|/\*|#|\Z)")
_QUOTES = {'"': '"', "'": "'", "\u201c": "\u201d", "\u2018": "\u2019", "`": "`"}
_ESCAPES = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_HEX = re.compile(r"[0-9a-fA-F]{4}")
_WORDS = {"true": True, "false": False, "null": None, "none": None, "nil": None, "undefined": None, "nan": None}


class _LenientReader:
    """Recursive descent that goes on where a strict reader would stop. Every step consumes text or leaves a level."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def read(self) -> Json:
        fence = None if self.text.lstrip()[:1] in ("{", "[") else _FENCE.search(self.text)
        starts = [fence.end()] if fence else []
        for start in [*starts, 0]:
            found = min((i for i in (self.text.find("{", start), self.text.find("[", start)) if i >= 0), default=None)
            if found is not None:
                self.at = found
                return self.value(0)
        raise JsonTextError("JSON: neither an object nor an array in the text")

    def space(self) -> str:
        """Skip white space and comments, and return the next character, empty at the end."""
        match = _SPACE.match(self.text, self.at)
        assert match is not None
        self.at = match.end()
        return self.text[self.at : self.at + 1]

    def value(self, level: int, named: bool = False) -> Json:
        first = self.text[self.at]
        if level >= MAX_DEPTH and first in "{[":
            raise _too_deep()
        if first == "{":
            return self.object(level)
        if first == "[":
            return self.array(level)
        if first in _QUOTES:
            return self.string(named)
        return self.bare()

    def object(self, level: int) -> dict[str, Json]:
        self.at += 1
        result: dict[str, Json] = {}
        while True:
            first = self.space()
            if first == "" or first in "}]":
                self.at += len(first)
                return result
            if first in ",:":
                self.at += 1
                continue
            if first in "{[":  # a value without a name
                self.value(level + 1)
                continue
            name = self.string() if first in _QUOTES else self.name()
            if self.space() in (":", "="):
                self.at += 1
                if self.text[self.at : self.at + 1] == ">":
                    self.at += 1
                first = self.space()
            else:
                first = self.text[self.at : self.at + 1]
                if first and first not in "{[":  # a name alone
                    result[name] = None
                    continue
            if first == "":
                return result
            result[name] = None if first in ",}]" else self.value(level + 1, named=True)

    def array(self, level: int) -> list[Json]:
        self.at += 1
        result: list[Json] = []
        while True:
            first = self.space()
            if first == "" or first in "]}":
                self.at += len(first)
                return result
            if first in ",:":
                self.at += 1
                continue
            result.append(self.value(level + 1))

    def string(self, named: bool = False) -> str:
        closing = _QUOTES[self.text[self.at]]
        self.at += 1
        parts: list[str] = []
        while self.at < len(self.text):
            char = self.text[self.at]
            self.at += 1
            if char == "\\":
                parts.append(self.escape())
            elif char == closing and self.ends_string(named):
                break
            else:
                parts.append(char)
        return "".join(parts)

    def ends_string(self, named: bool) -> bool:
        """Whether the quote just read closes: it does before what may follow a string, not inside a phrase.

        Behind a value that has a name, that is another name, not a colon.
        """
        after = _behind_blanks(self.text, self.at)
        follows = self.text[after : after + 1]
        if follows == "/":
            return self.text[after : after + 2] in ("//", "/*")
        if named and follows == ",":
            return _NEXT.match(self.text, after) is not None
        ends = ("", ",", "}", "]", "#") if named else ("", ",", "}", "]", ":", "=", "#")
        return follows in ends or (follows in _QUOTES and after > self.at)

    def escape(self) -> str:
        char = self.text[self.at : self.at + 1]
        self.at += 1
        digits = _HEX.match(self.text, self.at) if char == "u" else None
        if digits is None:
            return _ESCAPES.get(char, char)
        self.at = digits.end()
        code = int(digits.group(), 16)
        if 0xD800 <= code < 0xDC00 and self.text[self.at : self.at + 2] == "\\u":
            low = _HEX.match(self.text, self.at + 2)
            if low is not None and 0xDC00 <= int(low.group(), 16) < 0xE000:
                self.at = low.end()
                return chr(0x10000 + ((code - 0xD800) << 10) + (int(low.group(), 16) - 0xDC00))
        return chr(code)

    def name(self) -> str:
        start = self.at
        while self.at < len(self.text) and self.text[self.at] not in ":=,{}[]\n":
            self.at += 1
        if self.at == start:
            self.at += 1
        return self.text[start : self.at].strip().strip("\"'")

    def bare(self) -> Json:
        number = _NUMBER.match(self.text, self.at)
        if number is not None:
            self.at = number.end()
            return _number(number.group())
        word = _WORD.match(self.text, self.at)
        if word is None:  # a character that begins nothing
            self.at += 1
            return None
        self.at = word.end()
        text = word.group().strip()
        lowered = text.lower()
        if lowered.lstrip("+-") in ("infinity", "inf"):
            return None
        return _WORDS.get(lowered, text)


def _number(text: str) -> Json:
    try:
        if re.fullmatch(r"[-+]?\d+", text):
            return _integer(text)
        return _float(text)
    except (ValueError, JsonTextError):
        return None
