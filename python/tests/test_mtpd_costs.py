"""Adaptation costs: known maps, the closed form against gradient descent, streaming."""

from __future__ import annotations

import json

import numpy as np
import pytest
from mtpd_cases import costs, model, noise, smooth
from tiny import detector, scenes

import kdswift as kd
from kdswift.errors import ArgumentError, FormatError, KDSError
from kdswift.teachers.detectors import DetectorTeacher

# float64 sums of float32 features: squares are exact to this, relative to the variance.
ROUNDING = 1e-11


def test_nothing_to_itself_and_to_affine_maps():
    mix = np.random.default_rng(5).normal(size=(4, 3)).astype(np.float32)

    def affine(images):
        return np.einsum("dc,nchw->ndhw", mix, smooth(images)) + np.float32(2)

    matrix = costs([model(smooth), model(smooth), model(affine)], names=["a", "same", "affine"])
    variance = max(one.variance for one in matrix.levels)
    assert matrix.cost("a", "a") == 0
    assert matrix.cost("a", "same") < ROUNDING * variance
    # The affine map is rounded to float32: 1e-7 of values near 4, squared.
    assert matrix.cost("a", "affine") < 1e-12
    assert matrix.cost("affine", "a") < 1e-12


def test_costs_are_asymmetric():
    def both(images):
        return images[:, :2]

    def first(images):
        return images[:, :1]

    matrix = costs([model(both), model(first)], noise(40), noise(40, seed=1), names=["ab", "a"])
    assert matrix.cost("ab", "a") < ROUNDING
    # x costs nothing, y its variance, mean over two channels: var(y) / 2.
    pixels = np.stack([image[:, :, 1] for image, _ in noise(40, seed=1)]) / 255
    assert matrix.cost("a", "ab") == pytest.approx(pixels.var() / 2, rel=1e-3)
    assert matrix.normalized[1, 0] == pytest.approx(0.5, rel=0.02)


@pytest.mark.parametrize("ridge", [0.0, 1e-3])
def test_against_lstsq(ridge):
    """The whole way, against least squares on the stored features."""
    rng = np.random.default_rng(2)
    mix = rng.normal(size=(5, 3, 3)).astype(np.float32)

    def bent(images):
        rolled = np.stack([np.roll(images, k, axis=2) for k in range(3)], axis=-1)
        return np.maximum(np.einsum("dck,nchwk->ndhw", mix, rolled), 0.2)

    train, val = noise(9, seed=3), noise(5, seed=4)
    found = costs([model(smooth), model(bent)], train, val, ridge=ridge, batch_size=4)

    def columns(data, function):
        stacked = np.stack([image for image, _ in data]).transpose(0, 3, 1, 2)
        maps = function(stacked.astype(np.float32) / np.float32(255))
        return maps.transpose(1, 0, 2, 3).reshape(maps.shape[1], -1).astype(np.float64)

    a, b = columns(train, smooth), columns(train, bent)
    mean, centred = a.mean(axis=1, keepdims=True), a - a.mean(axis=1, keepdims=True)
    extra = np.sqrt(ridge * centred.var(axis=1).mean() * centred.shape[1]) * np.eye(3)
    left = np.concatenate([centred.T, extra])
    right = np.concatenate([(b - b.mean(axis=1, keepdims=True)).T, np.zeros((3, 5))])
    weight = np.linalg.lstsq(left, right, rcond=None)[0].T
    error = weight @ (columns(val, smooth) - mean) + b.mean(axis=1, keepdims=True)
    error -= columns(val, bent)
    # The features themselves are float32, here made in another order.
    assert found.cost("student", "teacher-1") == pytest.approx((error**2).mean(), rel=1e-6)
    errors = (error**2).mean(axis=0).reshape(5, -1).mean(axis=1)
    expected = errors.std(ddof=1) / np.sqrt(5)
    assert found.standard_errors[0, 1] == pytest.approx(expected, rel=1e-5)


def test_the_closed_form_against_gradient_descent():
    """Full-batch descent on the same features ends at the same cost."""

    def target(images):
        return np.maximum(smooth(images)[:, :2] - 0.6, 0)

    train = noise(8, seed=6)
    exact = costs([model(smooth), model(target)], train, train)
    trained = costs(
        *([model(smooth), model(target)], train, train),
        solver="sgd",
        epochs=1200,
        learning_rate=0.05,
        batch_size=8,
    )
    least, reached = exact.cost("student", "teacher-1"), trained.cost("student", "teacher-1")
    assert reached == pytest.approx(least, rel=1e-4)
    assert reached >= least * (1 - 1e-9)  # nothing is below the least
    assert trained.report["solver"] == "sgd"


def test_sgd_repeats_by_its_seed():
    models = [model(smooth), model(lambda images: images[:, :2])]
    first, again, other = (costs(models, solver="sgd", seed=s).raw[0, 1] for s in (1, 1, 2))
    assert first == again != other


