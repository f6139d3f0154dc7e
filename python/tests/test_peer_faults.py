"""What went wrong in other toolboxes, tried here on every method: adapters that nobody trains,
teachers that learn, weights without effect, losses that are silently 0, "no distillation" that is
not the baseline, students that carry the teacher's or the adapter's weights."""

from __future__ import annotations

import inspect
import math
from dataclasses import fields

import numpy as np
import pytest
from method_pairs import ADAPTING, METHODS, OPTIONS, TWO_STAGE, dense, distil, method_of, pair
from tiny import same, scenes

import kdswift as kd
from kdswift import runtime
from kdswift.errors import ArgumentError
from kdswift.methods import names

# Where the student may be at least as good as the teacher from the start.
MAY_BE_ZERO = ("regression",)
# FGD's context blocks begin with a last layer of zeros: the others get gradients from the second
# step on, too small for float32 with the published weight.
STRONG = {"fgd": "fgd:relation=1"}
# Regions and objects go to the level of their size.
BY_SIZE = ("fgfi", "mimic2017", "quantization_mimic", "gid")


class Extras(kd.Callback):
    """Notes what is learned beside the student."""

    def __init__(self):
        self.seen = []

    def _note(self, run):
        state = {name: value.numpy().copy() for name, value in run._trainer.state().items()}
        self.seen.append({n: v for n, v in state.items() if n.startswith(("connector.", "extra."))})

    on_start = _note
    on_step = _note


@pytest.mark.parametrize("name", METHODS)
def test_what_a_method_learns_is_in_the_optimizer_and_moves(name):
    student, teacher = pair(name, (16, 24) if name in ADAPTING else (16, 16))
    notes = Extras()
    optimizer = kd.SGD(lr=0.01, weight_decay=0.0)  # decay would move what nothing else does
    method = method_of(STRONG.get(name, name))
    distil(method, student, teacher, n=6, callbacks=[notes], optimizer=optimizer)
    before, after = notes.seen[0], notes.seen[-1]
    if name in ADAPTING and name != "chen2017":
        assert before, "unlike channels, and no adapter"
    still = [key for key in before if np.array_equal(before[key], after[key])]
    if name in BY_SIZE:  # small objects are all on the finest level
        still = [key for key in still if "p4" not in key]
    assert not still


@pytest.mark.parametrize("name", METHODS)
def test_every_loss_is_in_every_step_and_not_zero(name):
    student, teacher = pair(name)
    history = distil(name, student, teacher, n=6)
    plain = set(plain_history(pair(name)[0]).steps[0])
    added = set(history.steps[0]) - plain
    assert added, "the method adds no loss"
    for key in added:
        values = [step[key] for step in history.steps]
        assert len(values) == 3
        assert all(math.isfinite(value) for value in values), key
        if not key.endswith(MAY_BE_ZERO):
            assert all(value != 0 for value in values), key


def plain_history(student):
    return student.fit(scenes(6), **OPTIONS)


@pytest.mark.parametrize("name", METHODS)
def test_no_weight_is_the_baseline_bit_for_bit(name):
    plain = pair(name)[0]
    plain.fit(scenes(4), **OPTIONS)
    student, teacher = pair(name)
    distil(0 * method_of(name), student, teacher)
    assert same(plain, student)


@pytest.mark.parametrize("name", METHODS)
def test_twice_the_weight_is_twice_the_loss(name):
    def first(scale):
        student, teacher = pair(name)
        return distil(scale * method_of(name), student, teacher, n=2).steps[0]

    once, twice = first(0.25), first(0.5)
    plain = set(plain_history(pair(name)[0]).steps[0])
    for key in set(once) - plain:
        # Both are products of one float32 loss with an exact power of two.
        assert twice[key] == pytest.approx(2 * once[key], rel=1e-6), key


@pytest.mark.parametrize("name", METHODS)
def test_the_teacher_is_left_alone(name):
    student, teacher = pair(name)
    before = {key: value.copy() for key, value in teacher.state_dict().items()}
    training, learns = teacher.training, [p.requires_grad for _, p in teacher.named_parameters()]
    distil(name, student, teacher)
    assert same(before, teacher.state_dict())
    assert teacher.training == training
    assert [p.requires_grad for _, p in teacher.named_parameters()] == learns
    assert all(p.grad is None for _, p in teacher.named_parameters())


