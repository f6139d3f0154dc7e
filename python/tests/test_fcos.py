"""FCOS through the package; torchvision's numbers are in test_parity.py."""

from __future__ import annotations

import dense
import numpy as np
import pytest
from tiny import QUIET, scenes

import kdswift as kd


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
    """A run that compares features of the neck alone gives the same weights as ever."""
    term = kd.Term("neck.p3", None, "l2", 0.1)
    tower = kd.Term("head.classification.conv1.p4", None, "l2", 0.1)
    students = [model(1, head={"convs": 2}) for _ in range(2)]
    for student, terms in zip(students, ([term], [term, tower])):
        teacher = model(2, head={"convs": 2})
        kd.distill(student, teacher, scenes(4), method=kd.Method(terms), epochs=1, **QUIET)
    first, second = (student.state_dict() for student in students)
    name = "head.classification_head.conv.3.weight"
    assert np.abs(first[name] - second[name]).max() > 0
