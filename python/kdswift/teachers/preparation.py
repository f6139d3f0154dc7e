"""From pictures to what a foreign model takes: size, layout, range, normalisation, padding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..data.images import resize_image, short_side_size, to_uint8
from ..errors import ArgumentError

_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


class Preparation:
    """What `kd.Teacher.from_callable` documents, checked once and applied to every batch."""

    def __init__(
        self,
        image_size: Any = None,
        exact_size: Any = None,
        batch: Any = False,
        layout: str = "chw",
        normalize: Any = None,
        scale: float = 1.0,
        channels: str = "rgb",
        divisor: int = 1,
    ) -> None:
        if image_size is not None and exact_size is not None:
            raise ArgumentError("teacher: give image_size or exact_size, not both")
        self.image_size = None if image_size is None else _short_side(image_size)
        self.exact_size = None if exact_size is None else _exact(exact_size)
        self.batch = _choice(batch, "batch", (True, False))
        self.layout = _choice(layout, "layout", ("chw", "hwc"))
        self.channels = _choice(channels, "channels", ("rgb", "bgr"))
        self.normalize = _normalization(normalize)
        if not (isinstance(scale, (int, float)) and not isinstance(scale, bool) and scale > 0):
            raise ArgumentError(f"teacher: scale is {scale!r}, expected 1 or 255")
        if not _is_count(divisor):
            raise ArgumentError(f"teacher: divisor is {divisor!r}, expected a whole number from 1")
        self.scale, self.divisor = float(scale), int(divisor)

    def describe(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "image_size": self.image_size,
            "exact_size": self.exact_size,
            "batch": self.batch,
            "layout": self.layout,
            "normalize": self.normalize,
            "scale": self.scale,
            "channels": self.channels,
            "divisor": self.divisor,
        }

    def __call__(self, images: Sequence[np.ndarray]) -> Any:
        """A list of float32 arrays, or one array of the batch."""
        pictures = [self._picture(image) for image in images]  # (3, H, W) each
        if self.batch:
            stacked = self._stack(pictures)
            if self.layout == "hwc":
                stacked = np.ascontiguousarray(stacked.transpose(0, 2, 3, 1))
            return stacked
        if self.layout == "hwc":
            return [np.ascontiguousarray(p.transpose(1, 2, 0)) for p in pictures]
        return pictures

    def _picture(self, image: np.ndarray) -> np.ndarray:
        picture = _as_chw(self._resized(image))
        if self.channels == "bgr":
            picture = picture[::-1]
        if self.scale != 1:
            picture = picture * np.float32(self.scale)
        if self.normalize is not None:
            mean, std = (np.array(v, np.float32).reshape(3, 1, 1) for v in self.normalize)
            picture = (picture - mean) / std
        return np.ascontiguousarray(picture, dtype=np.float32)

    def _resized(self, image: np.ndarray) -> np.ndarray:
        if self.image_size is None and self.exact_size is None:
            return image
        pixels = to_uint8(image)
        size = self.exact_size
        if size is None:
            size = short_side_size(*pixels.shape[:2], *self.image_size)
        return resize_image(pixels, *size)

    def _stack(self, pictures: list[np.ndarray]) -> np.ndarray:
        height = _round_up(max(p.shape[1] for p in pictures), self.divisor)
        width = _round_up(max(p.shape[2] for p in pictures), self.divisor)
        result = np.zeros((len(pictures), 3, height, width), np.float32)
        for slot, picture in zip(result, pictures):
            slot[:, : picture.shape[1], : picture.shape[2]] = picture
        return result


def _as_chw(image: np.ndarray) -> np.ndarray:
    if image.dtype != np.uint8:
        return image
    return image.transpose(2, 0, 1).astype(np.float32) / np.float32(255)


def _round_up(size: int, divisor: int) -> int:
    return -(-size // divisor) * divisor


def _is_count(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool) and value > 0


def _short_side(value: Any) -> tuple[int, int | None]:
    pair = (value, None) if _is_count(value) else value
    good = isinstance(pair, (tuple, list)) and len(pair) == 2 and _is_count(pair[0])
    if not good or not (pair[1] is None or (_is_count(pair[1]) and pair[1] >= pair[0])):
        raise ArgumentError(
            f"teacher: image_size is {value!r}, expected the short side, or (short, longest) side"
        )
    return int(pair[0]), None if pair[1] is None else int(pair[1])


def _exact(value: Any) -> tuple[int, int]:
    if not (isinstance(value, (tuple, list)) and len(value) == 2 and all(map(_is_count, value))):
        raise ArgumentError(f"teacher: exact_size is {value!r}, expected (height, width)")
    return int(value[0]), int(value[1])


def _choice(value: Any, name: str, allowed: Sequence[Any]) -> Any:
    if value not in allowed:
        names = ", ".join(map(repr, allowed))
        raise ArgumentError(f"teacher: {name} is {value!r}, expected one of {names}")
    return value


def _normalization(value: Any) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    if value is None:
        return None
    if value == "imagenet":
        return _IMAGENET
    try:
        mean, std = (tuple(float(v) for v in part) for part in value)
    except (TypeError, ValueError):
        mean, std = (), ()
    if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
        raise ArgumentError(
            f"teacher: normalize is {value!r}, expected 'imagenet' or (mean, std) with three "
            "numbers each, std above 0"
        )
    return mean, std
