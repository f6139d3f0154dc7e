"""Terms that Python computes: connectors and losses over the taps of student and teacher."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .errors import ArgumentError, ShapeError
from .functional import conv2d, interpolate
from .methods import Term
from .tensors import Tensor, apply, tensor


def _squared(student: Tensor, teacher: Tensor) -> Tensor:
    return apply("mse", [student, teacher], reduction="mean")


def _absolute(student: Tensor, teacher: Tensor) -> Tensor:
    return apply("l1", [student, teacher], reduction="mean")


Source = tuple[int, str]  # (number of the teacher, name of its tap)

LOSSES = {"l2": _squared, "mse": _squared, "l1": _absolute}


class Connector:
    """Carries a student's map (N, C, H, W) to a teacher's channels and size.

    The convolution is there when the channels differ; the interpolation happens when sizes do.
    """

    def __init__(self, student_channels: int, teacher_channels: int, rng: np.random.Generator):
        # A variance of 1 / C keeps the scale of the student's map.
        weight = rng.normal(0, student_channels**-0.5, (teacher_channels, student_channels, 1, 1))
        self.weight = tensor(weight.astype(np.float32), requires_grad=True)
        self.bias = tensor(np.zeros(teacher_channels, np.float32), requires_grad=True)

    def parameters(self) -> dict[str, Tensor]:
        """The learned tensors by name."""
        return {"weight": self.weight, "bias": self.bias}

    def __call__(self, features: Tensor) -> Tensor:
        return conv2d(features, self.weight, self.bias)


class TermSet:
    """The terms of a run with their connectors.

    teacher_taps : the tables of all teachers.  A term's ``teacher_tap`` "NAME" is the mean over
        them, "1:NAME" the tap of the second one.
    """

    def __init__(
        self,
        terms: Sequence[Term],
        student_taps: Sequence[Mapping[str, Any]],
        teacher_taps: Sequence[Sequence[Mapping[str, Any]]],
        seed: int,
    ) -> None:
        self.terms = [term for term in terms if term.weight > 0]
        self.labels = _unique([term.label for term in self.terms])
        self._sources: dict[str, list[Source]] = {}
        self.pairs: list[tuple[Mapping[str, Any], list[Source]]] = []  # the student's tap's row
        self._connectors: dict[str, Connector] = {}
        self._rows: list[dict[str, Any]] = []
        for index, (label, term) in enumerate(zip(self.labels, self.terms)):
            student = _tap(student_taps, term.student_tap, "student")
            teacher = self._find_sources(label, term, teacher_taps)
            self.pairs.append((student, self._sources[label]))
            connection = "none"
            if term.connector == "auto":
                connection = "size, if it differs"
                if _need_convolution(student, teacher):
                    rng = np.random.Generator(np.random.PCG64([seed, 7919, index]))
                    channels = int(student["channels"]), int(teacher["channels"])
                    self._connectors[label] = Connector(*channels, rng)
                    connection = f"1x1 convolution {channels[0]} to {channels[1]}, {connection}"
            self._rows.append(_report_row(label, term, student, teacher, connection))

    def _find_sources(
        self, label: str, term: Term, teacher_taps: Sequence[Sequence[Mapping[str, Any]]]
    ) -> Mapping[str, Any]:
        """Note where the teacher's side comes from; the tap's row, of the first if it is a mean."""
        numbers, name = _which(str(term.teacher_tap), teacher_taps)
        owner = "teacher" if len(teacher_taps) == 1 else "teacher {}"
        rows = [_tap(teacher_taps[i], name, owner.format(i)) for i in numbers]
        if len({row["channels"] for row in rows}) > 1:
            counts = ", ".join(f"{i}: {row['channels']}" for i, row in zip(numbers, rows))
            raise ShapeError(
                f"term {label}: the mean over the teachers needs equal channels of {name}, they "
                f"have {counts}; choose one, e.g. '{numbers[0]}:{name}'"
            )
        self._sources[label] = [(i, name) for i in numbers]
        shown = term.teacher_tap if len(rows) == 1 else f"mean of {len(rows)} {name}"
        return {**rows[0], "name": shown}

    @property
    def sources(self) -> list[Source]:
        """(number of the teacher, tap) of everything that the terms compare with."""
        return list(dict.fromkeys(s for sources in self._sources.values() for s in sources))

    def report(self) -> list[dict[str, Any]]:
        """What is compared with what, a row per term."""
        return self._rows

    def parameters(self) -> dict[str, Tensor]:
        """Learned tensors of all connectors, by name."""
        return {
            f"{label}.{name}": value
            for label, connector in self._connectors.items()
            for name, value in connector.parameters().items()
        }

    def losses(
        self, taps: Mapping[str, Tensor], arrays: Mapping[Source, Tensor]
    ) -> dict[str, Tensor]:
        """Every term, weighted.

        taps : the step's, "student.NAME";  arrays : the teachers' by `sources`
        """
        result = {}
        for label, term in zip(self.labels, self.terms):
            student = taps[f"student.{term.student_tap}"]
            teacher = self._teacher(label, [arrays[source] for source in self._sources[label]])
            result[label] = self._loss(label, term, student, teacher)
        return result

    def _teacher(self, label: str, values: list[Tensor]) -> Tensor:
        """The mean of the teachers, off the tape."""
        shapes = {value.shape for value in values}
        if len(shapes) > 1:
            shown = " and ".join(map(str, sorted(shapes)))
            raise ShapeError(f"term {label}: the mean over teachers of shapes {shown}")
        total = values[0].detach()
        for value in values[1:]:
            total = total + value.detach()
        return total if len(values) == 1 else total * (1 / len(values))

    def _loss(self, label: str, term: Term, student: Tensor, teacher: Tensor) -> Tensor:
        if student.ndim and teacher.ndim and student.shape[0] != teacher.shape[0]:
            raise ShapeError(
                f"term {label}: the student's {term.student_tap} is {student.shape}, the teacher's "
                f"{term.teacher_tap} is {teacher.shape}: the first axes differ"
            )
        if label in self._connectors:
            student = self._connectors[label](student)
        if term.connector == "auto" and student.ndim == 4 and teacher.ndim == 4:
            size = teacher.shape[2:]
            if student.shape[2:] != size:
                student = interpolate(student, size=size, mode="bilinear")
        if isinstance(term.loss, str):
            if student.shape != teacher.shape:
                raise ShapeError(
                    f"term {label}: the student's {term.student_tap} is {student.shape}, the "
                    f"teacher's {term.teacher_tap} is {teacher.shape}"
                )
            loss = LOSSES[term.loss](student, teacher)
        else:
            loss = term.loss(student, teacher)
        if not isinstance(loss, Tensor) or loss.size != 1:
            shape = getattr(loss, "shape", None)
            raise ShapeError(
                f"term {label}: the loss must give a kd tensor with one element, got "
                f"{type(loss).__name__}" + (f" of shape {shape}" if shape is not None else "")
            )
        return loss.reshape(()) * term.weight if loss.ndim else loss * term.weight


def _which(tap: str, teacher_taps: Sequence[Sequence[Mapping[str, Any]]]) -> tuple[list[int], str]:
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


def _tap(taps: Sequence[Mapping[str, Any]], name: str, owner: str) -> Mapping[str, Any]:
    for tap in taps:
        if tap["name"] == name:
            return tap
    names = [tap["name"] for tap in taps]
    near = difflib.get_close_matches(name, names, 3) or names
    raise ArgumentError(f"the {owner} has no tap {name!r}; near are {', '.join(near[:8])}")


def _need_convolution(student: Mapping[str, Any], teacher: Mapping[str, Any]) -> bool:
    """Features of unlike channels; the heads' outputs are compared as they are."""
    both = student["kind"] == teacher["kind"] == "feature"
    return both and student["channels"] != teacher["channels"]


def _report_row(
    label: str, term: Term, student: Mapping, teacher: Mapping, connection: str
) -> dict[str, Any]:
    def text(tap: Mapping[str, Any]) -> str:
        stride = f" /{tap['stride']}" if tap.get("stride") else ""
        return f"{tap['name']} ({tap.get('channels', '?')}{stride})"

    return {
        "term": label,
        "student": text(student),
        "teacher": text(teacher),
        "connector": connection,
        "loss": term.loss_name,
        "weight": float(term.weight),
    }


def _unique(labels: Sequence[str]) -> list[str]:
    """Labels with a number behind those that occur again."""
    seen: dict[str, int] = {}
    result = []
    for label in labels:
        seen[label] = seen.get(label, 0) + 1
        result.append(label if seen[label] == 1 else f"{label}.{seen[label]}")
    return result
