"""Losses between the outputs of heads: the methods' worked numbers, invariants, plain formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest
from measure import check_gradient

import kdswift as kd
from kdswift import losses


@pytest.fixture
def random():
    return np.random.default_rng(11)


def sigmoid(x):
    return 1 / (1 + np.exp(-np.asarray(x, np.float64)))


def softmax(x):
    powers = np.exp(np.asarray(x, np.float64) - np.max(x, axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def entropy(x, t):
    """Binary cross-entropy of logits."""
    x = np.asarray(x, np.float64)
    return np.maximum(x, 0) - x * t + np.log1p(np.exp(-np.abs(x)))


def random_boxes(random, count: int) -> np.ndarray:
    corner, size = random.uniform(0, 60, (count, 2)), random.uniform(8, 40, (count, 2))
    return np.concatenate([corner, corner + size], 1).astype(np.float32)


# Generalized focal loss


@pytest.mark.parametrize("beta", [0, 1, 2, 2.5])
def test_quality_focal_is_its_formula(beta, random):
    logits, targets = random.standard_normal((7, 5)), random.uniform(0, 1, (7, 5))
    expected = np.abs(sigmoid(logits) - targets) ** beta * entropy(logits, targets)
    found = losses.quality_focal(logits, targets, beta=beta, reduction="none")
    # Single precision, sums of 5 terms.
    np.testing.assert_allclose(found, expected.sum(1), rtol=3e-6)
    value = losses.quality_focal(logits, targets, beta=beta, reduction="mean").item()
    assert value == pytest.approx(expected.mean(), rel=3e-6)
    weights = random.uniform(0, 1, 7)
    value = losses.quality_focal(logits, targets, weights, beta, reduction="sum").item()
    assert value == pytest.approx((expected.sum(1) * weights).sum(), rel=3e-6)


def test_quality_focal_divides_by_its_positives(random):
    logits = random.standard_normal((4, 3))
    targets = np.zeros((4, 3))
    total = losses.quality_focal(logits, targets, reduction="sum").item()
    assert losses.quality_focal(logits, targets).item() == total
    targets[0, 1], targets[2, 0] = 0.8, 0.3
    total = losses.quality_focal(logits, targets, reduction="sum").item()
    assert losses.quality_focal(logits, targets).item() == pytest.approx(total / 2)


def test_quality_focal_gradient_counts_the_modulating_factor(random):
    # Targets far from the sigmoids: no difference is taken across the kink.
    logits, targets = random.uniform(0.5, 3, (4, 3)), random.uniform(0, 0.5, (4, 3))
    for beta in (1, 2):
        check_gradient(
            lambda x, beta=beta: losses.quality_focal(x, targets, beta=beta, reduction="sum"),
            logits,
        )


def test_distribution_focal_is_two_cross_entropies(random):
    logits, targets = random.standard_normal((5, 8)), np.array([0, 1.25, 3, 6.5, 7])
    logs = np.log(softmax(logits))
    low = np.minimum(np.floor(targets).astype(int), 6)
    share = targets - low
    rows = np.arange(5)
    expected = -(1 - share) * logs[rows, low] - share * logs[rows, low + 1]
    found = losses.distribution_focal(logits, targets, reduction="none")
    np.testing.assert_allclose(found, expected, rtol=3e-6)
    weights = random.uniform(0, 1, 5)
    value = losses.distribution_focal(logits, targets, weights).item()
    assert value == pytest.approx((weights * expected).sum() / weights.sum(), rel=3e-6)
    check_gradient(lambda x: losses.distribution_focal(x, targets, weights), logits)
    assert losses.distribution_focal(logits, targets, weights * 0).item() == 0


def test_distribution_focal_refuses_what_is_outside_the_bins():
    with pytest.raises(kd.ArgumentError, match=r"target 2.5 of row 1 is not in 0...2"):
        losses.distribution_focal(np.zeros((2, 3)), [0, 2.5])
    with pytest.raises(kd.ShapeError, match=r"\(2, 3\).*\(3,\)"):
        losses.distribution_focal(np.zeros((2, 3)), [0, 1, 2])


def test_focal_losses_of_nothing_and_of_large_logits():
    empty = np.zeros((0, 4), np.float32)
    assert losses.quality_focal(empty, empty).item() == 0
    assert losses.distribution_focal(empty, np.zeros(0)).item() == 0
    big = np.array([[50.0, -50.0]])
    assert losses.quality_focal(big, [[0.0, 1.0]], reduction="sum").item() == pytest.approx(100)
    assert math.isfinite(losses.distribution_focal(50 * np.eye(4), [0.5, 1, 2, 3]).item())


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


# Localization distillation


def test_localization_distillation_of_the_worked_edge():
    teacher = np.zeros((1, 17))
    teacher[0, 4] = 5
    student = teacher * 0

    def value(temperature, **options):
        return losses.localization_distillation(
            student, teacher, temperature=temperature, avg_factor=1, **options
        ).item()

    assert value(10) == pytest.approx(0.0544670, abs=1e-7)
    assert 17 * value(10) == pytest.approx(0.9259381, abs=2e-6)
    assert 17 * value(1) == pytest.approx(2.2442518, abs=2e-6)


def kl_rows(student, teacher, temperature):
    """T^2 KL summed over the bins, in double precision."""
    t, s = softmax(teacher / temperature), softmax(student / temperature)
    return temperature**2 * (t * (np.log(t) - np.log(s))).sum(-1)


def test_localization_distillation_is_its_formula(random):
    student, teacher = random.standard_normal((2, 5, 4, 17)) * 3
    weights = random.uniform(0, 1, 5)
    edges = kl_rows(student, teacher, 10) / 17
    value = losses.localization_distillation(student, teacher, weights).item()
    assert value == pytest.approx((weights[:, None] * edges).sum() / 4, rel=1e-5)
    found = losses.localization_distillation(student, teacher, reduction="none")
    np.testing.assert_allclose(found, edges, rtol=1e-5)
    mean = losses.localization_distillation(student, teacher, reduction="mean").item()
    assert mean == pytest.approx(edges.mean(), rel=1e-5)
    per_edge = np.repeat(weights[:, None], 4, 1)
    other = losses.localization_distillation(student, teacher, per_edge).item()
    assert other == pytest.approx(value, rel=1e-6)
    check_gradient(
        lambda x: losses.localization_distillation(x, teacher, weights, 2.0, 1.0),
        student,
    )


def test_localization_distillation_invariants(random):
    student, teacher = random.standard_normal((2, 3, 4, 9))
    assert losses.localization_distillation(teacher, teacher).item() == 0
    shifted = teacher + random.standard_normal((3, 4, 1))
    # A shift of all bins of an edge is rounded once per logit: squared, 1e-14.
    assert losses.localization_distillation(shifted, teacher).item() < 1e-10
    once = losses.localization_distillation(student, teacher).item()
    doubled = [np.concatenate([x, x]) for x in (student, teacher)]
    assert losses.localization_distillation(*doubled).item() == pytest.approx(2 * once, rel=1e-6)
    edge = losses.localization_distillation(student[:1], teacher[:1], avg_factor=4).item()
    mean = losses.localization_distillation(student[:1], teacher[:1], reduction="mean").item()
    assert edge == pytest.approx(mean, rel=1e-6)
    weights = kd.tensor(np.ones(3), requires_grad=True)
    tracked = kd.tensor(student, requires_grad=True)
    losses.localization_distillation(tracked, teacher, weights).backward()
    assert weights.grad is None
    assert np.abs(tracked.grad.numpy()).max() > 0
    order = random.permutation(3)
    other = losses.localization_distillation(student[order], teacher[order]).item()
    assert other == pytest.approx(once, rel=1e-6)


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


def test_vlr_region_is_the_band_below_the_threshold():
    # One candidate: t is its IoU (no deviation), which is not below itself.
    box = [[0.0, 0, 10, 10]]
    one = losses.vlr_region([np.array([[2.5, 2.5, 7.5, 7.5]])], box)
    assert one.tolist() == [0.0]
    # Two equal candidates with IoU 1 on two levels: t = 1. DIoU of the third, concentric: 0.25.
    levels = [
        np.array([[0, 0, 10, 10], [2.5, 2.5, 7.5, 7.5]]),
        np.array([[0, 0, 10, 10], [2.4, 2.5, 7.5, 7.5], [3, 3, 7, 7]]),
    ]
    region = losses.vlr_region(levels, box, top=1)
    # DIoU = t is out, DIoU = 0.25 t is in, below is out.
    np.testing.assert_allclose(region, [0, 0.25, 0, 0.255, 0], rtol=1e-6)


def test_vlr_region_is_its_definition(random):
    levels = [random_boxes(random, n) for n in (40, 20, 5)]
    boxes = random_boxes(random, 3)
    region = losses.vlr_region(levels, boxes)
    every = np.concatenate(levels)
    expected = np.zeros(len(every))
    for box in boxes:
        rows, start = [], 0
        iou, diou = zip(*(overlaps(anchor, box) for anchor in every), strict=True)
        for level in levels:
            centre = (level[:, :2] + level[:, 2:]) / 2 - (box[:2] + box[2:]) / 2
            rows += list(start + np.argsort((centre**2).sum(1))[:9])
            start += len(level)
        chosen = np.array([iou[row] for row in rows])
        threshold = chosen.mean() + chosen.std(ddof=1)
        for index in range(len(every)):
            if 0.25 * threshold <= diou[index] < threshold:
                expected[index] = max(expected[index], iou[index])
    assert (expected > 0).sum() > 3
    np.testing.assert_allclose(region, expected, atol=1e-6)
    assert losses.vlr_region(levels, np.zeros((0, 4))).tolist() == [0.0] * 65
    assert losses.vlr_region([np.zeros((0, 4))], boxes).tolist() == []


def overlaps(a, b) -> tuple[float, float]:
    """IoU and DIoU of two boxes."""
    a, b = (np.asarray(x, np.float64) for x in (a, b))
    inter = np.prod(np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None))
    union = np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - inter
    gap = ((a[:2] + a[2:] - b[:2] - b[2:]) / 2) ** 2
    hull = (np.maximum(a[2:], b[2:]) - np.minimum(a[:2], b[:2])) ** 2
    return inter / union, inter / union - gap.sum() / (hull.sum() + 1e-6)


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
