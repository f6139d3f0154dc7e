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

_SPLITS = ("train", "val")
# Handwriting is stored in the order of its writers; a cut keeps writers (nearly) apart as well.
_TRAIN_SAMPLES = 1250
# Left part of each photograph for training, the rest for validation.
_TRAIN_WIDTH = 0.65
_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)
_MAX_GLYPHS = 6
_ZIPF_EXPONENT = 0.8
_PLACEMENT_TRIES = 12


class _Style(NamedTuple):
    """The numbers behind `difficulty`; 0, 1, 2 are the three columns of `_style`."""

    min_height: float  # pixels
    max_height: float
    min_opacity: float
    contrast: float  # least difference in luminance (0–255) to what the glyph covers
    rotation: float  # degrees, either way
    stretch: float  # log of the largest change of width against height
    overlap: float  # largest covered share of the smaller of two boxes
    clutter: float  # mean number of meaningless strokes
    noise: float  # standard deviation, grey levels


def _style(difficulty: float) -> _Style:
    columns = np.array(
        [
            [18.0, 14.0, 10.0],
            [36.0, 36.0, 44.0],
            [0.95, 0.80, 0.60],
            [110.0, 80.0, 40.0],
            [0.0, 6.0, 18.0],
            [0.0, 0.12, 0.30],
            [0.0, 0.10, 0.30],
            [0.0, 0.0, 8.0],
            [0.0, 0.0, 8.0],
        ]
    )
    return _Style(*(float(np.interp(difficulty, [0, 1, 2], row)) for row in columns))


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
        self._style = _style(self.difficulty)
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
        canvas = _background(rng, material.photographs, self.size)
        for _ in range(rng.poisson(style.clutter)):
            _add_stroke(rng, canvas, style)
        boxes, labels, inks = [], [], []
        for _ in range(rng.integers(1, _MAX_GLYPHS + 1)):
            label = int(rng.choice(10, p=material.class_weights)) + 1
            samples = material.glyphs[label - 1]
            alpha, ink = _glyph(rng, samples[rng.integers(len(samples))], style, self.size)
            place = _place(rng, ink.shape, boxes, self.size, style.overlap)
            if place is None:
                continue
            _paste(rng, canvas, alpha, ink, place, style)
            x, y = place
            boxes.append((x, y, x + ink.shape[1], y + ink.shape[0]))
            labels.append(label)
            inks.append(ink)
        if style.noise:
            canvas += rng.normal(0, style.noise, canvas.shape).astype(np.float32)
        image = np.clip(canvas + 0.5, 0, 255).astype(np.uint8)
        masks = _masks(inks, boxes, self.size) if self.masks else None
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


def _background(rng: np.random.Generator, photographs: list[Any], size: int) -> np.ndarray:
    """float32 (size, size, 3): a random piece of a photograph, mirrored and lit at random."""
    from PIL import Image

    photo = photographs[rng.integers(len(photographs))]
    width, height = photo.size
    side = min(size * rng.uniform(0.8, 2.0), width, height)
    x, y = rng.uniform(0, width - side), rng.uniform(0, height - side)
    piece = photo.resize((size, size), Image.Resampling.BILINEAR, box=(x, y, x + side, y + side))
    canvas = np.asarray(piece, dtype=np.float32)
    if rng.random() < 0.5:
        canvas = canvas[:, ::-1]
    return canvas * rng.uniform(0.7, 1.1) + rng.uniform(-15, 15)


