"""Boxes inside the graph: anchors, decoding, clipping, suppression, the best of many."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .graph import Graph, Map

# Largest logarithm of a size that decoding follows: log(1000 / 16), as in torchvision.
_SIZE_LIMIT = 4.1351666
# Below every score that may win; suppression keeps what is above its threshold.
LOWEST = -3.0e38


class Anchors:
    """The anchors of every level for one size of the network's input, as the engine makes them."""

    def __init__(
        self, configuration: Mapping[str, Any], strides: Sequence[int], padded: tuple[int, int]
    ) -> None:
        """padded : (height, width) of the network's input"""
        self._strides, self._padded = strides, padded
        self._ratios = np.asarray(configuration["anchor_ratios"], np.float32)
        self._sizes = np.asarray(configuration["anchor_sizes"], np.float32).reshape(
            len(strides), -1
        )
        self._measured = configuration["anchor_strides"] == "image"
        self.per_cell = len(self._ratios) * self._sizes.shape[1]

    def of(self, level: int, x: Map) -> np.ndarray:
        """(cells · per_cell, 4) float32 for a map of the level."""
        heights = np.sqrt(self._ratios)[:, None]
        w, h = self._sizes[level] / heights, self._sizes[level] * heights
        base = np.round(np.stack([-w / 2, -h / 2, w / 2, h / 2], axis=-1)).reshape(-1, 4)
        step = (self._strides[level],) * 2
        if self._measured:
            step = (self._padded[0] // x.height, self._padded[1] // x.width)
        y, x_ = np.mgrid[: x.height, : x.width]
        moves = np.stack([x_ * step[1], y * step[0]] * 2, axis=-1).reshape(-1, 1, 4)
        return (moves + base).reshape(-1, 4).astype(np.float32)


def rows_of(graph: Graph, x: Map, columns: int) -> str:
    """(1, A · columns, H, W) to (H · W · A, columns), in the order of the anchors."""
    y = graph.node("Transpose", x.name, perm=[0, 2, 3, 1])
    return graph.node("Reshape", y, [-1, columns])


def anchor_sides(anchors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Centres (x, y) and sizes (width, height) of constant boxes."""
    sizes = anchors[:, 2:] - anchors[:, :2]
    return anchors[:, :2] + np.float32(0.5) * sizes, sizes


def box_sides(graph: Graph, boxes: str) -> tuple[str, str]:
    """The same of boxes (R, 4) in the graph."""
    low, high = _halves(graph, boxes)
    sizes = graph.node("Sub", high, low)
    return graph.node("Add", low, graph.node("Mul", sizes, 0.5)), sizes


def decode(
    graph: Graph, deltas: str, centres: Any, sizes: Any, deviations: Sequence[float] | None = None
) -> str:
    """Boxes from their code (…, 4) relative to boxes with these centres and sizes (…, 2).

    deviations : those that the code was divided by; None are ones
    """
    moves, scales = _halves(graph, deltas)
    if deviations is not None:
        # As the engine: the code is divided by the rounded inverse.
        weights = 1 / np.asarray(deviations, np.float32)
        moves = graph.node("Div", moves, weights[:2])
        scales = graph.node("Div", scales, weights[2:])
    centre = graph.node("Add", graph.node("Mul", moves, sizes), centres)
    grown = graph.node("Exp", graph.node("Min", scales, _SIZE_LIMIT))
    half = graph.node("Mul", graph.node("Mul", grown, sizes), 0.5)
    low, high = graph.node("Sub", centre, half), graph.node("Add", centre, half)
    return graph.node("Concat", low, high, axis=-1)


def distances_to_boxes(graph: Graph, distances: str, centres: str, unit: Any) -> str:
    """Boxes from distances (S, 4) of their sides, left, top, right, bottom, to points (S, 2).

    unit : of the distances, (S, 2) or a number
    """
    before, after = (graph.node("Mul", half, unit) for half in _halves(graph, distances))
    low, high = graph.node("Sub", centres, before), graph.node("Add", centres, after)
    return graph.node("Concat", low, high, axis=-1)


def clip(graph: Graph, boxes: str, size: tuple[int, int]) -> str:
    """Boxes cut to an image of (height, width)."""
    limits = np.array([size[1], size[0], size[1], size[0]], np.float32)
    return graph.node("Min", graph.node("Max", boxes, 0.0), limits)


def smallest_side(graph: Graph, boxes: str) -> str:
    """The shorter side of boxes (…, 4)."""
    low, high = _halves(graph, boxes)
    return graph.node("Min", *both(graph, graph.node("Sub", high, low)))


def both(graph: Graph, sides: str) -> tuple[str, str]:
    """Widths and heights (…) of sizes (…, 2)."""
    # Not a reduction: onnxruntime's give a wrong shape where there is nothing to reduce.
    return tuple(graph.node("Gather", sides, axis, axis=-1) for axis in (0, 1))


def suppress(
    graph: Graph, boxes: str, scores: str, limit: int, iou: float, threshold: str | float
) -> str:
    """Non-maximum suppression: (S, 3) of batch, class and box, best first within a class.

    boxes : (batch, M, 4);  scores : (batch, classes, M), those at or below `threshold` are out
    """
    return graph.node(
        "NonMaxSuppression",
        *(boxes, scores, [limit], np.array([iou], np.float32)),
        threshold if isinstance(threshold, str) else np.array([threshold], np.float32),
    )


def best(graph: Graph, scores: str, limit: int) -> tuple[str, str]:
    """The highest scores (S), at most `limit`, and their places."""
    count = graph.node("Min", graph.node("Shape", scores), [limit])
    values, places = graph.split("TopK", scores, count, names=[None, None], axis=0)
    return values, places


def column(graph: Graph, rows: str, index: int) -> str:
    """One column (S) of rows (S, n)."""
    return graph.node("Gather", rows, index, axis=1)


def _halves(graph: Graph, values: str) -> tuple[str, str]:
    first, second = graph.split("Split", values, [2, 2], names=[None, None], axis=-1)
    return first, second
