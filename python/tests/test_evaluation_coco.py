"""COCO metrics: a slow implementation beside pycocotools, and what `evaluate` does around them."""

import json
import math

import numpy as np
import pytest
from test_evaluation_voc import random_scenes

from kdswift.data import DigitScenes
from kdswift.detections import Detections
from kdswift.errors import ArgumentError, ShapeError
from kdswift.evaluation import evaluate, evaluate_detections

pytest.importorskip("pycocotools")

AREAS = {"all": (0, 1e10), "small": (0, 32**2), "medium": (32**2, 96**2), "large": (96**2, 1e10)}
THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0, 1, 101)


def slow_iou(box, other, crowd):
    w = min(box[2], other[2]) - max(box[0], other[0])
    h = min(box[3], other[3]) - max(box[1], other[1])
    common = max(w, 0.0) * max(h, 0.0)
    area = (box[2] - box[0]) * (box[3] - box[1])
    if crowd:  # a crowd region has no extent of its own to be missed
        return common / area
    return common / (area + (other[2] - other[0]) * (other[3] - other[1]) - common)


def slow_match(detection, target, label, threshold, bounds, most):
    """[(score, hit, ignored)] of one image and class, and the number of objects that count."""
    objects = []
    for box, lab, crowd in zip(
        target["boxes"].tolist(), target["labels"], target["iscrowd"], strict=True
    ):
        if lab == label:
            area = (box[2] - box[0]) * (box[3] - box[1])
            outside = area < bounds[0] or area > bounds[1]
            objects.append((bool(crowd) or outside, bool(crowd), box))
    objects.sort(key=lambda o: o[0])  # those that count first; the sort is stable
    order = [
        k for k in np.argsort(-detection.scores, kind="stable") if detection.labels[k] == label
    ]
    taken, result = set(), []
    for k in order[:most]:
        box = detection.boxes[k].astype(float).tolist()
        best, which = min(threshold, 1 - 1e-10), None
        for j, (ignored, crowd, other) in enumerate(objects):
            if j in taken and not crowd:
                continue
            if which is not None and not objects[which][0] and ignored:
                break
            overlap = slow_iou(box, other, crowd)
            if overlap >= best:
                best, which = overlap, j
        area = (box[2] - box[0]) * (box[3] - box[1])
        outside = area < bounds[0] or area > bounds[1]
        if which is None:
            result.append((float(detection.scores[k]), False, outside))
        else:
            taken.add(which)
            result.append((float(detection.scores[k]), True, objects[which][0]))
    return result, sum(not o[0] for o in objects)


def slow_coco(detections, targets, labels, thresholds=THRESHOLDS, area="all", most=100):
    """(AP, AR) by class and threshold, NaN for a class with nothing to find."""
    precision, recall = [], []
    for label in labels:
        for threshold in thresholds:
            pairs = [
                slow_match(d, t, label, threshold, AREAS[area], most)
                for d, t in zip(detections, targets, strict=True)
            ]
            count = sum(n for _, n in pairs)
            if not count:
                precision.append(math.nan)
                recall.append(math.nan)
                continue
            found = sorted((f for fs, _ in pairs for f in fs), key=lambda f: -f[0])
            found = [f for f in found if not f[2]]
            tp, points = 0, []
            for rank, (_, hit, _) in enumerate(found, start=1):
                tp += hit
                points.append((tp / count, tp / (rank + np.spacing(1))))
            at = [max([p for r, p in points if r >= t], default=0.0) for t in RECALLS]
            precision.append(sum(at) / 101)
            recall.append(tp / count)
    known = [k for k, p in enumerate(precision) if not math.isnan(p)]
    if not known:
        return math.nan, math.nan
    return np.mean([precision[k] for k in known]), np.mean([recall[k] for k in known])


