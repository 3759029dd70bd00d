"""The Berkeley Function Calling Leaderboard: its examples, its checker, and the choices that its answers ask for.

Needs ``pip install --no-deps bfcl-eval``: its requirements, clients of a dozen services, pin another NumPy. The data
and the checker are the package's; only its table of models, which imports those clients, has a stand-in.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import re
import sys
import types
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from trm_edge.json_slots import JsonSlots, SchemaError, SlotInputs
from trm_edge.json_slots.schema import MISSING, Missing

SETS = ("simple_python", "multiple", "live_simple", "live_multiple")
NO_TOOL_FITS = ("irrelevance", "live_irrelevance")  # sets of queries for which none of the tools offered is right
MODEL = "any"
TYPES = {"dict": "object", "tuple": "array", "float": "number"}  # BFCL's names, in JSON Schema's words


@dataclass(frozen=True)
class Example:
    """One query, the tools offered, the name of the right one, and per argument the values that count as right.

    ``""`` among an argument's values means that it may be left out. ``changes`` are the values and texts that a variant
    of an example has others for.
    """

    identity: str
    query: str
    tools: list[dict[str, Any]]
    name: str
    answer: dict[str, list[Any]]
    changes: tuple[tuple[Any, Any], ...] = ()

    @property
    def tool(self) -> dict[str, Any]:
        """Return the right tool."""
        return next(tool for tool in self.tools if tool["name"] == self.name)


def folder() -> Path:
    """Return where the installed package keeps its data, without importing it."""
    found = importlib.util.find_spec("bfcl_eval")
    if found is None or found.origin is None:
        raise SystemExit("bfcl_eval is not installed: pip install --no-deps bfcl-eval")
    return Path(found.origin).parent / "data"


def examples(name: str) -> list[Example]:
    """Read one of ``SETS``."""
    answers = {row["id"]: row["ground_truth"] for row in _rows(folder() / "possible_answer", name)}
    result = []
    for row in _rows(folder(), name):
        ((called, answer),) = answers[row["id"]][0].items()
        result.append(Example(row["id"], _said(row), row["function"], called, answer))
    return result


def irrelevant(name: str) -> list[Example]:
    """Read one of ``NO_TOOL_FITS``, as examples whose right tool has no name."""
    return [Example(row["id"], _said(row), row["function"], "", {}) for row in _rows(folder(), name)]


def _rows(folder: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / f"BFCL_v4_{name}.json").read_text().splitlines()]


def _said(row: Mapping[str, Any]) -> str:
    return " ".join(turn["content"] for turns in row["question"] for turn in turns if turn["role"] == "user")


def compiled(example: Example) -> dict[str, JsonSlots]:
    """Return the tools of an example by name, without those whose schemas are refused."""
    found: dict[str, JsonSlots] = {}
    for tool in example.tools:
        try:
            found[tool["name"]] = JsonSlots(tool)
        except SchemaError:
            continue
    return found


def passes(example: Example, arguments: Any) -> bool:
    """Whether BFCL's checker takes a call of the right tool with these arguments."""
    checker, python = _checker()
    result = checker(example.tool, {example.name: arguments}, {example.name: example.answer}, python, MODEL)
    return bool(result["valid"])


def right_arguments(example: Example, arguments: dict[str, Any]) -> dict[str, tuple[int, int]]:
    """Return, by type, how many arguments of a call of the right tool BFCL's checker takes, and of how many.

    Each is judged as a call's only one; one that is left out is right where it may be.
    """
    counts: dict[str, tuple[int, int]] = {}
    parameters = example.tool["parameters"]
    for name, schema in parameters["properties"].items():
        wanted = example.answer.get(name, [""])
        alone = {"type": parameters["type"], "properties": {name: schema}, "required": []}
        asked = replace(example, tools=[example.tool | {"parameters": alone}], answer={name: wanted})
        given = {name: arguments[name]} if name in arguments else {}
        kind = TYPES.get(schema.get("type"), schema.get("type", "any"))
        right, count = counts.get(kind, (0, 0))
        counts[kind] = right + passes(asked, given), count + 1
    return counts


def _checker() -> tuple[Any, Any]:
    models = "bfcl_eval.constants.model_config"
    if models not in sys.modules:
        stand_in = types.ModuleType(models)
        keeps_names = types.SimpleNamespace(underscore_to_dot=False)
        stand_in.MODEL_CONFIG_MAPPING = {MODEL: keeps_names}  # type: ignore[attr-defined]
        sys.modules[models] = stand_in
    module = importlib.import_module("bfcl_eval.eval_checker.ast_eval.ast_checker")
    return module.simple_function_checker, module.Language.PYTHON


