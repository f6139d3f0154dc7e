"""Distillation between the outputs of dense heads: binary classes, bins of edges, boxes."""

from __future__ import annotations

from typing import Any

from .._operators import _floats
from ..errors import ArgumentError, ShapeError
from ..tensors import Tensor, apply, as_tensor
from ._common import check_columns, check_reduction, pair, run
from .detection import giou


def binary_soft_labels(
    student_logits: Any,
    teacher_logits: Any,
    temperature: float = 1.0,
    weights: Any = None,
    reduction: str = "paper",
) -> Tensor:
    """Soft labels for detectors with a sigmoid for each class: T^2 BCE(z_s / T, sigma(z_t / T)).

    Hinton et al. 2015 with every class a distribution of its own. A cross-entropy: not 0 where both
    agree, but without a gradient there. That gradient is T (sigma(z_s / T) - sigma(z_t / T)).

    Args:
        student_logits: (P, C), one column for each foreground class, or maps (N, C, H, W).
        teacher_logits: the same shape.
        temperature: T > 0.
        weights: of that shape, (P,), or one for each place of a map, (N, 1, H, W); None for 1.
        reduction: "paper" sums over the classes and divides by the number of entries of the first
            axis; "mean" divides by the number of elements.
    """
    name = "binary_soft_labels"
    inputs = _logits(name, student_logits, teacher_logits, weights)
    _positive(name, "temperature", temperature)
    paper = reduction == "paper"
    options = {"beta": 0.0, "target_logits": True, "temperature": float(temperature)}
    check_reduction(name, reduction)
    loss = apply("quality_focal", inputs, reduction="sum" if paper else reduction, **options)
    return loss * (temperature**2 / (max(1, inputs[0].shape[0]) if paper else 1))


def crosskd_classification(
    student_logits: Any,
    teacher_logits: Any,
    weights: Any = None,
    beta: float = 1.0,
    avg_factor: float = 1.0,
    reduction: str = "paper",
) -> Tensor:
    """KD-QFL of CrossKD (Wang et al. 2024): |sigma(p) - sigma(z_t)|^beta BCE(p, sigma(z_t)).

    p are the cross-head logits: what the teacher's head makes of the student's tower feature (see
    `standardize_like`). The modulating factor is not detached; with s = sigma(p), t = sigma(z_t)
    and beta = 1 the gradient is sign(s - t) s (1 - s) BCE + |s - t| (s - t), 0 where s = t.

    Args:
        student_logits: p, (P, C) for P anchors, or maps (N, A C, H, W).
        teacher_logits: z_t, the same shape.
        weights: 1 for the anchors that count, 0 for the others: of that shape, (P,), or one for
            each place of a map, (N, 1, H, W); None for 1.
        beta: 1 in the paper.
        avg_factor: the number of positive anchors of the batch, by which "paper" divides (at
            least 1).
        reduction: "mean" divides by the number of elements; "none" gives one value for each entry
            of the first axis.
    """
    name = "crosskd_classification"
    return _binary_distance(
        name, student_logits, teacher_logits, weights, beta, avg_factor, reduction
    )


def crosskd_regression(
    student: Any,
    teacher: Any,
    weights: Any = None,
    form: str = "bins",
    avg_factor: float | None = None,
    reduction: str = "paper",
) -> Tensor:
    """The box branch of CrossKD (Wang et al. 2024), of cross-head outputs and the teacher's.

    Args:
        student: (P, 4, bins) logits of the edges for "bins" (GFL), else (P, 4) decoded boxes.
        teacher: the same shape.
        weights: (P,), the teacher's highest class score of each anchor,
            ``teacher_logits.sigmoid().max(axis=1)``; None for 1.
        form: "bins": KL(softmax(z_t) || softmax(z_s)), summed over the bins, mean of the 4 edges;
            "giou": 1 - GIoU (RetinaNet, ATSS); "iou": - log IoU (FCOS).
        avg_factor: what "paper" divides by; None is the sum of the weights, 0 of which gives 0.
        reduction: "mean" divides by the number of anchors.
    """
    name = "crosskd_regression"
    if form not in ("bins", "giou", "iou"):
        raise ArgumentError(f"{name}: form is {form!r}, expected 'bins', 'giou' or 'iou'")
    check_reduction(name, reduction)
    inputs = pair(name, student, teacher, "student, teacher")
    scale = _edges(name, inputs[0]) if form == "bins" else 1.0
    if form != "bins":
        check_columns(name, inputs[0], 4, "student")
    factors = _anchor_weights(name, weights, inputs[0])
    if factors is not None:
        inputs.append(factors)
    if reduction in ("mean", "none"):
        loss = _boxes(form, inputs, "none") * scale
        if form == "bins":
            loss = loss.sum(axis=1)
        return loss if reduction == "none" else loss.sum() * (1 / max(1, inputs[0].shape[0]))
    total = _boxes(form, inputs, "sum") * scale
    if reduction == "sum":
        return total
    if avg_factor is None:
        avg_factor = inputs[0].shape[0] if factors is None else float(factors.sum().item())
    return total * (1 / avg_factor if avg_factor > 0 else 0.0)


