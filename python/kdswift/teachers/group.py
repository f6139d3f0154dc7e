"""The teachers of a run: which of them the engine asks, and where the arrays of terms come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .. import _engine
from .._autograd import no_grad
from ..comparisons.group import Comparisons
from ..comparisons.step import Source
from ..data.images import as_image, to_uint8
from ..data.loader import Batch, Loader, _resized
from ..detector import Detector
from ..errors import ArgumentError, ShapeError
from ..methods import Method
from ..run_options import check_classes
from ..teacher import Teacher, check_finite
from ..tensors import Tensor, tensor
from .cached import CachedTeacher
from .detectors import describe_detector, missing_in_features


class TeacherGroup:
    """All teachers of one run.

    Detectors that the method's own parts need, or whose regions a term compares, run inside the
    engine's step; every other array is computed here before the step begins.
    """

    def __init__(self, teachers: Sequence[Detector | Teacher], method: Method | None) -> None:
        self.all = tuple(teachers)
        self.labellers = [t for t in self.all if hasattr(t, "detections")]
        self.teachers = [t for t in self.all if not hasattr(t, "detections")]
        self.detectors = [t for t in self.teachers if isinstance(t, Detector)]
        self.method = method
        self._parts = [] if method is None else method.to_dict()["parts"]
        self._needed: dict[int, list[str]] = {}
        self._stepped: int | None = None  # the teacher whose taps the engine's step gives
        self._offers: list[list[dict[str, Any]]] = []

    def __len__(self) -> int:
        return len(self.teachers)

    # Before the first step

    def taps(self, loader: Loader) -> list[list[dict[str, Any]]]:
        """What each teacher offers; teachers outside the engine are asked with the first item."""
        if self._offers or not self.teachers:
            return self._offers
        view = None
        for teacher in self.teachers:
            if isinstance(teacher, Detector):
                self._offers.append(teacher._taps())
                continue
            view = first_view(loader) if view is None else view
            self._offers.append(teacher.taps([view]))
        return self._offers

    def check_parts(self, loader: Loader) -> None:
        """Refuse parts that only detectors can teach."""
        if self._has_parts or not any(part["scale"] for part in self._parts):
            self._check_parts_classes(loader)
            return
        if not self.teachers:
            raise ArgumentError(
                f"distill: {self.labellers[0]!r} gives boxes, nothing that the method could "
                "compare; leave method away, or add a kdswift detector"
            )
        offers = self.taps(loader)
        index = next(i for i, t in enumerate(self.teachers) if not isinstance(t, Detector))
        names = [row["name"] for row in offers[index]]
        engine_parts = self.method.engine_parts if self.method else []
        parts = [type(part.part).__name__ for part in engine_parts if part.scale]
        raise ArgumentError(
            f"distill: {parts[0]} needs kdswift detectors as teachers; "
            f"{self.teachers[index]!r} offers {', '.join(names)}: compare them by "
            f"kd.Method([kd.Term(student_tap, {names[0]!r})])"
        )

    def _check_parts_classes(self, loader: Loader) -> None:
        """The engine's parts compare class scores: teachers need the data's classes."""
        acting = [part for part in self._parts if part["scale"] and part.get("rcn", True)]
        for one in self.detectors if acting else ():
            if loader.num_classes not in (None, one.num_classes):
                raise ArgumentError(
                    f"distill: the teacher has {one.num_classes} classes, the student "
                    f"{loader.num_classes} (both count the background); Chen2017 compares class "
                    "scores, kd.methods.SoftLabels maps classes"
                )
            check_classes(one, loader.dataset, "train", "distill (teacher)")

    def need(self, sources: Sequence[Source]) -> None:
        """Tell which arrays the terms will ask for."""
        for index, name in sources:
            names = self._needed.setdefault(index, [])
            if name not in names:
                names.append(name)
        self._stepped = self._choose_stepped()
        for index, names in self._needed.items():
            if isinstance(self.teachers[index], Detector) and index != self._stepped:
                for name in missing_in_features(self.teachers[index], names):
                    raise ArgumentError(
                        f"distill: {name!r} of a teacher exists only for the regions of a training "
                        f"step, which one teacher can have: choose one by '{self._stepped}:{name}'"
                    )

    def check_classes(
        self, student: Detector, pairs: Sequence[tuple[Mapping, list[Source]]]
    ) -> None:
        """Class logits mean the same only for the same classes, in the same order."""
        for tap, sources in pairs:
            if tap["kind"] != "class_logits" or tap["name"].startswith("rpn."):
                continue
            for index, name in sources:
                count = getattr(self.teachers[index], "num_classes", student.num_classes)
                if count != student.num_classes:
                    raise ArgumentError(
                        f"distill: the student's {tap['name']} has {student.num_classes} classes, "
                        f"the teacher {count} (both count the background); "
                        "kd.methods.SoftLabels maps classes"
                    )
                theirs, ours = self.teachers[index].class_names, student.class_names
                if theirs is not None and ours is not None and tuple(theirs) != tuple(ours):
                    raise ArgumentError(
                        f"distill: {tap['name']} has the classes {', '.join(ours)}; the teacher's "
                        f"{name} has {', '.join(theirs)}"
                    )

    def _choose_stepped(self) -> int | None:
        detectors = [i for i in self._needed if isinstance(self.teachers[i], Detector)]
        if self._has_parts or not self._needed:
            return 0 if self.detectors else None
        regions = [i for i in detectors if missing_in_features(self.teachers[i], self._needed[i])]
        return min(regions or detectors, default=None)

    def comparisons(
        self, student: Detector, loader: Loader, seed: int, total_steps: int
    ) -> Comparisons | None:
        """What the method compares outside the engine's step, checked; None: nothing."""
        own = [] if self.method is None else self.method.own_parts
        if not own:
            return None
        if not self.teachers:
            raise ArgumentError(
                f"distill: {self.labellers[0]!r} gives boxes, no taps for "
                f"{own[0].part.label}; leave method away, or add a teacher with taps"
            )
        assert self.method is not None
        taps = self.taps(loader)
        result = Comparisons(
            *(self.method, student, student._taps(), self.teachers, taps, seed, total_steps)
        )
        if not result.members:
            return None
        self.need(result.sources)
        self.check_classes(student, result.class_pairs)
        return result

    @property
    def engine_parts(self) -> bool:
        """Whether the engine's own parts act."""
        return self._has_parts

    @property
    def _has_parts(self) -> bool:
        only_detectors = bool(self.detectors) and len(self.detectors) == len(self.teachers)
        return bool(self._parts) and only_detectors

    @property
    def in_step(self) -> list[Detector]:
        """The detectors that the engine's step runs: all for parts of its own, else what terms
        need."""
        if self._has_parts or not self._needed:
            return self.detectors
        return [] if self._stepped is None else [self.teachers[self._stepped]]

    @property
    def engine_method(self) -> dict[str, Any] | None:
        """The method as the engine reads it; parts without weight need no teacher."""
        if self.method is None:
            return None
        return {"parts": self._parts if self._has_parts else []}

    def freeze(self) -> None:
        """No teacher learns, and none takes batch statistics."""
        for one in self.detectors:
            one._engine.set_training(False)
            one._engine.set_requires_grad(False)

    def release(self) -> None:
        """Give detectors back as they came."""
        for one in self.detectors:
            one._engine.set_training(one.training)
            one.freeze(one.frozen)

    def describe(self) -> list[dict[str, Any]]:
        """What the run's course depends on, in the order given."""
        return [
            describe_detector(t) if isinstance(t, Detector) else t.description() for t in self.all
        ]

    def lines(self, loader: Loader) -> list[str]:
        """What a report says of them beside the terms."""
        result = []
        for one in self.labellers:
            kept = "merged with" if one.keep_ground_truth else "instead of"
            result.append(
                f"pseudo-labels: {one.count():,} boxes with a score of at least "
                f"{one.score_threshold:g} in {len(one.image_ids):,} images of {one.source}, "
                f"{kept} the data set's own; no taps are compared"
            )
        for index, one in enumerate(self.teachers):
            if isinstance(one, CachedTeacher) and index in self._needed:
                result.append(_cache_line(one, loader, self._needed[index]))
        return result

    # Every step

    def before(
        self, batch: Batch, images: _engine.Batch, views: _engine.Batch | None
    ) -> dict[Source, Tensor]:
        """Arrays of the teachers that the engine's step does not run."""
        pixels = batch.images if batch.teacher_images is None else batch.teacher_images
        result: dict[Source, Tensor] = {}
        for index, names in self._needed.items():
            if index == self._stepped:
                continue
            teacher = self.teachers[index]
            if isinstance(teacher, Detector):
                with no_grad():
                    taps = teacher._engine.features(images if views is None else views)
                result |= {(index, name): taps[name] for name in names}
                continue
            for name, array in teacher.outputs(pixels, names).items():
                self._check(index, name, array, batch.indices)
                result[index, name] = tensor(array)
        return result

    def after(self, taps: Mapping[str, Tensor]) -> dict[Source, Tensor]:
        """Arrays of the teacher that the engine's step ran, from its taps."""
        if self._stepped is None:
            return {}
        names = self._needed.get(self._stepped, [])
        return {(self._stepped, name): taps[f"teacher.{name}"] for name in names}

    def _check(self, index: int, name: str, array: Any, items: Sequence[int]) -> None:
        check_finite(array, f"tap {name!r}", items)
        row = next(row for row in self._offers[index] if row["name"] == name)
        # Every map has a stride, those of class scores and boxes too.
        was_map = row["kind"] == "feature" or row.get("stride") is not None
        channels = array.shape[1] if array.ndim > 1 else 1
        # The length of a sequence may follow the image's size, as that of a map does.
        if (array.ndim == 4) != was_map or (array.ndim != 3 and channels != row["channels"]):
            axes = "(N, C, H, W)" if was_map else "(N, …)"
            raise ShapeError(
                f"teacher: tap {name!r} has shape {array.shape} now; for the first item it was "
                f"{axes} with {row['channels']} channels"
            )


