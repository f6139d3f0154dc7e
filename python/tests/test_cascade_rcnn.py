"""Cascade R-CNN from Python: its losses by stage, its options, with and without masks."""

from __future__ import annotations

import numpy as np
import pytest
import tiny

import kdswift as kd
from kdswift.data import DigitScenes
from kdswift.errors import ArgumentError


def detector(**options) -> kd.CascadeRCNN:
    """A cascade for 48-pixel scenes."""
    return kd.CascadeRCNN(
        kd.backbones.resnet_small(width=0.25, output_stride=16),
        len(tiny.CLASSES),
        neck=kd.FPN(channels=16),
        anchors=kd.Anchors(sizes=(12, 24, 36, 48)),
        image_size=(tiny.SIZE, tiny.SIZE),
        class_names=tiny.CLASSES,
        seed=0,
        rpn={"batch": 32, "post_nms_train": 40, "post_nms_test": 20},
        roi={"batch": 32, "hidden": [32]},
        **options,
    )


MASK = {"convs": [16], "channels": 16, "pool_size": 7}


def scenes(n: int = 8) -> DigitScenes:
    return DigitScenes("train", n, tiny.SIZE, masks=True)


@pytest.mark.parametrize("mask", [None, MASK])
def test_every_stage_has_its_losses_and_learns(mask):
    model = detector(mask=mask)
    images, targets = zip(*(scenes()[i] for i in range(2)))
    losses = model.losses(list(images), list(targets), seed=1)
    parts = ("loss_classifier", "loss_box_reg") + (("loss_mask",) if mask else ())
    assert list(losses)[2:] == [f"{part}_{stage}" for stage in range(3) for part in parts]
    sum(losses.values()).backward()
    for name, parameter in model.named_parameters():
        assert np.isfinite(parameter.grad.numpy()).all(), name
    for stage in range(3):
        head = f"roi_heads.stages.{stage}.box_head.fc6.weight"
        assert dict(model.named_parameters())[head].grad.numpy().any()


def test_weights_scale_the_losses_of_their_stage():
    images, targets = zip(*(scenes()[i] for i in range(2)))
    one, two = (
        detector(cascade={"loss_weights": weights}).losses(list(images), list(targets), seed=1)
        for weights in ([1, 1, 1], [1, 0.5, 2])
    )
    for name, factor in (("0", 1), ("1", 0.5), ("2", 2)):
        a, b = (float(d[f"loss_classifier_{name}"].numpy()) for d in (one, two))
        assert b == pytest.approx(factor * a, rel=1e-6)


@pytest.mark.parametrize("mask", [None, True])
def test_fit_predict_save_and_load(mask, tmp_path):
    model = detector(mask=MASK if mask else None)
    model.fit(scenes(), epochs=1, **tiny.QUIET)
    model.save(tmp_path / "m.safetensors")
    again = kd.load(tmp_path / "m.safetensors")
    assert type(again) is kd.CascadeRCNN and tiny.same(model, again)
    assert again.has_masks is bool(mask) and model.clone().has_masks is bool(mask)
    for i in range(2):
        image = scenes()[i][0]
        a, b = (m.predict(image, score_threshold=0.0)[0] for m in (model, again))
        assert len(a) and np.array_equal(a.boxes, b.boxes)
        assert (a.masks is not None) is bool(mask)


def test_wrong_options_are_named():
    for options, words in (
        ({"cascade": {"ious": [0.5]}}, "cascade"),
        ({"cascade": {"iou": [0.5]}}, "ious"),
        ({"mask": 3}, "mask"),
        ({"mask": {"convs": [0]}}, "mask"),
    ):
        with pytest.raises(ArgumentError, match=words):
            detector(**options)
    assert detector(mask=False).has_masks is False
