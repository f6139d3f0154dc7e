"""What the package's own data sets share. Any sequence of (image, target) pairs is a data set."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import ArgumentError


class Dataset:
    """A sequence of ``(image, target)`` pairs with names for its classes.

    Subclasses give ``class_names`` (index 0 is ``"background"``), ``__len__`` and
    ``__getitem__``. An image is uint8 RGB (H, W, 3); a target is a dict with ``boxes``
    (N, 4) float32 xyxy pixels, ``labels`` (N,) int64 from 1, and ``image_id``.
    """

    class_names: tuple[str, ...] = ("background",)

    def __len__(self) -> int:
        raise NotImplementedError

    def __getitem__(self, index: int) -> tuple[np.ndarray, dict[str, Any]]:
        raise NotImplementedError

    @property
    def num_classes(self) -> int:
        """Number of classes, the background counted (torchvision's convention)."""
        return len(self.class_names)

    def show(self, n: int = 6, columns: int = 3, start: int = 0) -> Any:
        """A PIL picture of items `start` … `start + n - 1` with their boxes, in rows."""
        from ..viz import draw, grid

        indices = range(start, min(start + n, len(self)))
        if columns < 1 or len(indices) == 0:
            raise ArgumentError(
                f"show: nothing to show with n={n}, columns={columns}, start={start}"
            )
        pictures = [draw(*self[i], class_names=self.class_names) for i in indices]
        return grid([pictures[i : i + columns] for i in range(0, len(pictures), columns)])

    def _index(self, index: int) -> int:
        """A checked, non-negative index; IndexError past the end, as sequences do."""
        size = len(self)
        i = index.__index__() if hasattr(index, "__index__") else None
        if i is None:
            raise ArgumentError(f"{type(self).__name__}: index must be an integer, got {index!r}")
        if not -size <= i < size:
            raise IndexError(f"{type(self).__name__}: index {i} out of range for {size} items")
        return i + size if i < 0 else i
