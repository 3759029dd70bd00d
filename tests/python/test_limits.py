"""The projection onto limits: the engine against the oracle bit for bit, and its guarantees in exact arithmetic."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from trm_edge import Status, TrmInputError, project_limits
from trm_edge import reference as oracle
from trm_edge._native import core

HUGE = float(np.finfo(np.float32).max)
TINY = 1.401298464324817e-45  # the smallest subnormal

finite = st.one_of(
    st.floats(-4, 4, width=32),
    st.floats(width=32, allow_nan=False, allow_infinity=False),
    st.sampled_from([0.0, -0.0, 1.0, -1.0, TINY, -TINY, 2.0**-130, HUGE, -HUGE, 2.0**100, 2.0**24, 2.0**-27]),
)
speed = st.one_of(
    st.floats(0.0078125, 4, width=32),
    st.floats(0, width=32, allow_nan=False, exclude_min=True),
    st.sampled_from([TINY, 2.0**-130, HUGE, math.inf, 1.0]),
)


def _bounds(pair: tuple[float, float]) -> tuple[float, float]:
    low, high = sorted(pair)
    return (-math.inf if low == math.inf else low), (math.inf if high == -math.inf else high)


bounds = st.tuples(*[st.one_of(finite, st.sampled_from([math.inf, -math.inf]))] * 2).map(_bounds)


@st.composite
def problems(draw: st.DrawFn) -> dict[str, np.ndarray | None]:
    """Draw actions [T, dof], limits, and a last action or none."""
    rows, dof = draw(st.integers(1, 6)), draw(st.integers(1, 3))
    actions = [[draw(finite) for _ in range(dof)] for _ in range(rows)]
    pairs = [draw(bounds) for _ in range(dof)]
    last = [draw(finite) for _ in range(dof)] if draw(st.booleans()) else None
    return {
        "actions": np.asarray(actions, np.float32),
        "lower": np.asarray([low for low, _ in pairs], np.float32),
        "upper": np.asarray([high for _, high in pairs], np.float32),
        "velocity": np.asarray([draw(speed) for _ in range(dof)], np.float32),
        "last_action": None if last is None else np.asarray(last, np.float32),
    }


def _one(actions: list[float], lower: float, upper: float, velocity: float, last: float | None) -> dict[str, Any]:
    column = np.asarray(actions, np.float32)[:, None]
    limits = {"lower": lower, "upper": upper, "velocity": velocity, "last_action": last}
    return {"actions": column} | {n: None if v is None else np.float32([v]) for n, v in limits.items()}


@settings(max_examples=400)
@given(problems())
@example(_one([-0.0, 0.0, -0.0], 0.0, 0.0, 1.0, None))
@example(_one([HUGE, -HUGE, HUGE], -math.inf, math.inf, HUGE, -HUGE))
@example(_one([5.0, 5.0], -1.0, 1.0, 0.1, 9.0))
@example(_one([1.0, 1.0, 1.0], -math.inf, math.inf, TINY, 0.0))
@example(_one([1.0], -math.inf, math.inf, 1.0, 16777216.0))
@example(_one([5.0], -math.inf, math.inf, 1.0, -1e-30))
@example(_one([-5.0], -math.inf, math.inf, 0.3, 1e-20))
def test_engine_and_oracle_agree_bit_for_bit(problem: dict[str, Any]) -> None:
    given_bytes = {name: None if v is None else v.tobytes() for name, v in problem.items()}
    projected, status = project_limits(**problem)
    expected, outside = oracle.project_limits(
        problem["actions"], problem["lower"], problem["upper"], problem["velocity"], problem["last_action"]
    )
    assert projected.tobytes() == expected.tobytes()
    assert status == (Status.OUTSIDE_LIMITS if outside else Status.OK)
    assert {name: None if v is None else v.tobytes() for name, v in problem.items()} == given_bytes
    assert not np.shares_memory(projected, problem["actions"])


@settings(max_examples=400)
@given(problems())
@example(_one([5.0, 5.0, 5.0], -1.0, 1.0, 0.3, 2.0))
@example(_one([5.0], -math.inf, math.inf, 1.0, -1e-30))
@example(_one([-5.0], -math.inf, math.inf, 1.0, 1e-30))
@example(_one([5.0, 5.0], -math.inf, math.inf, 0.3, -1e-20))
def test_the_limits_hold_exactly_and_projecting_again_changes_nothing(problem: dict[str, Any]) -> None:
    projected, status = project_limits(**problem)
    assert np.isfinite(projected).all()
    last = problem["last_action"]
    path = projected if last is None else np.concatenate([last[None], projected])
    for before, after in itertools.pairwise(path.tolist()):
        for a, b, most in zip(before, after, problem["velocity"].tolist(), strict=True):
            assert abs(Fraction(b) - Fraction(a)) <= most
    inside = (projected >= problem["lower"]) & (projected <= problem["upper"])
    if status == Status.OK:
        assert inside.all()
    else:
        assert not inside.all() and last is not None
        assert (np.diff(inside.astype(int), axis=0) >= 0).all(), "once inside, it stays inside"
    again = project_limits(**problem | {"actions": projected})
    assert again.actions.tobytes() == projected.tobytes()
    assert again.status == status


@settings(max_examples=200)
@given(problems())
def test_what_is_inside_the_limits_is_left_alone(problem: dict[str, Any]) -> None:
    allowed, status = project_limits(**problem)
    nearer = problem | {"actions": allowed}
    if status == Status.OK:
        assert project_limits(**nearer).actions.tobytes() == allowed.tobytes()
    free = {name: problem[name] for name in ("actions",)}
    assert project_limits(**free).actions.tobytes() == problem["actions"].tobytes()
    assert project_limits(**free).status == Status.OK


@settings(max_examples=200)
@given(finite, speed)
@example(-1e-30, 1.0)
@example(1e-30, 1.0)
def test_a_step_at_the_velocity_limit_is_as_long_as_float32_allows(start: float, velocity: float) -> None:
    if velocity == math.inf:
        return
    target = HUGE if start < 0 else -HUGE
    out = project_limits(np.float32([[target]]), velocity=np.float32([velocity]), last_action=np.float32([start]))
    reached = float(out.actions[0, 0])
    if reached == target:
        return
    further = float(np.nextafter(np.float32(reached), np.float32(target)))
    assert abs(Fraction(reached) - Fraction(start)) <= Fraction(velocity)
    assert Fraction(further) != Fraction(reached)
    assert abs(Fraction(further) - Fraction(start)) > Fraction(velocity)


def test_each_limit_alone() -> None:
    chunk = np.float32([[0.0, 5.0], [2.0, -5.0], [-2.0, 0.0]])
    low, high = np.float32([-1, -np.inf]), np.float32([1, np.inf])
    assert project_limits(chunk).actions.tolist() == chunk.tolist()
    assert project_limits(chunk, lower=low).actions.tolist() == [[0, 5], [2, -5], [-1, 0]]
    assert project_limits(chunk, upper=high).actions.tolist() == [[0, 5], [1, -5], [-2, 0]]
    slow = np.float32([1, 1])
    assert project_limits(chunk, velocity=slow).actions.tolist() == [[0, 5], [1, 4], [0, 3]]
    last = np.float32([0, 0])
    assert project_limits(chunk, velocity=slow, last_action=last).actions.tolist() == [[0, 1], [1, 0], [0, 0]]
    assert project_limits(chunk, last_action=last).actions.tolist() == chunk.tolist(), "no velocity, no continuity"


def test_from_outside_it_returns_at_the_velocity_limit_and_says_so() -> None:
    limits = {"lower": np.float32([-1]), "upper": np.float32([1]), "velocity": np.float32([0.5])}
    chunk = np.zeros((6, 1), np.float32)
    out = project_limits(chunk, **limits, last_action=np.float32([2.5]))
    assert out.actions.ravel().tolist() == [2.0, 1.5, 1.0, 0.5, 0.0, 0.0]
    assert out.status == Status.OUTSIDE_LIMITS
    near = project_limits(chunk, **limits, last_action=np.float32([1.5]))
    assert (near.actions[0, 0], near.status) == (1.0, Status.OK), "one step brings it back"


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 0)])
def test_nothing_projects_to_nothing(shape: tuple[int, int]) -> None:
    out = project_limits(np.zeros(shape, np.float32), lower=np.full(shape[1], -1, np.float32))
    assert out.actions.shape == shape and out.status == Status.OK


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"actions": np.zeros(3, np.float32)}, ("actions", "[T, dof]", "[3]")),
        ({"actions": np.zeros((1, 2, 3), np.float32)}, ("actions", "[T, dof]", "[1, 2, 3]")),
        ({"actions": np.zeros((2, 3))}, ("actions", "float32", "float64")),
        ({"actions": None}, ("actions",)),
        ({"actions": np.float32([[0, np.nan, 0]])}, ("actions", "finite")),
        ({"actions": np.float32([[0, np.inf, 0]])}, ("actions", "finite")),
        ({"lower": np.zeros(2, np.float32)}, ("lower", "[3]", "[2]")),
        ({"upper": np.zeros((3, 1), np.float32)}, ("upper", "[3]", "[3, 1]")),
        ({"velocity": np.float32(1)}, ("velocity", "[3]", "[]")),
        ({"velocity": np.ones(3)}, ("velocity", "float32", "float64")),
        ({"lower": np.float32([0, 2, 0]), "upper": np.float32([1, 1, 1])}, ("lower", "upper", "dimension 1", "2")),
        ({"lower": np.float32([0, np.nan, 0])}, ("lower", "dimension 1", "nan")),
        ({"upper": np.float32([0, np.nan, 0])}, ("upper", "dimension 1", "nan")),
        ({"lower": np.float32([0, 0, np.inf])}, ("lower", "dimension 2", "inf")),
        ({"upper": np.float32([0, 0, -np.inf])}, ("upper", "dimension 2", "inf")),
        ({"velocity": np.float32([1, 0, 1])}, ("velocity", "dimension 1", "> 0", "0")),
        ({"velocity": np.float32([1, -1, 1])}, ("velocity", "dimension 1", "-1")),
        ({"velocity": np.float32([1, 1, np.nan])}, ("velocity", "dimension 2", "nan")),
        ({"last_action": np.float32([0, np.nan, 0])}, ("last_action", "finite")),
        ({"last_action": np.float32([np.inf, 0, 0])}, ("last_action", "finite")),
        ({"last_action": np.zeros((1, 3), np.float32)}, ("last_action", "[3]", "[1, 3]")),
    ],
)
def test_a_wrong_limit_is_refused_by_name(change: dict[str, Any], words: tuple[str, ...]) -> None:
    call: dict[str, Any] = {"actions": np.zeros((2, 3), np.float32)} | change
    with pytest.raises(TrmInputError) as caught:
        project_limits(**call)
    for word in words:
        assert word in str(caught.value)


def test_the_binding_projects_no_copy() -> None:
    actions, row, none = np.full((2, 3), 9, np.float32), np.ones(3, np.float32), (None, None, None)
    assert core.project_limits(actions, None, row, None, None) == Status.OK and (actions == 1).all()
    for wrong in (np.full((2, 3), 9.0), np.full((2, 6), 9, np.float32)[:, ::2], [[9.0]]):
        with pytest.raises(TypeError):
            core.project_limits(wrong, row, *none)
    for limit in (np.ones(3), [1.0, 1.0, 1.0], np.ones(6, np.float32)[::2]):
        with pytest.raises(TypeError):
            core.project_limits(actions, limit, *none)
    for limit in (np.ones(2, np.float32), np.ones((3, 1), np.float32)):
        with pytest.raises(ValueError, match="limits"):
            core.project_limits(actions, limit, *none)
    with pytest.raises(ValueError, match="actions"):
        core.project_limits(row, *none, None)


def test_lists_and_strided_arrays_are_taken() -> None:
    wide = np.zeros((4, 6), np.float32)
    wide[:, ::2] = 3
    out = project_limits(wide[:, ::2], upper=[1, 2, 4], last_action=(0, 0, 0))
    assert out.actions.tolist() == [[1, 2, 3]] * 4
    assert wide[0, 0] == 3
