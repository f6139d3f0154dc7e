"""A teacher whose taps are kept on disk."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ArgumentError, ShapeError
from ..teacher import Teacher
from .store import entry_path, read_entry, write_entry

# Kinds whose description holds a digest of all weights; others may change unseen.
_DIGESTED = ("detector", "torch", "onnx")
# Other threads and library versions round differently; another function differs by far more.
_SAME = 1e-3


class CachedTeacher(Teacher):
    """See `kd.Teacher.cached`.

    Attributes
    ----------
    hits, misses : entries read, and computed, by this object
    """

    kind = "cached"

    def __init__(self, teacher: Teacher, folder: str | os.PathLike) -> None:
        if teacher.names == ():
            raise ArgumentError(f"Teacher.cached: {teacher!r} gives no arrays to keep")
        super().__init__(teacher.names, teacher.class_names)
        self.teacher, self.folder = teacher, Path(folder)
        if self.folder.exists() and not self.folder.is_dir():
            raise ArgumentError(f"Teacher.cached: {self.folder} is a file, expected a folder")
        self.hits = self.misses = 0
        self._base = _digest(json.dumps(teacher.description(), sort_keys=True).encode())
        self._trusted = teacher.kind in _DIGESTED
        self._own: set[str] | None = None  # after a change was seen: what was written since
        self._writes = True

    def arrays(self, images: list[np.ndarray], names: Sequence[str] | None) -> Mapping[str, Any]:
        """Taps of every image from disk, or from the teacher and then on disk."""
        if names is None and self.names is None:
            self.names = tuple(self.teacher.outputs(images[:1]))
        wanted = list(self.names if names is None else names)
        found = [self._image(image, wanted) for image in images]
        return {name: joined([one[name] for one in found], name) for name in wanted}

    def taps(self, images: Sequence[np.ndarray]) -> list[dict[str, Any]]:
        """What the teacher behind offers; nothing is written for that."""
        rows = self.teacher.taps(images)
        self.names = tuple(row["name"] for row in rows)
        return rows

    def _image(self, image: np.ndarray, names: list[str]) -> dict[str, np.ndarray]:
        keys = {name: self._key(image, name) for name in names}
        stored = {name: self._read(key) for name, key in keys.items()}
        if not self._trusted and any(v is not None for v in stored.values()):
            self._compare(image, {n: v for n, v in stored.items() if v is not None})
            stored = {name: self._read(key) for name, key in keys.items()}
        missing = [name for name, value in stored.items() if value is None]
        self.hits += len(names) - len(missing)
        self.misses += len(missing)
        if missing:
            fresh = self.teacher.outputs([image], missing)
            for name in missing:
                stored[name] = fresh[name]
                if np.isfinite(fresh[name]).all():  # what is refused later must not be kept
                    self._write(keys[name], fresh[name])
        return stored

    def _read(self, key: str) -> np.ndarray | None:
        if self._own is not None and key not in self._own:
            return None
        return read_entry(entry_path(self.folder, key), key)

    def _write(self, key: str, array: np.ndarray) -> None:
        if self._own is not None:
            self._own.add(key)
        if not self._writes:
            return
        try:
            write_entry(entry_path(self.folder, key), key, array)
        except OSError as error:
            self._writes = False
            warnings.warn(
                f"{self.folder}: nothing more is cached: {error.strerror or error}", stacklevel=2
            )

    def _compare(self, image: np.ndarray, stored: dict[str, np.ndarray]) -> None:
        """Once: whether a teacher that has no weights to look at still gives what is kept."""
        self._trusted = True
        for name, fresh in self.teacher.outputs([image], list(stored)).items():
            kept = stored[name]
            limit = _SAME * max(1e-30, float(np.abs(fresh).max(initial=0)))
            if fresh.shape == kept.shape and (np.abs(fresh - kept) <= limit).all():
                continue
            warnings.warn(
                f"{self.folder}: the teacher has changed since {name!r} was kept; its entries are "
                "computed anew (from_callable's version= tells teachers apart)",
                stacklevel=2,
            )
            self._own = set()
            return

    def _key(self, image: np.ndarray, name: str) -> str:
        words = f"{self._base}|{name}|{image.dtype.str}|{image.shape}|".encode()
        return _digest(words, np.ascontiguousarray(image))

    def estimate(self, dataset: Any, names: Sequence[str] | None = None) -> dict[str, int]:
        """What will be written, found out with the first image of a data set.

        Returns ``bytes_per_image``, ``images``, ``bytes`` (without random augmentation) and
        ``free`` bytes on the disk.
        """
        from ..data.images import as_image, to_uint8

        image = to_uint8(as_image(dataset[0][0], "item 0"))
        size = sum(array.nbytes for array in self.teacher.outputs([image], names).values())
        there = next(p for p in (self.folder, *self.folder.absolute().parents) if p.exists())
        return {
            "bytes_per_image": size,
            "images": len(dataset),
            "bytes": size * len(dataset),
            "free": shutil.disk_usage(there).free,
        }

    def description(self) -> dict[str, Any]:
        """The teacher's own; where it is kept does not matter."""
        return {"kind": self.kind, "teacher": self.teacher.description()}

    def close(self) -> None:
        """Close the teacher behind; the files stay."""
        self.teacher.close()

    def __repr__(self) -> str:
        return f"Teacher(cached: {self.teacher!r} in {self.folder})"


def joined(arrays: Sequence[np.ndarray], name: str) -> np.ndarray:
    """One array from those of single images; smaller maps get zeros on the right and below."""
    shapes = {array.shape for array in arrays}
    if len(shapes) == 1:
        return np.concatenate(arrays)
    if any(len(s) != 4 for s in shapes) or len({s[1] for s in shapes}) != 1:
        shown = " and ".join(map(str, sorted(shapes)[:4]))
        raise ShapeError(f"teacher: tap {name!r} has unlike shapes in one batch: {shown}")
    height, width = max(s[2] for s in shapes), max(s[3] for s in shapes)
    result = np.zeros((len(arrays), arrays[0].shape[1], height, width), np.float32)
    for slot, array in zip(result, arrays):
        slot[:, : array.shape[2], : array.shape[3]] = array[0]
    return result


def _digest(*parts: Any) -> str:
    result = hashlib.blake2b(digest_size=20)
    for part in parts:
        result.update(part)
    return result.hexdigest()
