"""Mimic and Quantization Mimic: the lists of invariants of both methods, crop by crop."""

from __future__ import annotations

import math

import numpy as np
import pytest
from measure import check_gradient

import kdswift as kd
from kdswift import losses

# Of images of 48 x 64 pixels, on maps of 6 x 8 cells: overlapping, of one cell, and the whole.
ROIS = [
    np.array([[0, 0, 64, 48], [8, 8, 24, 40], [10, 3, 30, 20], [40, 16, 41, 17]], np.float32),
    np.array([[16, 8, 56, 33]], np.float32),
]
SCALE = 1 / 8


@pytest.fixture
def random():
    return np.random.default_rng(12)


def crop(box, height: int, width: int) -> tuple[slice, slice]:
    """The cells of a box: floor of the first corner, ceil of the last, at least one of the map."""
    left = min(max(math.floor(box[0] * SCALE), 0), width - 1)
    top = min(max(math.floor(box[1] * SCALE), 0), height - 1)
    right = max(left + 1, min(math.ceil(box[2] * SCALE), width))
    bottom = max(top + 1, min(math.ceil(box[3] * SCALE), height))
    return slice(top, bottom), slice(left, right)


def crops(student, teacher, rois, normalize: bool = True) -> tuple[float, np.ndarray]:
    """Equation 5 and its gradient by loops over materialised crops."""
    count = sum(len(one) for one in rois)
    total, gradient = 0.0, np.zeros_like(student)
    for image, boxes in enumerate(rois):
        for box in boxes:
            y, x = crop(box, *student.shape[2:])
            difference = teacher[image][:, y, x] - student[image][:, y, x]
            size = difference.size if normalize else 1
            total += (difference**2).sum() / size / 2 / count
            gradient[image][:, y, x] -= difference / size / count
    return total, gradient


@pytest.mark.parametrize("form", ["crop", "spp"])
def test_equal_features_cost_nothing(form, random):
    maps = random.standard_normal((2, 5, 6, 8))
    assert losses.roi_mimic(maps, maps, ROIS, SCALE, form).item() == 0


def test_equation_5_over_crops(random):
    student, teacher = random.standard_normal((2, 2, 5, 6, 8))
    value, gradient = kd.value_and_grad(losses.roi_mimic)(student, teacher, ROIS, SCALE)
    expected, slope = crops(student, teacher, ROIS)
    # Single precision; overlapping regions add up on the map.
    assert value == pytest.approx(expected, rel=3e-6)
    np.testing.assert_allclose(gradient, slope, atol=1e-7)
    check_gradient(lambda x: losses.roi_mimic(x, teacher, ROIS, SCALE) * 10, student)
    rows = np.concatenate([np.insert(one, 0, image, 1) for image, one in enumerate(ROIS)])
    assert losses.roi_mimic(student, teacher, rows, SCALE).item() == value
    total = losses.roi_mimic(student, teacher, ROIS, SCALE, reduction="sum").item()
    assert total == pytest.approx(5 * value, rel=1e-6)


def test_a_constant_difference_costs_half_its_square():
    for channels, rois in ((1, ROIS), (7, ROIS), (3, [ROIS[0][:1], np.zeros((0, 4))])):
        student = np.zeros((2, channels, 6, 8))
        value = losses.roi_mimic(student, student + 3, rois, SCALE).item()
        assert value == pytest.approx(4.5, rel=1e-6)


def test_the_dimension_of_a_region_is_channels_times_cells():
    student = np.zeros((1, 7, 6, 8))
    teacher = student.copy()
    teacher[0, 0, 2, 5] = 1
    one_cell = [np.array([[40, 16, 41, 17]])]
    assert losses.roi_mimic(student, teacher, one_cell, SCALE).item() == pytest.approx(1 / 14)
    two_by_three = [np.array([[32, 16, 56, 32]])]
    value = losses.roi_mimic(student, teacher, two_by_three, SCALE).item()
    assert value == pytest.approx(1 / (2 * 7 * 6))


