"""Context providers and features: what a head sees of a call."""

import numpy as np
import pytest

from trm_edge.errors import TrmInputError
from trm_edge.json_slots import Featurizer, GivenStates, HashedNgrams, Joined, JsonSlots, Tokens
from trm_edge.json_slots.features import CANDIDATE_FLAGS, FLAG_SIZE, SLOT_FLAGS, TOKEN_FLAGS
from trm_edge.json_slots.operators import OPERATORS

TOOL = JsonSlots(
    {
        "name": "set_light",
        "description": "Change a light",
        "parameters": {
            "type": "object",
            "properties": {
                "room": {"type": "string", "description": "The room, such as kitchen"},
                "brightness": {"type": "integer", "minimum": 0, "maximum": 100, "description": "Percent"},
                "color": {"type": "string", "enum": ["red", "warm_white"]},
            },
            "required": ["room"],
        },
    }
)
KNOWN_OPERATORS = [
    "words",
    "quoted",
    "sentence",
    "part of a word",
    "lower",
    "title",
    "snake",
    "camel",
    "singular",
    "number",
    "percent",
    "number words",
    "ordinal",
    "times",
    "coordinate",
    "prefixed unit",
    "implied number",
    "next to a bound",
    "index",
    "decrease",
    "attached number",
    "date",
    "US date",
    "European date",
    "day first",
    "end of a stay",
    "part of a date",
    "date-time",
    "date-time with offset",
    "date and time",
    "date and minute",
    "European date and minute",
    "US date and minute",
    "whole day",
    "time",
    "time with seconds",
    "time in halves",
    "part of a time",
    "duration",
    "time between",
    "place",
    "city",
    "full name",
    "region",
    "country",
    "currency",
    "list",
    "list without articles",
    "range",
    "all numbers",
    "all quoted",
    "all names",
    "array",
    "other words",
]
WIDTH = 32
SIZE = np.sqrt(WIDTH)  # what directions are scaled by
FEATURIZER = Featurizer(HashedNgrams(WIDTH))


def row(inputs, slot, value):
    """Return the features of a slot's candidate, by its value."""
    for number, candidate in enumerate(inputs.candidates):
        if inputs.slots[inputs.slot_of[number]].path == (slot,) and candidate.value == value:
            return inputs.features.candidates[number]
    raise AssertionError(f"{slot} has no candidate {value!r}")


class TestHashedNgrams:
    def test_vectors_are_the_same_everywhere(self):
        made = HashedNgrams(8).tokens("Café 21").vectors
        one = 1 / np.sqrt(6)
        assert made == pytest.approx(
            np.array([[-one, 0, 0, 0, 2 * one, one, 0, 0], [0, 0, 1, 0, 0, 0, 0, 0]]), abs=1e-6
        )

    def test_words_and_marks_are_tokens(self):
        tokens = HashedNgrams(8).tokens("Turn on, the LAMP!")
        covered = ["Turn on, the LAMP!"[a:b] for a, b in zip(tokens.starts, tokens.ends, strict=True)]
        assert covered == ["Turn", "on", ",", "the", "LAMP", "!"]
        assert HashedNgrams(8).tokens("").vectors.shape == (0, 8)

    def test_words_that_look_alike_are_near(self):
        light, lights, upper, other = HashedNgrams(256).tokens("light lights LIGHT kitchen").vectors
        assert np.array_equal(light, upper)
        assert light @ light == pytest.approx(1, abs=1e-6)
        assert light @ lights > 0.5 > 0.2 > abs(light @ other)

    def test_a_width_out_of_range_is_named(self):
        with pytest.raises(TrmInputError, match=r"width: expected 8\.\.4096, got 4"):
            HashedNgrams(4)


class TestGiven:
    def test_given_states_are_used_and_a_missing_text_is_named(self):
        light = HashedNgrams(16)
        texts = ["on in the den", "set light Change a light"]
        states = GivenStates({text: light.tokens(text) for text in texts})
        assert states.width == 16
        assert np.array_equal(states.tokens(texts[0]).vectors, light.tokens(texts[0]).vectors)
        with pytest.raises(TrmInputError, match="expected the tokens of 'room'"):
            Featurizer(states).features(TOOL.bind(texts[0]))

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"vectors": np.zeros((2, 4))}, "vectors: expected float32"),
            ({"vectors": np.zeros((3, 4), np.float32)}, r"vectors: expected float32 \[2, width\]"),
            ({"vectors": np.full((2, 4), np.nan, np.float32)}, "vectors: expected finite"),
            ({"starts": np.array([3, 0])}, "starts: expected rising"),
            ({"ends": np.array([3])}, "ends: expected"),
        ],
    )
    def test_wrong_tokens_are_refused(self, changes, message):
        right = {"vectors": np.zeros((2, 4), np.float32), "starts": np.array([0, 3]), "ends": np.array([2, 5])}
        Tokens(**right)
        with pytest.raises(TrmInputError, match=message):
            Tokens(**(right | changes))

    def test_widths_must_agree(self):
        states = {"a": HashedNgrams(8).tokens("a"), "b": HashedNgrams(16).tokens("b")}
        with pytest.raises(TrmInputError, match=r"one width, got \[8, 16\]"):
            GivenStates(states)


