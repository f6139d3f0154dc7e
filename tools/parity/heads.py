"""Losses between the outputs of heads, beside mmdet, torchvision and the formulas in PyTorch."""

from __future__ import annotations

from typing import Any

import mmdetection
import numpy as np
from case import SHAPES, Case, Inputs, maps

# Anchors and classes; edges of anchors and their bins.
ROWS = ((6, 5), (1, 80), (33, 20), (128, 3), (400, 80))
EDGES = ((6, 4, 17), (1, 4, 17), (33, 4, 9), (128, 4, 17), (300, 4, 5))
BOXES = ((6, 4), (1, 4), (33, 4), (128, 4), (400, 4))


def rows(shape: tuple[int, ...], rng: np.random.Generator) -> dict[str, Any]:
    """Logits of both sides and weights of the anchors."""
    student, teacher = (2 * rng.standard_normal((2, *shape))).astype(np.float32)
    weights = rng.uniform(0, 1, shape[0]).astype(np.float32)
    return {"student": student, "teacher": teacher, "weights": weights}


def boxes(shape: tuple[int, ...], rng: np.random.Generator) -> dict[str, Any]:
    """Pairs of boxes that overlap, logits and weights."""
    corner, size = rng.uniform(0, 200, (shape[0], 2)), rng.uniform(10, 90, (shape[0], 2))
    teacher = np.concatenate([corner, corner + size], 1)
    student = teacher + rng.uniform(-4, 4, shape)
    return {
        **{f"{k}_logits": v for k, v in maps((shape[0], 7), rng).items()},
        "student": student.astype(np.float32),
        "teacher": teacher.astype(np.float32),
        "weights": rng.uniform(0, 1, shape[0]).astype(np.float32),
    }


def qualities(shape: tuple[int, ...], rng: np.random.Generator) -> dict[str, Any]:
    """Logits with a label (or background) and a quality for each anchor, as GFL has them."""
    labels = rng.integers(0, shape[1] + 1, shape[0])
    scores = rng.uniform(0.05, 1, shape[0]).astype(np.float32) * (labels < shape[1])
    dense = np.zeros((shape[0], shape[1] + 1), np.float32)
    dense[np.arange(shape[0]), labels] = scores
    student = (2 * rng.standard_normal(shape)).astype(np.float32)
    return {
        "student": student,
        "teacher": dense[:, : shape[1]].copy(),
        "labels": labels,
        "scores": scores.astype(np.float32),
    }


def distances(shape: tuple[int, ...], rng: np.random.Generator) -> dict[str, Any]:
    """Bins of edges, with distances in bins for targets."""
    given = rows((shape[0] * 4, shape[2]), rng)
    goals = rng.uniform(0, shape[2] - 1.1, shape[0] * 4).astype(np.float32)
    return {**given, "teacher": goals}


def towers(shape: tuple[int, ...], rng: np.random.Generator) -> dict[str, Any]:
    """Tower features and the teacher's last convolution."""
    channels = shape[1]
    weight = rng.standard_normal((6, channels, 3, 3)) / (3 * channels**0.5)
    return {**maps(shape, rng), "weight": weight.astype(np.float32)}


