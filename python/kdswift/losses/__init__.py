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

from .boxes import teacher_bounded_regression
from .detection import binary_cross_entropy, cross_entropy, giou, sigmoid_focal, smooth_l1
from .features import (
    attention_transfer,
    cwd,
    feature_matching,
    fitnets,
    pkd,
    weighted_squared_error,
)
from .fgd import fgd
from .heads import (
    bckd_classification,
    bckd_localization,
    binary_soft_labels,
    crosskd_classification,
    crosskd_regression,
    standardize_like,
)
from .hints import hint
from .instances import gid, gid_feature, gid_instances, gid_relation, gid_response
from .localization import localization_distillation, vlr_region
from .masked import (
    defeat,
    defeat_classification,
    defeat_levels,
    defeat_mask,
    feature_richness,
    fgfi,
    fgfi_mask,
    frs,
    frs_classification,
)
from .mgd import mgd
from .mimic import quantized_mimic, roi_mimic
from .quality import distribution_focal, quality_focal
from .soft_labels import kl_divergence, soft_cross_entropy, weighted_soft_cross_entropy
from .task_integration import task_areas, task_integration, task_scores

__all__ = [
    "attention_transfer",
    "bckd_classification",
    "bckd_localization",
    "binary_cross_entropy",
    "binary_soft_labels",
    "cross_entropy",
    "crosskd_classification",
    "crosskd_regression",
    "cwd",
    "defeat",
    "defeat_classification",
    "defeat_levels",
    "defeat_mask",
    "distribution_focal",
    "feature_matching",
    "feature_richness",
    "fgd",
    "fgfi",
    "fgfi_mask",
    "fitnets",
    "frs",
    "frs_classification",
    "gid",
    "gid_feature",
    "gid_instances",
    "gid_relation",
    "gid_response",
    "giou",
    "hint",
    "kl_divergence",
    "localization_distillation",
    "mgd",
    "pkd",
    "quality_focal",
    "quantized_mimic",
    "roi_mimic",
    "sigmoid_focal",
    "smooth_l1",
    "soft_cross_entropy",
    "standardize_like",
    "task_areas",
    "task_integration",
    "task_scores",
    "teacher_bounded_regression",
    "vlr_region",
    "weighted_soft_cross_entropy",
    "weighted_squared_error",
]
