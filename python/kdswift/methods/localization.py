"""Zheng et al., "Localization Distillation for Dense Object Detection", CVPR 2022."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from .. import losses
from ..comparisons.comparison import Comparison, report_row
from ..comparisons.dense import LevelLabels, anchor_rows, head_levels, need_one_stage, read_levels
from ..comparisons.site import Site
from ..comparisons.step import Step
from ..losses.localization import vlr_region
from ..tensors import Tensor
from .published import Published


@dataclass(frozen=True, repr=False, eq=False)
class LD(Published):
    """Zheng et al., "Localization Distillation for Dense Object Detection", CVPR 2022: soft labels
    for the distributions that a GFL head has over the distances to the edges of a box.

    weight : of the student's positive anchors, each with the student's largest class score
        (official code: 0.25; mean over bins, not divided by the number of positives)
    vlr_weight : of the valuable localization region, anchors near a box that are not its positives,
        each with its IoU (0.25, divided by 16); 0 is off
    temperature : of the distributions (10)
    classification_weight : of softmax soft labels for the classes of the positives, mean over them
        (10); 0 is off
    classification_temperature : (2)

    Student and teacher are `kd.GFL` with the same bins and levels.
    """

    label: ClassVar[str] = "ld"

    weight: float = 0.25
    vlr_weight: float = 0.25
    temperature: float = 10.0
    classification_weight: float = 10.0
    classification_temperature: float = 2.0

    def __post_init__(self) -> None:
        self._check_numbers("weight", "vlr_weight", "classification_weight")
        self._check_numbers("temperature", "classification_temperature", open_end=True)

    def comparisons(self, site: Site) -> list[Comparison]:
        """Main region, valuable region and classes, as far as they have a weight."""
        need_one_stage(site, "LD", ("gfl",))
        site.need_channels("LD", head_levels(site, "box_distribution"))
        found: list[Comparison] = []
        for part in (MainRegion, ValuableRegion, PositiveClasses):
            one = part(self, site)
            if one.weight > 0:
                found.append(one)
        return found


class _DenseComparison(Comparison):
    """What the parts share: the head's outputs by level, and the labels."""

    def __init__(self, label: str, weight: float, method: LD, site: Site) -> None:
        self._bins = head_levels(site, "box_distribution")
        self._classes = head_levels(site, "class_logits")
        pairs = [(o, [site.source(t)]) for o, t in (*self._bins, *self._classes)]
        super().__init__(label, weight, pairs)
        self._site, self._method, self._count = site, method, site.student.num_classes

    def loss(self, step: Step) -> Tensor:
        """The sum over levels."""
        bins = read_levels(step, self._site, self._bins)
        classes = read_levels(step, self._site, self._classes)
        labels = LevelLabels(step, [student for student, _ in classes], self._count)
        levels = [
            self._level(
                step,
                level,
                *_rows(bins[level], bins[level][0].shape[1]),
                *_rows(classes[level], self._count),
                labels,
            )
            for level in range(len(bins))
        ]
        total = levels[0]
        for one in levels[1:]:
            total = total + one
        return total

    def _level(
        self,
        step: Step,
        level: int,
        student: Tensor,
        teacher: Tensor,
        student_classes: Tensor,
        teacher_classes: Tensor,
        labels: LevelLabels,
    ) -> Tensor:
        raise NotImplementedError

    def _distilled(
        self,
        student: Tensor,
        teacher: Tensor,
        rows: np.ndarray,
        weights: np.ndarray,
        avg_factor: float,
    ) -> Tensor:
        edges = (len(rows), 4, student.shape[1] // 4)
        return losses.localization_distillation(
            *(student[rows].reshape(edges), teacher[rows].reshape(edges), weights),
            *(self._method.temperature, avg_factor),
        )

    def report(self) -> list[dict[str, Any]]:
        """A row per level."""
        rows = self._classes if isinstance(self, PositiveClasses) else self._bins
        return [
            report_row(self.label, own, other, "none", "kl", self.weight) for own, other in rows
        ]


class MainRegion(_DenseComparison):
    """Distributions of positive anchors."""

    def __init__(self, method: LD, site: Site) -> None:
        super().__init__("ld", method.weight, method, site)

    def _level(self, step, level, student, teacher, student_classes, teacher_classes, labels):
        rows = labels.positive_rows(level)
        scores = student_classes.detach()[rows].sigmoid().numpy()
        best = scores[:, 1:].max(axis=1) if len(rows) else np.zeros(0, np.float32)
        return self._distilled(student, teacher, rows, best, 4.0)


class ValuableRegion(_DenseComparison):
    """Distributions of anchors near boxes, weighted by IoU."""

    def __init__(self, method: LD, site: Site) -> None:
        super().__init__("ld_vlr", method.vlr_weight, method, site)

    def _level(self, step, level, student, teacher, student_classes, teacher_classes, labels):
        weights = self._weights(step)[level]
        rows = np.flatnonzero(weights > 0)
        return self._distilled(student, teacher, rows, weights[rows], 16.0)

    def _weights(self, step: Step) -> list[np.ndarray]:
        """The IoU of every anchor in the region, (N H W A) for each level."""
        return step.once(self, lambda: self._regions(step))

    def _regions(self, step: Step) -> list[np.ndarray]:
        anchors = self._site.student.anchors(step.input_size)
        regions = np.stack([vlr_region(anchors, boxes) for boxes in step.boxes])
        ends = np.cumsum([len(one) for one in anchors])[:-1]
        return [one.reshape(-1) for one in np.split(regions, ends, axis=1)]


class PositiveClasses(_DenseComparison):
    """Softmax soft labels of positive anchors, the mean over the batch's positives."""

    def __init__(self, method: LD, site: Site) -> None:
        super().__init__("ld_classes", method.classification_weight, method, site)

    def _level(self, step, level, student, teacher, student_classes, teacher_classes, labels):
        rows = labels.positive_rows(level)
        share = len(rows) / max(1, labels.positives)
        columns = np.arange(1, self._count)  # the background's column is no class
        return share * losses.kl_divergence(
            student_classes[rows][:, columns],
            teacher_classes[rows][:, columns],
            self._method.classification_temperature,
        )


def _rows(pair: tuple[Tensor, Tensor], columns: int) -> tuple[Tensor, Tensor]:
    return anchor_rows(pair[0], columns), anchor_rows(pair[1], columns)
