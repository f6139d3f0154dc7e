"""Binary convolutions and quantizers beside their formulas in PyTorch, gradients included."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from case import Case, Inputs

import kdswift as kd
from kdswift import quantization

FORMULA = "the formula, in PyTorch"
# Batch, channels, height, width: channels around whole words of 64 bits and blocks of 16.
BINARY_SHAPES = ((2, 8, 7, 5), (1, 64, 5, 6), (1, 65, 4, 4), (2, 33, 3, 3), (1, 130, 6, 5))


def operands(shape: tuple[int, ...], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """A map, filters 3x3, a bias, and what the result is multiplied by before it is summed."""
    batch, channels, height, width = shape
    return {
        "student": (2 * rng.standard_normal(shape)).astype(np.float32),
        "weight": rng.standard_normal((9, channels, 3, 3)).astype(np.float32),
        "bias": rng.standard_normal(9).astype(np.float32),
        "factors": rng.standard_normal((batch, 9, height, width)).astype(np.float32),
    }


def map_and_factors(shape: tuple[int, ...], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """A map with values of both signs, and factors of its shape."""
    return {
        "student": (3 * rng.standard_normal(shape)).astype(np.float32),
        "factors": rng.standard_normal(shape).astype(np.float32),
    }


def straight_through(forward: Any, passes: Any) -> Any:
    """A torch function with `forward`, whose gradient is multiplied by `passes` of the input."""
    import torch

    class Function(torch.autograd.Function):
        @staticmethod
        def forward(context: Any, x: Any) -> Any:
            context.save_for_backward(x)
            return forward(x)

        @staticmethod
        def backward(context: Any, gradient: Any) -> Any:
            return gradient * passes(context.saved_tensors[0])

    return Function.apply


def torch_sign(x: Any) -> Any:
    import torch

    return torch.where(x < 0, -1.0, 1.0)


def reference_convolution(inputs: Inputs, rule: str, k: bool) -> Any:
    """Equations 6 and 11 with the gradients of section 3.2, or of the authors' code."""
    import torch
    import torch.nn.functional as functional

    paper = rule == "paper"
    x, w = inputs["student"], inputs["weight"]
    count, channels = w[0].numel(), w.shape[1]

    def inside(values: Any) -> Any:
        return (values.abs() <= 1 if paper else values.abs() < 1).float()

    def alpha(values: Any) -> Any:
        return values.double().abs().mean(dim=(1, 2, 3), keepdim=True).float()

    def weight_factor(values: Any) -> Any:
        factor = alpha(values) * inside(values) + 1 / count
        return factor if paper else factor * (1 - 1 / channels)

    signs = straight_through(torch_sign, inside)(x)
    filters = straight_through(lambda v: alpha(v) * torch_sign(v), weight_factor)(w)
    result = functional.conv2d(signs, filters, padding=1)
    if k:
        average = x.detach().abs().mean(dim=1, keepdim=True)
        result = result * functional.conv2d(average, torch.full((1, 1, 3, 3), 1 / 9), padding=1)
    return ((result + inputs["bias"][None, :, None, None]) * inputs["factors"]).sum()


def convolution(name: str, rule: str = "paper", k: bool = False) -> Case:
    return Case(
        name,
        FORMULA,
        operands,
        lambda i: kd.sum(
            quantization.binary_conv2d(
                *(i["student"], i["weight"], i["bias"]), padding=1, rule=rule, scaling_factor_k=k
            )
            * i["factors"]
        ),
        lambda i: reference_convolution(i, rule, k),
        ("student", "weight", "bias"),
        BINARY_SHAPES,
    )


def cells(x: Any, step: float, form: str) -> Any:
    """Q(f) entry by entry of D (equation 3)."""
    import torch

    top = 64
    entries = [0.0, *([2.0**e for e in range(7)] if form == "power_of_two" else range(1, top + 1))]
    result = torch.zeros_like(x)
    for below, above in itertools.pairwise(entries):
        result = torch.where(x / step > (below + above) / 2, above * step, result)
    return result


def quantizer(name: str, step: float, form: str, relu: bool) -> Case:
    import torch

    def passes(x: Any) -> Any:
        return (x > 0).float() if relu else torch.ones_like(x)

    return Case(
        name,
        FORMULA,
        map_and_factors,
        lambda i: kd.sum(quantization.quantize(i["student"], step, form, relu) * i["factors"]),
        lambda i: (
            straight_through(lambda x: cells(x, step, form), passes)(i["student"]) * i["factors"]
        ).sum(),
    )


def bits(name: str, count: int) -> Case:
    def levels(x: Any) -> Any:
        most = 2**count - 1
        return 2 * (((most * (x.clamp(-1, 1) + 1) / 2) + 0.5).floor() / most - 0.5)

    return Case(
        name,
        FORMULA,
        map_and_factors,
        lambda i: kd.sum(quantization.quantize_bits(i["student"], count) * i["factors"]),
        lambda i: (
            straight_through(levels, lambda x: (x.abs() <= 1).float())(i["student"]) * i["factors"]
        ).sum(),
    )


CASES = (
    convolution("binary_conv2d"),
    convolution("binary_conv2d with K", k=True),
    convolution("binary_conv2d, authors' gradient", rule="official"),
    quantizer("quantize", 1.0, "uniform", relu=False),
    quantizer("quantize behind a ReLU", 0.5, "uniform", relu=True),
    quantizer("quantize by powers of two", 0.25, "power_of_two", relu=True),
    bits("quantize_bits 2", 2),
    bits("quantize_bits 4", 4),
)
