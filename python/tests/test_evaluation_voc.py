"""VOC average precision: worked cases, its conventions, and a slow implementation beside it."""

import math

import numpy as np
import pytest

from kdswift.detections import Detections
from kdswift.errors import ArgumentError, ShapeError
from kdswift.evaluation import evaluate_detections, precision_recall
from kdswift.evaluation.voc import (
    average_precision_11_point,
    average_precision_area,
    box_iou_pixels,
    curve_from_matches,
)

# Sums of at most a few dozen binary64 terms; both sides round differently at about 1e-16 each.
EXACT = 1e-12


@pytest.mark.parametrize(
    ("hits", "objects", "eleven", "area"),
    [
        ("T", 1, 1, 1),
        ("FT", 1, 0.5, 0.5),
        ("TF", 2, 6 / 11, 0.5),
        ("TFT", 2, (6 + 5 * 2 / 3) / 11, 5 / 6),
        ("TTFT", 4, (6 + 2 * 0.75) / 11, 0.6875),
        ("", 3, 0, 0),
        ("F", 3, 0, 0),
    ],
)
def test_worked_cases(hits, objects, eleven, area):
    tp = np.array([h == "T" for h in hits], dtype=bool)
    recall, precision = curve_from_matches(tp, ~tp, objects)
    assert average_precision_11_point(recall, precision) == pytest.approx(eleven, abs=EXACT)
    assert average_precision_area(recall, precision) == pytest.approx(area, abs=EXACT)


def test_thresholds_are_binary64_multiples_of_a_tenth():
    """Recall of exactly 3/10 does not reach 3 * 0.1 = 0.30000000000000004; 4/10 reaches 0.4."""
    for found, reached in ((3, 3), (4, 5), (6, 6), (7, 7), (10, 11)):
        recall, precision = curve_from_matches(np.ones(found, bool), np.zeros(found, bool), 10)
        assert average_precision_11_point(recall, precision) == pytest.approx(
            reached / 11, abs=EXACT
        )


def test_lengths_must_agree():
    with pytest.raises(ShapeError, match=r"\(2,\).*\(3,\)"):
        average_precision_area(np.zeros(2), np.zeros(3))


def test_pixel_areas():
    """(0, 0, 9, 9) has area 100: against its left half, 50 pixels, IoU is 1/2."""
    box = np.array([[0, 0, 9, 9]], float)
    half = np.array([[0, 0, 4, 9]], float)
    assert box_iou_pixels(box, half)[0, 0] == 0.5
    assert box_iou_pixels(box, np.array([[9, 9, 20, 20]], float))[0, 0] == 1 / (100 + 144 - 1)
    assert box_iou_pixels(box, np.array([[10, 0, 12, 9]], float))[0, 0] == 0


def one_image(boxes, scores, objects, metric="voc10", corners="edges", **target):
    labels = np.ones(len(boxes), int)
    truth = {"boxes": objects, "labels": np.ones(len(objects), int), **target}
    found = Detections(np.reshape(boxes, (-1, 4)), scores, labels)
    return evaluate_detections([found], [truth], ["background", "a"], metric, corners)


def test_iou_of_exactly_one_half_is_no_match_in_voc_but_is_in_coco():
    pytest.importorskip("pycocotools")
    half, whole = [[0, 0, 5, 10]], [[0, 0, 10, 10]]
    assert one_image(half, [0.9], whole).AP == 0
    assert pytest.approx(1) == one_image(half, [0.9], whole, "coco").AP50
    # The same boxes as inclusive pixels.
    assert one_image([[0, 0, 4, 9]], [0.9], [[0, 0, 9, 9]], corners="pixels").AP == 0
    assert one_image([[0, 0, 5, 9]], [0.9], [[0, 0, 9, 9]], corners="pixels").AP == 1


def test_corner_conventions_differ_where_they_should():
    """Width 2 of 4 as edges is IoU 1/2; as inclusive pixels it is 3/5, a match."""
    assert one_image([[0, 0, 2, 9]], [0.9], [[0, 0, 4, 9]], corners="edges").AP == 0
    assert one_image([[0, 0, 2, 9]], [0.9], [[0, 0, 4, 9]], corners="pixels").AP == 1
    with pytest.raises(ArgumentError, match="corners"):
        one_image([[0, 0, 2, 9]], [0.9], [[0, 0, 4, 9]], corners="inclusive")


def test_second_detection_of_an_object_is_false():
    box = [0, 0, 10, 10]
    other = [20, 20, 30, 30]
    result = one_image([box, box, other], [0.9, 0.8, 0.7], [box, other])
    assert pytest.approx(0.5 * 1 + 0.5 * 2 / 3, abs=EXACT) == result.AP


def test_difficult_objects_are_neither_hit_nor_miss():
    easy, hard = [0, 0, 10, 10], [20, 20, 30, 30]
    both = [easy, hard]
    boxes, scores = [hard, hard, easy], [0.9, 0.8, 0.7]
    assert one_image(boxes, scores, both, difficult=[False, True]).AP == 1
    assert one_image([easy], [0.5], both, difficult=[False, True]).AP == 1
    assert one_image([easy], [0.5], both).AP == 0.5
    assert math.isnan(one_image(boxes, scores, [hard], difficult=[True]).AP)


