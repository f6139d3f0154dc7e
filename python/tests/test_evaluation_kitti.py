"""KITTI average precision: worked cases, its rules one by one, a slow implementation beside it."""

import math

import numpy as np
import pytest

from kdswift.detections import Detections
from kdswift.errors import ShapeError
from kdswift.evaluation import evaluate_detections
from kdswift.evaluation.kitti import min_overlap, recall_thresholds

# Sums of at most 41 binary64 terms; both sides round differently at about 1e-16 each.
EXACT = 1e-12
RULES = ("kitti_r11", "kitti_r40")
NAMES = ["background", "Car", "Pedestrian"]


def perfect(count, found=None):
    """`count` objects of one image each, the first `found` of them detected exactly."""
    target = {"boxes": [[0, 0, 50, 50]], "labels": [1]}
    hit = Detections([[0, 0, 50, 50]], [0.9], [1])
    found = count if found is None else found
    return [hit] * found + [Detections.empty()] * (count - found), [target] * count


@pytest.mark.parametrize(
    ("count", "eleven", "forty"),
    [
        (1, 1 / 11, 0),
        (2, 1 / 11, 1 / 40),
        (4, 1 / 11, 3 / 40),
        (10, 3 / 11, 9 / 40),
        (20, 5 / 11, 19 / 40),
        (40, 10 / 11, 39 / 40),
        (41, 1, 1),
        (90, 1, 1),
    ],
)
def test_a_perfect_detector_of_few_objects_has_less_than_one(count, eleven, forty):
    """There are never more thresholds than true positives."""
    for rule, expected in zip(RULES, (eleven, forty)):
        result = evaluate_detections(*perfect(count), NAMES, rule)
        assert pytest.approx(expected, abs=EXACT) == result.AP
        assert result.stats["AP_easy"] == result.stats["AP_hard"] == result.AP
        assert math.isnan(result.per_class["Pedestrian"])


def test_half_of_a_hundred_objects():
    detections, targets = perfect(100, 50)
    assert (
        pytest.approx(6 / 11, abs=EXACT)
        == evaluate_detections(detections, targets, NAMES, "kitti_r11").AP
    )
    assert (
        pytest.approx(0.5, abs=EXACT)
        == evaluate_detections(detections, targets, NAMES, "kitti_r40").AP
    )


def test_thresholds_come_where_recall_is_closest():
    assert len(recall_thresholds(np.linspace(1, 0, 41), 41)) == 41
    assert len(recall_thresholds(np.linspace(1, 0, 1000), 1000)) == 41
    # The last one is always kept: at recall 0.51, although 0.5 has its threshold.
    assert len(recall_thresholds(np.linspace(1, 0, 50), 100)) == 21
    assert len(recall_thresholds(np.linspace(1, 0, 51), 100)) == 22
    assert recall_thresholds([0.1, 0.9, 0.5], 3).tolist() == [0.9, 0.5, 0.1]
    assert recall_thresholds([], 5).tolist() == []


def precision_at_once(target, boxes, scores, labels=None, metric="kitti_r11"):
    """`stats` of 41 images with one object that is found, and one image as given.

    Thresholds then reach down to the score 0.5, so that a false detection in the one image
    with a better score shows in every sample of precision: 41 / 42 in place of 1.
    """
    detections, targets = perfect(41)
    detections = [Detections([[0, 0, 50, 50]], [0.5], [1])] * 41
    labels = np.ones(len(boxes), int) if labels is None else labels
    detections.append(Detections(np.reshape(boxes, (-1, 4)), scores, labels))
    return evaluate_detections(detections, [*targets, target], NAMES, metric).stats


WRONG = 41 / 42


def whole(boxes, labels=None, **more):
    labels = np.ones(len(boxes), int) if labels is None else labels
    return {"boxes": boxes, "labels": labels, **more}


def test_neighbouring_classes_are_neither_right_nor_wrong():
    box, other = [10, 10, 80, 80], [200, 200, 280, 280]
    stats = precision_at_once(whole([box], difficult=[True]), [box], [0.9])
    assert stats["AP_moderate"] == pytest.approx(1, abs=EXACT)
    stats = precision_at_once(whole([box], difficult=[True]), [other], [0.9])
    assert stats["AP_moderate"] == pytest.approx(WRONG, abs=EXACT)
    # A second detection of the same van is wrong.
    stats = precision_at_once(whole([box], difficult=[True]), [box, box], [0.9, 0.8])
    assert stats["AP_moderate"] == pytest.approx(WRONG, abs=EXACT)


def test_areas_absorb_what_lies_in_them():
    """By the part of the detection that is covered, and as many as there are."""
    area = whole([[0, 0, 400, 100]], iscrowd=[True])
    inside = [[10, 10, 60, 60], [100, 10, 160, 60], [100, 10, 160, 60]]
    assert precision_at_once(area, inside, [0.9, 0.8, 0.7])["AP_hard"] == pytest.approx(1)
    just = [[10, 40, 60, 125]]  # 60 of 85 rows are inside: 0.706
    assert precision_at_once(area, just, [0.9])["AP_hard"] == pytest.approx(1)
    barely = [[10, 41, 60, 127]]  # 59 of 86: 0.686
    assert precision_at_once(area, barely, [0.9])["AP_hard"] == pytest.approx(WRONG, abs=EXACT)


