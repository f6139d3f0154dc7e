"""Dai et al., "General Instance Distillation for Object Detection", CVPR 2021."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np

from .. import losses, ops
from ..comparisons.adapter import Adapter, resized
from ..comparisons.comparison import Comparison, report_row
from ..comparisons.outputs import DenseOutputs, LevelOutputs
from ..comparisons.regions import pooling_level
from ..comparisons.site import Site
from ..comparisons.step import Step
from ..functional import cat
from ..losses.instances import gid_instances
from ..tensors import Tensor, tensor
from .published import Published


@dataclass(frozen=True, repr=False, eq=False)
class GID(Published):
    """Dai et al., "General Instance Distillation for Object Detection", CVPR 2021: features,
    relations and responses of the instances about which student and teacher differ most.

    No code was published. Reductions and weights are those of an unofficial implementation, which
    belong together.

    feature_weight, relation_weight : l_1, l_2 (0.005, 40)
    classification_weight, regression_weight : of the responses (0.1, 0.1)
    top : instances of an image (10);  iou_threshold : of their suppression (0.3)
    output_size : of RoIAlign (10)

    Student and teacher are detectors of one kind with the same levels and anchors; of two-stage
    detectors the proposal networks are compared.
    """

    label: ClassVar[str] = "gid"

    feature_weight: float = 0.005
    relation_weight: float = 40.0
    classification_weight: float = 0.1
    regression_weight: float = 0.1
    top: int = 10
    iou_threshold: float = 0.3
    output_size: int = 10

    def __post_init__(self) -> None:
        self._check_numbers("feature_weight", "relation_weight")
        self._check_numbers("classification_weight", "regression_weight", "iou_threshold")
        self._check_numbers("top", "output_size", least=1)

    def comparisons(self, site: Site) -> list[Comparison]:
        """Features and relations, and responses; both of the same instances."""
        instances = Instances(self, site)
        found: list[Comparison] = []
        if self.feature_weight > 0 or self.relation_weight > 0:
            found.append(InstanceMaps(self, site, instances))
        if self.classification_weight > 0 or self.regression_weight > 0:
            found.append(Responses(self, instances))
        return found


class Found(NamedTuple):
    """The outputs of a step's heads, level by level, and the instances (k, 4) of every image."""

    levels: list[LevelOutputs]
    boxes: list[np.ndarray]


class Instances:
    """The general instances of a step, chosen once."""

    def __init__(self, method: GID, site: Site) -> None:
        self.outputs, self._method = DenseOutputs(site, "GID"), method

    def of(self, step: Step) -> Found:
        """Those of a step."""
        return step.once(self, lambda: self._choose(step))

    def _choose(self, step: Step) -> Found:
        levels, images = self.outputs.read(step), len(step.image_sizes)
        sides = []
        for side in (0, 1):
            scores = zip(*(np.split(level.scores(side), images) for level in levels))
            boxes = zip(*(np.split(level.boxes(side), images) for level in levels))
            sides.append([tuple(map(np.concatenate, pair)) for pair in zip(scores, boxes)])
        method = self._method
        found = [
            gid_instances(*own, *other, method.top, method.iou_threshold)[0]
            for own, other in zip(*sides)
        ]
        return Found(levels, found)


