"""PASCAL VOC and data sets in its layout."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import FormatError
from .files import FileDataset, checked_names, find_image, image_header_size, read_list
from .xml_objects import read_objects

VOC_CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa"),
    *("train", "tvmonitor"),
)
# Files count pixels from 1 and include the last one; what turns that into edges from 0.
_EDGES = (-1.0, -1.0, 0.0, 0.0)


class VOC(FileDataset):
    """The VOC layout: ``Annotations/*.xml``, ``ImageSets/Main/<split>.txt``, ``JPEGImages/*``.

    Parameters
    ----------
    root : path
        Holds ``VOCdevkit/VOC<year>``, or ``VOC<year>``, or is that folder itself.
    year : str or int
    split : str
        ``"train"``, ``"val"``, ``"trainval"``, ``"test"``, or any other file of ImageSets/Main.
    use_difficult : bool
        Give the objects marked difficult too (in ``target["difficult"]``). Off, as usual for
        training; `evaluation_target`, which ``kd.evaluate`` asks for, always has them.
    class_names : sequence of str or None
        Names in the order of the labels 1, 2, …, without the background (which may be given
        first, as "background"). None: the 20 VOC classes in alphabetical order.

    Files count pixels from 1 and include the last one; boxes here are edges from 0: the file's
    (xmin, ymin, xmax, ymax) becomes (xmin - 1, ymin - 1, xmax, ymax). Corners at most one pixel
    outside the image are clipped to it.

    ``ds[i]`` gives ``(image, target)`` with ``boxes``, ``labels``, ``difficult`` and
    ``image_id`` = i; ``ds.ids[i]`` is the name in the split file. Reading an item raises
    ``FormatError`` with file and line for truncated or malformed XML, missing tags, an unknown
    class, a box outside the image or without area, and with the file for a missing or
    truncated image. `check` reads everything at once.
    """

    def __init__(
        self,
        root: str | os.PathLike,
        year: str | int = "2007",
        split: str = "trainval",
        use_difficult: bool = False,
        class_names: Sequence[str] | None = None,
    ):
        self.folder = _find_folder(Path(root), str(year))
        self.year, self.split, self.use_difficult = str(year), split, bool(use_difficult)
        names = VOC_CLASSES if class_names is None else class_names
        self.class_names = checked_names(names, "VOC: class_names")
        self._label = {name: i for i, name in enumerate(self.class_names) if i}
        # The per-class files of VOC carry a second column (1, 0, -1); the first is the name.
        path = self.folder / "ImageSets" / "Main" / f"{split}.txt"
        self.ids = [row[0] for row in read_list(path)]

    def annotation_path(self, index: int) -> Path:
        """The XML file of an item."""
        return self.folder / "Annotations" / f"{self.ids[self._index(index)]}.xml"

    def image_path(self, index: int) -> Path:
        """The image file of an item; FormatError when it is missing."""
        return find_image(self.folder / "JPEGImages" / self.ids[self._index(index)])

    def __repr__(self) -> str:
        return f"VOC({str(self.folder)!r}, split={self.split!r}, {len(self)} images)"

    def _read_target(self, i: int) -> dict[str, Any]:
        def size() -> tuple[int, int]:
            return image_header_size(self.image_path(i))

        return {**read_objects(self.annotation_path(i), self._label, size, _EDGES), "image_id": i}

    def _in_training(self, target: dict[str, Any]) -> np.ndarray | None:
        return None if self.use_difficult else ~target["difficult"]


def _find_folder(root: Path, year: str) -> Path:
    candidates = [root / "VOCdevkit" / f"VOC{year}", root / f"VOC{year}", root]
    for folder in candidates:
        if (folder / "Annotations").is_dir() and (folder / "ImageSets").is_dir():
            return folder
    tried = ", ".join(map(str, candidates))
    raise FormatError(f"VOC: no folder with Annotations and ImageSets; tried {tried}")