@pytest.mark.parametrize(
    ("height", "wanted"), [(25, (0, 0, 0)), (25.01, (0, 1, 1)), (40, (0, 1, 1)), (40.01, (1, 1, 1))]
)
def test_heights_of_objects(height, wanted):
    """An object must be higher than 40 or 25 pixels; `height` goes before the box."""
    for target in (whole([[0, 0, 60, height]]), whole([[0, 0, 60, 90]], height=[height])):
        result = evaluate_detections([Detections.empty()], [target], NAMES, "kitti_r40")
        values = [result.stats[f"Car_{d}"] for d in ("easy", "moderate", "hard")]
        assert [not math.isnan(v) for v in values] == [bool(w) for w in wanted]


@pytest.mark.parametrize(("height", "wrong"), [(24.9, ""), (25, "mh"), (39.9, "mh"), (40, "emh")])
def test_heights_of_detections(height, wrong):
    """A detection must not be lower than 40 or 25 pixels to be wrong."""
    stats = precision_at_once(whole([]), [[300, 0, 360, height]], [0.9])
    for name in ("easy", "moderate", "hard"):
        expected = WRONG if name[0] in wrong else 1
        assert stats[f"AP_{name}"] == pytest.approx(expected, abs=EXACT)


@pytest.mark.parametrize(
    ("occluded", "truncated", "wanted"),
    [
        (0, 0.15, "emh"),
        (0, 0.16, "mh"),
        (0, 0.30, "mh"),
        (0, 0.31, "h"),
        (0, 0.50, "h"),
        (0, 0.51, ""),
        (1, 0, "mh"),
        (2, 0, "h"),
        (3, 0, ""),
        (-1, -1, "emh"),
    ],
)
def test_occlusion_and_truncation(occluded, truncated, wanted):
    target = whole([[0, 0, 90, 90]], occluded=[occluded], truncated=[truncated])
    result = evaluate_detections([Detections.empty()], [target], NAMES, "kitti_r40")
    for name in ("easy", "moderate", "hard"):
        assert math.isnan(result.stats[f"Car_{name}"]) == (name[0] not in wanted)
    # Not wanted is still not wrong.
    stats = precision_at_once(target, [[0, 0, 90, 90]], [0.9])
    assert stats["AP_easy"] == pytest.approx(1, abs=EXACT)


def test_overlaps():
    assert [min_overlap(n) for n in ("Car", "car", "Van", "Cyclist", "Tram")] == [
        *(0.7, 0.7, 0.7, 0.5, 0.5)
    ]
    detections, targets = perfect(60)
    detections = [Detections([[0, 0, 50, 30]], [0.9], [1])] * 60  # IoU 0.6
    result = evaluate_detections(detections, targets, NAMES, "kitti_r40")
    assert result.AP == 0 and pytest.approx(1) == result.AP50 and result.AP75 == 0
    assert evaluate_detections(
        detections, targets, ["background", "Cyclist"], "kitti_r40"
    ).AP == pytest.approx(1, abs=EXACT)


def test_tables():
    result = evaluate_detections(*perfect(60), NAMES, "kitti_r40")
    lines = result.table().splitlines()
    assert lines[1].split() == ["class", "easy", "moderate", "hard"]
    assert lines[2].split() == ["Car", "100.0", "100.0", "100.0"]
    assert lines[3].split() == ["Pedestrian", "–", "–", "–"]
    assert lines[4].split() == ["mean", "100.0", "100.0", "100.0"] and len(lines) == 5
    assert "<th>moderate</th>" in result._repr_html_()
    assert result.to_dict()["stats"]["Pedestrian_easy"] is None
    with pytest.raises(ShapeError, match="occluded"):
        evaluate_detections([Detections.empty()], [whole([], occluded=[1])], NAMES, "kitti_r40")


# --- a slow implementation, with nothing but loops -----------------------------------------------


def iou_of(a, b, of_first=False):
    w, h = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if w <= 0 or h <= 0:
        return 0.0
    area = (a[2] - a[0]) * (a[3] - a[1])
    return w * h / (area if of_first else area + (b[2] - b[0]) * (b[3] - b[1]) - w * h)


