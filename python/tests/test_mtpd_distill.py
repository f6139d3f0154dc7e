"""Progressive distillation: hand-over of stages, resuming in any of them, plans, baselines."""

from __future__ import annotations

import json
import signal

import numpy as np
import pytest
from mtpd_cases import OPTIONS, run, teachers, timeless
from tiny import detector, python, same, scenes

import kdswift as kd
from kdswift.checkpoint import read_checkpoint
from kdswift.errors import ArgumentError, KDSError
from kdswift.methods import FeatureMatching, FitNets
from kdswift.mtpd.progressive import stage_seed
from kdswift.mtpd.stages import StageFolder


class StopAt(kd.Callback):
    """Stops stage `stage` (by the order of starts) after `step`."""

    def __init__(self, stage, step):
        self.stage, self.step, self.seen = stage, step, 0

    def on_start(self, run):
        self.seen += 1

    def on_step(self, run):
        if self.seen == self.stage and run.step == self.step:
            run.stop()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted run."""
    out = tmp_path_factory.mktemp("whole")
    student, history = run(out)
    return student.state_dict(), history, out


def test_one_teacher_is_plain_distillation():
    pool = teachers(1)
    ours, history = run(pool=pool)
    plain = detector(1)
    kd.distill(plain, pool["t1"], scenes(4), FeatureMatching(), 2, **OPTIONS)
    assert same(ours, plain)
    assert history.restarts == []


def test_stages_are_runs_of_their_own(whole):
    """Only the weights go on: a run of each stage by hand gives the same student."""
    by_hand = detector(1)
    for stage, teacher in enumerate(teachers().values()):
        options = {**OPTIONS, "seed": stage_seed(3, stage)}
        kd.distill(by_hand, teacher, scenes(4), FeatureMatching(), 2, **options)
    assert same(by_hand.state_dict(), whole[0])
    assert stage_seed(3, 1) not in (3, stage_seed(3, 2), stage_seed(4, 1))


def test_the_history_has_all_stages(whole):
    _, history, out = whole
    assert [row["stage"] for row in history.rows] == [1, 1, 2, 2]
    assert [row["epoch"] for row in history.rows] == [1, 2, 3, 4]
    assert [row["step"] for row in history.rows] == [2, 4, 6, 8]
    assert history.teachers == ["t1", "t2"]
    assert history.restarts == [2]
    assert len(history.stages) == 2
    # The schedule begins anew: the warm-up's low rate comes twice.
    rates = [row["lr"] for row in history.steps]
    assert rates[:4] == rates[4:]
    lines = (out / "results.csv").read_text().splitlines()
    assert len(lines) == 5
    assert lines[0].startswith("stage,teacher,epoch")
    assert (out / "curves.png").stat().st_size > 5000


def test_nothing_but_weights_is_handed_over(whole):
    _, _, out = whole
    state = read_checkpoint(out / "stage-2-t2" / "checkpoint.safetensors")
    # t2's maps have other channels than t1's: the connector is one of its own.
    adapters = {n: v.shape for n, v in state.trainer.items() if "feature_matching" in n}
    assert adapters
    assert all(128 in shape for n, shape in adapters.items() if n.endswith("weight"))
    last = kd.load(out / "last.safetensors")
    assert not [name for name in last.state_dict() if "feature_matching" in name]
    assert last.state_dict().keys() == detector(1).state_dict().keys()


def test_the_student_knows_its_teachers(whole):
    _, _, out = whole
    lineage = kd.load(out / "last.safetensors").lineage
    told = [(entry["stage"], entry["of"], entry["teacher"]) for entry in lineage]
    assert told == [(1, 2, "t1"), (2, 2, "t2")]
    assert "FeatureMatching" in lineage[0]["method"]
    assert [entry["seed"] for entry in lineage] == [3, stage_seed(3, 1)]


@pytest.mark.parametrize(("stage", "step"), [(1, 1), (1, 3), (1, 4), (2, 1), (2, 2), (2, 4)])
def test_a_stopped_run_goes_on(whole, stage, step, tmp_path):
    _, cut = run(tmp_path, callbacks=StopAt(stage, step))
    assert len(cut.stages) == stage
    # What the student is meanwhile does not matter: its weights come from the folder.
    start = detector(1) if (stage, step) == (1, 1) else detector(9)
    student, history = run(tmp_path, student=start)
    assert same(student.state_dict(), whole[0])
    assert timeless(history) == timeless(whole[1])
    assert (
        kd.load(tmp_path / "last.safetensors").lineage
        == kd.load(whole[2] / "last.safetensors").lineage
    )


CODE = """
import sys, time
sys.path.insert(0, {tests!r})
from mtpd_cases import run
import kdswift as kd

