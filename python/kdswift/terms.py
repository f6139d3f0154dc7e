"""Terms that Python computes: connectors and losses over the taps of student and teacher."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .errors import ArgumentError, ShapeError
from .functional import conv2d, interpolate
from .methods import Term
from .tensors import Tensor, tensor


def _squared(student: Tensor, teacher: Tensor) -> Tensor:
    return ((student - teacher) ** 2).mean()


def _absolute(student: Tensor, teacher: Tensor) -> Tensor:
    return (student - teacher).abs().mean()


_LOSSES = {"l2": _squared, "mse": _squared, "l1": _absolute}


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
    """The terms of a run with their connectors."""

    def __init__(
        self,
        terms: Sequence[Term],
        student_taps: Sequence[Mapping[str, Any]],
        teacher_taps: Sequence[Mapping[str, Any]],
        seed: int,
    ) -> None:
        self.terms = [term for term in terms if term.weight > 0]
        self.labels = _unique([term.label for term in self.terms])
        self._connectors: dict[str, Connector] = {}
        self._rows = []
        for index, (label, term) in enumerate(zip(self.labels, self.terms)):
            student = _tap(student_taps, term.student_tap, "student")
            teacher = _tap(teacher_taps, term.teacher_tap, "teacher")
            connection = "none"
            if term.connector == "auto":
                connection = "size, if it differs"
                if _need_convolution(student, teacher):
                    rng = np.random.Generator(np.random.PCG64([seed, 7919, index]))
                    channels = int(student["channels"]), int(teacher["channels"])
                    self._connectors[label] = Connector(*channels, rng)
                    connection = f"1x1 convolution {channels[0]} to {channels[1]}, {connection}"
            self._rows.append(_report_row(label, term, student, teacher, connection))

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

    def losses(self, taps: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Every term, weighted, from the taps "student.NAME" and "teacher.NAME" of a step."""
        result = {}
        for label, term in zip(self.labels, self.terms):
            student = taps[f"student.{term.student_tap}"]
            teacher = taps[f"teacher.{term.teacher_tap}"].detach()
            result[label] = self._loss(label, term, student, teacher)
        return result

    def _loss(self, label: str, term: Term, student: Tensor, teacher: Tensor) -> Tensor:
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
            loss = _LOSSES[term.loss](student, teacher)
        else:
            loss = term.loss(student, teacher)
        if not isinstance(loss, Tensor) or loss.size != 1:
            shape = getattr(loss, "shape", None)
            raise ShapeError(
                f"term {label}: the loss must give a kd tensor with one element, got "
                f"{type(loss).__name__}" + (f" of shape {shape}" if shape is not None else "")
            )
        return loss.reshape(()) * term.weight if loss.ndim else loss * term.weight


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
