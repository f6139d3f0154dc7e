"""The options of a run, checked once, and the loader they lead to."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ._numbers import check_count
from .callbacks import Callback, as_callbacks
from .data.loader import Loader
from .errors import ArgumentError
from .evaluation import METRICS
from .optimizers import Optimizer, as_optimizer
from .schedules import Schedule, as_schedule


@dataclass
class Options:
    """What `kd.distill` and `Detector.fit` share; see there."""

    epochs: int = 12
    val: Any = None
    optimizer: Any = None
    schedule: Any = None
    batch_size: int = 8
    out: str | os.PathLike | None = None
    resume: Any = "auto"
    callbacks: Any = ()
    precision: str = "fp32"
    seed: int = 0
    progress: bool = True
    augment: Any = None
    workers: int = 2
    eval_every: int | None = 1
    metric: str = "coco"
    checkpoint_every: int | None = None
    log_every: int = 10
    clip_norm: float = 0.0

    def check(self, where: str) -> Options:
        """Raise ``ArgumentError`` for what cannot be, and turn short forms into objects."""
        for name in ("epochs", "batch_size", "log_every"):
            setattr(self, name, check_count(getattr(self, name), name, where))
        for name in ("seed", "workers"):
            setattr(self, name, check_count(getattr(self, name), name, where, least=0))
        for name in ("eval_every", "checkpoint_every"):
            if getattr(self, name) is not None:
                check_count(getattr(self, name), name, where)
        if self.precision not in ("fp32", "bf16"):
            raise ArgumentError(
                f"{where}: precision is {self.precision!r}, expected 'fp32' or 'bf16'"
            )
        if self.metric not in METRICS:
            raise ArgumentError(
                f"{where}: metric is {self.metric!r}, expected one of {', '.join(METRICS)}"
            )
        if isinstance(self.clip_norm, bool) or not 0 <= self.clip_norm < float("inf"):
            raise ArgumentError(
                f"{where}: clip_norm is {self.clip_norm!r}, expected 0 (off) or more"
            )
        if self.out is None and self.resume not in ("auto", False):
            raise ArgumentError(f"{where}: resume={self.resume!r} needs out=, the run's folder")
        self.optimizer: Optimizer = as_optimizer(self.optimizer)
        self.schedule: Schedule = as_schedule(self.schedule)
        self.callbacks: list[Callback] = as_callbacks(self.callbacks)
        return self


def make_loader(train: Any, options: Options, model: Any, teacher_size: Any, where: str) -> Loader:
    """The loader of a run; checks that data and model speak of the same classes."""
    if isinstance(train, Loader):
        loader = train
    else:
        if not hasattr(train, "__len__") or not hasattr(train, "__getitem__"):
            raise ArgumentError(
                f"{where}: train must be a data set (a sequence of (image, target)) or a "
                f"kd.data.Loader, got {type(train).__name__}"
            )
        loader = Loader(
            *(train, options.batch_size, True, options.augment, options.workers, teacher_size),
            seed=options.seed,
        )
    if len(loader) == 0:
        raise ArgumentError(f"{where}: train is empty")
    check_classes(model, loader.dataset, "train", where)
    if loader.num_classes is None:
        loader.num_classes = model.num_classes
    return loader


def check_classes(model: Any, dataset: Any, name: str, where: str) -> None:
    """Refuse a data set with other classes than the model's; names the model has not yet are
    taken over."""
    names: Sequence[str] | None = getattr(dataset, "class_names", None)
    count = len(names) if names is not None else getattr(dataset, "num_classes", None)
    if count is not None and count != model.num_classes:
        raise ArgumentError(
            f"{where}: {name} has {count} classes, the model {model.num_classes} "
            "(both count the background)"
        )
    if names is None:
        return
    if model.class_names is None:
        model.class_names = tuple(names)
    for i, (ours, theirs) in enumerate(zip(model.class_names, names)):
        if i and ours != theirs:
            raise ArgumentError(
                f"{where}: class {i} is {theirs!r} in {name}, {ours!r} in the model"
            )


def settings_of(
    options: Options,
    loader: Loader,
    student: Any,
    teachers: Sequence[dict[str, Any]],
    method: Any,
) -> dict[str, Any]:
    """What decides the course of a run, as plain data: a resumed run must have the same.

    teachers : descriptions of them
    """
    total = options.epochs * len(loader)
    settings = {
        "student": student.configuration,
        "teachers": list(teachers),
        "method": None if method is None else method.describe(),
        "optimizer": options.optimizer.to_dict(),
        "schedule": options.schedule.resolve(total, len(loader)),
        "dataset_length": len(loader.dataset),
        "batch_size": loader.batch_size,
        "shuffle": loader.shuffle,
        "teacher_size": loader.teacher_size,
        "augment": _plain_name(loader.augment),
        "loader_seed": loader.seed,
        "seed": options.seed,
        "clip_norm": float(options.clip_norm),
        "precision": options.precision,
    }
    return json.loads(json.dumps(settings))


ENGINE_SETTINGS = ("optimizer", "schedule", "clip_norm", "seed", "precision")


def engine_options(settings: dict[str, Any], method: dict[str, Any] | None) -> dict[str, Any]:
    """The options of the engine's trainer; `method` is what it computes itself."""
    options = {name: settings[name] for name in ENGINE_SETTINGS}
    if method is not None:
        options["method"] = method
    return options


def fingerprint(model: Any) -> str:
    """A checksum of all weights."""
    from ._files import checksum

    return checksum(model.state_dict(), "")


def _plain_name(value: Any) -> str | None:
    """What a transform prints, without addresses, which differ from run to run."""
    return None if value is None else re.sub(r" at 0x[0-9a-f]+", "", repr(value))
