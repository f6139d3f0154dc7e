"""Augmentation: views of an image that keep its boxes right.

Every transform is called as ``image, target = transform(image, target, rng)`` with a uint8
(H, W, 3) image, a target dict and a ``numpy.random.Generator``. It returns new objects and
draws all its randomness from `rng`; `kd.data.Loader` seeds that by (seed, epoch, index), so a
view does not depend on the number of workers. A function with this signature works as well.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .data.images import resize_image, short_side_size
from .errors import ArgumentError

Target = dict[str, Any]
Transform = Callable[[np.ndarray, Target, np.random.Generator], tuple[np.ndarray, Target]]

_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)


class Compose:
    """Apply transforms one after the other, all with the same generator."""

    def __init__(self, transforms: Sequence[Transform]):
        for i, transform in enumerate(transforms):
            if not callable(transform):
                raise ArgumentError(f"Compose: transforms[{i}] is not callable: {transform!r}")
        self.transforms = list(transforms)

    def __call__(
        self, image: np.ndarray, target: Target, rng: np.random.Generator
    ) -> tuple[np.ndarray, Target]:
        for transform in self.transforms:
            image, target = transform(image, target, rng)
        return image, target

    def __repr__(self) -> str:
        return f"Compose({self.transforms!r})"


class HorizontalFlip:
    """Mirror image, boxes and masks left to right with probability `p`.

    Not for things whose meaning has a direction, such as digits and text.
    """

    def __init__(self, p: float = 0.5):
        if not 0 <= p <= 1:
            raise ArgumentError(f"HorizontalFlip: p must be in [0, 1], got {p!r}")
        self.p = p

    def __call__(
        self, image: np.ndarray, target: Target, rng: np.random.Generator
    ) -> tuple[np.ndarray, Target]:
        if rng.random() >= self.p:
            return image, target
        target = dict(target)
        boxes = target["boxes"].copy()
        boxes[:, [0, 2]] = image.shape[1] - boxes[:, [2, 0]]
        target["boxes"] = boxes
        if target.get("masks") is not None:
            target["masks"] = np.ascontiguousarray(target["masks"][:, :, ::-1])
        return np.ascontiguousarray(image[:, ::-1]), target

    def __repr__(self) -> str:
        return f"HorizontalFlip(p={self.p})"


class ResizeShortSide:
    """Scale so that the short side is `short` and the long one at most `max_size` pixels.

    Bilinear with antialiasing; boxes are scaled, masks taken by nearest neighbour. With a
    sequence of sizes one is drawn for each image (multi-scale training).
    """

    def __init__(self, short: int | Sequence[int], max_size: int | None = None):
        self.short = [int(short)] if np.isscalar(short) else [int(s) for s in short]
        self.max_size = max_size
        if not self.short or min(self.short) < 1 or (max_size is not None and max_size < 1):
            raise ArgumentError(
                f"ResizeShortSide: sizes must be positive, got short={short!r}, "
                f"max_size={max_size!r}"
            )

    def __call__(
        self, image: np.ndarray, target: Target, rng: np.random.Generator
    ) -> tuple[np.ndarray, Target]:
        short = self.short[0] if len(self.short) == 1 else self.short[rng.integers(len(self.short))]
        height, width = image.shape[:2]
        return resize(image, target, *short_side_size(height, width, short, self.max_size))

    def __repr__(self) -> str:
        short = self.short[0] if len(self.short) == 1 else self.short
        return f"ResizeShortSide(short={short}, max_size={self.max_size})"


class ColorJitter:
    """Scale brightness, contrast and saturation by factors drawn from [1 - x, 1 + x] for each."""

    def __init__(self, brightness: float = 0.2, contrast: float = 0.2, saturation: float = 0.2):
        for name, value in (
            ("brightness", brightness),
            ("contrast", contrast),
            ("saturation", saturation),
        ):
            if not 0 <= value <= 1:
                raise ArgumentError(f"ColorJitter: {name} must be in [0, 1], got {value!r}")
        self.brightness, self.contrast, self.saturation = brightness, contrast, saturation

    def __call__(
        self, image: np.ndarray, target: Target, rng: np.random.Generator
    ) -> tuple[np.ndarray, Target]:
        ranges = (self.brightness, self.contrast, self.saturation)
        brightness, contrast, saturation = (float(rng.uniform(1 - r, 1 + r)) for r in ranges)
        pixels = image.astype(np.float32)
        grey = (pixels @ _LUMA)[..., None]
        pixels = grey + (pixels - grey) * saturation
        mean = float(grey.mean())
        pixels = ((pixels - mean) * contrast + mean) * brightness
        return np.clip(pixels + 0.5, 0, 255).astype(np.uint8), target

    def __repr__(self) -> str:
        return (
            f"ColorJitter(brightness={self.brightness}, contrast={self.contrast}, "
            f"saturation={self.saturation})"
        )


def resize(image: np.ndarray, target: Target, height: int, width: int) -> tuple[np.ndarray, Target]:
    """The image at (height, width), with boxes and masks scaled along."""
    old_height, old_width = image.shape[:2]
    if (old_height, old_width) == (height, width):
        return image, target
    target = dict(target)
    scale = np.array([width / old_width, height / old_height] * 2, dtype=np.float32)
    target["boxes"] = target["boxes"] * scale
    if target.get("masks") is not None:
        rows = np.minimum((np.arange(height) + 0.5) * old_height / height, old_height - 1).astype(
            int
        )
        columns = np.minimum((np.arange(width) + 0.5) * old_width / width, old_width - 1).astype(
            int
        )
        target["masks"] = target["masks"][:, rows][:, :, columns]
    return resize_image(image, height, width), target
