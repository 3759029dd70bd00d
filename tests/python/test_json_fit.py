"""What words say, what stands beside a span, and how a candidate fits its slot."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trm_edge.json_slots import HashedNgrams, JsonSlots
from trm_edge.json_slots.candidates import Candidate
from trm_edge.json_slots.described import shapes_in
from trm_edge.json_slots.fit import (
    Fit,
    Near,
    best_of_slot,
    covered,
    leads,
    mentioned,
    nearness,
    own_fit,
    said,
    strongest,
    taken,
)
from trm_edge.json_slots.reading import BEFORE, BEHIND, ReadQuery, folded
from trm_edge.json_slots.schema import MISSING
from trm_edge.json_slots.values import OWN_FLAGS, Values
from trm_edge.json_slots.wording import LEAD_OF, SUBJECTS, shape, stem, stems, subjects, words_of

TOOL = JsonSlots(
    {
        "name": "book",
        "description": "Book a trip",
        "parameters": {
            "type": "object",
            "properties": {
                "origin": {"type": "string", "description": "Where it starts, such as 'Austin, TX'"},
                "destination": {"type": "string", "description": "Where it ends, such as 'Austin, TX'"},
                "seats": {"type": "integer", "minimum": 1, "maximum": 5, "default": 2, "description": "Passengers"},
                "date": {"type": "string", "description": "In the format YYYY-MM-DD"},
                "window_seat": {"type": "boolean", "description": "Whether to sit there"},
            },
            "required": ["origin", "destination"],
        },
    }
)


class Bound:
    """A call as the functions take it: what was read, and the tokens of candidates."""

    def __init__(self, query, draft=None):
        self.call = TOOL.bind(query, draft)
        self.read = ReadQuery(query, HashedNgrams(32).tokens(query))
        self.values = Values(self.call.candidates, self.read)
        self.first, self.last = self.values.first[self.values.which], self.values.last[self.values.which]

    def row(self, slot, value):
        """Return the number of a slot's candidate, by its value."""
        for number, one in enumerate(self.call.candidates):
            if self.call.slots[self.call.slot_of[number]].path == (slot,) and one.value == value:
                return number
        raise AssertionError(f"{slot} has no candidate {value!r}")

    def near(self):
        """Return ``nearness`` [M, len(Near)]."""
        spoken = said(self.read, self.call.slots)
        return nearness(self.read, *spoken, self.first, self.last, self.call.slot_of)


class TestWording:
    def test_identifiers_become_words(self):
        assert words_of("numUnits_max") == "num Units max"
        assert words_of("geo.findCity") == "geo find City"

    def test_forms_of_a_word_have_one_stem(self):
        assert stem("departing") == stem("Departure") == "depar"
        assert stem("cats") == stem("cat") == "cat"
        assert stem("s") == "s"
        assert stems("The numUnits of the city") == {"num", "unit", "city"}

    def test_a_subject_in_the_name_says_more_than_in_the_description(self):
        found = dict(zip(SUBJECTS, subjects("departure city", "In the format YYYY-MM-DD, a date"), strict=True))
        assert (found["place"], found["date"], found["from"], found["rate"]) == (1.0, 0.5, 1.0, 0.0)

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("San Francisco, CA", "Xx, X"),
            ("Rio de Janeiro", "Xx x Xx"),
            ("2023-04-15", "9999-99-99"),
            ("3:05 pm", "9:99 x"),
            ("", ""),
            ("ABC-12", "X-99"),
        ],
    )
    def test_shapes(self, text, expected):
        assert shape(text) == expected

    def test_what_a_description_shows(self):
        assert shapes_in("In the format 'City, State', such as 'San Francisco, CA'") == {"Xx, X", "Xx, Xx"}
        assert shapes_in("As YYYY-MM-DD or HH:MM") == {"9999-99-99", "99:99"}
        assert shapes_in("A word like 'red'") == frozenset()


class TestReading:
    def test_a_clause_ends_at_commas_numbers_and_and(self):
        read = ReadQuery(
            "big red a = 2 and small b = 6 now", HashedNgrams(8).tokens("big red a = 2 and small b = 6 now")
        )
        two, six = read.words.index("2"), read.words.index("6")
        shown = [read.words[i] for i in read.before[two] if i >= 0], [read.words[i] for i in read.before[six] if i >= 0]
        assert shown == (["a", "red", "big"], ["b", "small"])
        assert [read.words[i] for i in read.behind[six] if i >= 0] == ["now"]
        assert read.before.shape == (len(read) + 1, BEFORE)
        assert read.behind.shape == (len(read) + 1, BEHIND)
        assert (read.before[-1] == -1).all() and (read.behind[-1] == -1).all()

    def test_a_lead_is_the_word_in_front_but_articles(self):
        query = "go to the 'Den' with Bob"
        read = ReadQuery(query, HashedNgrams(8).tokens(query))
        assert read.lead[read.words.index("den")] == LEAD_OF["to"]
        assert read.lead[read.words.index("bob")] == LEAD_OF["with"]
        assert read.lead[0] == -1

    @pytest.mark.parametrize("query", ["", " ", "?", ",", "7", "the"])
    def test_short_queries_have_columns(self, query):
        bound = Bound(query)
        rows = len(bound.call.candidates)
        assert bound.near().shape == (rows, len(Near))
        assert own_fit(bound.read, bound.call, bound.values).shape == (rows, len(Fit))
        assert leads(bound.read, bound.first).shape[0] == rows

    def test_the_ends_of_a_run_are_told_by_what_stands_there(self):
        query = "Play the Blue Moon, now"
        read = ReadQuery(query, HashedNgrams(8).tokens(query))
        edges = read.edges(np.array([1, 2, -1]), np.array([3, 3, -1]))
        stop, stop_beside, mark_beside, capital_beside, capital = range(0, 10, 2)  # of the first token
        assert edges[0, [stop, stop_beside, mark_beside, capital_beside, capital]].tolist() == [1, 0, 0, 1, 0]
        assert edges[1, [stop, stop_beside, mark_beside, capital_beside, capital]].tolist() == [0, 1, 0, 0, 1]
        assert edges[1, 1::2].tolist() == [0, 0, 1, 0, 1, 2 / 32]
        assert not edges[2].any(), "what does not stand in the query"


