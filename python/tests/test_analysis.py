"""Gaps, landscapes and alignments against answers that are known."""

from __future__ import annotations

import os
import signal

import numpy as np
import pytest
from method_pairs import dense
from tiny import QUIET, detector, same, scenes

import kdswift as kd
from kdswift.analysis import Landscape, cka, generalisation_gap, loss_landscape, sharpness
from kdswift.analysis.alignment import alignment_of, unbiased_hsic
from kdswift.analysis.directions import filter_normalized
from kdswift.errors import ArgumentError, FormatError
from kdswift.history import History
from kdswift.mtpd import ProgressiveHistory

FEW = {"images": 4, "batch_size": 2, "progress": False}


class Bowl:
    """c / 2 times the squared distance to where it stands: along a filter-normalised direction
    c / 2 * a^2 * |w|^2, as every direction is as long as the weights."""

    def __init__(self, weights, stiffness=3.0):
        self.weights, self.least, self.stiffness = weights, weights, stiffness

    def clone(self):
        return Bowl(self.weights, self.stiffness)

    def eval(self):
        return self

    def named_parameters(self):
        return iter([(n, kd.tensor(w)) for n, w in self.weights.items()])

    def load_state_dict(self, values, strict=True):
        assert not strict
        self.weights = {**self.weights, **values}

    def losses(self, images, targets, seed):
        there = sum(
            np.square(w.astype(np.float64) - self.least[n]).sum() for n, w in self.weights.items()
        )
        return {"loss_bowl": kd.tensor(np.float32(1 + self.stiffness / 2 * there))}

    @property
    def curvature(self):
        return self.stiffness * sum(
            np.square(w, dtype=np.float64).sum() for w in self.weights.values() if w.ndim > 1
        )


def bowl():
    rng = np.random.default_rng(0)
    shapes = {"a.weight": (4, 3, 3, 3), "a.bias": (4,), "fc.weight": (5, 7)}
    return Bowl({n: rng.normal(size=s).astype(np.float32) for n, s in shapes.items()})


# The loss is rounded to float32, at most 6e-8 of its value; differences of neighbours lose most.
CLOSE = 1e-4


@pytest.mark.parametrize("directions", [1, 2])
def test_a_quadratic_bowl_is_measured_exactly(directions):
    model = bowl()
    found = loss_landscape(model, scenes(4), 11, 1.0, directions, **FEW)
    a = found.positions
    assert found.losses.shape == (11,) * directions
    assert found.centre == 1.0
    parabola = 1 + model.curvature / 2 * a**2
    line = found.losses if directions == 1 else found.losses[:, 5]
    np.testing.assert_allclose(line, parabola, rtol=1e-6)
    if directions == 2:
        np.testing.assert_allclose(found.losses[5], parabola, rtol=1e-6)
    for radius in (0.2, 0.37, 1.0):
        measured = sharpness(found, radius=radius)
        assert measured.rise == pytest.approx(model.curvature * radius**2 / 2, rel=CLOSE)
        assert measured.curvature == pytest.approx(model.curvature, rel=CLOSE)
        assert measured.relative_rise == measured.rise


def test_sharpness_of_a_bowl_without_a_landscape():
    model = bowl()
    found = sharpness(model, scenes(4), radius=0.4, directions=3, **FEW)
    assert found.rise == pytest.approx(model.curvature * 0.08, rel=CLOSE)
    assert found.curvature == pytest.approx(model.curvature, rel=CLOSE)
    assert found.rise_error < CLOSE * found.rise
    stiffer = Bowl(model.weights, 6.0)
    assert sharpness(stiffer, scenes(4), 0.4, 3, **FEW).rise == pytest.approx(2 * found.rise, CLOSE)


def test_filters_of_a_direction_are_as_long_as_the_models():
    weights = {n: t.numpy() for n, t in detector(1).named_parameters()}
    weights["roi_heads.box_head.fc6.weight"][3] = 0
    found = filter_normalized(weights, 5)
    for name, weight in weights.items():
        if weight.ndim < 2:
            assert not found[name].any()
            continue
        lengths = [
            np.linalg.norm(x.reshape(len(weight), -1), axis=1) for x in (found[name], weight)
        ]
        np.testing.assert_allclose(*lengths, rtol=1e-5)  # float32 sums in NumPy's norm
    assert all(np.array_equal(v, filter_normalized(weights, 5)[n]) for n, v in found.items())
    name = "backbone.conv1.weight"
    assert not np.allclose(found[name], filter_normalized(weights, 6)[name])
    # Another scale of the model is another length of the direction, and nothing else.
    np.testing.assert_allclose(
        filter_normalized({n: 2 * w for n, w in weights.items()}, 5)[name], 2 * found[name]
    )


