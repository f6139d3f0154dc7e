"""Losses over regions, masks and instances, beside the formulas in PyTorch.

The references read each crop, box and mask by itself, in double precision; pooling and suppression
are torchvision's. mmrazor's `L2Loss` serves where it says the same.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import third_party
from case import Case, Inputs, maps

STRIDE = 8
FORMULA = "the formula, in PyTorch"


def scene(shape: tuple[int, ...], rng: np.random.Generator) -> dict[str, Any]:
    """Two maps, boxes by image (none in the last of several), anchors and scores."""
    images, _, height, width = shape
    limit = np.array([width, height]) * STRIDE

    def some(count: int) -> np.ndarray:
        corner = rng.uniform(0, 0.8, (count, 2)) * limit
        size = rng.uniform(0.1, 0.7, (count, 2)) * limit + 2
        return np.concatenate([corner, corner + size], 1).astype(np.float32)

    boxes = [some(3 + index) for index in range(images)]
    if images > 1:
        boxes[-1] = np.zeros((0, 4), np.float32)
    places = np.stack(np.meshgrid(np.arange(width), np.arange(height)), -1).reshape(-1, 1, 2)
    half = np.array([[4.0, 4.0], [10.0, 7.0]])
    centres = (places + 0.5) * STRIDE
    anchors = np.concatenate([centres - half, centres + half], 2).reshape(-1, 4)
    values = [0.16, 0.6, 0.8, 2.25, 3.0, 4.0]
    return {
        **maps(shape, rng),
        "boxes": boxes,
        "anchors": anchors.astype(np.float32).tolist(),
        "logits": rng.standard_normal((images, 6, height, width)).astype(np.float32),
        "scores": list(rng.choice(values, (2, images, height, width)).astype(np.float32)),
    }


def adapted(kernel: int) -> Any:
    """`scene` with a student of half the channels and a learned convolution."""

    def build(shape: tuple[int, ...], rng: np.random.Generator) -> dict[str, Any]:
        images, channels, height, width = shape
        half = max(1, channels // 2)
        weight = rng.standard_normal((channels, half, kernel, kernel)) / (kernel * half**0.5)
        student = rng.standard_normal((images, half, height, width)).astype(np.float32)
        return {**scene(shape, rng), "student": student, "adapter": weight.astype(np.float32)}

    return build


def positive_scene(shape: tuple[int, ...], rng: np.random.Generator) -> dict[str, Any]:
    """Features after a ReLU, some cells wide."""
    given = scene(shape, rng)
    return {**given, **{side: 2 * abs(given[side]) + 0.2 for side in ("student", "teacher")}}


def logit_scene(shape: tuple[int, ...], rng: np.random.Generator) -> dict[str, Any]:
    return {key: 2 * value for key, value in maps(shape, rng).items()}


def anchor_rows(shape: tuple[int, ...], rng: np.random.Generator) -> dict[str, Any]:
    """Logits and box offsets of anchors, some of which count."""
    pair = maps((shape[0], 4), rng)
    mask = (rng.uniform(0, 1, shape[0]) > 0.4).astype(np.float32)
    mask[0] = 1
    offsets = {f"{side}_deltas": value for side, value in pair.items()}
    return {**maps(shape, rng), **offsets, "mask": mask}


# References


def student_map(g: Inputs) -> Any:
    import torch.nn.functional as F

    if "adapter" not in g:
        return g["student"].double()
    weight = g["adapter"].double()
    return F.conv2d(g["student"].double(), weight, padding=weight.shape[-1] // 2)


def region_slices(g: Inputs) -> Any:
    """The crop of every box: image, rows, columns."""
    height, width = g["teacher"].shape[2:]
    for image, boxes in enumerate(g["boxes"]):
        for x1, y1, x2, y2 in boxes.astype(np.float64) / STRIDE:
            left, top = min(math.floor(x1), width - 1), min(math.floor(y1), height - 1)
            right = max(left + 1, min(math.ceil(x2), width))
            bottom = max(top + 1, min(math.ceil(y2), height))
            yield image, slice(top, bottom), slice(left, right)


def crop_error(student: Any, teacher: Any, g: Inputs, normalize: bool) -> Any:
    """1 / 2N sum of the squared errors of crops, each over its size if asked for."""
    crops = list(region_slices(g))
    total = student.sum() * 0
    for image, y, x in crops:
        s, t = student[image][:, y, x], teacher[image][:, y, x]
        if normalize and third_party.available("mmrazor"):
            l2 = third_party.mmrazor("losses/l2_loss.py", "L2Loss")(
                normalize=False, div_element=True
            )
            total = total + l2(s[None], t[None]) / 2 / len(crops)
        else:
            size = s.numel() if normalize else 1
            total = total + (s - t).square().sum() / size / 2 / len(crops)
    return total


def mimic(g: Inputs) -> Any:
    return crop_error(student_map(g), g["teacher"].double(), g, True)


def pyramid(g: Inputs) -> Any:
    """Equation 3: torch's adaptive max pooling of every crop, on grids of 1, 2 and 4."""
    import torch.nn.functional as F

    student, teacher = student_map(g), g["teacher"].double()
    crops = list(region_slices(g))
    total = 0
    for image, y, x in crops:
        for level in (1, 2, 4):
            pooled = [
                F.adaptive_max_pool2d(one[image][:, y, x], level) for one in (student, teacher)
            ]
            total = total + (pooled[0] - pooled[1]).square().sum() / 2 / len(crops)
    return total


