"""Training loss against validation score: whether a student fits better or generalises better."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .._tables import html_table, text_table
from ..errors import ArgumentError
from ..history import History

# A detector's own losses: two-stage ones begin with "loss_". Terms have other names.
_ONE_STAGE = ("bbox_ctrness", "bbox_distribution", "bbox_regression", "classification")


@dataclass(repr=False)
class Gap:
    """Runs side by side.

    Attributes
    ----------
    rows : one dict per run and epoch: run, epoch, detection_loss (mean over the epoch), AP (None
        where it was not evaluated)
    restarts : of each run, the epochs after which its schedule began anew
    """

    rows: list[dict[str, Any]]
    restarts: dict[str, list[int]]

    @property
    def names(self) -> list[str]:
        """The runs."""
        return list(self.restarts)

    def of(self, name: str) -> list[dict[str, Any]]:
        """The rows of one run."""
        return [row for row in self.rows if row["run"] == name]

    def summary(self) -> list[dict[str, Any]]:
        """One dict per run: run, epochs, detection_loss of the last epoch, the last AP, best AP.

        A run with the higher loss and the higher AP generalises better; one with the lower loss
        and the higher AP was optimised better (Cao et al. 2023, figure 5).
        """
        result = []
        for name in self.names:
            rows = self.of(name)
            scores = [row["AP"] for row in rows if row["AP"] is not None]
            result.append(
                {
                    "run": name,
                    "epochs": rows[-1]["epoch"],
                    "detection_loss": rows[-1]["detection_loss"],
                    "AP": scores[-1] if scores else None,
                    "best_AP": max(scores, default=None),
                }
            )
        return result

    def plot(self, path: str | os.PathLike | None = None) -> Any:
        """AP and detection loss over the epochs, restarts dashed, and AP over loss, as a
        matplotlib figure; written to `path` if given."""
        from .pictures import gap_curves

        return gap_curves(self, path)

    def __repr__(self) -> str:
        return f"Gap({len(self.names)} runs)\n{text_table(self.summary())}"

    def _repr_html_(self) -> str:
        return html_table(self.summary())


def generalisation_gap(
    histories: Mapping[str, History] | Sequence[History] | History,
    restarts: Mapping[str, Sequence[int]] | None = None,
) -> Gap:
    """Training detection loss against validation AP over time.

    Parameters
    ----------
    histories : the records of runs by name, or one, or several (named by number). What `fit`,
        `kd.distill`, `kd.mtpd.distill` and its baselines return.
    restarts : {name: epochs} after which the schedule of a run began anew; those of a
        `ProgressiveHistory` are known. To see what restarts alone do, train the student alone with
        restarts at the same epochs.

    The detection loss is the sum of the student's own losses in the epochs' rows (``loss_…``, or
    ``classification`` and ``bbox_…`` of one-stage detectors) as they were weighted in training,
    without the terms of the distillation. Methods that
    change these weights (Chen2017's mu, `loss_weights` of a method) record the weighted losses, so
    that their curves do not compare with those of other runs.

    Raises ``ArgumentError`` naming a run without epochs or without detection losses.
    """
    named = _named(histories)
    given = {name: [int(e) for e in ends] for name, ends in (restarts or {}).items()}
    for name in given:
        if name not in named:
            raise ArgumentError(
                f"generalisation_gap: restarts of {name!r}, there are {', '.join(named)}"
            )
    rows, found = [], {}
    for name, history in named.items():
        if not history.rows:
            raise ArgumentError(f"generalisation_gap: the run {name!r} has no epochs")
        rows += [_row(name, row) for row in history.rows]
        found[name] = given.get(name, list(getattr(history, "restarts", [])))
    return Gap(rows, found)


def _named(histories: Any) -> dict[str, History]:
    if isinstance(histories, History):
        histories = {"run": histories}
    elif not isinstance(histories, Mapping) and isinstance(histories, Sequence):
        histories = {f"run {i + 1}": one for i, one in enumerate(histories)}
    if not isinstance(histories, Mapping) or not histories:
        raise ArgumentError("generalisation_gap: expected histories of runs by name")
    for name, one in histories.items():
        if not isinstance(one, History):
            raise ArgumentError(
                f"generalisation_gap: {name!r} is {type(one).__name__}, expected a History"
            )
    return {str(name): one for name, one in histories.items()}


def _row(name: str, row: Mapping[str, Any]) -> dict[str, Any]:
    losses = [v for k, v in row.items() if _is_detection(k) and v is not None]
    if not losses:
        raise ArgumentError(
            f"generalisation_gap: epoch {row.get('epoch')} of {name!r} has no detection loss"
        )
    return {
        "run": name,
        "epoch": row["epoch"],
        "detection_loss": float(sum(losses)),
        "AP": row.get("AP"),
    }


def _is_detection(name: str) -> bool:
    return name.startswith("loss_") or name in _ONE_STAGE