@pytest.mark.parametrize("make", [detector, dense])
def test_the_landscape_of_a_detector(make):
    model = make().train()
    before = model.state_dict()
    found = loss_landscape(model, scenes(6), 3, 0.5, 2, seed=2, **FEW)
    again = loss_landscape(model, scenes(6), 3, 0.5, 2, seed=2, **FEW)
    assert found.losses.tobytes() == again.losses.tobytes()
    assert same(before, model.state_dict())
    assert model.training
    assert np.isfinite(found.losses).all()
    assert len(np.unique(found.losses)) == 9
    # The centre is the loss of the model itself with frozen statistics.
    items = found.settings["items"]
    assert len(items) == 4
    images, targets = zip(*(scenes(6)[i] for i in items))
    own = model.clone().eval()
    halves = [
        sum(
            v.item() for v in own.losses(images[s : s + 2], targets[s : s + 2], seed=2 + s).values()
        )
        for s in (0, 2)
    ]
    assert found.centre == pytest.approx(np.mean(halves), rel=1e-6)


def test_a_line_is_the_first_row_of_the_square_and_a_point_is_the_moved_model():
    model = detector(3)
    line = loss_landscape(model, scenes(4), 3, 0.5, 1, seed=1, **FEW)
    square = loss_landscape(model, scenes(4), 3, 0.5, 2, seed=1, **FEW)
    assert np.array_equal(line.losses, square.losses[:, 1])
    moved = model.clone()
    weights = {n: t.numpy() for n, t in model.named_parameters()}
    direction = filter_normalized(weights, 2)
    moved.load_state_dict(
        {n: w + np.float64(0.5) * direction[n].astype("f8") for n, w in weights.items()},
        strict=False,
    )
    other = loss_landscape(moved, scenes(4), 3, 0.5, 1, seed=1, **FEW)
    assert other.centre == line.losses[2]


def test_ctrl_c_leaves_the_model_as_it_was(monkeypatch):
    model = detector(1).train()
    loss = sum(model.losses(*zip(*(scenes(2)[i] for i in range(2))), seed=0).values())
    loss.backward()
    before, gradients = model.state_dict(), [p.grad.numpy() for p in model.parameters()]
    original, calls = kd.Detector.losses, []

    def losses(self, *arguments, **options):
        calls.append(self)
        if len(calls) == 5:
            os.kill(os.getpid(), signal.SIGINT)
        return original(self, *arguments, **options)

    monkeypatch.setattr(kd.Detector, "losses", losses)
    with pytest.raises(KeyboardInterrupt):
        loss_landscape(model, scenes(4), 5, **FEW)
    assert len(calls) == 5
    assert same(before, model.state_dict())
    assert model.training
    now = [p.grad.numpy() for p in model.parameters()]
    assert all(a.tobytes() == b.tobytes() for a, b in zip(gradients, now))


def test_landscapes_are_kept_in_files(tmp_path):
    found = loss_landscape(bowl(), scenes(4), 5, 0.3, 2, **FEW)
    found.save(tmp_path / "a.safetensors")
    again = Landscape.load(tmp_path / "a.safetensors")
    assert again.losses.tobytes() == found.losses.tobytes()
    assert again.positions.tobytes() == found.positions.tobytes()
    assert again.settings == found.settings
    assert "5 x 5 within 0.3" in repr(again)
    detector(1).save(tmp_path / "model.safetensors")
    with pytest.raises(FormatError, match="no landscape"):
        Landscape.load(tmp_path / "model.safetensors")


def test_losses_that_are_no_numbers_do_not_end_the_work():
    class Cliff(Bowl):
        def clone(self):
            return Cliff(self.weights, self.stiffness)

        def losses(self, images, targets, seed):
            if self.weights["fc.weight"][0, 0] > self.least["fc.weight"][0, 0]:
                raise kd.KDSError("not finite")
            return super().losses(images, targets, seed)

    found = loss_landscape(Cliff(bowl().weights), scenes(4), 5, 1.0, 1, **FEW)
    assert np.isnan(found.losses).sum() == 2
    assert np.isnan(sharpness(found).rise)
    found.plot()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"points": 4}, "points is 4, expected an odd"),
        ({"points": 1}, "points is 1"),
        ({"span": 0}, "span is 0"),
        ({"span": float("nan")}, "span is nan"),
        ({"directions": 3}, "directions is 3"),
        ({"seed": -1}, "seed is -1"),
        ({"images": 0}, "images is 0"),
        ({"batch_size": 0}, "batch_size is 0"),
    ],
)
def test_wrong_arguments_are_named(options, message):
    with pytest.raises(ArgumentError, match=message):
        loss_landscape(bowl(), scenes(2), progress=False, **options)


