"""Context providers and features: what a head sees of a call."""

import numpy as np
import pytest

from trm_edge.errors import TrmInputError
from trm_edge.json_slots import Featurizer, GivenStates, HashedNgrams, JsonSlots, Tokens
from trm_edge.json_slots.features import CANDIDATE_FLAGS, SLOT_FLAGS, TOKEN_FLAGS
from trm_edge.json_slots.providers import words_of

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
            Featurizer(states).features(*_parts(TOOL.bind(texts[0])))

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


def _parts(inputs):
    return inputs.query, inputs.tool, inputs.slots, inputs.draft, inputs.candidates, inputs.slot_of, inputs.y0


class TestFeatures:
    def test_shapes_are_those_of_the_table(self):
        inputs = TOOL.bind("make the kitchen red, 40 percent", None, FEATURIZER)
        arrays = inputs.arrays
        tokens, slots, candidates = 7, 3, len(inputs.candidates)
        assert arrays["x"].shape == (tokens, WIDTH + TOKEN_FLAGS)
        assert arrays["slots"].shape == (slots, 3 * WIDTH + SLOT_FLAGS)
        assert arrays["candidates"].shape == (candidates, 3 * WIDTH + CANDIDATE_FLAGS)
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

    def test_a_span_has_its_words_and_those_beside_it(self):
        inputs = TOOL.bind("light the big den now", None, FEATURIZER)
        features = row(inputs, "room", "den") / SIZE
        _, the, big, den, now = HashedNgrams(WIDTH).tokens(inputs.query).vectors
        assert features[:WIDTH] == pytest.approx(den, abs=1e-6)
        before = big + the / 2
        assert features[WIDTH : 2 * WIDTH] == pytest.approx(before / np.linalg.norm(before), abs=1e-6)
        assert features[2 * WIDTH : 3 * WIDTH] == pytest.approx(now, abs=1e-6)

    def test_an_option_that_is_mentioned_has_the_place_where(self):
        inputs = TOOL.bind("make it warm white please", None, FEATURIZER)
        said, unsaid = row(inputs, "color", "warm_white"), row(inputs, "color", "red")
        assert not np.allclose(said[WIDTH : 2 * WIDTH], 0)
        assert np.allclose(unsaid[WIDTH : 2 * WIDTH], 0)

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

    def test_without_a_featurizer_there_are_no_arrays(self):
        with pytest.raises(TrmInputError, match="bind with a featurizer"):
            _ = TOOL.bind("den").arrays


def test_identifiers_become_words():
    assert words_of("numUnits_max") == "num Units max"
    assert words_of("geo.findCity") == "geo find City"
