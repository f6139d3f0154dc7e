"""Methods as data: sums, windows, text, what they build, and what a run does with them."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
from tiny import CLASSES, detector, scenes

import kdswift as kd
from kdswift.errors import ArgumentError, ShapeError
from kdswift.methods import CWD, FGFI, PKD, Chen2017, FeatureMatching, Part, Window, names

OPTIONS = {"epochs": 1, "batch_size": 2, "progress": False, "workers": 0, "seed": 1}


def run(student=None, teacher=None, **options):
    student = detector(seed=1) if student is None else student
    teacher = detector(seed=2, width=1.0) if teacher is None else teacher
    history = kd.distill(student, teacher, scenes(8), **{**OPTIONS, **options})
    return student, history


# Windows


@pytest.mark.parametrize(
    ("window", "factors"),
    [
        (Window(), [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]),
        (Window(start=3), [0, 0, 0, 1, 1, 1, 1, 1, 1, 1]),
        (Window(stop=3), [1, 1, 1, 0, 0, 0, 0, 0, 0, 0]),
        (Window(start=0.2, stop=0.5), [0, 0, 1, 1, 1, 0, 0, 0, 0, 0]),
        (Window(start=2, ramp=4), [0, 0, 0, 0.25, 0.5, 0.75, 1, 1, 1, 1]),
        (Window(decay="linear"), [1, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1]),
        (Window(ramp=2, stop=6, decay="linear"), [0, 0.5, 1, 0.75, 0.5, 0.25, 0, 0, 0, 0]),
    ],
)
def test_factors_of_windows(window, factors):
    assert [window.factor(step, 10) for step in range(10)] == pytest.approx(factors)


def test_a_cosine_ends_at_nothing():
    window = Window(stop=9, decay="cosine")
    values = [window.factor(step, 10) for step in range(10)]
    assert values[0] == 1
    assert values[9] == 0
    assert values[3] == pytest.approx(0.5 * (1 + math.cos(math.pi / 3)))


@pytest.mark.parametrize(
    "wrong", [{"start": -1}, {"stop": 2.5}, {"ramp": math.nan}, {"decay": "quick"}, {"start": "x"}]
)
def test_windows_refuse(wrong):
    with pytest.raises(ArgumentError, match=f"during: {next(iter(wrong))}"):
        Window(**wrong)


# Sums


def test_sums_keep_scales_and_windows():
    method = (2 * CWD()).during(start=5) + PKD() + kd.Term("backbone.layer2")
    first, second, third = method.parts
    assert (first.scale, second.scale, third.scale) == (2, 1, 1)
    assert first.windows == (Window(start=5),)
    assert repr(method) == "(2 * CWD()).during(start=5) + PKD() + " + repr(third.part)
    assert method.always().parts[0] == Part(2.0, first.part)
    twice = method.during(stop=0.5).parts[0]
    assert [twice.factor(step, 20) for step in (4, 5, 9, 10)] == [0, 1, 1, 0]


def test_describe_tells_everything():
    plain = (0.5 * CWD(temperature=2.0)).during(ramp=10).describe()
    (part,) = plain["parts"]
    assert part["name"] == "cwd"
    assert part["scale"] == 0.5
    assert part["temperature"] == 2.0
    assert part["windows"] == [Window(ramp=10).describe()]


# Text


def test_text():
    method = kd.methods.by_name("cwd:weight=3,form=ce + 0.5*pkd + 1e+1*chen2017:hint=false")
    shown = "CWD(weight=3, form='ce') + 0.5 * PKD() + 10 * Chen2017(hint=False)"
    assert repr(method) == shown
    assert isinstance(kd.methods.by_name("chen2017"), Chen2017)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("cwdd", "did you mean 'cwd'"),
        ("cwd:wait=3", "cwd has no option 'wait'; it has weight"),
        ("cwd:weight", "'weight' is no option=value"),
        ("many*cwd", "'many' is no number"),
        ("cwd:weight=-1", "weight is -1"),
        ("cwd + ", "'' is not known"),
    ],
)
def test_text_refuses(text, words):
    with pytest.raises(ArgumentError, match=re.escape(words)):
        kd.methods.by_name(text)


def test_every_method_has_a_page_of_words():
    for name, method in names().items():
        assert method.label == name
        assert len(method.__doc__.strip()) > 100, name
        assert repr(method()) == f"{method.__name__}()"


# Runs


def test_a_window_of_a_python_part():
    method = kd.Method([kd.Term("backbone.layer3", name="late")]).during(start=2, stop=3)
    _, history = run(method=method, log_every=1)
    assert [row["late"] > 0 for row in history.steps] == [False, False, True, False]
    plain = run(method=0 * method, log_every=1)[1]
    for late, without in zip(history.steps[:2], plain.steps):
        assert late["loss"] == without["loss"]


def test_a_window_of_an_engine_part():
    method = Chen2017().during(start=2)
    _, history = run(method=method, log_every=1)
    _, base = run_plain()
    hint = [row.get("distill_hint", 0) for row in history.steps]
    assert [value > 0 for value in hint] == [False, False, True, True]
    for windowed, without in zip(history.steps[:2], base.steps):
        assert windowed["loss"] == without["loss"]


def run_plain():
    student = detector(seed=1)
    options = {key: value for key, value in OPTIONS.items() if key != "method"}
    return student, student.fit(scenes(8), log_every=1, **options)


def test_no_weight_is_plain_training_bit_for_bit():
    plain, _ = run_plain()
    for method in (0 * FeatureMatching(), FeatureMatching().during(start=100)):
        student, _ = run(method=method)
        for name, value in plain.state_dict().items():
            assert value.tobytes() == student.state_dict()[name].tobytes(), name


def test_resuming_inside_a_ramp(tmp_path):
    method = FeatureMatching().during(ramp=6)
    whole, _ = run(method=method, epochs=2, out=tmp_path / "whole")
    broken = detector(seed=1)

    def stop(run):
        if run.epoch == 1:
            run.stop()

    run(broken, method=method, epochs=2, out=tmp_path / "parts", callbacks=[stop])
    resumed, _ = run(detector(seed=5), method=method, epochs=2, out=tmp_path / "parts")
    for name, value in whole.state_dict().items():
        assert value.tobytes() == resumed.state_dict()[name].tobytes(), name


def test_levels_are_paired_by_stride():
    student, teacher = pyramid(0, 16), pyramid(1, 24)
    _, history = run(student, teacher, method=FeatureMatching(), log_every=1)
    assert history.steps[0]["feature_matching"] > 0
    with pytest.raises(ShapeError, match="PKD has no adaptation layer: the student's neck.p2 has"):
        run(student, teacher, method=PKD())
    with pytest.raises(ArgumentError, match="the student has no tap 'neck.p9'; near are"):
        run(student, teacher, method=FeatureMatching(levels=["neck.p9"]))


def test_unlike_strides_are_named():
    student, teacher = detector(seed=1), pyramid(1, 16)
    method = FeatureMatching(levels=[("backbone.layer3", "neck.p4")])
    assert run(student, teacher, method=method, log_every=1)[1].steps[0]["feature_matching"] > 0


def test_several_teachers_share_the_weight():
    teachers = [detector(seed=2, width=1.0), detector(seed=2, width=1.0)]
    one = run(method=FeatureMatching(), log_every=1)[1].steps[0]
    two = run(teacher=teachers, method=FeatureMatching(), log_every=1)[1].steps[0]
    # Adapters of their own start differently: the sum of halves is of the same size, not equal.
    total = two["feature_matching"] + two["feature_matching.2"]
    assert total == pytest.approx(one["feature_matching"], rel=0.5)


def test_adapters_are_trained():
    moved = {}

    def note(run):
        moved.setdefault("first", state(run))
        moved["last"] = state(run)

    def state(run):
        return {
            name: value.numpy().copy()
            for name, value in run._trainer.state().items()
            if name.startswith("extra.")
        }

    run(method=FeatureMatching(), epochs=2, callbacks=[note])
    assert moved["first"], "there is no adapter"
    for name, value in moved["first"].items():
        assert not np.array_equal(value, moved["last"][name]), name


def pyramid(seed, channels):
    """A small Faster R-CNN on a pyramid of four levels."""
    return kd.FasterRCNN(
        *(kd.backbones.resnet18(width=0.125), len(CLASSES)),
        neck=kd.FPN(channels),
        image_size=(48, 64),
        anchors=kd.Anchors(sizes=(8, 16, 24, 32, 48), ratios=(1,)),
        roi={"hidden": [32], "pool_size": 3},
        seed=seed,
    )


def test_imitation_takes_the_anchors_of_its_level():
    """One level named alone is compared as it is among all of them."""
    from method_pairs import pair

    def steps(levels):
        student, teacher = pair("fgfi")
        method = FGFI(form="paper", levels=levels, start=0)
        return run(student, teacher, method=method, log_every=1)[1].steps[0]["fgfi"]

    both = steps(["neck.p3", "neck.p4"])
    assert steps(["neck.p3"]) + steps(["neck.p4"]) == pytest.approx(both, rel=1e-5)
    with pytest.raises(ArgumentError, match="the student has no anchors on backbone.layer2, only"):
        steps(["backbone.layer2"])


def with_classes(model_of, names):
    """A teacher of its own classes."""
    import method_pairs

    before, method_pairs.CLASSES = method_pairs.CLASSES, names
    try:
        return model_of()
    finally:
        method_pairs.CLASSES = before


@pytest.mark.parametrize("kind", ["regions", "dense"])
def test_teachers_with_other_classes(kind, capsys):
    import method_pairs

    def make(seed):
        return method_pairs.regions(seed) if kind == "regions" else method_pairs.dense(seed=seed)

    teacher = with_classes(lambda: make(2), ("background", "one", "2", "cat"))
    mapping = {"one": "1", "2": "2"}
    with pytest.raises(ArgumentError, match="the teacher has no class 'dog'"):
        run(make(1), teacher, method=kd.methods.SoftLabels(class_map={"dog": "1"}))
    with pytest.raises(ArgumentError, match="have no class in common"):
        strangers = with_classes(lambda: make(2), ("background", "a", "b", "c"))
        run(make(1), strangers, method=kd.methods.SoftLabels())
    capsys.readouterr()
    method = kd.methods.SoftLabels(class_map=mapping)
    _, history = run(make(1), teacher, method=method, log_every=1, progress=True)
    assert history.steps[0]["soft_labels"] > 0
    said = capsys.readouterr()
    assert re.search(
        r"soft_labels: \d+\.\d% of the teacher's scores .* \(cat\)", said.out + said.err
    )
    # Features need no common classes.
    assert run(make(1), teacher, method=FeatureMatching(), log_every=1)[1].steps


def test_a_map_of_classes_takes_their_columns():
    from kdswift.comparisons.classes import ClassMap

    names = ("background", "car", "person"), ("background", "dog", "person", "car")
    found = ClassMap(*names, (3, 4))
    assert found.student.tolist() == [0, 1, 2]
    assert found.teacher.tolist() == [0, 3, 2]
    assert found.unmapped == ["dog"]
    shares = np.array([[0.1, 0.2, 0.3, 0.4]])
    assert found.mass(shares) == pytest.approx(0.2)
    with pytest.raises(ArgumentError, match="'dog' and 'car' of the teacher are both 'car'"):
        ClassMap(*names, (3, 4), {"dog": "car", "car": "car"})


@pytest.mark.parametrize("name", ["feature_matching", "cwd", "pkd", "fgd", "attention_transfer"])
def test_maps_go_from_any_kind_of_detector_to_any_other(name):
    """One-stage to two-stage, a transformer to convolutions and back."""
    import method_pairs

    swin = kd.RetinaNet(
        *(kd.backbones.swin_t(width=0.34), len(CLASSES)),
        neck=kd.FPN(channels=16, extra="none", start="stage2"),
        image_size=(48, 48),
        anchors=kd.Anchors(sizes=(16, 28, 40), ratios=(1,)),
        class_names=CLASSES,
        head={"convs": 1},
        seed=3,
    )
    method = kd.methods.by_name(name)
    for student, teacher in (
        (method_pairs.regions(1), method_pairs.dense("RetinaNet", 2, 0.5)),
        (method_pairs.dense("FCOS", 1), method_pairs.regions(2, 0.5)),
        (method_pairs.regions(1), swin),
        (swin, method_pairs.dense("RetinaNet", 2, 0.5)),
    ):
        _, history = run(student, teacher, method=method, log_every=1)
        assert history.steps[0][name] > 0, (student, teacher)
