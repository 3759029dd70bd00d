"""What words say by themselves: stems, what a slot is about, how a value is written.

Everything is a fixed table or a pattern, so that flags mean the same for functions that a head has never seen.
"""

from __future__ import annotations

import re
from functools import lru_cache

STOP_WORDS = frozenset(
    re.findall(
        r"\w+",
        "a an the of in on at to for from by with and or is are was be it i me my we you your please can could would "
        "want need that this as into over between what which how do does",
    )
)
STEM = 5  # letters of a word that count: "departing" and "departure" are one

SUBJECTS = {  # what a slot is about, by its name and its description
    "place": r"location|city|place|address|destination|origin|region|state|country|area|where|venue|town",
    "date": r"date|day|month|year|deadline|birthday|when",
    "time": r"time|hour|minute|clock|duration|schedule",
    "rate": r"percent\w*|rate|ratio|probab\w*|fraction|share|decimal|interest",
    "count": r"number of|count|amount|quantity|total|how many|num|limit|max\w*|min\w*|size|age",
    "money": r"price|cost|budget|salary|fee|currency|payment|dollars?|usd|income|loan",
    "person": r"name|person|author|artist|actor|actress|director|user|player|friend|contact|owner|team|receiver|sender",
    "title": r"title|song|track|album|movie|film|book|show|event|label|company|brand|model|restaurant|product|game",
    "code": r"id|identifier|code|key|token|uuid|number|account|isbn|sku|symbol|ticker|path|url|file|host",
    "text": r"text|message|content|query|description|note|comment|sentence|body|prompt|command|instruction|reason"
    r"|topic",
    "link": r"url|uri|host\w*|server|domain|endpoint|path|director\w*|files?|folder|address",
    "mail": r"e?-?mail",
    "unit": r"units?|format|currency|language|scale|metric|fahrenheit|celsius|imperial",
    "type": r"type|category|kind|genre|mode|style|level|status|class|method|cuisine|color|sort|order",
    "from": r"from|origin|source|start\w*|begin\w*|depart\w*|initial|first|base|departure|sender",
    "to": r"to|dest\w*|end\w*|arriv\w*|target|final|second|receiver|recipient",
    "list": r"list|array|items|options|several|each|tags|names|values",
    "switch": r"whether|if|true|false|include|enable\w*|flag|boolean|determines",
    "percent": r"percent\w*",
    "fraction": r"decimal|fraction|proportion|probab\w*|between 0 and 1|0 to 1|0\.\d+",
    "short": r"abbreviat\w*|short|code|symbol|initials|two[- ]letter|three[- ]letter|iso",
}
_PHRASE = re.compile(r"[^|]*(?: |\\\.)[^|]*")  # an alternative of several words, which no single one can be
_PHRASES = {
    name: re.compile(rf"\b(?:{'|'.join(phrases)})s?\b", re.I)
    for name, pattern in SUBJECTS.items()
    if (phrases := _PHRASE.findall(pattern))
}
_WORDS = {name: re.compile(rf"(?:{pattern})s?", re.I) for name, pattern in SUBJECTS.items()}
_TOKEN = re.compile(r"\w+")

LEADS = (  # words that stand in front of a value
    *(("from",), ("to", "into"), ("in", "inside", "within"), ("at",), ("on",), ("by",), ("for",), ("of",)),
    *(("with", "having"), ("is", "are", "was", "be", "being", "equals"), ("called", "named", "titled", "labeled")),
    *(("between",), ("and",), ("or",), ("near", "around"), ("about",), ("as",), ("than", "least", "most", "over")),
    *(("=", ":"), ("$", "€", "£", "¥"), ("the", "a", "an"), ("per", "every", "each"), ("no", "not", "without")),
)
LEAD_OF = {word: number for number, words in enumerate(LEADS) for word in words}

