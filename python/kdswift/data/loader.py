"""Batches from a data set, made ahead by threads, in an order that only the seed decides."""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import ArgumentError, KDSError, ShapeError
from .images import as_image, resize_image, short_side_size, to_uint8
from .targets import check_target

_ORDER, _AUGMENT = 0, 1  # separate random streams of one seed
_BATCHES_AHEAD = 2  # per worker


@dataclass
class Batch:
    """One batch.

    images : list of uint8 (H, W, 3) arrays, sizes may differ
    targets : list of checked target dicts (see `check_target`)
    indices : list of int, positions in the data set
    teacher_images : the same augmented views at the teacher's size, or None
    """

    images: list[np.ndarray]
    targets: list[dict[str, Any]]
    indices: list[int]
    teacher_images: list[np.ndarray] | None = None

    def __len__(self) -> int:
        return len(self.images)


class Loader:
    """Iterate over a data set in checked, augmented batches.

    Parameters
    ----------
    dataset : sequence of (image, target)
        ``kd.data`` sets, torchvision-style sets, or a list of pairs. Images as `as_image`
        takes them (float images are rounded to uint8), targets as `check_target`.
    batch_size : int
    shuffle : bool
        A new order for every epoch, from (seed, epoch).
    augment : callable, sequence of callables, or None
        ``(image, target, rng) -> (image, target)``, e.g. from ``kd.augment``. `rng` is seeded
        by (seed, epoch, index): the same view whatever the workers and the batch size.
    workers : int
        Threads that prepare batches ahead (never processes); 0 prepares in the caller's
        thread. At most ``2 * workers`` batches are kept ready.
    teacher_size : int, (int, int) or None
        Short side, or (short, longest) side, of ``Batch.teacher_images``: the same view
        resized for the teacher. None: no teacher images (both see ``Batch.images``).
    seed : int
    drop_last : bool
        Leave out a last batch that is not full.

    ``for batch in loader`` runs one epoch; when it reaches the end, the next loop is the
    next epoch. ``loader.epoch(k, start_batch=b)`` runs epoch k from batch b on, with
    exactly the batches that an uninterrupted epoch would have given. Threads end with the
    loop, be it by break, exception or Ctrl-C. An error in a data set or an augmentation is
    raised here again and names the item.
    """

    def __init__(
        self,
        dataset: Sequence[tuple[Any, dict]],
        batch_size: int,
        shuffle: bool = False,
        augment: Callable | Sequence[Callable] | None = None,
        workers: int = 2,
        teacher_size: int | tuple[int, int] | None = None,
        seed: int = 0,
        drop_last: bool = False,
    ):
        if int(batch_size) != batch_size or batch_size < 1:
            raise ArgumentError(
                f"Loader: batch_size must be a whole number >= 1, got {batch_size!r}"
            )
        if int(workers) != workers or workers < 0:
            raise ArgumentError(f"Loader: workers must be a whole number >= 0, got {workers!r}")
        if int(seed) != seed or seed < 0:
            raise ArgumentError(f"Loader: seed must be a whole number >= 0, got {seed!r}")
        if augment is not None and not callable(augment):
            from ..augment import Compose

            augment = Compose(augment)
        self.dataset, self.batch_size, self.shuffle = dataset, int(batch_size), bool(shuffle)
        self.augment, self.workers, self.seed = augment, int(workers), int(seed)
        self.teacher_size = _teacher_size(teacher_size)
        self.drop_last = bool(drop_last)
        self.num_classes = getattr(dataset, "num_classes", None)
        self.class_names = getattr(dataset, "class_names", None)
        self._epoch = 0

    def __len__(self) -> int:
        """Number of batches in an epoch."""
        whole, rest = divmod(len(self.dataset), self.batch_size)
        return whole + bool(rest and not self.drop_last)

    def __iter__(self) -> Iterator[Batch]:
        epoch = self._epoch
        yield from self.epoch(epoch)
        self._epoch = epoch + 1

    def set_epoch(self, epoch: int) -> None:
        """The epoch that the next ``for batch in loader`` runs."""
        self._epoch = _whole("set_epoch", "epoch", epoch)

    def order(self, epoch: int) -> np.ndarray:
        """int64 (len(dataset),): the items of an epoch in their order."""
        if not self.shuffle:
            return np.arange(len(self.dataset))
        return self._rng(_ORDER, epoch).permutation(len(self.dataset))

    def epoch(self, epoch: int, start_batch: int = 0) -> Iterator[Batch]:
        """Batches `start_batch`, `start_batch + 1`, … of an epoch."""
        epoch = _whole("epoch", "epoch", epoch)
        start = _whole("epoch", "start_batch", start_batch)
        if start > len(self):
            raise ArgumentError(
                f"Loader: start_batch {start} is past the {len(self)} batches of an epoch"
            )
        order = self.order(epoch).tolist()
        size = self.batch_size
        chunks = [order[b * size : (b + 1) * size] for b in range(start, len(self))]
        if self.workers == 0:
            return (self._batch(epoch, chunk) for chunk in chunks)
        return self._threaded(epoch, chunks)

    def _threaded(self, epoch: int, chunks: list[list[int]]) -> Iterator[Batch]:
        pool = ThreadPoolExecutor(self.workers, thread_name_prefix="kdswift-loader")
        ahead: collections.deque[Future] = collections.deque()
        waiting = iter(chunks)
        try:
            for chunk in waiting:
                ahead.append(pool.submit(self._batch, epoch, chunk))
                if len(ahead) >= _BATCHES_AHEAD * self.workers:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            # Runs on break (the generator is closed), error and Ctrl-C alike.
            pool.shutdown(wait=True, cancel_futures=True)

    def _batch(self, epoch: int, indices: list[int]) -> Batch:
        items = [self._item(epoch, index) for index in indices]
        images = [image for image, _ in items]
        teacher = None
        if self.teacher_size is not None:
            teacher = [_resized(image, *self.teacher_size) for image in images]
        return Batch(images, [target for _, target in items], list(indices), teacher)

    def _item(self, epoch: int, index: int) -> tuple[np.ndarray, dict[str, Any]]:
        where = f"item {index}"
        try:
            image, target = self.dataset[index]
            image = to_uint8(as_image(image, where))
            target = check_target(target, image.shape, self.num_classes, where)
            if self.augment is not None:
                image, target = self.augment(image, target, self._rng(_AUGMENT, epoch, index))
                image = _check_view(image, target, where)
        except Exception as error:
            raise _named(error, where) from error
        return image, target

    def _rng(self, stream: int, *key: int) -> np.random.Generator:
        return np.random.Generator(np.random.PCG64([self.seed, stream, *key]))

    def __repr__(self) -> str:
        return (
            f"Loader({self.dataset!r}, batch_size={self.batch_size}, shuffle={self.shuffle}, "
            f"workers={self.workers}, seed={self.seed})"
        )


