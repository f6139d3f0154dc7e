"""The paper's way to the maps: 1x1 convolutions trained on frozen features."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import losses
from ..comparisons.adapter import Adapter, resized
from ..tensors import tensor
from .moments import AffineMap
from .zoo import Maps, Zoo

_BETAS, _TINY = (0.9, 0.999), 1e-8


class GradientMaps:
    """One `Adapter` per entry of a zoo, trained together by Adam, so that the models run once per
    image and epoch. The learning rate falls linearly to 0.

    What it finds depends on seed, rate and epochs, and lies above the least cost; after one epoch
    on little data it is mostly a measure of how far training got.
    """

    def __init__(self, zoo: Zoo, maps: Maps, steps: int, learning_rate: float, seed: int) -> None:
        self._zoo, self._steps, self._rate = zoo, max(1, steps), learning_rate
        self._step = 0
        self._adapters = []
        for e in zoo.entries:
            channels = maps[e.source][e.source_tap].shape[1], maps[e.target][e.target_tap].shape[1]
            names = f"{zoo.names[e.source]}.{e.source_tap} {zoo.names[e.target]}.{e.target_tap}"
            rng = np.random.Generator(np.random.PCG64([seed, 7919, zlib.crc32(names.encode())]))
            self._adapters.append(Adapter(*channels, rng))
        self._moments: list[dict[str, Any]] = [{} for _ in zoo.entries]

    def step(self, maps: Maps) -> list[float]:
        """One step of every map on a batch; the losses before it."""
        rate = self._rate * (1 - self._step / self._steps)
        self._step += 1
        result = []
        for e, adapter, moments in zip(self._zoo.entries, self._adapters, self._moments):
            target = tensor(maps[e.target][e.target_tap])
            mapped = resized(adapter(tensor(maps[e.source][e.source_tap])), target.shape[2:])
            loss = losses.feature_matching(mapped, target)
            loss.backward()
            result.append(loss.item())
            self._update(adapter, moments, rate)
        return result

    def found(self) -> list[AffineMap]:
        """The maps."""
        return [
            AffineMap(
                one.weight.numpy().astype(np.float64)[:, :, 0, 0],
                one.bias.numpy().astype(np.float64),
            )
            for one in self._adapters
        ]

    def _update(self, adapter: Adapter, moments: dict[str, Any], rate: float) -> None:
        """Adam (Kingma & Ba 2015) with bias correction."""
        for name, parameter in adapter.parameters().items():
            gradient = parameter.grad.numpy()
            first, second = moments.get(name, (np.zeros_like(gradient), np.zeros_like(gradient)))
            first = _BETAS[0] * first + (1 - _BETAS[0]) * gradient
            second = _BETAS[1] * second + (1 - _BETAS[1]) * gradient**2
            moments[name] = first, second
            corrected = first / (1 - _BETAS[0] ** self._step)
            spread = np.sqrt(second / (1 - _BETAS[1] ** self._step)) + _TINY
            values = parameter.numpy() - np.float32(rate) * corrected / spread
            setattr(adapter, name, tensor(values.astype(np.float32), requires_grad=True))


def order_of(seed: int, epoch: int, indices: Sequence[int]) -> list[int]:
    """The images of an epoch in a new order."""
    rng = np.random.Generator(np.random.PCG64([seed, 15485863, epoch]))
    return [int(i) for i in rng.permutation(np.asarray(indices))]
