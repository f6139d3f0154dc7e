"""Distillation with and without the teacher's features on disk: time per epoch, bytes, losses.

    python benchmarks/cache.py [--out FOLDER] [--table PAGE]

Teachers and student come from mtpd_zoo.py; feature matching, no augmentation. "first" is the epoch
that fills the cache, "later" the median of the others; "losses" whether every logged loss and the
student's weights are those of the run without a cache bit for bit, or else how far they are off.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import Any

import digits_runs as runs
import numpy as np
from mtpd_zoo import STUDENTS, Zoo

import kdswift as kd

SCENES, EPOCHS = 512, 5


class Comparison:
    """One teacher with and without a cache."""

    def __init__(self, name: str, teacher: Any) -> None:
        self.name, self.teacher = name, teacher
        self.kind = "ladder" if name.endswith("x") else "pool"
        self.train = kd.data.DigitScenes("train", SCENES, runs.SIZE)
        [self.train[i] for i in range(SCENES)]  # painted once, kept
        self.plain = self.run(teacher)

    def run(self, teacher: Any) -> tuple[Any, Any]:
        """A student and its history."""
        student = STUDENTS[self.kind].build(1)
        options = runs.options(0) | {"log_every": 1}
        history = kd.distill(student, teacher, self.train, "feature_matching", EPOCHS, **options)
        return student, history

    def rows(self) -> list[dict[str, Any]]:
        """Of the table."""
        rows = [self.row("none", self.plain, 0)]
        for dtype in ("float32", "float16"):
            with tempfile.TemporaryDirectory() as folder:
                found = self.run(kd.Teacher.cached(self.teacher, folder, dtype))
                size = sum(file.stat().st_size for file in Path(folder).rglob("*.tap"))
                rows.append(self.row(dtype, found, size))
        return rows

    def row(self, cache: str, found: tuple[Any, Any], size: int) -> dict[str, Any]:
        """One run."""
        seconds = epoch_seconds(found[1])
        return {
            "teacher": self.name,
            "cache": cache,
            "first": f"{seconds[0]:.1f} s",
            "later": f"{statistics.median(seconds[1:]):.1f} s",
            "on disk": f"{size / 1e6:.0f} MB" if size else "",
            "per image": f"{size / SCENES / 1e3:.0f} kB" if size else "",
            "losses": self.difference(found) if size else "",
        }

    def difference(self, found: tuple[Any, Any]) -> str:
        """Between a run and the one without a cache."""
        (student, history), (plain, before) = found, self.plain
        weights = zip(student.state_dict().values(), plain.state_dict().values())
        if history.steps == before.steps and all((a == b).all() for a, b in weights):
            return "equal bit for bit"
        pairs = zip(history.steps, before.steps)
        off = [abs(new["loss"] / old["loss"] - 1) for new, old in pairs]
        return f"{off[0]:.0e} of the first, {np.mean(off[-SCENES // runs.BATCH :]):.1%} of the last"


def epoch_seconds(history: Any) -> list[float]:
    """Of every epoch; the history has them from the start on."""
    return np.diff([0.0, *(row["seconds"] for row in history.rows)]).tolist()


def main() -> None:
    """Run it, print the table, and write it if asked."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", default="runs/mtpd")
    parser.add_argument("--teachers", nargs="+", default=["gfl-1", "swin-s", "1x"])
    parser.add_argument("--table", help="a Markdown page to write the table into")
    given = parser.parse_args()
    zoo = Zoo(Path(given.out))
    rows = []
    for name in given.teachers:
        rows += Comparison(name, zoo.teacher(name)).rows()
    text = runs.markdown_table(rows)
    print(f"{kd.get_num_threads()} threads\n{text}")
    if given.table:
        runs.write_between(given.table, "cache", text)


if __name__ == "__main__":
    main()