def test_odd_regions_are_finite(random):
    student, teacher = random.standard_normal((2, 1, 3, 6, 8))
    for box in ([200, 200, 300, 300], [-90, -90, -50, -50], [5, 5, 5, 5], [30, 30, 10, 10]):
        for form in ("crop", "spp"):
            value, gradient = kd.value_and_grad(losses.roi_mimic)(
                student, teacher, [[box]], SCALE, form
            )
            assert math.isfinite(value)
            assert value > 0
            assert np.isfinite(gradient).all()
    for rois in ([np.zeros((0, 4))], np.zeros((0, 5)), [[]]):
        for call in (losses.roi_mimic, losses.quantized_mimic):
            value, gradient = kd.value_and_grad(call)(student, teacher, rois, SCALE)
            assert value == 0
            assert not gradient.any()
    small = random.standard_normal((2, 1, 3, 1, 1))
    assert losses.roi_mimic(*small, [[[0, 0, 8, 8]]], SCALE).item() == pytest.approx(
        ((small[0] - small[1]) ** 2).mean() / 2, rel=1e-6
    )


def test_duplicated_regions_change_nothing(random):
    student, teacher = random.standard_normal((2, 2, 5, 6, 8))
    once = losses.roi_mimic(student, teacher, ROIS, SCALE).item()
    twice = [np.concatenate([one, one]) for one in ROIS]
    assert losses.roi_mimic(student, teacher, twice, SCALE).item() == pytest.approx(once, rel=1e-6)


def test_pyramid_pooling_of_whole_regions_is_the_crop(random):
    # Regions of 2 x 2 cells on a 2 x 2 grid: nothing is pooled, m = 4 C.
    student, teacher = random.standard_normal((2, 1, 5, 6, 8))
    rois = [np.array([[0, 0, 16, 16], [24, 8, 40, 24]])]
    spp = losses.roi_mimic(student, teacher, rois, SCALE, "spp", levels=(2,)).item()
    crop_value = losses.roi_mimic(student, teacher, rois, SCALE).item()
    assert spp == pytest.approx(20 * crop_value, rel=1e-6)


def test_pyramid_pooling_is_the_largest_of_each_cell(random):
    student, teacher = random.standard_normal((2, 1, 3, 6, 8))
    rois = [np.array([[8, 8, 40, 40]])]
    expected = 0.0
    for level in (1, 2):
        size = 4 // level
        for i in range(level):
            for j in range(level):
                y = slice(1 + i * size, 1 + (i + 1) * size)
                x = slice(1 + j * size, 1 + (j + 1) * size)
                tops = [one[0, :, y, x].max((1, 2)) for one in (student, teacher)]
                expected += ((tops[0] - tops[1]) ** 2).sum() / 2
    value = losses.roi_mimic(student, teacher, rois, SCALE, "spp", levels=(1, 2)).item()
    assert value == pytest.approx(expected, rel=1e-5)


def test_the_teacher_gets_no_gradient(random):
    for call in (losses.roi_mimic, losses.quantized_mimic):
        student, teacher = (
            kd.tensor(2 + random.uniform(0, 4, (2, 3, 6, 8)), requires_grad=True) for _ in range(2)
        )
        call(student, teacher, ROIS, SCALE).backward()
        assert teacher.grad is None
        assert np.abs(student.grad.numpy()).max() > 0


def test_a_half_size_image_and_a_deconvolution_give_the_teachers_map(random):
    # Stride 16 on 2H x 2W beside stride 16 on H x W, doubled: the same cells, stride 8.
    half = kd.tensor(random.standard_normal((1, 4, 5, 7)), requires_grad=True)
    weight = random.standard_normal((4, 6, 2, 2))
    student = kd.tensors.apply("conv_transpose2d", [half, kd.tensor(weight)], stride=[2, 2])
    assert student.shape == (1, 6, 10, 14)
    teacher = random.standard_normal(student.shape)
    losses.roi_mimic(student, teacher, [[[0, 0, 100, 60]]], 1 / 8).backward()
    assert np.abs(half.grad.numpy()).max() > 0


