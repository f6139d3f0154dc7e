"""Cases recorded from PyTorch by tools/fixtures/generate_losses.py, and how to run them."""

from __future__ import annotations

import functools
import hashlib
import json
import operator
from pathlib import Path
from typing import Any

import numpy as np

import kdswift as kd

FOLDER = Path(__file__).parent / "fixtures"


@functools.cache
def manifest() -> dict[str, Any]:
    """The manifest; a file that was changed by hand is an error."""
    described = json.loads((FOLDER / "torch.json").read_text())
    actual = hashlib.sha256((FOLDER / "torch.npz").read_bytes()).hexdigest()
    assert actual == described["sha256"], "torch.npz and torch.json do not belong together"
    return described


@functools.cache
def arrays() -> dict[str, np.ndarray]:
    with np.load(FOLDER / "torch.npz") as stored:
        return dict(stored)


def names(*, losses: bool) -> list[str]:
    """The cases of `kd.losses`, or all the others."""
    cases = manifest()["cases"]
    return [n for n, case in cases.items() if case["function"].startswith("losses.") is losses]


def check(name: str, *, tolerance: float) -> None:
    """Run one case; values and gradients must agree within `tolerance`, relative to the largest."""
    case, stored = manifest()["cases"][name], arrays()
    function = operator.attrgetter(case["function"])(kd)
    inputs = [kd.tensor(stored[f"{name}/in{i}"]) for i in range(case["inputs"])]
    for index in case["gradients"]:
        inputs[index].requires_grad = True
    arguments: list[Any] = list(inputs)
    for position, value in case.get("positional", {}).items():
        arguments.insert(int(position), value)
    result = function(*arguments, **case["arguments"])
    close(result, stored[f"{name}/out"], tolerance, f"value of {name}")
    if case["gradients"]:
        (result * stored[f"{name}/cotangent"]).sum().backward()
        for index in case["gradients"]:
            expected = stored[f"{name}/grad{index}"]
            assert inputs[index].grad is not None, f"{name} gave input {index} no gradient"
            close(inputs[index].grad, expected, tolerance, f"gradient {index} of {name}")


def close(actual: Any, expected: np.ndarray, tolerance: float, what: str) -> None:
    actual = np.asarray(actual)
    assert actual.shape == expected.shape, f"{what}: shape {actual.shape}, not {expected.shape}"
    if expected.dtype.kind == "i":
        assert np.array_equal(actual, expected), what
        return
    scale = max(1.0, float(np.abs(expected).max(initial=0)))
    error = float(np.abs(actual - expected).max(initial=0)) / scale
    assert error <= tolerance, f"{what}: {error} off, relative to {scale}"
