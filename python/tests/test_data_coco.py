"""COCO on a small file in the real format: ids with gaps, crowds, masks, every kind of bad file."""

import copy
import json

import numpy as np
import pytest
from PIL import Image

from kdswift.data import COCO, Loader
from kdswift.detections import Detections
from kdswift.errors import FormatError
from kdswift.evaluation import evaluate

mask_tools = pytest.importorskip("pycocotools.mask")

CROWD = np.zeros((30, 40), dtype=np.uint8)
CROWD[3:20, 5:9] = CROWD[10:12, 20:33] = 1


def run_lengths(mask):
    """Counts of runs down the columns, the first of zeros."""
    values = mask.T.reshape(-1)
    ends = np.flatnonzero(np.diff(values)) + 1
    counts = np.diff([0, *ends, len(values)]).tolist()
    return counts if values[0] == 0 else [0, *counts]


def content():
    square = [2, 3, 12, 3, 12, 23, 2, 23]
    return {
        "info": {"year": 2017},
        "images": [
            {"id": 391895, "file_name": "000000391895.jpg", "width": 40, "height": 30},
            {"id": 7, "file_name": "sub/7.png", "width": 40, "height": 30},
            {"id": 9, "file_name": "000000000009.jpg", "width": 40, "height": 30},
        ],
        "categories": [
            {"id": 90, "name": "toothbrush", "supercategory": "indoor"},
            {"id": 1, "name": "person", "supercategory": "person"},
            {"id": 18, "name": "dog", "supercategory": "animal"},
        ],
        "annotations": [
            {
                **{"id": 11, "image_id": 391895, "category_id": 18, "bbox": [2, 3, 10, 20]},
                **{"area": 150.5, "iscrowd": 0, "segmentation": [square]},
            },
            {
                **{"id": 12, "image_id": 391895, "category_id": 1, "bbox": [5, 3, 28, 17]},
                **{"area": 94, "iscrowd": 1},
                "segmentation": {"size": [30, 40], "counts": run_lengths(CROWD)},
            },
            {
                **{"id": 20, "image_id": 9, "category_id": 90, "bbox": [0.5, 0.25, 39.5, 30.5]},
                "segmentation": [[1, 1, 30, 1, 30, 20], [31, 21, 39, 21, 39, 29]],
            },
        ],
    }


def write_tree(root, data):
    rng = np.random.default_rng(0)
    for entry in content()["images"]:
        path = root / "images" / entry["file_name"]
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)).save(path)
    text = data if isinstance(data, str) else json.dumps(data)
    (root / "a.json").write_text(text)
    return root / "images", root / "a.json"


@pytest.fixture
def paths(tmp_path):
    return write_tree(tmp_path, content())


def test_boxes_labels_and_ids(paths):
    coco = COCO(*paths)
    assert coco.ids == [391895, 7, 9] and len(coco) == 3
    assert coco.class_names == ("background", "person", "dog", "toothbrush")
    assert coco.category_ids == (-1, 1, 18, 90) and coco.num_classes == 4
    image, target = coco[0]
    assert image.shape == (30, 40, 3) and image.dtype == np.uint8
    assert target["boxes"].tolist() == [[2, 3, 12, 23], [5, 3, 33, 20]]
    assert target["boxes"].dtype == np.float32 and target["labels"].dtype == np.int64
    assert target["labels"].tolist() == [2, 1] and target["iscrowd"].tolist() == [False, True]
    assert target["area"].tolist() == [150.5, 94] and target["image_id"] == 0
    assert "masks" not in target
    assert coco[1][1]["boxes"].shape == (0, 4)  # no annotations
    # Half a pixel outside is cut off; without "area" it is that of the box.
    assert coco[2][1]["boxes"].tolist() == [[0.5, 0.25, 40, 30]]
    assert coco[2][1]["area"].tolist() == [39.5 * 30.5] and not coco[2][1]["iscrowd"][0]
    assert coco.check() is coco and repr(coco).startswith("COCO(")
    with pytest.raises(IndexError):
        coco[3]


def test_protocol(paths):
    coco = COCO(*paths)
    assert len(list(iter(coco))) == 3
    coco[0][1]["boxes"][:] = 0
    assert coco[0][1]["boxes"].any()  # every target is a copy
    assert coco.show(2).size[0] > 40
    batches = list(Loader(COCO(*paths, masks=True), 2))
    assert [len(b) for b in batches] == [2, 1] and batches[0].targets[0]["masks"].any()


def test_masks(paths):
    coco = COCO(*paths, masks=True)
    masks = coco[0][1]["masks"]
    assert masks.shape == (2, 30, 40) and masks.dtype == bool
    expected = np.zeros((30, 40), dtype=bool)
    expected[3:23, 2:12] = True
    assert (masks[0] == expected).all() and (masks[1] == CROWD.astype(bool)).all()
    assert coco[1][1]["masks"].shape == (0, 30, 40)
    both = coco[2][1]["masks"][0]  # two polygons are one object
    assert both[5, 20] and both[27, 38] and not both[5, 2:5].any()


