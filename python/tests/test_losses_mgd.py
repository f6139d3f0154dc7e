"""MGD: its masks and its generator."""

from __future__ import annotations

import math

import numpy as np
import pytest

import kdswift as kd
from kdswift import losses
from kdswift.losses.mgd import MGD, mgd_mask


@pytest.fixture
def random():
    return np.random.default_rng(6)


def pair(random, shape):
    return random.standard_normal((2, *shape)).astype(np.float32)


def identity(channels: int) -> dict[str, np.ndarray]:
    """A generator that gives back what is not negative."""
    weight = np.zeros((channels, channels, 3, 3), np.float32)
    weight[np.arange(channels), np.arange(channels), 1, 1] = 1
    bias = np.zeros(channels, np.float32)
    return {"0.weight": weight, "0.bias": bias, "2.weight": weight, "2.bias": bias}


def test_mgd_with_the_identity_as_generator(random):
    student, teacher = np.abs(pair(random, (2, 5, 3, 4)))
    whole = mgd_mask(student.shape, 0.0)
    assert whole.all()
    assert losses.mgd(student, student, whole, identity(5)).item() == 0
    expected = 2e-5 * ((student - teacher) ** 2).sum() / 2
    found = losses.mgd(student, teacher, whole, identity(5)).item()
    assert found == pytest.approx(expected, rel=1e-5)


def test_mgd_with_everything_masked_leaves_the_biases(random):
    student, teacher = pair(random, (2, 5, 3, 4))
    nothing = mgd_mask(student.shape, 1.0, np.random.default_rng(1))
    # u = 0 is above 1 - 1 = 0 nowhere; single precision draws it once in 2^24.
    assert not nothing.any()
    generator = identity(5)
    generator["2.bias"] = np.arange(5, dtype=np.float32)
    expected = 2e-5 * ((np.arange(5)[:, None, None] - teacher) ** 2).sum() / 2
    found = losses.mgd(student, teacher, nothing, generator).item()
    assert found == pytest.approx(expected, rel=1e-5)


def test_mgd_masks():
    mask = mgd_mask((4, 8, 50, 50), 0.65, np.random.default_rng(0))
    assert mask.shape == (4, 1, 50, 50)
    # 10000 draws: a standard deviation of 0.005.
    assert mask.mean() == pytest.approx(0.35, abs=0.02)
    again = mgd_mask((4, 8, 50, 50), 0.65, np.random.default_rng(0))
    assert (mask == again).all()
    draws = np.random.default_rng(0).random((4, 1, 50, 50), np.float32)
    assert (mask == (draws <= np.float32(1 - 0.65))).all()
    assert mgd_mask((4, 8, 5, 5), 0.15, on_channels=True).shape == (4, 8, 1, 1)
    with pytest.raises(kd.ArgumentError, match="masked"):
        mgd_mask((4, 8, 5, 5), 1.5)


def test_mgd_divides_by_the_images_alone(random):
    student, teacher = pair(random, (2, 5, 3, 4))
    loss = MGD(5, masked=0.0)
    twice = loss(np.tile(student, (2, 1, 1, 1)), np.tile(teacher, (2, 1, 1, 1))).item()
    assert twice == pytest.approx(loss(student, teacher).item(), rel=1e-5)


def test_mgd_draws_a_mask_for_every_step(random):
    student, teacher = pair(random, (2, 5, 6, 6))
    loss, same = MGD(5, seed=1), MGD(5, seed=1)
    values = [loss(student, teacher).item() for _ in range(2)]
    assert values[0] != values[1]
    assert values == [same(student, teacher).item() for _ in range(2)]
    handed = [loss(student, teacher, np.random.default_rng(7)).item() for _ in range(2)]
    assert handed[0] == handed[1]


def test_mgd_trains_its_generator(random):
    student, teacher = pair(random, (2, 5, 3, 4))
    loss = MGD(5, alpha=1.0)
    assert loss(student, student).item() > 0
    loss(student, teacher).backward()
    for name, tensor in loss.parameters().items():
        assert tensor.grad.numpy().any(), name
    other = MGD(5, alpha=1.0, seed=9)
    other.load_state_dict(loss.state_dict())
    mask = mgd_mask(student.shape)
    assert other(student, teacher, mask=mask).item() == loss(student, teacher, mask=mask).item()


def test_mgd_errors(random):
    student, teacher = pair(random, (2, 5, 3, 4))
    mask = mgd_mask(student.shape)
    with pytest.raises(kd.ShapeError, match="mask"):
        losses.mgd(student, teacher, np.ones((2, 1, 4, 3)), identity(5))
    with pytest.raises(kd.ShapeError, match="generator"):
        losses.mgd(student, teacher, mask, identity(4))
    with pytest.raises(kd.ArgumentError, match="generator"):
        losses.mgd(student, teacher, mask, {})
    with pytest.raises(kd.ArgumentError, match="alpha"):
        losses.mgd(student, teacher, mask, identity(5), alpha=math.nan)
