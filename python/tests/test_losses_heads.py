"""Losses between the outputs of heads: the methods' worked numbers, invariants, plain formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest
from head_formulas import entropy, kl_rows, overlaps, random_boxes, sigmoid
from measure import check_gradient

import kdswift as kd
from kdswift import losses


@pytest.fixture
def random():
    return np.random.default_rng(11)


# Binary soft labels


def test_binary_soft_labels_are_their_formula(random):
    student, teacher = random.standard_normal((2, 6, 3))
    for t in (1.0, 2.0, 5.0):
        expected = t * t * entropy(student / t, sigmoid(teacher / t))
        value = losses.binary_soft_labels(student, teacher, t).item()
        assert value == pytest.approx(expected.sum() / 6, rel=3e-6)
        value = losses.binary_soft_labels(student, teacher, t, reduction="mean").item()
        assert value == pytest.approx(expected.mean(), rel=3e-6)
        _, gradient = kd.value_and_grad(losses.binary_soft_labels)(student, teacher, t)
        slope = t * (sigmoid(student / t) - sigmoid(teacher / t)) / 6
        np.testing.assert_allclose(gradient, slope, atol=1e-6)
    _, gradient = kd.value_and_grad(losses.binary_soft_labels)(teacher, teacher)
    assert np.abs(gradient).max() == 0


def test_head_losses_of_large_logits_are_finite(random):
    student = random.choice([-50.0, 50.0], (3, 4, 17))
    teacher = random.choice([-50.0, 50.0], (3, 4, 17))
    calls = [
        lambda x: losses.localization_distillation(x, teacher),
        lambda x: losses.crosskd_regression(x, teacher),
        lambda x: losses.crosskd_classification(x, teacher),
        lambda x: losses.binary_soft_labels(x, teacher),
        lambda x: losses.bckd_classification(x, teacher),
    ]
    for call in calls:
        value, gradient = kd.value_and_grad(call)(student)
        assert math.isfinite(value)
        assert np.isfinite(gradient).all()


# CrossKD


def test_crosskd_classification_gradient_is_the_formula(random):
    student, teacher = random.standard_normal((2, 6, 3))
    s, t = sigmoid(student), sigmoid(teacher)
    bce = entropy(student, t)
    value, gradient = kd.value_and_grad(losses.crosskd_classification)(student, teacher)
    assert value == pytest.approx((np.abs(s - t) * bce).sum(), rel=3e-6)
    slope = np.sign(s - t) * s * (1 - s) * bce + np.abs(s - t) * (s - t)
    np.testing.assert_allclose(gradient, slope, atol=1e-6)
    half = losses.crosskd_classification(student, teacher, avg_factor=2).item()
    assert half == pytest.approx(value / 2, rel=1e-6)
    none = losses.crosskd_classification(student, teacher, np.zeros(6)).item()
    assert none == 0


def test_crosskd_classification_of_maps_weighs_places(random):
    student, teacher = random.standard_normal((2, 2, 6, 3, 4))
    weights = (random.uniform(0, 1, (2, 1, 3, 4)) > 0.5).astype(np.float32)
    terms = np.abs(sigmoid(student) - sigmoid(teacher)) * entropy(student, sigmoid(teacher))
    value = losses.crosskd_classification(student, teacher, weights).item()
    assert value == pytest.approx((terms * weights).sum(), rel=3e-6)


def test_equal_logits_cost_and_pull_nothing(random):
    logits = random.standard_normal((5, 4))
    for loss in (losses.crosskd_classification, losses.bckd_classification):
        value, gradient = kd.value_and_grad(loss)(logits, logits)
        assert value == 0
        assert not gradient.any()


def test_crosskd_regression_forms(random):
    student, teacher = random.standard_normal((2, 5, 4, 17))
    weights = random.uniform(0, 1, 5)
    rows = kl_rows(student, teacher, 1).mean(1)
    value = losses.crosskd_regression(student, teacher, weights).item()
    assert value == pytest.approx((weights * rows).sum() / weights.sum(), rel=1e-5)
    found = losses.crosskd_regression(student, teacher, reduction="none")
    np.testing.assert_allclose(found, rows, rtol=1e-5)
    check_gradient(lambda x: losses.crosskd_regression(x, teacher, weights), student)
    assert losses.crosskd_regression(student, teacher, weights * 0).item() == 0
    boxes, others = random_boxes(random, 6), random_boxes(random, 6)
    others[:3] = boxes[:3] + 2
    weights = random.uniform(0, 1, 6)
    plain = losses.giou(boxes, others, weights, reduction="sum").item()
    value = losses.crosskd_regression(boxes, others, weights, "giou").item()
    assert value == pytest.approx(plain / weights.sum(), rel=1e-6)
    logs = [-math.log(max(overlaps(a, b)[0], 1e-6)) for a, b in zip(boxes, others, strict=True)]
    value = losses.crosskd_regression(boxes, others, weights, "iou").item()
    assert value == pytest.approx((weights * logs).sum() / weights.sum(), rel=1e-5)
    mean = losses.crosskd_regression(boxes, others, form="iou", reduction="mean").item()
    assert mean == pytest.approx(np.mean(logs), rel=1e-5)
    given = losses.crosskd_regression(boxes, others, weights, "giou", avg_factor=3).item()
    assert given == pytest.approx(plain / 3, rel=1e-6)
    check_gradient(
        lambda x: losses.crosskd_regression(x, others[:3], form="iou", reduction="sum"), boxes[:3]
    )


def test_alignment_takes_the_teachers_moments(random):
    student, teacher = random.standard_normal((2, 3, 5, 4, 6))
    teacher = 3 * teacher + 1
    aligned = losses.standardize_like(student, teacher).numpy()
    axes = (0, 2, 3)
    np.testing.assert_allclose(aligned.mean(axes), teacher.mean(axes), atol=1e-5)
    np.testing.assert_allclose(aligned.std(axes), teacher.std(axes), rtol=1e-5)
    scale, shift = random.uniform(0.5, 2, (1, 5, 1, 1)), random.standard_normal((1, 5, 1, 1))
    other = losses.standardize_like(scale * student + shift, teacher).numpy()
    np.testing.assert_allclose(other, aligned, atol=2e-5)
    weights = random.standard_normal(student.shape)
    check_gradient(lambda x: (losses.standardize_like(x, teacher) * weights).sum(), student)


def test_alignment_of_constant_channels_and_single_places(random):
    teacher = random.standard_normal((2, 3, 4, 4))
    for student in (np.ones((2, 3, 4, 4)), np.zeros((2, 3, 4, 4))):
        value, gradient = kd.value_and_grad(
            lambda x: losses.standardize_like(x, teacher).square().sum()
        )(student)
        assert math.isfinite(value)
        assert np.isfinite(gradient).all()
    single = losses.standardize_like(np.ones((1, 3, 1, 1)), teacher[:1, :, :1, :1]).numpy()
    np.testing.assert_allclose(single, teacher[:1, :, :1, :1], rtol=1e-6)
    with pytest.raises(kd.ShapeError, match=r"\(2, 3, 4, 4\).*\(1, 3, 4, 4\)"):
        losses.standardize_like(teacher, teacher[:1])


def test_the_teachers_head_passes_gradients_on_and_keeps_none(random):
    # The tower after conv i: alignment, ReLU, the teacher's convolution.
    student, teacher = random.standard_normal((2, 2, 4, 5, 5))
    weight = random.standard_normal((6, 4, 3, 3)) * 0.3
    tower = kd.tensor(student, requires_grad=True)

    def head(feature):
        return kd.conv2d(kd.relu(feature), weight, padding=1)

    target = head(kd.tensor(teacher))
    cross = head(losses.standardize_like(tower, teacher))
    losses.crosskd_classification(cross, target).backward()
    assert np.abs(tower.grad.numpy()).max() > 0
    same = head(losses.standardize_like(teacher, teacher))
    # Only the 1e-6 of the alignment and rounding are between them.
    np.testing.assert_allclose(same, target, atol=1e-4)
    assert losses.crosskd_classification(same, target, reduction="mean").item() < 1e-5


# BCKD


def test_bckd_classification_is_binary(random):
    student, teacher = random.standard_normal((2, 5, 4))
    value = losses.bckd_classification(student, teacher).item()
    assert value == losses.crosskd_classification(student, teacher).item()
    assert losses.bckd_classification(student + 1, teacher).item() != pytest.approx(value)
    extremes = [
        losses.bckd_classification(np.full((1, 1), x), np.full((1, 1), 6.0)).item()
        for x in (-6, -2, 2, 5)
    ]
    assert extremes == sorted(extremes, reverse=True)
    assert losses.bckd_classification(student, teacher, positives=0).item() == 0
    kept = np.array([1, 0, 1, 1, 1])
    part = losses.bckd_classification(student, teacher, kept).item()
    rows = losses.bckd_classification(student, teacher, reduction="none").numpy()
    assert part == pytest.approx(rows.sum() - rows[1], rel=1e-6)
    mean = losses.bckd_classification(student, teacher, avg_factor=5).item()
    assert mean == pytest.approx(value / 5, rel=1e-6)
    order = random.permutation(5)
    assert losses.bckd_classification(student[order], teacher[order]).item() == pytest.approx(value)


def test_bckd_localization_is_weighted_by_the_gap_of_scores(random):
    boxes, others = random_boxes(random, 5), random_boxes(random, 5)
    student, teacher = random.standard_normal((2, 5, 3))
    gaps = np.abs(sigmoid(student) - sigmoid(teacher)).max(1)
    each = losses.giou(boxes, others, reduction="none").numpy()
    value = losses.bckd_localization(boxes, others, student, teacher, avg_factor=2).item()
    assert value == pytest.approx((gaps * each).sum() / 2, rel=1e-5)
    assert losses.bckd_localization(boxes, others, teacher, teacher).item() == 0
    assert losses.bckd_localization(boxes, boxes, student, teacher).item() < 1e-5
    label_weights = np.array([1, 1, 0, 1, 1.0])
    part = losses.bckd_localization(boxes, others, student, teacher, label_weights).item()
    assert part == pytest.approx((label_weights * gaps * each).sum(), rel=1e-5)
    assert losses.bckd_localization(boxes, others, student, teacher, positives=0).item() == 0
    logits = kd.tensor(student, requires_grad=True)
    tracked = kd.tensor(boxes, requires_grad=True)
    losses.bckd_localization(tracked, others, logits, teacher).backward()
    assert logits.grad is None
    check_gradient(
        lambda x: losses.bckd_localization(x, boxes[:2] + 3, student[:2] * 3, -student[:2] * 3),
        boxes[:2],
    )


# All of them


def head_calls(count: int, classes: int = 3):
    """Each loss as a function of student and teacher, with an example of its shape."""
    logits, edges, boxes = (count, classes), (count, 4, 5), (count, 4)
    scores = np.ones((count, classes)), -np.ones((count, classes))
    return {
        "binary_soft_labels": (losses.binary_soft_labels, logits),
        "localization_distillation": (losses.localization_distillation, edges),
        "crosskd_classification": (losses.crosskd_classification, logits),
        "crosskd_regression": (losses.crosskd_regression, edges),
        "crosskd_regression giou": (
            lambda s, t: losses.crosskd_regression(s, t, form="giou"),
            boxes,
        ),
        "bckd_classification": (losses.bckd_classification, logits),
        "bckd_localization": (
            lambda s, t: losses.bckd_localization(s, t, *scores),
            boxes,
        ),
    }


@pytest.mark.parametrize("name", head_calls(1))
def test_no_anchors_cost_nothing(name):
    call, shape = head_calls(0)[name]
    value, gradient = kd.value_and_grad(lambda x: call(x, np.zeros(shape)))(np.zeros(shape))
    assert value == 0
    assert gradient.shape == shape


@pytest.mark.parametrize("name", head_calls(1))
def test_unlike_shapes_are_both_named(name):
    call, shape = head_calls(2)[name]
    other = (3, *shape[1:])
    with pytest.raises(kd.ShapeError) as caught:
        call(np.zeros(shape), np.zeros(other))
    assert str(shape) in str(caught.value)
    assert str(other) in str(caught.value)


@pytest.mark.parametrize("name", head_calls(1))
def test_no_gradient_reaches_the_teacher(name, random):
    call, shape = head_calls(4)[name]
    arrays = random.standard_normal((2, *shape))
    if shape[1:] == (4,):
        arrays = np.stack([random_boxes(random, 4), random_boxes(random, 4)])
    student, teacher = (kd.tensor(x, requires_grad=True) for x in arrays)
    call(student, teacher).backward()
    assert teacher.grad is None
    assert np.abs(student.grad.numpy()).max() > 0


def test_wrong_options_are_named():
    logits, edges = np.zeros((2, 3)), np.zeros((2, 4, 5))
    with pytest.raises(kd.ArgumentError, match="temperature is 0"):
        losses.localization_distillation(edges, edges, temperature=0)
    with pytest.raises(kd.ArgumentError, match="form is 'l1'"):
        losses.crosskd_regression(edges, edges, form="l1")
    with pytest.raises(kd.ShapeError, match=r"\(P, 4, bins\)"):
        losses.crosskd_regression(logits, logits)
    with pytest.raises(kd.ShapeError, match=r"weights \(3,\) must be \(P,\)"):
        losses.crosskd_regression(edges, edges, np.ones(3))
    with pytest.raises(kd.ShapeError, match=r"\[3\].*\[2, 3\]"):
        losses.crosskd_classification(logits, logits, np.ones(3))
    with pytest.raises(kd.ArgumentError, match="reduction is 'average'"):
        losses.crosskd_classification(logits, logits, reduction="average")
