"""Losses between the outputs of dense heads, and their usual form in PyTorch.

All anchors of a batch in rows: 21824 places of five levels with 80 classes; the edges of the 2000
of them that regress, in 17 bins.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from losses_scene import BATCH, SIZES, Pair, Scene, Work, over_levels

ROWS, CLASSES = BATCH * sum(size * size for size in SIZES), 80
EDGES, BINS = 2000, 17


def logits() -> tuple[np.ndarray, np.ndarray]:
    pair = np.random.default_rng(3).standard_normal((2, ROWS, CLASSES), dtype=np.float32)
    return pair[0] - 2, pair[1] - 2


def qualities() -> tuple[np.ndarray, np.ndarray]:
    """Logits and targets, one in a hundred anchors positive."""
    rng, (student, _) = np.random.default_rng(4), logits()
    targets = np.zeros_like(student)
    rows = rng.choice(ROWS, ROWS // 100, replace=False)
    targets[rows, rng.integers(0, CLASSES, len(rows))] = rng.uniform(0.2, 1, len(rows))
    return student, targets


def edges() -> tuple[np.ndarray, np.ndarray]:
    pair = np.random.default_rng(5).standard_normal((2, EDGES, 4, BINS), dtype=np.float32)
    return pair[0], pair[1]


def distances() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(6)
    goals = rng.uniform(0, BINS - 1.1, EDGES * 4).astype(np.float32)
    return edges()[0].reshape(-1, BINS), goals


def boxes() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(8)
    corner = rng.uniform(0, 400, (ROWS, 2))
    target = np.concatenate([corner, corner + rng.uniform(10, 100, (ROWS, 2))], 1)
    moved = target + rng.uniform(-4, 4, target.shape)
    return moved.astype(np.float32), target.astype(np.float32)


def pair(
    inputs: Callable[[], tuple[np.ndarray, np.ndarray]],
    ours: Callable[[Any, Any, Any], Any],
    torch: Callable[[Any, Any], Any],
) -> Pair:
    """A loss of two arrays: ours(kdswift.losses, student, teacher)."""

    def make_ours(_scene: Scene) -> Work:
        import kdswift as kd

        student, teacher = (kd.tensor(one) for one in inputs())
        student.requires_grad = True
        return over_levels(lambda s, t: ours(kd.losses, s, t), [student], [teacher])

    def make_torch(_scene: Scene) -> Work:
        from torch import from_numpy

        student, teacher = (from_numpy(one.copy()) for one in inputs())
        return over_levels(torch, [student.requires_grad_()], [teacher])

    return Pair(make_ours, make_torch)


def binary(student: Any, target: Any) -> Any:
    import torch.nn.functional as F

    return F.binary_cross_entropy_with_logits(student, target, reduction="none")


def quality_focal(student: Any, target: Any) -> Any:
    total = ((student.sigmoid() - target).abs().pow(2) * binary(student, target)).sum()
    return total / (target > 0).sum().clamp(min=1)


def distribution_focal(student: Any, target: Any) -> Any:
    import torch.nn.functional as F

    low = target.long()
    left = F.cross_entropy(student, low, reduction="none") * (low + 1 - target)
    right = F.cross_entropy(student, low + 1, reduction="none") * (target - low)
    return (left + right).mean()


def kl_bins(student: Any, teacher: Any, temperature: float) -> Any:
    import torch.nn.functional as F

    each = F.kl_div(
        F.log_softmax(student / temperature, -1),
        F.softmax(teacher / temperature, -1),
        reduction="none",
    )
    return temperature**2 * each


def cross_classes(student: Any, teacher: Any) -> Any:
    target = teacher.sigmoid()
    return ((student.sigmoid() - target).abs() * binary(student, target)).sum()


def cross_boxes(student: Any, teacher: Any) -> Any:
    from torchvision.ops import generalized_box_iou_loss

    return generalized_box_iou_loss(student, teacher, reduction="mean")


LOSSES: dict[str, Pair] = {
    "quality_focal": pair(qualities, lambda k, s, t: k.quality_focal(s, t), quality_focal),
    "distribution_focal": pair(
        distances, lambda k, s, t: k.distribution_focal(s, t), distribution_focal
    ),
    "binary_soft_labels": pair(
        logits,
        lambda k, s, t: k.binary_soft_labels(s, t, 2.0),
        lambda s, t: 4 * binary(s / 2, (t / 2).sigmoid()).sum() / len(s),
    ),
    "localization_distillation": pair(
        edges,
        lambda k, s, t: k.localization_distillation(s, t),
        lambda s, t: kl_bins(s, t, 10.0).mean(-1).sum() / 4,
    ),
    "crosskd_classification": pair(
        logits, lambda k, s, t: k.crosskd_classification(s, t), cross_classes
    ),
    "crosskd_regression, bins": pair(
        edges,
        lambda k, s, t: k.crosskd_regression(s, t),
        lambda s, t: kl_bins(s, t, 1.0).sum(-1).mean(),
    ),
    "crosskd_regression, giou": pair(
        boxes, lambda k, s, t: k.crosskd_regression(s, t, form="giou"), cross_boxes
    ),
}
