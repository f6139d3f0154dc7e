"""RetinaNet: from the maps to detections."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .backbones import Level
from .boxes import Anchors, anchor_sides, best, clip, column, decode, rows_of, suppress
from .graph import Graph, Map
from .layers import Norm, convolution
from .two_stage import Prediction


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
    norm, classes = Norm(configuration["head"]["norm"]), configuration["num_classes"]
    logits = _branch(
        *(graph, level.map, "head.classification_head.", "cls_logits", norm),
        "head.class_logits" + suffix,
    )
    deltas = _branch(
        *(graph, level.map, "head.regression_head.", "bbox_reg", norm), "head.box_deltas" + suffix
    )
    grid, codes = anchors.of(index, logits), rows_of(graph, deltas, 4)
    limit = min(configuration["head"]["top_candidates"], len(grid) * classes)
    flat = graph.node("Reshape", rows_of(graph, logits, classes), [-1])
    values, places = best(graph, flat, limit)
    cells = graph.node("Div", places, classes)
    centres, sizes = (graph.node("Gather", side, cells, axis=0) for side in anchor_sides(grid))
    boxes = decode(graph, graph.node("Gather", codes, cells, axis=0), centres, sizes)
    return (
        clip(graph, boxes, prediction.image),
        graph.node("Sigmoid", values),
        graph.node("Mod", places, classes),
    )


def _branch(graph: Graph, x: Map, prefix: str, last: str, norm: Norm, output: str) -> Map:
    index = 0
    while graph.has(f"{prefix}conv.{index}"):
        name = f"{prefix}conv.{index}."
        behind = None if norm.kind == "none" else (name + "1", norm)
        x = convolution(graph, x, name + "0", norm=behind, relu=True)
        index += 1
    return convolution(graph, x, prefix + last, output=output)
