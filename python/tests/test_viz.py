"""Pictures: boxes where they belong, sizes as promised, files that open again."""

import csv
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from kdswift import viz
from kdswift.data import DigitScenes
from kdswift.detections import Detections
from kdswift.errors import ArgumentError, FormatError, ShapeError
from kdswift.evaluation import precision_recall

NAMES = ["background", "cat", "dog"]
GREY = np.full((64, 96, 3), 90, np.uint8)


def found(**changes):
    values = {
        "boxes": [[20, 30, 60, 60], [4, 20, 16, 40]],
        "scores": [0.9, 0.2],
        "labels": [1, 2],
        "class_names": NAMES,
    }
    return Detections(**{**values, **changes})


def test_boxes_are_drawn_where_they_are():
    picture = np.asarray(viz.draw(GREY, found(), score_threshold=0.5))
    assert picture.shape == (192, 288, 3)  # three times as large
    red = np.array([0xFF, 0x4B, 0x4B])
    rows, columns = np.nonzero((picture == red).all(axis=2))
    # The outline of box 0, and its label above it.
    assert columns.min() == 60 and columns.max() == 179 and rows.max() == 179
    assert 60 < rows.min() < 90
    assert (picture[90:180, 62:178][4:-4, 4:-4] == 90).all()  # nothing inside
    assert (picture[:, :50] == 90).all()  # the other box is below the threshold


def test_everything_that_can_be_drawn():
    target = {"boxes": np.array([[20, 30, 60, 60]]), "labels": np.array([1])}
    plain = np.asarray(viz.draw(GREY))
    assert (plain == 90).all()
    for picture in (
        viz.draw(GREY, target, class_names=NAMES),
        viz.draw(GREY, None, target),
        viz.draw(GREY, found().to_dict()),
        viz.draw(Image.fromarray(GREY), found(masks=np.ones((2, 64, 96), bool))),
    ):
        assert picture.size == (288, 192) and (np.asarray(picture) != 90).any()
    assert (np.asarray(viz.draw(GREY, Detections.empty())) == 90).all()
    assert viz.draw(np.zeros((300, 400, 3), np.uint8), found()).size == (400, 300)
    assert viz.draw(GREY, found(), title="a title").height > 192
    floats = np.zeros((3, 8, 8), np.float32)
    assert viz.draw(floats).size == (256, 256)


def test_boxes_at_and_past_the_border_draw():
    boxes = [[-20, -20, 200, 200], [90, 60, 96, 64], [0, 0, 0.2, 0.2]]
    viz.draw(GREY, Detections(boxes, [0.5] * 3, [1, 2, 300], class_names=NAMES))


def test_many_labels_stay_inside_the_picture():
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 60, (60, 2))
    boxes = np.concatenate([corner, corner + 4], axis=1)
    names = ["background", "a class with a name that is longer than the whole picture is wide"]
    assert viz.draw(GREY, Detections(boxes, rng.random(60), [1] * 60), None, names).size == (
        288,
        192,
    )


def test_wrong_arguments():
    with pytest.raises(ArgumentError, match="boxes and labels"):
        viz.draw(GREY, {"boxes": []})
    with pytest.raises(ShapeError, match="mask 0"):
        viz.draw(GREY, found(masks=np.zeros((2, 5, 5))))
    with pytest.raises(ShapeError, match="1 boxes but 2 labels"):
        viz.draw(GREY, {"boxes": [[0, 0, 5, 5]], "labels": [1, 2]})
    with pytest.raises(ArgumentError, match="nothing"):
        viz.compare(GREY, {})
    with pytest.raises(ArgumentError, match="no pictures"):
        viz.grid([])


def test_compare_and_grid():
    target = {"boxes": [[20, 30, 60, 60]], "labels": [1]}
    one = viz.compare(GREY, {"a": found(), "b": found()}, class_names=NAMES)
    three = viz.compare(GREY, {"a": found(), "b": found()}, target, NAMES)
    assert one.width == 2 * 288 + 3 * 8 and three.width == 3 * 288 + 4 * 8
    sheet = viz.grid([[one], [three, GREY]], gap=2)
    assert sheet.width == three.width + 96 + 3 * 2
    assert sheet.height == one.height + three.height + 3 * 2


