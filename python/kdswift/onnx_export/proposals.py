"""The proposal network of two-stage detectors inside the graph."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .backbones import Level
from .boxes import (
    LOWEST,
    Anchors,
    anchor_sides,
    best,
    clip,
    column,
    decode,
    rows_of,
    smallest_side,
    suppress,
)
from .graph import Graph, Map
from .layers import convolution


def proposals(
    graph: Graph,
    levels: list[Level],
    configuration: Mapping[str, Any],
    image: tuple[int, int],
    padded: tuple[int, int],
) -> str:
    """(R, 4) boxes in pixels of the input, best first; image, padded : (height, width)."""
    options = configuration["rpn"]
    anchors = Anchors(configuration, [level.stride for level in levels], padded)
    found = [
        _of_level(graph, index, level, anchors, options, image, len(levels))
        for index, level in enumerate(levels)
    ]
    if len(found) == 1:
        return found[0][0]
    boxes = graph.node("Concat", *(boxes for boxes, _ in found), axis=0)
    scores = graph.node("Concat", *(scores for _, scores in found), axis=0)
    _, places = best(graph, scores, options["post_nms_test"])
    return graph.node("Gather", boxes, places, axis=0)


def _of_level(
    graph: Graph,
    index: int,
    level: Level,
    anchors: Anchors,
    options: Mapping[str, Any],
    image: tuple[int, int],
    count: int,
) -> tuple[str, str]:
    """Boxes and scores of one level after suppression, best first."""
    logits, deltas = _maps(graph, level, "" if count == 1 else "." + level.name.split(".")[-1])
    scores, codes = _scores(graph, logits, anchors.per_cell), rows_of(graph, deltas, 4)
    grid = anchors.of(index, logits)
    centres, sizes = anchor_sides(grid)
    if len(grid) > options["pre_nms_test"]:
        scores, places = best(graph, scores, options["pre_nms_test"])
        codes = graph.node("Gather", codes, places, axis=0)
        centres = graph.node("Gather", centres, places, axis=0)
        sizes = graph.node("Gather", sizes, places, axis=0)
    boxes = clip(graph, decode(graph, codes, centres, sizes), image)
    large = graph.node("GreaterOrEqual", smallest_side(graph, boxes), float(options["min_size"]))
    allowed = graph.node("Where", large, scores, float("-inf"))
    chosen = suppress(
        graph,
        graph.node("Unsqueeze", boxes, [0]),
        graph.node("Unsqueeze", allowed, [0, 1]),
        *(options["post_nms_test"], options["nms"], LOWEST),
    )
    rows = column(graph, chosen, 2)
    return graph.node("Gather", boxes, rows, axis=0), graph.node("Gather", scores, rows, axis=0)


def _maps(graph: Graph, level: Level, suffix: str) -> tuple[Map, Map]:
    x, index = level.map, 0
    while graph.has(f"rpn.head.conv.{index}"):
        x = convolution(graph, x, f"rpn.head.conv.{index}.0", relu=True)
        index += 1
    logits = convolution(graph, x, "rpn.head.cls_logits", output="rpn.objectness" + suffix)
    return logits, convolution(graph, x, "rpn.head.bbox_pred", output="rpn.box_deltas" + suffix)


def _scores(graph: Graph, logits: Map, per_cell: int) -> str:
    """(M): the one logit of an anchor, or the difference of its two."""
    columns = logits.channels // per_cell
    rows = rows_of(graph, logits, columns)
    if columns == 1:
        return graph.node("Reshape", rows, [-1])
    return graph.node("Sub", column(graph, rows, 1), column(graph, rows, 0))
