"""GFL through the package; losses and gradients against their formulas are in test_parity.py."""

from __future__ import annotations

import dense
import numpy as np
import pytest
from tiny import QUIET, scenes

import kdswift as kd


def model(seed: int = 0, **options) -> kd.GFL:
    """A small one."""
    return dense.small(kd.GFL, seed, anchors=kd.Anchors(((20,), (40,)), (1,)), **options)


def test_it_learns_and_comes_back_from_its_file(tmp_path):
    # At a low prior the losses of boxes, weighted by probability, would first have to grow.
    head = {"convs": 1, "reg_max": 8, "prior": 0.3}
    dense.learns_and_comes_back(model(1, head=head), tmp_path / "m.safetensors")


def test_images_without_boxes_train():
    dense.handles_empty_images(model(), {"classification", "bbox_regression", "bbox_distribution"})


def test_sums_of_the_batch_are_divided_by_its_positives():
    # Few enough positives would leave a divisor at 1: the weights must add up to more.
    one = model(head={"prior": 0.7})
    dense.batch_positives_share_a_divisor(one)


def test_the_head_goes_on_from_inside_its_towers():
    dense.head_goes_on_from_inside(model(head={"convs": 2}))
    dense.gradients_pass_the_head(model(head={"convs": 2}))


def test_taps_name_their_levels():
    taps = {tap["name"]: tap for tap in model(head={"convs": 2})._taps()}
    assert list(taps)[-4:] == [
        "head.class_logits.p3",
        "head.box_distribution.p3",
        "head.class_logits.p4",
        "head.box_distribution.p4",
    ]
    row = taps["head.box_distribution.p4"]
    assert (row["channels"], row["stride"], row["kind"]) == (4 * 17, 16, "box_distribution")
    features = model(head={"convs": 2}).features([scenes(1)[0][0]])
    assert list(features) == list(taps)
    assert features["head.box_distribution.p4"].shape == (1, 68, 6, 6)
    assert features["head.regression.conv1.p3"].shape == (1, 16, 12, 12)


def test_boxes_are_the_means_of_their_distributions():
    """All weight on bins 3, 1, 2 and 4: every place predicts that box, in strides."""
    one = model(head={"convs": 1, "reg_max": 4, "norm": "none"})
    state = one.state_dict()
    for name in state:
        if name.startswith("head.") and "scales" not in name:
            state[name] = np.zeros_like(state[name])
    for side, place in enumerate((3, 1, 2, 4)):
        state["head.regression_head.bbox_reg.bias"][5 * side + place] = 50
    state["head.classification_head.cls_logits.bias"][:] = -20
    state["head.classification_head.cls_logits.bias"][7] = 2
    one.load_state_dict(state)
    found = one.predict(np.zeros((96, 96, 3), np.uint8), 0.5, nms_threshold=1.0)[0]
    assert set(found.labels) == {7}
    # The first place of the finer level away from the border: x = 24, y = 8.
    wanted = np.array([24 - 3 * 8, 8 - 8, 24 + 2 * 8, 8 + 4 * 8])
    assert (np.abs(found.boxes - wanted).max(1) < 1e-3).any()
    assert np.allclose(found.scores, 1 / (1 + np.exp(-2)), atol=1e-6)


def test_a_term_between_distributions():
    term = kd.Term("head.box_distribution.p3", None, "l2", 0.1)
    tower = kd.Term("head.regression.conv0.p3", None, "l2", 0.1)
    history = kd.distill(
        model(1), model(2), scenes(4), method=kd.Method([term, tower]), epochs=2, **QUIET
    )
    for name in ("box_distribution", "regression.conv0"):
        values = [row[f"l2.head.{name}.p3"] for row in history.rows]
        assert len(values) == 2 and 0 < values[1] < values[0]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"head": {"reg_max": 0}}, "reg_max"),
        ({"head": {"reg_max": 1 << 40}}, "reg_max"),
        ({"head": {"quality_beta": -1}}, "quality_beta"),
        ({"head": {"assigner_candidates": 0}}, "assigner_candidates"),
        ({"head": {"focal_gamma": 2}}, "focal_gamma"),
        ({"head": {"distribution_weight": -1.0}}, "distribution_weight"),
        ({"head": {"convs": -1}}, "convs"),
        ({"anchors": kd.Anchors(((20, 30), (40, 50)), (1,))}, "2 anchors at every place"),
    ],
)
def test_wrong_options_are_named(options, words):
    with pytest.raises(kd.KDSError, match=words):
        dense.small(kd.GFL, **options)


def test_the_background_is_never_found():
    dense.finds_no_background(model(1))
