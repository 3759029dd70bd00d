"""``trm-edge demo slots``: a sentence becomes a Home Assistant call, step by step, without a language model.

The shipped head and its tools come from ``examples/home_assistant``: 42 functions, trained on sentences that templates
of the ``home-assistant-intents`` package make.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import stat
import sys
from collections.abc import Iterable, Iterator
from typing import Any

from .errors import TrmInputError
from .files import read_file
from .inputs import check_steps
from .json_slots import JsonSlots, ResolvedCall, Resolver
from .json_slots.resolver import STEPS as STEPS
from .shipped import example

PIPE_WAIT_S = 0.5  # for the first of a pipe: it may be one that nobody writes to
HEAD, TOOLS = example("home_assistant.trm"), example("home_assistant.json")
SENTENCES = (
    "turn on the lights in the kitchen",
    "dim the bedroom to twenty percent",
    "set a ten minute timer",
    "open the blinds in the living room",
    "add oat milk to my shopping list",
    "is the front door locked",
    "skip this song",
    "tell me a joke",
)


def run(arguments: argparse.Namespace) -> int:
    """Run the command ``trm-edge demo slots``."""
    steps = check_steps(STEPS if arguments.steps is None else arguments.steps, "slots")
    if steps < 1:
        raise TrmInputError("--steps: expected at least 1, got 0")
    resolver = Resolver(HEAD, steps=steps, by_step=True, decline_bonus=0.0)
    tools = [JsonSlots(tool) for tool in json.loads(read_file(TOOLS))]
    calls = []
    for sentence in _sentences(arguments.text):
        call = resolver.resolve_tool_call(tools, sentence)
        calls.append((sentence, call))
        if not arguments.json:
            print("\n".join(lines_of(sentence, call)))
    if arguments.json:
        print(json.dumps({"tools": len(tools), "steps": steps, "calls": [_facts(*made) for made in calls]}))
    return 0


def lines_of(sentence: str, call: ResolvedCall) -> Iterator[str]:
    """Yield the lines that show a call, or that there is none; a step that changed nothing says so."""
    yield sentence
    before: tuple[str | None, str | None] | None = None
    for number, (name, text) in enumerate(call.by_step, 1):
        made = "none of the functions" if name is None else f"{name} {text or ''}".rstrip()
        yield f"  step {number}  {'the same' if (name, text) == before else made}"
        before = name, text
    yield f"  {call.status}, confidence {call.confidence:.2f}, {call.duration_us / 1000:.1f} ms\n"


def _sentences(given: list[str]) -> Iterable[str]:
    """Return the sentence of the command line, or what is typed or piped, or the examples where there is nothing."""
    if given:
        return [" ".join(given)]
    return _typed() if sys.stdin.isatty() else _piped() or SENTENCES


def _piped() -> list[str]:
    """Return the lines of a file or pipe that standard input is; of a pipe only where something comes at once."""
    try:
        kind = os.fstat(sys.stdin.fileno()).st_mode
        if not stat.S_ISREG(kind) and not (stat.S_ISFIFO(kind) and select.select([sys.stdin], [], [], PIPE_WAIT_S)[0]):
            return []
    except (OSError, ValueError, AttributeError):  # closed, or none
        return []
    return [line.strip() for line in sys.stdin if line.strip()]


def _typed() -> Iterator[str]:
    print("Say what the house should do, for instance: " + SENTENCES[1] + "\nAn empty line ends it.\n")
    while True:
        try:
            sentence = input("> ").strip()
        except EOFError:
            return
        if not sentence:
            return
        yield sentence


def _facts(sentence: str, call: ResolvedCall) -> dict[str, Any]:
    return {
        "sentence": sentence,
        "name": call.name,
        "arguments": None if call.json is None else json.loads(call.json),
        "status": call.status,
        "confidence": call.confidence,
        "by_step": [{"name": name, "arguments": text} for name, text in call.by_step],
        "duration_us": call.duration_us,
    }
