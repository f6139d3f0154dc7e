"""Pictures of gaps, landscapes and alignments."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from ..errors import ArgumentError
from ..plots import _finish, _tidy

_DARK, _LINE = "#222222", "#9a9a9a"
_LEVELS = 24


def gap_curves(gap: Any, path: str | os.PathLike | None = None) -> Any:
    """AP and detection loss over epochs with restarts dashed, then AP over loss."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    palette = colormaps["tab10"].colors
    figure = Figure(figsize=(13.0, 3.9), layout="constrained")
    score, loss, both = figure.subplots(1, 3)
    for i, name in enumerate(gap.names):
        rows, colour = gap.of(name), palette[i % 10]
        rated = [row for row in rows if row["AP"] is not None]
        epochs = [row["epoch"] for row in rated]
        scores = [100 * row["AP"] for row in rated]
        style = {"color": colour, "lw": 1.6, "marker": "o", "ms": 3.5, "label": name}
        score.plot(epochs, scores, **style)
        loss.plot([r["epoch"] for r in rows], [r["detection_loss"] for r in rows], **style)
        losses = [row["detection_loss"] for row in rated]
        both.plot(losses, scores, **{**style, "lw": 0.9})
        if rated:
            both.plot(losses[-1:], scores[-1:], "s", color=colour, ms=8)
        for end in gap.restarts[name]:
            for axes in (score, loss):
                axes.axvline(end, color=colour, lw=1.0, ls="--", alpha=0.6, zorder=0)
    score.set(xlabel="epoch", title="validation AP")
    loss.set(xlabel="epoch", title="training detection loss")
    both.set(xlabel="training detection loss", title="validation AP (square: the last)")
    for axes in (score, loss, both):
        axes.title.set_fontsize(11)
        _tidy(axes)
    score.set_ylim(bottom=0)
    loss.legend(frameon=False, fontsize=9)
    return _finish(figure, path)


def loss_landscape(landscape: Any, path: str | os.PathLike | None = None) -> Any:
    """A `kd.analysis.Landscape` as a curve, or as contours with a section along each direction.

    A mapping of names to landscapes is drawn side by side (curves in one picture) on one scale of
    loss. Returns the matplotlib figure, written to `path` if given.
    """
    from matplotlib.colors import BoundaryNorm
    from matplotlib.figure import Figure

    named = landscape if hasattr(landscape, "items") else {"": landscape}
    if not named:
        raise ArgumentError("loss_landscape: nothing to draw")
    if len({one.directions for one in named.values()}) > 1:
        raise ArgumentError("loss_landscape: lines and squares do not go into one picture")
    if next(iter(named.values())).directions == 1:
        return _lines(named, path)
    figure = Figure(figsize=(5.4 * len(named) + 1.0, 4.7), layout="constrained")
    panels = figure.subplots(1, len(named), squeeze=False)[0]
    values = np.concatenate([one.losses[np.isfinite(one.losses)] for one in named.values()])
    low, high = values.min(), values.max()
    # Losses grow fast towards the corners: steps in the logarithm above the least keep the middle.
    rise = high - low or 1.0
    levels = low + rise * (np.geomspace(1, 101, _LEVELS) - 1) / 100
    levels[-1] = max(levels[-1], high)
    norm = BoundaryNorm(levels, 256)
    for axes, (name, one) in zip(panels, named.items()):
        shown = np.ma.masked_invalid(one.losses.T)
        filled = axes.contourf(
            *(one.positions, one.positions, shown), levels=levels, norm=norm, cmap="viridis"
        )
        lines = axes.contour(
            *(one.positions, one.positions, shown),
            levels=levels[::3],
            colors="white",
            linewidths=0.6,
        )
        axes.clabel(lines, fmt="%.3g", fontsize=7)
        axes.plot([0], [0], "+", color="white", ms=10, mew=2)
        axes.set(xlabel="first direction", ylabel="second direction", aspect="equal")
        text = f"loss {one.centre:.4g} at +"
        axes.set_title(f"{name}: {text}" if name else text, loc="left", fontsize=11)
    bar = figure.colorbar(filled, ax=list(panels), fraction=0.05, pad=0.02, format="%.3g")
    bar.set_label("detection loss")
    return _finish(figure, path)


def _lines(named: Any, path: str | os.PathLike | None) -> Any:
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    palette = colormaps["tab10"].colors
    figure = Figure(figsize=(6.0, 4.0), layout="constrained")
    axes = figure.subplots()
    for i, (name, one) in enumerate(named.items()):
        axes.plot(
            *(one.positions, one.losses),
            color=palette[i % 10],
            lw=1.6,
            marker="o",
            ms=3,
            label=name or None,
        )
    axes.axvline(0, color=_LINE, lw=0.9, ls="--", zorder=0)
    axes.set(xlabel="distance, in lengths of the filters", ylabel="detection loss")
    axes.set_title("loss along a random direction", loc="left", fontsize=11)
    values = np.concatenate([one.losses[np.isfinite(one.losses)] for one in named.values()])
    if values.min() > 0 and values.max() > 10 * values.min():
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=min(0.0, values.min()))
    _tidy(axes)
    if any(named):
        axes.legend(frameon=False, fontsize=9)
    return _finish(figure, path)


def alignment(similarity: Any, path: str | os.PathLike | None = None) -> Any:
    """CKA as a heat map from 0 to 1: rows are levels of a, columns levels of b."""
    from matplotlib.figure import Figure

    values = similarity.values
    height, width = values.shape
    figure = Figure(figsize=(3.6 + 0.8 * width, 2.2 + 0.5 * height), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(values, cmap="YlGnBu", vmin=0.0, vmax=1.0, aspect="auto")
    for (i, j), value in np.ndenumerate(values):
        text = f"{value:.2f}" if np.isfinite(value) else "–"
        colour = "white" if value > 0.55 else _DARK
        axes.text(j, i, text, ha="center", va="center", fontsize=9, color=colour)
    axes.set_xticks(range(width), similarity.levels_b, rotation=30, ha="right")
    axes.set_yticks(range(height), similarity.levels_a)
    axes.set(xlabel="b", ylabel="a")
    axes.set_title(f"linear CKA, {similarity.images} images", loc="left", fontsize=11)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    figure.colorbar(image, ax=axes, fraction=0.05, pad=0.02).outline.set_visible(False)
    return _finish(figure, path)
