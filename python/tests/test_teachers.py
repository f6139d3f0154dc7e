"""Teachers from outside the engine: functions, and several teachers at once."""

from __future__ import annotations

import numpy as np
import pytest
from tiny import CLASSES, QUIET, batch, detector, same, scenes

import kdswift as kd
from kdswift.errors import ArgumentError, KDSError, ShapeError

TERM = kd.Term("backbone.layer3", "p3", "l2", 1.0, name="mine")


def run(teacher, method=TERM, out=None, *, student=None, data=None, epochs=2, **options):
    """A short distillation: 2 steps an epoch."""
    student = detector(1, width=0.25) if student is None else student
    options = {**QUIET, "optimizer": kd.SGD(lr=0.02), **options}
    data = scenes(4) if data is None else data
    history = kd.distill(student, teacher, data, method, epochs, out=out, seed=3, **options)
    return student, history


def shrunk(images):
    """A map of 5 channels and a vector per image, of the pixels alone."""
    maps = [np.concatenate([i, i[:2] ** 2])[:, ::8, ::8] for i in images]
    return {"p3": np.stack(maps), "mean": np.stack([i.mean((1, 2)) for i in images])}


def of(detector_, **change):
    """A detector's taps as a function; `change` renames or replaces."""

    def fn(images):
        pixels = [np.rint(i * 255).astype(np.uint8).transpose(1, 2, 0) for i in images]
        taps = {name: tap.numpy() for name, tap in detector_.features(pixels).items()}
        return {**taps, **change}

    return kd.Teacher.from_callable(fn)


def test_a_function_gets_pictures_and_teaches():
    seen = []

    def fn(images):
        seen.append([(i.dtype, i.shape, float(i.min()) >= 0, float(i.max()) <= 1) for i in images])
        return shrunk(images)

    student, history = run(kd.Teacher.from_callable(fn), epochs=6, optimizer=kd.AdamW(lr=5e-3))
    values = [row["mine"] for row in history.rows]
    assert values[-1] < values[0]
    # One image to see what there is, then 12 batches of 2.
    assert [len(s) for s in seen] == [1] + [2] * 12
    assert set(sum(seen, [])) == {(np.dtype(np.float32), (3, 48, 48), True, True)}
    assert student.lineage[-1]["teachers"] == ["Teacher(function: p3, mean)"]


def apart(a, b):
    """The largest difference of two models' weights."""
    a, b = a.state_dict(), b.state_dict()
    return max(float(np.abs(a[name] - b[name]).max()) for name in a)


# The engine keeps its own maps channels last and ours channels first: sums run in another order.
# 4 steps of that lead to less than 1e-5; another teacher leads 1e-3 away and more.
ROUNDING = 1e-5


def test_a_detector_as_function_is_the_detector():
    # The same pixels and weights: the engine's own path and the outside one agree.
    teacher = detector(7)
    terms = kd.Method([kd.Term("backbone.layer2"), kd.Term("rpn.objectness", loss="l1")])
    assert apart(run(teacher, terms)[0], run(of(teacher), terms)[0]) < ROUNDING
    assert apart(run(teacher, terms)[0], run(detector(8), terms)[0]) > 100 * ROUNDING


def test_no_weight_asks_nobody():
    def never(images):
        raise AssertionError

    plain = detector(1, width=0.25)
    plain.fit(scenes(4), 2, seed=3, optimizer=kd.SGD(lr=0.02), **QUIET)
    method = 0 * kd.Method([TERM]) + 0 * kd.methods.Chen2017()
    assert same(plain, run(kd.Teacher.from_callable(never, taps=["p3"]), method)[0])


def test_several_teachers_average_or_are_chosen():
    a, b = detector(7), detector(8)
    mean = kd.Term("backbone.layer2", name="t")
    first, second = (kd.Term("backbone.layer2", f"{i}:backbone.layer2", name="t") for i in (0, 1))
    assert same(run([a, b], first)[0], run(a, mean)[0])
    assert same(run([a, b], second)[0], run(b, mean)[0])
    averaged, _ = run(kd.Ensemble([a, b]), mean)
    assert apart(averaged, run(a, mean)[0]) > 100 * ROUNDING
    assert apart(averaged, run([of(a), b], mean)[0]) < ROUNDING
    assert apart(averaged, run([of(a), of(b)], mean)[0]) < ROUNDING

    def both(images):
        x, y = (
            m.features([np.uint8(np.rint(i * 255)).transpose(1, 2, 0) for i in images])[
                "backbone.layer2"
            ].numpy()
            for m in (a, b)
        )
        return {"backbone.layer2": (x + y) * np.float32(0.5)}

    assert apart(averaged, run(kd.Teacher.from_callable(both), mean)[0]) < ROUNDING


