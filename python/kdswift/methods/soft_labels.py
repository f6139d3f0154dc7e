"""Soft class labels for any detector (Hinton, Vinyals, Dean 2015)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from .. import losses
from ..comparisons.classes import ClassMap
from ..comparisons.comparison import Comparison, report_row
from ..comparisons.dense import LevelLabels, anchor_rows, head_levels, need_one_stage, read_levels
from ..comparisons.site import Row, Site
from ..comparisons.step import Step
from ..errors import ArgumentError
from ..tensors import Tensor
from .published import Published


@dataclass(frozen=True, repr=False, eq=False)
class SoftLabels(Published):
    """Hinton et al., "Distilling the Knowledge in a Neural Network", 2015, for detectors.

    Two-stage: T^2 KL(softmax(z_t / T) || softmax(z_s / T)), mean over the student's regions, which
    the teacher's head classifies too. One-stage (a sigmoid for each class): T^2 BCE, summed over
    anchors and classes, divided by the student's positive anchors; the sum is ours, as the focal
    loss has it.

    weight : factor;  temperature : T
    class_map : {teacher's class: student's class} where they have other classes; None: equal names.
        Only classes that both have are compared, with the probabilities among them; the mass that
        the teacher gives to others is in the report.
    """

    label: ClassVar[str] = "soft_labels"

    weight: float = 1.0
    temperature: float = 1.0
    class_map: Mapping[str, str] | None = None

    def __post_init__(self) -> None:
        self._check_numbers("weight")
        self._check_numbers("temperature", open_end=True)
        if self.class_map is not None and not isinstance(self.class_map, Mapping):
            raise ArgumentError(f"SoftLabels: class_map is {self.class_map!r}, expected a dict")

    def comparisons(self, site: Site) -> list[Comparison]:
        """One, of regions or of anchors."""
        if not site.is_one_stage:
            return [RegionLabels(self, site)]
        need_one_stage(site, "SoftLabels")
        return [AnchorLabels(self, site)]


class _SoftComparison(Comparison):
    """What both forms share: the class map and its report."""

    def __init__(self, method: SoftLabels, site: Site, rows: Sequence[tuple[Row, Row]]) -> None:
        pairs = [(own, [site.source(other)]) for own, other in rows]
        super().__init__(method.label, method.weight, pairs)
        self.rows, self._site, self._method = list(rows), site, method
        self.maps_classes = True
        counts = (site.student.num_classes, _class_count(site, rows[0][1]))
        names = site.student.class_names, site.teacher.class_names
        self.classes = ClassMap(*names, counts, method.class_map)
        self.unmapped_mass: float | None = None

    def notes(self) -> list[str]:
        """How much of the teacher's opinion is left out."""
        if self.unmapped_mass is None:
            return []
        missing = ", ".join(self.classes.unmapped[:8]) or "none"
        return [
            f"{self.unmapped_mass:.1%} of the teacher's scores are for classes that the student "
            f"has not ({missing}) and are left out"
        ]

    def report(self) -> list[dict[str, Any]]:
        """A row per output; the classes that only the teacher has are named."""
        text = "none"
        if not self.classes.is_identity:
            missing = ", ".join(self.classes.unmapped[:8]) or "none"
            text = f"{len(self.classes.student) - 1} common classes; only the teacher's: {missing}"
        return [
            report_row(self.label, own, other, text, "soft labels", self.weight)
            for own, other in self.rows
        ]


class RegionLabels(_SoftComparison):
    """Softmax over classes, on the student's regions."""

    def __init__(self, method: SoftLabels, site: Site) -> None:
        name = "roi.class_logits"
        super().__init__(method, site, [(site.student_tap(name), site.teacher_tap(name))])

    def loss(self, step: Step) -> Tensor:
        """Mean over regions."""
        (own, other) = self.rows[0]
        return self._compared(step.student(own["name"]), step.teacher(self._site.source(other)))

    def equal_loss(self, step: Step) -> Tensor | None:
        """The student beside itself."""
        student = step.student(self.rows[0][0]["name"])
        return self._divergence(student, student.detach())

    def _compared(self, student: Tensor, teacher: Tensor) -> Tensor:
        if self.unmapped_mass is None and not self.classes.is_identity:
            z = teacher.numpy() - teacher.numpy().max(axis=1, keepdims=True)
            self.unmapped_mass = self.classes.mass(np.exp(z) / np.exp(z).sum(1, keepdims=True))
        return self._divergence(*self.classes.take(student, teacher))

    def _divergence(self, student: Tensor, teacher: Tensor) -> Tensor:
        return losses.kl_divergence(student, teacher, self._method.temperature)


class AnchorLabels(_SoftComparison):
    """A sigmoid for each class, on all anchors."""

    def __init__(self, method: SoftLabels, site: Site) -> None:
        super().__init__(method, site, head_levels(site, "class_logits"))

    def loss(self, step: Step) -> Tensor:
        """Sum over anchors and classes by the number of positives."""
        total, maps = None, read_levels(step, self._site, self.rows)
        counts = self.classes.counts
        self._note_mass([teacher for _, teacher in maps])
        labels = LevelLabels(step, [student for student, _ in maps], counts[0])
        for student, teacher in maps:
            if not self.classes.is_identity:
                student, teacher = self.classes.take(
                    anchor_rows(student, counts[0]), anchor_rows(teacher, counts[1])
                )
            part = losses.binary_soft_labels(
                student, teacher, self._method.temperature, reduction="sum"
            )
            total = part if total is None else total + part
        assert total is not None
        return total * (1 / max(1, labels.positives))

    def _note_mass(self, maps: list[Tensor]) -> None:
        """The share of the teacher's scores, over all anchors, of classes that are not compared."""
        if self.unmapped_mass is not None or self.classes.is_identity:
            return
        rows = [anchor_rows(one, self.classes.counts[1]).sigmoid().numpy() for one in maps]
        sums = np.concatenate(rows)[:, 1:].sum(axis=0, dtype=np.float64)
        kept = sums[self.classes.teacher[self.classes.teacher > 0] - 1].sum()
        self.unmapped_mass = float(1 - kept / max(sums.sum(), 1e-12))


def _class_count(site: Site, row: Row) -> int:
    """Classes of the teacher, background included."""
    count = getattr(site.teacher, "num_classes", None)
    if count is not None:
        return int(count)
    names = site.teacher.class_names
    return len(names) if names is not None else int(row["channels"])
