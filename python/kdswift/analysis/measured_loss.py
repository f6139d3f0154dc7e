"""The detection loss of a model on a fixed set of images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .._autograd import no_grad
from .._inputs import learnable
from .._numbers import check_count
from ..data.images import as_image, to_uint8
from ..errors import ArgumentError, KDSError
from ..mtpd.zoo import dataset_of
from .directions import Moved


def chosen(data: Any, images: int, seed: int, where: str) -> tuple[Any, list[int]]:
    """The data set and the items that are used: the same for the same seed."""
    check_count(images, "images", where)
    dataset = dataset_of(data, "data", where)
    rng = np.random.Generator(np.random.PCG64([seed, 49979687]))
    return dataset, sorted(int(i) for i in rng.permutation(len(dataset))[:images])


class MeasuredLoss:
    """The mean loss over images in batches, the same batches and samples at every call.

    A batch's losses are summed, and weighed by its number of images. What a detector samples
    (anchors, proposals) is drawn from the batch's own seed; proposals themselves follow the
    weights.
    """

    def __init__(self, data: Any, images: int, batch_size: int, seed: int, where: str) -> None:
        check_count(batch_size, "batch_size", where)
        dataset, self.items = chosen(data, images, seed, where)
        pairs = [dataset[i] for i in self.items]
        pictures = [to_uint8(as_image(p[0], f"item {i}")) for i, p in zip(self.items, pairs)]
        targets = [learnable(_arrays(p[1])) for p in pairs]
        self._batches = [
            (pictures[s : s + batch_size], targets[s : s + batch_size], seed + s)
            for s in range(0, len(pictures), batch_size)
        ]
        self.seed, self.where = seed, where

    def __call__(self, model: Any) -> float:
        """The loss of a model in the mode it is in, off the tape."""
        total = 0.0
        with no_grad():
            for images, targets, seed in self._batches:
                losses = model.losses(images, targets, seed=seed)
                total += len(images) * sum(float(one.item()) for one in losses.values())
        return total / len(self.items)

    def centre(self, moved: Moved) -> float:
        """The loss of the model itself, which must be a number."""
        value = self(moved.to([0.0] * len(moved.directions)))
        if not np.isfinite(value):
            raise ArgumentError(f"{self.where}: the loss of the model itself is {value}")
        return value

    def at(self, moved: Moved, position: Any) -> float:
        """The loss at a position; infinite or NaN where weights are too large for numbers."""
        try:
            return self(moved.to(position))
        except KDSError:  # the model itself passed, so that only its values can be at fault
            return float("nan")


def _arrays(target: Mapping[str, Any]) -> dict[str, Any]:
    boxes = np.asarray(target["boxes"], np.float32).reshape(-1, 4)
    return {**target, "boxes": boxes, "labels": np.asarray(target["labels"])}
