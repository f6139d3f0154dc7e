"""Loader: order, determinism, resuming, errors, and threads that end. Augmentation: right boxes."""

import _thread
import threading
import time

import numpy as np
import pytest

from kdswift.augment import ColorJitter, Compose, HorizontalFlip, ResizeShortSide
from kdswift.data import Loader
from kdswift.errors import ArgumentError, KDSError, ShapeError


class Toy:
    """Item i is an image filled with i and one box."""

    class_names = ("background", "thing")
    num_classes = 2

    def __init__(self, n=23):
        self.n, self.made = n, []

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        self.made.append(i)
        target = {"boxes": [[1, 2, 4, 6]], "labels": [1], "image_id": i}
        return np.full((8, 6, 3), i, np.uint8), target


def loader_threads():
    return [t for t in threading.enumerate() if t.name.startswith("kdswift-loader")]


def indices(batches):
    return [b.indices for b in batches]


def items(batches):
    return [i for b in batches for i in b.indices]


def test_plain_order_and_sizes():
    loader = Loader(Toy(), 5)
    batches = list(loader)
    assert len(batches) == len(loader) == 5
    assert items(batches) == list(range(23))
    assert [int(image[0, 0, 0]) for b in batches for image in b.images] == list(range(23))
    assert batches[0].teacher_images is None and len(batches[-1]) == 3
    assert len(list(Loader(Toy(), 5, drop_last=True))) == 4
    assert list(Loader(Toy(0), 5)) == []


@pytest.mark.parametrize("workers", [0, 1, 2, 5])
def test_order_and_views_do_not_depend_on_workers(workers):
    augment = [HorizontalFlip(), ColorJitter()]
    reference = list(Loader(Toy(), 4, shuffle=True, augment=augment, workers=0, seed=7).epoch(3))
    batches = list(
        Loader(Toy(), 4, shuffle=True, augment=augment, workers=workers, seed=7).epoch(3)
    )
    assert indices(batches) == indices(reference)
    for a, b in zip(batches, reference, strict=True):
        for x, y in zip(a.images, b.images, strict=True):
            np.testing.assert_array_equal(x, y)
        for x, y in zip(a.targets, b.targets, strict=True):
            np.testing.assert_array_equal(x["boxes"], y["boxes"])


def test_epochs_and_seeds_give_other_orders():
    loader = Loader(Toy(), 4, shuffle=True, seed=1)
    first, second = items(loader), items(loader)
    assert sorted(first) == sorted(second) == list(range(23)) and first != second
    loader.set_epoch(0)
    assert items(loader) == first
    assert items(loader.epoch(1)) == second
    assert items(Loader(Toy(), 4, shuffle=True, seed=2)) != first


def test_a_broken_off_epoch_is_run_again():
    loader = Loader(Toy(), 4, shuffle=True)
    for batch in loader:
        seen = batch.indices
        break
    assert next(iter(loader)).indices == seen


@pytest.mark.parametrize("start", [0, 2, 5, 6])
def test_resume_inside_an_epoch(start):
    loader = Loader(Toy(), 4, shuffle=True, augment=ColorJitter())
    whole = list(loader.epoch(2))
    rest = list(loader.epoch(2, start_batch=start))
    assert indices(rest) == indices(whole)[start:]
    for a, b in zip(rest, whole[start:], strict=True):
        np.testing.assert_array_equal(a.images[0], b.images[0])
    with pytest.raises(ArgumentError, match="start_batch 7"):
        loader.epoch(2, start_batch=7)


def test_prefetch_is_bounded():
    data = Toy(400)
    batches = iter(Loader(data, 2, workers=2))
    next(batches)
    # 4 batches ahead at most, and the one handed out.
    assert len(data.made) <= 2 * (4 + 1)
    batches.close()


def test_threads_end_with_the_loop():
    for _ in Loader(Toy(), 2):
        break
    assert loader_threads() == []
    with pytest.raises(RuntimeError, match="stop here"):
        for _ in Loader(Toy(), 2):
            raise RuntimeError("stop here")
    with pytest.raises(KeyboardInterrupt):
        for _ in Loader(Toy(), 2):
            raise KeyboardInterrupt
    list(Loader(Toy(), 2))
    assert loader_threads() == []


def test_ctrl_c_while_waiting_for_a_batch():
    """The signal arrives when the consumer sleeps: it is raised there, and the threads end."""

    class Slow(Toy):
        def __getitem__(self, i):
            if i == 8:
                _thread.interrupt_main()
            time.sleep(0.02)
            return super().__getitem__(i)

    with pytest.raises(KeyboardInterrupt):
        for _ in Loader(Slow(), 4):
            pass
    assert loader_threads() == []


@pytest.mark.parametrize("workers", [0, 2])
def test_errors_name_the_item(workers):
    class Broken(Toy):
        def __getitem__(self, i):
            if i == 11:
                raise ValueError("bad luck")
            return super().__getitem__(i)

    seen = []
    with pytest.raises(KDSError, match=r"item 11.*ValueError.*bad luck") as info:
        for batch in Loader(Broken(), 5, workers=workers):
            seen += batch.indices
    assert isinstance(info.value.__cause__, ValueError)
    assert seen == list(range(10)) and loader_threads() == []


