"""All comparisons of a run, with the weights that they have in a step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import KDSError
from ..methods.base import Method, Part
from ..methods.term import Term
from ..tensors import Tensor
from .comparison import Comparison
from .site import Row, Site
from .step import Source, Step
from .taps import TapComparison


class Comparisons:
    """What the parts of a method compare for one student and its teachers.

    A published method is built for every teacher, each with 1 / n of the weight and adapters of its
    own; a `Term` reads the mean of the teachers or one of them.
    """

    def __init__(
        self,
        method: Method,
        student: Any,
        student_taps: Sequence[Row],
        teachers: Sequence[Any],
        teacher_taps: Sequence[Sequence[Row]],
        seed: int,
        total_steps: int = 1,
    ) -> None:
        self.total_steps, self.seed = total_steps, seed
        sites = [
            Site(student, student_taps, teacher, taps, number, len(teachers), seed)
            for number, (teacher, taps) in enumerate(zip(teachers, teacher_taps))
        ]
        self.members: list[tuple[Part, Comparison]] = []
        for part in method.own_parts:
            self.members += [(part, one) for one in _build(part, sites, teacher_taps)]
        self.labels = _unique([one.label for _, one in self.members])
        for label, (_, one) in zip(self.labels, self.members):
            one.label = label

    @property
    def pairs(self) -> list[tuple[Row, list[Source]]]:
        """(row of the student's tap, sources) of everything that is read."""
        return [pair for _, one in self.members for pair in one.pairs]

    @property
    def class_pairs(self) -> list[tuple[Row, list[Source]]]:
        """Those of `pairs` that need the same classes on both sides."""
        return [pair for _, one in self.members if not one.maps_classes for pair in one.pairs]

    @property
    def sources(self) -> list[Source]:
        """(number of the teacher, tap) of everything that is compared with."""
        return list(dict.fromkeys(source for _, sources in self.pairs for source in sources))

    def report(self) -> list[dict[str, Any]]:
        """What is compared with what, weights with the scales of their methods."""
        return [
            {**row, "term": one.label, "weight": row["weight"] * part.scale}
            for part, one in self.members
            for row in one.report()
        ]

    def notes(self) -> list[str]:
        """What the first step has shown."""
        return [f"{one.label}: {note}" for _, one in self.members for note in one.notes()]

    def parameters(self) -> dict[str, Tensor]:
        """Everything learned beside the student, by name."""
        return {
            f"{one.label}.{name}": value
            for _, one in self.members
            for name, value in one.parameters().items()
        }

    def step(
        self, taps: Mapping[str, Tensor], arrays: Mapping[Source, Tensor], number: int
    ) -> Step:
        """What the comparisons look at in step `number`."""
        return Step(taps, arrays, number, self.seed)

    def weight(self, part: Part, one: Comparison, number: int) -> float:
        """Of a comparison in step `number`."""
        return one.weight * part.scale * part.factor(number, self.total_steps)

    def losses(self, step: Step) -> dict[str, Tensor]:
        """Every comparison with its weight in this step; those without any are not computed."""
        result = {}
        for part, one in self.members:
            weight = self.weight(part, one, step.number)
            if weight > 0:
                try:
                    result[one.label] = one.loss(step) * weight
                except KDSError as error:
                    if one.label in str(error):
                        raise
                    raise type(error)(f"term {one.label}: {error}") from error
        return result

    def idle(self, number: int) -> dict[str, float]:
        """0 for every comparison that has no weight in step `number`."""
        return {
            one.label: 0.0 for part, one in self.members if not self.weight(part, one, number) > 0
        }


def _build(
    part: Part, sites: Sequence[Site], teacher_taps: Sequence[Sequence[Row]]
) -> list[Comparison]:
    if isinstance(part.part, Term):
        term = part.part
        return [TapComparison(term, term.label, sites[0], teacher_taps)] if term.weight > 0 else []
    built = []
    for site in sites:
        for one in part.part.comparisons(site):
            one.weight /= len(sites)
            built.append(one)
    return built


def _unique(labels: Sequence[str]) -> list[str]:
    """Labels with a number behind those that occur again."""
    seen: dict[str, int] = {}
    result = []
    for label in labels:
        seen[label] = seen.get(label, 0) + 1
        result.append(label if seen[label] == 1 else f"{label}.{seen[label]}")
    return result
