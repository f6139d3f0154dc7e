"""FCOS through the package; torchvision's numbers are in test_parity.py."""

from __future__ import annotations

import dense
import numpy as np
import pytest
from tiny import scenes

import kdswift as kd
from kdswift.heads import is_tower


def model(seed: int = 0, **options) -> kd.FCOS:
    """A small one."""
    return dense.small(kd.FCOS, seed, **options)


def test_it_learns_and_comes_back_from_its_file(tmp_path):
    dense.learns_and_comes_back(model(1, head={"convs": 1}), tmp_path / "m.safetensors")


def test_images_without_boxes_train():
    dense.handles_empty_images(model(), {"classification", "bbox_regression", "bbox_ctrness"})


def test_sums_of_the_batch_are_divided_by_its_positives():
    dense.batch_positives_share_a_divisor(model())


def test_the_head_goes_on_from_inside_its_towers():
    dense.head_goes_on_from_inside(model(head={"convs": 2}))
    dense.gradients_pass_the_head(model(head={"convs": 2}))


def test_scores_are_roots_of_products_and_distances_count_in_anchors():
    one = model(head={"convs": 0})
    state = one.state_dict()
    for name in state:
        if name.startswith("head."):
            state[name] = np.zeros_like(state[name])
    state["head.classification_head.cls_logits.bias"][:] = -20
    state["head.classification_head.cls_logits.bias"][3] = 1
    state["head.regression_head.bbox_ctrness.bias"][:] = -1
    # A negative distance is cut off by the ReLU.
    state["head.regression_head.bbox_reg.bias"][:] = [1, 2, -1, 0.5]
    one.load_state_dict(state)
    score = np.sqrt(1 / (1 + np.exp(-1)) * (1 / (1 + np.exp(1))))
    image = np.zeros((96, 96, 3), np.uint8)
    found = one.predict(image, 0.1, nms_threshold=1.0)[0]
    assert np.allclose(found.scores, score, atol=1e-6)
    assert (np.abs(found.boxes - [48 - 8, 48 - 16, 48, 48 + 4]).max(1) < 1e-4).any()
    assert len(one.predict(image, score + 0.01)[0].scores) == 0


def test_a_detector_of_regions_has_no_such_head():
    faster = kd.FasterRCNN(kd.backbones.resnet_small(0.25), 3, image_size=(64, 64), seed=0)
    with pytest.raises(kd.KDSError, match="one-stage detector is needed, not FasterRCNN"):
        faster.head_from([np.zeros((1, 8, 4, 4), np.float32)], "regression", 0)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (([np.zeros((1, 16, 4, 4), np.float32)], "boxes", 0), "branch"),
        (([np.zeros((1, 16, 4, 4), np.float32)], "regression", 5), "start 5 is outside 0...4"),
        (([np.zeros((1, 16, 4, 4), np.float32)], "regression", -1), "start"),
        (([np.zeros((1, 9, 4, 4), np.float32)], "regression", 0), "level 0"),
        (([np.zeros((1, 16, 0, 4), np.float32)], "regression", 0), "level 0"),
        (([np.zeros((16, 4, 4), np.float32)], "regression", 0), "level 0"),
        (([np.zeros((1, 16, 4, 4), np.int64)], "regression", 0), "level 0"),
        (([np.zeros((1, 16, 4, 4), np.float32)] * 3, "regression", 0), "no level 2 of 2"),
        ((np.zeros((1, 16, 4, 4), np.float32), "regression", 0), "list"),
    ],
)
def test_head_from_refuses(arguments, words):
    with pytest.raises(kd.KDSError, match=words):
        model().head_from(*arguments)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"head": {"center_radius": 0}}, "center_radius"),
        ({"head": {"focal_gamma": -1}}, "focal_gamma"),
        ({"head": {"box_loss": "giou"}}, "box_loss"),
        ({"anchors": kd.Anchors(((8, 9), (16, 17)), (1,))}, "2 anchors at every place"),
    ],
)
def test_wrong_options_are_named(options, words):
    with pytest.raises(kd.KDSError, match=words):
        dense.small(kd.FCOS, **options)


def test_towers_are_kept_only_where_a_term_reads_them():
    from kdswift import _engine

    image, target = scenes(1)[0]
    for wanted in (False, True):
        student, teacher = model(1, head={"convs": 2}), model(2, head={"convs": 2})
        options = {"optimizer": {"name": "sgd", "lr": 0.01}, "tower_taps": wanted}
        trainer = _engine.Trainer(student._engine, [teacher._engine], options)
        taps = trainer.forward(_engine.Batch([np.asarray(image)], [target]), None)
        for side in ("student", "teacher"):
            assert (f"{side}.head.regression.conv1.p4" in taps) == wanted
            assert f"{side}.head.box_deltas.p4" in taps
        trainer.close()
    assert all(not is_tower(name) for name in ("head.box_deltas.p3", "neck.p3", "roi.box_deltas"))


def test_crosskd_reaches_the_students_first_convolutions_alone():
    """The teacher's head on the student's tower: what comes later in the student learns nothing."""
    student, teacher = (model(seed, head={"convs": 2}) for seed in (1, 2))
    teacher.eval()
    taps = student.train().features([scenes(1)[0][0]])
    maps = [taps[f"head.regression.conv0.{level}"] for level in dense.LEVELS]
    outputs = teacher.head_from(maps, "regression", 1)
    sum((value**2).sum() for level in outputs for value in level.values()).backward()
    norms = {
        name: 0.0 if p.grad is None else float(np.abs(p.grad.numpy()).max())
        for name, p in student.named_parameters()
    }
    head = "head.regression_head."
    # conv.0 is the first convolution, conv.1 its normalization, conv.3 the second convolution.
    assert norms[f"{head}conv.0.weight"] > 0 and norms[f"{head}conv.1.weight"] > 0
    later = ("conv.3.", "conv.4.", "bbox_reg.", "bbox_ctrness.")
    assert all(
        norms[name] == 0 for name in norms if name.startswith(tuple(map(head.__add__, later)))
    )
    assert all(value == 0 for name, value in norms.items() if "classification_head" in name)
    assert all(p.grad is None for p in teacher.parameters())


def test_the_background_is_never_found():
    dense.finds_no_background(model(1))
