"""Slots of a tool call: what is offered, what comes back, and that this is valid whatever goes in."""

import datetime as dt
import itertools
import json
import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from json_cases import broken, plausible, roots
from jsonschema import Draft202012Validator

from trm_edge import TrmError
from trm_edge.errors import TrmInputError
from trm_edge.json_slots import Featurizer, HashedNgrams
from trm_edge.json_slots.answer import MAX_TRIES
from trm_edge.json_slots.calls import JsonSlots, Resolved
from trm_edge.json_slots.operators import MAX_TEXT
from trm_edge.json_slots.schema import MISSING, SchemaError
from trm_edge.json_slots.slots import MAX_ELEMENTS, MAX_SLOTS
from trm_edge.json_slots.text import parse, same


def tool(required: tuple[str, ...] = (), **properties) -> JsonSlots:
    schema = {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}
    return JsonSlots({"name": "f", "parameters": schema})


STRING, INTEGER, BOOLEAN = {"type": "string"}, {"type": "integer"}, {"type": "boolean"}
FLAGS = Featurizer(HashedNgrams(8), vectors=False)
UNIT = {"enum": ["metric", "imperial"]}
WEATHER = tool(("city",), city=STRING, days={**INTEGER, "minimum": 1, "maximum": 14, "default": 7}, unit=UNIT)
PEOPLE = {"type": "array", "items": {"type": "object", "properties": {"name": STRING, "age": INTEGER}}}


def offered(bound, pointer: str) -> list:
    row = [slot.pointer for slot in bound.slots].index(pointer)
    return [bound.candidates[j].value for j in np.flatnonzero(bound.mask[row])]


def choose(bound, **values) -> np.ndarray:
    """Return the draft's choices with some slots, named by their last part, set to candidates of these values."""
    indices = bound.y0.copy()
    for i, slot in enumerate(bound.slots):
        if slot.path[-1] in values:
            wanted = values[slot.path[-1]]
            fitting = [
                j
                for j in np.flatnonzero(bound.mask[i])
                if (bound.candidates[j].value is MISSING) == (wanted is MISSING)
                and (wanted is MISSING or same(bound.candidates[j].value, wanted))
            ]
            indices[i] = fitting[0]
    return indices


