"""The study's figures: paired tests, shares by set, harm and repair, and what abstaining gives."""

import pytest

pytestmark = pytest.mark.usefixtures("function_call")


def study():
    pytest.importorskip("tqdm")
    import function_call.study as module

    return module


def row(identity, grammar, head, confidence, alone=True):
    steps = [False] * 3 + [head] * 5
    return {
        **{"id": identity, "set": study().set_of(type("E", (), {"identity": identity})()), "oracle": True},
        **{"rules": False, "head": alone, "head by step": [alone] * 8, "head confidence": 0.5},
        **{"grammar": grammar, "grammar + rules": grammar, "grammar + head": head},
        **{"grammar + head by step": steps, "grammar + head confidence": confidence},
    }


ROWS = (
    ("simple_python_0", True, True, 0.9),
    ("simple_python_1", True, False, 0.2),
    ("multiple_3", False, True, 0.8),
    ("live_simple_7-1-0", False, True, 0.4),
    ("live_multiple_9-0-0", False, False, 0.6),
)


def test_mcnemar_is_the_binomial_test_of_what_differs():
    mcnemar = study().mcnemar
    assert mcnemar([True] * 5, [True] * 5) == 1
    assert mcnemar([True] * 6 + [False], [False] * 6 + [False]) == pytest.approx(2 / 2**6)
    assert mcnemar([True, False], [False, True]) == 1
    assert mcnemar([True] * 9 + [False], [False] * 9 + [True]) == pytest.approx(2 * 11 / 2**10)


def test_a_set_is_told_by_the_longest_name():
    set_of = study().set_of
    names = [set_of(type("E", (), {"identity": one[0]})()) for one in ROWS]
    assert names == ["simple_python", "simple_python", "multiple", "live_simple", "live_multiple"]


def test_report_counts_harm_repair_and_abstention():
    found = study().report([row(*one) for one in ROWS])
    assert found["all"]["grammar"] == {
        "right": 0.4,
        "interval": pytest.approx((0.1176, 0.7693), abs=1e-3),
        "count": 5,
    }
    assert found["multiple"]["grammar + head"]["right"] == 1
    assert found["paired"]["grammar + head"] == {"harm": 0.5, "repair": pytest.approx(2 / 3)}
    assert found["paired"]["grammar + head against grammar"]["difference"] == pytest.approx(0.2)
    assert found["by step"]["grammar + head"] == [0] * 3 + [pytest.approx(0.6)] * 5
    assert found["by confidence"]["0.3"] == {"right": pytest.approx(0.8), "harm": 0, "changed": 0.8}
    assert found["by confidence"]["0.9"] == {"right": 0.4, "harm": 0, "changed": 0.2}
    assert "grammar + head" in study().table(found)


def test_rows_without_a_draft_count_for_the_other_arms():
    first = {name: value for name, value in row(*ROWS[0]).items() if "grammar" not in name}
    found = study().report([first, row(*ROWS[2])])
    assert found["all"]["head"]["count"] == 2
    assert found["all"]["grammar"]["count"] == 1