class InstanceMaps(Comparison):
    """Features of the instances, each on the level of its size, and the relations of an image's."""

    def __init__(self, method: GID, site: Site, instances: Instances) -> None:
        self.levels = site.level_pairs()
        reads = instances.outputs.pairs
        super().__init__(
            "gid", 1.0, [*((own, [site.source(other)]) for own, other in self.levels), *reads]
        )
        self._method, self._site, self._instances = method, site, instances
        channels = {(int(a["channels"]), int(b["channels"])) for a, b in self.levels}
        # One convolution for all levels, as they have the same channels; else one each.
        rng = site.random("gid")
        if len(channels) == 1:
            self._adapters = [Adapter(*channels.pop(), rng, kernel=3)] * len(self.levels)
        else:
            self._adapters = [
                Adapter(int(a["channels"]), int(b["channels"]), rng, kernel=3)
                for a, b in self.levels
            ]

    def parameters(self) -> dict[str, Tensor]:
        """The adapters."""
        unique = {id(adapter): adapter for adapter in self._adapters}
        return {
            f"{i}.{name}": value
            for i, adapter in enumerate(unique.values())
            for name, value in adapter.parameters().items()
        }

    def loss(self, step: Step) -> Tensor:
        """l_1 feature + l_2 relation."""
        student, teacher, images = self._pooled(step)
        method = self._method
        count, _, height, width = student.shape
        features = losses.hint(student, teacher, reduction="sum") * (
            method.feature_weight / max(1, count * height * width)
        )
        relation = student.sum() * 0.0
        for image in range(len(step.image_sizes)):
            rows = np.flatnonzero(images == image)
            if len(rows):
                relation = relation + losses.gid_relation(student[rows], teacher[rows])
        share = method.relation_weight / len(step.image_sizes)
        return features + relation * share

    def _pooled(self, step: Step) -> tuple[Tensor, Tensor, np.ndarray]:
        """(K, C, s, s) of both sides, and the image of each row."""
        rows = np.concatenate(
            [
                np.concatenate([np.full((len(one), 1), image, np.float32), one], 1)
                for image, one in enumerate(self._instances.of(step).boxes)
            ]
        )
        place = pooling_level(rows[:, 1:], [float(own["stride"]) for own, _ in self.levels])
        parts: list[list[Tensor]] = [[], []]
        images = []
        for level, (own, other) in enumerate(self.levels):
            chosen = rows[place == level]
            teacher = step.teacher(self._site.source(other))
            student = resized(self._adapters[level](step.student(own["name"])), teacher.shape[2:])
            # Boxes are the student's pixels; the teacher's input may be larger.
            scale = teacher.shape[3] / step.input_size[1]
            for side, features in enumerate((student, teacher)):
                size = self._method.output_size
                parts[side].append(ops.roi_align(features, tensor(chosen), size, scale))
            images.append(chosen[:, 0])
        return cat(parts[0]), cat(parts[1]), np.concatenate(images)

    def report(self) -> list[dict[str, Any]]:
        """A row per level."""
        return [
            report_row("gid", own, other, f"{adapter!r}", "instances", 1.0)
            for (own, other), adapter in zip(self.levels, self._adapters)
        ]


class Responses(Comparison):
    """Scores and box numbers of the anchors that belong to the instances."""

    def __init__(self, method: GID, instances: Instances) -> None:
        super().__init__("gid_response", 1.0, instances.outputs.pairs)
        self._method, self._instances = method, instances

    def loss(self, step: Step) -> Tensor:
        """The mean over the anchors of all levels."""
        levels, boxes = self._instances.of(step)
        masks = [self._mask(level, boxes) for level in levels]
        offsets = [level.offsets() for level in levels]
        return losses.gid_response(
            cat([level.logits[0] for level in levels]),
            cat([level.logits[1] for level in levels]),
            cat([one[0] for one in offsets]),
            cat([one[1] for one in offsets]),
            np.concatenate(masks),
            self._method.classification_weight,
            self._method.regression_weight,
        )

    def _mask(self, level: LevelOutputs, instances: list[np.ndarray]) -> np.ndarray:
        """Anchors with an IoU of at least 0.5 to an instance; where a place has but one anchor,
        those whose centres lie in an instance."""
        found = []
        for anchors, boxes in zip(np.split(level.anchors, len(instances)), instances):
            if not len(boxes):
                found.append(np.zeros(len(anchors), np.float32))
            elif level.kind in ("retinanet", "rpn"):
                overlaps = np.asarray(ops.box_iou(anchors, boxes)).max(axis=1)
                found.append((overlaps >= 0.5).astype(np.float32))
            else:
                centre = (anchors[:, None, :2] + anchors[:, None, 2:]) / 2
                inside = (centre >= boxes[None, :, :2]) & (centre <= boxes[None, :, 2:])
                found.append(inside.all(2).any(1).astype(np.float32))
        return np.concatenate(found)

    def report(self) -> list[dict[str, Any]]:
        """A row per level."""
        return [
            report_row(self.label, own, other, "none", "bce, l1", 1.0)
            for own, other in self._instances.outputs.logits
        ]