@pytest.mark.parametrize(
    ("image", "target", "error", "words"),
    [
        (np.zeros((8, 6), np.uint8), {"boxes": [], "labels": []}, ShapeError, "item 0.*grey"),
        (
            np.zeros((8, 6, 3), np.uint8),
            {"boxes": [[0, 0, 9, 9]], "labels": [1]},
            ArgumentError,
            "box 0",
        ),
        (
            np.zeros((8, 6, 3), np.uint8),
            {"boxes": [[0, 0, 2, 2]], "labels": [2]},
            ArgumentError,
            "label 2",
        ),
    ],
)
def test_items_are_checked(image, target, error, words):
    class One(Toy):
        def __getitem__(self, i):
            return image, target

    with pytest.raises(error, match=words):
        list(Loader(One(1), 1))


def test_float_images_and_lists_of_pairs():
    pair = (np.ones((3, 8, 6), np.float32), {"boxes": [], "labels": []})
    (batch,) = Loader([pair, pair], 4)
    assert batch.images[0].dtype == np.uint8 and batch.images[0].shape == (8, 6, 3)
    assert batch.images[0].min() == 255


def test_teacher_sees_the_same_view():
    loader = Loader(Toy(4), 4, augment=ColorJitter(), teacher_size=12)
    (batch,) = loader
    for student, teacher in zip(batch.images, batch.teacher_images, strict=True):
        assert teacher.shape == (16, 12, 3)
        np.testing.assert_array_equal(teacher[0, 0], student[0, 0])  # the toy images are flat
    (batch,) = Loader(Toy(4), 4, teacher_size=(12, 14))
    assert batch.teacher_images[0].shape == (14, 11, 3)


@pytest.mark.parametrize(
    "arguments",
    [
        {"batch_size": 0},
        {"workers": -1},
        {"seed": -1},
        {"teacher_size": 0},
        {"teacher_size": (4, 2)},
    ],
)
def test_wrong_arguments(arguments):
    with pytest.raises(ArgumentError, match=next(iter(arguments))):
        Loader(Toy(), **{"batch_size": 2, **arguments})


def scene():
    image = np.zeros((10, 20, 3), np.uint8)
    image[2:6, 3:9] = 255
    mask = image[None, :, :, 0] > 0
    return image, {
        "boxes": np.array([[3, 2, 9, 6]], np.float32),
        "labels": np.array([1]),
        "masks": mask,
    }


def box_of(mask):
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]


def test_flip_moves_image_boxes_and_masks_together():
    image, target = scene()
    rng = np.random.default_rng(0)
    flipped, moved = HorizontalFlip(1.0)(image, target, rng)
    assert moved["boxes"].tolist() == [box_of(flipped[:, :, 0] > 0)] == [box_of(moved["masks"][0])]
    assert target["boxes"].tolist() == [[3, 2, 9, 6]]  # the original is untouched
    back, again = HorizontalFlip(1.0)(flipped, moved, rng)
    np.testing.assert_array_equal(back, image)
    np.testing.assert_array_equal(again["boxes"], target["boxes"])
    same, _ = HorizontalFlip(0.0)(image, target, rng)
    assert same is image


def test_resize_scales_boxes_and_masks():
    image, target = scene()
    big, scaled = ResizeShortSide(30)(image, target, np.random.default_rng(0))
    assert big.shape == (30, 60, 3)
    assert scaled["boxes"].tolist() == [[9, 6, 27, 18]] == [box_of(scaled["masks"][0])]
    assert ResizeShortSide(30, max_size=40)(image, target, None)[0].shape == (20, 40, 3)
    sizes = {
        ResizeShortSide((5, 10))(image, target, np.random.default_rng(s))[0].shape[0]
        for s in range(20)
    }
    assert sizes == {5, 10}


def test_jitter_changes_colours_only():
    image, target = scene()
    image[:, :, 0] = 90
    jittered, same = ColorJitter(0.5, 0.5, 0.5)(image, target, np.random.default_rng(1))
    assert same is target and jittered.shape == image.shape and jittered.dtype == np.uint8
    assert not np.array_equal(jittered, image)
    unchanged, _ = ColorJitter(0, 0, 0)(image, target, np.random.default_rng(1))
    # The round trip through luminance in float32 may move a value by one.
    assert np.abs(unchanged.astype(int) - image).max() <= 1


def test_compose_and_bad_augmentations():
    with pytest.raises(ArgumentError, match=r"transforms\[0\]"):
        Compose([3])
    with pytest.raises(ArgumentError, match="p must be"):
        HorizontalFlip(2)
    with pytest.raises(ArgumentError, match=r"item 0.*uint8"):
        list(Loader(Toy(1), 1, augment=lambda image, target, rng: (image / 2, target)))
