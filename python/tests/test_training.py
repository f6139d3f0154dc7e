"""The loop: what it learns, records and keeps; that it repeats, resumes and stops as promised."""

from __future__ import annotations

import csv
import os
import signal
import time

import numpy as np
import pytest
from tiny import QUIET, detector, python, same, scenes

import kdswift as kd
from kdswift.errors import ArgumentError, KDSError
from kdswift.schedules import as_schedule

TERMS = {"loss_objectness", "loss_rpn_box_reg", "loss_classifier", "loss_box_reg"}


def fit(out=None, *, epochs=2, seed=3, n=6, model=None, **options):
    """A short run: 3 steps an epoch."""
    model = detector(1) if model is None else model
    options = {**QUIET, "optimizer": kd.SGD(lr=0.02), **options}
    return model, model.fit(scenes(n), epochs, out=out, seed=seed, log_every=1, **options)


@pytest.fixture(scope="module")
def reference():
    """The weights of an uninterrupted run of two epochs."""
    return fit()[0].state_dict()


def test_history_has_every_term():
    model, history = fit(val=scenes(4, "val"))
    assert [row["epoch"] for row in history.rows] == [1, 2]
    assert [row["step"] for row in history.steps] == [1, 2, 3, 4, 5, 6]
    assert set(history.rows[0]) >= {"loss", "lr", "grad_norm", "AP", "AP50", "seconds", *TERMS}
    mean = np.mean([row["loss_box_reg"] for row in history.steps[:3]])
    assert history.rows[0]["loss_box_reg"] == pytest.approx(mean)
    assert history.best in history.rows
    assert not history.interrupted
    assert not model.training
    assert model.lineage[-1]["steps"] == 6
    assert "loss_box_reg" in history._repr_html_()
    assert len(history.frame("step")["loss"]) == 6
    assert history.plot() is not None


def test_it_learns():
    # 30 steps on two images: a loop that did not update, or updated the wrong way, stays above.
    _model, history = fit(epochs=30, n=2, optimizer=kd.AdamW(lr=3e-3), schedule=kd.Constant())
    assert history.rows[-1]["loss"] < 0.5 * history.rows[0]["loss"]


def test_two_runs_are_equal(reference):
    assert same(reference, fit(workers=2)[0])
    assert not same(reference, fit(seed=4)[0])


def test_run_folder(tmp_path):
    model, history = fit(tmp_path / "run", val=scenes(2, "val"))
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names == {
        *("checkpoint.safetensors", "checkpoint.previous.safetensors", "last.safetensors"),
        *("best.safetensors", "results.csv", "steps.csv", "curves.png"),
    }
    assert same(model, kd.load(tmp_path / "run" / "last.safetensors"))
    assert same(model, kd.load(tmp_path / "run" / "checkpoint.safetensors"))
    with open(tmp_path / "run" / "results.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["loss"]) for row in rows] == [row["loss"] for row in history.rows]
    assert history.out == str(tmp_path / "run")


class _StopAt(kd.Callback):
    def __init__(self, step):
        self.at = step

    def on_step(self, run):
        if run.step == self.at:
            run.stop()


@pytest.mark.parametrize("at", [1, 3, 4])
def test_resuming_repeats_bit_for_bit(reference, tmp_path, at):
    fit(tmp_path, callbacks=_StopAt(at))
    model, history = fit(tmp_path, model=detector(9))
    assert same(reference, model)
    assert [row["step"] for row in history.steps] == [1, 2, 3, 4, 5, 6]
    assert [row["epoch"] for row in history.rows] == [1, 2]


def test_a_finished_run_is_read_back(reference, tmp_path):
    _, first = fit(tmp_path)
    model, again = fit(tmp_path, model=detector(9))
    assert same(reference, model)
    assert again.rows == first.rows


_KILLED = """
import os, signal, sys
import kdswift as kd
import test_training as t

class Kill(kd.Callback):
    def on_step(self, run):
        if run.step == int(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGKILL)

t.fit(sys.argv[1], checkpoint_every=2, callbacks=Kill())
"""


@pytest.mark.parametrize("at", [3, 5])
def test_sigkill_and_resume_repeat_bit_for_bit(reference, tmp_path, at):
    process = python(_KILLED, tmp_path, at)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == -signal.SIGKILL, errors
    model, history = fit(tmp_path, checkpoint_every=2)
    assert same(reference, model)
    assert [row["step"] for row in history.steps] == [1, 2, 3, 4, 5, 6]


_LONG = """
import sys
import test_training as t

_, history = t.fit(sys.argv[1], epochs=100000)
print("interrupted", history.interrupted)
"""


def test_ctrl_c_keeps_the_model(tmp_path):
    process = python(_LONG, tmp_path)
    deadline = time.monotonic() + 120
    while not (tmp_path / "checkpoint.safetensors").exists() and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGINT)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert "Traceback" not in errors
    assert "interrupted True" in output
    assert "interrupted after step" in output
    step = kd.load(tmp_path / "last.safetensors").lineage[-1]["steps"]
    with open(tmp_path / "steps.csv", newline="") as file:
        assert int(list(csv.DictReader(file))[-1]["step"]) == step


