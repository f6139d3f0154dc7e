"""Switching the tape off, and gradients of plain NumPy functions."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ._library import lib
from .errors import ArgumentError, ShapeError
from .tensors import Tensor, tensor


class no_grad(contextlib.ContextDecorator):
    """Record nothing for gradients, on this thread: `with kd.no_grad(): ...` or `@kd.no_grad()`.

    Calls nest. Results made inside have `requires_grad` False and keep no other tensor alive.
    """

    def __enter__(self) -> no_grad:
        lib.kds_no_grad_enter()
        return self

    def __exit__(self, *_exception: object) -> None:
        lib.kds_no_grad_leave()


def value_and_grad(
    function: Callable[..., Tensor], argnums: int | Sequence[int] = 0
) -> Callable[..., tuple[float, Any]]:
    """A function that gives the value of `function` and its gradient, NumPy in and NumPy out.

    Args:
        function: takes Tensors (arrays arrive as Tensors, everything else as it is) and returns a
            Tensor with one element.
        argnums: position of the argument to derive by, or several.

    Returns:
        A function of the same arguments that returns `(value, gradient)`: the gradient is a float32
        array of the argument's shape, or a tuple of them when `argnums` is a sequence. An argument
        that the value does not depend on has a gradient of zeros.

    Raises:
        ShapeError: when `function` returns more than one number.
        ArgumentError: when an `argnums` argument is missing or holds integers.

    >>> kd.value_and_grad(lambda x: (x * x).sum())(np.array([1.0, 2.0]))
    (5.0, array([2., 4.], dtype=float32))
    """
    positions = (argnums,) if isinstance(argnums, int) else tuple(argnums)

    @functools.wraps(function)
    def with_gradient(*arguments: Any, **keywords: Any) -> tuple[float, Any]:
        inputs = _inputs(arguments, positions)
        value = function(*inputs, **keywords)
        if not isinstance(value, Tensor):
            raise ArgumentError(
                f"value_and_grad: the function returned {type(value).__name__}, expected a Tensor"
            )
        if value.size != 1:
            raise ShapeError(
                f"value_and_grad: the function returned a tensor of shape {value.shape}, expected "
                "one number"
            )
        if value.requires_grad:
            value.backward()
        gradients = tuple(_gradient(inputs[position]) for position in positions)
        return float(value), gradients[0] if isinstance(argnums, int) else gradients

    return with_gradient


def _inputs(arguments: tuple, positions: tuple[int, ...]) -> list[Any]:
    inputs = [
        tensor(a) if isinstance(a, np.ndarray) or hasattr(a, "__dlpack__") else a for a in arguments
    ]
    for position in positions:
        if not -len(inputs) <= position < len(inputs):
            raise ArgumentError(f"value_and_grad: no argument {position}, only {len(inputs)} given")
        given = tensor(arguments[position])
        if given.dtype != np.float32:
            raise ArgumentError(
                f"value_and_grad: argument {position} holds integers; give floating point"
            )
        given.requires_grad = True
        inputs[position] = given
    return inputs


def _gradient(leaf: Tensor) -> np.ndarray:
    gradient = leaf.grad
    return np.zeros(leaf.shape, np.float32) if gradient is None else gradient.numpy()