class TestJoined:
    TEXT = "unlit lamp"
    STATES = Tokens(  # of "un", "lit lam" and "p", as a language model may part the text
        np.array([[3, 0], [0, 2], [4, 0]], np.float32), np.array([0, 2, 9]), np.array([2, 9, 10])
    )

    def test_a_token_has_its_own_vector_beside_the_mean_of_the_states_that_cover_it(self):
        ngrams = HashedNgrams(8)
        joined = Joined(ngrams, GivenStates({self.TEXT: self.STATES})).tokens(self.TEXT)
        assert [self.TEXT[a:b] for a, b in zip(joined.starts, joined.ends, strict=True)] == ["unlit", "lamp"]
        assert np.array_equal(joined.vectors[:, :8], ngrams.tokens(self.TEXT).vectors)
        half = np.sqrt(0.5)  # each state counts as a direction, however long it is
        assert joined.vectors[:, 8:] == pytest.approx(np.array([[half, half], [half, half]]), abs=1e-6)

    def test_a_token_that_no_state_covers_has_zeros(self):
        states = GivenStates({self.TEXT: Tokens(np.ones((1, 2), np.float32), np.array([0]), np.array([5]))})
        vectors = Joined(HashedNgrams(8), states).tokens(self.TEXT).vectors
        assert vectors[0, 8:].all()
        assert not vectors[1, 8:].any()

    def test_a_cosine_is_the_mean_of_both(self):
        first, second = HashedNgrams(16), HashedNgrams(32)
        text = "lights in the kitchen light"
        joined = Joined(first, second).tokens(text).vectors
        mean = (first.tokens(text).vectors[0] @ first.tokens(text).vectors[4]) / 2
        mean += (second.tokens(text).vectors[0] @ second.tokens(text).vectors[4]) / 2
        assert joined[0] @ joined[4] / 2 == pytest.approx(mean, abs=1e-6)  # rows become directions: length 1

    def test_a_featurizer_takes_it_and_no_tokens_are_none(self):
        provider = Joined(HashedNgrams(8), HashedNgrams(16))
        assert provider.tokens("").vectors.shape == (0, 24)
        assert TOOL.bind("kitchen", None, Featurizer(provider)).arrays["x"].shape == (1, 24 + TOKEN_FLAGS)


