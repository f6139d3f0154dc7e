"""The maps that heads read: the backbone's last one, or a feature pyramid."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import ArgumentError
from .backbones import Level, backbone
from .graph import Graph, Map
from .layers import Norm, activated, convolution, max_pool


def feature_levels(
    graph: Graph, image: Map, configuration: Mapping[str, Any]
) -> tuple[list[Level], int]:
    """The levels, fine to coarse, and how many of them regions are pooled from."""
    neck = configuration["neck"]
    if neck["kind"] == "none":
        return backbone(graph, image, configuration["backbone"], "backbone.")[-1:], 1
    if neck["kind"] != "fpn":
        raise ArgumentError(f"export_onnx: the neck {neck['kind']!r} cannot be exported")
    features = backbone(graph, image, configuration["backbone"], "backbone.body.")
    if neck["from"]:
        first = [f.name for f in features].index("backbone." + neck["from"])
    else:
        first = min(max(0, neck["skip"]), len(features) - 1)
    inputs = features[first:]
    return _pyramid(graph, inputs, neck), len(inputs)


def _pyramid(graph: Graph, inputs: list[Level], neck: Mapping[str, Any]) -> list[Level]:
    """Feature pyramid (Lin et al. 2017), with the extra levels that the configuration asks for."""
    merged: Map | None = None
    levels: list[Level] = []
    for index in reversed(range(len(inputs))):
        side = _pair(graph, inputs[index].map, f"inner_blocks.{index}", neck, None)
        if merged is not None:
            side = _added(graph, side, merged)
        merged = side
        name = _level_name(inputs[index].stride)
        out = _pair(graph, merged, f"layer_blocks.{index}", neck, name)
        levels.insert(0, Level(name, inputs[index].stride, out))
    return levels + _coarser(graph, levels[-1], inputs[-1], neck)


def _added(graph: Graph, side: Map, coarse: Map) -> Map:
    """side + the coarser map, enlarged to its size by nearest neighbours."""
    resized = graph.node(
        "Resize",
        *(coarse.name, "", "", [1, side.channels, side.height, side.width]),
        mode="nearest",
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
    )
    total = graph.node("Add", side.name, resized)
    return Map(total, side.channels, side.height, side.width)


def _coarser(graph: Graph, last: Level, top: Level, neck: Mapping[str, Any]) -> list[Level]:
    extra, stride = neck["extra"], 2 * last.stride
    if extra == "pool":
        pooled = max_pool(graph, last.map, 1, 2, 0, round_up=False)
        # Under the name of its tap.
        named = graph.node("Identity", pooled.name, name=_level_name(stride))
        return [Level(_level_name(stride), stride, _renamed(pooled, named))]
    if not extra.startswith("p6p7"):
        return []
    source = top.map if extra == "p6p7_c5" else last.map
    prefix = "backbone.fpn.extra_blocks."
    names = _level_name(stride), _level_name(2 * stride)
    p6 = convolution(graph, source, prefix + "p6", stride=2, output=names[0])
    p7 = convolution(graph, activated(graph, p6), prefix + "p7", stride=2, output=names[1])
    return [Level(names[0], stride, p6), Level(names[1], 2 * stride, p7)]


def _pair(graph: Graph, x: Map, part: str, neck: Mapping[str, Any], output: str | None) -> Map:
    prefix, norm = f"backbone.fpn.{part}.", Norm.of({"norm": neck["norm"]})
    behind = None if norm.kind == "none" else (prefix + "1", norm)
    return convolution(graph, x, prefix + "0", norm=behind, output=output)


def _renamed(x: Map, name: str) -> Map:
    return Map(name, x.channels, x.height, x.width)


def _level_name(stride: int) -> str:
    """ "neck.p3" of stride 8."""
    return f"neck.p{stride.bit_length() - 1}"
