"""Box regression with a teacher."""

from __future__ import annotations

from typing import Any

from ..tensors import Tensor
from ._common import check_columns, pair, run


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
    student, teacher = pair(name, student_deltas, teacher_deltas, "student_deltas, teacher_deltas")
    _, goal = pair(name, student, targets, "student_deltas, targets")
    check_columns(name, student, 4, "student_deltas")
    return run(name, [student, teacher, goal], reduction, margin=float(margin))
