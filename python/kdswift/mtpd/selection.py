"""Backward greedy selection: which teachers, in which order (Cao et al. 2023, Algorithm 1)."""

from __future__ import annotations

import html
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from .._numbers import check_count
from ..errors import ArgumentError
from .matrix import CostMatrix

Costs = CostMatrix | Mapping[tuple[str, str], float]


class Selection(Sequence):
    """Teachers in the order in which they teach: iterates and indexes as a list of them.

    Attributes
    ----------
    names : of the teachers, first to last
    teachers : the teachers themselves, or their names again if only those were given
    reasons : why each is where it is, and why there are no more, in the order of decision (the
        last teacher comes first)
    decisions : (target, smaller, larger): the comparisons of costs that led here
    """

    def __init__(
        self,
        names: Sequence[str],
        teachers: Sequence[Any],
        reasons: Sequence[str] = (),
        decisions: Sequence[tuple[str, str, str]] = (),
    ) -> None:
        self.names, self.teachers = tuple(names), tuple(teachers)
        self.reasons, self.decisions = tuple(reasons), tuple(decisions)

    def __len__(self) -> int:
        return len(self.teachers)

    def __getitem__(self, index: Any) -> Any:
        return self.teachers[index]

    def __iter__(self) -> Iterator[Any]:
        return iter(self.teachers)

    def __eq__(self, other: object) -> bool:
        """Equal to a list of the same teachers, or of their names."""
        if not isinstance(other, (Selection, list, tuple)):
            return NotImplemented
        return list(other) in (list(self.teachers), list(self.names))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return "\n".join([" -> ".join(self.names), *(f"  {reason}" for reason in self.reasons)])

    def _repr_html_(self) -> str:
        reasons = "".join(f"<li>{html.escape(reason)}</li>" for reason in self.reasons)
        return f"<p><b>{html.escape(' -> '.join(self.names))}</b></p><ul>{reasons}</ul>"


class Problem(NamedTuple):
    """A student and its pool with everything looked up and checked.

    student : its name;  teachers : by name;  performance : AP by name;  meaning : what that is
    """

    costs: Costs
    student: str
    teachers: dict[str, Any]
    performance: dict[str, float]
    meaning: str = "AP"

    def cost(self, source: str, target: str) -> float:
        """C(source -> target); NaN and what is missing are errors."""
        if isinstance(self.costs, CostMatrix):
            value = self.costs.cost(source, target)
        elif (source, target) in self.costs:
            value = float(self.costs[source, target])
        else:
            raise ArgumentError(f"costs: C({source} -> {target}) is missing")
        if math.isnan(value):
            raise ArgumentError(f"costs: C({source} -> {target}) is NaN")
        return value

    def best(self) -> tuple[str, str]:
        """The best teacher, and why it is: of equal APs the lower C(S -> T), then the name."""
        top = max(self.performance.values())
        equal = [name for name in self.teachers if self.performance[name] == top]
        name = min(equal, key=lambda n: (self.cost(self.student, n) if len(equal) > 1 else 0, n))
        reason = f"{name} is last: the best teacher, {self.meaning} {_score(top)}"
        if len(equal) > 1:
            others = ", ".join(sorted(n for n in equal if n != name))
            reason += f" as {others}, but C({self.student} -> {name}) is lower"
        return name, reason


def backward_greedy_selection(
    costs: Costs,
    student: Any,
    teachers: Any,
    performance: Any,
    max_teachers: int = 2,
) -> Selection:
    """The order of teachers, from the last one backwards.

    The best teacher comes last. Before the current first one comes the teacher with the least
    C(T -> current), unless every teacher left is farther than the student itself, that is
    C(T -> current) > C(S -> current); equality goes on. At most `max_teachers` are taken.

    Parameters
    ----------
    costs : a `CostMatrix`, or a mapping of (from, to) to numbers
    student : the student, or its name in `costs`
    teachers : a list of teachers or of their names, or a mapping of names to teachers
    performance : AP by teacher, as a mapping of names or a list in the order of `teachers`; or a
        `kd.mtpd.probe` of the student with each
    max_teachers : the training budget in stages

    Returns a `Selection`: the teachers first to last, with the reason of every step.
    Raises ``ArgumentError`` for an empty pool, max_teachers below 1, or NaN.
    """
    problem = make_problem(costs, student, teachers, performance, "backward_greedy_selection")
    most = check_count(max_teachers, "max_teachers", "backward_greedy_selection")
    current, reason = problem.best()
    order, reasons = [current], [reason]
    decisions: list[tuple[str, str, str]] = []
    left = sorted(name for name in problem.teachers if name != current)
    while left and len(order) < most:
        own = problem.cost(problem.student, current)
        into = {name: problem.cost(name, current) for name in left}
        nearest = min(left, key=lambda n: (into[n], -problem.performance[n], n))
        if into[nearest] > own:
            reasons.append(
                f"no teacher before {current}: the nearest left, {nearest} ({into[nearest]:.4g}), "
                f"is farther from it than {problem.student} itself ({own:.4g})"
            )
            decisions += [(current, problem.student, name) for name in left]
            break
        reasons.append(_why(problem, nearest, current, into, own))
        decisions += [(current, nearest, name) for name in left if name != nearest]
        decisions.append((current, nearest, problem.student))
        order.insert(0, nearest)
        left.remove(nearest)
        current = nearest
    else:
        reasons.append("no teacher is left" if not left else f"max_teachers = {most} is reached")
    return Selection(order, [problem.teachers[n] for n in order], reasons, decisions)


