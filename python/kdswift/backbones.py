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
from typing import Any

from .backbone_options import NAMES, NORMS, RESNETS, SWINS, Backbone
from .errors import ArgumentError

__all__ = ["NORMS", "RESNETS", "SWINS", "Backbone", "as_backbone", *NAMES]


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
