"""Very narrow students (1/16, 1/32 of the channels): every backbone builds, learns and predicts."""

from __future__ import annotations

import math

import numpy as np
import pytest
from tiny import CLASSES, SIZE, batch

import kdswift as kd

NAMES = (
    *("alexnet", "alexnet_owt", "resnet18", "resnet34", "resnet50", "resnet_small"),
    *("resnext50_32x4d", "swin_t", "vgg16", "vgg_m"),
)
DEEP = ("resnet101", "resnet152", "resnext101_32x4d", "resnext101_64x4d", "swin_s")


def narrow(name: str, width: float) -> kd.FasterRCNN:
    return kd.FasterRCNN(
        getattr(kd.backbones, name)(width=width),
        num_classes=len(CLASSES),
        anchors=kd.Anchors(sizes=(16, 24), ratios=(1, 2)),
        image_size=(SIZE, SIZE),
        rpn={"batch": 16, "post_nms_train": 20, "post_nms_test": 10, "min_size": 4},
        roi={"batch": 16, "hidden": [16], "pool_size": 2},
        seed=1,
    )


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("width", [1 / 16, 1 / 32])
def test_narrow_backbones_learn_and_predict(name, width):
    model = narrow(name, width)
    shapes = [v.shape for v in model.state_dict().values()]
    assert all(size >= 1 for shape in shapes for size in shape)
    images, targets = batch(1)
    total = sum(model.losses(images, targets, seed=0).values())
    assert math.isfinite(float(total))
    total.backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert gradients and all(np.isfinite(g.numpy()).all() for g in gradients)
    assert len(model.predict(images)) == 1


@pytest.mark.parametrize("name", [*NAMES, *DEEP])
def test_channels_shrink_with_the_width(name):
    def size(width: float) -> int:
        state = narrow(name, width).state_dict()
        return sum(v.size for n, v in state.items() if n.startswith("backbone."))

    # Channels are multiples of 8, at least 8, so that layers of few channels stop shrinking; a Swin
    # Transformer has at least one head of 32 channels.
    found = [size(width) for width in (1, 1 / 4, 1 / 16, 1 / 32)]
    assert found == sorted(found, reverse=True)
    assert found[0] > 5 * found[2]


def test_published_counts():
    """VGG-1-32 of Wei et al. 2018: 512 / 32 = 16 channels at the end."""
    state = narrow("vgg16", 1 / 32).state_dict()
    assert state["backbone.features.28.weight"].shape == (16, 16, 3, 3)
    assert state["backbone.features.0.weight"].shape == (8, 3, 3, 3)
    assert narrow("resnet18", 1 / 16).state_dict()["backbone.layer4.1.conv2.weight"].shape[0] == 32
