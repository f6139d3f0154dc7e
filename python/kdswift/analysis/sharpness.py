"""How fast the loss rises around a model, as two numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._numbers import check_count
from ..errors import ArgumentError
from .directions import Moved
from .landscape import Landscape, counting, positive, whole
from .measured_loss import MeasuredLoss

_ANGLES = 64
_STEP = 0.2  # of the radius: the step of the second difference around a model


@dataclass(frozen=True)
class Sharpness:
    """What `sharpness` measured.

    rise : mean of L at the distance `radius`, minus L at the centre
    curvature : mean of the second derivative at the centre
    radius : in lengths of the model's filters
    loss : L at the centre
    rise_error, curvature_error : standard errors of the means over directions; None for a
        landscape, and with one direction
    """

    rise: float
    curvature: float
    radius: float
    loss: float
    rise_error: float | None = None
    curvature_error: float | None = None

    @property
    def relative_rise(self) -> float:
        """The rise in units of the loss at the centre, for models whose losses differ."""
        return self.rise / self.loss if self.loss else math.nan


def sharpness(
    source: Any,
    data: Any = None,
    radius: float = 0.5,
    directions: int = 8,
    seed: int = 0,
    batch_size: int = 8,
    images: int = 64,
    progress: bool = True,
) -> Sharpness:
    """How sharp the minimum is in which a model lies.

    With unit directions d_k (filter-normalised, so of the length of the model's filters) and r the
    radius:

        rise      = mean over directions of  (L(w + r d) + L(w - r d)) / 2 - L(w)
        curvature = mean over directions of  (L(w + h d) - 2 L(w) + L(w - h d)) / h^2

    source : a detector, then `data` is needed and h = r / 5; or a `Landscape`
    directions, seed, batch_size, images, progress : for a detector, as in `loss_landscape`; it
        takes 4 * directions + 1 passes over the images

    In a landscape with one direction L(w +- r d) is read between the points by the parabola
    through the nearest three; with two directions the mean goes over the circle of radius r (64
    points, parabolas along both axes), and the curvature is the mean of both axes. There h is the
    distance of the points. A quadratic loss is measured exactly.

    For L = c/2 a^2 along a direction, curvature = c and rise = c r^2 / 2.
    """
    radius = positive(radius, "radius", "sharpness")
    if isinstance(source, Landscape):
        return _of_landscape(source, radius)
    if data is None:
        raise ArgumentError("sharpness: a detector needs data, as loss_landscape does")
    check_count(directions, "directions", "sharpness")
    seed = whole(seed, "sharpness")
    measured = MeasuredLoss(data, images, batch_size, seed, "sharpness")
    step = _STEP * radius
    rises, curvatures, centre = [], [], math.nan
    with counting(4 * directions, "sharpness", progress) as tick:
        for k in range(directions):
            # One direction at a time: each is as large as the model.
            moved = Moved(source, [directions * seed + k])
            if k == 0:
                centre = measured.centre(moved)
            losses = []
            for position in (radius, -radius, step, -step):
                losses.append(measured.at(moved, [position]))
                tick()
            rises.append((losses[0] + losses[1]) / 2 - centre)
            curvatures.append((losses[2] - 2 * centre + losses[3]) / step**2)
    return Sharpness(
        *(_mean(rises), _mean(curvatures), radius, centre, _error(rises), _error(curvatures))
    )


def _of_landscape(landscape: Landscape, radius: float) -> Sharpness:
    positions, losses = landscape.positions, landscape.losses
    if radius > positions[-1] * (1 + 1e-9):
        raise ArgumentError(
            f"sharpness: radius is {radius:g}, the landscape ends at {positions[-1]:g}"
        )
    step, middle = positions[1] - positions[0], len(positions) // 2
    if losses.ndim == 1:
        around = [_read(positions, losses, p) for p in (radius, -radius)]
        lines = [losses]
    else:
        angles = 2 * np.pi * np.arange(_ANGLES) / _ANGLES
        around = [
            _read(positions, _read(positions, losses, radius * np.cos(t)), radius * np.sin(t))
            for t in angles
        ]
        lines = [losses[:, middle], losses[middle]]
    curvatures = [(x[middle - 1] - 2 * x[middle] + x[middle + 1]) / step**2 for x in lines]
    centre = landscape.centre
    return Sharpness(_mean(around) - centre, _mean(curvatures), radius, centre)


def _read(positions: np.ndarray, losses: np.ndarray, place: float) -> Any:
    """Along the first axis, the parabola through the three points nearest to `place`."""
    step = positions[1] - positions[0]
    nearest = round((place - positions[0]) / step)
    nearest = int(min(max(nearest, 1), len(positions) - 2))
    t = (place - positions[nearest]) / step
    weights = (t * (t - 1) / 2, 1 - t * t, t * (t + 1) / 2)
    # A weight of 0 must not meet an infinite loss.
    return sum(w * losses[nearest + k - 1] for k, w in enumerate(weights) if w)


def _mean(values: Any) -> float:
    return float(np.mean(values))


def _error(values: Any) -> float | None:
    return float(np.std(values, ddof=1) / math.sqrt(len(values))) if len(values) > 1 else None
