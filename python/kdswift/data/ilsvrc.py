"""ILSVRC's detection task (DET)."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ArgumentError, FormatError
from .files import FileDataset, checked_names, image_header_size, read_lines, read_list
from .xml_objects import read_annotation, read_objects

# Files count pixels from 0 and include the last one; what turns that into edges from 0.
_EDGES = (0.0, 0.0, 1.0, 1.0)
_MAPS = ("devkit/data/map_det.txt", "data/map_det.txt", "map_det.txt")


class ILSVRCDet(FileDataset):
    """``root/{Data,Annotations,ImageSets}/DET`` of the ImageNet challenge.

    Parameters
    ----------
    root : path
        Holds ``Data``, ``Annotations`` and ``ImageSets``, or the folder ``ILSVRC`` that does.
    split : str or path
        ``"train"``, ``"val"``, or another list of ``ImageSets/DET``, or the path of a list file
        ("val1" and "val2" of R-CNN, for one). Its name begins with the folder of its images,
        train, val or test. Lines are "name" or "name index". In the lists of one class,
        ``"train_1"`` to ``"train_200"``, the second column is a flag: images that may show the
        class without annotation (0) are left out, images without it (-1) need no XML file.
    classes : sequence of WordNet ids, mapping from ids to names, or None
        In the order of the labels 1, 2, …. None: the classes of the devkit's ``map_det.txt``,
        when it is there (in ``devkit/data``, ``data`` or the root itself), otherwise the
        sorted ids in the split's annotation files, all of which are read for that.

    ``ds.wnids[label]`` is the WordNet id, ``ds.class_names[label]`` the name. Files count pixels
    from 0 and include the last one: (xmin, ymin, xmax, ymax) becomes (xmin, ymin, xmax + 1,
    ymax + 1), clipped at most one pixel. Targets and errors as in `VOC`.
    """

    def __init__(
        self,
        root: str | os.PathLike,
        split: str | os.PathLike = "train",
        classes: Sequence[str] | Mapping[str, str] | None = None,
    ):
        self.root, self.split = _find_root(Path(root)), split
        path = Path(split)
        if isinstance(split, str) and path.suffix != ".txt":
            path = self.root / "ImageSets" / "DET" / f"{split}.txt"
        folder = re.match(r"train|val|test", path.stem)
        if folder is None:
            raise ArgumentError(
                f"ILSVRCDet: split {str(split)!r} does not begin with train, val or test"
            )
        self._folder = folder.group()
        self.ids, self._without = _read_names(path)
        names = _class_map(self.root) if classes is None else classes
        if names is None:
            names = self._collect()
        if not isinstance(names, Mapping):
            wnids = checked_names(names, "ILSVRCDet: classes")[1:]
            names = dict(zip(wnids, wnids))
        self.wnids = ("background", *names)
        self.class_names = checked_names(tuple(names.values()), "ILSVRCDet: class names")
        self._label = {wnid: i for i, wnid in enumerate(self.wnids) if i}

    def image_path(self, index: int) -> Path:
        """The image file of an item; FormatError when it is missing."""
        name = self.ids[self._index(index)]
        path = self.root / "Data" / "DET" / self._folder / f"{name}.JPEG"
        if not path.is_file():
            raise FormatError(f"{path}: no such image file")
        return path

    def annotation_path(self, index: int) -> Path:
        """The XML file of an item."""
        name = self.ids[self._index(index)]
        return self.root / "Annotations" / "DET" / self._folder / f"{name}.xml"

    def __repr__(self) -> str:
        return f"ILSVRCDet({str(self.root)!r}, split={str(self.split)!r}, {len(self)} images)"

    def _read_target(self, i: int) -> dict[str, Any]:
        def size() -> tuple[int, int]:
            return image_header_size(self.image_path(i))

        if self._needs_no_file(i):
            none = np.zeros(0, dtype=np.int64)
            boxes = np.zeros((0, 4), dtype=np.float32)
            return {"boxes": boxes, "labels": none, "difficult": none > 0, "image_id": i}
        return {**read_objects(self.annotation_path(i), self._label, size, _EDGES), "image_id": i}

    def _needs_no_file(self, i: int) -> bool:
        return self.ids[i] in self._without and not self.annotation_path(i).is_file()

    def _collect(self) -> list[str]:
        """The sorted ids of the classes in the annotation files."""
        found = set()
        for i in range(len(self)):
            if not self._needs_no_file(i):
                objects = read_annotation(self.annotation_path(i))
                found |= {o.child("name").text.strip() for o in objects}
        if not found:
            raise FormatError(f"{self.root}: no objects in the annotations of {self.split}")
        return sorted(found)


def _find_root(root: Path) -> Path:
    for folder in (root, root / "ILSVRC"):
        if (folder / "Annotations" / "DET").is_dir() and (folder / "ImageSets" / "DET").is_dir():
            return folder
    raise FormatError(f"ILSVRCDet: no Annotations/DET and ImageSets/DET in {root} or its ILSVRC")


def _read_names(path: Path) -> tuple[list[str], set[str]]:
    """The names of a list, and those that are known not to show the list's class."""
    rows = read_list(path)
    if not re.fullmatch(r"train_\d+", path.stem):
        return [row[0] for row in rows], set()
    for number, row in enumerate(rows, start=1):
        if len(row) != 2 or row[1] not in ("-1", "0", "1"):
            raise FormatError(f"{path}, entry {number}: {' '.join(row)!r}, not a name and -1, 0, 1")
    return [r[0] for r in rows if r[1] != "0"], {r[0] for r in rows if r[1] == "-1"}


def _class_map(root: Path) -> dict[str, str] | None:
    """Names by WordNet id in the order of the devkit's numbers; None without the file."""
    path = next((root / name for name in _MAPS if (root / name).is_file()), None)
    if path is None:
        return None
    entries: dict[int, tuple[str, str]] = {}
    for number, line in enumerate(read_lines(path, "class list"), start=1):
        columns = line.split(maxsplit=2)
        if not columns:
            continue
        if len(columns) != 3 or not columns[1].isdecimal():
            raise FormatError(f"{path}, line {number}: expected WordNet id, number, name")
        if int(columns[1]) in entries:
            raise FormatError(f"{path}, line {number}: number {columns[1]} occurs twice")
        entries[int(columns[1])] = (columns[0], columns[2].strip())
    result = dict(entries[number] for number in sorted(entries))
    if not result or len(set(result.values())) != len(entries):
        raise FormatError(f"{path}: no classes, or one that occurs twice")
    return result
