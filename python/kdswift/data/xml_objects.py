"""The objects of an annotation file in VOC's XML, which ILSVRC uses as well."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .files import Box, clip_box
from .xml_lines import Element, read_xml


def read_annotation(path: Path) -> list[Element]:
    """The ``<object>`` elements of a file; FormatError with file and line when it is broken."""
    root = read_xml(path)
    if root.tag != "annotation":
        raise root.error(f"expected <annotation>, got <{root.tag}>")
    return root.all("object")


def read_objects(
    path: Path,
    labels: Mapping[str, int],
    image_size: Callable[[], tuple[int, int]],
    edges: Box,
) -> dict[str, Any]:
    """``boxes``, ``labels``, ``difficult`` of a file.

    Parameters
    ----------
    labels : label by class name; other names are errors
    image_size : gives (width, height); asked after everything else in the file is good
    edges : what to add to xmin, ymin, xmax, ymax to have edges from 0
    """
    objects = read_annotation(path)
    found = [_label(o.child("name"), labels) for o in objects]
    difficult = [_flag(o.find("difficult")) for o in objects]
    raw = [o.child("bndbox") for o in objects]
    size = image_size()
    boxes = [_box(b, size, edges) for b in raw]
    return {
        "boxes": np.array(boxes, dtype=np.float32).reshape(-1, 4),
        "labels": np.array(found, dtype=np.int64),
        "difficult": np.array(difficult, dtype=bool),
    }


def _label(element: Element, labels: Mapping[str, int]) -> int:
    name = element.text.strip()
    if name not in labels:
        known = ", ".join(list(labels)[:30]) + (", …" if len(labels) > 30 else "")
        raise element.error(f"unknown class {name!r}; the classes are {known}")
    return labels[name]


def _flag(element: Element | None) -> bool:
    if element is None or not element.text.strip():
        return False
    value = element.text.strip()
    if value not in ("0", "1"):
        raise element.error(f"<{element.tag}> is {value!r}, not 0 or 1")
    return value == "1"


def _box(element: Element, size: tuple[int, int], edges: Box) -> Box:
    corners = [element.child(t).number() for t in ("xmin", "ymin", "xmax", "ymax")]
    xmin, ymin, xmax, ymax = corners
    text = f"box xmin {xmin:g}, ymin {ymin:g}, xmax {xmax:g}, ymax {ymax:g}"
    x1, y1, x2, y2 = (c + e for c, e in zip(corners, edges))
    return clip_box((x1, y1, x2, y2), size, text, element.error)
