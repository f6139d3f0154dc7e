"""Losses: PyTorch's numbers, the papers' worked numbers, invariants, errors."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch_cases

import kdswift as kd
from kdswift import losses

# Losses of rows; those of feature maps have tests of their own.
ROWS = ("boxes", "detection", "hints", "soft_labels")
PAIRS = [
    name
    for name in losses.__all__
    if name != "cross_entropy" and getattr(losses, name).__module__.rpartition(".")[2] in ROWS
]


@pytest.fixture
def random():
    return np.random.default_rng(9)


def call(name: str, student, teacher, **options):
    """A loss of two arrays; the bounded one gets targets of 0."""
    if name == "teacher_bounded_regression":
        return losses.teacher_bounded_regression(student, teacher, teacher * 0, **options)
    return getattr(losses, name)(student, teacher, **options)


def example(name: str, random) -> tuple[np.ndarray, np.ndarray]:
    """A student and a teacher, away from the kinks of every loss."""
    student, teacher = random.standard_normal((2, 6, 4)).astype(np.float32)
    if name in ("sigmoid_focal", "binary_cross_entropy"):
        teacher = (teacher > 0).astype(np.float32)
    if name == "giou":
        student, teacher = (np.sort(np.abs(x).reshape(6, 2, 2), axis=1) for x in (student, teacher))
        student, teacher = (
            student.reshape(6, 4) + [0, 0, 1, 1],
            teacher.reshape(6, 4) + [0, 0, 1, 1],
        )
    return student.astype(np.float32), teacher.astype(np.float32)


@pytest.mark.parametrize("name", torch_cases.names(losses=True))
def test_values_and_gradients_are_those_of_pytorch(name):
    # Single precision on both sides, sums of up to 200 terms: about 1e-6.
    torch_cases.check(name, tolerance=5e-6)


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("reduction", ["paper", "mean", "sum"])
def test_gradients_against_finite_differences(name, reduction, random):
    student, teacher = example(name, random)

    def value(x):
        return call(name, x, teacher, reduction=reduction)

    _, gradient = kd.value_and_grad(value)(student)
    step, numeric = 1e-2, np.zeros_like(student)
    for index in np.ndindex(student.shape):
        change = np.zeros_like(student)
        change[index] = step
        numeric[index] = (
            (float(value(student + change)) - float(value(student - change))) / 2 / step
        )
    scale = np.abs(numeric).max()
    assert scale > 1e-4
    # Cut-off error step^2 = 1e-4 times the third derivative, plus rounding of the sum / step.
    np.testing.assert_allclose(gradient, numeric, atol=5e-3 * max(scale, 0.1))


@pytest.mark.parametrize("name", PAIRS)
def test_no_gradient_reaches_the_teacher(name, random):
    student, teacher = example(name, random)
    student, teacher = (
        kd.tensor(student, requires_grad=True),
        kd.tensor(teacher, requires_grad=True),
    )
    call(name, student, teacher).backward()
    assert teacher.grad is None
    assert np.abs(student.grad.numpy()).max() > 0


@pytest.mark.parametrize("name", PAIRS)
def test_reductions_belong_together(name, random):
    student, teacher = example(name, random)
    values = call(name, student, teacher, reduction="none").numpy()
    # The sum is taken in another order: a few roundings of float32.
    np.testing.assert_allclose(
        call(name, student, teacher, reduction="sum"), values.sum(), rtol=3e-6
    )
    np.testing.assert_allclose(
        call(name, student, teacher, reduction="mean"), values.mean(), rtol=3e-6
    )


@pytest.mark.parametrize("name", PAIRS)
def test_arrays_tensors_and_dlpack_give_one_value(name, random):
    student, teacher = example(name, random)

    class Foreign:
        def __init__(self, array):
            self.array = array

        def __dlpack__(self, **options):
            return self.array.__dlpack__(**options)

        def __dlpack_device__(self):
            return (1, 0)

        def __mul__(self, number):
            return self.array * number

    expected = call(name, student, teacher).item()
    assert call(name, kd.tensor(student), kd.tensor(teacher)).item() == expected
    assert call(name, Foreign(student), Foreign(teacher)).item() == expected
    assert call(name, student.astype(np.float64), kd.tensor(teacher)).item() == expected


@pytest.mark.parametrize("name", PAIRS)
def test_shapes_that_differ_are_both_named(name):
    with pytest.raises(kd.ShapeError, match=rf"{name}: .*\(3, 4\).*\(2, 4\)"):
        call(name, np.zeros((3, 4)), np.zeros((2, 4)))


@pytest.mark.parametrize("name", [*PAIRS, "cross_entropy"])
def test_an_unknown_reduction_is_named(name):
    with pytest.raises(kd.ArgumentError, match=rf"{name}: reduction is 'average'"):
        call(name, np.zeros((3, 4)), np.zeros((3, 4)), reduction="average")


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("reduction", ["paper", "mean", "sum"])
def test_nothing_costs_nothing(name, reduction):
    empty = np.zeros((0, 4), np.float32)
    value, gradient = kd.value_and_grad(lambda x: call(name, x, empty, reduction=reduction))(empty)
    assert value == 0
    assert gradient.shape == (0, 4)


@pytest.mark.parametrize("name", PAIRS)
def test_nan_comes_through(name, random):
    student, teacher = example(name, random)
    student[1, 2] = np.nan
    if name == "teacher_bounded_regression":
        pytest.skip("a comparison with NaN is false, so the box counts nothing")
    assert math.isnan(call(name, student, teacher).item())


# Detection


def test_cross_entropy_refuses_labels_that_are_no_class():
    logits = np.zeros((3, 4))
    with pytest.raises(kd.ArgumentError, match="cross_entropy: label 4 of row 1"):
        losses.cross_entropy(logits, [0, 4, 1])
    with pytest.raises(kd.ArgumentError, match="label -1 of row 2"):
        losses.cross_entropy(logits, [0, 1, -1])
    with pytest.raises(kd.ArgumentError, match="labels must be int64"):
        losses.cross_entropy(logits, [0.0, 1.0, 2.0])
    with pytest.raises(kd.ShapeError, match=r"\[3, 4\].*\[2\]"):
        losses.cross_entropy(logits, [0, 1])


def test_cross_entropy_with_every_row_ignored_is_zero():
    value, gradient = kd.value_and_grad(losses.cross_entropy)(np.ones((2, 3)), [-100, -100])
    assert value == 0
    assert not gradient.any()
    other = losses.cross_entropy(np.zeros((2, 3)), [1, 7], ignore_index=7).item()
    assert other == pytest.approx(math.log(3))


def test_large_logits_do_not_overflow():
    big = np.array([[500.0, -500.0]])
    assert losses.cross_entropy(big, [1]).item() == 1000
    assert losses.binary_cross_entropy(big, [[0.0, 1.0]], reduction="sum").item() == 1000
    assert losses.kl_divergence(big, -big).item() == pytest.approx(1000)
    assert losses.sigmoid_focal(big, [[0.0, 1.0]], reduction="sum").item() == pytest.approx(500)


def test_focal_loss_of_retinanet_divides_by_the_positives():
    logits, targets = np.zeros((3, 2)), np.array([[1.0, 0], [1.0, 0], [0, 0]])
    total = losses.sigmoid_focal(logits, targets, reduction="sum").item()
    assert losses.sigmoid_focal(logits, targets).item() == pytest.approx(total / 2)
    none = losses.sigmoid_focal(logits, targets * 0)
    assert none.item() == losses.sigmoid_focal(logits, targets * 0, reduction="sum").item()
    plain = losses.sigmoid_focal(logits, targets, alpha=-1, gamma=0, reduction="mean").item()
    assert plain == pytest.approx(losses.binary_cross_entropy(logits, targets).item(), rel=1e-6)


def test_smooth_l1_of_fast_rcnn_is_the_mean_over_boxes():
    prediction, target = np.array([[0.5, 2.0, 0, 0], [0, 0, 0, -1.0]]), np.zeros((2, 4))
    # 0.125 + 1.5 and 0.5
    assert losses.smooth_l1(prediction, target).item() == pytest.approx((1.625 + 0.5) / 2)
    assert losses.smooth_l1(prediction, target, beta=0, reduction="sum").item() == 3.5
    with pytest.raises(kd.ArgumentError, match="beta must be"):
        losses.smooth_l1(prediction, target, beta=-1)


def test_giou_of_known_boxes():
    box = [[0.0, 0, 2, 2]]
    assert losses.giou(box, box).item() == pytest.approx(0, abs=1e-6)
    # Apart by one: union 8, hull 5 x 2 = 10, so GIoU = 0 - 2 / 10.
    assert losses.giou(box, [[3.0, 0, 5, 2]]).item() == pytest.approx(1.2, rel=1e-6)
    weighted = losses.giou(box * 2, [[0.0, 0, 2, 2], [3.0, 0, 5, 2]], weights=[5, 0.5])
    assert weighted.item() == pytest.approx(0.3, rel=1e-5)


def test_weights_of_binary_cross_entropy():
    logits, targets = np.zeros((2, 2)), np.array([[1.0, 0], [1, 1]])
    weights = np.array([[1.0, 0], [3, 0]])
    value = losses.binary_cross_entropy(logits, targets, weights, reduction="sum").item()
    assert value == pytest.approx(4 * math.log(2), rel=1e-6)
    with pytest.raises(kd.ShapeError, match=r"logits \(2, 2\) and weights \(2,\)"):
        losses.binary_cross_entropy(logits, targets, [1.0, 2.0])


@pytest.mark.parametrize("name", PAIRS)
def test_the_number_of_threads_changes_nothing(name, random, threads):
    student, teacher = random.standard_normal((2, 3000, 4)).astype(np.float32)
    if name == "giou":
        student, teacher = (np.concatenate([x[:, :2], x[:, :2] + 1], 1) for x in (student, teacher))
    results = []
    for count in (1, 2, 3):
        kd.set_num_threads(count)
        results.append(kd.value_and_grad(lambda x: call(name, x, teacher))(student))
    for value, gradient in results[1:]:
        assert value == results[0][0]
        np.testing.assert_array_equal(gradient, results[0][1])
