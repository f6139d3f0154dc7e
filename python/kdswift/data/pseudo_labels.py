"""A data set whose targets also come from a teacher's detections."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._numbers import check_fraction
from ..errors import ArgumentError
from .dataset import Dataset
from .images import as_image, image_size
from .targets import check_target

_LEAST_SIDE = 1.0  # pixels; smaller detections are noise of the border


class PseudoLabels(Dataset):
    """Items of a data set, their boxes merged with a teacher's detections (hard labels).

    Parameters
    ----------
    dataset : sequence of (image, target)
    teacher : `kd.Teacher.from_coco_results`, or a kdswift detector, which then predicts
    score_threshold : least score of a detection that becomes a target; None: the teacher's (0.5)
    keep_ground_truth : whether the data set's own boxes stay; None: the teacher's (True)
    iou_threshold : a detection is left out when it overlaps a box of its class, the data set's or
        a better detection, by more than this; None: the teacher's (0.5)

    Boxes are clipped to the image. Flags of the data set's objects stay, detections get False; per
    object entries that a detection lacks (masks, areas) are dropped where one is added.
    """

    def __init__(
        self,
        dataset: Any,
        teacher: Any,
        score_threshold: float | None = None,
        keep_ground_truth: bool | None = None,
        iou_threshold: float | None = None,
    ) -> None:
        if not (hasattr(teacher, "detections") or hasattr(teacher, "predict")):
            raise ArgumentError(
                "PseudoLabels: teacher must come from kd.Teacher.from_coco_results or be a "
                f"kdswift detector, got {teacher!r}"
            )
        self.dataset, self.teacher = dataset, teacher
        self.score_threshold = _option(score_threshold, teacher, "score_threshold", 0.5)
        self.iou_threshold = _option(iou_threshold, teacher, "iou_threshold", 0.5)
        if keep_ground_truth is None:
            keep_ground_truth = getattr(teacher, "keep_ground_truth", True)
        self.keep_ground_truth = bool(keep_ground_truth)
        names = getattr(dataset, "class_names", None) or getattr(teacher, "class_names", None)
        self.class_names = None if names is None else tuple(names)
        self._num_classes = getattr(dataset, "num_classes", None)

    @property
    def num_classes(self) -> int | None:
        """The data set's, the background counted; None if it does not say."""
        return self._num_classes if self.class_names is None else len(self.class_names)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[Any, dict[str, Any]]:
        i = self._index(index)
        image, target = self.dataset[i]
        where = f"item {i}"
        array = as_image(image, where)
        target = check_target(target, array.shape, self.num_classes, where)
        found = self._found(array, target, i)
        return image, self._merged(target, found, image_size(array))

    def _found(self, image: np.ndarray, target: dict[str, Any], i: int) -> Any:
        if not hasattr(self.teacher, "detections"):
            return self.teacher.predict(image, score_threshold=self.score_threshold)[0]
        ids = getattr(self.dataset, "ids", None)
        if ids is not None and getattr(self.teacher, "by_ids", False):
            return self.teacher.detections(ids[i])
        return self.teacher.detections(target.get("image_id", i))

    def _merged(self, target: dict[str, Any], found: Any, size: tuple[int, int]) -> dict[str, Any]:
        kept = target if self.keep_ground_truth else _emptied(target)
        boxes, labels = list(kept["boxes"]), list(kept["labels"])
        old = len(boxes)
        height, width = size
        for box, score, label in zip(found.boxes, found.scores, found.labels):
            box = np.clip(box, 0, (width, height, width, height)).astype(np.float32)
            if score < self.score_threshold or (box[2:] - box[:2]).min() < _LEAST_SIDE:
                continue
            if self._is_known(box, label, boxes, labels):
                continue
            boxes.append(box)
            labels.append(label)
        return _extended(kept, boxes, labels, len(boxes) - old)

    def _is_known(self, box: np.ndarray, label: int, boxes: list, labels: list) -> bool:
        same = [b for b, other in zip(boxes, labels) if other == label]
        return bool(same) and _iou(box, np.array(same)).max() > self.iou_threshold

    def __repr__(self) -> str:
        return (
            f"PseudoLabels({self.dataset!r}, {self.teacher!r}, "
            f"score_threshold={self.score_threshold:g}, "
            f"keep_ground_truth={self.keep_ground_truth}, iou_threshold={self.iou_threshold:g})"
        )


def _option(value: Any, teacher: Any, name: str, default: float) -> float:
    value = getattr(teacher, name, default) if value is None else value
    return check_fraction(value, name, "PseudoLabels")


def _per_object(value: Any, count: int) -> bool:
    return hasattr(value, "__len__") and not isinstance(value, (str, bytes)) and len(value) == count


def _emptied(target: dict[str, Any]) -> dict[str, Any]:
    count = len(target["boxes"])
    result = {k: v for k, v in target.items() if not _per_object(v, count)}
    return {**result, "boxes": np.zeros((0, 4), np.float32), "labels": np.zeros(0, np.int64)}


def _extended(target: dict[str, Any], boxes: list, labels: list, added: int) -> dict[str, Any]:
    if not added:
        return target
    count = len(target["boxes"])
    result = {
        k: v
        for k, v in target.items()
        if k in ("image_id", "iscrowd", "difficult") or not _per_object(v, count)
    }
    for flag in ("iscrowd", "difficult"):
        if result.get(flag) is not None:
            result[flag] = np.concatenate([result[flag], np.zeros(added, bool)])
    result["boxes"] = np.array(boxes, np.float32).reshape(-1, 4)
    result["labels"] = np.array(labels, np.int64)
    return result


def _iou(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    low, high = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    common = np.clip(high - low, 0, None).prod(axis=1)
    areas = (others[:, 2:] - others[:, :2]).prod(axis=1)
    return common / ((box[2:] - box[:2]).prod() + areas - common)
