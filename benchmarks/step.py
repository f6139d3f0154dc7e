"""Training steps and inference beside the same detectors in PyTorch, in one run.

    python benchmarks/step.py --repeats 7 --json benchmarks/results/NAME.json

A step is forward, four losses, backward, clipping and optimizer, from uint8 images; inference goes
from uint8 images to boxes. Both sides have the same weights, and their losses are compared where
every anchor and region is sampled. Repetitions alternate; figures are medians. Without torch, ours
run alone.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import statistics
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from contestants import Contestant, has_torch

from kdswift.data import DigitScenes
from kdswift.demo import ANCHORS, IMAGE_SIZE, ROI, RPN

# Above every count of anchors or regions here: all are sampled, so that nothing is drawn.
EVERYTHING = {"batch": 100_000, "positive_fraction": 1.0}
# Relative difference of two float32 losses that are equal but for the order of sums.
LOSS_TOLERANCE = 1e-3


def digits(width: float, batch: int) -> dict[str, Any]:
    """The demo's detector of this width on its scenes."""
    scenes = DigitScenes("train", batch, IMAGE_SIZE)
    items = [scenes[i] for i in range(batch)]
    return {
        "backbone": {"name": "resnet_small", "width": width},
        "num_classes": len(DigitScenes.class_names),
        "size": IMAGE_SIZE,
        "anchors": (ANCHORS.sizes, ANCHORS.ratios),
        "rpn": dict(RPN),
        "roi": dict(ROI),
        "optimizer": "adamw",
        "images": [image for image, _ in items],
        "targets": [{k: target[k] for k in ("boxes", "labels")} for _, target in items],
    }


def vgg16(batch: int) -> dict[str, Any]:
    """The published detector at 300 pixels, on random images with three boxes."""
    rng = np.random.default_rng(0)
    boxes = np.array([[20, 30, 150, 200], [100, 90, 280, 290], [5, 160, 140, 290]], np.float32)
    target = {"boxes": boxes, "labels": np.array([1, 7, 15], np.int64)}
    return {
        "backbone": {"name": "vgg16", "norm": None},
        "num_classes": 21,
        "size": 300,
        "anchors": None,
        "rpn": {},
        "roi": {},
        "optimizer": "sgd",
        "images": [rng.integers(0, 256, (300, 300, 3), dtype=np.uint8) for _ in range(batch)],
        "targets": [target] * batch,
    }


CASES = {
    "student": ("student (width 0.25), 96 px, batch 16", lambda: digits(0.25, 16)),
    "teacher": ("teacher (width 1), 96 px, batch 16", lambda: digits(1.0, 16)),
    "vgg16": ("vgg16, 300 px, batch 1", lambda: vgg16(1)),
}


