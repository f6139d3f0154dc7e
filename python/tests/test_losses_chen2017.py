"""The losses of Chen et al. 2017 and Hinton et al. 2015: worked numbers and invariants."""

from __future__ import annotations

import math

import numpy as np
import pytest

import kdswift as kd
from kdswift import losses


@pytest.fixture
def random():
    return np.random.default_rng(9)


def test_weighted_soft_cross_entropy_of_the_paper():
    # w = (1.5, 1, 1), P_t = (0.5, 0.25, 0.25), z_s = 0: 1.25 ln 3 and (-1/3, 1/6, 1/6).
    teacher = np.log([[0.5, 0.25, 0.25]])
    value, gradient = kd.value_and_grad(losses.weighted_soft_cross_entropy)(
        np.zeros((1, 3)), teacher
    )
    assert value == pytest.approx(1.25 * math.log(3), rel=1e-6)
    np.testing.assert_allclose(gradient, [[-1 / 3, 1 / 6, 1 / 6]], atol=1e-6)


def test_weighted_soft_cross_entropy_stands_still_at_the_weighted_teacher():
    teacher = np.log([[0.5, 0.25, 0.25]])
    gradient_of = kd.value_and_grad(losses.weighted_soft_cross_entropy)
    _, at_weighted = gradient_of(np.log([[0.6, 0.2, 0.2]]), teacher)
    _, at_teacher = gradient_of(teacher, teacher)
    np.testing.assert_allclose(at_weighted, 0, atol=1e-6)
    assert np.abs(at_teacher).max() > 0.1
    assert at_teacher[0, 0] < 0, "the student is pushed towards the background"


def test_weighted_soft_cross_entropy_gradient_sums_to_zero(random):
    student, teacher = random.standard_normal((2, 5, 7))
    weights = random.uniform(0.2, 3, 7)
    _, gradient = kd.value_and_grad(losses.weighted_soft_cross_entropy)(student, teacher, weights)
    np.testing.assert_allclose(gradient.sum(axis=1), 0, atol=1e-6)


def test_without_weights_the_gradient_is_the_difference_of_probabilities(random):
    student, teacher = random.standard_normal((2, 5, 7))
    value, gradient = kd.value_and_grad(losses.soft_cross_entropy)(
        student, teacher, reduction="sum"
    )
    p_s, p_t = (np.exp(z) / np.exp(z).sum(1, keepdims=True) for z in (student, teacher))
    np.testing.assert_allclose(gradient, p_s - p_t, atol=1e-6)
    assert value == pytest.approx(-(p_t * np.log(p_s)).sum(), rel=1e-5)
    entropy = losses.soft_cross_entropy(teacher, teacher, reduction="sum").item()
    assert entropy == pytest.approx(-(p_t * np.log(p_t)).sum(), rel=1e-5)
    assert entropy > 1, "a cross-entropy is not 0 where both agree"


def test_weights_replace_the_background_weight(random):
    student, teacher = random.standard_normal((2, 4, 3))
    plain = losses.soft_cross_entropy(student, teacher).item()
    ones = losses.weighted_soft_cross_entropy(student, teacher, np.ones(3))
    assert ones.item() == pytest.approx(plain, rel=1e-6)
    flat = losses.weighted_soft_cross_entropy(student, teacher, background_weight=1.0)
    assert flat.item() == pytest.approx(plain, rel=1e-6)
    assert losses.weighted_soft_cross_entropy(student, teacher).item() > plain
    with pytest.raises(kd.ShapeError, match=r"class_weights \(2,\).*\(4, 3\)"):
        losses.weighted_soft_cross_entropy(student, teacher, np.ones(2))


def test_soft_losses_take_leading_axes(random):
    student, teacher = random.standard_normal((2, 2, 3, 5))
    for loss in (losses.weighted_soft_cross_entropy, losses.kl_divergence):
        flat = loss(student.reshape(6, 5), teacher.reshape(6, 5)).item()
        assert loss(student, teacher).item() == flat
        assert loss(student, teacher, reduction="none").shape == (2, 3)
        assert loss(student[0, 0], teacher[0, 0]).shape == ()


