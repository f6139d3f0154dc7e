"""Curves of a run and of precision over recall, by matplotlib's object interface.

Nothing touches pyplot, so a script's or notebook's own figures and backend stay as they are.
"""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .errors import ArgumentError, FormatError

_AXES = ("step", "epoch")
_RATE = re.compile(r"^(lr|learning_rate)(\W|_|$)", re.IGNORECASE)
_SCORE = re.compile(r"(^|[\W_])(m?AP|AR|mIoU)(\d|[\W_]|$)")
_NOT_DRAWN = re.compile(
    r"(^|[\W_])(time|seconds|images|grad|norm|duration|eta|index|seed|batch)([\W_]|$)", re.I
)
_SMOOTH_FROM = 60  # points; fewer are drawn as they are


def curves(
    source: str | os.PathLike | Sequence[Mapping[str, Any]], path: str | os.PathLike | None = None
) -> Any:
    """Losses, scores and learning rate of a run.

    Parameters
    ----------
    source : path of a ``results.csv``, or a sequence of rows (dicts)
        Columns ``step`` and ``epoch`` are axes. Columns with AP or AR in their names are
        scores, ``lr`` is the rate, other numbers are losses; empty cells are skipped.
    path : where to write a PNG (or whatever the suffix says); None: only return the figure

    Returns the ``matplotlib.figure.Figure``. A long loss is drawn faint with its running mean.
    """
    from matplotlib.figure import Figure

    series = _series(_read_rows(source))
    panels = [(n, s) for n, s in zip(("loss", "score", "learning rate"), series, strict=True) if s]
    if not panels:
        raise ArgumentError("curves: no column with numbers besides step and epoch")
    figure = Figure(figsize=(5.2 * len(panels), 3.8), layout="constrained")
    for axes, (name, group) in zip(
        figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True
    ):
        _draw_panel(axes, name, group)
    return _finish(figure, path)


def precision_recall(
    curves: Mapping[str, Any], path: str | os.PathLike | None = None, title: str | None = None
) -> Any:
    """Precision over recall of each class.

    `curves` is what `kdswift.evaluation.precision_recall` returns. The legend gives the area
    under each curve's envelope (VOC's AP). Returns the figure; writes it where `path` is given.
    """
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    from .evaluation.voc import average_precision_area

    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    axes = figure.subplots()
    palette = colormaps["tab20" if len(curves) > 10 else "tab10"].colors
    for i, (name, curve) in enumerate(curves.items()):
        area = average_precision_area(curve.recall, curve.precision)
        first = curve.precision[0] if len(curve.precision) else 0.0
        recall = np.concatenate([[0.0], curve.recall])
        precision = np.concatenate([[first], curve.precision])
        label = f"{name}  {100 * area:.1f}" if i < 20 else None
        axes.plot(recall, precision, color=palette[i % len(palette)], linewidth=1.4, label=label)
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1.01), ylim=(0, 1.02))
    _tidy(axes)
    if title:
        axes.set_title(title, loc="left", fontsize=11)
    if curves:
        axes.legend(title="class, AP50", frameon=False, fontsize=8, bbox_to_anchor=(1, 1))
    return _finish(figure, path)


def _read_rows(source: Any) -> list[Mapping[str, Any]]:
    if not isinstance(source, (str, os.PathLike)):
        return list(source)
    try:
        with open(source, newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise FormatError(f"{os.fspath(source)}: cannot read the results: {error}") from error


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return float("nan")


def _series(rows: list[Mapping[str, Any]]) -> tuple[dict, dict, dict]:
    """(losses, scores, rates): name -> (axis name, x, y), only where there is a number."""
    losses: dict[str, tuple] = {}
    scores: dict[str, tuple] = {}
    rates: dict[str, tuple] = {}
    names = dict.fromkeys(k for row in rows for k in row if k is not None)
    for name in names:
        if name in _AXES or _NOT_DRAWN.search(name):
            continue
        y = np.array([_number(row.get(name)) for row in rows])
        kept = np.flatnonzero(np.isfinite(y))
        if not len(kept):
            continue
        group = rates if _RATE.match(name) else scores if _SCORE.search(name) else losses
        group[name] = (*_x_axis(rows, kept, prefer="epoch" if group is scores else "step"), y[kept])
    return losses, scores, rates


def _x_axis(rows: list[Mapping[str, Any]], kept: np.ndarray, prefer: str) -> tuple[str, np.ndarray]:
    for axis in sorted(_AXES, key=lambda a: a != prefer):
        x = np.array([_number(rows[i].get(axis)) for i in kept])
        if np.isfinite(x).all():
            return axis, x
    return "row", kept.astype(float)


def _draw_panel(axes: Any, name: str, group: dict[str, tuple]) -> None:
    from matplotlib import colormaps

    palette = colormaps["tab10"].colors
    for i, (label, (axis, x, y)) in enumerate(group.items()):
        total = label in ("loss", "total", "loss_total", "total_loss")
        colour = "#222222" if total else palette[i % 10]
        width = 2.0 if total else 1.4
        if name == "loss" and len(y) >= _SMOOTH_FROM:
            axes.plot(x, y, color=colour, alpha=0.18, linewidth=0.8)
            x, y = _running_mean(x, y, max(5, len(y) // 40))
        mark = "o" if len(y) <= 30 else None
        axes.plot(x, y, color=colour, linewidth=width, marker=mark, markersize=3, label=label)
        axes.set_xlabel(axis)
    values = np.concatenate([y for _, _, y in group.values()])
    if name == "loss" and (values > 0).all() and values.max() > 100 * np.median(values):
        axes.set_yscale("log")
    elif name != "learning rate" and (values >= 0).all():
        axes.set_ylim(bottom=0)
    axes.set_title(name, loc="left", fontsize=11)
    _tidy(axes)
    if len(group) > 1 or name != "learning rate":
        axes.legend(frameon=False, fontsize=8)


def _running_mean(x: np.ndarray, y: np.ndarray, window: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean over `window` points, placed at the middle point."""
    means = np.convolve(y, np.ones(window) / window, mode="valid")
    start = (window - 1) // 2
    return x[start : start + len(means)], means


def _tidy(axes: Any) -> None:
    axes.grid(True, color="#e6e6e6", linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _finish(figure: Any, path: str | os.PathLike | None) -> Any:
    if path is not None:
        from matplotlib.backends.backend_agg import FigureCanvasAgg

        FigureCanvasAgg(figure)
        figure.savefig(path, dpi=130)
    return figure
