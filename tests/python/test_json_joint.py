"""``json_slots.joint``: what slots choose together."""

import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from json_cases import roots

from trm_edge import TrmError
from trm_edge.json_slots import JsonSlots
from trm_edge.json_slots.joint import SHARED, TOOL_SAID, given_up, joint_choices, less_what_names_the_tool
from trm_edge.json_slots.schema import MISSING

INTEGER, TEXT = {"type": "integer"}, {"type": "string"}


def chosen_by(bound, wanted, draft=None):
    """Return the joint choice by logits that are 0 but for ``wanted``: slot -> value -> logit."""
    logits = np.where(bound.mask, 0.0, -np.inf).astype(np.float32)
    drafted = np.full(len(bound.slots), -1, np.int32)
    for i, slot in enumerate(bound.slots):
        for j in np.flatnonzero(bound.mask[i]):
            value = bound.candidates[j].value
            logits[i, j] = wanted[slot.path[0]].get(None if value is MISSING else value, -9)
            if draft is not None and value == draft.get(slot.path[0]):
                drafted[i] = j
    chosen = joint_choices(bound, logits[None], drafted)[0]
    values = [bound.candidates[j].value for j in chosen]
    return {slot.path[0]: value for slot, value in zip(bound.slots, values, strict=True) if value is not MISSING}


def bound(query, required=(), **properties):
    schema = {"type": "object", "properties": properties, "required": list(required)}
    return JsonSlots({"name": "f", "parameters": schema}).bind(query)


def test_two_slots_do_not_share_words_that_are_there_once():
    call = bound("set 5 minutes and 30 seconds", ("minutes", "seconds"), minutes=INTEGER, seconds=INTEGER)
    assert chosen_by(call, {"minutes": {5: 4}, "seconds": {5: 1, 30: 0}}) == {"minutes": 5, "seconds": 30}


def test_what_a_slot_is_sure_enough_of_is_shared():
    call = bound("send it to Ann", ("to", "about"), to=TEXT, about=TEXT)
    sure = {"Ann": SHARED + 1, "it to Ann": 0}
    assert chosen_by(call, {"to": sure, "about": sure}) == {"to": "Ann", "about": "Ann"}
    unsure = {"Ann": SHARED - 1, "send": 0}
    assert sorted(chosen_by(call, {"to": unsure, "about": unsure}).values()) == ["Ann", "send"]


def test_words_that_are_there_twice_are_taken_twice():
    call = bound("5 apples and 5 pears", apples=INTEGER, pears=INTEGER)
    assert chosen_by(call, {"apples": {5: 3, None: 2}, "pears": {5: 3, None: 2}}) == {"apples": 5, "pears": 5}


def test_a_longer_text_shares_the_words_within_it():
    call = bound("play the Beatles loudly", ("what",), what=TEXT, how=TEXT)
    assert chosen_by(call, {"what": {"Beatles": 2, "Beatles loudly": 1}, "how": {"Beatles loudly": 3, None: 2}}) == {
        "what": "Beatles"
    }


def test_an_option_that_is_said_takes_its_words():
    call = bound("a red one", color={"type": "string", "enum": ["red", "blue"]}, what=TEXT)
    assert chosen_by(call, {"color": {"red": 5, None: 0}, "what": {"red": 3, None: 1}}) == {"color": "red"}
    assert chosen_by(call, {"color": {"blue": 5, None: 0}, "what": {"red": 3, None: 1}}) == {
        "color": "blue",
        "what": "red",
    }


@pytest.mark.parametrize(
    ("query", "value", "cost"),
    [
        ("in 12 days", 12, 2.0),
        ("say 'good day' now", "good day", 2.0),
        ("meet with Ann Lee there", "Ann Lee", 1.0),
        ("meet with ann lee there", "ann lee", 0.0),
        ("the a380 there", "a380", 0.0),
    ],
)
def test_what_stands_out_is_seldom_meant_for_none(query, value, cost):
    call = bound(query, a=INTEGER if isinstance(value, int) else TEXT)
    assert chosen_by(call, {"a": {None: 0, value: 0.1 - cost}}) == {"a": value}
    assert chosen_by(call, {"a": {None: 0, value: -0.1 - cost}}) == {}


def test_of_what_stands_out_the_slot_that_wants_it_most_takes_it():
    call = bound("in 12 days", a=INTEGER, b=INTEGER)
    assert chosen_by(call, {"a": {None: 0, 12: -1.5}, "b": {None: 0, 12: -1}}) == {"b": 12}