def make_problem(
    costs: Costs, student: Any, teachers: Any, performance: Any, where: str
) -> Problem:
    """Names for everything, and checks."""
    pool = _named(costs, teachers, where)
    if not pool:
        raise ArgumentError(f"{where}: there are no teachers")
    if isinstance(student, str):
        own = student
    else:
        own = _name_of(costs, student) or _first_name(costs, pool)
    if own in pool:
        raise ArgumentError(f"{where}: the student {own} is among the teachers")
    scores = _scores(performance, list(pool), where)
    return Problem(costs, own, pool, scores, getattr(performance, "meaning", "AP"))


def _why(problem: Problem, name: str, current: str, into: Mapping[str, float], own: float) -> str:
    others = sorted((n for n in into if n != name), key=lambda n: into[n])
    than = [f"{n} {into[n]:.4g}" for n in others] + [f"{problem.student} {own:.4g}"]
    cost = f"C({name} -> {current}) = {into[name]:.4g}"
    return f"{name} before {current}: {cost} is least ({', '.join(than)})"


def _named(costs: Costs, teachers: Any, where: str) -> dict[str, Any]:
    if isinstance(teachers, Mapping):
        return {str(name): teacher for name, teacher in teachers.items()}
    teachers = list(teachers)
    if all(isinstance(one, str) for one in teachers):
        names: list[Any] = list(teachers)
    else:
        names = [_name_of(costs, one) for one in teachers]
        # Objects that the matrix does not hold stand in the order in which it was made.
        if None in names and isinstance(costs, CostMatrix) and costs.models is None:
            names = list(costs.names[1:])
        if not costs and not isinstance(costs, CostMatrix):
            names = [f"teacher-{i}" for i in range(1, len(teachers) + 1)]
    if None in names or len(names) != len(teachers):
        raise ArgumentError(
            f"{where}: the teachers are not those of costs; give a mapping of names to teachers"
        )
    if len(set(names)) != len(names):
        raise ArgumentError(f"{where}: a teacher is there twice: {', '.join(names)}")
    return dict(zip(names, teachers))


def _name_of(costs: Costs, model: Any) -> str | None:
    if not isinstance(costs, CostMatrix) or costs.models is None:
        return None
    found = [name for name, one in zip(costs.names, costs.models) if one is model]
    return found[0] if found else None


def _first_name(costs: Costs, pool: Mapping[str, Any]) -> str:
    names = costs.names if isinstance(costs, CostMatrix) else [a for a, _ in costs]
    return next((name for name in names if name not in pool), "student")


def _scores(performance: Any, names: Sequence[str], where: str) -> dict[str, float]:
    if not isinstance(performance, Mapping):
        values = list(performance)
        if len(values) != len(names):
            raise ArgumentError(
                f"{where}: performance has {len(values)} numbers for {len(names)} teachers"
            )
        performance = dict(zip(names, values))
    result = {}
    for name in names:
        value = performance.get(name)
        value = getattr(value, "AP", value)
        if isinstance(value, (bool, str)) or value is None or not math.isfinite(value):
            raise ArgumentError(f"{where}: performance of {name} is {value!r}, expected its AP")
        result[name] = float(value)
    return result


def _score(value: float) -> str:
    return f"{100 * value:.1f}" if 0 <= value <= 1 else f"{value:g}"
