"""Every public name can be the first that a program asks for."""

from __future__ import annotations

import subprocess
import sys

import pytest

import kdswift

# One name per module: modules, not names, import each other.
FIRST = {target.partition(":")[0]: name for name, target in kdswift._LAZY.items()}


@pytest.mark.parametrize("name", sorted(FIRST.values()))
def test_any_name_first(name):
    code = f"import kdswift; kdswift.{name}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