def test_own_terms_beside_chen_with_two_detectors():
    method = kd.methods.Chen2017() + kd.Method([kd.Term("backbone.layer1", name="mine")])
    _, history = run([detector(7), detector(8)], method, epochs=1)
    assert {"mine", "distill_hint", "distill_hint_2"} <= set(history.rows[0])


def test_regions_are_one_detectors_affair():
    a, b = detector(7), detector(8)
    method = kd.Method(
        [kd.Term("roi.class_logits", "1:roi.class_logits"), kd.Term("backbone.layer2")]
    )
    _, history = run([a, b], method, epochs=1)
    assert history.rows[0]["l2.roi.class_logits"] > 0
    with pytest.raises(ArgumentError, match=r"roi\.class_logits.*regions of a training step"):
        run([a, b], kd.Term("roi.class_logits"))


def test_teachers_come_back_as_they_were():
    a, b = detector(7).train(), detector(8)
    before = a.state_dict()
    run([a, b], kd.Term("backbone.layer2"))
    assert same(a, before)
    assert a.training
    assert not b.training
    assert all(p.requires_grad for one in (a, b) for p in one.parameters())


def test_the_teachers_view(tmp_path):
    sizes = []

    def fn(images):
        sizes.extend(i.shape for i in images)
        return shrunk(images)

    run(kd.Teacher.from_callable(fn), epochs=1, teacher_size=72)
    assert set(sizes) == {(3, 72, 72)}
    sizes.clear()
    run(kd.Teacher.from_callable(fn, image_size=24), epochs=1, teacher_size=72)
    assert set(sizes) == {(3, 24, 24)}


def test_preparation_options():
    images = [np.full((4, 6, 3), 51, np.uint8), np.full((6, 4, 3), 102, np.uint8)]
    images[0][..., 0] = 0
    seen = []

    def fn(x):
        seen.append(x)
        return {"a": np.zeros((len(x), 1), np.float32)}

    def prepared(pictures=images, **options):
        kd.Teacher.from_callable(fn, **options).outputs(pictures)
        return seen.pop()

    padded = prepared(batch=True, normalize=((0.2,) * 3, (0.5,) * 3), divisor=4)
    assert padded.shape == (2, 3, 8, 8)
    # (51 / 255 - 0.2) / 0.5 is 0, 102 gives 0.4, and the padding is 0 after normalisation.
    np.testing.assert_allclose(padded[1, :, :6, :4], 0.4, rtol=1e-6)
    assert not padded[1, :, 6:].any()
    assert not padded[1, :, :, 4:].any()
    hwc = prepared(layout="hwc", scale=255, channels="bgr")
    assert hwc[0].shape == (4, 6, 3)
    np.testing.assert_allclose(hwc[0][0, 0], (51, 51, 0), rtol=1e-6)
    assert prepared(exact_size=(5, 7), batch=True, layout="hwc").shape == (2, 5, 7, 3)
    imagenet = prepared(pictures=images[:1], normalize="imagenet")[0]
    np.testing.assert_allclose(imagenet[0], -0.485 / 0.229, rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"layout": "nchw"}, "layout"),
        ({"normalize": ((0, 0), (1, 1))}, "normalize"),
        ({"normalize": ((0, 0, 0), (1, 0, 1))}, "normalize"),
        ({"image_size": 0}, "image_size"),
        ({"image_size": (64, 32)}, "image_size"),
        ({"exact_size": 32}, "exact_size"),
        ({"image_size": 32, "exact_size": (32, 32)}, "not both"),
        ({"channels": "rgba"}, "channels"),
        ({"scale": -1}, "scale"),
        ({"divisor": 0}, "divisor"),
        ({"batch": "auto"}, "batch"),
        ({"taps": "p3"}, "list of names"),
        ({"taps": ["a", "a"]}, "twice"),
    ],
)
def test_wrong_options_are_named(options, words):
    with pytest.raises(ArgumentError, match=words):
        kd.Teacher.from_callable(shrunk, **options)


def _after(count, good, bad):
    """A function that behaves `count` times."""
    calls = []

    def fn(images):
        calls.append(1)
        return (good if len(calls) <= count else bad)(images)

    return kd.Teacher.from_callable(fn)


