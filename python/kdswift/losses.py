"""Losses of distillation and detection, usable alone: `kd.losses.hint(student, teacher)`.

Students, teachers and targets are Tensors, NumPy arrays, lists, or anything with DLPack. The result
is a Tensor with one number whose gradient goes to the first argument only: never to a teacher, a
target or a gate. `reduction` is one of

    "paper"   as published; each function says what that is
    "mean"    divided by the number of rows or elements, as PyTorch has it
    "sum"     the plain sum
    "none"    one value for each row or element

Every function raises `ShapeError` naming both shapes when they do not go together, and
`ArgumentError` for a reduction or a number outside its range. `kd.value_and_grad` gives the
gradient of any of them as an array:

>>> kd.value_and_grad(kd.losses.hint)(np.array([[1.0, 3.0]]), np.array([[1.0, 1.0]]))
(4.0, array([[0., 4.]], dtype=float32))
"""

from __future__ import annotations

from typing import Any

from ._operators import _floats
from .errors import ArgumentError, ShapeError
from .tensors import Tensor, apply, as_tensor

__all__ = [
    "binary_cross_entropy",
    "cross_entropy",
    "giou",
    "hint",
    "kl_divergence",
    "sigmoid_focal",
    "smooth_l1",
    "soft_cross_entropy",
    "teacher_bounded_regression",
    "weighted_soft_cross_entropy",
]

_REDUCTIONS = ("paper", "mean", "sum", "none")


# Distillation


def weighted_soft_cross_entropy(
    student_logits: Any,
    teacher_logits: Any,
    class_weights: Any = None,
    background_weight: float = 1.5,
    temperature: float = 1.0,
    reduction: str = "paper",
) -> Tensor:
    """Cross-entropy with the teacher's class probabilities, weighted by class.

    Chen et al. 2017, eq. 2 and 3: L = - sum_c w_c P_t(c) log P_s(c), with P = softmax(z / T).

    The weight belongs to the class inside the sum, not to the sample's label. The value is a
    cross-entropy: it is not 0 when student and teacher agree, and its minimum lies at P_s(c)
    proportional to w_c P_t(c).

    Args:
        student_logits: (N, C), or (..., C); class 0 is the background.
        teacher_logits: the same shape.
        class_weights: (C,) weights w; when given, `background_weight` is not used.
        background_weight: w_0 where no `class_weights` are given; all other classes have 1. The
            paper's value for PASCAL is 1.5.
        temperature: T > 0; the paper finds 1 best. No factor T^2 is applied: the paper has none.
        reduction: "paper" and "mean" divide the sum by the number of rows N.

    >>> z_t = np.log([[0.5, 0.25, 0.25]])
    >>> kd.losses.weighted_soft_cross_entropy([[0.0, 0.0, 0.0]], z_t).item()   # 1.25 ln 3
    1.37326...
    """
    name = "weighted_soft_cross_entropy"
    student, teacher = _pair(name, student_logits, teacher_logits, "student_logits, teacher_logits")
    return _soft(
        name, student, teacher, temperature, reduction, float(background_weight), class_weights
    )


def soft_cross_entropy(
    student_logits: Any, teacher_logits: Any, temperature: float = 1.0, reduction: str = "paper"
) -> Tensor:
    """Cross-entropy with the teacher's class probabilities: - sum_c P_t(c) log P_s(c).

    Chen et al. 2017, eq. 3 with all weights 1 ("CLS" in its Table 4); the soft part of Hinton et
    al. 2015 without the factor T^2. Its gradient is (P_s - P_t) / T for each row.

    Args:
        student_logits: (N, C), or (..., C).
        teacher_logits: the same shape.
        temperature: T > 0 in P = softmax(z / T).
        reduction: "paper" and "mean" divide the sum by the number of rows N.
    """
    name = "soft_cross_entropy"
    student, teacher = _pair(name, student_logits, teacher_logits, "student_logits, teacher_logits")
    return _soft(name, student, teacher, temperature, reduction)


def kl_divergence(
    student_logits: Any, teacher_logits: Any, temperature: float = 1.0, reduction: str = "paper"
) -> Tensor:
    """T^2 KL(softmax(z_t / T) || softmax(z_s / T)), Hinton et al. 2015.

    Zero when both agree up to a constant per row. The factor T^2 keeps the size of the gradient as
    T changes.

    Args:
        student_logits: (N, C), or (..., C).
        teacher_logits: the same shape.
        temperature: T > 0.
        reduction: "paper" and "mean" divide the sum by the number of rows N.

    >>> kd.losses.kl_divergence([[0.0, 0.0]], [[np.log(3), 0.0]]).item()
    0.13081...
    """
    name = "kl_divergence"
    student, teacher = _pair(name, student_logits, teacher_logits, "student_logits, teacher_logits")
    cross = _soft(name, student, teacher, temperature, reduction)
    entropy = _soft(name, teacher, teacher, temperature, reduction)
    return (cross - entropy) * float(temperature) ** 2


