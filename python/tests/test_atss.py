"""ATSS through the package; losses and gradients against their formulas are in test_parity.py."""

from __future__ import annotations

import dense
import numpy as np
import pytest

import kdswift as kd


def model(seed: int = 0, **options) -> kd.ATSS:
    """A small one."""
    return dense.small(kd.ATSS, seed, anchors=kd.Anchors(((20,), (40,)), (1,)), **options)


def test_it_learns_and_comes_back_from_its_file(tmp_path):
    dense.learns_and_comes_back(model(1, head={"convs": 1}), tmp_path / "m.safetensors")


def test_images_without_boxes_train():
    dense.handles_empty_images(model(), {"classification", "bbox_regression", "bbox_ctrness"})


def test_sums_of_the_batch_are_divided_by_its_positives():
    dense.batch_positives_share_a_divisor(model())


def test_the_head_goes_on_from_inside_its_towers():
    dense.head_goes_on_from_inside(model(head={"convs": 2}))
    dense.gradients_pass_the_head(model(head={"convs": 2}))


def test_scores_are_products():
    one = model(head={"convs": 0})
    state = one.state_dict()
    for name in state:
        if name.startswith("head.") and "scales" not in name:
            state[name] = np.zeros_like(state[name])
    state["head.classification_head.cls_logits.bias"][:] = -20
    state["head.classification_head.cls_logits.bias"][3] = 1
    state["head.regression_head.bbox_ctrness.bias"][:] = -1
    one.load_state_dict(state)
    image = np.zeros((96, 96, 3), np.uint8)
    score = 1 / (1 + np.exp(-1)) * (1 / (1 + np.exp(1)))
    assert np.allclose(one.predict(image, 0.1)[0].scores, score, atol=1e-6)
    # The threshold acts on the product, not on the probability of the class.
    assert len(one.predict(image, score + 0.01)[0].scores) == 0
    # Offsets of 0 give the anchors themselves.
    boxes = one.predict(image, 0.1, nms_threshold=1.0)[0].boxes
    assert (np.abs(boxes - [38, 38, 58, 58]).max(1) < 1e-4).any()


def test_defaults_are_the_published_ones():
    one = kd.ATSS("resnet18", 81)
    configuration = one.configuration
    assert configuration["anchor_sizes"] == [64, 128, 256, 512, 1024]
    assert configuration["head"]["assigner_candidates"] == 9
    assert [len(a) for a in one.anchors((64, 96))] == [96, 24, 6, 2, 1]
    # Squares of 8 strides around multiples of the stride.
    assert np.array_equal(one.anchors((64, 96))[1][1], [16 - 64, -64, 16 + 64, 64])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"head": {"assigner_candidates": 1001}}, "assigner_candidates"),
        ({"head": {"box_weight": -1}}, "box_weight"),
        ({"head": {"centerness_weight": -1}}, "centerness_weight"),
        ({"head": {"reg_max": 16}}, "reg_max"),
        ({"head": {"norm": "layer"}}, "norm"),
        ({"anchors": kd.Anchors(((20,), (40,)), (1, 2))}, "2 anchors at every place"),
    ],
)
def test_wrong_options_are_named(options, words):
    with pytest.raises(kd.KDSError, match=words):
        dense.small(kd.ATSS, **options)


def test_the_background_is_never_found():
    dense.finds_no_background(model(1))