class Slow(kd.Callback):
    def on_step(self, run):
        print("step", run.out, run.step, flush=True)
        time.sleep(0.05)

run(sys.argv[1], callbacks=Slow(), checkpoint_every=1)
"""


@pytest.mark.parametrize("kill_after", [1, 3, 4, 5, 7])
def test_a_killed_process_goes_on(whole, kill_after, tmp_path):
    """Killed between any two steps, also at the hand-over, the run repeats bit for bit."""
    from pathlib import Path

    code = CODE.format(tests=str(Path(__file__).resolve().parent))
    process = python(code, tmp_path)
    for line in process.stdout:
        if line.startswith("step"):
            kill_after -= 1
        if kill_after == 0:
            break
    assert kill_after == 0
    process.kill()
    process.wait()
    process.stdout.close()
    process.stderr.close()
    student, history = run(tmp_path, checkpoint_every=1)
    assert same(student.state_dict(), whole[0])
    assert len(history.rows) == 4


@pytest.mark.parametrize("stage", [0, 1])
@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_run_that_dies_at_the_hand_over_goes_on(whole, stage, moment, tmp_path, monkeypatch):
    finish = StageFolder.finish

    def dies(folder, number):
        if moment == "after":
            finish(folder, number)
        if number == stage:
            raise MemoryError
        finish(folder, number)

    with monkeypatch.context() as patch:
        patch.setattr(StageFolder, "finish", dies)
        with pytest.raises(MemoryError):
            run(tmp_path)
    student, history = run(tmp_path, student=detector(9))
    assert same(student.state_dict(), whole[0])
    assert timeless(history) == timeless(whole[1])


def test_ctrl_c_ends_the_whole_and_can_be_continued(whole, tmp_path):
    class Press(StopAt):
        def on_step(self, run):
            if self.seen == self.stage and run.step == self.step:
                signal.raise_signal(signal.SIGINT)

    _, cut = run(tmp_path, callbacks=Press(1, 3))
    assert cut.interrupted
    assert len(cut.stages) == 1
    student, history = run(tmp_path, student=detector(9))
    assert not history.interrupted
    assert same(student.state_dict(), whole[0])


def test_the_teachers_heads_are_not_run(whole):
    """With heads of NaN a run by feature matching is the same bit for bit."""
    pool = teachers()
    for one in pool.values():
        for name, value in one.state_dict().items():
            if not name.startswith("backbone."):
                one._engine.load(name, np.full_like(value, np.nan))
    assert same(run(pool=pool)[0].state_dict(), whole[0])


def test_a_finished_run_is_not_run_again(whole, tmp_path):
    copy_of(whole[2], tmp_path)
    student, history = run(tmp_path, student=detector(9), resume=True)
    assert same(student.state_dict(), whole[0])
    assert [row["epoch"] for row in history.rows] == [1, 2, 3, 4]


def test_a_damaged_model_of_a_stage_falls_back_to_its_checkpoint(whole, tmp_path):
    copy_of(whole[2], tmp_path)
    (tmp_path / "stage-2-t2" / "last.safetensors").write_bytes(b"cut")
    student, _ = run(tmp_path, student=detector(9))
    assert same(student.state_dict(), whole[0])
    assert [entry["teacher"] for entry in student.lineage] == ["t1", "t2"]


def test_starting_over_leaves_nothing_behind(whole, tmp_path):
    """A stage that was never reached again must not be continued from an earlier run's files."""
    run(tmp_path, student=detector(7))
    run(tmp_path, resume=False, callbacks=StopAt(1, 1))
    assert not (tmp_path / "stage-2-t2" / "checkpoint.safetensors").exists()
    student, _ = run(tmp_path, student=detector(9))
    assert same(student.state_dict(), whole[0])


def test_other_settings_are_refused(whole, tmp_path):
    copy_of(whole[2], tmp_path)
    for options, words in (
        ({"epochs": 3}, r"epochs_per_teacher\.0 was 2, is 3"),
        ({"seed": 4}, "seed was 3, is 4"),
        ({"pool": dict(reversed(teachers().items()))}, "order"),
        ({"pool": {"t1": detector(11), "t2": detector(99)}}, r"teachers\.t"),
        ({"method": FitNets()}, "methods"),
    ):
        with pytest.raises(ArgumentError, match=words):
            run(tmp_path, **options)
    (tmp_path / "stages.json").unlink()
    with pytest.raises(ArgumentError, match=r"no stages\.json"):
        run(tmp_path)
    with pytest.raises(ArgumentError, match="resume=True"):
        run(tmp_path / "new", resume=True)