def test_resume_refuses_other_settings(tmp_path):
    fit(tmp_path, epochs=1)
    for change, name in (
        ({"optimizer": kd.SGD(lr=0.03)}, r"optimizer\.lr was 0\.02, is 0\.03"),
        ({"batch_size": 3}, "batch_size was 2, is 3"),
        ({"seed": 4}, "seed was 3, is 4"),
        ({"n": 8}, "dataset_length was 6, is 8"),
        ({"epochs": 2}, r"schedule\.total_steps was 3, is 6"),
        ({"model": detector(1, width=0.25)}, r"student\.backbone\.width was 0\.5, is 0\.25"),
    ):
        with pytest.raises(ArgumentError, match=name):
            fit(tmp_path, **{"epochs": 1, **change})
    _model, history = fit(tmp_path, epochs=1, seed=4, resume=False)
    assert [row["step"] for row in history.steps] == [1, 2, 3]


def test_resume_wants_what_it_is_told(tmp_path):
    with pytest.raises(ArgumentError, match="holds no checkpoint"):
        fit(tmp_path, resume=True)
    with pytest.raises(ArgumentError, match="needs out="):
        fit(None, resume=True)
    fit(tmp_path / "first", epochs=1, schedule=kd.Constant())
    model, _history = fit(
        tmp_path / "second", epochs=2, schedule=kd.Constant(), resume=tmp_path / "first"
    )
    assert same(model, fit(epochs=2, schedule=kd.Constant())[0])


def test_callbacks(tmp_path):
    seen = []

    class Watch(kd.Callback):
        def on_start(self, run):
            seen.append("start")

        def on_step(self, run):
            seen.append(run.metrics["loss"])

        def on_epoch(self, run):
            seen.append(run.row["epoch"])

        def on_end(self, run):
            seen.append("end")

    _, history = fit(callbacks=[Watch(), lambda run: seen.append("function")])
    losses = [row["loss"] for row in history.steps]
    assert seen == [
        "start", *losses[:3], 1, "function", *losses[3:], 2, "function", "end"
    ]  # fmt: skip
    with pytest.raises(ArgumentError, match=r"callbacks\[0\]"):
        fit(callbacks=["what"])


def test_early_stopping():
    stop = kd.EarlyStopping("loss", patience=1, least_gain=1e9, mode="min")
    _, history = fit(epochs=5, callbacks=stop)
    assert len(history.rows) == 2


def test_evaluation_every_second_epoch_and_at_the_end():
    _, history = fit(epochs=3, val=scenes(2, "val"), eval_every=2)
    assert ["AP" in row for row in history.rows] == [False, True, True]


def test_a_loader_and_plain_lists_train(reference):
    loader = kd.data.Loader(scenes(6), 2, shuffle=True, workers=0, seed=3)
    model = detector(1)
    model.fit(loader, 2, seed=3, optimizer=kd.SGD(lr=0.02), progress=False)
    assert same(reference, model)
    pairs = [scenes(2)[i] for i in range(2)]
    assert len(detector(1).fit(pairs, 1, **QUIET).rows) == 1


