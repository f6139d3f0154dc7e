"""The loss around a trained model, along random directions (Li et al. 2018)."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .._files import read_tensors, write_tensors
from .._numbers import check_count
from ..errors import ArgumentError, FormatError
from .directions import Moved
from .measured_loss import MeasuredLoss


@dataclass(repr=False)
class Landscape:
    """Losses on a line or a square around a model.

    Attributes
    ----------
    positions : (points,) from -span to span, in lengths of the model's filters; 0 in the middle
    losses : (points,), or (points, points) with the first direction along the first axis; NaN
        where the loss was no number
    settings : what it was asked for: points, span, directions, seed, batch_size, items, model
    """

    positions: np.ndarray
    losses: np.ndarray
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def centre(self) -> float:
        """The loss of the model itself."""
        return float(self.losses[(len(self.positions) // 2,) * self.losses.ndim])

    @property
    def directions(self) -> int:
        """1 or 2."""
        return self.losses.ndim

    def plot(self, path: str | os.PathLike | None = None) -> Any:
        """A curve, or contours; see `kd.viz.loss_landscape`."""
        from .pictures import loss_landscape

        return loss_landscape(self, path)

    def save(self, path: str | os.PathLike) -> None:
        """Write a .safetensors file, whole or not at all."""
        tensors = {"positions": self.positions, "losses": self.losses}
        write_tensors(path, tensors, {"kind": "landscape", "settings": self.settings})

    @classmethod
    def load(cls, path: str | os.PathLike) -> Landscape:
        """Read what `save` wrote; ``FormatError`` naming the file for anything else."""
        tensors, metadata = read_tensors(path)
        if not metadata or metadata.get("kind") != "landscape":
            raise FormatError(f"{os.fspath(path)}: holds no landscape")
        return cls(tensors["positions"], tensors["losses"], metadata["settings"])

    def __repr__(self) -> str:
        top = np.nanmax(self.losses)
        return (
            f"Landscape({' x '.join(map(str, self.losses.shape))} within {self.positions[-1]:g}, "
            f"loss {self.centre:.4g} at the centre, {top:.4g} at most)"
        )


def loss_landscape(
    model: Any,
    data: Any,
    points: int = 21,
    span: float = 1.0,
    directions: int = 2,
    seed: int = 0,
    batch_size: int = 8,
    images: int = 64,
    progress: bool = True,
) -> Landscape:
    """The detection loss of a model along filter-normalised random directions (Li et al. 2018).

        L(w + a d1 + b d2),   a, b in [-span, span]

    Parameters
    ----------
    model : a detector; a copy of it is moved, so that it stays as it is, after Ctrl-C too
    data : data set of (image, target), or a kd.data.Loader whose data set is taken, not augmented
    points : odd, at least 3; a square takes points^2 passes over the images
    span : 1 replaces a filter by one as far away as the filter is long
    directions : 1, a line, or 2, a square
    seed : draws the directions, the images and the samples of every batch. Models of one shape get
        the same directions but for the lengths of their filters
    images : how many of the data set; all if it has fewer

    Each filter of a direction is Gaussian noise scaled to the length of the model's filter;
    biases and the parameters of norms have 0. The two directions are drawn independently.

    The loss is the sum of `model.losses` with the copy in eval mode: norms use the statistics the
    model has and dropout is off, otherwise it is the loss of training, without any term of a
    distillation. Anchors and proposals are sampled with the same seed at every point; proposals
    follow the weights, so that a two-stage detector's loss may jump a little.

    >>> kd.analysis.loss_landscape(student, train, points=11).plot("landscape.png")
    """
    where = "loss_landscape"
    check_count(points, "points", where)
    if points < 3 or points % 2 == 0:
        raise ArgumentError(f"{where}: points is {points}, expected an odd number of at least 3")
    if isinstance(directions, bool) or directions not in (1, 2):
        raise ArgumentError(f"{where}: directions is {directions!r}, expected 1 or 2")
    span, seed = positive(span, "span", where), whole(seed, where)
    measured = MeasuredLoss(data, images, batch_size, seed, where)
    moved = Moved(model, [2 * seed + k for k in range(directions)])
    positions = np.linspace(-span, span, points)
    positions[points // 2] = 0.0
    losses = np.empty((points,) * directions)
    middle = (points // 2,) * directions
    losses[middle] = measured.centre(moved)
    with counting(losses.size - 1, "landscape", progress) as tick:
        for place in np.ndindex(losses.shape):
            if place != middle:
                losses[place] = measured.at(moved, positions[list(place)])
                tick()
    settings = {
        "points": int(points),
        "span": span,
        "directions": int(directions),
        "seed": seed,
        "batch_size": int(batch_size),
        "items": measured.items,
        "model": repr(model),
    }
    return Landscape(positions, losses, settings)


@contextlib.contextmanager
def counting(total: int, what: str, shown: bool) -> Iterator[Any]:
    """A bar; what it yields moves it on by one."""
    if not shown:
        yield lambda: None
        return
    from tqdm.auto import tqdm

    with tqdm(total=total, unit="point", desc=what, leave=False) as bar:
        yield bar.update


def positive(value: Any, name: str, where: str) -> float:
    """A finite number above 0."""
    good = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    if not good or not np.isfinite(value) or value <= 0:
        raise ArgumentError(f"{where}: {name} is {value!r}, expected a number above 0")
    return float(value)


def whole(seed: Any, where: str) -> int:
    """A seed: a whole number of at least 0."""
    if not isinstance(seed, (int, np.integer)) or isinstance(seed, bool) or seed < 0:
        raise ArgumentError(f"{where}: seed is {seed!r}, expected a whole number of at least 0")
    return int(seed)
