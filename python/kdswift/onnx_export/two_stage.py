"""Faster, Mask and Cascade R-CNN: from the maps to detections."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any

from .backbones import Level
from .boxes import best, box_sides, clip, column, decode, smallest_side, suppress
from .graph import Graph
from .proposals import proposals
from .regions import box_head, mask_head


@dataclass(frozen=True)
class Prediction:
    """What `predict` takes, and the sizes (height, width) of the image and of the padded input.

    score_threshold : name of a constant
    """

    score_threshold: str
    nms_threshold: float
    max_detections: int
    image: tuple[int, int]
    padded: tuple[int, int]


def two_stage(
    graph: Graph,
    levels: list[Level],
    pooled: int,
    configuration: Mapping[str, Any],
    prediction: Prediction,
) -> dict[str, str]:
    """The tensors "boxes", "scores", "labels" and, where there are masks, "masks".

    pooled : levels, from the finest, that regions are pooled from
    """
    rois = proposals(graph, levels, configuration, prediction.image, prediction.padded)
    levels = levels[:pooled]
    if configuration.get("cascade"):
        return _cascade(graph, levels, rois, configuration, prediction)
    names = ("roi.class_logits", "roi.box_deltas")
    logits, codes = box_head(graph, levels, rois, configuration, "roi_heads.", names)
    scores, deviations = graph.node("Softmax", logits, axis=-1), configuration["roi"]["box_std"]
    found = _detections(graph, scores, codes, rois, deviations, configuration, prediction, False)
    if configuration.get("mask"):
        found["masks"] = mask_head(
            *(graph, levels, found["boxes"], found["labels"], configuration, "roi_heads.")
        )
    return found


def _cascade(
    graph: Graph,
    levels: list[Level],
    rois: str,
    configuration: Mapping[str, Any],
    prediction: Prediction,
) -> dict[str, str]:
    """Every stage moves the boxes of the one before; probabilities are averaged."""
    stages = configuration["cascade"]["box_stds"]
    prefixes = [f"roi_heads.stages.{index}." for index in range(len(stages))]
    scores, codes = [], ""
    for index, prefix in enumerate(prefixes):
        if index:
            centres, sizes = box_sides(graph, rois)
            moved = decode(graph, codes, centres, sizes, stages[index - 1])
            rois = clip(graph, moved, prediction.image)
        logits, codes = box_head(graph, levels, rois, configuration, prefix)
        scores.append(graph.node("Softmax", logits, axis=-1))
    found = _detections(
        *(graph, _mean(graph, scores), codes, rois, stages[-1], configuration, prediction, True)
    )
    if configuration.get("mask"):
        masks = [
            mask_head(graph, levels, found["boxes"], found["labels"], configuration, prefix)
            for prefix in prefixes
        ]
        found["masks"] = _mean(graph, masks)
    return found


def _detections(
    graph: Graph,
    scores: str,
    codes: str,
    rois: str,
    deviations: list[float],
    configuration: Mapping[str, Any],
    prediction: Prediction,
    shared: bool,
) -> dict[str, str]:
    """Threshold, suppression per class and the best, from probabilities (R, K).

    shared : codes are (R, 4), for all classes, and not (R, 4 K)
    """
    classes = configuration["num_classes"] - 1  # without the background, column 0
    centres, sizes = box_sides(graph, rois)
    if not shared:
        codes = graph.node("Slice", codes, [4], [4 * (classes + 1)], [1])
        codes = graph.node("Reshape", codes, [-1, classes, 4])
        centres = graph.node("Unsqueeze", centres, [1])
        sizes = graph.node("Unsqueeze", sizes, [1])
    boxes = clip(graph, decode(graph, codes, centres, sizes, deviations), prediction.image)
    # Classes first: (K - 1, R, 4), or (1, R, 4) where they share boxes.
    boxes = (
        graph.node("Unsqueeze", boxes, [0])
        if shared
        else graph.node("Transpose", boxes, perm=[1, 0, 2])
    )
    scores = graph.node("Slice", scores, [1], [classes + 1], [1])
    scores = graph.node("Transpose", scores, perm=[1, 0])
    minimum = float(configuration["roi"]["min_size"])
    large = graph.node("Greater", smallest_side(graph, boxes), minimum)
    allowed = graph.node("Where", large, scores, -1.0)
    chosen = suppress(
        *(graph, boxes, graph.node("Unsqueeze", allowed, [0] if shared else [1])),
        *(prediction.max_detections, prediction.nms_threshold, prediction.score_threshold),
    )
    label, row = column(graph, chosen, 1 if shared else 0), column(graph, chosen, 2)
    where = graph.node("Gather", chosen, [1 if shared else 0, 2], axis=1)
    values, order = best(graph, graph.node("GatherND", scores, where), prediction.max_detections)
    taken = (
        graph.node("Gather", graph.node("Squeeze", boxes, [0]), row, axis=0)
        if shared
        else graph.node("GatherND", boxes, where)
    )
    return {
        "boxes": graph.node("Gather", taken, order, axis=0),
        "scores": values,
        "labels": graph.node("Gather", graph.node("Add", label, 1), order, axis=0),
    }


def _mean(graph: Graph, parts: list[str]) -> str:
    total = reduce(lambda a, b: graph.node("Add", a, b), parts)
    return graph.node("Div", total, float(len(parts)))
