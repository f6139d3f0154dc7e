"""General instance distillation (GID, Dai et al. 2021): what student and teacher see unlike.

No official code exists; reductions and weights are those of an unofficial implementation, which
belong together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import ops
from .._operators import _floats
from ..errors import ShapeError
from ..functional import where
from ..tensors import Tensor, apply, as_tensor, tensor
from ._common import check_columns, pair
from ._maps import check_average, map_pair
from .mimic import region_rows


def gid(
    student: Any,
    teacher: Any,
    instances: Sequence[Any],
    spatial_scale: float,
    feature_weight: float = 0.005,
    relation_weight: float = 40.0,
    output_size: int = 10,
    reduction: str = "paper",
) -> Tensor:
    """GID (Dai et al. 2021) at one level, without the response:
    l_1 `gid_feature` + l_2 `gid_relation`, of the same pooled instances.

    Args:
        student: f(F_S), (N, C, H, W), after the 3x3 adaptation layer.
        teacher: F_T, the same shape.
        instances: the boxes (k, 4) of each image that belong to this level (`gid_instances`), in
            pixels.
        spatial_scale: cells of the map per pixel.
        feature_weight, relation_weight: l_1 and l_2.
        output_size: the grid of RoIAlign.
        reduction: of both parts.
    """
    check_average("gid", reduction)
    pooled = _aligned("gid", student, teacher, instances, spatial_scale, output_size)
    feature = _feature(*pooled, reduction) * float(feature_weight)
    return feature + gid_relation(*pooled, reduction) * float(relation_weight)


def gid_instances(
    student_scores: Any,
    student_boxes: Any,
    teacher_scores: Any,
    teacher_boxes: Any,
    top: int = 10,
    iou_threshold: float = 0.3,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The general instances of one image (Dai et al. 2021): where both scores differ most.

    P = max_c |P_t - P_s| at each anchor, with the teacher's box where max_c P_t > max_c P_s, else
    the student's; then suppression and the best `top`. Where all scores are equal every P is 0,
    and the earlier anchor comes first.

    Args:
        student_scores, teacher_scores: (A, K), sigmoids.
        student_boxes, teacher_boxes: (A, 4) decoded boxes in pixels.
        top: instances that stay; 10 in the paper.
        iou_threshold: of the suppression.

    Returns:
        boxes (k, 4), their P (k,), the anchors' indices (k,) int64, by falling P, k <= top.
    """
    name = "gid_instances"
    words = "student_scores, teacher_scores"
    scores = [one.numpy() for one in pair(name, student_scores, teacher_scores, words)]
    words = "student_boxes, teacher_boxes"
    boxes = pair(name, student_boxes, teacher_boxes, words)
    check_columns(name, boxes[0], 4, "student_boxes")
    if scores[0].ndim != 2 or len(scores[0]) != boxes[0].shape[0]:
        raise ShapeError(
            f"{name}: student_scores {scores[0].shape} must be (A, K) for student_boxes "
            f"{boxes[0].shape}"
        )
    if not scores[0].size:
        return np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64)
    gaps = np.abs(scores[1] - scores[0]).max(axis=1)
    higher = scores[1].max(axis=1) > scores[0].max(axis=1)
    chosen = np.where(higher[:, None], boxes[1].numpy(), boxes[0].numpy())
    kept = np.asarray(ops.nms(chosen, gaps, iou_threshold))[:top]
    return chosen[kept], gaps[kept], kept


def gid_feature(
    student: Any,
    teacher: Any,
    instances: Sequence[Any],
    spatial_scale: float,
    output_size: int = 10,
    reduction: str = "paper",
) -> Tensor:
    """The features of GID (Dai et al. 2021): squared error of the instances after RoIAlign, summed
    over the channels, mean over instances and cells; no instances give 0.

    Args:
        student, teacher, instances, spatial_scale, output_size: as for `gid`.
        reduction: "paper" as above; "mean" over the channels too, "sum" over everything.
    """
    name = "gid_feature"
    check_average(name, reduction)
    pooled = _aligned(name, student, teacher, instances, spatial_scale, output_size)
    return _feature(*pooled, reduction)


