"""Boxes, anchors and sums over places, for tests of losses under masks."""

from __future__ import annotations

import numpy as np

SIZE, STRIDE = (5, 6), 8


def grid_anchors(sides=(8, 16)) -> np.ndarray:
    """Square anchors on the centres of the places, those of a place together."""
    y, x = np.mgrid[: SIZE[0], : SIZE[1]] * STRIDE + STRIDE / 2
    return np.stack(
        [np.stack([x - s / 2, y - s / 2, x + s / 2, y + s / 2], -1) for s in sides], 2
    ).reshape(-1, 4)


BOXES = [
    np.array([[4, 4, 20, 18], [30, 10, 46, 40]], np.float32),
    np.array([[17, 25, 26, 37]], np.float32),
]


def masked_sum(student, teacher, mask) -> float:
    return float((((student - teacher) ** 2).sum(1) * mask).sum())
