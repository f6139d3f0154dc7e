"""R-FCN: regions that vote with position-sensitive maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from . import _engine
from .backbones import Backbone
from .detector import Detector
from .detector_options import Anchors, configuration_of, first_seed


class RFCN(Detector):
    """R-FCN (Dai, Li, He and Sun, NeurIPS 2016) on the backbone's last map.

    Parameters
    ----------
    rfcn : mapping
        k (7: cells per side of a region, each with maps of its own), channels (0: 1024 times the
        backbone's width; of the 1×1 convolution behind the backbone)
    backbone, num_classes, anchors, image_size, class_names, seed, image_mean, image_std, rpn, roi
        As in `kd.FasterRCNN`; ``pool`` and ``fc`` of `roi` have no meaning here. The published
        network reads its fifth stage at stride 16: ``resnet50(dilation=(False, False, True))``
        where memory allows.

    Boxes are shared by all classes; the region head has no layers of its own, so a region costs
    next to nothing. Losses and results as in `kd.FasterRCNN`. Raises ``ArgumentError`` naming the
    option.
    """

    kind = "rfcn"

    def __init__(
        self,
        backbone: Backbone | str,
        num_classes: int,
        anchors: Anchors | None = None,
        image_size: tuple[int, int] | None = None,
        class_names: Sequence[str] | None = None,
        seed: int | None = None,
        image_mean: Sequence[float] | None = None,
        image_std: Sequence[float] | None = None,
        rpn: Mapping[str, Any] | None = None,
        roi: Mapping[str, Any] | None = None,
        rfcn: Mapping[str, Any] | None = None,
    ) -> None:
        configuration = configuration_of(
            *("RFCN", self.kind, backbone, num_classes, None, anchors, image_size),
            *(class_names, image_mean, image_std),
            rpn=rpn,
            roi=roi,
            rfcn=rfcn,
        )
        self._setup(
            _engine.Detector.create(configuration, first_seed(seed, "RFCN")),
            configuration["class_names"] or None,
        )