@pytest.mark.parametrize("name", METHODS)
def test_the_saved_student_is_a_plain_detector(name, tmp_path):
    student, teacher = pair(name)
    wanted = {key: value.shape for key, value in student.state_dict().items()}
    distil(name, student, teacher, n=2, out=tmp_path)
    found = kd.load(tmp_path / "last.safetensors").state_dict()
    assert {key: value.shape for key, value in found.items()} == wanted


@pytest.mark.parametrize("name", METHODS)
def test_a_run_continues_with_its_adapters(name, tmp_path):
    def start():
        return pair(name, (16, 24) if name in ADAPTING else (16, 16))

    student, teacher = start()
    distil(name, student, teacher, epochs=2, out=tmp_path / "whole")
    half, teacher = start()

    def stop(run):
        run.stop()

    distil(name, half, teacher, epochs=2, out=tmp_path / "half", callbacks=[stop])
    resumed, teacher = start()
    distil(name, resumed, teacher, epochs=2, out=tmp_path / "half")
    assert same(student, resumed)


@pytest.mark.parametrize("name", METHODS)
def test_every_option_is_read(name):
    method = names()[name]
    module = inspect.getsource(inspect.getmodule(method))
    for option in (field.name for field in fields(method)):
        uses = module.count(f"self.{option}") + module.count(f"method.{option}")
        uses += module.count(f'"{option}"')
        if name == "chen2017":  # its options are the engine's, which refuses unknown ones
            continue
        if option == "levels":
            uses += 1
        assert uses >= 1, f"{option} is never read"


@pytest.mark.parametrize("name", METHODS)
def test_unknown_options_are_errors(name):
    with pytest.raises(ArgumentError, match="has no option 'wieght'"):
        kd.methods.by_name(f"{name}:wieght=1")


@pytest.mark.parametrize("name", METHODS)
def test_the_doctor_finds_nothing_wrong(name):
    student, teacher = pair(name)
    report = kd.doctor(student, teacher, scenes(4), name, sample=0, batch_size=2)
    # A tiny teacher of random weights may be no better than its student in boxes.
    failed = [row for row in report.failed if not row.check.endswith("_regression")]
    assert not failed, report
    assert set(report.shares) > {"detection"}


def test_a_tap_that_is_not_there_is_named():
    student, teacher = pair("cwd")
    with pytest.raises(ArgumentError, match=r"the student has no tap 'neck.p7'; near are neck"):
        distil(kd.methods.CWD(levels=["neck.p7"]), student, teacher)
    with pytest.raises(ArgumentError, match=r"the teacher has no tap 'body.p7'; near are"):
        distil(kd.methods.CWD(levels=[("neck.p3", "body.p7")]), student, teacher)


def test_a_teacher_that_gives_nothing_is_an_error():
    teacher = kd.Teacher.from_callable(lambda images: {})
    with pytest.raises(ArgumentError):
        distil("cwd", pair("cwd")[0], teacher)


@pytest.mark.parametrize("name", TWO_STAGE)
def test_one_stage_students_are_told_what_does_not_fit(name):
    with pytest.raises(ArgumentError, match=r"one-stage|must be a Faster R-CNN"):
        distil(name, dense(seed=1), dense(seed=2, width=0.5))


@pytest.mark.parametrize("name", ["ld", "crosskd"])
def test_methods_of_dense_heads_refuse_others(name):
    student, teacher = pair("mimic2017")
    with pytest.raises(ArgumentError, match="the student is a FasterRCNN"):
        distil(name, student, teacher)


def test_the_step_does_not_grow_with_time():
    """No tape keeps the teacher's maps: as many engine objects after ten steps as after two."""
    counts = []

    class Count(kd.Callback):
        def on_step(self, run):
            counts.append(runtime.live_handles())

    student, teacher = pair("fgd")
    distil("fgd", student, teacher, n=20, callbacks=[Count()])
    assert counts[-1] == counts[1]
