"""Losses of whole feature maps: worked numbers, invariants, finite differences, errors."""

from __future__ import annotations

import math

import numpy as np
import pytest

import kdswift as kd
from kdswift import losses
from kdswift.losses.mgd import mgd_mask
from kdswift.tensors import apply

SHAPES = [(2, 5, 3, 4), (1, 19, 1, 1), (3, 33, 2, 3)]
BOXES = [np.array([[4.0, 4.0, 20.0, 24.0]], np.float32)]
SIZES = [(32, 32)]


def fgd(student, teacher, **options):
    count = student.shape[0]
    return losses.fgd(student, teacher, BOXES * count, SIZES * count, **options)


def mgd(student, teacher, **options):
    """With a fixed mask and a fixed generator."""
    shape = student.shape
    rng = np.random.default_rng(4)
    generator = {
        f"{layer}.{part}": (rng.standard_normal(size) * 0.2).astype(np.float32)
        for layer in (0, 2)
        for part, size in (("weight", (shape[1], shape[1], 3, 3)), ("bias", shape[1]))
    }
    mask = mgd_mask(shape, 0.4, np.random.default_rng(5))
    return losses.mgd(student, teacher, mask, generator, alpha=0.01, **options)


LOSSES = {
    "feature_matching": losses.feature_matching,
    "fitnets": losses.fitnets,
    "fitnets raw": lambda s, t, **o: losses.fitnets(s, t, normalize=False, **o),
    "attention_transfer": losses.attention_transfer,
    "attention_transfer paper": lambda s, t, **o: losses.attention_transfer(s, t, "paper", **o),
    "cwd": losses.cwd,
    "cwd ce": lambda s, t, **o: losses.cwd(s, t, 2.0, "ce", **o),
    "pkd": losses.pkd,
    "fgd": fgd,
    "mgd": mgd,
    "weighted_squared_error": losses.weighted_squared_error,
}
# Zero for identical maps: not a cross-entropy, and not what a random generator makes.
ZERO = [name for name in LOSSES if name not in ("cwd ce", "mgd")]


@pytest.fixture
def random():
    return np.random.default_rng(6)


def pair(random, shape, scale=1.0):
    return (scale * random.standard_normal((2, *shape))).astype(np.float32)


def value(name, student, teacher, **options) -> float:
    return LOSSES[name](kd.tensor(student), kd.tensor(teacher), **options).item()


def gradient(name, student, teacher, **options) -> np.ndarray:
    _, slope = kd.value_and_grad(lambda s: LOSSES[name](s, teacher, **options))(student)
    return slope


# All of them


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", LOSSES)
def test_gradients_against_finite_differences(name, shape, random):
    student, teacher = pair(random, shape)
    slope = gradient(name, student, teacher)
    direction = random.standard_normal(shape).astype(np.float32)
    direction[np.abs(student) < 0.05] = 0  # |x| of FGD's attention has its kink there
    step = 1e-3
    numeric = value(name, student + step * direction, teacher)
    numeric -= value(name, student - step * direction, teacher)
    numeric /= 2 * step
    # Values are rounded to 6e-8 of themselves, divided by the step: up to 6e-5 of the value.
    limit = 3e-3 * np.abs(slope * direction).sum() + 2e-4 * abs(value(name, student, teacher))
    assert float((slope * direction).sum()) == pytest.approx(numeric, abs=float(limit) + 1e-7)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", LOSSES)
def test_blocked_maps_give_the_same(name, shape, random):
    student, teacher = pair(random, shape)
    own = kd.tensor(student, requires_grad=True)
    loss = LOSSES[name](apply("blocked", [own]), teacher)
    loss.backward()
    # Only the order of additions differs.
    assert loss.item() == pytest.approx(value(name, student, teacher), rel=1e-5, abs=1e-9)
    expected = gradient(name, student, teacher)
    assert np.abs(own.grad.numpy() - expected).max() <= 1e-5 * np.abs(expected).max() + 1e-9


@pytest.mark.parametrize("name", ZERO)
def test_zero_for_identical_maps(name, random):
    student, _ = pair(random, (2, 5, 3, 4))
    assert value(name, student, student) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("name", LOSSES)
def test_no_gradient_to_the_teacher(name, random):
    student, teacher = (kd.tensor(one, requires_grad=True) for one in pair(random, (2, 5, 3, 4)))
    LOSSES[name](student, teacher).backward()
    assert student.grad is not None
    assert teacher.grad is None


