"""Every example runs as it stands, with a budget of seconds."""

from __future__ import annotations

import ast
import json
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


@pytest.mark.parametrize("name", sorted(path.name for path in FOLDER.glob("*.ipynb")))
def test_notebook(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    notebook = json.loads((FOLDER / name).read_text())
    names: dict = {}
    for cell in notebook["cells"]:
        if cell["cell_type"] != "code":
            continue
        assert cell["outputs"] == []
        source = cell["source"]
        if "parameters" in cell["metadata"].get("tags", ()):
            source = "SCENES, EPOCHS = 16, 1"
        _run_as_notebooks_do(source, names)


def _run_as_notebooks_do(source, names):
    """Run a cell; what its last line gives must be able to show itself."""
    tree = ast.parse(source)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "cell", "exec"), names)
    if last is not None:
        value = eval(compile(ast.Expression(last.value), "cell", "eval"), names)
        assert repr(value)