class TestFeatures:
    def test_shapes_are_those_of_the_table(self):
        inputs = TOOL.bind("make the kitchen red, 40 percent", None, FEATURIZER)
        arrays = inputs.arrays
        tokens, slots, candidates = 7, 3, len(inputs.candidates)
        assert arrays["x"].shape == (tokens, WIDTH + TOKEN_FLAGS)
        assert arrays["slots"].shape == (slots, 3 * WIDTH + SLOT_FLAGS)
        assert arrays["candidates"].shape == (candidates, WIDTH + CANDIDATE_FLAGS)
        assert arrays["mask"].shape == (slots, candidates)
        assert all(np.isfinite(array).all() for array in arrays.values())
        assert all(arrays[name].dtype == np.float32 for name in ("x", "slots", "candidates"))

    @pytest.mark.parametrize("query", ["", " ", "?", "\ud800", "den " * 900, "é" * 5000])
    def test_any_query_gives_finite_arrays(self, query):
        arrays = TOOL.bind(query, None, FEATURIZER).arrays
        assert len(arrays["x"]) <= 64
        assert all(np.isfinite(array).all() for array in arrays.values())

    def test_a_long_query_keeps_its_first_and_last_tokens(self):
        words = [f"w{i}" for i in range(100)]
        x = TOOL.bind(" ".join(words), None, Featurizer(HashedNgrams(WIDTH), max_context=5)).arrays["x"]
        kept = [words[i] for i in (0, 1, 2, 98, 99)]
        assert x[:, :WIDTH] / SIZE == pytest.approx(HashedNgrams(WIDTH).tokens(" ".join(kept)).vectors, abs=1e-6)

    def test_a_thought_is_more_context_and_nothing_else(self):
        plain = TOOL.bind("den at 40", None, FEATURIZER)
        thought = TOOL.bind("den at 40", None, FEATURIZER, thought="The attic?")
        x, rows = plain.arrays["x"], thought.arrays["x"][3:]
        assert np.array_equal(thought.arrays["x"][:3], x)
        assert rows[:, :WIDTH] / SIZE == pytest.approx(HashedNgrams(WIDTH).tokens("The attic?").vectors, abs=1e-6)
        assert rows[:, -1] / FLAG_SIZE == pytest.approx([-1 / 32, -2 / 32, -3 / 32])
        assert np.array_equal(thought.arrays["slots"], plain.arrays["slots"])
        assert np.array_equal(thought.arrays["candidates"], plain.arrays["candidates"])
        assert np.array_equal(TOOL.bind("den at 40", None, FEATURIZER).arrays["x"], x)

    def test_a_thought_has_the_rows_that_a_query_leaves(self):
        featurizer = Featurizer(HashedNgrams(WIDTH), max_context=5)
        every = TOOL.bind("den at 40", None, FEATURIZER, thought="The attic? No.").arrays["x"]
        assert np.array_equal(TOOL.bind("den at 40", None, featurizer, thought="The attic? No.").arrays["x"], every[:5])
        long = "light the big den now"
        alone = TOOL.bind(long, None, featurizer).arrays["x"]
        assert np.array_equal(TOOL.bind(long, None, featurizer, thought="The attic").arrays["x"], alone)

    def test_a_span_has_the_words_beside_it_in_its_clause(self):
        inputs = TOOL.bind("light the big den now, ok", None, FEATURIZER)
        _, the, big, _, now, _, _ = HashedNgrams(WIDTH).tokens(inputs.query).vectors
        before = big + the / 2
        beside = before / np.linalg.norm(before) + np.roll(now, WIDTH // 2)
        shown = row(inputs, "room", "den")[:WIDTH] / SIZE
        assert shown == pytest.approx(beside / np.linalg.norm(beside), abs=1e-6)

    def test_an_option_has_its_words_said_or_not(self):
        inputs = TOOL.bind("make it warm white please", None, FEATURIZER)
        said, unsaid = row(inputs, "color", "warm_white"), row(inputs, "color", "red")
        warm, white, red = HashedNgrams(WIDTH).tokens("warm white red").vectors
        both = (warm + white) / np.linalg.norm(warm + white)
        assert said[:WIDTH] / SIZE == pytest.approx(both, abs=1e-6)
        assert unsaid[:WIDTH] / SIZE == pytest.approx(red, abs=1e-6)

    def test_every_operator_has_a_place_of_its_own(self):
        assert len({one.name for one in OPERATORS}) == len(OPERATORS) <= 64
        # A trained head knows operators by their place: append new ones to the end of this list.
        assert [one.name for one in OPERATORS] == KNOWN_OPERATORS

    def test_a_tool_without_slots_has_arrays_without_rows(self):
        arrays = JsonSlots({"name": "stop"}).bind("stop", None, FEATURIZER).arrays
        assert arrays["slots"].shape == (0, 3 * WIDTH + SLOT_FLAGS)
        assert arrays["candidates"].shape == (0, WIDTH + CANDIDATE_FLAGS)

    def test_the_draft_changes_what_it_says_only(self):
        plain = TOOL.bind("den at 40", None, FEATURIZER)
        drafted = TOOL.bind("den at 40", '{"room": "den"}', FEATURIZER)
        assert np.array_equal(plain.arrays["x"], drafted.arrays["x"])
        assert not np.array_equal(plain.arrays["slots"], drafted.arrays["slots"])
        assert not np.array_equal(row(plain, "room", "den"), row(drafted, "room", "den"))

    def test_what_was_asked_before_does_not_matter(self):
        query = "set the den to 40 percent, warm white"
        fresh = TOOL.bind(query, '{"room": "attic"}', Featurizer(HashedNgrams(WIDTH))).arrays
        TOOL.bind("something else 17", '{"color": 3}', FEATURIZER)
        again = TOOL.bind(query, '{"room": "attic"}', FEATURIZER).arrays
        assert all(np.array_equal(fresh[name], again[name]) for name in fresh)

    def test_rows_without_vectors_have_the_same_flags(self):
        query, draft = "set the den to 40 percent, warm white", '{"room": "attic"}'
        both = TOOL.bind(query, draft, FEATURIZER).arrays
        bare = TOOL.bind(query, draft, Featurizer(HashedNgrams(WIDTH), vectors=False)).arrays
        for name, flags in (("x", TOKEN_FLAGS), ("slots", SLOT_FLAGS), ("candidates", CANDIDATE_FLAGS)):
            assert bare[name].shape[1] == flags
            assert np.array_equal(bare[name], both[name][:, -flags:])

    def test_without_a_featurizer_there_are_no_arrays(self):
        with pytest.raises(TrmInputError, match="bind with a featurizer"):
            _ = TOOL.bind("den").arrays
