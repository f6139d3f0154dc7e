"""The smallest detector and data that still go through everything."""

from __future__ import annotations

import atexit
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

import kdswift as kd
from kdswift.data import DigitScenes

SIZE = 48
CLASSES = DigitScenes.class_names


def detector(seed: int = 0, width: float = 0.5, **options) -> kd.FasterRCNN:
    """A Faster R-CNN for 48-pixel scenes."""
    return kd.FasterRCNN(
        kd.backbones.resnet_small(width=width),
        num_classes=len(CLASSES),
        anchors=kd.Anchors(sizes=(16, 24), ratios=(1, 2)),
        image_size=(SIZE, SIZE),
        class_names=CLASSES,
        seed=seed,
        rpn={
            "batch": 16,
            "post_nms_train": 30,
            "post_nms_test": 20,
            "min_size": 4,
            "drop_border_anchors": False,
            **options.pop("rpn", {}),
        },
        roi={"batch": 16, "hidden": [32], "pool_size": 3, **options.pop("roi", {})},
        **options,
    )


def scenes(n: int = 8, split: str = "train", seed: int = 0) -> DigitScenes:
    """Small scenes."""
    return DigitScenes(split, n, SIZE, seed)


def batch(n: int = 2) -> tuple[list[np.ndarray], list[dict]]:
    """Images and targets."""
    images, targets = zip(*(scenes(n)[i] for i in range(n)))
    return list(images), list(targets)


QUIET = {"progress": False, "workers": 0, "batch_size": 2}


def same(a, b) -> bool:
    """Whether two models, or two state dicts, are equal bit for bit."""
    a = a if isinstance(a, dict) else a.state_dict()
    b = b if isinstance(b, dict) else b.state_dict()
    return a.keys() == b.keys() and all(a[n].tobytes() == b[n].tobytes() for n in a)


def python(code: str, *arguments: str, **options) -> subprocess.Popen:
    """A Python process that can import the package and this module."""
    environment = dict(os.environ)
    here = Path(__file__).resolve().parent
    paths = [str(here), str(here.parent), environment.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    process = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        **options,
    )
    atexit.register(process.kill)  # a test that fails must not leave it running
    return process
