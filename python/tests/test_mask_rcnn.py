"""Mask R-CNN from Python: learning from masks, finding them, scoring and drawing them."""

from __future__ import annotations

import numpy as np
import pytest
import tiny

import kdswift as kd
from kdswift.augment import HorizontalFlip
from kdswift.data import DigitScenes, Loader
from kdswift.errors import ArgumentError, ShapeError


def detector(seed: int = 0, **options) -> kd.MaskRCNN:
    """A Mask R-CNN for 48-pixel scenes."""
    return kd.MaskRCNN(
        kd.backbones.resnet_small(width=0.25, output_stride=16),
        len(tiny.CLASSES),
        neck=kd.FPN(channels=16),
        anchors=kd.Anchors(sizes=(12, 24, 36, 48)),
        image_size=(tiny.SIZE, tiny.SIZE),
        class_names=tiny.CLASSES,
        seed=seed,
        rpn={"batch": 32, "post_nms_train": 40, "post_nms_test": 20},
        roi={"batch": 32, "hidden": [32], **options.pop("roi", {})},
        mask={"convs": [16], "channels": 16, "pool_size": 7, **options.pop("mask", {})},
        **options,
    )


def scenes(n: int = 8) -> DigitScenes:
    return DigitScenes("train", n, tiny.SIZE, masks=True)


def batch(n: int = 2) -> tuple[list, list]:
    images, targets = zip(*(scenes(n)[i] for i in range(n)))
    return list(images), list(targets)


def test_losses_include_the_masks_and_reach_every_parameter():
    model = detector().train()
    losses = model.losses(*batch(), seed=1)
    assert list(losses)[-1] == "loss_mask"
    # The last layer starts at almost nothing: log 2 for every pixel.
    assert float(losses["loss_mask"].numpy()) == pytest.approx(np.log(2), abs=1e-2)
    sum(losses.values()).backward()
    for name, parameter in model.named_parameters():
        assert np.isfinite(parameter.grad.numpy()).all(), name
        assert "mask_" not in name or parameter.grad.numpy().any(), name


def test_masks_decide_the_loss():
    images, targets = batch()
    model = detector(mask={"convs": [16]})
    wrong = [{**t, "masks": ~t["masks"]} for t in targets]
    a, b = (model.losses(images, t, seed=1) for t in (targets, wrong))
    assert float(a["loss_box_reg"].numpy()) == float(b["loss_box_reg"].numpy())
    assert float(a["loss_mask"].numpy()) != float(b["loss_mask"].numpy())


def test_predictions_have_masks_in_the_pixels_of_the_image():
    model = detector()
    images = [np.zeros((48, 64, 3), np.uint8), np.full((60, 40, 3), 200, np.uint8)]
    for image, found in zip(images, model.predict(images, score_threshold=0.0, max_detections=4)):
        assert found.masks.dtype == bool and found.masks.shape == (len(found), *image.shape[:2])
        assert len(found) == 4
        for mask, box in zip(found.masks, found.boxes):
            rows, columns = np.where(mask)
            if len(rows):
                # The border of zeros lets a mask reach a pixel and a half past its box.
                assert columns.min() >= box[0] - 2 and columns.max() <= box[2] + 2
                assert rows.min() >= box[1] - 2 and rows.max() <= box[3] + 2
        found.draw()
    nothing = model.predict(images[0], score_threshold=1.0)[0]
    assert nothing.masks.shape == (0, 48, 64)


def test_a_detector_of_boxes_takes_targets_with_masks():
    found = tiny.detector().predict(batch()[0])
    assert all(d.masks is None for d in found)
    model = tiny.detector()
    images, targets = batch()
    plain = [{k: t[k] for k in ("boxes", "labels")} for t in targets]
    a, b = (model.losses(images, t, seed=3) for t in (targets, plain))
    assert [float(v.numpy()) for v in a.values()] == [float(v.numpy()) for v in b.values()]


def test_missing_and_misshaped_masks_are_named():
    images, targets = batch()
    model = detector()
    with pytest.raises(ArgumentError, match=r"targets\[1\].*masks"):
        model.losses(images, [targets[0], {k: targets[1][k] for k in ("boxes", "labels")}])
    with pytest.raises(ShapeError, match=r"targets\[0\].*masks"):
        model.losses(images, [{**targets[0], "masks": targets[0]["masks"][:, 1:]}, targets[1]])
    with pytest.raises(ArgumentError, match="mask"):
        detector(mask={"convs": [0]})
    with pytest.raises(ArgumentError, match="channel"):
        detector(mask={"chanels": 3})


def test_crowds_leave_with_their_masks():
    images, targets = batch()
    crowd = np.zeros(len(targets[0]["labels"]), bool)
    crowd[-1] = True
    flagged = {**targets[0], "iscrowd": crowd}
    fewer = {k: targets[0][k][:-1] for k in ("boxes", "labels", "masks")}
    model = detector()
    a, b = (model.losses(images[:1], [t], seed=3) for t in (flagged, fewer))
    assert [float(v.numpy()) for v in a.values()] == [float(v.numpy()) for v in b.values()]


def test_fit_save_load_and_evaluate(tmp_path):
    model = detector()
    history = model.fit(scenes(), epochs=1, augment=HorizontalFlip(), **tiny.QUIET)
    assert history is not None
    model.save(tmp_path / "m.safetensors")
    again = kd.load(tmp_path / "m.safetensors")
    assert type(again) is kd.MaskRCNN and tiny.same(model, again)
    images, _ = batch()
    for a, b in zip(model.predict(images), again.predict(images)):
        assert np.array_equal(a.masks, b.masks)
    score = kd.evaluate(model, scenes(), iou_type="segm", progress=False)
    assert 0 <= score.AP <= 1 and score.num_detections > 0


class Oracle:
    """Finds the truth, with masks as told."""

    def __init__(self, data, change):
        self.known = {data[i][0].tobytes(): data[i][1] for i in range(len(data))}
        self.change = change

    def predict(self, images, score_threshold, max_detections):
        found = []
        for image in images:
            target = self.known[image.tobytes()]
            found.append(
                kd.Detections(
                    target["boxes"],
                    np.ones(len(target["labels"])),
                    target["labels"],
                    self.change(target["masks"]),
                )
            )
        return found


def test_segmentation_is_scored_by_masks():
    pytest.importorskip("pycocotools")
    data = scenes()
    right, wrong = Oracle(data, lambda m: m), Oracle(data, lambda m: ~m)
    assert kd.evaluate(right, data, iou_type="segm", progress=False).AP == 1
    assert kd.evaluate(wrong, data, iou_type="segm", progress=False).AP == 0
    assert kd.evaluate(wrong, data, progress=False).AP == 1
    assert kd.evaluate(right, data, iou_type="segm", progress=False).num_objects > 0
    with pytest.raises(ArgumentError, match="needs masks"):
        kd.evaluate(Oracle(data, lambda m: None), data, iou_type="segm", progress=False)
    for metric, iou_type in (("coco", "mask"), ("voc10", "segm")):
        with pytest.raises(ArgumentError, match="iou_type"):
            kd.evaluate(right, data, metric, iou_type=iou_type)
    with pytest.raises(ShapeError, match="masks are"):
        kd.evaluate(Oracle(data, lambda m: m[:, 1:]), data, iou_type="segm", progress=False)


def test_loader_checks_the_masks_of_a_view():
    def forgetful(image, target, rng):
        return image[:-1], target

    with pytest.raises(ShapeError, match="item 0: augment returned masks"):
        next(iter(Loader(scenes(), 1, augment=forgetful, workers=0)))
