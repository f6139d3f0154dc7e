"""Wang et al., "CrossKD: Cross-Head Knowledge Distillation for Object Detection", CVPR 2024."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from .. import losses
from ..comparisons.adapter import Adapter
from ..comparisons.comparison import Comparison, report_row
from ..comparisons.dense import (
    LevelLabels,
    anchor_rows,
    decode,
    head_levels,
    need_one_stage,
    read_levels,
    tiled,
)
from ..comparisons.site import Row, Site
from ..comparisons.step import Step
from ..errors import ArgumentError
from ..tensors import Tensor
from .published import Published

# The authors' configurations: weights of classes, boxes, centerness; convolutions that are left to
# the teacher.
_PUBLISHED = {
    "gfl": (1.0, 4.0, 0.0, 1),
    "retinanet": (1.0, 1.0, 0.0, 1),
    "atss": (1.0, 1.0, 1.0, 1),
    "fcos": (0.4, 0.75, 0.0, 2),
}
_FORMS = {"gfl": "bins", "retinanet": "giou", "atss": "giou", "fcos": "iou"}
_BOXES = {"gfl": "box_distribution"}


@dataclass(frozen=True, repr=False, eq=False)
class CrossKD(Published):
    """Wang et al., "CrossKD: Cross-Head Knowledge Distillation for Object Detection", CVPR 2024.

    A feature inside the student's head, given the mean and deviation of the teacher's, runs through
    the rest of the teacher's frozen head, and is compared there with the teacher's outputs. The
    student's own head learns from labels alone.

    classification_weight, regression_weight, centerness_weight : None is what the authors' have for
        the detector: GFL 1 and 4, RetinaNet 1 and 1, ATSS 1, 1 and 1, FCOS 0.4 and 0.75
    after : convolutions of the student's tower that run before the change; None: all but the last
        (FCOS: but the last two), as published for towers of four
    beta : of the classification loss, |p - t|^beta (1)

    Student and teacher are one-stage detectors of one kind with the same levels and classes; where
    their towers have unlike channels a learned 1x1 convolution joins them (ours).
    """

    label: ClassVar[str] = "crosskd"

    classification_weight: float | None = None
    regression_weight: float | None = None
    centerness_weight: float | None = None
    after: int | None = None
    beta: float = 1.0

    def __post_init__(self) -> None:
        self._check_numbers("classification_weight", "regression_weight", "centerness_weight")
        self._check_numbers("beta")
        if self.after is not None and (not isinstance(self.after, int) or self.after < 1):
            raise ArgumentError(f"CrossKD: after is {self.after!r}, expected 1 or more")

    def comparisons(self, site: Site) -> list[Comparison]:
        """Classes and boxes, as far as they have a weight."""
        need_one_stage(site, "CrossKD")
        kind = site.student.kind
        if site.teacher.kind != kind:
            raise ArgumentError(
                f"CrossKD: the student is a {type(site.student).__name__}, the teacher a "
                f"{type(site.teacher).__name__}; their heads must be of one kind"
            )
        classes, boxes, centre, left = _PUBLISHED[kind]
        given = (self.classification_weight, self.regression_weight, self.centerness_weight)
        weights = [d if w is None else w for w, d in zip(given, (classes, boxes, centre))]
        after = self.after or max(1, _depth(site.teacher_taps) - left)
        found: list[Comparison] = []
        if weights[0] > 0:
            found.append(CrossClasses(weights[0], site, after, self.beta))
        if weights[1] > 0 or weights[2] > 0:
            found.append(CrossBoxes(weights[1], weights[2], site, after))
        return found


class _CrossHead(Comparison):
    """The student's tower features through the rest of the teacher's head."""

    branch = ""

    def __init__(self, label: str, weight: float, site: Site, after: int, outputs: list) -> None:
        self._towers = head_levels(site, f"{self.branch}.conv{after - 1}")
        pairs = [(own, [site.source(other)]) for own, other in (*self._towers, *outputs)]
        super().__init__(label, weight, pairs)
        self._site, self._after = site, after
        self._adapters = [
            None
            if own["channels"] == other["channels"]
            else Adapter(
                *(int(own["channels"]), int(other["channels"])), site.random(f"{label}.{i}")
            )
            for i, (own, other) in enumerate(self._towers)
        ]

    def parameters(self) -> dict[str, Tensor]:
        """Adapters of unlike towers."""
        return {
            f"{i}.{name}": value
            for i, adapter in enumerate(self._adapters)
            if adapter is not None
            for name, value in adapter.parameters().items()
        }

    def _cross(self, step: Step) -> list[dict[str, Tensor]]:
        maps = []
        for adapter, (student, teacher) in zip(
            self._adapters, read_levels(step, self._site, self._towers)
        ):
            carried = student if adapter is None else adapter(student)
            maps.append(losses.standardize_like(carried, teacher))
        return self._site.teacher.head_from(maps, self.branch, self._after)

    def _teacher(self, step: Step, rows: Sequence[tuple[Row, Row]]) -> list[Tensor]:
        return [step.teacher(self._site.source(other)) for _, other in rows]

    def report(self) -> list[dict[str, Any]]:
        """A row per level."""
        return [
            report_row(
                *(
                    self.label,
                    own,
                    other,
                    f"mean and deviation, then {adapter!r}" if adapter else "mean and deviation",
                    "the teacher's head",
                    self.weight,
                )
            )
            for (own, other), adapter in zip(self._towers, self._adapters)
        ]


class CrossClasses(_CrossHead):
    """Class scores: a quality focal loss towards the teacher's, over the positives' number."""

    branch = "classification"

    def __init__(self, weight: float, site: Site, after: int, beta: float) -> None:
        self._outputs, self._beta = head_levels(site, "class_logits"), beta
        self._count = site.student.num_classes
        super().__init__("crosskd_classification", weight, site, after, self._outputs)

    def loss(self, step: Step) -> Tensor:
        """The sum over levels."""
        teacher = self._teacher(step, self._outputs)
        labels = LevelLabels(step, teacher, self._count)
        total = None
        for level, (found, wanted) in enumerate(zip(self._cross(step), teacher)):
            logits, weights = found["class_logits"], None
            if labels.has_ignored:
                logits, wanted = (anchor_rows(one, self._count) for one in (logits, wanted))
                weights = labels.counted(level)
            part = losses.crosskd_classification(
                logits, wanted, weights, self._beta, max(1, labels.positives)
            )
            total = part if total is None else total + part
        assert total is not None
        return total


class CrossBoxes(_CrossHead):
    """Boxes, each with the teacher's largest class score; centerness where it has a weight."""

    branch = "regression"

    def __init__(self, weight: float, centerness: float, site: Site, after: int) -> None:
        self._kind = site.student.kind
        self._outputs = head_levels(site, _BOXES.get(self._kind, "box_deltas"))
        self._scores = head_levels(site, "class_logits")
        self._centres = head_levels(site, "centerness") if centerness > 0 else []
        self._share, self._centerness = weight, centerness
        self._count = site.student.num_classes
        outputs = [*self._outputs, *self._scores, *self._centres]
        super().__init__("crosskd_regression", 1.0, site, after, outputs)

    def loss(self, step: Step) -> Tensor:
        """The weighted sum over levels."""
        cross = self._cross(step)
        scores = [anchor_rows(one, self._count) for one in self._teacher(step, self._scores)]
        best = [rows.sigmoid().numpy()[:, 1:].max(axis=1) for rows in scores]
        maps = self._teacher(step, self._scores)
        labels = LevelLabels(step, maps, self._count)
        weights = [one * labels.counted(level) for level, one in enumerate(best)]
        total = self._boxes(step, cross, weights, labels) * self._share
        if self._centerness > 0:
            total = total + self._centre_loss(step, cross, labels) * self._centerness
        return total

    def _boxes(
        self, step: Step, cross: Any, weights: list[np.ndarray], labels: LevelLabels
    ) -> Tensor:
        form = _FORMS[self._kind]
        sums = sum(float(one.sum(dtype=np.float64)) for one in weights)
        factor = sums if form == "bins" else float(max(1, labels.positives))
        anchors = None if form == "bins" else self._site.student.anchors(step.input_size)
        name = _BOXES.get(self._kind, "box_deltas")
        total = None
        for level, theirs in enumerate(self._teacher(step, self._outputs)):
            columns = theirs.shape[1] if form == "bins" else 4
            student = anchor_rows(cross[level][name], columns)
            teacher = anchor_rows(theirs, columns)
            if form == "bins":
                edges = (-1, 4, columns // 4)
                student, teacher = student.reshape(edges), teacher.reshape(edges)
            else:
                boxes = tiled(anchors[level], theirs.shape[0])
                stride = float(self._outputs[level][0]["stride"])
                student, teacher = (
                    decode(self._kind, one, boxes, stride) for one in (student, teacher)
                )
            part = losses.crosskd_regression(student, teacher, weights[level], form, factor)
            total = part if total is None else total + part
        assert total is not None
        return total

    def _centre_loss(self, step: Step, cross: Any, labels: LevelLabels) -> Tensor:
        total = None
        for found, theirs in zip(cross, self._teacher(step, self._centres)):
            part = losses.binary_cross_entropy(
                found["centerness"], theirs.sigmoid(), reduction="sum"
            )
            total = part if total is None else total + part
        assert total is not None
        return total * (1 / max(1, labels.positives))


def _depth(taps: Sequence[Row]) -> int:
    """Convolutions of the classification tower."""
    numbers = [
        int(row["name"].split("conv")[1].split(".")[0])
        for row in taps
        if row["name"].startswith("head.classification.conv")
    ]
    if not numbers:
        raise ArgumentError("CrossKD: the teacher's head has no tower of convolutions")
    return max(numbers) + 1
