"""Winograd beside direct convolution, shape by shape: time and error of all three passes.

    python benchmarks/winograd.py

Errors are the largest difference from a double-precision product, relative to the largest element.
Times are medians of alternating repetitions; the ratio is direct / Winograd. The table is Markdown.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np

import kdswift as kd

SHAPES = (  # batch, channels, side, filters
    (8, 64, 56, 64),
    (4, 256, 64, 256),
    (4, 256, 32, 256),
    (4, 256, 16, 256),
    (4, 256, 8, 256),
    (4, 512, 8, 512),
    (16, 16, 96, 16),
    (16, 32, 48, 32),
    (16, 64, 24, 64),
    (16, 64, 12, 64),
    (16, 128, 12, 128),
    (16, 128, 6, 128),
    (1, 512, 37, 512),
    (2, 512, 7, 512),
)
PASSES = ("forward", "data gradient", "weight gradient")


def exact(x: np.ndarray, w: np.ndarray, image: int) -> np.ndarray:
    """The forward pass of one image in double precision."""
    padded = np.pad(x[image].astype(np.float64), ((0, 0), (1, 1), (1, 1)))
    height, width = x.shape[2:]
    total = np.zeros((w.shape[0], height, width))
    for dy in range(3):
        for dx in range(3):
            part = padded[:, dy : dy + height, dx : dx + width]
            total += np.tensordot(w[:, :, dy, dx].astype(np.float64), part, axes=1)
    return total


def passes(x: np.ndarray, w: np.ndarray, g: np.ndarray) -> dict[str, Callable[[], np.ndarray]]:
    """Each pass as a function; the gradients include a forward pass, which is taken off later."""

    def forward() -> np.ndarray:
        with kd.no_grad():
            return kd.conv2d(inputs[0], weights[0], padding=1)

    def gradient(which: int) -> np.ndarray:
        learned = inputs[1] if which == 0 else weights[1]
        learned.grad = None
        result = kd.conv2d(inputs[which == 0], weights[which == 1], padding=1)
        result.backward(seed)
        return learned.grad

    inputs = [kd.tensor(x), kd.tensor(x, requires_grad=True)]
    weights = [kd.tensor(w), kd.tensor(w, requires_grad=True)]
    seed = kd.tensor(g)
    return dict(zip(PASSES, (forward, lambda: gradient(0), lambda: gradient(1))))


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def row(shape: tuple[int, int, int, int], repeats: int) -> list[str]:
    """One line of the table."""
    batch, channels, side, filters = shape
    rng = np.random.default_rng(0)
    x = rng.standard_normal((batch, channels, side, side), dtype=np.float32)
    w = rng.standard_normal((filters, channels, 3, 3), dtype=np.float32)
    g = rng.standard_normal((batch, filters, side, side), dtype=np.float32)
    work = passes(x, w, g)
    times: dict[tuple[str, str], list[float]] = {}
    values: dict[tuple[str, str], np.ndarray] = {}
    for turn in range(repeats + 1):
        for plan in ("direct", "winograd"):
            kd.set_conv_plan(plan)
            for name, function in work.items():
                if turn == 0:
                    values[name, plan] = np.array(function())
                else:
                    times.setdefault((name, plan), []).append(seconds(function))
    kd.set_conv_plan("static")
    medians = {key: statistics.median(found) for key, found in times.items()}
    wanted = exact(x, w, 0)
    cells = [f"{batch}, {channels}, {side}, {filters}"]
    for name in PASSES:
        own = {
            plan: medians[name, plan] - (medians["forward", plan] if name != "forward" else 0)
            for plan in ("direct", "winograd")
        }
        cells.append(f"{own['direct'] / max(own['winograd'], 1e-9):.1f}")
        if name == "forward":
            errors = [np.abs(values[name, p][0] - wanted).max() for p in ("winograd", "direct")]
            cells.append(" / ".join(f"{e / np.abs(wanted).max():.1e}" for e in errors))
        else:
            gap = np.abs(values[name, "winograd"] - values[name, "direct"]).max()
            cells.append(f"{gap / np.abs(values[name, 'direct']).max():.1e}")
    return cells


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    print("| batch, C, H=W, K | forward | error, Winograd / direct | data gradient | gap |", end="")
    print(" weight gradient | gap |\n|---|---|---|---|---|---|---|")
    for shape in SHAPES:
        print("| " + " | ".join(row(shape, options.repeats)) + " |", flush=True)


if __name__ == "__main__":
    main()
