"""General instance distillation (GID): selection, features, relations, responses."""

from __future__ import annotations

import math

import numpy as np
import pytest
from head_formulas import entropy, overlaps, random_boxes, sigmoid
from measure import check_gradient

import kdswift as kd
from kdswift import losses


@pytest.fixture
def random():
    return np.random.default_rng(14)


def test_instances_are_where_the_scores_differ(random):
    student, teacher = random.uniform(0, 1, (2, 40, 3)).astype(np.float32)
    own, theirs = random_boxes(random, 40), random_boxes(random, 40)
    boxes, gaps, index = losses.gid_instances(student, own, teacher, theirs)
    every = np.abs(teacher - student).max(1)
    chosen = np.where((teacher.max(1) > student.max(1))[:, None], theirs, own)
    kept: list[int] = []
    for candidate in np.argsort(-every):
        if all(overlaps(chosen[candidate], chosen[k])[0] <= 0.3 for k in kept):
            kept.append(int(candidate))
    assert index.tolist() == kept[:10]
    np.testing.assert_array_equal(boxes, chosen[kept[:10]])
    np.testing.assert_array_equal(gaps, every[kept[:10]])
    assert len(losses.gid_instances(student, own, teacher, theirs, top=3)[0]) == 3


def test_equal_scores_leave_the_rule_for_ties():
    scores = np.full((4, 2), 0.5)
    own = np.array([[20.0 * i, 0, 20 * i + 10, 10] for i in range(4)])
    boxes, gaps, index = losses.gid_instances(scores, own, scores, own + 100)
    # The student's boxes (the teacher is not strictly better), earlier anchors first.
    np.testing.assert_array_equal(boxes, own)
    assert gaps.tolist() == [0] * 4
    assert index.tolist() == [0, 1, 2, 3]
    boxes, gaps, index = losses.gid_instances(*[np.zeros((0, 2)), np.zeros((0, 4))] * 2)
    assert boxes.shape == (0, 4)
    assert gaps.shape == index.shape == (0,)


ROIS = [np.array([[0, 0, 40, 30], [8, 4, 50, 44]], np.float32), np.array([[3, 3, 30, 40.0]])]


def test_features_of_instances(random):
    student, teacher = random.standard_normal((2, 2, 3, 6, 8))
    rows = np.concatenate([np.insert(one, 0, image, 1) for image, one in enumerate(ROIS)])
    pooled = [
        kd.ops.roi_align(x.astype(np.float32), rows.astype(np.float32), 10, 1 / 8)
        for x in (student, teacher)
    ]
    expected = ((pooled[0] - pooled[1]) ** 2).sum() / 300
    value = losses.gid_feature(student, teacher, ROIS, 1 / 8).item()
    assert value == pytest.approx(expected, rel=1e-5)
    assert losses.gid_feature(student, student, ROIS, 1 / 8).item() == 0
    check_gradient(lambda x: losses.gid_feature(x, teacher, ROIS, 1 / 8, 4), student)
    for none in ([], [np.zeros((0, 4))] * 2):
        value, gradient = kd.value_and_grad(losses.gid)(student, teacher, none, 1 / 8)
        assert value == 0
        assert not gradient.any()


def slow_relation(student, teacher) -> float:
    count, relative = len(student), []
    for rows in (student, teacher):
        distances = np.array([[math.dist(a, b) for b in rows] for a in rows])
        relative.append(distances / (distances.sum() / (count * (count - 1))))
    gap = np.abs(relative[0] - relative[1])
    return np.where(gap < 1, gap**2 / 2, gap - 0.5).sum() / (count * (count - 1))


def test_relations_are_their_definition(random):
    student, teacher = random.standard_normal((2, 5, 7))
    teacher[0] *= 8
    value = losses.gid_relation(student, teacher).item()
    assert value == pytest.approx(slow_relation(student, teacher), rel=1e-5)
    maps = losses.gid_relation(student.reshape(5, 7, 1, 1), teacher.reshape(5, 7, 1, 1)).item()
    assert maps == value
    check_gradient(lambda x: 10 * losses.gid_relation(x, teacher), student)


def test_relations_know_no_scale_and_no_place(random):
    student, teacher = random.standard_normal((2, 5, 7))
    value = losses.gid_relation(student, teacher).item()
    for moved in (3 * student, student + 2):
        assert losses.gid_relation(moved, teacher).item() == pytest.approx(value, rel=1e-4)
    assert losses.gid_relation(student, 0.25 * teacher).item() == pytest.approx(value, rel=1e-4)
    assert losses.gid_relation(student, student).item() == 0


