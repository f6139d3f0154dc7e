"""Inference beside onnxruntime on the same weights: `predict`, and what `export_onnx` wrote.

    python benchmarks/inference.py --rounds 5 --json benchmarks/results/NAME.json

One image at a time. Ours is `model.predict`, from the uint8 image to Detections in pixels, masks
pasted; onnxruntime's is one run of the session from the ready float32 tensor, masks as the graph
has them. Contestants run in processes of their own with the same number of threads, one after the
other, several rounds; figures are medians over all calls, ratios are within a round. Heads have
larger random weights than fresh ones, so that there are detections to sort out.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

CLASSES = 21
# Factors on the heads' fresh weights.
LIVELY = {
    "cls_score.weight": 10,
    "bbox_pred.weight": 4,
    "_head.conv.": 3,
    "head.cls_logits.weight": 6,
}
CONTESTANTS = ("kdswift", "onnxruntime")


def pyramid(kind: str) -> Callable[[], tuple[Any, int]]:
    """A detector on resnet18 with a pyramid, 256 pixels."""

    def make() -> tuple[Any, int]:
        import kdswift as kd

        body = kd.backbones.resnet18()
        options = {"neck": "fpn", "image_size": (256, 256), "seed": 0}
        return getattr(kd, kind)(body, CLASSES, **options), 256

    return make


def student(width: float) -> Callable[[], tuple[Any, int]]:
    """The demo's detector of this width."""

    def make() -> tuple[Any, int]:
        from kdswift.demo import IMAGE_SIZE, detector

        return detector(width, 0), IMAGE_SIZE

    return make


CASES = {
    "student": ("demo's student, 96 px", student(0.25)),
    "teacher": ("demo's teacher, 96 px", student(1.0)),
    "retinanet": ("RetinaNet resnet18, 256 px", pyramid("RetinaNet")),
    "faster_rcnn": ("Faster R-CNN resnet18 FPN, 256 px", pyramid("FasterRCNN")),
    "mask_rcnn": ("Mask R-CNN resnet18 FPN, 256 px", pyramid("MaskRCNN")),
    "cascade_rcnn": ("Cascade R-CNN resnet18 FPN, 256 px", pyramid("CascadeRCNN")),
}


def picture(size: int) -> np.ndarray:
    """A scene of digits, uint8 (size, size, 3)."""
    from kdswift.data import DigitScenes

    return DigitScenes("val", 1, size)[0][0]


def prepare(options: argparse.Namespace) -> dict[str, Any]:
    """Write the model and its ONNX file; what the check of the export saw."""
    model, size = CASES[options.case][1]()
    for name, values in model.state_dict().items():
        factor = next((f for part, f in LIVELY.items() if part in name), None)
        if factor is not None:
            model._engine.load(name, values * np.float32(factor))
    model.save(f"{options.folder}/{options.case}.safetensors")
    written = model.export_onnx(f"{options.folder}/{options.case}.onnx", size)
    return {
        "differences": written.differences,
        "detections": len(model.predict(picture(size))[0].scores),
        "gflops": model.flops(size) / 1e9,
    }


def contestant(options: argparse.Namespace) -> Callable[[], Any]:
    """A function that looks at one image."""
    image = picture(CASES[options.case][1]()[1])
    path = f"{options.folder}/{options.case}"
    if options.contestant == "kdswift":
        import kdswift as kd

        kd.set_num_threads(int(options.threads))
        model = kd.load(path + ".safetensors")
        return lambda: model.predict(image)
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = int(options.threads)
    session = onnxruntime.InferenceSession(path + ".onnx", settings, ["CPUExecutionProvider"])
    pixels = np.ascontiguousarray(image.transpose(2, 0, 1)[None] / np.float32(255))
    return lambda: session.run(None, {"image": pixels})


