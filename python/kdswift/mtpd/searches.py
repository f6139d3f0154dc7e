"""What backward greedy selection is compared with: all orders, the shortest path, simple rules."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import permutations
from typing import Any

import numpy as np

from .._numbers import check_count
from .selection import Costs, Problem, Selection, make_problem


def all_orders(teachers: Iterable[Any], max_teachers: int | None = None) -> Iterator[tuple]:
    """Every order of 1 to `max_teachers` teachers (None: of all of them), the short ones first."""
    pool = list(teachers)
    most = len(pool) if max_teachers is None else check_count(max_teachers, "max_teachers", "order")
    for count in range(1, min(most, len(pool)) + 1):
        yield from permutations(pool, count)


def brute_force(
    teachers: Iterable[Any],
    score: Callable[[tuple], float],
    max_teachers: int | None = None,
) -> tuple[tuple, dict[tuple, float]]:
    """The order with the highest score, and every order's.

    score : e.g. the AP of a student that was distilled by this order with a small budget; the first
        of equal ones wins
    """
    scores = {order: float(score(order)) for order in all_orders(teachers, max_teachers)}
    return max(scores, key=lambda order: scores[order]), scores


def shortest_path(
    costs: Costs, student: Any, teachers: Any, performance: Any, max_teachers: int = 2
) -> Selection:
    """The cheapest way from the student to the best teacher over the graph of costs: of all orders
    that end with it, the one with the least sum C(S -> T_1) + C(T_1 -> T_2) + …"""
    problem = make_problem(costs, student, teachers, performance, "shortest_path")
    most = check_count(max_teachers, "max_teachers", "shortest_path")
    last, reason = problem.best()
    others = sorted(name for name in problem.teachers if name != last)
    before = [(), *(all_orders(others, most - 1) if most > 1 and others else ())]
    ways = {(*names, last): _length(problem, (*names, last)) for names in before}
    order = min(ways, key=lambda names: (ways[names], len(names), names))
    reasons = [reason, f"the sum of the costs, {ways[order]:.4g}, is the least of {len(ways)} ways"]
    return Selection(order, [problem.teachers[name] for name in order], reasons)


def ascending_performance(
    teachers: Any, performance: Any, max_teachers: int | None = None
) -> Selection:
    """The best teachers, the weakest of them first."""
    problem = make_problem({}, "", teachers, performance, "ascending_performance")
    most = len(problem.teachers) if max_teachers is None else max_teachers
    most = check_count(most, "max_teachers", "ascending_performance")
    order = sorted(problem.teachers, key=lambda n: (problem.performance[n], n))[-most:]
    return Selection(order, [problem.teachers[n] for n in order], ["by ascending AP"])


def random_order(teachers: Any, seed: int, max_teachers: int | None = None) -> Selection:
    """Teachers drawn and ordered by a seed; the order in which they are given does not matter."""
    problem = make_problem({}, "", teachers, [0.0] * len(teachers), "random_order")
    names = sorted(problem.teachers)
    most = check_count(max_teachers or len(names), "max_teachers", "random_order")
    chosen = np.random.Generator(np.random.PCG64([seed, 49979687])).permutation(len(names))[:most]
    order = [names[i] for i in chosen]
    return Selection(order, [problem.teachers[n] for n in order], [f"drawn by seed {seed}"])


def _length(problem: Problem, order: tuple[str, ...]) -> float:
    return sum(problem.cost(a, b) for a, b in zip((problem.student, *order), order))
