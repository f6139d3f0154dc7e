"""COCO average precision and recall of boxes or masks, computed by pycocotools.

IoU 0.50 to 0.95 in steps of 0.05, 101 recall points, at most 1, 10 and 100 detections per
image, areas split at 32² and 96² pixels. Boxes are handed over as x, y, width, height in
float; the area of an object is ``target["area"]`` where there is one (COCO files give the
mask's), otherwise width × height. ``iscrowd`` means what it means in COCO. ``difficult``
objects, which COCO does not know, are handed over as crowds: neither missed nor false. Masks go
over as run lengths.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ..errors import ArgumentError, KDSError, ShapeError
from .results import Found, Truth

STAT_NAMES = (
    *("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large"),
    *("AR_1", "AR_10", "AR_100", "AR_small", "AR_medium", "AR_large"),
)


class CocoResult(NamedTuple):
    """The 12 numbers of pycocotools' summary, and AP, AP50 per label; NaN where undefined."""

    stats: dict[str, float]
    per_class: np.ndarray
    per_class_AP50: np.ndarray


def coco_metrics(
    found: Sequence[Found], truth: Sequence[Truth], num_classes: int, iou_type: str = "bbox"
) -> CocoResult:
    """Run pycocotools, quietly, on labels 1 … num_classes - 1.

    iou_type : "bbox" compares boxes, "segm" masks, which every image with objects must have
    """
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ImportError as error:
        raise KDSError('metric="coco" needs the package: pip install pycocotools') from error

    images = [{"id": i + 1} for i in range(len(truth))]
    categories = [{"id": c, "name": str(c)} for c in range(1, num_classes)]
    if not images:
        nothing = np.full(num_classes - 1, np.nan)
        return CocoResult(dict.fromkeys(STAT_NAMES, float("nan")), nothing, nothing.copy())
    pairs = (_truth_annotations(truth), _found_annotations(found))
    if iou_type == "segm":
        _add_masks(images, pairs[0], truth, "targets")
        _add_masks(images, pairs[1], found, "detections")
    with contextlib.redirect_stdout(io.StringIO()):
        pair = []
        for annotations in pairs:
            coco = COCO()
            coco.dataset = {"images": images, "categories": categories, "annotations": annotations}
            coco.createIndex()
            pair.append(coco)
        evaluator = COCOeval(*pair, iouType=iou_type)
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    stats = {n: _undefined_to_nan(v) for n, v in zip(STAT_NAMES, evaluator.stats, strict=True)}
    # precision: (IoU, recall, class, area, max detections); -1 where a class has no object.
    precision = evaluator.eval["precision"][:, :, :, 0, -1]
    return CocoResult(stats, _class_means(precision), _class_means(precision[:1]))


def _truth_annotations(truth: Sequence[Truth]) -> list[dict[str, Any]]:
    result: list[dict[str, Any]] = []
    for image, t in enumerate(truth):
        for box, label, ignored, area in zip(
            _xywh(t.boxes),
            t.labels.tolist(),
            (t.crowd | t.difficult).tolist(),
            t.areas.tolist(),
            strict=True,
        ):
            result.append(
                {
                    "id": len(result) + 1,  # pycocotools takes id 0 for "not matched"
                    "image_id": image + 1,
                    "category_id": label,
                    "bbox": box,
                    "area": area,
                    "iscrowd": int(ignored),
                }
            )
    return result


def _found_annotations(found: Sequence[Found]) -> list[dict[str, Any]]:
    result: list[dict[str, Any]] = []
    for image, f in enumerate(found):
        for box, label, score in zip(
            _xywh(f.boxes), f.labels.tolist(), f.scores.tolist(), strict=True
        ):
            result.append(
                {
                    "id": len(result) + 1,
                    "image_id": image + 1,
                    "category_id": label,
                    "bbox": box,
                    "area": box[2] * box[3],
                    "score": score,
                    "iscrowd": 0,
                }
            )
    return result


def run_lengths(masks: Any) -> list[dict[str, Any]]:
    """pycocotools' run lengths of masks (N, H, W); those that are already there stay."""
    from pycocotools import mask as coco_mask

    if isinstance(masks, list):
        return masks
    return [coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8)) for mask in masks]


def _add_masks(
    images: list[dict[str, Any]], annotations: list[dict[str, Any]], parts: Sequence[Any], name: str
) -> None:
    """Puts masks into annotations, which list objects image after image, and sizes into images."""
    from pycocotools import mask as coco_mask

    rest = iter(annotations)
    for index, (image, part) in enumerate(zip(images, parts)):
        if not len(part.boxes):
            continue
        if part.masks is None:
            raise ArgumentError(f'{name}[{index}]: iou_type="segm" needs masks')
        for mask in run_lengths(part.masks):
            height, width = (int(v) for v in mask["size"])
            if (image.setdefault("height", height), image.setdefault("width", width)) != (
                height,
                width,
            ):
                raise ShapeError(
                    f"{name}[{index}]: masks are {(height, width)}, those of the target "
                    f"{(image['height'], image['width'])}"
                )
            entry = next(rest)
            entry["segmentation"] = mask
            if "score" in entry:
                entry["area"] = float(coco_mask.area(mask))


def _xywh(boxes: np.ndarray) -> list[list[float]]:
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1).tolist()


def _undefined_to_nan(value: float) -> float:
    return float("nan") if value < 0 else float(value)


def _class_means(precision: np.ndarray) -> np.ndarray:
    """(IoU, recall, class) -> (class,)"""
    means = precision.mean(axis=(0, 1))
    return np.where(means < 0, np.nan, means)
