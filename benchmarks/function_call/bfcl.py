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


_Path = tuple[Any, ...]


class Labels(NamedTuple):
    """Choices [S] that make a right answer, and whether a candidate is right for its slot, [M]."""

    chosen: np.ndarray[Any, np.dtype[np.int32]]
    right: np.ndarray[Any, np.dtype[np.bool_]]


def labels(bound: SlotInputs, answer: dict[str, list[Any]], only_said: bool = False) -> Labels | None:
    """Return the choices that make one of the right answers, or None where the candidates hold none.

    Of the candidates that fit, the draft's is taken, or else the first. With ``only_said``, as a head should learn it,
    what may be left out is left out unless the query or the draft has it.
    """
    labeller = _Labeller(bound, only_said)
    return Labels(labeller.chosen, labeller.right) if labeller.make_object((), answer) else None


class _Labeller:
    """Chooses candidates for a right answer; methods say whether there were some, and go on where there were none."""

    def __init__(self, bound: SlotInputs, only_said: bool) -> None:
        self.bound, self.only_said = bound, only_said
        self.by_path: dict[_Path, int] = {slot.path: i for i, slot in enumerate(bound.slots)}
        self.chosen = np.full(len(bound.slots), -1, dtype=np.int32)
        self.right = np.zeros(len(bound.candidates), bool)

    def make_object(self, path: _Path, value: dict[str, Any]) -> bool:
        """Choose for every property of an object."""
        names = self._parts_of(path)
        wanted = {name: v if isinstance(v, list) else [v] for name, v in value.items()}
        if any(name not in names and "" not in values for name, values in wanted.items()):
            return False
        return all(self._make((*path, name), wanted.get(name, [""])) for name in names)

    def _make(self, path: _Path, values: list[Any]) -> bool:
        """Choose the first of ``values`` that can be made, "" being to leave it out."""
        if path in self.by_path:
            wanted = [MISSING if value == "" else value for value in _wanted_first(values)]
            return self._choose(self.by_path[path], wanted)
        for value in _wanted_first(values):
            if value == "" and self._leave_out(path):
                return True
            if isinstance(value, dict) and self.make_object(path, value):
                return True
            if isinstance(value, list) and all(isinstance(item, dict) for item in value) and self._list(path, value):
                return True
        return False

    def _list(self, path: _Path, items: list[dict[str, Any]]) -> bool:
        """Choose for every object of a list, and leave out the elements behind."""
        places = self._parts_of(path)
        if not all(self.make_object((*path, k), item) for k, item in enumerate(items[: len(places)])):
            return False
        rest = [self._leave_out((*path, k)) for k in places[len(items) :]]
        return len(items) <= len(places) and all(rest)

    def _leave_out(self, path: _Path) -> bool:
        """Leave out every slot below a path, also where one of them cannot be."""
        left = [self._choose(i, [MISSING]) for known, i in self.by_path.items() if known[: len(path)] == path]
        return all(left)

    def _choose(self, i: int, values: list[Any]) -> bool:
        """Choose for slot ``i`` the draft's candidate of those that fit, or else the first."""
        bound = self.bound
        own = np.flatnonzero(bound.mask[i])
        fitting = [int(j) for value in values for j in own if fits(value, bound.candidates[j].value)]
        drafted = [j for j in fitting if j == bound.y0[i] and bound.draft.value is not MISSING]
        if self.only_said and any(value is MISSING for value in values):
            said = [j for j in fitting if _is_said(bound, j)]
            fitting = said or [j for j in fitting if bound.candidates[j].value is MISSING] or fitting
        self.right[own] = False
        self.right[drafted + fitting] = True
        if fitting:
            self.chosen[i] = (drafted + fitting)[0]
        return bool(fitting)

    def _parts_of(self, path: _Path) -> list[Any]:
        """Return the names or numbers that come next in the paths of slots below one."""
        return list(dict.fromkeys(known[len(path)] for known in self.by_path if known[: len(path)] == path))


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
