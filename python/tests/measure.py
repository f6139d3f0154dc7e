"""What several tests measure: gradients by central differences, and memory."""

from __future__ import annotations

import numpy as np

import kdswift as kd


def numeric_gradient(function, x: np.ndarray, step: float = 1e-2) -> np.ndarray:
    """Central differences in float32: with values of order 1, rounding is about 1e-7 / step = 1e-5
    and the cut-off error step^2 = 1e-4, so 2e-3 leaves room for sums of a few dozen terms."""
    gradient = np.zeros_like(x)
    for index in np.ndindex(x.shape):
        change = np.zeros_like(x)
        change[index] = step
        high, low = function(kd.tensor(x + change)), function(kd.tensor(x - change))
        gradient[index] = (float(high) - float(low)) / (2 * step)
    return gradient


def check_gradient(function, x: np.ndarray, tolerance: float = 2e-3) -> None:
    x = x.astype(np.float32)
    _, gradient = kd.value_and_grad(function)(x)
    expected = numeric_gradient(function, x)
    assert np.abs(expected).max() > 0.01, "the test sees no gradient"
    np.testing.assert_allclose(gradient, expected, atol=tolerance * max(1, np.abs(expected).max()))


def resident_memory() -> int:
    """Resident memory; the engine's pool reuses blocks, so a leak shows as growth."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096