@pytest.mark.parametrize(
    ("query", "lowered"),
    [
        ("status of the nap timer", {"status", "timer", "nap timer"}),
        ("Status of the Nap Timer, set as 'kitchen'", set()),  # in capitals they may be a name
        ("what about the pasta", set()),
    ],
)
def test_what_names_the_tool_is_seldom_a_value(query, lowered):
    properties = {"name": {"type": "string", "description": "Its name"}, "kind": {"enum": ["status", "timer"]}}
    tool = {"name": "HassTimerStatus", "parameters": {"type": "object", "properties": properties}}
    call = JsonSlots(tool).bind(query, '{"name": "timer", "kind": "status"}' if "pasta" in query else "")
    logits = np.zeros((2, *call.mask.shape), np.float32)
    less_what_names_the_tool(call, logits)
    found = {call.candidates[j].value for j in np.flatnonzero((logits == -TOOL_SAID).all(axis=0).any(axis=0))}
    assert lowered <= found and all("statu" in one or "timer" in one for one in found)
    assert bool(found) == bool(lowered)
    assert set(np.unique(logits)) <= {0.0, np.float32(-TOOL_SAID)}


def test_what_a_draft_has_stays_where_it_is_likeliest():
    call = bound("in 12 days, or 3", ("a", "b"), a=INTEGER, b=INTEGER)
    wanted = {"a": {12: 2, 3: 0}, "b": {12: 2, 3: 1}}
    assert chosen_by(call, wanted) == {"a": 12, "b": 3}
    assert chosen_by(call, wanted, {"b": 12}) == {"a": 3, "b": 12}
    assert chosen_by(call, wanted, {"a": 12, "b": 12}) == {"a": 12, "b": 12}
    assert chosen_by(call, wanted, {"b": 3}) == {"a": 12, "b": 3}  # is not likeliest


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(roots, st.text("Paris 12 red, 'blue' and 12 2024-02-29 Rome", max_size=40), st.integers(0, 2**32 - 1))
def test_slots_choose_among_their_own_candidates(schema, query, seed):
    try:
        call = JsonSlots({"name": "f", "parameters": schema}).bind(query)
    except TrmError:
        return
    logits = np.where(call.mask, np.random.default_rng(seed).standard_normal(call.mask.shape), np.nan)
    chosen = joint_choices(call, logits[None].astype(np.float32), call.y0)[0]
    assert chosen.shape == (len(call.slots),)
    for i, j in enumerate(chosen):
        assert call.mask[i, j] if call.mask[i].any() else j == -1
    json.loads(call.decode(chosen, logits).json or "null")


class TestGivenUp:
    CALL = bound("set 5 minutes and 30 seconds", minutes=INTEGER, seconds=INTEGER)

    def price(self, minutes, seconds, drafted=(None, None), bonus=0.0):
        """Return what values of the two slots give up, by the logits 5: 4, 30: 1 and 0 for the rest, of either slot."""
        places = {
            (i, one.value): j for j, (i, one) in enumerate(zip(self.CALL.slot_of, self.CALL.candidates, strict=True))
        }
        numbers = [places[i, MISSING if value is None else value] for i, value in enumerate((minutes, seconds))]
        logits = np.where(
            self.CALL.mask, [{5: 4.0, 30: 1.0}.get(one.value, 0.0) for one in self.CALL.candidates], -np.inf
        )
        logits = logits.astype(np.float32)
        favoured = np.array([places.get((i, value), -1) for i, value in enumerate(drafted)], np.int32)
        for i, j in enumerate(favoured):
            logits[i, j] += bonus * (j >= 0)
        return given_up(self.CALL, logits, numbers, favoured, bonus)

    def test_what_is_less_likely_costs_the_difference(self):
        assert self.price(5, 30) == 3
        assert self.price(30, 5) == 3

    def test_words_that_are_taken_twice_and_numbers_that_are_left_cost_too(self):
        assert self.price(5, 5) == SHARED + 2
        assert self.price(None, 5) == 4 + 2
        assert self.price(None, None) == 4 + 4 + 2 + 2

    def test_the_bonus_of_a_draft_counts_only_where_it_is_kept(self):
        assert self.price(5, 30, drafted=(None, 30), bonus=2.0) == 1
        assert self.price(5, 30, drafted=(None, 30), bonus=1e4) == 0
        assert self.price(5, 30, drafted=(30, None), bonus=1e4) == 3

    def test_a_tool_without_slots_gives_up_what_stands_out(self):
        logits = np.zeros((0, 0), np.float32)
        assert given_up(bound("stop it at 5"), logits, (), np.zeros(0, np.int32), 1.0) == 2
