"""The detectors of the experiments with several teachers, trained once and kept in a folder.

    python benchmarks/mtpd_zoo.py [--out FOLDER] [--only NAME ...]

Pool: one-stage detectors (GFL) on two sizes of ResNet and two of Swin, and a two-stage detector
(Faster R-CNN), all with pyramids of 64 channels. Ladder: the same Faster R-CNN at 2, 1.5 and 1
times the size of the scenes, for a student at half of it: 1x, 0.75x, 0.5x and 0.25x of the largest
input, as detectors for COCO enlarge its images, too.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any, NamedTuple

import digits_runs as runs

import kdswift as kd

SCENES, EPOCHS = 2000, 16


class Spec(NamedTuple):
    """A detector; lr and epochs : of its training as a teacher."""

    kind: str
    width: float
    backbone: str = "resnet_small"
    size: int = runs.SIZE
    lr: float = 2e-3
    epochs: int = EPOCHS

    def build(self, seed: int) -> Any:
        """With weights from a seed."""
        return runs.detector(self.kind, self.width, seed, self.backbone, self.size)


POOL = {
    "gfl-0.5": Spec("gfl", 0.5),
    "gfl-1": Spec("gfl", 1.0),
    "faster-1": Spec("faster_rcnn", 1.0),
    "swin-t": Spec("gfl", 0.34, "swin_t", lr=1e-3),
    "swin-s": Spec("gfl", 0.34, "swin_s", lr=1e-3),
}
LADDER = {
    "0.5x": Spec("faster_rcnn", 0.5, size=96),
    "0.75x": Spec("faster_rcnn", 0.5, size=144),
    "1x": Spec("faster_rcnn", 0.5, size=192),
}
STUDENTS = {
    "pool": Spec("gfl", 0.25),
    "ladder": Spec("faster_rcnn", 0.5, size=48),
}


class Zoo:
    """The teachers in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.results = runs.Results(folder / "zoo.json")

    def teacher(self, name: str) -> Any:
        """A teacher, trained if it is not there."""
        path = self.folder / f"{name}.safetensors"
        if path.exists():
            return kd.load(path)
        spec = (POOL | LADDER)[name]
        model = spec.build(0)
        start = time.perf_counter()
        train = kd.data.DigitScenes("train", SCENES, runs.SIZE)
        model.fit(train, spec.epochs, **runs.options(0, spec.lr))
        model.save(path)
        self.measure(name, model, time.perf_counter() - start)
        return model

    def cached(self, name: str) -> Any:
        """A teacher whose maps are computed once for all runs."""
        return kd.Teacher.cached(self.teacher(name), self.folder / "cache")

    def measure(self, name: str, model: Any, seconds: float) -> None:
        """Write down a teacher's AP."""
        row = runs.ap(model, kd.data.DigitScenes("val", 300, runs.SIZE))
        row |= {"seconds": round(seconds, 1), "parameters": model.num_parameters}
        self.results = runs.Results(self.folder / "zoo.json")  # another process may have written
        self.results.keep(name, 0, row)

    def student(self, group: str, seed: int, scenes: int, epochs: int) -> Any:
        """The student of a group, trained without a teacher ("off the shelf")."""
        path = self.folder / f"student-{group}-{seed}-{scenes}x{epochs}.safetensors"
        if not path.exists():
            model = STUDENTS[group].build(seed + 1)
            train = kd.data.DigitScenes("train", scenes, runs.SIZE)
            model.fit(train, epochs, **runs.options(seed))
            model.save(path)
        return kd.load(path)


def main() -> None:
    """Train what is missing."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", default="runs/mtpd")
    parser.add_argument("--only", nargs="*", default=[*POOL, *LADDER], help="teachers")
    given = parser.parse_args()
    zoo = Zoo(Path(given.out))
    for name in given.only:
        model = zoo.teacher(name)
        if not zoo.results.has(name, 0):
            zoo.measure(name, model, 0.0)


if __name__ == "__main__":
    main()
