"""Faster R-CNN: region proposals and a head per region, on one map or a feature pyramid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from . import _engine
from .backbones import Backbone
from .detector import Detector
from .detector_options import FPN, Anchors, configuration_of, first_seed


class FasterRCNN(Detector):
    """Faster R-CNN (Ren, He, Girshick, Sun, NIPS 2015) on one feature map or a feature pyramid.

    Parameters
    ----------
    backbone : kd.backbones.…(), or a name
    num_classes : int
        The background counted, as in torchvision.
    neck : None, "fpn", or kd.FPN(…)
        None is the published single map. With a pyramid every default is that of torchvision's
        ``fasterrcnn_resnet50_fpn``, and so are the names of all weights.
    anchors : kd.Anchors or None
        None: areas 128², 256², 512², ratios 1:2, 1:1, 2:1; with a pyramid 32² … 512², one a level.
    image_size : (short side, most of the long side)
        None: (600, 1000), with a pyramid (800, 1333). Images are scaled to this before anything
        else; boxes come back in the original's pixels.
    class_names : list of str, index 0 ``"background"``; taken from the data when not given
    seed : draws the first weights; None counts on from `kd.seed`
    image_mean, image_std : three numbers each, of pixels in [0, 1]
    rpn : mapping, options of the region proposals
        channels, convs, objectness ("softmax" or "sigmoid"), positive_iou, negative_iou, batch,
        positive_fraction, nms, pre_nms_train, post_nms_train, pre_nms_test, post_nms_test,
        min_size, smooth_l1_beta
    roi : mapping, options of the head
        batch, positive_fraction, positive_iou, negative_low, pool ("align" or "pool"), pool_size,
        convs (channels of convolutions before its layers), norm, hidden (widths of its layers),
        dropout, box_std, smooth_l1_beta, score_threshold, nms, min_size, max_detections

    What is not given has the published value. Raises ``ArgumentError`` naming the option.
    """

    kind = "faster_rcnn"

    def __init__(
        self,
        backbone: Backbone | str,
        num_classes: int,
        neck: FPN | str | None = None,
        anchors: Anchors | None = None,
        image_size: tuple[int, int] | None = None,
        class_names: Sequence[str] | None = None,
        seed: int | None = None,
        image_mean: Sequence[float] | None = None,
        image_std: Sequence[float] | None = None,
        rpn: Mapping[str, Any] | None = None,
        roi: Mapping[str, Any] | None = None,
    ) -> None:
        configuration = configuration_of(
            *("FasterRCNN", self.kind, backbone, num_classes, neck, anchors, image_size),
            *(class_names, image_mean, image_std),
            rpn=rpn,
            roi=roi,
        )
        self._setup(
            _engine.Detector.create(configuration, first_seed(seed, "FasterRCNN")),
            configuration["class_names"] or None,
        )

    def _taps(self) -> list[dict[str, Any]]:
        return region_taps(super()._taps(), self.num_classes)


def region_taps(taps: list[dict[str, Any]], num_classes: int) -> list[dict[str, Any]]:
    """Adds the outputs for the regions of a training step; `features` runs without proposals."""
    for name, kind, channels in (
        ("roi.class_logits", "class_logits", num_classes),
        ("roi.box_deltas", "box_deltas", 4 * num_classes),
    ):
        if all(tap["name"] != name for tap in taps):
            taps.append({"name": name, "channels": channels, "stride": None, "kind": kind})
    return taps
