"""Pictures: heat map of costs, graph of costs with the chosen path, timeline of stages."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from ..errors import ArgumentError
from ..plots import _finish, _tidy

_CHOSEN, _OTHER, _DARK = "#12856f", "#9a9a9a", "#222222"


def heat_map(costs: Any, path: str | os.PathLike | None = None) -> Any:
    """The matrix: row from, column to; light is cheap. Returns the figure."""
    from matplotlib.figure import Figure

    values, errors, count = costs.total, costs.standard_errors, len(costs.names)
    figure = Figure(figsize=(2.6 + 1.05 * count, 1.9 + 0.75 * count), layout="constrained")
    axes = figure.subplots()
    shown = np.where(np.eye(count, dtype=bool) | ~np.isfinite(values), np.nan, values)
    top = float(np.nanmax(shown, initial=0.0)) or 1.0
    image = axes.imshow(shown, cmap="YlGnBu", vmin=0.0, vmax=top, aspect="auto")
    for i in range(count):
        for j in range(count):
            text = "0" if i == j else f"{values[i, j]:.3g}"
            if i != j and np.isfinite(errors[i, j]):
                text += f"\n± {errors[i, j]:.1g}"
            dark = i != j and values[i, j] > 0.55 * top
            axes.text(
                *(j, i, text),
                ha="center",
                va="center",
                fontsize=9,
                color="white" if dark else _DARK,
            )
    axes.set_xticks(range(count), costs.names, rotation=30, ha="right")
    axes.set_yticks(range(count), costs.names)
    axes.set(xlabel="to", ylabel="from")
    what = "share of B not explained" if costs.normalize else "mean squared error"
    axes.set_title(f"adaptation cost, {what}", loc="left", fontsize=11)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    figure.colorbar(image, ax=axes, fraction=0.05, pad=0.02).outline.set_visible(False)
    return _finish(figure, path)


def cost_graph(plan: Any, path: str | os.PathLike | None = None) -> Any:
    """Student and pool from left to right by AP, arrows into the chosen teachers with their costs,
    the chosen path thick. Returns the figure."""
    from matplotlib.figure import Figure

    names = [plan.student, *sorted(plan.performance, key=lambda n: (plan.performance[n], n))]
    figure = Figure(figsize=(2.0 + 2.1 * len(names), 5.2), layout="constrained")
    axes = figure.subplots()
    place = {
        name: (float(i), 0.0 if name in plan.names or i == 0 else -0.72)
        for i, name in enumerate(names)
    }
    chain = list(zip((plan.student, *plan.names), plan.names))
    for source, target in _edges(plan):
        _arrow(axes, plan, place, (source, target), (source, target) in chain)
    for name, (x, y) in place.items():
        _node(axes, plan, name, x, y)
    axes.set(xlim=(-0.55, len(names) - 0.45), ylim=(-1.25, 1.0), aspect="equal")
    axes.axis("off")
    axes.set_title(" → ".join((plan.student, *plan.names)), loc="left", fontsize=12)
    return _finish(figure, path)


def timeline(history: Any, path: str | os.PathLike | None = None) -> Any:
    """AP, loss and learning rate over the epochs of all stages; dashed lines where a teacher, and
    with it the schedule, begins. Returns the figure."""
    from matplotlib.figure import Figure

    if not history.rows:
        raise ArgumentError("timeline: the history has no epochs")
    steps = history.steps or history.rows
    epochs = np.interp(
        [row["step"] for row in steps],
        [0, *(row["step"] for row in history.rows)],
        [0, *(row["epoch"] for row in history.rows)],
    )
    rated = [(row["epoch"], 100 * row["AP"]) for row in history.rows if row.get("AP") is not None]
    panels: list[tuple[str, Any, Any, str]] = [
        ("AP", *(np.array(rated).T if rated else ([], [])), "o-"),
        ("loss", epochs, [row.get("loss", np.nan) for row in steps], "-"),
        ("learning rate", epochs, [row.get("lr", np.nan) for row in steps], "-"),
    ]
    panels = [panel for panel in panels if len(panel[1])]
    figure = Figure(figsize=(8.0, 1.1 + 1.9 * len(panels)), layout="constrained")
    for axes, (name, x, y, style) in zip(
        figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0], panels
    ):
        axes.plot(x, y, style, color=_CHOSEN if name == "AP" else _DARK, markersize=3.5, lw=1.4)
        for end in history.restarts:
            axes.axvline(end, color=_OTHER, lw=1.0, ls="--")
        axes.set_ylabel(name)
        axes.set_ylim(bottom=0)
        _tidy(axes)
        last = axes
    last.set(xlabel="epoch", xlim=(0, history.rows[-1]["epoch"] * 1.01))
    first = figure.axes[0]
    starts = [0, *history.restarts]
    for start, end, name in zip(starts, [*starts[1:], history.rows[-1]["epoch"]], history.teachers):
        first.annotate(
            *(name, ((start + end) / 2, 1.03)),
            xycoords=("data", "axes fraction"),
            ha="center",
            fontsize=10,
        )
    return _finish(figure, path)


def _edges(plan: Any) -> list[tuple[str, str]]:
    """Every arrow into a chosen teacher, but not from one that comes later."""
    result = []
    for place, target in enumerate(plan.names):
        later = plan.names[place:]
        result += [(n, target) for n in plan.costs.names if n not in later]
    return result


def _arrow(axes: Any, plan: Any, place: Any, edge: tuple[str, str], chosen: bool) -> None:
    from matplotlib.patches import FancyArrowPatch

    (x0, y0), (x1, y1) = place[edge[0]], place[edge[1]]
    # Neighbours in a row are joined straight, everything else passes above what is between.
    bend = 0.0 if abs(x1 - x0) <= 1 or y0 != y1 else -0.36 * np.sign(x1 - x0)
    colour = _CHOSEN if chosen else _OTHER
    axes.add_patch(
        FancyArrowPatch(
            *((x0, y0), (x1, y1)),
            connectionstyle=f"arc3,rad={bend}",
            arrowstyle="-|>",
            mutation_scale=16 if chosen else 11,
            shrinkA=26,
            shrinkB=26,
            lw=2.6 if chosen else 1.0,
            color=colour,
            zorder=2 if chosen else 1,
        )
    )
    # arc3 is a quadratic curve; its control point lies `bend` times the chord beside the middle.
    t = 0.5 if y0 == y1 else 0.3
    beside = 2 * t * (1 - t) * bend
    x = x0 + t * (x1 - x0) + beside * (y1 - y0)
    y = y0 + t * (y1 - y0) - beside * (x1 - x0)
    axes.text(
        *(x, y, f"{plan.costs.cost(*edge):.3g}"),
        ha="center",
        va="center",
        fontsize=9,
        color=colour if chosen else "#666666",
        fontweight="bold" if chosen else "normal",
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.2},
        zorder=3,
    )


def _node(axes: Any, plan: Any, name: str, x: float, y: float) -> None:
    chosen = name in plan.names
    face = _CHOSEN if chosen else _DARK if name == plan.student else "#d8d8d8"
    axes.scatter([x], [y], s=1500, color=face, zorder=4)
    if chosen:
        axes.text(
            *(x, y, str(plan.names.index(name) + 1)),
            ha="center",
            va="center",
            color="white",
            fontsize=13,
            fontweight="bold",
            zorder=5,
        )
    score = plan.performance.get(name)
    text = name
    if score is not None:
        text += f"\nAP {100 * score:.1f}" if score <= 1 else f"\nAP {score:g}"
    axes.annotate(
        *(text, (x, y)),
        xytext=(0, -28),
        textcoords="offset points",
        ha="center",
        va="top",
        fontsize=10,
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.0, "alpha": 0.8},
        zorder=3,
    )
