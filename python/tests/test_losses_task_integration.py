"""The TID-style loss: scores of places, areas of value, the sum over them."""

from __future__ import annotations

import numpy as np
import pytest
from mask_scenes import BOXES, SIZE, grid_anchors, masked_sum
from measure import check_gradient

import kdswift as kd
from kdswift import losses


@pytest.fixture
def random():
    return np.random.default_rng(15)


def test_task_scores_at_their_thresholds():
    # IoUs 1/2, 2/5, a little more, 1/4, 1 and 0 with the box.
    edges = [5.0, 4.0, 4.01, 2.5, 10.0]
    predicted = np.array([[0, 0, 10, edge] for edge in edges] + [[50, 50, 60, 60]])
    box, size = [[0, 0, 10, 10]], (1, 6)
    sure = np.tile([-3.0, 2.0], (6, 1))
    found = losses.task_scores(sure, predicted, box, [1], size)
    np.testing.assert_allclose(found, [[4, 0.8, 3, 0.8, 4, 0.16]], rtol=1e-6)
    unsure = np.tile([-3.0, -2.0], (6, 1))
    found = losses.task_scores(unsure, predicted, box, [1], size)
    np.testing.assert_allclose(found, [[3, 0.6, 2.25, 0.6, 3, 0.16]], rtol=1e-6)
    wrong = losses.task_scores(sure, predicted, box, [0], size)
    np.testing.assert_allclose(wrong, [[0.8, 0.16, 0.6, 0.16, 0.8, 0.16]], rtol=1e-6)
    # Equal thresholds: no medium score, and the first rule wins.
    same = losses.task_scores(sure, predicted, box, [1], size, 0.4, 0.4)
    np.testing.assert_allclose(same, [[4, 4, 4, 0.8, 4, 0.16]], rtol=1e-6)
    none = losses.task_scores(sure, predicted, np.zeros((0, 4)), [], size)
    np.testing.assert_allclose(none, np.full((1, 6), 0.16), rtol=1e-6)


def test_task_scores_take_the_best_anchor_of_a_place(random):
    predicted, logits = grid_anchors(), random.standard_normal((60, 3))
    labels = [1, 2]
    found = losses.task_scores(logits, predicted, BOXES[0], labels, SIZE)
    assert {round(float(x), 2) for x in found.flat} <= {0.16, 0.6, 0.8, 2.25, 3, 4}
    order = np.arange(60).reshape(-1, 2)[:, ::-1].reshape(-1)
    other = losses.task_scores(logits[order], predicted[order], BOXES[0], labels, SIZE)
    np.testing.assert_array_equal(found, other)


def test_task_areas_cover_the_map(random):
    teacher, student = random.choice([0.16, 0.6, 0.8, 2.25, 3, 4], (2, 2, *SIZE))
    areas = losses.task_areas(teacher, student)
    assert (np.sum(areas, axis=0) == 1).all()
    high, medium, low = losses.task_areas(teacher, teacher)
    assert not high.any()
    np.testing.assert_array_equal(medium, teacher >= np.float32(2.25))
    # A power of two changes no rounding.
    scaled = losses.task_areas(4 * teacher, 4 * student, 4 * 2.25, 4 * 0.5)
    for a, b in zip(scaled, losses.task_areas(teacher, student, 2.25, 0.5), strict=True):
        np.testing.assert_array_equal(a, b)


def test_task_integration_is_its_formula(random):
    student, teacher = random.standard_normal((2, 2, 4, *SIZE))
    scores = random.choice([0.16, 0.6, 0.8, 2.25, 3, 4], (2, 2, *SIZE))
    areas = losses.task_areas(*scores)
    expected = sum(
        weight * masked_sum(student, teacher, mask) / mask.sum()
        for mask, weight in zip(areas, (1, 0.5, 0.1), strict=True)
    )
    assert losses.task_integration(student, teacher, *scores).item() == pytest.approx(
        expected, rel=1e-5
    )
    check_gradient(lambda x: losses.task_integration(x, teacher, *scores), student)
    assert losses.task_integration(teacher, teacher, *scores).item() == 0
    empty = np.full((2, *SIZE), 0.16)
    low = losses.task_integration(student, teacher, empty, empty).item()
    assert low == pytest.approx(0.1 * ((student - teacher) ** 2).sum() / 60, rel=1e-5)


def test_scores_and_thresholds_are_checked():
    logits, predicted = np.zeros((60, 3)), grid_anchors()
    with pytest.raises(kd.ArgumentError, match=r"negative 0.6 must not be above positive 0.5"):
        losses.task_scores(logits, predicted, BOXES[0], [1, 2], SIZE, 0.5, 0.6)
    with pytest.raises(kd.ShapeError, match=r"teacher_scores \(2, 3\) and student_scores \(3, 2\)"):
        losses.task_areas(np.zeros((2, 3)), np.zeros((3, 2)))
    with pytest.raises(kd.ShapeError, match=r"logits \(60, 3\) and predicted \(59, 4\)"):
        losses.task_scores(logits, predicted[1:], BOXES[0], [1, 2], SIZE)
