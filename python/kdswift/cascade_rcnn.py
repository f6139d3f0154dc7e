"""Cascade R-CNN: several region heads, each on the boxes that the one before has moved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from . import _engine
from .backbones import Backbone
from .detector import Detector
from .detector_options import FPN, Anchors, configuration_of, first_seed


class CascadeRCNN(Detector):
    """Cascade R-CNN (Cai and Vasconcelos, CVPR 2018), with masks Cascade Mask R-CNN.

    Parameters
    ----------
    neck : "fpn", kd.FPN(…), or None for one feature map
    cascade : mapping, one entry per stage in each
        ious (0.5, 0.6, 0.7: least IoU of a positive), box_stds (standard deviations of the box
        code, four a stage), loss_weights (1, 0.5, 0.25)
    mask : None, True, or a mapping of options as in `kd.MaskRCNN`
        Gives every stage a mask branch; targets then need ``masks``, Detections have them.
    backbone, num_classes, anchors, image_size, class_names, seed, image_mean, image_std, rpn, roi
        As in `kd.FasterRCNN`; positive_iou and box_std of `roi` are those of `cascade` here.

    What is not given has the published value; images and pyramid as torchvision's. Boxes are
    shared by all classes. A detection's score is the mean of the stages' probabilities, its box
    the last stage's. Losses are ``loss_classifier_0``, ``loss_box_reg_0``, …, times their weights.
    Raises ``ArgumentError`` naming the option.
    """

    kind = "cascade_rcnn"

    def __init__(
        self,
        backbone: Backbone | str,
        num_classes: int,
        neck: FPN | str | None = "fpn",
        anchors: Anchors | None = None,
        image_size: tuple[int, int] | None = None,
        class_names: Sequence[str] | None = None,
        seed: int | None = None,
        image_mean: Sequence[float] | None = None,
        image_std: Sequence[float] | None = None,
        rpn: Mapping[str, Any] | None = None,
        roi: Mapping[str, Any] | None = None,
        cascade: Mapping[str, Any] | None = None,
        mask: Mapping[str, Any] | bool | None = None,
    ) -> None:
        if isinstance(mask, bool):
            mask = {} if mask else None
        configuration = configuration_of(
            *("CascadeRCNN", self.kind, backbone, num_classes, neck, anchors, image_size),
            *(class_names, image_mean, image_std),
            rpn=rpn,
            roi=roi,
            cascade=cascade,
            mask=mask,
        )
        self._setup(
            _engine.Detector.create(configuration, first_seed(seed, "CascadeRCNN")),
            configuration["class_names"] or None,
        )