def gid_relation(student: Any, teacher: Any, reduction: str = "paper") -> Tensor:
    """The relations of GID (Dai et al. 2021), between all pairs i != j of K instances:

        mean smoothL1( ||s_i - s_j|| / psi(s) - ||t_i - t_j|| / psi(t) ),  beta = 1

    psi is the mean distance of the pairs, through which the student's gradient passes too. Fewer
    than three instances give 0; instances that all coincide have relations of 0.

    Args:
        student: s, (K, ...): the features of an instance in a row.
        teacher: t, the same shape.
        reduction: "paper" and "mean" over the pairs, "sum".
    """
    check_average("gid_relation", reduction)
    rows = pair("gid_relation", student, teacher, "student, teacher")
    if not rows[0].ndim:
        raise ShapeError("gid_relation: student must be (K, ...), not a single number")
    count = rows[0].shape[0]
    if count < 3:
        return rows[0].sum() * 0.0
    pairs = count * (count - 1)
    relative = []
    for one in rows:
        distances = apply("pairwise_distance", [one.reshape(count, -1)])
        mean = distances.sum() * (1 / pairs)
        relative.append(distances / mean.clamp(min=1e-12))
    # The diagonal is 0 on both sides and adds nothing.
    loss = apply("smooth_l1", relative, beta=1.0, reduction="sum")
    return loss if reduction == "sum" else loss * (1 / pairs)


def gid_response(
    student_logits: Any,
    teacher_logits: Any,
    student_deltas: Any,
    teacher_deltas: Any,
    mask: Any,
    classification_weight: float = 0.1,
    regression_weight: float = 0.1,
    reduction: str = "paper",
) -> Tensor:
    """The responses of GID (Dai et al. 2021) at the N_m anchors that the detector's own assigner
    gives to the general instances:

        1 / N_m sum M [ alpha sum_c BCE(sigma(z_s), sigma(z_t)) + beta sum |r_s - r_t| ]

    No anchor gives 0. A cross-entropy: not 0 at equal predictions, but without a gradient there.

    Args:
        student_logits, teacher_logits: (A, K).
        student_deltas, teacher_deltas: (A, 4) box offsets.
        mask: M, (A,), 0 or 1.
        classification_weight, regression_weight: alpha and beta.
        reduction: "paper" and "mean" divide by N_m, "sum" does not.
    """
    name = "gid_response"
    check_average(name, reduction)
    words = "student_logits, teacher_logits"
    logits = pair(name, student_logits, teacher_logits, words)
    words = "student_deltas, teacher_deltas"
    deltas = pair(name, student_deltas, teacher_deltas, words)
    chosen = _floats(as_tensor(mask, f"{name}: mask")).detach()
    check_columns(name, deltas[0], 4, "student_deltas")
    if logits[0].ndim != 2 or not (chosen.shape == logits[0].shape[:1] == deltas[0].shape[:1]):
        raise ShapeError(
            f"{name}: student_logits {logits[0].shape}, student_deltas {deltas[0].shape} and mask "
            f"{chosen.shape} must be (A, K), (A, 4) and (A,)"
        )
    count = float(chosen.sum().item()) if chosen.size else 0.0
    options = {"beta": 0.0, "target_logits": True, "reduction": "sum"}
    classes = apply("quality_focal", [*logits, chosen], **options)
    column = chosen.reshape(-1, 1)
    # Where the mask is 0 both sides are 0.
    offsets = [where(column, one, 0.0) for one in deltas]
    boxes = apply("l1", offsets, reduction="sum")
    share = 1.0 if reduction == "sum" else 1 / max(1.0, count)
    return classes * (classification_weight * share) + boxes * (regression_weight * share)


def _aligned(
    name: str,
    student: Any,
    teacher: Any,
    instances: Sequence[Any],
    spatial_scale: float,
    output_size: int,
) -> list[Tensor]:
    maps = map_pair(name, student, teacher)
    regions = tensor(region_rows(name, instances))
    return [ops.roi_align(one, regions, output_size, spatial_scale) for one in maps]


def _feature(student: Tensor, teacher: Tensor, reduction: str) -> Tensor:
    count, _, height, width = student.shape
    loss = apply("mse", [student, teacher], reduction="mean" if reduction == "mean" else "sum")
    return loss if reduction != "paper" else loss * (1 / max(1, count * height * width))