def narrow_towers(shape: tuple[int, ...], rng: np.random.Generator) -> dict[str, Any]:
    """A student's tower of half the channels, with a 1x1 adapter."""
    images, channels, height, width = shape
    half = max(1, channels // 2)
    adapter = rng.standard_normal((channels, half, 1, 1)) / half**0.5
    student = rng.standard_normal((images, half, height, width)).astype(np.float32)
    return {**towers(shape, rng), "student": student, "adapter": adapter.astype(np.float32)}


def valuable(shape: tuple[int, ...], rng: np.random.Generator) -> dict[str, Any]:
    """Anchors of two levels, boxes near some of them, bins of all edges."""
    count = shape[0]
    corner, side = rng.uniform(0, 100, (count, 2)), rng.choice([16.0, 32.0], (count, 1))
    anchors = np.concatenate([corner, corner + side], 1).astype(np.float32)
    low = rng.uniform(0, 80, (3, 2))
    goals = np.concatenate([low, low + rng.uniform(20, 50, (3, 2))], 1).astype(np.float32)
    levels = [anchors[: 2 * count // 3], anchors[2 * count // 3 :]]
    return {**rows(shape, rng), "anchors": levels, "boxes": list(goals)}


# References


def torch_quality(p: Any, target: Any, beta: float) -> Any:
    """|sigma(p) - t|^beta BCE(p, t), each element, in double precision."""
    import torch.nn.functional as F

    p, target = p.double(), target.double()
    entropy = F.binary_cross_entropy_with_logits(p, target, reduction="none")
    return (p.sigmoid() - target).abs().pow(beta) * entropy


def torch_kl(student: Any, teacher: Any, temperature: float) -> Any:
    """T^2 KL over the last axis, each row."""
    s = (student.double() / temperature).log_softmax(-1)
    t = (teacher.detach().double() / temperature).log_softmax(-1)
    return temperature**2 * (t.exp() * (t - s)).sum(-1)


def quality_focal(g: Inputs) -> Any:
    if not mmdetection.available():
        return torch_quality(g["student"], g["teacher"], 2).sum() / max(1, (g["teacher"] > 0).sum())
    function = mmdetection.losses("gfocal_loss").quality_focal_loss
    each = function(g["student"].double(), (g["labels"], g["scores"].double()), reduction="none")
    return each.sum() / max(1, (g["scores"] > 0).sum())


def distribution_focal(g: Inputs) -> Any:
    import torch.nn.functional as F

    y, z = g["teacher"].double(), g["student"].double()
    if mmdetection.available():
        each = mmdetection.losses("gfocal_loss").distribution_focal_loss(z, y, reduction="none")
    else:
        low = y.long()
        left = F.cross_entropy(z, low, reduction="none") * (low + 1 - y)
        each = left + F.cross_entropy(z, low + 1, reduction="none") * (y - low)
    return (each * g["weights"]).sum() / g["weights"].sum()


def localization(g: Inputs) -> Any:
    bins = g["student"].shape[-1]
    weights = g["weights"].double().repeat_interleave(4)
    if not mmdetection.available():
        edges = torch_kl(g["student"], g["teacher"], 10).reshape(-1) / bins
        return (weights * edges).sum() / 4
    loss = mmdetection.losses("kd_loss").KnowledgeDistillationKLDivLoss(T=10)
    pair = (g[side].double().reshape(-1, bins) for side in ("student", "teacher"))
    return loss(*pair, weight=weights, avg_factor=4)


def valuable_region(g: Inputs) -> Any:
    """VLR LD: candidates by distance of the centres, the threshold of ATSS, the band of DIoU."""
    import torch
    from torchvision.ops import box_iou

    levels = [torch.from_numpy(one).double() for one in g["anchors"]]
    anchors, weights = torch.cat(levels), torch.zeros(sum(map(len, levels))).double()
    for goal in g["boxes"]:
        goal = torch.from_numpy(goal).double()[None]
        iou = box_iou(anchors, goal)[:, 0]
        gap = anchors[:, :2] + anchors[:, 2:] - goal[:, :2] - goal[:, 2:]
        gap = (gap / 2).square().sum(1)
        hull = torch.maximum(anchors[:, 2:], goal[:, 2:]) - torch.minimum(
            anchors[:, :2], goal[:, :2]
        )
        diou = iou - gap / (hull.square().sum(1) + 1e-6)
        parts = zip(
            iou.split(list(map(len, levels))), gap.split(list(map(len, levels))), strict=True
        )
        near = torch.cat([i[d.topk(min(9, len(d)), largest=False).indices] for i, d in parts])
        threshold = near.mean() + near.std()
        inside = (diou >= 0.25 * threshold) & (diou < threshold)
        weights = torch.where(inside, torch.maximum(weights, iou), weights)
    edges = torch_kl(g["student"], g["teacher"], 10).mean(1) / g["student"].shape[-1]
    return (weights * edges).sum() * 4 / 16


def cross_classification(g: Inputs) -> Any:
    student, soft = g["student"].double(), g["teacher"].double().sigmoid()
    if mmdetection.available():
        function = mmdetection.losses("gfocal_loss").quality_focal_loss_tensor_target
        each = function(student, soft, beta=1.0, reduction="none")
    else:
        each = torch_quality(student, soft, 1).sum(1)
    return (each * g["weights"]).sum() / 3


def cross_bins(g: Inputs) -> Any:
    weights = g["weights"].double()
    return (weights * torch_kl(g["student"], g["teacher"], 1).mean(1)).sum() / weights.sum()


def torch_giou(g: Inputs) -> Any:
    from torchvision.ops import generalized_box_iou_loss

    return generalized_box_iou_loss(g["student"].double(), g["teacher"].double())


def cross_giou(g: Inputs) -> Any:
    return (g["weights"] * torch_giou(g)).sum() / g["weights"].sum()


def cross_iou(g: Inputs) -> Any:
    weights, pair = g["weights"].double(), (g["student"].double(), g["teacher"].double())
    if mmdetection.available():
        each = mmdetection.losses("iou_loss").iou_loss(*pair, mode="log", reduction="none")
    else:
        import torch
        from torchvision.ops import box_iou

        each = -torch.diagonal(box_iou(*pair)).clamp(min=1e-6).log()
    return (weights * each).sum() / weights.sum()


def bckd_location(g: Inputs) -> Any:
    gap = (g["student_logits"].double().sigmoid() - g["teacher_logits"].double().sigmoid()).abs()
    return (g["weights"] * gap.amax(1) * torch_giou(g)).sum() / 5


def binary_labels(g: Inputs) -> Any:
    import torch.nn.functional as F

    soft = (g["teacher"].double() / 4).sigmoid()
    each = F.binary_cross_entropy_with_logits(g["student"].double() / 4, soft, reduction="none")
    return 16 * each.sum() / len(soft)


def torch_align(student: Any, teacher: Any) -> Any:
    axes, keep = (0, 2, 3), True
    spread = student.std(axes, keepdim=keep) + 1e-6
    centred = (student - student.mean(axes, keepdim=keep)) / spread
    return centred * teacher.std(axes, keepdim=keep) + teacher.mean(axes, keepdim=keep)


def cross_head(g: Inputs) -> Any:
    """The whole path: alignment, ReLU, the teacher's convolution, KD-QFL."""
    import torch.nn.functional as F

    student, teacher, weight = (g[k].double() for k in ("student", "teacher", "weight"))
    if "adapter" in g:
        student = F.conv2d(student, g["adapter"].double())
    cross = F.conv2d(torch_align(student, teacher).relu(), weight, padding=1)
    target = F.conv2d(teacher.relu(), weight, padding=1).sigmoid()
    return torch_quality(cross, target, 1).mean()


# Ours


def our_cross_head(g: Inputs) -> Any:
    import kdswift as kd

    student = kd.conv2d(g["student"], g["adapter"]) if "adapter" in g else g["student"]
    aligned = kd.losses.standardize_like(student, g["teacher"])
    cross = kd.conv2d(aligned.relu(), g["weight"], padding=1)
    target = kd.conv2d(g["teacher"].relu(), g["weight"], padding=1)
    return kd.losses.crosskd_classification(cross, target, reduction="mean")


def our_valuable_region(g: Inputs) -> Any:
    import kdswift as kd

    weights = kd.losses.vlr_region(g["anchors"], np.stack(g["boxes"]))
    return kd.losses.localization_distillation(g["student"], g["teacher"], weights, avg_factor=16.0)


def call(name: str, *more: str, **options: Any) -> Any:
    """kd.losses.NAME(student, teacher, more inputs by name, options)."""

    def run(g: Inputs) -> Any:
        import kdswift as kd

        return getattr(kd.losses, name)(
            g["student"], g["teacher"], *(g[word] for word in more), **options
        )

    return run


MMDET = "mmdet 3.3.0 " if mmdetection.available() else "the formula, in PyTorch; as "
FORMULA = "the formula, in PyTorch"
# A map of one place has no deviation; PyTorch's is NaN.
SPREAD = tuple(shape for shape in SHAPES if shape[2] > 1) + ((3, 24, 2, 1), (1, 7, 3, 11))

CASES: list[Case] = [
    Case(
        *("quality_focal", MMDET + "quality_focal_loss", qualities),
        *(call("quality_focal"), quality_focal),
        shapes=ROWS,
    ),
    Case(
        *("distribution_focal", MMDET + "distribution_focal_loss", distances),
        *(call("distribution_focal", "weights"), distribution_focal),
        shapes=EDGES,
    ),
    Case(
        *("binary_soft_labels", FORMULA, rows),
        *(call("binary_soft_labels", temperature=4.0), binary_labels),
        shapes=ROWS,
    ),
    Case(
        *("localization_distillation", MMDET + "KnowledgeDistillationKLDivLoss", rows),
        *(call("localization_distillation", "weights"), localization),
        shapes=EDGES,
    ),
    Case(
        *("localization_distillation, VLR", FORMULA, valuable),
        *(our_valuable_region, valuable_region),
        shapes=((30, 4, 17), (60, 4, 17), (99, 4, 9), (300, 4, 17), (600, 4, 5)),
    ),
    Case(
        *("crosskd_classification", MMDET + "quality_focal_loss_tensor_target", rows),
        *(call("crosskd_classification", "weights", avg_factor=3.0), cross_classification),
        shapes=ROWS,
    ),
    Case(
        *("crosskd_classification, cross head", FORMULA, towers),
        *(our_cross_head, cross_head),
        shapes=SPREAD,
    ),
    Case(
        *("crosskd_classification, cross head, 1x1 adapter", FORMULA, narrow_towers),
        *(our_cross_head, cross_head),
        learned=("student", "adapter"),
        shapes=SPREAD,
    ),
    Case(
        *("crosskd_regression, bins", FORMULA, rows),
        *(call("crosskd_regression", "weights"), cross_bins),
        shapes=EDGES,
    ),
    Case(
        *("crosskd_regression, giou", "torchvision generalized_box_iou_loss", boxes),
        *(call("crosskd_regression", "weights", form="giou"), cross_giou),
        shapes=BOXES,
    ),
    Case(
        *("crosskd_regression, iou", MMDET + "iou_loss", boxes),
        *(call("crosskd_regression", "weights", form="iou"), cross_iou),
        shapes=BOXES,
    ),
    Case(
        *("bckd_classification", MMDET + "quality_focal_loss_tensor_target", rows),
        *(call("bckd_classification", "weights", avg_factor=3.0), cross_classification),
        shapes=ROWS,
    ),
    Case(
        *("bckd_localization", "torchvision generalized_box_iou_loss", boxes),
        call("bckd_localization", *("student_logits", "teacher_logits", "weights"), avg_factor=5.0),
        bckd_location,
        shapes=BOXES,
    ),
]
