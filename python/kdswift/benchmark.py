"""How long a detector takes for an image."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import runtime
from ._inputs import image_size_pair
from ._numbers import check_count


@dataclass
class Benchmark:
    """Times of `predict`, in milliseconds per image.

    ms : the median;  fastest, slowest : the extremes over the repeats
    image_size : (height, width);  batch_size, repeats, threads : how it was measured
    parameters : numbers learned;  flops : of one forward pass, two per multiply-add
    """

    ms: float
    fastest: float
    slowest: float
    image_size: tuple[int, int]
    batch_size: int
    repeats: int
    threads: int
    parameters: int
    flops: float

    @property
    def images_per_second(self) -> float:
        """The inverse of `ms`."""
        return 1000 / self.ms

    def __str__(self) -> str:
        height, width = self.image_size
        return (
            f"{self.ms:.2f} ms per image of {height}x{width} ({self.fastest:.2f} to "
            f"{self.slowest:.2f}, {self.repeats} repeats, batch {self.batch_size}, "
            f"{self.threads} threads); {self.parameters:,} parameters, "
            f"{self.flops / 1e9:.3g} GFLOPs, {self.flops / self.ms / 1e6:.1f} GFLOP/s"
        )


def benchmark(
    model: Any, image_size: Any = None, repeats: int = 10, batch_size: int = 1
) -> Benchmark:
    """Time ``model.predict`` on random pixels, after two runs that are not counted.

    image_size : (height, width); None: a square of the model's short side
    """
    size = image_size_pair(model.image_size[0] if image_size is None else image_size, "benchmark")
    repeats = check_count(repeats, "repeats", "benchmark")
    batch_size = check_count(batch_size, "batch_size", "benchmark")
    pixels = np.random.default_rng(0).integers(0, 256, (batch_size, *size, 3), dtype=np.uint8)
    times = []
    for run in range(repeats + 2):
        start = time.perf_counter()
        model.predict(list(pixels), batch_size=batch_size)
        if run >= 2:
            times.append(1000 * (time.perf_counter() - start) / batch_size)
    return Benchmark(
        ms=float(np.median(times)),
        fastest=min(times),
        slowest=max(times),
        image_size=size,
        batch_size=batch_size,
        repeats=repeats,
        threads=runtime.get_num_threads(),
        parameters=model.num_parameters,
        flops=model.flops(size),
    )
