"""ILSVRC DET on a small tree in the real layout: class lists, lists of one class, bad files."""

import numpy as np
import pytest
from PIL import Image

from kdswift.data import ILSVRCDet, Loader
from kdswift.errors import ArgumentError, FormatError

DOG, CAT, ACCORDION = "n02084071", "n02121808", "n02672831"
MAP = f"{ACCORDION} 1 accordion\n{CAT} 37 domestic cat\n{DOG} 58 dog\n"


def annotation(*objects):
    text = "".join(
        f"""
    <object>
        <name>{name}</name>
        <bndbox><xmin>{box[0]}</xmin><xmax>{box[2]}</xmax><ymin>{box[1]}</ymin><ymax>{box[3]}</ymax>
        </bndbox>
    </object>"""
        for name, box in objects
    )
    return f"""<annotation>
    <folder>ILSVRC2013_val</folder>
    <source><database>ILSVRC_2013</database></source>
    <size><width>40</width><height>30</height></size>{text}
</annotation>
"""


ITEMS = {
    "val/ILSVRC2012_val_00000001": annotation((DOG, (0, 0, 39, 29)), (CAT, (5, 6, 5, 6))),
    "val/ILSVRC2012_val_00000002": annotation(),
    "train/ILSVRC2013_train/n02672831/n02672831_1": annotation((ACCORDION, (1, 2, 20, 21))),
    "train/ILSVRC2013_train_extra0/ILSVRC2013_train_00000001": None,
    "train/ILSVRC2014_train_0000/ILSVRC2014_train_00000001": annotation((DOG, (1, 2, 20, 21))),
}


def write_tree(root, items, lists, class_map=MAP):
    rng = np.random.default_rng(0)
    (root / "ImageSets/DET").mkdir(parents=True, exist_ok=True)
    for name, text in items.items():
        for folder in ("Annotations", "Data"):
            (root / folder / "DET" / name).parent.mkdir(parents=True, exist_ok=True)
        if text is not None:
            (root / "Annotations/DET" / f"{name}.xml").write_text(text)
        pixels = rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / "Data/DET" / f"{name}.JPEG")
    for split, text in lists.items():
        (root / "ImageSets/DET" / f"{split}.txt").write_text(text)
    if class_map is not None:
        (root / "devkit/data").mkdir(parents=True, exist_ok=True)
        (root / "devkit/data/map_det.txt").write_text(class_map)
    return root


VAL = "ILSVRC2012_val_00000001 1\nILSVRC2012_val_00000002 2\n"
ONE_CLASS = (
    "ILSVRC2013_train/n02672831/n02672831_1 1\n"
    "ILSVRC2014_train_0000/ILSVRC2014_train_00000001 0\n"
    "ILSVRC2013_train_extra0/ILSVRC2013_train_00000001 -1\n"
)


@pytest.fixture
def tree(tmp_path):
    return write_tree(tmp_path, ITEMS, {"val": VAL, "train_1": ONE_CLASS})


def test_targets(tree):
    data = ILSVRCDet(tree, "val")
    assert data.class_names == ("background", "accordion", "domestic cat", "dog")
    assert data.wnids == ("background", ACCORDION, CAT, DOG)
    image, target = data[0]
    assert image.shape == (30, 40, 3) and target["image_id"] == 0
    assert target["boxes"].tolist() == [[0, 0, 40, 30], [5, 6, 6, 7]]  # the last pixel included
    assert target["labels"].tolist() == [3, 2] and target["labels"].dtype == np.int64
    assert target["boxes"].dtype == np.float32 and not target["difficult"].any()
    assert data[1][1]["boxes"].shape == (0, 4) and data.check() is data
    assert data.show(2).size[0] > 40 and len(list(Loader(data, 2))) == 1


def test_the_folder_above_and_own_lists(tmp_path):
    write_tree(tmp_path / "ILSVRC", ITEMS, {"val": VAL})
    assert len(ILSVRCDet(tmp_path, "val")) == 2
    own = tmp_path / "val1.txt"
    own.write_text("ILSVRC2012_val_00000002 1\n")
    assert len(ILSVRCDet(tmp_path, own)[0][1]["boxes"]) == 0
    other = tmp_path / "mine.txt"
    other.write_text("a 1\n")
    with pytest.raises(ArgumentError, match=r"mine.*train, val or test"):
        ILSVRCDet(tmp_path, other)
    with pytest.raises(FormatError, match=r"val7\.txt: no such split; there are: val"):
        ILSVRCDet(tmp_path, "val7")
    with pytest.raises(FormatError, match="no Annotations/DET"):
        ILSVRCDet(tmp_path / "nowhere")


