"""KITTI's average precision of boxes in the image, at its three difficulties.

Per class and difficulty, the objects are

- *wanted*: of the class, higher than 40, 25, 25 pixels (easy, moderate, hard), occluded at most
  0, 1, 2 and truncated at most 0.15, 0.30, 0.50;
- *ignored*: of the class but not wanted at this difficulty, or ``difficult`` (with
  ``kd.data.KITTI``: of the neighbouring class, a Van for Car);
- *areas* that absorb detections: ``iscrowd`` (DontCare).

Detections lower than the least height are ignored. Objects take detections in the order of the
file, if their IoU is above 0.7 (cars) or 0.5 (all else): to choose thresholds, the one with the
best score, ignored or not; to count, the one with the largest IoU that is not ignored. A pair
with an ignored side counts nothing. What is left over is false, unless an area covers more than
0.7 or 0.5 of it. As in KITTI's own program, an ignored detection may be of any class.

At most 41 thresholds are taken from the scores of true positives, 1/40 of recall apart, and
precision is made to fall. ``kitti_r11`` is the mean at 0, 0.1, … 1 (the rule until 2019),
``kitti_r40`` at 1/40, 2/40, … 1. There are never more thresholds than objects found: even a
perfect detector has less than 1 where a class has fewer than 41 objects. Boxes are edges;
areas have no + 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from .results import Found, Truth

DIFFICULTIES = ("easy", "moderate", "hard")
_MIN_HEIGHT = (40.0, 25.0, 25.0)
_MAX_OCCLUSION = (0, 1, 2)
_MAX_TRUNCATION = (0.15, 0.30, 0.50)
_CAR_OVERLAP, _OVERLAP = 0.7, 0.5
_CARS = ("car", "van")
_SAMPLES = 41


class _Scene(NamedTuple):
    """What one image has for one class: detections (D), objects (G) without the areas."""

    iou: np.ndarray  # (G, D)
    scores: np.ndarray  # (D,)
    heights: np.ndarray  # (D,)
    of_class: np.ndarray  # (D,) bool
    absorbed: np.ndarray  # (D,) bool: an area covers it
    objects: Truth
    min_overlap: float


def min_overlap(name: str) -> float:
    """The IoU that a detection of the class must exceed: 0.7 for cars and vans, otherwise 0.5."""
    return _CAR_OVERLAP if name.lower() in _CARS else _OVERLAP


def kitti_average_precisions(
    found: Sequence[Found],
    truth: Sequence[Truth],
    class_names: Sequence[str],
    rule: str,
    overlap: float | None = None,
) -> np.ndarray:
    """AP (num_classes - 1, 3) of labels 1, 2, … at easy, moderate, hard; NaN without objects.

    `rule` is "kitti_r11" or "kitti_r40"; `overlap` replaces the IoU of every class.
    """
    points = slice(0, None, 4) if rule == "kitti_r11" else slice(1, None)
    result = np.full((len(class_names) - 1, len(DIFFICULTIES)), np.nan)
    for label in range(1, len(class_names)):
        least = min_overlap(str(class_names[label])) if overlap is None else overlap
        scenes = [_scene(f, t, label, least) for f, t in zip(found, truth, strict=True)]
        scenes = [s for s in scenes if len(s.scores) or len(s.objects.labels)]
        for difficulty in range(len(DIFFICULTIES)):
            precision = precision_samples(scenes, difficulty)
            if precision is not None:
                result[label - 1, difficulty] = precision[points].mean()
    return result


def precision_samples(scenes: Sequence[_Scene], difficulty: int) -> np.ndarray | None:
    """(41,): falling precision at recall 0, 1/40, …; None when nothing is wanted."""
    wanted, kept, scores = 0, [], []
    for scene in scenes:
        ignored_object = _ignored_objects(scene.objects, difficulty)
        ignored_found = scene.heights < _MIN_HEIGHT[difficulty]
        wanted += int((~ignored_object).sum())
        kept.append((scene, ignored_object, ignored_found))
        scores += _true_positive_scores(scene, ignored_object, ignored_found)
    if wanted == 0:
        return None
    thresholds = recall_thresholds(scores, wanted)
    hits, wrong = np.zeros(len(thresholds)), np.zeros(len(thresholds))
    for scene in kept:
        true_positive, false_positive = _count(*scene, thresholds)
        hits += true_positive
        wrong += false_positive
    # Neither happens where an ignored object took the detection that gave the threshold.
    precision = hits / np.maximum(hits + wrong, 1.0)
    result = np.zeros(_SAMPLES)
    result[: len(precision)] = np.maximum.accumulate(precision[::-1])[::-1]
    return result


def recall_thresholds(scores: Sequence[float], wanted: int) -> np.ndarray:
    """At most 41 of the scores of true positives, where recall comes closest to k/40."""
    ordered = sorted(scores, reverse=True)
    chosen, recall = [], 0.0
    for i, score in enumerate(ordered):
        last = i + 1 == len(ordered)
        if not last and (i + 2) / wanted - recall < recall - (i + 1) / wanted:
            continue
        chosen.append(score)
        recall += 1 / (_SAMPLES - 1)
    return np.array(chosen[:_SAMPLES])


def _scene(found: Found, truth: Truth, label: int, least: float) -> _Scene:
    mine = truth.labels == label
    areas = truth.boxes[mine & truth.crowd]
    chosen = mine & ~truth.crowd
    objects = truth._replace(
        **{name: values[chosen] for name, values in truth._asdict().items() if name != "masks"},
        masks=None,  # KITTI judges boxes
    )
    heights = found.boxes[:, 3] - found.boxes[:, 1]
    of_class = found.labels == label
    # A detection of another class only counts where it is ignored for its height.
    keep = of_class | (heights < max(_MIN_HEIGHT))
    if not keep.any() or not mine.any():
        keep = of_class
    boxes = found.boxes[keep]
    absorbed = (_overlap(areas, boxes, of_found=True) > least).any(axis=0)
    iou = _overlap(objects.boxes, boxes)
    return _Scene(
        *(iou, found.scores[keep], heights[keep], of_class[keep], absorbed, objects, least)
    )


def _overlap(objects: np.ndarray, found: np.ndarray, of_found: bool = False) -> np.ndarray:
    """(G, D): the common area over the union, or over the detection's area."""
    left_top = np.maximum(objects[:, None, :2], found[None, :, :2])
    right_bottom = np.minimum(objects[:, None, 2:], found[None, :, 2:])
    common = np.maximum(right_bottom - left_top, 0.0).prod(axis=2)
    area = (found[:, 2:] - found[:, :2]).prod(axis=1)[None, :]
    if not of_found:
        area = area + (objects[:, 2:] - objects[:, :2]).prod(axis=1)[:, None] - common
    return np.divide(common, area, out=np.zeros_like(common), where=common > 0)


