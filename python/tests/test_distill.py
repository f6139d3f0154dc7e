"""Distillation: methods as data, the student's gain, the teacher's rest, terms of one's own."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from tiny import QUIET, detector, same, scenes

import kdswift as kd
from kdswift.errors import ArgumentError, ShapeError
from kdswift.methods import Chen2017, as_method

HINT = "distill_hint"
HEADS = {f"distill_{h}_{kind}" for h in ("rpn", "rcn") for kind in ("classification", "regression")}


def run(method=None, out=None, *, teacher=None, student=None, epochs=2, seed=3, **options):
    """A short distillation: 2 steps an epoch."""
    teacher = detector(7) if teacher is None else teacher
    student = detector(1, width=0.25) if student is None else student
    options = {**QUIET, "optimizer": kd.SGD(lr=0.02), **options}
    history = kd.distill(
        student, teacher, scenes(4), method, epochs, out=out, seed=seed, log_every=1, **options
    )
    return student, history


def plain():
    """The same run without a teacher."""
    student = detector(1, width=0.25)
    student.fit(scenes(4), 2, seed=3, optimizer=kd.SGD(lr=0.02), **QUIET)
    return student


def test_every_term_is_recorded():
    _, history = run()
    assert {HINT, *HEADS} <= set(history.rows[0])
    assert all(np.isfinite(v) for row in history.steps for v in row.values())


def test_the_teacher_never_changes():
    teacher = detector(7)
    before = teacher.state_dict()
    run(teacher=teacher)
    assert same(teacher, before)
    assert all(p.requires_grad for p in teacher.parameters())


@pytest.mark.parametrize(
    "method",
    [
        0 * Chen2017(),
        Chen2017(classification=None, regression=None, hint=False),
        Chen2017(classification=None, nu=0, gamma=0),
        kd.Method([kd.Term("backbone.layer2", weight=0)]),
        0 * Chen2017() + 0 * kd.Method([kd.Term("backbone.layer2")]),
    ],
    ids=repr,
)
def test_without_weight_it_is_plain_training_bit_for_bit(method):
    assert same(plain(), run(method)[0])


def test_with_weight_it_is_not():
    assert not same(plain(), run(Chen2017())[0])


def test_two_runs_are_equal():
    assert same(run()[0], run()[0])


def test_resuming_repeats_bit_for_bit(tmp_path):
    method = Chen2017() + kd.Method([kd.Term("backbone.layer2", loss="l1", weight=0.3)])
    reference, _ = run(method, tmp_path / "whole")

    class Stop(kd.Callback):
        def on_step(self, run):
            if run.step == 3:
                run.stop()

    run(method, tmp_path / "cut", callbacks=Stop())
    resumed, _ = run(method, tmp_path / "cut", student=detector(9, width=0.25))
    assert same(reference, resumed)


def test_resume_refuses_another_method_or_teacher(tmp_path):
    run(out=tmp_path)
    with pytest.raises(ArgumentError, match=r"method\.parts\.0\.gamma was 0\.5, is 0\.7"):
        run(Chen2017(gamma=0.7), tmp_path)
    with pytest.raises(ArgumentError, match=r"teachers\.0\.weights"):
        run(out=tmp_path, teacher=detector(8))


@pytest.mark.parametrize("name", list(Chen2017.table4()))
def test_every_row_of_table_4_runs(name):
    method = Chen2017.table4()[name]
    student = detector(1) if name == "Hints" else None  # without adaptation channels must match
    _, history = run(method, epochs=1, student=student)
    terms = {key for key in history.rows[0] if key.startswith("distill")}
    expected = set()
    if method.classification:
        expected |= {n for n in HEADS if n.endswith("classification")}
    if method.regression:
        expected |= {n for n in HEADS if n.endswith("regression")}
    assert terms == expected | ({HINT} if method.hint else set())


def test_methods_are_data():
    method = 0.5 * Chen2017(mu=0.8) + Chen2017(hint=False) * 2
    parts = method.to_dict()["parts"]
    assert [part["scale"] for part in parts] == [0.5, 2]
    assert parts[0]["mu"] == 0.8
    assert parts[0]["hint_layer"] == ""
    assert repr(method) == "0.5 * Chen2017(mu=0.8) + 2 * Chen2017(hint=False)"
    assert [t.weight for t in (0.5 * kd.Method([kd.Term("a", weight=3)])).terms] == [1.5]
    assert as_method(None).to_dict() == Chen2017().to_dict()
    assert dataclasses.replace(Chen2017(), mu=0.1).mu == 0.1


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Chen2017(classification="hard"), "classification"),
        (lambda: Chen2017(regression="l1"), "regression"),
        (lambda: Chen2017(mu=1.5), "mu"),
        (lambda: Chen2017(nu=-1), "nu"),
        (lambda: Chen2017(gamma=float("nan")), "gamma"),
        (lambda: Chen2017(temperature=0), "temperature"),
        (lambda: -1 * Chen2017(), "scaled by -1"),
        (lambda: kd.Term("a", loss="l3"), "loss"),
        (lambda: kd.Term("a", connector="mlp"), "connector"),
        (lambda: kd.Method(["a"]), r"terms\[0\]"),
        (lambda: as_method(3), "method"),
    ],
)
def test_wrong_methods_are_named(make, words):
    with pytest.raises(ArgumentError, match=words):
        make()


def test_own_terms_meet_by_connectors():
    seen = {}

    def loss(student, teacher):
        seen["shapes"] = student.shape, teacher.shape
        seen["gradients"] = student.requires_grad, teacher.requires_grad
        return ((student - teacher) ** 2).mean()

    terms = [kd.Term("backbone.layer1", "backbone.layer2", loss, 0.5, name="mine")]
    _, history = run(kd.Method(terms), epochs=6, optimizer=kd.AdamW(lr=5e-3))
    assert seen["shapes"][0] == seen["shapes"][1]
    assert seen["gradients"] == (True, False)
    values = [row["mine"] for row in history.rows]
    assert values[-1] < values[0]


def test_own_terms_on_the_heads():
    method = kd.Method([kd.Term("roi.class_logits", loss="mse"), kd.Term("rpn.objectness")])
    _, history = run(method, epochs=1)
    assert {"mse.roi.class_logits", "l2.rpn.objectness"} <= set(history.rows[0])


def test_terms_fail_with_names():
    with pytest.raises(ArgumentError, match=r"student has no tap 'backbone\.layer9'"):
        run(kd.Method([kd.Term("backbone.layer9", "backbone.layer1")]))
    with pytest.raises(ShapeError, match=r"l2\.backbone\.layer2: .*\(2, 32, 6, 6\)"):
        run(kd.Method([kd.Term("backbone.layer2", connector="none")]))
    with pytest.raises(ShapeError, match="must give a kd tensor with one element"):
        run(kd.Method([kd.Term("backbone.layer2", loss=lambda s, t: s)]))


def test_hints_without_adaptation_need_equal_channels():
    with pytest.raises((ShapeError, ArgumentError), match="adaptation"):
        run(Chen2017(adaptation=False))


def test_teacher_and_student_at_different_sizes():
    teacher = kd.FasterRCNN(
        kd.backbones.resnet_small(0.5),
        *(11, None, kd.Anchors(sizes=(32, 48), ratios=(1, 2)), (96, 96)),
        seed=7,
    )
    _, history = run(teacher=teacher, epochs=1)
    _, again = run(teacher=teacher, epochs=1, teacher_size=96)
    assert np.isfinite(history.rows[0][HINT])
    assert np.isfinite(again.rows[0][HINT])


def test_several_teachers():
    teachers = [detector(7), detector(8)]
    _, history = run(teacher=teachers, epochs=1)
    assert np.isfinite(history.rows[0]["loss"])
    assert same(run(teacher=kd.Ensemble(teachers))[0], run(teacher=teachers)[0])


def test_wrong_teachers_are_refused():
    student = detector(1)
    with pytest.raises(ArgumentError, match="same object"):
        run(student=student, teacher=student)
    with pytest.raises(ArgumentError, match="teacher must be a kdswift detector"):
        run(teacher="best.safetensors")
    with pytest.raises(ArgumentError, match="empty list"):
        run(teacher=[])
    with pytest.raises(ArgumentError, match="3 classes, the student 11"):
        run(teacher=kd.FasterRCNN("resnet_small", 3, seed=0))


def test_the_shape_report_is_printed(capsys):
    method = Chen2017() + kd.Method([kd.Term("backbone.layer1", name="mine")])
    run(method, epochs=1, progress=True)
    printed = capsys.readouterr().out
    assert "1x1 convolution" in printed
    assert "mine" in printed


def test_distillation_pulls_the_student_towards_the_teacher():
    # The hint alone: its value must fall when it is trained, far more than without its weight.
    options = {"epochs": 15, "optimizer": kd.AdamW(lr=5e-3), "schedule": kd.Constant()}
    _, history = run(Chen2017(classification=None, regression=None), **options)
    assert history.rows[-1][HINT] < 0.7 * history.rows[0][HINT]
