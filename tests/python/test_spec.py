"""The spec: every field validated, one spelling a value, and the tensors that follow from it."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from models import CASES, make_spec, random_weights

from trm_edge import TrmBundleError, TrmSpec
from trm_edge.spec import MAX_STEPS, check_statistics, identity_statistics

FIELDS = {field.name: field for field in dataclasses.fields(TrmSpec)}
INTS = [name for name, field in FIELDS.items() if field.type == "int"]
FLOATS = [name for name, field in FIELDS.items() if field.type == "float"]
TEXTS = [name for name, field in FIELDS.items() if field.type == "str"]

# (kind, mixer, changed fields, the field that the message names)
WRONG: list[tuple[str, str, dict[str, Any], str]] = [
    *(("actions", "rope", {n: 0}, n) for n in ("hidden_size", "inner_size", "l_cycles", "h_cycles", "answer_rows")),
    ("actions", "rope", {"num_layers": 0}, "num_layers"),
    ("actions", "rope", {"num_layers": 65}, "num_layers"),
    ("actions", "rope", {"registers": 0}, "registers"),
    ("actions", "rope", {"dof": 0}, "dof"),
    ("actions", "rope", {"num_heads": 0}, "num_heads"),
    ("actions", "rope", {"num_heads": 5}, "hidden_size"),
    ("actions", "rope", {"num_heads": 8}, "hidden_size"),
    ("actions", "rope", {"token_inner_size": 1}, "token_inner_size"),
    ("actions", "rope", {"rope_theta": 0.0}, "rope_theta"),
    ("actions", "rope", {"rope_theta": -1.0}, "rope_theta"),
    ("actions", "rope", {"rope_theta": 1e13}, "rope_theta"),
    ("actions", "rope", {"l_cycles": 257}, "l_cycles"),
    ("actions", "rope", {"h_cycles": 257}, "h_cycles"),
    ("actions", "rope", {"h_cycles": 32, "l_cycles": 64}, "h_cycles * (l_cycles + 1) * num_layers"),
    ("actions", "rope", {"h_cycles": 8, "l_cycles": 255, "max_context": 1 << 13}, "* L * (L + widths) * hidden_size"),
    ("tokens", "mlp_t", {"l_cycles": 255, "token_inner_size": 1 << 20}, "* L * (L + widths) * hidden_size"),
    ("actions", "rope", {"norm_eps": 0.0}, "norm_eps"),
    ("actions", "rope", {"norm_eps": 1.5}, "norm_eps"),
    ("actions", "rope", {"context_size": 0}, "context_size"),
    ("actions", "rope", {"max_context": 0}, "context_size"),
    ("actions", "rope", {"max_context": 1 << 14}, "registers + answer_rows + max_context"),
    *(("actions", "rope", {n: 1}, n) for n in ("slot_size", "candidate_size", "max_candidates", "vocab_size")),
    *(("actions", "rope", {n: 1}, n) for n in ("num_puzzles", "puzzle_size")),
    ("actions", "rope", {"draft": "never"}, "draft"),
    ("actions", "rope", {"positions": "absolute"}, "positions"),
    ("actions", "rope", {"mixer": "conv"}, "mixer"),
    ("actions", "rope", {"answer": "text"}, "answer"),
    ("actions", "rope", {"hidden_size": 3 << 18, "inner_size": 1 << 20}, "blocks.0."),
    ("actions", "mlp_t", {"token_inner_size": 0}, "token_inner_size"),
    ("actions", "mlp_t", {"num_heads": 3}, "num_heads"),
    ("actions", "mlp_t", {"positions": "rope"}, "positions"),
    ("slots", "mlp_t", {}, "mixer"),
    *(("slots", "rope", {n: 0}, n) for n in ("slot_size", "candidate_size", "max_candidates", "registers")),
    *(("slots", "rope", {n: 1}, n) for n in ("dof", "feature_size", "vocab_size", "puzzle_size")),
    ("slots", "rope", {"draft": "optional"}, "draft"),
    *(("tokens", "rope", {n: 0}, n) for n in ("vocab_size", "num_puzzles", "puzzle_size")),
    ("tokens", "rope", {"registers": 0}, "puzzle_size"),
    ("tokens", "rope", {"puzzle_size": 3 * 24 + 1}, "puzzle_size"),
    ("tokens", "rope", {"max_context": 2, "context_size": 2}, "max_context"),
    *(("tokens", "rope", {n: 1}, n) for n in ("dof", "feature_size", "slot_size")),
    ("tokens", "rope", {"draft": "optional"}, "draft"),
]


def changed(**changes: Any) -> TrmSpec:
    return TrmSpec(**(make_spec("actions").to_dict() | changes))


@pytest.mark.parametrize(("kind", "mixer", "changes", "field"), WRONG)
def test_a_wrong_field_is_refused_by_name(kind: str, mixer: str, changes: dict[str, Any], field: str) -> None:
    with pytest.raises(TrmBundleError, match=r"^spec\.") as caught:
        make_spec(kind, mixer, **changes) if "mixer" not in changes else changed(**changes)
    assert field in str(caught.value).split(": expected")[0]
    assert ": expected " in str(caught.value) and ", got " in str(caught.value)


@pytest.mark.parametrize(("kind", "mixer"), [case for case in CASES])
def test_the_cases_of_the_tests_are_valid(kind: str, mixer: str) -> None:
    assert make_spec(kind, mixer).answer == kind


@pytest.mark.parametrize("name", INTS)
@pytest.mark.parametrize("value", [-1, (1 << 20) + 1, 1 << 70, 1.0, True, False, "8", None, np.int64(8), [8]])
def test_an_integer_field_takes_a_plain_size_only(name: str, value: Any) -> None:
    with pytest.raises(TrmBundleError, match=rf"^spec\.{name}: expected int in 0\.\.1048576, got "):
        make_spec("actions", **{name: value})


@pytest.mark.parametrize("name", FLOATS)
@pytest.mark.parametrize("value", ["1.0", None, True, math.nan, math.inf, -math.inf, 1j])
def test_a_float_field_takes_a_finite_number_only(name: str, value: Any) -> None:
    with pytest.raises(TrmBundleError, match=rf"^spec\.{name}: expected float, got "):
        make_spec("actions", **{name: value})
    with pytest.raises(TrmBundleError, match=rf"^spec\.{name}: expected 1"):
        make_spec("actions", **{name: 10**400})


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("value", [None, 1, b"rope", ["rope"], "", "ROPE", "rope "])
def test_a_choice_takes_one_of_its_words_only(name: str, value: Any) -> None:
    with pytest.raises(TrmBundleError, match=rf"^spec\.{name}: expected "):
        changed(**{name: value})


@pytest.mark.parametrize(
    ("field", "text"),
    [
        *(
            ("hidden_size", t)
            for t in ("+24", " 24", "24 ", "2_4", "024", "24.0", "2.4e1", "0x18", "", "-24", "\u0662\u0664", "\u00b2")
        ),
        *(("hidden_size", t) for t in ("nan", "24\n", "9" * 5000)),
        *(("norm_eps", t) for t in ("+1e-5", " 1e-5", "1e-5 ", "1_0e-6", ".5", "1e", "nan", "inf", "-0.1", "0x1p-3")),
        *(("norm_eps", t) for t in ("1E-5", "1e-5\n", "\u0661e-5", "", "1.e-5", "1e400")),
        *(("answer", t) for t in ("", "Actions", "actions\n", "text")),
    ],
)
def test_a_number_in_metadata_has_one_spelling(field: str, text: str) -> None:
    metadata = make_spec("actions").to_metadata() | {f"spec.{field}": text}
    with pytest.raises(TrmBundleError, match=rf"^spec\.{field}: "):
        TrmSpec.from_metadata(metadata)


@pytest.mark.parametrize("field", sorted(FIELDS))
def test_metadata_must_hold_every_field(field: str) -> None:
    metadata = make_spec("actions").to_metadata()
    del metadata[f"spec.{field}"]
    with pytest.raises(TrmBundleError, match=rf"lacks field\(s\) {field}$"):
        TrmSpec.from_metadata(metadata)


def test_metadata_must_hold_no_other_field() -> None:
    metadata = make_spec("actions").to_metadata()
    assert TrmSpec.from_metadata(metadata | {"format": "x", "specs.dof": "1"}) == make_spec("actions")
    for name in ("bogus", "", "Dof"):
        with pytest.raises(TrmBundleError, match=r"unknown field\(s\)"):
            TrmSpec.from_metadata(metadata | {f"spec.{name}": "1"})


def test_a_mapping_may_leave_out_defaults_alone() -> None:
    spec = make_spec("actions")
    short = {n: v for n, v in spec.to_dict().items() if v != FIELDS[n].default}
    assert TrmSpec.from_dict(short) == spec
    with pytest.raises(TrmBundleError, match=r"unknown field\(s\) bogus; known: .*hidden_size"):
        TrmSpec.from_dict(short | {"bogus": 1})
    with pytest.raises(TrmBundleError, match=r"incomplete.*hidden_size"):
        TrmSpec.from_dict({n: v for n, v in short.items() if n != "hidden_size"})
    with pytest.raises(dataclasses.FrozenInstanceError):
        spec.dof = 4  # type: ignore[misc]


sizes = st.integers(1, 40)


@st.composite
def specs(draw: st.DrawFn) -> TrmSpec:
    """Draw any valid spec of moderate size."""
    kind = draw(st.sampled_from(["actions", "slots", "tokens"]))
    mixer = "attention" if kind == "slots" else draw(st.sampled_from(["attention", "mlp_t"]))
    heads = draw(st.integers(1, 6))
    hidden = 2 * heads * draw(st.integers(1, 8)) if mixer == "attention" else draw(sizes)
    registers = draw(st.integers(0 if kind == "tokens" else 1, 5))
    fields: dict[str, Any] = {name: draw(sizes) for name in ("inner_size", "answer_rows")}
    fields |= {"l_cycles": draw(st.integers(1, 16)), "h_cycles": draw(st.integers(1, 8))}
    fields |= {"answer": kind, "mixer": mixer, "hidden_size": hidden, "registers": registers}
    fields |= {"num_layers": draw(st.integers(1, 16)), "rope_theta": draw(st.floats(1, 1e12))}
    fields |= {"norm_eps": draw(st.floats(1e-12, 1))}
    fields["positions"] = draw(st.sampled_from(["learned", "none"] + ["rope"] * (mixer == "attention")))
    fields |= {"num_heads": heads} if mixer == "attention" else {"token_inner_size": draw(sizes)}
    if kind == "tokens":
        fields |= {"vocab_size": draw(sizes), "num_puzzles": draw(sizes)}
        fields["puzzle_size"] = draw(st.integers(1, registers * hidden)) if registers else 0
        return TrmSpec(**fields)
    if draw(st.booleans()):
        fields |= {"max_context": draw(sizes), "context_size": draw(sizes)}
    if kind == "slots":
        return TrmSpec(**fields, **{n: draw(sizes) for n in ("slot_size", "candidate_size", "max_candidates")})
    fields |= {"dof": draw(sizes), "feature_size": draw(st.integers(0, 9))}
    return TrmSpec(**fields, draft=draw(st.sampled_from(["required", "optional"])))


@settings(max_examples=300)
@given(specs())
def test_metadata_round_trip(spec: TrmSpec) -> None:
    metadata = spec.to_metadata()
    assert all(type(key) is str and type(value) is str for key, value in metadata.items())
    assert TrmSpec.from_metadata(metadata) == spec
    assert TrmSpec.from_dict(spec.to_dict()) == spec


@settings(max_examples=100)
@given(specs())
def test_tensors_fit_the_sizes(spec: TrmSpec) -> None:
    shapes = spec.tensor_shapes()
    assert all(n >= 1 for shape in shapes.values() for n in shape)
    assert sum(name.endswith("mlp.down.weight") for name in shapes) == spec.num_layers
    assert ("position_embedding" in shapes) == (spec.positions == "learned")
    assert any("token_mixer" in name for name in shapes) == (spec.mixer == "mlp_t")
    statistics = identity_statistics(spec)
    check_statistics(statistics)
    counted = sum(math.prod(shape) for name, shape in shapes.items() if name not in statistics)
    assert spec.parameter_count() == counted


def test_tensor_shapes_of_an_actions_head() -> None:
    spec = make_spec("actions", feature_size=2)
    d, i = 24, 20
    expected = {
        "y_init": (d,),
        "z_init": (d,),
        "registers": (2, d),
        "context_encoder.weight": (d, 7),
        "normalization.x.mean": (7,),
        "normalization.x.std": (7,),
        "time_embedding": (5, d),
        "features_encoder.weight": (d, 2),
        "normalization.features.mean": (2,),
        "normalization.features.std": (2,),
        "answer_encoder.weight": (d, 3),
        "answer_decoder.weight": (3, d),
        "normalization.y0.mean": (3,),
        "normalization.y0.std": (3,),
        "limits.lower": (3,),
        "limits.upper": (3,),
        "limits.velocity": (3,),
        "halt_head.weight": (1, d),
        "halt_head.bias": (1,),
    }
    for block in ("blocks.0.", "blocks.1."):
        expected |= {block + "attention.qkv.weight": (3 * d, d), block + "attention.out.weight": (d, d)}
        expected |= {block + "mlp.gate_up.weight": (2 * i, d), block + "mlp.down.weight": (d, i)}
    assert spec.tensor_shapes() == expected


def test_tensor_shapes_of_the_other_kinds() -> None:
    slots = make_spec("slots", "learned").tensor_shapes()
    assert slots["position_embedding"] == (1 + 4 + 5, 24)
    assert (slots["slot_encoder.weight"], slots["key.weight"], slots["query.weight"]) == ((24, 5), (24, 4), (24, 24))
    assert slots["key_none"] == (24,)
    tokens = make_spec("tokens", "mlp_t").tensor_shapes()
    assert (tokens["puzzle_embedding"], tokens["token_embedding"]) == ((4, 50), (7, 24))
    assert tokens["answer_decoder.weight"] == (7, 24)
    assert tokens["blocks.1.token_mixer.gate_up.weight"] == (20, 12)
    assert tokens["blocks.1.token_mixer.down.weight"] == (12, 10)
    bare = make_spec("tokens", registers=0, puzzle_size=0).tensor_shapes()
    assert "puzzle_embedding" not in bare and "registers" not in bare


def test_the_official_network_has_about_seven_million_parameters() -> None:
    spec = TrmSpec(
        answer="tokens",
        hidden_size=512,
        num_heads=8,
        inner_size=1536,
        positions="rope",
        l_cycles=6,
        h_cycles=3,
        registers=16,
        answer_rows=81,
        vocab_size=11,
        num_puzzles=1,
        puzzle_size=512,
    )
    net = sum(math.prod(shape) for name, shape in spec.tensor_shapes().items() if name.startswith("blocks."))
    assert net == 2 * (4 * 512**2 + 3 * 512 * 1536) == 6_815_744
    assert net < spec.parameter_count() < 7_000_000


def test_positions_reserve_the_largest_answer() -> None:
    spec = make_spec("slots")
    assert spec.row_positions(4, 5) == list(range(10))
    assert spec.row_positions(2, 3) == [0, 1, 2, 5, 6, 7]
    assert spec.row_positions(0, 1) == [0, 5]
    assert spec.max_rows == 10 and spec.head_size == 8 and MAX_STEPS == 1024


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("limits.lower", np.nan, "NaN"),
        ("limits.upper", np.nan, "NaN"),
        ("limits.velocity", np.nan, "NaN"),
        ("limits.velocity", 0.0, "> 0"),
        ("limits.velocity", -1.0, "> 0"),
        ("limits.lower", 9.0, "lower <= upper"),
        ("limits.lower", np.inf, ""),
        ("limits.upper", -np.inf, ""),
        ("normalization.x.std", 0.0, "> 0"),
        ("normalization.x.std", -1.0, "> 0"),
        ("normalization.x.std", np.inf, "finite"),
        ("normalization.x.mean", np.nan, "finite"),
        ("y_init", np.nan, "finite"),
        ("halt_head.bias", -np.inf, "finite"),
    ],
)
def test_statistics_and_weights_must_make_sense(name: str, value: float, words: str) -> None:
    tensors = random_weights(make_spec("actions"))
    check_statistics(tensors)
    tensors[name].reshape(-1)[-1] = value
    with pytest.raises(TrmBundleError, match=rf"^tensor {name}".replace("upper", "(upper|lower)")) as caught:
        check_statistics(tensors)
    assert words in str(caught.value)


def test_a_lower_bound_of_plus_infinity_leaves_no_room() -> None:
    tensors = random_weights(make_spec("actions"))
    tensors["limits.lower"][:] = tensors["limits.upper"][:] = np.inf
    with pytest.raises(TrmBundleError, match=r"limits\.lower: inf leaves no room"):
        check_statistics(tensors)
