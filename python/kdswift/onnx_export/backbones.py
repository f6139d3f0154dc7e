"""Backbones: from a normalized image to the maps that heads or a pyramid read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import ArgumentError
from .chains import chain
from .graph import Graph, Map
from .layers import Norm, activated, convolution, max_pool
from .swin import swin


@dataclass(frozen=True)
class Level:
    """A map with the name of its tap inside the detector and its pixels per step."""

    name: str
    stride: int
    map: Map


def backbone(graph: Graph, image: Map, options: Mapping[str, Any], prefix: str) -> list[Level]:
    """The features of a backbone, fine to coarse; their tensors are called "backbone.<feature>".

    prefix : of the names of its weights
    """
    name = options["name"]
    if options.get("dcn_stages"):
        raise ArgumentError("export_onnx: deformable convolutions (dcn_stages) cannot be exported")
    if name in ("alexnet", "alexnet_owt", "vgg_m", "vgg16"):
        return [Level(*found) for found in chain(graph, image, options, prefix)]
    if name.startswith("swin"):
        return [Level(*found) for found in swin(graph, image, options, prefix)]
    if name == "resnet_small":
        wanted = options.get("output_stride") or 8
        x = _pair(graph, image, prefix, "conv1", "bn1", Norm.of(options), stride=2, relu=True)
        return _layers(graph, x, options, prefix, [min(wanted, 4 << i) for i in range(3)], 2)
    if name.startswith(("resnet", "resnext")):
        x = _pair(graph, image, prefix, "conv1", "bn1", Norm.of(options), stride=2, relu=True)
        x = max_pool(graph, x, 3, 2, 1, round_up=False)
        last = options.get("output_stride") or 32
        return _layers(graph, x, options, prefix, [min(last, 4 << i) for i in range(4)], 4)
    raise ArgumentError(f"export_onnx: the backbone {name!r} cannot be exported")


def _layers(
    graph: Graph, x: Map, options: Mapping[str, Any], prefix: str, strides: list[int], stride: int
) -> list[Level]:
    """layer1, layer2, … of residual blocks; `strides` are those of the results."""
    norm, groups = Norm.of(options), _groups(options["name"])
    levels = []
    for index, wanted in enumerate(strides):
        # The fourth layer of a bottleneck network that stays at stride 16 is dilated.
        dilated = index == 3 and wanted == stride
        feature, block = f"layer{index + 1}", 0
        while graph.has(f"{prefix}{feature}.{block}"):
            last = not graph.has(f"{prefix}{feature}.{block + 1}")
            x = _block(
                *(graph, x, f"{prefix}{feature}.{block}.", norm),
                {
                    "stride": wanted // stride if block == 0 else 1,
                    "dilation": 2 if dilated and block else 1,
                    "groups": groups,
                },
                f"backbone.{feature}" if last else None,
            )
            block += 1
        stride = wanted
        levels.append(Level(f"backbone.{feature}", stride, x))
    return levels


def _block(
    graph: Graph, x: Map, prefix: str, norm: Norm, window: dict[str, int], output: str | None
) -> Map:
    """A basic block, or a bottleneck where there is a third convolution.

    window : stride, dilation and groups of the 3x3 convolution that has them
    """
    shortcut, stride = x, window["stride"]
    if graph.has(prefix + "downsample"):
        shortcut = _pair(graph, x, prefix, "downsample.0", "downsample.1", norm, stride=stride)
    if graph.has(prefix + "conv3"):
        y = _pair(graph, x, prefix, "conv1", "bn1", norm, relu=True)
        y = _pair(graph, y, prefix, "conv2", "bn2", norm, relu=True, **window)
        y = _pair(graph, y, prefix, "conv3", "bn3", norm)
    else:
        y = _pair(graph, x, prefix, "conv1", "bn1", norm, stride=stride, relu=True)
        y = _pair(graph, y, prefix, "conv2", "bn2", norm)
    total = graph.node("Add", y.name, shortcut.name)
    return activated(graph, Map(total, y.channels, y.height, y.width), output)


def _pair(graph: Graph, x: Map, prefix: str, conv: str, bn: str, norm: Norm, **options: Any) -> Map:
    behind = None if norm.kind == "none" else (prefix + bn, norm)
    return convolution(graph, x, prefix + conv, norm=behind, **options)


def _groups(name: str) -> int:
    """32 of "resnext50_32x4d"; 1 of other names."""
    return int(name.split("_")[1].split("x")[0]) if name.startswith("resnext") else 1
