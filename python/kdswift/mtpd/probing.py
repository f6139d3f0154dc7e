"""`kd.mtpd.probe`: a short stage with every teacher, to see from whom the student learns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .._numbers import check_count
from .._tables import html_table, text_table
from ..detector import Detector
from ..distillation import distill as distill_once
from ..errors import ArgumentError
from ..evaluation import evaluate
from ..progress import say
from .arguments import as_methods, as_named, check_options

_OF_TEACHERS = ("teacher_size",)  # options that `Detector.fit` lacks


class Probe(dict[str, float]):
    """AP of the student after a short stage with each teacher, by the teacher's name.

    Attributes
    ----------
    alone : its AP after as many epochs without a teacher
    before : its AP before
    """

    meaning = "AP of the probed student"

    def __init__(self, scores: Mapping[str, float], alone: float, before: float) -> None:
        super().__init__(scores)
        self.alone, self.before = alone, before

    @property
    def harmful(self) -> list[str]:
        """Teachers with whom the student learns less than alone."""
        return [name for name, score in self.items() if score < self.alone]

    def rows(self) -> list[dict[str, Any]]:
        """One dict per run, the best first."""
        scores = {**self, "(alone)": self.alone, "(before)": self.before}
        return [
            {
                "teacher": name,
                "AP": f"{100 * scores[name]:.1f}",
                "over alone": f"{100 * (scores[name] - self.alone):+.1f}",
            }
            for name in sorted(scores, key=lambda name: -scores[name])
        ]

    def __repr__(self) -> str:
        return f"Probe({len(self)} teachers)\n{text_table(self.rows())}"

    def _repr_html_(self) -> str:
        return html_table(self.rows())


def probe(
    student: Detector,
    teachers: Sequence[Any] | Mapping[str, Any],
    train: Any,
    val: Any,
    method: Any = None,
    epochs: int = 2,
    metric: str = "coco",
    **options: Any,
) -> Probe:
    """Distil copies of the student from each teacher for a few epochs, and one without.

    The best detector need not be the best teacher: what a student gets from one depends on how
    alike the two are, and on the method. Given to `kd.mtpd.plan` or `backward_greedy_selection` as
    `performance`, the teacher after which the student was best comes last. N teachers take N + 1
    short runs; trying all orders of two takes N squared.

    Parameters
    ----------
    student : a trained detector; it is not changed
    teachers : the pool, as for `kd.mtpd.plan`
    train, val : the student learns from `train`; AP is measured on `val`
    method : as for `kd.mtpd.distill`; one for all, or one for each
    epochs : of every run
    options : those of `kd.distill`, the same for all; not `out`

    Returns a `Probe`, a mapping of names to AP. Raises what `kd.distill` raises.

    >>> probe = kd.mtpd.probe(student, pool, train, val, epochs=2)
    >>> plan = kd.mtpd.plan(student, pool, train, val, performance=probe)
    """
    if not isinstance(student, Detector):
        raise ArgumentError(f"probe: student must be a kdswift detector, got {student!r}")
    named = as_named(teachers, "probe")
    check_options(options, "probe")
    if "out" in options or "val" in options:
        raise ArgumentError("probe: out and val are no options of its runs")
    methods = as_methods(method, len(named), "probe")
    epochs = check_count(epochs, "epochs", "probe")
    progress = options.get("progress", True)

    def score(model: Detector) -> float:
        return float(evaluate(model, val, metric, progress=False).AP)

    def after(name: str, run: Any) -> float:
        if progress:
            say(f"probe: {name}")
        copy = student.clone()
        if run(copy).interrupted:
            raise KeyboardInterrupt
        return score(copy)

    scores = {
        name: after(
            name,
            lambda copy, t=teacher, m=one: distill_once(copy, t, train, m, epochs, **options),
        )
        for (name, teacher), one in zip(named.items(), methods)
    }
    own = {name: value for name, value in options.items() if name not in _OF_TEACHERS}
    alone = after("alone", lambda copy: copy.fit(train, epochs, **own))
    return Probe(scores, alone, before=score(student))
