"""Single operations beside PyTorch and torchvision: convolutions, boxes, RoIAlign, losses.

    python benchmarks/ops.py [--repeats 5] [--json FILE]

Milliseconds, medians; repetitions of both sides alternate. Gradients are counted where it says
"+ backward". Without torch, ours run alone.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from contestants import Contestant, has_torch, seconds

# Batch, channels, height and width, filters; 3x3. The last ones are those of a small student.
CONVOLUTIONS = [
    (8, 64, 56, 64),
    (8, 128, 28, 128),
    (2, 256, 64, 256),
    (16, 16, 64, 32),
    (16, 32, 32, 64),
    (16, 32, 12, 32),
]


def anchors(side: int) -> np.ndarray:
    """(N, 4) boxes of three scales and ratios around every place at strides 8 to 128."""
    rows = []
    for stride in (8, 16, 32, 64, 128):
        steps = (np.arange(side // stride) + 0.5) * stride
        x, y = (grid.ravel() for grid in np.meshgrid(steps, steps))
        for scale in (4, 5, 6.3):
            for ratio in (0.5, 1, 2):
                w, h = scale * stride / ratio**0.5 / 2, scale * stride * ratio**0.5 / 2
                rows.append(np.stack([x - w, y - h, x + w, y + h], 1))
    return np.concatenate(rows).astype(np.float32)


def arrays(seed: int = 0) -> dict[str, np.ndarray]:
    """Inputs of everything that is not a convolution."""
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, 500, (2000, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(8, 150, (2000, 2))], 1)
    rois = np.concatenate([rng.integers(0, 2, (256, 1)), boxes[:256]], 1)
    return {
        "boxes": boxes.astype(np.float32),
        "scores": rng.random(2000, dtype=np.float32),
        "rois": rois.astype(np.float32),
        "map": rng.standard_normal((2, 256, 40, 40), dtype=np.float32),
        "other": rng.standard_normal((2, 256, 40, 40), dtype=np.float32),
        "logits": rng.standard_normal((4096, 81), dtype=np.float32),
        "labels": rng.integers(0, 81, 4096),
        # A RetinaNet at 512 px: nine anchors at every place of five levels, ten boxes in an image.
        "anchors": anchors(512),
        "truth": boxes[:10].astype(np.float32),
        "dense": rng.standard_normal((4, 49104, 20), dtype=np.float32) - 3,
        "goals": (rng.random((4, 49104, 20), dtype=np.float32) > 0.999).astype(np.float32),
    }


class Ours:
    """kdswift's operations as callables by name."""

    def __init__(self, threads: int) -> None:
        import kdswift as kd

        kd.set_num_threads(threads)
        self.work = self._works(kd)

    def info(self) -> list[str]:
        return list(self.work)

    def time(self, name: str, minimum: float) -> float:
        self.work[name]()
        return seconds(self.work[name], minimum)

    def _works(self, kd: Any) -> dict[str, Callable[[], Any]]:
        a = arrays()
        boxes, scores, rois = (kd.tensor(a[k]) for k in ("boxes", "scores", "rois"))
        plain, other, labels = (kd.tensor(a[k]) for k in ("map", "other", "labels"))
        classes = kd.tensor(a["labels"][:2000])
        truth, places, goals = (kd.tensor(a[k]) for k in ("truth", "anchors", "goals"))
        dense = kd.tensor(a["dense"], requires_grad=True)
        source = kd.tensor(a["map"], requires_grad=True)
        logits = kd.tensor(a["logits"], requires_grad=True)

        def align(x: Any) -> Any:
            return kd.ops.roi_align(x, rois, 7, spatial_scale=1 / 16, sampling_ratio=2)

        works = {
            "nms, 2000 boxes": lambda: kd.ops.nms(boxes, scores, 0.5),
            "batched_nms, 81 classes": lambda: kd.ops.batched_nms(boxes, scores, classes, 0.5),
            "matching, 49104 anchors": lambda: kd.ops.match_boxes(truth, places, 0.5, 0.4),
            "focal loss + backward": lambda: kd.losses.sigmoid_focal(
                dense, goals, reduction="sum"
            ).backward(),
            "roi_align, 256 x 7 x 7": lambda: align(plain),
            "roi_align + backward": lambda: align(source).sum().backward(),
            "hint l2 + backward": lambda: kd.losses.hint(
                source, other, reduction="mean"
            ).backward(),
            "cross entropy + backward": lambda: kd.losses.cross_entropy(logits, labels).backward(),
        }
        for shape in CONVOLUTIONS:
            works |= self._convolution(kd, *shape)
        return works

    def _convolution(self, kd: Any, n: int, c: int, h: int, k: int) -> dict:
        rng = np.random.default_rng(1)
        x = kd.tensor(rng.standard_normal((n, c, h, h), dtype=np.float32))
        with kd.no_grad():  # into the engine's layout, where activations are
            x = kd.conv2d(x, kd.tensor(np.eye(c, dtype=np.float32)[:, :, None, None]))
        y = x.detach()
        y.requires_grad = True
        w = kd.tensor(rng.standard_normal((k, c, 3, 3), dtype=np.float32), requires_grad=True)

        def forward() -> None:
            with kd.no_grad():
                kd.conv2d(x, w, padding=1)

        def both() -> None:
            kd.conv2d(y, w, padding=1).sum().backward()

        return {f"conv {n},{c},{h},{k}": forward, f"conv {n},{c},{h},{k} + backward": both}


