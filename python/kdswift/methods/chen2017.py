"""Chen et al. 2017, computed by the engine inside its own step."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from ..errors import ArgumentError
from .published import Published


@dataclass(frozen=True, repr=False, eq=False)
class Chen2017(Published):
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

    label: ClassVar[str] = "chen2017"

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

    def options(self) -> dict[str, Any]:
        """The engine's options of this part; it writes "" for None."""
        fields = {name: "" if value is None else value for name, value in asdict(self).items()}
        return {"name": self.label, **fields}

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
