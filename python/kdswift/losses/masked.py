"""Squared errors of feature maps under masks: FGFI, DeFeat and FRS, level by level.

Masks come from boxes or from a teacher's scores; no gradient passes through them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import ops
from .._operators import _floats
from ..errors import ArgumentError, ShapeError
from ..tensors import Tensor, apply, as_tensor, tensor
from ._common import pair
from ._maps import check_average, map_pair, positive
from .features import weighted_squared_error


def fgfi(
    student: Any,
    teacher: Any,
    boxes: Sequence[Any],
    anchors: Any,
    psi: float = 0.5,
    form: str = "paper",
    reduction: str = "paper",
) -> Tensor:
    """Fine-grained feature imitation (Wang et al. 2019), of one map:

        1 / (2 N_p) sum over the places of I sum_c (f(F_S) - F_T)^2

    I are the N_p places where some anchor overlaps some box by more than psi times that box's
    highest IoU with any anchor (`fgfi_mask`); no place gives 0. The adaptation layer (Conv3x3 and
    ReLU) comes before; the paper's weight is 0.01, after the first 400 iterations.

    Args:
        student: f(F_S), (N, C, H, W).
        teacher: F_T, the same shape.
        boxes: an array (n, 4) for each image, x1 y1 x2 y2 in pixels. The form of the DeFeat
            repository gives each level the boxes that `defeat_levels` assigns to it.
        anchors: (H W A, 4) in pixels, places row by row, the A anchors of a place together.
        psi: share of the highest IoU, 0 to 1.
        form: "paper" divides by 2 N_p, "defeat" by 2 C N_p.
        reduction: "paper" as above; "mean" divides by C N_p, "sum" by nothing.
    """
    name = "fgfi"
    if form not in ("paper", "defeat"):
        raise ArgumentError(f"{name}: form is {form!r}, expected 'paper' or 'defeat'")
    check_average(name, reduction)
    maps = map_pair(name, student, teacher)
    images, channels, height, width = maps[0].shape
    _one_for_each(name, "boxes", boxes, images)
    masks = [fgfi_mask(one, anchors, (height, width), psi) for one in boxes]
    mask = np.asarray(masks, np.float32).reshape(images, 1, height, width)
    places = float(mask.sum())
    divisor = {
        "paper": 2 * places * (channels if form == "defeat" else 1),
        "mean": places * channels,
        "sum": 1.0,
    }[reduction]
    return weighted_squared_error(*maps, spatial=mask, factor=1 / divisor if divisor > 0 else 0.0)


def fgfi_mask(boxes: Any, anchors: Any, size: Sequence[int], psi: float = 0.5) -> np.ndarray:
    """The places near objects of FGFI (Wang et al. 2019), of one image and level.

    A place counts when, for some box, an anchor there has an IoU above (not at) psi times the
    highest that any anchor has with the box.

    Args:
        boxes: (n, 4), in pixels.
        anchors: (H W A, 4), places row by row, the anchors of a place together.
        size: (H, W) of the map.
        psi: 0 keeps every anchor that overlaps, 1 nothing.

    Returns:
        (H, W) bool.
    """
    if not 0 <= psi <= 1:
        raise ArgumentError(f"fgfi: psi is {psi}, expected 0 <= psi <= 1")
    goals, priors = _boxes("fgfi", boxes, "boxes"), _boxes("fgfi", anchors, "anchors")
    height, width = (int(extent) for extent in size)
    places = height * width
    if (len(priors) % places if places else len(priors)) or (places and not len(priors)):
        raise ShapeError(
            f"fgfi: anchors {priors.shape} must be (H W A, 4) for a map of {(height, width)}"
        )
    if not len(goals) or not places:
        return np.zeros((height, width), bool)
    overlaps = np.asarray(ops.box_iou(priors, goals))
    near = overlaps > np.float32(psi) * overlaps.max(axis=0)
    return near.reshape(height, width, -1).any(axis=2)


def defeat(
    student: Any,
    teacher: Any,
    boxes: Sequence[Any],
    level: int,
    levels: int,
    stride: float,
    foreground_weight: float = 3.0,
    background_weight: float = 12.0,
    reduction: str = "paper",
) -> Tensor:
    """Decoupled features (DeFeat, Guo et al. 2021), one level's share of the sum over L levels:

        w_obj / L · 1 / (2 max(1/2, C N_obj)) sum M (f(F_S) - F_T)^2
        + w_bg / L · 1 / (2 max(1/2, C N_bg)) sum (1 - M) (f(F_S) - F_T)^2

    M is 1 inside the boxes of this level (`defeat_mask`), N_obj and N_bg count its places in the
    batch. The adaptation layer (Conv3x3, no ReLU) comes before.

    Args:
        student: f(F_S), (N, C, H, W).
        teacher: F_T, the same shape.
        boxes: an array (n, 4) for each image, x1 y1 x2 y2 in pixels: all boxes of the image.
        level: which level this is, 0 the finest.
        levels: L.
        stride: pixels per cell of this level.
        foreground_weight, background_weight: w_obj and w_bg; 3 and 12 in the released VOC
            configuration.
        reduction: "paper" as above; "mean" is w_obj times the mean inside plus w_bg times the mean
            outside, "sum" the same with sums; neither has 1 / L.
    """
    name = "defeat"
    check_average(name, reduction)
    maps = map_pair(name, student, teacher)
    images, channels, height, width = maps[0].shape
    _one_for_each(name, "boxes", boxes, images)
    if not 0 <= level < levels or not stride > 0:
        raise ArgumentError(
            f"{name}: level {level} must be one of {levels} and stride {stride} positive"
        )
    masks = [defeat_mask(one, level, levels, stride, (height, width)) for one in boxes]
    inside = np.asarray(masks, bool).reshape(images, 1, height, width)
    weights = np.zeros(inside.shape, np.float32)
    for mask, weight in ((inside, foreground_weight), (~inside, background_weight)):
        elements = channels * float(mask.sum())
        divisor = {"paper": 2 * levels * max(0.5, elements), "mean": max(1.0, elements), "sum": 1.0}
        weights[mask] = weight / divisor[reduction]
    return weighted_squared_error(*maps, spatial=weights)


def defeat_classification(
    student_logits: Any,
    teacher_logits: Any,
    foreground: Any,
    temperature: float = 1.0,
    foreground_weight: float = 2.0,
    background_weight: float = 2.0,
    reduction: str = "paper",
) -> Tensor:
    """The decoupled classes of two-stage heads (DeFeat, Guo et al. 2021):

        w_fg T^2 mean of KL over the foreground proposals + w_bg T^2 mean over the others

    with KL(softmax(z_T / T) || softmax(z_S / T)). The released VOC configuration leaves it out.

    Args:
        student_logits: z_S, (R, K) with the background's column, for R proposals.
        teacher_logits: z_T, the same shape.
        foreground: (R,), 1 for proposals that match an object, 0 for the others.
        temperature: T.
        foreground_weight, background_weight: w_fg and w_bg.
        reduction: "paper" and "mean" as above, "sum" with sums instead of means.
    """
    name = "defeat_classification"
    check_average(name, reduction)
    logits = pair(name, student_logits, teacher_logits, "student_logits, teacher_logits")
    positive(name, "temperature", temperature)
    chosen = np.asarray(foreground).astype(bool)
    if logits[0].ndim != 2 or chosen.shape != logits[0].shape[:1]:
        raise ShapeError(
            f"{name}: student_logits {logits[0].shape} must be (R, K) and foreground "
            f"{chosen.shape} (R,)"
        )
    weights = np.zeros(chosen.shape, np.float32)
    for mask, weight in ((chosen, foreground_weight), (~chosen, background_weight)):
        weights[mask] = weight / (1 if reduction == "sum" else max(1, int(mask.sum())))
    options = {"temperature": float(temperature), "reduction": "sum"}
    return apply("divergence", [*logits, tensor(weights)], **options)


def defeat_levels(boxes: Any, levels: int) -> np.ndarray:
    """The one level of each box (Guo et al. 2021):
    clamp(floor(log2(sqrt((w + 1) (h + 1)) / 56 + 1e-6)), 0, L - 1); (n,) int64.

    >>> kd.losses.defeat_levels([[0, 0, 55, 55], [0, 0, 111, 111]], 4)
    array([0, 1])
    """
    made = _boxes("defeat_levels", boxes, "boxes").astype(np.float64)
    sides = np.clip(made[:, 2:] - made[:, :2] + 1, 0, None)
    found = np.floor(np.log2(np.sqrt(sides[:, 0] * sides[:, 1]) / 56 + 1e-6))
    return found.clip(0, levels - 1).astype(np.int64)


def defeat_mask(
    boxes: Any, level: int, levels: int, stride: float, size: Sequence[int]
) -> np.ndarray:
    """The places of one level's objects (Guo et al. 2021), of one image: (H, W) bool.

    A box covers the cells from its first corner over `stride`, cut to a whole number, up to (not
    with) its last; where that is nothing, the one cell of its first corner.
    """
    height, width = (int(extent) for extent in size)
    mask = np.zeros((height, width), bool)
    made = _boxes("defeat", boxes, "boxes")
    if not mask.size:
        return mask
    chosen = made[defeat_levels(made, levels) == level] / np.float32(stride)
    ends = np.array([width, height, width, height])
    for x1, y1, x2, y2 in np.trunc(np.clip(np.nan_to_num(chosen), 0, ends)).astype(int):
        if x2 <= x1 or y2 <= y1:
            mask[min(y1, height - 1), min(x1, width - 1)] = True
        else:
            mask[y1:y2, x1:x2] = True
    return mask


def frs(student: Any, teacher: Any, teacher_logits: Any, reduction: str = "paper") -> Tensor:
    """Feature richness (FRS, Du et al. 2021), the features of one level:

        sum S (F_T - f(F_S))^2 / sum S

    summed over channels, places and the batch. S is what the teacher sees at a place
    (`feature_richness`). The adaptation layer (Conv3x3, no ReLU) comes before; the paper's weights
    are 0.002 to 0.1.

    Args:
        student: f(F_S), (N, C, H, W).
        teacher: F_T, the same shape.
        teacher_logits: the teacher's class logits at this level, (N, A K, H, W).
        reduction: "paper" as above; "mean" divides by C sum S, "sum" by nothing.
    """
    check_average("frs", reduction)
    maps = map_pair("frs", student, teacher)
    richness, total = _richness("frs", teacher_logits, maps[0])
    factor = _share(reduction, total, maps[0].shape[1])
    return weighted_squared_error(*maps, spatial=richness, factor=factor)


def frs_classification(
    student_logits: Any, teacher_logits: Any, reduction: str = "paper"
) -> Tensor:
    """Feature richness (FRS, Du et al. 2021), the classes of one level:

        sum S BCE(sigma(z_S), sigma(z_T)) / sum S

    A cross-entropy: where both agree it is the weighted entropy, with no gradient.

    Args:
        student_logits: z_S, (N, A K, H, W).
        teacher_logits: z_T, the same shape.
        reduction: "paper" as above; "mean" divides by A K sum S, "sum" by nothing.
    """
    name = "frs_classification"
    check_average(name, reduction)
    logits = pair(name, student_logits, teacher_logits, "student_logits, teacher_logits")
    if logits[0].ndim != 4:
        raise ShapeError(f"{name}: student_logits {logits[0].shape} must be (N, A K, H, W)")
    richness, total = _richness(name, logits[1], logits[0])
    options = {"beta": 0.0, "target_logits": True, "reduction": "sum"}
    loss = apply("quality_focal", [*logits, richness], **options)
    return loss * _share(reduction, total, logits[0].shape[1])


def feature_richness(teacher_logits: Any) -> Tensor:
    """The feature richness score of FRS (Du et al. 2021), the highest score of a place: (N, A K, H,
    W) class logits give max sigma(z) over their second axis, (N, 1, H, W)."""
    name = "feature_richness"
    logits = _floats(as_tensor(teacher_logits, f"{name}: teacher_logits")).detach()
    if logits.ndim != 4 or not logits.shape[1]:
        raise ShapeError(f"{name}: teacher_logits {logits.shape} must be (N, A K, H, W)")
    return apply("highest_score", [logits])


def _richness(name: str, teacher_logits: Any, like: Tensor) -> tuple[Tensor, float]:
    """S and its sum, which is guarded: sigmoids of very negative logits are 0."""
    logits = _floats(as_tensor(teacher_logits, f"{name}: teacher_logits")).detach()
    if (
        logits.ndim != 4
        or not logits.shape[1]
        or (logits.shape[0], *logits.shape[2:]) != (like.shape[0], *like.shape[2:])
    ):
        raise ShapeError(
            f"{name}: teacher_logits {logits.shape} must be (N, A K, H, W) for student {like.shape}"
        )
    richness = feature_richness(logits)
    return richness, max(float(richness.numpy(copy=False).sum(dtype=np.float64)), 1e-12)


def _share(reduction: str, total: float, channels: int) -> float:
    """The factor of a sum under S."""
    return {"paper": 1 / total, "mean": 1 / (total * max(1, channels)), "sum": 1.0}[reduction]


def _one_for_each(name: str, word: str, values: Sequence[Any], images: int) -> None:
    if len(values) != images:
        raise ShapeError(f"{name}: {len(values)} arrays of {word} for {images} images")


def _boxes(name: str, boxes: Any, word: str) -> np.ndarray:
    made = np.asarray(boxes, np.float32)
    made = made.reshape(0, 4) if not made.size else made
    if made.ndim != 2 or made.shape[1] != 4:
        raise ShapeError(f"{name}: {word} {made.shape} must be (n, 4)")
    return made