def bckd_classification(
    student_logits: Any,
    teacher_logits: Any,
    weights: Any = None,
    avg_factor: float = 1.0,
    positives: int | None = None,
    reduction: str = "paper",
) -> Tensor:
    """BCKD's classes (Yang et al. 2023): |sigma(z_t) - sigma(z_s)| BCE(z_s, sigma(z_t)).

    Binary for each class and over all anchors, so a constant added to all classes changes it,
    unlike a softmax.

    Args:
        student_logits: z_s, (P, C) for P anchors, or maps (N, A C, H, W).
        teacher_logits: z_t, the same shape.
        weights: the label weights, 0 for anchors that do not count; see `crosskd_classification`.
        avg_factor: the number of positive anchors of the batch, by which "paper" divides (at
            least 1).
        positives: the positive anchors of this level: 0 leaves the level out, as the official code
            does; None does not ask.
        reduction: as for `crosskd_classification`.
    """
    name = "bckd_classification"
    loss = _binary_distance(
        name, student_logits, teacher_logits, weights, 1.0, avg_factor, reduction
    )
    return loss * 0.0 if positives == 0 else loss


def bckd_localization(
    student_boxes: Any,
    teacher_boxes: Any,
    student_logits: Any,
    teacher_logits: Any,
    weights: Any = None,
    avg_factor: float = 1.0,
    positives: int | None = None,
    reduction: str = "paper",
) -> Tensor:
    """BCKD's boxes (Yang et al. 2023): 1 - GIoU of the student's and the teacher's box, weighted by
    max_c |sigma(z_t) - sigma(z_s)|.

    No gradient passes through the weight: where both give equal scores the boxes do not matter.

    Args:
        student_boxes, teacher_boxes: (P, 4) decoded boxes, x1 y1 x2 y2 in pixels.
        student_logits, teacher_logits: (P, C).
        weights: (P,) label weights, or None for 1.
        avg_factor, positives: as for `bckd_classification`.
        reduction: "mean" divides by the number of anchors.
    """
    name = "bckd_localization"
    boxes = pair(name, student_boxes, teacher_boxes, "student_boxes, teacher_boxes")
    check_columns(name, boxes[0], 4, "student_boxes")
    words = "student_logits, teacher_logits"
    logits = pair(name, student_logits, teacher_logits, words)
    if logits[0].ndim != 2 or logits[0].shape[0] != boxes[0].shape[0]:
        raise ShapeError(
            f"{name}: student_logits {logits[0].shape} must be (P, C) for student_boxes "
            f"{boxes[0].shape}"
        )
    check_reduction(name, reduction)
    factors = abs(logits[0].detach().sigmoid() - logits[1].sigmoid())
    factors = factors.max(axis=1) if factors.size else factors.sum(axis=1)
    given = _anchor_weights(name, weights, boxes[0])
    factors = factors if given is None else factors * given
    paper = reduction == "paper"
    loss = giou(*boxes, weights=factors, reduction="sum" if paper else reduction)
    loss = loss * (1 / max(1.0, float(avg_factor))) if paper else loss
    return loss * 0.0 if positives == 0 else loss


def standardize_like(student: Any, teacher: Any, eps: float = 1e-6) -> Tensor:
    """CrossKD's alignment of a tower feature (Wang et al. 2024), level by level.

    Every channel, over the batch and all places, gets the teacher's mean and deviation:

        (f_S - mu_S) / (std_S + eps) std_T + mu_T

    with unbiased deviations. The gradient goes to f_S, through mu_S and std_S too. Then: a ReLU
    unless the feature is the tower's input, the teacher's remaining convolutions, its prediction.

    Args:
        student: f_S, (N, C, H, W), before the activation.
        teacher: f_T, the same shape.
        eps: added to the student's deviation; a constant channel becomes the teacher's mean.

    Returns:
        (N, C, H, W).
    """
    maps = pair("standardize_like", student, teacher, "student, teacher")
    return apply("standardize_like", maps, eps=float(eps))


def _binary_distance(
    name: str,
    student: Any,
    teacher: Any,
    weights: Any,
    beta: float,
    avg_factor: float,
    reduction: str,
) -> Tensor:
    inputs = _logits(name, student, teacher, weights)
    check_reduction(name, reduction)
    if not 0 <= beta < float("inf"):
        raise ArgumentError(f"{name}: beta is {beta}, expected a number of at least 0")
    paper = reduction == "paper"
    options = {"beta": float(beta), "target_logits": True}
    loss = apply("quality_focal", inputs, reduction="sum" if paper else reduction, **options)
    return loss * (1 / max(1.0, float(avg_factor))) if paper else loss


def _logits(name: str, student: Any, teacher: Any, weights: Any) -> list[Tensor]:
    inputs = pair(name, student, teacher, "student_logits, teacher_logits")
    if not inputs[0].ndim:
        raise ShapeError(f"{name}: student_logits must be (P, C), not a single number")
    if weights is not None:
        inputs.append(_floats(as_tensor(weights, f"{name}: weights")).detach())
    return inputs


def _anchor_weights(name: str, weights: Any, student: Tensor) -> Tensor | None:
    """One weight for each entry of the first axis."""
    if weights is None:
        return None
    made = _floats(as_tensor(weights, f"{name}: weights")).detach()
    if made.shape != student.shape[:1]:
        raise ShapeError(f"{name}: weights {made.shape} must be (P,) for student {student.shape}")
    return made


def _edges(name: str, student: Tensor) -> float:
    if student.ndim != 3 or student.shape[1] != 4 or not student.shape[2]:
        raise ShapeError(f"{name}: student {student.shape} must be (P, 4, bins)")
    return 0.25


def _boxes(form: str, inputs: list[Tensor], reduction: str) -> Tensor:
    operation = {"bins": "divergence", "giou": "giou", "iou": "log_iou"}[form]
    return run(operation, inputs, reduction)


def _positive(name: str, word: str, value: float) -> None:
    if not 0 < value < float("inf"):
        raise ArgumentError(f"{name}: {word} is {value}, expected a positive number")
