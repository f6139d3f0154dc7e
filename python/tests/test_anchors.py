"""Anchors as arrays: of every kind of detector, beside its own maps and torchvision's rule."""

from __future__ import annotations

import numpy as np
import pytest

import kdswift as kd

SIZES = ((12, 20), (24, 40), (48, 80))
RATIOS = (0.5, 1)
KINDS = {
    "retinanet": lambda b: kd.RetinaNet(b, 4, kd.FPN(16, extra="none"), kd.Anchors(SIZES, RATIOS)),
    "gfl": lambda b: kd.GFL(b, 4, kd.FPN(16), kd.Anchors((9, 17, 33, 65, 90), (1,))),
    "fcos": lambda b: kd.FCOS(b, 4, kd.FPN(16)),
    "faster": lambda b: kd.FasterRCNN(
        b, 4, kd.FPN(16, extra="pool"), kd.Anchors((12, 20, 32, 48, 64), RATIOS)
    ),
    "one map": lambda b: kd.FasterRCNN(b, 4, anchors=kd.Anchors((12, 20), RATIOS)),
}


def expected(model, size, maps):
    """Every size with every ratio at every cell: (w, h) = s (r^-1/2, r^1/2), corners rounded."""
    configuration = model.configuration
    sizes = np.array(configuration["anchor_sizes"]).reshape(len(maps), -1)
    ratios = np.sqrt(np.array(configuration["anchor_ratios"], np.float32))[:, None]
    result = []
    for (height, width), stride, own in zip(maps, strides(model), sizes.astype(np.float32)):
        w, h = (own / ratios).ravel(), (own * ratios).ravel()
        base = np.round(np.stack([-w, -h, w, h], 1) / 2)
        if configuration["anchor_strides"] == "image":
            step = (size[0] // height, size[1] // width)
        else:
            step = (stride, stride)
        y, x = np.mgrid[:height, :width]
        move = np.stack([x * step[1], y * step[0]] * 2, -1).reshape(-1, 1, 4)
        result.append((move + base).reshape(-1, 4))
    return result


def strides(model):
    taps = model._taps()
    neck = [tap["stride"] for tap in taps if tap["name"].startswith("neck.")]
    return neck or [tap["stride"] for tap in taps if tap["name"].startswith("backbone.")][-1:]


@pytest.mark.parametrize("size", [(96, 64), (160, 224)])
@pytest.mark.parametrize("kind", KINDS)
def test_anchors_are_those_of_the_maps(kind, size):
    body = "resnet18" if kind != "retinanet" else kd.backbones.resnet_small(0.25, output_stride=16)
    if kind != "retinanet":
        body = kd.backbones.resnet18(0.125)
    model = KINDS[kind](body)
    configuration = {**model.configuration, "image_min": min(size), "image_max": max(size)}
    model = kd.Detector.from_configuration(configuration)
    features = model.features([np.zeros((*size, 3), np.uint8)])
    maps = [v.shape[2:] for n, v in features.items() if n.startswith("neck.")]
    maps = maps or [v.shape[2:] for n, v in features.items() if n.startswith("backbone.")][-1:]
    found, wanted = model.anchors(size), expected(model, size, maps)
    assert len(found) == len(wanted)
    for ours, theirs in zip(found, wanted):
        # Rounded numbers: equal or wrong.
        assert ours.dtype == np.float32 and np.array_equal(ours, theirs)


def test_sizes_that_cannot_be_are_refused():
    model = KINDS["fcos"](kd.backbones.resnet18(0.125))
    for size in ((0, 32), (32, -1), (1 << 20, 32), "large", (32, 32, 32)):
        with pytest.raises(kd.KDSError):
            model.anchors(size)
    many = KINDS["retinanet"](kd.backbones.resnet_small(0.25, output_stride=16))
    with pytest.raises(kd.KDSError, match="more than 2"):
        many.anchors(1 << 14)
