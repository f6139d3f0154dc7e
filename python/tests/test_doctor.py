"""The doctor: healthy runs pass, every fault it claims to find is found, and nothing is touched."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from tiny import detector, same, scenes

import kdswift as kd
from kdswift import checkup_checks
from kdswift.checkup_case import Case
from kdswift.cli import main
from kdswift.errors import ArgumentError
from kdswift.methods import Chen2017

OWN = kd.Method([kd.Term("backbone.layer2", weight=0.1, name="mine")])


def examine(teacher=None, method=None, student=None, **options):
    student = detector(1, width=0.25) if student is None else student
    teacher = detector(7) if teacher is None else teacher
    options = {"batch_size": 2, "sample": 0, **options}
    return kd.doctor(student, teacher, scenes(4), method, **options)


def row(report, name):
    return next(r for r in report.rows if r.check.startswith(name))


def case_of(method, teacher=None, student=None):
    student = detector(1) if student is None else student
    teacher = detector(7) if teacher is None else teacher
    return Case(student, teacher, scenes(4), method, 2, 0, 0, None, None)


def test_a_healthy_run_passes():
    report = examine(method=Chen2017() + OWN)
    assert report.ok, report
    assert row(report, "connectors").figure == "4 of 4 tensors moved in one step"
    assert "bit for bit" in row(report, "no weight").figure
    assert "1x1 convolution 32 to 64" in row(report, "tap of mine").figure
    names = {r.check for r in report.rows}
    assert {"term mine", "term distill_hint", "gradient of distill_rcn_regression"} <= names
    assert sum(report.shares.values()) == pytest.approx(1)
    assert report.shares.keys() == {
        *("detection", "mine", "distill_hint"),
        *(f"distill_{h}_{k}" for h in ("rpn", "rcn") for k in ("classification", "regression")),
    }


def test_nothing_is_changed():
    student, teacher = detector(1, width=0.25).train(), detector(7).train()
    before = student.state_dict(), teacher.state_dict()
    lineage = student.lineage
    examine(teacher, Chen2017() + OWN, student, sample=2)
    assert same(student, before[0])
    assert same(teacher, before[1])
    assert student.training
    assert teacher.training
    assert student.lineage is lineage
    assert lineage == []
    assert all(p.requires_grad and p.grad is None for p in teacher.parameters())
    assert all(p.grad is None for p in student.parameters())


def gradient(case, label):
    variants = {name: method for name, method, _ in checkup_checks._variants(case)}
    plain = case.plain_gradient
    return {n: g - plain[n] for n, g in case.steep(variants[label]).items()}


def test_the_engines_gradients_are_those_of_the_tape():
    # The hint without adaptation, once as the engine's part and once as a term on the tape.
    by_engine = case_of(Chen2017(adaptation=False, gamma=0.3))
    found = gradient(by_engine, "distill_hint")
    loss = lambda s, t: kd.losses.hint(s, t, reduction="mean")  # noqa: E731
    term = kd.Term("backbone.layer3", loss=loss, weight=0.3, name="hint")
    on_tape = case_of(kd.Method([term])).step(kd.Method([term]), tape=True)
    expected = on_tape.term_gradients["hint"]
    assert expected.keys() <= found.keys()
    size = max(np.abs(g).max() for g in expected.values())
    for name, value in found.items():
        # float32: the detection losses' gradient, up to ten times as large, was taken away.
        np.testing.assert_allclose(value, expected.get(name, 0), atol=2e-5 * size, rtol=1e-4)


def test_gradients_follow_the_weights():
    norms = {}
    for nu in (0.25, 0.5):
        case = case_of(Chen2017(nu=nu))
        norms[nu] = checkup_checks._norm(gradient(case, "distill_rcn_regression"))
    assert norms[0.5] == pytest.approx(2 * norms[0.25], rel=1e-4)
    shares = [examine(method=m).shares for m in (OWN, 3 * OWN)]
    ratio = [s["mine"] / s["detection"] for s in shares]
    assert ratio[1] == pytest.approx(3 * ratio[0], rel=1e-4)


def test_a_weight_is_suggested_that_fits():
    report = examine(method=1e-6 * OWN)
    found = row(report, "gradient of mine")
    assert found.status == "warning"
    weight = float(found.advice.split("weight = ")[1].split(" ")[0])
    again = examine(method=kd.Method([dataclasses.replace(OWN.terms[0], weight=weight)]))
    assert row(again, "gradient of mine").status == "ok"
    # The aim of the suggestion, and its two digits.
    assert again.shares["mine"] / again.shares["detection"] == pytest.approx(0.3, rel=0.05)
    assert "outweighs detection" in row(examine(method=1e4 * OWN), "gradient of mine").advice


def test_functions_teach_and_are_looked_at():
    rng = np.random.default_rng(0)

    def steady(images):
        return {"p": np.stack([i[:, ::8, ::8] for i in images])}

    def shaky(images):
        return {"p": steady(images)["p"] + rng.normal(size=(1, 1, 1, 1)).astype(np.float32)}

    method = kd.Method([kd.Term("backbone.layer2", "p", name="mine")])
    report = examine(kd.Teacher.from_callable(steady), method)
    assert report.ok
    assert row(report, "teacher 0 at rest").figure == "1 taps equal twice"
    report = examine(kd.Teacher.from_callable(shaky), method)
    assert row(report, "teacher 0 at rest").status == "warning"


def test_a_cache_is_not_filled(tmp_path):
    teacher = kd.Teacher.cached(detector(7), tmp_path / "cache")
    assert examine(teacher, OWN).ok
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("term", "check", "words"),
    [
        (kd.Term("backbone.layer9", "backbone.layer1"), "taps", "no tap 'backbone.layer9'"),
        (kd.Term("backbone.layer2", connector="none"), "step", r"l2\.backbone\.layer2"),
        (kd.Term("backbone.layer1", loss=lambda s, t: (s * 0).mean(), name="nil"), "term nil", "0"),
        (kd.Term("backbone.layer1", loss=lambda s, t: (s / 0).mean(), name="nan"), "step", "nan"),
    ],
)
def test_faults_of_terms_fail(term, check, words):
    report = examine(method=kd.Method([term]))
    assert not report.ok
    found = row(report, check)
    assert found.status == "failed"
    assert words.replace("\\", "") in found.figure
    assert "not ready" in repr(report)


def test_a_loss_between_equals_is_named():
    term = kd.Term("backbone.layer2", loss=lambda s, t: ((s - t) ** 2).mean() + 1, name="off")
    assert row(examine(method=term), "same features in off").status == "warning"


def test_a_connector_that_does_not_learn_is_found():
    report = examine(method=OWN, optimizer=kd.SGD(lr=0.0))
    assert row(report, "connectors").status == "failed"
    assert "0 of 2" in row(report, "connectors").figure


def test_a_teacher_that_moves_is_found(monkeypatch):
    from kdswift.teachers.group import TeacherGroup

    honest = TeacherGroup.freeze

    def careless(self):
        honest(self)
        for one in self.detectors:
            name = next(iter(one.state_dict()))
            self.values = one, name, one.state_dict()[name]

    def move(self, *arguments):
        one, name, values = self.values
        one._engine.load(name, values + 1)
        return {}

    monkeypatch.setattr(TeacherGroup, "freeze", careless)
    monkeypatch.setattr(TeacherGroup, "before", move)
    assert row(examine(method=OWN), "teacher 0 at rest").status == "failed"


def test_weight_0_that_acts_is_found(monkeypatch):
    monkeypatch.setattr(Chen2017, "__rmul__", lambda self, _factor: self)
    assert row(examine(method=Chen2017()), "no weight").status == "failed"


def test_scores():
    report = examine(sample=4)
    assert "on 4 images" in row(report, "teacher's score").figure
    trained = detector(7, width=1.0)
    trained.fit(scenes(4), 30, optimizer=kd.AdamW(lr=3e-3), progress=False, workers=0, batch_size=2)
    found = row(examine(trained, sample=4), "teacher's score")
    assert found.status == "ok", found


def test_wrong_arguments_raise():
    student = detector(1)
    with pytest.raises(ArgumentError, match="doctor: teacher and student are the same"):
        kd.doctor(student, student, scenes(2))
    with pytest.raises(ArgumentError, match="batch_size"):
        examine(batch_size=0)
    with pytest.raises(ArgumentError, match="method"):
        examine(method=3)


def test_the_report_shows_itself():
    report = examine(method=OWN)
    assert report._repr_html_().count("<tr>") == len(report.rows) + 1
    assert json.loads(json.dumps(report.to_dict()))["ok"] is True
    assert repr(report).endswith("checks")


def test_the_command(tmp_path, capsys):
    teacher, student = tmp_path / "t.safetensors", tmp_path / "s.safetensors"
    detector(7).save(teacher)
    detector(1, width=0.25).save(student)
    words = ["doctor", "-t", str(teacher), "-s", str(student), "-d", "digits:n=4,size=48"]
    assert main([*words, "--sample", "0", "--batch-size", "2"]) == 0
    assert "ready: " in capsys.readouterr().out
    assert main([*words, "--sample", "0", "--batch-size", "2", "--lr", "0", "--json"]) == 1
    captured = capsys.readouterr()
    assert json.loads(captured.out)["ok"] is False
    assert "not ready" in captured.err