def processor() -> str:
    """The processor's name and instruction set, as the system tells them."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    found = dict(line.split("\t: ", 1) for line in map(str.strip, lines) if "\t: " in line)
    names = [found.get(k, "?") for k in ("model name", "cpu family", "model")]
    wide = ", AVX-512" if "avx512f" in str(lines) else ""
    return f"{names[0]} (family {names[1]}, model {names[2]}{wide})"


def start(threads: int) -> tuple[Contestant, Contestant | None]:
    """Both sides, or ours alone."""
    ours = Contestant("contestants:Ours", threads)
    return ours, Contestant("contestants:Torch", threads) if has_torch() else None


def compare_losses(ours: Contestant, other: Contestant, folder: str) -> dict[str, Any]:
    """The four losses of both sides for one batch, everything sampled."""
    spec = digits(1.0, 4)
    spec["rpn"] |= EVERYTHING
    spec["roi"] |= EVERYTHING
    weights = f"{folder}/check.safetensors"
    built = ours.ask("build", spec, weights)
    other.ask("build", spec, built["configuration"], weights)
    a, b = ours.ask("losses"), other.ask("losses")
    worst = max(abs(a[name] - b[name]) / abs(b[name]) for name in b)
    return {"kdswift": a, "torch": b, "largest relative difference": worst}


def measure(
    runners: dict[str, Contestant], what: str, repeats: int, minimum: float
) -> dict[str, list[float]]:
    """Seconds per call by name; the repetitions alternate so that noise hits all alike."""
    for contestant in dict.fromkeys(runners.values()):
        contestant.ask("mode", what)
    times: dict[str, list[float]] = {name: [] for name in runners}
    for turn in range(repeats + 1):
        for name, contestant in runners.items():
            found = contestant.ask("time", name, what, minimum)
            if turn:  # the first turn warms up
                times[name].append(found)
    return times


def row_of(
    title: str, flops: float, what: str, times: dict[str, list[float]], peak: float
) -> dict[str, Any]:
    middle = {name: statistics.median(values) for name, values in times.items()}
    ours = middle["kdswift"]
    speed = flops / ours / 1e9
    return {
        "case": title,
        "what": "training step" if what == "step" else "inference",
        "ms": {name: round(1000 * value, 2) for name, value in middle.items()},
        "spread ms": {
            name: [round(1000 * min(v), 2), round(1000 * max(v), 2)] for name, v in times.items()
        },
        "ours / torch": {
            name: round(ours / value, 3) for name, value in middle.items() if name != "kdswift"
        },
        "GFLOP/s": round(speed, 1),
        "of the peak": round(speed / peak, 3),
    }


def show(row: dict[str, Any]) -> None:
    times = "   ".join(f"{name} {value:.2f} ms" for name, value in row["ms"].items())
    print(f"\n{row['case']}: {row['what']}\n  {times}")
    for name, ratio in row["ours / torch"].items():
        print(f"  ours / {name}: {ratio:.3f} (ours is {1 / ratio:.2f} times as fast)")
    print(
        f"  {row['GFLOP/s']} GFLOP/s, {100 * row['of the peak']:.0f} % of the direct peak",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--minimum", type=float, default=0.4, help="seconds per repetition")
    parser.add_argument("--cases", default=",".join(CASES), help="some of " + ", ".join(CASES))
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    ours, other = start(options.threads)
    peak = ours.ask("peak")
    print("measured peak:", ", ".join(f"{k} {v:.0f} GFLOP/s" for k, v in peak.items()))
    result: dict[str, Any] = {
        "processor": processor(), "threads": options.threads, "python": platform.python_version(),
        "date": datetime.datetime.now().isoformat(timespec="minutes"),
        "load before": os.getloadavg()[0], "environment": {
            k: v for k, v in os.environ.items()
            if k in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "OPENBLAS_CORETYPE")},
        "kdswift": ours.info, "torch": other.info if other else None,
        "repeats": options.repeats, "peak GFLOP/s": {k: round(v, 1) for k, v in peak.items()},
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        if other:
            check = compare_losses(ours, other, folder)
            worst = check["largest relative difference"]
            print(f"losses agree to {worst:.1e} (everything sampled)")
            if worst > LOSS_TOLERANCE:
                raise SystemExit(f"the two sides do not compute the same: {json.dumps(check)}")
            result["losses"] = check
        result["rows"] = []
        for case in options.cases.split(","):
            title, make = CASES[case]
            spec = make()
            weights = f"{folder}/{case}.safetensors"
            built = ours.ask("build", spec, weights)
            if other:
                other.ask("build", spec, built["configuration"], weights)
            runners = {"kdswift": ours}
            if other:
                runners |= dict.fromkeys(("torch eager", "torch channels_last"), other)
            for what in ("step", "forward"):
                times = measure(runners, what, options.repeats, options.minimum)
                row = row_of(title, built["flops"][what], what, times, peak["direct convolution"])
                result["rows"].append(row)
                show(row)
    result["load after"] = os.getloadavg()[0]
    ours.close()
    if other:
        other.close()
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
