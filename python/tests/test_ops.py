"""Box operations and layers against PyTorch's numbers, and what they say about bad arguments."""

from __future__ import annotations

import numpy as np
import pytest
import torch_cases

import kdswift as kd
from kdswift import ops


@pytest.mark.parametrize("name", torch_cases.names(losses=False))
def test_values_and_gradients_are_those_of_pytorch(name):
    # Single precision on both sides, sums of up to 200 terms: about 1e-6.
    torch_cases.check(name, tolerance=1e-5)


@pytest.fixture
def random():
    return np.random.default_rng(4)


def some_boxes(random, count: int) -> np.ndarray:
    corners = random.uniform(0, 50, (count, 2))
    return np.concatenate([corners, corners + random.uniform(1, 30, (count, 2))], 1).astype("f4")


def test_arrays_give_arrays_and_tensors_give_tensors(random):
    boxes, scores = some_boxes(random, 5), random.uniform(size=5)
    kept = ops.nms(boxes, scores, 0.5)
    assert isinstance(kept, np.ndarray) and kept.dtype == np.int64
    tensor = ops.nms(kd.tensor(boxes), scores, 0.5)
    assert isinstance(tensor, kd.Tensor)
    np.testing.assert_array_equal(tensor, kept)
    assert isinstance(ops.box_iou(boxes, kd.tensor(boxes)), np.ndarray)
    assert isinstance(ops.box_iou(kd.tensor(boxes), boxes), kd.Tensor)
    maps = random.standard_normal((1, 2, 8, 8))
    assert isinstance(ops.roi_align(maps, [boxes], 2), np.ndarray)
    assert isinstance(ops.roi_align(kd.tensor(maps), [boxes], 2), kd.Tensor)


def test_nms_by_hand():
    # IoU of the first two is 8 / 12; of the others 0.
    boxes = np.array([[0, 0, 5, 2], [1, 0, 6, 2], [20, 0, 22, 2]], np.float32)
    scores = [0.5, 0.9, 0.1]
    assert ops.nms(boxes, scores, 0.6).tolist() == [1, 2]
    assert ops.nms(boxes, scores, 0.7).tolist() == [1, 0, 2]
    assert ops.nms(boxes, [0.5, 0.5, 0.5], 0.6).tolist() == [0, 2]
    assert ops.batched_nms(boxes, scores, [0, 1, 0], 0.1).tolist() == [1, 0, 2]


def test_nothing_in_nothing_out():
    empty = np.zeros((0, 4), np.float32)
    assert ops.nms(empty, [], 0.5).shape == (0,)
    assert ops.nms([], [], 0.5).dtype == np.int64
    assert ops.batched_nms(empty, [], [], 0.5).shape == (0,)
    assert ops.box_iou(empty, [[0, 0, 1, 1]]).shape == (0, 1)
    maps = kd.tensor(np.ones((1, 3, 4, 4)), requires_grad=True)
    pooled = ops.roi_align(maps, [empty], 2)
    assert pooled.shape == (0, 3, 2, 2)
    pooled.sum().backward()
    assert not maps.grad.numpy().any()
    assert ops.roi_pool(np.ones((1, 3, 4, 4)), np.zeros((0, 5)), 2).shape == (0, 3, 2, 2)


def test_boxes_without_area_have_no_overlap():
    point = [[1.0, 1, 1, 1]]
    assert ops.box_iou(point, [[0.0, 0, 2, 2]]).tolist() == [[0]]


def test_boxes_of_each_image_or_rows_with_the_image(random):
    maps = random.standard_normal((2, 3, 10, 10)).astype(np.float32)
    first, second = some_boxes(random, 3), some_boxes(random, 2)
    rows = np.concatenate([np.insert(first, 0, 0, 1), np.insert(second, 0, 1, 1)])
    for operation in (ops.roi_align, ops.roi_pool):
        by_rows = operation(maps, rows, (3, 2), 0.2)
        assert by_rows.shape == (5, 3, 3, 2)
        np.testing.assert_array_equal(operation(maps, [first, second], (3, 2), 0.2), by_rows)
        mixed = [kd.tensor(first), second.astype(np.float64)]
        np.testing.assert_array_equal(operation(maps, mixed, (3, 2), 0.2), by_rows)
        np.testing.assert_array_equal(operation(maps, rows.tolist(), (3, 2), 0.2), by_rows)


def test_roi_align_of_a_constant_is_that_constant(random):
    pooled = ops.roi_align(
        np.full((1, 2, 16, 16), 3.5), [some_boxes(random, 4) / 6], 3, aligned=True
    )
    np.testing.assert_allclose(pooled, 3.5, rtol=1e-6)


