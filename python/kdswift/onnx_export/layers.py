"""Layers by the names of their weights: whole or Tucker-factorised, normalization folded in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from .graph import Graph, Map


@dataclass(frozen=True)
class Norm:
    """What stands behind convolutions: "batch", "frozen_batch", "group" or "none"."""

    kind: str = "none"
    epsilon: float = 1e-5

    @classmethod
    def of(cls, section: Mapping[str, Any]) -> Norm:
        """From a section of a configuration."""
        return cls(section.get("norm", "none"), section.get("norm_epsilon", 1e-5))


@dataclass(frozen=True)
class _Window:
    """How a kernel moves over a map; a padding of None keeps the size at stride 1."""

    stride: int = 1
    padding: int | None = None
    dilation: int = 1


def convolution(
    graph: Graph,
    x: Map,
    name: str,
    *,
    norm: tuple[str, Norm] | None = None,
    stride: int = 1,
    padding: int | None = None,
    dilation: int = 1,
    groups: int = 1,
    relu: bool = False,
    output: str | None = None,
) -> Map:
    """A convolution with its bias, normalization and ReLU.

    norm : name of its weights and what it is;  padding : None keeps the size at stride 1
    output : name of the resulting tensor
    """
    parts = [name]
    if graph.has(name + ".core"):  # Tucker: 1x1, the kernel, 1x1
        parts = [
            f"{name}.{part}" for part in ("first", "core", "last") if graph.has(f"{name}.{part}")
        ]
    kernel = parts[-2] if len(parts) > 1 else name
    kind = "none" if norm is None else norm[1].kind
    for part in parts:
        weight, bias = graph.weight(part + ".weight"), _bias(graph, part)
        last = part == parts[-1]
        if last and kind in ("batch", "frozen_batch"):
            weight, bias = _fold(graph, norm, weight, bias)
        window = _Window(stride, padding, dilation) if part == kernel else _Window()
        final = output if last and not relu and kind != "group" else None
        x = _convolve(graph, x, part, (weight, bias), window, groups, final)
    if kind == "group":
        x = _group_norm(graph, x, norm, None if relu else output)
    return activated(graph, x, output) if relu else x


def activated(graph: Graph, x: Map, output: str | None = None) -> Map:
    """ReLU."""
    return Map(graph.node("Relu", x.name, name=output), x.channels, x.height, x.width)


def linear(graph: Graph, x: str | Map, name: str, *, relu: bool = False) -> str:
    """A fully connected layer (R, in) to (R, out), whole or factorised.

    x : rows, or the map (R, C, h, w) that they are when flattened
    """
    if graph.has(name + ".conv"):  # factorised as the convolution over the map that it is
        y = graph.node("Flatten", convolution(graph, x, name + ".conv", padding=0).name, axis=1)
    else:
        y = graph.node("Flatten", x.name, axis=1) if isinstance(x, Map) else x
        parts = [name] if name + ".weight" in graph.state else [name + ".first", name + ".last"]
        for part in parts:
            weight = graph.constant(graph.weight(part + ".weight"), part + ".weight")
            bias = _bias(graph, part)
            inputs = [] if bias is None else [graph.constant(bias, part + ".bias")]
            y = graph.node("Gemm", y, weight, *inputs, transB=1)
    return graph.node("Relu", y) if relu else y


def transposed_convolution(graph: Graph, x: Map, name: str, stride: int) -> Map:
    """A transposed convolution whose kernel is its stride."""
    weight = graph.weight(name + ".weight")
    inputs = [graph.constant(weight, name + ".weight")]
    inputs.append(graph.constant(graph.weight(name + ".bias"), name + ".bias"))
    y = graph.node("ConvTranspose", x.name, *inputs, strides=[stride] * 2)
    return Map(y, weight.shape[1], x.height * stride, x.width * stride)


def max_pool(graph: Graph, x: Map, kernel: int, stride: int, padding: int, round_up: bool) -> Map:
    """Max pooling; sizes rounded up are reached by padding at the end."""
    sizes, after = [], []
    for length in (x.height, x.width):
        room = length + 2 * padding - kernel
        count = (-(-room // stride) if round_up else room // stride) + 1
        if round_up and (count - 1) * stride >= length + padding:
            count -= 1
        needed = (count - 1) * stride + kernel - length - padding
        after.append(max(0, needed) if round_up else padding)
        sizes.append(count)
    y = graph.node(
        "MaxPool",
        x.name,
        kernel_shape=[kernel] * 2,
        strides=[stride] * 2,
        pads=[padding, padding, *after],
    )
    return Map(y, x.channels, *sizes)


def _convolve(
    graph: Graph,
    x: Map,
    name: str,
    weights: tuple[np.ndarray, np.ndarray | None],
    window: _Window,
    groups: int,
    output: str | None,
) -> Map:
    weight, bias = weights
    inputs = [graph.constant(weight, name + ".weight")]
    if bias is not None:
        inputs.append(graph.constant(bias, name + ".bias"))
    kernel, dilation = list(weight.shape[2:]), window.dilation
    padding = dilation * (kernel[0] // 2) if window.padding is None else window.padding
    y = graph.node(
        *("Conv", x.name, *inputs),
        name=output,
        kernel_shape=kernel,
        strides=[window.stride] * 2,
        pads=[padding] * 4,
        dilations=[dilation] * 2,
        group=groups,
    )
    height, width = (
        (n + 2 * padding - dilation * (k - 1) - 1) // window.stride + 1
        for n, k in zip((x.height, x.width), kernel)
    )
    return Map(y, weight.shape[0], height, width)


def _bias(graph: Graph, name: str) -> np.ndarray | None:
    return graph.weight(name + ".bias") if name + ".bias" in graph.state else None


def _fold(
    graph: Graph, norm: tuple[str, Norm], weight: np.ndarray, bias: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Weight and bias of a convolution with the normalization by running statistics behind it."""
    name, kind = norm
    variance = graph.weight(name + ".running_var")
    scale = graph.weight(name + ".weight") / np.sqrt(variance + np.float32(kind.epsilon))
    shift = graph.weight(name + ".bias") - graph.weight(name + ".running_mean") * scale
    if bias is not None:
        shift = shift + bias * scale
    return weight * scale[:, None, None, None], shift


def _group_norm(graph: Graph, x: Map, norm: tuple[str, Norm], output: str | None) -> Map:
    """Group normalization as the instance normalization of groups."""
    name, kind = norm
    groups = 32 if x.channels % 32 == 0 and x.channels >= 256 else max(1, x.channels // 8)
    ones, zeros = np.ones(groups, np.float32), np.zeros(groups, np.float32)
    rows = graph.node("Reshape", x.name, [-1, groups, x.channels // groups * x.height * x.width])
    rows = graph.node("InstanceNormalization", rows, ones, zeros, epsilon=kind.epsilon)
    y = graph.node("Reshape", rows, [-1, x.channels, x.height, x.width])
    y = graph.node("Mul", y, graph.weight(name + ".weight")[:, None, None])
    y = graph.node("Add", y, graph.weight(name + ".bias")[:, None, None], name=output)
    return Map(y, x.channels, x.height, x.width)