def test_compressed_run_lengths_agree_with_pycocotools(tmp_path):
    rng = np.random.default_rng(1)
    for trial in range(20):
        mask = (rng.random((30, 40)) < rng.random()).astype(np.uint8)
        mask[:, : rng.integers(0, 40)] = trial % 2  # long runs need more than one character
        data = content()
        counts = mask_tools.encode(np.asfortranarray(mask))["counts"].decode()
        data["annotations"][1]["segmentation"] = {"size": [30, 40], "counts": counts}
        masks = COCO(*write_tree(tmp_path, data), masks=True)[0][1]["masks"]
        assert (masks[1] == mask.astype(bool)).all()


def changed(where, value):
    """The content with one entry replaced; `where` is a path of keys; ... deletes it."""
    data = copy.deepcopy(content())
    *path, last = where
    inner = data
    for key in path:
        inner = inner[key]
    if value is ...:
        del inner[last]
    else:
        inner[last] = value
    return data


@pytest.mark.parametrize(
    ("where", "value", "words"),
    [
        (["images"], ..., "no list 'images'"),
        (["annotations"], {}, "no list 'annotations'"),
        (["categories", 1, "name"], ..., r"categories\[1\]: no 'name'"),
        (["categories", 1, "id"], 90, r"categories\[1\]: id 90 occurs twice"),
        (["images", 1], "x", r"images\[1\]: expected an object, got str"),
        (["images", 1, "id"], "7", r"images\[1\]: id is '7', not a whole number"),
        (["images", 2, "id"], 7, r"images\[2\]: id 7 occurs twice"),
        (["images", 1, "file_name"], 3, r"images\[1\]: file_name is '3', not a text"),
        (["annotations", 1, "id"], 11, r"annotations\[1\]: id 11 occurs twice"),
        (["annotations", 1, "image_id"], 8, "annotation 12: unknown image_id 8"),
        (["annotations", 0, "category_id"], 2, "annotation 11: unknown category_id 2.*1, 18, 90"),
        (["annotations", 0, "bbox"], ..., r"annotations\[0\]: no 'bbox'"),
        (["annotations", 0, "bbox"], [1, 2, 3], "annotation 11: bbox.*not four numbers"),
        (["annotations", 0, "bbox"], [1, 2, 3, "4"], "annotation 11: bbox.*not four numbers"),
        (["annotations", 0, "bbox"], [1, 2, float("nan"), 4], "annotation 11.*four numbers"),
        (["annotations", 0, "bbox"], [1, 2, 10**400, 4], "annotation 11.*four numbers"),
        (["annotations", 0, "bbox"], [1, 2, -3, 4], "annotation 11: bbox.*has no area"),
        (["annotations", 0, "bbox"], [1, 2, 0, 4], "annotation 11.*no area.*skip_degenerate"),
    ],
)
def test_bad_files(tmp_path, where, value, words):
    paths = write_tree(tmp_path, changed(where, value))
    with pytest.raises(FormatError, match=words) as info:
        COCO(*paths)
    assert "a.json" in str(info.value)


@pytest.mark.parametrize(
    ("where", "value", "words"),
    [
        (["annotations", 0, "bbox"], [1, 2, 45, 4], "annotation 11.*outside the image of 40x30"),
        (["annotations", 0, "bbox"], [1, -4, 5, 5], "annotation 11.*outside"),
        (["annotations", 0, "area"], -1, "annotation 11: area is -1"),
        (["annotations", 0, "iscrowd"], 2, "annotation 11: iscrowd is 2"),
        (["annotations", 0, "iscrowd"], [1], "annotation 11: iscrowd"),
        (["images", 0, "width"], "40", "image 391895: width is '40'"),
        (["images", 0, "width"], 39, "40x30.*39x30"),
        (["images", 0, "height"], 0, "height is 0"),
        (["annotations", 0, "segmentation"], ..., "annotation 11: segmentation"),
        (["annotations", 0, "segmentation"], [[1, 2, 3, 4]], "annotation 11.*three points"),
        (["annotations", 0, "segmentation"], [[1, 2, 3, 4, 5, 1e9]], "coordinate 1000000000"),
        (["annotations", 0, "segmentation"], [[1, 2, 3, 4, 5, None]], "coordinate None"),
        (["annotations", 1, "segmentation", "size"], [40, 30], "annotation 12.*size"),
        (["annotations", 1, "segmentation", "counts"], [1200, 1], "annotation 12.*no runs"),
        (["annotations", 1, "segmentation", "counts"], [-1, 1201], "no runs"),
        (["annotations", 1, "segmentation", "counts"], 5, "no runs"),
        (["annotations", 1, "segmentation", "counts"], "ab\x7f", "character"),
        (["annotations", 1, "segmentation", "counts"], "PPP", "cut off"),
        (["annotations", 1, "segmentation", "counts"], "00", "no runs"),
    ],
)
def test_bad_items(tmp_path, where, value, words):
    coco = COCO(*write_tree(tmp_path, changed(where, value)), masks=True)
    with pytest.raises(FormatError, match=words):
        coco[0]
    assert len(coco[2][1]["boxes"]) == 1  # the others are good