class TestCandidates:
    def test_what_a_slot_may_become(self):
        bound = WEATHER.bind("three days in Paris, in Metric units", '{"city": "London", "days": 99}')
        assert {"London", "Paris", "Metric units"} <= set(offered(bound, "/city"))
        assert MISSING not in offered(bound, "/city")  # required
        assert offered(bound, "/days") == [MISSING, 7, 3]  # 99 is out of bounds
        assert offered(bound, "/unit") == [MISSING, "metric", "imperial"]
        assert bound.y0[0] >= 0 and bound.y0[1] == -1 and bound.candidates[bound.y0[2]].value is MISSING

    def test_values_are_brought_to_the_type(self):
        bound = tool(n=INTEGER, x={"type": "number"}, b=BOOLEAN, s=STRING).bind(
            "", '{"n": "5", "x": "2.5", "b": "yes", "s": 7}'
        )
        assert [offered(bound, f"/{name}")[1] for name in "nxbs"] == [5, 2.5, True, "7"]
        for drafted, meant in ((0, False), (1, True), ("0", False), ("N", False), ("enabled", True)):
            assert offered(tool(b=BOOLEAN).bind("", json.dumps({"b": drafted})), "/b")[1] is meant
        assert offered(tool(s=STRING).bind("", '{"s": 1.26}'), "/s")[1] == "1.26"

    def test_what_a_draft_means_is_its_choice_as_what_it_says_is(self):
        when = tool(level=INTEGER, at={**STRING, "format": "date-time"}, unit=UNIT, note=STRING)
        draft = {"level": "40 percent", "at": "2026-11-28T14:00:00", "unit": "Metric"}
        bound = when.bind("move it to 3", json.dumps(draft))
        shown = [bound.candidates[j].value for j in bound.drafted]
        assert shown == [40, "2026-11-28T14:00:00Z", "metric", MISSING] and bound.y0[:3].tolist() == [-1, -1, -1]
        assert (when.bind("move it to 3").drafted == -1).all()

    def test_a_draft_s_text_is_the_one_number_that_it_has(self):
        level = tool(level={**INTEGER, "maximum": 100})
        for drafted, found in (
            ("40 percent", [40]),
            ("twenty five", [25]),
            ("2 or 3", []),
            ("300 %", []),
            ("a lot", []),
        ):
            bound = level.bind("dim it", json.dumps({"level": drafted}))
            assert offered(bound, "/level") == [MISSING, *found], drafted
            assert [one.source for one in bound.candidates[1:]] == ["draft"] * len(found)

    def test_a_draft_s_date_time_gets_the_offset_that_it_lacks(self):
        when = tool(at={**STRING, "format": "date-time"})
        now = dt.datetime(2026, 11, 27, 9, tzinfo=dt.timezone(dt.timedelta(hours=9)))
        for drafted in ("2026-11-28T14:00:00", "2026-11-28 14:00", "2026-11-28T14:00"):
            bound = when.bind("move it", json.dumps({"at": drafted}), now=now)
            assert offered(bound, "/at") == [MISSING, "2026-11-28T14:00:00+09:00"]
        for other in ("14:00", "soon", "2026-11-28T25:00:00"):
            assert offered(when.bind("move it", json.dumps({"at": other}), now=now), "/at") == [MISSING]

    def test_literals_of_a_description_are_offered(self):
        bound = tool(code={**STRING, "description": "'US' or \"DE\"; level 3, e.g. New York, NY."}).bind(
            "anything", None
        )
        assert {"US", "DE", "3", "New York, NY"} <= set(offered(bound, "/code"))

    def test_arrays_of_scalars_are_one_slot(self):
        bound = tool(tags={"type": "array", "items": STRING}, ids={"type": "array", "items": INTEGER}).bind(
            "tag it red, light blue and green for 1, 2 and 3", None
        )
        assert ["red", "light blue", "green"] in offered(bound, "/tags")
        assert [1, 2, 3] in offered(bound, "/ids") and [2] in offered(bound, "/ids")

    def test_arrays_are_offered_the_items_that_the_query_mentions(self):
        of = {"type": "array", "items": {**STRING, "enum": ["price", "rating", "sound_quality"]}}
        said = {"type": "array", "items": STRING, "description": "of 'S&P 500', 'NASDAQ', 'Dow Jones'"}
        bound = tool(of=of, said=said).bind("the Dow Jones and S&P 500 by sound quality and prices", None)
        assert ["sound_quality", "price"] in offered(bound, "/of")
        assert ["Dow Jones", "S&P 500"] in offered(bound, "/said")

    def test_objects_are_their_slots(self):
        where = {"type": "object", "properties": {"a/b": STRING}, "required": ["a/b"]}
        bound = tool(("where",), where=where, maybe=where).bind("", None)
        assert [(slot.pointer, slot.optional) for slot in bound.slots] == [
            ("/where/a~1b", False),
            ("/maybe/a~1b", True),
        ]

    def test_arrays_of_objects_are_as_long_as_the_draft_s(self):
        bound = tool(people=PEOPLE).bind("", '{"people": [{"name": "A"}, {"name": "B"}, {"age": 3}, {}]}')
        assert len(bound.slots) == 8
        assert len(tool(people=PEOPLE).bind("", "{}").slots) == 2 * MAX_ELEMENTS

    def test_relative_dates_need_a_now(self):
        slots = tool(day={**STRING, "format": "date"})
        assert offered(slots.bind("tomorrow"), "/day") == [MISSING]
        assert offered(slots.bind("tomorrow", now=dt.datetime(2026, 11, 25)), "/day") == [MISSING, "2026-11-26"]


