"""Operators and methods of `Tensor`; the arithmetic is the engine's, the rules are NumPy's."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from .tensors import Tensor

Axes = int | Sequence[int] | None

# NumPy's functions that stay on the tape when a Tensor is among their arguments.
_UFUNC_OPERATIONS = {
    "add": operator.add,
    "subtract": operator.sub,
    "multiply": operator.mul,
    "divide": operator.truediv,
    "true_divide": operator.truediv,
    "power": operator.pow,
    "matmul": operator.matmul,
    "negative": operator.neg,
    "absolute": operator.abs,
    "less": operator.lt,
    "less_equal": operator.le,
    "greater": operator.gt,
    "greater_equal": operator.ge,
    "equal": operator.eq,
    "not_equal": operator.ne,
    "exp": lambda x: x.exp(),
    "log": lambda x: x.log(),
    "sqrt": lambda x: x.sqrt(),
    "tanh": lambda x: x.tanh(),
    "square": lambda x: x.square(),
    "maximum": lambda a, b: _binary("maximum", a, b),
    "minimum": lambda a, b: _binary("minimum", a, b),
}

_LARGEST = float(np.finfo(np.float32).max)
_EXACT = {"add": np.add, "sub": np.subtract, "mul": np.multiply}
_EXACT_REDUCTIONS = {"sum": np.sum, "max": np.max, "min": np.min}
_COMPARISONS = {
    "less": np.less,
    "less_equal": np.less_equal,
    "greater": np.greater,
    "greater_equal": np.greater_equal,
    "equal": np.equal,
    "not_equal": np.not_equal,
}


def _core() -> Any:
    """The module of `Tensor`, which itself needs this one."""
    from . import tensors

    return tensors


def _operand(value: Any, name: str) -> Tensor:
    return _core().as_tensor(value, name)


def _is_known(value: Any) -> bool:
    """Whether an operator takes this as its other side."""
    return isinstance(value, int | float | list | np.ndarray | np.generic) or hasattr(
        value, "__dlpack__"
    )


def _floats(value: Tensor) -> Tensor:
    """The tensor as float32 in the engine; masks are that already."""
    if value.dtype == np.int64:
        return _core().apply("cast", [value], dtype="float32")
    return value


def _binary(name: str, left: Any, right: Any) -> Tensor:
    """An operation of two operands with broadcasting. Integers among themselves stay integers."""
    core = _core()
    for value, other, reverse in ((right, left, False), (left, right, True)):
        if _is_plain_number(value) and isinstance(other, Operators) and other.dtype != np.int64:
            return core.apply(name, [other], value=float(value), reverse=reverse)
    a, b = _operand(left, name), _operand(right, name)
    if name in _EXACT and a.dtype == np.int64 and b.dtype == np.int64:
        return core.tensor(_EXACT[name](_broadcastable(name, a, b), b.numpy(copy=False)))
    return core.apply(name, [_floats(a), _floats(b)])


def _is_plain_number(value: Any) -> bool:
    """Whether a number can travel as JSON to a float32; the others go as tensors."""
    return isinstance(value, int | float | np.number) and abs(value) <= _LARGEST


def _broadcastable(name: str, a: Tensor, b: Tensor) -> np.ndarray:
    from .errors import ShapeError

    try:
        np.broadcast_shapes(a.shape, b.shape)
    except ValueError:
        raise ShapeError(
            f"{name}: shapes {a.shape} and {b.shape} do not broadcast together"
        ) from None
    return a.numpy(copy=False)


def _compare(name: str, left: Any, right: Any) -> Tensor:
    """A mask. Nothing here has a gradient, so NumPy compares, exactly, also integers."""
    a, b = _operand(left, name), _operand(right, name)
    return _core().mask(_COMPARISONS[name](_broadcastable(name, a, b), b.numpy(copy=False)))


def _axes(axis: Axes) -> dict[str, list[int]]:
    if axis is None:
        return {}
    return {"axes": [operator.index(axis)] if not isinstance(axis, Sequence) else list(axis)}


class Operators:
    """What a `Tensor` can do; see there."""

    __slots__ = ()
    __hash__ = object.__hash__
    shape: tuple[int, ...]
    ndim: int

    # Arithmetic

    def __add__(self, other: Any) -> Tensor:
        return _binary("add", self, other) if _is_known(other) else NotImplemented

    def __radd__(self, other: Any) -> Tensor:
        return _binary("add", other, self) if _is_known(other) else NotImplemented

    def __sub__(self, other: Any) -> Tensor:
        return _binary("sub", self, other) if _is_known(other) else NotImplemented

    def __rsub__(self, other: Any) -> Tensor:
        return _binary("sub", other, self) if _is_known(other) else NotImplemented

    def __mul__(self, other: Any) -> Tensor:
        return _binary("mul", self, other) if _is_known(other) else NotImplemented

    def __rmul__(self, other: Any) -> Tensor:
        return _binary("mul", other, self) if _is_known(other) else NotImplemented

    def __truediv__(self, other: Any) -> Tensor:
        return _binary("div", self, other) if _is_known(other) else NotImplemented

    def __rtruediv__(self, other: Any) -> Tensor:
        return _binary("div", other, self) if _is_known(other) else NotImplemented

    def __pow__(self, other: Any) -> Tensor:
        return _binary("pow", self, other) if _is_known(other) else NotImplemented

    def __rpow__(self, other: Any) -> Tensor:
        return _binary("pow", other, self) if _is_known(other) else NotImplemented

    def __matmul__(self, other: Any) -> Tensor:
        return _binary("matmul", self, other) if _is_known(other) else NotImplemented

    def __rmatmul__(self, other: Any) -> Tensor:
        return _binary("matmul", other, self) if _is_known(other) else NotImplemented

    def __neg__(self) -> Tensor:
        return self._unary("neg")

    def __pos__(self) -> Tensor:
        return self

    def __abs__(self) -> Tensor:
        return self.abs()

    # Comparisons and masks

    def __lt__(self, other: Any) -> Tensor:
        return _compare("less", self, other) if _is_known(other) else NotImplemented

    def __le__(self, other: Any) -> Tensor:
        return _compare("less_equal", self, other) if _is_known(other) else NotImplemented

    def __gt__(self, other: Any) -> Tensor:
        return _compare("greater", self, other) if _is_known(other) else NotImplemented

    def __ge__(self, other: Any) -> Tensor:
        return _compare("greater_equal", self, other) if _is_known(other) else NotImplemented

    def __eq__(self, other: object) -> Tensor:  # type: ignore[override]
        return _compare("equal", self, other) if _is_known(other) else NotImplemented

    def __ne__(self, other: object) -> Tensor:  # type: ignore[override]
        return _compare("not_equal", self, other) if _is_known(other) else NotImplemented

    def __invert__(self) -> Tensor:
        return _core().mask(~_truth(self))

    def __and__(self, other: Any) -> Tensor:
        return _core().mask(_truth(self) & _truth(other))

    def __or__(self, other: Any) -> Tensor:
        return _core().mask(_truth(self) | _truth(other))

    __rand__, __ror__ = __and__, __or__

    def any(self) -> bool:
        """Whether any element is not zero."""
        return bool(np.any(self.numpy(copy=False)))

    def all(self) -> bool:
        """Whether every element is not zero."""
        return bool(np.all(self.numpy(copy=False)))

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        operation = _UFUNC_OPERATIONS.get(ufunc.__name__)
        if method == "__call__" and operation is not None and not options:
            return operation(*(_operand(value, ufunc.__name__) for value in inputs))
        arrays = [np.asarray(v) if isinstance(v, Operators) else v for v in inputs]
        return getattr(ufunc, method)(*arrays, **options)

    # Parts and shape

    def __getitem__(self, key: Any) -> Tensor:
        from ._indexing import getitem

        return getitem(self, key)

    def reshape(self, *shape: int | Sequence[int]) -> Tensor:
        """The same elements under another shape; one size may be -1."""
        target = _integers(shape)
        if target == list(self.shape):
            return self
        return self._like(_core().apply("reshape", [self], shape=target))

    def flatten(self) -> Tensor:
        """One axis with all elements."""
        return self.reshape(-1)

    def permute(self, *order: int | Sequence[int]) -> Tensor:
        """The axes in a new order: for each axis of the result, the axis that it shows."""
        return self._like(_core().apply("permute", [self], order=_integers(order)))

    def transpose(self, *axes: int | Sequence[int]) -> Tensor:
        """Two axes exchanged, all in the order given, or (without arguments) all reversed."""
        order = _integers(axes)
        if len(order) == 2 and self.ndim != 2:
            first, second = order
            order = list(range(self.ndim))
            order[first], order[second] = order[second], order[first]
        return self.permute(order or list(reversed(range(self.ndim))))

    @property
    def T(self) -> Tensor:
        """The axes reversed."""
        return self.transpose()

    def squeeze(self, axis: int | None = None) -> Tensor:
        """Without axes of size 1: the given one, or all of them."""
        options = {} if axis is None else {"axis": axis}
        return self._like(_core().apply("squeeze", [self], **options))

    def unsqueeze(self, axis: int) -> Tensor:
        """With a new axis of size 1 before position `axis`."""
        return self._like(_core().apply("unsqueeze", [self], axis=axis))

    # Reductions

    def sum(self, axis: Axes = None, keepdims: bool = False) -> Tensor:
        """Sum over the given axes, or all."""
        return self._reduced("sum", axis, keepdims)

    def mean(self, axis: Axes = None, keepdims: bool = False) -> Tensor:
        """Mean over the given axes, or all; NaN for an empty tensor."""
        return self._reduced("mean", axis, keepdims)

    def var(self, axis: Axes = None, keepdims: bool = False, ddof: int = 0) -> Tensor:
        """Variance over the given axes, or all: divided by n - `ddof`, where `ddof` is 0 or 1."""
        from .errors import ArgumentError

        if ddof not in (0, 1):
            raise ArgumentError(f"var: ddof is {ddof}, expected 0 or 1")
        return self._reduced("var", axis, keepdims, unbiased=ddof == 1)

    def max(self, axis: Axes = None, keepdims: bool = False) -> Tensor:
        """Largest element over the given axes, or all; the gradient goes to the first of equals."""
        return self._reduced("max", axis, keepdims)

    def min(self, axis: Axes = None, keepdims: bool = False) -> Tensor:
        """Smallest element over the given axes, or all; see `max`."""
        return self._reduced("min", axis, keepdims)

    def argmax(self, axis: int | None = None) -> Tensor:
        """Where the largest element along an axis stands (int64), the first of equals."""
        return self._position("argmax", axis)

    def argmin(self, axis: int | None = None) -> Tensor:
        """Where the smallest element along an axis stands (int64), the first of equals."""
        return self._position("argmin", axis)

    # Functions of every element

    def exp(self) -> Tensor:
        """e to the power of every element."""
        return self._unary("exp")

    def log(self) -> Tensor:
        """Natural logarithm; -inf at 0, NaN below."""
        return self._unary("log")

    def sqrt(self) -> Tensor:
        """Square root; NaN below 0."""
        return self._unary("sqrt")

    def abs(self) -> Tensor:
        """Absolute value; gradient 0 at 0."""
        return self._unary("abs")

    def square(self) -> Tensor:
        """Every element times itself."""
        return self._unary("square")

    def relu(self) -> Tensor:
        """max(x, 0); gradient 0 at 0."""
        return self._unary("relu")

    def sigmoid(self) -> Tensor:
        """1 / (1 + e^-x)."""
        return self._unary("sigmoid")

    def gelu(self) -> Tensor:
        """x times the standard normal distribution of x, not approximated."""
        return self._unary("gelu")

    def tanh(self) -> Tensor:
        """Hyperbolic tangent."""
        return self._unary("tanh")

    def clamp(self, min: float | None = None, max: float | None = None) -> Tensor:
        """Every element brought into [min, max]; the gradient passes inside, bounds included."""
        bounds = {"min": min, "max": max}
        given = {name: float(value) for name, value in bounds.items() if value is not None}
        return _core().apply("clamp", [_floats(self)], **given)

    def softmax(self, axis: int = -1) -> Tensor:
        """e^x / sum e^x along an axis."""
        return _core().apply("softmax", [_floats(self)], axis=axis)

    def log_softmax(self, axis: int = -1) -> Tensor:
        """The logarithm of the softmax along an axis."""
        return _core().apply("log_softmax", [_floats(self)], axis=axis)

    # Parts of the above

    def _unary(self, name: str) -> Tensor:
        return _core().apply(name, [_floats(self)])

    def _reduced(self, name: str, axis: Axes, keepdims: bool, **options: Any) -> Tensor:
        if self.dtype == np.int64 and name in _EXACT_REDUCTIONS:
            axes = tuple(_axes(axis)["axes"]) if axis is not None else None
            exact = _EXACT_REDUCTIONS[name](self.numpy(copy=False), axis=axes, keepdims=keepdims)
            return _core().tensor(exact)
        return _core().apply(
            name, [_floats(self)], keep_dims=bool(keepdims), **_axes(axis), **options
        )

    def _position(self, name: str, axis: int | None) -> Tensor:
        source = self.reshape(-1) if axis is None else self
        return _core().apply(name, [_floats(source)], axis=0 if axis is None else axis)

    def _like(self, result: Tensor) -> Tensor:
        """A rearranged mask is a mask."""
        if self.dtype == np.bool_:
            result._dtype = self.dtype
        return result


def _truth(value: Any) -> np.ndarray:
    return np.asarray(value).astype(np.bool_)


def _integers(arguments: tuple) -> list[int]:
    """(2, 3) and ((2, 3),) alike."""
    if len(arguments) == 1 and not isinstance(arguments[0], int | np.integer):
        arguments = tuple(arguments[0])
    return [operator.index(value) for value in arguments]