@pytest.mark.parametrize("dead", ["zero", "constant", "double"])
def test_a_singular_gram_matrix_is_solved(dead):
    def source(images):
        channel = images[:, :1]
        extra = {"zero": channel * 0, "constant": channel * 0 + 7, "double": channel}[dead]
        return np.concatenate([images[:, :1], extra], axis=1)

    matrix = costs([model(source), model(lambda images: images)], names=["a", "b"])
    alone = costs([model(lambda images: images[:, :1]), model(lambda images: images)])
    assert matrix.cost("a", "b") == pytest.approx(alone.raw[0, 1], rel=1e-9)
    assert matrix.cost("b", "a") < 1e-10
    assert np.isfinite(matrix.raw).all()


def test_a_dead_map():
    matrix = costs([model(lambda images: images * 0), model(lambda images: images)])
    variance = next(one.variance for one in matrix.levels if one.target == "teacher-1")
    assert matrix.raw[0, 1] == pytest.approx(variance, rel=0.05)
    assert matrix.normalized[1, 0] == 0


def test_costs_are_of_unseen_images():
    """Training images decide the map alone, validation images are what is measured on."""
    models = [model(lambda i: i[:, :1]), model(lambda i: i[:, :1] + i[:, 1:2])]
    train, val = noise(10, seed=7), noise(10, seed=8)
    found = costs(models, train, val)
    pixels = np.stack([image for image, _ in val]) / np.float32(255)
    target = pixels[..., 0] + pixels[..., 1]
    assert found.levels[0].variance == pytest.approx(target.var(), rel=1e-5)
    noisy = [(np.roll(image, 1, axis=2), {}) for image, _ in train]
    assert costs(models, noisy, val).levels[0].variance == found.levels[0].variance
    assert costs(models, noisy, val).raw[0, 1] != found.raw[0, 1]


def test_training_is_never_worse_than_the_mean():
    models = [detector(1), detector(2, width=0.25)]
    data = scenes(6)
    found = costs(models, data, data)
    for one in found.levels:
        # The zero map with bias leaves the variance; training and validation images are the same.
        assert one.training <= one.variance * (1 + 1e-9)
        assert one.cost == pytest.approx(one.training, rel=1e-6)


def test_resizing_commutes_with_the_map():
    """Mapped, then up-sampled, is what is measured; both ways give one number."""
    rng = np.random.default_rng(9)
    source = rng.normal(size=(2, 3, 4, 4)).astype(np.float32)
    weight, bias = rng.normal(size=(2, 3, 1, 1)).astype(np.float32), np.float32([1.5, -2])
    after = kd.interpolate(kd.conv2d(source, weight, bias), size=(7, 9), mode="bilinear")
    before = kd.conv2d(kd.interpolate(source, size=(7, 9), mode="bilinear"), weight, bias)
    np.testing.assert_allclose(after.numpy(), before.numpy(), atol=1e-5)  # float32


def test_unlike_sizes_and_channels():
    models = [model(lambda i: i[:, :, ::2, ::2]), model(smooth)]
    found = costs(models, levels=["neck.p3"])
    assert 0 < found.raw[0, 1] < found.levels[0].variance * 1.1
    assert found.raw[1, 0] > 0


def test_every_model_runs_once_per_image():
    calls = [0, 0, 0]

    def counted(index):
        def function(images):
            calls[index] += len(images)
            return images

        return model(function)

    models = [counted(i) for i in range(3)]
    found = costs(models, levels=["neck.p3"])
    # Once more each for the table of taps.
    assert calls == [12 + 6 + 1] * 3
    assert found.report["forward_passes"] == 3 * (12 + 6)


def test_heads_are_not_asked_for():
    asked = []

    class Watched(kd.Teacher):
        def arrays(self, images, names):
            asked.append(names)
            maps = np.zeros((len(images), 2, 4, 4), np.float32)
            return {"neck.p3": maps + images[0].mean(), "head.class_logits.p3": maps}

    costs([Watched(), model(smooth)], noise(1), noise(1))
    assert [names for names in asked if names is not None] == [["neck.p3"]] * 2


def test_detectors_are_paired_by_stride_and_not_changed():
    student = detector(1, width=0.25)
    pyramid = kd.FasterRCNN(
        *(kd.backbones.resnet_small(width=0.5, output_stride=16), 11),
        neck=kd.FPN(channels=16, extra="none"),
        anchors=kd.Anchors(sizes=(12, 16, 24), ratios=(1,)),
        image_size=(48, 48),
    )
    retina = kd.RetinaNet(
        *(kd.backbones.resnet_small(width=0.5, output_stride=16), 11),
        neck=kd.FPN(channels=16, extra="none", start="layer2"),
        anchors=kd.Anchors(sizes=(16, 24), ratios=(1,)),
        image_size=(48, 48),
    )
    before = retina.state_dict()
    retina.train()
    found = costs([retina, pyramid], scenes(4), scenes(2, "val"), names=["p3", "p2"])
    assert [(o.source_tap, o.target_tap) for o in found.levels if o.source == "p3"] == [
        ("neck.p3", "neck.p3"),
        ("neck.p4", "neck.p4"),
    ]
    assert retina.training
    after = retina.state_dict()
    assert all((before[n] == after[n]).all() for n in before)
    with pytest.warns(UserWarning, match="unlike levels"):
        costs([retina, pyramid, detector(2)], scenes(4), scenes(2, "val"))
    named = {
        "student": "backbone.layer2",
        "teacher-1": "neck.p3",
    }
    assert costs([student, retina], scenes(4), scenes(2), levels=named).levels[0].cost > 0


