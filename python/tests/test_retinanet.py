"""RetinaNet through the package: learning, files, distillation, what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
from dense import finds_no_background
from tiny import QUIET, same, scenes

import kdswift as kd
from kdswift.errors import ArgumentError


def model(seed: int = 0, width: float = 0.25, **options) -> kd.RetinaNet:
    """A small one on three levels."""
    return kd.RetinaNet(
        kd.backbones.resnet_small(width, output_stride=16),
        11,
        neck=kd.FPN(16, extra="none"),
        anchors=kd.Anchors(((20,), (40,))),
        image_size=(96, 96),
        seed=seed,
        **options,
    )


def test_it_learns_and_comes_back_from_its_file(tmp_path):
    student = model(1, head={"convs": 1})
    history = student.fit(scenes(8), 6, optimizer=kd.AdamW(lr=5e-3), seed=0, **QUIET)
    losses = [row["loss"] for row in history.rows]
    assert losses[-1] < 0.7 * losses[0]
    student.save(tmp_path / "model.safetensors")
    again = kd.load(tmp_path / "model.safetensors")
    assert isinstance(again, kd.RetinaNet) and same(student, again)
    image = scenes(1)[0][0]
    first, second = student.predict(image, 0.01)[0], again.predict(image, 0.01)[0]
    assert len(first.scores) and np.array_equal(first.boxes, second.boxes)


def test_images_without_boxes_train():
    empty = {"boxes": np.zeros((0, 4), np.float32), "labels": np.zeros(0, np.int64)}
    losses = model().losses([scenes(1)[0][0]], [empty])
    assert losses["bbox_regression"].item() == 0
    assert np.isfinite(losses["classification"].item())


def test_taps_name_their_levels():
    names = [tap["name"] for tap in model()._taps()]
    assert names[-4:] == [
        "head.class_logits.p3",
        "head.box_deltas.p3",
        "head.class_logits.p4",
        "head.box_deltas.p4",
    ]
    assert {"backbone.layer3", "neck.p3", "neck.p4"} <= set(names)
    assert set(model().features([scenes(1)[0][0]])) == set(names)


def test_terms_of_your_own_between_two():
    term = kd.Term("neck.p3", "neck.p3", "l2", 1.0)
    student = model(1)
    history = kd.distill(
        student, model(2, 0.5), scenes(4), method=kd.Method([term]), epochs=2, **QUIET
    )
    values = [row[name] for row in history.rows for name in row if "neck.p3" in name]
    assert len(values) == 2 and 0 < values[1] < values[0]


def test_methods_of_two_stages_are_refused():
    with pytest.raises(ArgumentError, match="must be a Faster R-CNN, not RetinaNet"):
        kd.distill(model(1), model(2), scenes(2), method=kd.methods.Chen2017(), epochs=1, **QUIET)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"head": {"box_loss": "iou"}}, "box_loss"),
        ({"head": {"positive_iou": 0.2}}, "positive_iou"),
        ({"head": {"layers": 3}}, "layers"),
        ({"head": {"prior": 1.0}}, "prior"),
    ],
)
def test_wrong_options_are_named(options, words):
    with pytest.raises(kd.KDSError, match=words):
        model(**options)


def test_the_background_is_never_found():
    finds_no_background(model(1))
