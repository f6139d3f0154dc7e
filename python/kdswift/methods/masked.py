"""Methods that compare maps where objects are: FGFI, DeFeat, FRS."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from .. import losses
from ..comparisons.comparison import Comparison, LevelMaps, report_row
from ..comparisons.outputs import DenseOutputs
from ..comparisons.site import Row, Site, head_maps
from ..comparisons.step import Step
from ..errors import ArgumentError
from ..losses.masked import defeat_levels
from ..tensors import Tensor
from .base import Part
from .published import Published
from .window import Window

# First weights of the adapters in the released code of FGFI and DeFeat.
_DEVIATION = 1e-4


def _adapters(
    method: Published, site: Site, pairs: Sequence[tuple[Row, Row]], **options: Any
) -> list[Any]:
    return [
        site.adapter(f"{method.label}.{own['name']}", own, other, kernel=3, **options)
        for own, other in pairs
    ]


@dataclass(frozen=True, repr=False, eq=False)
class FGFI(Published):
    """Wang et al., "Distilling Object Detectors with Fine-grained Feature Imitation", CVPR 2019:
    maps are compared at the places whose anchors lie near an object.

    weight : None is what the form is published with: 0.01 for "paper", 3 for "defeat"
    psi : share of an object's highest IoU that an anchor must pass (0.5)
    form : "paper", all objects on every map, 3x3 convolution with ReLU, divided by 2 N_p; "defeat",
        as the DeFeat repository has it for pyramids: every object on one level, no ReLU, divided
        by 2 C N_p, mean over levels; None: by whether there is a pyramid
    start : steps without imitation at first (400)
    levels : see `FeatureMatching`
    """

    label: ClassVar[str] = "fgfi"

    weight: float | None = None
    psi: float = 0.5
    form: str | None = None
    start: int = 400
    levels: Sequence[Any] | None = None

    def __post_init__(self) -> None:
        self._check_numbers("weight", "psi", "start")
        self._check_choice("form", ("paper", "defeat", None))
        self._check_levels()
        if self.psi > 1:
            raise ArgumentError(f"FGFI: psi is {self.psi!r}, expected 0 to 1")

    @property
    def parts(self) -> tuple[Part, ...]:
        """This method from its first step on."""
        return (Part(1.0, self, (Window(start=int(self.start)),) if self.start else ()),)

    def comparisons(self, site: Site) -> list[Comparison]:
        """One, over the levels."""
        pairs = site.level_pairs(self.levels)
        form = self.form or ("defeat" if len(pairs) > 1 else "paper")
        weight = self.weight if self.weight is not None else 0.01 if form == "paper" else 3.0
        activation = "relu" if form == "paper" else None
        places = [_head_level(site, own) for own, _ in pairs]
        adapters = _adapters(self, site, pairs, deviation=_DEVIATION, activation=activation)

        def compare(student: Tensor, teacher: Tensor, step: Step, level: int) -> Tensor:
            boxes = step.boxes
            if form == "defeat":
                boxes = [one[defeat_levels(one, len(pairs)) == level] for one in boxes]
            anchors = site.student.anchors(step.input_size)[places[level]]
            return losses.fgfi(student, teacher, boxes, anchors, self.psi, form)

        average = form == "defeat"
        return [
            LevelMaps(
                *(self.label, weight, site, pairs, compare), adapters=adapters, average=average
            )
        ]


def _head_level(site: Site, row: Row) -> int:
    """Which of the levels that the student's head reads, and so has anchors on, a map is."""
    names = [one["name"] for one in head_maps(site.student_taps)]
    if row["name"] not in names:
        raise ArgumentError(
            f"FGFI: the student has no anchors on {row['name']}, only on {', '.join(names)}"
        )
    return names.index(row["name"])