def test_early_stopping_ends_a_stage_not_the_run(tmp_path):
    """It never improves by 1e9, so that it stops after the second epoch of every stage."""
    stopping = kd.EarlyStopping("loss", patience=1, least_gain=1e9)
    student, history = run(tmp_path, epochs=4, callbacks=stopping)
    assert [(row["stage"], row["epoch"]) for row in history.rows] == [
        (1, 1),
        (1, 2),
        (2, 3),
        (2, 4),
    ]
    assert json.loads((tmp_path / "stages.json").read_text())["done"] == 2
    # Killed after the last epoch of a stage, before it was noted as done.
    state = json.loads((tmp_path / "stages.json").read_text())
    (tmp_path / "stages.json").write_text(json.dumps(state | {"done": 1}))
    again, history = run(tmp_path, epochs=4, callbacks=stopping, student=detector(9))
    assert same(student, again)
    assert len(history.rows) == 4


def test_a_method_for_each_teacher():
    methods = [FeatureMatching(), 0.5 * FitNets()]
    student, history = run(method=methods, epochs=[1, 2])
    assert "FitNets" in student.lineage[1]["method"]
    assert [len(stage) for stage in history.stages] == [1, 2]
    with pytest.raises(ArgumentError, match="3 methods for 2"):
        run(method=[*methods, None])
    terms = [kd.Term("backbone.layer2"), kd.Term("backbone.layer1")]
    _, history = run(method=terms, epochs=1)
    assert {"l2.backbone.layer1", "l2.backbone.layer2"} <= set(history.rows[0])


def test_a_ladder_of_resolutions():
    """Teachers that see 0.5, 0.75 and 1 times the largest input, a student that sees 0.25 of it:
    maps of one stride in the networks' own pixels belong together, and the student's grow."""

    def at(size, seed):
        names = kd.data.DigitScenes.class_names
        return kd.FasterRCNN(
            *(kd.backbones.resnet_small(width=0.25, output_stride=16), len(names)),
            neck=kd.FPN(channels=16, extra="none"),
            anchors=kd.Anchors(sizes=[s * size / 96 for s in (12, 20, 32)], ratios=(1,)),
            image_size=(size, size),
            class_names=names,
            seed=seed,
        )

    ladder = {f"{size / 128}x": at(size, seed) for seed, size in enumerate((64, 96, 128))}
    student = at(32, 9)
    plan = kd.mtpd.plan(
        *(student, ladder, scenes(8), scenes(4, "val")),
        max_teachers=3,
        performance=[0.1, 0.2, 0.3],
        ridge=1e-3,
        progress=False,
    )
    taps = {(one.source_tap, one.target_tap) for one in plan.costs.levels}
    assert taps == {(f"neck.p{level}",) * 2 for level in (2, 3, 4)}
    _, history = run(student=student, pool=ladder, epochs=1)
    assert history.teachers == ["0.5x", "0.75x", "1.0x"]
    assert all(row["feature_matching"] > 0 for row in history.rows)


def test_wrong_arguments():
    for options, words in (
        ({"epochs": 0}, "epochs_per_teacher"),
        ({"pool": []}, "no teachers"),
        ({"pool": [3]}, "must be a kdswift detector"),
        ({"resume": "elsewhere"}, "resume"),
        ({"resume": True}, "needs out"),
        ({"inherit": "tail"}, "part 'tail'"),
        ({"speed": 3}, "unknown option 'speed'"),
        ({"epochs": [1]}, "1 stages for 2"),
    ):
        with pytest.raises(ArgumentError, match=words):
            run(**options)
    with pytest.raises(ArgumentError, match="epochs_per_teacher here"):
        kd.mtpd.distill(detector(), teachers(), scenes(4), **{"epochs": 3})


def test_the_student_may_begin_with_the_teacher_s_heads():
    pool = {"t1": detector(11), "t2": detector(12)}
    student, expected = detector(1), detector(1)
    kd.inherit(expected, pool["t1"])
    seen = []

    class Look(kd.Callback):
        def on_start(self, run):
            seen.append(run.model.state_dict())

    run(student=student, pool=pool, inherit=True, epochs=1, callbacks=Look())
    assert same(seen[0], expected.state_dict())
    assert not same(seen[1], expected.state_dict())  # once, not before every teacher
    with pytest.raises(KDSError, match="nothing of t1 fits"):
        run(pool=pool, inherit="neck")  # there is none


def test_the_timeline(whole, tmp_path):
    figure = whole[1].plot(tmp_path / "timeline.png")
    lines = [line for axes in figure.axes for line in axes.lines if line.get_linestyle() == "--"]
    assert {float(line.get_xdata()[0]) for line in lines} == {2.0}
    assert (tmp_path / "timeline.png").stat().st_size > 5000


def copy_of(source, target):
    import shutil

    shutil.copytree(source, target, dirs_exist_ok=True)
