"""Detections: form, indexing, converters, notebook pictures."""

import json
import sys
import types

import numpy as np
import pytest

from kdswift.detections import Detections
from kdswift.errors import ArgumentError, KDSError, ShapeError

NAMES = ["background", "cat", "<dog>"]


def three(**changes):
    values = {
        "boxes": [[1, 2, 5, 8], [0, 0, 3, 3], [2, 2, 4.5, 4]],
        "scores": [0.9, 0.5, 0.25],
        "labels": [1, 2, 1],
        "class_names": NAMES,
    }
    return Detections(**{**values, **changes})


def test_types_are_normal():
    d = three()
    assert d.boxes.dtype == np.float32 and d.scores.dtype == np.float32
    assert d.labels.dtype == np.int64 and len(d) == 3 and d.class_names == tuple(NAMES)
    assert len(Detections.empty()) == 0 and Detections.empty().boxes.shape == (0, 4)


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"scores": [1, 2]}, ShapeError, r"scores must be \(3,\)"),
        ({"labels": [1]}, ShapeError, "labels"),
        ({"labels": [1.5, 1, 1]}, ArgumentError, "integers"),
        ({"boxes": [[1, 2, 3]] * 3}, ShapeError, r"\(3, 3\)"),
        ({"masks": np.zeros((2, 4, 4))}, ShapeError, "masks"),
    ],
)
def test_wrong_shapes(changes, error, words):
    with pytest.raises(error, match=words):
        three(**changes)


def test_indexing():
    masks = np.arange(3)[:, None, None] == np.ones((1, 4, 4))
    d = three(masks=masks)
    assert d[d.scores > 0.4].labels.tolist() == [1, 2]
    assert d[1:].scores.tolist() == [0.5, 0.25] and d[[2, 0]].labels.tolist() == [1, 1]
    assert len(d[-1]) == 1 and d[-1].boxes[0, 2] == 4.5
    assert d[d.labels == 2].masks.all() and d[d.labels == 2].class_names == tuple(NAMES)
    assert len(d[[]]) == 0 and len(d.above(0.5)) == 2
    with pytest.raises(IndexError):
        d[3]


def test_coco_entries_are_json():
    entries = json.loads(json.dumps(three().to_coco(7, category_ids=[0, 17, 18])))
    assert entries[0]["image_id"] == 7 and entries[0]["bbox"] == [1, 2, 4, 6]
    assert [e["category_id"] for e in entries] == [17, 18, 17]
    assert [e["category_id"] for e in three().to_coco(7)] == [1, 2, 1]
    assert entries[1]["score"] == 0.5


def test_coco_masks():
    coco_mask = pytest.importorskip("pycocotools.mask")
    mask = np.zeros((1, 6, 5), bool)
    mask[0, 2:4, 1:3] = True
    (entry,) = Detections([[1, 2, 3, 4]], [1], [1], masks=mask).to_coco(1)
    json.dumps(entry)
    np.testing.assert_array_equal(coco_mask.decode(entry["segmentation"]), mask[0])


def test_supervision(monkeypatch):
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(KDSError, match="pip install supervision"):
        three().to_supervision()
    stub = types.ModuleType("supervision")
    stub.Detections = lambda **fields: fields
    monkeypatch.setitem(sys.modules, "supervision", stub)
    fields = three().to_supervision()
    assert fields["data"]["class_name"].tolist() == ["cat", "<dog>", "cat"]
    assert fields["xyxy"].shape == (3, 4) and fields["class_id"].tolist() == [1, 2, 1]


def test_dict_round_trip():
    again = Detections.from_dict(three().to_dict(), NAMES)
    np.testing.assert_array_equal(again.boxes, three().boxes)
    with pytest.raises(ArgumentError, match="scores"):
        Detections.from_dict({"boxes": [], "labels": []})


def test_text_and_html():
    d = three()
    assert "cat" in repr(d) and "0.900" in repr(d) and "3 boxes" in repr(d)
    assert "&lt;dog&gt;" in d._repr_html_() and "<dog>" not in d._repr_html_()
    assert d._repr_png_() is None
    many = Detections(np.tile([[0, 0, 1, 1]], (30, 1)), np.ones(30), np.ones(30, int))
    assert "20 more" in repr(many)
    with pytest.raises(ArgumentError, match="no image"):
        d.draw()


def test_picture():
    d = three(image=np.zeros((10, 12, 3), np.uint8))
    assert d._repr_png_().startswith(b"\x89PNG")
    assert "data:image/png;base64," in d._repr_html_()
