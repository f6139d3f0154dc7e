"""COCO: images and one JSON file of annotations."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import FormatError
from .coco_masks import decode_mask
from .files import FileDataset, clip_box, image_header_size
from .json_records import as_box, read_json, table, whole


class COCO(FileDataset):
    """A COCO data set: a folder of images and an ``instances_*.json``.

    Parameters
    ----------
    images : path
        The folder that the ``file_name`` of the images are in.
    annotations : path
        JSON with ``images``, ``categories`` and ``annotations``.
    masks : bool
        Also give ``target["masks"]`` (N, H, W) bool, from polygons or run lengths. They are
        drawn anew for every ``ds[i]``.
    skip_degenerate : bool
        Leave out objects without width or height (COCO's train2017 has one) instead of
        raising ``FormatError``.

    The file's x, y, width, height become x1, y1, x2, y2; parts at most one pixel outside the
    image are clipped. Categories get the labels 1, 2, … in the order of their ids:
    ``ds.category_ids[label]`` is the category's id (-1 for the background). Images without
    annotations stay in. ``ds[i]`` gives ``(image, target)`` with ``boxes``, ``labels``,
    ``iscrowd``, ``area`` (the file's, which COCO's metric sorts by size) and ``image_id`` = i;
    ``ds.ids[i]`` is the image's id in the file.

    The constructor raises ``FormatError`` naming the file and the entry for broken JSON,
    missing fields, ids that occur twice, unknown images and categories, and boxes without
    area; reading an item does for boxes outside the image, broken masks, and images that are
    missing, truncated or of another size than the file says.
    """

    def __init__(
        self,
        images: str | os.PathLike,
        annotations: str | os.PathLike,
        masks: bool = False,
        skip_degenerate: bool = False,
    ):
        self.folder, self.file = Path(images), Path(annotations)
        self.masks = bool(masks)
        content = read_json(self.file)
        categories = table(content, "categories", self.file, {"name": str})
        order = sorted(categories)
        self.category_ids = (-1, *order)
        self.class_names = ("background", *(categories[i]["name"] for i in order))
        self._images = table(content, "images", self.file, {"file_name": str})
        self.ids = list(self._images)
        self._objects: dict[int, list[dict[str, Any]]] = {i: [] for i in self.ids}
        self._label = {category: label for label, category in enumerate(order, start=1)}
        self._sort_objects(content, skip_degenerate)

    def __getitem__(self, index: int) -> tuple[np.ndarray, dict[str, Any]]:
        i = self._index(index)
        image, target = super().__getitem__(i)
        height, width = image.shape[:2]
        if (width, height) != self._size(i):
            raise FormatError(
                f"{self.image_path(i)}: {width}x{height} (width x height) pixels, "
                f"but {self.file} has {'x'.join(map(str, self._size(i)))}"
            )
        if self.masks:
            target["masks"] = self._read_masks(i)
        return image, target

    def image_path(self, index: int) -> Path:
        """The image file of an item."""
        return self.folder / self._images[self.ids[self._index(index)]]["file_name"]

    def check(self, progress: bool = False) -> COCO:
        """Read every image; see `FileDataset.check`."""
        return super().check(progress)

    def __repr__(self) -> str:
        return f"COCO({str(self.folder)!r}, {str(self.file)!r}, {len(self)} images)"

    def _sort_objects(self, content: dict[str, Any], skip_degenerate: bool) -> None:
        """Check the annotations and sort them by image."""
        fields = {"image_id": int, "category_id": int, "bbox": list}
        for key, entry in table(content, "annotations", self.file, fields).items():
            error = self._error(key)
            if entry["image_id"] not in self._objects:
                raise error(f"unknown image_id {entry['image_id']}")
            if entry["category_id"] not in self._label:
                raise error(
                    f"unknown category_id {entry['category_id']}; "
                    f"the categories are {', '.join(map(str, self.category_ids[1:21]))}"
                )
            x, y, width, height = as_box(entry["bbox"], error)
            if width < 0 or height < 0 or (not skip_degenerate and 0 in (width, height)):
                raise error(
                    f"bbox {entry['bbox']} has no area; bbox is x, y, width, height "
                    "(skip_degenerate=True leaves out objects without width or height)"
                )
            if width and height:
                self._objects[entry["image_id"]].append(entry)

    def _error(self, key: int) -> Callable[[str], FormatError]:
        return lambda message: FormatError(f"{self.file}, annotation {key}: {message}")

    def _size(self, i: int) -> tuple[int, int]:
        """(width, height) by the file, or by the image where the file has none."""
        entry = self._images[self.ids[i]]
        if "width" not in entry or "height" not in entry:
            return image_header_size(self.image_path(i))
        where = f"{self.file}, image {self.ids[i]}"
        return whole(entry["width"], f"{where}: width"), whole(entry["height"], f"{where}: height")

    def _read_target(self, i: int) -> dict[str, Any]:
        objects = self._objects[self.ids[i]]
        boxes, areas = [], []
        for entry in objects:
            error = self._error(entry["id"])
            x, y, width, height = as_box(entry["bbox"], error)
            edges = (x, y, x + width, y + height)
            boxes.append(clip_box(edges, self._size(i), f"bbox {entry['bbox']}", error))
            areas.append(_area(entry.get("area"), width * height, error))
        labels = [self._label[entry["category_id"]] for entry in objects]
        crowd = [_flag(e.get("iscrowd", 0), self._error(e["id"])) for e in objects]
        return {
            "boxes": np.array(boxes, dtype=np.float32).reshape(-1, 4),
            "labels": np.array(labels, dtype=np.int64),
            "iscrowd": np.array(crowd, dtype=bool),
            "area": np.array(areas, dtype=np.float64),
            "image_id": i,
        }

    def _read_masks(self, i: int) -> np.ndarray:
        """bool (N, H, W), in the order of the boxes."""
        width, height = self._size(i)
        masks = [
            decode_mask(e.get("segmentation"), height, width, self._error(e["id"]))
            for e in self._objects[self.ids[i]]
        ]
        return np.array(masks, dtype=bool).reshape(-1, height, width)


def _area(value: Any, otherwise: float, error: Callable[[str], FormatError]) -> float:
    if value is None:
        return otherwise
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < np.inf:
        raise error(f"area is {value!r}, not a number from 0")
    return float(value)


def _flag(value: Any, error: Callable[[str], FormatError]) -> bool:
    if value not in (0, 1):
        raise error(f"iscrowd is {value!r}, not 0 or 1")
    return bool(value)