class TestFit:
    def test_words_beside_a_span_that_name_its_slot(self):
        bound = Bound("origin: Oslo, destination: Rome")
        near = bound.near()
        assert near[bound.row("origin", "Oslo"), Near.NAME_PREVIOUS] == 1
        assert near[bound.row("destination", "Oslo"), Near.NAME_PREVIOUS] == 0
        assert near[bound.row("destination", "Oslo"), Near.OTHERS_PREVIOUS] == 1
        assert near[bound.row("destination", "Rome"), Near.NAME_PREVIOUS] == 1

    def test_values_written_as_the_description_shows(self):
        bound = Bound("from Oslo to Austin, TX on 2024-02-03")
        shown = [Fit.AS_SHOWN, Fit.NOT_AS_SHOWN]
        fit = own_fit(bound.read, bound.call, bound.values)
        assert fit[bound.row("destination", "Austin, TX"), shown].tolist() == [1, 0]
        assert fit[bound.row("destination", "Oslo"), shown].tolist() == [0, 1]
        assert fit[bound.row("date", "2024-02-03"), Fit.AS_SHOWN] == 1

    def test_drafts_defaults_and_bounds(self):
        bound = Bound("3 seats from Oslo", '{"origin": "Oslo", "destination": "Rome", "seats": 3}')
        fit = own_fit(bound.read, bound.call, bound.values)
        three, oslo, rome = bound.row("seats", 3), bound.row("origin", "Oslo"), bound.row("destination", "Rome")
        assert fit[three, [Fit.DRAFTED, Fit.DEFAULT, Fit.BETWEEN_BOUNDS]].tolist() == [1, 0, 0.5]
        assert fit[bound.row("seats", 2), Fit.DEFAULT] == 1
        assert fit[oslo, [Fit.DRAFTED_SAID, Fit.DRAFTED_UNSAID]].tolist() == [1, 0]
        assert fit[rome, [Fit.DRAFTED_SAID, Fit.DRAFTED_UNSAID]].tolist() == [0, 1]

    def test_words_that_the_draft_gave_to_another_slot_are_taken(self):
        bound = Bound("from Oslo to Rome", '{"origin": "Oslo"}')
        gone = taken(bound.call.y0, bound.first, bound.last, bound.call.slot_of)
        assert gone[bound.row("destination", "Oslo")] == 1
        assert gone[bound.row("origin", "Oslo")] == 0
        assert gone[bound.row("destination", "Rome")] == 0

    def test_runs_of_capitals_and_quotation_marks(self):
        bound = Bound("play 'blue moon' by Ella Fitzgerald")
        fit = own_fit(bound.read, bound.call, bound.values)
        assert fit[bound.row("origin", "Ella Fitzgerald"), Fit.CAPITALS] == 1
        assert fit[bound.row("origin", "Ella"), Fit.CAPITALS] == 0
        assert fit[bound.row("origin", "blue moon"), Fit.QUOTED] == 1
        assert fit[bound.row("origin", "blue"), Fit.QUOTED] == 0

    def test_options_by_the_words_that_tell_them_apart(self):
        tool = JsonSlots(
            {"name": "f", "parameters": {"properties": {"o": {"enum": ["big red", "big blue"]}}, "required": ["o"]}}
        )
        call = tool.bind("the big blue one")
        read = ReadQuery(call.query, HashedNgrams(32).tokens(call.query))
        own, relative, best = covered(read, Values(call.candidates, read), call.slot_of).T
        assert own.tolist() == [0.5, 1]
        assert best.tolist() == [0, 1]
        assert relative[1] == 1 > relative[0]

    def test_what_is_mentioned_of_a_slot_and_whether_negated(self):
        bound = Bound("no window seat please")
        flags = mentioned(bound.read, bound.call.slots, *said(bound.read, bound.call.slots))
        window = [slot.path for slot in bound.call.slots].index(("window_seat",))
        assert flags[window, :3].tolist() == [1, 1, 1]
        for query, negated in (("a window seat", 0), ("I don't window seat", 1)):
            bound = Bound(query)
            flags = mentioned(bound.read, bound.call.slots, *said(bound.read, bound.call.slots))
            assert flags[window, :3].tolist() == [1, 1, negated]

    def test_the_best_and_the_most_of_a_slot(self):
        slot_of = np.array([0, 0, 2, 2])
        values = np.array([0.5, 1, 0, 0], np.float32)
        assert best_of_slot(values, slot_of).tolist() == [0, 1, 0, 0]
        assert strongest(np.stack([values, 1 - values], axis=1), slot_of, 4).tolist() == [
            [1, 0.5],
            [0, 0],
            [0, 1],
            [0, 0],
        ]