class Torch:
    """The same in PyTorch."""

    def __init__(self, threads: int) -> None:
        import torch
        import torchvision

        torch.set_num_threads(threads)
        self.work = self._works(torch, torchvision.ops)

    info, time = Ours.info, Ours.time

    def _works(self, torch: Any, ops: Any) -> dict[str, Callable[[], Any]]:
        from torchvision.models.detection._utils import Matcher

        F = torch.nn.functional
        a = {name: torch.from_numpy(value) for name, value in arrays().items()}
        source = a["map"].clone().requires_grad_()
        logits, dense = a["logits"].requires_grad_(), a["dense"].requires_grad_()
        matcher = Matcher(0.5, 0.4, allow_low_quality_matches=True)

        def align(x: Any) -> Any:
            return ops.roi_align(x, a["rois"], 7, 1 / 16, 2)

        works = {
            "nms, 2000 boxes": lambda: ops.nms(a["boxes"], a["scores"], 0.5),
            "batched_nms, 81 classes": lambda: ops.batched_nms(
                a["boxes"], a["scores"], a["labels"][:2000], 0.5
            ),
            "matching, 49104 anchors": lambda: matcher(ops.box_iou(a["truth"], a["anchors"])),
            "focal loss + backward": lambda: ops.sigmoid_focal_loss(
                dense, a["goals"], reduction="sum"
            ).backward(),
            "roi_align, 256 x 7 x 7": lambda: align(a["map"]),
            "roi_align + backward": lambda: align(source).sum().backward(),
            "hint l2 + backward": lambda: F.mse_loss(source, a["other"]).backward(),
            "cross entropy + backward": lambda: F.cross_entropy(logits, a["labels"]).backward(),
        }
        for n, c, h, k in CONVOLUTIONS:
            x = torch.randn(n, c, h, h)
            y, w = x.clone().requires_grad_(), torch.randn(k, c, 3, 3, requires_grad=True)
            last = torch.channels_last
            pairs = {"": (x, y, w)}
            pairs["channels_last"] = (
                x.contiguous(memory_format=last),
                *(t.detach().contiguous(memory_format=last).requires_grad_() for t in (y, w)),
            )
            for layout, (x_, y_, w_) in pairs.items():
                name = f"conv {n},{c},{h},{k}"
                works[f"{name}|{layout}"] = self._forward(torch, x_, w_)
                works[f"{name} + backward|{layout}"] = self._both(torch, y_, w_)
        return works

    @staticmethod
    def _forward(torch: Any, x: Any, w: Any) -> Callable[[], Any]:
        def forward() -> None:
            with torch.no_grad():
                torch.nn.functional.conv2d(x, w, padding=1)

        return forward

    @staticmethod
    def _both(torch: Any, x: Any, w: Any) -> Callable[[], Any]:
        return lambda: torch.nn.functional.conv2d(x, w, padding=1).sum().backward()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--minimum", type=float, default=0.05, help="seconds per repetition")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    ours = Contestant("ops:Ours", options.threads)
    other = Contestant("ops:Torch", options.threads) if has_torch() else None
    rows = []
    for name in ours.info:
        runners = {"kdswift": (ours, name)}
        for theirs in other.info if other else ():
            if theirs.split("|")[0] == name:
                runners["torch " + (theirs.partition("|")[2] or "eager")] = (other, theirs)
        times: dict[str, list[float]] = {label: [] for label in runners}
        for _ in range(options.repeats):
            for label, (side, key) in runners.items():
                times[label].append(side.ask("time", key, options.minimum))
        ms = {label: round(1000 * statistics.median(v), 4) for label, v in times.items()}
        fastest = min((v for k, v in ms.items() if k != "kdswift"), default=None)
        rows.append(
            {"operation": name, "ms": ms, "ours / torch": fastest and ms["kdswift"] / fastest}
        )
        ratio = f"  ours / torch {ms['kdswift'] / fastest:.2f}" if fastest else ""
        print(f"{name:<32}", "  ".join(f"{k} {v:.3f}" for k, v in ms.items()) + ratio, flush=True)
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        content = {"threads": options.threads, "repeats": options.repeats, "rows": rows}
        options.json.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
