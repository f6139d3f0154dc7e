"""Losses of whole feature maps, and their usual form in PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
from losses_scene import CHANNELS, Pair, Scene, Work, on_maps, over_levels


def _functional() -> Any:
    import torch

    return torch.nn.functional


def fitnets(student: Any, teacher: Any) -> Any:
    s, t = (one.flatten(1) for one in (student, teacher))
    s, t = (one / one.norm(2, dim=1, keepdim=True) for one in (s, t))
    return (s - t).pow(2).sum() / len(s)


def attention_transfer(student: Any, teacher: Any) -> Any:
    normalize = _functional().normalize
    s, t = (normalize(one.pow(2).mean(1).flatten(1)) for one in (student, teacher))
    return 1e3 * (s - t).pow(2).mean()


def cwd(student: Any, teacher: Any) -> Any:
    F = _functional()
    s, t = (one.flatten(0, 1).flatten(1) for one in (student, teacher))
    shares = F.softmax(t, 1)
    return (shares * F.log_softmax(t, 1) - shares * F.log_softmax(s, 1)).sum() / len(s)


def pkd(student: Any, teacher: Any) -> Any:
    def standardised(features: Any) -> Any:
        rows = features.transpose(0, 1).flatten(1)
        return (rows - rows.mean(1, keepdim=True)) / (rows.std(1, keepdim=True) + 1e-6)

    return _functional().mse_loss(standardised(student), standardised(teacher)) / 2


# FGD


def fgd_masks(boxes: list[np.ndarray], sizes: list[tuple], height: int, width: int) -> Any:
    """M_fg and M_bg (N, H, W), a slice per box."""
    import torch

    foreground = torch.zeros(len(boxes), height, width)
    background = torch.ones_like(foreground)
    for image, (one, (image_h, image_w)) in enumerate(zip(boxes, sizes)):
        scaled = torch.as_tensor(one) * torch.tensor(
            [width / image_w, height / image_h, width / image_w, height / image_h]
        )
        low, high = scaled[:, :2].floor().int(), scaled[:, 2:].ceil().int()
        shares = 1.0 / (high - low + 1).prod(1)
        for (left, top), (right, bottom), share in zip(low, high, shares):
            cells = foreground[image, top : bottom + 1, left : right + 1]
            cells.copy_(torch.maximum(cells, share))
        background[image][foreground[image] > 0] = 0
        if background[image].sum():
            background[image] /= background[image].sum()
    return foreground, background


def torch_block(channels: int) -> Any:
    """A context block of the authors' sizes, its last layer zero."""
    from torch import nn

    mask = nn.Conv2d(channels, 1, 1)
    add = nn.Sequential(
        nn.Conv2d(channels, channels // 2, 1),
        nn.LayerNorm([channels // 2, 1, 1]),
        nn.ReLU(),
        nn.Conv2d(channels // 2, channels, 1),
    )
    nn.init.zeros_(add[-1].weight)

    def block(features: Any) -> Any:
        images, depth = features.shape[:2]
        attention = mask(features).flatten(2).softmax(2)
        context = features.flatten(2) @ attention.transpose(1, 2)
        return features + add(context.reshape(images, depth, 1, 1))

    return block


def torch_fgd(scene: Scene) -> Work:
    F = _functional()
    students, teachers = scene.torch()
    blocks = [(torch_block(CHANNELS), torch_block(CHANNELS)) for _ in students]

    def attention(features: Any) -> tuple[Any, Any]:
        images, channels, height, width = features.shape
        size = features.abs()
        pixels = F.softmax((size.mean(1) / 0.5).flatten(1), 1) * height * width
        depth = F.softmax(size.mean((2, 3)) / 0.5, 1) * channels
        return pixels.reshape(images, height, width), depth

    def loss(student: Any, teacher: Any, pair: Any) -> Any:
        images, _, height, width = student.shape
        (ps, cs), (pt, ct) = attention(student), attention(teacher)
        masks = fgd_masks(scene.boxes, scene.image_sizes, height, width)
        parts = []
        for mask in masks:
            root = (pt.sqrt()[:, None] * ct.sqrt()[..., None, None]) * mask.sqrt()[:, None]
            parts.append(F.mse_loss(student * root, teacher * root, reduction="sum") / images)
        both = ((cs - ct).abs().sum() + (ps - pt).abs().sum()) / images
        relation = F.mse_loss(pair[0](student), pair[1](teacher), reduction="sum") / images
        return 1e-3 * parts[0] + 5e-4 * parts[1] + 5e-4 * both + 5e-6 * relation

    return over_levels(loss, students, teachers, blocks)


def our_fgd(scene: Scene) -> Work:
    from kdswift.losses.fgd import FGD

    students, teachers = scene.ours()
    return over_levels(
        lambda s, t, one: one(s, t, scene.boxes, scene.image_sizes),
        *(students, teachers, [FGD(CHANNELS) for _ in students]),
    )


# MGD: two convolutions of 3x3 with as many channels; the loss itself is the small part.


def torch_mgd(scene: Scene) -> Work:
    import torch
    from torch import nn

    students, teachers = scene.torch()
    generators = [
        nn.Sequential(
            nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1),
        )
        for _ in students
    ]

    def loss(student: Any, teacher: Any, generator: Any) -> Any:
        images, _, height, width = student.shape
        mask = torch.where(torch.rand(images, 1, height, width) > 1 - 0.65, 0.0, 1.0)
        made = generator(student * mask)
        return 2e-5 * _functional().mse_loss(made, teacher, reduction="sum") / images

    return over_levels(loss, students, teachers, generators)


def our_mgd(scene: Scene) -> Work:
    from kdswift.losses.mgd import MGD

    students, teachers = scene.ours()
    return over_levels(
        lambda s, t, one: one(s, t), students, teachers, [MGD(CHANNELS) for _ in students]
    )


# The weighted squared error, with weights per pixel and per channel.


def _weights(student: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    images, channels, height, width = student.shape
    rng = np.random.default_rng(1)
    return (
        rng.random((images, 1, height, width), dtype=np.float32),
        rng.random((images, channels), dtype=np.float32),
    )


def our_weighted(scene: Scene) -> Work:
    import kdswift as kd

    students, teachers = scene.ours()
    weights = [[kd.tensor(one) for one in _weights(student)] for student in scene.students]
    return over_levels(
        lambda s, t, w: kd.losses.weighted_squared_error(s, t, *w), students, teachers, weights
    )


def torch_weighted(scene: Scene) -> Work:
    import torch

    students, teachers = scene.torch()
    weights = [[torch.from_numpy(one) for one in _weights(student)] for student in scene.students]
    return over_levels(
        lambda s, t, w: (w[0] * w[1][..., None, None] * (s - t) ** 2).sum(),
        *(students, teachers, weights),
    )


LOSSES: dict[str, Pair] = {
    "feature_matching": on_maps(
        lambda losses: losses.feature_matching, lambda s, t: _functional().mse_loss(s, t)
    ),
    "fitnets": on_maps(lambda losses: losses.fitnets, fitnets),
    "attention_transfer": on_maps(lambda losses: losses.attention_transfer, attention_transfer),
    "cwd": on_maps(lambda losses: losses.cwd, cwd),
    "pkd": on_maps(lambda losses: losses.pkd, pkd),
    "weighted_squared_error": Pair(our_weighted, torch_weighted),
    "fgd": Pair(our_fgd, torch_fgd),
    "mgd": Pair(our_mgd, torch_mgd),
}
