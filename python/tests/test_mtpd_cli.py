"""``kdswift plan`` and ``kdswift distill --progressive``."""

from __future__ import annotations

import json

import pytest
from tiny import detector

import kdswift as kd
from kdswift.cli import main
from kdswift.cli_mtpd import split_name

RUN = ["--epochs", "1", "--batch-size", "4", "--workers", "0", "--quiet"]
DATA = ["--data", "digits:n=4,size=48"]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    paths = {}
    for name, seed, width in (("s", 1, 0.25), ("a", 2, 0.5), ("b", 3, 0.25)):
        paths[name] = folder / f"{name}.safetensors"
        detector(seed, width=width).save(paths[name])
    return paths


def test_plan_and_distil(files, tmp_path, capsys):
    pool = ["--teacher", f"first={files['a']}", "--teacher", str(files["b"])]
    command = ["plan", "--student", str(files["s"]), *pool, *DATA, "--val", DATA[1], "--quiet"]
    assert main([*command, "--out", str(tmp_path / "plan"), "--ridge", "1e-3"]) == 0
    printed = capsys.readouterr().out
    assert "is last: the best teacher" in printed
    plan = json.loads((tmp_path / "plan" / "plan.json").read_text())
    assert set(plan["performance"]) == {"first", "b"}
    for name in ("costs.png", "plan.png"):
        assert (tmp_path / "plan" / name).stat().st_size > 5000
    out = tmp_path / "run"
    command = ["distill", "--student", str(files["s"]), *pool, *DATA, *RUN, "--out", str(out)]
    assert main([*command, "--plan", str(tmp_path / "plan" / "plan.json"), "--weight", "0.1"]) == 0
    assert "stage" in capsys.readouterr().out
    lineage = kd.load(out / "last.safetensors").lineage
    assert [entry["teacher"] for entry in lineage] == plan["order"]
    assert "weight=0.1" in lineage[0]["method"]


def test_a_probe_decides_who_comes_last(files, capsys):
    pool = ["--teacher", f"first={files['a']}", "--teacher", str(files["b"])]
    command = ["plan", "--student", str(files["s"]), *pool, *DATA, "--val", DATA[1], "--quiet"]
    command += ["--probe", "1", "--ridge", "1e-3"]
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert "(alone)" in printed
    assert "AP of the probed student" in printed
    assert main([*command, "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)["performance"]) == {"first", "b"}


def test_in_the_order_given(files, tmp_path, capsys):
    pool = ["--teacher", str(files["b"]), "--teacher", str(files["a"])]
    command = ["distill", "--student", str(files["s"]), *pool, *DATA, *RUN, "--progressive"]
    assert main([*command, "--inherit", "head", "--out", str(tmp_path)]) == 0
    lineage = kd.load(tmp_path / "last.safetensors").lineage
    assert [entry["teacher"] for entry in lineage] == ["b", "a"]
    assert main([*command, "--out", str(tmp_path)]) == 1
    assert "inherit" in capsys.readouterr().err


def test_names_of_teachers(files, capsys):
    assert split_name("runs/r50/best.safetensors") == ("r50", "runs/r50/best.safetensors")
    assert split_name("x=runs/r50/best.safetensors") == ("x", "runs/r50/best.safetensors")
    assert split_name("big.safetensors") == ("big", "big.safetensors")
    twice = ["--teacher", str(files["a"])] * 2
    command = ["plan", "--student", str(files["s"]), *twice, *DATA, "--val", DATA[1]]
    assert main(command) == 1
    assert "twice" in capsys.readouterr().err
