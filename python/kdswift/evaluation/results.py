"""The common form of what the metrics compare: checked arrays per image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..errors import ArgumentError, ShapeError


class Found(NamedTuple):
    """Detections of one image: boxes (N, 4) float64, scores (N,) float64, labels (N,) int64,
    masks (N, H, W) bool, their run lengths, or None."""

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    masks: Any = None


class Truth(NamedTuple):
    """Objects of one image: boxes (M, 4) float64, labels (M,), ignore and crowd flags, areas,
    and what KITTI's difficulties ask for: occlusion, truncation, heights."""

    boxes: np.ndarray
    labels: np.ndarray
    difficult: np.ndarray
    crowd: np.ndarray
    areas: np.ndarray
    occluded: np.ndarray
    truncated: np.ndarray
    heights: np.ndarray
    masks: Any = None


def check_pairs(
    detections: Sequence[Any], targets: Sequence[Mapping[str, Any]], num_classes: int
) -> tuple[list[Found], list[Truth]]:
    """Both lists in common form; the errors name the image and the box."""
    if len(detections) != len(targets):
        raise ShapeError(
            f"evaluate_detections: detections of {len(detections)} images, "
            f"targets of {len(targets)}"
        )
    found = [_found(d, num_classes, f"detections[{i}]") for i, d in enumerate(detections)]
    truth = [_truth(t, num_classes, f"targets[{i}]") for i, t in enumerate(targets)]
    return found, truth


def _found(value: Any, num_classes: int, where: str) -> Found:
    boxes, scores, labels = (_get(value, name, where) for name in ("boxes", "scores", "labels"))
    boxes = _boxes(boxes, where)
    labels = _labels(labels, len(boxes), num_classes, where)
    scores = np.asarray(scores, dtype=np.float64)
    if scores.shape != (len(boxes),):
        raise ShapeError(f"{where}: {len(boxes)} boxes but scores have shape {scores.shape}")
    if not np.isfinite(scores).all():
        raise ArgumentError(f"{where}: score {int(np.argmin(np.isfinite(scores)))} is not finite")
    masks = value.get("masks") if isinstance(value, Mapping) else getattr(value, "masks", None)
    return Found(boxes, scores, labels, _masks(masks, len(boxes), where))


def _truth(value: Any, num_classes: int, where: str) -> Truth:
    boxes = _boxes(_get(value, "boxes", where), where)
    count = len(boxes)
    labels = _labels(_get(value, "labels", where), count, num_classes, where)
    widths, heights = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    areas = _numbers(value, "area", widths * heights, where)
    kitti = (
        _numbers(value, name, otherwise, where)
        for name, otherwise in (
            ("occluded", np.zeros(count)),
            ("truncated", np.zeros(count)),
            ("height", heights),
        )
    )
    difficult, crowd = (
        _flags(value.get(k), count, f"{where}: {k}") for k in ("difficult", "iscrowd")
    )
    masks = _masks(value.get("masks"), count, where)
    return Truth(boxes, labels, difficult, crowd, areas, *kitti, masks)


def _masks(value: Any, count: int, where: str) -> Any:
    """bool (count, H, W), a list of run lengths, or None."""
    if value is None:
        return None
    if isinstance(value, list) and all(isinstance(mask, Mapping) for mask in value):
        shape: tuple = (len(value),)
    else:
        value = np.asarray(value, dtype=bool)
        shape = value.shape if value.ndim == 3 else ()
    if shape[:1] != (count,):
        raise ShapeError(f"{where}: {count} boxes but masks have shape {np.shape(value)}")
    return value


def _numbers(value: Mapping[str, Any], name: str, otherwise: np.ndarray, where: str) -> np.ndarray:
    """float64 (M,): an entry of a target that it may have."""
    if value.get(name) is None:
        return otherwise
    result = np.asarray(value[name], dtype=np.float64)
    if result.shape != otherwise.shape:
        raise ShapeError(f"{where}: {len(otherwise)} boxes but {name} has shape {result.shape}")
    return result


def _get(value: Any, name: str, where: str) -> Any:
    if isinstance(value, Mapping):
        if name not in value:
            raise ArgumentError(f"{where}: no {name!r}; the keys are {sorted(map(str, value))}")
        return value[name]
    if not hasattr(value, name):
        raise ArgumentError(f"{where}: {type(value).__name__} has no {name!r}")
    return getattr(value, name)


def _boxes(value: Any, where: str) -> np.ndarray:
    boxes = np.asarray(value, dtype=np.float64)
    if boxes.size == 0:
        return np.zeros((0, 4))
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ShapeError(f"{where}: boxes must be (N, 4), got {boxes.shape}")
    if not np.isfinite(boxes).all():
        index = int(np.argmin(np.isfinite(boxes).all(axis=1)))
        raise ArgumentError(f"{where}: box {index} {boxes[index].tolist()} is not finite")
    return boxes


def _labels(value: Any, count: int, num_classes: int, where: str) -> np.ndarray:
    labels = np.asarray(value)
    if labels.shape != (count,) and not (count == 0 and labels.size == 0):
        raise ShapeError(f"{where}: {count} boxes but labels have shape {labels.shape}")
    labels = labels.astype(np.int64).reshape(-1)
    bad = (labels < 1) | (labels >= num_classes)
    if bad.any():
        index = int(np.argmax(bad))
        raise ArgumentError(
            f"{where}: box {index} has label {labels[index]}; with {num_classes} classes, the "
            f"background counted, labels are 1 to {num_classes - 1}"
        )
    return labels


def _flags(value: Any, count: int, where: str) -> np.ndarray:
    if value is None:
        return np.zeros(count, dtype=bool)
    flags = np.asarray(value).astype(bool).reshape(-1)
    if len(flags) != count:
        raise ShapeError(f"{where}: {count} boxes but {len(flags)} values")
    return flags
