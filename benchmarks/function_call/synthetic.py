"""Synthetic calls: queries written from the schemas of tools, with the arguments that they ask for.

    python benchmarks/function_call/synthetic.py --show 20              samples
    python benchmarks/function_call/synthetic.py --show 20 --real       of BFCL's examples with other values
    python benchmarks/function_call/synthetic.py --show 0 --check 500   how many of them the candidates hold

A query is a request from the function's description, with phrases for the arguments that are given; values are drawn by
the kind of each property. All is seeded by text, so that it is the same on every machine. The tools of the command are
those that fold 0 is trained on, which needs pip install --no-deps bfcl-eval.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import random
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from function_call.bfcl import Example, labels
from function_call.kinds import words_of
from function_call.phrases import capital, opening, sentence, tail
from function_call.pools import CLOSINGS, DISTRACTORS, GREETINGS
from function_call.values import Drawn, Rng, draw
from trm_edge.json_slots import JsonSlots, SchemaError, Tool, compile_tool
from trm_edge.json_slots.schema import Array, Object, Schema
from trm_edge.json_slots.validation import violation

SHARES = (0.0, 0.15, 0.3, 0.5, 0.8)  # of the optional properties, one of these for each query
MAX_OPTIONAL = 4
APART = {
    True: 0.12,
    False: 0.35,
}  # share of required and of optional arguments that are said in a sentence of their own
DISTRACTED, GREETED, CLOSED, LOWERED, UNSTOPPED = 0.1, 0.08, 0.07, 0.06, 0.12


@dataclass(frozen=True)
class Synthetic:
    """A query that asks for a call of a tool with these arguments, and nothing else."""

    tool: dict[str, Any]
    query: str
    arguments: dict[str, Any]

    @property
    def answer(self) -> dict[str, list[Any]]:
        """Return the arguments as BFCL writes what is right: a list for each name; absent ones may be left out."""
        return {name: [_listed(value)] for name, value in self.arguments.items()}

    def as_example(self, identity: str) -> Example:
        """Return it as an example like those of BFCL, of one tool."""
        return Example(identity, self.query, [self.tool], self.tool["name"], self.answer)


def _listed(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: [_listed(inner)] for name, inner in value.items()}
    if isinstance(value, list) and any(isinstance(item, dict) for item in value):
        return [_listed(item) for item in value]
    return value


def synthetic(tool: dict[str, Any], count: int, seed: int = 0, now: dt.datetime | None = None) -> list[Synthetic]:
    """Return up to ``count`` different queries for a tool; none where its schema is not supported.

    With ``now``, dates may be said relative to it.
    """
    try:
        compiled = compile_tool(tool)
    except SchemaError:
        return []
    found: dict[str, Synthetic] = {}
    identity = json.dumps(tool, sort_keys=True)
    for i in range(2 * count):
        one = _one(tool, compiled, random.Random(f"{seed} {i} {identity}"), now)
        if one is not None and len(found) < count:
            found.setdefault(one.query, one)
    return list(found.values())


def is_held(one: Synthetic | Example, now: dt.datetime | None = None) -> bool:
    """Whether the candidates of the tool's slots hold the right arguments; what they do not hold trains nothing."""
    try:
        bound = JsonSlots(one.tool).bind(one.query, now=now)
    except SchemaError:
        return False
    return labels(bound, one.answer) is not None


# ---- one query -------------------------------------------------------------------------------------------------------


def _one(tool: dict[str, Any], compiled: Tool, rng: Rng, now: dt.datetime | None) -> Synthetic | None:
    given: dict[str, Drawn] = {}
    arguments = _drawn(compiled.arguments, rng, now, given, "", rng.choice(SHARES))
    if arguments is None or violation(compiled.arguments, arguments) is not None:
        return None
    query = _query(compiled, given, rng)
    said = all(drawn.text.lower() in query.lower() for drawn in given.values())
    return Synthetic(tool, query, arguments) if said else None


def _drawn(
    schema: Object, rng: Rng, now: dt.datetime | None, given: dict[str, Drawn], path: str, share: float
) -> dict[str, Any] | None:
    """Return drawn arguments, adding them to ``given`` by their names; None where a required one has no value."""
    result: dict[str, Any] = {}
    optional = [name for name in schema.properties if name not in schema.required]
    chosen = {name for name in optional if rng.random() < share}
    chosen = set(rng.sample(sorted(chosen), MAX_OPTIONAL)) if len(chosen) > MAX_OPTIONAL else chosen
    if schema.properties and not schema.required and not chosen:
        chosen = {rng.choice(optional)}
    for name, inner in schema.properties.items():
        if name not in schema.required and name not in chosen:
            continue
        value = _value(name, inner, rng, now, given, path, share)
        if value is not None:
            result[name] = value
        elif name in schema.required:
            return None
    _set_in_order(result, given, path)
    return result


def _set_in_order(result: dict[str, Any], given: dict[str, Drawn], path: str) -> None:
    """Let what begins at a day, or at a number, not end before."""
    for kind in ("date", "year", "time"):
        names = [name for name in result if f"{path}{name}" in given and given[f"{path}{name}"].kind == kind]
        first = next(
            (name for name in names if re.search(r"start|from|begin|check ?in|depart|pick", words_of(name))), None
        )
        last = next(
            (name for name in names if re.search(r"end|to\b|until|check ?out|return|drop", words_of(name))), None
        )
        if first is None or last is None or first == last:
            continue
        a, b = given[f"{path}{first}"], given[f"{path}{last}"]
        if type(a.value) is type(b.value) and _order(a.value) > _order(b.value):
            given[f"{path}{first}"], given[f"{path}{last}"] = b, a
            result[first], result[last] = b.value, a.value