def test_show_of_a_data_set():
    pytest.importorskip("sklearn")
    picture = DigitScenes(n=5).show(4, columns=2)
    assert picture.size == (2 * 288 + 3 * 8, 2 * 288 + 3 * 8)
    with pytest.raises(ArgumentError, match="nothing to show"):
        DigitScenes(n=0).show()


def test_feature_map():
    values = np.zeros((4, 6, 8))
    values[:, 2, 3] = -5
    heat = np.asarray(viz.feature_map(values)).astype(int).sum(axis=2)
    # Whole factor 32; the strongest place is the brightest, whatever its sign.
    assert heat.shape == (192, 256)
    assert np.unravel_index(heat.argmax(), heat.shape) == (2 * 32, 3 * 32)
    assert viz.feature_map(values, GREY).size == (288, 192)
    assert viz.feature_map(np.full((3, 4), np.nan)).size == (256, 192)
    with pytest.raises(ArgumentError, match="channel 4 of 4"):
        viz.feature_map(values, channel=4)
    with pytest.raises(ShapeError, match=r"\(3,\)"):
        viz.feature_map(np.zeros(3))


def run_rows(steps=200):
    rng = np.random.default_rng(0)
    rows = []
    for step in range(steps):
        loss = 3 * np.exp(-step / 60) + rng.uniform(0, 0.2)
        rows.append({"step": step, "epoch": step // 50, "loss": loss, "lr": 0.01, "seconds": 1})
        if step % 50 == 49:
            rows.append({"step": "", "epoch": step // 50 + 1, "val_AP50": step / steps})
    return rows


def panel_titles(figure):
    return [axes.get_title(loc="left") for axes in figure.axes]


def test_curves_from_rows_and_file(tmp_path):
    png, table = tmp_path / "curves.png", tmp_path / "results.csv"
    figure = viz.curves(run_rows(), png)
    assert panel_titles(figure) == ["loss", "score", "learning rate"]
    assert Image.open(png).size[0] > 1000
    score = figure.axes[1].lines[0]
    assert score.get_xdata().tolist() == [1, 2, 3, 4]  # by epoch: their rows have no step
    with open(table, "w", newline="") as file:
        writer = csv.DictWriter(file, ["step", "epoch", "loss", "lr", "seconds", "val_AP50"])
        writer.writeheader()
        writer.writerows(run_rows())
    again = viz.curves(table, tmp_path / "again.png")
    assert panel_titles(again) == panel_titles(figure)
    for a, b in zip(figure.axes, again.axes, strict=True):
        for x, y in zip(a.lines, b.lines, strict=True):
            np.testing.assert_allclose(x.get_ydata(), y.get_ydata(), rtol=1e-12)


def test_curves_of_very_little(tmp_path):
    assert panel_titles(viz.curves([{"loss": 1.0}])) == ["loss"]
    assert panel_titles(viz.curves([{"epoch": 1, "AP": 0.5, "loss": float("nan")}])) == ["score"]
    with pytest.raises(ArgumentError, match="no column"):
        viz.curves([])
    with pytest.raises(FormatError, match=r"gone\.csv"):
        viz.curves(tmp_path / "gone.csv")


def test_precision_recall_figure(tmp_path):
    target = {"boxes": [[20, 30, 60, 60], [70, 0, 90, 20]], "labels": [1, 2]}
    figure = viz.precision_recall(
        precision_recall([found()], [target], NAMES), tmp_path / "pr.png", "one image"
    )
    assert [t.get_text() for t in figure.axes[0].get_legend().texts] == ["cat  100.0", "dog  0.0"]
    empty = precision_recall([Detections.empty()], [target], NAMES)
    assert len(viz.precision_recall(empty).axes[0].lines) == 2
    viz.precision_recall({})


def test_pyplot_is_left_alone():
    code = (
        "import sys; import kdswift.viz as v; v.curves([{'loss': 1}]); "
        "print('matplotlib.pyplot' in sys.modules)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "False"