@pytest.mark.parametrize("temperature", [0, -1, float("nan"), float("inf")])
def test_temperatures_that_mean_nothing(temperature):
    for loss in (
        losses.weighted_soft_cross_entropy,
        losses.soft_cross_entropy,
        losses.kl_divergence,
    ):
        with pytest.raises(kd.ArgumentError, match="temperature is"):
            loss(np.zeros((1, 2)), np.zeros((1, 2)), temperature=temperature)


def test_kl_divergence_of_hinton():
    # z_t = (ln 3, 0), z_s = 0: 0.130812 at T = 1, 0.145363 at T = 2 with the factor T^2.
    student, teacher = np.zeros((1, 2)), np.array([[math.log(3), 0]])
    assert losses.kl_divergence(student, teacher).item() == pytest.approx(0.130812, abs=1e-6)
    warm = losses.kl_divergence(student, teacher, temperature=2)
    assert warm.item() == pytest.approx(0.145363, abs=1e-6)
    assert losses.kl_divergence(teacher + 5, teacher).item() == pytest.approx(0, abs=1e-6)


# R_s, margin, L_b, its gradient; y = 0 and R_t = (1, 0, 0, 0), so e_t = 1. Numbers exact in binary.
REGIONS = [
    ((2, 0, 0, 0), 0, 4, (4, 0, 0, 0)),
    ((0, 0.5, 0, 0), 0, 0, (0, 0, 0, 0)),
    ((0, 1, 0, 0), 0, 0, (0, 0, 0, 0)),
    ((0, 1, 0, 0), 0.5, 1, (0, 2, 0, 0)),
    ((0.5, 0.5, 0, 0), 0.5, 0, (0, 0, 0, 0)),
    ((0.1, 0, 0, 0), 2, 0.01, (0.2, 0, 0, 0)),
]


@pytest.mark.parametrize(("student", "margin", "expected", "slope"), REGIONS)
def test_regions_of_the_bounded_regression(student, margin, expected, slope):
    teacher, target = np.array([[1.0, 0, 0, 0]]), np.zeros((1, 4))
    function = kd.value_and_grad(losses.teacher_bounded_regression)
    value, gradient = function(np.array([student], float), teacher, target, margin)
    assert value == pytest.approx(expected, rel=1e-6)
    np.testing.assert_allclose(gradient, [slope], rtol=1e-6)


def test_the_gate_is_each_boxs_own():
    # e_t = 1 for both, e_s = 4 and 0.25: a gate on the batch's mean would give 4.25.
    student = np.array([[2.0, 0, 0, 0], [0.5, 0, 0, 0]])
    teacher, target = np.array([[1.0, 0, 0, 0]] * 2), np.zeros((2, 4))
    assert losses.teacher_bounded_regression(student, teacher, target, reduction="sum").item() == 4
    assert losses.teacher_bounded_regression(student, teacher, target).item() == 2


def test_a_perfect_teacher_leaves_the_squared_error(random):
    student, target = random.standard_normal((2, 5, 4)).astype(np.float32)
    value = losses.teacher_bounded_regression(student, target, target, reduction="sum").item()
    assert value == pytest.approx(((student - target) ** 2).sum(), rel=1e-6)


def test_the_bounded_regression_jumps_at_its_gate():
    teacher, target = np.array([[1.0, 0, 0, 0]]), np.zeros((1, 4))
    just_inside = np.array([[math.sqrt(0.75) - 1e-4, 0, 0, 0]])
    just_outside = just_inside + [[2e-4, 0, 0, 0]]
    values = [
        losses.teacher_bounded_regression(s, teacher, target, margin=0.25).item()
        for s in (just_inside, just_outside)
    ]
    assert values[0] == 0
    assert values[1] == pytest.approx(0.75, abs=1e-3)


