"""Features of the student's regions beside the teacher's, on the maps that they lie on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..tensors import Tensor
from .comparison import LevelMaps
from .step import Step

CompareRegions = Callable[[Tensor, Tensor, np.ndarray, float], Tensor]


class RegionMaps(LevelMaps):
    """Maps compared inside regions: ``compare(student, teacher, rois, spatial_scale)``.

    Maps have the teacher's size (the student's is resized if it differs) and regions the teacher's
    pixels. With several levels a region belongs to the one that pools it (Lin et al. 2017, eq. 1);
    the means over regions of the levels are joined by their numbers of regions.
    """

    def __init__(self, label: str, weight: float, site: Any, levels: Any, compare: Any, **options):
        self._compare_regions: CompareRegions = compare
        super().__init__(label, weight, site, levels, self._in_regions, **options)

    def _in_regions(self, student: Tensor, teacher: Tensor, step: Step, level: int) -> Tensor:
        regions = step.teacher_regions()
        scale = 1 / float(self.levels[level][1]["stride"])
        chosen = regions
        if len(self.levels) > 1:
            strides = [float(other["stride"]) for _, other in self.levels]
            chosen = regions[pooling_level(regions[:, 1:], strides) == level]
        share = len(chosen) / max(1, len(regions))
        loss = self._compare_regions(student, teacher, chosen, scale)
        return loss * share if len(self.levels) > 1 else loss


def pooling_level(boxes: np.ndarray, strides: Sequence[float]) -> np.ndarray:
    """Which level pools each box (R, 4) of input pixels, counted from the finest:
    floor(4 + log2(sqrt(w h) / 224)), 4 being that of stride 16 (Lin et al. 2017, eq. 1)."""
    sides = np.clip(boxes[:, 2:] - boxes[:, :2], 0, None)
    wanted = np.floor(4 + np.log2(np.sqrt(sides[:, 0] * sides[:, 1]) / 224 + 1e-6))
    return np.clip(wanted - np.log2(strides[0]), 0, len(strides) - 1).astype(int)
