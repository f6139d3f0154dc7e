"""Schedules of the learning rate as data: how it moves over a run.

Every schedule may begin with a warm-up, a straight line from ``warmup_start * lr`` to ``lr``.
`warmup` counts steps when it is a whole number, and is a part of the run when it is below 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from .errors import ArgumentError


@dataclass(frozen=True)
class Schedule:
    """Base of the schedules.

    warmup : steps (a whole number), or a part of the run (below 1)
    warmup_start : first factor on the learning rate
    """

    warmup: float = 0
    warmup_start: float = 0.001
    name: ClassVar[str] = ""

    def __post_init__(self) -> None:
        whole = float(self.warmup).is_integer()
        if not 0 <= self.warmup or (self.warmup >= 1 and not whole):
            raise ArgumentError(
                f"{type(self).__name__}: warmup is {self.warmup!r}, expected whole steps or a part "
                "of the run below 1"
            )
        if not 0 <= self.warmup_start <= 1:
            raise ArgumentError(
                f"{type(self).__name__}: warmup_start is {self.warmup_start!r}, expected 0 to 1"
            )

    def resolve(self, total_steps: int, steps_per_epoch: int) -> dict[str, Any]:
        """The engine's options for a run of this length."""
        steps = self.warmup if self.warmup >= 1 else round(self.warmup * total_steps)
        return {
            "name": self.name,
            "warmup_steps": int(steps),
            "warmup_start": float(self.warmup_start),
            **self._options(total_steps, steps_per_epoch),
        }

    def _options(self, total_steps: int, steps_per_epoch: int) -> dict[str, Any]:
        raise NotImplementedError


@dataclass(frozen=True)
class Constant(Schedule):
    """The same learning rate after the warm-up."""

    name: ClassVar[str] = "constant"

    def _options(self, total_steps: int, steps_per_epoch: int) -> dict[str, Any]:
        return {}


@dataclass(frozen=True)
class Linear(Schedule):
    """A straight line from ``lr`` after the warm-up to ``final_factor * lr`` at the end."""

    final_factor: float = 0.0
    name: ClassVar[str] = "linear"

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_factor(self, "final_factor", self.final_factor)

    def _options(self, total_steps: int, steps_per_epoch: int) -> dict[str, Any]:
        return {"total_steps": total_steps, "final_factor": float(self.final_factor)}


@dataclass(frozen=True)
class Cosine(Linear):
    """Half a cosine from ``lr`` to ``final_factor * lr`` (Loshchilov and Hutter 2017)."""

    name: ClassVar[str] = "cosine"


@dataclass(frozen=True)
class Step(Schedule):
    """The learning rate times `gamma` at every milestone.

    milestones : epochs (1 and above), or parts of the run (below 1), rising; such as (8, 11) or
        (0.7, 0.9)
    """

    milestones: Sequence[float] = (0.7, 0.9)
    gamma: float = 0.1
    name: ClassVar[str] = "step"

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_factor(self, "gamma", self.gamma)
        object.__setattr__(self, "milestones", tuple(self.milestones))
        good = all(isinstance(m, (int, float)) and 0 < m < math.inf for m in self.milestones)
        if not self.milestones or not good or list(self.milestones) != sorted(self.milestones):
            raise ArgumentError(
                f"Step: milestones is {self.milestones!r}, expected rising numbers above 0"
            )

    def _options(self, total_steps: int, steps_per_epoch: int) -> dict[str, Any]:
        steps = [
            round(m * total_steps) if m < 1 else round(m * steps_per_epoch) for m in self.milestones
        ]
        return {"milestones": steps, "gamma": float(self.gamma)}


def as_schedule(value: Any) -> Schedule:
    """A schedule from itself or a name; None is a cosine after a warm-up of 5 % of the run."""
    if value is None:
        return Cosine(warmup=0.05)
    if isinstance(value, Schedule):
        return value
    kinds = {"constant": Constant, "linear": Linear, "cosine": Cosine, "step": Step}
    if isinstance(value, str) and value.lower() in kinds:
        return kinds[value.lower()]()
    raise ArgumentError(
        f"schedule must be kd.Constant, kd.Linear, kd.Cosine, kd.Step or a name, got {value!r}"
    )


def _check_factor(schedule: Schedule, name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ArgumentError(f"{type(schedule).__name__}: {name} is {value!r}, expected 0 to 1")
