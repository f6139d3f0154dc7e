"""Boxes of a results file as teacher."""

from __future__ import annotations

import json

import numpy as np
import pytest
from tiny import CLASSES, QUIET, detector, same, scenes

import kdswift as kd
from kdswift.errors import ArgumentError, FormatError


def run(teacher, method=None, data=None, **options):
    """A short distillation: 2 steps an epoch."""
    student = detector(1, width=0.25)
    options = {**QUIET, "optimizer": kd.SGD(lr=0.02), **options}
    data = scenes(4) if data is None else data
    return student, kd.distill(student, teacher, data, method, 2, seed=3, **options)


def results_of(n=4, shift=0.0, score=0.9):
    """A perfect detector's results, shifted sideways."""
    result = []
    for i in range(n):
        target = scenes(n)[i][1]
        for box, label in zip(target["boxes"], target["labels"]):
            x1, y1, x2, y2 = map(float, box)
            bbox = [x1 + shift, y1, x2 - x1, y2 - y1]
            result.append({"image_id": i, "category_id": int(label), "bbox": bbox, "score": score})
    return result


def test_results_give_detections(tmp_path):
    path = tmp_path / "results.json"
    path.write_text(json.dumps(results_of()))
    teacher = kd.Teacher.from_coco_results(path, scenes(4))
    target = scenes(4)[2][1]
    found = teacher.detections(2)
    np.testing.assert_allclose(found.boxes, target["boxes"], rtol=1e-6)
    assert found.labels.tolist() == target["labels"].tolist()
    assert found.class_names == CLASSES
    assert len(teacher.detections(99)) == 0


def test_results_replace_or_join_the_truth():
    data = scenes(4)
    teacher = kd.Teacher.from_coco_results(results_of(), data)
    for i in range(4):  # the same boxes again: nothing is added
        assert same_target(kd.data.PseudoLabels(data, teacher)[i][1], data[i][1])
        alone = kd.data.PseudoLabels(data, teacher, keep_ground_truth=False)[i][1]
        assert sorted(map(tuple, alone["boxes"])) == sorted(map(tuple, data[i][1]["boxes"]))
    weak = kd.Teacher.from_coco_results(results_of(score=0.4), data)
    assert len(kd.data.PseudoLabels(data, weak, keep_ground_truth=False)[0][1]["boxes"]) == 0
    assert len(kd.data.PseudoLabels(data, weak, 0.3, False)[0][1]["boxes"]) > 0


def same_target(a, b):
    return all(np.array_equal(a[key], b[key]) for key in ("boxes", "labels"))


def test_merging_clips_and_keeps_the_best_of_a_class():
    image = np.zeros((40, 40, 3), np.uint8)
    truth = {"boxes": [[0, 0, 10, 10]], "labels": [1], "difficult": [True], "image_id": "a"}
    entries = [
        {"image_id": "a", "category_id": c, "bbox": b, "score": s}
        for c, b, s in (
            (1, [0, 0, 10, 9], 0.9),  # IoU 0.9 with the truth of its class: known
            (2, [0, 0, 10, 9], 0.8),  # another class: added
            (2, [0, 1, 10, 9], 0.7),  # IoU 0.8 with the one before: not added
            (1, [30, 30, 20, 20], 0.6),  # clipped to (30, 30, 40, 40)
            (1, [39.5, 0, 9, 9], 0.6),  # half a pixel is left of it
        )
    ]
    names = ["background", "x", "y"]
    data = type("Set", (list,), {"class_names": names})([(image, truth)])
    teacher = kd.Teacher.from_coco_results(entries, data)
    merged = kd.data.PseudoLabels(data, teacher)[0][1]
    expected = [[0, 0, 10, 10], [0, 0, 10, 9], [30, 30, 40, 40]]
    assert merged["boxes"].tolist() == expected
    assert merged["labels"].tolist() == [1, 2, 1]
    assert merged["difficult"].tolist() == [True, False, False]


class Numbered(list):
    """Items whose ids are numbers that look like positions of others, as COCO's do."""

    class_names = ("background", "x", "y")
    ids = (2, 1, 7)
    category_ids = (-1, 18, 44)