def test_what_is_wrong_with_heads_does_not_matter():
    """No output of a head is read: with heads of NaN the costs are the same."""
    models = [detector(1), detector(2, width=0.25)]
    before = costs(models, scenes(4), scenes(2, "val"), ridge=1e-3).raw
    for one in models:
        for name, value in one.state_dict().items():
            if not name.startswith("backbone."):
                one._engine.load(name, np.full_like(value, np.nan))
    assert (costs(models, scenes(4), scenes(2, "val"), ridge=1e-3).raw == before).all()


def test_heads_of_detectors_do_not_run(monkeypatch):
    """Maps of backbone and neck come from a pass of their own, with the same bits."""
    one = detector(1)
    images = [scenes(3)[i][0] for i in range(3)]
    teacher = DetectorTeacher(one)
    names = [name for name in teacher.names if not name.startswith("rpn.")]
    everything = teacher.outputs(images)
    assert set(names) < set(everything)
    monkeypatch.setattr(type(one._engine), "features", None)
    for name, value in teacher.outputs(images, names).items():
        assert (value == everything[name]).all()
    costs([one, detector(2)], scenes(4), scenes(2, "val"), ridge=1e-3)


def test_a_budget_ends_early_where_the_order_is_clear():
    data, val = noise(400, (8, 8)), noise(400, (8, 8), seed=1)

    def blend(share):
        return model(lambda i: (1 - share) * i[:, :1] + share * i[:, 1:2])

    clear = [model(lambda i: i[:, :1]), blend(0.2), blend(0.9)]
    found = costs(clear, data, val, budget=400)
    assert found.report["settled"]
    assert found.report["train_images"] == found.report["val_images"] < 400
    alike = [model(lambda i: i[:, :1]), model(lambda i: i[:, 1:2]), model(lambda i: i[:, 2:])]
    found = costs(alike, data, val, budget=100)
    assert not found.report["settled"]
    assert found.report["train_images"] == 100
    assert found.report["rounds"] == 3  # 32, 64, 100


def test_the_matrix_shows_and_keeps_itself(tmp_path):
    found = costs([model(smooth), model(lambda i: i[:, :2])], names=["s", "<t>"])
    found.save(tmp_path / "costs.json")
    again = kd.mtpd.CostMatrix.load(tmp_path / "costs.json")
    assert json.dumps(again.to_dict()) == json.dumps(found.to_dict())
    assert "<t>" in repr(found)
    assert "&lt;t&gt;" in found._repr_html_()
    rows = found.rows()
    assert [row["level"] for row in rows] == ["neck.p3 -> neck.p3", "mean"] * 2
    assert len(found.frame()["cost"]) == 4
    found.plot(tmp_path / "costs.png")
    assert (tmp_path / "costs.png").stat().st_size > 5000
    normalized = costs([model(smooth), model(lambda i: i[:, :2])], normalize=True)
    assert normalized.total[0, 1] == pytest.approx(found.normalized[0, 1])
    assert normalized.standard_errors[1, 0] == pytest.approx(
        found.raw_errors[1, 0] / found.levels[1].variance
    )
    single = costs([model(smooth), model(smooth)], val=noise(1))
    assert np.isnan(single.raw_errors[0, 1])
    assert np.isnan(kd.mtpd.CostMatrix.from_dict(single.to_dict()).raw_errors[0, 1])
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(FormatError, match="no cost matrix"):
        kd.mtpd.CostMatrix.load(tmp_path / "bad.json")


def test_wrong_arguments():
    good = [model(smooth), model(smooth)]
    for options, words in (
        ({"solver": "magic"}, "expected 'exact' or 'sgd'"),
        ({"names": ["a", "a"]}, "unlike"),
        ({"levels": {"student": ["neck.p3"]}}, "levels must name"),
        ({"levels": ["neck.p9"]}, r"neck\.p9"),
        ({"ridge": -1}, "ridge"),
        ({"budget": 0}, "budget"),
        ({"train": []}, "train is empty"),
    ):
        with pytest.raises(ArgumentError, match=words):
            costs(good, **options)
    with pytest.raises(ArgumentError, match="at least one teacher"):
        costs(good[:1])
    with pytest.raises(KDSError, match=r"teacher-1.*not finite"):
        costs([model(smooth), model(lambda i: i * np.float32(np.nan))], levels=["neck.p3"])
