"""Functions of tensors, at the package level: `kd.softmax`, `kd.conv2d`, `kd.cat` and so on.

Every argument called a tensor may also be a NumPy array, a list or anything with DLPack; the result
is a Tensor, on the tape when an input is. Images are (N, C, H, W). Shapes that do not go together
raise `ShapeError` and name the operation and the shapes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from . import runtime
from ._operators import Axes, _binary, _floats
from .errors import ArgumentError, ShapeError
from .tensors import Tensor, apply, as_tensor

Pair = int | Sequence[int]


def _float_input(value: Any, name: str) -> Tensor:
    return _floats(as_tensor(value, name))


def _pair(value: Pair, name: str) -> list[int]:
    try:
        values = [value] * 2 if isinstance(value, int | np.integer) else list(value)
    except TypeError:
        values = []
    if len(values) not in (2, 4) or not all(isinstance(v, int | np.integer) for v in values):
        raise ArgumentError(f"{name} is {value!r}, expected one whole number or two")
    return [int(v) for v in values]


def _optional(name: str, *values: Any) -> list[Tensor]:
    return [_float_input(v, name) for v in values if v is not None]


# Element by element


def exp(x: Any) -> Tensor:
    """e to the power of every element."""
    return as_tensor(x, "exp").exp()


def log(x: Any) -> Tensor:
    """Natural logarithm; -inf at 0, NaN below."""
    return as_tensor(x, "log").log()


def sqrt(x: Any) -> Tensor:
    """Square root; NaN below 0."""
    return as_tensor(x, "sqrt").sqrt()


def abs(x: Any) -> Tensor:
    """Absolute value; gradient 0 at 0."""
    return as_tensor(x, "abs").abs()


def square(x: Any) -> Tensor:
    """Every element times itself."""
    return as_tensor(x, "square").square()


def relu(x: Any) -> Tensor:
    """max(x, 0); gradient 0 at 0."""
    return as_tensor(x, "relu").relu()


def sigmoid(x: Any) -> Tensor:
    """1 / (1 + e^-x)."""
    return as_tensor(x, "sigmoid").sigmoid()


def gelu(x: Any) -> Tensor:
    """x times the standard normal distribution of x (`torch.nn.functional.gelu`, exact)."""
    return as_tensor(x, "gelu").gelu()


def tanh(x: Any) -> Tensor:
    """Hyperbolic tangent."""
    return as_tensor(x, "tanh").tanh()


def maximum(a: Any, b: Any) -> Tensor:
    """The larger of both, with broadcasting; on a tie each gets half of the gradient."""
    return _binary("maximum", a, b)


def minimum(a: Any, b: Any) -> Tensor:
    """The smaller of both, with broadcasting; on a tie each gets half of the gradient."""
    return _binary("minimum", a, b)


def clamp(x: Any, min: float | None = None, max: float | None = None) -> Tensor:
    """Every element brought into [min, max]; the gradient passes inside, bounds included."""
    return as_tensor(x, "clamp").clamp(min, max)


def where(condition: Any, a: Any, b: Any) -> Tensor:
    """Elements of `a` where the condition is not 0, of `b` elsewhere; all three broadcast."""
    return apply("where", [_float_input(v, "where") for v in (condition, a, b)])


# Reductions


def sum(x: Any, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """Sum over the given axes, or all."""
    return as_tensor(x, "sum").sum(axis, keepdims)


def mean(x: Any, axis: Axes = None, keepdims: bool = False) -> Tensor:
    """Mean over the given axes, or all; NaN for an empty tensor."""
    return as_tensor(x, "mean").mean(axis, keepdims)


def var(x: Any, axis: Axes = None, keepdims: bool = False, ddof: int = 0) -> Tensor:
    """Variance over the given axes, or all: divided by n - `ddof`, where `ddof` is 0 or 1."""
    return as_tensor(x, "var").var(axis, keepdims, ddof)


def softmax(x: Any, axis: int = -1) -> Tensor:
    """e^x / sum e^x along an axis; stable for any finite values."""
    return as_tensor(x, "softmax").softmax(axis)


def log_softmax(x: Any, axis: int = -1) -> Tensor:
    """The logarithm of the softmax along an axis; stable for any finite values."""
    return as_tensor(x, "log_softmax").log_softmax(axis)


# Joining and picking


def cat(tensors: Sequence[Any], axis: int = 0) -> Tensor:
    """Tensors joined along an axis that they have; all other sizes must agree."""
    return _joined("cat", tensors, axis)


def stack(tensors: Sequence[Any], axis: int = 0) -> Tensor:
    """Tensors of one shape joined along a new axis."""
    return _joined("stack", tensors, axis)


def _joined(name: str, tensors: Sequence[Any], axis: int) -> Tensor:
    inputs = [as_tensor(value, f"{name}: tensor {i}") for i, value in enumerate(tensors)]
    if not inputs:
        raise ArgumentError(f"{name}: no tensors given")
    kinds = {one.dtype for one in inputs}
    if len(kinds) > 1:
        inputs = [_floats(one) for one in inputs]
    result = apply(name, inputs, axis=axis)
    return inputs[0]._like(result) if len(kinds) == 1 else result


def gather(x: Any, axis: int, index: Any) -> Tensor:
    """`out[i, j, ...] = x[index[i, j, ...], j, ...]` for axis 0, and so on (`torch.gather`).

    Args:
        x: any number of axes.
        axis: the axis along which elements are picked.
        index: int64, as many axes as `x`, on the other axes no larger.
    """
    return apply("gather", [as_tensor(x, "gather"), as_tensor(index, "gather: index")], axis=axis)


# Layers


def matmul(a: Any, b: Any) -> Tensor:
    """Matrix product `a @ b`; leading axes are a batch."""
    return _binary("matmul", a, b)


def linear(x: Any, weight: Any, bias: Any = None) -> Tensor:
    """`x @ weight.T + bias`: x (..., in), weight (out, in), bias (out,) gives (..., out)."""
    return apply("linear", _optional("linear", x, weight, bias))


def conv2d(
    x: Any,
    weight: Any,
    bias: Any = None,
    stride: Pair = 1,
    padding: Pair = 0,
    dilation: Pair = 1,
    groups: int = 1,
) -> Tensor:
    """2-D convolution (cross-correlation, as everywhere in this field).

    Args:
        x: (N, C, H, W).
        weight: (K, C / groups, R, S).
        bias: (K,) or None.
        stride, dilation: one number, or (vertical, horizontal).
        padding: zeros around the image: one number, (vertical, horizontal), or (top, left, bottom,
            right).
        groups: groups of channels that do not see each other.

    Returns:
        (N, K, H', W') with H' = (H + padding - dilation (R - 1) - 1) // stride + 1.
    """
    return apply(
        "conv2d",
        _optional("conv2d", x, weight, bias),
        stride=_pair(stride, "conv2d: stride"),
        padding=_pair(padding, "conv2d: padding"),
        dilation=_pair(dilation, "conv2d: dilation"),
        groups=int(groups),
    )


def max_pool2d(
    x: Any,
    kernel_size: Pair,
    stride: Pair | None = None,
    padding: Pair = 0,
    ceil_mode: bool = False,
) -> Tensor:
    """Largest value of each window of (N, C, H, W); `stride` None means the kernel's size."""
    return _pool("max_pool2d", x, kernel_size, stride, padding, ceil_mode=bool(ceil_mode))


