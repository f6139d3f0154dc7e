"""What the constructors of all one-stage detectors share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from . import _engine
from .backbones import Backbone
from .detector import Detector
from .detector_options import FPN, Anchors, configuration_of, first_seed


class OneStageDetector(Detector):
    """Base of `kd.RetinaNet`, `kd.FCOS`, `kd.ATSS` and `kd.GFL`."""

    def __init__(
        self,
        backbone: Backbone | str,
        num_classes: int,
        neck: FPN | str = "fpn",
        anchors: Anchors | None = None,
        image_size: tuple[int, int] | None = None,
        class_names: Sequence[str] | None = None,
        seed: int | None = None,
        image_mean: Sequence[float] | None = None,
        image_std: Sequence[float] | None = None,
        head: Mapping[str, Any] | None = None,
    ) -> None:
        name = type(self).__name__
        configuration = configuration_of(
            *(name, self.kind, backbone, num_classes, neck, anchors, image_size),
            *(class_names, image_mean, image_std),
            head=head,
        )
        self._setup(
            _engine.Detector.create(configuration, first_seed(seed, name)),
            configuration["class_names"] or None,
        )
