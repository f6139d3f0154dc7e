"""KITTI on a small tree in the real layout: ignored objects, lists, and every kind of bad line."""

import numpy as np
import pytest
from PIL import Image

from kdswift.data import KITTI, KITTI_CLASSES, Loader
from kdswift.detections import Detections
from kdswift.errors import ArgumentError, FormatError
from kdswift.evaluation import evaluate


def line(kind="Car", box=(10, 10, 60, 90.5), truncated="0.00", occluded="0"):
    corners = " ".join(f"{v:.2f}" if isinstance(v, (int, float)) else v for v in box)
    return f"{kind} {truncated} {occluded} -1.57 {corners} 1.5 1.6 3.9 -2.7 1.8 8.4 -1.6"


DONT_CARE = "DontCare -1 -1 -10 70.25 9.75 99.50 20.25 -1 -1 -1 -1000 -1000 -1000 -10"


def write_tree(root, items, lists=None):
    """items: name -> lines; every image is 100 x 120 (width x height)."""
    for folder in ("training/image_2", "training/label_2"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for name, lines in items.items():
        (root / f"training/label_2/{name}.txt").write_text("".join(f"{s}\n" for s in lines))
        pixels = rng.integers(0, 256, (120, 100, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / f"training/image_2/{name}.png")
    for split, names in (lists or {}).items():
        (root / "ImageSets").mkdir(exist_ok=True)
        (root / f"ImageSets/{split}.txt").write_text("".join(f"{n}\n" for n in names))
    return root


@pytest.fixture
def tree(tmp_path):
    first = [
        *(line(), line("Van", (20, 20, 40, 40)), line("Truck"), DONT_CARE),
        *(line("Cyclist", (1, 2, 3, 4), "0.31", "2"), line("Person_sitting", (5, 5, 9, 9))),
    ]
    items = {"000000": first, "000001": [], "000002": [line("Pedestrian")]}
    return write_tree(tmp_path, items, {"train": ["000000", "000001"], "val": ["000002"]})


def test_targets(tree):
    kitti = KITTI(tree)
    assert kitti.class_names == ("background", *KITTI_CLASSES) and kitti.ids == ["000000", "000001"]
    image, target = kitti[0]
    assert image.shape == (120, 100, 3) and target["image_id"] == 0
    assert target["boxes"].tolist() == [[10, 10, 60, 90.5], [1, 2, 3, 4]]
    assert target["labels"].tolist() == [1, 3] and not target["difficult"].any()
    assert target["truncated"].tolist() == [0, 0.31] and target["occluded"].tolist() == [0, 2]
    assert target["height"].tolist() == [80.5, 2]
    assert target["boxes"].dtype == np.float32 and target["labels"].dtype == np.int64
    assert kitti[1][1]["boxes"].shape == (0, 4) and kitti.check() is kitti


def test_ignored_objects(tree):
    """Van for Car, Person_sitting for Pedestrian, DontCare for all; Truck is background."""
    target = KITTI(tree).evaluation_target(0)
    assert target["labels"].tolist() == [1, 1, 1, 2, 3, 3, 2]
    assert target["difficult"].tolist() == [False, True, False, False, False, False, True]
    assert target["iscrowd"].tolist() == [False, False, True, True, True, False, False]
    assert target["boxes"][2].tolist() == target["boxes"][4].tolist() == [70.25, 9.75, 99.5, 20.25]
    everything = KITTI(tree, use_ignored=True)[0][1]
    assert len(everything["labels"]) == 7
    vans = KITTI(tree, classes=("Van", "Car")).evaluation_target(0)
    assert vans["labels"].tolist() == [2, 1, 2, 1, 2]  # a Van, and ignored as a Car
    assert vans["difficult"].tolist() == [False, False, True, False, False]
    assert KITTI(tree, classes=["Truck"]).evaluation_target(0)["labels"].tolist() == [1, 1]


def test_lists(tree, tmp_path):
    assert KITTI(tree, "val").ids == ["000002"]
    own = tmp_path / "own.txt"
    own.write_text("000002\n\n000000\n")
    assert KITTI(tree, own).ids == KITTI(tree, str(own)).ids == ["000002", "000000"]
    with pytest.raises(FormatError, match=r"test\.txt.*train, val"):
        KITTI(tree, "test")
    with pytest.raises(FormatError, match="no folder.*label_2"):
        KITTI(tree / "training")
    with pytest.raises(ArgumentError, match="classes"):
        KITTI(tree, classes="Car")
    for path in (tree / "ImageSets").iterdir():
        path.unlink()
    (tree / "ImageSets").rmdir()
    assert KITTI(tree, "trainval").ids == ["000000", "000001", "000002"]
    with pytest.raises(FormatError, match=r"train\.txt: no such split.*trainval"):
        KITTI(tree)


def test_protocol_and_evaluation(tree):
    kitti = KITTI(tree, "train")
    assert kitti.show(1).size[0] >= 100 and len(list(iter(kitti))) == 2
    (batch,) = Loader(KITTI(tree, use_ignored=True), 2)
    assert batch.targets[0]["iscrowd"].sum() == 3

    class Perfect:
        def predict(self, images, **_):
            targets = [kitti.evaluation_target(i) for i in range(2)]
            return [
                Detections(t["boxes"], np.linspace(0.9, 0.8, len(t["labels"])), t["labels"])
                for t in targets
            ]

    for metric, expected in (("kitti_r11", 1 / 11), ("kitti_r40", 0), ("voc10", 1)):
        result = evaluate(Perfect(), kitti, metric, progress=False)
        assert result.per_class["Car"] == pytest.approx(expected, abs=1e-12)
    assert np.isnan(result.per_class["Pedestrian"])  # only ignored ones


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (line() + " 0.9", "expected 15 fields, got 16"),
        ("Car 0 0", "expected 15 fields, got 3"),
        (line("Dragon"), "unknown type 'Dragon'.*Pedestrian"),
        (line(box=("nan", 1, 2, 3)), "field 5 is 'nan', not a number"),
        (line(box=(1, 1, "inf", 3)), "field 7 is 'inf'"),
        (line(box=(1, 1, "x", 3)), "field 7 is 'x'"),
        (line(box=(9, 9, 8, 20)), "left 9, top 9, right 8, bottom 20 has no area"),
        (line(box=(9, 9, 9, 20)), "no area"),
        (line(box=(1, 1, 105, 20)), "outside the image of 100x120"),
        (line(box=(-5, 1, 10, 20)), "outside"),
        (line(truncated="1.5"), "truncated is 1.5"),
        (line(occluded="4"), "occluded is 4"),
        (line(occluded="0.5"), "occluded is 0.5"),
        (line().replace("-1.57", "?"), "field 4 is '?'"),
    ],
)
def test_bad_lines(tmp_path, text, words):
    write_tree(tmp_path, {"000003": [line(), text]}, {"train": ["000003"]})
    with pytest.raises(FormatError, match=words.replace("?", r"\?")) as info:
        KITTI(tmp_path)[0]
    assert "000003.txt, line 2" in str(info.value)


def test_one_pixel_outside_is_clipped(tmp_path):
    write_tree(tmp_path, {"a": [line(box=(-1, 0, 101, 120.5))]}, {"train": ["a"]})
    assert KITTI(tmp_path)[0][1]["boxes"].tolist() == [[0, 0, 100, 120]]


def test_missing_and_truncated_files(tree):
    png = tree / "training/image_2/000000.png"
    png.write_bytes(png.read_bytes()[:500])
    (tree / "training/label_2/000001.txt").unlink()
    with pytest.raises(FormatError, match=r"(?s)2 of 2 items.*000000\.png.*000001\.txt"):
        KITTI(tree).check()
    png.unlink()
    with pytest.raises(FormatError, match=r"000000\.png: no such image"):
        KITTI(tree)[0]
    (tree / "training/label_2/000002.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(FormatError, match=r"000002\.txt: not a text file"):
        KITTI(tree, "val")[0]
