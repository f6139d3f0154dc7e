"""KITTI's object detection data."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..errors import FormatError
from .files import (
    Box,
    FileDataset,
    checked_names,
    clip_box,
    find_image,
    image_header_size,
    read_lines,
    read_list,
)

KITTI_CLASSES = ("Car", "Pedestrian", "Cyclist")
# A detector that takes one of these for its neighbour is neither right nor wrong.
_NEIGHBOURS = {"Van": "Car", "Person_sitting": "Pedestrian"}
_TYPES = {*KITTI_CLASSES, *_NEIGHBOURS, "Truck", "Tram", "Misc", "DontCare"}
_FIELDS = 15


class KITTI(FileDataset):
    """``root/training/image_2/*.png``, ``root/training/label_2/*.txt``, ``root/ImageSets/*.txt``.

    Parameters
    ----------
    root : path
        The folder that holds ``training``.
    split : str or path
        ``"train"``, ``"val"``, ``"trainval"`` or another name of a list in ``ImageSets``, or the
        path of a list file; one name per line. Without ``ImageSets``, "trainval" is every
        file of ``label_2`` (KITTI itself has no lists; papers publish theirs).
    classes : sequence of str
        Names in the order of the labels 1, 2, …. Other types are background, but for:
    use_ignored : bool
        Give the ignored objects in ``ds[i]`` too; `evaluation_target` always has them. A Van
        is ignored for Car and a Person_sitting for Pedestrian: it has their label and
        ``difficult``. A DontCare area stands once for every class, with ``iscrowd``.

    Corners are taken as the file has them, edges from 0; at most one pixel outside the image
    is clipped. Targets have ``boxes``, ``labels``, ``difficult``, ``iscrowd``, ``image_id`` = i
    and, for the difficulties of ``kd.evaluate(…, metric="kitti_r40")``, the file's
    ``truncated`` (0 to 1), ``occluded`` (0 to 3) and ``height`` (pixels), which are -1 where
    the file does not tell. Reading an item raises ``FormatError`` with file and line for a
    line that has not 15 fields, an unknown type, values that are no numbers or out of range,
    and boxes outside the image or without area.
    """

    def __init__(
        self,
        root: str | os.PathLike,
        split: str | os.PathLike = "train",
        classes: Sequence[str] = KITTI_CLASSES,
        use_ignored: bool = False,
    ):
        self.root, self.split, self.use_ignored = Path(root), split, bool(use_ignored)
        self.folder = self.root / "training"
        if not (self.folder / "label_2").is_dir():
            raise FormatError(f"KITTI: no folder {self.folder / 'label_2'}")
        self.class_names = checked_names(classes, "KITTI: classes")
        self._label = {name: i for i, name in enumerate(self.class_names) if i}
        self.ids = _read_ids(self.root, split)

    def image_path(self, index: int) -> Path:
        """The image file of an item; FormatError when it is missing."""
        stem = self.folder / "image_2" / self.ids[self._index(index)]
        return find_image(stem, (".png", ".jpg"))

    def annotation_path(self, index: int) -> Path:
        """The label file of an item."""
        return self.folder / "label_2" / f"{self.ids[self._index(index)]}.txt"

    def __repr__(self) -> str:
        return f"KITTI({str(self.root)!r}, split={str(self.split)!r}, {len(self)} images)"

    def _read_target(self, i: int) -> dict[str, Any]:
        path = self.annotation_path(i)
        objects = [
            read_object(line, f"{path}, line {number}", self._label)
            for number, line in enumerate(read_lines(path, "labels"), start=1)
            if line.strip()
        ]
        size = image_header_size(self.image_path(i))
        rows = []
        for thing in objects:
            roles = self._roles(thing.type)
            if roles:
                text = "box left {:g}, top {:g}, right {:g}, bottom {:g}".format(*thing.box)
                box = clip_box(thing.box, size, text, thing.error)
                rows += [(box, *role, thing) for role in roles]
        return {
            "boxes": np.array([r[0] for r in rows], dtype=np.float32).reshape(-1, 4),
            "labels": np.array([r[1] for r in rows], dtype=np.int64),
            "difficult": np.array([r[2] for r in rows], dtype=bool),
            "iscrowd": np.array([r[3] for r in rows], dtype=bool),
            "truncated": np.array([r[4].truncated for r in rows], dtype=np.float64),
            "occluded": np.array([r[4].occluded for r in rows], dtype=np.int64),
            # In double precision: the difficulties ask whether it is more than 25 or 40.
            "height": np.array([r[4].box[3] - r[4].box[1] for r in rows], dtype=np.float64),
            "image_id": i,
        }

    def _roles(self, kind: str) -> list[tuple[int, bool, bool]]:
        """(label, difficult, iscrowd) of everything that an object of this type stands for."""
        if kind == "DontCare":
            return [(label, False, True) for label in self._label.values()]
        roles = [(self._label[kind], False, False)] if kind in self._label else []
        main = _NEIGHBOURS.get(kind)
        return [*roles, (self._label[main], True, False)] if main in self._label else roles

    def _in_training(self, target: dict[str, Any]) -> np.ndarray | None:
        return None if self.use_ignored else ~(target["difficult"] | target["iscrowd"])


class Object(NamedTuple):
    """One line of a label file; `where` names file and line."""

    type: str
    truncated: float
    occluded: int
    box: Box
    where: str

    def error(self, message: str) -> FormatError:
        return FormatError(f"{self.where}: {message}")


def read_object(line: str, where: str, classes: Any = ()) -> Object:
    """A line: type, truncated, occluded, alpha, box (4), dimensions (3), place (3), rotation.

    `classes` are types besides KITTI's own. Raises ``FormatError`` that begins with `where`.
    """
    fields = line.split()
    if len(fields) != _FIELDS:
        raise FormatError(f"{where}: expected {_FIELDS} fields, got {len(fields)}")
    if fields[0] not in _TYPES and fields[0] not in classes:
        known = ", ".join(sorted({*_TYPES, *classes}))
        raise FormatError(f"{where}: unknown type {fields[0]!r}; the types are {known}")
    numbers = [_number(text, i, where) for i, text in enumerate(fields[1:], start=2)]
    truncated, occluded = numbers[:2]
    if truncated != -1 and not 0 <= truncated <= 1:
        raise FormatError(f"{where}: truncated is {fields[1]}, not 0 to 1 or -1")
    if occluded not in (-1, 0, 1, 2, 3):
        raise FormatError(f"{where}: occluded is {fields[2]}, not 0, 1, 2, 3 or -1")
    x1, y1, x2, y2 = numbers[3:7]
    return Object(fields[0], truncated, int(occluded), (x1, y1, x2, y2), where)


def _number(text: str, position: int, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise FormatError(f"{where}: field {position} is {text!r}, not a number")
    return value


def _read_ids(root: Path, split: str | os.PathLike) -> list[str]:
    path = Path(split)
    if isinstance(split, str) and path.suffix != ".txt":
        path = root / "ImageSets" / f"{split}.txt"
        if not path.parent.is_dir():
            if split != "trainval":
                raise FormatError(
                    f"{path}: no such split; without ImageSets there is 'trainval', or the "
                    "path of a list file"
                )
            ids = sorted(p.stem for p in (root / "training" / "label_2").glob("*.txt"))
            if not ids:
                raise FormatError(f"{root / 'training' / 'label_2'}: no label files")
            return ids
    return [row[0] for row in read_list(path)]
