"""The record of a progressive run."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

from ..history import History


@dataclass(repr=False)
class ProgressiveHistory(History):
    """The record of a progressive run; `rows` are those of all stages in a row, with ``stage`` and
    ``teacher``, and epochs and steps counted through.

    Attributes
    ----------
    stages : the `History` of each stage
    teachers : their names
    """

    stages: list[History] = field(default_factory=list)
    teachers: list[str] = field(default_factory=list)

    def add(self, stage: History, name: str) -> None:
        """Append a stage's rows."""
        number = len(self.stages) + 1
        epochs, steps = (self.rows[-1]["epoch"], self.rows[-1]["step"]) if self.rows else (0, 0)
        self.stages.append(stage)
        self.teachers.append(name)
        for own, other in ((self.rows, stage.rows), (self.steps, stage.steps)):
            own += [
                {
                    "stage": number,
                    "teacher": name,
                    **row,
                    "epoch": row["epoch"] + epochs,
                    "step": row["step"] + steps,
                }
                for row in other
            ]
        self.interrupted = stage.interrupted

    @property
    def restarts(self) -> list[int]:
        """Epochs after which a new teacher, and a new schedule, begins."""
        return [max(r["epoch"] for r in self._of(i + 1)) for i in range(len(self.stages) - 1)]

    def plot(self, path: str | os.PathLike | None = None) -> Any:
        """AP, loss and learning rate over all epochs, restarts marked."""
        from .plots import timeline

        return timeline(self, path)

    def __repr__(self) -> str:
        return f"Progressive{super().__repr__()}"

    def _of(self, stage: int) -> list[dict[str, Any]]:
        return [row for row in self.rows if row["stage"] == stage] or [{"epoch": 0}]
