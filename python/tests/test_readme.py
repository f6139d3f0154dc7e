"""The README's example runs as it is written, only with less data and one epoch."""

from __future__ import annotations

import re
from pathlib import Path

README = Path(__file__).resolve().parents[2] / "README.md"


def test_the_example_runs(tmp_path, monkeypatch):
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.S)
    code, fewer = re.subn(r"n=1000\b", "n=4", code)
    code, shorter = re.subn(r"epochs=12\b", "epochs=1", code)
    assert (fewer, shorter) == (1, 2), "the numbers in the README are not those of this test"
    monkeypatch.chdir(tmp_path)
    space: dict = {}
    exec(code, space)
    assert (tmp_path / "student.safetensors").exists()
    assert space["student"].num_parameters < space["teacher"].num_parameters


def test_every_command_of_the_readme_is_a_target():
    makefile = (README.parent / "Makefile").read_text()
    commands = re.findall(r"make ([a-z]+)", README.read_text())
    assert {"demo", "test"} <= set(commands)
    for command in commands:
        assert re.search(rf"^{command}:", makefile, re.M), command
