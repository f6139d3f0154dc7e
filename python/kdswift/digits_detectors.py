"""Detectors that fit DigitScenes: anchors, levels and head sizes for glyphs of 14 to 36 pixels."""

from __future__ import annotations

from typing import Any

from .backbones import resnet_small
from .demo import ANCHORS, IMAGE_SIZE, ROI, RPN

_PYRAMID_RPN = {
    "batch": 64,
    "pre_nms_train": 600,
    "post_nms_train": 150,
    "pre_nms_test": 300,
    "post_nms_test": 60,
    "min_size": 4,
}

# Sizes and ratios of the anchors on strides 8 and 16. FCOS takes objects of up to 8 times the size
# on the finer level: with 4 glyphs share out to both.
_ONE_STAGE: dict[str, tuple[list[int], list[int]]] = {
    "atss": ([20, 34], [1]),
    "fcos": ([4, 8], [1]),
    "gfl": ([20, 34], [1]),
    "retinanet": ([14, 18, 22, 26, 32, 38], [1, 2]),
}


def digits_configuration(kind: str, neck: str | None = None) -> dict[str, Any]:
    """The configuration of a detector of this kind, without its classes.

    neck : "fpn", "none", or None for what the kind usually has
    """
    size = {"detector": kind, "image_min": IMAGE_SIZE, "image_max": IMAGE_SIZE}
    if kind in _ONE_STAGE:
        return size | _one_stage(*_ONE_STAGE[kind])
    if kind == "rfcn" or neck == "none" or (kind == "faster_rcnn" and neck is None):
        own = {"rfcn": {"k": 3, "channels": 128}} if kind == "rfcn" else {}
        return size | _single_map(masks=kind == "mask_rcnn") | own
    return size | _two_stage_pyramid(masks=kind == "mask_rcnn")


def _single_map(masks: bool) -> dict[str, Any]:
    return {
        "neck": {"kind": "none"},
        "anchor_sizes": list(ANCHORS.sizes),
        "anchor_ratios": list(ANCHORS.ratios),
        "rpn": dict(RPN),
        "roi": dict(ROI),
    } | _masks(masks)


def _two_stage_pyramid(masks: bool) -> dict[str, Any]:
    return {
        "backbone": resnet_small(output_stride=16).to_dict(),
        "neck": {"kind": "fpn", "channels": 64, "extra": "none"},
        "anchor_sizes": [14, 20, 32],
        "anchor_ratios": [1, 2],
        "rpn": dict(_PYRAMID_RPN),
        "roi": {**ROI, "hidden": [256, 256]},
    } | _masks(masks)


def _one_stage(sizes: list[int], ratios: list[int]) -> dict[str, Any]:
    return {
        "backbone": resnet_small(output_stride=16).to_dict(),
        "neck": {"kind": "fpn", "channels": 64, "extra": "none", "from": "layer2"},
        "anchor_sizes": list(sizes),
        "anchor_ratios": list(ratios),
        "head": {"convs": 2},
    }


def _masks(wanted: bool) -> dict[str, Any]:
    return {"mask": {"convs": [64, 64], "channels": 64}} if wanted else {}
