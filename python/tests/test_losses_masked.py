"""Squared errors under masks of boxes and scores: FGFI, DeFeat, FRS and the TID-style loss."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from head_formulas import entropy, kl_rows, overlaps, sigmoid
from mask_scenes import BOXES, SIZE, STRIDE, grid_anchors, masked_sum
from measure import check_gradient

import kdswift as kd
from kdswift import losses


@pytest.fixture
def random():
    return np.random.default_rng(13)


# FGFI


def slow_fgfi_mask(boxes, anchors, psi: float) -> np.ndarray:
    mask = np.zeros(SIZE[0] * SIZE[1], bool)
    share = len(anchors) // len(mask)
    for box in boxes:
        ious = [overlaps(anchor, box)[0] for anchor in anchors]
        for index, iou in enumerate(ious):
            mask[index // share] |= iou > psi * max(ious)
    return mask.reshape(SIZE)


@pytest.mark.parametrize("psi", [0.0, 0.3, 0.5, 0.8])
def test_fgfi_is_its_definition(psi, random):
    student, teacher = random.standard_normal((2, 2, 4, *SIZE))
    anchors = grid_anchors()
    mask = np.stack([slow_fgfi_mask(one, anchors, psi) for one in BOXES])
    found = np.stack([losses.fgfi_mask(one, anchors, SIZE, psi) for one in BOXES])
    np.testing.assert_array_equal(found, mask)
    expected = masked_sum(student, teacher, mask) / (2 * mask.sum())
    value = losses.fgfi(student, teacher, BOXES, anchors, psi).item()
    assert value == pytest.approx(expected, rel=1e-5)
    other = losses.fgfi(student, teacher, BOXES, anchors, psi, form="defeat").item()
    assert other == pytest.approx(expected / 4, rel=1e-5)
    check_gradient(lambda x: losses.fgfi(x, teacher, BOXES, anchors, psi) * 10, student)


def test_fgfi_masks_nest_and_keep_the_best_anchor():
    anchors = grid_anchors()
    masks = [losses.fgfi_mask(BOXES[0], anchors, SIZE, psi) for psi in (0, 0.4, 0.7, 0.99, 1)]
    for wide, narrow in itertools.pairwise(masks):
        assert (wide | ~narrow).all()
    assert not masks[-1].any()
    for box in BOXES[0]:
        best = np.argmax([overlaps(anchor, box)[0] for anchor in anchors])
        assert masks[-2].reshape(-1)[best // 2]
    reverse = losses.fgfi_mask(BOXES[0][::-1], anchors, SIZE, 0.5)
    np.testing.assert_array_equal(reverse, losses.fgfi_mask(BOXES[0], anchors, SIZE, 0.5))


def test_fgfi_threshold_is_strict():
    # IoUs 1, exactly 1/2, and 3/4 of the box's area.
    anchors = np.array([[0, 0, 8, 8], [0, 0, 8, 4], [0, 0, 8, 6]])
    mask = losses.fgfi_mask([[0, 0, 8, 8]], anchors, (1, 3), 0.5)
    assert mask.tolist() == [[True, False, True]]


def test_fgfi_without_objects_is_zero(random):
    student, teacher = random.standard_normal((2, 2, 4, *SIZE))
    far = [np.array([[500, 500, 600, 600]]), np.zeros((0, 4))]
    for boxes in ([[], []], [np.zeros((0, 4))] * 2, far):
        call = kd.value_and_grad(losses.fgfi)
        value, gradient = call(student, teacher, boxes, grid_anchors())
        assert value == 0
        assert not gradient.any()


# DeFeat


def test_defeat_levels():
    sides = [0, 3, 54, 55, 110, 111, 222, 223, 447, 5000]
    boxes = [[10, 10, 10 + side, 10 + side] for side in sides]
    assert losses.defeat_levels(boxes, 4).tolist() == [0, 0, 0, 0, 0, 1, 1, 2, 3, 3]
    counts = np.zeros(len(boxes))
    for level in range(4):
        counts += losses.defeat_levels(boxes, 4) == level
    assert (counts == 1).all()
    assert losses.defeat_levels([], 4).tolist() == []


def test_defeat_masks_are_truncated_boxes():
    mask = losses.defeat_mask([[9, 17, 30, 39]], 0, 4, STRIDE, SIZE)
    expected = np.zeros(SIZE, bool)
    expected[2:4, 1:3] = True
    np.testing.assert_array_equal(mask, expected)
    point = losses.defeat_mask([[9, 17, 10, 18], [47.9, 39.9, 48, 40]], 0, 4, STRIDE, SIZE)
    assert np.argwhere(point).tolist() == [[2, 1], [4, 5]]
    outside = losses.defeat_mask([[400, 400, 430, 430]], 0, 4, STRIDE, SIZE)
    assert np.argwhere(outside).tolist() == [[4, 5]]
    assert not losses.defeat_mask([[0, 0, 300, 300]], 0, 4, STRIDE, SIZE).any()


def test_defeat_is_its_formula(random):
    student, teacher = random.standard_normal((2, 2, 4, *SIZE))
    mask = np.stack([losses.defeat_mask(one, 0, 3, STRIDE, SIZE) for one in BOXES])
    parts = [masked_sum(student, teacher, m) / (8 * m.sum()) for m in (mask, ~mask)]
    value = losses.defeat(student, teacher, BOXES, 0, 3, STRIDE).item()
    assert value == pytest.approx((3 * parts[0] + 12 * parts[1]) / 3, rel=1e-5)
    only = losses.defeat(student, teacher, BOXES, 0, 1, STRIDE, 2, 0).item()
    assert only == pytest.approx(2 * parts[0], rel=1e-5)
    check_gradient(lambda x: losses.defeat(x, teacher, BOXES, 0, 3, STRIDE), student)


def test_defeat_splits_the_squared_error(random):
    student, teacher = random.standard_normal((2, 2, 4, *SIZE))
    mask = np.stack([losses.defeat_mask(one, 0, 1, STRIDE, SIZE) for one in BOXES])
    cells = 8 * mask.sum(), 8 * (~mask).sum()
    value = losses.defeat(student, teacher, BOXES, 0, 1, STRIDE, cells[0], cells[1]).item()
    assert value == pytest.approx(((student - teacher) ** 2).sum(), rel=1e-5)


def test_defeat_of_a_constant_difference_and_of_no_objects():
    student = np.zeros((2, 4, *SIZE))
    value = losses.defeat(student, student + 2, BOXES, 0, 1, STRIDE, 3, 0).item()
    assert value == pytest.approx(3 * 4 / 2, rel=1e-6)
    assert losses.defeat(student, student + 2, BOXES, 2, 4, STRIDE, 3, 0).item() == 0
    for boxes in ([[], []], [np.zeros((0, 4))] * 2):
        value = losses.defeat(student, student + 2, boxes, 0, 1, STRIDE).item()
        assert value == pytest.approx(12 * 4 / 2, rel=1e-6)
    swapped = [one[::-1] for one in BOXES]
    student[:, :, 1:3] = 1
    first = losses.defeat(student, student * 3, BOXES, 0, 1, STRIDE).item()
    assert losses.defeat(student, student * 3, swapped, 0, 1, STRIDE).item() == first


# FRS


def test_frs_is_its_formula(random):
    student, teacher = random.standard_normal((2, 2, 4, *SIZE))
    logits = random.standard_normal((2, 9, *SIZE))
    richness = sigmoid(logits).max(1)
    expected = masked_sum(student, teacher, richness) / richness.sum()
    assert losses.frs(student, teacher, logits).item() == pytest.approx(expected, rel=1e-5)
    np.testing.assert_allclose(losses.feature_richness(logits).numpy()[:, 0], richness, rtol=1e-6)
    check_gradient(lambda x: losses.frs(x, teacher, logits) * 10, student)
    # One weight for all images: a sum over the batch on both sides, not a mean of quotients.
    each = [losses.frs(student[i : i + 1], teacher[i : i + 1], logits[i : i + 1]) for i in (0, 1)]
    share = richness[0].sum() / richness.sum()
    mixed = share * each[0].item() + (1 - share) * each[1].item()
    assert mixed == pytest.approx(expected, rel=1e-5)


def test_frs_of_a_constant_difference_and_of_tiny_scores():
    student, logits = np.zeros((2, 4, *SIZE)), np.ones((2, 9, *SIZE))
    # w_f C d^2; the sums run over 60 equal places.
    assert losses.frs(student, student + 3, logits).item() == pytest.approx(36, rel=1e-5)
    assert losses.frs(student, student, logits).item() == 0
    for level in (-50, -300):
        value = losses.frs(student, student + 3, level * logits).item()
        assert math.isfinite(value)
        assert math.isfinite(losses.frs_classification(-level * logits, level * logits).item())
    # A factor of all scores changes nothing: sigma(-20) = e^-20 at every place.
    assert losses.frs(student, student + 3, -20 * logits).item() == pytest.approx(36, rel=1e-4)


def test_frs_classification_is_its_formula(random):
    student, teacher = random.standard_normal((2, 2, 6, *SIZE))
    richness = sigmoid(teacher).max(1, keepdims=True)
    expected = (richness * entropy(student, sigmoid(teacher))).sum() / richness.sum()
    assert losses.frs_classification(student, teacher).item() == pytest.approx(expected, rel=1e-5)
    value, gradient = kd.value_and_grad(losses.frs_classification)(teacher, teacher)
    assert value > 0
    assert not gradient.any()
    check_gradient(lambda x: losses.frs_classification(x, teacher) * 10, student)


# All of them


def calls(student, teacher):
    logits = np.ones((student.shape[0], 6, *student.shape[2:]))
    boxes = BOXES[: student.shape[0]]
    scores = np.ones((student.shape[0], *student.shape[2:]))
    anchors = np.tile(grid_anchors()[:2], (student.shape[2] * student.shape[3], 1))
    return {
        "fgfi": lambda: losses.fgfi(student, teacher, boxes, anchors),
        "defeat": lambda: losses.defeat(student, teacher, boxes, 0, 4, STRIDE),
        "frs": lambda: losses.frs(student, teacher, logits),
        "task_integration": lambda: losses.task_integration(student, teacher, scores, scores),
    }


NAMES = ("fgfi", "defeat", "frs", "task_integration")


@pytest.mark.parametrize("name", NAMES)
def test_equal_maps_cost_nothing_and_the_teacher_gets_no_gradient(name, random):
    maps = random.standard_normal((2, 2, 4, *SIZE))
    assert calls(maps[0], maps[0])[name]().item() == 0
    student, teacher = (kd.tensor(x, requires_grad=True) for x in maps)
    calls(student, teacher)[name]().backward()
    assert teacher.grad is None
    assert np.abs(student.grad.numpy()).max() > 0


@pytest.mark.parametrize("name", NAMES)
def test_maps_of_one_place_and_large_values_are_finite(name, random):
    for shape in ((1, 4, 1, 1), (2, 3, 1, 7), (2, 4, *SIZE)):
        student, teacher = 1e3 * random.standard_normal((2, *shape))
        assert math.isfinite(calls(student, teacher)[name]().item())


@pytest.mark.parametrize("name", NAMES)
def test_shapes_that_differ_are_both_named(name):
    student, teacher = np.zeros((2, 4, *SIZE)), np.zeros((2, 3, *SIZE))
    with pytest.raises(kd.ShapeError, match=rf"{name}: .*\(2, 4, 5, 6\).*\(2, 3, 5, 6\)"):
        calls(student, teacher)[name]()
    more = ([[], []], 0, 4, STRIDE) if name == "defeat" else (np.zeros((2, 4)),) * 2
    flat = np.zeros((2, 4))
    with pytest.raises(kd.ShapeError, match=rf"{name}: student \(2, 4\)"):
        getattr(losses, name)(flat, flat, *more[: 1 if name == "frs" else 4])


def test_wrong_companions_are_named():
    maps = np.zeros((2, 4, *SIZE))
    with pytest.raises(kd.ShapeError, match="fgfi: 1 arrays of boxes for 2 images"):
        losses.fgfi(maps, maps, BOXES[:1], grid_anchors())
    with pytest.raises(kd.ShapeError, match=r"fgfi: anchors \(59, 4\)"):
        losses.fgfi(maps, maps, BOXES, grid_anchors()[1:])
    with pytest.raises(kd.ArgumentError, match="psi is 1.5"):
        losses.fgfi(maps, maps, BOXES, grid_anchors(), 1.5)
    with pytest.raises(kd.ArgumentError, match="form is 'code'"):
        losses.fgfi(maps, maps, BOXES, grid_anchors(), form="code")
    with pytest.raises(kd.ArgumentError, match="level 4 must be one of 4"):
        losses.defeat(maps, maps, BOXES, 4, 4, STRIDE)
    with pytest.raises(kd.ShapeError, match=r"frs: teacher_logits \(2, 6, 5, 5\)"):
        losses.frs(maps, maps, np.zeros((2, 6, 5, 5)))
    with pytest.raises(kd.ShapeError, match=r"task_integration: teacher_scores \(2, 5\)"):
        losses.task_integration(maps, maps, np.zeros((2, 5)), np.zeros((2, *SIZE)))
    with pytest.raises(kd.ShapeError, match=r"task_scores: labels \(1,\)"):
        losses.task_scores(np.zeros((60, 3)), grid_anchors(), BOXES[0], [1], SIZE)


def test_reductions_of_masked_losses(random):
    student, teacher = random.standard_normal((2, 2, 4, *SIZE))
    anchors, logits = grid_anchors(), random.standard_normal((2, 9, *SIZE))
    scores = random.choice([0.16, 0.8, 2.25, 4], (2, 2, *SIZE))
    mask = np.stack([losses.fgfi_mask(one, anchors, SIZE) for one in BOXES])
    inside = np.stack([losses.defeat_mask(one, 0, 3, STRIDE, SIZE) for one in BOXES])
    richness = sigmoid(logits).max(1)
    soft = sigmoid(logits)
    areas = zip(losses.task_areas(*scores), (1, 0.5, 0.1), strict=True)
    cases = [
        (lambda r: losses.fgfi(student, teacher, BOXES, anchors, reduction=r), [(mask, 1)]),
        (
            lambda r: losses.defeat(student, teacher, BOXES, 0, 3, STRIDE, reduction=r),
            [(inside, 3), (~inside, 12)],
        ),
        (lambda r: losses.frs(student, teacher, logits, r), [(richness, 1)]),
        (lambda r: losses.task_integration(student, teacher, *scores, reduction=r), list(areas)),
    ]
    for call, parts in cases:
        total = sum(weight * masked_sum(student, teacher, one) for one, weight in parts)
        assert call("sum").item() == pytest.approx(total, rel=1e-5)
        mean = sum(
            weight * masked_sum(student, teacher, one) / (4 * one.sum()) for one, weight in parts
        )
        assert call("mean").item() == pytest.approx(mean, rel=1e-5)
        with pytest.raises(kd.ArgumentError, match="reduction is 'none'"):
            call("none")
    classes = (richness[:, None] * entropy(-logits, soft)).sum()
    found = losses.frs_classification(-logits, logits, "sum").item()
    assert found == pytest.approx(classes, rel=1e-5)
    found = losses.frs_classification(-logits, logits, "mean").item()
    assert found == pytest.approx(classes / richness.sum() / 9, rel=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_the_order_of_images_does_not_matter(name, random):
    student, teacher = random.standard_normal((2, 2, 4, *SIZE))
    logits = random.standard_normal((2, 6, *SIZE))
    scores = random.choice([0.16, 0.8, 2.25, 4], (2, 2, *SIZE))
    values = []
    for order in ([0, 1], [1, 0]):
        s, t, boxes = student[order], teacher[order], [BOXES[i] for i in order]
        values.append(
            {
                "fgfi": lambda s=s, t=t, b=boxes: losses.fgfi(s, t, b, grid_anchors()),
                "defeat": lambda s=s, t=t, b=boxes: losses.defeat(s, t, b, 0, 3, STRIDE),
                "frs": lambda s=s, t=t, o=order: losses.frs(s, t, logits[o]),
                "task_integration": lambda s=s, t=t, o=order: losses.task_integration(
                    s, t, scores[0][o], scores[1][o]
                ),
            }[name]().item()
        )
    assert values[0] == pytest.approx(values[1], rel=1e-6)


def test_levels_add_up_to_defeat(random):
    maps = [random.standard_normal((2, 1, 3, n, n)) for n in (16, 8)]
    boxes = np.array([[4, 4, 30, 40], [0, 0, 119, 119]], np.float32)
    total = 0.0
    for level, (student, teacher) in enumerate(maps):
        stride = 8 * 2**level
        own = boxes[level : level + 1] // stride
        mask = np.zeros(student.shape[2:], bool)
        x1, y1, x2, y2 = own[0].astype(int)
        mask[y1:y2, x1:x2] = True
        for area, weight in ((mask, 3), (~mask, 12)):
            error = masked_sum(student, teacher, area)
            total += weight * error / (2 * 3 * area.sum()) / 2
    found = sum(
        losses.defeat(s, t, [boxes], level, 2, 8 * 2**level).item()
        for level, (s, t) in enumerate(maps)
    )
    assert found == pytest.approx(total, rel=1e-5)


def test_defeat_classification_averages_each_kind(random):
    student, teacher = random.standard_normal((2, 6, 5))
    foreground = np.array([1, 0, 0, 1, 0, 0])
    rows = kl_rows(student, teacher, 2.0)
    expected = 2 * rows[foreground == 1].mean() + 3 * rows[foreground == 0].mean()
    value = losses.defeat_classification(student, teacher, foreground, 2.0, 2, 3).item()
    assert value == pytest.approx(expected, rel=1e-5)
    only = losses.defeat_classification(student, teacher, foreground * 0).item()
    assert only == pytest.approx(2 * kl_rows(student, teacher, 1.0).mean(), rel=1e-5)
    check_gradient(lambda x: losses.defeat_classification(x, teacher, foreground), student)
    empty = np.zeros((0, 5))
    assert losses.defeat_classification(empty, empty, np.zeros(0)).item() == 0
    assert losses.defeat_classification(teacher, teacher, foreground).item() == 0
    with pytest.raises(kd.ShapeError, match=r"\(6, 5\).*\(5,\)"):
        losses.defeat_classification(student, teacher, foreground[1:])
