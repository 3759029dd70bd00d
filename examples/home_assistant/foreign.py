"""Sentences that ask a house for nothing that its tools do, for a head that may decline them.

They are queries of the Berkeley leaderboard (``pip install --no-deps bfcl-eval``; those with a word of the house's are
left out), parts of them, and words that no language has. Every fifth query is kept from training; ``foreign.txt``, what
people also say to a house, is for tests only.
"""

from __future__ import annotations

import importlib.util
import json
import re
from functools import lru_cache
from pathlib import Path
from random import Random

HERE = Path(__file__).parent
HELD_OUT_EVERY = 5
PART_SHARE, NONSENSE_SHARE = 0.3, 0.1  # of the foreign sentences: a few words of a query, and invented words
SMALL_SHARE, MAX_WORDS = 0.5, 24  # of the queries, as people type them into a house: small letters, without a mark
_HOUSE = re.compile(
    r"\b(light|lamp|bulb|bright|dim|turn|switch|toggle|open|close|lock|unlock|door|gate|garage|window|blind|curtain|shade"
    r"|shutter|cover|valve|fan|heat|cool|thermostat|temperature|climate|humid|warm|cold|vacuum|clean|mow|lawn|timer|alarm"
    r"|remind|pause|resume|play|stop|music|song|track|album|media|tv|television|volume|mute|channel|speaker|shopping|list"
    r"|todo|to-do|task|weather|forecast|rain|room|kitchen|bedroom|bathroom|home|house|scene|script|sensor|battery|camera"
    r"|announce|broadcast|date|time|day|thank|hello|never ?mind|cancel|location|where is|state of)\w*",
    re.I,
)
_FILES = ("simple_python", "multiple", "live_simple", "live_multiple", "irrelevance", "live_irrelevance")


@lru_cache(maxsize=1)
def queries() -> tuple[list[str], list[str]]:
    """Return the queries for training, and those for tests, that ask for nothing of a house."""
    found = importlib.util.find_spec("bfcl_eval")
    if found is None or found.origin is None:
        raise SystemExit("bfcl_eval is not installed: pip install --no-deps bfcl-eval")
    texts: dict[str, None] = {}
    for name in _FILES:
        for line in (Path(found.origin).parent / "data" / f"BFCL_v4_{name}.json").read_text().splitlines():
            text = " ".join(json.loads(line)["question"][0][-1]["content"].split())
            if text.isascii() and 2 <= len(text.split()) <= MAX_WORDS and not _HOUSE.search(text):
                texts[text] = None
    every = list(texts)
    return [text for i, text in enumerate(every) if i % HELD_OUT_EVERY], every[::HELD_OUT_EVERY]


def everyday() -> list[str]:
    """Return sentences that people also say to a house, none of which its tools answer."""
    return (HERE / "foreign.txt").read_text(encoding="utf-8").splitlines()


def foreign(count: int, seed: int, words: list[str]) -> list[str]:
    """Draw foreign sentences for training; ``words`` are some that no language has."""
    rng = Random(seed)
    known, _ = queries()
    return [_drawn(rng, known, words) for _ in range(count)]


def _drawn(rng: Random, known: list[str], words: list[str]) -> str:
    if rng.random() < NONSENSE_SHARE:
        return " ".join(rng.sample(words, rng.randint(1, 4)))
    text = rng.choice(known)
    if rng.random() < PART_SHARE:
        several = text.split()
        begin = rng.randrange(len(several))
        text = " ".join(several[begin : begin + rng.randint(1, 5)])
    return text.lower().rstrip(".?! ") if rng.random() < SMALL_SHARE else text
