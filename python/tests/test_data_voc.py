"""VOC on a small tree in the real layout: boxes, difficult objects, and every kind of bad file."""

import numpy as np
import pytest
from PIL import Image

from kdswift.data import VOC, VOC_CLASSES, Loader
from kdswift.detections import Detections
from kdswift.errors import ArgumentError, FormatError
from kdswift.evaluation import evaluate


def element(name="dog", box=(1, 1, 30, 20), difficult="0", extra=""):
    xmin, ymin, xmax, ymax = box
    return f"""
    <object>
        <name>{name}</name><pose>Left</pose><truncated>1</truncated>
        <difficult>{difficult}</difficult>
        <bndbox><xmin>{xmin}</xmin><ymin>{ymin}</ymin><xmax>{xmax}</xmax><ymax>{ymax}</ymax></bndbox>
        {extra}
    </object>"""


def annotation(*objects, name="000001"):
    return f"""<annotation>
    <folder>VOC2007</folder><filename>{name}.jpg</filename>
    <owner><name>someone</name></owner>
    <size><width>40</width><height>30</height><depth>3</depth></size>
    <segmented>0</segmented>{"".join(objects)}
</annotation>
"""


PART = """<part><name>head</name>
    <bndbox><xmin>2</xmin><ymin>2</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></part>"""


def write_tree(root, items, prefix="VOCdevkit/VOC2007", split="trainval"):
    """items: name -> XML text; every image is 40 x 30."""
    base = root / prefix
    for folder in ("Annotations", "ImageSets/Main", "JPEGImages"):
        (base / folder).mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for name, text in items.items():
        (base / "Annotations" / f"{name}.xml").write_text(text)
        pixels = rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(base / "JPEGImages" / f"{name}.jpg", quality=95)
    (base / f"ImageSets/Main/{split}.txt").write_text("".join(f"{n}\n" for n in items))
    return base


@pytest.fixture
def tree(tmp_path):
    write_tree(
        tmp_path,
        {
            "000001": annotation(element("dog"), element("person", (5, 6, 40, 30), "1", PART)),
            "000005": annotation(element("tvmonitor", (3, 4, 3, 4))),
            "000007": annotation(),
        },
    )
    return tmp_path


def test_boxes_are_edges_from_zero(tree):
    voc = VOC(tree, use_difficult=True)
    image, target = voc[0]
    assert image.shape == (30, 40, 3) and image.dtype == np.uint8
    assert target["boxes"].tolist() == [[0, 0, 30, 20], [4, 5, 40, 30]]
    assert target["boxes"].dtype == np.float32 and target["labels"].dtype == np.int64
    assert [voc.class_names[i] for i in target["labels"]] == ["dog", "person"]
    assert target["difficult"].tolist() == [False, True] and target["image_id"] == 0
    assert voc[1][1]["boxes"].tolist() == [[2, 3, 3, 4]]  # a single pixel
    assert voc[2][1]["boxes"].shape == (0, 4) and voc.ids == ["000001", "000005", "000007"]
    assert voc.num_classes == 21 and voc.class_names[1:] == VOC_CLASSES == tuple(
        sorted(VOC_CLASSES)
    )
    assert voc.check() is voc


def test_difficult_objects_are_left_out_by_default(tree):
    voc = VOC(tree)
    assert voc[0][1]["boxes"].tolist() == [[0, 0, 30, 20]] and len(voc[0][1]["difficult"]) == 1
    assert voc.evaluation_target(0)["difficult"].tolist() == [False, True]


def test_evaluation_ignores_difficult_objects(tree):
    """Detecting a difficult object is no false positive although training does not see it."""

    class Everything:
        def predict(self, images, **_):
            full = VOC(tree, use_difficult=True)
            targets = [full[i][1] for i in range(3)]
            return [
                Detections(t["boxes"], np.full(len(t["labels"]), 0.9), t["labels"]) for t in targets
            ]

    for metric in ("voc07", "voc10"):
        result = evaluate(Everything(), VOC(tree), metric, progress=False)
        assert pytest.approx(1) == result.AP and result.num_objects == 2


@pytest.mark.parametrize("prefix", ["VOCdevkit/VOC2012", "VOC2012", "."])
def test_layouts(tmp_path, prefix):
    write_tree(tmp_path, {"a": annotation(element())}, prefix, "val")
    assert len(VOC(tmp_path, 2012, "val")) == 1


