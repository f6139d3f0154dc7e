"""Faster R-CNN as Ren et al. published it: one feature map, region proposals, a head per region."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from . import _engine, runtime
from ._inputs import check_count
from .backbones import Backbone, as_backbone
from .detector import Detector, _check_names
from .errors import ArgumentError


@dataclass(frozen=True)
class Anchors:
    """Anchor boxes at every place of the feature map.

    sizes : square roots of the areas, in pixels of the scaled image
    ratios : height divided by width
    """

    sizes: Sequence[float] = (128, 256, 512)
    ratios: Sequence[float] = (0.5, 1.0, 2.0)

    def __post_init__(self) -> None:
        for name in ("sizes", "ratios"):
            values = getattr(self, name)
            values = (values,) if isinstance(values, (int, float)) else tuple(values)
            if not values or not all(isinstance(v, (int, float)) and v > 0 for v in values):
                raise ArgumentError(f"Anchors: {name} is {values!r}, expected numbers above 0")
            object.__setattr__(self, name, tuple(float(v) for v in values))


class FasterRCNN(Detector):
    """Faster R-CNN (Ren, He, Girshick, Sun, NIPS 2015) on one feature map.

    Parameters
    ----------
    backbone : kd.backbones.…(), or a name
    num_classes : int
        The background counted, as in torchvision.
    neck : None
        Feature pyramids are not built yet.
    anchors : kd.Anchors or None (areas 128², 256², 512², ratios 1:2, 1:1, 2:1)
    image_size : (short side, most of the long side)
        Images are scaled to this before anything else; boxes come back in the original's pixels.
    class_names : list of str, index 0 ``"background"``; taken from the data when not given
    seed : draws the first weights; None counts on from `kd.seed`
    image_mean, image_std : three numbers each, of pixels in [0, 1]
    rpn : mapping, options of the region proposals
        channels, positive_iou, negative_iou, batch, positive_fraction, nms, pre_nms_train,
        post_nms_train, pre_nms_test, post_nms_test, min_size, smooth_l1_beta
    roi : mapping, options of the head
        batch, positive_fraction, positive_iou, negative_low, pool ("align" or "pool"), pool_size,
        hidden (widths of its layers), dropout, box_std, smooth_l1_beta, score_threshold, nms,
        max_detections

    What is not given has the published value. Raises ``ArgumentError`` naming the option.
    """

    kind = "faster_rcnn"

    def __init__(
        self,
        backbone: Backbone | str,
        num_classes: int,
        neck: None = None,
        anchors: Anchors | None = None,
        image_size: tuple[int, int] = (600, 1000),
        class_names: Sequence[str] | None = None,
        seed: int | None = None,
        image_mean: Sequence[float] | None = None,
        image_std: Sequence[float] | None = None,
        rpn: Mapping[str, Any] | None = None,
        roi: Mapping[str, Any] | None = None,
    ) -> None:
        if neck is not None:
            raise ArgumentError(f"FasterRCNN: neck is {neck!r}; only None is there yet")
        num_classes = check_count(num_classes, "num_classes", "FasterRCNN", least=2)
        names = _check_names(class_names, num_classes)
        short, longest = _image_size(image_size)
        configuration: dict[str, Any] = {
            "detector": self.kind,
            "num_classes": num_classes,
            "class_names": list(names or ()),
            "image_min": short,
            "image_max": longest,
            "backbone": as_backbone(backbone, "FasterRCNN: backbone").to_dict(),
        }
        if anchors is not None:
            if not isinstance(anchors, Anchors):
                raise ArgumentError(f"FasterRCNN: anchors must be kd.Anchors, got {anchors!r}")
            configuration["anchor_sizes"] = list(anchors.sizes)
            configuration["anchor_ratios"] = list(anchors.ratios)
        for name, values in (("image_mean", image_mean), ("image_std", image_std)):
            if values is not None:
                configuration[name] = _three(values, name)
        for name, options in (("rpn", rpn), ("roi", roi)):
            if options is not None:
                configuration[name] = _options(options, name)
        seed = runtime.next_seed() if seed is None else check_count(seed, "seed", "FasterRCNN", 0)
        self._setup(_engine.Detector.create(configuration, seed), names)

    def _taps(self) -> list[dict[str, Any]]:
        taps = super()._taps()
        # Of the regions sampled in a training step; `features` runs without proposals.
        for name, kind, channels in (
            ("roi.class_logits", "class_logits", self.num_classes),
            ("roi.box_deltas", "box_deltas", 4 * self.num_classes),
        ):
            if all(tap["name"] != name for tap in taps):
                taps.append({"name": name, "channels": channels, "stride": None, "kind": kind})
        return taps


def _image_size(value: Any) -> tuple[int, int]:
    pair = (value, value) if isinstance(value, int) else tuple(value)
    if len(pair) != 2 or not all(isinstance(v, int) and v > 0 for v in pair) or pair[0] > pair[1]:
        raise ArgumentError(
            f"FasterRCNN: image_size is {value!r}, expected (short side, most of the long side) "
            "in whole pixels"
        )
    return pair


def _three(values: Sequence[float], name: str) -> list[float]:
    numbers = [float(v) for v in values]
    if len(numbers) != 3 or (name == "image_std" and min(numbers) <= 0):
        raise ArgumentError(
            f"FasterRCNN: {name} is {values!r}, expected three numbers"
            + (" above 0" if name == "image_std" else "")
        )
    return numbers


def _options(options: Any, name: str) -> dict[str, Any]:
    if not isinstance(options, Mapping):
        raise ArgumentError(f"FasterRCNN: {name} must be a mapping, got {type(options).__name__}")
    return {
        key: list(value) if isinstance(value, (tuple, list)) else value
        for key, value in options.items()
    }
