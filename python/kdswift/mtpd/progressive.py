"""`kd.mtpd.distill`: one teacher after the other, a whole schedule for each."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .._numbers import check_count
from ..callbacks import Callback, EarlyStopping, as_callbacks
from ..data.loader import Loader
from ..detector import Detector
from ..distillation import distill as distill_once
from ..errors import ArgumentError, KDSError
from ..history import CsvFile, History
from ..inheritance import as_parts, inherit
from ..methods import Method
from ..progress import say
from .arguments import as_epochs, as_methods, as_named, check_options
from .plan import Plan
from .progressive_history import ProgressiveHistory
from .selection import Selection
from .stages import StageFolder


def distill(
    student: Detector,
    teachers: Plan | Selection | Sequence[Any] | Mapping[str, Any],
    train: Any,
    method: Any = None,
    epochs_per_teacher: int = 12,
    out: str | os.PathLike | None = None,
    resume: Any = "auto",
    inherit: Any = (),
    val: Any = None,
    **options: Any,
) -> ProgressiveHistory:
    """Distil from one teacher after the other (Cao et al., ICML 2023).

    Every teacher is a run of its own: the schedule of the learning rate begins anew with its
    warm-up, the optimizer forgets, connectors are made afresh; only the student's weights go on.

    Parameters
    ----------
    student : changed in place; the first stage begins with the weights it has
    teachers : a `Plan`, a `Selection`, or detectors and `kd.Teacher`s, first to last; a mapping
        gives them names
    method : any of `kd.distill`'s; default ``kd.methods.FeatureMatching()``; or a list, one for
        each teacher
    epochs_per_teacher : a number, or a list, one for each teacher
    out : folder; each stage has one inside, ``stage-1-NAME``, and ``stages.json`` tells which are
        done
    resume : "auto" continues what is in `out`, in whichever stage, bit for bit as if it had never
        stopped; True insists on it; False starts over
    inherit : parts of the first teacher with which the student begins: "neck", "head", both, or
        True; see `kd.inherit`. The released configurations do that for MGD; for feature matching
        the paper begins with a trained student
    val, options : those of `kd.distill`; the same for every stage but for the seed: the first has
        `seed` itself, the others get theirs from it and their number

    Callbacks see every stage as a run. What `kd.EarlyStopping` ends is finished, and the next
    teacher follows; any other ``run.stop()`` ends the whole, and the same call continues it.
    The student's `lineage` has an entry per stage with the teacher's name.

    Returns a `ProgressiveHistory`. Raises what `kd.distill` raises.
    """
    named = as_named(teachers, "mtpd.distill")
    check_options(options, "mtpd.distill")
    if resume not in ("auto", True, False):
        raise ArgumentError(f"mtpd.distill: resume is {resume!r}, expected 'auto', True or False")
    if out is None and resume is True:
        raise ArgumentError("mtpd.distill: resume=True needs out=, the run's folder")
    stages = _Stages(
        *(student, named, train, as_methods(method, len(named))),
        *(as_epochs(epochs_per_teacher, len(named)), as_parts(inherit), {"val": val, **options}),
    )
    return stages.run(out, resume)


class _Stages:
    """One call."""

    def __init__(
        self,
        student: Detector,
        teachers: dict[str, Any],
        train: Any,
        methods: list[Method],
        epochs: list[int],
        parts: tuple[str, ...],
        options: dict[str, Any],
    ) -> None:
        if not isinstance(student, Detector):
            raise ArgumentError(f"student must be a kdswift detector, got {type(student).__name__}")
        self.student, self.names, self.train = student, list(teachers), train
        self.teachers, self.methods, self.epochs = list(teachers.values()), methods, epochs
        self.parts, self.options = parts, dict(options)
        self.seed = check_count(self.options.pop("seed", 0), "seed", "mtpd.distill", least=0)
        self.callbacks = as_callbacks(self.options.pop("callbacks", ()))
        self.progress = bool(self.options.get("progress", True))

    def run(self, out: str | os.PathLike | None, resume: Any) -> ProgressiveHistory:
        """All stages that are not done."""
        folder = None if out is None else StageFolder(out, self.names, self._settings())
        history = ProgressiveHistory(out=None if out is None else str(out))
        if folder is not None:
            folder.open(resume)
            history.settings = folder.settings
            self._take_over(folder, history)
        for stage in range(0 if folder is None else folder.done, len(self.names)):
            if stage == 0:
                self._inherit()
            finished = self._stage(stage, folder, history)
            if folder is not None:
                self._results(folder, history)
            if not finished:
                break
        return history

    def _take_over(self, folder: StageFolder, history: ProgressiveHistory) -> None:
        """What finished stages left."""
        for stage in range(folder.done):
            rows, steps = folder.rows(stage)
            history.add(History(rows, steps, out=str(folder.folders[stage])), self.names[stage])
        if not folder.done:
            return
        tensors, lineage = folder.weights(folder.done - 1)
        self.student.load_state_dict(tensors)
        self.student.lineage = lineage
        self._name_lineage(folder.done - 1)
        if self.progress:
            say(f"{folder.done} of {len(self.names)} stages in {folder.path} are done")

    def _inherit(self) -> None:
        if not self.parts:
            return
        report = inherit(self.student, self.teachers[0], self.parts)
        if not report.loaded:
            raise KDSError(
                f"mtpd.distill: nothing of {self.names[0]} fits the student\n{report.problems()}"
            )
        if self.progress:
            say(f"inherited from {self.names[0]}: {report!r}")

    def _stage(self, stage: int, folder: StageFolder | None, history: ProgressiveHistory) -> bool:
        """One stage; whether it came to its end."""
        if self.progress:
            say(f"stage {stage + 1} of {len(self.names)}: {self.names[stage]}")
        seed, watch = stage_seed(self.seed, stage), _Watch(self.callbacks)
        one = distill_once(
            self.student,
            self.teachers[stage],
            of_stage(self.train, stage),
            self.methods[stage],
            self.epochs[stage],
            out=None if folder is None else folder.folders[stage],
            seed=seed,
            callbacks=watch,
            **self.options,
        )
        history.add(one, self.names[stage])
        self._name_lineage(stage)
        finished = not one.interrupted and not watch.stopped
        if finished and folder is not None:
            self.student.save(folder.path / "last.safetensors")
            folder.finish(stage)
        return finished

    def _name_lineage(self, stage: int) -> None:
        """Tell in the newest entry of the lineage which stage it was."""
        if self.student.lineage:
            self.student.lineage[-1] |= {
                "run": "mtpd.distill",
                "stage": stage + 1,
                "of": len(self.names),
                "teacher": self.names[stage],
            }

    def _results(self, folder: StageFolder, history: ProgressiveHistory) -> None:
        CsvFile(folder.path / "results.csv", history.rows)
        if history.rows:
            history.plot(folder.path / "curves.png")

    def _settings(self) -> dict[str, Any]:
        """What decides the course of the whole run; each stage's folder knows the rest."""
        from ..teachers.group import TeacherGroup

        return {
            "student": self.student.configuration,
            "teachers": dict(zip(self.names, TeacherGroup(self.teachers, None).describe())),
            "order": self.names,
            "methods": [method.describe() for method in self.methods],
            "epochs_per_teacher": self.epochs,
            "inherit": list(self.parts),
            "seed": self.seed,
            "dataset_length": len(getattr(self.train, "dataset", self.train)),
        }


