"""Features of the student's regions beside the teacher's, on the maps that they lie on."""

from __future__ import annotations

from collections.abc import Callable
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
        chosen = regions[self._level_of(regions) == level] if len(self.levels) > 1 else regions
        share = len(chosen) / max(1, len(regions))
        loss = self._compare_regions(student, teacher, chosen, scale)
        return loss * share if len(self.levels) > 1 else loss

    def _level_of(self, regions: np.ndarray) -> np.ndarray:
        """floor(4 + log2(sqrt(w h) / 224)), 4 being the level of stride 16, kept on the levels."""
        sides = np.clip(regions[:, 3:] - regions[:, 1:3], 0, None)
        size = np.sqrt(sides[:, 0] * sides[:, 1])
        wanted = np.floor(4 + np.log2(size / 224 + 1e-6))
        strides = [np.log2(float(other["stride"])) for _, other in self.levels]
        return np.clip(wanted - strides[0], 0, len(strides) - 1).astype(int)
