"""Chen et al. 2017 and soft labels beside their formulas in PyTorch, and mmrazor's KLDivergence."""

from __future__ import annotations

from typing import Any

import numpy as np
import third_party
import torch
import torch.nn.functional as F
from case import Case, maps

# Rows and classes; boxes have four columns.
ROWS = ((1, 2), (7, 3), (64, 21), (33, 81), (5, 17))
BOXES = ((1, 4), (3, 4), (16, 4), (37, 4), (128, 4))


def logits(shape: tuple[int, ...], rng: np.random.Generator) -> dict[str, Any]:
    pair = 3 * rng.standard_normal((2, *shape)).astype(np.float32)
    weights = rng.uniform(0.5, 2, shape[1]).astype(np.float32)
    return {"student": pair[0], "teacher": pair[1], "weights": weights}


def deltas(shape: tuple[int, ...], rng: np.random.Generator) -> dict[str, Any]:
    names = ("student", "teacher", "targets")
    return {name: rng.standard_normal(shape).astype(np.float32) for name in names}


def adapted(shape: tuple[int, ...], rng: np.random.Generator) -> dict[str, Any]:
    """A student with half as many channels more, and the 1x1 adaptation layer between."""
    wide = (shape[0], shape[1] + shape[1] // 2, *shape[2:])
    scale = wide[1] ** -0.5
    return {
        "student": rng.standard_normal(wide).astype(np.float32),
        "teacher": rng.standard_normal(shape).astype(np.float32),
        "weight": (scale * rng.standard_normal((shape[1], wide[1], 1, 1))).astype(np.float32),
        "bias": rng.standard_normal(shape[1]).astype(np.float32),
    }


def _ours(name: str, *inputs: str, **options: Any) -> Any:
    def run(given: Any) -> Any:
        import kdswift as kd

        chosen = {key: given[value] for key, value in options.items() if value in given}
        fixed = {key: value for key, value in options.items() if key not in chosen}
        return getattr(kd.losses, name)(*(given[one] for one in inputs), **chosen, **fixed)

    return run


def _ours_adapted(**options: Any) -> Any:
    def run(given: Any) -> Any:
        import kdswift as kd

        student = kd.conv2d(given["student"], given["weight"], given["bias"])
        return kd.losses.hint(student, given["teacher"], **options)

    return run


def weighted(given: Any, weights: Any = None, temperature: float = 1.0) -> torch.Tensor:
    """Equations 2 and 3: - sum_c w_c P_t log P_s, mean over rows."""
    student, teacher = given["student"].double(), given["teacher"].double()
    if weights is None:
        weights = torch.ones(student.shape[1], dtype=torch.float64)
        weights[0] = 1.5
    shares = F.softmax(teacher / temperature, 1)
    return -(weights * shares * F.log_softmax(student / temperature, 1)).sum(1).mean()


def plain(given: Any) -> torch.Tensor:
    return weighted(given, torch.ones(given["student"].shape[1], dtype=torch.float64), 2.0)


def bounded(given: Any, margin: float = 0.1) -> torch.Tensor:
    """Equation 4, strict, mean over boxes."""
    targets = given["targets"].double()
    own = (given["student"].double() - targets).square().sum(1)
    other = (given["teacher"].double() - targets).square().sum(1)
    return torch.where(own + margin > other, own, torch.zeros_like(own)).mean()


def divergence(given: Any) -> torch.Tensor:
    student, teacher = given["student"].double() / 4, given["teacher"].double() / 4
    whole = F.kl_div(F.log_softmax(student, 1), F.softmax(teacher, 1), reduction="batchmean")
    return 16 * whole


def _adapted(given: Any) -> tuple[torch.Tensor, torch.Tensor]:
    names = ("student", "weight", "bias", "teacher")
    student, weight, bias, teacher = (given[name].double() for name in names)
    return F.conv2d(student, weight, bias), teacher


FORMULA = "the formula, in PyTorch"
LEARNED = ("student", "weight", "bias")
CASES = [
    Case(
        *("weighted_soft_cross_entropy", FORMULA, logits),
        *(_ours("weighted_soft_cross_entropy", "student", "teacher"), weighted),
        shapes=ROWS,
    ),
    Case(
        *("weighted_soft_cross_entropy, class weights", FORMULA, logits),
        _ours("weighted_soft_cross_entropy", "student", "teacher", class_weights="weights"),
        lambda given: weighted(given, given["weights"].double()),
        shapes=ROWS,
    ),
    Case(
        *("soft_cross_entropy, temperature 2", FORMULA, logits),
        *(_ours("soft_cross_entropy", "student", "teacher", temperature=2.0), plain),
        shapes=ROWS,
    ),
    Case(
        *("kl_divergence, temperature 4", FORMULA, logits),
        *(_ours("kl_divergence", "student", "teacher", temperature=4.0), divergence),
        shapes=ROWS,
    ),
    Case(
        *("teacher_bounded_regression, margin 0.1", FORMULA, deltas),
        _ours("teacher_bounded_regression", "student", "teacher", "targets", margin=0.1),
        bounded,
        shapes=BOXES,
    ),
    Case(
        *("hint", "torch.nn.MSELoss", maps),
        _ours("hint", "student", "teacher", reduction="mean"),
        lambda given: F.mse_loss(given["student"], given["teacher"]),
    ),
    Case(
        *("hint, l1", "torch.nn.L1Loss", maps),
        _ours("hint", "student", "teacher", distance="l1", reduction="mean"),
        lambda given: F.l1_loss(given["student"], given["teacher"]),
    ),
    Case(
        *("hint, adaptation layer", "torch.nn.MSELoss", adapted),
        _ours_adapted(reduction="mean"),
        lambda given: F.mse_loss(*_adapted(given)),
        learned=LEARNED,
    ),
]

if third_party.available("mmrazor"):
    _divergence = third_party.mmrazor("losses/kl_divergence.py", "KLDivergence")(
        tau=4.0, reduction="batchmean"
    )
    CASES.append(
        Case(
            *("kl_divergence, temperature 4", "mmrazor 1.0.0 KLDivergence(tau=4)", logits),
            _ours("kl_divergence", "student", "teacher", temperature=4.0),
            lambda given: _divergence(given["student"].double(), given["teacher"].double()),
            shapes=ROWS,
        )
    )
