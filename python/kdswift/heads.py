"""What is particular to dense heads: anchors, and the rest of a head from inside a tower."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from . import _engine
from ._inputs import image_size_pair
from ._numbers import check_count
from .errors import ArgumentError
from .tensors import Tensor, as_tensor

BRANCHES = ("classification", "regression")


def is_tower(tap: str) -> bool:
    """Whether a tap is one of a tower, such as ``head.regression.conv0.p3``.

    Those are what the ReLUs of a one-stage head's branches get (with a normalization: what it
    gives). A run asks the engine for them only if a term reads one: without them convolution and
    ReLU run as one.
    """
    return tap.startswith(tuple(f"head.{branch}.conv" for branch in BRANCHES))


class DetectorHeads:
    """The part of `kd.Detector` that deals with dense heads."""

    _engine: _engine.Detector

    def anchors(self, input_size: Any) -> list[np.ndarray]:
        """The anchors of every level, fine to coarse.

        input_size : (height, width) of the network's input, scaled and padded; one number: a square

        Returns a list of float32 (H * W * A, 4), x1 y1 x2 y2 in pixels of that input: the cells of
        the level's map row by row, the A anchors of a cell together, as in the channels of the
        head's outputs.
        """
        size = image_size_pair(input_size, "anchors")
        return [boxes.numpy() for boxes in self._engine.anchors(*size).values()]

    def head_from(self, maps: Sequence[Any], branch: str, start: int) -> list[dict[str, Tensor]]:
        """The rest of a one-stage detector's head, from inside the tower of one of its branches.

        Parameters
        ----------
        maps : (N, C, H, W) of every level, fine to coarse; kd tensors, arrays, anything with DLPack
        branch : "classification" or "regression"
        start : convolutions of the tower that are done. 0: `maps` are the neck's; else they are
            what convolution ``start - 1`` gives before its ReLU, as the tap
            ``head.BRANCH.conv{start - 1}``

        Returns
        -------
        One dict per level: ``class_logits``, or ``box_deltas`` (``box_distribution``) and, where
        the detector has it, ``centerness``; named and shaped as the taps.

        Gradients reach `maps`; the head's weights are constants, its normalizations as in
        evaluation. This is how CrossKD (Wang et al. 2024) lets a teacher's head judge a student's
        features. Raises ``ArgumentError`` for detectors without such a head, and ``ShapeError``
        naming the level.
        """
        if branch not in BRANCHES:
            raise ArgumentError(
                f"head_from: branch is {branch!r}, expected 'classification' or 'regression'"
            )
        check_count(start, "start", "head_from", 0)
        if isinstance(maps, Tensor) or not isinstance(maps, (list, tuple)):
            raise ArgumentError("head_from: maps must be a list, one (N, C, H, W) per level")
        return [
            self._engine.head_from(
                branch, start, level, as_tensor(value, f"head_from: maps[{level}]")
            )
            for level, value in enumerate(maps)
        ]
