"""What the losses share: checked inputs, reductions, the call into the engine."""

from __future__ import annotations

from typing import Any

from .._operators import _floats
from ..errors import ArgumentError, ShapeError
from ..tensors import Tensor, apply, as_tensor

REDUCTIONS = ("paper", "mean", "sum", "none")


def pair(name: str, first: Any, second: Any, words: str) -> list[Tensor]:
    """Both as float tensors of one shape; only the first stays on the tape."""
    left, right = words.split(", ")
    a = _floats(as_tensor(first, f"{name}: {left}"))
    b = _floats(as_tensor(second, f"{name}: {right}"))
    if a.shape != b.shape:
        raise ShapeError(f"{name}: {left} {a.shape} and {right} {b.shape} must have one shape")
    return [a, b.detach()]


def check_columns(name: str, value: Tensor, columns: int, word: str) -> None:
    if value.ndim != 2 or value.shape[1] != columns:
        raise ShapeError(f"{name}: {word} {value.shape} must be (P, {columns})")


def check_reduction(name: str, reduction: str) -> None:
    if reduction not in REDUCTIONS:
        raise ArgumentError(
            f"{name}: reduction is {reduction!r}, expected one of {', '.join(REDUCTIONS)}"
        )


def run(name: str, inputs: list[Tensor], reduction: str, **options: Any) -> Tensor:
    check_reduction(name, reduction)
    return apply(name, inputs, reduction=reduction, **options)