def _ignored_objects(objects: Truth, difficulty: int) -> np.ndarray:
    return (
        objects.difficult
        | (objects.occluded > _MAX_OCCLUSION[difficulty])
        | (objects.truncated > _MAX_TRUNCATION[difficulty])
        | (objects.heights <= _MIN_HEIGHT[difficulty])
    )


def _true_positive_scores(
    scene: _Scene, ignored_object: np.ndarray, ignored_found: np.ndarray
) -> list[float]:
    """Scores of the true positives when every object takes its best-scored detection."""
    free = scene.of_class | ignored_found
    result = []
    for g, ignored in enumerate(ignored_object):
        candidates = np.flatnonzero(free & (scene.iou[g] > scene.min_overlap))
        if len(candidates):
            best = candidates[np.argmax(scene.scores[candidates])]
            free[best] = False
            if not ignored and not ignored_found[best]:
                result.append(float(scene.scores[best]))
    return result


def _count(
    scene: _Scene, ignored_object: np.ndarray, ignored_found: np.ndarray, thresholds: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(T,) true and false positives with the detections from each threshold on."""
    rows = np.arange(len(thresholds))
    # (T, D): there and not taken. What becomes of ignored detections does not matter any more.
    counted = scene.of_class & ~ignored_found
    free = (scene.scores[None, :] >= thresholds[:, None]) & counted
    hits = np.zeros(len(thresholds))
    if free.shape[1] == 0:
        return hits, hits
    for g, ignored in enumerate(ignored_object):
        candidates = free & (scene.iou[g] > scene.min_overlap)
        taken = candidates.any(axis=1)
        best = np.where(candidates, scene.iou[g], -1.0).argmax(axis=1)
        free[rows[taken], best[taken]] = False
        if not ignored:
            hits += taken
    return hits, (free & ~scene.absorbed).sum(axis=1)