def _infinite(images):
    maps = shrunk(images)["p3"]
    maps[1, 0, 0, 0] = np.inf
    return {"p3": maps}


@pytest.mark.parametrize(
    ("bad", "error", "words"),
    [
        (lambda i: {"p3": shrunk(i)["p3"][:1]}, ShapeError, r"'p3' has shape \(1, 5, 6, 6\).*2 im"),
        (lambda i: {"p3": shrunk(i)["p3"][:, :4]}, ShapeError, r"\(2, 4, 6, 6\) now.*5 channels"),
        (lambda i: {"p3": shrunk(i)["mean"]}, ShapeError, r"\(2, 3\) now"),
        (lambda i: {"p4": shrunk(i)["p3"]}, ArgumentError, r"no tap 'p3'; it offers p4"),
        (lambda i: [shrunk(i)["p3"]], ArgumentError, "gives a dict of arrays by name, got list"),
        (lambda i: {"p3": [["a"]] * 2}, ArgumentError, "tap 'p3'"),
        (_infinite, KDSError, r"tap 'p3' is not finite for item \d"),
    ],
)
def test_a_teacher_that_goes_wrong_is_named(bad, error, words):
    student = detector(1, width=0.25)
    before = student.state_dict()
    with pytest.raises(error, match=words) as caught:
        run(_after(1, lambda i: {"p3": shrunk(i)["p3"]}, bad), student=student)
    assert "step 1, epoch 1, items" in str(caught.value)
    assert same(student, before)


def test_terms_name_what_a_teacher_offers():
    teacher = kd.Teacher.from_callable(shrunk)
    with pytest.raises(ArgumentError, match=r"no tap 'p9'; near are .*p3"):
        run(teacher, kd.Term("backbone.layer3", "p9"))
    with pytest.raises(ArgumentError, match=r"Chen2017 needs kdswift detectors.*offers p3, mean"):
        run(teacher, kd.methods.Chen2017())
    with pytest.raises(ArgumentError, match="Chen2017 needs kdswift detectors"):
        run([detector(7), teacher], kd.methods.Chen2017())
    with pytest.raises(ArgumentError, match="there are 1 teachers"):
        run(teacher, kd.Term("backbone.layer3", "1:p3"))
    with pytest.raises(ShapeError, match="mean over the teachers needs equal channels of p3"):
        other = kd.Teacher.from_callable(lambda i: {"p3": shrunk(i)["p3"][:, :2]})
        run([teacher, other], TERM)
    with pytest.raises(ArgumentError, match="from_callable"):
        run(shrunk)


def test_class_logits_need_the_same_classes():
    def fn(images):
        return {"logits": np.zeros((len(images), len(CLASSES)), np.float32)}

    teacher = kd.Teacher.from_callable(fn, class_names=[*CLASSES[:-1], "cat"])
    with pytest.raises(ArgumentError, match="the teacher's logits has .*cat"):
        run(teacher, kd.Term("roi.class_logits", "logits"))
    teacher = kd.Teacher.from_callable(fn, class_names=CLASSES)
    with pytest.raises(ShapeError, match="first axes differ"):  # regions here, images there
        run(teacher, kd.Term("roi.class_logits", "logits"))


def test_resume_is_exact_and_knows_the_teacher(tmp_path):
    def teacher(version="1"):
        return kd.Teacher.from_callable(shrunk, version=version)

    class Stop(kd.Callback):
        def on_step(self, run):
            if run.step == 3:
                run.stop()

    reference, _ = run(teacher(), out=tmp_path / "whole")
    run(teacher(), out=tmp_path / "cut", callbacks=Stop())
    resumed, _ = run(teacher(), out=tmp_path / "cut", student=detector(9, width=0.25))
    assert same(reference, resumed)
    with pytest.raises(ArgumentError, match=r"teachers\.0\.version was '1', is '2'"):
        run(teacher("2"), out=tmp_path / "cut")


def test_the_report_names_taps_and_connectors(capsys):
    run(kd.Teacher.from_callable(shrunk), epochs=1, progress=True)
    printed = capsys.readouterr().out
    assert "p3 (5 /8)" in printed
    assert "1x1 convolution 32 to 5" in printed


def test_outputs_need_images():
    with pytest.raises(ArgumentError, match="empty"):
        kd.Teacher.from_callable(shrunk).outputs([])
    images, _ = batch(2)
    assert kd.Teacher.from_callable(shrunk).outputs(images, ["mean"]).keys() == {"mean"}
