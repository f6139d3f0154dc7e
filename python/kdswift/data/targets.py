"""Targets: what is in an image, and the checks before anything is learned from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import ArgumentError, ShapeError

# Boxes written with two decimals, or scaled in float32, end up to this far past the border.
BORDER_TOLERANCE = 0.02
_PER_OBJECT_FLAGS = ("iscrowd", "difficult")


def check_target(
    target: Mapping[str, Any],
    image_shape: Sequence[int],
    num_classes: int | None = None,
    where: str = "target",
) -> dict[str, Any]:
    """Check one target against its image and return it in normal form.

    Parameters
    ----------
    target : mapping
        ``boxes`` (N, 4) xyxy pixels with 0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height;
        ``labels`` (N,) integers in [1, num_classes); optional ``masks`` (N, H, W),
        ``iscrowd`` and ``difficult`` (N,), ``image_id``. N may be 0: ``(0, 4)`` or ``[]``.
    image_shape : (H, W), (H, W, 3) or (3, H, W)
    num_classes : int or None
        Counts the background; None leaves the upper bound of the labels unchecked.
    where : str
        Names the image in messages, e.g. ``"targets[3]"``.

    Returns
    -------
    A new dict: ``boxes`` float32 (N, 4), ``labels`` int64 (N,), ``masks`` bool (N, H, W),
    flags bool (N,), every other entry as it came. Boxes that pass the border by less than
    0.02 pixels (rounding) are clipped to it.

    Raises
    ------
    ShapeError
        Arrays of the wrong shape, or of unequal lengths.
    ArgumentError
        Missing key, wrong dtype, NaN, a box outside the image or without area, a label out
        of range. The message names `where`, the index of the box and the values.
    """
    if not isinstance(target, Mapping):
        raise ArgumentError(
            f"{where}: a target is a dict with boxes and labels, got {type(target).__name__}"
        )
    for key in ("boxes", "labels"):
        if key not in target:
            raise ArgumentError(f"{where}: no {key!r}; the keys are {sorted(map(str, target))}")
    height, width = _height_width(image_shape, where)
    result = dict(target)
    boxes = result["boxes"] = _check_boxes(target["boxes"], height, width, where)
    result["labels"] = _check_labels(target["labels"], len(boxes), num_classes, where)
    if target.get("masks") is not None:
        result["masks"] = _check_masks(target["masks"], len(boxes), height, width, where)
    for key in _PER_OBJECT_FLAGS:
        if target.get(key) is not None:
            flags = _as_array(target[key], f"{where}: {key}").reshape(-1)
            if len(flags) != len(boxes):
                raise ShapeError(f"{where}: {len(boxes)} boxes but {len(flags)} values in {key!r}")
            result[key] = flags.astype(bool)
    return result


def _height_width(shape: Sequence[int], where: str) -> tuple[int, int]:
    shape = tuple(int(s) for s in shape)
    if len(shape) == 2:
        return shape
    if len(shape) == 3 and shape[2] == 3:
        return shape[:2]
    if len(shape) == 3 and shape[0] == 3:
        return shape[1:]
    raise ShapeError(f"{where}: image_shape must be (H, W), (H, W, 3) or (3, H, W), got {shape}")


def _as_array(value: Any, what: str) -> np.ndarray:
    try:
        return np.asarray(value)
    except Exception as error:  # ragged lists, foreign objects
        raise ArgumentError(f"{what}: cannot be read as an array: {error}") from error


def _check_boxes(value: Any, height: int, width: int, where: str) -> np.ndarray:
    boxes = _as_array(value, f"{where}: boxes")
    if boxes.size == 0:
        if boxes.shape not in ((0,), (0, 4)):
            raise ShapeError(f"{where}: boxes must be (N, 4), got {boxes.shape}")
        return np.zeros((0, 4), dtype=np.float32)
    if boxes.dtype.kind not in "fiu":
        raise ArgumentError(f"{where}: boxes must be numbers, got dtype {boxes.dtype}")
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ShapeError(f"{where}: boxes must be (N, 4) x1, y1, x2, y2, got {boxes.shape}")
    boxes = boxes.astype(np.float32)
    _fail_first(~np.isfinite(boxes).all(axis=1), boxes, where, "is not finite")
    flat = (boxes[:, 2] <= boxes[:, 0]) | (boxes[:, 3] <= boxes[:, 1])
    _fail_first(
        flat, boxes, where, "has no area; boxes are x1, y1, x2, y2 with x1 < x2 and y1 < y2"
    )
    limit = np.array([width, height, width, height], dtype=np.float32)
    out = ((boxes < -BORDER_TOLERANCE) | (boxes > limit + BORDER_TOLERANCE)).any(axis=1)
    _fail_first(
        out, boxes, where, f"is outside the image of {width}x{height} (width x height) pixels"
    )
    clipped = np.clip(boxes, 0, limit)
    flat = (clipped[:, 2] <= clipped[:, 0]) | (clipped[:, 3] <= clipped[:, 1])
    _fail_first(flat, boxes, where, f"has no area inside the image of {width}x{height} pixels")
    return np.ascontiguousarray(clipped)


def _fail_first(bad: np.ndarray, boxes: np.ndarray, where: str, what: str) -> None:
    if not bad.any():
        return
    index = int(np.argmax(bad))
    values = ", ".join(f"{v:g}" for v in boxes[index])
    more = f" ({int(bad.sum())} such boxes)" if bad.sum() > 1 else ""
    raise ArgumentError(f"{where}: box {index} ({values}) {what}{more}")


def _check_labels(value: Any, count: int, num_classes: int | None, where: str) -> np.ndarray:
    labels = _as_array(value, f"{where}: labels")
    if labels.ndim != 1:
        raise ShapeError(f"{where}: labels must be (N,), got {labels.shape}")
    if len(labels) != count:
        raise ShapeError(f"{where}: {count} boxes but {len(labels)} labels")
    if len(labels) == 0:
        return np.zeros(0, dtype=np.int64)
    if labels.dtype.kind not in "iu":
        raise ArgumentError(f"{where}: labels must be integers, got dtype {labels.dtype}")
    bad = labels < 1
    allowed = "at least 1 (0 is the background)"
    if num_classes is not None:
        bad = bad | (labels >= num_classes)
        allowed = f"1 to {num_classes - 1} (num_classes {num_classes} counts the background, 0)"
    if bad.any():
        index = int(np.argmax(bad))
        raise ArgumentError(f"{where}: box {index} has label {labels[index]}; labels are {allowed}")
    return labels.astype(np.int64)


def _check_masks(value: Any, count: int, height: int, width: int, where: str) -> np.ndarray:
    masks = _as_array(value, f"{where}: masks")
    if count == 0 and masks.size == 0:
        return np.zeros((0, height, width), dtype=bool)
    if masks.shape != (count, height, width):
        raise ShapeError(f"{where}: masks must be {(count, height, width)}, got {masks.shape}")
    if masks.dtype.kind not in "biu":
        raise ArgumentError(f"{where}: masks must be bool or integer, got dtype {masks.dtype}")
    return masks.astype(bool)