def match_image(found, objects, areas, least, threshold):
    """(true positives' scores, false positives); threshold None: matched by score.

    found: (box, score, state), objects: (box, state); state 0 counts, 1 is ignored.
    """
    taken = [False] * len(found)
    below = [threshold is not None and score < threshold for _, score, _ in found]
    hits = []
    for box, state in objects:
        chosen, best_overlap, chosen_is_ignored = None, 0.0, False
        for j, (other, score, ignored) in enumerate(found):
            overlap = iou_of(other, box)
            if taken[j] or below[j] or overlap <= least:
                continue
            if threshold is None:
                if chosen is None or score > found[chosen][1]:
                    chosen = j
            elif ignored == 0 and (overlap > best_overlap or chosen_is_ignored):
                chosen, best_overlap, chosen_is_ignored = j, overlap, False
            elif ignored == 1 and chosen is None:
                chosen, chosen_is_ignored = j, True
        if chosen is not None:
            taken[chosen] = True
            if state == 0 and found[chosen][2] == 0:
                hits.append(found[chosen][1])
    wrong = 0
    for j, (box, _, ignored) in enumerate(found):
        if taken[j] or below[j] or ignored:
            continue
        wrong += not any(iou_of(box, area, of_first=True) > least for area in areas)
    return hits, wrong


def slow_kitti(detections, targets, label, name, difficulty, rule):
    least = 0.7 if name == "Car" else 0.5
    height = (40, 25, 25)[difficulty]
    images, wanted = [], 0
    for d, t in zip(detections, targets, strict=True):
        found = []
        for box, score, guess in zip(d.boxes.tolist(), d.scores.tolist(), d.labels.tolist()):
            if box[3] - box[1] < height:
                found.append((box, score, 1))
            elif guess == label:
                found.append((box, score, 0))
        objects, areas = [], []
        for k, box in enumerate(np.asarray(t["boxes"], np.float64).tolist()):
            if t["labels"][k] != label:
                continue
            if t["iscrowd"][k]:
                areas.append(box)
                continue
            ignored = (
                t["difficult"][k]
                or t["occluded"][k] > difficulty
                or t["truncated"][k] > (0.15, 0.3, 0.5)[difficulty]
                or box[3] - box[1] <= height
            )
            objects.append((box, int(ignored)))
            wanted += not ignored
        images.append((found, objects, areas, least))
    if not wanted:
        return math.nan
    scores = sorted((s for i in images for s in match_image(*i, None)[0]), reverse=True)
    recall, samples = 0.0, []
    for i, score in enumerate(scores):
        left, right = (i + 1) / wanted, (i + 2) / wanted
        if i + 1 < len(scores) and right - recall < recall - left:
            continue
        recall += 1 / 40
        counts = [match_image(*image, score) for image in images]
        hits, wrong = sum(len(h) for h, _ in counts), sum(w for _, w in counts)
        samples.append(hits / (hits + wrong) if hits + wrong else 0.0)
    samples = [max(samples[i:]) for i in range(len(samples))] + [0.0] * (41 - len(samples))
    chosen = range(0, 41, 4) if rule == "kitti_r11" else range(1, 41)
    return sum(samples[i] for i in chosen) / len(chosen)


def random_scenes(seed, images=30):
    """Objects of all kinds, several detections near each, ties in score and in overlap."""
    rng = np.random.default_rng(seed)
    detections, targets = [], []
    for _ in range(images):
        n = int(rng.integers(0, 7))
        corner, size = rng.integers(0, 120, (n, 2)), rng.integers(15, 70, (n, 2))
        boxes = np.concatenate([corner, corner + size], axis=1).astype(np.float32)
        labels = rng.integers(1, 3, n)
        source = np.repeat(np.arange(n), 3)
        near = boxes[source] + rng.integers(-4, 5, (3 * n, 4)) * (rng.random((3 * n, 1)) < 0.8)
        stray = rng.integers(0, 120, (3, 2))
        found = np.concatenate([near, np.concatenate([stray, stray + [40, 30]], axis=1)])
        found[:, 2:] = np.maximum(found[:, 2:], found[:, :2] + 1)
        guesses = np.concatenate([labels[source], rng.integers(1, 3, 3)])
        swap = rng.random(len(guesses)) < 0.15
        guesses[swap] = 3 - guesses[swap]
        scores = np.round(rng.random(len(found)), 2)
        detections.append(Detections(found, scores, guesses))
        flags = rng.random(n)
        targets.append(
            {
                **{"boxes": boxes, "labels": labels},
                **{"difficult": flags < 0.15, "iscrowd": flags > 0.85},
                "occluded": rng.integers(-1, 4, n) * (rng.random(n) < 0.5),
                "truncated": rng.choice([0, 0.15, 0.2, 0.3, 0.5, 0.9], n) * (rng.random(n) < 0.5),
            }
        )
    return detections, targets


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("seed", range(8))
def test_agrees_with_the_slow_implementation(rule, seed):
    detections, targets = random_scenes(seed)
    result = evaluate_detections(detections, targets, NAMES, rule)
    expected = np.array(
        [
            [slow_kitti(detections, targets, label, name, d, rule) for d in range(3)]
            for label, name in enumerate(NAMES[1:], start=1)
        ]
    )
    values = [[result.stats[f"{n}_{d}"] for d in ("easy", "moderate", "hard")] for n in NAMES[1:]]
    # Whole coordinates: both sides see the same boxes, and compute the same quotients.
    np.testing.assert_allclose(values, expected, atol=EXACT, rtol=0)
    assert pytest.approx(expected[:, 1].mean(), abs=EXACT) == result.AP
    assert 0.05 < result.AP < 0.95
