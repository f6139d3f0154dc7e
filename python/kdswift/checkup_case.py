"""What `kd.doctor` tries its checks on: clones, one batch, single steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from . import _engine
from .callbacks import Callback
from .data.loader import Batch, Loader
from .detector import Detector
from .distillation import prepare
from .errors import KDSError
from .methods import Method, Part, Term
from .optimizers import SGD, as_optimizer
from .run_options import Options, check_classes
from .schedules import Constant
from .teachers.cached import CachedTeacher
from .training import Run

# Weights of order 1 vanish in an update of this size: the difference is the gradient to 24 bits.
STEEP = float(2**20)


@dataclass
class Outcome:
    """What one step did.

    metrics : numbers by name;  weights : the student's, before and after
    extras : connectors, before and after;  teachers : state dicts of detectors, before and after
    term_gradients, knobs, equal : of what Python compares, by label: gradients of the student's
        parameters; what weighs it, and how much; its loss between equal arrays (None: no meaning),
        or why there is none
    """

    metrics: dict[str, float] = field(default_factory=dict)
    weights: list[dict[str, np.ndarray]] = field(default_factory=list)
    extras: list[dict[str, np.ndarray]] = field(default_factory=list)
    teachers: list[list[dict[str, np.ndarray]]] = field(default_factory=list)
    term_gradients: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    knobs: dict[str, tuple[str, float]] = field(default_factory=dict)
    equal: dict[str, float | str | None] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


class First(Sequence):
    """The first items of a data set, with its classes."""

    def __init__(self, dataset: Any, count: int) -> None:
        self._dataset, self._count = dataset, min(count, len(dataset))
        for name in ("class_names", "num_classes", "evaluation_target"):
            value = getattr(dataset, name, None)
            if value is not None:
                setattr(self, name, value)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Any:
        if not 0 <= index < self._count:
            raise IndexError(index)
        return self._dataset[index]


class Case:
    """The patient: everything is cloned before it is touched."""

    def __init__(
        self,
        student: Any,
        teacher: Any,
        data: Any,
        method: Any,
        batch_size: int,
        sample: int,
        seed: int,
        optimizer: Any,
        teacher_size: Any,
    ) -> None:
        teachers, wanted, train = prepare(student, teacher, data, method, "doctor")
        # A part that acts later is looked at as it will be then.
        self.method = wanted.always()
        # A look at what a cache would keep must not fill it.
        self.teachers = [t.teacher if isinstance(t, CachedTeacher) else t for t in teachers]
        dataset = train.dataset if isinstance(train, Loader) else train
        self.dataset = dataset
        self.optimizer = as_optimizer(optimizer)
        self.seed, self.sample = seed, sample
        self.metric = "coco"
        if teacher_size is None and isinstance(train, Loader):
            teacher_size = train.teacher_size
        self.student = student.clone()
        options = (batch_size, False, None, 0, teacher_size)
        self.loader = Loader(First(dataset, batch_size), *options)
        self.loader.num_classes = student.num_classes
        check_classes(self.student.clone(), dataset, "data", "doctor")
        self.shares: dict[str, float] = {}
        self.outcome = Outcome()  # of the step with the method
        self._plain: dict[str, np.ndarray] | None = None

    def step(self, method: Method | None, optimizer: Any = None, tape: bool = False) -> Outcome:
        """One step of a clone with clones of the teachers; None: plain training.

        tape : walk each of Python's terms back by itself first
        """
        student = self.student.clone()
        teachers = [t.clone().train() if isinstance(t, Detector) else t for t in self.teachers]
        outcome = Outcome()
        options = Options(
            epochs=1,
            optimizer=self.optimizer if optimizer is None else optimizer,
            schedule=Constant(warmup=0),
            callbacks=_Watch(outcome, teachers),
            seed=self.seed,
            progress=False,
            workers=0,
        ).check("doctor")
        run = (_TapeRun if tape else Run)(
            student, teachers if method else (), method, self.loader, options
        )
        run.outcome = outcome
        run.run()
        return outcome

    def steep(self, method: Method | None) -> dict[str, np.ndarray]:
        """The gradient of everything with respect to the student's parameters, by name."""
        optimizer = SGD(lr=STEEP, momentum=0.0, weight_decay=0.0)
        before, after = self.step(method, optimizer).weights
        learned = {name for name, p in self.student.named_parameters() if p.requires_grad}
        return {
            name: (before[name].astype(np.float64) - after[name]) / STEEP
            for name in before
            if name in learned
        }

    @property
    def plain_gradient(self) -> dict[str, np.ndarray]:
        """That of plain training."""
        if self._plain is None:
            self._plain = self.steep(None)
        return self._plain

    @property
    def own_parts(self) -> list[Part]:
        """What Python compares."""
        return self.method.own_parts

    @property
    def parts(self) -> list[tuple[float, Any]]:
        """The engine's own parts with a weight, and their scales."""
        return [(p.scale, p.part) for p in self.method.engine_parts if p.scale > 0]


class _Watch(Callback):
    """Notes what a step changes."""

    def __init__(self, outcome: Outcome, teachers: Sequence[Any]) -> None:
        self._outcome, self._teachers = outcome, teachers

    def _note(self, run: Any) -> None:
        self._outcome.weights.append(run.model.state_dict())
        state = {name: value.numpy() for name, value in run._trainer.state().items()}
        extras = {n: v for n, v in state.items() if n.startswith(("connector.", "extra."))}
        self._outcome.extras.append(extras)
        detectors = [t for t in self._teachers if isinstance(t, Detector)]
        self._outcome.teachers.append([t.state_dict() for t in detectors])

    on_start = _note

    def on_step(self, run: Any) -> None:
        """After the only step."""
        self._note(run)
        self._outcome.metrics = dict(run.metrics)


class _TapeRun(Run):
    """A run that walks every term of Python's back by itself before it takes its step."""

    outcome: Outcome

    def _step(
        self, batch: Batch, images: _engine.Batch, views: _engine.Batch | None
    ) -> dict[str, float]:
        for part, one in self._terms.members if self._terms else ():
            losses = self._own_losses(batch, images, views)
            losses[one.label].backward()
            self.outcome.term_gradients[one.label] = {
                name: np.asarray(p.grad, dtype=np.float64)
                for name, p in self.model.named_parameters()
                if p.grad is not None
            }
            is_term = isinstance(part.part, Term)
            self.outcome.knobs[one.label] = (
                ("weight", one.weight * part.scale) if is_term else ("scale", part.scale)
            )
            self.outcome.equal[one.label] = self._equal(one, batch, images, views)
        self.outcome.notes = self._terms.notes() if self._terms else []
        return super()._step(batch, images, views)

    def _equal(
        self, one: Any, batch: Batch, images: _engine.Batch, views: _engine.Batch | None
    ) -> float | str | None:
        """The loss between equal arrays, or why there is none."""
        step = self._look(batch, images, views)
        try:
            loss = one.equal_loss(step)
            return None if loss is None else float(loss.item())
        except (KDSError, ValueError, IndexError, TypeError, AttributeError) as error:
            return f"not tried: {error}"
