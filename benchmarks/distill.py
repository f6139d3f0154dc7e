"""A distillation step of full detectors beside PyTorch: teacher, student, feature terms, update.

    python benchmarks/distill.py --json benchmarks/results/NAME.json

Teacher on resnet50, student on resnet18, both with a pyramid; every contestant has the same
images, boxes and sizes and runs in a process of its own, one after the other, several rounds. A
step is: the teacher's maps and dense head without gradients, the student's losses, the mean squared
difference of all levels, backward, SGD. PyTorch's models are torchvision's. Medians over all steps.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

CLASSES = 21
CONTESTANTS = (
    *("kdswift", "kdswift bf16", "torch", "torch channels_last", "torch compile", "torch bf16"),
    # Without the teacher's head, which these terms do not read: what `kd.distill` runs.
    *("kdswift maps", "torch maps"),
)


def scene(size: int, batch: int) -> tuple[list[np.ndarray], list[dict[str, np.ndarray]]]:
    """Random images with three boxes each, and their rectangles as masks."""
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (size, size, 3), dtype=np.uint8) for _ in range(batch)]
    boxes = np.array([[20, 30, 150, 200], [100, 90, 230, 240], [5, 160, 140, 250]], np.float32)
    boxes *= size / 256
    target = {"boxes": boxes, "labels": np.array([1, 7, 15], np.int64)}
    target["masks"] = np.zeros((3, size, size), np.uint8)
    for mask, (x1, y1, x2, y2) in zip(target["masks"], boxes.astype(int)):
        mask[y1:y2, x1:x2] = 1
    return images, [target] * batch


def ours(case: str, size: int, batch: int, precision: str, heads: bool = True) -> Any:
    """A function that does one step."""
    import kdswift as kd
    from kdswift import _engine
    from kdswift.tensors import apply

    make = {"retinanet": kd.RetinaNet, "faster_rcnn": kd.FasterRCNN, "mask_rcnn": kd.MaskRCNN}
    options = {"num_classes": CLASSES, "image_size": (size, size), "neck": "fpn", "seed": 0}
    student = make[case](kd.backbones.resnet18(), **options)
    teacher = make[case](kd.backbones.resnet50(), **options)
    options = {"optimizer": {"name": "sgd", "lr": 1e-5, "momentum": 0.9}, "precision": precision}
    options |= {"region_taps": False, "head_taps": heads}
    trainer = _engine.Trainer(student._engine, [teacher._engine], options)
    images, targets = scene(size, batch)
    if case != "mask_rcnn":
        targets = [{k: t[k] for k in ("boxes", "labels")} for t in targets]
    levels = [tap["name"] for tap in student._taps() if tap["name"].startswith("neck.")]

    def step() -> float:
        views = _engine.Batch(images, targets)
        taps = trainer.forward(views, None)
        terms = {
            name: apply("mse", [taps["student." + name], taps["teacher." + name]], reduction="mean")
            for name in levels
        }
        result = trainer.finish(terms)
        views.close()
        return result["loss"]

    return step


def torchvision_step(case: str, size: int, batch: int, how: str) -> Any:
    """The same with torchvision."""
    import torch
    from torchvision.models import detection
    from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
    from torchvision.ops.feature_pyramid_network import LastLevelP6P7

    def make(name: str) -> Any:
        extra = {}
        if case == "retinanet":
            extra = {"returned_layers": [2, 3, 4], "extra_blocks": LastLevelP6P7(256, 256)}
        body = resnet_fpn_backbone(
            backbone_name=name,
            weights=None,
            norm_layer=torch.nn.BatchNorm2d,
            trainable_layers=5,
            **extra,
        )
        kinds = {
            "retinanet": detection.RetinaNet,
            "faster_rcnn": detection.FasterRCNN,
            "mask_rcnn": detection.MaskRCNN,
        }
        return kinds[case](body, CLASSES, min_size=size, max_size=size)

    student, teacher = make("resnet18").train(), make("resnet50").eval()
    if how != "torch":
        student, teacher = (m.to(memory_format=torch.channels_last) for m in (student, teacher))
    if how == "torch compile":  # backbone and pyramid: what follows depends on the boxes
        student.backbone, teacher.backbone = map(
            torch.compile, (student.backbone, teacher.backbone)
        )
    optimizer = torch.optim.SGD(student.parameters(), lr=1e-5, momentum=0.9)
    images, targets = scene(size, batch)
    goals = [{k: torch.from_numpy(v) for k, v in target.items()} for target in targets]
    kept: dict[str, Any] = {}
    student.backbone.register_forward_hook(lambda _m, _i, out: kept.update(student=out))

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        tensors = [torch.from_numpy(i).permute(2, 0, 1).float().div(255) for i in images]
        with torch.autocast("cpu", torch.bfloat16, enabled=how == "torch bf16"):
            with torch.no_grad():
                inputs, _ = teacher.transform(tensors)
                view = inputs.tensors
                if how != "torch":
                    view = view.contiguous(memory_format=torch.channels_last)
                maps = teacher.backbone(view)
                if how != "torch maps":
                    head = teacher.head if case == "retinanet" else teacher.rpn.head
                    head(list(maps.values()))
            losses = student(tensors, goals)
            loss = sum(losses.values())
            for name, value in kept["student"].items():
                loss = loss + torch.nn.functional.mse_loss(value.float(), maps[name].float())
        loss.backward()
        optimizer.step()
        return float(loss)

    return step


def contest(options: argparse.Namespace) -> None:
    """Run one contestant here and print its numbers as JSON."""
    os.environ["OMP_NUM_THREADS"] = str(options.threads)
    name, case = options.contestant, options.cases
    if name.startswith("torch"):
        import torch

        torch.set_num_threads(options.threads)
        step = torchvision_step(case, options.size, options.batch, name)
    else:
        precision = "bf16" if name.endswith("bf16") else "fp32"
        heads = not name.endswith("maps")
        step = ours(case, options.size, options.batch, precision, heads)
    for _ in range(2):
        step()
    times = []
    for _ in range(options.steps):
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"times": times, "peak_mb": memory}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", default="retinanet,faster_rcnn,mask_rcnn")
    parser.add_argument("--contestants", default=",".join(CONTESTANTS))
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--steps", type=int, default=5, help="steps of a round")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--contestant", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.contestant:
        contest(options)
        return
    report: dict[str, Any] = {"date": str(datetime.date.today()), "cases": {}}
    for case in options.cases.split(","):
        report["cases"][case] = compare(case, options)
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n")


def compare(case: str, options: argparse.Namespace) -> dict[str, Any]:
    """All contestants of one case, in turns; prints and returns their medians."""
    names = options.contestants.split(",")
    times: dict[str, list[float]] = {name: [] for name in names}
    memory = dict.fromkeys(names, 0.0)
    for _ in range(options.rounds):
        for name in names:
            call = [sys.executable, __file__, "--contestant", name, "--cases", case]
            for key in ("size", "batch", "steps", "threads"):
                call += [f"--{key}", str(getattr(options, key))]
            done = subprocess.run(call, capture_output=True, text=True)
            if done.returncode:
                print(f"{case}, {name}: {done.stderr.strip().splitlines()[-1:]}")
                continue
            found = json.loads(done.stdout.splitlines()[-1])
            times[name] += found["times"]
            memory[name] = max(memory[name], found["peak_mb"])
    rows = {
        name: {"seconds": statistics.median(values), "peak_mb": round(memory[name])}
        for name, values in times.items()
        if values
    }
    print(f"\n{case}, {options.size} px, batch {options.batch}: a distillation step")
    for name, row in rows.items():
        print(f"  {name:20} {row['seconds']:.3f} s   {row['peak_mb']} MB at most")
    for own, others in (
        ("kdswift", ("torch", "torch channels_last", "torch compile")),
        ("kdswift bf16", ("torch bf16",)),
        ("kdswift maps", ("torch maps",)),
    ):
        best = min((rows[n]["seconds"] for n in others if n in rows), default=None)
        if own in rows and best:
            print(f"  {own} is {best / rows[own]['seconds']:.2f} times as fast")
    return rows


if __name__ == "__main__":
    main()
