"""Whether two models see alike: linear centred kernel alignment (Kornblith et al. 2019)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._numbers import check_count
from .._tables import html_table, text_table
from ..errors import ArgumentError, ShapeError
from ..heads import is_tower
from ..mtpd.zoo import image_at, tap_table
from ..teacher import as_teacher
from .landscape import counting, whole
from .measured_loss import chosen

_LEAST = 4  # images; the unbiased estimate divides by n - 3


@dataclass(repr=False)
class Similarity:
    """CKA of every pair of levels.

    values : (levels of a, levels of b); 1 is alike up to turning and scale, about 0 unrelated
        (it may be slightly below), NaN where a map is the same for all images
    levels_a, levels_b : names of the rows and columns
    images : how many were compared
    """

    values: np.ndarray
    levels_a: tuple[str, ...]
    levels_b: tuple[str, ...]
    images: int

    def __getitem__(self, pair: tuple[str, str]) -> float:
        """The value of a level of a and a level of b, by their names."""
        a, b = pair
        if a not in self.levels_a or b not in self.levels_b:
            raise ArgumentError(
                f"Similarity: no levels {a!r} and {b!r}; there are {', '.join(self.levels_a)} and "
                f"{', '.join(self.levels_b)}"
            )
        return float(self.values[self.levels_a.index(a), self.levels_b.index(b)])

    def rows(self) -> list[dict[str, Any]]:
        """One dict per level of a: its name and a value per level of b."""
        return [
            {"level": name, **dict(zip(self.levels_b, map(float, line)))}
            for name, line in zip(self.levels_a, self.values)
        ]

    def plot(self, path: str | os.PathLike | None = None) -> Any:
        """A heat map as a matplotlib figure, written to `path` if given."""
        from .pictures import alignment

        return alignment(self, path)

    def __repr__(self) -> str:
        return f"Similarity(CKA, {self.images} images)\n{text_table(self.rows())}"

    def _repr_html_(self) -> str:
        return html_table(self.rows())


def cka(
    model_a: Any,
    model_b: Any,
    data: Any,
    images: int = 64,
    levels: Any = None,
    pool: int = 4,
    seed: int = 0,
    progress: bool = True,
) -> Similarity:
    """Linear CKA of the maps of two models on the same images.

    Parameters
    ----------
    model_a, model_b : detectors or `kd.Teacher`s; detectors run in eval mode
    data : data set of (image, target), or a kd.data.Loader whose data set is taken
    images : how many of the data set, drawn by `seed`; at least 4
    levels : None: all maps of both but for the towers of heads; names of taps that both have; or
        (names of a, names of b)
    pool : every map is averaged over the cells of a pool x pool grid, then flattened: models of
        other strides and images of unlike sizes compare. 1 takes the mean of each channel

    With X (n, p) and Y (n, q) the flattened maps of n images, K = X X', L = Y Y':

        CKA = HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L))

    HSIC is the unbiased estimate of Song et al. 2012 (equation 5): the plain one is far too high
    with more features than images. Its value for equal maps is 1, it does not change when channels
    are turned by an orthogonal matrix or all of them scaled, and may be slightly below 0.

    >>> kd.analysis.cka(student, teacher, val).plot("cka.png")
    """
    check_count(pool, "pool", "cka")
    dataset, items = chosen(data, images, whole(seed, "cka"), "cka")
    if len(items) < _LEAST:
        raise ArgumentError(f"cka: {len(items)} images, at least {_LEAST} are needed")
    models = [as_teacher(m, "cka") for m in (model_a, model_b)]
    first = image_at(dataset, items[0])
    names = [_levels(levels, side, model, first) for side, model in enumerate((model_a, model_b))]
    kept: list[list[list[np.ndarray]]] = [[[] for _ in one] for one in names]
    with counting(len(items), "cka", progress) as tick:
        for item in items:
            image = image_at(dataset, item)
            for side, model in enumerate(models):
                found = model.outputs([image], names[side])
                for place, name in enumerate(names[side]):
                    kept[side][place].append(_pooled(found[name][0], pool, name))
            tick()
    grams = [[_gram(np.stack(one)) for one in side] for side in kept]
    values = np.array([[alignment_of(k, m) for m in grams[1]] for k in grams[0]])
    return Similarity(values, tuple(names[0]), tuple(names[1]), len(items))


def alignment_of(k: np.ndarray, m: np.ndarray) -> float:
    """CKA of two Gram matrices (n, n); NaN where one has no variance."""
    own = unbiased_hsic(k, k) * unbiased_hsic(m, m)
    return float(unbiased_hsic(k, m) / np.sqrt(own)) if own > 0 else float("nan")


def unbiased_hsic(k: np.ndarray, m: np.ndarray) -> float:
    """Song et al. 2012, equation 5, with K and L without their diagonals:

    (tr(K L) + sum(K) sum(L) / ((n - 1)(n - 2)) - 2 / (n - 2) 1' K L 1) / (n (n - 3))
    """
    n = len(k)
    k, m = k - np.diag(np.diag(k)), m - np.diag(np.diag(m))
    total = np.sum(k * m) + k.sum() * m.sum() / ((n - 1) * (n - 2))
    return float((total - 2 / (n - 2) * k.sum(axis=0) @ m.sum(axis=0)) / (n * (n - 3)))


def _gram(features: np.ndarray) -> np.ndarray:
    # The estimate does not see the mean; without it fewer digits cancel.
    centred = features - features.mean(axis=0)
    return centred @ centred.T


def _pooled(array: np.ndarray, pool: int, name: str) -> np.ndarray:
    """(C, H, W) as means over cells from floor(i H / pool) to ceil((i + 1) H / pool), flat."""
    if array.ndim == 1:
        return array.astype(np.float64)
    if array.ndim != 3:
        raise ShapeError(f"cka: {name!r} has shape {(1, *array.shape)}, expected (N, C, H, W)")
    values = array.astype(np.float64)
    for axis in (1, 2):
        size = values.shape[axis]
        cells = [
            values.take(range(i * size // pool, -(-(i + 1) * size // pool)), axis).mean(axis)
            for i in range(pool)
        ]
        values = np.stack(cells, axis)
    return values.reshape(-1)


def _levels(levels: Any, side: int, model: Any, image: np.ndarray) -> list[str]:
    rows = tap_table(model, image)
    offered = [row["name"] for row in rows]
    if levels is None:
        features = [row["name"] for row in rows if row["kind"] == "feature"]
        names = [name for name in features if not is_tower(name)]
    else:
        pair = (
            isinstance(levels, (tuple, list))
            and len(levels) == 2
            and not any(isinstance(one, str) for one in levels)
        )
        wanted: Sequence[str] = levels[side] if pair else levels
        if isinstance(wanted, str):
            wanted = [wanted]
        names = list(wanted)
    for name in names:
        if name not in offered:
            raise ArgumentError(
                f"cka: model {'ab'[side]} has no tap {name!r}; it offers {', '.join(offered)}"
            )
    if not names:
        raise ArgumentError(f"cka: model {'ab'[side]} has no maps")
    return names