# The quantizer


def test_the_quantizers_table():
    up = np.float32(np.inf)
    inputs = np.array(
        [-3, 0, 0.5, np.nextafter(np.float32(0.5), up), 1, 1.5, np.nextafter(np.float32(1.5), up)]
        + [2.5, 1000.4, 2**24],
        np.float32,
    )
    expected = [0, 0, 0, 1, 1, 1, 2, 2, 1000, 2**24]
    np.testing.assert_array_equal(kd.ops.quantize(inputs), expected)


@pytest.mark.parametrize("step", [1.0, 0.25, 0.7])
def test_the_quantizer_is_the_closed_form(step, random):
    values = random.uniform(-3, 9, 2000).astype(np.float32)
    found = kd.ops.quantize(values, step)
    # Not np.round, which takes halves to the even neighbour.
    cells = np.maximum(np.ceil(values / np.float32(step) - np.float32(0.5)), 0)
    np.testing.assert_array_equal(found, cells.astype(np.float32) * np.float32(step))
    np.testing.assert_allclose(kd.ops.quantize(found, step), found, rtol=1e-6)
    assert (np.diff(kd.ops.quantize(np.sort(values), step)) >= 0).all()
    # Half a step, and the rounding of the quotient.
    assert (np.abs(found - values)[values >= 0] <= step / 2 * (1 + 1e-5)).all()
    np.testing.assert_array_equal(found, kd.ops.quantize(np.maximum(values, 0), step))


def test_powers_of_two():
    values = [-1, 0.5, 0.6, 1.5, 1.6, 3, 3.1, 6, 6.5, 100]
    found = kd.ops.quantize(np.array(values), form="power_of_two")
    assert found.tolist() == [0, 0, 1, 1, 2, 2, 4, 4, 8, 128]
    double = kd.ops.quantize(2 * np.array(values), 2.0, "power_of_two")
    np.testing.assert_array_equal(double, 2 * found)


def test_the_gradient_goes_straight_through(random):
    values, weights = random.standard_normal((2, 4, 5))
    for form in ("uniform", "power_of_two"):
        _, gradient = kd.value_and_grad(
            lambda x, form=form: (kd.ops.quantize(x, form=form) * weights).sum()
        )(values)
        np.testing.assert_allclose(gradient, weights * (values > 0), rtol=1e-6)
    _, gradient = kd.value_and_grad(lambda x: (kd.ops.quantize(x, relu=False) * weights).sum())(
        values
    )
    np.testing.assert_allclose(gradient, weights, rtol=1e-6)


def test_maps_that_are_not_finite_are_reported():
    for bad in (np.nan, np.inf, -np.inf):
        with pytest.raises(kd.ArgumentError, match="quantize"):
            kd.ops.quantize(np.array([1.0, bad]))
    with pytest.raises(kd.ArgumentError, match="step is 0"):
        kd.ops.quantize(np.ones(3), 0)
    with pytest.raises(kd.ArgumentError, match="form is 'sign'"):
        kd.ops.quantize(np.ones(3), form="sign")


# Quantization Mimic


def test_maps_in_the_same_cells_cost_nothing():
    student, teacher = np.full((2, 3, 6, 8), 0.6), np.full((2, 3, 6, 8), 1.4)
    assert losses.quantized_mimic(student, teacher, ROIS, SCALE).item() == 0
    assert losses.quantized_mimic(student, teacher, ROIS, SCALE, output_size=None).item() == 0
    assert losses.roi_mimic(student, teacher, ROIS, SCALE).item() > 0


