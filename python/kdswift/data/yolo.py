"""Data sets in the YOLO layout: a YAML file, image folders, a text file of boxes per image."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ArgumentError, FormatError, KDSError
from .files import Box, FileDataset, checked_names, clip_box, image_header_size, read_lines

_SUFFIXES = {".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}


class YOLO(FileDataset):
    """A data set that a ``data.yaml`` describes.

    Parameters
    ----------
    yaml : path or mapping
        The file (needs PyYAML: ``pip install 'kdswift[yolo]'``) or its content. Keys: ``path``
        (the root, relative to the file; without it the file's folder), ``train``, ``val``,
        ``test`` (a folder of images, a ``.txt`` with a path per line, or a list of these),
        ``names`` (list, or mapping from class number to name), and optionally ``nc``.
    split : str
        ``"train"``, ``"val"`` or ``"test"``.

    The boxes of ``…/images/a.jpg`` are in ``…/labels/a.txt`` (the last ``images`` of the path),
    one line each: class, centre x, centre y, width, height, as parts of the image's size.
    Polygon lines (class, x1, y1, x2, y2, x3, y3, …) become their bounding boxes. An image
    without file, or with an empty one, has no objects. Class c has label c + 1; parts at most
    one pixel outside the image are clipped.

    ``ds[i]`` gives ``(image, target)`` with ``boxes``, ``labels`` and ``image_id`` = i;
    ``ds.ids[i]`` is the image's path. Reading an item raises ``FormatError`` with file and line
    for lines with another number of values, values that are no numbers, unknown classes, and
    boxes outside the image or without area.
    """

    def __init__(self, yaml: str | os.PathLike | Mapping[str, Any], split: str = "train"):
        given = isinstance(yaml, Mapping)
        self.file = None if given else Path(yaml)
        where = "YOLO" if given else str(yaml)
        content = dict(yaml) if given else _read_yaml(self.file)
        self.split = split
        self.class_names = _class_names(content, where)
        root = Path(".") if given else self.file.parent
        if content.get("path") is not None:
            root = root / str(content["path"])
        self.ids = _images(content, root, split, where)
        if not any(label_path(path).is_file() for path in self.ids):
            raise FormatError(
                f"{where}: no image of {split!r} has a label file; looked for "
                f"{label_path(self.ids[0])} and its like"
            )

    def image_path(self, index: int) -> Path:
        """The image file of an item."""
        return self.ids[self._index(index)]

    def annotation_path(self, index: int) -> Path:
        """The label file of an item, which need not be there."""
        return label_path(self.image_path(index))

    def __repr__(self) -> str:
        return f"YOLO({str(self.file)!r}, split={self.split!r}, {len(self)} images)"

    def _read_target(self, i: int) -> dict[str, Any]:
        path = self.annotation_path(i)
        size = image_header_size(self.image_path(i))
        boxes, labels = [], []
        for number, line in enumerate(read_lines(path, "labels") if path.is_file() else (), 1):
            if line.strip():
                label, box = self._read_line(line, f"{path}, line {number}", size)
                labels.append(label)
                boxes.append(box)
        return {
            "boxes": np.array(boxes, dtype=np.float32).reshape(-1, 4),
            "labels": np.array(labels, dtype=np.int64),
            "image_id": i,
        }

    def _read_line(self, line: str, where: str, size: tuple[int, int]) -> tuple[int, Box]:
        def error(message: str) -> FormatError:
            return FormatError(f"{where}: {message}")

        values = [_number(text, error) for text in line.split()]
        if len(values) != 5 and (len(values) < 7 or len(values) % 2 == 0):
            raise error(
                f"expected class, x, y, width, height, or class and three or more points, "
                f"got {len(values)} values"
            )
        classes = len(self.class_names) - 1
        if values[0] not in range(classes):
            raise error(f"class {line.split()[0]}; with {classes} classes they are 0–{classes - 1}")
        if len(values) == 5:
            x, y, width, height = values[1:]
            if width <= 0 or height <= 0:
                raise error(f"box x {x:g}, y {y:g}, width {width:g}, height {height:g} has no area")
            parts = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
        else:
            xs, ys = values[1::2], values[2::2]
            parts = (min(xs), min(ys), max(xs), max(ys))
        x1, y1, x2, y2 = (part * length for part, length in zip(parts, size * 2))
        text = f"box x1 {x1:g}, y1 {y1:g}, x2 {x2:g}, y2 {y2:g}"
        return int(values[0]) + 1, clip_box((x1, y1, x2, y2), size, text, error)


def label_path(image: Path) -> Path:
    """``…/images/a.jpg`` → ``…/labels/a.txt``; without a folder ``images``, beside the image."""
    parts = list(image.parts)
    for i in range(len(parts) - 2, -1, -1):
        if parts[i] == "images":
            parts[i] = "labels"
            break
    return Path(*parts).with_suffix(".txt")


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        import yaml
    except ImportError as error:
        raise KDSError("YOLO files need the package: pip install pyyaml") from error
    text = "\n".join(read_lines(path, "data set"))
    try:
        content = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        what = getattr(error, "problem", None) or str(error)
        raise FormatError(f"{path}{line}: broken YAML: {what}") from error
    if not isinstance(content, dict):
        raise FormatError(f"{path}: expected key: value lines, got {type(content).__name__}")
    return content


def _class_names(content: Mapping[str, Any], where: str) -> tuple[str, ...]:
    names = content.get("names")
    if isinstance(names, Mapping):
        if set(names) != set(range(len(names))):
            raise FormatError(f"{where}: names must be numbered 0, 1, 2, …, got {list(names)[:12]}")
        names = [names[i] for i in range(len(names))]
    if not isinstance(names, list) or not names:
        raise FormatError(f"{where}: names is {str(names)[:60]}, not a list or mapping of names")
    count = content.get("nc", len(names))
    if count != len(names):
        raise FormatError(f"{where}: nc is {count}, but there are {len(names)} names")
    names = tuple(map(str, names))
    if len(set(names)) != len(names):
        raise FormatError(f"{where}: a class name occurs twice")
    # A class of that name would be taken for ours, which is label 0.
    if names[0] == "background":
        return ("background", *names)
    return checked_names(names, f"{where}: names")


def _images(content: Mapping[str, Any], root: Path, split: str, where: str) -> list[Path]:
    if split not in ("train", "val", "test"):
        raise ArgumentError(f"YOLO: split must be 'train', 'val' or 'test', got {split!r}")
    sources = content.get(split)
    if sources is None:
        there = [s for s in ("train", "val", "test") if content.get(s) is not None]
        raise FormatError(f"{where}: no {split!r}; there are: {', '.join(there)}")
    images = []
    for source in sources if isinstance(sources, list) else [sources]:
        images += _images_of(root, str(source), f"{where}: {split}")
    if not images:
        raise FormatError(f"{where}: {split}: {sources} has no images")
    return images


def _images_of(root: Path, source: str, where: str) -> list[Path]:
    path = root / source
    if not path.exists() and source.startswith("../"):
        path = root / source[3:]  # some exports count from a folder that is not there
    if path.is_dir():
        return sorted(p for p in path.rglob("*") if p.suffix.lower() in _SUFFIXES)
    if path.suffix != ".txt" or not path.is_file():
        raise FormatError(f"{where}: no such folder or list of images: {root / source}")
    lines = [line.strip() for line in read_lines(path, "list of images")]
    # "./" means beside the list; other relative paths are the root's.
    return [(path.parent if s.startswith("./") else root) / s for s in lines if s]


def _number(text: str, error: Any) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise error(f"{text!r} is not a number")
    return value
