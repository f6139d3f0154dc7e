"""Images and targets: what is accepted, what is refused, and what the refusal says."""

import io

import numpy as np
import pytest
from PIL import Image

from kdswift.data import as_image, check_target, image_size, pad_batch, read_image
from kdswift.data.images import resize_image, short_side_size, to_uint8
from kdswift.errors import ArgumentError, FormatError, ShapeError

RNG = np.random.default_rng(0)
PICTURE = RNG.integers(0, 256, (7, 5, 3), dtype=np.uint8)


def jpeg_bytes() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.tile(PICTURE, (6, 8, 1))).save(buffer, "JPEG")
    return buffer.getvalue()


def test_good_images(tmp_path):
    np.testing.assert_array_equal(as_image(PICTURE), PICTURE)
    view = PICTURE[:, ::-1]
    assert as_image(view).flags.c_contiguous
    np.testing.assert_array_equal(as_image(Image.fromarray(PICTURE)), PICTURE)
    path = tmp_path / "a.png"
    Image.fromarray(PICTURE).save(path)
    np.testing.assert_array_equal(as_image(path), PICTURE)
    np.testing.assert_array_equal(as_image(str(path)), PICTURE)
    floats = RNG.random((3, 7, 5), dtype=np.float32)
    assert as_image(floats) is floats
    assert image_size(PICTURE) == image_size(floats) == (7, 5)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "1", "LA"])
def test_pil_modes_become_rgb(mode, tmp_path):
    image = Image.fromarray(PICTURE).convert("L" if mode == "LA" else "RGB").convert(mode)
    assert as_image(image).shape == (7, 5, 3)


@pytest.mark.parametrize(
    ("array", "error", "words"),
    [
        (PICTURE[:, :, 0], ShapeError, "grey"),
        (np.dstack([PICTURE, PICTURE[:, :, 0]]), ShapeError, "alpha"),
        (PICTURE.transpose(2, 0, 1), ShapeError, r"transpose\(1, 2, 0\)"),
        (PICTURE[:, :, :2], ShapeError, r"\(7, 5, 2\)"),
        (PICTURE[None], ShapeError, "list of images"),
        (PICTURE[:0], ShapeError, "empty"),
        (PICTURE.astype(np.float64), ArgumentError, "float64"),
        (PICTURE.astype(np.int64), ArgumentError, "int64"),
        (PICTURE.astype(np.float32), ShapeError, r"transpose\(2, 0, 1\)"),
        (PICTURE.transpose(2, 0, 1).astype(np.float32), ArgumentError, "255"),
        (np.full((3, 4, 4), -0.5, np.float32), ArgumentError, "clip"),
        (np.full((1, 4, 4), 0.5, np.float32), ShapeError, "grey"),
        (None, ArgumentError, "NoneType"),
        ([[1], [2, 3]], ArgumentError, "picture 3"),
    ],
)
def test_bad_arrays(array, error, words):
    with pytest.raises(error, match=words) as info:
        as_image(array, "picture 3")
    assert "picture 3" in str(info.value)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_not_finite(value):
    image = np.zeros((3, 4, 5), np.float32)
    image[1, 2, 3] = value
    with pytest.raises(ArgumentError, match="channel 1, row 2, column 3"):
        as_image(image)


def test_jpeg_cut_anywhere(tmp_path):
    """Every cut gives FormatError with the file's name, or (in the last bytes) the picture."""
    data = jpeg_bytes()
    path = tmp_path / "cut.jpg"
    refused = 0
    for end in range(0, len(data), 7):
        path.write_bytes(data[:end])
        try:
            assert read_image(path).shape == (42, 40, 3)
        except FormatError as error:
            refused += 1
            assert "cut.jpg" in str(error)
    assert refused > 0.9 * len(range(0, len(data), 7))


def test_missing_file_and_no_image(tmp_path):
    with pytest.raises(FormatError, match=r"nothing\.png"):
        as_image(tmp_path / "nothing.png")
    (tmp_path / "text.png").write_text("hello")
    with pytest.raises(FormatError, match=r"text\.png"):
        as_image(tmp_path / "text.png")


def test_lazily_opened_truncated_pil_image(tmp_path):
    path = tmp_path / "cut.jpg"
    path.write_bytes(jpeg_bytes()[:-200])
    with pytest.raises(FormatError, match=r"cut\.jpg"):
        as_image(Image.open(path))


