"""Li, Jin, Yan, "Mimicking Very Efficient Network for Object Detection", CVPR 2017."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from .. import losses
from ..comparisons.comparison import Comparison, LevelMaps, report_row
from ..comparisons.regions import RegionMaps
from ..comparisons.site import Site
from ..comparisons.step import Step
from ..errors import ArgumentError
from ..tensors import Tensor
from .published import Published

STAGES = ("joint", "rpn", "detector")


@dataclass(frozen=True, repr=False, eq=False)
class Mimic2017(Published):
    """Li et al., "Mimicking Very Efficient Network for Object Detection", CVPR 2017: the student's
    features of the regions that it proposes are to be those of the teacher.

    L_m = 1/(2N) sum over regions of 1/m_i |u_i - r(v_i)|^2 (equation 5), m_i = C h_i w_i

    weight : lambda_1 (paper: 1)
    form : "crop" (equation 5), "spp" (equation 3, spatial pyramid pooling) or "whole" (the paper's
        baseline: the squared error of whole maps, mean over elements, halved)
    kernel : of the learned convolution r (paper: 3)
    stage : "rpn", the paper's first stage: the losses of regions have no weight, only proposals and
        features are learned; "detector", its second stage, learns the detector with the features
        left alone (``weight`` has no effect); "joint": all at once
    logits : also the class logits and box offsets of the teacher's head for the student's regions
        (equation 1: half the squared error, mean over regions), the paper's two-stage mimic
    logits_weight : not published
    levels : names of taps, or pairs; None: the maps that the heads read. With a pyramid every
        region is compared on the level that pools it.

    The student has to propose regions. The paper samples 128 of them, half positive:
    ``roi={"batch": 128, "positive_fraction": 0.5}``.
    """

    label: ClassVar[str] = "mimic2017"

    weight: float = 1.0
    form: str = "crop"
    kernel: int = 3
    stage: str = "joint"
    logits: bool = False
    logits_weight: float = 1.0
    levels: Sequence[Any] | None = None

    def __post_init__(self) -> None:
        self._check_numbers("weight", "logits_weight")
        self._check_choice("form", ("crop", "spp", "whole"))
        self._check_choice("kernel", (1, 3))
        self._check_choice("stage", STAGES)
        self._check_levels()

    @property
    def detection_weights(self) -> dict[str, float]:
        """The first stage learns proposals only."""
        return {"loss_classifier": 0.0, "loss_box_reg": 0.0} if self.stage == "rpn" else {}

    def comparisons(self, site: Site) -> list[Comparison]:
        """Features, and the head's outputs if they are wanted."""
        need_regions(site, "Mimic2017")
        found: list[Comparison] = []
        if self.stage != "detector" and self.weight > 0:
            found.append(self._features(site))
        if self.logits and self.stage != "rpn" and self.logits_weight > 0:
            found.append(HeadMimic(self.logits_weight, site))
        return found

    def _features(self, site: Site) -> Comparison:
        pairs = site.level_pairs(self.levels)
        adapters = [
            site.adapter(f"{self.label}.{own['name']}", own, other, kernel=self.kernel)
            for own, other in pairs
        ]
        if self.form == "whole":
            return LevelMaps(
                *(self.label, self.weight, site, pairs, _half_mean_square),
                adapters=adapters,
                average=True,
            )

        def compare(student: Tensor, teacher: Tensor, rois: Any, scale: float) -> Tensor:
            return losses.roi_mimic(student, teacher, rois, scale, form=self.form)

        return RegionMaps(self.label, self.weight, site, pairs, compare, adapters=adapters)


def need_regions(site: Site, name: str) -> None:
    """Refuse students without proposals."""
    if site.is_one_stage:
        raise ArgumentError(
            f"{name}: the student is a {type(site.student).__name__}, a one-stage detector: it "
            "proposes no regions; kd.methods.FeatureMatching compares whole maps"
        )


def _half_mean_square(student: Tensor, teacher: Tensor, _step: Step, _level: int) -> Tensor:
    return 0.5 * losses.feature_matching(student, teacher)


class HeadMimic(Comparison):
    """Half the squared error of the region head's outputs, mean over the student's regions."""

    NAMES = ("roi.class_logits", "roi.box_deltas")

    def __init__(self, weight: float, site: Site) -> None:
        rows = [(site.student_tap(name), site.teacher_tap(name)) for name in self.NAMES]
        site.need_channels("Mimic2017: logits", rows)
        self.rows, self._site = rows, site
        pairs = [(own, [site.source(other)]) for own, other in rows]
        super().__init__("mimic2017_head", weight, pairs)

    def loss(self, step: Step) -> Tensor:
        """Logits and offsets."""
        return self._total(step, lambda _own, other: step.teacher(self._site.source(other)))

    def equal_loss(self, step: Step) -> Tensor:
        """The student beside itself."""
        return self._total(step, lambda own, _other: step.student(own["name"]).detach())

    def _total(self, step: Step, other: Any) -> Tensor:
        parts = [
            losses.hint(step.student(own["name"]), other(own, theirs), reduction="sum")
            * (0.5 / max(1, step.student(own["name"]).shape[0]))
            for own, theirs in self.rows
        ]
        return parts[0] + parts[1]

    def report(self) -> list[dict[str, Any]]:
        """Two rows."""
        return [
            report_row(self.label, own, other, "none", "l2", self.weight)
            for own, other in self.rows
        ]
