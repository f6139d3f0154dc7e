"""What data sets that are read from files share."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ArgumentError, FormatError
from .dataset import Dataset
from .images import read_image

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG")
# Some tools write 0-based or exclusive corners, one pixel off; more than that is an error.
BORDER_PIXELS = 1.0

Box = tuple[float, float, float, float]


class FileDataset(Dataset):
    """A data set whose targets are read from files, each at its first use, and then kept.

    Subclasses give ``ids``, `image_path` and ``_read_target(i)``; ``_in_training(target)``
    may leave objects out of ``ds[i]`` that `evaluation_target` has.
    """

    ids: Sequence[Any] = ()

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> tuple[np.ndarray, dict[str, Any]]:
        i = self._index(index)
        target = self.evaluation_target(i)  # first: a bad annotation costs no decoding
        keep = self._in_training(target)
        if keep is not None:
            for key, value in target.items():
                if isinstance(value, np.ndarray):
                    target[key] = value[keep]
        return read_image(self.image_path(i)), target

    def evaluation_target(self, index: int) -> dict[str, Any]:
        """The target with all objects, those left out of training included."""
        i = self._index(index)
        kept = self.__dict__.setdefault("_targets", {})
        if i not in kept:
            kept[i] = self._read_target(i)
        return {k: v.copy() if hasattr(v, "copy") else v for k, v in kept[i].items()}

    def image_path(self, index: int) -> Path:
        """The image file of an item."""
        raise NotImplementedError

    def check(self, progress: bool = False) -> Any:
        """Read every annotation and image.

        Returns the data set itself, so that ``ds = VOC(…).check()`` works; raises one
        ``FormatError`` that lists every bad file (the first ten in full).
        """
        indices: Any = range(len(self))
        if progress:
            from tqdm.auto import tqdm

            indices = tqdm(indices, desc=f"check {type(self).__name__}", unit="image", leave=False)
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

    def _read_target(self, i: int) -> dict[str, Any]:
        raise NotImplementedError

    def _in_training(self, target: dict[str, Any]) -> np.ndarray | None:
        """bool (N,): the objects that ``ds[i]`` has; None for all."""
        return None


def checked_names(names: Any, where: str) -> tuple[str, ...]:
    """("background", …) of different class names, with or without the background in front."""
    if isinstance(names, (str, bytes)) or not isinstance(names, Sequence):
        raise ArgumentError(f"{where} must be a sequence of names, got {names!r}")
    result = tuple(names)
    if result[:1] == ("background",):
        result = result[1:]
    if not result or len(set(result)) != len(result):
        raise ArgumentError(f"{where} must be different names, got {names!r}")
    return ("background", *result)


def read_lines(path: Path, what: str) -> list[str]:
    """The lines of a text file; FormatError names it when it is missing or no text."""
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise FormatError(f"{path}: cannot read the {what}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise FormatError(f"{path}: not a text file: {error}") from error


def read_list(path: Path) -> list[list[str]]:
    """The columns of the lines of a split file. FormatError when it is missing or empty."""
    if not path.is_file():
        there = sorted(p.stem for p in path.parent.glob("*.txt"))
        raise FormatError(f"{path}: no such split; there are: {', '.join(there[:12])}")
    rows = [line.split() for line in read_lines(path, "split") if line.strip()]
    if not rows:
        raise FormatError(f"{path}: the split is empty")
    return rows


def find_image(stem: Path, suffixes: Sequence[str] = IMAGE_SUFFIXES) -> Path:
    """The image file with this path and one of the suffixes; FormatError when there is none."""
    for suffix in suffixes:
        path = stem.with_name(stem.name + suffix)
        if path.is_file():
            return path
    raise FormatError(f"{stem}{suffixes[0]}: no such image file")


def image_header_size(path: str | os.PathLike) -> tuple[int, int]:
    """(width, height) from the file's header, without decoding it."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            return image.size
    except FileNotFoundError:
        raise FormatError(f"{path}: no such image file") from None
    except Exception as error:  # Pillow raises several kinds for a broken header
        raise FormatError(f"{path}: cannot read the image: {error}") from error


def clip_box(
    box: Box, size: tuple[int, int], text: str, error: Callable[[str], FormatError]
) -> Box:
    """A box of edges clipped to the image, at most one pixel.

    Parameters
    ----------
    box : x1, y1, x2, y2, edges from 0
    size : (width, height) of the image
    text : the box as the file has it, for messages
    error : makes the ``FormatError`` that names file and place
    """
    x1, y1, x2, y2 = box
    width, height = size
    if x2 <= x1 or y2 <= y1:
        raise error(f"{text} has no area")
    past = max(-x1, -y1, x2 - width, y2 - height)
    if past > BORDER_PIXELS:
        raise error(f"{text} is outside the image of {width}x{height} (width x height) pixels")
    x1, y1, x2, y2 = max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height))
    if x2 <= x1 or y2 <= y1:
        raise error(f"{text} has no area inside the image of {width}x{height} pixels")
    return x1, y1, x2, y2
