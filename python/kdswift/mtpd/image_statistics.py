"""Means of several costs over images, and how certain differences between them are."""

from __future__ import annotations

import numpy as np


class ImageStatistics:
    """Mean and covariance of K numbers per image, without keeping the images.

    All costs into one target are taken from the same images, so their differences are much more
    certain than they are by themselves; the covariance knows.
    """

    def __init__(self, size: int) -> None:
        self.count, self.mean = 0, np.zeros(size)
        self._spread = np.zeros((size, size))

    def add(self, values: np.ndarray) -> None:
        """The numbers of one image (Welford's update)."""
        self.count += 1
        before = values - self.mean
        self.mean = self.mean + before / self.count
        self._spread += np.outer(before, values - self.mean)

    @property
    def covariance(self) -> np.ndarray:
        """(K, K) between images."""
        return self._spread / max(1, self.count - 1)

    def combination(self, weights: np.ndarray) -> tuple[float, float]:
        """Mean and standard error of a weighted sum of the K numbers; NaN for a single image."""
        mean = float(weights @ self.mean)
        if self.count < 2:
            return mean, float("nan")
        variance = float(weights @ self.covariance @ weights)
        return mean, float(np.sqrt(max(0.0, variance) / self.count))


class Power:
    """Variance of a map's channels over images and positions, mean over channels."""

    def __init__(self, channels: int) -> None:
        self.images, self._sum, self._squares = 0.0, np.zeros(channels), np.zeros(channels)

    def add(self, total: np.ndarray, squares: np.ndarray, images: float, positions: int) -> None:
        """Sums over the positions of some images, or of a part of one."""
        self.images += images
        self._sum += total * (images / positions)
        self._squares += squares * (images / positions)

    @property
    def variance(self) -> float:
        """Mean over channels of the variance."""
        mean = self._sum / self.images
        return max(0.0, float((self._squares / self.images - mean**2).mean()))