class TestDecode:
    @pytest.mark.parametrize(
        "draft", ['{"city":"London"}', ' {\n "unit": "metric", "city" : "\\u0041" }\n', '{"city": ""}']
    )
    def test_a_valid_draft_whose_choices_are_kept_comes_back_byte_for_byte(self, draft):
        bound = WEATHER.bind("whatever", draft)
        resolved = bound.decode(bound.y0)
        assert (resolved.status, resolved.json, resolved.draft) == ("unchanged", draft, draft)
        assert bound.decode(np.full(len(bound.slots), -1)).status == "unchanged"

    def test_choices_become_json(self):
        bound = WEATHER.bind("3 days in Paris", '{"unit": "metric", "city": "London"}')
        resolved = bound.decode(choose(bound, city="Paris", days=3, unit=MISSING))
        assert (resolved.status, resolved.json) == ("resolved", '{"city": "Paris", "days": 3}')

    def test_the_draft_s_order_and_unknown_names_stay_where_they_may(self):
        slots = JsonSlots({"name": "f", "parameters": {"type": "object", "properties": {"a": INTEGER, "b": INTEGER}}})
        bound = slots.bind("5", '{"more": [1], "b": 1, "a": 2}')
        assert bound.decode(choose(bound, b=5)).json == '{"more": [1], "b": 5, "a": 2}'
        closed = tool(a=INTEGER).bind("5", '{"more": 1, "a": 2}')
        assert closed.decode(closed.y0).json == '{"a": 2}'

    def test_required_objects_that_the_draft_lacks_come_in_the_schema_s_order(self):
        names = tuple("hgfedcba")
        bound = tool(names, **{name: {"type": "object"} for name in names}).bind("", "{}")
        assert [*parse(bound.decode(bound.y0).json)] == [*names]

    def test_broken_drafts_are_mended(self):
        bound = WEATHER.bind("", 'Sure: {"city": "Paris", "days": "3", "unit": \'Metric\', "x": 1')
        assert not bound.draft.valid
        assert parse(bound.decode(choose(bound, days=3, unit="metric")).json) == {
            "city": "Paris",
            "days": 3,
            "unit": "metric",
        }

    def test_without_a_draft_only_choices_count(self):
        bound = WEATHER.bind("Paris", None)
        assert bound.decode(choose(bound, city="Paris")).json == '{"city": "Paris"}'
        assert bound.decode(bound.y0) == bound.abstain()
        assert (bound.abstain().status, bound.abstain().json) == ("unresolved", None)
        assert np.array_equal(bound.y0, WEATHER.bind("Paris", "{}").y0)  # as if all were left out that may be

    def test_elements_that_are_left_out_are_no_elements(self):
        bound = tool(people=PEOPLE).bind("Ann and Bob", None)
        indices = bound.y0.copy()
        names = [i for i, slot in enumerate(bound.slots) if slot.path[-1] == "name"]
        for i, name in ((names[0], "Ann"), (names[2], "Bob")):
            indices[i] = next(j for j in np.flatnonzero(bound.mask[i]) if bound.candidates[j].value == name)
        assert parse(bound.decode(indices).json) == {"people": [{"name": "Ann"}, {"name": "Bob"}]}
        assert bound.decode(bound.y0).json == "{}"

    def test_a_null_object_stays_null_until_something_is_chosen(self):
        where = {"type": ["object", "null"], "properties": {"x": INTEGER}, "required": ["x"]}
        bound = tool(("where", "n"), where=where, n=INTEGER).bind("4", '{"where": null, "n": 1}')
        assert bound.decode(bound.y0).status == "unchanged"
        assert bound.decode(choose(bound, n=4)).json == '{"where": null, "n": 4}'
        assert bound.decode(choose(bound, x=4)).json == '{"where": {"x": 4}, "n": 1}'

    def test_an_object_that_must_be_there_is_null_where_it_may_be_and_nothing_of_it_is_chosen(self):
        where = {"type": ["object", "null"], "properties": {"street": STRING}, "required": ["street"]}
        slots = tool(("n", "where"), n=INTEGER, where=where)
        bound = slots.bind("set it to 5")
        assert bound.decode(choose(bound, n=5, street=MISSING)).json == '{"n": 5, "where": null}'
        drafted = slots.bind("set it to 5", '{"n": 4, "where": {"street": "x"}}')
        assert drafted.decode(choose(drafted, n=5, street=MISSING)).json == '{"n": 5, "where": null}'

    def test_elements_that_are_null_stay(self):
        items = {"type": ["object", "null"], "properties": {"x": INTEGER}}
        bound = tool(a={"type": "array", "items": items}, n=INTEGER).bind("5", '{"a": [null, {"x": 1}], "n": 1}')
        assert bound.decode(choose(bound, n=5)).json == '{"a": [null, {"x": 1}], "n": 5}'

    def test_an_object_goes_where_what_it_needs_cannot_be_had(self):
        day = {"type": "object", "properties": {"day": {"type": "string", "format": "date"}}, "required": ["day"]}
        trip = {"type": "object", "properties": {"when": day, "note": STRING}, "required": ["when"]}
        bound = tool(("n",), n=INTEGER, trip=trip).bind("go 5")
        chosen = choose(bound, n=5, note="go")
        logits = np.where(bound.mask, 0.0, -np.inf)
        logits[np.arange(len(chosen)), chosen] = 1
        assert bound.decode(chosen).json is None
        assert bound.decode(chosen, logits).json == '{"n": 5}'

    def test_where_the_joint_choice_is_not_valid_the_next_best_one_is_taken(self):
        schema = {"type": "object", "properties": {"a": INTEGER, "b": INTEGER}, "dependentRequired": {"a": ["b"]}}
        bound = JsonSlots({"name": "f", "parameters": schema}).bind("1 and 2", '{"b": 9}')
        logits = np.where(bound.mask, 0.0, -np.inf)
        for i, value, logit in ((0, 1, 9), (0, MISSING, 1), (1, MISSING, 8), (1, 2, 7)):
            j = next(
                j for j in np.flatnonzero(bound.mask[i]) if type(bound.candidates[j].value) is type(value) and
                (value is MISSING or bound.candidates[j].value == value)
            )  # fmt: skip
            logits[i, j] = logit
        best = logits.argmax(axis=1)
        assert bound.decode(best, logits).json == '{"b": 2, "a": 1}'  # a alone is not allowed; adding b costs least
        assert bound.decode(best).status == "abstained"  # without logits the draft, which is valid

    def test_slots_that_are_not_to_blame_cost_no_tries(self):
        names = [f"n{i}" for i in range(12)]
        pair = {"type": "object", "properties": {"a": INTEGER, "b": INTEGER}, "required": ["a", "b"]}
        bound = tool(pair=pair, **dict.fromkeys(names, INTEGER)).bind("1, 2, 3, 4")
        logits = np.where(bound.mask, np.linspace(0, 1, bound.mask.shape[1]), -np.inf)  # the others are all near
        a, b = (next(i for i, slot in enumerate(bound.slots) if slot.path == ("pair", name)) for name in "ab")
        logits[a, np.flatnonzero(bound.mask[a])] += [0, 50, 0, 0, 0]  # 1; leaving it out costs 50
        logits[b, np.flatnonzero(bound.mask[b])] += [60, 0, 0, 0, 0]  # left out; any number costs 60
        found = json.loads(bound.decode(logits.argmax(axis=1), logits).json)
        assert "pair" not in found
        assert len(found) == len(names)

    @pytest.mark.parametrize(
        ("indices", "message"),
        [
            ([0], r"expected integers \[3\], got int64 \[1\]"),
            ([0.0, 0.0, 0.0], "got float64"),
            ([10**6, -1, -1], "1000000 is no candidate of /city"),
            ([-2, -1, -1], "-2 is no candidate of /city"),
        ],
    )
    def test_wrong_choices_are_named(self, indices, message):
        with pytest.raises(TrmInputError, match=message):
            WEATHER.bind("Paris", None).decode(indices)

    def test_choices_outside_the_mask_and_logits_of_another_shape_are_refused(self):
        bound = WEATHER.bind("Paris", None)
        other = next(j for j in range(len(bound.candidates)) if not bound.mask[0, j])
        with pytest.raises(TrmInputError, match=f"{other} is no candidate of /city"):
            bound.decode([other, -1, -1])
        with pytest.raises(TrmInputError, match=r"logits: expected \[3, \d+\], got \[1, 1\]"):
            bound.decode(bound.y0, np.zeros((1, 1)))
        with pytest.raises(TrmInputError, match=r"logits: expected floats \[3, \d+\], got str"):
            bound.decode(bound.y0, "x")
        with pytest.raises(TrmInputError, match=r"indices: expected integers \[3\], got \[\[1\], \[2, 3\]\]"):
            bound.decode([[1], [2, 3]])

    def test_wrong_arguments_are_named(self):
        with pytest.raises(TrmInputError, match="query: expected text, got int"):
            WEATHER.bind(3)
        with pytest.raises(TrmInputError, match="draft: expected text, got dict"):
            WEATHER.bind("", {})
        with pytest.raises(TrmInputError, match="now: expected a datetime, got str"):
            WEATHER.bind("", now="today")
        with pytest.raises(TrmInputError, match="thought: expected text, got NoneType"):
            WEATHER.bind("", thought=None)
        with pytest.raises(SchemaError, match="at most 256 slots, got more"):
            tool(**{f"a{i}": INTEGER for i in range(MAX_SLOTS + 1)}).bind("")

    def test_a_draft_of_too_many_slots_stays_as_it_is(self):
        many = json.dumps({"people": [{"name": "Ann", "age": 3}] * 20_000})
        bound = tool(people=PEOPLE).bind("Ann", many)
        assert len(bound.slots) == 0 and bound.decode(bound.y0).json == many
        broken = tool(people=PEOPLE).bind("Ann", many[:-1])
        assert len(broken.slots) == 0 and broken.decode(broken.y0).status == "unresolved"

    @pytest.mark.parametrize(
        "text", ['{"s": "%s"}' % ("x" * (1 << 20)), '{"s": "x", "more": %s}' % ("[" * 70 + "]" * 70)]
    )
    def test_nothing_is_put_in_the_place_of_a_draft_that_is_too_large(self, text):
        bound = tool(("s",), s=STRING).bind("write the file", text, FLAGS)
        assert bound.draft.too_large and len(bound.candidates) == 0
        assert bound.decode(bound.y0) == Resolved("unresolved", None, text)

    @pytest.mark.parametrize("draft", [None, "{}", '{"p0": 1}', "{"])
    def test_a_tool_of_too_many_slots_is_refused_whatever_the_draft(self, draft):
        wide = tool(**{f"p{i}": INTEGER for i in range(MAX_SLOTS + 1)})
        with pytest.raises(SchemaError, match="at most 256 slots"):
            wide.bind("one", draft)

    def test_what_the_draft_has_is_not_left_out_because_it_is_not_valid(self):
        refund = tool(("id",), id=STRING, amount={**INTEGER, "minimum": 1}, note={**STRING, "maxLength": 3})
        for left_out in ('"amount": 0', '"note": "France"', '"amount": [7]', '"amount": 0, "note": "ok"'):
            bound = refund.bind("refund it", f'{{"id": "p", {left_out}}}')
            assert bound.decode(choose(bound, amount=MISSING)).status == "unresolved", left_out
        bound = refund.bind("refund 5 of it", '{"id": "p", "amount": 0}')
        assert bound.decode(choose(bound, amount=5)).json == '{"id": "p", "amount": 5}'
        for nothing in ("null", '""'):
            bound = refund.bind("refund it", f'{{"id": "p", "amount": {nothing}}}')
            assert bound.decode(choose(bound, amount=MISSING)).json == '{"id": "p"}'
        valid = refund.bind("refund it", '{"id": "p", "amount": 7}')
        assert valid.decode(choose(valid, amount=MISSING)).json == '{"id": "p"}'  # what a head may well choose

    def test_nor_because_it_stands_where_an_object_belongs(self):
        price = {"type": "object", "properties": {"value": {"type": "number"}, "unit": STRING}}
        refund = tool(("id",), id=STRING, amount=price)
        for left_out in ('"10.50 USD"', "10.5", '["10.50 USD"]', "true"):
            bound = refund.bind("refund B7, all 3 of it", f'{{"id": "B7", "amount": {left_out}}}')
            assert bound.decode(bound.y0).status == "unresolved", left_out
            assert parse(bound.decode(choose(bound, value=3)).json) == {"id": "B7", "amount": {"value": 3}}
        for nothing in ('""', "[]", "[null]", "{}"):
            bound = refund.bind("refund it", f'{{"id": "B7", "amount": {nothing}}}')
            assert parse(bound.decode(bound.y0).json)["id"] == "B7", nothing

    @pytest.mark.parametrize(
        ("drafted", "made"),
        [
            ('{"id": "B7", "amount": "{\\"value\\": 10.5}"}', {"id": "B7", "amount": {"value": 10.5}}),
            ('{"id": "B7", "amount": [{"value": 10.5}]}', {"id": "B7", "amount": {"value": 10.5}}),
            ('{"ID": "B7", "Amount": {"Value": 10.5}}', {"id": "B7", "amount": {"value": 10.5}}),
            ('{"id": "B7", "amout": {"value": 10.5}}', {"id": "B7", "amount": {"value": 10.5}}),
            ('{"id": "B7", "parts": {"name": "a"}, "none": 1}', {"id": "B7", "parts": [{"name": "a"}]}),
            ('{"id": "B7", "parts": "[{\\"name\\": \\"a\\"}]", "none": 1}', {"id": "B7", "parts": [{"name": "a"}]}),
            ('{"id": "B7", "tags": "[\\"a\\", \\"b\\"]", "none": 1}', {"id": "B7", "tags": ["a", "b"]}),
            ('{"id": "B7", "comment": "as said"}', {"id": "B7"}),  # a name like no other's
        ],
    )
    def test_the_parts_of_a_draft_are_put_where_they_belong(self, drafted, made):
        price = {"type": "object", "properties": {"value": {"type": "number"}}, "additionalProperties": False}
        parts = {"type": "array", "items": {"type": "object", "properties": {"name": STRING}}}
        tags = {"type": "array", "items": STRING}
        bound = tool(("id",), id=STRING, amount=price, parts=parts, tags=tags).bind("", drafted)
        assert parse(bound.decode(bound.y0).json) == made

    def test_names_that_are_spelt_like_two_or_alike_each_other_are_nobodys(self):
        bound = tool(part_a=INTEGER, part_b=INTEGER, size=INTEGER).bind("", '{"part": 1, "Size": 2, "SIZE": 3}')
        assert bound.decode(bound.y0).json == "{}"
        near = tool(amount=INTEGER, amounts=INTEGER).bind("", '{"Amount": 1, "none": 2}')
        assert near.decode(near.y0).json == '{"amount": 1}'
        wide = tool(**{f"property_{i}": INTEGER for i in range(200)})
        many = json.dumps({f"propert_{i}": 1 for i in range(20_000)})
        assert wide.bind("", many).decode(np.full(200, -1)).json == "{}"  # not every name with every other

    def test_options_that_the_query_says_come_first_where_there_are_many(self):
        many = tool(sku={**STRING, "enum": [f"item-{i:04}" for i in range(2500)]})
        shown = offered(many.bind("three of item-2400, please"), "/sku")
        assert shown[:2] == [MISSING, "item-2400"] and len(shown) == 2501
        drafted = many.bind("three of item-2400", '{"sku": "item-0007"}')
        assert drafted.candidates[drafted.y0[0]].value == "item-0007"

    def test_null_among_the_values_of_an_enum_without_a_type_is_one_of_them(self):
        level = tool(("level",), level={"enum": ["low", "high", None]})
        bound = level.bind("clear the level", '{"level": null}')
        assert bound.draft.valid and bound.decode(bound.y0).status == "unchanged"
        mixed = tool(("level",), level={"enum": ["auto", 3, None]})
        assert offered(mixed.bind("3", None), "/level") == ["auto", 3, None]

    def test_an_answer_that_is_the_draft_after_all_is_the_draft_byte_for_byte(self):
        schema = {"type": "object", "properties": {"a": STRING}, "minProperties": 1}
        draft = '{ "a":\t"x" }'
        bound = JsonSlots({"name": "f", "parameters": schema}).bind("x", draft)
        logits = np.where(bound.mask, 0.0, -np.inf)
        logits[0, :2] = 2.0, 1.0
        assert [one.source for one in bound.candidates[:2]] == ["omit", "draft"]
        assert bound.decode([0], logits) == Resolved("unchanged", draft, draft, (1,))

    def test_halves_of_surrogate_pairs_are_joined_as_json_joins_them(self):
        bound = tool(a={**STRING, "minLength": 2}).bind("\ud83d\ude00", None)
        assert offered(bound, "/a") == [MISSING]
        lone = tool(("a",), a=STRING).bind("\ud83d", None)
        assert parse(lone.decode(choose(lone, a="\ud83d")).json) == {"a": "\ud83d"}

    def test_of_a_long_query_both_ends_are_looked_at(self):
        bound = tool(s=STRING).bind(f"Rome {'a ' * 10**6} Lima")
        assert len(bound.query) == MAX_TEXT and {"Rome", "Lima"} <= set(offered(bound, "/s"))

    def test_a_query_is_cut_before_it_costs_anything(self):
        bound = tool(a={**STRING, "enum": ["a", "aa", "aaa"]}).bind("a" * 10**6, None, FLAGS)
        assert len(bound.query) == MAX_TEXT and bound.features is not None

    @pytest.mark.parametrize(
        "draft",
        [
            '"{\\"city\\": \\"Rome\\", \\"days\\": 3}"',
            '[{"city": "Rome", "days": 3}]',
            '{"name": "weather", "arguments": {"city": "Rome", "days": 3}}',
            '{"arguments": "{\\"city\\": \\"Rome\\", \\"days\\": 3}"}',
            'The call: [{"name": "weather", "input": {"city": "Rome", "days": 3}}]',
        ],
    )
    def test_arguments_within_something_else_are_a_draft(self, draft):
        bound = WEATHER.bind("", draft)
        assert not bound.draft.valid
        assert bound.decode(bound.y0).json == '{"city": "Rome", "days": 3}'


