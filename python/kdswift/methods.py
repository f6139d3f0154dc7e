"""Distillation methods as data: which outputs of student and teacher are compared, and how.

kd.methods.Chen2017()                                   # the paper's full method
kd.methods.Chen2017(classification=None, hint=False)    # bounded regression alone
kd.methods.Chen2017() + 0.5 * kd.Method([kd.Term("backbone.layer2", "backbone.layer2", "l2")])
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

from .errors import ArgumentError

LOSSES = ("l1", "l2", "mse")
CONNECTORS = ("auto", "none")


class Method:
    """A weighted sum of parts. ``a + b`` joins two methods, ``0.5 * a`` scales one.

    Parameters
    ----------
    terms : `Term`s, each with its own weight

    The paper's methods are subclasses with named options.
    """

    def __init__(self, terms: Iterable[Term] = ()) -> None:
        terms = [terms] if isinstance(terms, Term) else list(terms)
        for i, term in enumerate(terms):
            if not isinstance(term, Term):
                raise ArgumentError(f"Method: terms[{i}] must be a kd.Term, got {term!r}")
        self._parts: tuple[tuple[float, Any], ...] = tuple((1.0, term) for term in terms)

    @property
    def parts(self) -> tuple[tuple[float, Any], ...]:
        """(scale, part) of everything summed; a part is a `Term` or one of the paper's methods."""
        return self._parts

    @property
    def terms(self) -> list[Term]:
        """The terms computed by Python, their weights multiplied by the scales."""
        return [
            replace(part, weight=part.weight * scale)
            for scale, part in self.parts
            if isinstance(part, Term)
        ]

    def to_dict(self) -> dict[str, Any]:
        """What the engine computes itself: ``{"parts": [{"name", "scale", …}]}``."""
        engine = [(scale, part) for scale, part in self.parts if not isinstance(part, Term)]
        return {"parts": [{**part.options(), "scale": scale} for scale, part in engine]}

    def describe(self) -> dict[str, Any]:
        """Everything, terms included, as plain data: to compare and to keep with a run."""
        return {**self.to_dict(), "terms": [term.describe() for term in self.terms]}

    def __add__(self, other: Any) -> Method:
        if not isinstance(other, Method):
            return NotImplemented
        return _joined((*self.parts, *other.parts))

    def __mul__(self, factor: Any) -> Method:
        if isinstance(factor, bool) or not isinstance(factor, (int, float)):
            return NotImplemented
        if not (math.isfinite(factor) and factor >= 0):
            raise ArgumentError(f"a method is scaled by {factor!r}, expected a number from 0 on")
        return _joined([(scale * factor, part) for scale, part in self.parts])

    __rmul__ = __mul__

    def __repr__(self) -> str:
        return (
            " + ".join(
                repr(part) if scale == 1 else f"{scale:g} * {part!r}" for scale, part in self.parts
            )
            or "Method()"
        )


def _joined(parts: Iterable[tuple[float, Any]]) -> Method:
    method = Method()
    method._parts = tuple(parts)
    return method


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