@dataclass(frozen=True, repr=False, eq=False)
class DeFeat(Published):
    """Guo et al., "Distilling Object Detectors via Decoupled Features", CVPR 2021: foreground and
    background of every level have weights of their own.

    foreground_weight, background_weight : 3 and 12 in the released VOC configuration; those for
        COCO were not released, nor those of the head's soft labels, which are left out
    levels : see `FeatureMatching`
    """

    label: ClassVar[str] = "defeat"

    foreground_weight: float = 3.0
    background_weight: float = 12.0
    levels: Sequence[Any] | None = None

    def __post_init__(self) -> None:
        self._check_numbers("foreground_weight", "background_weight")
        self._check_levels()

    def comparisons(self, site: Site) -> list[Comparison]:
        """One, over all levels."""
        pairs = site.level_pairs(self.levels)

        def compare(student: Tensor, teacher: Tensor, step: Step, level: int) -> Tensor:
            stride = step.input_size[1] / teacher.shape[3]
            return losses.defeat(
                *(student, teacher, step.boxes, level, len(pairs), stride),
                foreground_weight=self.foreground_weight,
                background_weight=self.background_weight,
            )

        adapters = _adapters(self, site, pairs, deviation=_DEVIATION)
        return [LevelMaps(self.label, 1.0, site, pairs, compare, adapters=adapters)]


# The authors' weights of features and classes; ATSS as GFL.
_FRS_WEIGHTS = {
    "retinanet": (0.005, 0.02),
    "gfl": (0.1, 0.05),
    "atss": (0.1, 0.05),
    "fcos": (0.01, 0.05),
}
_FRS_TWO_STAGE = (0.002, 0.1)


@dataclass(frozen=True, repr=False, eq=False)
class FRS(Published):
    """Du et al., "Distilling Object Detectors with Feature Richness", NeurIPS 2021: maps and class
    scores are compared where the teacher sees anything.

    feature_weight, classification_weight : None is what the authors have for the detector:
        RetinaNet 0.005 and 0.02, GFL 0.1 and 0.05, FCOS 0.01 and 0.05, Faster R-CNN 0.002 and 0.1
    ramp : steps in which both grow from 0 (500)

    Student and teacher are detectors of one kind with the same levels and anchors.
    """

    label: ClassVar[str] = "frs"

    feature_weight: float | None = None
    classification_weight: float | None = None
    ramp: int = 500

    def __post_init__(self) -> None:
        self._check_numbers("feature_weight", "classification_weight", "ramp")

    @property
    def parts(self) -> tuple[Part, ...]:
        """This method with its ramp."""
        return (Part(1.0, self, (Window(ramp=int(self.ramp)),) if self.ramp else ()),)

    def comparisons(self, site: Site) -> list[Comparison]:
        """Features and classes, as far as they have a weight."""
        outputs = DenseOutputs(site, "FRS")
        features, classes = _FRS_WEIGHTS.get(site.student.kind, _FRS_TWO_STAGE)
        features = features if self.feature_weight is None else self.feature_weight
        classes = classes if self.classification_weight is None else self.classification_weight
        found: list[Comparison] = []
        if features > 0:
            found.append(self._features(site, outputs, features))
        if classes > 0:
            found.append(RichClasses(classes, site, outputs))
        return found

    def _features(self, site: Site, outputs: DenseOutputs, weight: float) -> Comparison:
        pairs = site.level_pairs()[: len(outputs.logits)]

        def compare(student: Tensor, teacher: Tensor, step: Step, level: int) -> Tensor:
            return losses.frs(student, teacher, outputs.teacher_maps(step)[level])

        adapters = _adapters(self, site, pairs)
        return LevelMaps(
            *("frs_features", weight, site, pairs, compare), adapters=adapters, reads=outputs.pairs
        )


class RichClasses(Comparison):
    """Class scores of every level, by the teacher's richness."""

    def __init__(self, weight: float, site: Site, outputs: DenseOutputs) -> None:
        pairs = [(own, [site.source(other)]) for own, other in outputs.logits]
        super().__init__("frs_classification", weight, pairs)
        self._outputs, self._site = outputs, site

    def loss(self, step: Step) -> Tensor:
        """The sum over levels."""
        total = None
        for (own, _), teacher in zip(self._outputs.logits, self._outputs.teacher_maps(step)):
            part = losses.frs_classification(step.student(own["name"]), teacher)
            total = part if total is None else total + part
        assert total is not None
        return total

    def report(self) -> list[dict[str, Any]]:
        """A row per level."""
        return [
            report_row(self.label, own, other, "none", "bce", self.weight)
            for own, other in self._outputs.logits
        ]
