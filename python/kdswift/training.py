"""The loop over steps and epochs that plain training and distillation share.

The engine does a step; here are its order, the files, the progress and the ways to end.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from . import _engine
from ._inputs import learnable
from ._interrupt import Interrupts
from ._version import __version__
from .checkpoint import Checkpoint, RunFolder, check_settings
from .comparisons.group import Comparisons
from .comparisons.step import Step
from .data.loader import Batch, Loader
from .errors import KDSError
from .evaluation import evaluate
from .heads import is_tower
from .history import History
from .methods import Method
from .modelfile import describe
from .progress import Progress, say
from .run_options import Options, engine_options, settings_of
from .teachers.group import TeacherGroup

_CURVES_EVERY = 60.0  # seconds; drawing takes about one


class Run:
    """One run, from its start or from a checkpoint, to its end.

    Attributes for callbacks: model, step, epoch, metrics, row, history, out.
    """

    def __init__(
        self,
        student: Any,
        teachers: Sequence[Any],
        method: Method | None,
        loader: Loader,
        options: Options,
    ) -> None:
        self.model, self.teachers, self.loader, self.options = student, teachers, loader, options
        self._group = TeacherGroup(teachers, method)
        self.settings = settings_of(options, loader, student, self._group.describe(), method)
        self.method = method
        self.out = None if options.out is None else str(options.out)
        self.history = History(out=self.out, settings=self.settings)
        self.folder = None if options.out is None else RunFolder(options.out)
        self.step = self.epoch = self.batch = 0
        self.metrics: dict[str, float] = {}
        self.row: dict[str, Any] = {}
        self._sums: dict[str, float] = {}
        self._best: float | None = None
        self._stopped = False
        self._lineage = [dict(entry) for entry in student.lineage]
        self._earlier_seconds, self._start = 0.0, time.monotonic()
        self._drawn = self._start
        self._saved_step = -1
        self._noted = False

    def stop(self) -> None:
        """End the run after this step or epoch, as if it had been asked for no more."""
        self._stopped = True

    def run(self) -> History:
        """Do it."""
        found = None if self.folder is None else self.folder.find(self.options.resume)
        state, source = found if found is not None else (None, None)
        if state is not None:
            check_settings(state.settings, self.settings, source)
        self._terms = self._make_terms()
        self._trainer = _engine.Trainer(
            self.model._engine,
            [teacher._engine for teacher in self._group.in_step],
            engine_options(self.settings, self._group.engine_method) | self._own_options(),
        )
        self._group.freeze()
        try:
            for name, parameter in (self._terms.parameters() if self._terms else {}).items():
                self._trainer.add_parameter(name, parameter)
            if state is not None:
                self._restore(state)
            if self.folder is not None:
                step, place = (state.step, source.parent) if state else (None, None)
                self.folder.open(self.history, step, place, self.options.resume is False)
            self._report()
            self._work()
        finally:
            self._trainer.close()
            self.model.eval()
            self._group.release()
        return self.history

    # The loop

    def _work(self) -> None:
        total = self._total_steps
        self._progress = Progress(total, self.step, self.options.progress)
        try:
            with Interrupts() as self._interrupts:
                self._call("on_start")
                try:
                    while self.epoch < self.options.epochs and not self._stopped:
                        if not self._run_epoch():
                            break
                except KeyboardInterrupt:
                    self._interrupts.asked = True
                self.history.interrupted = self._interrupts.asked
                self._finish()
        finally:
            self._progress.close()
        if self.history.interrupted:
            kept = "in the model" if self.out is None else f"in {self.out}; the same call continues"
            say(f"interrupted after step {self.step} of {total}; the weights are kept {kept}")

    def _run_epoch(self) -> bool:
        """Steps of an epoch from `self.batch` on, then what follows it; whether to go on."""
        self.model.train()
        for batch in self.loader.epoch(self.epoch, start_batch=self.batch):
            if self._interrupts.asked:
                return False
            self._do_step(batch)
            self._after_step()
            if self._interrupts.asked or self._stopped:
                return False
        self._end_epoch()
        return not self._interrupts.asked

    def _do_step(self, batch: Batch) -> None:
        images = _engine.Batch(batch.images, [learnable(target) for target in batch.targets])
        views = None
        try:
            if batch.teacher_images is not None and self._group.detectors:
                views = _engine.Batch(batch.teacher_images)
            self.metrics = self._step(batch, images, views)
        except KDSError as error:
            raise type(error)(self._failure(error, batch)) from error
        finally:
            images.close()
            if views is not None:
                views.close()

    def _step(
        self, batch: Batch, images: _engine.Batch, views: _engine.Batch | None
    ) -> dict[str, float]:
        """Both halves of a step; the metrics."""
        self._set_factors()
        if not self._terms:
            return self._trainer.step(images, views)
        metrics = self._trainer.finish(self._own_losses(batch, images, views))
        return self._terms.idle(self.step) | metrics

    def _own_losses(
        self, batch: Batch, images: _engine.Batch, views: _engine.Batch | None
    ) -> dict[str, Any]:
        """The first half of a step, and the terms that Python computes, on the tape."""
        assert self._terms is not None
        return self._terms.losses(self._look(batch, images, views))

    def _look(self, batch: Batch, images: _engine.Batch, views: _engine.Batch | None) -> Step:
        """The first half of a step: what the terms look at."""
        assert self._terms is not None
        # What teachers outside the step may get wrong comes before the student's statistics move.
        arrays = self._group.before(batch, images, views)
        taps = self._trainer.forward(images, views if self._group.in_step else None)
        return self._terms.step(taps, arrays | self._group.after(taps), self.step)

    def _set_factors(self) -> None:
        """The schedules of the parts that the engine computes."""
        for index, part in enumerate(self.method.engine_parts if self.method else ()):
            if part.windows and self._group.engine_parts:
                self._trainer.set_factor(index, part.factor(self.step, self._total_steps))

    def _failure(self, error: KDSError, batch: Batch) -> str:
        items = ", ".join(map(str, batch.indices[:16])) + (" …" if len(batch.indices) > 16 else "")
        kept = f"the weights are those of step {self.step}"
        if self._saved_step >= 0:
            kept += f", the checkpoint in {self.out} is of step {self._saved_step}"
        return f"step {self.step + 1}, epoch {self.epoch + 1}, items {items}: {error} ({kept})"

    def _after_step(self) -> None:
        self.step += 1
        if self.options.progress and self._terms and not self._noted:
            self._noted = True
            for note in self._terms.notes():
                say(note)
        self.batch += 1
        for name, value in self.metrics.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        self._sums["count"] = self._sums.get("count", 0) + 1
        self._sums["last lr"] = self.metrics["lr"]  # of a checkpoint at the end of an epoch, too
        if self.step % self.options.log_every == 0:
            row = {"epoch": self.epoch + 1, "step": self.step, **self.metrics}
            self.history.steps.append(row)
            if self.folder is not None:
                self.folder.add_step(row)
        self._progress.step(self.epoch + 1, self.metrics)
        self._call("on_step")
        every = self.options.checkpoint_every
        if self.folder is not None and every and self.step % every == 0:
            self._save_checkpoint()

    def _end_epoch(self) -> None:
        row: dict[str, Any] = {"epoch": self.epoch + 1, "step": self.step, **self._means()}
        score = self._evaluate()
        if score is not None:
            row |= {"AP": _number(score.AP), "AP50": _number(score.AP50)}
        row["seconds"] = round(self._seconds(), 1)
        self.row = row
        self.history.rows.append(row)
        self._progress.epoch(row)
        self.epoch, self.batch, self._sums = self.epoch + 1, 0, {}
        self._note_lineage()
        if self.folder is not None:
            self.folder.add_row(row)
            self._keep_best(row)
            self._save_checkpoint()
            self.model.save(self.folder.path / "last.safetensors")
            self._draw(only_if_due=True)
        self._call("on_epoch")

    def _means(self) -> dict[str, float]:
        sums = dict(self._sums)
        count, rate = sums.pop("count", 0) or 1, sums.pop("last lr", None)
        means = {name: value / count for name, value in sums.items()}
        return means if rate is None else means | {"lr": rate}

    def _evaluate(self) -> Any:
        """The score of the model, if it is time for one."""
        options, done = self.options, self.epoch + 1
        due = options.eval_every is not None and done % options.eval_every == 0
        if options.val is None or not (due or done == options.epochs):
            return None
        with self._interrupts.immediate():
            if self._interrupts.asked:
                raise KeyboardInterrupt
            return evaluate(
                self.model, options.val, options.metric, progress=False, workers=options.workers
            )

    # Files

    def _keep_best(self, row: dict[str, Any]) -> None:
        assert self.folder is not None
        score = row.get("AP")
        if score is not None and (self._best is None or score > self._best):
            self._best = score
            self.model.save(self.folder.path / "best.safetensors")

    def _save_checkpoint(self) -> None:
        if self.folder is None:
            return
        self._note_lineage()
        state = Checkpoint(
            model=self.model.state_dict(),
            trainer={name: value.numpy() for name, value in self._trainer.state().items()},
            step=self.step,
            epoch=self.epoch,
            batch=self.batch,
            sums=self._sums,
            settings=self.settings,
            description=describe(self.model),
            best=self._best,
            lineage=self._lineage,
            seconds=self._seconds(),
        )
        self.folder.save(state)
        self._saved_step = self.step

    def _restore(self, state: Checkpoint) -> None:
        for name, values in state.model.items():
            self.model._engine.load(name, values)
        for name, values in state.trainer.items():
            self._trainer.load(name, values)
        self._trainer.step_count = state.step
        self.step, self.epoch, self.batch = state.step, state.epoch, state.batch
        self._sums, self._best = dict(state.sums), state.best
        self._lineage, self._earlier_seconds = state.lineage, state.seconds
        self._saved_step = state.step
        if self.options.progress:
            say(f"continuing {self.out} after step {self.step}, epoch {self.epoch + 1}")

    def _finish(self) -> None:
        """The last files and callbacks, however the loop ended."""
        self._note_lineage()
        if self.folder is not None and self.step > 0:
            if self._saved_step != self.step:
                self._save_checkpoint()
            self.model.save(self.folder.path / "last.safetensors")
            self._draw()
        self._call("on_end")

    def _draw(self, only_if_due: bool = False) -> None:
        assert self.folder is not None
        if only_if_due and time.monotonic() - self._drawn < _CURVES_EVERY:
            return
        if self.history.rows or self.history.steps:
            self.history.plot(self.folder.path / "curves.png")
        self._drawn = time.monotonic()

    def _note_lineage(self) -> None:
        """What made the weights, for the model's file."""
        entry = {
            "run": "distill" if self.teachers else "fit",
            "version": __version__,
            "dataset": repr(self.loader.dataset)[:200],
            "teachers": [repr(teacher) for teacher in self.teachers],
            "method": None if self.method is None else repr(self.method),
            "steps": self.step,
            "seed": self.options.seed,
            "AP": self.row.get("AP"),
        }
        self.model.lineage = [*self._lineage, entry]

    # Odds and ends

    @property
    def _total_steps(self) -> int:
        return self.options.epochs * len(self.loader)

    def _own_options(self) -> dict[str, Any]:
        """What the method wants of the engine's step: parts of the teacher that nobody reads do
        not run."""
        names = [name for _, name in self._terms.sources] if self._terms else []
        own = [row["name"] for row, _ in self._terms.pairs] if self._terms else []
        return {
            "region_taps": any(name.startswith("roi.") for name in names),
            "head_taps": self._group.engine_parts
            or not names
            or not all(name.startswith(("backbone.", "neck.")) for name in names),
            "tower_taps": any(is_tower(name) for name in (*names, *own)),
            "loss_weights": {} if self.method is None else self.method.loss_weights,
        }

    def _make_terms(self) -> Comparisons | None:
        self._group.check_parts(self.loader)
        return self._group.comparisons(
            self.model, self.loader, self.options.seed, self._total_steps
        )

    def _report(self) -> None:
        """Print what is compared with what, before time is spent."""
        if not (self.options.progress and self.teachers):
            return
        from .shape_report import shape_report

        rows = self._terms.report() if self._terms else []
        if self._group.teachers:
            say(shape_report(self._trainer.report(), rows))
        for line in self._group.lines(self.loader):
            say(line)

    def _seconds(self) -> float:
        return self._earlier_seconds + time.monotonic() - self._start

    def _call(self, name: str) -> None:
        for callback in self.options.callbacks:
            getattr(callback, name)(self)


def _number(value: float) -> float | None:
    return None if value != value else float(value)
