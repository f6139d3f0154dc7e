"""Callbacks: what happens between the steps of a run, without touching the loop."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from .errors import ArgumentError


class Callback:
    """Override what is needed; every method gets the run.

    A run has ``model``, ``step`` and ``epoch`` (done so far), ``metrics`` (of the last step: loss,
    lr and every term by name), ``row`` (of the last epoch, with AP where it was measured),
    ``history``, ``out`` and ``stop()``. A callback must not change the weights if runs are to
    repeat; what it raises ends the run.
    """

    def on_start(self, run: Any) -> None:
        """Before the first step; after a resumed run has been restored."""

    def on_step(self, run: Any) -> None:
        """After every step."""

    def on_epoch(self, run: Any) -> None:
        """After every epoch, its evaluation and its checkpoint."""

    def on_end(self, run: Any) -> None:
        """After the last step, also when the run was stopped or interrupted."""


class EarlyStopping(Callback):
    """Stop when a column of the epoch rows has not improved for `patience` evaluated epochs.

    metric : a column such as "AP" or "loss";  least_gain : what counts as an improvement
    mode : "max" or "min"
    """

    def __init__(
        self, metric: str = "AP", patience: int = 3, least_gain: float = 0.0, mode: str = "max"
    ) -> None:
        if mode not in ("max", "min"):
            raise ArgumentError(f"EarlyStopping: mode is {mode!r}, expected 'max' or 'min'")
        self.metric, self.patience, self.least_gain, self.mode = metric, patience, least_gain, mode

    def on_epoch(self, run: Any) -> None:
        """Look at all rows, so that a resumed run decides as an uninterrupted one."""
        values = [row[self.metric] for row in run.history.rows if self.metric in row]
        if self.mode == "min":
            values = [-value for value in values]
        best, waited = float("-inf"), 0
        for value in values:
            if value > best + self.least_gain:
                best, waited = value, 0
            else:
                waited += 1
        if waited >= self.patience:
            run.stop()


class _Function(Callback):
    """A plain function as a callback: it runs after every epoch."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self.function = function

    def on_epoch(self, run: Any) -> None:
        """Call it."""
        self.function(run)


def as_callbacks(value: Any) -> list[Callback]:
    """A list of callbacks from one, several, or plain functions of the run (called per epoch)."""
    values = list(value) if isinstance(value, Iterable) else [value]
    result = []
    for i, item in enumerate(values):
        if isinstance(item, Callback):
            result.append(item)
        elif callable(item) and not isinstance(item, type):
            result.append(_Function(item))
        else:
            raise ArgumentError(f"callbacks[{i}] must be a kd.Callback or a function, got {item!r}")
    return result
