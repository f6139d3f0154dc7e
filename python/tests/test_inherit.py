"""`kd.inherit`: neck and heads from the teacher, the backbone from nobody."""

from __future__ import annotations

import numpy as np
import pytest
from tiny import detector, scenes

import kdswift as kd
from kdswift.errors import ArgumentError
from kdswift.inheritance import part_of


def pyramid(kind=kd.FasterRCNN, seed=0, width=0.5, **options):
    return kind(
        *(kd.backbones.resnet_small(width=width, output_stride=16), 11),
        neck=kd.FPN(channels=16, extra="none"),
        anchors=kd.Anchors(sizes=(12, 16, 24), ratios=(1,)),
        image_size=(48, 48),
        roi={"hidden": [32, 32]},
        seed=seed,
        **options,
    )


@pytest.mark.parametrize("parts", [("neck", "head"), ("neck",), "head", True])
def test_neck_and_head_are_the_teacher_s(parts):
    student, teacher = pyramid(seed=1), pyramid(seed=2)
    before, theirs = student.state_dict(), teacher.state_dict()
    report = kd.inherit(student, teacher, parts)
    wanted = ("neck", "head") if parts is True else (parts,) if isinstance(parts, str) else parts
    assert report.complete
    for name, value in student.state_dict().items():
        source = theirs if part_of(name) in wanted else before
        assert (value == source[name]).all(), name
    assert {part_of(name) for name in report.loaded} == set(wanted)
    assert any(
        (before[name] != theirs[name]).any() for name in before if part_of(name) == "backbone"
    )


def test_what_does_not_fit_is_reported():
    student, teacher = pyramid(seed=1, width=0.25), pyramid(seed=2)
    report = kd.inherit(student, teacher)
    assert all(name.startswith("backbone.fpn.inner_blocks") for name in report.misshaped)
    assert report.misshaped
    assert not report.missing


def test_the_first_stage_of_a_cascade():
    student, teacher = pyramid(seed=1), pyramid(kd.CascadeRCNN, seed=2)
    report = kd.inherit(student, teacher)
    assert report.complete
    ours, theirs = student.state_dict(), teacher.state_dict()
    name = "box_head.fc7.weight"
    assert (ours[f"roi_heads.{name}"] == theirs[f"roi_heads.stages.0.{name}"]).all()
    shared = theirs["roi_heads.stages.0.box_predictor.bbox_pred.weight"]
    own = ours["roi_heads.box_predictor.bbox_pred.weight"].reshape(11, 4, -1)
    for rows in own:  # the same boxes for every class
        assert (rows == shared).all()


def test_unlike_codes_of_boxes_mean_the_same_box():
    student = pyramid(seed=1)
    stds = [[0.05, 0.1, 0.2, 0.4], [0.05, 0.05, 0.1, 0.1], [0.033, 0.033, 0.067, 0.067]]
    teacher = pyramid(kd.CascadeRCNN, seed=2, cascade={"box_stds": stds})
    kd.inherit(student, teacher)
    theirs = teacher.state_dict()["roi_heads.stages.0.box_predictor.bbox_pred.weight"]
    own = student.state_dict()["roi_heads.box_predictor.bbox_pred.weight"][:4]
    deltas = theirs * np.array(stds[0])[:, None]
    np.testing.assert_allclose(own * np.array([[0.1], [0.1], [0.2], [0.2]]), deltas, rtol=1e-6)


def test_from_cascade_to_cascade_all_stages_go():
    student, teacher = pyramid(kd.CascadeRCNN, seed=1), pyramid(kd.CascadeRCNN, seed=2)
    assert kd.inherit(student, teacher).complete
    name = "roi_heads.stages.2.box_predictor.bbox_pred.weight"
    assert (student.state_dict()[name] == teacher.state_dict()[name]).all()


def test_an_inherited_student_works():
    student = pyramid(seed=1)
    kd.inherit(student, pyramid(kd.CascadeRCNN, seed=2))
    assert len(student.predict(scenes(1)[0][0])) == 1


def test_wrong_arguments():
    with pytest.raises(ArgumentError, match="teacher must be a kdswift detector"):
        kd.inherit(detector(), 3)
    with pytest.raises(ArgumentError, match="part 'backbone'"):
        kd.inherit(detector(), detector(), ["backbone"])