def _glyph(
    rng: np.random.Generator, sample: Any, style: _Style, size: int
) -> tuple[np.ndarray, np.ndarray]:
    """(alpha float32, ink bool) of one digit, cut to its ink; ink height near the drawn one.

    Half the scene is the most for the height, so that stretched and turned ink fits too.
    """
    from PIL import Image

    height = rng.uniform(min(style.min_height, size / 2), min(style.max_height, size / 2))
    scale_y = height / 8.0
    scale_x = scale_y * np.exp(rng.uniform(-style.stretch, style.stretch))
    angle = np.deg2rad(rng.uniform(-style.rotation, style.rotation))
    side = int(12 * max(scale_x, scale_y) + 0.5)
    # Output pixel to sample pixel: rotate about the centre, then shrink.
    c, s = np.cos(angle), np.sin(angle)
    a, b, d, e = c / scale_x, s / scale_x, -s / scale_y, c / scale_y
    centre = side / 2
    matrix = (a, b, 6 - (a + b) * centre, d, e, 6 - (d + e) * centre)
    grey = np.asarray(
        sample.transform((side, side), Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC)
    )
    # A steep ramp at half ink gives strokes with edges instead of a blur of an 8x8 picture.
    alpha = np.clip((grey - 0.25) * 2.5, 0, 1)
    ink = alpha >= 0.5
    rows, columns = np.flatnonzero(ink.any(axis=1)), np.flatnonzero(ink.any(axis=0))
    cut = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    return alpha[cut], ink[cut]


def _place(
    rng: np.random.Generator, shape: tuple[int, int], boxes: list, size: int, overlap: float
) -> tuple[int, int] | None:
    """Top left corner (x, y) where the glyph covers no other by more than `overlap`, or None."""
    height, width = shape
    tries = rng.random((_PLACEMENT_TRIES, 2))
    for u, v in tries:
        x, y = int(u * (size - width + 1)), int(v * (size - height + 1))
        for x1, y1, x2, y2 in boxes:
            common = max(0, min(x2, x + width) - max(x1, x)) * max(
                0, min(y2, y + height) - max(y1, y)
            )
            if common > overlap * min(width * height, (x2 - x1) * (y2 - y1)):
                break
        else:
            return x, y
    return None


def _paste(
    rng: np.random.Generator,
    canvas: np.ndarray,
    alpha: np.ndarray,
    ink: np.ndarray,
    place: tuple[int, int],
    style: _Style,
) -> None:
    """Blend the glyph into the canvas in a colour that stands out from what it covers."""
    x, y = place
    under = canvas[y : y + ink.shape[0], x : x + ink.shape[1]]
    colour = _contrasting_colour(rng, float((under[ink] @ _LUMA).mean()), style.contrast)
    weight = (alpha * rng.uniform(style.min_opacity, 1.0))[..., None].astype(np.float32)
    under += (colour - under) * weight


def _contrasting_colour(rng: np.random.Generator, under: float, contrast: float) -> np.ndarray:
    """A random colour whose luminance is at least `contrast` from `under` (both 0–255).

    The side, brighter or darker, is drawn in proportion to the room there is on it.
    """
    above, below = max(0.0, 255 - under - contrast), max(0.0, under - contrast)
    if above + below == 0:
        above, below = 255 - under, under
    brighter = rng.random() * (above + below) < above
    luma = 255 - above * rng.random() if brighter else below * rng.random()
    colour = rng.uniform(0, 255, 3)
    own = float(colour @ _LUMA)
    if own < luma:  # towards white, or towards black, until the luminance is right
        colour += (255 - colour) * ((luma - own) / (255 - own))
    else:
        colour *= luma / own
    return colour.astype(np.float32)


def _add_stroke(rng: np.random.Generator, canvas: np.ndarray, style: _Style) -> None:
    """A straight line of random colour: ink that belongs to no digit."""
    from PIL import Image, ImageDraw

    size = canvas.shape[0]
    layer = Image.new("L", (size, size))
    x, y = rng.uniform(0, size, 2)
    length, angle = rng.uniform(6, 24), rng.uniform(0, 2 * np.pi)
    end = (x + length * np.cos(angle), y + length * np.sin(angle))
    ImageDraw.Draw(layer).line([(x, y), end], fill=255, width=int(rng.integers(1, 4)))
    weight = np.asarray(layer, dtype=np.float32)[..., None] * (rng.uniform(0.5, 1.0) / 255)
    canvas += (rng.uniform(0, 255, 3).astype(np.float32) - canvas) * weight


def _masks(inks: list[np.ndarray], boxes: list, size: int) -> np.ndarray:
    masks = np.zeros((len(inks), size, size), dtype=bool)
    for mask, ink, (x1, y1, x2, y2) in zip(masks, inks, boxes, strict=True):
        mask[y1:y2, x1:x2] = ink
    return masks
