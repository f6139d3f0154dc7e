"""Feature-map losses written out in PyTorch from the published formulas, not for speed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F


def mean_squares(student: Tensor, teacher: Tensor) -> Tensor:
    return ((student - teacher) ** 2).sum() / student.numel()


def hint_half(student: Tensor, teacher: Tensor) -> Tensor:
    """FitNets, eq. 3."""
    return 0.5 * ((teacher - student) ** 2).sum()


def weighted(student: Tensor, teacher: Tensor, spatial: Tensor, channels: Tensor) -> Tensor:
    return (spatial * channels[:, :, None, None] * (student - teacher) ** 2).sum()


def pixel_attention(features: Tensor, temperature: float) -> Tensor:
    """FGD's A^S, (N, H W)."""
    logits = features.abs().mean(1).flatten(1) / temperature
    return logits.shape[1] * F.softmax(logits, 1)


def channel_attention(features: Tensor, temperature: float) -> Tensor:
    """FGD's A^C, (N, C)."""
    return features.shape[1] * F.softmax(features.abs().mean((2, 3)) / temperature, 1)


def fgd_masks(
    boxes: Sequence[np.ndarray], sizes: Sequence[Sequence[float]], height: int, width: int
) -> tuple[Tensor, Tensor]:
    """M_fg and M_bg, cell by cell."""
    fg = torch.zeros(len(boxes), height, width)
    bg = torch.zeros(len(boxes), height, width)
    for n, (here, (image_h, image_w)) in enumerate(zip(boxes, sizes)):
        for x1, y1, x2, y2 in np.asarray(here, np.float64).reshape(-1, 4):
            left, right = np.floor(x1 / image_w * width), np.ceil(x2 / image_w * width)
            top, bottom = np.floor(y1 / image_h * height), np.ceil(y2 / image_h * height)
            weight = 1 / ((bottom + 1 - top) * (right + 1 - left))
            for y in range(height):
                for x in range(width):
                    if left <= x <= right and top <= y <= bottom:
                        fg[n, y, x] = max(float(fg[n, y, x]), float(np.float32(weight)))
        free = fg[n] == 0
        if free.any():
            bg[n][free] = 1 / float(free.sum())
    return fg, bg


def context_block(features: Tensor, part: Mapping[str, Tensor]) -> Tensor:
    """R(F) = F + W_2 relu(LN(W_1 sum_j softmax_j(W_k F)_j F_j))."""
    images, channels = features.shape[:2]
    logits = (features * part["mask.weight"].reshape(1, channels, 1, 1)).sum(1)
    attention = F.softmax(logits.reshape(images, -1), 1)
    context = (features.reshape(images, channels, -1) * attention[:, None]).sum(2)
    hidden = context @ part["reduce.weight"].T + part["reduce.bias"]
    hidden = F.layer_norm(hidden, hidden.shape[1:], part["norm.weight"], part["norm.bias"])
    added = F.relu(hidden) @ part["expand.weight"].T + part["expand.bias"]
    return features + added[:, :, None, None]


def fgd(
    student: Tensor,
    teacher: Tensor,
    boxes: Sequence[np.ndarray],
    sizes: Sequence[Sequence[float]],
    context: Mapping[str, Tensor] | None = None,
    temperature: float = 0.5,
    alpha: float = 1e-3,
    beta: float = 5e-4,
    gamma: float = 5e-4,
    relation: float = 5e-6,
) -> Tensor:
    images, _, height, width = student.shape
    fg, bg = fgd_masks(boxes, sizes, height, width)
    pixels_t, channels_t = (
        pixel_attention(teacher, temperature),
        channel_attention(teacher, temperature),
    )
    pixels_s, channels_s = (
        pixel_attention(student, temperature),
        channel_attention(student, temperature),
    )
    error = channels_t[:, :, None, None] * (student - teacher) ** 2
    error = error * pixels_t.reshape(images, 1, height, width)
    l_fg, l_bg = (error * fg[:, None]).sum(), (error * bg[:, None]).sum()
    l_att = (channels_s - channels_t).abs().sum() + (pixels_s - pixels_t).abs().sum()
    if context is not None:
        student, teacher = (
            context_block(
                map_,
                {
                    k.removeprefix(f"{side}."): v
                    for k, v in context.items()
                    if k.startswith(f"{side}.")
                },
            )
            for side, map_ in (("student", student), ("teacher", teacher))
        )
    l_rel = ((student - teacher) ** 2).sum()
    return (alpha * l_fg + beta * l_bg + gamma * l_att + relation * l_rel) / images


def mgd(
    student: Tensor, teacher: Tensor, mask: Tensor, generator: Mapping[str, Tensor], alpha: float
) -> Tensor:
    hidden = F.conv2d(student * mask, generator["0.weight"], generator["0.bias"], padding=1)
    made = F.conv2d(F.relu(hidden), generator["2.weight"], generator["2.bias"], padding=1)
    return alpha * ((made - teacher) ** 2).sum() / student.shape[0]


def cwd(student: Tensor, teacher: Tensor, tau: float, entropy: bool) -> Tensor:
    rows_s, rows_t = (one.flatten(2) / tau for one in (student, teacher))
    phi, logs = F.softmax(rows_t, 2), F.log_softmax(rows_s, 2)
    terms = phi * (F.log_softmax(rows_t, 2) - logs) if entropy else -phi * logs
    return tau**2 * terms.sum() / (student.shape[0] * student.shape[1])


def pearson(student: Tensor, teacher: Tensor) -> Tensor:
    """PKD's eq. with z = (F - mean) / (std + 1e-6), in double precision."""

    def standardised(features: Tensor) -> Tensor:
        rows = features.transpose(0, 1).flatten(1).double()
        centred = rows - rows.mean(1, keepdim=True)
        if rows.shape[1] == 1:
            return centred
        variance = (centred**2).sum(1, keepdim=True) / (rows.shape[1] - 1)
        return centred / (variance.sqrt() + 1e-6)

    return ((standardised(student) - standardised(teacher)) ** 2).mean().to(student.dtype) / 2


def attention_code(student: Tensor, teacher: Tensor, beta: float) -> Tensor:
    s, t = (F.normalize(one.pow(2).mean(1).flatten(1)) for one in (student, teacher))
    return beta * ((s - t) ** 2).mean()


def attention_paper(student: Tensor, teacher: Tensor, beta: float) -> Tensor:
    s, t = (F.normalize(one.pow(2).sum(1).flatten(1)) for one in (student, teacher))
    return beta * (s - t).norm(dim=1).mean()


def unit_squares(student: Tensor, teacher: Tensor) -> Tensor:
    s, t = (F.normalize(one.flatten(1)) for one in (student, teacher))
    return ((s - t) ** 2).sum() / len(s)


def adapted(inputs: Mapping[str, Any]) -> Tensor:
    """The student's map after its 1x1 adapter, if it has one."""
    if "adapter.weight" not in inputs:
        return inputs["student"]
    return F.conv2d(inputs["student"], inputs["adapter.weight"], inputs["adapter.bias"])
