"""TID-style distillation: a reconstruction of task integration (Su et al. 2024), not the paper."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import ops
from .._operators import _floats
from ..errors import ArgumentError, ShapeError
from ..tensors import Tensor, as_tensor
from ._maps import check_average, map_pair
from .features import weighted_squared_error
from .masked import _boxes


def task_scores(
    logits: Any,
    predicted: Any,
    boxes: Any,
    labels: Any,
    size: Sequence[int],
    positive: float = 0.5,
    negative: float = 0.4,
    values: Sequence[float] = (2.0, 1.5, 0.4),
) -> np.ndarray:
    """How well one model does both tasks at each place of a level, for one image: I = Score_c ·
    Score_r, the highest of the place's anchors.

    With the IoU of a predicted box and the ground truth that it overlaps most,

        Score_r = 2    where IoU >= positive
                  1.5  where negative < IoU < positive
                  0.4  where IoU <= negative

    and Score_c = 2 where the highest class is that object's with a score of at least 1/2, 1.5 where
    it is the class with less, 0.4 where it is another or no object is overlapped. Score_r and the
    product are the paper's as reviews tell them; the values of Score_c are ours.

    Args:
        logits: (H W A, K) class logits, places row by row, the A anchors of a place together.
        predicted: (H W A, 4) predicted boxes in pixels.
        boxes: (n, 4), the ground truth.
        labels: (n,) columns of `logits`.
        size: (H, W).
        positive, negative: the detector's own thresholds of assignment.
        values: high, medium and low score.

    Returns:
        (H, W) float32; where there are no objects all scores are low.
    """
    name = "task_scores"
    scores = _floats(as_tensor(logits, f"{name}: logits")).numpy()
    found, goals = _boxes(name, predicted, "predicted"), _boxes(name, boxes, "boxes")
    classes = np.asarray(labels, np.int64).reshape(-1)
    height, width = (int(extent) for extent in size)
    places = height * width
    if scores.ndim != 2 or len(scores) != len(found) or (len(found) % places if places else 0):
        raise ShapeError(
            f"{name}: logits {scores.shape} and predicted {found.shape} must be (H W A, K) and "
            f"(H W A, 4) for a map of {(height, width)}"
        )
    if len(classes) != len(goals):
        raise ShapeError(f"{name}: labels {classes.shape} must be (n,) for boxes {goals.shape}")
    if not negative <= positive or len(values) != 3:
        raise ArgumentError(
            f"{name}: negative {negative} must not be above positive {positive}, values three"
        )
    high, medium, low = (np.float32(value) for value in values)
    if not len(goals) or not len(found) or not scores.shape[1]:
        return np.full((height, width), low * low, np.float32)
    overlaps = np.asarray(ops.box_iou(found, goals))
    best = overlaps.max(axis=1)
    regression = np.where(best <= np.float32(negative), low, medium)
    regression = np.where(best >= np.float32(positive), high, regression)
    right = scores.argmax(axis=1) == classes[overlaps.argmax(axis=1)]
    sure = scores.max(axis=1) >= 0  # sigma(z) >= 1/2
    classification = np.where(right & (best > 0), np.where(sure, high, medium), low)
    return (regression * classification).reshape(height, width, -1).max(axis=2)


def task_areas(
    teacher_scores: Any, student_scores: Any, key: float = 2.25, weak: float = 0.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The areas of high, medium and low value, masks that are disjoint and cover the map.

    A place is KEY where I_T >= `key` and WEAK where I_T - I_S > `weak`; high is both, medium one of
    them, low none. The two kinds are the paper's as reviews tell them; how they combine, and the
    threshold (1.5 · 1.5), are ours.

    Args:
        teacher_scores, student_scores: I_T and I_S of one shape, see `task_scores`.
    """
    mine, theirs = np.asarray(student_scores), np.asarray(teacher_scores)
    if mine.shape != theirs.shape:
        raise ShapeError(
            f"task_areas: teacher_scores {theirs.shape} and student_scores {mine.shape} must have "
            "one shape"
        )
    is_key, is_weak = theirs >= np.float32(key), theirs - mine > np.float32(weak)
    return is_key & is_weak, is_key ^ is_weak, ~(is_key | is_weak)


def task_integration(
    student: Any,
    teacher: Any,
    teacher_scores: Any,
    student_scores: Any,
    key: float = 2.25,
    weak: float = 0.0,
    weights: Sequence[float] = (1.0, 0.5, 0.1),
    reduction: str = "paper",
) -> Tensor:
    """TID-style feature distillation of one level, after Su et al. 2024:

        sum over v in (high, medium, low) of w_v / |M_v| sum_p M_v(p) ||F_T(p) - f(F_S)(p)||^2

    A reconstruction from reviews of the paper, not the paper: areas, weights and normalisation are
    ours. An area without places adds nothing; the scores get no gradient.

    Args:
        student: f(F_S), (N, C, H, W).
        teacher: F_T, the same shape.
        teacher_scores, student_scores: (N, H, W), see `task_scores`.
        key, weak: see `task_areas`.
        weights: w of the high, medium and low area.
        reduction: "paper" as above; "mean" divides by C |M_v|, "sum" by nothing.
    """
    name = "task_integration"
    check_average(name, reduction)
    maps = map_pair(name, student, teacher)
    images, channels, height, width = maps[0].shape
    scores = [np.asarray(one, np.float32) for one in (teacher_scores, student_scores)]
    for one, word in zip(scores, ("teacher_scores", "student_scores"), strict=True):
        if one.shape != (images, height, width):
            raise ShapeError(
                f"{name}: {word} {one.shape} must be (N, H, W) for student {maps[0].shape}"
            )
    if len(weights) != 3:
        raise ArgumentError(f"{name}: weights are {weights!r}, expected three numbers")
    places = np.zeros((images, height, width), np.float32)
    for mask, weight in zip(task_areas(*scores, key, weak), weights, strict=True):
        count = max(1, int(mask.sum()))
        places[mask] = weight / {"paper": count, "mean": channels * count, "sum": 1}[reduction]
    return weighted_squared_error(*maps, spatial=places[:, None])
