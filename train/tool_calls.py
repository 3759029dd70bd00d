"""Training examples from tool calls: labels, drafts of every quality, and the arrays of ``train.packed``.

slots = JsonSlots(tool)
inputs = slots.bind(query, corrupted(slots, query, arguments, rng), featurizer)
target = label(inputs, arguments)               # None: the candidates do not hold the answer
calls.append(call_arrays(inputs, target))
np.savez(path, **pack(calls))
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from trm_edge.bundle import Bundle
from trm_edge.golden import record_golden
from trm_edge.inputs import Array
from trm_edge.json_slots import JsonSlots, SlotInputs
from trm_edge.json_slots.candidates import key_of
from trm_edge.json_slots.features import FEATURES, featurizer_for
from trm_edge.json_slots.resolver import bind_tools
from trm_edge.json_slots.schema import MISSING
from trm_edge.json_slots.slots import at
from trm_edge.json_slots.text import Json, dumps

KINDS = ("none", "right", "partial", "wrong", "broken")
"""Drafts: none at all, the right call, one that lacks slots, one with other values or types, and text cut short."""


def label(inputs: SlotInputs, arguments: Mapping[str, Json]) -> Array | None:
    """Return the choices [S] that make these arguments, or None where the candidates do not hold them."""
    target = np.full(len(inputs.slots), -1, np.int32)
    wanted = [key_of(at(arguments, slot.path)) for slot in inputs.slots]
    for number, (candidate, owner) in enumerate(zip(inputs.candidates, inputs.slot_of.tolist(), strict=True)):
        if target[owner] < 0 and key_of(candidate.value) == wanted[owner]:
            target[owner] = number
    return None if (target < 0).any() else target


def call_arrays(inputs: SlotInputs, target: Array, right: Array | None = None) -> dict[str, Array]:
    """Return one call as ``train.packed.pack`` takes it.

    ``right`` [M] are candidates as right as the target's; without it those of the same value, as of a number that the
    query has twice.
    """
    made = inputs.arrays
    omit = np.array([candidate.value is MISSING for candidate in inputs.candidates], bool)
    arrays = {name: made[name] for name in ("x", "slots", "candidates", "y0")}
    if right is None:
        wanted = [key_of(inputs.candidates[j].value) if j >= 0 else None for j in target.tolist()]
        owned = zip(inputs.candidates, inputs.slot_of.tolist(), strict=True)
        right = np.array([key_of(one.value) == wanted[owner] for one, owner in owned], bool)
    arrays["right"] = right
    return arrays | {"slot_of": inputs.slot_of.astype(np.int32), "target": target.astype(np.int32), "omit": omit}


def corrupted(slots: JsonSlots, query: str, arguments: Mapping[str, Json], kind: str, rng: np.random.Generator) -> str:
    """Return a draft of ``arguments`` as text, of one of ``KINDS``.

    Values of wrong drafts are other candidates of their slot, so that they look as what a language model takes from
    the query by mistake.
    """
    if kind == "none":
        return ""
    value: dict[str, Any] = dict(arguments)
    names = [name for name in slots.tool.arguments.properties if name in value]
    if kind == "partial" and names:
        for name in rng.permutation(names)[: rng.integers(1, len(names) + 1)].tolist():
            del value[name]
    if kind == "wrong":
        _spoil(slots, query, value, rng)
    text = dumps(value)
    return text[: rng.integers(1, len(text) + 1)] if kind == "broken" else text


def _spoil(slots: JsonSlots, query: str, value: dict[str, Any], rng: np.random.Generator) -> None:
    """Set one to three slots at the top to another candidate, to text of their value, or take them out."""
    inputs = slots.bind(query)
    tops = [i for i, slot in enumerate(inputs.slots) if len(slot.path) == 1]
    for i in rng.permutation(tops)[: rng.integers(1, 4)].tolist():
        name = inputs.slots[i].path[0]
        others = np.flatnonzero(inputs.slot_of == i)
        other = inputs.candidates[int(rng.choice(others))].value if len(others) else MISSING
        if rng.random() < 0.1 and name in value:
            value[str(name)] = str(value[name])
        elif other is MISSING:
            value.pop(str(name), None)
        else:
            value[str(name)] = other


def for_tool_calls(
    bundle: Bundle, tools: Sequence[JsonSlots], query: str, name: str, draft: str, *, declines: bool
) -> Bundle:
    """Return a head as it is published, which says what it was trained for, with a call as golden inputs.

    Parameters
    ----------
    bundle
        The head, trained on what today's ``Featurizer`` makes.
    tools, query, name, draft
        The call: the choice of one of the tools, and the arguments of the one of that name. Random inputs would be as
        large as the head's maxima, which may be more than the head itself.
    declines
        Whether the head has learned to choose none of the tools.
    """
    featurizer = featurizer_for(bundle.spec)
    choice = bind_tools([one.tool for one in tools], query, featurizer)
    slots = next(one for one in tools if one.tool.name == name)
    filled = slots.bind(query, draft, featurizer)
    golden = record_golden(bundle.spec, bundle.tensors, [choice.arrays, filled.arrays])
    trained_for = {"features": FEATURES, "declines": "yes" if declines else "no"}
    return replace(bundle, golden=golden, provenance={**bundle.provenance, **trained_for})
