"""A distillation loss beside an independent implementation in PyTorch: values and gradients."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Inputs = Mapping[str, Any]
# Batch, channels, height, width: odd sizes, one pixel, channels that fill no block.
SHAPES = ((2, 8, 7, 5), (1, 16, 9, 12), (3, 24, 1, 1), (2, 33, 4, 3), (4, 64, 6, 6))


@dataclass(frozen=True)
class Case:
    """One mechanism.

    name : the function of `kd.losses`, or the class of `kd.distill`
    source : what computes the reference: "mmrazor 1.0.0 PKDLoss", "the formula, in PyTorch", …
    inputs : shape, generator -> arrays by name, with "student" and "teacher" among them
    ours : kd tensors (what `learned` names requires gradients), other inputs as they are -> scalar
    reference : the same with torch tensors
    learned : names of the inputs whose gradients are compared
    shapes : at least five; for maps (N, C, H, W)
    """

    name: str
    source: str
    inputs: Callable[[tuple[int, ...], np.random.Generator], dict[str, Any]]
    ours: Callable[[Inputs], Any]
    reference: Callable[[Inputs], Any]
    learned: Sequence[str] = ("student",)
    shapes: Sequence[tuple[int, ...]] = SHAPES


@dataclass(frozen=True)
class Difference:
    """Greatest relative errors of a case over its shapes."""

    value: float
    gradient: float
    shapes: int


def maps(shape: tuple[int, ...], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """A student's and a teacher's map of one shape."""
    pair = rng.standard_normal((2, *shape)).astype(np.float32)
    return {"student": pair[0], "teacher": pair[1]}


def measure(case: Case, seed: int = 0) -> Difference:
    """Both sides of a case on the same inputs."""
    values, gradients = [], []
    for index, shape in enumerate(case.shapes):
        inputs = case.inputs(shape, np.random.default_rng([seed, index]))
        ours, theirs = run_ours(case, inputs), run_reference(case, inputs)
        values.append(relative(ours[0], theirs[0]))
        for name in case.learned:
            gradients.append(relative(ours[1][name], theirs[1][name]))
    return Difference(max(values), max(gradients, default=0.0), len(case.shapes))


def run_ours(case: Case, inputs: Inputs) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Value, and gradients by name; zeros where there is none."""
    import kdswift as kd

    given = {
        name: kd.tensor(value, requires_grad=name in case.learned) if is_array(value) else value
        for name, value in inputs.items()
    }
    result = case.ours(given)
    result.backward()
    gradients = {
        name: np.zeros_like(inputs[name]) if given[name].grad is None else given[name].grad.numpy()
        for name in case.learned
    }
    return result.numpy(), gradients


def run_reference(case: Case, inputs: Inputs) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The same by the other implementation."""
    import torch

    given = {
        name: torch.from_numpy(value.copy()).requires_grad_(name in case.learned)
        if is_array(value)
        else value
        for name, value in inputs.items()
    }
    result = case.reference(given)
    result.backward()
    gradients = {
        name: torch.zeros_like(given[name]).numpy()
        if given[name].grad is None
        else given[name].grad.numpy()
        for name in case.learned
    }
    return result.detach().numpy(), gradients


def is_array(value: Any) -> bool:
    """Whether an input becomes a tensor; lists of arrays (boxes by image) stay as they are."""
    return isinstance(value, np.ndarray)


def relative(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Greatest difference, relative to the greatest value of the reference."""
    scale = float(np.abs(theirs).max(initial=0.0))
    difference = float(np.abs(np.asarray(ours, np.float64) - theirs).max(initial=0.0))
    return difference / scale if scale > 0 else difference
