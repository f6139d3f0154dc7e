"""How a DigitScenes picture is painted: background, glyphs, colours, clutter."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)
_PLACEMENT_TRIES = 12


class Style(NamedTuple):
    """The numbers behind `difficulty`; 0, 1, 2 are the three columns of `style_of`."""

    min_height: float  # pixels
    max_height: float
    min_opacity: float
    contrast: float  # least difference in luminance (0–255) to what the glyph covers
    rotation: float  # degrees, either way
    stretch: float  # log of the largest change of width against height
    overlap: float  # largest covered share of the smaller of two boxes
    clutter: float  # mean number of meaningless strokes
    noise: float  # standard deviation, grey levels


def style_of(difficulty: float) -> Style:
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
    return Style(*(float(np.interp(difficulty, [0, 1, 2], row)) for row in columns))


def background(rng: np.random.Generator, photographs: list[Any], size: int) -> np.ndarray:
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


def glyph(
    rng: np.random.Generator, sample: Any, style: Style, size: int
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


def find_place(
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


def paste(
    rng: np.random.Generator,
    canvas: np.ndarray,
    alpha: np.ndarray,
    ink: np.ndarray,
    place: tuple[int, int],
    style: Style,
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


def add_stroke(rng: np.random.Generator, canvas: np.ndarray, style: Style) -> None:
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


def masks_of(inks: list[np.ndarray], boxes: list, size: int) -> np.ndarray:
    masks = np.zeros((len(inks), size, size), dtype=bool)
    for mask, ink, (x1, y1, x2, y2) in zip(masks, inks, boxes, strict=True):
        mask[y1:y2, x1:x2] = ink
    return masks
