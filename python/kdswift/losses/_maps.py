"""What the losses of feature maps share: checked maps, reductions and numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .._operators import _floats
from ..errors import ArgumentError, ShapeError
from ..tensors import Tensor, as_tensor, tensor
from ._common import check_reduction

AVERAGES = ("paper", "mean", "sum")


def check_average(name: str, reduction: str, allowed: Sequence[str] = AVERAGES) -> None:
    """Raise unless a loss of maps has this reduction; none gives a value per element."""
    check_reduction(name, reduction)
    if reduction not in allowed:
        raise ArgumentError(
            f"{name}: reduction is {reduction!r}, expected one of {', '.join(allowed)}"
        )


def map_pair(name: str, student: Any, teacher: Any, same_channels: bool = True) -> list[Tensor]:
    """Two maps (N, C, H, W) of one shape as float tensors; only the student stays on the tape."""
    maps = [
        _floats(as_tensor(value, f"{name}: {word}"))
        for value, word in ((student, "student"), (teacher, "teacher"))
    ]
    s, t = (one.shape for one in maps)
    if len(s) != 4 or len(t) != 4:
        raise ShapeError(f"{name}: student {s} and teacher {t} must be maps (N, C, H, W)")
    if (s != t) if same_channels else (s[0] != t[0] or s[2:] != t[2:]):
        apart = "" if same_channels else " apart from their channels"
        raise ShapeError(f"{name}: student {s} and teacher {t} must have one shape{apart}")
    return [maps[0], maps[1].detach()]


def finite(name: str, word: str, value: float) -> float:
    if not math.isfinite(value):
        raise ArgumentError(f"{name}: {word} is {value}, expected a finite number")
    return float(value)


def positive(name: str, word: str, value: float) -> float:
    if not 0 < value < math.inf:
        raise ArgumentError(f"{name}: {word} is {value}, expected a positive number")
    return float(value)


def load_parameters(
    name: str, parameters: Mapping[str, Tensor], state: Mapping[str, Any]
) -> dict[str, Tensor]:
    """Parameters with the values of `state`, once names and shapes are the same."""
    if set(state) != set(parameters):
        missing, extra = set(parameters) - set(state), set(state) - set(parameters)
        raise ArgumentError(
            f"{name}: the state lacks {sorted(missing)} and has {sorted(extra)} too many"
        )
    arrays = {key: np.asarray(state[key], np.float32) for key in parameters}
    for key, value in arrays.items():
        if value.shape != parameters[key].shape:
            raise ShapeError(f"{name}: {key} is {value.shape}, not {parameters[key].shape}")
    return {key: tensor(value, requires_grad=True) for key, value in arrays.items()}
