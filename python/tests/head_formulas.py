"""Formulas of head losses in double precision, for tests."""

from __future__ import annotations

import numpy as np


def sigmoid(x):
    return 1 / (1 + np.exp(-np.asarray(x, np.float64)))


def softmax(x):
    powers = np.exp(np.asarray(x, np.float64) - np.max(x, axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def entropy(x, t):
    """Binary cross-entropy of logits."""
    x = np.asarray(x, np.float64)
    return np.maximum(x, 0) - x * t + np.log1p(np.exp(-np.abs(x)))


def random_boxes(random, count: int) -> np.ndarray:
    corner, size = random.uniform(0, 60, (count, 2)), random.uniform(8, 40, (count, 2))
    return np.concatenate([corner, corner + size], 1).astype(np.float32)


def kl_rows(student, teacher, temperature):
    """T^2 KL summed over the bins, in double precision."""
    t, s = softmax(teacher / temperature), softmax(student / temperature)
    return temperature**2 * (t * (np.log(t) - np.log(s))).sum(-1)


def overlaps(a, b) -> tuple[float, float]:
    """IoU and DIoU of two boxes."""
    a, b = (np.asarray(x, np.float64) for x in (a, b))
    inter = np.prod(np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None))
    union = np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - inter
    gap = ((a[:2] + a[2:] - b[:2] - b[2:]) / 2) ** 2
    hull = (np.maximum(a[2:], b[2:]) - np.minimum(a[:2], b[:2])) ** 2
    return inter / union, inter / union - gap.sum() / (hull.sum() + 1e-6)
