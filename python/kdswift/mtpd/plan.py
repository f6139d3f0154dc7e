"""`kd.mtpd.plan`: from a pool of teachers to the order in which they teach."""

from __future__ import annotations

import html
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .._files import write_text
from .._tables import html_table, text_table
from ..detector import Detector
from ..errors import ArgumentError, FormatError
from ..evaluation import evaluate
from .costs import measure, name_models
from .matrix import CostMatrix, read_json
from .selection import Selection, backward_greedy_selection

_KIND = "mtpd plan"


@dataclass(eq=False)
class Plan:
    """Which teachers, in which order, and why.

    Attributes
    ----------
    order : the `Selection`, a list of the chosen teachers, first to last
    costs : the `CostMatrix` of student and pool
    performance : AP of every teacher of the pool, by name
    student : the student's name in `costs`
    """

    order: Selection
    costs: CostMatrix
    performance: dict[str, float]
    student: str = "student"

    @property
    def names(self) -> tuple[str, ...]:
        """Of the chosen teachers, first to last."""
        return self.order.names

    @property
    def teachers(self) -> list[Any]:
        """The chosen teachers, first to last."""
        return list(self.order)

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why, in words."""
        return self.order.reasons

    def plot(self, path: str | os.PathLike | None = None) -> Any:
        """The graph of costs with the chosen path, as a matplotlib figure."""
        from .plots import cost_graph

        return cost_graph(self, path)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, without the models."""
        return {
            "kind": _KIND,
            "student": self.student,
            "order": list(self.names),
            "reasons": list(self.reasons),
            "decisions": [list(one) for one in self.order.decisions],
            "performance": self.performance,
            "costs": self.costs.to_dict(),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], teachers: Mapping[str, Any] | None = None) -> Plan:
        """The opposite of `to_dict`; teachers : the models by name, else their names stand in."""
        if not isinstance(data, Mapping) or data.get("kind") != _KIND:
            raise FormatError("plan: this is no plan")
        try:
            names = list(data["order"])
            if teachers is not None and not set(names) <= set(teachers):
                missing = ", ".join(name for name in names if name not in teachers)
                raise ArgumentError(f"plan: teachers lacks {missing}")
            chosen = names if teachers is None else [teachers[name] for name in names]
            decisions = [tuple(one) for one in data["decisions"]]
            order = Selection(names, chosen, data["reasons"], decisions)
            costs = CostMatrix.from_dict(data["costs"])
            return cls(order, costs, dict(data["performance"]), data["student"])
        except (KeyError, TypeError) as error:
            raise FormatError(f"plan: {error} is missing or wrong") from None

    def save(self, path: str | os.PathLike) -> None:
        """Write a JSON file, whole or not at all."""
        write_text(path, json.dumps(self.to_dict(), indent=1, allow_nan=False))

    @classmethod
    def load(cls, path: str | os.PathLike, teachers: Mapping[str, Any] | None = None) -> Plan:
        """Read a file that `save` wrote; see `from_dict`."""
        return cls.from_dict(read_json(path), teachers)

    def __repr__(self) -> str:
        return f"Plan: {self.order!r}\n{text_table(self._rows())}"

    def _repr_html_(self) -> str:
        note = "" if self.costs.report.get("settled") else "<p>the order is not settled</p>"
        student = html.escape(self.student)
        head = f"<p>{student} learns from</p>{self.order._repr_html_()}"
        return f"{head}{html_table(self._rows())}{note}"

    def _rows(self) -> list[dict[str, Any]]:
        """The pool: AP, costs into the last teacher and from the student, place in the order."""
        last = self.names[-1]
        return [
            {
                "teacher": name,
                "AP": f"{100 * score:.1f}" if score <= 1 else f"{score:g}",
                f"C(-> {last})": None if name == last else self.costs.cost(name, last),
                f"C({self.student} ->)": self.costs.cost(self.student, name),
                "place": self.names.index(name) + 1 if name in self.names else None,
            }
            for name, score in sorted(self.performance.items(), key=lambda item: item[1])
        ]


def plan(
    student: Any,
    teachers: Sequence[Any] | Mapping[str, Any],
    train: Any,
    val: Any,
    max_teachers: int = 2,
    performance: Any = None,
    solver: str = "exact",
    *,
    levels: Any = None,
    budget: int | None = None,
    batch_size: int = 8,
    ridge: float = 0.0,
    normalize: bool = False,
    progress: bool = True,
    seed: int = 0,
    epochs: int = 1,
    learning_rate: float = 1e-2,
    metric: str = "coco",
) -> Plan:
    """Measure the costs and choose the order by backward greedy selection.

    Parameters
    ----------
    student : a trained detector
    teachers : the pool: detectors or `kd.Teacher`s, or a mapping of names to them
    train, val : data sets; the maps are fitted to `train`, costs and AP are measured on `val`
    max_teachers : the most that the budget of training allows
    performance : AP by teacher (mapping of names, or a list); None: measured by `kd.evaluate`,
        which only detectors allow. Or a `kd.mtpd.probe`: then the teacher from whom the student
        learned most comes last, whatever its own AP
    budget : most images for the costs; fewer where the comparisons that the order rests on are
        settled earlier
    metric : of `kd.evaluate`
    Everything else is explained at `adaptation_costs`.
    """
    if isinstance(teachers, Mapping):
        if "student" in teachers:
            raise ArgumentError("plan: a teacher is named 'student'")
        named = name_models({"student": student, **teachers}, None)
    else:
        named = name_models([student, *teachers], None)
    name, *pool = named
    if performance is None:
        performance = {one: _measured(one, named[one], val, metric, progress) for one in pool}
    members = {one: named[one] for one in pool}

    def chosen(costs: CostMatrix) -> Selection:
        return backward_greedy_selection(costs, name, members, performance, max_teachers)

    _check(chosen, named)
    costs = measure(
        *(named, train, val, solver, levels, budget, batch_size, ridge, normalize, progress, seed),
        *(epochs, learning_rate, lambda matrix: chosen(matrix).decisions),
    )
    if not isinstance(performance, Mapping):
        performance = dict(zip(pool, performance))
    scores = {one: float(getattr(performance[one], "AP", performance[one])) for one in pool}
    return Plan(chosen(costs), costs, scores, name)


def _check(chosen: Any, named: Mapping[str, Any]) -> None:
    """Find wrong arguments of the selection before images are looked at."""
    chosen({(a, b): 0.0 for a in named for b in named})


def _measured(name: str, teacher: Any, val: Any, metric: str, progress: bool) -> float:
    detector = getattr(teacher, "detector", teacher)
    if not isinstance(detector, Detector):
        raise ArgumentError(
            f"plan: the AP of {name} cannot be measured: {teacher!r} is no kdswift detector; give "
            "performance={name: AP}"
        )
    return float(evaluate(detector, val, metric, progress=progress).AP)