queries = st.text("Paris 12 red, blue and 2024-02-29 a@b true", max_size=60)


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(roots, queries, st.data())
def test_what_comes_back_is_valid_whatever_goes_in(schema, query, data):
    comes_back_valid(schema, query, data)


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(roots, queries, st.integers(0, 2**32 - 1))
def test_the_best_of_all_valid_joint_choices_is_found(schema, query, seed):
    try:
        bound = JsonSlots({"name": "f", "parameters": schema}).bind(query[:12])
    except TrmError:
        return
    choices = [np.flatnonzero(row).tolist() or [-1] for row in bound.mask]
    if math.prod(map(len, choices)) > MAX_TRIES:
        return
    valid = {}
    for joint in itertools.product(*choices):
        found = bound.decode(joint)
        if found.status == "resolved":
            valid[joint] = found.json
    rng = np.random.default_rng(seed)
    for _ in range(8):
        logits = np.where(bound.mask, rng.standard_normal(bound.mask.shape), -np.inf)
        padded = np.pad(logits, ((0, 0), (0, 1)))  # -1: a slot without candidates
        found = bound.decode([max(own, key=row.__getitem__) for own, row in zip(choices, padded, strict=True)], logits)
        sums = {joint: sum(row[j] for row, j in zip(padded, joint, strict=True)) for joint in valid}
        assert found.json == (valid[max(sums, key=sums.get)] if valid else None)