def test_roi_align_gradient_against_finite_differences(random):
    maps = random.standard_normal((1, 2, 5, 6)).astype(np.float32)
    boxes = [np.array([[0.3, 0.2, 4.1, 3.7], [1, 1, 5, 4]], np.float32)]
    weights = random.standard_normal((2, 2, 2, 3))

    def value(x):
        return (ops.roi_align(x, boxes, (2, 3)) * weights).sum()

    _, gradient = kd.value_and_grad(value)(maps)
    numeric = np.zeros_like(maps)
    for index in np.ndindex(maps.shape):
        change = np.zeros_like(maps)
        change[index] = 0.5  # linear in the map, so only rounding counts
        high, low = value(kd.tensor(maps + change)), value(kd.tensor(maps - change))
        numeric[index] = float(high) - float(low)
    np.testing.assert_allclose(gradient, numeric, atol=1e-5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ops.nms(np.zeros((2, 3)), [0, 0], 0.5), r"nms: boxes \(2, 3\) must be \(N, 4\)"),
        (lambda: ops.nms(np.zeros((2, 4)), [0], 0.5), r"nms: scores \(1,\).*2 boxes"),
        (lambda: ops.box_iou(np.zeros(4), np.zeros((1, 4))), r"box_iou: boxes1 \(4,\)"),
        (
            lambda: ops.batched_nms(np.zeros((2, 4)), [0, 0], [1], 0.5),
            r"batched_nms: idxs \(1,\).*\(2, 4\)",
        ),
        (lambda: ops.roi_align(np.zeros((3, 4, 4)), [], 2), r"roi_align: input \(3, 4, 4\)"),
        (
            lambda: ops.roi_align(np.zeros((1, 3, 4, 4)), np.zeros((2, 4)), 2),
            r"roi_align: boxes \(2, 4\) must be \(K, 5\)",
        ),
        (
            lambda: ops.roi_pool(np.zeros((2, 3, 4, 4)), [np.zeros((1, 4))], 2),
            r"roi_pool: boxes of 1 images for input \(2, 3, 4, 4\)",
        ),
        (
            lambda: kd.conv2d(np.zeros((1, 3, 4, 4)), np.zeros((2, 4, 1, 1))),
            r"conv2d.*\[1, 3, 4, 4\].*\[2, 4, 1, 1\]",
        ),
        (lambda: kd.linear(np.zeros((2, 3)), np.zeros((4, 5))), r"linear.*\[2, 3\].*\[4, 5\]"),
        (lambda: kd.max_pool2d(np.zeros((3, 3)), 2), r"pool2d.*\[3, 3\]"),
        (lambda: kd.layer_norm(np.zeros((2, 3)), 4), r"layer_norm: \(2, 3\).*\(4,\)"),
    ],
)
def test_wrong_shapes_are_named(call, message):
    with pytest.raises(kd.ShapeError, match=message):
        call()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ops.nms(np.zeros((1, 4)), [0], 1.5), "nms: iou_threshold is 1.5"),
        (lambda: ops.batched_nms(np.zeros((1, 4)), [0], [0.5], 0.5), "idxs holds float32"),
        (lambda: ops.roi_align(np.zeros((1, 1, 4, 4)), [[]], 0), "output_size is 0"),
        (lambda: ops.roi_align(np.zeros((1, 1, 4, 4)), [[]], 2, 0), "spatial_scale is 0"),
        (lambda: ops.roi_pool(np.zeros((1, 1, 4, 4)), [[3.0] * 5], 2), r"rois\[0\] names image 3"),
        (lambda: kd.conv2d(np.zeros((1, 1, 4, 4)), np.zeros((1, 1, 3, 3)), stride=0), "stride"),
        (lambda: kd.conv2d(np.zeros((1, 1, 4, 4)), np.zeros((1, 1, 3, 3)), stride=1.5), "stride"),
        (lambda: kd.interpolate(np.zeros((1, 1, 4, 4))), "either size or scale_factor"),
        (lambda: kd.interpolate(np.zeros((1, 1, 4, 4)), 2, mode="cubic"), "cubic"),
        (lambda: kd.gather(np.zeros((2, 2)), 0, [[0, 5]]), "gather.*5"),
    ],
)
def test_wrong_arguments_are_named(call, message):
    with pytest.raises(kd.ArgumentError, match=message):
        call()


def test_interpolate_by_a_factor():
    x = np.arange(6.0).reshape(1, 1, 2, 3)
    doubled = kd.interpolate(x, scale_factor=2)
    np.testing.assert_array_equal(doubled, x.repeat(2, axis=2).repeat(2, axis=3))
    assert kd.interpolate(x, scale_factor=(1, 0.5)).shape == (1, 1, 2, 1)


# Matching


def matched(boxes, anchors, high, low, low_quality):
    """torchvision's rule, from the matrix of all overlaps."""
    overlaps = ops.box_iou(boxes, anchors)
    best, result = overlaps.max(0), overlaps.argmax(0)
    found = np.where(best >= high, result, np.where(best < low, -1, -2))
    if low_quality:
        highest = overlaps.max(1)
        ties = ((overlaps == highest[:, None]) & (highest[:, None] > 0)).any(0)
        found = np.where(ties, result, found)
    return found


@pytest.mark.parametrize("low_quality", [False, True])
@pytest.mark.parametrize(("high", "low"), [(0.7, 0.3), (0.5, 0.5), (0.5, 0.4)])
def test_matching_follows_the_overlaps(high, low, low_quality):
    random = np.random.default_rng(0)
    corner = random.uniform(0, 80, (700, 2))
    anchors = np.concatenate([corner, corner + random.uniform(5, 40, (700, 2))], 1)
    boxes = np.concatenate([anchors[:5] + random.normal(0, 3, (5, 4)), [[300, 300, 310, 310]]])
    boxes, anchors = boxes.astype(np.float32), anchors.astype(np.float32)
    found = ops.match_boxes(boxes, anchors, high, low, low_quality)
    assert found.dtype == np.int64
    assert found.tolist() == matched(boxes, anchors, high, low, low_quality).tolist()
    assert (found >= 0).any() and (found == -1).any()


def test_matching_without_boxes_and_with_wrong_thresholds():
    anchors = np.array([[0, 0, 4, 4]], np.float32)
    assert ops.match_boxes(np.zeros((0, 4)), anchors).tolist() == [-1]
    assert ops.match_boxes(anchors, np.zeros((0, 4))).shape == (0,)
    with pytest.raises(kd.ArgumentError, match="low 0.5 and high 0.3"):
        ops.match_boxes(anchors, anchors, 0.3, 0.5)
