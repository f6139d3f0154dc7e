"""Region heads inside the graph: pooling, classes and boxes, masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from .backbones import Level
from .boxes import both, box_sides
from .graph import Graph, Map
from .layers import Norm, convolution, linear, transposed_convolution

_POOL_SIZES = {"resnet_small": 5, "alexnet": 6, "alexnet_owt": 6, "vgg_m": 6}
_USUAL_POOL_SIZE = 7


def box_head(
    graph: Graph,
    levels: Sequence[Level],
    rois: str,
    configuration: Mapping[str, Any],
    prefix: str,
    names: tuple[str | None, str | None] = (None, None),
) -> tuple[str, str]:
    """Class logits (R, K) and box codes of regions (R, 4).

    levels : those that regions are pooled from;  names : of the two tensors
    """
    roi = configuration["roi"]
    size = roi["pool_size"] or _POOL_SIZES.get(configuration["backbone"]["name"], _USUAL_POOL_SIZE)
    x: Any = pool(graph, levels, rois, size, roi["sampling_ratio"], roi["pool"])
    convolutions = len(roi["convs"])
    for index in range(convolutions):
        x = _head_convolution(graph, x, f"{prefix}box_head.{index}.", roi)
    index = 0
    while True:
        # torchvision counts the flattening between convolutions and layers, and every ReLU.
        name = f"fc{6 + index}" if convolutions == 0 else str(convolutions + 1 + 2 * index)
        if not graph.has(f"{prefix}box_head.{name}"):
            break
        x = linear(graph, x, f"{prefix}box_head.{name}", relu=True)
        index += 1
    logits = linear(graph, x, prefix + "box_predictor.cls_score")
    codes = linear(graph, x, prefix + "box_predictor.bbox_pred")
    return _named(graph, logits, names[0]), _named(graph, codes, names[1])


def mask_head(
    graph: Graph,
    levels: Sequence[Level],
    boxes: str,
    labels: str,
    configuration: Mapping[str, Any],
    prefix: str,
) -> str:
    """Probabilities (N, side, side) of the masks of detections (N, 4), each of its own class."""
    options, classes = configuration["mask"], configuration["num_classes"]
    x = pool(graph, levels, boxes, options["pool_size"], options["sampling_ratio"], "align")
    for index in range(len(options["convs"])):
        x = _head_convolution(graph, x, f"{prefix}mask_head.{index}.", options)
    x = transposed_convolution(graph, x, prefix + "mask_predictor.conv5_mask", 2)
    x = Map(graph.node("Relu", x.name), x.channels, x.height, x.width)
    x = convolution(graph, x, prefix + "mask_predictor.mask_fcn_logits")
    maps = graph.node("Reshape", x.name, [-1, x.height, x.width])
    first = graph.node("Range", 0, _count(graph, labels, scalar=True), 1)
    places = graph.node("Add", graph.node("Mul", first, classes), labels)
    return graph.node("Sigmoid", graph.node("Gather", maps, places, axis=0))


def pool(graph: Graph, levels: Sequence[Level], rois: str, size: int, ratio: int, kind: str) -> Map:
    """Regions (R, 4), in pixels of the input, cut out of their level: (R, C, size, size)."""
    channels = levels[0].map.channels
    if kind == "pool":
        images = graph.node("ConstantOfShape", _pairs(graph, rois), value=_zeros(np.float32))
        y = graph.node(
            "MaxRoiPool",
            *(levels[0].map.name, graph.node("Concat", images, rois, axis=1)),
            pooled_shape=[size] * 2,
            spatial_scale=1 / levels[0].stride,
        )
        return Map(y, channels, size, size)
    if len(levels) == 1:
        return Map(_align(graph, levels[0], rois, size, ratio), channels, size, size)
    pieces, rows = [], []
    for level, chosen in zip(levels, _assign(graph, levels, rois)):
        mine = graph.node("Reshape", graph.node("NonZero", chosen), [-1])
        own = graph.node("Gather", rois, mine, axis=0)
        pieces.append(_align(graph, level, own, size, ratio))
        rows.append(mine)
    # Sorting the row numbers puts the pieces back in order.
    order = graph.node("Concat", *rows, axis=0)
    count = graph.node("Shape", order)
    _, back = graph.split("TopK", order, count, names=[None, None], axis=0, largest=0)
    together = graph.node("Concat", *pieces, axis=0)
    return Map(graph.node("Gather", together, back, axis=0), channels, size, size)


def _assign(graph: Graph, levels: Sequence[Level], rois: str) -> list[str]:
    """Which regions belong to each level: floor(4 + log2(√area / 224) + 1e-6), kept within them.

    Compared with the areas where that changes, so that no logarithm is needed.
    """
    _, sizes = box_sides(graph, rois)
    area = graph.node("Mul", *both(graph, sizes))
    finest = levels[0].stride.bit_length() - 1
    above = []
    for step in range(1, len(levels)):
        side = 224 * 2.0 ** (finest + step - 4 - 1e-6)
        above.append(graph.node("GreaterOrEqual", area, float(side * side)))
    masks = [graph.node("Not", above[0])]
    for lower, upper in pairwise(above):
        masks.append(graph.node("And", lower, graph.node("Not", upper)))
    return [*masks, above[-1]]


def _align(graph: Graph, level: Level, rois: str, size: int, ratio: int) -> str:
    images = graph.node("ConstantOfShape", _count(graph, rois), value=_zeros(np.int64))
    return graph.node(
        "RoiAlign",
        *(level.map.name, rois, images),
        coordinate_transformation_mode="output_half_pixel",
        mode="avg",
        output_height=size,
        output_width=size,
        sampling_ratio=max(0, ratio),
        spatial_scale=1 / level.stride,
    )


def _head_convolution(graph: Graph, x: Map, prefix: str, options: Mapping[str, Any]) -> Map:
    norm = Norm(options["norm"])
    behind = None if norm.kind == "none" else (prefix + "1", norm)
    return convolution(graph, x, prefix + "0", norm=behind, relu=True)


def _count(graph: Graph, rows: str, scalar: bool = False) -> str:
    """How many rows there are, as a vector of one number or as a scalar."""
    return graph.node("Gather", graph.node("Shape", rows), 0 if scalar else [0], axis=0)


def _pairs(graph: Graph, rows: str) -> str:
    """The shape (R, 1)."""
    return graph.node("Concat", _count(graph, rows), [1], axis=0)


def _zeros(kind: Any) -> Any:
    from onnx import numpy_helper

    return numpy_helper.from_array(np.zeros(1, kind))


def _named(graph: Graph, tensor: str, name: str | None) -> str:
    return tensor if name is None else graph.node("Identity", tensor, name=name)
