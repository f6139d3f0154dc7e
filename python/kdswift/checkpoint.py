"""The folder of a run: checkpoints that survive anything, the best and the last model, results.

checkpoint.safetensors            model, optimizer, connectors, place in the run, settings
checkpoint.previous.safetensors   the one before
last.safetensors, best.safetensors   models for `kd.load`
results.csv, steps.csv, curves.png
"""

from __future__ import annotations

import contextlib
import json
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ._files import atomic, checksum, keep_as, read_tensors
from .errors import ArgumentError, FormatError
from .history import CsvFile, History, read_rows

CHECKPOINT = "checkpoint.safetensors"
PREVIOUS = "checkpoint.previous.safetensors"
KIND = "checkpoint"


@dataclass
class Checkpoint:
    """The state between two steps of a run.

    model, trainer : arrays by name; the trainer's are the optimizer's state and connectors
    step : steps done;  epoch, batch : where the next step begins, both from 0
    sums : running sums of the metrics of an unfinished epoch, and their count under "count"
    best : highest AP so far;  description : of the model;  settings : of the run
    """

    model: dict[str, np.ndarray]
    trainer: dict[str, np.ndarray]
    step: int
    epoch: int
    batch: int
    sums: dict[str, float]
    settings: dict[str, Any]
    description: dict[str, Any]
    best: float | None = None
    lineage: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0


_PREFIXES = {"model.": "model", "trainer.": "trainer"}
_PLACE = ("step", "epoch", "batch", "sums", "settings", "best", "lineage", "seconds")


def write_checkpoint(path: Path, state: Checkpoint, previous: Path | None = None) -> None:
    """Write a checkpoint; what stood at `path` becomes `previous`, with no moment without one."""
    from safetensors.numpy import save_file

    tensors = {
        prefix + name: np.ascontiguousarray(values)
        for prefix, group in _PREFIXES.items()
        for name, values in getattr(state, group).items()
    }
    metadata = {name: getattr(state, name) for name in _PLACE}
    metadata |= {"kind": KIND, "model": state.description}
    text = json.dumps(metadata, allow_nan=False, sort_keys=True)
    header = {"format": "kdswift", "kdswift": text, "crc32": checksum(tensors, text)}

    def keep() -> None:
        if previous is not None:
            keep_as(path, previous)

    with atomic(path, before_replace=keep) as temporary:
        save_file(tensors, temporary, metadata=header)


def read_checkpoint(path: str | os.PathLike) -> Checkpoint:
    """Read and verify a checkpoint; `FormatError` names the file when anything is wrong with it."""
    tensors, metadata = read_tensors(path)
    if metadata is None or metadata.get("kind") != KIND:
        raise FormatError(f"{os.fspath(path)}: holds no checkpoint of a run")
    groups: dict[str, dict[str, np.ndarray]] = {group: {} for group in _PREFIXES.values()}
    for name, values in tensors.items():
        prefix = next((p for p in _PREFIXES if name.startswith(p)), None)
        if prefix is None:
            raise FormatError(f"{os.fspath(path)}: unknown entry {name!r}")
        groups[_PREFIXES[prefix]][name.removeprefix(prefix)] = values
    try:
        place = {name: metadata[name] for name in _PLACE}
        return Checkpoint(**groups, **place, description=metadata["model"])
    except KeyError as error:
        raise FormatError(
            f"{os.fspath(path)}: lacks {error} of this version's checkpoints"
        ) from None


class SettingsDiffer(ArgumentError):
    """A run is to be continued with other settings than it was begun with."""


class RunFolder:
    """The files of one run."""

    def __init__(self, path: str | os.PathLike) -> None:
        self.path = Path(path)
        if self.path.exists() and not self.path.is_dir():
            raise ArgumentError(f"out: {self.path} is a file, expected a folder")
        self._rows: CsvFile | None = None
        self._steps: CsvFile | None = None

    def find(self, resume: Any) -> tuple[Checkpoint, Path] | None:
        """The checkpoint to continue from and its file, by the rules of `resume`; None: start anew.

        "auto" takes the newest one that is whole and warns of a damaged one; True insists on it;
        False starts over; a path is a checkpoint or the folder of a run.
        """
        if resume is False:
            return None
        if resume not in ("auto", True):
            path = _inside(resume)
            return read_checkpoint(path), path
        found = [p for p in (self.path / CHECKPOINT, self.path / PREVIOUS) if p.exists()]
        if not found and resume is True:
            raise ArgumentError(f"resume=True: {self.path} holds no checkpoint")
        errors = []
        for path in found:
            try:
                state = read_checkpoint(path)
            except FormatError as error:
                errors.append(error)
                continue
            if errors:
                warnings.warn(
                    f"{errors[0]}; the run continues from {path.name}, step {state.step}",
                    stacklevel=5,
                )
            return state, path
        if errors:
            raise errors[0]
        return None

    def open(self, history: History, step: int | None, source: Path | None, fresh: bool) -> None:
        """Begin to write.

        step, source : the rows of the run in folder `source` up to this step are taken over
        fresh : remove what an earlier run left
        """
        self.path.mkdir(parents=True, exist_ok=True)
        if fresh:
            for name in (CHECKPOINT, PREVIOUS, "best.safetensors", "last.safetensors"):
                with contextlib.suppress(FileNotFoundError):
                    (self.path / name).unlink()
        if step is not None and source is not None:
            history.rows[:] = read_rows(source / "results.csv", step)
            history.steps[:] = read_rows(source / "steps.csv", step)
        self._rows = CsvFile(self.path / "results.csv", history.rows)
        self._steps = CsvFile(self.path / "steps.csv", history.steps)

    def add_row(self, row: Mapping[str, Any]) -> None:
        """A row of results.csv."""
        assert self._rows is not None
        self._rows.append(row)

    def add_step(self, row: Mapping[str, Any]) -> None:
        """A row of steps.csv."""
        assert self._steps is not None
        self._steps.append(row)

    def save(self, state: Checkpoint) -> None:
        """A new checkpoint; the last one becomes the previous one."""
        write_checkpoint(self.path / CHECKPOINT, state, self.path / PREVIOUS)


def check_settings(before: Mapping[str, Any], now: Mapping[str, Any], where: Any) -> None:
    """Refuse to continue a run with other settings, naming what differs."""
    old, new = flatten(before), flatten(now)
    names = [n for n in dict.fromkeys([*new, *old]) if old.get(n) != new.get(n)]
    if not names:
        return
    shown = [f"{n} was {_shown(old, n)}, is {_shown(new, n)}" for n in names[:4]]
    more = f"; {len(names) - 4} more differ" if len(names) > 4 else ""
    raise SettingsDiffer(
        f"resume: {where} holds a run with other settings: {'; '.join(shown)}{more}. "
        "Choose another out=, or resume=False to start over"
    )


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested dicts and lists as one dict with dotted names."""
    if isinstance(value, Mapping):
        items = value.items()
    elif isinstance(value, (list, tuple)):
        items = enumerate(value)
    else:
        return {prefix: value}
    result: dict[str, Any] = {}
    for key, inner in items:
        result |= flatten(inner, f"{prefix}.{key}" if prefix else str(key))
    return result


def _shown(values: Mapping[str, Any], name: str) -> str:
    return repr(values[name]) if name in values else "not there"


def _inside(path: Any) -> Path:
    if not isinstance(path, (str, os.PathLike)):
        raise ArgumentError(f"resume is {path!r}, expected 'auto', True, False or a path")
    path = Path(path)
    return path / CHECKPOINT if path.is_dir() else path
