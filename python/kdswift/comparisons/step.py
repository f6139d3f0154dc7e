"""What a comparison may look at in one step of a run."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import TypeVar

import numpy as np

from ..errors import ArgumentError
from ..tensors import Tensor

Value = TypeVar("Value")
Source = tuple[int, str]  # (number of the teacher, name of its tap)


class Step:
    """One step: the student's taps on the tape, the teachers' off it, and the targets.

    Attributes
    ----------
    number : steps done before this one
    """

    def __init__(
        self, taps: Mapping[str, Tensor], arrays: Mapping[Source, Tensor], number: int, seed: int
    ) -> None:
        self._taps, self._arrays = taps, arrays
        self.number, self._seed = number, seed
        self._kept: dict[object, object] = {}

    def student(self, name: str) -> Tensor:
        """A tap of the student, on the tape."""
        return self._taps[f"student.{name}"]

    def teacher(self, source: Source) -> Tensor:
        """A tap of a teacher; no gradient goes there."""
        return self._arrays[source].detach()

    @cached_property
    def input_size(self) -> tuple[int, int]:
        """Height and width of the student's padded input."""
        height, width = self._taps["input.size"].numpy()
        return int(height), int(width)

    @cached_property
    def image_sizes(self) -> list[tuple[int, int]]:
        """Height and width of every image inside it."""
        return [(int(h), int(w)) for h, w in self._taps["input.sizes"].numpy()]

    @cached_property
    def boxes(self) -> list[np.ndarray]:
        """(M, 4) float32 of every image: its objects, xyxy in pixels of the student's input."""
        rows = self._taps["input.boxes"].numpy()
        return [rows[rows[:, 0] == i, 1:] for i in range(len(self.image_sizes))]

    @cached_property
    def labels(self) -> list[np.ndarray]:
        """(M,) int64 of every image."""
        images = self._taps["input.boxes"].numpy()[:, 0]
        labels = self._taps["input.labels"].numpy()
        return [labels[images == i] for i in range(len(self.image_sizes))]

    @cached_property
    def regions(self) -> np.ndarray:
        """(R, 5) float32: the student's sampled regions, image and xyxy in pixels of its input."""
        regions = self._taps.get("student.roi.regions")
        if regions is None:
            raise ArgumentError("the student is a one-stage detector: it proposes no regions")
        return regions.numpy()

    def teacher_regions(self) -> np.ndarray:
        """The same regions in pixels of the first detector that teaches."""
        rows = self.regions.copy()
        theirs = self._taps.get("teacher_input.scales")
        if theirs is None:
            return rows
        ratio = theirs.numpy() / self._taps["input.scales"].numpy()
        for image, (y, x) in enumerate(ratio):
            if y != 1 or x != 1:
                rows[rows[:, 0] == image, 1:] *= np.array([x, y, x, y], np.float32)
        return rows

    def once(self, key: object, make: Callable[[], Value]) -> Value:
        """What `make` gives, computed once in this step; it goes with the step."""
        if key not in self._kept:
            self._kept[key] = make()
        return self._kept[key]  # type: ignore[return-value]

    def random(self, name: str) -> np.random.Generator:
        """Random numbers of this step for one purpose: the same again when a run is resumed."""
        return np.random.Generator(
            np.random.PCG64([self._seed, 104729, self.number, zlib.crc32(name.encode())])
        )