@pytest.mark.slow
@settings(max_examples=100_000, deadline=None, suppress_health_check=list(HealthCheck), database=None)
@given(roots, queries, st.data())
def test_a_hundred_thousand_come_back_valid(schema, query, data):
    comes_back_valid(schema, query, data)


def comes_back_valid(schema, query, data):
    """Check one random schema with a random draft, whole or broken, and random choices."""
    try:
        slots = JsonSlots({"name": "f", "parameters": schema})
    except SchemaError:
        return
    oracle = Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER)
    draft = json.dumps(plausible(schema, data.draw))
    if data.draw(st.booleans()):
        draft = broken(draft, data.draw(st.randoms(use_true_random=False)), 3)
    try:
        bound = slots.bind(query, draft)
    except TrmError:
        return
    for i, index in enumerate(bound.y0):
        assert index == -1 or bound.mask[i, index]
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    logits = np.where(bound.mask, rng.standard_normal(bound.mask.shape), -np.inf)
    wild = [int(rng.choice([-1, *np.flatnonzero(row)])) for row in bound.mask]
    kept = bound.decode(bound.y0, logits)
    for resolved in (kept, bound.decode(wild, logits), bound.decode(wild), bound.abstain()):
        assert (resolved.json is None) == (resolved.status == "unresolved")
        if resolved.json is not None:
            assert oracle.is_valid(parse(resolved.json)), (resolved, query)
    if bound.draft.valid:
        assert (kept.status, kept.json) == ("unchanged", draft)