def _order(value: Any) -> Any:
    """Return what days sort by: the year before month and day."""
    return sorted(re.findall(r"\d+", value), key=len, reverse=True) if isinstance(value, str) else value


def _value(
    name: str, schema: Schema, rng: Rng, now: dt.datetime | None, given: dict[str, Drawn], path: str, share: float
) -> Any:
    if isinstance(schema, Object):
        return (_drawn(schema, rng, now, given, f"{path}{name}.", share) or None) if not path else None
    if isinstance(schema, Array) and isinstance(schema.items, Object):
        one = _drawn(schema.items, rng, now, given, f"{path}{name}.", share) if not path else None
        return [one] if one else None
    drawn = draw(name, schema, rng, now)
    if drawn is None or _said_before(drawn, given.values()):
        return None
    given[f"{path}{name}"] = drawn
    return drawn.value


def _said_before(drawn: Drawn, others: Iterable[Drawn]) -> bool:
    """Whether a text or a value is that of another argument too, which a query would not say twice."""
    same = any(drawn.text == other.text or drawn.value == other.value for other in others)
    return same and isinstance(drawn.value, (str, list)) and drawn.kind != "boolean"


def _query(compiled: Tool, given: Mapping[str, Drawn], rng: Rng) -> str:
    required = compiled.arguments.required
    whole = {path: drawn for path, drawn in given.items() if "." not in path}
    request, end, used = opening(compiled.name, compiled.description, whole, rng)
    rest = [(path, drawn) for path, drawn in given.items() if path not in used]
    if rng.random() < 0.15:
        rng.shuffle(rest)
    apart = [rng.random() < APART[path.split(".")[0] in required] for path, _ in rest]
    tails = [
        tail(path.rpartition(".")[2], drawn, rng) for (path, drawn), alone in zip(rest, apart, strict=True) if not alone
    ]
    more = [
        sentence(path.rpartition(".")[2], drawn, rng) for (path, drawn), alone in zip(rest, apart, strict=True) if alone
    ]
    if tails and re.match(r"(?:in|on|at|for|from) ", tails[0]) and rng.random() < 0.06:
        request, tails = f"{tails[0]}, {request[:1].lower()}{request[1:]}", tails[1:]
    text = _joined(request, tails, rng) + end
    if more and rng.random() < 0.12:
        more.insert(0, text)
        more.insert(0, more.pop(1))
    else:
        more.insert(0, text)
    return _finished([capital(part) for part in more], rng)


def _joined(request: str, tails: list[str], rng: Rng) -> str:
    """Return a request that goes on with phrases: like ones by "and", others by a space or a comma."""
    text, before = request, ""
    for i, phrase in enumerate(tails):
        last = i == len(tails) - 1
        if before.startswith("with ") and phrase.startswith("with "):
            phrase = phrase.removeprefix("with ")
            text += (" and " if last else ", ") + phrase
            before = "with " + phrase
            continue
        if phrase.startswith(":"):
            text += phrase
        elif re.match(r"\(|(?:and|but|from|to|until|in|on|at|for|by|with) ", phrase) or not before:
            text += f" {phrase}"
        else:
            text += rng.choice((", ", " and ", ", ")) + phrase
        before = phrase
    return text


def _finished(sentences: list[str], rng: Rng) -> str:
    if rng.random() < DISTRACTED:
        sentences.insert(rng.choice((0, len(sentences))), rng.choice(DISTRACTORS))
    if rng.random() < GREETED:
        greeting = rng.choice(GREETINGS)
        first = sentences[0]
        lowers = greeting.endswith(",") and re.match(r"(?:I\b|I')", first) is None
        sentences[0] = f"{greeting} {first[:1].lower() + first[1:] if lowers else first}"
    if rng.random() < CLOSED:
        sentences.append(rng.choice(CLOSINGS))
    text = " ".join(sentences)
    if rng.random() < UNSTOPPED:
        text = text.rstrip(".?")
    return text.lower() if rng.random() < LOWERED else text


# ---- command ---------------------------------------------------------------------------------------------------------


def generated(tools: Iterable[dict[str, Any]], count: int, seed: int = 0) -> Iterator[Synthetic]:
    """Yield up to ``count`` queries for every tool."""
    for tool in tools:
        yield from synthetic(tool, count, seed)


def main() -> None:
    """Print samples and the share that the candidates hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--show", type=int, default=20, help="samples to print")
    parser.add_argument("--real", action="store_true", help="of BFCL's examples with other values")
    parser.add_argument("--check", type=int, default=0, help="look up so many among the candidates")
    parser.add_argument("--fold", type=int, default=0, help="whose training part is taken")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    from function_call.folds import split
    from function_call.substitution import texts_of, variants

    part, rng = split(arguments.fold), random.Random(f"show {arguments.seed}")
    count = max(arguments.show, arguments.check)
    made: list[Example] = []
    if arguments.real:
        others = texts_of(part.train)
        for example in rng.sample(part.train, len(part.train)):
            made += variants(example, 1, arguments.seed, others) if len(made) < count else []
    else:
        for tool in rng.sample(part.tools, len(part.tools)) * (1 + count // len(part.tools)):
            some = synthetic(tool, 1, arguments.seed + len(made) // len(part.tools)) if len(made) < count else []
            made += [one.as_example(f"synthetic_{len(made)}") for one in some]
    for example in made[: arguments.show]:
        shown = {name: values[0] for name, values in example.answer.items() if values[0] != ""}
        print(f"{example.query}\n    {example.name} {json.dumps(shown, ensure_ascii=False)}")
    if arguments.check:
        held = sum(is_held(example) for example in made[: arguments.check])
        print(f"the candidates hold {held} of {min(len(made), arguments.check)}")


if __name__ == "__main__":
    main()
