"""Convolutions of signs beside convolutions of floats, shape by shape, in one run.

    python benchmarks/binary.py --repeats 20

3x3 kernels, padding 1, one image, filters packed before. "floats" is the engine's own float32
convolution by its usual plan (Winograd where it suits). The binary time includes the signs of the
input, alpha and the layout of the result. Times are medians of alternating repetitions; "theory" is
64 c N / (c N + 64) of Rastegari et al. 2016, which counts operations, not time. With one thread
`--clock cpu` is less disturbed by other work on the machine.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import kdswift as kd
from kdswift import quantization

SHAPES = (  # channels, side; as many filters as channels
    (64, 56),
    (128, 56),
    (128, 28),
    (256, 28),
    (256, 14),
    (512, 14),
    (512, 7),
)


CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


def seconds(work: Callable[[], object], calls: int, clock: str = "wall") -> float:
    start = CLOCKS[clock]()
    for _ in range(calls):
        work()
    return (CLOCKS[clock]() - start) / calls


def measure(channels: int, side: int, repeats: int, clock: str) -> dict[str, Any]:
    """Times of one shape and what follows from them."""
    rng = np.random.default_rng(0)
    x = kd.tensor(rng.standard_normal((1, channels, side, side), dtype=np.float32))
    w = kd.tensor(rng.standard_normal((channels, channels, 3, 3), dtype=np.float32))
    with kd.no_grad():
        # In the engine's own layout, as between two layers of a network.
        x = kd.conv2d(x, np.eye(channels, dtype=np.float32)[:, :, None, None])
        work = {
            "binary": lambda: quantization.binary_conv2d(x, w, padding=1),
            "floats": lambda: kd.conv2d(x, w, padding=1),
        }
        times: dict[str, list[float]] = {name: [] for name in work}
        calls = max(1, int(0.02 / seconds(work["floats"], 3)))
        for _ in range(repeats):
            for name, function in work.items():
                times[name].append(seconds(function, calls, clock))
    medians = {name: statistics.median(found) for name, found in times.items()}
    products = 9 * channels * channels * side * side
    return {
        "channels": channels,
        "side": side,
        "floats ms": medians["floats"] * 1e3,
        "binary ms": medians["binary"] * 1e3,
        "ratio": medians["floats"] / medians["binary"],
        "theory": 64 * 9 * channels / (9 * channels + 64),
        "binary products per ns": products / medians["binary"] / 1e9,
        "float products per ns": products / medians["floats"] / 1e9,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--threads", type=int, help="default: the engine's own choice")
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="cpu: of all threads")
    parser.add_argument("--json", type=Path, help="file for the figures")
    options = parser.parse_args()
    if options.threads:
        kd.set_num_threads(options.threads)
    load = os.getloadavg()[0]
    rows = [measure(*shape, options.repeats, options.clock) for shape in SHAPES]
    names = list(rows[0])
    print("| " + " | ".join(names) + " |\n|" + "---|" * len(names))
    for row in rows:
        print("| " + " | ".join(f"{v:.3g}" for v in row.values()) + " |")
    if options.json:
        from step import processor

        report = {
            "processor": processor(),
            "date": datetime.datetime.now().isoformat(timespec="minutes"),
            "load before": load,
            "load after": os.getloadavg()[0],
            "kdswift": {k: v for k, v in kd.build_info().items() if k != "library"},
            "repeats": options.repeats,
            "clock": options.clock,
            "rows": rows,
        }
        options.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