def test_relations_of_few_or_equal_instances_are_finite(random):
    student, teacher = random.standard_normal((2, 4, 7))
    for count in range(3):
        value, gradient = kd.value_and_grad(losses.gid_relation)(student[:count], teacher[:count])
        assert value == 0
        assert not gradient.any()
    same = np.ones((4, 7))
    for pair in ((same, teacher), (student, same), (same, same)):
        value, gradient = kd.value_and_grad(losses.gid_relation)(*pair)
        assert math.isfinite(value)
        assert np.isfinite(gradient).all()
    half = np.concatenate([student[:2], student[:2]])
    assert np.isfinite(kd.value_and_grad(losses.gid_relation)(half, teacher)[1]).all()


def test_gid_is_feature_and_relation(random):
    student, teacher = random.standard_normal((2, 2, 3, 6, 8))
    rows = np.concatenate([np.insert(one, 0, image, 1) for image, one in enumerate(ROIS)])
    pooled = [
        kd.ops.roi_align(x.astype(np.float32), rows.astype(np.float32), 10, 1 / 8)
        for x in (student, teacher)
    ]
    expected = 0.005 * losses.gid_feature(student, teacher, ROIS, 1 / 8).item()
    expected += 40 * losses.gid_relation(*pooled).item()
    value = losses.gid(student, teacher, ROIS, 1 / 8).item()
    assert value == pytest.approx(expected, rel=1e-5)
    tracked = [kd.tensor(x, requires_grad=True) for x in (student, teacher)]
    losses.gid(*tracked, ROIS, 1 / 8).backward()
    assert tracked[1].grad is None
    assert np.abs(tracked[0].grad.numpy()).max() > 0
    with pytest.raises(kd.ShapeError, match=r"gid: .*\(2, 3, 6, 8\).*\(1, 3, 6, 8\)"):
        losses.gid(student, teacher[:1], ROIS, 1 / 8)


def test_responses_are_their_formula(random):
    student, teacher = random.standard_normal((2, 6, 3))
    own, theirs = random.standard_normal((2, 6, 4))
    mask = np.array([1, 0, 1, 1, 0, 0])
    each = 0.1 * entropy(student, sigmoid(teacher)).sum(1) + 0.1 * np.abs(own - theirs).sum(1)
    value = losses.gid_response(student, teacher, own, theirs, mask).item()
    assert value == pytest.approx((mask * each).sum() / 3, rel=1e-5)
    assert losses.gid_response(student, teacher, own, theirs, mask * 0).item() == 0
    _, gradients = kd.value_and_grad(
        lambda s, d: losses.gid_response(s, teacher, d, theirs, mask), argnums=(0, 1)
    )(teacher, theirs)
    assert not gradients[0].any()
    assert not gradients[1].any()
    check_gradient(lambda x: losses.gid_response(x, teacher, own, theirs, mask), student * 2)
    check_gradient(lambda x: losses.gid_response(student, teacher, x, theirs, mask), own)
    nothing = [np.zeros((0, 3))] * 2 + [np.zeros((0, 4))] * 2 + [np.zeros(0)]
    assert losses.gid_response(*nothing).item() == 0
    with pytest.raises(kd.ShapeError, match=r"gid_response: .*\(6, 3\).*\(5,\)"):
        losses.gid_response(student, teacher, own, theirs, mask[1:])


def test_reductions_of_instances(random):
    student, teacher = random.standard_normal((2, 2, 3, 6, 8))
    paper = losses.gid_feature(student, teacher, ROIS, 1 / 8).item()
    mean = losses.gid_feature(student, teacher, ROIS, 1 / 8, reduction="mean").item()
    total = losses.gid_feature(student, teacher, ROIS, 1 / 8, reduction="sum").item()
    assert mean == pytest.approx(paper / 3, rel=1e-6)
    assert total == pytest.approx(paper * 300, rel=1e-6)
    rows = random.standard_normal((2, 5, 7))
    paper = losses.gid_relation(*rows).item()
    assert losses.gid_relation(*rows, "sum").item() == pytest.approx(20 * paper, rel=1e-6)
    with pytest.raises(kd.ArgumentError, match="gid: reduction is 'none'"):
        losses.gid(student, teacher, ROIS, 1 / 8, reduction="none")
