"""The order of teachers: the worked case, both stop rules, ties, and what it is compared with."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from kdswift import mtpd
from kdswift.errors import ArgumentError

AP = {"a": 38.0, "b": 42.0, "c": 47.0}
COSTS = {
    ("a", "c"): 0.7,
    ("b", "c"): 0.4,
    ("S", "c"): 0.9,
    ("a", "b"): 0.5,
    ("S", "b"): 0.6,
    ("S", "a"): 0.1,
    ("b", "a"): 0.3,
    ("c", "a"): 0.3,
    ("c", "b"): 0.3,
}


def select(changes=None, k=3, teachers=("a", "b", "c"), performance=AP):
    return mtpd.backward_greedy_selection(
        COSTS | (changes or {}), "S", list(teachers), performance, k
    )


@pytest.mark.parametrize(
    ("changes", "k", "order"),
    [
        ({}, 3, "abc"),
        ({}, 9, "abc"),
        ({}, 2, "bc"),
        ({}, 1, "c"),
        ({("a", "b"): 0.65}, 3, "bc"),  # stop rule 1
        ({("a", "b"): 0.6}, 3, "abc"),  # equality goes on
        ({("S", "c"): 0.3}, 3, "c"),
    ],
)
def test_the_worked_case(changes, k, order):
    assert select(changes, k) == list(order)


def test_reasons_in_words():
    reasons = select().reasons
    assert reasons[0] == "c is last: the best teacher, AP 47"
    assert reasons[1] == "b before c: C(b -> c) = 0.4 is least (a 0.7, S 0.9)"
    assert reasons[-1] == "no teacher is left"
    assert "max_teachers = 2" in select(k=2).reasons[-1]
    stopped = select({("a", "b"): 0.65}).reasons[-1]
    assert stopped == (
        "no teacher before b: the nearest left, a (0.65), is farther from it than S itself (0.6)"
    )
    assert "a -> b -> c" in repr(select())
    assert "<li>" in select()._repr_html_()


@pytest.mark.parametrize("factor", [1e-3, 0.5, 40.0])
def test_a_factor_on_all_costs_into_one_target_changes_nothing(factor):
    for target in "abc":
        scaled = {pair: cost * factor for pair, cost in COSTS.items() if pair[1] == target}
        assert select(scaled) == list("abc")


def test_the_pool_s_order_does_not_matter():
    rng = np.random.default_rng(0)
    names = ["a", "b", "c", "d", "e"]
    for _ in range(30):
        costs = {(x, y): float(rng.integers(1, 4)) for x in [*names, "S"] for y in names if x != y}
        scores = {name: float(rng.integers(40, 43)) for name in names}
        found = {
            mtpd.backward_greedy_selection(costs, "S", pool, scores, 4).names
            for pool in itertools.permutations(names)
        }
        assert len(found) == 1


def test_equal_ap_goes_by_the_student_s_cost():
    scores = {**AP, "b": 47.0}
    assert select(performance=scores, k=1) == ["b"]  # 0.6 against 0.9
    assert "lower" in select(performance=scores).reasons[0]
    assert select({("S", "b"): 0.95}, performance=scores, k=1) == ["c"]


def test_a_single_teacher_is_returned():
    assert select(teachers=["b"]) == ["b"]
    assert mtpd.backward_greedy_selection({}, "S", ["x"], [0.3], 2) == ["x"]


def test_errors():
    for arguments, words in (
        ({"k": 0}, "max_teachers"),
        ({"teachers": []}, "no teachers"),
        ({"changes": {("b", "c"): float("nan")}}, r"C\(b -> c\) is NaN"),
        ({"changes": {("S", "c"): float("nan")}}, r"C\(S -> c\) is NaN"),
        ({"performance": {**AP, "b": float("nan")}}, "performance of b"),
        ({"performance": {"a": 1.0, "c": 2.0}}, "performance of b"),
        ({"performance": [1.0]}, "1 numbers for 3"),
        ({"teachers": ["a", "a", "c"]}, "twice"),
        ({"teachers": ["a", "S"], "performance": {"a": 1, "S": 2}}, "among the teachers"),
        ({"teachers": ["a", "z"], "performance": {"a": 1, "z": 2}}, "is missing"),
    ):
        with pytest.raises(ArgumentError, match=words):
            select(**arguments)


def test_teachers_may_be_objects():
    pool = {"a": object(), "b": object(), "c": object()}
    found = mtpd.backward_greedy_selection(COSTS, "S", pool, AP, 2)
    assert list(found) == [pool["b"], pool["c"]]
    assert found[0] is pool["b"]
    assert found.names == ("b", "c")


def test_decisions_are_what_the_order_rests_on():
    assert set(select(k=2).decisions) == {("c", "b", "a"), ("c", "b", "S")}
    stopped = select({("a", "b"): 0.65}).decisions
    assert ("b", "S", "a") in stopped


def test_all_orders():
    assert list(mtpd.all_orders("ab")) == [("a",), ("b",), ("a", "b"), ("b", "a")]
    assert len(list(mtpd.all_orders("abcd"))) == 4 + 12 + 24 + 24
    assert len(list(mtpd.all_orders("abcd", 2))) == 16
    best, scores = mtpd.brute_force("abc", lambda order: order == ("c", "a"), 2)
    assert best == ("c", "a")
    assert len(scores) == 9


def test_the_shortest_path():
    # S -> a -> b -> c is 0.1 + 0.5 + 0.4 = 1.0, S -> a -> c 0.8, S -> c 0.9, S -> b -> c 1.0.
    assert mtpd.shortest_path(COSTS, "S", list("abc"), AP, 3) == ["a", "c"]
    assert mtpd.shortest_path(COSTS, "S", list("abc"), AP, 1) == ["c"]
    cheap = COSTS | {("a", "b"): 0.01, ("b", "c"): 0.02}
    assert mtpd.shortest_path(cheap, "S", list("abc"), AP, 3) == ["a", "b", "c"]
    assert mtpd.shortest_path(cheap, "S", list("abc"), AP, 2) != ["a", "b", "c"]


def test_simple_rules():
    assert mtpd.ascending_performance(list("cab"), AP) == ["a", "b", "c"]
    assert mtpd.ascending_performance(list("cab"), AP, 2) == ["b", "c"]
    drawn = [mtpd.random_order(list("abc"), seed).names for seed in range(20)]
    assert len(set(drawn)) > 3
    assert drawn[3] == mtpd.random_order(list("cba"), 3).names
    assert len(mtpd.random_order(list("abc"), 0, 2)) == 2
