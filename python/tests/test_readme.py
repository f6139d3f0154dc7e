"""The README's examples run as they are written, only with less data and one epoch."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

README = Path(__file__).resolve().parents[2] / "README.md"


@pytest.mark.filterwarnings("ignore:adaptation_costs")  # four scenes are few
def test_the_examples_run(tmp_path, monkeypatch):
    code, several = re.findall(r"```python\n(.*?)```", README.read_text(), re.S)
    code, fewer = re.subn(r"n=1000\b", "n=4", code)
    code, shorter = re.subn(r"epochs=12\b", "epochs=1", code)
    assert (fewer, shorter) == (1, 2), "the numbers in the README are not those of this test"
    monkeypatch.chdir(tmp_path)
    space: dict = {}
    exec(code, space)
    assert (tmp_path / "student.safetensors").exists()
    assert space["student"].num_parameters < space["teacher"].num_parameters
    several, shorter = re.subn(r"epochs_per_teacher=12\b", "epochs_per_teacher=1", several)
    assert shorter == 1
    space |= dict.fromkeys("abc", space["teacher"])  # models that the reader has
    exec(several, space)
    assert (tmp_path / "runs" / "student" / "last.safetensors").exists()


def test_every_command_of_the_readme_is_a_target():
    makefile = (README.parent / "Makefile").read_text()
    commands = re.findall(r"make ([a-z]+)", README.read_text())
    assert {"demo", "test"} <= set(commands)
    for command in commands:
        assert re.search(rf"^{command}:", makefile, re.M), command