def slow_voc(detections, targets, label, rule):
    """Average precision with nothing but loops; boxes end at the edge after the last pixel."""
    order = [(-s, i, k) for i, d in enumerate(detections) for k, s in enumerate(d.scores.tolist())]
    order = sorted(o for o in order if detections[o[1]].labels[o[2]] == label)
    objects = sum(
        int(lab == label and not dif)
        for t in targets
        for lab, dif in zip(t["labels"], t["difficult"], strict=True)
    )
    taken, tp, fp, points = set(), 0, 0, []
    for _, i, k in order:
        best, which = -1.0, None
        box = [float(v) for v in detections[i].boxes[k]]
        for j, other in enumerate(np.asarray(targets[i]["boxes"], np.float64).tolist()):
            if targets[i]["labels"][j] != label:
                continue
            w = min(box[2], other[2]) - max(box[0], other[0])
            h = min(box[3], other[3]) - max(box[1], other[1])
            common = max(w, 0.0) * max(h, 0.0)
            union = (box[2] - box[0]) * (box[3] - box[1]) - common
            union += (other[2] - other[0]) * (other[3] - other[1])
            if common / union > best:
                best, which = common / union, j
        if best > 0.5 and targets[i]["difficult"][which]:
            pass
        elif best > 0.5 and (i, which) not in taken:
            taken.add((i, which))
            tp += 1
        else:
            fp += 1
        points.append((tp / objects if objects else math.nan, tp / (tp + fp) if tp + fp else 0.0))
    if not objects:
        return math.nan
    if rule == "voc07":
        at = [max([p for r, p in points if r >= i * 0.1], default=0.0) for i in range(11)]
        return sum(at) / 11
    area, last = 0.0, 0.0
    for r, _ in points:
        area += (r - last) * max(p for q, p in points if q >= r)
        last = r
    return area


def random_scenes(seed, images=12, classes=4, whole=False):
    """Random objects and detections near them, with empty images and ties in score."""
    rng = np.random.default_rng(seed)
    detections, targets = [], []
    for _ in range(images):
        n = int(rng.integers(0, 6))
        corner, size = rng.uniform(0, 60, (n, 2)), rng.uniform(5, 40, (n, 2))
        boxes = np.concatenate([corner, corner + size], axis=1)
        labels = rng.integers(1, classes, n)  # the last class never occurs
        source = rng.integers(0, max(n, 1), 3 * n)
        near = boxes[source] + rng.normal(0, 3, (3 * n, 4))
        stray = rng.uniform(0, 60, (4, 2))
        found = np.concatenate([near, np.concatenate([stray, stray + 20], axis=1)])
        if whole:
            boxes, found = np.rint(boxes), np.rint(found)
        found[:, 2:] = np.maximum(found[:, 2:], found[:, :2] + 1)
        boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
        scores = np.round(rng.random(len(found)), 1 if whole else 6)
        guesses = rng.integers(1, classes + 1, len(found))
        guesses[: 3 * n] = np.where(rng.random(3 * n) < 0.8, labels[source], guesses[: 3 * n])
        detections.append(Detections(found, scores, guesses))
        targets.append(
            {
                "boxes": boxes.astype(np.float32),
                "labels": labels,
                "difficult": rng.random(n) < 0.2,
                "iscrowd": np.zeros(n, bool),
            }
        )
    return detections, targets, ["background", *"abcd"[:classes]]


@pytest.mark.parametrize("rule", ["voc07", "voc10"])
@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("whole", [False, True])
def test_agrees_with_the_slow_implementation(rule, seed, whole):
    detections, targets, names = random_scenes(seed, whole=whole)
    result = evaluate_detections(detections, targets, names, rule)
    values = []
    for label, name in enumerate(names[1:], start=1):
        expected = slow_voc(detections, targets, label, rule)
        # Boxes move by one pixel and back on our side: a rounding of 1e-16 in the IoU, which
        # could only matter at exactly 0.5; the AP itself is a short sum.
        assert result.per_class[name] == pytest.approx(expected, abs=1e-9, nan_ok=True)
        values.append(expected)
    assert math.isnan(values[-1]) and sum(not math.isnan(v) for v in values) == 3
    assert result.AP == result.AP50 == pytest.approx(np.nanmean(values), abs=1e-9)
    assert result.AP75 <= result.AP50


def test_order_of_images_does_not_matter():
    detections, targets, names = random_scenes(3)
    forward = evaluate_detections(detections, targets, names, "voc07")
    backward = evaluate_detections(detections[::-1], targets[::-1], names, "voc07")
    assert forward.per_class == pytest.approx(backward.per_class, nan_ok=True, abs=EXACT)


def test_precision_recall_curves():
    detections, targets, names = random_scenes(1)
    curves = precision_recall(detections, targets, names)
    assert set(curves) == {"a", "b", "c"}
    for curve in curves.values():
        assert (np.diff(curve.recall) >= 0).all() and curve.recall.max() <= 1
        assert (np.diff(curve.scores) <= 0).all()
        assert len(curve.recall) == len(curve.precision) == len(curve.scores)
