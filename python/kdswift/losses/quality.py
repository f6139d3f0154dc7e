"""Losses of Generalized Focal Loss detectors: scores that are qualities, edges that are bins."""

from __future__ import annotations

from typing import Any

from .._operators import _floats
from ..errors import ArgumentError, ShapeError
from ..tensors import Tensor, as_tensor
from ._common import check_reduction, pair, run


def quality_focal(
    logits: Any, targets: Any, weights: Any = None, beta: float = 2.0, reduction: str = "paper"
) -> Tensor:
    """Quality focal loss on logits (Li et al. 2020, eq. 4), mmdet's `QualityFocalLoss`.

    |sigma(x) - t|^beta BCE(x, t), where t is the quality (IoU) in the column of the label and 0
    elsewhere. The gradient passes through the modulating factor; at its kink sigma(x) = t it is 0.

    Args:
        logits: x, (P, C), one column for each foreground class, or maps (N, C, H, W).
        targets: t in [0, 1], the same shape.
        weights: of that shape, (P,), or one for each place of a map, (N, 1, H, W); None for 1.
        beta: >= 0; 0 gives binary cross-entropy.
        reduction: "paper" divides by the number of targets above 0 (at least 1); "mean" by the
            number of elements; "none" gives one value for each entry of the first axis.

    >>> kd.losses.quality_focal([[0.0]], [[1.0]]).item()   # 0.25 ln 2
    0.17328...
    """
    name = "quality_focal"
    inputs = pair(name, logits, targets, "logits, targets")
    check_reduction(name, reduction)
    if not inputs[0].ndim:
        raise ShapeError(f"{name}: logits must be (P, C), not a single number")
    if not 0 <= beta < float("inf"):
        raise ArgumentError(f"{name}: beta is {beta}, expected a number of at least 0")
    if weights is not None:
        inputs.append(_floats(as_tensor(weights, f"{name}: weights")).detach())
    paper = reduction == "paper"
    loss = run(name, inputs, "sum" if paper else reduction, beta=float(beta))
    return loss * (1 / max(1, int((inputs[1] > 0).sum().item()))) if paper else loss


def distribution_focal(
    logits: Any, targets: Any, weights: Any = None, reduction: str = "paper"
) -> Tensor:
    """Distribution focal loss (Li et al. 2020, eq. 6), mmdet's `DistributionFocalLoss`.

    With l = floor(y) and P = softmax(z): - (l + 1 - y) log P(l) - (y - l) log P(l + 1).

    Args:
        logits: z, (R, bins): a row for each edge of each box.
        targets: y, (R,): distances in bins, 0 to bins - 1.
        weights: (R,) or None for 1.
        reduction: "paper" divides by the sum of the weights, as GFL does; "mean" by the number of
            rows.

    Raises:
        ArgumentError: a target outside the bins; names its row.

    >>> kd.losses.distribution_focal([[0.0, 0.0, 0.0]], [0.5]).item()   # ln 3
    1.09861...
    """
    name = "distribution_focal"
    edges = _floats(as_tensor(logits, f"{name}: logits"))
    goals = _floats(as_tensor(targets, f"{name}: targets")).detach()
    if edges.ndim != 2 or goals.shape != edges.shape[:1]:
        raise ShapeError(
            f"{name}: logits {edges.shape} must be (R, bins) and targets {goals.shape} (R,)"
        )
    inputs = [edges, goals]
    if weights is not None:
        inputs.append(_floats(as_tensor(weights, f"{name}: weights")).detach())
    return run(name, inputs, reduction)
