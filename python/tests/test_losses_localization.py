"""Bins of box edges and qualities: generalized focal losses, localization distillation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from head_formulas import entropy, kl_rows, overlaps, random_boxes, sigmoid, softmax
from measure import check_gradient

import kdswift as kd
from kdswift import losses


@pytest.fixture
def random():
    return np.random.default_rng(11)


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
