"""What a run recorded: a row per epoch, a row per logged step, in memory and in CSV files."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ._files import write_text
from ._tables import columns_of, html_table, text_table
from .errors import ArgumentError


@dataclass
class History:
    """The record of a run.

    Attributes
    ----------
    rows : one dict per epoch: epoch, step, lr, loss, every term by name (means over the epoch),
        AP, AP50 where it was evaluated, and seconds
    steps : the same for every logged step, not averaged
    interrupted : whether Ctrl-C ended the run
    out : the run's folder, or None
    settings : what the run was asked for
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    steps: list[dict[str, Any]] = field(default_factory=list)
    interrupted: bool = False
    out: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def best(self) -> dict[str, Any] | None:
        """The evaluated row with the highest AP, or None."""
        rated = [row for row in self.rows if row.get("AP") is not None]
        return max(rated, key=lambda row: row["AP"], default=None)

    @property
    def last(self) -> dict[str, Any] | None:
        """The row of the last epoch, or None."""
        return self.rows[-1] if self.rows else None

    def frame(self, kind: str = "epoch") -> Any:
        """A pandas DataFrame of the "epoch" or "step" rows; without pandas a dict of columns."""
        if kind not in ("epoch", "step"):
            raise ArgumentError(f"History.frame: kind is {kind!r}, expected 'epoch' or 'step'")
        rows = self.rows if kind == "epoch" else self.steps
        columns = {name: [row.get(name) for row in rows] for name in columns_of(rows)}
        try:
            import pandas
        except ImportError:
            return columns
        return pandas.DataFrame(columns)

    def plot(self, path: str | os.PathLike | None = None) -> Any:
        """Losses, scores and learning rate as a matplotlib figure, written to `path` if given."""
        from .viz import curves

        return curves(self._plotted(), path)

    def _plotted(self) -> list[dict[str, Any]]:
        """Losses step by step where there are enough, scores epoch by epoch."""
        if len(self.steps) <= len(self.rows):
            return self.rows
        scores = ("epoch", "step", "AP", "AP50")
        return [*self.steps, *({k: row[k] for k in scores if k in row} for row in self.rows)]

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        head = f"History({len(self.rows)} epochs{', interrupted' if self.interrupted else ''}"
        head += f", {self.out})" if self.out else ")"
        return f"{head}\n{text_table(self.rows)}" if self.rows else head

    def _repr_html_(self) -> str:
        note = "<p>interrupted</p>" if self.interrupted else ""
        return html_table(self.rows) + note if self.rows else f"<p>{self!r}</p>{note}"


class CsvFile:
    """Rows on disk. A row is appended and flushed; a new column rewrites the file as a whole."""

    def __init__(self, path: Path, rows: Sequence[Mapping[str, Any]] = ()) -> None:
        self.path = path
        self.rows = [dict(row) for row in rows]
        self.columns = columns_of(self.rows)
        self._rewrite()

    def append(self, row: Mapping[str, Any]) -> None:
        """Add a row."""
        self.rows.append(dict(row))
        if set(row) <= set(self.columns) and self.path.exists():
            with open(self.path, "a", newline="", encoding="utf-8") as file:
                csv.DictWriter(file, self.columns, restval="").writerow(_text(row))
            return
        self.columns = columns_of([dict.fromkeys(self.columns), row])
        self._rewrite()

    def _rewrite(self) -> None:
        buffer = io.StringIO(newline="")
        writer = csv.DictWriter(buffer, self.columns, restval="")
        if self.columns:
            writer.writeheader()
        writer.writerows(map(_text, self.rows))
        write_text(self.path, buffer.getvalue())


def read_rows(path: Path, last_step: int) -> list[dict[str, Any]]:
    """The rows of a file up to a step; a damaged last line, or no file, loses only itself."""
    try:
        with open(path, newline="", encoding="utf-8") as file:
            raw = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error):
        return []
    rows = []
    for entry in raw:
        row = {k: _value(v) for k, v in entry.items() if k is not None and v not in ("", None)}
        if isinstance(row.get("step"), int) and row["step"] <= last_step:
            rows.append(row)
    return rows


def _text(row: Mapping[str, Any]) -> dict[str, Any]:
    return {k: repr(v) if isinstance(v, float) else v for k, v in row.items()}


def _value(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
