"""Mimic (Li et al. 2017) and Quantization Mimic (Wei et al. 2018): stages, scales, pyramids."""

from __future__ import annotations

import numpy as np
import pytest
from method_pairs import OPTIONS, distil, regions
from tiny import CLASSES, SIZE, same, scenes

import kdswift as kd
from kdswift.errors import ArgumentError
from kdswift.methods import Mimic2017, QuantizationMimic


def single(seed: int, size: int = SIZE, neck: str | None = None, width: float = 0.25):
    """A Faster R-CNN on one map, or one brought to twice its size."""
    return kd.FasterRCNN(
        *(kd.backbones.resnet_small(width=width, output_stride=16), len(CLASSES)),
        neck=neck,
        image_size=(size, size),
        anchors=kd.Anchors(sizes=(size / 3, size / 2), ratios=(1,)),
        class_names=CLASSES,
        rpn={"batch": 16, "post_nms_train": 30, "min_size": 4, "drop_border_anchors": False},
        roi={"batch": 16, "hidden": [32], "pool_size": 3, "positive_fraction": 0.5},
        seed=seed,
    )


@pytest.mark.parametrize("form", ["crop", "spp", "whole"])
def test_forms(form):
    history = distil(Mimic2017(form=form), single(1), single(2, width=0.5))
    assert history.steps[0]["mimic2017"] > 0


def test_the_first_stage_learns_proposals_only():
    student = single(1)
    before = student.state_dict()
    history = distil(Mimic2017(stage="rpn"), student, single(2, width=0.5))
    assert history.steps[0]["loss_classifier"] == 0
    assert history.steps[0]["loss_objectness"] > 0
    after = student.state_dict()
    moved = {name for name in before if not np.array_equal(before[name], after[name])}
    head = {n for n in moved if n.startswith("roi_heads.") and n.endswith("weight")}
    # Weight decay alone moves them: a factor of 1 - lr * decay, the same for every weight.
    for name in head:
        ratio = after[name][before[name] != 0] / before[name][before[name] != 0]
        assert np.ptp(ratio) < 1e-5, name
    assert any(name.startswith("rpn.") for name in moved)


def test_the_second_stage_without_logits_is_plain_training():
    plain, student, teacher = single(1), single(1), single(2, width=0.5)
    plain.fit(scenes(4), **OPTIONS)
    distil(Mimic2017(stage="detector"), student, teacher)
    assert same(plain, student)


def test_logits_of_the_second_stage():
    teacher = single(2, width=0.5)
    history = distil(Mimic2017(stage="detector", logits=True), single(1), teacher)
    assert history.steps[0]["mimic2017_head"] > 0
    assert "mimic2017" not in history.steps[0]
    plain, student = single(1), single(1)
    plain.fit(scenes(4), **OPTIONS)
    distil(Mimic2017(stage="detector", logits=True, logits_weight=0.0), student, teacher)
    assert same(plain, student)


def test_a_student_of_half_the_size_has_maps_of_the_teachers_size(tmp_path):
    student, teacher = single(1, SIZE // 2, neck="deconv"), single(2, SIZE, width=0.5)
    (row,) = [tap for tap in student._taps() if tap["name"] == "neck.up"]
    assert row["stride"] == 8
    images = [scenes(1)[0][0]]
    own = student.features(images)["neck.up"]
    other = teacher.features(images)["backbone.layer3"]
    assert own.shape[2:] == other.shape[2:]
    history = distil(Mimic2017(), student, teacher)
    assert history.steps[0]["mimic2017"] > 0
    student.save(tmp_path / "student.safetensors")
    assert same(kd.load(tmp_path / "student.safetensors"), student)


def test_pyramids_compare_every_region_once():
    history = distil(Mimic2017(), regions(1), regions(2, 0.5))
    assert history.steps[0]["mimic2017"] > 0


def test_other_regions_of_the_teacher_do_not_matter():
    """Both sides are cut at the student's regions; the teacher's proposals change nothing."""
    runs = []
    for change in (False, True):
        student, teacher = single(1), single(2, width=0.5)
        if change:
            state = teacher.state_dict()
            for name in state:
                if name.startswith("rpn."):
                    state[name] = state[name] + 1
            teacher.load_state_dict(state)
        runs.append(distil(Mimic2017(), student, teacher).steps)
    assert runs[0] == runs[1]


@pytest.mark.parametrize("quantize_teacher", [False, True])
@pytest.mark.parametrize("quantize_student", [False, True])
def test_the_four_cases_of_quantization(quantize_student, quantize_teacher):
    method = QuantizationMimic(
        step=0.05, quantize_student=quantize_student, quantize_teacher=quantize_teacher
    )
    assert distil(method, single(1), single(2, width=0.5)).steps[0]["quantization_mimic"] > 0


def test_a_coarse_quantizer_sees_no_difference():
    method = QuantizationMimic(step=1e6)
    assert distil(method, single(1), single(2, width=0.5)).steps[0]["quantization_mimic"] == 0


def test_loss_weights_name_losses_that_are_there():
    cascade = regions(1, kind="CascadeRCNN")
    with pytest.raises(ArgumentError, match='loss_weights: "loss_box_reg" is none'):
        distil(Mimic2017(stage="rpn"), cascade, regions(2, 0.5))