def test_pad_batch():
    images = [PICTURE, np.full((3, 9, 3), 200, np.uint8)]
    batch, sizes = pad_batch(images, divisor=4)
    assert batch.shape == (2, 8, 12, 3) and batch.dtype == np.uint8
    assert sizes.tolist() == [[7, 5], [3, 9]]
    np.testing.assert_array_equal(batch[0, :7, :5], PICTURE)
    assert batch[0, 7:].sum() == batch[0, :, 5:].sum() == 0
    assert batch[1].sum() == 3 * 9 * 3 * 200
    with pytest.raises(ArgumentError, match="empty"):
        pad_batch([])
    with pytest.raises(ArgumentError, match="divisor"):
        pad_batch(images, 0)


def test_sizes_and_resize():
    assert short_side_size(480, 640, 600, 1000) == (600, 800)
    assert short_side_size(300, 900, 600, 1000) == (333, 1000)
    assert short_side_size(900, 300, 600, None) == (1800, 600)
    assert resize_image(PICTURE, 14, 10).shape == (14, 10, 3)
    floats = (PICTURE.transpose(2, 0, 1) / 255).astype(np.float32)
    np.testing.assert_array_equal(to_uint8(floats), PICTURE)


def good_target(**changes):
    target = {"boxes": [[1, 2, 4, 6], [0, 0, 5, 7]], "labels": [1, 3], "image_id": 9}
    target.update(changes)
    return target


def test_target_is_normalised():
    result = check_target(good_target(iscrowd=[0, 1]), (7, 5), 4)
    assert result["boxes"].dtype == np.float32 and result["labels"].dtype == np.int64
    assert result["iscrowd"].tolist() == [False, True] and result["image_id"] == 9


@pytest.mark.parametrize("boxes", [[], np.zeros((0, 4))])
def test_empty_target(boxes):
    result = check_target({"boxes": boxes, "labels": []}, (7, 5), 4)
    assert result["boxes"].shape == (0, 4) and result["labels"].shape == (0,)
    assert result["labels"].dtype == np.int64


def test_rounding_at_the_border_is_clipped():
    result = check_target(good_target(boxes=[[-0.01, 0, 5.01, 7], [0, 0, 1, 1]]), (7, 5), 4)
    assert result["boxes"][0].tolist() == [0, 0, 5, 7]


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"boxes": [[1, 2, 4, 6], [0, 0, 6, 7]]}, ArgumentError, r"box 1 \(0, 0, 6, 7\).*outside"),
        ({"boxes": [[-1, 2, 4, 6], [0, 0, 5, 7]]}, ArgumentError, "box 0.*outside"),
        ({"boxes": [[1, 2, 1, 6], [0, 0, 5, 7]]}, ArgumentError, "box 0.*no area"),
        ({"boxes": [[1, 2, 4, 6], [3, 3, 2, 5]]}, ArgumentError, "box 1.*no area"),
        ({"boxes": [[1, 2, 4, np.nan], [0, 0, 5, 7]]}, ArgumentError, "box 0.*finite"),
        ({"boxes": [[1, 2, 4, 6], [5.001, 0, 5.01, 7]]}, ArgumentError, "box 1.*no area inside"),
        ({"boxes": [[1, 2, 4], [0, 0, 5]]}, ShapeError, r"\(2, 3\)"),
        ({"boxes": [1, 2, 4, 6]}, ShapeError, r"\(4,\)"),
        ({"boxes": np.zeros((0, 5))}, ShapeError, r"\(0, 5\)"),
        ({"boxes": [["a", "b", "c", "d"]]}, ArgumentError, "dtype"),
        ({"boxes": [[1, 2], [3]]}, ArgumentError, "boxes"),
        ({"labels": [1]}, ShapeError, "2 boxes but 1 labels"),
        ({"labels": [0, 1]}, ArgumentError, "box 0 has label 0"),
        ({"labels": [1, 4]}, ArgumentError, "box 1 has label 4.*1 to 3"),
        ({"labels": [1, -2]}, ArgumentError, "box 1 has label -2"),
        ({"labels": [1.0, 2.0]}, ArgumentError, "integers"),
        ({"labels": [[1, 2]]}, ShapeError, r"\(1, 2\)"),
        ({"masks": np.zeros((2, 5, 7), bool)}, ShapeError, "masks"),
        ({"masks": np.zeros((2, 7, 5), np.float32)}, ArgumentError, "masks"),
        ({"difficult": [True]}, ShapeError, "difficult"),
    ],
)
def test_bad_targets(changes, error, words):
    with pytest.raises(error, match=words) as info:
        check_target(good_target(**changes), (7, 5, 3), 4, where="targets[5]")
    assert "targets[5]" in str(info.value)


def test_missing_key_and_wrong_type():
    with pytest.raises(ArgumentError, match="labels"):
        check_target({"boxes": []}, (7, 5), 4)
    with pytest.raises(ArgumentError, match="list"):
        check_target([], (7, 5), 4)
    with pytest.raises(ShapeError, match="image_shape"):
        check_target(good_target(), (7, 5, 4, 1), 4)
