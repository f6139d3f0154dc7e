"""The learned convolution that brings a student's map to a teacher's channels."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..functional import conv2d, interpolate, relu
from ..tensors import Tensor, tensor


class Adapter:
    """Conv k x k (padding k // 2, so that sizes stay), ReLU if wanted: (N, C_s, H, W) to
    (N, C_t, H, W).

    deviation : of the first weights; None: 1 / sqrt(fan in), which keeps the scale of the map
    """

    def __init__(
        self,
        student_channels: int,
        teacher_channels: int,
        rng: np.random.Generator,
        kernel: int = 1,
        activation: str | None = None,
        deviation: float | None = None,
    ) -> None:
        shape = (teacher_channels, student_channels, kernel, kernel)
        deviation = deviation or (student_channels * kernel * kernel) ** -0.5
        self.weight = tensor(rng.normal(0, deviation, shape).astype(np.float32), True)
        self.bias = tensor(np.zeros(teacher_channels, np.float32), requires_grad=True)
        self.kernel, self.activation = kernel, activation

    def parameters(self) -> dict[str, Tensor]:
        """The learned tensors by name."""
        return {"weight": self.weight, "bias": self.bias}

    def __call__(self, features: Tensor) -> Tensor:
        result = conv2d(features, self.weight, self.bias, padding=self.kernel // 2)
        return relu(result) if self.activation == "relu" else result

    def __repr__(self) -> str:
        channels = f"{self.weight.shape[1]} to {self.weight.shape[0]}"
        text = f"{self.kernel}x{self.kernel} convolution {channels}"
        return f"{text}, {self.activation}" if self.activation else text


def resized(student: Tensor, size: Any) -> Tensor:
    """A map at (height, width), bilinear; itself if it has that size."""
    if tuple(student.shape[2:]) == tuple(size):
        return student
    return interpolate(student, size=tuple(size), mode="bilinear")
