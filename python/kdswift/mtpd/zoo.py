"""Student and teachers side by side: whose maps belong together, and the maps of a batch."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from .. import _engine
from .._autograd import no_grad
from ..comparisons.adapter import resized
from ..comparisons.site import Site
from ..data.images import as_image, to_uint8
from ..data.loader import Loader
from ..detector import Detector
from ..errors import ArgumentError, KDSError, ShapeError
from ..teacher import as_teacher, check_finite
from ..teachers.detectors import features
from ..tensors import tensor

Maps = Sequence[Mapping[str, np.ndarray]]  # of every model: tap -> (N, C, H, W)
_BLOCK = 16384  # positions that are float64 at one time


class Entry(NamedTuple):
    """One map A -> B at one level: numbers of the models and names of their taps."""

    source: int
    source_tap: str
    target: int
    target_tap: str


class Block(NamedTuple):
    """Positions of one or several whole images, or a part of one image.

    first, count : images of the batch;  share : of their positions that are here
    columns : (model, tap) -> float64 (C, positions), all at the size of the target's map
    """

    first: int
    count: int
    share: float
    columns: dict[tuple[int, str], np.ndarray]


class Zoo:
    """The models between which costs are measured; the first one is the student.

    models : detectors or `kd.Teacher`s, by name
    levels : None, paired by stride as methods pair them; names that all models share; or a mapping
        of a model's name to its taps, paired by position
    image : one image, with which teachers outside the engine are asked for their taps
    """

    def __init__(self, models: Mapping[str, Any], levels: Any, image: np.ndarray) -> None:
        self.names, self.models = list(models), list(models.values())
        for model in self.models:
            as_teacher(model, "adaptation_costs")
        self.forward_passes = 0
        tables = [tap_table(model, image) for model in self.models]
        chosen = _chosen(levels, self.names)
        self.entries: list[Entry] = []
        for a in range(len(self.models)):
            for b in range(len(self.models)):
                if a != b:
                    self.entries += self._pair(a, b, tables, chosen)
        self.wanted = [
            list(dict.fromkeys(tap for e in self.entries for i, tap in _ends(e) if i == number))
            for number in range(len(self.models))
        ]
        self._warn_of_unlike_levels()

    def _pair(self, a: int, b: int, tables: Sequence[Any], chosen: Any) -> list[Entry]:
        site = Site(self.models[a], tables[a], self.models[b], tables[b])
        levels = None if chosen is None else list(zip(chosen[self.names[a]], chosen[self.names[b]]))
        try:
            pairs = site.level_pairs(levels)
        except ArgumentError as error:
            where = f"adaptation_costs ({self.names[a]} as student, {self.names[b]} as teacher)"
            raise ArgumentError(f"{where}: {error}") from None
        return [Entry(a, own["name"], b, other["name"]) for own, other in pairs]

    def _warn_of_unlike_levels(self) -> None:
        """Costs into one target are compared with each other, so they should mean the same."""
        for number, name in enumerate(self.names):
            taps: dict[int, set[str]] = {}
            for e in self.entries:
                if e.target == number:
                    taps.setdefault(e.source, set()).add(e.target_tap)
            if any(one != next(iter(taps.values())) for one in taps.values()):
                shown = "; ".join(
                    f"{self.names[a]}: {', '.join(sorted(t))}" for a, t in taps.items()
                )
                warnings.warn(
                    f"adaptation_costs: the costs into {name} are means over unlike levels "
                    f"({shown}); levels= can name common ones",
                    stacklevel=5,
                )

    def maps(self, images: Sequence[np.ndarray], items: Sequence[int]) -> Maps:
        """The maps of a batch of images of one size; every model runs once. Only maps are asked
        for, never the outputs of heads."""
        result = []
        for name, model, wanted in zip(self.names, self.models, self.wanted):
            self.forward_passes += len(images)
            found = _outputs(model, images, wanted)
            for tap in wanted:
                if found[tap].ndim != 4:
                    raise ShapeError(f"{name}: tap {tap!r} is {found[tap].shape}, no map")
                try:
                    check_finite(found[tap], f"tap {tap!r}", items)
                except KDSError as error:
                    raise KDSError(f"{name}: {error}") from None
            result.append({tap: found[tap] for tap in wanted})
        return result

    def blocks(self, maps: Maps) -> Iterator[tuple[list[int], Block]]:
        """(numbers of entries, a block with their columns), until every position was given.

        A is brought to B's size before anything is summed. That is the same as mapping first and
        resizing after: a 1x1 map acts on channels, interpolation on positions, and the weights of
        an interpolation add up to 1, so that the bias passes through.
        """
        groups: dict[tuple[int, int], list[int]] = {}
        for number, e in enumerate(self.entries):
            groups.setdefault(maps[e.target][e.target_tap].shape[2:], []).append(number)
        for size, numbers in groups.items():
            ends = dict.fromkeys(end for n in numbers for end in _ends(self.entries[n]))
            arrays = {(i, tap): at_size(maps[i][tap], size) for i, tap in ends}
            for block in _blocks(arrays, size[0] * size[1]):
                yield numbers, block


def _outputs(
    model: Any, images: Sequence[np.ndarray], names: Sequence[str]
) -> Mapping[str, np.ndarray]:
    """Taps of a batch; of a detector without a copy of those that are not wanted."""
    if not isinstance(model, Detector):
        return as_teacher(model, "adaptation_costs").outputs(images, names)
    batch = _engine.Batch(list(images))
    try:
        taps = features(model, batch, names)
        return {name: taps[name].numpy(copy=False) for name in names}
    finally:
        batch.close()


def tap_table(model: Any, image: np.ndarray) -> list[Any]:
    """What a model offers, with the strides of its own input where it is a detector."""
    for _ in range(2):
        if isinstance(model, Detector):
            return model._engine.taps()
        model = getattr(model, "detector", None) or getattr(model, "teacher", None) or model
    if isinstance(model, Detector):
        return model._engine.taps()
    return as_teacher(model, "adaptation_costs").taps([image])


def at_size(array: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(N, C, H, W) at another height and width, bilinear."""
    if array.shape[2:] == tuple(size):
        return array
    with no_grad():
        return resized(tensor(array), size).numpy()