def avg_pool2d(
    x: Any,
    kernel_size: Pair,
    stride: Pair | None = None,
    padding: Pair = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Tensor:
    """Mean of each window of (N, C, H, W); without `count_include_pad` of its real pixels."""
    options = {"ceil_mode": bool(ceil_mode), "count_include_pad": bool(count_include_pad)}
    return _pool("avg_pool2d", x, kernel_size, stride, padding, **options)


def _pool(
    name: str, x: Any, kernel: Pair, stride: Pair | None, padding: Pair, **options: bool
) -> Tensor:
    return apply(
        name,
        [_float_input(x, name)],
        kernel=_pair(kernel, f"{name}: kernel_size"),
        stride=None if stride is None else _pair(stride, f"{name}: stride"),
        padding=_pair(padding, f"{name}: padding"),
        **options,
    )


def adaptive_avg_pool2d(x: Any, output_size: Pair) -> Tensor:
    """Means over windows that cut (N, C, H, W) into `output_size` cells (as PyTorch cuts it).

    Cell i of n spans rows floor(i H / n) to ceil((i + 1) H / n).
    """
    name = "adaptive_avg_pool2d"
    return apply(name, [_images(x, name)], size=_pair(output_size, f"{name}: output_size"))


def interpolate(
    x: Any,
    size: Pair | None = None,
    scale_factor: float | Sequence[float] | None = None,
    mode: str = "nearest",
    align_corners: bool = False,
) -> Tensor:
    """(N, C, H, W) resampled to another height and width (`torch.nn.functional.interpolate`).

    Args:
        size: the new (height, width); or
        scale_factor: the new size over the old one, rounded down.
        mode: "nearest" or "bilinear".
        align_corners: for "bilinear": whether the corners' centres stay where they are.
    """
    source = _images(x, "interpolate")
    if (size is None) == (scale_factor is None):
        raise ArgumentError("interpolate: give either size or scale_factor")
    if size is None:
        scales = [scale_factor] * 2 if isinstance(scale_factor, int | float) else list(scale_factor)
        size = [int(n * s) for n, s in zip(source.shape[2:], scales, strict=True)]
    target = _pair(size, "interpolate: size")
    if not align_corners:
        return apply("interpolate", [source], size=target, mode=mode)
    if mode != "bilinear" or min(target) < 1 or 0 in source.shape:
        raise ArgumentError(
            f"interpolate: align_corners needs mode 'bilinear' and sizes above 0, not {mode!r} "
            f"from {source.shape} to {tuple(target)}"
        )
    return _separable(
        source, *(_corner_shares(n, m) for n, m in zip(source.shape[2:], target, strict=True))
    )


def _images(x: Any, name: str) -> Tensor:
    source = _float_input(x, name)
    if source.ndim != 4:
        raise ShapeError(f"{name}: input {source.shape} must be (N, C, H, W)")
    return source


def _separable(x: Tensor, rows: np.ndarray, columns: np.ndarray) -> Tensor:
    """rows @ image @ columns^T for every image of (N, C, H, W)."""
    return as_tensor(rows, "rows") @ (x @ as_tensor(columns.T, "columns"))


def _corner_shares(extent: int, target: int) -> np.ndarray:
    """(target, extent): each row blends two neighbours; first and last positions coincide."""
    shares = np.zeros((target, extent), np.float32)
    for place in range(target):
        source = place * (extent - 1) / (target - 1) if target > 1 else 0.0
        low = min(int(source), extent - 1)
        shares[place, low] += 1 - (source - low)
        shares[place, min(low + 1, extent - 1)] += source - low
    return shares


def layer_norm(
    x: Any,
    normalized_shape: int | Sequence[int],
    weight: Any = None,
    bias: Any = None,
    eps: float = 1e-5,
) -> Tensor:
    """Mean 0 and variance 1 over the last axes, then times `weight` plus `bias`.

    Args:
        x: (..., *normalized_shape).
        normalized_shape: the sizes of the last axes that are normalised together.
        weight, bias: of that shape, or None for 1 and 0.
        eps: added to the variance.
    """
    source = _float_input(x, "layer_norm")
    shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
    parameters = _optional("layer_norm", weight, bias)
    if source.shape[source.ndim - len(shape) :] != shape or not shape:
        raise ShapeError(f"layer_norm: {source.shape} does not end in {shape}")
    if any(one.shape != shape for one in parameters):
        raise ShapeError(f"layer_norm: weight and bias must be {shape} for input {source.shape}")
    rows = source.reshape(*source.shape[: source.ndim - len(shape)], -1) if source.size else source
    inputs = [rows, *(one.reshape(-1) for one in parameters)]
    result = apply("layer_norm", inputs, eps=float(eps), bias_only=weight is None)
    return result.reshape(source.shape)


def dropout(x: Any, p: float = 0.5, training: bool = True, seed: int | None = None) -> Tensor:
    """Each element set to 0 with probability `p`, the others divided by 1 - p; in training only.

    The random numbers come from `seed`, or from the package's (`kd.seed`), which then counts on.
    """
    if not 0 <= p < 1:
        raise ArgumentError(f"dropout: p is {p}, expected 0 <= p < 1")
    source = _float_input(x, "dropout")
    if not training or p == 0:
        return source
    number = runtime.next_seed() if seed is None else seed
    return apply("dropout", [source], p=float(p), seed=number)