def test_lists_of_one_class(tree):
    """1: shown; 0: perhaps, without boxes, left out; -1: not shown, needs no file."""
    data = ILSVRCDet(tree, "train_1")
    assert len(data) == 2 and data[0][1]["labels"].tolist() == [1]
    assert data[1][1]["boxes"].shape == (0, 4) and data[1][1]["labels"].dtype == np.int64
    path = tree / "ImageSets/DET/train_1.txt"
    path.write_text(ONE_CLASS.replace("-1", "2"))
    with pytest.raises(FormatError, match=r"train_1\.txt, entry 3.*-1, 0, 1"):
        ILSVRCDet(tree, "train_1")
    # In a list of all classes every image needs its file.
    (tree / "ImageSets/DET/train.txt").write_text(ONE_CLASS.replace("-1", "3"))
    with pytest.raises(FormatError, match=r"ILSVRC2013_train_00000001\.xml"):
        ILSVRCDet(tree, "train")[2]


def test_classes(tmp_path):
    tree = write_tree(tmp_path, ITEMS, {"val": VAL}, None)
    collected = ILSVRCDet(tree, "val")
    assert collected.class_names == ("background", DOG, CAT)
    given = ILSVRCDet(tree, "val", classes=[CAT, DOG])
    assert given[0][1]["labels"].tolist() == [2, 1] and given.wnids == given.class_names
    named = ILSVRCDet(tree, "val", classes={DOG: "dog", CAT: "cat"})
    assert named.class_names == ("background", "dog", "cat") and named.wnids[1] == DOG
    with pytest.raises(FormatError, match=f"line 6.*unknown class '{DOG}'; the classes are {CAT}"):
        ILSVRCDet(tree, "val", classes=[CAT])[0]
    with pytest.raises(ArgumentError, match="classes"):
        ILSVRCDet(tree, "val", classes=[CAT, CAT])
    (tree / "ImageSets/DET/val2.txt").write_text("ILSVRC2012_val_00000002 1\n")
    with pytest.raises(FormatError, match="no objects"):
        ILSVRCDet(tree, "val2")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f"{DOG} 1\n", "line 1: expected WordNet id, number, name"),
        (f"{DOG} 1 dog\n{CAT} x cat\n", "line 2: expected"),
        (f"{DOG} 1 dog\n{CAT} 1 cat\n", "line 2: number 1 occurs twice"),
        (f"{DOG} 1 dog\n{DOG} 2 cat\n", "occurs twice"),
        ("\n", "no classes"),
    ],
)
def test_bad_class_lists(tmp_path, text, words):
    with pytest.raises(FormatError, match=words) as info:
        ILSVRCDet(write_tree(tmp_path, ITEMS, {"val": VAL}, text), "val")
    assert "map_det.txt" in str(info.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (annotation((DOG, (1, 1, 45, 20))), "line 7: box.*outside the image of 40x30"),
        (annotation((DOG, (9, 1, 7, 20))), "line 7: box.*no area"),
        (annotation((DOG, ("nan", 1, 7, 20))), "line 7.*not a number"),
        (annotation(("dog", (1, 1, 7, 20))), "line 6: unknown class 'dog'"),
        (annotation((DOG, (1, 1, 7, 20)))[:150], "truncated"),
    ],
)
def test_bad_annotations(tmp_path, text, words):
    name = "ILSVRC2012_val_00000001"
    tree = write_tree(tmp_path, {f"val/{name}": text}, {"val": f"{name} 1\n"})
    with pytest.raises(FormatError, match=words) as info:
        ILSVRCDet(tree, "val")[0]
    assert f"{name}.xml" in str(info.value)


def test_missing_and_truncated_images(tree):
    folder = tree / "Data/DET/val"
    first = folder / "ILSVRC2012_val_00000001.JPEG"
    first.write_bytes(first.read_bytes()[:100])
    (folder / "ILSVRC2012_val_00000002.JPEG").unlink()
    with pytest.raises(FormatError, match=r"(?s)2 of 2 items.*00001\.JPEG.*00002\.JPEG: no such"):
        ILSVRCDet(tree, "val").check()