def rounded(x: Any, step: float) -> Any:
    """Q with a straight-through gradient behind a ReLU."""
    import torch

    cells = torch.ceil(x.detach() / step - 0.5).clamp(min=0) * step
    return cells + x.relu() - x.relu().detach()


def quantized(g: Inputs) -> Any:
    return crop_error(rounded(student_map(g), 0.5), rounded(g["teacher"].double(), 0.5), g, False)


def quantized_pooled(g: Inputs) -> Any:
    import torch
    from torchvision.ops import roi_pool

    boxes = [torch.from_numpy(one) for one in g["boxes"]]
    pooled = [
        roi_pool(rounded(one, 1.0).float(), boxes, 3, 1 / STRIDE)
        for one in (student_map(g), g["teacher"].double())
    ]
    return (pooled[0] - pooled[1]).double().square().sum() / 2 / len(pooled[0])


def squared(g: Inputs) -> Any:
    """sum_c (f(S) - T)^2, (N, H, W)."""
    return (student_map(g) - g["teacher"].double()).square().sum(1)


def imitation(g: Inputs) -> Any:
    import torch
    from torchvision.ops import box_iou

    anchors = torch.tensor(g["anchors"])
    images, _, height, width = g["teacher"].shape
    mask = torch.zeros(images, height * width, dtype=torch.bool)
    for image, boxes in enumerate(g["boxes"]):
        for box in boxes:
            iou = box_iou(anchors, torch.from_numpy(box)[None])[:, 0]
            mask[image] |= (iou > 0.5 * iou.max()).reshape(height * width, -1).any(1)
    kept = squared(g)[mask.reshape(images, height, width)]
    return kept.sum() / max(1, 2 * len(kept))


def decoupled(g: Inputs) -> Any:
    """Level 0 of 2."""
    import torch

    images, channels, height, width = g["teacher"].shape
    inside = torch.zeros(images, height, width, dtype=torch.bool)
    for image, boxes in enumerate(g["boxes"]):
        for x1, y1, x2, y2 in boxes.astype(np.float64):
            scale = math.log2(math.sqrt((x2 - x1 + 1) * (y2 - y1 + 1)) / 56 + 1e-6)
            if min(max(math.floor(scale), 0), 1) == 0:
                left, top = min(int(x1 / STRIDE), width), min(int(y1 / STRIDE), height)
                right, bottom = min(int(x2 / STRIDE), width), min(int(y2 / STRIDE), height)
                if left == right or top == bottom:
                    inside[image, min(top, height - 1), min(left, width - 1)] = True
                else:
                    inside[image, top:bottom, left:right] = True
    total = 0
    for mask, weight in ((inside, 3.0), (~inside, 12.0)):
        count = max(0.5, channels * float(mask.sum()))
        total = total + weight / 2 * (squared(g) * mask).sum() / (2 * count)
    return total


def richness(g: Inputs) -> Any:
    scores = g["logits"].double().sigmoid().amax(1)
    return (scores * squared(g)).sum() / scores.sum()


def rich_classes(g: Inputs) -> Any:
    import torch.nn.functional as F

    soft = g["teacher"].double().sigmoid()
    each = F.binary_cross_entropy_with_logits(g["student"].double(), soft, reduction="none")
    scores = soft.amax(1, keepdim=True)
    return (scores * each).sum() / scores.sum()


def relation_of(student: Any, teacher: Any) -> Any:
    import torch
    import torch.nn.functional as F

    count = len(student)
    if count < 3:
        return student.sum() * 0
    off = ~torch.eye(count, dtype=torch.bool)
    relative = []
    for one in (student, teacher):
        gaps = one.reshape(count, 1, -1) - one.reshape(1, count, -1)
        distances = gaps[off].square().sum(1).sqrt()
        relative.append(distances / distances.mean())
    return F.smooth_l1_loss(*relative)


def relation(g: Inputs) -> Any:
    return relation_of(g["student"].double(), g["teacher"].double())


def instances(g: Inputs) -> Any:
    """Features and relations of the pooled boxes, with the weights of `gid`."""
    import torch
    from torchvision.ops import roi_align

    boxes = [torch.from_numpy(one).double() for one in g["boxes"]]
    pair = student_map(g), g["teacher"].double()
    pooled = [roi_align(one, boxes, 10, 1 / STRIDE) for one in pair]
    feature = (pooled[0] - pooled[1]).square().sum(1).mean()
    return 0.005 * feature + 40 * relation_of(*pooled)