def test_images_without_boxes_train():
    image = scenes(1)[0][0]
    empty = {"boxes": np.zeros((0, 4), np.float32), "labels": np.zeros(0, np.int64)}
    _, history = detector(1), detector(1).fit([(image, empty)] * 4, 2, **QUIET)
    assert np.isfinite(history.rows[-1]["loss"])
    assert history.rows[-1]["loss_box_reg"] == 0
    assert history.rows[-1]["loss_rpn_box_reg"] == 0


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    fit(tmp_path, epochs=1, schedule=kd.Constant(), optimizer=kd.SGD(lr=0.02))
    good = kd.load(tmp_path / "checkpoint.safetensors").state_dict()
    model = detector(1)
    with pytest.raises(KDSError, match=r"step \d+, epoch \d+, items .*finite|nan|inf"):
        model.fit(scenes(6), 50, out=tmp_path / "bad", optimizer=kd.SGD(lr=1e12), **QUIET)
    assert all(np.isfinite(v).all() for v in model.state_dict().values())
    assert same(good, kd.load(tmp_path / "checkpoint.safetensors"))


def test_classes_must_agree():
    model = kd.FasterRCNN(kd.backbones.resnet_small(0.5), 4, image_size=(48, 48), seed=0)
    with pytest.raises(ArgumentError, match="train has 11 classes, the model 4"):
        model.fit(scenes(2), 1, **QUIET)
    names = ["background", *"9876543210"]
    model = kd.FasterRCNN(kd.backbones.resnet_small(0.5), 11, class_names=names, seed=0)
    with pytest.raises(ArgumentError, match="class 1 is '0' in train, '9' in the model"):
        model.fit(scenes(2), 1, **QUIET)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"epochs": 0}, "epochs"),
        ({"batch_size": 0}, "batch_size"),
        ({"seed": -1}, "seed"),
        ({"precision": "fp8"}, "precision"),
        ({"metric": "f1"}, "metric"),
        ({"clip_norm": -1}, "clip_norm"),
        ({"optimizer": "lion"}, "optimizer"),
        ({"schedule": "sawtooth"}, "schedule"),
        ({"n": 0}, "empty"),
    ],
)
def test_wrong_arguments_are_named(options, words):
    with pytest.raises(ArgumentError, match=words):
        fit(**options)
    with pytest.raises(ArgumentError, match="train must be"):
        detector(1).fit(5, 1)


def test_schedules_resolve():
    assert kd.Cosine(warmup=0.1).resolve(200, 20)["warmup_steps"] == 20
    assert kd.Cosine(warmup=7).resolve(200, 20)["warmup_steps"] == 7
    assert kd.Step(milestones=(8, 11)).resolve(240, 20)["milestones"] == [160, 220]
    assert kd.Step(milestones=(0.5, 0.75)).resolve(240, 20)["milestones"] == [120, 180]
    assert as_schedule(None).resolve(100, 10)["total_steps"] == 100
    for wrong in (
        lambda: kd.Cosine(warmup=1.5),
        lambda: kd.Cosine(final_factor=2),
        lambda: kd.Step(milestones=(3, 1)),
        lambda: kd.SGD(lr=float("nan")),
        lambda: kd.SGD(momentum=1.0),
        lambda: kd.Adam(beta1=-0.1),
    ):
        with pytest.raises(ArgumentError):
            wrong()


def test_learning_rate_follows_the_schedule():
    _, history = fit(schedule=kd.Step(milestones=(1,), gamma=0.1), optimizer=kd.SGD(lr=0.02))
    assert [row["lr"] for row in history.steps] == pytest.approx([0.02] * 3 + [0.002] * 3)


def test_bf16_learns_like_fp32():
    """One rounding to 8 bits per map: the losses of the first steps stay within a few per cent."""
    losses = {}
    for precision in ("fp32", "bf16"):
        try:
            model, history = fit(precision=precision)
        except ArgumentError as error:
            assert "AVX512-BF16" in str(error)
            pytest.skip("this processor has no bfloat16 instructions")
        losses[precision] = history.rows[0]["loss"]
        assert all(value.dtype == np.float32 for value in model.state_dict().values())
    assert losses["bf16"] != losses["fp32"]
    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=0.05)


def test_other_precisions_are_refused():
    with pytest.raises(ArgumentError, match="precision is 'fp16'"):
        fit(precision="fp16")
