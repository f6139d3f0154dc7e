"""Masks of COCO annotations: polygons and run lengths.

Run lengths are decoded here, because their counts are checked before anything is written;
pycocotools, which draws the polygons, trusts what it is given.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ..errors import FormatError, KDSError

Error = Callable[[str], FormatError]


def decode_mask(segmentation: Any, height: int, width: int, error: Error) -> np.ndarray:
    """bool (height, width) of a ``segmentation`` entry.

    Parameters
    ----------
    segmentation : list of polygons [x1, y1, x2, y2, …], or {"size": [h, w], "counts": …}
        with counts as a list of run lengths or in COCO's compressed text.
    error : makes the ``FormatError`` that names the file and the annotation
    """
    if isinstance(segmentation, dict):
        return _from_runs(segmentation, height, width, error)
    if not isinstance(segmentation, list) or not segmentation:
        raise error(f"segmentation is {str(segmentation)[:60]!r}, neither polygons nor runs")
    for polygon in segmentation:
        _check_polygon(polygon, height, width, error)
    try:
        from pycocotools import mask as coco_mask
    except ImportError as missing:
        raise KDSError("masks need the package: pip install pycocotools") from missing
    runs = coco_mask.merge(coco_mask.frPyObjects(segmentation, height, width))
    # Its own decoding warns of NumPy 2.
    return _expand(_decompress(runs["counts"].decode(), error), height, width)


def _check_polygon(polygon: Any, height: int, width: int, error: Error) -> None:
    if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
        raise error("segmentation has a polygon that is no list of at least three points x, y")
    for value, size in zip(polygon, [width, height] * (len(polygon) // 2)):
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        # What sticks out is cut off; far away there is only an error, and endless edges.
        if not number or not math.isfinite(value) or not -size <= value <= 2 * size:
            raise error(f"segmentation has the coordinate {value!r} in {width}x{height} pixels")


def _from_runs(segmentation: dict, height: int, width: int, error: Error) -> np.ndarray:
    if segmentation.get("size") != [height, width]:
        raise error(
            f"segmentation has size {segmentation.get('size')}, the image [{height}, {width}]"
        )
    counts = segmentation.get("counts")
    if isinstance(counts, str):
        counts = _decompress(counts, error)
    good = isinstance(counts, list) and all(type(c) is int and c >= 0 for c in counts)
    if not good or sum(counts) != height * width:
        raise error(f"segmentation counts are no runs over {height * width} pixels")
    return _expand(counts, height, width)


def _expand(counts: list[int], height: int, width: int) -> np.ndarray:
    """bool (height, width) of runs down the columns, the first of False."""
    values = np.arange(len(counts)) % 2 == 1
    return np.ascontiguousarray(np.repeat(values, counts).reshape(width, height).T)


def _decompress(text: str, error: Error) -> list[int]:
    """Run lengths of COCO's text form.

    Characters from "0" on hold six bits: five of the number, lowest first, and one that says
    that more follow; bit 4 of the last is the sign. From the fourth number on, the number two
    before is to be added.
    """
    counts: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift > 60:
            raise error(f"segmentation counts have the character {character!r}")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        counts.append(value + counts[-2] if len(counts) > 2 else value)
        value = shift = 0
    if shift:
        raise error("segmentation counts are cut off")
    return counts
