"""Every example runs as it stands, with a budget of seconds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "examples"
ARGUMENTS = {"distill_digits.py": ["--out", "out"], "own_loss.py": []}


def test_all_examples_are_listed():
    assert {path.name for path in FOLDER.glob("*.py")} == set(ARGUMENTS)


@pytest.mark.parametrize("name", ARGUMENTS)
def test_example(name, tmp_path):
    command = [sys.executable, FOLDER / name, "--epochs", "1", "--scenes", "16", *ARGUMENTS[name]]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stderr
    assert "History(1 epochs" in result.stdout
