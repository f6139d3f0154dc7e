"""R-FCN from Python: its losses, options and files; its pooling beside torchvision's."""

from __future__ import annotations

import numpy as np
import pytest
import tiny

import kdswift as kd
from kdswift.data import DigitScenes
from kdswift.errors import ArgumentError, ShapeError


def detector(**options) -> kd.RFCN:
    """An R-FCN for 48-pixel scenes."""
    return kd.RFCN(
        options.pop("backbone", kd.backbones.resnet_small(width=0.25, output_stride=8)),
        len(tiny.CLASSES),
        anchors=kd.Anchors(sizes=(12, 24, 36)),
        image_size=(tiny.SIZE, tiny.SIZE),
        class_names=tiny.CLASSES,
        seed=0,
        rpn={"batch": 32, "post_nms_train": 40, "post_nms_test": 20},
        roi={"batch": 32},
        **{"rfcn": {"k": 3, "channels": 32}, **options},
    )


def scenes(n: int = 8) -> DigitScenes:
    return DigitScenes("train", n, tiny.SIZE)


def test_losses_are_the_cross_entropy_and_the_smooth_l1_of_votes():
    model = detector()
    images, targets = zip(*(scenes()[i] for i in range(2)))
    losses = model.losses(list(images), list(targets), seed=1)
    assert list(losses)[2:] == ["loss_classifier", "loss_box_reg"]
    # Maps start near zero, so every class is equally likely.
    wanted = np.log(len(tiny.CLASSES))
    assert float(losses["loss_classifier"].numpy()) == pytest.approx(wanted, rel=0.05)
    sum(losses.values()).backward()
    for name, parameter in model.named_parameters():
        assert np.isfinite(parameter.grad.numpy()).all(), name
        assert parameter.grad.numpy().any() or "backbone" in name, name
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
    assert shapes["roi_heads.cls_maps.weight"] == (9 * len(tiny.CLASSES), 32, 1, 1)
    assert shapes["roi_heads.box_maps.weight"] == (9 * 4, 32, 1, 1)


def test_fit_predict_save_and_load(tmp_path):
    model = detector()
    first = model.losses(*(list(x) for x in zip(*(scenes()[i] for i in range(4)))), seed=1)
    model.fit(scenes(), epochs=4, **tiny.QUIET)
    last = model.losses(*(list(x) for x in zip(*(scenes()[i] for i in range(4)))), seed=1)
    assert sum(map(float, last.values())) < sum(map(float, first.values()))
    model.save(tmp_path / "m.safetensors")
    again = kd.load(tmp_path / "m.safetensors")
    assert type(again) is kd.RFCN and tiny.same(model, again)
    for i in range(2):
        a, b = (m.predict(scenes()[i][0], score_threshold=0.0)[0] for m in (model, again))
        assert len(a) and np.array_equal(a.boxes, b.boxes)


def test_on_a_dilated_resnet():
    """The published arrangement: layer4 keeps the stride of 16."""
    model = detector(backbone=kd.backbones.resnet50(0.125, output_stride=16))
    image = np.zeros((64, 96, 3), np.uint8)
    maps = model.features(image)
    assert maps["backbone.layer4"].shape[2:] == maps["backbone.layer3"].shape[2:]


def test_wrong_options_are_named():
    for options, words in (
        ({"rfcn": {"k": 0}}, "k 0"),
        ({"rfcn": {"cells": 3}}, "cells"),
        ({"rfcn": {"channels": -1}}, "channels -1"),
    ):
        with pytest.raises(ArgumentError, match=words):
            detector(**options)


def test_pooling_needs_maps_for_every_cell():
    with pytest.raises(ShapeError, match="8 channels are not a multiple of 3x3"):
        kd.ops.ps_roi_pool(np.zeros((1, 8, 4, 4)), np.zeros((1, 5)), 3)


# torchvision's values leave out the last row and column, its gradients do not: ours, which are
# those of the values, can only agree away from there.
@pytest.mark.parametrize(("low", "high", "differentiable"), [(-10, 120, False), (5, 75, True)])
def test_pooling_equals_torchvision(low, high, differentiable):
    torch = pytest.importorskip("torch")
    ops = pytest.importorskip("torchvision.ops")
    random = np.random.default_rng(0)
    maps = random.normal(size=(2, 2 * 12, 11, 9)).astype(np.float32)
    corners = random.uniform(low, high, (20, 2, 2)).astype(np.float32)
    corners = np.concatenate([corners.min(1), corners.max(1)], 1)
    rois = np.concatenate([random.integers(0, 2, (20, 1)), corners], 1).astype(np.float32)
    upstream = random.normal(size=(20, 2, 3, 4)).astype(np.float32)
    theirs = torch.from_numpy(maps).requires_grad_()
    expected = ops.ps_roi_pool(theirs, torch.from_numpy(rois), (3, 4), 0.1)
    expected.backward(torch.from_numpy(upstream))
    mine = kd.tensor(maps, requires_grad=True)
    found = kd.ops.ps_roi_pool(mine, rois, (3, 4), 0.1)
    (found * kd.tensor(upstream)).sum().backward()
    # Means of at most 99 values around 1.
    np.testing.assert_allclose(found.numpy(), expected.detach().numpy(), atol=1e-6)
    if differentiable:
        np.testing.assert_allclose(mine.grad.numpy(), theirs.grad.numpy(), atol=1e-6)
