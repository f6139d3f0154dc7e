"""Training steps and inference, side by side with the same detectors in PyTorch, in one run.

    python benchmarks/step.py --repeats 7 --json benchmarks/results/NAME.json

Repetitions of all contestants alternate; figures are medians. Without torch, ours run alone.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import kdswift as kd
from kdswift import _engine, demo

try:
    import torch
except ImportError:
    torch = None


def cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


def seconds(work: Callable[[], Any], minimum: float) -> float:
    """Time of one call; short ones are repeated until `minimum` seconds are over."""
    count, start = 0, time.perf_counter()
    while count == 0 or time.perf_counter() - start < minimum:
        work()
        count += 1
    return (time.perf_counter() - start) / count


def compare(contestants: dict[str, Callable[[], Any]], repeats: int, minimum: float) -> dict:
    """Median seconds by name; the repetitions alternate so that noise hits all alike."""
    for work in contestants.values():
        for _ in range(2):
            work()
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(repeats):
        for name, work in contestants.items():
            times[name].append(seconds(work, minimum))
    return {name: statistics.median(values) for name, values in times.items()}


class Case:
    """A detector, a batch, and the same in PyTorch."""

    def __init__(self, name: str, model: Any, images: list, targets: list) -> None:
        self.name, self.model = name, model
        self.images, self.targets = images, targets
        self.flops = sum(model.flops(image.shape[:2]) for image in images)

    def ours_step(self) -> Callable[[], Any]:
        trainer = _engine.Trainer(
            self.model._engine, [], {"optimizer": {"name": "sgd", "lr": 1e-4, "momentum": 0.9}}
        )
        boxes = [{k: t[k] for k in ("boxes", "labels")} for t in self.targets]

        def step() -> None:
            batch = _engine.Batch(self.images, boxes)
            trainer.step(batch, None)
            batch.close()

        return step

    def ours_forward(self) -> Callable[[], Any]:
        return lambda: self.model.predict(self.images)

    def torch_model(self, channels_last: bool) -> tuple:
        from torch_models import detector

        model = detector(self.model, channels_last)
        images = [
            torch.from_numpy(i).permute(2, 0, 1).contiguous().float() / 255 for i in self.images
        ]
        targets = [
            {"boxes": torch.from_numpy(t["boxes"]), "labels": torch.from_numpy(t["labels"])}
            for t in self.targets
        ]
        return model, images, targets

    def torch_step(self, channels_last: bool) -> Callable[[], Any]:
        model, images, targets = self.torch_model(channels_last)
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9, weight_decay=1e-4)
        model.train()

        def step() -> None:
            loss = sum(model(images, targets).values())
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()

        return step

    def torch_forward(self, channels_last: bool) -> Callable[[], Any]:
        model, images, _ = self.torch_model(channels_last)
        model.eval()

        def forward() -> None:
            with torch.inference_mode():
                model(images)

        return forward


def cases(which: str) -> list[Case]:
    scenes = kd.data.DigitScenes("train", 16)
    digits = [scenes[i] for i in range(16)]
    images, targets = [d[0] for d in digits], [d[1] for d in digits]
    found = []
    if "student" in which:
        found.append(Case("student 0.25, 96 px, batch 16", demo.detector(0.25, 0), images, targets))
    if "teacher" in which:
        found.append(Case("teacher 1.0, 96 px, batch 16", demo.detector(1.0, 0), images, targets))
    if "vgg16" in which:
        rng = np.random.default_rng(0)
        picture = rng.integers(0, 256, (300, 300, 3), dtype=np.uint8)
        target = {
            "boxes": np.array([[20, 30, 150, 200], [100, 90, 280, 290]], np.float32),
            "labels": np.array([1, 7], np.int64),
        }
        model = kd.FasterRCNN(
            kd.backbones.vgg16(), num_classes=21, image_size=(300, 300), seed=0,
            roi={"dropout": 0.0}, rpn={"drop_border_anchors": False},
        )  # fmt: skip
        found.append(Case("vgg16, 300 px, batch 1", model, [picture], [target]))
    return found


def direct_peak() -> float:
    """GFLOP/s of a large direct convolution, forward, as the machine's practical peak."""
    x = kd.tensor(np.ones((8, 128, 56, 56), np.float32))
    w = kd.tensor(np.ones((128, 128, 1, 1), np.float32))
    flops = 2 * 8 * 128 * 128 * 56 * 56
    with kd.no_grad():
        best = min(seconds(lambda: kd.conv2d(x, w), 0.2) for _ in range(5))
    return flops / best / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--minimum", type=float, default=0.3, help="seconds per repetition")
    parser.add_argument("--cases", default="student,teacher,vgg16")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    threads = kd.get_num_threads()
    if torch is not None:
        torch.set_num_threads(threads)
    result = {
        "machine": cpu_name(), "threads": threads, "date": str(datetime.date.today()),
        "build": {k: v for k, v in kd.build_info().items() if k != "library"},
        "torch": None if torch is None else torch.__version__, "rows": [],
    }  # fmt: skip
    for case in cases(options.cases):
        for kind, factor in (("training step", 3), ("forward", 1)):
            step = kind == "training step"
            runs = {"kdswift": case.ours_step() if step else case.ours_forward()}
            if torch is not None:
                for label, last in (("torch eager", False), ("torch channels_last", True)):
                    runs[label] = case.torch_step(last) if step else case.torch_forward(last)
            times = compare(runs, options.repeats, options.minimum)
            ours = times["kdswift"]
            others = [value for name, value in times.items() if name != "kdswift"]
            row = {
                "case": case.name, "kind": kind,
                "ms": {name: round(1000 * value, 2) for name, value in times.items()},
                "ratio": round(min(others) / ours, 2) if others else None,
                "gflops": round(factor * case.flops / ours / 1e9, 1),
            }  # fmt: skip
            result["rows"].append(row)
            print(json.dumps(row), flush=True)
    result["peak_gflops_direct"] = round(direct_peak(), 1)
    print("measured peak, direct convolution:", result["peak_gflops_direct"], "GFLOP/s")
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
