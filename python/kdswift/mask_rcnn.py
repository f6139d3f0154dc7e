"""Mask R-CNN: Faster R-CNN with a mask for every object."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from . import _engine
from .backbones import Backbone
from .detector import Detector
from .detector_options import FPN, Anchors, configuration_of, first_seed
from .faster_rcnn import region_taps


class MaskRCNN(Detector):
    """Mask R-CNN (He, Gkioxari, Dollár, Girshick, ICCV 2017): boxes, classes and masks.

    Parameters
    ----------
    neck : "fpn", kd.FPN(…), or None for one feature map
    mask : mapping, options of the mask branch
        pool_size (cells per side of a region; a mask has twice as many), sampling_ratio, convs
        (channels of the 3×3 convolutions), channels (of the transposed convolution), norm
    backbone, num_classes, anchors, image_size, class_names, seed, image_mean, image_std, rpn, roi
        As in `kd.FasterRCNN`.

    What is not given is that of torchvision's ``maskrcnn_resnet50_fpn``, and so are the names of
    all weights. Targets need ``masks`` (N, H, W) beside boxes and labels; Detections have
    ``masks``, bool (N, H, W), in pixels of the image that was given. Raises ``ArgumentError``
    naming the option.

    >>> scenes = kd.data.DigitScenes(masks=True)
    >>> model = kd.MaskRCNN("resnet_small", 11)
    """

    kind = "mask_rcnn"

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
        mask: Mapping[str, Any] | None = None,
    ) -> None:
        configuration = configuration_of(
            *("MaskRCNN", self.kind, backbone, num_classes, neck, anchors, image_size),
            *(class_names, image_mean, image_std),
            rpn=rpn,
            roi=roi,
            mask=mask,
        )
        self._setup(
            _engine.Detector.create(configuration, first_seed(seed, "MaskRCNN")),
            configuration["class_names"] or None,
        )

    def _taps(self) -> list[dict[str, Any]]:
        return region_taps(super()._taps(), self.num_classes)
