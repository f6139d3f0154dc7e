"""`kd.distill`: a student learns from data and from its teachers."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterable, Sequence
from typing import Any

from .data.loader import Loader
from .detector import Detector
from .errors import ArgumentError
from .history import History
from .methods import Method, as_method
from .run_options import Options, check_classes, make_loader
from .teacher import Teacher, as_teacher
from .training import Run


class Ensemble:
    """Several teachers whose outputs are averaged. A plain list means the same.

    In a `kd.Term`, ``teacher_tap="1:NAME"`` takes the tap of the second one alone.
    """

    def __init__(self, teachers: Iterable[Detector | Teacher]) -> None:
        self.teachers = tuple(teachers)
        if not self.teachers:
            raise ArgumentError("Ensemble: teachers is empty")

    def __len__(self) -> int:
        return len(self.teachers)

    def __repr__(self) -> str:
        return f"Ensemble({list(self.teachers)!r})"


def distill(
    student: Detector,
    teacher: Detector | Teacher | Sequence[Detector | Teacher] | Ensemble,
    train: Any,
    method: Method | None = None,
    epochs: int = 12,
    val: Any = None,
    optimizer: Any = None,
    schedule: Any = None,
    batch_size: int = 8,
    out: str | os.PathLike | None = None,
    resume: Any = "auto",
    callbacks: Any = (),
    precision: str = "fp32",
    seed: int = 0,
    progress: bool = True,
    augment: Any = None,
    workers: int = 2,
    teacher_size: int | tuple[int, int] | None = None,
    eval_every: int | None = 1,
    metric: str = "coco",
    checkpoint_every: int | None = None,
    log_every: int = 10,
    clip_norm: float = 0.0,
) -> History:
    """Train a student with the help of teachers.

    Parameters
    ----------
    student : Detector
        Changed in place; the run continues from the weights it has.
    teacher : Detector, kd.Teacher, a list of them, or kd.Ensemble
        Never changed. A method that compares class scores needs the student's classes, or a
        ``class_map`` (`kd.methods.SoftLabels`). A `kd.Teacher` serves the methods that compare
        taps; one from COCO results adds its boxes to the data (`kd.data.PseudoLabels`).
    train : sequence of (image, target), or a kd.data.Loader
    method : one of kd.methods, or a kd.Method of your own terms; None: ``kd.methods.Chen2017()``
    epochs : int
    val : data set that is evaluated every `eval_every` epochs (None: only at the end) by `metric`
    optimizer : kd.SGD (default, lr 0.01), kd.Adam or kd.AdamW
    schedule : kd.Cosine (default, after 5 % warm-up), kd.Linear, kd.Step or kd.Constant
    batch_size, augment, workers : see `kd.data.Loader`; used unless `train` is a loader
    out : folder for checkpoint, models, results.csv and curves.png; None writes nothing
    resume : "auto", True, False or a path
        "auto" continues the run in `out` if there is one, bit for bit as if it had never stopped,
        and refuses if its settings differ; True insists on one; False starts over and removes
        what `out` holds; a path continues another run's checkpoint.
    callbacks : kd.Callback objects, or functions of the run that are called after every epoch
    precision : "fp32" or "bf16"
        bf16 computes convolutions of student and teachers in bfloat16 with float32 sums; weights,
        optimizer, statistics and losses stay float32. Needs AVX512-BF16 or AMX.
    seed : decides order, views, samples and dropout; the same seed gives the same weights
    progress : show a bar, and before it a report of what is compared
    teacher_size : short side, or (short, longest) side, of the images that the teacher gets; None:
        the student's images, which a detector scales to its own `image_size`
    checkpoint_every : steps between checkpoints inside an epoch; there is always one at its end
    log_every : steps between the rows of steps.csv and ``History.steps``
    clip_norm : largest norm of the gradient; 0 is off

    Returns
    -------
    History with a row per epoch. Ctrl-C finishes the step, keeps everything and returns with
    ``interrupted`` set.

    Raises
    ------
    ArgumentError, ShapeError : an argument that cannot be, or a bad image or box, by name
    FormatError : a damaged checkpoint and no earlier one to continue from
    KDSError : a loss or gradient that is not finite; the weights stay those of the last good step
    """
    options = Options(
        *(epochs, val, optimizer, schedule, batch_size, out, resume, callbacks, precision, seed),
        *(progress, augment, workers, eval_every, metric, checkpoint_every, log_every, clip_norm),
    ).check("distill")
    teachers, method, train = prepare(student, teacher, train, method, "distill")
    loader = make_loader(train, options, student, teacher_size, "distill")
    if val is not None:
        check_classes(student, val, "val", "distill")
    return Run(student, teachers, method, loader, options).run()


def fit(
    model: Detector,
    train: Any,
    options: Options,
) -> History:
    """Train without a teacher; see `Detector.fit`."""
    _detector(model, "model")
    options = options.check("fit")
    loader = make_loader(train, options, model, None, "fit")
    if options.val is not None:
        check_classes(model, options.val, "val", "fit")
    return Run(model, (), None, loader, options).run()


def prepare(
    student: Any, teacher: Any, train: Any, method: Any, where: str
) -> tuple[tuple[Detector | Teacher, ...], Method, Any]:
    """Checked teachers, the method, and the data with the boxes of those that only give boxes."""
    teachers = _teachers(teacher, student, where)
    labellers = [t for t in teachers if hasattr(t, "detections")]
    if method is None and len(labellers) == len(teachers):
        method = Method()  # boxes alone: there is nothing to compare
    return teachers, as_method(method), _with_boxes(train, labellers)


def _with_boxes(train: Any, labellers: Sequence[Any]) -> Any:
    """The data with the boxes of teachers that give nothing else; a loader is copied."""
    from .data import PseudoLabels

    for one in labellers:
        if isinstance(train, Loader):
            inner, train = train, copy.copy(train)
            train.dataset = PseudoLabels(inner.dataset, one)
        else:
            train = PseudoLabels(train, one)
    return train


def _teachers(teacher: Any, student: Any, where: str) -> tuple[Detector | Teacher, ...]:
    _detector(student, "student")
    if isinstance(teacher, Ensemble):
        teachers: tuple[Any, ...] = teacher.teachers
    elif isinstance(teacher, (list, tuple)):
        teachers = tuple(teacher)
    else:
        teachers = (teacher,)
    if not teachers:
        raise ArgumentError(f"{where}: teacher is an empty list")
    for one in teachers:
        as_teacher(one, where)
        behind = getattr(one, "teacher", one)  # of a cache
        if student in (one, getattr(behind, "detector", None)):
            raise ArgumentError(f"{where}: teacher and student are the same object; use clone()")
    return teachers


def _detector(value: Any, name: str) -> None:
    if not isinstance(value, Detector):
        raise ArgumentError(f"{name} must be a kdswift detector, got {type(value).__name__}")


def _losses_with_parameters() -> None:
    """`kd.distill.FGD` and its like: losses that learn, as objects."""
    from .losses.fgd import FGD
    from .losses.mgd import MGD

    distill.FGD, distill.MGD = FGD, MGD  # type: ignore[attr-defined]


_losses_with_parameters()
