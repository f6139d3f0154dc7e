"""One-stage detectors: from the maps to detections."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .backbones import Level
from .boxes import (
    Anchors,
    anchor_sides,
    best,
    clip,
    column,
    decode,
    distances_to_boxes,
    rows_of,
    suppress,
)
from .graph import Graph, Map
from .layers import Norm, convolution
from .two_stage import Prediction

ONE_STAGE = ("atss", "fcos", "gfl", "retinanet")
_ATSS_DEVIATIONS = (0.1, 0.1, 0.2, 0.2)


def one_stage(
    graph: Graph, levels: list[Level], configuration: Mapping[str, Any], prediction: Prediction
) -> dict[str, str]:
    """The tensors "boxes", "scores" and "labels"."""
    anchors = Anchors(configuration, [level.stride for level in levels], prediction.padded)
    found = [
        _of_level(graph, index, level, anchors, configuration, prediction, len(levels))
        for index, level in enumerate(levels)
    ]
    boxes, scores, labels = (graph.node("Concat", *parts, axis=0) for parts in zip(*found))
    # A row of scores for every class; -1 for the boxes of others.
    classes = np.arange(configuration["num_classes"], dtype=np.int64)[:, None]
    own = graph.node("Where", graph.node("Equal", labels, classes), scores, -1.0)
    chosen = suppress(
        *(graph, graph.node("Unsqueeze", boxes, [0]), graph.node("Unsqueeze", own, [0])),
        *(prediction.max_detections, prediction.nms_threshold, prediction.score_threshold),
    )
    rows = column(graph, chosen, 2)
    values, order = best(
        graph, graph.node("Gather", scores, rows, axis=0), prediction.max_detections
    )
    rows = graph.node("Gather", rows, order, axis=0)
    return {
        "boxes": graph.node("Gather", boxes, rows, axis=0),
        "scores": values,
        "labels": graph.node("Gather", labels, rows, axis=0),
    }


def _of_level(
    graph: Graph,
    index: int,
    level: Level,
    anchors: Anchors,
    configuration: Mapping[str, Any],
    prediction: Prediction,
    count: int,
) -> tuple[str, str, str]:
    """Boxes, scores and labels of the best candidates of one level."""
    suffix = "" if count == 1 else "." + level.name.split(".")[-1]
    classes = configuration["num_classes"]
    objects = classes - 1  # column 0 is the background's
    head = _Head(graph, configuration["detector"], Norm(configuration["head"]["norm"]), suffix)
    logits = head.logits(level.map)
    numbers, centerness = head.boxes(level.map, index)
    grid = anchors.of(index, logits)
    limit = min(configuration["head"]["top_candidates"], len(grid) * objects)
    columns = np.arange(1, classes, dtype=np.int64)
    scores = graph.node("Gather", rows_of(graph, logits, classes), columns, axis=1)
    if centerness is not None:
        scores = head.scores(scores, rows_of(graph, centerness, 1))
    values, places = best(graph, graph.node("Reshape", scores, [-1]), limit)
    cells = graph.node("Div", places, objects)
    boxes = head.decoded(numbers, grid, cells, level.stride)
    return (
        clip(graph, boxes, prediction.image),
        graph.node("Sigmoid", values) if centerness is None else values,
        graph.node("Add", graph.node("Mod", places, objects), 1),
    )


class _Head:
    """The head of one kind of detector at one level."""

    def __init__(self, graph: Graph, kind: str, norm: Norm, suffix: str) -> None:
        self.graph, self.kind, self.norm, self.suffix = graph, kind, norm, suffix

    def logits(self, x: Map) -> Map:
        """Of the classes, (1, A · K, H, W)."""
        prefix = "head.classification_head."
        return convolution(
            *(self.graph, self._tower(x, prefix), prefix + "cls_logits"),
            output="head.class_logits" + self.suffix,
        )

    def boxes(self, x: Map, level: int) -> tuple[Map, Map | None]:
        """Box numbers, and the logits of centerness where the detector has them."""
        graph, prefix = self.graph, "head.regression_head."
        x = self._tower(x, prefix)
        tap = "head.box_" + ("distribution" if self.kind == "gfl" else "deltas") + self.suffix
        scale = f"head.scales.{level}.scale"
        scaled = scale in graph.state
        numbers = convolution(
            *(graph, x, prefix + "bbox_reg"),
            relu=self.kind == "fcos",
            output=None if scaled else tap,
        )
        if scaled:
            name = graph.node("Mul", numbers.name, graph.weight(scale), name=tap)
            numbers = Map(name, numbers.channels, numbers.height, numbers.width)
        if not graph.has(prefix + "bbox_ctrness"):
            return numbers, None
        output = "head.centerness" + self.suffix
        return numbers, convolution(graph, x, prefix + "bbox_ctrness", output=output)

    def scores(self, logits: str, centerness: str) -> str:
        """p · c, of FCOS its root."""
        graph = self.graph
        product = graph.node(
            "Mul", graph.node("Sigmoid", logits), graph.node("Sigmoid", centerness)
        )
        return graph.node("Sqrt", product) if self.kind == "fcos" else product

    def decoded(self, numbers: Map, grid: np.ndarray, cells: str, stride: int) -> str:
        """Boxes (S, 4) of the chosen cells."""
        graph = self.graph
        columns = numbers.channels * numbers.height * numbers.width // len(grid)
        codes = graph.node("Gather", rows_of(graph, numbers, columns), cells, axis=0)
        centres, sizes = (graph.node("Gather", side, cells, axis=0) for side in anchor_sides(grid))
        if self.kind == "fcos":
            return distances_to_boxes(graph, codes, centres, sizes)
        if self.kind == "gfl":
            bins = columns // 4
            shares = graph.node("Softmax", graph.node("Reshape", codes, [-1, 4, bins]), axis=-1)
            means = graph.node("MatMul", shares, np.arange(bins, dtype=np.float32)[:, None])
            distances = graph.node("Reshape", means, [-1, 4])
            return distances_to_boxes(graph, distances, centres, float(stride))
        deviations = _ATSS_DEVIATIONS if self.kind == "atss" else None
        return decode(graph, codes, centres, sizes, deviations)

    def _tower(self, x: Map, prefix: str) -> Map:
        index, flat = 0, self.kind == "fcos"
        while self.graph.has(f"{prefix}conv.{3 * index if flat else index}"):
            first = f"{prefix}conv.{3 * index}" if flat else f"{prefix}conv.{index}.0"
            second = f"{prefix}conv.{3 * index + 1}" if flat else f"{prefix}conv.{index}.1"
            behind = None if self.norm.kind == "none" else (second, self.norm)
            x = convolution(self.graph, x, first, norm=behind, relu=True)
            index += 1
        return x
