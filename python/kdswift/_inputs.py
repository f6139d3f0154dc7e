"""Checks of what people hand to a detector, before the engine sees it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .data.images import as_image
from .data.targets import check_target
from .errors import ArgumentError, ShapeError

# Objects that are there but must not be learned from.
_SKIPPED = ("iscrowd", "difficult")


def check_images(images: Any) -> list[np.ndarray]:
    """Checked arrays of one image or a list of images."""
    if isinstance(images, (str, os.PathLike)) or _is_image(images):
        return [as_image(images, "image")]
    if not isinstance(images, Sequence) and not hasattr(images, "__iter__"):
        raise ArgumentError(
            f"images: expected an image or a list of images, got {type(images).__name__}"
        )
    return [as_image(image, f"images[{i}]") for i, image in enumerate(images)]


def _is_image(value: Any) -> bool:
    """An array of three axes or a picture; arrays of other ranks are judged by `as_image`."""
    if isinstance(value, (list, tuple)):
        return False
    return hasattr(value, "getbands") or (hasattr(value, "shape") and len(value.shape) < 4)


def check_targets(
    targets: Any, images: Sequence[np.ndarray], num_classes: int
) -> list[dict[str, Any]]:
    """One checked target per image; crowds and difficult objects are left out."""
    if isinstance(targets, Mapping):
        targets = [targets]
    if not isinstance(targets, Sequence):
        raise ArgumentError(f"targets: expected a list of dicts, got {type(targets).__name__}")
    if len(targets) != len(images):
        raise ShapeError(f"targets: {len(targets)} targets for {len(images)} images")
    return [
        learnable(check_target(target, image.shape, num_classes, f"targets[{i}]"))
        for i, (target, image) in enumerate(zip(targets, images))
    ]


def learnable(target: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Boxes, labels and masks of a checked target, without crowds and difficult objects."""
    boxes, labels = target["boxes"], target["labels"]
    keep = np.ones(len(boxes), dtype=bool)
    for flag in _SKIPPED:
        if target.get(flag) is not None:
            keep &= ~np.asarray(target[flag], dtype=bool)
    kept = {"boxes": boxes[keep], "labels": labels[keep]}
    if target.get("masks") is not None:
        kept["masks"] = np.asarray(target["masks"])[keep]
    return kept


def image_size_pair(value: Any, where: str) -> tuple[int, int]:
    """(height, width) from a pair or one number."""
    pair = (value, value) if np.isscalar(value) else tuple(value)
    if len(pair) != 2 or not all(_is_size(v) for v in pair):
        raise ArgumentError(f"{where}: image_size is {value!r}, expected (height, width) in pixels")
    return int(pair[0]), int(pair[1])


def _is_size(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool) and value > 0
