"""`CostMatrix`: what it costs to become B when one is A, for all ordered pairs."""

from __future__ import annotations

import html
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .._files import write_text
from .._tables import columns_of, html_table, text_table
from ..errors import ArgumentError, FormatError

_KIND = "mtpd costs"


@dataclass(frozen=True)
class LevelCost:
    """C(A -> B) at one level.

    cost : mean over validation images, channels and positions of (B - W A - v)^2
    variance : of B's map, mean over channels
    training : the same as `cost` on the images that the map was fitted to, None if not known
    """

    source: str
    target: str
    source_tap: str
    target_tap: str
    cost: float
    variance: float
    training: float | None = None

    @property
    def normalized(self) -> float:
        """cost / variance, the share of B that no affine map of A explains."""
        if self.variance > 0:
            return self.cost / self.variance
        return 0.0 if self.cost < 1e-12 else math.inf


@dataclass(eq=False)
class CostMatrix:
    """Adaptation costs between models; asymmetric, 0 from a model to itself.

    Attributes
    ----------
    names : of the models, the student's first
    levels : a `LevelCost` per ordered pair and level
    raw_errors, normalized_errors : (n, n) standard errors of the totals by validation image
    normalize : whether `total` and `standard_errors` are the variance-normalised ones
    report : how it was measured: solver, images, passes, seconds, whether the order was settled
    """

    names: tuple[str, ...]
    levels: list[LevelCost]
    raw_errors: np.ndarray
    normalized_errors: np.ndarray
    normalize: bool = False
    report: dict[str, Any] = field(default_factory=dict)
    models: tuple[Any, ...] | None = field(default=None, repr=False)  # kept beside the names

    @property
    def raw(self) -> np.ndarray:
        """(n, n): mean over levels of the mean squared error, [from, to]."""
        return self._mean("cost")

    @property
    def normalized(self) -> np.ndarray:
        """(n, n): mean over levels of cost / variance of the target's map."""
        return self._mean("normalized")

    @property
    def total(self) -> np.ndarray:
        """`normalized` if the matrix was asked for with ``normalize=True``, else `raw`."""
        return self.normalized if self.normalize else self.raw

    @property
    def standard_errors(self) -> np.ndarray:
        """(n, n) of `total`, by validation image and for the maps as they are; NaN if one."""
        return self.normalized_errors if self.normalize else self.raw_errors

    def cost(self, source: str, target: str) -> float:
        """C(source -> target)."""
        return float(self.total[self.index(source), self.index(target)])

    def index(self, name: str) -> int:
        """The place of a name."""
        if name not in self.names:
            raise ArgumentError(f"costs: there is no {name!r}; there are {', '.join(self.names)}")
        return self.names.index(name)

    def rows(self) -> list[dict[str, Any]]:
        """A row per ordered pair and level, and one with level "mean" per pair."""
        result = []
        for i, source in enumerate(self.names):
            for j, target in enumerate(self.names):
                if i == j:
                    continue
                for one in self.levels:
                    if (one.source, one.target) == (source, target):
                        result.append(_row(one))
                result.append(
                    {
                        "from": source,
                        "to": target,
                        "level": "mean",
                        "cost": float(self.raw[i, j]),
                        "normalized": float(self.normalized[i, j]),
                        "standard error": float(self.raw_errors[i, j]),
                    }
                )
        return result

    def frame(self) -> Any:
        """`rows` as a pandas DataFrame; without pandas a dict of columns."""
        rows = self.rows()
        columns = {name: [row.get(name) for row in rows] for name in columns_of(rows)}
        try:
            import pandas
        except ImportError:
            return columns
        return pandas.DataFrame(columns)

    def plot(self, path: str | os.PathLike | None = None) -> Any:
        """A heat map as a matplotlib figure, written to `path` if given."""
        from .plots import heat_map

        return heat_map(self, path)

    # Files

    def to_dict(self) -> dict[str, Any]:
        """Plain data, without the models."""
        return {
            "kind": _KIND,
            "names": list(self.names),
            "levels": [asdict(one) for one in self.levels],
            "raw_errors": _numbers(self.raw_errors),
            "normalized_errors": _numbers(self.normalized_errors),
            "normalize": self.normalize,
            "report": self.report,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> CostMatrix:
        """The opposite of `to_dict`."""
        if not isinstance(data, Mapping) or data.get("kind") != _KIND:
            raise FormatError("costs: this is no cost matrix")
        try:
            return cls(
                tuple(data["names"]),
                [LevelCost(**one) for one in data["levels"]],
                *(_array(data[name]) for name in ("raw_errors", "normalized_errors")),
                normalize=bool(data["normalize"]),
                report=dict(data["report"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise FormatError(f"costs: {error} is missing or wrong") from None

    def save(self, path: str | os.PathLike) -> None:
        """Write a JSON file, whole or not at all."""
        write_text(path, json.dumps(self.to_dict(), indent=1, allow_nan=False))

    @classmethod
    def load(cls, path: str | os.PathLike) -> CostMatrix:
        """Read a JSON file that `save` wrote; ``FormatError`` names it when it is none."""
        return cls.from_dict(read_json(path))

    # Shown

    def __repr__(self) -> str:
        head = f"CostMatrix({len(self.names)} models, {self.report.get('solver', '?')})"
        return f"{head}\n{text_table(self._table())}"

    def _repr_html_(self) -> str:
        note = ", ".join(f"{name} {value}" for name, value in self.report.items())
        return html_table(self._table()) + (f"<p>{html.escape(note)}</p>" if note else "")

    def _table(self) -> list[dict[str, Any]]:
        total, errors = self.total, self.standard_errors
        return [
            {"from \\ to": name}
            | {
                other: "0" if i == j else f"{total[i, j]:.4g} ± {errors[i, j]:.2g}"
                for j, other in enumerate(self.names)
            }
            for i, name in enumerate(self.names)
        ]

    def _mean(self, attribute: str) -> np.ndarray:
        total = np.zeros((len(self.names), len(self.names)))
        count = np.zeros_like(total)
        for one in self.levels:
            place = self.names.index(one.source), self.names.index(one.target)
            total[place] += getattr(one, attribute)
            count[place] += 1
        return total / np.maximum(count, 1)


def read_json(path: str | os.PathLike) -> Any:
    """The contents of a JSON file; ``FormatError`` names it when it is none."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FormatError(f"{os.fspath(path)}: cannot be read: {error}") from None


def _row(one: LevelCost) -> dict[str, Any]:
    return {
        "from": one.source,
        "to": one.target,
        "level": f"{one.source_tap} -> {one.target_tap}",
        "cost": one.cost,
        "normalized": one.normalized,
        "variance": one.variance,
        "training": one.training,
    }


def _numbers(matrix: np.ndarray) -> list[list[float | None]]:
    return [[None if math.isnan(v) else v for v in row] for row in np.asarray(matrix).tolist()]


def _array(rows: Sequence[Sequence[float | None]]) -> np.ndarray:
    return np.array([[math.nan if v is None else v for v in row] for row in rows], dtype=float)