def test_split_files_with_two_columns(tree):
    folder = tree / "VOCdevkit/VOC2007/ImageSets/Main"
    (folder / "dog_val.txt").write_text("000001  1\n000007 -1\n\n")
    assert VOC(tree, split="dog_val").ids == ["000001", "000007"]


def test_own_class_names(tmp_path):
    write_tree(tmp_path, {"a": annotation(element("widget"))})
    for names in (["gadget", "widget"], ["background", "gadget", "widget"]):
        voc = VOC(tmp_path, class_names=names)
        assert voc.num_classes == 3 and voc[0][1]["labels"].tolist() == [2]
    with pytest.raises(ArgumentError, match="class_names"):
        VOC(tmp_path, class_names=["a", "a"])


def test_one_pixel_outside_is_clipped(tmp_path):
    write_tree(tmp_path, {"a": annotation(element(box=(0, 0, 41, "31.0")))})
    assert VOC(tmp_path)[0][1]["boxes"].tolist() == [[0, 0, 40, 30]]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (annotation(element("unicorn")), r"line 7.*unknown class 'unicorn'.*aeroplane"),
        (annotation(element(box=(1, 1, 45, 20))), r"line 9.*outside the image of 40x30"),
        (annotation(element(box=(-5, 1, 20, 20))), "outside"),
        (annotation(element(), element(box=(9, 9, 8, 20))), r"line 15.*no area"),
        (annotation(element(box=("x", 1, 2, 3))), "line 9.*<xmin> is 'x', not a number"),
        (annotation(element(box=("nan", 1, 2, 3))), "not a number"),
        (annotation(element(difficult="maybe")), "line 8.*<difficult> is 'maybe'"),
        (annotation("<object><name>dog</name></object>"), "line 5.*<object> has no <bndbox>"),
        (annotation("<object></object>"), "<object> has no <name>"),
        (annotation(element()).replace("<ymax>20</ymax>", ""), "<bndbox> has no <ymax>"),
        ("<picture></picture>", "line 1.*expected <annotation>"),
        ("", "line 1.*broken or truncated"),
        ("no xml at all", "broken or truncated"),
        ('<!DOCTYPE a [<!ENTITY b "c">]><annotation>&b;</annotation>', "entity"),
        ('<?xml version="1.0" encoding="martian"?><annotation/>', "a.xml"),
    ],
)
def test_bad_annotations(tmp_path, text, words):
    write_tree(tmp_path, {"a": text})
    with pytest.raises(FormatError, match=words) as info:
        VOC(tmp_path)[0]
    assert "a.xml" in str(info.value)


def test_xml_cut_anywhere(tmp_path):
    text = annotation(element(), element("cat"))
    base = write_tree(tmp_path, {"a": text})
    for end in range(0, len(text.rstrip())):
        (base / "Annotations/a.xml").write_text(text[:end])
        with pytest.raises(FormatError, match=r"a\.xml, line \d+"):
            VOC(tmp_path)[0]


def test_missing_and_truncated_files(tree):
    base = tree / "VOCdevkit/VOC2007"
    jpeg = base / "JPEGImages/000005.jpg"
    data = jpeg.read_bytes()
    for end in (0, 10, len(data) // 2):
        jpeg.write_bytes(data[:end])
        with pytest.raises(FormatError, match=r"000005\.jpg"):
            VOC(tree)[1]
    jpeg.unlink()
    with pytest.raises(FormatError, match=r"000005\.jpg: no such image"):
        VOC(tree)[1]
    (base / "Annotations/000001.xml").unlink()
    with pytest.raises(FormatError, match=r"000001\.xml"):
        VOC(tree)[0]
    with pytest.raises(FormatError, match=r"(?s)2 of 3 items.*000001\.xml.*000005\.jpg"):
        VOC(tree).check()
    with pytest.raises(FormatError, match=r"item 0.*000001\.xml|000001\.xml.*"):
        list(Loader(VOC(tree), 2))


def test_missing_folders_and_splits(tree, tmp_path):
    with pytest.raises(FormatError, match=r"tried.*VOC2012"):
        VOC(tmp_path / "nowhere", 2012)
    with pytest.raises(FormatError, match=r"test\.txt.*trainval"):
        VOC(tree, split="test")
    (tree / "VOCdevkit/VOC2007/ImageSets/Main/none.txt").write_text("\n")
    with pytest.raises(FormatError, match=r"none\.txt.*empty"):
        VOC(tree, split="none")