def test_crossing_a_half_step_costs_the_square():
    rois = [np.array([[0, 0, 8, 8], [40, 40, 41, 41]])]
    teacher = np.zeros((1, 2, 6, 8), np.float32)
    for step in (1.0, 0.5):
        for k in range(4):
            values = []
            for cell in (k, k + 1):
                student = teacher.copy()
                student[0, 0, 0, 0] = step * cell
                values.append(
                    losses.quantized_mimic(
                        student, teacher, rois, SCALE, step, output_size=None
                    ).item()
                )
            # s^2 ((k + 1)^2 - k^2) / 2N with N = 2.
            assert values[1] - values[0] == pytest.approx(step**2 * (2 * k + 1) / 4, rel=1e-6)


def test_rounding_commutes_with_max_pooling(random):
    maps = random.uniform(-2, 6, (2, 3, 6, 8)).astype(np.float32)
    rows = np.concatenate([np.insert(one, 0, image, 1) for image, one in enumerate(ROIS)])
    before = kd.ops.roi_pool(kd.ops.quantize(maps), rows, 3, SCALE)
    # An empty cell of the grid is 0 either way.
    after = kd.ops.quantize(kd.ops.roi_pool(maps, rows, 3, SCALE))
    np.testing.assert_array_equal(before, after)


def test_the_four_cases_of_table_4(random):
    student, teacher = random.uniform(-1, 5, (2, 2, 3, 6, 8))
    for own in (False, True):
        for theirs in (False, True):
            value = losses.quantized_mimic(
                *(student, teacher, ROIS, SCALE),
                quantize_student=own,
                quantize_teacher=theirs,
                output_size=None,
            ).item()
            expected, _ = crops(
                kd.ops.quantize(student) if own else student,
                kd.ops.quantize(teacher) if theirs else teacher,
                ROIS,
                normalize=False,
            )
            assert value == pytest.approx(expected, rel=3e-6)
    plain = losses.quantized_mimic(
        *(student, teacher, ROIS, SCALE),
        quantize_student=False,
        quantize_teacher=False,
        output_size=None,
        normalize=True,
    ).item()
    assert plain == pytest.approx(losses.roi_mimic(student, teacher, ROIS, SCALE).item(), rel=1e-6)


def test_pooled_regions_are_roi_pooling(random):
    student, teacher = random.uniform(-1, 5, (2, 2, 3, 6, 8))
    rows = np.concatenate([np.insert(one, 0, image, 1) for image, one in enumerate(ROIS)])
    pooled = [
        kd.ops.quantize(kd.ops.roi_pool(one.astype(np.float32), rows, 7, SCALE), 0.5)
        for one in (student, teacher)
    ]
    expected = ((pooled[0] - pooled[1]) ** 2).sum() / 10
    value = losses.quantized_mimic(student, teacher, ROIS, SCALE, 0.5).item()
    assert value == pytest.approx(expected, rel=1e-6)
    normal = losses.quantized_mimic(student, teacher, ROIS, SCALE, 0.5, normalize=True).item()
    assert normal == pytest.approx(expected / 147, rel=1e-6)


def test_wrong_inputs_are_named():
    maps = np.zeros((2, 3, 6, 8))
    for call in (losses.roi_mimic, losses.quantized_mimic):
        name = call.__name__
        with pytest.raises(kd.ShapeError, match=rf"{name}.*\(2, 3, 6, 8\).*\(1, 3, 6, 8\)"):
            call(maps, maps[:1], ROIS, SCALE)
        with pytest.raises(kd.ShapeError, match=rf"{name}: rois \(3, 4\)"):
            call(maps, maps, np.zeros((3, 4)), SCALE)
        with pytest.raises(kd.ArgumentError, match="reduction is 'none'"):
            call(maps, maps, ROIS, SCALE, reduction="none")
    with pytest.raises(kd.ArgumentError, match="form is 'pool'"):
        losses.roi_mimic(maps, maps, ROIS, SCALE, "pool")
    with pytest.raises(kd.KDSError, match="not a box of finite numbers"):
        losses.roi_mimic(maps, maps, [[[0, 0, np.nan, 3]], []], SCALE)
    with pytest.raises(kd.KDSError, match="names image 2.0 of 2"):
        losses.roi_mimic(maps, maps, np.array([[2, 0, 0, 3, 3.0]]), SCALE)