def scenes_with_crowds(seed, scale=3.0):
    detections, targets, names = random_scenes(seed, images=10)
    rng = np.random.default_rng(seed + 100)
    for i, target in enumerate(targets):
        target["boxes"] = target["boxes"] * np.float32(scale)
        target["iscrowd"] = rng.random(len(target["labels"])) < 0.2
        target["difficult"] = np.zeros(len(target["labels"]), bool)
        d = detections[i]
        detections[i] = Detections(d.boxes * scale, d.scores, d.labels)
    return detections, targets, names


@pytest.mark.parametrize("seed", range(4))
def test_twelve_numbers_agree_with_the_slow_implementation(seed):
    detections, targets, names = scenes_with_crowds(seed)
    result = evaluate_detections(detections, targets, names, "coco")
    labels = range(1, len(names))
    ap, ar = slow_coco(detections, targets, labels)
    expected = {"AP": ap, "AR_100": ar}
    for name, threshold in (("AP50", THRESHOLDS[:1]), ("AP75", THRESHOLDS[5:6])):
        expected[name] = slow_coco(detections, targets, labels, threshold)[0]
    for area in ("small", "medium", "large"):
        expected[f"AP_{area}"], expected[f"AR_{area}"] = slow_coco(
            detections, targets, labels, area=area
        )
    for most in (1, 10):
        expected[f"AR_{most}"] = slow_coco(detections, targets, labels, most=most)[1]
    # Ties in IoU with a threshold could differ by rounding; on these seeds there are none, and
    # the sums have at most 10 * 101 * 3 terms of binary64.
    assert result.stats == pytest.approx(expected, abs=1e-6, nan_ok=True)
    assert (
        result.stats["AP"],
        result.stats["AP50"],
        result.stats["AP75"],
    ) == (result.AP, result.AP50, result.AP75)
    for label, name in enumerate(names[1:-1], start=1):
        assert result.per_class[name] == pytest.approx(
            slow_coco(detections, targets, [label])[0], abs=1e-6
        )
        assert result.per_class_AP50[name] == pytest.approx(
            slow_coco(detections, targets, [label], THRESHOLDS[:1])[0], abs=1e-6
        )
    assert math.isnan(result.per_class[names[-1]])  # occurs in detections only


@pytest.mark.parametrize(
    ("hits", "objects", "expected"),
    [("T", 1, 1), ("FT", 1, 0.5), ("TF", 2, 51 / 101), ("TFT", 2, 0.834983), ("TTFT", 4, 0.690594)],
)
def test_worked_cases(hits, objects, expected):
    """One class, one image: hits lie on an object exactly, misses far away."""
    truth = [[100 * i, 0, 100 * i + 50, 50] for i in range(objects)]
    free = iter(truth)
    boxes = [
        next(free) if h == "T" else [0, 500 + 60 * i, 50, 550 + 60 * i] for i, h in enumerate(hits)
    ]
    found = Detections(boxes, np.linspace(0.9, 0.1, len(hits)), np.ones(len(hits), int))
    target = {"boxes": np.array(truth, np.float32), "labels": np.ones(objects, int)}
    result = evaluate_detections([found], [target], ["background", "a"], "coco")
    # The expected values have six decimals.
    assert pytest.approx(expected, abs=1e-6) == result.AP


def test_more_than_a_hundred_detections_in_an_image():
    """The 101st is not looked at: the only hit has the lowest score."""
    boxes = np.tile([[200.0, 200, 210, 210]], (101, 1))
    boxes[100] = [0, 0, 50, 50]
    target = {"boxes": np.array([[0, 0, 50, 50]], np.float32), "labels": [1]}
    scores = np.linspace(1, 0.1, 101)
    names = ["background", "a"]
    found = Detections(boxes, scores, np.ones(101, int))
    assert evaluate_detections([found], [target], names).AP == 0
    assert evaluate_detections([found[1:]], [target], names).AP > 0


def test_area_of_the_file_is_used():
    target = {"boxes": np.array([[0, 0, 50, 50]], np.float32), "labels": [1], "area": [900.0]}
    found = Detections([[0, 0, 50, 50]], [0.5], [1])
    result = evaluate_detections([found], [target], ["background", "a"])
    assert result.stats["AP_small"] == pytest.approx(1) and math.isnan(result.stats["AP_medium"])


