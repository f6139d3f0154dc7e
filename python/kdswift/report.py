"""The demo's report: one HTML file with everything inside it."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from . import runtime
from ._files import write_text
from ._tables import html_table
from .viz import compare

PICTURES = 6
SCORE_THRESHOLD = 0.5

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; max-width: 70rem; margin: 2rem auto;
       padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2.2rem; }
table { border-collapse: collapse; } th, td { padding: .3rem .9rem; text-align: right; }
th { border-bottom: 2px solid #222; } td { border-bottom: 1px solid #ddd; }
th:first-child, td:first-child { text-align: left; }
.verdict { font-size: 1.1rem; border-left: 4px solid #21c7a8; padding-left: 1rem; }
img { max-width: 100%; display: block; margin: .6rem 0; } .note { color: #666; }
"""


def write_report(result: Any, val_set: Any) -> None:
    """Write ``result.report``: table, sentence, pictures, curves, settings."""
    sections = [
        f"<h1>A small detector learns from a large one</h1>{_introduction(result)}",
        f'<p class="verdict">{html.escape(result.verdict)}</p>',
        html_table(result.rows),
        '<p class="note">AP is COCO’s (IoU 0.50 to 0.95), in percent, of the weights after the '
        "last epoch; ± is the standard deviation over the seeds. Times are medians, one image at "
        "a time.</p>",
        f"<h2>Seed by seed</h2>{html_table(_seed_rows(result))}",
        f"<h2>The first {PICTURES} validation scenes</h2>{_pictures(result, val_set)}",
        f"<h2>Curves</h2>{_figure(_score_figure(result))}",
        _figure(result.distilled[0].history.plot()),
        f"<h2>Settings</h2>{_settings(result)}",
    ]
    text = (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>kdswift demo</title>'
        f"<style>{_STYLE}</style></head><body>{''.join(sections)}</body></html>"
    )
    write_text(result.report, text)


def png(picture: Any, alt: str = "") -> str:
    """An <img> with a PIL picture inside it."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=4)
    return _image(buffer.getvalue(), alt)


def _figure(figure: Any) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return _image(buffer.getvalue(), "curves")


def _image(data: bytes, alt: str) -> str:
    code = base64.b64encode(data).decode()
    return f'<img alt="{html.escape(alt)}" src="data:image/png;base64,{code}">'


def _introduction(result: Any) -> str:
    budget = result.budget
    return (
        f"<p>A teacher was trained on {budget.train_scenes:,} scenes of handwritten digits. Then "
        f"the same small student was trained for {budget.student_epochs} epochs, alone and with "
        f"the teacher’s help: same first weights, same scenes in the same order, same budget, "
        f"{budget.seeds} seed{'s' if budget.seeds > 1 else ''}. Validation scenes show other "
        "handwriting on other parts of the photographs.</p>"
    )


def _seed_rows(result: Any) -> list[dict[str, Any]]:
    return [
        {
            "seed": alone.seed,
            "alone AP": round(100 * alone.AP, 1),
            "distilled AP": round(100 * distilled.AP, 1),
            "difference": f"{100 * (distilled.AP - alone.AP):+.1f}",
            "alone AP50": round(100 * alone.AP50, 1),
            "distilled AP50": round(100 * distilled.AP50, 1),
        }
        for alone, distilled in zip(result.alone, result.distilled)
    ]


def _pictures(result: Any, val_set: Any) -> str:
    count = min(PICTURES, len(val_set))
    images, targets = zip(*(val_set[i] for i in range(count)))
    models = {
        "teacher": result.teacher.model,
        "student alone": result.alone[0].model,
        "distilled student": result.distilled[0].model,
    }
    found = {name: model.predict(list(images)) for name, model in models.items()}
    parts = [
        png(
            compare(
                images[i],
                {name: detections[i] for name, detections in found.items()},
                targets[i],
                val_set.class_names,
                SCORE_THRESHOLD,
            ),
            f"scene {i}: truth, {', '.join(models)}",
        )
        for i in range(count)
    ]
    note = f"<p class='note'>Detections with a score of at least {SCORE_THRESHOLD}, seed 1.</p>"
    return note + "".join(parts)


def _score_figure(result: Any) -> Any:
    """Validation AP over the epochs of all runs."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 3.8), layout="constrained")
    axes = figure.subplots()
    groups = (
        ("teacher", [result.teacher], "#222222"),
        ("student alone", result.alone, "#ff7f2a"),
        ("distilled", result.distilled, "#21a78c"),
    )
    for name, group, colour in groups:
        for i, run in enumerate(group):
            x, y = _scores(run.history.rows)
            label = name if i == 0 else None
            axes.plot(x, y, color=colour, marker="o", markersize=3, linewidth=1.4, label=label)
    axes.set(xlabel="epoch", ylabel="AP on validation scenes, percent")
    axes.set_ylim(bottom=0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    axes.legend(frameon=False)
    return figure


def _scores(rows: Sequence[dict[str, Any]]) -> tuple[list[float], list[float]]:
    rated = [row for row in rows if row.get("AP") is not None]
    return [row["epoch"] for row in rated], [100 * row["AP"] for row in rated]


def _settings(result: Any) -> str:
    build = runtime.build_info()
    rows = [
        {"setting": "method", "value": repr(result.method)},
        {"setting": "difficulty of the scenes", "value": f"{result.difficulty:g}"},
        {"setting": "teacher", "value": repr(result.teacher.model)},
        {"setting": "student", "value": repr(result.alone[0].model)},
        *({"setting": k.replace("_", " "), "value": v} for k, v in asdict(result.budget).items()),
        *({"setting": k, "value": v} for k, v in build.items() if k != "library"),
    ]
    return html_table(rows)
