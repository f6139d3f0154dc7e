"""DigitScenes: handwritten digits over photographs, made on the fly from scikit-learn's files.

The material is real (handwriting of 13 people from the UCI optdigits set, two photographs)
and ships inside scikit-learn, so nothing is downloaded; the scenes are synthetic, so there
are as many as wanted and the boxes are exact.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import numpy as np

from ..errors import ArgumentError, KDSError
from .dataset import Dataset
from .scene_painting import (
    add_stroke,
    background,
    find_place,
    glyph,
    masks_of,
    paste,
    style_of,
)

_SPLITS = ("train", "val")
# Handwriting is stored in the order of its writers; a cut keeps writers (nearly) apart as well.
_TRAIN_SAMPLES = 1250
# Left part of each photograph for training, the rest for validation.
_TRAIN_WIDTH = 0.65
_MAX_GLYPHS = 6
_ZIPF_EXPONENT = 0.8


class DigitScenes(Dataset):
    """Scenes of 1–6 handwritten digits over pieces of photographs, with boxes and masks.

    Each digit has a random size, colour and opacity, is clearly brighter or darker than what
    it covers, and hardly overlaps others. Classes are unevenly frequent: digit d has weight
    ``1 / (d + 1) ** 0.8``, so "0" is about six times as frequent as "9". Training and
    validation use different handwriting (the first 1,250 and the last 547 samples of
    ``sklearn.datasets.load_digits``) and different parts of the photographs.

    Parameters
    ----------
    split : "train" or "val"
    n : int
        Number of scenes. Scene i is the same whatever `n` is.
    size : int
        Width and height of a scene in pixels, at least 32. Glyph heights do not scale with it.
    seed : int
        Scene i is a function of (seed, split, i, size, difficulty) alone.
    difficulty : float in [0, 2]
        0 is easy (18–36 px, strong contrast), 1 the default (14–36 px, opacity from 0.8),
        2 hard (10–44 px, weak contrast, rotation, overlaps, clutter and noise). Values
        between are interpolated.
    masks : bool
        Also give ``target["masks"]``, (N, H, W) bool: the ink of each digit, including what
        a later digit covers. A box is exactly the bounding box of its mask.
    cache : bool
        Keep scenes in memory once made (27 KB each at size 96).

    Labels are 1–10 for the digits 0–9. ``ds[i]`` gives ``(image, target)``, both fresh copies.
    """

    class_names = ("background", *"0123456789")

    def __init__(
        self,
        split: str = "train",
        n: int = 2000,
        size: int = 96,
        seed: int = 0,
        difficulty: float = 1.0,
        masks: bool = False,
        cache: bool = True,
    ):
        if split not in _SPLITS:
            raise ArgumentError(f"DigitScenes: split must be 'train' or 'val', got {split!r}")
        if int(n) != n or n < 0:
            raise ArgumentError(f"DigitScenes: n must be a whole number >= 0, got {n!r}")
        if int(size) != size or not 32 <= size <= 4096:
            raise ArgumentError(f"DigitScenes: size must be 32 to 4096 pixels, got {size!r}")
        if int(seed) != seed or seed < 0:
            raise ArgumentError(f"DigitScenes: seed must be a whole number >= 0, got {seed!r}")
        if not 0 <= difficulty <= 2:
            raise ArgumentError(f"DigitScenes: difficulty must be in [0, 2], got {difficulty!r}")
        self.split, self.n, self.size, self.seed = split, int(n), int(size), int(seed)
        self.difficulty, self.masks = float(difficulty), bool(masks)
        self._style = style_of(self.difficulty)
        self._cache: dict[int, tuple] | None = {} if cache else None

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> tuple[np.ndarray, dict[str, Any]]:
        i = self._index(index)
        scene = self._cache.get(i) if self._cache is not None else None
        if scene is None:
            scene = self._make(i)
            if self._cache is not None:
                self._cache[i] = scene
        image, boxes, labels, masks = scene
        target = {"boxes": boxes.copy(), "labels": labels.copy(), "image_id": i}
        if masks is not None:
            target["masks"] = masks.copy()
        return image.copy(), target

    def __repr__(self) -> str:
        return (
            f"DigitScenes(split={self.split!r}, n={self.n}, size={self.size}, seed={self.seed}, "
            f"difficulty={self.difficulty:g})"
        )

    def _make(self, index: int) -> tuple:
        """Scene `index`: (image, boxes, labels, masks or None)."""
        rng = np.random.Generator(np.random.PCG64([self.seed, _SPLITS.index(self.split), index]))
        style, material = self._style, _material(self.split)
        canvas = background(rng, material.photographs, self.size)
        for _ in range(rng.poisson(style.clutter)):
            add_stroke(rng, canvas, style)
        boxes, labels, inks = [], [], []
        for _ in range(rng.integers(1, _MAX_GLYPHS + 1)):
            label = int(rng.choice(10, p=material.class_weights)) + 1
            samples = material.glyphs[label - 1]
            alpha, ink = glyph(rng, samples[rng.integers(len(samples))], style, self.size)
            place = find_place(rng, ink.shape, boxes, self.size, style.overlap)
            if place is None:
                continue
            paste(rng, canvas, alpha, ink, place, style)
            x, y = place
            boxes.append((x, y, x + ink.shape[1], y + ink.shape[0]))
            labels.append(label)
            inks.append(ink)
        if style.noise:
            canvas += rng.normal(0, style.noise, canvas.shape).astype(np.float32)
        image = np.clip(canvas + 0.5, 0, 255).astype(np.uint8)
        masks = masks_of(inks, boxes, self.size) if self.masks else None
        return image, np.array(boxes, np.float32), np.array(labels, np.int64), masks


class _Material(NamedTuple):
    glyphs: list[list[Any]]  # per digit: PIL "F" images, 12x12, ink 0–1, two empty pixels around
    photographs: list[Any]  # PIL RGB images
    class_weights: np.ndarray


@functools.cache
def _material(split: str) -> _Material:
    try:
        from sklearn.datasets import load_digits, load_sample_images
    except ImportError as error:
        raise KDSError(
            "DigitScenes takes its handwriting and photographs from scikit-learn: "
            "pip install scikit-learn"
        ) from error
    from PIL import Image

    train = split == "train"
    digits = load_digits()
    part = slice(None, _TRAIN_SAMPLES) if train else slice(_TRAIN_SAMPLES, None)
    images, targets = digits.images[part], digits.target[part]
    glyphs = [
        [Image.fromarray(np.pad(g / 16.0, 2).astype(np.float32)) for g in images[targets == d]]
        for d in range(10)
    ]
    photographs = []
    for photo in load_sample_images().images:
        cut = int(photo.shape[1] * _TRAIN_WIDTH)
        photographs.append(Image.fromarray(photo[:, :cut] if train else photo[:, cut:]))
    weights = 1.0 / np.arange(1, 11) ** _ZIPF_EXPONENT
    return _Material(glyphs, photographs, weights / weights.sum())
