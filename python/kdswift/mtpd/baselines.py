"""What progressive distillation is compared with, at the same number of epochs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..comparisons.site import Site, head_maps
from ..detector import Detector
from ..distillation import Ensemble
from ..distillation import distill as distill_once
from ..errors import ArgumentError, ShapeError
from ..history import History
from ..methods import FeatureMatching, as_method
from ..teacher import Teacher, as_teacher
from .arguments import as_epochs, as_named, check_options
from .zoo import at_size, tap_table


def alone(
    student: Detector,
    teachers: Any,
    train: Any,
    epochs_per_teacher: int = 12,
    **options: Any,
) -> History:
    """The student without a teacher, for as many epochs as progressive distillation takes.

    teachers : what `kd.mtpd.distill` would get; only their number counts
    options : those of `Detector.fit`
    """
    count = len(as_named(teachers, "alone"))
    check_options(options, "alone", Detector.fit)
    return student.fit(train, _total(epochs_per_teacher, count), **options)


def direct(
    student: Detector,
    teachers: Any,
    train: Any,
    method: Any = None,
    epochs_per_teacher: int = 12,
    **options: Any,
) -> History:
    """The last teacher alone, in one schedule of the same length; see `kd.mtpd.distill`."""
    named = as_named(teachers, "direct")
    check_options(options, "direct")
    epochs = _total(epochs_per_teacher, len(named))
    last = list(named.values())[-1]
    return distill_once(student, last, train, _method(method), epochs, **options)


def ensemble(
    student: Detector,
    teachers: Any,
    train: Any,
    method: Any = None,
    epochs_per_teacher: int = 12,
    combine: str = "sum",
    **options: Any,
) -> History:
    """All teachers at once, in one schedule of the same length; see `kd.mtpd.distill`.

    combine : "sum": the sum over n teachers of lambda / n times the loss, each with connectors of
        its own; "average": the loss with the mean of their maps, which needs equal channels. The
        paper does not say which of them it means
    """
    if combine not in ("sum", "average"):
        raise ArgumentError(f"ensemble: combine is {combine!r}, expected 'sum' or 'average'")
    named = as_named(teachers, "ensemble")
    check_options(options, "ensemble")
    epochs = _total(epochs_per_teacher, len(named))
    models = list(named.values())
    together = Ensemble(models) if combine == "sum" else AverageTeacher(models)
    return distill_once(student, together, train, _method(method), epochs, **options)


class AverageTeacher(Teacher):
    """The mean of several teachers' maps under the first one's names, paired by stride; maps of
    other sizes are resized (bilinear) to the first one's."""

    kind = "average"

    def __init__(self, teachers: Sequence[Any]) -> None:
        super().__init__(None, getattr(teachers[0], "class_names", None))
        self._models = list(teachers)
        self._teachers = [as_teacher(one, "AverageTeacher") for one in teachers]
        self._names: list[list[str]] = []  # of every teacher, in the order of the first one's
        self._rows: list[Any] = []

    def taps(self, images: Sequence[np.ndarray]) -> list[dict[str, Any]]:
        """The rows of the first teacher for the levels that all have."""
        tables = [tap_table(one, images[0]) for one in self._models]
        pairs = [
            {
                own["name"]: other["name"]
                for own, other in Site(self._models[0], tables[0], one, table).level_pairs()
            }
            for one, table in zip(self._models, tables)
        ]
        self._rows = [
            row for row in head_maps(tables[0]) if all(row["name"] in names for names in pairs)
        ]
        if not self._rows:
            raise ArgumentError("AverageTeacher: the teachers have no level in common")
        channels = {
            row["channels"]
            for names, table in zip(pairs, tables)
            for row in table
            if row["name"] in (names[own["name"]] for own in self._rows)
        }
        if len(channels) > 1:
            raise ShapeError(
                f"AverageTeacher: the mean needs equal channels, there are {sorted(channels)}"
            )
        self._names = [[names[row["name"]] for row in self._rows] for names in pairs]
        self.names = tuple(row["name"] for row in self._rows)
        return [dict(row) for row in self._rows]

    def arrays(self, images: list[np.ndarray], names: Sequence[str] | None) -> Mapping[str, Any]:
        """The means."""
        if not self._names:
            self.taps(images)
        found = [one.outputs(images, own) for one, own in zip(self._teachers, self._names)]
        result = {}
        for level, row in enumerate(self._rows):
            maps = [taps[own[level]] for taps, own in zip(found, self._names)]
            total = maps[0].copy()
            for one in maps[1:]:
                total += at_size(one, total.shape[2:])
            result[row["name"]] = total * np.float32(1 / len(maps))
        return result

    def description(self) -> dict[str, Any]:
        """Those of all teachers."""
        return {"kind": self.kind, "teachers": [one.description() for one in self._teachers]}


def _total(epochs: Any, count: int) -> int:
    return sum(as_epochs(epochs, count))


def _method(method: Any) -> Any:
    return FeatureMatching() if method is None else as_method(method)
