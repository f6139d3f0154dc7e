"""PASCAL VOC average precision, 11-point (2007) and area (2010 on), as py-faster-rcnn computes it.

Per class, detections of all images are sorted by score (equal scores keep their order). A
detection is matched to the object of its class and image with the largest IoU (the first of
equals). IoU strictly above the threshold makes it a true positive if that object is not yet
taken, a false positive if it is; nothing at all if the object is difficult; otherwise it is a
false positive. Difficult objects do not count as objects to be found. Recall is over the
others, and a class without any has no AP (NaN) and no part in the mean.

**Pixels.** VOC files and the reference code write corners as whole pixels that belong to the
box, so a width is x2 - x1 + 1: (0, 0, 9, 9) has area 100. The package's boxes end at the edge
after the last pixel (``kd.data.VOC`` reads 1-based inclusive ``xmin..xmax`` as
``xmin - 1, xmax``): the same box is (0, 0, 10, 10). ``corners="edges"`` (the default) takes
boxes of the second kind, moves x2, y2 back by one, and then applies the reference formula with
its +1, which is what detectron2's VOC evaluator does too; ``corners="pixels"`` takes boxes of
the first kind as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ..errors import ArgumentError, ShapeError
from .results import Found, Truth


class Curve(NamedTuple):
    """Precision over recall of one class, one point per detection, best score first."""

    recall: np.ndarray
    precision: np.ndarray
    scores: np.ndarray
    num_objects: int


def box_iou_pixels(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """IoU (N, M) of boxes (N, 4) and (M, 4) whose corners are inclusive pixels (widths + 1)."""
    left_top = np.maximum(a[:, None, :2], b[None, :, :2])
    right_bottom = np.minimum(a[:, None, 2:], b[None, :, 2:])
    common = np.maximum(right_bottom - left_top + 1.0, 0.0).prod(axis=2)
    area_a = (a[:, 2:] - a[:, :2] + 1.0).prod(axis=1)
    area_b = (b[:, 2:] - b[:, :2] + 1.0).prod(axis=1)
    return common / (area_a[:, None] + area_b[None, :] - common)


def average_precision_11_point(recall: np.ndarray, precision: np.ndarray) -> float:
    """VOC07: the mean over t = 0, 0.1, …, 1 of the best precision where recall >= t.

    Thresholds are i * 0.1 in binary64 as in the reference code: those for 0.3, 0.6 and 0.7 lie
    slightly above the decimal, so a recall of exactly 3/10 does not reach the fourth.
    """
    recall, precision = _curve_arrays(recall, precision)
    total = 0.0
    for i in range(11):
        reached = precision[recall >= i * 0.1]
        total += (reached.max() if reached.size else 0.0) / 11.0
    return float(total)


def average_precision_area(recall: np.ndarray, precision: np.ndarray) -> float:
    """VOC10 on: the area under the envelope of precision, which falls with recall."""
    recall, precision = _curve_arrays(recall, precision)
    recall = np.concatenate([[0.0], recall, [1.0]])
    precision = np.concatenate([[0.0], precision, [0.0]])
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    steps = np.flatnonzero(recall[1:] != recall[:-1])
    return float(((recall[steps + 1] - recall[steps]) * envelope[steps + 1]).sum())


def curve_from_matches(
    true_positive: np.ndarray, false_positive: np.ndarray, num_objects: int
) -> tuple[np.ndarray, np.ndarray]:
    """(recall, precision) of detections in the order of their scores.

    A detection that is neither (it matched a difficult object) repeats the point before it.
    With no objects recall is NaN.
    """
    tp, fp = np.cumsum(true_positive, dtype=np.float64), np.cumsum(false_positive, dtype=np.float64)
    precision = tp / np.maximum(tp + fp, np.finfo(np.float64).eps)
    recall = tp / num_objects if num_objects else np.full(len(tp), np.nan)
    return recall, precision


def match(
    found: Sequence[Found],
    truth: Sequence[Truth],
    label: int,
    iou_threshold: float = 0.5,
    corners: str = "edges",
) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """(true positive, false positive, score) per detection of a class, best first, and the
    number of objects that count."""
    shift = _corner_shift(corners)
    scores, best, taken_key, hard = [], [], [], []
    num_objects = key_base = 0
    for f, t in zip(found, truth, strict=True):
        mine, objects = f.labels == label, t.labels == label
        ignored = (t.difficult | t.crowd)[objects]
        num_objects += int((~ignored).sum())
        boxes = f.boxes[mine]
        scores.append(f.scores[mine])
        if len(ignored) and len(boxes):
            iou = box_iou_pixels(boxes - shift, t.boxes[objects] - shift)
            which = iou.argmax(axis=1)
            best.append(iou[np.arange(len(boxes)), which])
            taken_key.append(which + key_base)
            hard.append(ignored[which])
        else:
            best.append(np.full(len(boxes), -np.inf))
            taken_key.append(np.zeros(len(boxes), dtype=np.int64))
            hard.append(np.zeros(len(boxes), dtype=bool))
        key_base += len(ignored)
    if not scores:
        return np.zeros(0, bool), np.zeros(0, bool), np.zeros(0), 0
    scores, best, keys, hard = map(np.concatenate, (scores, best, taken_key, hard))
    order = np.argsort(-scores, kind="stable")
    overlaps, keys, hard = best[order] > iou_threshold, keys[order], hard[order]
    claims = np.flatnonzero(overlaps & ~hard)
    true_positive = np.zeros(len(order), dtype=bool)
    # The first claim on an object, in the order of the scores, takes it.
    true_positive[claims[np.unique(keys[claims], return_index=True)[1]]] = True
    false_positive = ~true_positive & ~(overlaps & hard)
    return true_positive, false_positive, scores[order], num_objects


def class_curve(
    found: Sequence[Found],
    truth: Sequence[Truth],
    label: int,
    iou_threshold: float = 0.5,
    corners: str = "edges",
) -> Curve:
    """Precision over recall of one class."""
    tp, fp, scores, num_objects = match(found, truth, label, iou_threshold, corners)
    return Curve(*curve_from_matches(tp, fp, num_objects), scores, num_objects)


def voc_average_precisions(
    found: Sequence[Found],
    truth: Sequence[Truth],
    num_classes: int,
    rule: str,
    iou_threshold: float = 0.5,
    corners: str = "edges",
) -> np.ndarray:
    """AP (num_classes - 1,) of labels 1, 2, …; NaN where there is no object.

    `rule` is "voc07" or "voc10".
    """
    formula = {"voc07": average_precision_11_point, "voc10": average_precision_area}[rule]
    result = np.full(num_classes - 1, np.nan)
    for label in range(1, num_classes):
        curve = class_curve(found, truth, label, iou_threshold, corners)
        if curve.num_objects:
            result[label - 1] = formula(curve.recall, curve.precision)
    return result


def _corner_shift(corners: str) -> np.ndarray:
    if corners == "edges":
        return np.array([0.0, 0.0, 1.0, 1.0])
    if corners == "pixels":
        return np.zeros(4)
    raise ArgumentError(f"corners must be 'edges' or 'pixels', got {corners!r}")


def _curve_arrays(recall: np.ndarray, precision: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    recall, precision = np.asarray(recall, np.float64), np.asarray(precision, np.float64)
    if recall.ndim != 1 or recall.shape != precision.shape:
        raise ShapeError(
            f"recall and precision must be equally long (N,), got {recall.shape}, {precision.shape}"
        )
    return recall, precision
