"""The command line: its exit codes, its one-line errors, a small run from end to end."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import kdswift as kd
from kdswift.cli import main
from kdswift.cli_data import open_data
from kdswift.errors import ArgumentError, FormatError

RUN = ["--epochs", "1", "--batch-size", "4", "--workers", "0", "--quiet"]
SMALL = ["--image-size", "48", "--anchors", "16,24", "--ratios", "1,2", "--width", "0.5"]
DATA = ["--data", "digits:n=4,size=48"]


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """A model file made by the command line."""
    out = tmp_path_factory.mktemp("teacher")
    assert main(["train", *DATA, *SMALL, *RUN, "--out", str(out)]) == 0
    return out / "last.safetensors"


def test_help_has_examples(capsys):
    for arguments in (["--help"], ["train", "--help"], ["demo", "--help"]):
        with pytest.raises(SystemExit) as stop:
            main(arguments)
        assert stop.value.code == 0
        assert "example" in capsys.readouterr().out


def test_usage_is_2(capsys):
    assert main([]) == 2
    for wrong in (["fly"], ["train"], ["train", *DATA, "--out", "x", "--epochs", "many"]):
        with pytest.raises(SystemExit) as stop:
            main(wrong)
        assert stop.value.code == 2
    assert "usage" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["evaluate", "nothing.safetensors", *DATA], "nothing.safetensors: no such file"),
        (["train", "--data", "cats:x", "--out", "x"], "unknown kind 'cats'"),
        (["train", "--data", "digits:n=few", "--out", "x"], "digits:n=few"),
        (["train", "--data", "digits:colour=3", "--out", "x"], "colour"),
        (["train", "--data", "voc:nowhere", "--out", "x"], "nowhere"),
        (["train", *DATA, *SMALL, "--backbone", "resnet99", "--out", "x"], "resnet99"),
        (["train", *DATA, *SMALL, "--epochs", "0", "--out", "x"], "epochs"),
        (["--threads", "0", "bench"], "0"),
    ],
)
def test_errors_are_one_line_and_1(arguments, words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 1
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ")
    assert words in error
    assert "\n" not in error


def test_train_evaluate_predict_distill(teacher, tmp_path, capsys):
    from PIL import Image

    assert main(["evaluate", str(teacher), *DATA, "--json", "--quiet"]) == 0
    assert json.loads(capsys.readouterr().out)["num_images"] == 4
    picture = tmp_path / "scene.png"
    Image.fromarray(open_data("digits:n=1,size=48", "val")[0][0]).save(picture)
    command = ["predict", str(teacher), str(picture), "--threshold", "0"]
    assert main([*command, "--json", "--out", str(tmp_path / "pictures")]) == 0
    found = json.loads(capsys.readouterr().out)[str(picture)]
    assert set(found[0]) == {"label", "class", "score", "box"}
    assert Image.open(tmp_path / "pictures" / "scene.png").width >= 48
    out = tmp_path / "student"
    command = ["distill", "--teacher", str(teacher), *DATA, "--width", "0.25", *RUN]
    assert main([*command, "--out", str(out), "--classification", "none", "--nu", "0.3"]) == 0
    printed = capsys.readouterr().out
    assert "distill_hint" in printed
    assert "distill_rcn_classification" not in printed
    assert (out / "results.csv").exists()


def test_a_run_can_be_resumed(teacher, tmp_path, capsys):
    command = ["train", *DATA, *SMALL, *RUN, "--out", str(tmp_path)]
    assert main([*command, "--schedule", "constant"]) == 0
    assert main([*command, "--schedule", "constant", "--lr", "0.5"]) == 1
    assert "optimizer.lr" in capsys.readouterr().err
    assert main([*command, "--schedule", "constant", "--epochs", "2", "--resume", "yes"]) == 0
    assert len((tmp_path / "results.csv").read_text().splitlines()) == 3


KINDS = [
    (["--detector", "retinanet"], "RetinaNet"),
    (["--detector", "fcos"], "FCOS"),
    (["--detector", "atss"], "ATSS"),
    (["--detector", "gfl"], "GFL"),
    (["--detector", "mask_rcnn"], "MaskRCNN"),
    (["--detector", "cascade_rcnn"], "CascadeRCNN"),
    (["--detector", "rfcn"], "RFCN"),
    (["--neck", "fpn"], "FasterRCNN"),
    (["--detector", "mask_rcnn", "--neck", "none"], "MaskRCNN"),
]
PYRAMIDS = ("RetinaNet", "FCOS", "ATSS", "GFL", "CascadeRCNN")


@pytest.mark.parametrize(("options", "kind"), KINDS, ids=lambda value: "-".join(value))
def test_trains_every_kind_of_detector(options, kind, tmp_path, capsys):
    size = ["--image-size", "48", "--width", "0.25"]
    assert main(["train", *DATA, *size, *options, *RUN, "--out", str(tmp_path)]) == 0
    model = kd.load(tmp_path / "last.safetensors")
    assert type(model).__name__ == kind
    assert (model.configuration["neck"]["kind"] == "fpn") == (
        kind in PYRAMIDS or options[-1] == "fpn" or options[1:] == ["mask_rcnn"]
    )
    if kind == "MaskRCNN":
        capsys.readouterr()
        evaluate = ["evaluate", str(tmp_path / "last.safetensors"), *DATA, "--quiet", "--json"]
        assert main([*evaluate, "--masks"]) == 0
        assert "AP" in json.loads(capsys.readouterr().out)


def test_methods_by_name(tmp_path, capsys):
    size = ["--image-size", "48", "--width", "0.25"]
    out = ["--out", str(tmp_path / "teacher")]
    assert main(["train", *DATA, *size, "--detector", "gfl", *RUN, *out]) == 0
    teacher = ["--teacher", str(tmp_path / "teacher" / "last.safetensors"), *DATA, *RUN]
    for number, method in enumerate(("ld", "cwd:temperature=2 + 0.5*crosskd")):
        out = ["--out", str(tmp_path / f"student-{number}")]
        assert main(["distill", *teacher, "--method", method, *out]) == 0
    assert main(["doctor", *teacher[:4], "--method", "gid", "--sample", "0"]) == 0
    capsys.readouterr()
    assert main(["distill", *teacher, "--method", "cdw", "--out", str(tmp_path / "x")]) == 1
    assert "did you mean 'cwd'" in capsys.readouterr().err
    assert main(["distill", *teacher, "-m", "cwd", "--mu", "1", "--out", str(tmp_path / "x")]) == 1
    assert "--mu is an option of chen2017" in capsys.readouterr().err
    assert main(["methods"]) == 0
    assert "cwd: Shu et al." in capsys.readouterr().out


def test_masks_are_asked_of_data_that_has_them(teacher, tmp_path, capsys):
    (tmp_path / "data.yaml").write_text("names: [a]\ntrain: .\nval: .\n")
    wrong = ["train", "--data", f"yolo:{tmp_path / 'data.yaml'}", "--detector", "mask_rcnn"]
    assert main([*wrong, "--out", str(tmp_path / "run")]) == 1
    assert "masks are in digits, coco" in capsys.readouterr().err
    assert main(["evaluate", str(teacher), *DATA, "--masks", "--quiet"]) == 1
    assert "masks" in capsys.readouterr().err


def test_bench_prints_times(teacher, capsys):
    assert main(["bench", str(teacher), "--repeats", "1", "--batch-size", "1"]) == 0
    printed = capsys.readouterr().out
    assert "ms per image" in printed
    assert "ms per step" in printed


def test_it_runs_as_a_module():
    command = [sys.executable, "-m", "kdswift.cli", "--version"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0
    assert result.stdout.startswith("kdswift ")


def test_data_by_name():
    data = open_data("digits:n=7,difficulty=0.5", "val")
    assert (data.split, len(data), data.difficulty) == ("val", 7, 0.5)
    assert open_data("digits:split=train", "val").split == "train"
    with pytest.raises(ArgumentError, match="voc:FOLDER"):
        open_data("voc", "train")


def test_every_data_set_has_a_name(tmp_path):
    with pytest.raises(ArgumentError, match="digits, voc, coco, kitti, ilsvrc, yolo"):
        open_data("imagenet:x", "train")
    with pytest.raises(ArgumentError, match=r"coco:IMAGES,ANNOTATIONS\.json,key=value"):
        open_data("coco:images", "train")
    with pytest.raises(ArgumentError, match=r"kitti:a,planes=3"):
        open_data("kitti:a,planes=3", "train")
    for text, words in (
        (f"coco:{tmp_path},{tmp_path}/a.json", r"a\.json"),
        (f"kitti:{tmp_path}", "label_2"),
        (f"ilsvrc:{tmp_path}", "Annotations/DET"),
        (f"voc:{tmp_path},year=2012", "VOC2012"),
    ):
        with pytest.raises(FormatError, match=words):
            open_data(text, "val")


def test_data_sets_take_their_split_from_the_command(tmp_path):
    (tmp_path / "a.json").write_text('{"images": [], "categories": [], "annotations": []}')
    assert len(open_data(f"coco:{tmp_path},{tmp_path}/a.json,masks=true", "val")) == 0
    (tmp_path / "training/label_2").mkdir(parents=True)
    (tmp_path / "ImageSets").mkdir()
    for split in ("train", "val", "7"):
        (tmp_path / f"ImageSets/{split}.txt").write_text(f"{split}\n")
    assert open_data(f"kitti:{tmp_path}", "val").ids == ["val"]
    assert open_data(f"kitti:{tmp_path}", "train").ids == ["train"]
    assert open_data(f"kitti:{tmp_path},split=7", "train").ids == ["7"]
