"""Input that cannot be: an exception that says what and where, and everything usable after it."""

from __future__ import annotations

import numpy as np
import pytest
from tiny import QUIET, SIZE, detector, same, scenes

from kdswift.errors import ArgumentError, FormatError, KDSError, ShapeError

IMAGE = np.full((SIZE, SIZE, 3), 100, np.uint8)
FLOATS = np.full((3, SIZE, SIZE), 0.5, np.float32)
BOX = [4.0, 4.0, 20.0, 20.0]


def target(boxes=(BOX,), labels=(1,)):
    return {"boxes": np.array(boxes, np.float32).reshape(-1, 4), "labels": np.array(labels)}


def with_value(value):
    image = FLOATS.copy()
    image[1, 2, 3] = value
    return image


BAD_IMAGES = {
    "NaN": (with_value(np.nan), ArgumentError, "NaN"),
    "infinity": (with_value(np.inf), ArgumentError, "NaN or infinite"),
    "range": (with_value(200.0), ArgumentError, r"\[0, 1\]"),
    "float64": (FLOATS.astype(np.float64), ArgumentError, "float64"),
    "int64": (IMAGE.astype(np.int64), ArgumentError, "int64"),
    "grey": (IMAGE[..., 0], ShapeError, "grey"),
    "alpha": (np.dstack([IMAGE, IMAGE[..., :1]]), ShapeError, "alpha"),
    "channels last": (np.ascontiguousarray(FLOATS.transpose(1, 2, 0)), ShapeError, "last"),
    "empty": (np.zeros((0, 5, 3), np.uint8), ShapeError, "empty"),
    "no image": (object(), ArgumentError, "object"),
}

BAD_TARGETS = {
    "NaN box": (target([[4, np.nan, 20, 20]]), ArgumentError, "box 0 .*not finite"),
    "outside": (target([BOX, [4, 4, SIZE + 9, 20]], [1, 1]), ArgumentError, "box 1 .*outside"),
    "negative": (target([[-5, 4, 20, 20]]), ArgumentError, "box 0 .*outside"),
    "zero area": (target([[4, 4, 4, 20]]), ArgumentError, "box 0 .*no area"),
    "swapped": (target([[20, 20, 4, 4]]), ArgumentError, "box 0 .*no area"),
    "label too large": (target(labels=[11]), ArgumentError, "label 11"),
    "label 0": (target(labels=[0]), ArgumentError, "label 0"),
    "float labels": (target(labels=[1.5]), ArgumentError, "labels must be integers"),
    "unlike lengths": (target(labels=[1, 2]), ShapeError, "1 boxes but 2 labels"),
    "box shape": ({"boxes": np.zeros((1, 5)), "labels": [1]}, ShapeError, "boxes must be"),
    "no labels": ({"boxes": [BOX]}, ArgumentError, "no 'labels'"),
    "no dict": ([BOX], ArgumentError, "a target is a dict"),
}


@pytest.mark.parametrize("case", BAD_IMAGES)
def test_bad_images(case):
    image, error, words = BAD_IMAGES[case]
    model = detector()
    for call in (
        lambda: model.predict([IMAGE, image]),
        lambda: model.features([IMAGE, image]),
        lambda: model.losses([IMAGE, image], [target(), target()]),
    ):
        with pytest.raises(error, match=words) as caught:
            call()
        assert "images[1]" in str(caught.value)
    pairs = [(IMAGE, target()), (image, target())]
    with pytest.raises(KDSError, match=words) as caught:
        model.fit(pairs, 1, **QUIET)
    assert "item 1" in str(caught.value)
    assert len(model.predict(IMAGE)) == 1  # the model still works


@pytest.mark.parametrize("case", BAD_TARGETS)
def test_bad_targets(case):
    bad, error, words = BAD_TARGETS[case]
    model = detector()
    with pytest.raises(error, match=words) as caught:
        model.losses([IMAGE, IMAGE], [target(), bad])
    assert "targets[1]" in str(caught.value)
    before = model.state_dict()
    with pytest.raises(error, match=words) as caught:
        model.fit([(IMAGE, bad)], 1, **QUIET)
    assert "item 0" in str(caught.value)
    assert same(model, before)


def test_numbers_of_images_and_targets():
    with pytest.raises(ShapeError, match="1 targets for 2 images"):
        detector().losses([IMAGE, IMAGE], [target()])
    with pytest.raises(ArgumentError, match="images is empty"):
        detector().losses([], [])


@pytest.mark.parametrize("boxes", [np.zeros((0, 4), np.float32), np.zeros(0), []])
def test_images_without_boxes_have_losses(boxes):
    losses = detector().losses([IMAGE], [{"boxes": boxes, "labels": np.zeros(0, np.int64)}])
    assert losses["loss_box_reg"].item() == 0
    assert losses["loss_rpn_box_reg"].item() == 0
    assert losses["loss_classifier"].item() > 0


def test_crowds_and_difficult_objects_are_not_learned():
    two = {**target([BOX, [20, 20, 40, 40]], [1, 2]), "iscrowd": [False, True]}
    model = detector()
    one = {name: loss.item() for name, loss in model.losses(IMAGE, [target()], seed=1).items()}
    both = {name: loss.item() for name, loss in model.losses(IMAGE, [two], seed=1).items()}
    assert one == both


def test_odd_but_right_images():
    model = detector()
    for height, width in ((1, 1), (1, 200), (300, 2), (31, 47)):
        found = model.predict(np.zeros((height, width, 3), np.uint8), score_threshold=0.0)[0]
        assert np.isfinite(found.boxes).all()
        assert (found.boxes >= 0).all()
        assert (found.boxes[:, [0, 2]] <= width).all()
        assert (found.boxes[:, [1, 3]] <= height).all()


def test_truncated_files(tmp_path):
    from PIL import Image

    path = tmp_path / "photo.jpg"
    Image.fromarray(scenes(1)[0][0]).resize((200, 200)).save(path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    for call in (
        lambda: detector().predict(path),
        lambda: detector().fit([(path, target())], 1, **QUIET),
    ):
        with pytest.raises(FormatError, match=r"photo\.jpg"):
            call()


def test_a_bad_item_leaves_the_checkpoint_usable(tmp_path):
    class Spoiled:
        """Scenes whose third item is bad from the second time on."""

        class_names = scenes(1).class_names

        def __init__(self):
            self.times = 0

        def __len__(self):
            return 4

        def __getitem__(self, index):
            self.times += index == 2
            image, wanted = scenes(4)[index]
            if self.times > 1 and index == 2:
                wanted = target([[0, 0, 0, 0]])
            return image, wanted

    with pytest.raises(ArgumentError, match="item 2: box 0 .*no area"):
        detector(1).fit(Spoiled(), 2, out=tmp_path, seed=3, **QUIET)
    model = detector(9)
    model.fit(scenes(4), 2, out=tmp_path, seed=3, **QUIET)
    reference = detector(1)
    reference.fit(scenes(4), 2, seed=3, **QUIET)
    assert same(model, reference)