class TestUnits:
    @pytest.mark.parametrize(("query", "token"), [("a base of 5m", 3), ("a base of 5 m", 4), ("a base of m", None)])
    def test_an_abbreviated_unit_is_said_behind_a_number_only(self, query, token):
        at = ReadQuery(query, HashedNgrams(8).tokens(query)).at
        assert at.get(stem("meters")) == (None if token is None else [token])


class TestFind:
    @pytest.mark.parametrize(
        ("text", "place"),
        [
            ("animal crossing new horizons", (3, 7)),
            ("Animal Crossing: New Horizons", (3, 7)),
            ("Get all of Animal Crossing: New Horizons, for 2", (0, 10)),
            ("for", (9, 9)),
            *((text, (-1, -1)) for text in ("cross", "horizons and", ":", "")),
        ],
    )
    def test_a_text_stands_in_a_query_whatever_its_case_and_punctuation(self, text, place):
        query = "get all of Animal Crossing: New Horizons, for 2"
        assert ReadQuery(query, HashedNgrams(8).tokens(query)).find(text) == place

    def test_of_several_places_the_last_counts(self):
        query = "on, on and o n"
        assert ReadQuery(query, HashedNgrams(8).tokens(query)).find("on") == (4, 5)

    @given(st.lists(st.sampled_from(["on", "o", "n", "On.", "--", "\u0130n", "5", "x" * 9]), max_size=24).map(" ".join))
    def test_every_run_of_words_is_found_where_it_comes_last(self, query):
        read = ReadQuery(query, HashedNgrams(8).tokens(query))
        assert {run: read.find(run) for run in read.runs} == read.runs
        assert read.find(query) == read.runs.get(folded(query), (-1, -1))


class TestValues:
    def test_slots_share_the_values_that_were_read(self):
        bound = Bound("from Oslo to Rome")
        values = bound.values
        assert len(values) < len(bound.call.candidates)
        assert [values.distinct[which] for which in values.which.tolist()] == list(bound.call.candidates)
        origin, destination = bound.row("origin", "Oslo"), bound.row("destination", "Oslo")
        assert values.which[origin] == values.which[destination]

    @pytest.mark.parametrize(
        ("value", "source", "operator", "expected"),
        [
            ("Rome 7", "span", "words", {"source": 6, "operator": 8, "type": 72, "digit": 85}),
            (True, "option", "", {"source": 2, "type": 73}),
            (False, "option", "", {"source": 2, "type": 74}),
            (None, "option", "", {"source": 2, "type": 75}),
            (MISSING, "omit", "", {"source": 0, "type": 76}),
            (1999, "span", "number", {"source": 6, "number": 92, "whole": 95, "year": 97}),
        ],
    )
    def test_flags_say_what_a_value_is(self, value, source, operator, expected):
        read = ReadQuery("", HashedNgrams(8).tokens(""))
        flags = Values([Candidate(value, source, operator)], read).flags()
        assert flags.shape == (1, OWN_FLAGS)
        assert {name: flags[0, place] for name, place in expected.items()} == dict.fromkeys(expected, 1)
        assert flags[0, 72:77].sum() == ("type" in expected)

    def test_a_part_of_a_longer_value_is_told_from_the_whole(self):
        properties = {"a": {"type": "array", "items": {"type": "integer"}}, "b": {"type": "integer"}}
        tool = {"name": "f", "parameters": {"type": "object", "properties": properties}}
        call = JsonSlots(tool).bind("items 102 and 103")
        values = Values(call.candidates, ReadQuery(call.query, HashedNgrams(8).tokens(call.query)))
        flags = {str(one.value): row for one, row in zip(values.distinct, values.nested().tolist(), strict=True)}
        part, whole = flags["[102]"], flags["[102, 103]"]
        assert part[1] > whole[1] == 0 and whole[2] > part[2]
        assert flags["102"] == [0, 0, 0]  # a number is no part of a list
        assert not Values([Candidate(MISSING, "omit")], ReadQuery("", HashedNgrams(8).tokens(""))).nested().any()

    def test_huge_and_odd_numbers_are_finite(self):
        read = ReadQuery("", HashedNgrams(8).tokens(""))
        odd = [10**400, -(10**400), 1e308, 0, -0.0, 10**15 + 0.5]
        assert np.isfinite(Values([Candidate(value, "span", "number") for value in odd], read).flags()).all()
