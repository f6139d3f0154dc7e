"""A Swin Transformer's features and their gradients beside torchvision's, with the same weights.

    python benchmarks/swin.py --threads 2      needs torch and torchvision

Forward without gradients, and forward with backward from the sum over all four stages, of random
images. Each side runs in processes of its own, by turns; figures are medians: milliseconds on the
clock, and milliseconds of processor time, which other work on the machine changes less.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np


def timed(call: Callable[[], None], repeats: int) -> list[tuple[float, float]]:
    """(clock, processor) milliseconds of each call, after one that is not counted."""
    call()
    found = []
    for _ in range(repeats):
        clock, processor = time.perf_counter(), time.process_time()
        call()
        found.append((1e3 * (time.perf_counter() - clock), 1e3 * (time.process_time() - processor)))
    return found


def pixels(batch: int, size: int) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.integers(0, 256, (size, size, 3), dtype=np.uint8) for _ in range(batch)]


def ours(name: str, batch: int, size: int) -> dict[str, Callable[[], None]]:
    import kdswift as kd

    backbone = kd.backbones.Backbone(name, output_norm=False)
    limits = {"rpn": {"channels": 8}, "roi": {"hidden": [8], "pool_size": 1, "dropout": 0}}
    anchors = kd.Anchors((32,), (1,))
    model = kd.FasterRCNN(backbone, 2, None, anchors, (size, size), seed=0, **limits).eval()
    images = pixels(batch, size)

    def forward() -> None:
        with kd.no_grad():
            model.features(images)

    def step() -> None:
        model.zero_grad()
        features = model.features(images)
        sum(features[f"backbone.stage{i}"].sum() for i in range(1, 5)).backward()

    return {"forward": forward, "forward and backward": step}


def theirs(name: str, batch: int, size: int, threads: int) -> dict[str, Callable[[], None]]:
    import torch
    import torchvision

    torch.set_num_threads(threads)
    network = getattr(torchvision.models, name)(weights=None).features.eval()
    images = torch.from_numpy(np.stack(pixels(batch, size))).permute(0, 3, 1, 2) / 255

    def forward() -> None:
        with torch.no_grad():
            network(images)

    def step() -> None:
        network.zero_grad()
        value, total = images, 0
        for index, part in enumerate(network):
            value = part(value)
            total = total + value.sum() if index % 2 else total
        total.backward()

    return {"forward": forward, "forward and backward": step}


def measure(options: argparse.Namespace) -> None:
    """One side, as JSON."""
    given = (options.name, options.batch, options.size)
    calls = theirs(*given, options.threads) if options.side == "torch" else ours(*given)
    print(json.dumps({name: timed(call, 3) for name, call in calls.items()}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name", default="swin_t")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--side", choices=("kdswift", "torch"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        measure(options)
        return
    found: dict[tuple[str, str], list] = {}
    environment = {**os.environ, "OMP_NUM_THREADS": str(options.threads)}
    for _ in range(options.rounds):
        for side in ("kdswift", "torch"):
            command = [sys.executable, __file__, *sys.argv[1:], "--side", side]
            done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
            for name, times in json.loads(done.stdout).items():
                found.setdefault((side, name), []).extend(times)
    print(f"{options.name}, {options.size} px, batch {options.batch}, {options.threads} threads")
    for (side, name), times in found.items():
        clock, processor = (statistics.median(column) for column in zip(*times))
        print(f"{side:8} {name:21} {clock:7.0f} ms  {processor:7.0f} ms of processor time")


if __name__ == "__main__":
    main()
