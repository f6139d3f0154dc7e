"""What the benchmarked losses get: maps of a feature pyramid for student and teacher, and boxes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

BATCH, CHANNELS = 4, 256
SIZES = (64, 32, 16, 8, 4)
IMAGE = 512

Work = Callable[[], Any]


class Scene:
    """Seeded inputs; both sides make the same.

    students, teachers : a float32 array (4, 256, s, s) per level, s = 64 to 4
    boxes : per image (8, 4) in pixels of an image of 512
    image_sizes : per image (height, width)
    """

    def __init__(self, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        shapes = [(BATCH, CHANNELS, size, size) for size in SIZES]
        self.students = [rng.standard_normal(shape, dtype=np.float32) for shape in shapes]
        self.teachers = [rng.standard_normal(shape, dtype=np.float32) for shape in shapes]
        corner = rng.uniform(0, 400, (BATCH, 8, 2))
        far = np.minimum(corner + rng.uniform(10, 300, corner.shape), IMAGE)
        self.boxes = list(np.concatenate([corner, far], 2).astype(np.float32))
        self.image_sizes = [(IMAGE, IMAGE)] * BATCH

    def ours(self) -> tuple[list[Any], list[Any]]:
        """kd tensors in the layout that convolutions leave; the students' require gradients."""
        from kdswift.tensors import apply, tensor

        def blocked(array: np.ndarray) -> Any:
            return apply("blocked", [tensor(array)]).detach()

        students = [blocked(array) for array in self.students]
        for one in students:
            one.requires_grad = True
        return students, [blocked(array) for array in self.teachers]

    def torch(self) -> tuple[list[Any], list[Any]]:
        """torch tensors; the students' require gradients."""
        import torch

        students = [torch.from_numpy(array).requires_grad_() for array in self.students]
        return students, [torch.from_numpy(array) for array in self.teachers]


@dataclass(frozen=True)
class Pair:
    """A loss on both sides: each makes a callable that computes value and gradient."""

    ours: Callable[[Scene], Work]
    torch: Callable[[Scene], Work]


def over_levels(loss: Callable[..., Any], *sides: Sequence[Any]) -> Work:
    """Sum of loss(*level) over the levels, then backward; gradients start at nothing each time.

    The first of `sides` are the students' maps.
    """

    def work() -> None:
        for student in sides[0]:
            student.grad = None
        total = sum(loss(*level) for level in zip(*sides, strict=True))
        total.backward()

    return work


def on_maps(ours: Callable[[Any], Callable[..., Any]], torch: Callable[..., Any]) -> Pair:
    """A loss of a student's and a teacher's map: ours from `kdswift.losses`, torch's as it is."""

    def make_ours(scene: Scene) -> Work:
        from kdswift import losses

        return over_levels(ours(losses), *scene.ours())

    return Pair(make_ours, lambda scene: over_levels(torch, *scene.torch()))