def test_sharpness_refuses_what_it_cannot_read():
    found = loss_landscape(bowl(), scenes(2), 3, 0.3, 1, **FEW)
    with pytest.raises(ArgumentError, match=r"radius is 0\.5, the landscape ends at 0\.3"):
        sharpness(found)
    with pytest.raises(ArgumentError, match="needs data"):
        sharpness(bowl())


# Alignment


def maps(function, name="p3"):
    return kd.Teacher.from_callable(lambda images: {name: function(images)}, [name], batch=True)


def noise(n=12, size=(16, 16), seed=0):
    rng = np.random.default_rng(seed)
    return [(rng.integers(0, 256, (*size, 3), dtype=np.uint8), {}) for _ in range(n)]


def turned(images):
    q, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))
    return 7 * np.einsum("dc,nchw->ndhw", q, images).astype(np.float32)


def test_the_identities_of_alignment():
    data = noise()
    plain = maps(lambda x: x)
    alike = cka(plain, maps(turned), data, progress=False)
    # The turned maps are rounded to float32.
    assert alike["p3", "p3"] == pytest.approx(1, abs=1e-6)
    assert cka(plain, plain, data, progress=False).values == pytest.approx(1, abs=1e-12)
    scaled = cka(plain, maps(lambda x: x * np.array([1, 0, 0], "f4")[:, None, None]), data, 12)
    assert 0.2 < scaled["p3", "p3"] < 0.95  # one of three independent channels
    one = cka(plain, maps(lambda x: x.mean((2, 3), keepdims=True)), data, pool=1, progress=False)
    assert one.values == pytest.approx(1, abs=1e-6)


def test_the_unbiased_estimate_against_its_definition():
    """The U-statistic: the mean over all different i, j, q, r (Song et al. 2012, equation 4)."""
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(6, 4)), rng.normal(size=(6, 3))
    k, m = x @ x.T, y @ y.T
    from itertools import permutations

    terms = [
        k[i, j] * (m[i, j] + m[q, r] - 2 * m[i, q]) for i, j, q, r in permutations(range(6), 4)
    ]
    assert unbiased_hsic(k, m) == pytest.approx(np.mean(terms), rel=1e-10)


def test_unrelated_features_are_about_0_however_many_there_are():
    rng = np.random.default_rng(5)
    values = []
    for _ in range(40):
        x, y = rng.normal(size=(2, 20, 400))
        values.append(alignment_of(x @ x.T, y @ y.T))
    # The plain estimate is about 0.95 here; that of 40 draws has an error near 0.01.
    assert abs(np.mean(values)) < 0.03
    assert np.isnan(alignment_of(np.zeros((5, 5)), np.eye(5)))


def test_detectors_and_images_of_unlike_sizes_compare():
    a, b = detector(1), detector(2, width=1.0)
    data = [*noise(4, (48, 40)), *noise(4, (30, 48), 1)]
    before = a.state_dict()
    found = cka(a.train(), b, data, progress=False)
    assert found.levels_a == ("backbone.layer1", "backbone.layer2", "backbone.layer3")
    assert found.values.shape == (3, 3)
    assert found.images == 8
    own = cka(a, a, data, progress=False)
    assert np.diag(own.values) == pytest.approx(1, abs=1e-12)
    np.testing.assert_allclose(own.values, own.values.T, rtol=1e-9)
    assert a.training
    assert same(before, a.state_dict())
    towers = cka(dense(), dense(), data, progress=False).levels_a
    assert towers == (*found.levels_a, "neck.p3", "neck.p4")
    names = (["backbone.layer2"], ["backbone.layer1", "backbone.layer3"])
    some = cka(a, b, data, levels=names, progress=False)
    np.testing.assert_allclose(some.values, found.values[1:2, [0, 2]], rtol=1e-9)
    with pytest.raises(ArgumentError, match="model b has no tap 'neck"):
        cka(a, b, data, levels=(["backbone.layer2"], ["neck.p3"]))
    with pytest.raises(ArgumentError, match="at least 4"):
        cka(a, b, data[:3])


