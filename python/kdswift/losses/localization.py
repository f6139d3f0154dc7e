"""Localization distillation (LD): the bins of box edges, and where boxes teach beside positives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import ops
from .._operators import _floats
from ..errors import ArgumentError, ShapeError
from ..tensors import Tensor, apply, as_tensor
from ._common import check_reduction, pair


def localization_distillation(
    student: Any,
    teacher: Any,
    weights: Any = None,
    temperature: float = 10.0,
    avg_factor: float = 4.0,
    reduction: str = "paper",
) -> Tensor:
    """Soft labels for the bins of box edges (LD, Zheng et al. 2022), for each edge with weight w

        w T^2 mean_bins KL(softmax(z_t / T) || softmax(z_s / T))

    The mean over the bins, not their sum, is the official code's and mmdet's
    `KnowledgeDistillationKLDivLoss`; their loss weight 0.25 belongs to it. CrossKD's sum over the
    bins is `crosskd_regression`.

    Args:
        student: z_s, (P, 4, bins), or (..., bins): a row for each edge.
        teacher: z_t, the same shape.
        weights: w for the leading axes: (P,) for all edges of a box, or (P, 4). Main LD takes the
            student's highest class score, VLR LD the IoU (`vlr_region`); None for 1. They get no
            gradient.
        temperature: T; 10 in the paper.
        avg_factor: "paper" divides the sum over the edges by it: 4 for main LD, 16 for VLR. It is
            not normalised by the number of boxes: twice as many count twice.
        reduction: "mean" divides by the number of edges; "none" gives one value for each.

    >>> z_t = np.zeros(17, np.float32); z_t[3] = 5
    >>> kd.losses.localization_distillation(z_t * 0, z_t, avg_factor=1).item()
    0.05446...
    """
    name = "localization_distillation"
    inputs = pair(name, student, teacher, "student, teacher")
    check_reduction(name, reduction)
    if not inputs[0].ndim or not inputs[0].shape[-1]:
        raise ShapeError(f"{name}: student {inputs[0].shape} must be (..., bins)")
    if not 0 < temperature < float("inf"):
        raise ArgumentError(f"{name}: temperature is {temperature}, expected a positive number")
    if not avg_factor > 0:
        raise ArgumentError(f"{name}: avg_factor is {avg_factor}, expected a positive number")
    if weights is not None:
        inputs.append(_floats(as_tensor(weights, f"{name}: weights")).detach())
    paper = reduction == "paper"
    loss = apply(
        "divergence",
        inputs,
        temperature=float(temperature),
        reduction="sum" if paper else reduction,
    )
    return loss * (1 / inputs[0].shape[-1] / (avg_factor if paper else 1))


def vlr_region(anchors: Sequence[Any], boxes: Any, top: int = 9, low: float = 0.25) -> np.ndarray:
    """The valuable localization region of LD (Zheng et al. 2022): anchors near a box that are not
    its positives, low · t <= DIoU(anchor, box) < t.

    t is the threshold of ATSS for the box: mean plus (unbiased) deviation of the IoUs of the `top`
    anchors of every level whose centres are nearest.

    Args:
        anchors: an array (A_l, 4) for each level, in pixels.
        boxes: (G, 4), the ground truth of one image.
        top: candidates of each level.
        low: the lower end of the band as a share of t.

    Returns:
        (sum A_l,) float32: the IoU with the box in whose band the anchor lies (the highest, of
        several), 0 outside every band. These are the weights of VLR LD.
    """
    levels = [_box_array("vlr_region", level, "anchors") for level in anchors]
    goals = _box_array("vlr_region", boxes, "boxes")
    every = np.concatenate([*levels, np.zeros((0, 4), np.float32)])
    region = np.zeros(len(every), np.float32)
    if not len(every) or not len(goals):
        return region
    ious = np.asarray(ops.box_iou(every, goals), np.float32)
    gaps = np.square(_centres(every)[:, None] - _centres(goals)[None]).sum(-1)
    candidates, start = [], 0
    for level in levels:
        distances = gaps[start : start + len(level)]
        nearest = _nearest(distances, top)
        candidates.append(np.take_along_axis(ious[start : start + len(level)], nearest, axis=0))
        start += len(level)
    chosen = np.concatenate(candidates)
    spread = chosen.std(axis=0, ddof=1) if len(chosen) > 1 else 0.0
    threshold = chosen.mean(axis=0) + spread
    diou = ious - gaps / (_hull_diagonals(every, goals) + 1e-6)
    inside = (diou >= low * threshold) & (diou < threshold)
    return np.where(inside, ious, 0).max(axis=1).astype(np.float32)


def _nearest(distances: np.ndarray, top: int) -> np.ndarray:
    """The rows of the `top` smallest numbers of each column, the earlier of equals: (top, G)."""
    count = min(top, len(distances))
    if not count:
        return np.zeros((0, distances.shape[1]), np.int64)
    bounds = np.partition(distances, count - 1, axis=0)[count - 1]
    columns = []
    for column, bound in zip(distances.T, bounds, strict=True):
        rows = np.flatnonzero(column <= bound)
        columns.append(rows[np.argsort(column[rows], kind="stable")[:count]])
    return np.stack(columns, 1)


def _box_array(name: str, boxes: Any, word: str) -> np.ndarray:
    made = np.asarray(boxes, np.float32)
    made = made.reshape(0, 4) if not made.size else made
    if made.ndim != 2 or made.shape[1] != 4:
        raise ShapeError(f"{name}: {word} {made.shape} must be (N, 4)")
    return made


def _centres(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, :2] + boxes[:, 2:]) / 2


def _hull_diagonals(anchors: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Squared diagonals of the smallest boxes around all pairs, (A, G)."""
    low = np.minimum(anchors[:, None, :2], boxes[None, :, :2])
    high = np.maximum(anchors[:, None, 2:], boxes[None, :, 2:])
    return np.square(high - low).sum(-1)