def first_view(loader: Loader) -> Any:
    """The first image of the data set, not augmented, at the teacher's size."""
    image = to_uint8(as_image(loader.dataset[0][0], "item 0"))
    return image if loader.teacher_size is None else _resized(image, *loader.teacher_size)


def _cache_line(teacher: CachedTeacher, loader: Loader, names: Sequence[str]) -> str:
    size = teacher.estimate(loader.dataset, names)
    total = f"{_bytes(size['bytes'])} for {size['images']:,} images"
    if loader.augment is not None:
        total += " and view of each, anew in every epoch where views are random"
    short = "; THAT IS MORE THAN THERE IS" if size["bytes"] > size["free"] else ""
    line = (
        f"cache: {_bytes(size['bytes_per_image'])} per image, {total}, in {teacher.folder} "
        f"({_bytes(size['free'])} free{short}); about {_time(size['seconds'])} of the teacher "
        "where nothing is kept yet"
    )
    if "max_error" in size:
        line += (
            f"; float16 rounds by at most {size['max_error']:.1e} of the largest value, "
            f"{size['mean_error']:.1e} of the mean value on average"
        )
    return line


def _time(seconds: float) -> str:
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.2g} {unit}"
    return f"{seconds:.2g} s"


def _bytes(count: float) -> str:
    for unit in ("B", "KB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"
