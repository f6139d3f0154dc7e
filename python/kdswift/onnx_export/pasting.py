"""The masks of an exported model, drawn into the image."""

from __future__ import annotations

import numpy as np

from ..errors import ShapeError


def paste_masks(boxes: np.ndarray, masks: np.ndarray, height: int, width: int) -> np.ndarray:
    """Masks of an exported model as pixels of the image: bool (N, height, width).

    boxes : (N, 4) xyxy in pixels of that image;  masks : (N, side, side) probabilities

    Each mask gets a border of zeros, is resized to its box, which grows with the border, and is
    true where its probability is at least one half: torchvision's rule, and that of `predict`.
    """
    boxes, masks = np.asarray(boxes, np.float32), np.asarray(masks, np.float32)
    if boxes.shape != (len(masks), 4) or masks.ndim != 3 or masks.shape[1] != masks.shape[2]:
        raise ShapeError(
            f"paste_masks: boxes {boxes.shape} and masks {masks.shape} must be (N, 4) and "
            "(N, side, side)"
        )
    result = np.zeros((len(boxes), int(height), int(width)), dtype=bool)
    for target, box, mask in zip(result, boxes, masks):
        _paste(target, box, np.pad(mask, 1), np.float32((len(mask) + 2) / len(mask)))
    return result


def _paste(target: np.ndarray, box: np.ndarray, mask: np.ndarray, growth: np.float32) -> None:
    middle, half = (box[2:] + box[:2]) * np.float32(0.5), (box[2:] - box[:2]) * np.float32(0.5)
    left, top = np.trunc(middle - half * growth).astype(int)
    right, bottom = np.trunc(middle + half * growth).astype(int)
    resized = _resize(mask, max(1, bottom - top + 1), max(1, right - left + 1))
    y0, x0 = max(top, 0), max(left, 0)
    y1, x1 = min(bottom + 1, target.shape[0]), min(right + 1, target.shape[1])
    if y1 > y0 and x1 > x0:
        target[y0:y1, x0:x1] = resized[y0 - top : y1 - top, x0 - left : x1 - left] >= 0.5


def _resize(values: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bilinear, corners not aligned."""
    for axis, length in ((0, height), (1, width)):
        extent = values.shape[axis]
        places = (np.arange(length, dtype=np.float32) + 0.5) * np.float32(extent / length) - 0.5
        places = np.clip(places, 0, None)
        low = np.minimum(places.astype(int), extent - 1)
        high = np.minimum(low + 1, extent - 1)
        share = (places - low).astype(np.float32)
        share = share[:, None] if axis == 0 else share[None, :]
        values = values.take(low, axis) * (1 - share) + values.take(high, axis) * share
    return values
