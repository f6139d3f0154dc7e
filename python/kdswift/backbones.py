"""Backbones by name: small specifications that a detector is built from.

kd.FasterRCNN(kd.backbones.alexnet(width=0.5), num_classes=21)
kd.FasterRCNN("vgg16", num_classes=21)                      # the same as backbones.vgg16()
kd.FasterRCNN(kd.backbones.resnet50(norm="frozen_batch", frozen_stages=-1), num_classes=91)
kd.MaskRCNN(kd.backbones.swin_t(drop_path=0.2), num_classes=81)

The ResNets are torchvision's: the same names and shapes of all weights, the stride of a bottleneck
on its 3x3 convolution. Their stages for `frozen_stages` are the stem and layer1 to layer4; -1
freezes two.

So are the Swin Transformers, with taps stage1 to stage4 (torchvision's features.1, .3, .5 and .7).
Behind every stage stands a layer normalization, norm0 to norm3, as in MMDetection's detectors; when
the weights of torchvision's classifier are loaded with `strict=False`, these four are missing, and
`norm` and `head` are unexpected; with ``output_norm=False`` nothing is missing. Their stages for
`frozen_stages` are the embedding of patches and stage1 to stage4; -1 freezes none, as MMDetection.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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


def alexnet(
    width: float = 1.0,
    in_channels: int = 3,
    frozen_stages: int = 0,
    caffe_rounding: bool = True,
    padded: bool = True,
) -> Backbone:
    """AlexNet as Fast R-CNN's CaffeNet: five convolutions, stride 16, conv1 padded by 5."""
    return Backbone("alexnet", width, in_channels, None, frozen_stages, caffe_rounding, padded)


def alexnet_owt(
    width: float = 1.0,
    in_channels: int = 3,
    frozen_stages: int = 0,
    caffe_rounding: bool = False,
) -> Backbone:
    """torchvision's AlexNet (Krizhevsky 2014, "One weird trick"): one tower, stride 16."""
    return Backbone("alexnet_owt", width, in_channels, None, frozen_stages, caffe_rounding)


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


def resnet18(
    width: float = 1.0,
    in_channels: int = 3,
    norm: str | None = "batch",
    frozen_stages: int = 0,
    norm_epsilon: float = 1e-5,
    dcn_stages: Sequence[int] = (),
) -> Backbone:
    """ResNet-18 (He et al. 2016): basic blocks, layer1 to layer4 with 64 to 512 channels."""
    return _resnet("resnet18", width, in_channels, norm, frozen_stages, norm_epsilon, dcn_stages)


def resnet34(
    width: float = 1.0,
    in_channels: int = 3,
    norm: str | None = "batch",
    frozen_stages: int = 0,
    norm_epsilon: float = 1e-5,
    dcn_stages: Sequence[int] = (),
) -> Backbone:
    """ResNet-34 (He et al. 2016): basic blocks, layer1 to layer4 with 64 to 512 channels."""
    return _resnet("resnet34", width, in_channels, norm, frozen_stages, norm_epsilon, dcn_stages)


def resnet50(
    width: float = 1.0,
    in_channels: int = 3,
    norm: str | None = "batch",
    frozen_stages: int = 0,
    norm_epsilon: float = 1e-5,
    dcn_stages: Sequence[int] = (),
    output_stride: int = 32,
) -> Backbone:
    """ResNet-50 (He et al. 2016): bottlenecks, layer1 to layer4 with 256 to 2048 channels."""
    return _resnet(
        *("resnet50", width, in_channels, norm, frozen_stages, norm_epsilon),
        *(dcn_stages, output_stride),
    )


def resnet101(
    width: float = 1.0,
    in_channels: int = 3,
    norm: str | None = "batch",
    frozen_stages: int = 0,
    norm_epsilon: float = 1e-5,
    dcn_stages: Sequence[int] = (),
    output_stride: int = 32,
) -> Backbone:
    """ResNet-101 (He et al. 2016): as `resnet50` with 23 blocks in layer3."""
    return _resnet(
        *("resnet101", width, in_channels, norm, frozen_stages, norm_epsilon),
        *(dcn_stages, output_stride),
    )


