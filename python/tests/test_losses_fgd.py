"""FGD: its masks, its attention and its context blocks."""

from __future__ import annotations

import numpy as np
import pytest

import kdswift as kd
from kdswift import losses
from kdswift.losses.fgd import FGD, focal_masks
from kdswift.tensors import apply

BOXES = [np.array([[4.0, 4.0, 20.0, 24.0]], np.float32)]
SIZES = [(32, 32)]


@pytest.fixture
def random():
    return np.random.default_rng(6)


def pair(random, shape):
    return random.standard_normal((2, *shape)).astype(np.float32)


def masks(boxes, size=(8, 8), image=(64, 64)):
    fg, bg = focal_masks([np.reshape(boxes, (-1, 4))], [image], size)
    return fg[0], bg[0]


def test_fgd_masks_weigh_a_box_by_its_cells():
    # Cells 1 to 3 by 2 to 5, both ends inside.
    fg, bg = masks([8, 16, 24, 40])
    assert (fg[2:6, 1:4] == np.float32(1 / 12)).all()
    assert fg.sum() == pytest.approx(1, rel=1e-6)
    assert np.count_nonzero(fg) == 12
    assert bg.sum() == pytest.approx(1, rel=1e-6)
    assert not (bg[fg > 0]).any()


def test_fgd_masks_round_outwards():
    # Inside one cell: floor and ceil make it two by two.
    fg, _ = masks([17, 33, 23, 39])
    assert np.count_nonzero(fg) == 4
    assert (fg[4:6, 2:4] == 0.25).all()
    # On its corners: one by one... both ends are inside, so two by two again.
    fg, _ = masks([16, 32, 16, 32])
    assert np.count_nonzero(fg) == 1
    assert fg[4, 2] == 1


def test_fgd_masks_prefer_the_smaller_box():
    small, large = [16, 16, 24, 24], [0, 0, 48, 48]
    for boxes in ([*small, *large], [*large, *small]):
        fg, _ = masks(boxes)
        assert (fg[2:4, 2:4] == 0.25).all()
        assert fg[0, 0] == np.float32(1 / 49)


def test_fgd_masks_at_the_border():
    # Reaches cell 8, which the map does not have, but which its weight counts.
    fg, _ = masks([48, 48, 64, 64])
    assert np.count_nonzero(fg) == 4
    assert fg.sum() == pytest.approx(4 / 9, rel=1e-6)
    fg, bg = masks([-1e30, -8, 1e30, 1e12])
    assert np.isfinite(fg).all()
    assert not bg.any() or bg.sum() == pytest.approx(1, rel=1e-6)
    fg, _ = masks([200, 200, 300, 300])
    assert not fg.any()


def test_fgd_masks_without_boxes_or_background():
    fg, bg = masks([])
    assert not fg.any()
    assert (bg == np.float32(1 / 64)).all()
    _, bg = masks([0, 0, 64, 64])
    assert not bg.any()


def test_fgd_without_boxes_has_background_only(random):
    student, teacher = pair(random, (2, 5, 3, 4))
    none = [np.zeros((0, 4))] * 2
    off = {"beta": 0, "gamma": 0, "relation": 0}
    assert losses.fgd(student, teacher, none, SIZES * 2, alpha=1.0, **off).item() == 0
    off["beta"] = 1
    assert losses.fgd(student, teacher, none, SIZES * 2, alpha=0, **off).item() > 0


def test_fgd_attention_terms(random):
    """With a mask of ones the sum is that of the attention times the squared difference."""
    _, teacher = pair(random, (2, 5, 3, 4))
    student = teacher + 1  # a squared difference of 1 everywhere
    ones, off = np.ones((2, 1, 3, 4)), {"gamma": 0.0, "relation": 0.0, "temperature": 0.5}

    def total(t, s):
        return apply("focal_global", [kd.tensor(s), kd.tensor(t), kd.tensor(ones)], **off).item()

    # Attention adds up to H W over the pixels and to C over the channels.
    assert total(teacher, student) == pytest.approx(2 * 12 * 5, rel=1e-5)
    flat = np.sign(teacher)
    assert total(flat, flat + student - teacher) == pytest.approx(2 * 12 * 5, rel=1e-5)
    difference = np.zeros_like(teacher)
    difference[1, 2, 1, 3] = 1

    def at_one(t):
        return total(t, t + difference)

    magnitude = np.abs(teacher[1])
    pixels = np.exp(magnitude.mean(0) / 0.5)
    channels = np.exp(magnitude.mean((1, 2)) / 0.5)
    expected = 12 * pixels[1, 3] / pixels.sum() * 5 * channels[2] / channels.sum()
    assert at_one(teacher) == pytest.approx(expected, rel=1e-4)
    assert at_one(-teacher) == pytest.approx(expected, rel=1e-4)
    assert at_one(flat) == pytest.approx(1, rel=1e-5)


