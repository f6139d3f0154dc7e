"""Losses over regions, masks and instances, and their usual form in PyTorch."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from losses_scene import IMAGE, Pair, Scene, Work, over_levels

CLASSES, ANCHORS = 80, 3


class Level:
    """What the losses of one level need beside its maps; the same for both sides."""

    def __init__(self, size: int, index: int, images: int) -> None:
        rng = np.random.default_rng([7, size])
        self.index, self.stride = index, IMAGE / size
        self.logits = rng.standard_normal((images, CLASSES, size, size), dtype=np.float32)
        self.scores = rng.choice([0.16, 0.6, 0.8, 2.25, 3, 4], (2, images, size, size))
        self.scores = self.scores.astype(np.float32)
        y, x = np.mgrid[:size, :size] + 0.5
        sides = 4 * self.stride * 2 ** (np.arange(ANCHORS) / ANCHORS) / 2
        centre = np.stack([x, y], -1)[:, :, None] * self.stride
        corners = [centre - sides[:, None], centre + sides[:, None]]
        self.anchors = np.concatenate(corners, -1).reshape(-1, 4).astype(np.float32)


def levels(scene: Scene) -> list[Level]:
    return [Level(m.shape[2], i, len(m)) for i, m in enumerate(scene.students)]


def pair(
    ours: Callable[[Any, Any, Any, Scene, Level], Any],
    torch: Callable[[Any, Any, Scene, Level], Any],
) -> Pair:
    """A loss of every level: ours(kdswift.losses, student, teacher, scene, level)."""

    def make_ours(scene: Scene) -> Work:
        import kdswift as kd

        about = levels(scene)
        for one in about:
            one.logits = kd.tensor(one.logits)
        return over_levels(
            lambda s, t, level: ours(kd.losses, s, t, scene, level), *scene.ours(), about
        )

    def make_torch(scene: Scene) -> Work:
        from torch import from_numpy

        about = levels(scene)
        for one in about:
            one.logits, one.scores = from_numpy(one.logits), from_numpy(one.scores)
            one.anchors = from_numpy(one.anchors)
        here = copy.copy(scene)  # the next loss has the same scene
        here.boxes = [from_numpy(one) for one in scene.boxes]
        return over_levels(lambda s, t, level: torch(s, t, here, level), *scene.torch(), about)

    return Pair(make_ours, make_torch)


def crops(student: Any, teacher: Any, scene: Scene, level: Level) -> Any:
    """Equation 5 of Mimic, crop by crop."""
    size, total, count = student.shape[-1], 0, 0
    for image, boxes in enumerate(scene.boxes):
        for x1, y1, x2, y2 in (boxes / level.stride).tolist():
            left, top = min(int(x1), size - 1), min(int(y1), size - 1)
            right = max(left + 1, min(math.ceil(x2), size))
            bottom = max(top + 1, min(math.ceil(y2), size))
            cells = (image, slice(None), slice(top, bottom), slice(left, right))
            total, count = total + (student[cells] - teacher[cells]).square().mean(), count + 1
    return total / (2 * count)


def quantized(student: Any, teacher: Any, scene: Scene, level: Level) -> Any:
    from torchvision.ops import roi_pool

    def rounded(x: Any) -> Any:
        cells = (x.detach() - 0.5).ceil().clamp(min=0)
        return cells + x.relu() - x.relu().detach()

    pooled = [
        roi_pool(rounded(one), scene.boxes, 7, 1 / level.stride) for one in (student, teacher)
    ]
    return (pooled[0] - pooled[1]).square().sum() / (2 * len(pooled[0]))


def fgfi(student: Any, teacher: Any, scene: Scene, level: Level) -> Any:
    import torch
    from torchvision.ops import box_iou

    images, _, height, width = student.shape
    masks = []
    for boxes in scene.boxes:
        iou = box_iou(level.anchors, boxes)
        near = (iou > 0.5 * iou.max(0).values).any(1)
        masks.append(near.reshape(height, width, -1).any(-1))
    mask = torch.stack(masks)[:, None].float()
    return ((student - teacher).square() * mask).sum() / (2 * mask.sum()).clamp(min=1)


def defeat(student: Any, teacher: Any, scene: Scene, level: Level) -> Any:
    import torch

    images, channels, height, width = student.shape
    mask = torch.zeros(images, 1, height, width)
    for image, boxes in enumerate(scene.boxes):
        sides = (boxes[:, 2:] - boxes[:, :2] + 1).prod(1).sqrt()
        target = (sides / 56 + 1e-6).log2().floor().clamp(0, 4).long()
        for x1, y1, x2, y2 in (boxes[target == level.index] / level.stride).int().tolist():
            if x1 == x2 or y1 == y2:
                mask[image, 0, min(y1, height - 1), min(x1, width - 1)] = 1
            else:
                mask[image, 0, y1:y2, x1:x2] = 1
    total = 0
    for area, weight in ((mask, 3.0), (1 - mask, 12.0)):
        whole = area.repeat(1, channels, 1, 1)
        error = ((student - teacher).pow(2) * whole).sum()
        total = total + weight * error / (2 * whole.sum()).clamp(min=1) / 5
    return total


def frs(student: Any, teacher: Any, scene: Scene, level: Level) -> Any:
    richness = level.logits.sigmoid().amax(1, keepdim=True)
    return ((teacher - student).square() * richness).sum() / richness.sum()


def gid(student: Any, teacher: Any, scene: Scene, level: Level) -> Any:
    import torch
    from torchvision.ops import roi_align

    boxes = scene.boxes
    pooled = [roi_align(one, boxes, 10, 1 / level.stride) for one in (student, teacher)]
    feature = (pooled[0] - pooled[1]).square().sum(1).mean()
    count, relative = len(pooled[0]), []
    for one in pooled:
        distances = torch.cdist(one.flatten(1), one.flatten(1))
        relative.append(distances / (distances.sum() / (count * (count - 1))))
    smooth = torch.nn.functional.smooth_l1_loss(*relative, reduction="sum")
    return 0.005 * feature + 40 * smooth / (count * (count - 1))


def task_integration(student: Any, teacher: Any, scene: Scene, level: Level) -> Any:
    key, weak = level.scores[0] >= 2.25, level.scores[0] - level.scores[1] > 0
    error, total = (teacher - student).square().sum(1), 0
    for mask, weight in ((key & weak, 1.0), (key ^ weak, 0.5), (~(key | weak), 0.1)):
        total = total + weight * (error * mask).sum() / mask.sum().clamp(min=1)
    return total


LOSSES: dict[str, Pair] = {
    "roi_mimic": pair(lambda k, s, t, a, b: k.roi_mimic(s, t, a.boxes, 1 / b.stride), crops),
    "quantized_mimic": pair(
        lambda k, s, t, a, b: k.quantized_mimic(s, t, a.boxes, 1 / b.stride), quantized
    ),
    "fgfi": pair(lambda k, s, t, a, b: k.fgfi(s, t, a.boxes, b.anchors), fgfi),
    "defeat": pair(lambda k, s, t, a, b: k.defeat(s, t, a.boxes, b.index, 5, b.stride), defeat),
    "frs": pair(lambda k, s, t, a, b: k.frs(s, t, b.logits), frs),
    "gid": pair(lambda k, s, t, a, b: k.gid(s, t, a.boxes, 1 / b.stride), gid),
    "task_integration": pair(
        lambda k, s, t, a, b: k.task_integration(s, t, b.scores[0], b.scores[1]), task_integration
    ),
}