def test_the_whole_regression_gradient():
    # smooth L1 + 0.5 L_b, active: 2 d for |d| < 1, sign(d) + d beyond.
    student = np.array([[0.5, -0.25, 2.0, -3.0]])
    teacher = target = np.zeros((1, 4))

    def regression(x):
        bounded = losses.teacher_bounded_regression(x, teacher, target, reduction="sum")
        return losses.smooth_l1(x, target, reduction="sum") + 0.5 * bounded

    _, gradient = kd.value_and_grad(regression)(student)
    np.testing.assert_allclose(gradient, [[1.0, -0.5, 3.0, -4.0]], rtol=1e-6)


def test_the_bounded_regression_takes_boxes():
    with pytest.raises(kd.ShapeError, match=r"student_deltas \(2, 3\) must be \(P, 4\)"):
        losses.teacher_bounded_regression(*[np.zeros((2, 3))] * 3)
    with pytest.raises(kd.ShapeError, match=r"student_deltas \(2, 4\) and targets \(1, 4\)"):
        losses.teacher_bounded_regression(np.zeros((2, 4)), np.zeros((2, 4)), np.zeros((1, 4)))


def test_hint_of_the_paper():
    student, teacher = np.array([[1.0, 3.0, -2.0]]), np.array([[1.0, 1.0, 1.0]])
    value, gradient = kd.value_and_grad(losses.hint)(student, teacher)
    assert value == 13
    assert gradient.tolist() == [[0, 4, -6]]
    value, gradient = kd.value_and_grad(losses.hint)(student, teacher, distance="l1")
    assert value == 5
    assert gradient.tolist() == [[0, 1, -1]]
    assert losses.hint(student, teacher, reduction="mean").item() == pytest.approx(13 / 3)
    assert losses.hint(teacher, teacher).item() == 0
    with pytest.raises(kd.ArgumentError, match="distance is 'l3'"):
        losses.hint(student, teacher, distance="l3")


def test_hint_reads_feature_maps_from_a_convolution(random):
    image, weight = random.standard_normal((2, 3, 9, 7)), random.standard_normal((5, 3, 3, 3))
    teacher = random.standard_normal((2, 5, 7, 5))
    weight = kd.tensor(weight, requires_grad=True)
    maps = kd.conv2d(image, weight)
    loss = losses.hint(maps, teacher)
    expected = ((maps.numpy().astype(np.float64) - teacher) ** 2).sum()
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    loss.backward()
    assert weight.grad.shape == (5, 3, 3, 3)


# Mixing terms, as equation 2 does


def test_hard_and_soft_terms_mix_linearly(random):
    student, teacher = random.standard_normal((2, 6, 3))
    labels = random.integers(0, 3, 6)

    def total(x, mu):
        hard = losses.cross_entropy(x, labels)
        return mu * hard + (1 - mu) * losses.weighted_soft_cross_entropy(x, teacher)

    function = kd.value_and_grad(total)
    hard, only_hard = kd.value_and_grad(losses.cross_entropy)(student, labels)
    assert function(student, 1)[0] == hard
    np.testing.assert_array_equal(function(student, 1)[1], only_hard)
    ends = function(student, 0)[0], function(student, 1)[0]
    # One rounding for each product and sum.
    assert function(student, 0.25)[0] == pytest.approx(0.75 * ends[0] + 0.25 * ends[1], rel=1e-6)


def test_doubling_a_weight_doubles_its_gradient(random):
    student, teacher = random.standard_normal((2, 3, 4))
    _, once = kd.value_and_grad(lambda x: 0.5 * losses.hint(x, teacher))(student)
    _, twice = kd.value_and_grad(lambda x: 1.0 * losses.hint(x, teacher))(student)
    np.testing.assert_array_equal(2 * once, twice)