def test_fgd_relation_is_the_squared_error_at_first(random):
    student, teacher = pair(random, (2, 6, 3, 4))
    loss = FGD(6, alpha=0, beta=0, gamma=0, relation=1)
    expected = ((student - teacher) ** 2).sum() / 2
    assert loss(student, teacher, BOXES * 2, SIZES * 2).item() == pytest.approx(expected, rel=1e-5)
    assert loss(student, student, BOXES * 2, SIZES * 2).item() == 0
    state = loss.state_dict()
    state["student.expand.bias"] += 1
    loss.load_state_dict(state)
    assert loss(student, student, BOXES * 2, SIZES * 2).item() == pytest.approx(6 * 12, rel=1e-5)


def test_fgd_trains_both_context_blocks(random):
    student, teacher = pair(random, (2, 6, 3, 4))
    loss = FGD(6, relation=1, seed=3)
    loss(student, teacher, BOXES * 2, SIZES * 2).backward()
    for side in ("student", "teacher"):
        assert loss.parameters()[f"{side}.expand.weight"].grad.numpy().any()
    # Only W_2 moves from zero first; then the gradient reaches the rest.
    state = loss.state_dict()
    for side in ("student", "teacher"):
        shape = state[f"{side}.expand.weight"].shape
        state[f"{side}.expand.weight"] = random.standard_normal(shape).astype(np.float32)
    loss.load_state_dict(state)
    loss(student, teacher, BOXES * 2, SIZES * 2).backward()
    for name, tensor in loss.parameters().items():
        assert tensor.grad.numpy().any(), name


def test_fgd_context_gradients_against_finite_differences(random):
    student, teacher = pair(random, (2, 6, 3, 4))
    loss = FGD(6, relation=0.05, seed=3)
    state = loss.state_dict()
    state = {
        k: v + 0.3 * random.standard_normal(v.shape).astype(np.float32) for k, v in state.items()
    }
    loss.load_state_dict(state)
    loss(student, teacher, BOXES * 2, SIZES * 2).backward()

    def at(name, change):
        moved = dict(state)
        moved[name] = state[name] + change
        other = FGD(6, relation=0.05)
        other.load_state_dict(moved)
        return other(student, teacher, BOXES * 2, SIZES * 2).item()

    for name, tensor in loss.parameters().items():
        slope = tensor.grad.numpy()
        direction = random.standard_normal(slope.shape).astype(np.float32)
        step = 2e-3
        numeric = (at(name, step * direction) - at(name, -step * direction)) / (2 * step)
        # Rounding of the value, 1e-7 of about 10, over the step.
        assert (slope * direction).sum() == pytest.approx(numeric, rel=1e-2, abs=2e-3), name


def test_fgd_seeds_and_errors(random):
    first, same, other = (FGD(8, seed=seed).state_dict() for seed in (1, 1, 2))
    assert all((first[name] == same[name]).all() for name in first)
    assert (first["student.mask.weight"] != other["student.mask.weight"]).any()
    assert (first["student.mask.weight"] != first["teacher.mask.weight"]).any()
    assert not first["teacher.expand.weight"].any()
    student, teacher = pair(random, (2, 8, 3, 4))
    with pytest.raises(kd.ShapeError, match="boxes"):
        losses.fgd(student, teacher, [np.zeros((2, 5)), []], SIZES * 2)
    with pytest.raises(kd.ShapeError, match="2 images"):
        losses.fgd(student, teacher, BOXES, SIZES)
    with pytest.raises(kd.ArgumentError, match="positive"):
        losses.fgd(student, teacher, BOXES * 2, [(32, 32), (0, 32)])
    with pytest.raises(kd.ArgumentError, match="finite"):
        losses.fgd(student, teacher, [np.full((1, 4), np.nan), []], SIZES * 2)
    with pytest.raises(kd.ShapeError, match="channels"):
        FGD(4)(student, teacher, BOXES * 2, SIZES * 2)
    with pytest.raises(kd.ArgumentError, match="lacks"):
        FGD(8).load_state_dict({})
    for wrong in (1, 2.5):
        with pytest.raises(kd.ArgumentError, match="channels"):
            FGD(wrong)
