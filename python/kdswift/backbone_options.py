"""The options of a backbone, whichever it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .errors import ArgumentError

NORMS = ("batch", "frozen_batch", "group", "none")


@dataclass(frozen=True)
class Backbone:
    """What a backbone is made from; it holds no weights.

    name : one of `NAMES`
    width : factor on every channel count, rounded to multiples of 8 (at least 8); of a Swin
        Transformer on its heads, of 32 channels each (3 in stage1 at width 1, at least one)
    in_channels : channels of the images
    norm : "batch", "frozen_batch", "group" or None; AlexNet and VGG have none, and the Swin
        Transformers have layer normalization: they take the default alone
    frozen_stages : stages from the input whose weights stay; -1 takes the published choice
    caffe_rounding : sizes of pooled maps are rounded up, as the published AlexNet, VGG_CNN_M and
        VGG16 detectors have it
    padded : AlexNet's first convolution and pools are padded, as in the published detector
    output_stride : pixels per step of the last map; 0 takes the backbone's own (resnet_small has 8,
        and may have 4 or 16; AlexNet and VGG have 16; the others 32, ResNets of bottlenecks also
        16, with layer4 dilated)
    norm_epsilon : added to the variances; old checkpoints of torchvision's detectors need 0
    dcn_stages : layers of a ResNet or ResNeXt, 1 to 4, whose 3x3 convolutions are deformable
    output_norm : layer normalization behind every stage of a Swin Transformer, for detectors
    drop_path : probability that a training step leaves out the branches of a Swin Transformer's
        last block, falling to 0 at the first (stochastic depth; published: 0.2 for swin_t, 0.3 for
        swin_s). The step's seed draws it
    """

    name: str
    width: float = 1.0
    in_channels: int = 3
    norm: str | None = "batch"
    frozen_stages: int = 0
    caffe_rounding: bool = True
    padded: bool = True
    output_stride: int = 0
    norm_epsilon: float = 1e-5
    dcn_stages: tuple[int, ...] = ()
    output_norm: bool = True
    drop_path: float = 0.0

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
        if not (isinstance(self.norm_epsilon, (int, float)) and 0 <= self.norm_epsilon <= 1):
            raise ArgumentError(f"{where}: norm_epsilon is {self.norm_epsilon!r}, expected 0 to 1")
        object.__setattr__(self, "dcn_stages", _stages(self.dcn_stages, where))
        if self.dcn_stages and self.name not in RESNETS:
            raise ArgumentError(f"{where}: dcn_stages are for {', '.join(RESNETS)}")
        self._check_swin(where)

    def _check_swin(self, where: str) -> None:
        if not (isinstance(self.drop_path, (int, float)) and 0 <= self.drop_path < 1):
            raise ArgumentError(
                f"{where}: drop_path is {self.drop_path!r}, expected at least 0 and below 1"
            )
        if self.name in SWINS and self.norm != "batch":
            raise ArgumentError(
                f"{where}: norm is {self.norm!r}, but a Swin Transformer has layer normalization "
                "only; leave norm out"
            )
        if self.drop_path and self.name not in SWINS:
            raise ArgumentError(f"{where}: drop_path is for {', '.join(SWINS)}")

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
            "norm_epsilon": float(self.norm_epsilon),
            "dcn_stages": list(self.dcn_stages),
            "output_norm": bool(self.output_norm),
            "drop_path": float(self.drop_path),
        }


def _stages(value: Any, where: str) -> tuple[int, ...]:
    """Different layers from 1 to 4, in order."""
    try:
        stages = tuple(sorted(value))
        good = len(set(stages)) == len(stages) and all(stage in (1, 2, 3, 4) for stage in stages)
    except TypeError:
        good = False
    if not good:
        raise ArgumentError(
            f"{where}: dcn_stages is {value!r}, expected different numbers from 1 to 4"
        )
    return tuple(int(stage) for stage in stages)


RESNETS = (
    *("resnet18", "resnet34", "resnet50", "resnet101", "resnet152"),
    *("resnext50_32x4d", "resnext101_32x4d", "resnext101_64x4d"),
)
SWINS = ("swin_t", "swin_s")
NAMES = ("alexnet", "alexnet_owt", "vgg_m", "vgg16", "resnet_small", *RESNETS, *SWINS)
