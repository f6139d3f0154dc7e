"""`kd.doctor`: what is wrong with a distillation, found before hours are spent on it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from ._numbers import check_count
from ._tables import html_table, text_table
from .errors import KDSError

STATUSES = ("ok", "warning", "failed")


@dataclass(frozen=True)
class Row:
    """One check: its name, "ok", "warning" or "failed", a figure, and what to do about it."""

    check: str
    status: str
    figure: str = ""
    advice: str = ""


class Report:
    """What `kd.doctor` found: ``rows``, a table as text or, in a notebook, as HTML.

    Attributes
    ----------
    rows : list of Row (check, status, figure, advice);  ok : bool, whether no check failed
    shares : {term: part of the gradient}, the detection losses under "detection"
    """

    def __init__(self, rows: Iterable[Row], shares: dict[str, float] | None = None) -> None:
        self.rows = list(rows)
        self.shares = dict(shares or {})

    @property
    def ok(self) -> bool:
        """Whether nothing failed; warnings do not count."""
        return not self.failed

    @property
    def failed(self) -> list[Row]:
        """The checks that failed."""
        return [row for row in self.rows if row.status == "failed"]

    @property
    def warnings(self) -> list[Row]:
        """The checks that found something doubtful."""
        return [row for row in self.rows if row.status == "warning"]

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        rows = [asdict(row) for row in self.rows]
        return {"ok": self.ok, "rows": rows, "shares": self.shares}

    @property
    def verdict(self) -> str:
        """A sentence."""
        if self.failed:
            names = ", ".join(dict.fromkeys(row.check for row in self.failed))
            return f"not ready: {len(self.failed)} of {len(self.rows)} checks failed ({names})"
        doubts = len(self.warnings)
        more = f", {doubts} with a warning" if doubts else ""
        return f"ready: {len(self.rows)} checks{more}"

    def __repr__(self) -> str:
        table = text_table([asdict(row) for row in self.rows])
        return f"{table}\n{self.verdict}"

    def _repr_html_(self) -> str:
        import html

        rows = [asdict(row) for row in self.rows]
        return f"{html_table(rows)}<p>{html.escape(self.verdict)}</p>"


def doctor(
    student: Any,
    teacher: Any,
    data: Any,
    method: Any = None,
    *,
    batch_size: int = 4,
    sample: int = 32,
    seed: int = 0,
    optimizer: Any = None,
    teacher_size: Any = None,
    metric: str = "coco",
) -> Report:
    """Check a distillation before it runs. Neither student nor teacher is changed.

    Parameters
    ----------
    student, teacher, data, method, optimizer, teacher_size : as `kd.distill` would get them
        (`data` is its `train`; its augmentation, if it is a loader, is left out)
    batch_size : images of the steps that are tried, the first ones of the data
    sample : images on which detectors are scored; 0 scores none
    metric : of that score

    Checks
    ------
    teacher's score     a teacher that finds nothing, or less than the student, cannot help
    teacher at rest     the same bits after a step, and the same arrays for the same images twice
    taps, step          every term finds its taps and gets arrays of the right batch
    terms               each is finite, and not zero, in the first step
    connectors          every learned connector is in the optimizer: it moved in one step
    gradient of …       the norm of each term's gradient with respect to the student's
                        parameters, its share of all terms, and a weight where that is out of
                        proportion to the detection losses
    no weight           a step with the method's weight 0 equals plain training bit for bit
    same features       a term between equal arrays is 0

    Gradients are exact: terms that Python computes are walked back one by one on the tape. Those
    of the engine's own methods are the difference of two steps of SGD with and without the term,
    without momentum and decay, divided by a learning rate so large (2^20) that rounding the
    weights does not matter; where soft labels replace a part of the hard ones, that replacement
    is what is measured.

    Returns
    -------
    Report; ``report.ok``. Wrong arguments raise as they do in `kd.distill`; what goes wrong
    inside a step is a row.
    """
    from .checkup_case import Case
    from .checkup_checks import CHECKS

    check_count(batch_size, "batch_size", "doctor")
    check_count(sample, "sample", "doctor", least=0)
    case = Case(student, teacher, data, method, batch_size, sample, seed, optimizer, teacher_size)
    case.metric = metric
    rows: list[Row] = []
    for name, check in CHECKS:
        try:
            rows += check(case)
        except KDSError as error:
            rows.append(Row(name, "failed", str(error)))
            if name in ("taps", "step"):  # there is nothing that the others could look at
                break
    return Report(rows, case.shares)