def teacher_bounded_regression(
    student_deltas: Any,
    teacher_deltas: Any,
    targets: Any,
    margin: float = 0.0,
    reduction: str = "paper",
) -> Tensor:
    """Squared error of boxes where the student is not better than the teacher by a margin.

    Chen et al. 2017, eq. 4 (L_b alone), for each box, with e = ||R - y||^2 over its 4 offsets:

        L_b = e_s   if e_s + margin > e_t   (strictly)
              0     otherwise

    No gradient passes through the comparison, and none pulls towards the teacher: it is
    2 (R_s - y) for the boxes that count, 0 for the others. The value jumps at the boundary.

    Args:
        student_deltas: (P, 4) box offsets R_s of the matched positives.
        teacher_deltas: (P, 4) R_t, in the same units.
        targets: (P, 4) y, in the same units.
        margin: m; the paper does not give its value.
        reduction: "paper" and "mean" divide the sum over boxes by P; no boxes give 0. To divide by
            another count, as eq. 1 does with the batch size, take "sum".

    >>> kd.losses.teacher_bounded_regression([[2.0, 0, 0, 0]], [[1.0, 0, 0, 0]], [[0.0] * 4]).item()
    4.0
    """
    name = "teacher_bounded_regression"
    student, teacher = _pair(name, student_deltas, teacher_deltas, "student_deltas, teacher_deltas")
    _, goal = _pair(name, student, targets, "student_deltas, targets")
    _columns(name, student, 4, "student_deltas")
    return _run(name, [student, teacher, goal], reduction, margin=float(margin))


def hint(student: Any, teacher: Any, distance: str = "l2", reduction: str = "paper") -> Tensor:
    """How far the student's (adapted) feature map V is from the teacher's Z.

    Chen et al. 2017: ||V - Z||_2^2 (eq. 5, after FitNets) or ||V - Z||_1 (eq. 6).

    Args:
        student: V, any shape.
        teacher: Z, the same shape; the adaptation layer comes before (see `kd.methods.Chen2017`).
        distance: "l2" or "l1".
        reduction: "paper" is the raw sum, as both equations print it; "mean" divides it by the
            number of elements, which a weight for maps of all sizes needs.

    >>> kd.losses.hint([[1.0, 3.0]], [[1.0, 1.0]], reduction="mean").item()
    2.0
    """
    if distance not in ("l2", "l1"):
        raise ArgumentError(f"hint: distance is {distance!r}, expected 'l2' or 'l1'")
    pair = _pair("hint", student, teacher, "student, teacher")
    return _run("hint", pair, "sum" if reduction == "paper" else reduction, distance=distance)


# Detection


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
    return _run("cross_entropy", inputs, reduction, ignore_index=int(ignore_index))


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
    inputs = _pair(name, logits, targets, "logits, targets")
    if weights is not None:
        inputs.append(_pair(name, logits, weights, "logits, weights")[1])
    return _run(name, inputs, reduction)


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
    inputs = _pair(name, logits, targets, "logits, targets")
    _known(name, reduction)
    paper = reduction == "paper"
    options = {"alpha": float(alpha), "gamma": float(gamma)}
    loss = _run(name, inputs, "sum" if paper else reduction, **options)
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
    inputs = _pair(name, prediction, target, "prediction, target")
    _known(name, reduction)
    paper = reduction == "paper"
    loss = _run(name, inputs, "sum" if paper else reduction, beta=float(beta))
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
    inputs = _pair("giou", prediction, target, "prediction, target")
    _columns("giou", inputs[0], 4, "prediction")
    if weights is not None:
        inputs.append(_floats(as_tensor(weights, "giou: weights")).detach())
    return _run("giou", inputs, reduction, eps=float(eps))


# Parts


def _pair(name: str, first: Any, second: Any, words: str) -> list[Tensor]:
    """Both as float tensors of one shape; only the first stays on the tape."""
    left, right = words.split(", ")
    a = _floats(as_tensor(first, f"{name}: {left}"))
    b = _floats(as_tensor(second, f"{name}: {right}"))
    if a.shape != b.shape:
        raise ShapeError(f"{name}: {left} {a.shape} and {right} {b.shape} must have one shape")
    return [a, b.detach()]


def _logits(name: str, value: Any) -> Tensor:
    return _floats(as_tensor(value, f"{name}: logits"))


def _columns(name: str, value: Tensor, columns: int, word: str) -> None:
    if value.ndim != 2 or value.shape[1] != columns:
        raise ShapeError(f"{name}: {word} {value.shape} must be (P, {columns})")


def _known(name: str, reduction: str) -> None:
    if reduction not in _REDUCTIONS:
        raise ArgumentError(
            f"{name}: reduction is {reduction!r}, expected one of {', '.join(_REDUCTIONS)}"
        )


def _run(name: str, inputs: list[Tensor], reduction: str, **options: Any) -> Tensor:
    _known(name, reduction)
    return apply(name, inputs, reduction=reduction, **options)


def _soft(
    name: str,
    student: Tensor,
    teacher: Tensor,
    temperature: float,
    reduction: str,
    background_weight: float = 1.0,
    class_weights: Any = None,
) -> Tensor:
    """The soft cross-entropy over the rows of (..., C)."""
    _known(name, reduction)
    if not 0 < temperature < float("inf"):
        raise ArgumentError(f"{name}: temperature is {temperature}, expected a positive number")
    if not student.ndim:
        raise ShapeError(f"{name}: student_logits must be (N, C), not a single number")
    inputs = [student, teacher]
    if student.ndim != 2:
        inputs = [one.reshape(-1, student.shape[-1]) for one in inputs]
    options: dict[str, Any] = {"temperature": float(temperature), "reduction": reduction}
    if class_weights is None:
        options["background_weight"] = background_weight
    else:
        inputs.append(_class_weights(name, class_weights, student))
    loss = apply("weighted_soft_cross_entropy", inputs, **options)
    return loss.reshape(student.shape[:-1]) if reduction == "none" else loss


def _class_weights(name: str, values: Any, student: Tensor) -> Tensor:
    weights = _floats(as_tensor(values, f"{name}: class_weights")).detach()
    if weights.shape != student.shape[-1:]:
        raise ShapeError(
            f"{name}: class_weights {weights.shape} must have one value for each class of "
            f"student_logits {student.shape}"
        )
    return weights
