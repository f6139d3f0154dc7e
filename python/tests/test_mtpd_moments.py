"""What the closed form of adaptation costs is made of: sums over blocks, images and batches."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from mtpd_cases import costs, model, noise, smooth

from kdswift.mtpd.image_statistics import ImageStatistics
from kdswift.mtpd.moments import Moments, Sums


def test_memory_does_not_grow_with_the_data():
    """Four times as many images of 192 KB of features each: far less than their features more."""
    import tracemalloc

    class Many:
        """Images made when they are asked for."""

        def __init__(self, n):
            self.n = n

        def __len__(self):
            return self.n

        def __getitem__(self, i):
            if i >= self.n:
                raise IndexError(i)
            return noise(1, (64, 64), seed=i)[0]

    def wide(images):
        return np.concatenate([images, images**2, images**3, np.sqrt(images)], axis=1)

    def peak(n):
        tracemalloc.start()
        costs([model(wide), model(smooth)], Many(n), Many(n), batch_size=4)
        result = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return result

    peak(4)
    assert peak(96) < 1.2 * peak(24)


def test_statistics_of_images():
    rng = np.random.default_rng(0)
    values = rng.normal(3, 1, (50, 3)) + rng.normal(0, 2, (50, 1))
    statistics = ImageStatistics(3)
    for row in values:
        statistics.add(row)
    mean, error = statistics.combination(np.array([1.0, -1.0, 0.0]))
    difference = values[:, 0] - values[:, 1]
    assert mean == pytest.approx(difference.mean())
    assert error == pytest.approx(difference.std(ddof=1) / np.sqrt(50))


def test_moments_stream():
    rng = np.random.default_rng(1)
    a, b = rng.normal(5, 1, (4, 60)), rng.normal(size=(2, 60))
    whole, parts = Moments(4, 2), Moments(4, 2)
    for moments, cuts in ((whole, [0, 60]), (parts, [0, 7, 31, 60])):
        for start, stop in itertools.pairwise(cuts):
            x, y = a[:, start:stop], b[:, start:stop]
            sums = Sums.of_source(x), Sums.of_target(y), x @ y.T
            moments.add(*sums, (stop - start) / 60, stop - start)
    first, second = whole.solve(), parts.solve()
    np.testing.assert_allclose(first.weight, second.weight, rtol=1e-9)
    error = first(a) - b
    assert whole.training_cost(first) == pytest.approx((error**2).mean(), rel=1e-9)


def test_images_of_many_sizes():
    """Every image weighs the same, and none is padded for its neighbours."""
    data = [*noise(3), *noise(3, size=(16, 24), seed=1), *noise(3, size=(8, 16), seed=2)]
    order = [0, 3, 6, 1, 4, 7, 2, 5, 8]
    mixed = [data[i] for i in order]
    models = [model(lambda i: i[:, :1]), model(smooth)]
    one, other = costs(models, data, data, batch_size=9), costs(models, mixed, mixed, batch_size=2)
    np.testing.assert_allclose(one.raw, other.raw, rtol=1e-12)  # sums in another order


def test_blocks_of_large_maps(monkeypatch):
    models = [model(lambda i: i[:, :2]), model(smooth)]
    whole = costs(models)
    monkeypatch.setattr("kdswift.mtpd.zoo._BLOCK", 100)  # 256 positions: an image in three parts
    parts = costs(models)
    np.testing.assert_allclose(parts.raw, whole.raw, rtol=1e-12)
    np.testing.assert_allclose(parts.raw_errors, whole.raw_errors, rtol=1e-9)