class _Watch(Callback):
    """Hands on everything, and knows whether the run was stopped by something else than
    `kd.EarlyStopping`."""

    def __init__(self, callbacks: Sequence[Callback]) -> None:
        self._callbacks, self.stopped = list(callbacks), False

    def on_start(self, run: Any) -> None:
        """Hand on. A stage that was killed after its early end must not go on for an epoch."""
        self._each("on_start", run)
        for callback in self._callbacks:
            if isinstance(callback, EarlyStopping) and run.history.rows:
                callback.on_epoch(run)

    def on_step(self, run: Any) -> None:
        """Hand on."""
        self._each("on_step", run)

    def on_epoch(self, run: Any) -> None:
        """Hand on."""
        self._each("on_epoch", run)

    def on_end(self, run: Any) -> None:
        """Hand on."""
        for callback in self._callbacks:
            callback.on_end(run)

    def _each(self, name: str, run: Any) -> None:
        for callback in self._callbacks:
            before = run._stopped
            getattr(callback, name)(run)
            if run._stopped and not before and not isinstance(callback, EarlyStopping):
                self.stopped = True


def stage_seed(seed: int, stage: int) -> int:
    """The seed of a stage: the first one's is `seed`, so that one teacher is plain distillation."""
    if stage == 0:
        return seed
    return int(np.random.SeedSequence([seed, stage]).generate_state(1)[0])


def of_stage(train: Any, stage: int) -> Any:
    """The data; a loader, which draws by a seed of its own, as a copy with the stage's."""
    if not isinstance(train, Loader) or stage == 0:
        return train
    train = copy.copy(train)
    train.seed = stage_seed(train.seed, stage)
    return train
