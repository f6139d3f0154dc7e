"""Random directions in the space of weights, and a model moved along them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

# Biases that happen to be matrices: those of relative positions in Swin Transformers.
_BIASES = ("bias", "bias_table")


def filter_normalized(weights: Mapping[str, np.ndarray], seed: int) -> dict[str, np.ndarray]:
    """A random direction, each filter as long as the model's (Li et al. 2018, section 4).

        d_ij = g_ij * ||w_ij|| / ||g_ij||,   g ~ N(0, 1)

    A filter w_ij is a slice along the first axis of a weight with two axes or more: what makes one
    output (of transposed convolutions: what one input makes). Biases and the parameters of norms
    have 0. The direction depends on seed, names and shapes alone.
    """
    rng = np.random.Generator(np.random.PCG64([seed, 15485863]))
    result = {}
    for name, weight in weights.items():
        if weight.ndim < 2 or name.endswith(_BIASES):
            result[name] = np.zeros(weight.shape, np.float32)
            continue
        noise = rng.standard_normal(weight.shape)
        wanted, there = _norms(weight), _norms(noise)
        scale = np.divide(wanted, there, out=np.zeros_like(wanted), where=there > 0)
        noise *= scale.reshape(-1, *[1] * (weight.ndim - 1))
        result[name] = noise.astype(np.float32)
    return result


class Moved:
    """A copy of a model whose weights are  w + sum_k position_k * direction_k.

    The copy is in eval mode: batch norm takes the statistics the model has, dropout is off. The
    model itself is never touched, whatever ends the work.
    """

    def __init__(self, model: Any, seeds: Sequence[int]) -> None:
        self.model = model.clone()
        self.model.eval()
        self._start = {name: t.numpy().copy() for name, t in self.model.named_parameters()}
        self.directions = [filter_normalized(self._start, seed) for seed in seeds]

    def to(self, position: Sequence[float]) -> Any:
        """The copy at a position; sums in double, then rounded once."""
        values = {}
        for name, weight in self._start.items():
            if weight.ndim < 2 or name.endswith(_BIASES):
                continue
            total = weight.astype(np.float64)
            for step, direction in zip(position, self.directions):
                total += step * direction[name].astype(np.float64)
            values[name] = total.astype(np.float32)
        self.model.load_state_dict(values, strict=False)
        return self.model


def _norms(array: np.ndarray) -> np.ndarray:
    return np.sqrt(np.square(array, dtype=np.float64).reshape(len(array), -1).sum(axis=1))