@dataclass(frozen=True, repr=False, eq=False)
class Chen2017(Method):
    """Chen, Choi, Yu, Han, Chandraker, "Learning Efficient Object Detection Models with Knowledge
    Distillation", NIPS 2017. For Faster R-CNN, in its region proposals (RPN) and its heads (RCN).

    classification : "weighted" (equation 3), "plain" (without class weights) or None (hard labels)
    regression : "bounded" (equation 4), "l2" (towards the teacher's output) or None
    hint, adaptation : the hint loss (equation 5 or 6), and its learned 1x1 convolution
    mu : share of the hard labels in the classification loss; the paper does not print it
    nu : weight of the teacher's part of the regression loss (paper: 0.5)
    gamma : weight of the hint loss (paper: 0.5)
    margin : by how much the student must beat the teacher to be released; not in the paper
    background_weight : class weight of the background in "weighted" (paper: 1.5, others 1)
    temperature : of both softmaxes (paper: 1 works best)
    hint_distance : "l2" or "l1";  hint_reduction : "mean" or "sum" over the elements
    hint_layer : a feature of the backbone ("student:teacher" where they differ), None for the last
        shared one of each
    rpn, rcn : whether the outputs of each part are distilled
    """

    classification: str | None = "weighted"
    regression: str | None = "bounded"
    hint: bool = True
    adaptation: bool = True
    mu: float = 0.5
    nu: float = 0.5
    gamma: float = 0.5
    margin: float = 0.0
    background_weight: float = 1.5
    temperature: float = 1.0
    hint_distance: str = "l2"
    hint_reduction: str = "mean"
    hint_layer: str | None = None
    rpn: bool = True
    rcn: bool = True

    def __post_init__(self) -> None:
        for field, allowed in _CHOICES.items():
            if getattr(self, field) not in allowed:
                names = ", ".join(repr(value) for value in allowed)
                raise ArgumentError(
                    f"Chen2017: {field} is {getattr(self, field)!r}, expected one of {names}"
                )
        for field, high in _LIMITS.items():
            value = getattr(self, field)
            number = isinstance(value, (int, float)) and math.isfinite(value)
            if not (number and 0 <= value <= high):
                limit = f"0 to {high:g}" if math.isfinite(high) else "0 on"
                raise ArgumentError(
                    f"Chen2017: {field} is {value!r}, expected a number from {limit}"
                )
        if self.temperature == 0:
            raise ArgumentError("Chen2017: temperature is 0, expected a number above 0")

    @property
    def parts(self) -> tuple[tuple[float, Any], ...]:
        """This method alone, with scale 1."""
        return ((1.0, self),)

    def options(self) -> dict[str, Any]:
        """The engine's options of this part; it writes "" for None."""
        fields = {name: "" if value is None else value for name, value in asdict(self).items()}
        return {"name": "chen2017", **fields}

    def __repr__(self) -> str:
        shown = [
            f"{name}={value!r}"
            for name, value in asdict(self).items()
            if value != type(self).__dataclass_fields__[name].default
        ]
        return f"Chen2017({', '.join(shown)})"

    @classmethod
    def table4(cls, **options: Any) -> dict[str, Chen2017]:
        """Every row of the paper's Table 4 by its name there; `options` go to all of them."""
        rows = {
            "Base": (None, None, False, False),
            "L2": (None, "l2", False, False),
            "L2-B": (None, "bounded", False, False),
            "CLS": ("plain", None, False, False),
            "CLS-W": ("weighted", None, False, False),
            "Hints": (None, None, True, False),
            "Hints-A": (None, None, True, True),
            "L2-B+CLS-W": ("weighted", "bounded", False, False),
            "L2-B+CLS-W+Hints-A": ("weighted", "bounded", True, True),
        }
        names = ("classification", "regression", "hint", "adaptation")
        return {row: cls(**dict(zip(names, values)), **options) for row, values in rows.items()}


_CHOICES = {
    "classification": ("weighted", "plain", None),
    "regression": ("bounded", "l2", None),
    "hint_distance": ("l2", "l1"),
    "hint_reduction": ("mean", "sum"),
}
_LIMITS = {
    "mu": 1.0,
    **dict.fromkeys(
        ("nu", "gamma", "margin", "background_weight", "temperature"),
        math.inf,
    ),
}


def as_method(value: Any) -> Method:
    """A method from itself, a `Term`, or a list of terms; None is `Chen2017()`."""
    if value is None:
        return Chen2017()
    if isinstance(value, Method):
        return value
    if isinstance(value, Term):
        return Method([value])
    if isinstance(value, (list, tuple)):
        return Method(value)
    raise ArgumentError(f"method must be one of kd.methods or a kd.Method, got {value!r}")
