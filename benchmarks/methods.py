"""Every method on one pair of detectors: DigitScenes, several seeds, mean and spread.

    python benchmarks/methods.py [--seeds 3] [--only cwd pkd] [--out FOLDER] [--table PAGE]

One teacher and a small student of the same kind: GFL, and Faster R-CNN with a pyramid for methods
that need regions. Every run has the same scenes, steps and schedule; a seed decides the student's
first weights, the order of scenes and all samples. Results are kept in FOLDER: what is there is
not run again. "gain" is the mean over seeds of the difference to the student alone with that seed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import kdswift as kd
from kdswift.digits_detectors import digits_configuration
from kdswift.methods import names

TWO_STAGE = ("chen2017", "mimic2017", "quantization_mimic")
SIZE, SCENES, EPOCHS, BATCH = 96, 1000, 8, 16
TEACHER_EPOCHS, TEACHER_WIDTH, STUDENT_WIDTH = 16, 1.0, 0.25
MARKS = ("<!-- methods: begin -->", "<!-- methods: end -->")


def detector(kind: str, width: float, seed: int) -> Any:
    """A detector for glyphs; teacher and student differ in the width of their backbones."""
    configuration = digits_configuration(kind, "fpn")
    configuration["backbone"]["width"] = width
    classes = kd.data.DigitScenes.class_names
    configuration |= {"num_classes": len(classes), "class_names": list(classes)}
    return kd.Detector.from_configuration(configuration, seed)


def options(epochs: int, seed: int) -> dict[str, Any]:
    """What all runs share."""
    return {
        "epochs": epochs,
        "batch_size": BATCH,
        "optimizer": kd.AdamW(lr=2e-3),
        "schedule": kd.Cosine(warmup=0.05),
        "clip_norm": 10.0,
        "seed": seed,
        "progress": False,
        "eval_every": None,
    }


class Bench:
    """The runs of one kind of detector, kept in a folder."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind, self.folder = kind, folder
        folder.mkdir(parents=True, exist_ok=True)
        self.train = kd.data.DigitScenes("train", SCENES, SIZE)
        self.val = kd.data.DigitScenes("val", 300, SIZE)
        self.file = folder / f"{kind}.json"
        self.results: dict[str, Any] = (
            json.loads(self.file.read_text()) if self.file.exists() else {}
        )

    def teacher(self) -> Any:
        """The teacher, trained once."""
        path = self.folder / f"{self.kind}-teacher.safetensors"
        if path.exists():
            return kd.load(path)
        model = detector(self.kind, TEACHER_WIDTH, 0)
        train = kd.data.DigitScenes("train", 2000, SIZE)
        model.fit(train, **options(TEACHER_EPOCHS, 0))
        model.save(path)
        self.keep("teacher", 0, model, 0.0)
        return model

    def run(self, name: str, seed: int) -> None:
        """Train a student with a method ("alone": without), unless it is there."""
        if str(seed) in self.results.get(name, {}):
            return
        teacher = self.teacher()
        student = detector(self.kind, STUDENT_WIDTH, seed + 1)
        start = time.perf_counter()
        if name == "alone":
            student.fit(self.train, **options(EPOCHS, seed))
        else:
            kd.distill(student, teacher, self.train, method=name, **options(EPOCHS, seed))
        self.keep(name, seed, student, time.perf_counter() - start)

    def keep(self, name: str, seed: int, model: Any, seconds: float) -> None:
        """Score a model and write it down."""
        score = kd.evaluate(model, self.val, progress=False)
        row = {"AP": 100 * score.AP, "AP50": 100 * score.AP50, "seconds": round(seconds, 1)}
        row["parameters"] = model.num_parameters
        self.results.setdefault(name, {})[str(seed)] = row
        self.file.write_text(json.dumps(self.results, indent=1) + "\n")
        print(f"{self.kind} {name} seed {seed}: AP {row['AP']:.1f}, {seconds:.0f} s", flush=True)

    def rows(self) -> list[str]:
        """The table's rows: the teacher, the student alone, then methods by their gain."""
        alone = self.results["alone"]
        lines = []
        for name, runs in self.results.items():
            gain = [runs[s]["AP"] - alone[s]["AP"] for s in runs if s in alone]
            lines.append((name, runs, gain))
        order = {"teacher": 1e9, "alone": 1e8}
        lines.sort(key=lambda line: -order.get(line[0], statistics.fmean(line[2] or [0])))
        return [self._row(*line) for line in lines]

    def _row(self, name: str, runs: dict[str, Any], gain: list[float]) -> str:
        ap, ap50 = ([run[key] for run in runs.values()] for key in ("AP", "AP50"))
        cells = [f"`{name}`" if name not in ("teacher", "alone") else f"{name}", self.kind]
        cells += [_spread(ap), _spread(ap50)]
        cells.append(_spread(gain, "+") if name not in ("teacher", "alone") else "")
        return f"| {' | '.join(cells)} |"


def _spread(values: list[float], sign: str = "") -> str:
    text = f"{statistics.fmean(values):{sign}.1f}"
    return text if len(values) < 2 else f"{text} ± {statistics.stdev(values):.1f}"


def table(benches: list[Bench]) -> str:
    """Markdown."""
    head = ["| method | detector | AP | AP50 | gain of AP |", "|---|---|---|---|---|"]
    rows = [row for bench in benches if "alone" in bench.results for row in bench.rows()]
    return "\n".join([*head, *rows])


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
    text = table(list(benches.values()))
    print(text)
    if given.table:
        page = Path(given.table)
        before, rest = page.read_text().split(MARKS[0])
        page.write_text(f"{before}{MARKS[0]}\n{text}\n{MARKS[1]}{rest.split(MARKS[1])[1]}")


if __name__ == "__main__":
    main()
