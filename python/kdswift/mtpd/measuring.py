"""The passes over training and validation images behind `adaptation_costs`."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from .gradient_maps import GradientMaps, order_of
from .image_statistics import ImageStatistics, Power
from .matrix import CostMatrix, LevelCost
from .moments import AffineMap, Moments, Sums
from .zoo import Zoo, batches

SETTLED = 2.58  # standard errors of a difference: 99 %
_LEAST_IMAGES = 16  # fewer tell too little about their own spread
_FIRST_ROUND = 32  # images

# (target, smaller, larger) by names: the comparisons that an order rests on.
Decisions = Callable[[CostMatrix], Sequence[tuple[str, str, str]]]


class Measured(NamedTuple):
    """Of a pass over validation images: per target the statistics of its entries, whose numbers
    stand in `entries`; the variance of every target's map."""

    statistics: dict[int, ImageStatistics]
    entries: dict[int, list[int]]
    variance: dict[tuple[int, str], float]


class Job:
    """One call."""

    def __init__(
        self, zoo: Zoo, train: Any, val: Any, batch: int, normalize: bool, progress: bool, seed: int
    ) -> None:
        self.zoo, self.train, self.val, self.batch = zoo, train, val, batch
        self.normalize, self.progress, self.seed = normalize, progress, seed

    # The two solvers

    def exact(self, ridge: float, budget: int | None, decisions: Decisions) -> CostMatrix:
        """Least squares; with a budget in rounds of doubling size."""
        most = max(len(self.train), len(self.val))
        limit = most if budget is None else min(most, budget)
        count = limit if budget is None else min(limit, max(_FIRST_ROUND, 2 * self.batch))
        train, val = self._choice(self.train, limit, budget), self._choice(self.val, limit, budget)
        moments: list[Moments] = []
        done = rounds = 0
        while True:
            rounds += 1
            self._accumulate(moments, train[done:count])
            done = count
            maps = [one.solve(ridge) for one in moments]
            training = [one.training_cost(m) for one, m in zip(moments, maps)]
            measured = self._costs(maps, val[:count])
            matrix = self._matrix(measured, training)
            settled = self._settled(measured, matrix, decisions(matrix))
            if count >= limit or settled:
                break
            count = min(limit, 2 * count)
        if not ridge:
            self._warn_of_few(moments)
        matrix.report = {
            "solver": "exact",
            "ridge": ridge,
            **self._counts(min(count, len(train)), min(count, len(val)), settled),
            "rounds": rounds,
        }
        return matrix

    def by_gradient(
        self, epochs: int, rate: float, budget: int | None, decisions: Decisions
    ) -> CostMatrix:
        """Trained maps."""
        limit = len(self.train) if budget is None else budget
        train = self._choice(self.train, limit, budget)
        val = self._choice(self.val, len(self.val) if budget is None else budget, budget)
        steps = epochs * -(-len(train) // self.batch)
        maps: GradientMaps | None = None
        for epoch in range(epochs):
            order = order_of(self.seed, epoch, train)
            for items, images in self._bar(order, f"maps, epoch {epoch + 1}"):
                found = self.zoo.maps(images, items)
                maps = maps or GradientMaps(self.zoo, found, steps, rate, self.seed)
                maps.step(found)
        assert maps is not None
        measured = self._costs(maps.found(), val)
        matrix = self._matrix(measured, [None] * len(self.zoo.entries))
        settled = self._settled(measured, matrix, decisions(matrix))
        matrix.report = {
            "solver": "sgd",
            "epochs": epochs,
            "learning_rate": rate,
            "seed": self.seed,
            **self._counts(len(train), len(val), settled),
        }
        return matrix

    # Passes

    def _accumulate(self, moments: list[Moments], indices: Sequence[int]) -> None:
        for items, images in self._bar(indices, "moments"):
            maps = self.zoo.maps(images, items)
            if not moments:
                moments += [
                    Moments(
                        maps[e.source][e.source_tap].shape[1], maps[e.target][e.target_tap].shape[1]
                    )
                    for e in self.zoo.entries
                ]
            for numbers, block in self.zoo.blocks(maps):
                images_here = block.count * block.share
                sources: dict[Any, Sums] = {}
                targets: dict[Any, Sums] = {}
                crosses: dict[Any, np.ndarray] = {}
                for number in numbers:
                    e = self.zoo.entries[number]
                    a, b = (e.source, e.source_tap), (e.target, e.target_tap)
                    x, y = block.columns[a], block.columns[b]
                    sources[a] = sources.get(a) or Sums.of_source(x)
                    targets[b] = targets.get(b) or Sums.of_target(y)
                    # The way back, where sizes are equal, has the transposed moment.
                    crosses[a, b] = crosses[b, a].T if (b, a) in crosses else x @ y.T
                    moments[number].add(
                        *(sources[a], targets[b], crosses[a, b], images_here), x.shape[1]
                    )

    def _costs(self, maps: Sequence[AffineMap], indices: Sequence[int]) -> Measured:
        """What the maps cost on these images."""
        zoo = self.zoo
        into = {
            t: [n for n, e in enumerate(zoo.entries) if e.target == t]
            for t in range(len(zoo.names))
        }
        statistics = {t: ImageStatistics(len(numbers)) for t, numbers in into.items()}
        powers: dict[tuple[int, str], Power] = {}
        for items, images in self._bar(indices, "costs"):
            values = np.zeros((len(zoo.entries), len(images)))
            for numbers, block in zoo.blocks(zoo.maps(images, items)):
                self._add_errors(values, maps, numbers, block)
                for b in dict.fromkeys(zoo.entries[n][2:] for n in numbers):
                    y = block.columns[b]
                    total = Sums.of_target(y)
                    power = powers.setdefault(b, Power(len(y)))
                    power.add(*total, block.count * block.share, y.shape[1])
            for t, numbers in into.items():
                for image in range(len(images)):
                    statistics[t].add(values[numbers, image])
        return Measured(statistics, into, {b: power.variance for b, power in powers.items()})

    def _add_errors(
        self, values: np.ndarray, maps: Sequence[AffineMap], numbers: Sequence[int], block: Any
    ) -> None:
        """Add every image's mean squared error of the positions of a block."""
        for number in numbers:
            e = self.zoo.entries[number]
            error = maps[number](block.columns[e.source, e.source_tap])
            error -= block.columns[e.target, e.target_tap]
            squares = np.einsum("cp,cp->p", error, error).reshape(block.count, -1).mean(axis=1)
            place = slice(block.first, block.first + block.count)
            values[number, place] += squares * (block.share / len(error))

    # Results

    def _matrix(self, measured: Measured, training: Sequence[float | None]) -> CostMatrix:
        zoo, count = self.zoo, len(self.zoo.names)
        levels: list[LevelCost | None] = [None] * len(zoo.entries)
        raw, normalized = np.zeros((count, count)), np.zeros((count, count))
        for t, numbers in measured.entries.items():
            statistics = measured.statistics[t]
            for place, n in enumerate(numbers):
                e = zoo.entries[n]
                levels[n] = LevelCost(
                    *(zoo.names[e.source], zoo.names[t], e.source_tap, e.target_tap),
                    cost=float(statistics.mean[place]),
                    variance=measured.variance[e.target, e.target_tap],
                    training=training[n],
                )
            for s in range(count):
                if s != t:
                    raw[s, t] = statistics.combination(self._weights(measured, s, t, False))[1]
                    normalized[s, t] = statistics.combination(self._weights(measured, s, t, True))[
                        1
                    ]
        return CostMatrix(
            *(tuple(zoo.names), [one for one in levels if one], raw, normalized, self.normalize),
            models=tuple(zoo.models),
        )

    def _weights(self, measured: Measured, source: int, target: int, scaled: bool) -> np.ndarray:
        """The weights that make C(source -> target) of the entries into the target."""
        result = np.zeros(len(measured.entries[target]))
        for place, n in enumerate(measured.entries[target]):
            e = self.zoo.entries[n]
            if e.source == source:
                variance = measured.variance[e.target, e.target_tap] if scaled else 1.0
                result[place] = 1.0 / variance if variance > 0 else 0.0
        return result / max(1, np.count_nonzero(result))

    def _settled(
        self, measured: Measured, matrix: CostMatrix, decisions: Sequence[tuple[str, str, str]]
    ) -> bool:
        """Whether every difference that decides is larger than chance."""
        if min(one.count for one in measured.statistics.values()) < _LEAST_IMAGES:
            return False
        for target, smaller, larger in decisions:
            t, a, b = (matrix.index(name) for name in (target, smaller, larger))
            weights = self._weights(measured, b, t, self.normalize)
            weights = weights - self._weights(measured, a, t, self.normalize)
            mean, error = measured.statistics[t].combination(weights)
            if not mean > SETTLED * error:  # NaN is not settled
                return False
        return True

    # Odds and ends

    def _counts(self, train: int, val: int, settled: bool) -> dict[str, Any]:
        return {
            "train_images": train,
            "val_images": val,
            "forward_passes": self.zoo.forward_passes,
            "settled": settled,
        }

    def _choice(self, dataset: Any, limit: int, budget: int | None) -> list[int]:
        if budget is None:
            return list(range(len(dataset)))
        rng = np.random.Generator(np.random.PCG64([self.seed, 32452843]))
        return [int(i) for i in rng.permutation(len(dataset))[:limit]]

    def _warn_of_few(self, moments: Sequence[Moments]) -> None:
        for e, one in zip(self.zoo.entries, moments):
            if one.positions <= 2 * len(one.a):
                warnings.warn(
                    f"adaptation_costs: {e.source_tap} of {self.zoo.names[e.source]} has "
                    f"{len(one.a)} channels, the training images only {one.positions} positions: "
                    "the map fits noise; give more images, or ridge=1e-3",
                    stacklevel=5,
                )
                return

    def _bar(self, indices: Sequence[int], what: str) -> Any:
        """Batches of images, with a bar."""
        bar = None
        if self.progress:
            from tqdm.auto import tqdm

            bar = tqdm(total=len(indices), unit="image", desc=what, leave=False)
        try:
            for items, images in batches(self.dataset(what), indices, self.batch):
                yield items, images
                if bar is not None:
                    bar.update(len(items))
        finally:
            if bar is not None:
                bar.close()

    def dataset(self, what: str) -> Any:
        """The data set of a pass."""
        return self.val if what == "costs" else self.train
