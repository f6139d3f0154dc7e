"""Least squares by moments: the affine map of channels that is best on everything seen so far.

A map W A + v of channels is a linear regression, so the sums of A, A A', A B' and B^2 over all
positions are all that its solution and its training cost depend on.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

_EPSILON = float(np.finfo(np.float64).eps)


class AffineMap(NamedTuple):
    """A 1x1 convolution: weight (C_B, C_A), bias (C_B,), float64."""

    weight: np.ndarray
    bias: np.ndarray

    def __call__(self, columns: np.ndarray) -> np.ndarray:
        """(C_A, positions) to (C_B, positions)."""
        return self.weight @ columns + self.bias[:, None]


class Sums(NamedTuple):
    """What one side of a regression adds in a block: sums over positions.

    square : A A' (C, C) for the side that is mapped, B^2 (C,) for the other
    """

    total: np.ndarray
    square: np.ndarray

    @classmethod
    def of_source(cls, columns: np.ndarray) -> Sums:
        """Sums of A and its Gram matrix."""
        return cls(columns.sum(axis=1), columns @ columns.T)

    @classmethod
    def of_target(cls, columns: np.ndarray) -> Sums:
        """Sums of B and of its squares."""
        return cls(columns.sum(axis=1), np.einsum("cp,cp->c", columns, columns))


class Moments:
    """The moments of one map, float64: their size does not depend on the data's.

    Every image weighs the same: its sums are divided by its number of positions, as the cost is
    the mean over images of the mean over positions.

    images : seen;  positions : of all of them
    """

    def __init__(self, source_channels: int, target_channels: int) -> None:
        self.images, self.positions = 0.0, 0
        self.a, self.b = np.zeros(source_channels), np.zeros(target_channels)
        self.aa = np.zeros((source_channels, source_channels))
        self.ab = np.zeros((source_channels, target_channels))
        self.bb = np.zeros(target_channels)

    def add(
        self, source: Sums, target: Sums, cross: np.ndarray, images: float, positions: int
    ) -> None:
        """Add a block; cross : A B' (C_A, C_B);  images : may be a part of one."""
        share = images / positions
        self.images += images
        self.positions += positions
        self.a += source.total * share
        self.b += target.total * share
        self.aa += source.square * share
        self.ab += cross * share
        self.bb += target.square * share

    def solve(self, ridge: float = 0.0) -> AffineMap:
        """The map with the least mean squared error (and, of several, the smallest weights).

        With S = cov(A) and X = cov(A, B):  W' = (S + ridge * tr(S) / C_A * I)^-1 X,
        v = mean(B) - W mean(A). Directions in which A does not vary, such as a channel that is
        always 0, get weight 0.
        """
        mean_a, _, covariance, cross = self._centred()
        count = len(mean_a)
        # The mean squares are what the subtraction in `_centred` is exact to.
        noise = 4 * count * _EPSILON * float((np.diag(self.aa) / self.images).max(initial=0.0))
        if ridge:
            covariance = covariance + np.eye(count) * (ridge * np.trace(covariance) / count)
        weight = _symmetric_solve(covariance, cross, noise).T
        return AffineMap(weight, self.b / self.images - weight @ mean_a)

    def training_cost(self, found: AffineMap) -> float:
        """Mean over images, channels and positions of (B - W A - v)^2 on what was seen."""
        mean_a, mean_b, covariance, cross = self._centred()
        variance = self.bb / self.images - mean_b**2
        product = found.weight @ covariance
        explained = 2 * np.einsum("ij,ji->i", found.weight, cross)
        error = variance - explained + np.einsum("ij,ij->i", product, found.weight)
        offset = found.weight @ mean_a + found.bias - mean_b
        return max(0.0, float((error + offset**2).mean()))

    def _centred(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """mean(A), mean(B), cov(A), cov(A, B)."""
        mean_a, mean_b = self.a / self.images, self.b / self.images
        covariance = self.aa / self.images - np.outer(mean_a, mean_a)
        return mean_a, mean_b, covariance, self.ab / self.images - np.outer(mean_a, mean_b)


def _symmetric_solve(matrix: np.ndarray, right: np.ndarray, noise: float) -> np.ndarray:
    """matrix^-1 right by Cholesky; by eigenvalues above `noise` where the matrix is singular."""
    try:
        pivots = np.diag(np.linalg.cholesky(matrix)) ** 2
        if pivots.min() > 1e3 * noise:
            return np.linalg.solve(matrix, right)
    except np.linalg.LinAlgError:
        pass
    values, vectors = np.linalg.eigh(matrix)
    kept = values > max(noise, len(values) * _EPSILON * float(np.abs(values).max(initial=0.0)))
    vectors = vectors[:, kept]
    return vectors @ ((vectors.T @ right) / values[kept, None])
