"""Task integration distillation, reconstructed (Su et al. 2024)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from .. import losses
from ..comparisons.comparison import Comparison
from ..comparisons.outputs import DenseOutputs
from ..comparisons.site import Site
from ..comparisons.step import Step
from ..losses.task_integration import task_scores
from ..tensors import Tensor
from .feature_maps import adapted_levels
from .published import Published


@dataclass(frozen=True, repr=False, eq=False)
class TaskIntegration(Published):
    """TID-style: after Su et al., "Task Integration Distillation for Object Detectors", 2024.

    A reconstruction, not the paper: its text was not at hand. From public reviews: every place has
    a score for classes times one for boxes, of the teacher and of the student; places of high,
    medium and low value follow from where the teacher is good (key) and better than the student
    (weak). The scores of classes, thresholds, weights and normalisation are ours, each an option.

    weight : factor
    positive, negative : IoU thresholds of the box score; None: the detector's own of assignment
        (0.5 and 0.4 where it has none)
    scores : of good, fair and poor (2, 1.5, 0.4; published for boxes)
    key : least score of key places (2.25: both tasks at least fair)
    weak : least lead of the teacher of weak places, above it (0)
    area_weights : of high, medium and low value (1, 0.5, 0.1)
    """

    label: ClassVar[str] = "task_integration"

    weight: float = 1.0
    positive: float | None = None
    negative: float | None = None
    scores: Sequence[float] = (2.0, 1.5, 0.4)
    key: float = 2.25
    weak: float = 0.0
    area_weights: Sequence[float] = (1.0, 0.5, 0.1)

    def __post_init__(self) -> None:
        self._check_numbers("weight", "positive", "negative", "key", "weak")

    def comparisons(self, site: Site) -> list[Comparison]:
        """One, over the levels of the head."""
        outputs = DenseOutputs(site, "TaskIntegration")
        pairs = site.level_pairs()[: len(outputs.logits)]
        scores = StepScores(self, outputs, self._thresholds(site))

        def compare(student: Tensor, teacher: Tensor, step: Step, level: int) -> Tensor:
            own, other = scores.of(step)[level]
            return losses.task_integration(
                *(student, teacher, other, own, self.key, self.weak, self.area_weights)
            )

        return [adapted_levels(self, site, self.weight, compare, pairs, reads=outputs.pairs)]

    def _thresholds(self, site: Site) -> tuple[float, float]:
        configuration = site.student.configuration
        head = configuration.get("head") or configuration.get("rpn") or {}
        positive, negative = head.get("positive_iou", 0.5), head.get("negative_iou", 0.4)
        return (
            positive if self.positive is None else self.positive,
            negative if self.negative is None else self.negative,
        )


class StepScores:
    """The scores of both sides in a step, found once for all levels."""

    def __init__(
        self, method: TaskIntegration, outputs: DenseOutputs, thresholds: tuple[float, float]
    ) -> None:
        self._method, self._outputs, self._thresholds = method, outputs, thresholds

    def of(self, step: Step) -> list[tuple[np.ndarray, np.ndarray]]:
        """(student's, teacher's) (N, H, W) of every level."""
        return step.once(self, lambda: self._all(step))

    def _all(self, step: Step) -> list[tuple[np.ndarray, np.ndarray]]:
        levels = self._outputs.read(step)
        return [(self._side(step, one, 0), self._side(step, one, 1)) for one in levels]

    def _side(self, step: Step, level: Any, side: int) -> np.ndarray:
        images = len(step.image_sizes)
        logits = np.split(level.logits[side].detach().numpy(), images)
        boxes = np.split(level.boxes(side), images)
        # Proposal networks know one class; others leave the background out.
        labels = [one - 1 if level.kind != "rpn" else 0 * one for one in step.labels]
        return np.stack(
            [
                task_scores(
                    *(logits[i], boxes[i], step.boxes[i], labels[i], level.size),
                    *(*self._thresholds, self._method.scores),
                )
                for i in range(images)
            ]
        )