# Gaps


def history(losses, scores, **terms):
    rows = [
        {"epoch": i + 1, "step": i + 1, "loss": 9.0, "loss_a": v / 4, "loss_b": 3 * v / 4, "AP": s}
        | terms
        for i, (v, s) in enumerate(zip(losses, scores))
    ]
    return History(rows=rows)


def test_the_gap_adds_detection_losses_and_marks_restarts():
    alone = history([2.0, 1.0], [0.1, None])
    progressive = ProgressiveHistory()
    progressive.add(history([3.0, 2.0], [None, 0.2], feature_matching=5.0), "a")
    progressive.add(history([2.5], [0.4], feature_matching=4.0), "b")
    gap = generalisation_gap({"alone": alone, "distilled": progressive})
    assert gap.restarts == {"alone": [], "distilled": [2]}
    assert [row["detection_loss"] for row in gap.rows] == [2.0, 1.0, 3.0, 2.0, 2.5]
    assert [row["epoch"] for row in gap.of("distilled")] == [1, 2, 3]
    assert gap.summary() == [
        {"run": "alone", "epochs": 2, "detection_loss": 1.0, "AP": 0.1, "best_AP": 0.1},
        {"run": "distilled", "epochs": 3, "detection_loss": 2.5, "AP": 0.4, "best_AP": 0.4},
    ]
    assert generalisation_gap({"x": alone}, {"x": [1]}).restarts == {"x": [1]}
    assert generalisation_gap([alone, alone]).names == ["run 1", "run 2"]


def test_the_gap_of_runs():
    options = {**QUIET, "val": scenes(2, "val"), "seed": 1}
    alone = detector(1, width=0.25).fit(scenes(4), 2, **options)
    terms = kd.Method([kd.Term("backbone.layer3")])
    student = detector(1, width=0.25)
    distilled = kd.distill(student, detector(2, width=0.25), scenes(4), terms, 2, **options)
    gap = generalisation_gap({"alone": alone, "distilled": distilled})
    row = alone.rows[0]
    assert gap.rows[0]["detection_loss"] == pytest.approx(row["loss"], rel=1e-5)
    for row in distilled.rows:
        own = next(r for r in gap.of("distilled") if r["epoch"] == row["epoch"])
        assert own["detection_loss"] < row["loss"]


@pytest.mark.parametrize("kind", ["ATSS", "FCOS", "GFL", "RetinaNet"])
def test_the_detection_loss_of_one_stage_detectors_is_all_of_their_loss(kind):
    record = dense(kind).fit(scenes(4), 1, **QUIET)
    # Means of float32 sums against the sum of means.
    assert generalisation_gap(record).rows[0]["detection_loss"] == pytest.approx(
        record.rows[0]["loss"], rel=1e-5
    )


def test_what_is_no_history_is_refused():
    with pytest.raises(ArgumentError, match="'x' is list"):
        generalisation_gap({"x": []})
    with pytest.raises(ArgumentError, match="no epochs"):
        generalisation_gap(History())
    with pytest.raises(ArgumentError, match="epoch 1 of 'run' has no detection loss"):
        generalisation_gap(History(rows=[{"epoch": 1, "loss": 1.0}]))
    with pytest.raises(ArgumentError, match="restarts of 'y'"):
        generalisation_gap({"x": history([1.0], [0.1])}, {"y": [1]})


def test_pictures_are_written(tmp_path):
    gap = generalisation_gap({"a": history([2.0, 1.0], [0.1, 0.2])}, {"a": [1]})
    square = loss_landscape(bowl(), scenes(2), 5, **FEW)
    line = loss_landscape(bowl(), scenes(2), 5, directions=1, **FEW)
    similarity = cka(maps(lambda x: x), maps(turned), noise(6), progress=False)
    for i, one in enumerate((gap, square, line, similarity)):
        one.plot(tmp_path / f"{i}.png")
        assert (tmp_path / f"{i}.png").stat().st_size > 5000
    kd.viz.loss_landscape({"a": square, "b": square}, tmp_path / "both.png")
    kd.viz.loss_landscape({"a": line, "b": line}, tmp_path / "lines.png")
    with pytest.raises(ArgumentError, match="lines and squares"):
        kd.viz.loss_landscape({"a": line, "b": square})
