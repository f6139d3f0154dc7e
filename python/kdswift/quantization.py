"""Tensors of few values: signs and binary convolutions (XNOR-Net), quantised maps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .functional import _float_input, _pair
from .tensors import Tensor, apply

__all__ = ["binary_conv2d", "binary_filters", "binary_sign", "quantize", "quantize_bits"]


def binary_sign(x: Any, strict: bool = False) -> Tensor:
    """+1 where x >= 0, -1 below; the gradient passes where |x| <= 1 (strict: < 1)."""
    return apply("binary_sign", [_float_input(x, "binary_sign")], strict=bool(strict))


def binary_filters(weight: Any, rule: str = "paper") -> Tensor:
    """alpha sign(W), alpha the mean |W| of each filter (Rastegari et al. 2016, equations 2 to 6).

    weight : (K, C, R, S) or (K, n)
    rule : the gradient of the weights: "paper", 1/n + alpha 1{|W| <= 1}, or "official",
        (alpha 1{|W| < 1} + 1/n)(1 - 1/C), times that of the result
    """
    return apply("binary_filters", [_float_input(weight, "binary_filters")], rule=rule)


def binary_conv2d(
    input: Any,
    weight: Any,
    bias: Any = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    scaling_factor_k: bool = False,
    rule: str = "paper",
) -> Tensor:
    """Convolution of sign(input) with alpha sign(weight); padding adds nothing.

    With nothing to differentiate bits are counted, else floats are convolved.

    input : (N, C, H, W);  weight : (K, C, R, S);  bias : (K,) or None
    stride, padding, dilation : one number, or (vertical, horizontal)
    scaling_factor_k : multiply by the window's mean of |input| (equation 11), without gradient
    rule : as in `binary_filters`
    """
    name = "binary_conv2d"
    inputs = [_float_input(input, name), _float_input(weight, name)]
    if bias is not None:
        inputs.append(_float_input(bias, name))
    return apply(
        name,
        inputs,
        stride=_pair(stride, f"{name}: stride"),
        padding=_pair(padding, f"{name}: padding"),
        dilation=_pair(dilation, f"{name}: dilation"),
        input_scale=bool(scaling_factor_k),
        rule=rule,
    )


def quantize(x: Any, step: float = 1.0, form: str = "uniform", relu: bool = False) -> Tensor:
    """Each value at the nearest of 0, step, 2 step, ..., ties down (Wei et al. 2018).

    form : "uniform", or "power_of_two": 0, step, 2 step, 4 step, ...
    relu : let gradients pass where x > 0 alone; else everywhere
    NaN and infinity raise ``ArgumentError``.
    """
    options = {"step": float(step), "form": form, "relu": bool(relu)}
    return apply("quantize", [_float_input(x, "quantize")], **options)


def quantize_bits(x: Any, bits: int) -> Tensor:
    """x, limited to [-1, 1], at the nearest of 2**bits levels (Rastegari et al. 2016)."""
    return apply("quantize_bits", [_float_input(x, "quantize_bits")], bits=int(bits))
