"""One comparison of a run: which taps it reads, what it learns, its loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..errors import ShapeError
from ..tensors import Tensor
from .adapter import Adapter, resized
from .site import Row, Site
from .step import Source, Step


class Comparison:
    """Base. What derives fills in `loss` and what it reads.

    label : its name in metrics;  weight : factor on its loss
    pairs : (row of the student's tap, the teachers' sources) of everything it reads
    maps_classes : whether it deals with unlike classes by itself
    """

    maps_classes = False

    def __init__(
        self, label: str, weight: float, pairs: Sequence[tuple[Row, list[Source]]] = ()
    ) -> None:
        self.label, self.weight, self.pairs = label, float(weight), list(pairs)

    def parameters(self) -> dict[str, Tensor]:
        """Learned tensors by name."""
        return {}

    def loss(self, step: Step) -> Tensor:
        """The loss of a step, a scalar without the weight."""
        raise NotImplementedError

    def equal_loss(self, step: Step) -> Tensor | None:
        """The loss if the teacher's maps were the student's adapted ones; None: has no meaning."""
        return None

    def report(self) -> list[dict[str, Any]]:
        """What is compared with what, a row per pair of taps."""
        return []

    def notes(self) -> list[str]:
        """What the first step has shown and a user should know."""
        return []


Compare = Callable[[Tensor, Tensor, Step, int], Tensor]


class LevelMaps(Comparison):
    """Maps of several levels, each adapted and compared; the levels are added or averaged.

    compare : (student's adapted map, teacher's map, step, level) -> scalar
    adapters : one per level or None;  extras : further learned tensors by name
    average : divide the sum over levels by their number
    zero : whether the loss of equal maps is 0 by its definition
    """

    def __init__(
        self,
        label: str,
        weight: float,
        site: Site,
        levels: Sequence[tuple[Row, Row]],
        compare: Compare,
        *,
        adapters: Sequence[Adapter | None] | None = None,
        extras: Mapping[str, Tensor] | None = None,
        average: bool = False,
        zero: bool = True,
        loss_name: str = "",
        reads: Sequence[tuple[Row, list[Source]]] = (),
    ) -> None:
        pairs = [(own, [site.source(other)]) for own, other in levels]
        super().__init__(label, weight, [*pairs, *reads])
        self.levels, self.compare, self._site = list(levels), compare, site
        self.adapters = list(adapters) if adapters is not None else [None] * len(levels)
        self.extras = dict(extras or {})
        self.average, self.zero, self.loss_name = average, zero, loss_name or label

    def parameters(self) -> dict[str, Tensor]:
        """Adapters by level, then the method's own."""
        adapters = {
            f"{own['name']}.{name}": value
            for (own, _), adapter in zip(self.levels, self.adapters)
            if adapter is not None
            for name, value in adapter.parameters().items()
        }
        return {**adapters, **self.extras}

    def loss(self, step: Step) -> Tensor:
        """The sum (or mean) over levels."""
        return self._total(step, self._teacher)

    def equal_loss(self, step: Step) -> Tensor | None:
        """The same with the student's adapted maps on both sides."""
        return self._total(step, lambda _step, _level, own: own.detach()) if self.zero else None

    def _total(self, step: Step, other: Callable[[Step, int, Tensor], Tensor]) -> Tensor:
        losses = []
        for level in range(len(self.levels)):
            own = self._adapted(step, level)
            losses.append(self.compare(own, other(step, level, own), step, level))
        total = losses[0]
        for loss in losses[1:]:
            total = total + loss
        return total * (1 / len(losses)) if self.average else total

    def _teacher(self, step: Step, level: int, own: Tensor) -> Tensor:
        return step.teacher(self._site.source(self.levels[level][1]))

    def _adapted(self, step: Step, level: int) -> Tensor:
        own, other = self.levels[level]
        student = step.student(own["name"])
        teacher = step.teacher(self._site.source(other))
        if student.shape[0] != teacher.shape[0]:
            raise ShapeError(
                f"{self.label}: the student's {own['name']} is {student.shape}, the teacher's "
                f"{other['name']} is {teacher.shape}: the first axes differ"
            )
        adapter = self.adapters[level]
        if adapter is not None:
            student = adapter(student)
        return resized(student, teacher.shape[2:])

    def report(self) -> list[dict[str, Any]]:
        """A row per level."""
        rows = []
        for (own, other), adapter in zip(self.levels, self.adapters):
            connection = "size, if it differs"
            if adapter is not None:
                connection = f"{adapter!r}, {connection}"
            rows.append(report_row(self.label, own, other, connection, self.loss_name, self.weight))
        return rows


def report_row(
    label: str, student: Row, teacher: Row, connection: str, loss: str, weight: float
) -> dict[str, Any]:
    """A row of the shape report."""

    def text(tap: Row) -> str:
        stride = f" /{tap['stride']}" if tap.get("stride") else ""
        return f"{tap['name']} ({tap.get('channels', '?')}{stride})"

    return {
        "term": label,
        "student": text(student),
        "teacher": text(teacher),
        "connector": connection,
        "loss": loss,
        "weight": float(weight),
    }