@pytest.mark.parametrize("name", LOSSES)
def test_the_order_of_the_images_does_not_matter(name, random):
    if name == "mgd":
        pytest.skip("its mask belongs to the image's place")
    student, teacher = pair(random, (3, 5, 3, 4))
    order = [2, 0, 1]
    turned = value(name, student[order], teacher[order])
    assert turned == pytest.approx(value(name, student, teacher), rel=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_large_values_stay_finite(name, random):
    student, teacher = pair(random, (2, 5, 3, 4), scale=1e3)
    assert math.isfinite(value(name, student, teacher))
    assert np.isfinite(gradient(name, student, teacher)).all()
    zero = np.zeros_like(student)
    for s, t in ((zero, zero), (zero, teacher), (student, zero)):
        assert math.isfinite(value(name, s, t))
        assert np.isfinite(gradient(name, s, t)).all()


@pytest.mark.parametrize("name", LOSSES)
def test_shapes_that_differ_are_named(name, random):
    student = random.standard_normal((2, 5, 3, 4))
    for other in ((2, 5, 4, 3), (1, 5, 3, 4), (2, 5, 3)):
        with pytest.raises(kd.ShapeError) as caught:
            LOSSES[name](student, np.zeros(other))
        assert "(2, 5, 3, 4)" in str(caught.value)
        assert str(other) in str(caught.value)


@pytest.mark.parametrize("name", [n for n in LOSSES if n != "weighted_squared_error"])
def test_reductions(name, random):
    student, teacher = pair(random, (2, 5, 3, 4))
    with pytest.raises(kd.ArgumentError, match="reduction"):
        LOSSES[name](student, teacher, reduction="none")
    paper = value(name, student, teacher)
    total = value(name, student, teacher, reduction="sum")
    elements, rows = student.size, 10
    ratio = {
        "feature_matching": elements,
        "fitnets": 2,
        "fitnets raw": 2,
        "attention_transfer": 24,
        "attention_transfer paper": 2,
        "cwd": rows,
        "cwd ce": rows,
        "pkd": 2 * elements,
        "fgd": 2,
        "mgd": 2,
    }[name]
    assert total == pytest.approx(ratio * paper, rel=1e-5)


def test_empty_batches_give_zero():
    empty = np.zeros((0, 4, 3, 3), np.float32)
    for name in ("feature_matching", "fitnets", "attention_transfer", "cwd", "pkd"):
        assert value(name, empty, empty) == 0
    assert losses.fgd(empty, empty, [], []).item() == 0


# Feature matching and FitNets


def test_feature_matching_is_the_mean_over_everything(random):
    student, teacher = pair(random, (2, 5, 3, 4))
    expected = ((student - teacher) ** 2).mean()
    assert value("feature_matching", student, teacher) == pytest.approx(expected, rel=1e-6)


def test_fitnets_raw_gradient_is_the_difference(random):
    student, teacher = pair(random, (2, 5, 3, 4))
    slope = gradient("fitnets raw", student, teacher)
    assert slope == pytest.approx(student - teacher, abs=1e-6)


def test_fitnets_is_two_less_two_cosines(random):
    student, teacher = pair(random, (2, 5, 3, 4))
    s, t = student.reshape(2, -1), teacher.reshape(2, -1)
    cosine = (s * t).sum(1) / np.linalg.norm(s, axis=1) / np.linalg.norm(t, axis=1)
    expected = (2 - 2 * cosine).mean()
    assert value("fitnets", student, teacher) == pytest.approx(expected, rel=1e-5)
    assert value("fitnets", 3 * student, 0.1 * teacher) == pytest.approx(expected, rel=1e-5)
    assert value("fitnets", student, -student) == pytest.approx(4, rel=1e-6)


def test_fitnets_distance(random):
    student, teacher = pair(random, (2, 5, 3, 4))
    total = value("fitnets", student, teacher, reduction="sum")
    assert value("fitnets", student, teacher, distance=True) == pytest.approx(total**0.5)
    raw = value("fitnets raw", student, teacher, distance=True)
    assert raw == pytest.approx(np.linalg.norm(student - teacher), rel=1e-6)
    assert not gradient("fitnets", student, student, distance=True).any()
    with pytest.raises(kd.ArgumentError, match="distance"):
        losses.fitnets(student, teacher, distance=True, reduction="mean")


def test_a_zero_image_of_fitnets_gets_no_gradient(random):
    student, teacher = pair(random, (2, 5, 3, 4))
    student[0] = 0
    slope = gradient("fitnets", student, teacher)
    assert not slope[0].any()
    assert slope[1].any()


# Attention transfer


@pytest.mark.parametrize("form", ["code", "paper"])
def test_attention_ignores_scale_and_signs(form, random):
    student, teacher = pair(random, (2, 5, 3, 4))
    expected = losses.attention_transfer(student, teacher, form).item()
    flips = np.sign(random.standard_normal(student.shape)).astype(np.float32)
    for s, t in ((-2 * student, 0.3 * teacher), (flips * student, teacher)):
        assert losses.attention_transfer(s, t, form).item() == pytest.approx(expected, rel=1e-5)


def test_attention_of_two_cells():
    student = np.array([[[[1.0, 0.0]]]])
    teacher = np.array([[[[0.0, 2.0]], [[0.0, 1.0]]]])
    code = losses.attention_transfer(student, teacher, beta=1.0)
    paper = losses.attention_transfer(student, teacher, "paper", beta=1.0)
    assert code.item() == pytest.approx(1)
    assert paper.item() == pytest.approx(2**0.5)
    assert losses.attention_transfer(student, teacher).item() == pytest.approx(1000)
    with pytest.raises(kd.ArgumentError, match="form"):
        losses.attention_transfer(student, teacher, "both")


# CWD


def test_cwd_worked_values():
    student, teacher = np.zeros((1, 1, 1, 2)), np.array([[[[0.0, np.log(3)]]]])
    assert losses.cwd(student, teacher).item() == pytest.approx(0.130812, abs=1e-6)
    assert losses.cwd(student, teacher, 4.0).item() == pytest.approx(0.149458, abs=1e-6)
    assert losses.cwd(student, teacher, form="ce").item() == pytest.approx(np.log(2), abs=1e-6)


def test_cwd_ignores_shifts_per_image_and_channel(random):
    _, teacher = pair(random, (2, 5, 3, 4))
    shift = random.standard_normal((2, 5, 1, 1)).astype(np.float32)
    assert value("cwd", teacher + shift, teacher) == pytest.approx(0, abs=1e-6)
    assert value("cwd", 2 * teacher, teacher) > 1e-3


@pytest.mark.parametrize("tau", [1.0, 4.0])
def test_cwd_gradient(tau, random):
    student, teacher = pair(random, (2, 5, 3, 4))

    def phi(x):
        e = np.exp(x.reshape(2, 5, -1) / tau)
        return (e / e.sum(2, keepdims=True)).reshape(x.shape)

    expected = tau / 10 * (phi(student) - phi(teacher))
    for form in ("kl", "ce"):
        _, slope = kd.value_and_grad(losses.cwd)(student, teacher, tau, form)
        assert slope == pytest.approx(expected, abs=1e-6)
        assert slope.sum((2, 3)) == pytest.approx(0, abs=1e-6)


def test_cwd_of_huge_logits(random):
    student, teacher = pair(random, (2, 5, 3, 4), scale=1e4)
    assert math.isfinite(value("cwd", student, teacher))
    assert value("cwd", student, teacher) >= 0
    for wrong in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(kd.ArgumentError, match="temperature"):
            losses.cwd(student, teacher, wrong)
    with pytest.raises(kd.ArgumentError, match="form"):
        losses.cwd(student, teacher, form="js")


# PKD


def test_pkd_worked_values():
    teacher = np.array([1.0, 2.0, 3.0, 4.0]).reshape(1, 1, 2, 2)
    other = np.array([2.0, 1.0, 3.0, 4.0]).reshape(1, 1, 2, 2)
    assert losses.pkd(other, teacher).item() == pytest.approx(0.15, abs=1e-5)
    assert losses.pkd(-teacher, teacher).item() == pytest.approx(1.5, abs=1e-5)
    assert losses.pkd(np.full_like(teacher, 7.3), teacher).item() == pytest.approx(0.375, abs=1e-5)


def test_pkd_ignores_affine_changes_per_channel(random):
    _, teacher = pair(random, (2, 5, 3, 4))
    scale = random.uniform(0.5, 3, (1, 5, 1, 1)).astype(np.float32)
    shift = random.standard_normal((1, 5, 1, 1)).astype(np.float32)
    # std + 1e-6 in place of std leaves 1e-12.
    assert value("pkd", scale * teacher + shift, teacher) == pytest.approx(0, abs=1e-9)


def test_pkd_keeps_small_variance_beside_a_large_mean(random):
    student, teacher = pair(random, (2, 5, 8, 8))
    expected = value("pkd", student, teacher)
    # Adding 1000 rounds the values themselves to 3e-5.
    assert value("pkd", student + 1000, teacher - 1000) == pytest.approx(expected, rel=2e-4)


def test_pkd_statistics_are_the_batches(random):
    student, teacher = pair(random, (2, 5, 3, 4))
    student[1] += 3
    parts = [value("pkd", student[i : i + 1], teacher[i : i + 1]) for i in range(2)]
    assert abs(np.mean(parts) - value("pkd", student, teacher)) > 1e-2


def test_pkd_gradient_is_orthogonal(random):
    student, teacher = pair(random, (2, 5, 3, 4))
    slope = gradient("pkd", student, teacher)
    centred = student - student.mean((0, 2, 3), keepdims=True)
    size = np.abs(slope * centred).sum((0, 2, 3))
    assert np.abs((slope * centred).sum((0, 2, 3))).max() < 1e-4 * size.max()
    assert np.abs(slope.sum((0, 2, 3))).max() < 1e-4 * np.abs(slope).sum((0, 2, 3)).max()


# The weighted squared error


def test_weighted_squared_error(random):
    student, teacher = pair(random, (2, 5, 3, 4))
    spatial = random.random((2, 1, 3, 4)).astype(np.float32)
    channels = random.random((2, 5)).astype(np.float32)
    weights = spatial * channels[:, :, None, None]
    found, slope = kd.value_and_grad(losses.weighted_squared_error)(
        student, teacher, spatial, channels, 0.3
    )
    assert found == pytest.approx(0.3 * (weights * (student - teacher) ** 2).sum(), rel=1e-5)
    assert slope == pytest.approx(0.6 * weights * (student - teacher), abs=1e-6)
    with pytest.raises(kd.ShapeError, match="weights"):
        losses.weighted_squared_error(student, teacher, spatial=spatial[:, 0])
    with pytest.raises(kd.ArgumentError, match="factor"):
        losses.weighted_squared_error(student, teacher, factor=math.inf)