def test_ids_and_categories_of_the_data_set():
    image = np.zeros((40, 40, 3), np.uint8)
    data = Numbered((image, {"boxes": [], "labels": [], "image_id": i}) for i in range(3))

    def merged(images):
        box = [1, 2, 10, 10]
        entries = [
            {"image_id": i, "category_id": 44, "bbox": [*box[:2], 10 + n, 10], "score": 0.9}
            for n, i in enumerate(images)
        ]
        teacher = kd.Teacher.from_coco_results(entries, data)
        items = [kd.data.PseudoLabels(data, teacher)[i][1] for i in range(3)]
        assert all(label == 2 for item in items for label in item["labels"])
        return [item["boxes"][:, 2].tolist() for item in items]

    assert merged([1, 2, 7]) == [[12], [11], [13]]  # by id
    assert merged([0, 1, 2]) == [[11], [12], [13]]  # by position
    with pytest.raises(ArgumentError, match="none of its images"):
        merged([50])


def test_distilling_from_results_is_training_on_their_boxes(capsys):
    data, teacher = scenes(4), kd.Teacher.from_coco_results(results_of(shift=6.0), scenes(4))
    student, _ = run(teacher, None, progress=True)
    printed = capsys.readouterr().out
    count = len(results_of())
    assert f"pseudo-labels: {count} boxes with a score of at least 0.5 in 4 images" in printed
    plain, with_boxes = detector(1, width=0.25), detector(1, width=0.25)
    options = {"epochs": 2, "seed": 3, "optimizer": kd.SGD(lr=0.02), **QUIET}
    with_boxes.fit(kd.data.PseudoLabels(data, teacher), **options)
    plain.fit(data, **options)
    assert same(student, with_boxes)
    assert not same(student, plain)
    loader = kd.data.Loader(data, 2, True, workers=0, seed=3)
    assert same(student, run(teacher, None, data=loader)[0])
    assert loader.dataset is data


def test_results_beside_a_detector():
    teacher = kd.Teacher.from_coco_results(results_of(shift=6.0), scenes(4))
    both, history = run([detector(7), teacher], kd.methods.Chen2017())
    assert "distill_hint" in history.rows[0]
    assert not same(both, run(detector(7), kd.methods.Chen2017())[0])
    for method in (kd.methods.Chen2017(), kd.Term("backbone.layer3", "p3")):
        with pytest.raises(ArgumentError, match="boxes"):
            run(teacher, method)


def test_a_detector_labels_too():
    data = kd.data.PseudoLabels(scenes(2), detector(7), score_threshold=0.05)
    assert len(data[0][1]["boxes"]) >= len(scenes(2)[0][1]["boxes"])


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"category_id": 11}, ArgumentError, r"entry 0: category_id 11 .*1 to 10"),
        ({"bbox": [0, 0, 0, 5]}, FormatError, "entry 0: bbox"),
        ({"bbox": [0, 0, float("nan"), 5]}, FormatError, "entry 0: bbox"),
        ({"score": 7}, FormatError, "score 7"),
    ],
)
def test_wrong_results_are_named(change, error, words):
    with pytest.raises(error, match=words):
        kd.Teacher.from_coco_results([{**results_of()[0], **change}], scenes(4))


def test_wrong_result_files_are_named(tmp_path):
    path = tmp_path / "r.json"
    for text in ("{", '{"images": []}', "[1]", '[{"image_id": 1}]'):
        path.write_text(text)
        with pytest.raises(FormatError, match=r"r\.json"):
            kd.Teacher.from_coco_results(path, scenes(4))
    with pytest.raises(FormatError, match="no such file"):
        kd.Teacher.from_coco_results(tmp_path / "none.json", scenes(4))


def test_categories_by_name():
    entry = {**results_of()[0], "category_id": 77}
    teacher = kd.Teacher.from_coco_results([entry], scenes(4), categories={77: "3"})
    assert teacher.detections(0).labels.tolist() == [CLASSES.index("3")]
    with pytest.raises(ArgumentError, match="'cat'"):
        kd.Teacher.from_coco_results([entry], scenes(4), categories={77: "cat"})
