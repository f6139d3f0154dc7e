"""For every published method a tiny student and teacher that it fits."""

from __future__ import annotations

from typing import Any

from tiny import CLASSES, SIZE, scenes

import kdswift as kd
from kdswift.methods import Method, names

ONE_STAGE = ("ld", "crosskd")
ANCHORS = kd.Anchors(sizes=(12, 20, 32), ratios=(1,))
# Two levels of the same channels on both sides, so that methods without adapters fit too.
PYRAMID = {"channels": 16, "extra": "none", "start": "layer2"}


def dense(kind: str = "GFL", seed: int = 0, width: float = 0.25, channels: int = 16) -> Any:
    """A one-stage detector for 48-pixel scenes."""
    neck = {**PYRAMID, "channels": channels}
    return getattr(kd, kind)(
        *(kd.backbones.resnet_small(width=width, output_stride=16), len(CLASSES)),
        neck=kd.FPN(**neck),
        image_size=(SIZE, SIZE),
        anchors=kd.Anchors(sizes=(16, 28), ratios=(1,)),
        class_names=CLASSES,
        head={"convs": 2},
        seed=seed,
    )


def regions(
    seed: int = 0, width: float = 0.25, channels: int = 16, kind: str = "FasterRCNN"
) -> Any:
    """A two-stage detector on a pyramid."""
    neck = {**PYRAMID, "channels": channels}
    return getattr(kd, kind)(
        *(kd.backbones.resnet_small(width=width, output_stride=16), len(CLASSES)),
        neck=kd.FPN(**neck),
        image_size=(SIZE, SIZE),
        anchors=kd.Anchors(sizes=(16, 28), ratios=(1,)),
        class_names=CLASSES,
        rpn={"batch": 16, "post_nms_train": 30, "post_nms_test": 20, "min_size": 4},
        roi={"batch": 16, "hidden": [32], "pool_size": 3, "positive_fraction": 0.5},
        seed=seed,
    )


def pair(name: str, channels: tuple[int, int] = (16, 16)) -> tuple[Any, Any]:
    """(student, teacher) for the method called `name`, with these channels of their pyramids."""
    if name in TWO_STAGE:
        return regions(1, 0.25, channels[0]), regions(2, 0.5, channels[1])
    return dense("GFL", 1, 0.25, channels[0]), dense("GFL", 2, 0.5, channels[1])


TWO_STAGE = ("chen2017", "mimic2017", "quantization_mimic")
METHODS = tuple(names())
# Those that may join maps of unlike channels.
ADAPTING = tuple(n for n in METHODS if n not in ("pkd", "attention_transfer", "ld", "soft_labels"))

OPTIONS = {
    "epochs": 1,
    "batch_size": 2,
    "progress": False,
    "workers": 0,
    "seed": 1,
    "log_every": 1,
    "clip_norm": 5.0,
}


def method_of(name: str) -> Method:
    """The method without its windows: they begin after the few steps of a test."""
    return kd.methods.by_name(name).always()


def distil(method: Method | str, student: Any, teacher: Any, n: int = 4, **options: Any) -> Any:
    """A short run."""
    method = method_of(method) if isinstance(method, str) else method
    return kd.distill(student, teacher, scenes(n), method=method, **{**OPTIONS, **options})