def test_nothing_at_all(capsys):
    empty = {"boxes": np.zeros((0, 4), np.float32), "labels": []}
    for metric in ("coco", "voc07", "voc10"):
        for pair in (([Detections.empty()], [empty]), ([], [])):
            result = evaluate_detections(*pair, ["background", "a"], metric)
            assert math.isnan(result.AP) and math.isnan(result.per_class["a"])
            assert json.loads(json.dumps(result.to_dict()))["AP"] is None
            assert "–" in result.table()
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("metric", ["coco", "voc07", "voc10"])
def test_no_detections_is_zero(metric):
    target = {"boxes": np.array([[0, 0, 50, 50]], np.float32), "labels": [1]}
    result = evaluate_detections([Detections.empty()], [target], ["background", "a", "b"], metric)
    assert result.AP == result.AP50 == result.per_class["a"] == 0
    assert math.isnan(result.per_class["b"])


def test_bad_input_is_named():
    good = Detections([[0, 0, 5, 5]], [0.5], [1])
    target = {"boxes": np.array([[0, 0, 5, 5]], np.float32), "labels": [1]}
    names = ["background", "a"]
    with pytest.raises(ShapeError, match=r"2 images.*of 1"):
        evaluate_detections([good, good], [target], names)
    with pytest.raises(ArgumentError, match=r"detections\[0\].*label 2.*1 to 1"):
        evaluate_detections([Detections([[0, 0, 5, 5]], [0.5], [2])], [target], names)
    with pytest.raises(ArgumentError, match=r"detections\[0\].*score 0"):
        evaluate_detections([Detections([[0, 0, 5, 5]], [np.nan], [1])], [target], names)
    with pytest.raises(ArgumentError, match=r"detections\[0\].*box 0"):
        evaluate_detections([Detections([[0, 0, np.inf, 5]], [1], [1])], [target], names)
    with pytest.raises(ArgumentError, match=r"targets\[0\].*labels"):
        evaluate_detections([good], [{"boxes": target["boxes"]}], names)
    with pytest.raises(ArgumentError, match=r"metric.*coco, voc07"):
        evaluate_detections([good], [target], names, "map")


class Oracle:
    """Finds every object, with its box moved by `shift` pixels."""

    def __init__(self, dataset, shift=0.0):
        self.found = [dataset[i] for i in range(len(dataset))]
        self.shift, self.calls = shift, []

    def predict(self, images, score_threshold, max_detections):
        self.calls.append(len(images))
        result = []
        for image in images:
            (target,) = [t for i, t in self.found if np.array_equal(i, image)]
            boxes, labels = target["boxes"] + self.shift, target["labels"]
            result.append(Detections(boxes, np.full(len(labels), 0.9), labels))
        return result


@pytest.mark.parametrize("metric", ["coco", "voc07", "voc10"])
def test_evaluate_runs_a_model(metric, capsys):
    pytest.importorskip("sklearn")
    scenes = DigitScenes("val", n=21)
    model = Oracle(scenes)
    result = evaluate(model, scenes, metric, batch_size=8, progress=False)
    assert model.calls == [8, 8, 5]
    assert pytest.approx(1) == result.AP and result.num_images == 21
    assert list(result.per_class) == list("0123456789")
    shifted = evaluate(Oracle(scenes, 3.0), scenes, metric, progress=False)
    assert shifted.AP75 < shifted.AP50 <= 1
    assert capsys.readouterr().out == ""
    text = result.table()
    assert "100.0" in text and "mean" in text and "9" in text
    assert "<table>" in result._repr_html_() and "AP 100.0" in repr(result)


def test_evaluate_checks_the_model():
    class Short:
        def predict(self, images, **_):
            return []

    pair = (np.zeros((8, 8, 3), np.uint8), {"boxes": [], "labels": []})
    with pytest.raises(ArgumentError, match="0 results for 1 images"):
        evaluate(Short(), [pair], progress=False)
