"""A `kd.Term` at work: one tap beside one, or beside the mean of several teachers'."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..errors import ArgumentError, ShapeError
from ..methods.term import Term
from ..tensors import Tensor, apply
from .adapter import Adapter, resized
from .comparison import Comparison, report_row
from .site import Row, Site, find_tap
from .step import Step


def _squared(student: Tensor, teacher: Tensor) -> Tensor:
    return apply("mse", [student, teacher], reduction="mean")


def _absolute(student: Tensor, teacher: Tensor) -> Tensor:
    return apply("l1", [student, teacher], reduction="mean")


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "l2": _squared,
    "mse": _squared,
    "l1": _absolute,
}


class TapComparison(Comparison):
    """A term with its connector.

    teacher_taps : the tables of all teachers.  A term's ``teacher_tap`` "NAME" is the mean over
        them, "1:NAME" the tap of the second one.
    """

    def __init__(self, term: Term, label: str, site: Site, teacher_taps: Sequence[Sequence[Row]]):
        student = site.student_tap(term.student_tap)
        numbers, name = _which(str(term.teacher_tap), teacher_taps)
        teacher = _common_row(label, numbers, name, teacher_taps)
        super().__init__(label, term.weight, [(student, [(i, name) for i in numbers])])
        self.term, self._adapter = term, None
        connection = "none"
        if term.connector == "auto":
            connection = "size, if it differs"
            if _need_convolution(student, teacher):
                self._adapter = Adapter(
                    int(student["channels"]), int(teacher["channels"]), site.random(label)
                )
                connection = f"{self._adapter!r}, {connection}"
        self._rows = [report_row(label, student, teacher, connection, term.loss_name, term.weight)]

    def parameters(self) -> dict[str, Tensor]:
        """The connector's."""
        return {} if self._adapter is None else self._adapter.parameters()

    def report(self) -> list[dict[str, Any]]:
        """One row."""
        return self._rows

    def loss(self, step: Step) -> Tensor:
        """The term without its weight."""
        (_, sources), term = self.pairs[0], self.term
        teacher = _mean(self.label, [step.teacher(source) for source in sources])
        student = self._connected(step.student(term.student_tap), teacher)
        if isinstance(term.loss, str):
            if student.shape != teacher.shape:
                raise ShapeError(f"{self._words(student, teacher)}")
            return LOSSES[term.loss](student, teacher)
        loss = term.loss(student, teacher)
        if not isinstance(loss, Tensor) or loss.size != 1:
            shape = getattr(loss, "shape", None)
            raise ShapeError(
                f"term {self.label}: the loss must give a kd tensor with one element, got "
                f"{type(loss).__name__}" + (f" of shape {shape}" if shape is not None else "")
            )
        return loss.reshape(()) if loss.ndim else loss

    def equal_loss(self, step: Step) -> Tensor | None:
        """The loss of the connected student beside itself."""
        (_, sources), term = self.pairs[0], self.term
        teacher = _mean(self.label, [step.teacher(source) for source in sources])
        own = self._connected(step.student(term.student_tap), teacher)
        loss = LOSSES[term.loss] if isinstance(term.loss, str) else term.loss
        return loss(own, own.detach())

    def _connected(self, student: Tensor, teacher: Tensor) -> Tensor:
        if student.ndim and teacher.ndim and student.shape[0] != teacher.shape[0]:
            raise ShapeError(f"{self._words(student, teacher)}: the first axes differ")
        if self._adapter is not None:
            student = self._adapter(student)
        if self.term.connector == "auto" and student.ndim == 4 and teacher.ndim == 4:
            student = resized(student, teacher.shape[2:])
        return student

    def _words(self, student: Tensor, teacher: Tensor) -> str:
        return (
            f"term {self.label}: the student's {self.term.student_tap} is {student.shape}, the "
            f"teacher's {self.term.teacher_tap} is {teacher.shape}"
        )


def _mean(label: str, values: list[Tensor]) -> Tensor:
    shapes = {value.shape for value in values}
    if len(shapes) > 1:
        shown = " and ".join(map(str, sorted(shapes)))
        raise ShapeError(f"term {label}: the mean over teachers of shapes {shown}")
    total = values[0]
    for value in values[1:]:
        total = total + value
    return total if len(values) == 1 else total * (1 / len(values))


def _common_row(
    label: str, numbers: Sequence[int], name: str, teacher_taps: Sequence[Sequence[Row]]
) -> Mapping[str, Any]:
    """The tap's row, of the first teacher if it is a mean."""
    owner = "teacher" if len(teacher_taps) == 1 else "teacher {}"
    rows = [find_tap(teacher_taps[i], name, owner.format(i)) for i in numbers]
    if len({row["channels"] for row in rows}) > 1:
        counts = ", ".join(f"{i}: {row['channels']}" for i, row in zip(numbers, rows))
        raise ShapeError(
            f"term {label}: the mean over the teachers needs equal channels of {name}, they "
            f"have {counts}; choose one, e.g. '{numbers[0]}:{name}'"
        )
    if len(rows) == 1:
        single = len(teacher_taps) == 1
        return rows[0] if single else {**rows[0], "name": f"{numbers[0]}:{name}"}
    return {**rows[0], "name": f"mean of {len(rows)} {name}"}


def _which(tap: str, teacher_taps: Sequence[Sequence[Row]]) -> tuple[list[int], str]:
    """The teachers that a term's teacher_tap means, and the tap's name there."""
    everyone = list(range(len(teacher_taps)))
    number, colon, name = tap.partition(":")
    is_a_name = any(row["name"] == tap for rows in teacher_taps for row in rows)
    if not colon or not number.isdigit() or is_a_name:
        return everyone, tap
    if int(number) not in everyone:
        raise ArgumentError(
            f"term with teacher_tap {tap!r}: there are {len(everyone)} teachers, counted from 0"
        )
    return [int(number)], name


def _need_convolution(student: Row, teacher: Row) -> bool:
    """Features of unlike channels; the heads' outputs are compared as they are."""
    both = student["kind"] == teacher["kind"] == "feature"
    return both and student["channels"] != teacher["channels"]
