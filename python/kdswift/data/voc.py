"""PASCAL VOC and data sets in its layout."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ArgumentError, FormatError
from .dataset import Dataset
from .images import read_image
from .xml_lines import Element, read_xml

VOC_CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa"),
    *("train", "tvmonitor"),
)
_IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG")
# Some tools write 0-based or exclusive corners, one pixel off; more than that is an error.
_BORDER_PIXELS = 1.0


class VOC(Dataset):
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
        names = tuple(VOC_CLASSES if class_names is None else class_names)
        if names[:1] == ("background",):
            names = names[1:]
        if isinstance(class_names, str) or not names or len(set(names)) != len(names):
            raise ArgumentError(f"VOC: class_names must be different names, got {class_names!r}")
        self.class_names = ("background", *names)
        self._label = {name: i for i, name in enumerate(self.class_names) if i}
        self.ids = _read_split(self.folder, split)
        self._targets: dict[int, dict[str, Any]] = {}

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> tuple[np.ndarray, dict[str, Any]]:
        i = self._index(index)
        target = self.evaluation_target(i)  # first: a bad annotation costs no decoding
        if not self.use_difficult:
            keep = ~target["difficult"]
            for key in ("boxes", "labels", "difficult"):
                target[key] = target[key][keep]
        return read_image(self.image_path(i)), target

    def evaluation_target(self, index: int) -> dict[str, Any]:
        """The target with all objects, those marked difficult included."""
        i = self._index(index)
        if i not in self._targets:
            self._targets[i] = self._read_target(i)
        return {k: v.copy() if hasattr(v, "copy") else v for k, v in self._targets[i].items()}

    def annotation_path(self, index: int) -> Path:
        """The XML file of an item."""
        return self.folder / "Annotations" / f"{self.ids[self._index(index)]}.xml"

    def image_path(self, index: int) -> Path:
        """The image file of an item; FormatError when it is missing."""
        name = self.ids[self._index(index)]
        for suffix in _IMAGE_SUFFIXES:
            path = self.folder / "JPEGImages" / f"{name}{suffix}"
            if path.is_file():
                return path
        raise FormatError(f"{self.folder / 'JPEGImages' / name}.jpg: no such image file")

    def check(self, progress: bool = False) -> VOC:
        """Read every annotation and image.

        Returns the data set itself, so that ``ds = VOC(…).check()`` works; raises one
        ``FormatError`` that lists every bad file (the first ten in full).
        """
        indices: Any = range(len(self))
        if progress:
            from tqdm.auto import tqdm

            indices = tqdm(indices, desc=f"check {self.split}", unit="image", leave=False)
        errors = []
        for i in indices:
            try:
                self[i]
            except FormatError as error:
                errors.append(str(error))
        if errors:
            more = f"\n… and {len(errors) - 10} more" if len(errors) > 10 else ""
            raise FormatError(
                f"{len(errors)} of {len(self)} items are bad:\n" + "\n".join(errors[:10]) + more
            )
        return self

    def __repr__(self) -> str:
        return f"VOC({str(self.folder)!r}, split={self.split!r}, {len(self)} images)"

    def _read_target(self, i: int) -> dict[str, Any]:
        root = read_xml(self.annotation_path(i))
        if root.tag != "annotation":
            raise root.error(f"expected <annotation>, got <{root.tag}>")
        objects = root.all("object")
        names = [o.child("name") for o in objects]
        labels = [self._label_of(name) for name in names]
        difficult = [_flag(o.find("difficult")) for o in objects]
        raw = [o.child("bndbox") for o in objects]
        width, height = _image_header_size(self.image_path(i))
        boxes = [_box(b, width, height) for b in raw]
        return {
            "boxes": np.array(boxes, dtype=np.float32).reshape(-1, 4),
            "labels": np.array(labels, dtype=np.int64),
            "difficult": np.array(difficult, dtype=bool),
            "image_id": i,
        }

    def _label_of(self, element: Element) -> int:
        name = element.text.strip()
        if name not in self._label:
            known = ", ".join(self.class_names[1:])
            raise element.error(f"unknown class {name!r}; the classes are {known}")
        return self._label[name]


def _find_folder(root: Path, year: str) -> Path:
    candidates = [root / "VOCdevkit" / f"VOC{year}", root / f"VOC{year}", root]
    for folder in candidates:
        if (folder / "Annotations").is_dir() and (folder / "ImageSets").is_dir():
            return folder
    tried = ", ".join(map(str, candidates))
    raise FormatError(f"VOC: no folder with Annotations and ImageSets; tried {tried}")


def _read_split(folder: Path, split: str) -> list[str]:
    path = folder / "ImageSets" / "Main" / f"{split}.txt"
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        there = sorted(p.stem for p in path.parent.glob("*.txt"))
        raise FormatError(f"{path}: no such split; there are: {', '.join(there[:12])}") from None
    except UnicodeDecodeError as error:
        raise FormatError(f"{path}: not a text file: {error}") from error
    # The per-class files of VOC carry a second column (1, 0, -1); the first is the name.
    ids = [line.split()[0] for line in lines if line.strip()]
    if not ids:
        raise FormatError(f"{path}: the split is empty")
    return ids


def _image_header_size(path: Path) -> tuple[int, int]:
    """(width, height) from the file's header, without decoding it."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            return image.size
    except Exception as error:  # Pillow raises several kinds for a broken header
        raise FormatError(f"{path}: cannot read the image: {error}") from error


def _flag(element: Element | None) -> bool:
    if element is None or not element.text.strip():
        return False
    value = element.text.strip()
    if value not in ("0", "1"):
        raise element.error(f"<{element.tag}> is {value!r}, not 0 or 1")
    return value == "1"


def _box(element: Element, width: int, height: int) -> tuple[float, float, float, float]:
    """Edges from 0 of an element with 1-based inclusive corners, checked against the image."""
    xmin, ymin, xmax, ymax = (element.child(t).number() for t in ("xmin", "ymin", "xmax", "ymax"))
    text = f"box xmin {xmin:g}, ymin {ymin:g}, xmax {xmax:g}, ymax {ymax:g}"
    if xmax < xmin or ymax < ymin:
        raise element.error(f"{text} has no area")
    x1, y1, x2, y2 = xmin - 1, ymin - 1, xmax, ymax
    past = max(-x1, -y1, x2 - width, y2 - height)
    if past > _BORDER_PIXELS:
        raise element.error(
            f"{text} is outside the image of {width}x{height} (width x height) pixels"
        )
    x1, y1, x2, y2 = max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height))
    if x2 <= x1 or y2 <= y1:
        raise element.error(f"{text} has no area inside the image of {width}x{height} pixels")
    return x1, y1, x2, y2
