"""A teacher whose taps are kept on disk."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
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
_DTYPES = ("float32", "float16")
# Convolutions are planned, and round, by the number of images: misses of detectors run as many
# together as the run's batches have, up to these images and pixels; more of them change no bits.
_TOGETHER, _PIXELS = 4, 1 << 19
_SAMPLE = 3  # images that an estimate asks the teacher for
_LARGEST = 65504.0  # of float16
# Other threads and library versions round differently; another function differs by far more.
_SAME = 1e-3


class CachedTeacher(Teacher):
    """See `kd.Teacher.cached`.

    Attributes
    ----------
    hits, misses : entries read, and computed, by this object
    """

    kind = "cached"

    def __init__(self, teacher: Teacher, folder: str | os.PathLike, dtype: str = "float32") -> None:
        if dtype not in _DTYPES:
            raise ArgumentError(
                f"Teacher.cached: dtype is {dtype!r}, expected 'float32' or 'float16'"
            )
        if teacher.names == ():
            raise ArgumentError(f"Teacher.cached: {teacher!r} gives no arrays to keep")
        super().__init__(teacher.names, teacher.class_names)
        self.teacher, self.folder, self.dtype = teacher, Path(folder), dtype
        if self.folder.exists() and not self.folder.is_dir():
            raise ArgumentError(f"Teacher.cached: {self.folder} is a file, expected a folder")
        self.hits = self.misses = 0
        self._together = 1
        self._base = self._look()
        self._trusted = teacher.kind in _DIGESTED
        self._own: set[str] | None = None  # after a change was seen: what was written since
        self._writes = True

    def arrays(self, images: list[np.ndarray], names: Sequence[str] | None) -> Mapping[str, Any]:
        """Taps of every image from disk, or from the teacher and then on disk."""
        if names is None and self.names is None:
            self.names = tuple(self.teacher.outputs(images[:1]))
        wanted = list(self.names if names is None else names)
        if self.teacher.kind == "detector":
            self._together = max(self._together, min(_TOGETHER, len(images)))
        keys = [self._keys(image, wanted) for image in images]
        found = [self._stored(image, own) for image, own in zip(images, keys)]
        self._complete(images, keys, found)
        return {name: joined([one[name] for one in found], name) for name in wanted}

    def taps(self, images: Sequence[np.ndarray]) -> list[dict[str, Any]]:
        """What the teacher behind offers; nothing is written for that.

        Every run begins with it: a teacher whose weights have changed since gets other keys.
        """
        self._base = self._look()
        rows = self.teacher.taps(images)
        self.names = tuple(row["name"] for row in rows)
        return rows

    def _stored(self, image: np.ndarray, keys: dict[str, str]) -> dict[str, Any]:
        """What is kept of an image, None for what is not."""
        stored = {name: self._read(key) for name, key in keys.items()}
        if not self._trusted and any(v is not None for v in stored.values()):
            self._compare(image, {n: v for n, v in stored.items() if v is not None})
            stored = {name: self._read(key) for name, key in keys.items()}
        missing = sum(value is None for value in stored.values())
        self.hits += len(keys) - missing
        self.misses += missing
        return stored

    def _complete(
        self,
        images: list[np.ndarray],
        keys: list[dict[str, str]],
        found: list[dict[str, Any]],
    ) -> None:
        """Compute and keep what is missing, images of one size together."""
        groups: dict[Any, list[int]] = {}
        for i, (image, stored) in enumerate(zip(images, found)):
            missing = tuple(name for name, value in stored.items() if value is None)
            if missing:
                groups.setdefault((image.shape, missing), []).append(i)
        for (shape, missing), places in groups.items():
            together = self._count(shape)
            for start in range(0, len(places), together):
                part = places[start : start + together]
                # Always as many: a value must not depend on what else is missing.
                given = [images[i] for i in (part * together)[:together]]
                fresh = self.teacher.outputs(given, missing)
                for row, i in enumerate(part):
                    for name in missing:
                        found[i][name] = self._keep(keys[i][name], fresh[name][row : row + 1])

    def _keep(self, key: str, fresh: np.ndarray) -> np.ndarray:
        """Write a value; gives what will be read later, which is what must be used now."""
        value, dtype = self._rounded(fresh)
        if np.isfinite(fresh).all():  # what is refused later must not be kept
            self._write(key, fresh, dtype)
        return value

    def _count(self, shape: tuple[int, ...]) -> int:
        """How many images of this size run together."""
        return max(1, min(self._together, _PIXELS // max(1, shape[0] * shape[1])))

    def _rounded(self, array: np.ndarray) -> tuple[np.ndarray, str]:
        """What an entry gives back, and its type: float32 where float16 would overflow."""
        largest = np.abs(array).max(initial=0)
        if self.dtype == "float32" or not largest < _LARGEST:
            return array, "float32"
        return array.astype(np.float16).astype(np.float32), "float16"

    def _read(self, key: str) -> np.ndarray | None:
        if self._own is not None and key not in self._own:
            return None
        return read_entry(entry_path(self.folder, key), key)

    def _write(self, key: str, array: np.ndarray, dtype: str) -> None:
        if self._own is not None:
            self._own.add(key)
        if not self._writes:
            return
        try:
            write_entry(entry_path(self.folder, key), key, array, dtype)
        except OSError as error:
            self._writes = False
            warnings.warn(
                f"{self.folder}: nothing more is cached: {error.strerror or error}", stacklevel=2
            )

    def _compare(self, image: np.ndarray, stored: dict[str, np.ndarray]) -> None:
        """Once: whether a teacher that has no weights to look at still gives what is kept."""
        self._trusted = True
        for name, fresh in self.teacher.outputs([image], list(stored)).items():
            kept, fresh = stored[name], self._rounded(fresh)[0]
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

    def _keys(self, image: np.ndarray, names: Sequence[str]) -> dict[str, str]:
        """The key of every tap; pixels are looked at once."""
        pixels = _digest(np.ascontiguousarray(image))
        view = f"{pixels}|{image.dtype.str}|{image.shape}|{self._count(image.shape)}"
        return {name: _digest(f"{self._base}|{name}|{view}".encode()) for name in names}

    def _look(self) -> str:
        """A digest of what values depend on beside image and tap."""
        words = json.dumps(self.teacher.description(), sort_keys=True)
        # Entries of one type are never read as the other: values would depend on who came first.
        return _digest(words.encode(), b"" if self.dtype == "float32" else self.dtype.encode())

    def estimate(self, dataset: Any, names: Sequence[str] | None = None) -> dict[str, Any]:
        """What will be written, found out with the first images (at most 3) of a data set.

        Returns ``bytes_per_image`` (of the first), ``images``, ``bytes`` and ``seconds`` of the
        teacher for all of them (without random augmentation), and ``free`` bytes on the disk. With
        float16 also what rounding does, for the worst tap: ``max_error``, the largest error over
        the largest value, and ``mean_error``, the mean error over the mean value (both absolute).
        """
        from ..data.images import as_image, to_uint8

        found, times = [], []
        for i in range(min(_SAMPLE, len(dataset))):
            image = to_uint8(as_image(dataset[i][0], f"item {i}"))
            start = time.perf_counter()
            found.append(self.teacher.outputs([image], names))
            times.append(time.perf_counter() - start)
        size = sum(_size(array, self._rounded(array)[1]) for array in found[0].values())
        there = next(p for p in (self.folder, *self.folder.absolute().parents) if p.exists())
        result = {
            "bytes_per_image": size,
            "images": len(dataset),
            "bytes": size * len(dataset),
            # The first image also pays for what is set up once.
            "seconds": float(np.median(times[1:] or times)) * len(dataset),
            "free": shutil.disk_usage(there).free,
        }
        return result if self.dtype == "float32" else result | self._errors(found)

    def _errors(self, found: Sequence[Mapping[str, np.ndarray]]) -> dict[str, float]:
        """What float16 loses, for the worst tap."""
        worst = {"max_error": 0.0, "mean_error": 0.0}
        for name in found[0]:
            values = np.concatenate([one[name].ravel() for one in found]).astype(np.float64)
            kept = np.concatenate([self._rounded(one[name])[0].ravel() for one in found])
            error, size = np.abs(kept - values), np.abs(values)
            if not size.any():
                continue
            worst["max_error"] = max(worst["max_error"], float(error.max() / size.max()))
            worst["mean_error"] = max(worst["mean_error"], float(error.mean() / size.mean()))
        return worst

    def description(self) -> dict[str, Any]:
        """The teacher's own, and rounding; where it is kept does not matter."""
        kind = {} if self.dtype == "float32" else {"dtype": self.dtype}
        return {"kind": self.kind, "teacher": self.teacher.description(), **kind}

    def close(self) -> None:
        """Close the teacher behind; the files stay."""
        self.teacher.close()

    def __repr__(self) -> str:
        kind = "" if self.dtype == "float32" else f", {self.dtype}"
        return f"Teacher(cached: {self.teacher!r} in {self.folder}{kind})"


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


def _size(array: np.ndarray, dtype: str) -> int:
    return array.size * np.dtype(dtype).itemsize


def _digest(*parts: Any) -> str:
    result = hashlib.blake2b(digest_size=20)
    for part in parts:
        result.update(part)
    return result.hexdigest()
