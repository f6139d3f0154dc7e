"""The YOLO layout on a small tree: boxes, polygons, lists of images, every kind of bad line."""

import builtins

import numpy as np
import pytest
from PIL import Image

from kdswift.data import YOLO, Loader
from kdswift.errors import ArgumentError, FormatError, KDSError


def write_tree(root, labels, folder="train"):
    """labels: name -> text of the label file or None; every image is 40 x 20."""
    rng = np.random.default_rng(0)
    for kind in ("images", "labels"):
        (root / kind / folder).mkdir(parents=True, exist_ok=True)
    for name, text in labels.items():
        pixels = rng.integers(0, 256, (20, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / "images" / folder / f"{name}.jpg")
        if text is not None:
            (root / "labels" / folder / f"{name}.txt").write_text(text)
    return {"path": str(root), "train": f"images/{folder}", "names": ["cat", "dog", "owl"]}


LABELS = {
    "a": "1 0.5 0.5 0.5 0.5\n0 0.125 0.25 0.25 0.5\n\n",
    "b": "",
    "c": None,
    "d": "2 0.25 0.5 0.75 0.25 0.5 1.0\n",
}


@pytest.fixture
def tree(tmp_path):
    return tmp_path, write_tree(tmp_path / "set", LABELS)


def test_targets(tree):
    data = YOLO(tree[1])
    assert data.class_names == ("background", "cat", "dog", "owl") and len(data) == 4
    image, target = data[0]
    assert image.shape == (20, 40, 3) and target["image_id"] == 0
    assert target["boxes"].tolist() == [[10, 5, 30, 15], [0, 0, 10, 10]]
    assert target["labels"].tolist() == [2, 1] and target["labels"].dtype == np.int64
    assert target["boxes"].dtype == np.float32
    for empty in (1, 2):  # an empty file, no file
        assert data[empty][1]["boxes"].shape == (0, 4)
        assert data[empty][1]["labels"].dtype == np.int64
    assert data[3][1]["boxes"].tolist() == [[10, 5, 30, 20]]  # of the polygon
    assert data.check() is data and data.show(4).size[0] > 40
    assert [len(b) for b in Loader(data, 3)] == [3, 1]
    assert [p.stem for p in data.ids] == list("abcd")


def test_yaml_files(tree):
    pytest.importorskip("yaml")
    root, _ = tree
    write_tree(root / "set", {"v": "0 0.5 0.5 1 1"}, "val")
    file = root / "data.yaml"
    file.write_text(
        "# a comment\npath: set\ntrain: images/train\nval:\n  - images/val\n  - images/train\n"
        "nc: 3\nnames:\n  0: cat\n  1: dog\n  2: owl\n"
    )
    assert len(YOLO(file)) == 4 and len(YOLO(str(file), "val")) == 5
    # Without a path, the folder of the file; "../" of some exports counts from too deep.
    (root / "set/data.yaml").write_text("train: ../images/train\nnames: [cat, dog, owl]\n")
    assert YOLO(root / "set/data.yaml")[0][1]["labels"].tolist() == [2, 1]
    with pytest.raises(FormatError, match=r"data\.yaml: no 'test'; there are: train, val"):
        YOLO(file, "test")
    for text, words in (
        ("names: [cat\ntrain: x", r"data\.yaml, line 2: broken YAML"),
        ("- a\n- b", "expected key: value lines, got list"),
        ("", "got NoneType"),
        ("a: !!python/object/apply:os.system [x]", r"line 1: broken YAML"),
        ("train: images", "names is None"),
        ("train: images\nnames: cat", "names is cat"),
        ("train: images\nnames: {1: cat}", "numbered 0, 1"),
        ("train: images\nnames: [cat, cat]", "twice"),
        ("train: images\nnames: [cat]\nnc: 2", "nc is 2, but there are 1 names"),
        ("train: nowhere\nnames: [cat]", r"train: no such folder or list.*nowhere"),
    ):
        file.write_text(text)
        with pytest.raises(FormatError, match=words) as info:
            YOLO(file)
        assert "data.yaml" in str(info.value)
    with pytest.raises(FormatError, match=r"none\.yaml"):
        YOLO(root / "none.yaml")


def test_without_pyyaml(tree, monkeypatch):
    imported = builtins.__import__

    def refuse(name, *arguments, **options):
        if name == "yaml":
            raise ImportError(name)
        return imported(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(KDSError, match="pip install pyyaml"):
        YOLO(tree[0] / "data.yaml")
    assert len(YOLO(tree[1])) == 4


def test_lists_of_images(tree):
    root, content = tree
    (root / "set/list.txt").write_text("./images/train/d.jpg\nimages/train/a.jpg\n\n")
    data = YOLO({**content, "train": "list.txt"})
    assert [p.stem for p in data.ids] == ["d", "a"] and data[0][1]["labels"].tolist() == [3]
    (root / "set/list.txt").write_text("\n")
    with pytest.raises(FormatError, match=r"list\.txt has no images"):
        YOLO({**content, "train": "list.txt"})


def test_label_files_elsewhere(tmp_path):
    """The last folder called images counts; without one, labels are beside the images."""
    content = write_tree(tmp_path / "images/x", {"a": LABELS["a"]})
    assert len(YOLO(content)[0][1]["boxes"]) == 2
    beside = tmp_path / "pictures"
    beside.mkdir()
    Image.new("RGB", (40, 20)).save(beside / "p.png")
    content = {"train": str(beside), "names": ["cat"]}
    with pytest.raises(FormatError, match=r"no image of 'train' has a label file.*p\.txt"):
        YOLO(content)
    (beside / "p.txt").write_text("0 0.5 0.5 1 1")
    assert YOLO(content)[0][1]["boxes"].tolist() == [[0, 0, 40, 20]]
    with pytest.raises(ArgumentError, match="split"):
        YOLO(content, "training")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("0 0.5 0.5 0.5", "got 4 values"),
        ("0 0.5 0.5 0.5 0.5 0.9", "got 6 values"),
        ("0 0.5 0.5 0.5 0.5 0.9 0.9 0.9", "got 8 values"),
        ("0 0.5 nan 0.5 0.5", "'nan' is not a number"),
        ("0 0.5 0.5 0.5 x", "'x' is not a number"),
        ("3 0.5 0.5 0.5 0.5", "class 3; with 3 classes they are 0–2"),
        ("-1 0.5 0.5 0.5 0.5", "class -1"),
        ("0.5 0.5 0.5 0.5 0.5", "class 0.5"),
        ("0 0.5 0.5 -0.5 0.5", "no area"),
        ("0 0.5 0.5 0 0.5", "no area"),
        ("0 0.5 0.5 -0.5 -0.5", "no area"),
        ("0 0.9 0.5 0.5 0.5", "x2 46.*outside the image of 40x20"),
        ("0 20 10 5 5", "outside"),
        ("0 0.2 0.2 0.2 0.4 0.2 0.8", "no area"),
    ],
)
def test_bad_lines(tmp_path, line, words):
    content = write_tree(tmp_path, {"a": f"0 0.5 0.5 0.5 0.5\n{line}\n"})
    with pytest.raises(FormatError, match=words) as info:
        YOLO(content)[0]
    assert "a.txt, line 2" in str(info.value)


def test_one_pixel_outside_is_clipped(tmp_path):
    content = write_tree(tmp_path, {"a": "0 0.5 0.5 1.04 1.04"})
    assert YOLO(content)[0][1]["boxes"].tolist() == [[0, 0, 40, 20]]


def test_missing_and_truncated_images(tree):
    root, content = tree
    image = root / "set/images/train/a.jpg"
    image.write_bytes(image.read_bytes()[:100])
    data = YOLO(content)
    (root / "set/images/train/b.jpg").unlink()
    with pytest.raises(FormatError, match=r"(?s)2 of 4 items.*a\.jpg.*b\.jpg: no such image"):
        data.check()
