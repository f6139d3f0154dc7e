"""Plans, and what progressive distillation is compared with."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from mtpd_cases import OPTIONS, run, teachers
from tiny import detector, same, scenes

import kdswift as kd
from kdswift.errors import ArgumentError, KDSError
from kdswift.methods import FeatureMatching


def test_a_plan_is_made_and_followed(tmp_path):
    student, pool = detector(1), teachers(3)
    scores = {"t1": 0.30, "t2": 0.35, "t3": 0.20}
    plan = kd.mtpd.plan(
        *(student, pool, scenes(12), scenes(4, "val")), performance=scores, progress=False
    )
    expected = kd.mtpd.backward_greedy_selection(plan.costs, "student", pool, scores, 2)
    assert plan.names == expected.names
    assert plan.names[-1] == "t2"
    assert plan.teachers[-1] is pool["t2"]
    by_objects = kd.mtpd.backward_greedy_selection(
        plan.costs, student, list(pool.values()), list(scores.values()), 2
    )
    assert by_objects.names == plan.names
    plan.plot(tmp_path / "plan.png")
    assert (tmp_path / "plan.png").stat().st_size > 5000
    assert "t2" in repr(plan)
    assert "<table>" in plan._repr_html_()
    plan.save(tmp_path / "plan.json")
    again = kd.mtpd.Plan.load(tmp_path / "plan.json", pool)
    assert again.to_dict() == plan.to_dict()
    assert again.teachers == plan.teachers
    with pytest.raises(ArgumentError, match="lacks"):
        kd.mtpd.Plan.load(tmp_path / "plan.json", {})
    _, history = run(student=student, pool=plan, epochs=1)
    assert history.teachers == list(plan.names)


def test_a_plan_measures_ap_itself():
    pool = [detector(11), kd.Teacher.from_callable(lambda images: {}, ["a"])]
    data = scenes(4), scenes(4, "val")
    with pytest.raises(ArgumentError, match=r"AP of teacher-2 cannot be measured"):
        kd.mtpd.plan(detector(1), pool, *data, progress=False)
    plan = kd.mtpd.plan(detector(1), pool[:1], *data, progress=False, max_teachers=1)
    score = kd.evaluate(pool[0], data[1], progress=False).AP
    assert plan.performance == {"teacher-1": pytest.approx(score)}
    with pytest.raises(ArgumentError, match="max_teachers"):
        kd.mtpd.plan(detector(1), pool[:1], *data, progress=False, max_teachers=0)


# Probes


def test_a_probe_is_a_short_run_with_each_teacher(monkeypatch):
    student, pool, data = detector(1), teachers(2), scenes(8)
    before = student.state_dict()
    weights = {}

    def scored(model, val, *_rest, **_options):
        """A score by the weights, as detectors this small find nothing."""
        value = float(np.abs(model.state_dict()["backbone.conv1.weight"]).mean())
        weights[value] = model
        return SimpleNamespace(AP=value)

    monkeypatch.setattr("kdswift.mtpd.probing.evaluate", scored)
    probe = kd.mtpd.probe(student, pool, data, scenes(2, "val"), epochs=1, **OPTIONS)
    assert list(probe) == ["t1", "t2"]
    assert all((before[n] == v).all() for n, v in student.state_dict().items())
    assert weights[probe.before] is student
    for name, teacher in pool.items():
        direct = detector(1)
        kd.distill(direct, teacher, data, FeatureMatching(), 1, **OPTIONS)
        assert same(direct, weights[probe[name]])
    alone = detector(1)
    alone.fit(data, 1, **OPTIONS)
    assert same(alone, weights[probe.alone])


def test_a_probe_stands_in_for_performance():
    probe = kd.mtpd.Probe({"a": 0.2, "b": 0.1, "c": 0.3}, alone=0.15, before=0.05)
    assert probe.harmful == ["b"]
    assert [row["teacher"] for row in probe.rows()] == ["c", "a", "(alone)", "b", "(before)"]
    costs = {(x, y): 1.0 for x in "sabc" for y in "abc" if x != y} | {("a", "c"): 0.5}
    order = kd.mtpd.backward_greedy_selection(costs, "s", list("abc"), probe, 2)
    assert order.names == ("a", "c")
    assert order.reasons[0] == "c is last: the best teacher, AP of the probed student 30.0"


def test_wrong_probes():
    pool, data = teachers(1), (scenes(2), scenes(2, "val"))
    for options, message in (
        ({"epochs": 0}, "epochs"),
        ({"out": "x"}, "out"),
        ({"method": ["cwd", "pkd"]}, "probe: 2 methods for 1 teachers"),
        ({"learning_rate": 1}, "learning_rate"),
    ):
        with pytest.raises(ArgumentError, match=message):
            kd.mtpd.probe(detector(1), pool, *data, **options)
    with pytest.raises(ArgumentError, match="student"):
        kd.mtpd.probe("student.safetensors", pool, *data)


# Baselines


def test_alone_and_direct_have_the_same_number_of_steps():
    pool = teachers()
    alone, direct = detector(1), detector(1)
    first = kd.mtpd.alone(alone, pool, scenes(4), epochs_per_teacher=2, **OPTIONS)
    second = kd.mtpd.direct(direct, pool, scenes(4), epochs_per_teacher=2, **OPTIONS)
    assert first.rows[-1]["step"] == second.rows[-1]["step"] == 8
    plain = detector(1)
    plain.fit(scenes(4), 4, **OPTIONS)
    assert same(alone, plain)
    plain = detector(1)
    kd.distill(plain, pool["t2"], scenes(4), FeatureMatching(), 4, **OPTIONS)
    assert same(direct, plain)


@pytest.mark.parametrize("combine", ["sum", "average"])
def test_an_ensemble_of_one_teacher_twice_is_that_teacher(combine):
    """Without connectors; half and half of equal numbers are the numbers."""
    one = detector(11)
    both, direct = detector(1), detector(1)
    pool = {"a": one, "b": one.clone()}
    kd.mtpd.ensemble(*(both, pool, scenes(4)), epochs_per_teacher=1, combine=combine, **OPTIONS)
    kd.mtpd.direct(direct, pool, scenes(4), epochs_per_teacher=1, **OPTIONS)
    for name, value in direct.state_dict().items():
        np.testing.assert_allclose(both.state_dict()[name], value, atol=1e-6, err_msg=name)


def test_the_average_of_unlike_teachers():
    pool = [detector(11), detector(12)]
    average = kd.mtpd.baselines.AverageTeacher(pool)
    image = scenes(1)[0][0]
    (row,) = average.taps([image])
    expected = sum(one.features([image])[row["name"]].numpy() for one in pool) / 2
    # float32 through some ten layers
    np.testing.assert_allclose(average.outputs([image])[row["name"]], expected, atol=1e-4)
    with pytest.raises(KDSError, match="equal channels"):
        kd.mtpd.ensemble(
            *(detector(1), teachers(), scenes(4)),
            epochs_per_teacher=1,
            combine="average",
            **OPTIONS,
        )
    with pytest.raises(ArgumentError, match="combine"):
        kd.mtpd.ensemble(detector(1), pool, scenes(4), combine="max")
