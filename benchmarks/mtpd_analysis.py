"""Figure 5 of Cao et al. (2023) on DigitScenes: does a distilled student fit or generalise better?

    python benchmarks/mtpd_analysis.py [--out FOLDER] [--seeds 3] [--docs docs] [--table PAGE]

Takes the students that mtpd_budget.py kept: by two teachers, and alone with the same restarts of
the learning rate. Draws the course of both and the landscape of the detection loss around them, and
compares sharpness.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import digits_runs as runs
from mtpd_budget import ANALYSED, SCENES, kept_run

import kdswift as kd
from kdswift.history import History


def read(folder: Path, name: str, seed: int) -> tuple[Any, History, list[int]]:
    """A student, its history and the epochs of its restarts."""
    kept = kept_run(folder, name, seed)
    data = json.loads(kept.with_suffix(".json").read_text())
    return kd.load(kept.with_suffix(".safetensors")), History(data["rows"]), data["restarts"]


def measured(model: Any, history: History, train: Any) -> dict[str, float]:
    """What is compared: training loss and AP at the end, sharpness."""
    gap = kd.analysis.generalisation_gap(history).summary()[0]
    sharp = kd.analysis.sharpness(model, train, radius=0.25, progress=False)
    return {
        "AP": 100 * gap["AP"],
        "training loss": gap["detection_loss"],
        "loss in eval mode": sharp.loss,
        "rise": sharp.rise,
        "relative rise": sharp.relative_rise,
    }


def main() -> None:
    """Measure, draw, print the table, and write it if asked."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", default="runs/mtpd")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--docs", help="a folder for the pictures")
    parser.add_argument("--table", help="a Markdown page to write the table into")
    given = parser.parse_args()
    folder, train = Path(given.out), kd.data.DigitScenes("train", SCENES, runs.SIZE)
    found = {n: [read(folder, n, seed) for seed in range(given.seeds)] for n in ANALYSED}
    rows = []
    for name, several in found.items():
        each = [measured(model, history, train) for model, history, _ in several]
        figures = {
            key: runs.spread([one[key] for one in each], digits=2 if key == "AP" else 3)
            for key in each[0]
        }
        rows.append({"run": name} | figures)
    text = runs.markdown_table(rows)
    print(text)
    if given.docs:
        first = {name: several[0] for name, several in found.items()}
        gap = kd.analysis.generalisation_gap(
            {name: history for name, (_, history, _) in first.items()},
            {name: restarts for name, (_, _, restarts) in first.items()},
        )
        gap.plot(Path(given.docs) / "gap.png")
        squares = {
            name: kd.analysis.loss_landscape(model, train, points=15, span=0.5, progress=False)
            for name, (model, _, _) in first.items()
        }
        kd.viz.loss_landscape(squares, Path(given.docs) / "landscape.png")
    if given.table:
        runs.write_between(given.table, "analysis", text)


if __name__ == "__main__":
    main()
