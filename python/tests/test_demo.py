"""The demo with a budget of seconds: all its parts, not its figures."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from tiny import same

from kdswift.demo import QUICK, Result, run_demo, verdict

TINY = replace(
    QUICK,
    train_scenes=8,
    val_scenes=4,
    teacher_width=0.75,
    student_width=0.5,
    teacher_epochs=1,
    student_epochs=1,
    batch_size=4,
)


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    return run_demo(tmp_path_factory.mktemp("demo"), budget=replace(TINY, seeds=2), progress=False)


def test_students_begin_alike_and_have_one_budget(demo):
    for alone, distilled in zip(demo.alone, demo.distilled):
        before, after = alone.history.settings, distilled.history.settings
        for name in ("student", "optimizer", "schedule", "batch_size", "seed", "loader_seed"):
            assert before[name] == after[name]
        assert len(after["teachers"]) == 1
        assert not same(alone.model, distilled.model)


def test_the_table(demo):
    assert [row["model"] for row in demo.rows] == [
        *("teacher", "student alone", "distilled", "difference")
    ]
    assert demo.rows[0]["parameters"] > demo.rows[1]["parameters"] == demo.rows[2]["parameters"]
    assert {"MFLOPs", "ms per image", "AP50", "AP"} <= set(demo.rows[0])
    assert "±" in demo.rows[3]["AP"]


def test_the_report_stands_alone(demo):
    text = demo.report.read_text()
    assert text.count("data:image/png;base64,") >= 4
    assert "http" not in text.replace("http-equiv", "")
    assert demo.verdict in text
    assert json.loads((demo.report.parent / "results.json").read_text())["rows"] == demo.rows


def test_a_second_call_takes_what_is_there_and_other_settings_start_over(demo, capsys):
    folder = demo.report.parent
    again = run_demo(folder, budget=replace(TINY, seeds=2), progress=False)
    assert again.teacher.history.rows == demo.teacher.history.rows
    assert same(again.distilled[1].model, demo.distilled[1].model)
    other = run_demo(folder, budget=replace(TINY, train_scenes=12), progress=False)
    assert other.teacher.history.rows[-1]["step"] == 3
    assert "one seed" in capsys.readouterr().out


def _results(scores):
    return [Result("", seed, ap / 100, 0.0, None, None) for seed, ap in enumerate(scores)]


@pytest.mark.parametrize(
    ("alone", "distilled", "words"),
    [
        ([40, 41, 42], [44, 45, 47], "so distillation helped"),
        ([40, 41, 42], [41, 39, 44], "no gain beyond the spread"),
        ([40, 40, 40], [44, 45, 39.9], "not better with every seed"),
        ([40, 41, 42], [36, 37, 38], "did harm"),
        ([40], [50], "cannot tell that from chance"),
    ],
)
def test_the_verdict_is_honest(alone, distilled, words):
    assert words in verdict(_results(alone), _results(distilled))