# ---- labels ----------------------------------------------------------------------------------------------------------


class Labels(NamedTuple):
    """Choices [S] that make a right answer, and whether a candidate is right for its slot, [M]."""

    chosen: np.ndarray[Any, np.dtype[np.int32]]
    right: np.ndarray[Any, np.dtype[np.bool_]]


def labels(bound: SlotInputs, answer: dict[str, list[Any]], only_said: bool = False) -> Labels | None:
    """Return the choices that make one of the right answers, or None where the candidates hold none.

    Of the candidates that fit, the draft's is taken, or else the first. With ``only_said``, as a head should learn it,
    what may be left out is left out unless the query or the draft has it.
    """
    by_path: dict[tuple[Any, ...], int] = {slot.path: i for i, slot in enumerate(bound.slots)}
    chosen = np.full(len(bound.slots), -1, dtype=np.int32)
    right = np.zeros(len(bound.candidates), bool)

    def leave_out(path: tuple[Any, ...]) -> bool:
        return all([choose(i, [MISSING]) for known, i in by_path.items() if known[: len(path)] == path])

    def parts_of(path: tuple[Any, ...]) -> list[Any]:
        return list(dict.fromkeys(known[len(path)] for known in by_path if known[: len(path)] == path))

    def choose(i: int, values: list[Any]) -> bool:
        fitting = [
            int(j) for value in values for j in np.flatnonzero(bound.mask[i]) if fits(value, bound.candidates[j].value)
        ]
        drafted = [j for j in fitting if j == bound.y0[i] and bound.draft.value is not MISSING]
        if only_said and any(value is MISSING for value in values):
            said = [j for j in fitting if _is_said(bound, j)]
            fitting = said or [j for j in fitting if bound.candidates[j].value is MISSING] or fitting
        right[bound.mask[i]] = False
        right[drafted + fitting] = True
        if fitting:
            chosen[i] = (drafted + fitting)[0]
        return bool(fitting)

    def make(path: tuple[Any, ...], values: list[Any]) -> bool:
        if path in by_path:
            return choose(by_path[path], [MISSING if value == "" else value for value in _wanted_first(values)])
        for value in _wanted_first(values):
            if value == "" and leave_out(path):
                return True
            if isinstance(value, dict) and make_object(path, value):
                return True
            if isinstance(value, list) and all(isinstance(item, dict) for item in value):
                rest = parts_of(path)[len(value) :]
                given = all(make_object((*path, k), item) for k, item in enumerate(value[: len(parts_of(path))]))
                if len(value) <= len(parts_of(path)) and given and all([leave_out((*path, k)) for k in rest]):
                    return True
        return False

    def make_object(path: tuple[Any, ...], value: dict[str, Any]) -> bool:
        names = parts_of(path)
        wanted = {name: v if isinstance(v, list) else [v] for name, v in value.items()}
        if any(name not in names and "" not in values for name, values in wanted.items()):
            return False
        return all(make((*path, name), wanted.get(name, [""])) for name in names)

    return Labels(chosen, right) if make_object((), answer) else None


def _is_said(bound: SlotInputs, j: int) -> bool:
    """Whether a candidate's value comes from the query, or stands in it."""
    candidate = bound.candidates[j]
    if candidate.source in ("span", "mentioned"):
        return candidate.value is not MISSING
    return isinstance(candidate.value, str) and _standard(candidate.value) in _standard(bound.query)


def _wanted_first(values: list[Any]) -> list[Any]:
    """Return the values with "may be left out" last."""
    return [value for value in values if value != ""] + [value for value in values if value == ""]


def fits(right: Any, value: Any | Missing) -> bool:
    """Whether BFCL counts a candidate as this right value: strings without case and some punctuation."""
    if right is MISSING or value is MISSING:
        return right is value
    if isinstance(right, str) and isinstance(value, str):
        return _standard(right) == _standard(value)
    if isinstance(right, list) and isinstance(value, list):
        return len(right) == len(value) and all(map(fits, right, value))
    if isinstance(right, bool) or isinstance(value, bool):
        return right is value
    return type(right) in (int, float) and type(value) in (int, float) and right == value


def _standard(text: str) -> str:
    return re.sub(r"[ ,./\-_*^]", "", text).lower().replace("'", '"')
