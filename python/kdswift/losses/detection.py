"""Losses of detectors: classes and boxes against labels."""

from __future__ import annotations

from typing import Any

from .._operators import _floats
from ..tensors import Tensor, as_tensor
from ._common import check_columns, check_reduction, pair, run


def cross_entropy(
    logits: Any, labels: Any, ignore_index: int = -100, reduction: str = "paper"
) -> Tensor:
    """Softmax cross-entropy with class labels, as `torch.nn.functional.cross_entropy`.

    Args:
        logits: (N, C), or (N, C, d1, ...).
        labels: int64 (N,), or (N, d1, ...); 0 to C - 1, or `ignore_index`.
        ignore_index: rows with this label count nothing.
        reduction: "paper" and "mean" divide by the number of rows that count (0 when none does).

    Raises:
        ArgumentError: a label that is no class; names the label and its row.
    """
    inputs = [_logits("cross_entropy", logits), as_tensor(labels, "cross_entropy: labels")]
    return run("cross_entropy", inputs, reduction, ignore_index=int(ignore_index))


def binary_cross_entropy(
    logits: Any, targets: Any, weights: Any = None, reduction: str = "paper"
) -> Tensor:
    """Binary cross-entropy on logits, as `torch.nn.functional.binary_cross_entropy_with_logits`.

    w (max(x, 0) - x t + log(1 + e^-|x|)), which cannot overflow.

    Args:
        logits: x, any shape; not probabilities.
        targets: t in [0, 1], the same shape.
        weights: w of the same shape, or None for 1.
        reduction: "paper" and "mean" divide by the number of elements.
    """
    name = "binary_cross_entropy"
    inputs = pair(name, logits, targets, "logits, targets")
    if weights is not None:
        inputs.append(pair(name, logits, weights, "logits, weights")[1])
    return run(name, inputs, reduction)


def sigmoid_focal(
    logits: Any, targets: Any, alpha: float = 0.25, gamma: float = 2.0, reduction: str = "paper"
) -> Tensor:
    """Focal loss on logits, as `torchvision.ops.sigmoid_focal_loss` (Lin et al. 2017, eq. 5).

    alpha_t (1 - p_t)^gamma (- log p_t), where p_t is the probability of what the target says.

    Args:
        logits: any shape.
        targets: 0 or 1, the same shape.
        alpha: weight of the positives, 1 - alpha of the negatives; negative for no weighting.
        gamma: >= 0; 0 gives cross-entropy.
        reduction: "paper" divides by the number of positive targets (at least 1), as RetinaNet
            does; "mean" divides by the number of elements.
    """
    name = "sigmoid_focal"
    inputs = pair(name, logits, targets, "logits, targets")
    check_reduction(name, reduction)
    paper = reduction == "paper"
    options = {"alpha": float(alpha), "gamma": float(gamma)}
    loss = run(name, inputs, "sum" if paper else reduction, **options)
    return loss * (1 / max(1, int((inputs[1] > 0.5).sum().item()))) if paper else loss


def smooth_l1(prediction: Any, target: Any, beta: float = 1.0, reduction: str = "paper") -> Tensor:
    """Smooth L1 of Girshick, "Fast R-CNN" 2015, as `torch.nn.SmoothL1Loss`.

    With d = prediction - target: d^2 / (2 beta) where |d| < beta, |d| - beta / 2 elsewhere.

    Args:
        prediction: (N, 4) box offsets, or any shape.
        target: the same shape.
        beta: where the parabola ends; 0 gives L1. The form with sigma has beta = 1 / sigma^2:
            Faster R-CNN takes 1/9 in the proposal network and 1 in the head.
        reduction: "paper" sums over the last axis (a box's coordinates) and takes the mean over
            the others; "mean" divides by the number of elements.
    """
    name = "smooth_l1"
    inputs = pair(name, prediction, target, "prediction, target")
    check_reduction(name, reduction)
    paper = reduction == "paper"
    loss = run(name, inputs, "sum" if paper else reduction, beta=float(beta))
    if not paper:
        return loss
    size = inputs[0].size
    boxes = size // inputs[0].shape[-1] if size and inputs[0].ndim else 1
    return loss * (1 / boxes)


def giou(
    prediction: Any, target: Any, weights: Any = None, eps: float = 1e-7, reduction: str = "paper"
) -> Tensor:
    """1 - generalised IoU of box pairs (Rezatofighi et al. 2019), as
    `torchvision.ops.generalized_box_iou_loss`.

    Args:
        prediction: (P, 4) boxes x1 y1 x2 y2 in pixels.
        target: (P, 4) boxes, paired with them.
        weights: (P,) or None for 1.
        eps: added to the areas that divide.
        reduction: "paper" and "mean" divide by the number of pairs; no pairs give 0.
    """
    inputs = pair("giou", prediction, target, "prediction, target")
    check_columns("giou", inputs[0], 4, "prediction")
    if weights is not None:
        inputs.append(_floats(as_tensor(weights, "giou: weights")).detach())
    return run("giou", inputs, reduction, eps=float(eps))


def _logits(name: str, value: Any) -> Tensor:
    return _floats(as_tensor(value, f"{name}: logits"))
