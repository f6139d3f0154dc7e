"""A detector behind a cache teaches as the detector itself does."""

from __future__ import annotations

import numpy as np
import pytest
from method_pairs import dense, regions
from tiny import QUIET, batch, detector, same, scenes

import kdswift as kd


def test_a_detector_that_was_trained_since_is_asked_again(tmp_path):
    images, _ = batch(1)
    model = detector(7)
    teacher = kd.Teacher.cached(model, tmp_path)
    old = teacher.outputs(images, ["backbone.layer2"])["backbone.layer2"]
    model.load_state_dict(detector(8).state_dict())
    teacher.taps(images)  # as every run does
    new = teacher.outputs(images, ["backbone.layer2"])["backbone.layer2"]
    assert not np.array_equal(old, new)
    fresh = kd.Teacher.cached(detector(8), tmp_path / "other")
    assert new.tobytes() == fresh.outputs(images, ["backbone.layer2"])["backbone.layer2"].tobytes()


@pytest.mark.parametrize("augment", [None, kd.augment.HorizontalFlip()])
@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_losses_with_and_without_a_cache_are_equal_bit_for_bit(tmp_path, augment, size):
    def run(teacher):
        student = detector(1, width=0.25)
        options = {**QUIET, "augment": augment, "seed": 3, "log_every": 1, "batch_size": size}
        terms = kd.Method([kd.Term("backbone.layer3"), kd.Term("backbone.layer1")])
        return student, kd.distill(student, teacher, scenes(8), terms, 2, **options)

    teacher = detector(7)
    plain, off = run(teacher)
    for _ in range(2):
        kept = kd.Teacher.cached(teacher, tmp_path)
        model, on = run(kept)
        assert off.steps == on.steps
        assert same(plain, model)
    assert kept.misses == 0
    assert kept.hits == 2 * 8 * 2


@pytest.mark.parametrize("make", [detector, dense, regions])
def test_a_cached_detector_offers_what_the_detector_offers(tmp_path, make):
    model = make()
    image = np.zeros((96, 128, 3), np.uint8)  # twice the size that the detector works at
    kept = kd.Teacher.cached(model, tmp_path)
    rows = kept.taps([image])
    assert rows == model._engine.taps()
    for row in rows:
        array = kept.outputs([image], [row["name"]])[row["name"]]
        assert array.ndim == 4
        assert array.shape[1] == row["channels"]
        assert row["stride"] is not None


def test_a_cached_detector_of_another_size_is_paired_as_the_detector_itself(tmp_path, capsys):
    def pyramid(size, seed):
        neck = kd.FPN(channels=16, extra="none", start="layer1")
        backbone = kd.backbones.resnet_small(width=0.25, output_stride=16)
        anchors = kd.Anchors(sizes=(8, 16, 28), ratios=(1,))
        names = kd.data.DigitScenes.class_names
        return kd.FasterRCNN(
            *(backbone, len(names)),
            neck=neck,
            image_size=(size, size),
            anchors=anchors,
            class_names=names,
            seed=seed,
        )

    teacher = pyramid(96, 2)

    def run(one):
        student, method = pyramid(48, 1), kd.methods.FeatureMatching()
        history = kd.distill(student, one, scenes(2), method, 1, **{**QUIET, "progress": True})
        lines = [n for n in capsys.readouterr().out.splitlines() if n.startswith("feature_match")]
        return lines, history.rows[0]["feature_matching"]

    pairs, loss = run(teacher)
    again, same_loss = run(kd.Teacher.cached(teacher, tmp_path))
    assert len(pairs) >= 2
    assert again == pairs
    assert same_loss == pytest.approx(loss, rel=1e-6)  # the detector itself runs in batches