def _whole(function: str, name: str, value: int) -> int:
    if int(value) != value or value < 0:
        raise ArgumentError(f"Loader.{function}: {name} must be a whole number >= 0, got {value!r}")
    return int(value)


def _teacher_size(value: int | tuple[int, int] | None) -> tuple[int, int | None] | None:
    if value is None:
        return None
    size = (value, None) if np.isscalar(value) else tuple(value)
    if len(size) != 2 or int(size[0]) < 1 or (size[1] is not None and int(size[1]) < int(size[0])):
        raise ArgumentError(
            f"Loader: teacher_size must be short or (short, longest), got {value!r}"
        )
    return int(size[0]), None if size[1] is None else int(size[1])


def _resized(image: np.ndarray, short: int, longest: int | None) -> np.ndarray:
    height, width = image.shape[:2]
    return resize_image(image, *short_side_size(height, width, short, longest))


def _check_view(image: np.ndarray, target: dict, where: str) -> np.ndarray:
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
        raise ArgumentError(f"{where}: augment must return a uint8 (H, W, 3) image")
    if image.ndim != 3 or image.shape[2] != 3:
        raise ShapeError(f"{where}: augment must return a (H, W, 3) image, got {image.shape}")
    if len(target["boxes"]) != len(target["labels"]):
        raise ShapeError(
            f"{where}: augment returned {len(target['boxes'])} boxes "
            f"but {len(target['labels'])} labels"
        )
    masks = target.get("masks")
    if masks is not None and np.shape(masks) != (len(target["boxes"]), *image.shape[:2]):
        raise ShapeError(
            f"{where}: augment returned masks {np.shape(masks)} for {len(target['boxes'])} boxes "
            f"in an image of {image.shape[:2]}"
        )
    return np.ascontiguousarray(image)


def _named(error: Exception, where: str) -> Exception:
    """The error with the item in its message: of its own type if that is one of ours."""
    if isinstance(error, KDSError):
        return error if where in str(error) else type(error)(f"{where}: {error}")
    return KDSError(f"{where}: {type(error).__name__}: {error}")