def resnet152(
    width: float = 1.0,
    in_channels: int = 3,
    norm: str | None = "batch",
    frozen_stages: int = 0,
    norm_epsilon: float = 1e-5,
    dcn_stages: Sequence[int] = (),
    output_stride: int = 32,
) -> Backbone:
    """ResNet-152 (He et al. 2016): as `resnet50` with 8 blocks in layer2 and 36 in layer3."""
    return _resnet(
        *("resnet152", width, in_channels, norm, frozen_stages, norm_epsilon),
        *(dcn_stages, output_stride),
    )


def resnext50_32x4d(
    width: float = 1.0,
    in_channels: int = 3,
    norm: str | None = "batch",
    frozen_stages: int = 0,
    norm_epsilon: float = 1e-5,
    dcn_stages: Sequence[int] = (),
    output_stride: int = 32,
) -> Backbone:
    """ResNeXt-50 (Xie et al. 2017): as `resnet50` with 32 groups; any width keeps them."""
    return _resnet(
        *("resnext50_32x4d", width, in_channels, norm, frozen_stages, norm_epsilon),
        *(dcn_stages, output_stride),
    )


def resnext101_32x4d(
    width: float = 1.0,
    in_channels: int = 3,
    norm: str | None = "batch",
    frozen_stages: int = 0,
    norm_epsilon: float = 1e-5,
    dcn_stages: Sequence[int] = (),
    output_stride: int = 32,
) -> Backbone:
    """ResNeXt-101 (Xie et al. 2017): as `resnet101` with 32 groups; any width keeps them."""
    return _resnet(
        *("resnext101_32x4d", width, in_channels, norm, frozen_stages, norm_epsilon),
        *(dcn_stages, output_stride),
    )


def resnext101_64x4d(
    width: float = 1.0,
    in_channels: int = 3,
    norm: str | None = "batch",
    frozen_stages: int = 0,
    norm_epsilon: float = 1e-5,
    dcn_stages: Sequence[int] = (),
    output_stride: int = 32,
) -> Backbone:
    """ResNeXt-101 (Xie et al. 2017): as `resnet101` with 64 groups; any width keeps them."""
    return _resnet(
        *("resnext101_64x4d", width, in_channels, norm, frozen_stages, norm_epsilon),
        *(dcn_stages, output_stride),
    )


def _resnet(
    name: str,
    width: float,
    in_channels: int,
    norm: str | None,
    frozen_stages: int,
    norm_epsilon: float,
    dcn_stages: Sequence[int],
    output_stride: int = 32,
) -> Backbone:
    return Backbone(
        *(name, width, in_channels, norm, frozen_stages),
        output_stride=output_stride,
        norm_epsilon=norm_epsilon,
        dcn_stages=dcn_stages,
    )


def swin_t(
    width: float = 1.0,
    in_channels: int = 3,
    frozen_stages: int = 0,
    output_norm: bool = True,
    drop_path: float = 0.0,
) -> Backbone:
    """Swin-T (Liu et al. 2021): 2, 2, 6 and 2 blocks, stage1 to stage4 with 96 to 768 channels."""
    return _swin("swin_t", width, in_channels, frozen_stages, output_norm, drop_path)


def swin_s(
    width: float = 1.0,
    in_channels: int = 3,
    frozen_stages: int = 0,
    output_norm: bool = True,
    drop_path: float = 0.0,
) -> Backbone:
    """Swin-S (Liu et al. 2021): as `swin_t` with 18 blocks in stage3."""
    return _swin("swin_s", width, in_channels, frozen_stages, output_norm, drop_path)


def _swin(
    name: str,
    width: float,
    in_channels: int,
    frozen_stages: int,
    output_norm: bool,
    drop_path: float,
) -> Backbone:
    return Backbone(
        *(name, width, in_channels),
        frozen_stages=frozen_stages,
        output_norm=output_norm,
        drop_path=drop_path,
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


_MAKERS = {name: globals()[name] for name in NAMES}