def dataset_of(data: Any, name: str, where: str = "adaptation_costs") -> Any:
    """The data set itself; of a loader, what it loads."""
    data = data.dataset if isinstance(data, Loader) else data
    if not hasattr(data, "__len__") or not hasattr(data, "__getitem__"):
        raise ArgumentError(
            f"{where}: {name} must be a data set (a sequence of (image, target)) or a "
            f"kd.data.Loader, got {type(data).__name__}"
        )
    if len(data) == 0:
        raise ArgumentError(f"{where}: {name} is empty")
    return data


def image_at(dataset: Any, index: int) -> np.ndarray:
    """An image of a data set, uint8 (H, W, 3), not augmented."""
    return to_uint8(as_image(dataset[index][0], f"item {index}"))


def batches(
    dataset: Any, indices: Sequence[int], size: int
) -> Iterator[tuple[list[int], list[np.ndarray]]]:
    """Items and images, at most `size` together and of one height and width, so that no image is
    padded for the sake of its neighbours."""
    for start in range(0, len(indices), size):
        groups: dict[tuple[int, ...], list[tuple[int, np.ndarray]]] = {}
        for index in indices[start : start + size]:
            image = image_at(dataset, int(index))
            groups.setdefault(image.shape, []).append((int(index), image))
        for group in groups.values():
            yield [i for i, _ in group], [image for _, image in group]


def _ends(e: Entry) -> tuple[tuple[int, str], tuple[int, str]]:
    return (e.source, e.source_tap), (e.target, e.target_tap)


def _blocks(arrays: Mapping[tuple[int, str], np.ndarray], positions: int) -> Iterator[Block]:
    count = len(next(iter(arrays.values())))
    together = max(1, _BLOCK // positions)
    flat = {key: a.reshape(count, a.shape[1], positions) for key, a in arrays.items()}
    for first in range(0, count, together):
        last = min(count, first + together)
        for start in range(0, positions, _BLOCK):
            stop = min(positions, start + _BLOCK)
            columns = {
                key: np.ascontiguousarray(
                    a[first:last, :, start:stop].transpose(1, 0, 2), dtype=np.float64
                ).reshape(a.shape[1], -1)
                for key, a in flat.items()
            }
            yield Block(first, last - first, (stop - start) / positions, columns)


def _chosen(levels: Any, names: Sequence[str]) -> dict[str, list[str]] | None:
    if levels is None:
        return None
    if not isinstance(levels, Mapping):
        if isinstance(levels, str) or not all(isinstance(one, str) for one in levels):
            raise ArgumentError(
                f"adaptation_costs: levels is {levels!r}, expected names of taps or a mapping of "
                "a model's name to its taps"
            )
        return {name: list(levels) for name in names}
    result = {name: [t] if isinstance(t, str) else list(t) for name, t in levels.items()}
    if set(result) != set(names) or len({len(taps) for taps in result.values()}) > 1:
        raise ArgumentError(
            "adaptation_costs: levels must name equally many taps of every model: "
            f"{', '.join(names)}"
        )
    return result
