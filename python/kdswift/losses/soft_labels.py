"""Soft labels: the student's classes against the teacher's."""

from __future__ import annotations

from typing import Any

from .._operators import _floats
from ..errors import ArgumentError, ShapeError
from ..tensors import Tensor, apply, as_tensor
from ._common import check_reduction, pair


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
    student, teacher = pair(name, student_logits, teacher_logits, "student_logits, teacher_logits")
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
    student, teacher = pair(name, student_logits, teacher_logits, "student_logits, teacher_logits")
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
    student, teacher = pair(name, student_logits, teacher_logits, "student_logits, teacher_logits")
    _check_soft(name, student, temperature, reduction)
    rows = [one.reshape(-1, student.shape[-1]) for one in (student, teacher)]
    options = {"temperature": float(temperature), "reduction": reduction}
    loss = apply("divergence", rows, **options)
    return loss.reshape(student.shape[:-1]) if reduction == "none" else loss


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
    _check_soft(name, student, temperature, reduction)
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


def _check_soft(name: str, student: Tensor, temperature: float, reduction: str) -> None:
    check_reduction(name, reduction)
    if not 0 < temperature < float("inf"):
        raise ArgumentError(f"{name}: temperature is {temperature}, expected a positive number")
    if not student.ndim:
        raise ShapeError(f"{name}: student_logits must be (N, C), not a single number")


def _class_weights(name: str, values: Any, student: Tensor) -> Tensor:
    weights = _floats(as_tensor(values, f"{name}: class_weights")).detach()
    if weights.shape != student.shape[-1:]:
        raise ShapeError(
            f"{name}: class_weights {weights.shape} must have one value for each class of "
            f"student_logits {student.shape}"
        )
    return weights
