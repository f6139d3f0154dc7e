"""When a part of a method acts: its start, its end, and how it comes and goes."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from ..errors import ArgumentError

DECAYS = (None, "linear", "cosine")


@dataclass(frozen=True)
class Window:
    """A factor on a part of a method that moves over the run.

    start, stop : the part acts from step `start` (the first is 0) up to, not including, `stop`
        (None: the end). Whole numbers are steps, numbers below 1 parts of the run.
    ramp : steps, or part of the run, in which the factor grows from 0 to 1 after the start
    decay : None; "linear" or "cosine": from 1 after the ramp down to 0 at the stop
    """

    start: float = 0
    stop: float | None = None
    ramp: float = 0
    decay: str | None = None

    def __post_init__(self) -> None:
        for name in ("start", "stop", "ramp"):
            value = getattr(self, name)
            if value is None and name == "stop":
                continue
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not number or not 0 <= value < math.inf or (value > 1 and value != int(value)):
                raise ArgumentError(
                    f"during: {name} is {value!r}, expected whole steps, or a part of the run "
                    "from 0 to 1"
                )
        if self.decay not in DECAYS:
            raise ArgumentError(
                f"during: decay is {self.decay!r}, expected None, 'linear' or 'cosine'"
            )

    def factor(self, step: int, total: int) -> float:
        """The factor in a step (the first is 0) of a run of `total` steps."""
        start, ramp = _steps(self.start, total), _steps(self.ramp, total)
        stop = total if self.stop is None else _steps(self.stop, total)
        if step < start or (step >= max(stop, start) and self.stop is not None):
            return 0.0
        if ramp and step < start + ramp:
            return (step - start) / ramp
        if self.decay is None:
            return 1.0
        length = max(1, stop - start - ramp)
        done = min(1.0, (step - start - ramp) / length)
        return 1 - done if self.decay == "linear" else 0.5 * (1 + math.cos(math.pi * done))

    def describe(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def _steps(value: float, total: int) -> int:
    """Whole numbers from 1 on are steps; 0 and parts are parts, and 1.0 is the whole run."""
    whole = isinstance(value, int) or value > 1
    return int(value) if whole else round(value * total)