UNITS = {  # abbreviated, as they stand behind a number
    **{"m": "meter", "km": "kilometer", "cm": "centimeter", "mm": "millimeter", "ft": "feet", "mi": "mile"},
    **{"kg": "kilogram", "g": "gram", "mg": "milligram", "lb": "pound", "lbs": "pound", "oz": "ounce"},
    **{"l": "liter", "ml": "milliliter", "h": "hour", "hr": "hour", "hrs": "hour", "min": "minute", "mins": "minute"},
    **{"s": "second", "sec": "second", "ms": "millisecond", "c": "celsius", "f": "fahrenheit", "k": "kelvin"},
    **{"v": "volt", "w": "watt", "kw": "kilowatt", "kwh": "kilowatt", "hz": "hertz", "j": "joule", "n": "newton"},
    **{"pa": "pascal", "%": "percent", "mph": "mile", "kmh": "kilometer", "gb": "gigabyte", "mb": "megabyte"},
    **{"usd": "dollar", "eur": "euro"},
}
_MEASURED = re.compile(r"\d[\d.,]*([a-z]+)")

NEGATIONS = frozenset(  # a token ends before an apostrophe
    ("no", "not", "without", "never", "exclude", "excluding", "off", "don", "doesn", "didn", "isn", "aren", "won")
)

_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_WORD = re.compile(r"[^\W\d_]+")
_LETTERS = re.compile(r"[A-Z][^\W\d_]+|[A-Z]|[^\W\d_]+")
_NUMERAL = re.compile(r"\d")
_SAME = re.compile(r"\b(X|x|Xx)(?: \1\b)+")
MAX_SHAPE = 60  # characters of a value whose shape is looked at


@lru_cache(maxsize=1 << 12)
def words_of(name: str) -> str:
    """Return an identifier as words: "numUnits_max" is "num Units max"."""
    return _HUMP.sub(" ", name.replace("_", " ").replace(".", " "))


@lru_cache(maxsize=1 << 14)
def stem(word: str) -> str:
    """Return a word's first letters, so that its forms are one; a short word loses its plural only.

    This is a feature, which may be crude: "university" and "universe" are one. What becomes a candidate is compared by
    endings instead (``candidates``).
    """
    folded = word.casefold()
    return folded[:STEM] if len(folded) > STEM else folded.rstrip("s") or folded


@lru_cache(maxsize=1 << 12)
def stems(text: str) -> frozenset[str]:
    """Return the stems of a text's words, without those that stand anywhere."""
    words = _WORD.findall(words_of(text))
    return frozenset(stem(word) for word in words if word.casefold() not in STOP_WORDS)


def said_in(text: str, wanted: frozenset[str]) -> list[tuple[int, int]]:
    """Return where a text has words of these stems."""
    return [match.span() for match in _WORD.finditer(text) if stem(match.group()) in wanted]


def unit_of(word: str, before: str) -> str:
    """Return the unit that a token abbreviates, "meter" for "5m", or for "m" behind "5"; "" where it does not."""
    glued = _MEASURED.fullmatch(word)
    if glued is not None:
        return UNITS.get(glued.group(1), "")
    return UNITS.get(word, "") if before[-1:].isdigit() else ""


@lru_cache(maxsize=1 << 12)
def subjects(name: str, description: str) -> tuple[float, ...]:
    """Return per entry of ``SUBJECTS`` 1 where a slot's name says it, 0.5 where only its description does."""
    named, described = _subjects_in(name), _subjects_in(description)
    return tuple(1.0 if one in named else 0.5 if one in described else 0.0 for one in SUBJECTS)


def _subjects_in(text: str) -> set[str]:
    """Return the subjects that a text says, by one of its words or by several."""
    found = {name for name, phrases in _PHRASES.items() if phrases.search(text) is not None}
    return found.union(*map(_subjects_of, _TOKEN.findall(text)))


@lru_cache(maxsize=1 << 12)
def _subjects_of(word: str) -> frozenset[str]:
    return frozenset(name for name, words in _WORDS.items() if words.fullmatch(word) is not None)


@lru_cache(maxsize=1 << 12)
def shape(text: str) -> str:
    """Return how a text is written: "San Francisco, CA" is "Xx, X", "2023-04-15" is "9999-99-99"."""
    return _without_repeats(" ".join(map(_shape_of, text[:MAX_SHAPE].split(" "))))


@lru_cache(maxsize=1 << 12)
def _without_repeats(shapes: str) -> str:
    return _SAME.sub(r"\1", shapes)


@lru_cache(maxsize=1 << 12)
def _shape_of(word: str) -> str:
    if word.isalpha() and word.isascii():
        return _letters(word)
    return _NUMERAL.sub("9", _LETTERS.sub(lambda match: _letters(match.group()), word))


def _letters(word: str) -> str:
    if word.islower():
        return "x"
    return "X" if word.isupper() else "Xx"
