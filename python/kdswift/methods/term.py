"""`kd.Term`: one tap of the student beside one of the teacher."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..errors import ArgumentError

LOSSES = ("l1", "l2", "mse")
CONNECTORS = ("auto", "none")


@dataclass(frozen=True)
class Term:
    """One comparison between a tap of the student and a tap of the teacher.

    student_tap, teacher_tap : names from ``model.taps()``; None for the teacher: the same name
    loss : "l2" or "mse" (mean of the squared differences), "l1" (mean of the absolute ones), or
        ``f(student, teacher) -> scalar`` over kd tensors; the teacher's tensor has no gradient
    weight : factor on the loss
    connector : "auto" carries the student's map to the teacher's channels (1x1 convolution, learned
        with the student) and size (bilinear) where they differ; "none" hands both over as they are
    name : how the term is called in metrics and results; made from the taps if not given
    """

    student_tap: str
    teacher_tap: str | None = None
    loss: str | Callable[[Any, Any], Any] = "l2"
    weight: float = 1.0
    connector: str = "auto"
    name: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "teacher_tap", self.teacher_tap or self.student_tap)
        for field in ("student_tap", "teacher_tap"):
            if not isinstance(getattr(self, field), str):
                raise ArgumentError(
                    f"Term: {field} must be a tap's name, got {getattr(self, field)!r}"
                )
        if not callable(self.loss) and self.loss not in LOSSES:
            raise ArgumentError(
                f"Term: loss is {self.loss!r}, expected one of {', '.join(LOSSES)}, or a function"
            )
        if not (isinstance(self.weight, (int, float)) and 0 <= self.weight < math.inf):
            raise ArgumentError(f"Term: weight is {self.weight!r}, expected a number from 0 on")
        if self.connector not in CONNECTORS:
            raise ArgumentError(f"Term: connector is {self.connector!r}, expected auto or none")

    @property
    def label(self) -> str:
        """The name in metrics."""
        return self.name or f"{self.loss_name}.{self.student_tap}"

    @property
    def loss_name(self) -> str:
        """The loss as text."""
        return (
            self.loss
            if isinstance(self.loss, str)
            else getattr(self.loss, "__name__", type(self.loss).__name__)
        )

    def describe(self) -> dict[str, Any]:
        """Plain data; a function counts by its name."""
        return {
            "name": self.label,
            "student_tap": self.student_tap,
            "teacher_tap": self.teacher_tap,
            "loss": self.loss_name,
            "weight": float(self.weight),
            "connector": self.connector,
        }
