"""Backbones by name: small specifications that a detector is built from.

kd.FasterRCNN(kd.backbones.alexnet(width=0.5), num_classes=21)
kd.FasterRCNN("vgg16", num_classes=21)                      # the same as backbones.vgg16()
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .errors import ArgumentError

NORMS = ("batch", "frozen_batch", "group", "none")


@dataclass(frozen=True)
class Backbone:
    """What a backbone is made from; it holds no weights.

    name : one of `NAMES`
    width : factor on every channel count, rounded to multiples of 8 (at least 8)
    in_channels : channels of the images
    norm : "batch", "frozen_batch", "group" or None; AlexNet and VGG have none
    frozen_stages : stages from the input whose weights stay; -1 takes the published choice
    caffe_rounding : sizes of pooled maps are rounded up, as the published AlexNet, VGG_CNN_M and
        VGG16 detectors have it
    padded : AlexNet's first convolution and pools are padded, as in the published detector
    output_stride : pixels per step of the last map; 0 takes the backbone's own (resnet_small has 8,
        and may have 4 or 16; the others have 16)
    """

    name: str
    width: float = 1.0
    in_channels: int = 3
    norm: str | None = "batch"
    frozen_stages: int = 0
    caffe_rounding: bool = True
    padded: bool = True
    output_stride: int = 0

    def __post_init__(self) -> None:
        where = f"backbones.{self.name}"
        if self.name not in NAMES:
            raise ArgumentError(f"backbone {self.name!r} is unknown; there are {', '.join(NAMES)}")
        if not (isinstance(self.width, (int, float)) and 0 < self.width <= 16):
            raise ArgumentError(f"{where}: width is {self.width!r}, expected above 0, at most 16")
        if int(self.in_channels) != self.in_channels or self.in_channels < 1:
            raise ArgumentError(
                f"{where}: in_channels is {self.in_channels!r}, expected a whole number from 1"
            )
        if self.norm is not None and self.norm not in NORMS:
            raise ArgumentError(
                f"{where}: norm is {self.norm!r}, expected one of {', '.join(NORMS[:3])}, or None"
            )
        if int(self.frozen_stages) != self.frozen_stages or self.frozen_stages < -1:
            raise ArgumentError(
                f"{where}: frozen_stages is {self.frozen_stages!r}, expected -1, 0, 1, …"
            )

    def to_dict(self) -> dict[str, Any]:
        """The engine's configuration."""
        return {
            "name": self.name,
            "width": float(self.width),
            "in_channels": int(self.in_channels),
            "norm": self.norm or "none",
            "frozen_stages": int(self.frozen_stages),
            "caffe_rounding": bool(self.caffe_rounding),
            "padded": bool(self.padded),
            "output_stride": int(self.output_stride),
        }


NAMES = ("alexnet", "vgg_m", "vgg16", "resnet_small")


def alexnet(
    width: float = 1.0,
    in_channels: int = 3,
    frozen_stages: int = 0,
    caffe_rounding: bool = True,
    padded: bool = True,
) -> Backbone:
    """AlexNet as Fast R-CNN's CaffeNet: five convolutions, stride 16, conv1 padded by 5."""
    return Backbone("alexnet", width, in_channels, None, frozen_stages, caffe_rounding, padded)


def vgg_m(
    width: float = 1.0,
    in_channels: int = 3,
    frozen_stages: int = 0,
    caffe_rounding: bool = True,
) -> Backbone:
    """VGG_CNN_M_1024 (Chatfield et al. 2014): five convolutions, stride 16."""
    return Backbone("vgg_m", width, in_channels, None, frozen_stages, caffe_rounding)


def vgg16(
    width: float = 1.0,
    in_channels: int = 3,
    frozen_stages: int = 0,
    caffe_rounding: bool = True,
) -> Backbone:
    """VGG16 (Simonyan and Zisserman 2015): thirteen convolutions, stride 16."""
    return Backbone("vgg16", width, in_channels, None, frozen_stages, caffe_rounding)


def resnet_small(
    width: float = 1.0,
    in_channels: int = 3,
    norm: str | None = "batch",
    frozen_stages: int = 0,
    output_stride: int = 8,
) -> Backbone:
    """A small residual network that learns from scratch in minutes; for small images.

    Taps layer1, layer2, layer3; the last map has `output_stride` 4, 8 or 16.
    """
    return Backbone(
        *("resnet_small", width, in_channels, norm, frozen_stages), output_stride=output_stride
    )


def as_backbone(value: Any, where: str = "backbone") -> Backbone:
    """A specification from itself, a name, or a mapping with the fields of `Backbone`."""
    if isinstance(value, Backbone):
        return value
    if isinstance(value, str):
        maker = _MAKERS.get(value)
        if maker is None:
            raise ArgumentError(f"{where} {value!r} is unknown; there are {', '.join(NAMES)}")
        return maker()
    if isinstance(value, Mapping):
        fields = dict(value)
        if fields.get("norm") == "none":
            fields["norm"] = None
        try:
            return Backbone(**fields)
        except TypeError as error:
            raise ArgumentError(f"{where}: {error}") from None
    raise ArgumentError(
        f"{where} must be a name or one of kd.backbones, got {type(value).__name__}"
    )


_MAKERS = {"alexnet": alexnet, "vgg_m": vgg_m, "vgg16": vgg16, "resnet_small": resnet_small}
