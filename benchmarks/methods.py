"""Every method on one pair of detectors: DigitScenes, several seeds, mean and spread.

    python benchmarks/methods.py [--seeds 3] [--only cwd pkd] [--out FOLDER] [--table PAGE]

One teacher and a small student of the same kind: GFL, and Faster R-CNN with a pyramid for methods
that need regions. Every run has the same scenes, steps and schedule; a seed decides the student's
first weights, the order of scenes and all samples. Results are kept in FOLDER: what is there is
not run again. "gain" is the mean over seeds of the difference to the student alone with that seed.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import digits_runs as runs

import kdswift as kd
from kdswift.methods import names

TWO_STAGE = ("chen2017", "mimic2017", "quantization_mimic")
SCENES, EPOCHS = 1000, 8
TEACHER_EPOCHS, TEACHER_WIDTH, STUDENT_WIDTH = 16, 1.0, 0.25


class Bench:
    """The runs of one kind of detector, kept in a folder."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind, self.folder = kind, folder
        self.train = kd.data.DigitScenes("train", SCENES, runs.SIZE)
        self.val = kd.data.DigitScenes("val", 300, runs.SIZE)
        self.results = runs.Results(folder / f"{kind}.json")

    def teacher(self) -> Any:
        """The teacher, trained once."""
        path = self.folder / f"{self.kind}-teacher.safetensors"
        if path.exists():
            return kd.load(path)
        model = runs.detector(self.kind, TEACHER_WIDTH, 0)
        train = kd.data.DigitScenes("train", 2000, runs.SIZE)
        model.fit(train, TEACHER_EPOCHS, **runs.options(0))
        model.save(path)
        self.keep("teacher", 0, model, 0.0)
        return model

    def run(self, name: str, seed: int) -> None:
        """Train a student with a method ("alone": without), unless it is there."""
        if self.results.has(name, seed):
            return
        teacher = self.teacher()
        student = runs.detector(self.kind, STUDENT_WIDTH, seed + 1)
        start = time.perf_counter()
        if name == "alone":
            student.fit(self.train, EPOCHS, **runs.options(seed))
        else:
            kd.distill(student, teacher, self.train, name, EPOCHS, **runs.options(seed))
        self.keep(name, seed, student, time.perf_counter() - start)

    def keep(self, name: str, seed: int, model: Any, seconds: float) -> None:
        """Score a model and write it down."""
        row = runs.ap(model, self.val) | {"seconds": round(seconds, 1)}
        self.results.keep(name, seed, row | {"parameters": model.num_parameters})

    def rows(self) -> list[dict[str, Any]]:
        """The table's rows: the teacher, the student alone, then methods by their gain."""
        alone = self.results["alone"]
        lines = []
        for name, found in self.results.items():
            gain = [found[s]["AP"] - alone[s]["AP"] for s in found if s in alone]
            lines.append((name, gain))
        order = {"teacher": 1e9, "alone": 1e8}
        lines.sort(key=lambda line: -order.get(line[0], statistics.fmean(line[1] or [0])))
        return [self._row(*line) for line in lines]

    def _row(self, name: str, gain: list[float]) -> dict[str, Any]:
        plain = name in ("teacher", "alone")
        return {
            "method": name if plain else f"`{name}`",
            "detector": self.kind,
            "AP": runs.spread(self.results.of(name)),
            "AP50": runs.spread(self.results.of(name, "AP50")),
            "gain of AP": "" if plain else runs.spread(gain, "+"),
        }


def main() -> None:
    """Run what is missing, print the table, and write it if asked."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=3)
    kinds = ("gfl", "faster_rcnn")
    parser.add_argument("--detectors", nargs="+", choices=kinds, default=kinds)
    parser.add_argument("--only", nargs="*", help="methods; default all")
    parser.add_argument("--out", default="runs/methods")
    parser.add_argument("--table", help="a Markdown page to write the table into")
    given = parser.parse_args()
    benches = {kind: Bench(kind, Path(given.out)) for kind in given.detectors}
    wanted = given.only if given.only is not None else list(names())
    for seed in range(given.seeds):
        for bench in benches.values():
            bench.run("alone", seed)
        for name in wanted:
            kind = "faster_rcnn" if name in TWO_STAGE else "gfl"
            if kind in benches:
                benches[kind].run(name, seed)
    found = (bench for bench in benches.values() if "alone" in bench.results)
    text = runs.markdown_table([row for bench in found for row in bench.rows()])
    print(text)
    if given.table:
        runs.write_between(given.table, "methods", text)


if __name__ == "__main__":
    main()
