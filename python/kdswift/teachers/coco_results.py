"""Detections of a COCO results file as teacher: boxes, no taps."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .._numbers import check_fraction
from ..detections import Detections
from ..errors import ArgumentError, FormatError
from ..teacher import Teacher

_KEYS = ("image_id", "category_id", "bbox", "score")


class CocoResultsTeacher(Teacher):
    """See `kd.Teacher.from_coco_results`."""

    kind = "coco results"

    def __init__(
        self,
        results: Any,
        dataset: Any,
        score_threshold: float,
        keep_ground_truth: bool,
        iou_threshold: float,
        categories: Mapping[int, Any] | None,
    ) -> None:
        where = "Teacher.from_coco_results"
        self.score_threshold = check_fraction(score_threshold, "score_threshold", where)
        self.iou_threshold = check_fraction(iou_threshold, "iou_threshold", where)
        self.keep_ground_truth = bool(keep_ground_truth)
        super().__init__((), getattr(dataset, "class_names", None))
        self.num_classes = getattr(dataset, "num_classes", None)
        if self.class_names is not None:
            self.num_classes = len(self.class_names)
        self.source, entries = _read(results)
        labels = _labels(categories, dataset, self.class_names)
        self._found = self._grouped(entries, labels)
        self.by_ids = self._key_of_images(dataset)
        text = json.dumps(sorted(map(json.dumps, entries)))
        self._digest = hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    def detections(self, image_id: Any) -> Detections:
        """What the file holds of an image, best score first; none for an image it does not know."""
        found = self._found.get(str(image_id))
        if found is None:
            return Detections(
                np.zeros((0, 4)), np.zeros(0), np.zeros(0, np.int64), None, self.class_names
            )
        return found

    @property
    def image_ids(self) -> tuple[str, ...]:
        """The images of the file, as text."""
        return tuple(self._found)

    def count(self) -> int:
        """Detections with enough score, over all images."""
        return sum(int((d.scores >= self.score_threshold).sum()) for d in self._found.values())

    def arrays(self, images: list[np.ndarray], names: Sequence[str] | None) -> Mapping[str, Any]:
        """There are none."""
        raise ArgumentError(f"{self!r} gives boxes, no arrays; see kd.data.PseudoLabels")

    def description(self) -> dict[str, Any]:
        """A digest of the detections, and how they become targets."""
        return {
            "kind": self.kind,
            "results": self._digest,
            "score_threshold": self.score_threshold,
            "iou_threshold": self.iou_threshold,
            "keep_ground_truth": self.keep_ground_truth,
        }

    def __repr__(self) -> str:
        return f"Teacher({self.source}: {self.count():,} boxes in {len(self._found):,} images)"

    def _grouped(
        self, entries: list[dict[str, Any]], labels: dict[int, int] | None
    ) -> dict[str, Detections]:
        groups: dict[str, list[tuple[float, list[float], int]]] = {}
        for i, entry in enumerate(entries):
            image, label, box, score = self._entry(entry, labels, f"{self.source}: entry {i}")
            groups.setdefault(str(image), []).append((score, box, label))
        result = {}
        for image, found in groups.items():
            found.sort(key=lambda f: -f[0])  # stable: equal scores stay in the file's order
            scores, boxes, classes = zip(*found)
            result[image] = Detections(
                *(np.array(boxes), np.array(scores), np.array(classes), None, self.class_names)
            )
        return result

    def _entry(self, entry: Any, labels: dict[int, int] | None, where: str) -> tuple:
        if not isinstance(entry, Mapping) or any(key not in entry for key in _KEYS):
            raise FormatError(f"{where}: expected a dict with {', '.join(_KEYS)}, got {entry!r}")
        box, score, category = entry["bbox"], entry["score"], entry["category_id"]
        numbers = [*box, score] if isinstance(box, (list, tuple)) and len(box) == 4 else []
        good = numbers and all(
            isinstance(v, (int, float)) and not isinstance(v, bool) and math.isfinite(v)
            for v in numbers
        )
        if not good or box[2] <= 0 or box[3] <= 0 or not 0 <= score <= 1:
            raise FormatError(
                f"{where}: bbox {box!r} must be [x, y, width, height] with an area, score "
                f"{score!r} from 0 to 1"
            )
        label = category if labels is None else labels.get(category)
        most = self.num_classes
        if not isinstance(label, int) or label < 1 or (most is not None and label >= most):
            known = "1 to " + str((most or 2) - 1) if labels is None else str(sorted(labels))[:200]
            raise ArgumentError(
                f"{where}: category_id {category!r} is none of the data set's ({known}); give "
                "categories={category_id: class name}"
            )
        x, y, width, height = map(float, box)
        return entry["image_id"], label, [x, y, x + width, y + height], float(score)

    def _key_of_images(self, dataset: Any) -> bool:
        """Whether the file calls images by the data set's ids (True) or by their positions."""
        ids = getattr(dataset, "ids", None)
        if ids is None or not self._found:
            return ids is not None
        found = set(self._found)
        names, places = {str(i) for i in ids}, {str(i) for i in range(len(ids))}
        if not found & (names | places):
            raise ArgumentError(
                f"{self.source}: none of its images is in the data set; its first is "
                f"{next(iter(self._found))}, the data set's {next(iter(ids), None)}"
            )
        # COCO's ids are numbers too: they may look like positions.
        return len(found & names) >= len(found & places)


def _read(results: Any) -> tuple[str, list[dict[str, Any]]]:
    if isinstance(results, (str, os.PathLike)):
        name = os.fspath(results)
        try:
            with open(name, encoding="utf-8") as file:
                entries = json.load(file)
        except FileNotFoundError:
            raise FormatError(f"{name}: no such file") from None
        except (OSError, ValueError) as error:
            raise FormatError(f"{name}: no COCO results: {error}") from None
    else:
        name, entries = "results", results
    if not isinstance(entries, (list, tuple)):
        raise FormatError(
            f"{name}: COCO results are a list of detections, got {type(entries).__name__}"
        )
    return name, list(entries)


def _labels(
    categories: Mapping[int, Any] | None, dataset: Any, names: Sequence[str] | None
) -> dict[int, int] | None:
    """{category id: label}; None where they are the same."""
    if categories is None:
        ids = getattr(dataset, "category_ids", None)
        if ids is None or callable(ids):
            return None
        if isinstance(ids, Mapping):  # {label: id}, as `Detections.to_coco` takes it
            return {int(c): int(label) for label, c in ids.items()}
        ids = list(ids)
        first = 0 if names is not None and len(ids) == len(names) else 1
        return {int(c): i + first for i, c in enumerate(ids) if i + first > 0}
    result = {}
    for category, value in categories.items():
        if isinstance(value, str):
            if names is None or value not in names[1:]:
                raise ArgumentError(
                    f"Teacher.from_coco_results: categories[{category!r}] is {value!r}; the "
                    f"classes are {', '.join((names or ())[1:]) or 'not named'}"
                )
            value = list(names).index(value, 1)
        result[category] = value
    return result