def response(g: Inputs) -> Any:
    import torch.nn.functional as F

    soft, chosen = g["teacher"].double().sigmoid(), g["mask"] > 0
    classes = F.binary_cross_entropy_with_logits(g["student"].double(), soft, reduction="none")
    boxes = (g["student_deltas"] - g["teacher_deltas"]).double().abs()
    return 0.1 * (classes[chosen].sum() + boxes[chosen].sum()) / chosen.sum()


def integration(g: Inputs) -> Any:
    import torch

    teacher, student = (torch.from_numpy(one) for one in g["scores"])
    key, weak = teacher >= 2.25, teacher - student > 0
    total, error = 0, squared(g)
    for mask, weight in ((key & weak, 1.0), (key ^ weak, 0.5), (~(key | weak), 0.1)):
        if mask.any():
            total = total + weight * error[mask].sum() / mask.sum()
    return total


# Ours


def call(name: str, *words: str, **options: Any) -> Any:
    """kd.losses.NAME(adapted student, teacher, inputs by name, options)."""

    def run(g: Inputs) -> Any:
        import kdswift as kd

        student = g["student"]
        if "adapter" in g:
            student = kd.conv2d(student, g["adapter"], padding=g["adapter"].shape[-1] // 2)
        return getattr(kd.losses, name)(
            student, g["teacher"], *(g[word] for word in words), **options
        )

    return run


def our_integration(g: Inputs) -> Any:
    import kdswift as kd

    student = g["student"]
    if "adapter" in g:
        student = kd.conv2d(student, g["adapter"], padding=g["adapter"].shape[-1] // 2)
    return kd.losses.task_integration(student, g["teacher"], *g["scores"])


def our_response(g: Inputs) -> Any:
    import kdswift as kd

    pairs = (g[word] for word in ("student", "teacher", "student_deltas", "teacher_deltas"))
    return kd.losses.gid_response(*pairs, g["mask"])


def with_adapter(name: str, kernel: int, ours: Any, reference: Any, source: str = FORMULA) -> Case:
    return Case(
        *(f"{name}, {kernel}x{kernel} adapter", source, adapted(kernel), ours, reference),
        learned=("student", "adapter"),
    )


SCALE = {"spatial_scale": 1 / STRIDE}
LEVEL = {"level": 0, "levels": 2, "stride": STRIDE}
L2 = "mmrazor 1.0.0 L2Loss of each crop" if third_party.available("mmrazor") else FORMULA
TOGETHER = {"output_size": None, "step": 0.5, **SCALE}
ROWS = ((6, 5), (1, 80), (33, 20), (128, 3), (400, 80))
INSTANCES = ((5, 16, 3, 3), (3, 7, 1, 1), (10, 64, 10, 10), (2, 8, 2, 2), (12, 33, 4, 3))
OURS = {
    "roi_mimic": call("roi_mimic", "boxes", **SCALE),
    "spp": call("roi_mimic", "boxes", form="spp", levels=(1, 2, 4), **SCALE),
    "quantized": call("quantized_mimic", "boxes", **TOGETHER),
    "pooled": call("quantized_mimic", "boxes", output_size=3, **SCALE),
    "fgfi": call("fgfi", "boxes", "anchors"),
    "defeat": call("defeat", "boxes", **LEVEL),
    "frs": call("frs", "logits"),
    "gid": call("gid", "boxes", **SCALE),
}

CASES: list[Case] = [
    Case("roi_mimic", L2, scene, OURS["roi_mimic"], mimic),
    with_adapter("roi_mimic", 3, OURS["roi_mimic"], mimic, L2),
    Case("roi_mimic, spp", "torch adaptive_max_pool2d", scene, OURS["spp"], pyramid),
    Case("quantized_mimic, crops", FORMULA, positive_scene, OURS["quantized"], quantized),
    Case(
        "quantized_mimic, RoI 3x3", "torchvision roi_pool", scene, OURS["pooled"], quantized_pooled
    ),
    Case("fgfi", FORMULA, scene, OURS["fgfi"], imitation),
    with_adapter("fgfi", 3, OURS["fgfi"], imitation),
    Case("defeat", FORMULA, scene, OURS["defeat"], decoupled),
    with_adapter("defeat", 3, OURS["defeat"], decoupled),
    Case("frs", FORMULA, scene, OURS["frs"], richness),
    with_adapter("frs", 3, OURS["frs"], richness),
    Case("frs_classification", FORMULA, logit_scene, call("frs_classification"), rich_classes),
    Case("gid", "torchvision roi_align, the formula", scene, OURS["gid"], instances),
    with_adapter("gid", 3, OURS["gid"], instances, "torchvision roi_align, the formula"),
    Case("gid_relation", FORMULA, maps, call("gid_relation"), relation, shapes=INSTANCES),
    Case(
        *("gid_response", FORMULA, anchor_rows, our_response, response),
        learned=("student", "student_deltas"),
        shapes=ROWS,
    ),
    Case("task_integration", FORMULA, scene, our_integration, integration),
    with_adapter("task_integration", 1, our_integration, integration),
]