def test_sizes_from_the_image_where_the_file_has_none(tmp_path):
    data = changed(["images", 0, "width"], ...)
    assert COCO(*write_tree(tmp_path, data))[0][1]["boxes"].shape == (2, 4)


def test_degenerate_boxes_can_be_skipped(tmp_path):
    paths = write_tree(tmp_path, changed(["annotations", 0, "bbox"], [1, 2, 1.03, 0.0]))
    assert COCO(*paths, skip_degenerate=True)[0][1]["labels"].tolist() == [1]
    paths = write_tree(tmp_path, changed(["annotations", 0, "bbox"], [1, 2, -1, 0.0]))
    with pytest.raises(FormatError, match="no area"):
        COCO(*paths, skip_degenerate=True)


def test_json_cut_anywhere(tmp_path):
    text = json.dumps(content(), indent=1)
    images, file = write_tree(tmp_path, text)
    for end in range(0, len(text), 7):
        file.write_text(text[:end])
        with pytest.raises(FormatError, match=r"a\.json, line \d+: broken or truncated"):
            COCO(images, file)
    for damaged, words in (
        (b"\xff\xfe\x00", "broken JSON"),
        (b"[1]", "expected an object, got list"),
        (b"[" * 100_000, "broken"),
        (b'{"images": ' + b"9" * 5000 + b"}", "JSON|no list"),
    ):
        file.write_bytes(damaged)
        with pytest.raises(FormatError, match=words):
            COCO(images, file)
    with pytest.raises(FormatError, match=r"none\.json"):
        COCO(images, tmp_path / "none.json")


def test_missing_and_truncated_images(paths):
    images, _ = paths
    first = images / "000000391895.jpg"
    first.write_bytes(first.read_bytes()[:200])
    (images / "sub/7.png").unlink()
    with pytest.raises(FormatError, match=r"7\.png: no such image"):
        COCO(*paths)[1]
    with pytest.raises(FormatError, match=r"(?s)2 of 3 items.*391895\.jpg.*7\.png"):
        COCO(*paths).check()
    with pytest.raises(FormatError, match=r"391895\.jpg"):
        list(Loader(COCO(*paths), 2))


def test_evaluation_agrees_with_pycocotools_on_the_file_itself(tmp_path):
    """Labels lead to categories and back: the same numbers as COCOeval on files."""
    from pycocotools.coco import COCO as Reference
    from pycocotools.cocoeval import COCOeval

    rng = np.random.default_rng(5)
    data = content()
    data["annotations"] = []
    for image in (391895, 7, 9):
        for k in range(6):
            x, y = rng.integers(0, 20, 2).tolist()
            w, h = rng.integers(3, 10, 2).tolist()
            entry = {"id": image * 10 + k, "image_id": image, "bbox": [x, y, w, h]}
            entry |= {"category_id": int(rng.choice([1, 18, 90])), "iscrowd": int(k == 5)}
            data["annotations"].append({**entry, "area": 0.7 * w * h})
    coco = COCO(*write_tree(tmp_path, data))
    found = []
    for i in range(3):
        target = coco.evaluation_target(i)
        boxes = np.repeat(target["boxes"], 3, axis=0) + rng.integers(0, 2, (18, 4))
        labels = np.where(rng.random(18) < 0.8, np.repeat(target["labels"], 3), 1)
        found.append(Detections(boxes, rng.random(18), labels))

    class Recorded:
        def predict(self, images, **_):
            return found

    ours = evaluate(Recorded(), coco, "coco", progress=False)
    reference = Reference(str(tmp_path / "a.json"))
    entries = [e for i, d in enumerate(found) for e in d.to_coco(coco.ids[i], coco.category_ids)]
    assert {e["category_id"] for e in entries} == {1, 18, 90}
    scorer = COCOeval(reference, reference.loadRes(entries), "bbox")
    scorer.evaluate()
    scorer.accumulate()
    scorer.summarize()
    # Whole coordinates are exact in float32, so both see the same boxes.
    assert list(ours.stats.values()) == pytest.approx(
        [v if v >= 0 else np.nan for v in scorer.stats], abs=1e-12, nan_ok=True
    )
    assert 0 < ours.AP < 1 and set(ours.per_class) == {"person", "dog", "toothbrush"}
