"""How time and memory of a training step grow with the input: a plot and its numbers.

    python benchmarks/growth.py --plot docs/growth.png --json benchmarks/results/NAME-growth.json

One RetinaNet on resnet18 with half of the channels. From a base of 192 px, 4 images, 4 boxes an
image and 9 anchors a place, one of the four is varied at a time. Times are medians; memory is the
most that tensors and scratch space had at a time beyond what the model keeps. The dotted line is
proportional growth from the base (quadratic in the side).
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np

BASE = {"image side": 192, "batch": 4, "boxes per image": 4, "anchors per place": 9}
VARIED = {
    "image side": (64, 96, 128, 192, 256, 384, 512),
    "batch": (1, 2, 4, 8, 16),
    "boxes per image": (0, 1, 4, 16, 64, 256),
    "anchors per place": (3, 9, 18, 36),
}


def measure(case: dict[str, int], steps: int) -> dict[str, float]:
    """Median seconds of a step, and its peak in MB without what the model keeps between steps."""
    import kdswift as kd
    from kdswift import _engine

    side, batch = case["image side"], case["batch"]
    scales = 2 ** np.linspace(0, 1, case["anchors per place"] // 3, endpoint=False)
    sizes = [[base * scale for scale in scales] for base in (16, 32, 64, 128, 256)]
    model = kd.RetinaNet(
        kd.backbones.resnet18(0.5),
        *(21, kd.FPN(128)),
        anchors=kd.Anchors(sizes, (0.5, 1, 2)),
        image_size=(side, side),
        seed=0,
    )
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (side, side, 3), dtype=np.uint8) for _ in range(batch)]
    count = case["boxes per image"]
    corner = rng.uniform(0, side * 0.6, (count, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(8, side * 0.4, (count, 2))], 1)
    target = {"boxes": boxes.astype(np.float32), "labels": rng.integers(1, 21, count)}
    trainer = _engine.Trainer(model._engine, [], {"optimizer": {"name": "sgd", "lr": 1e-5}})
    data = _engine.Batch(images, [target] * batch)
    times = []
    for step in range(steps + 2):
        if step == 2:
            kept = kd.memory_stats(reset_peak=True)["in_use"]
        start = time.perf_counter()
        trainer.step(data, None)
        times.append(time.perf_counter() - start)
    peak = kd.memory_stats()["peak"] - kept
    trainer.close()
    data.close()
    return {"seconds": statistics.median(times[2:]), "peak_mb": peak / 2**20}


def plot(rows: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """Two lines of panels: time above, memory below."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, len(rows), figsize=(13, 6), layout="constrained")
    for column, (name, points) in enumerate(rows.items()):
        x = [point["value"] for point in points]
        for row, (key, unit, factor) in enumerate(
            (("seconds", "ms per step", 1000), ("peak_mb", "MB", 1))
        ):
            axis, y = axes[row, column], [factor * point[key] for point in points]
            axis.plot(x, y, "o-", color="tab:blue" if row == 0 else "tab:green")
            if name in ("image side", "batch"):
                base = factor * next(p[key] for p in points if p["value"] == BASE[name])
                power = 2 if name == "image side" else 1
                axis.plot(x, [base * (v / BASE[name]) ** power for v in x], "k:", linewidth=1)
            axis.set_ylim(bottom=0, top=1.15 * max(y))
            axis.set_xlabel(name)
            axis.set_ylabel(unit)
            axis.grid(alpha=0.3)
    figure.suptitle("A training step of RetinaNet (resnet18, half width)")
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows: dict[str, list[dict[str, Any]]] = {}
    for name, values in VARIED.items():
        rows[name] = []
        for value in values:
            found = measure({**BASE, name: value}, options.steps)
            rows[name].append({"value": value, **found})
            print(
                f"{name:18} {value:4}  {1000 * found['seconds']:8.1f} ms"
                f"  {found['peak_mb']:8.1f} MB",
                flush=True,
            )
    if options.plot:
        plot(rows, options.plot)
    if options.json:
        options.json.write_text(json.dumps({"base": BASE, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
