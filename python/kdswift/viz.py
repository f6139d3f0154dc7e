"""Pictures: boxes on images, models side by side, feature maps; see `kdswift.plots` for curves.

Everything returns a PIL image, which a notebook shows by itself and ``.save(path)`` writes.
Small images are enlarged so that boxes and labels can be read.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .analysis.pictures import loss_landscape
from .data.images import as_image, to_uint8
from .detections import class_name
from .errors import ArgumentError, ShapeError
from .plots import curves, precision_recall

__all__ = [
    "compare",
    "curves",
    "draw",
    "feature_map",
    "grid",
    "loss_landscape",
    "precision_recall",
]

# Well apart for most eyes, bright enough on photographs; label 1 takes the first.
_COLOURS = (
    *("#ff4b4b", "#21c7a8", "#ffb000", "#5b8cff", "#e66bff", "#8bd450", "#ff7f2a"),
    *("#00b7eb", "#d9c74a", "#ff6fa8", "#9d7bff", "#3ddc6f", "#c98a5e", "#7fd3ff"),
)
_TRUTH_COLOUR = "#ffffff"
_MASK_WEIGHT = 0.45
_FONT_SIZE = 13


def draw(
    image: Any,
    detections: Any = None,
    targets: Mapping[str, Any] | None = None,
    class_names: Sequence[str] | None = None,
    score_threshold: float = 0.0,
    min_size: int = 256,
    title: str | None = None,
) -> Any:
    """An image with boxes, as a PIL picture.

    Parameters
    ----------
    image : anything `kd.data.as_image` takes
    detections : kd.Detections, or a dict of boxes and labels with or without scores
        A target dict can be given here as well. Boxes are coloured by class.
    targets : dict or None
        The truth, drawn under the detections as thin white boxes without text.
    class_names : names by label; None: those of the detections, or the numbers
    score_threshold : float
        Hide what is below.
    min_size : int
        Enlarge by a whole factor until the long side has this many pixels.
    title : str or None
        A line of text above the picture.
    """
    from PIL import Image, ImageDraw

    pixels = to_uint8(as_image(image))
    height, width = pixels.shape[:2]
    factor = max(1, math.ceil(min_size / max(height, width)))
    shown = None if detections is None else _shown(detections, class_names, score_threshold)
    if shown is not None and shown.masks is not None:
        pixels = _with_masks(pixels, shown)
    picture = Image.fromarray(pixels)
    if factor > 1:
        picture = picture.resize((width * factor, height * factor), Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(picture)
    line = max(2, round(max(picture.size) / 250))
    if targets is not None:
        for box in np.asarray(targets["boxes"], dtype=float).reshape(-1, 4) * factor:
            _outline(pen, box, _TRUTH_COLOUR, max(1, line // 2))
    if shown is not None:
        _draw_boxes(pen, picture.size, shown, factor, line)
    return picture if title is None else _with_title(picture, title)


def compare(
    image: Any,
    models: Mapping[str, Any],
    targets: Mapping[str, Any] | None = None,
    class_names: Sequence[str] | None = None,
    score_threshold: float = 0.3,
    min_size: int = 256,
) -> Any:
    """What several models find in one image, side by side under their names.

    `models` maps a title to detections. With `targets` the first picture shows the truth.
    """
    if not models and targets is None:
        raise ArgumentError("compare: nothing to show; models is empty and targets is None")
    panels = []
    if targets is not None:
        panels.append(draw(image, targets, None, class_names, 0.0, min_size, "truth"))
    for name, detections in models.items():
        panels.append(
            draw(image, detections, None, class_names, score_threshold, min_size, str(name))
        )
    return grid([panels])


def grid(rows: Sequence[Sequence[Any]], gap: int = 8, background: str = "white") -> Any:
    """Pictures in rows and columns; a column is as wide as its widest picture.

    `rows` holds PIL images or uint8 (H, W, 3) arrays; rows may be unequally long.
    """
    from PIL import Image

    cells = [[_as_picture(p) for p in row] for row in rows]
    if not any(cells):
        raise ArgumentError("grid: no pictures")
    columns = max(len(row) for row in cells)
    widths = [
        max((row[c].width for row in cells if c < len(row)), default=0) for c in range(columns)
    ]
    heights = [max((p.height for p in row), default=0) for row in cells]
    size = (sum(widths) + gap * (columns + 1), sum(heights) + gap * (len(cells) + 1))
    sheet = Image.new("RGB", size, background)
    y = gap
    for row, height in zip(cells, heights, strict=True):
        x = gap
        for picture, width in zip(row, widths, strict=False):
            sheet.paste(picture, (x, y))
            x += width + gap
        y += height + gap
    return sheet


def feature_map(
    features: Any, image: Any = None, channel: int | None = None, min_size: int = 256
) -> Any:
    """A feature map (C, H, W) or (H, W) as a heat map, darkest at its smallest value.

    The mean of absolute values over the channels, or one `channel`; laid over `image` where
    one is given.
    """
    import matplotlib
    from PIL import Image

    values = np.asarray(features, dtype=np.float64)
    if values.ndim == 3:
        if channel is not None and not -len(values) <= channel < len(values):
            raise ArgumentError(f"feature_map: channel {channel} of {len(values)}")
        values = np.abs(values).mean(axis=0) if channel is None else values[channel]
    if values.ndim != 2 or values.size == 0:
        raise ShapeError(
            f"feature_map: features must be (C, H, W) or (H, W), got {np.shape(features)}"
        )
    values = np.nan_to_num(values)
    low, high = values.min(), values.max()
    values = (values - low) / (high - low) if high > low else np.zeros_like(values)
    heat = Image.fromarray(
        (matplotlib.colormaps["viridis"](values)[..., :3] * 255).astype(np.uint8)
    )
    if image is None:
        factor = max(1, math.ceil(min_size / max(heat.size)))
        return heat.resize((heat.width * factor, heat.height * factor), Image.Resampling.NEAREST)
    base = Image.fromarray(to_uint8(as_image(image)))
    factor = max(1, math.ceil(min_size / max(base.size)))
    size = (base.width * factor, base.height * factor)
    return Image.blend(
        base.resize(size, Image.Resampling.BICUBIC),
        heat.resize(size, Image.Resampling.BILINEAR),
        0.6,
    )


class _Shown:
    """What to draw, worst score first, so that the best lies on top."""

    def __init__(self, boxes: Any, labels: Any, scores: Any, masks: Any, names: Any):
        self.boxes, self.labels, self.scores, self.masks = boxes, labels, scores, masks
        self.names = names

    def text(self, i: int) -> str:
        name = class_name(self.names, int(self.labels[i]))
        return name if self.scores is None else f"{name} {100 * self.scores[i]:.0f}%"

    def colour(self, i: int) -> str:
        return _COLOURS[(int(self.labels[i]) - 1) % len(_COLOURS)]


def _shown(detections: Any, class_names: Sequence[str] | None, threshold: float) -> _Shown:
    def get(name: str) -> Any:
        if isinstance(detections, Mapping):
            return detections.get(name)
        return getattr(detections, name, None)

    if get("boxes") is None or get("labels") is None:
        raise ArgumentError(
            "draw: expected Detections or a dict with boxes and labels, "
            f"got {type(detections).__name__}"
        )
    boxes = np.asarray(get("boxes"), dtype=float).reshape(-1, 4)
    labels, scores, masks = np.asarray(get("labels")).reshape(-1), get("scores"), get("masks")
    if len(labels) != len(boxes):
        raise ShapeError(f"draw: {len(boxes)} boxes but {len(labels)} labels")
    order = np.arange(len(boxes))
    if scores is not None:
        scores = np.asarray(scores, dtype=float)
        order = np.argsort(scores, kind="stable")
        order = order[scores[order] >= threshold]
        scores = scores[order]
    masks = None if masks is None else np.asarray(masks, dtype=bool)[order]
    names = class_names if class_names is not None else get("class_names")
    return _Shown(boxes[order], labels[order], scores, masks, names)


def _with_masks(pixels: np.ndarray, shown: _Shown) -> np.ndarray:
    from PIL import ImageColor

    canvas = pixels.astype(np.float32)
    for i, mask in enumerate(shown.masks):
        if mask.shape != pixels.shape[:2]:
            raise ShapeError(f"draw: mask {i} is {mask.shape}, the image {pixels.shape[:2]}")
        colour = np.array(ImageColor.getrgb(shown.colour(i)), dtype=np.float32)
        canvas[mask] += (colour - canvas[mask]) * _MASK_WEIGHT
    return canvas.astype(np.uint8)


def _draw_boxes(pen: Any, size: tuple[int, int], shown: _Shown, factor: int, line: int) -> None:
    for i, box in enumerate(shown.boxes * factor):
        _outline(pen, box, shown.colour(i), line)
    font, taken = _font(_FONT_SIZE), []
    # Texts after all boxes, the best score first in choosing its place.
    for i in reversed(range(len(shown.boxes))):
        text = shown.text(i)
        left, top, right, bottom = font.getbbox(text)
        width, height = right - left + 6, bottom - top + 5
        x, y = _text_place(shown.boxes[i] * factor, width, height, size, taken)
        taken.append((x, y, x + width, y + height))
        colour = shown.colour(i)
        pen.rectangle((x, y, x + width - 1, y + height - 1), fill=colour)
        pen.text((x + 3 - left, y + 2 - top), text, fill=_ink_on(colour), font=font)


def _outline(pen: Any, box: np.ndarray, colour: str, line: int) -> None:
    x1, y1, x2, y2 = (round(float(v)) for v in box)
    # Pillow includes the last pixel; boxes end at the edge after it.
    pen.rectangle((x1, y1, max(x1, x2 - 1), max(y1, y2 - 1)), outline=colour, width=line)


def _text_place(
    box: np.ndarray, width: int, height: int, size: tuple[int, int], taken: list
) -> tuple[int, int]:
    """Top left corner of a label: above the box, or below, or inside; where nothing else is."""
    x1, y1, x2, y2 = (float(v) for v in box)
    places = [(x1, y1 - height), (x2 - width, y1 - height), (x1, y2), (x2 - width, y2)]
    places += [(x1, y1), (x2 - width, y1), (x1, y2 - height), (x2, y1), (x1 - width, y1)]
    best, least = None, math.inf
    for rank, (x, y) in enumerate(places):
        x = int(min(max(x, 0), max(size[0] - width, 0)))
        y = int(min(max(y, 0), max(size[1] - height, 0)))
        hidden = sum(
            max(0, min(x + width, right) - max(x, left))
            * max(0, min(y + height, bottom) - max(y, top))
            for left, top, right, bottom in taken
        )
        cost = hidden + 0.001 * rank
        if cost < least:
            best, least = (x, y), cost
    assert best is not None
    return best


def _with_title(picture: Any, title: str) -> Any:
    from PIL import Image, ImageDraw

    font = _font(_FONT_SIZE + 2)
    while len(title) > 4 and font.getlength(title) > picture.width:
        title = title[:-2].rstrip("…") + "…"
    height = _FONT_SIZE + 11
    sheet = Image.new("RGB", (picture.width, picture.height + height), "white")
    ImageDraw.Draw(sheet).text((1, height / 2), title, fill="#222222", font=font, anchor="lm")
    sheet.paste(picture, (0, height))
    return sheet


def _as_picture(value: Any) -> Any:
    from PIL import Image

    if isinstance(value, Image.Image):
        return value.convert("RGB")
    return Image.fromarray(to_uint8(as_image(value, "grid")))


def _font(size: int) -> Any:
    from PIL import ImageFont

    try:
        return ImageFont.load_default(size)
    except (TypeError, OSError):  # Pillow before 10.1, or built without FreeType
        return ImageFont.load_default()


def _ink_on(colour: str) -> str:
    """Black or white, whichever reads better on the colour."""
    from PIL import ImageColor

    r, g, b = ImageColor.getrgb(colour)
    return "#000000" if 0.299 * r + 0.587 * g + 0.114 * b > 125 else "#ffffff"