def contest(options: argparse.Namespace) -> dict[str, Any]:
    """Times of one contestant, in seconds per call."""
    look = contestant(options)
    until = time.perf_counter() + options.seconds / 3
    while time.perf_counter() < until:
        look()
    times, start = [], time.perf_counter()
    while len(times) < 5 or time.perf_counter() - start < options.seconds:
        begin = time.perf_counter()
        look()
        times.append(time.perf_counter() - begin)
    return {"times": times}


def child(
    options: argparse.Namespace, name: str, case: str, folder: str, threads: int = 1
) -> dict[str, Any]:
    """Run this file with a contestant's name."""
    call = [sys.executable, __file__, "--contestant", name, "--case", case, "--folder", folder]
    call += ["--threads", str(threads), "--seconds", str(options.seconds)]
    # Before the libraries are loaded.
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(call, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise SystemExit(f"{case}, {name}: {done.stderr.strip()}")
    return json.loads(done.stdout.splitlines()[-1])


def compare(options: argparse.Namespace, case: str, folder: str) -> dict[str, Any]:
    """A row of the report: contestants in turns, for each number of threads."""
    made = child(options, "prepare", case, folder)
    row: dict[str, Any] = {"case": CASES[case][0], **made, "threads": {}}
    print(f"\n{row['case']}, {made['gflops']:.2f} GFLOPs, {made['detections']} detections")
    for threads in options.threads.split(","):
        found = turns(options, case, folder, int(threads))
        row["threads"][threads] = found
        ratios = found["ratios of the rounds"]
        times = "   ".join(f"{name} {value:.2f} ms" for name, value in found["ms"].items())
        print(
            f"  {threads} thread(s): {times}; ours is {found['onnxruntime / kdswift']:.2f} times "
            f"as fast ({min(ratios):.2f} to {max(ratios):.2f})",
            flush=True,
        )
    return row


def turns(options: argparse.Namespace, case: str, folder: str, threads: int) -> dict[str, Any]:
    """Medians and ratios; every other round begins with the other contestant."""
    rounds: list[dict[str, float]] = []
    every: dict[str, list[float]] = {name: [] for name in CONTESTANTS}
    for turn in range(options.rounds):
        order = CONTESTANTS if turn % 2 == 0 else CONTESTANTS[::-1]
        found = {name: child(options, name, case, folder, threads)["times"] for name in order}
        for name, times in found.items():
            every[name] += times
        rounds.append({name: statistics.median(found[name]) for name in CONTESTANTS})
    ratios = [turn["onnxruntime"] / turn["kdswift"] for turn in rounds]
    return {
        "ms": {name: round(1000 * statistics.median(times), 3) for name, times in every.items()},
        "onnxruntime / kdswift": round(statistics.median(ratios), 3),
        "ratios of the rounds": [round(ratio, 3) for ratio in ratios],
        "load": round(os.getloadavg()[0], 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", default=",".join(CASES), help="some of " + ", ".join(CASES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each contestant's turn")
    cores = len(os.sched_getaffinity(0))
    parser.add_argument("--threads", default=f"1,{cores}", help="numbers (default %(default)s)")
    parser.add_argument("--json", type=Path)
    for hidden in ("--contestant", "--case", "--folder"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.contestant:
        run = prepare if options.contestant == "prepare" else contest
        print(json.dumps(run(options)))
        return
    import onnxruntime
    from step import processor

    import kdswift as kd

    report: dict[str, Any] = {
        "processor": processor(),
        "python": platform.python_version(),
        "date": datetime.datetime.now().isoformat(timespec="minutes"),
        "load before": os.getloadavg()[0],
        "kdswift": {k: v for k, v in kd.build_info().items() if k != "library"},
        "onnxruntime": onnxruntime.__version__,
        "rounds": options.rounds,
        "spinning": os.environ.get("GOMP_SPINCOUNT"),
    }
    report["rows"] = []
    with tempfile.TemporaryDirectory() as folder:
        for case in options.cases.split(","):
            report["rows"].append(compare(options, case, folder))
            report["load after"] = os.getloadavg()[0]
            if options.json:
                options.json.parent.mkdir(parents=True, exist_ok=True)
                options.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
