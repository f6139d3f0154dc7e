"""Feature maps, element by element."""

from __future__ import annotations

from typing import Any

from ..errors import ArgumentError
from ..tensors import Tensor
from ._common import pair, run


def hint(student: Any, teacher: Any, distance: str = "l2", reduction: str = "paper") -> Tensor:
    """How far the student's (adapted) feature map V is from the teacher's Z.

    Chen et al. 2017: ||V - Z||_2^2 (eq. 5, after FitNets) or ||V - Z||_1 (eq. 6).

    Args:
        student: V, any shape.
        teacher: Z, the same shape; the adaptation layer comes before (see `kd.methods.Chen2017`).
        distance: "l2" or "l1".
        reduction: "paper" is the raw sum, as both equations print it; "mean" divides it by the
            number of elements, which a weight for maps of all sizes needs.

    >>> kd.losses.hint([[1.0, 3.0]], [[1.0, 1.0]], reduction="mean").item()
    2.0
    """
    if distance not in ("l2", "l1"):
        raise ArgumentError(f"hint: distance is {distance!r}, expected 'l2' or 'l1'")
    maps = pair("hint", student, teacher, "student, teacher")
    return run("hint", maps, "sum" if reduction == "paper" else reduction, distance=distance)
