"""Detectors, batches and trainers from hostile configurations and data: a status, never a crash."""

from __future__ import annotations

import copy
import ctypes
import json
import os
import random
import subprocess
import sys

import numpy as np
import pytest
from test_boundary_ops import hostile

from kdswift import _library
from kdswift import _signatures as signatures

lib = _library.lib
CONFIGURATION = {
    "num_classes": 3,
    "image_min": 32,
    "image_max": 48,
    "backbone": {"name": "resnet_small", "width": 0.25},
    "anchor_sizes": [12],
    "rpn": {"channels": 8, "batch": 8, "post_nms_train": 10, "post_nms_test": 5, "min_size": 1},
    "roi": {"batch": 8, "hidden": [8], "pool_size": 2, "dropout": 0},
}
DENSE = {
    **{key: CONFIGURATION[key] for key in ("num_classes", "image_min", "image_max")},
    "backbone": {"name": "resnet_small", "width": 0.25, "output_stride": 16},
    "neck": {"kind": "fpn", "channels": 8, "extra": "p6p7", "from": "layer1"},
    "anchor_sizes": [8, 16, 32, 64, 128],
    "anchor_ratios": [1],
    "head": {"convs": 1, "prior": 0.3},
}
OPTIONS = {
    "optimizer": {"name": "sgd", "lr": 0.01},
    "schedule": {"name": "step", "milestones": [2]},
    "method": {"parts": [{"name": "chen2017"}]},
}


def full_configuration(kind: str) -> dict:
    """The small configuration with every default filled in."""
    small = CONFIGURATION if kind == "faster_rcnn" else {**DENSE, "detector": kind}
    detector = make_detector(small)
    text = lib.text("kds_detector_configuration", detector)
    lib.kds_detector_release(detector)
    return json.loads(text)


def make_detector(configuration: dict) -> signatures.kds_detector:
    detector = signatures.kds_detector()
    lib.kds_detector_create(json.dumps(configuration).encode(), 0, ctypes.byref(detector))
    return detector


def make_batch(image: np.ndarray, box: list[float], label: int) -> signatures.kds_batch:
    """One float image with one box."""
    pointers = (ctypes.c_void_p * 1)(image.ctypes.data)
    one = np.ones(1, np.int64)
    channels, height, width = (one * extent for extent in image.shape)
    batch = signatures.kds_batch()
    lib.kds_batch_create(
        1,
        pointers,
        np.zeros(1, np.int32),
        channels,
        height,
        width,
        one,
        np.array(box, np.float32),
        one * label,
        ctypes.byref(batch),
    )
    return batch


def mutate(random_: random.Random, tree: dict) -> dict:
    """A copy with one or two leaves replaced."""
    tree = copy.deepcopy(tree)
    for _ in range(random_.choice([1, 1, 1, 2])):
        node = tree
        key = random_.choice(sorted(node))
        while isinstance(node[key], dict) and node[key] and random_.random() < 0.95:
            node = node[key]
            key = random_.choice(sorted(node))
        node[key] = hostile(random_, node[key])
    return tree


def exercise(detector: signatures.kds_detector, batch: signatures.kds_batch) -> None:
    """Whatever a detector can be asked; each may fail with a message."""
    for function, kind, arguments in (
        (lib.kds_detector_losses, signatures.kds_tensor_map, (detector, batch, 1)),
        (lib.kds_detector_features, signatures.kds_tensor_map, (detector, batch)),
        (lib.kds_detector_maps, signatures.kds_tensor_map, (detector, batch)),
        (lib.kds_detector_predict, signatures.kds_detections, (detector, batch, b"{}")),
    ):
        out = kind()
        attempt(function, *arguments, ctypes.byref(out))
        getattr(lib, f"{kind.__name__}_release")(out)
    features, outputs = signatures.kds_tensor(), signatures.kds_tensor_map()
    shape = np.array([1, 8, 3, 5], np.int64)
    lib.kds_tensor_create(0, 4, shape, np.ones(120, np.float32).ctypes.data, ctypes.byref(features))
    where = (detector, b"regression", 1, 0, features)
    attempt(lib.kds_detector_head_from, *where, ctypes.byref(outputs))
    lib.kds_tensor_map_release(outputs)
    lib.kds_tensor_release(features)
    anchors = signatures.kds_tensor_map()
    attempt(lib.kds_detector_anchors, detector, 40, 33, ctypes.byref(anchors))
    lib.kds_tensor_map_release(anchors)
    attempt(lib.kds_detector_flops, detector, 32, 32, ctypes.c_double())
    attempt(lib.text, "kds_detector_taps", detector)


def attempt(function: object, *arguments: object) -> bool:
    try:
        function(*arguments)
    except _library.KDSError as error:
        assert str(error), "an error without a message"
        return False
    return True


def hostile_configurations(seed: int, rounds: int, kind: str = "faster_rcnn") -> None:
    """Runs in a process of its own; the last line printed names the case that crashed."""
    random_ = random.Random(seed)
    base = full_configuration(kind)
    batch = make_batch(np.full((3, 32, 40), 0.5, np.float32), [4, 4, 20, 20], 1)
    for _ in range(rounds):
        configuration = mutate(random_, base)
        print(json.dumps(configuration), flush=True)
        detector = signatures.kds_detector()
        text = json.dumps(configuration).encode()
        if attempt(lib.kds_detector_create, text, 0, ctypes.byref(detector)):
            exercise(detector, batch)
        lib.kds_detector_release(detector)
    lib.kds_batch_release(batch)


def hostile_trainers(seed: int, rounds: int) -> None:
    """The same for the options of training; two steps are taken where the options are accepted."""
    random_ = random.Random(seed)
    student, teacher = make_detector(CONFIGURATION), make_detector(CONFIGURATION)
    teachers = (signatures.kds_detector * 1)(teacher)
    batch = make_batch(np.full((3, 32, 40), 0.5, np.float32), [4, 4, 20, 20], 1)
    for _ in range(rounds):
        options = mutate(random_, OPTIONS)
        parts = options.get("method", {})
        if isinstance(parts, dict) and random_.random() < 0.5:
            key = random_.choice(
                ["mu", "nu", "gamma", "margin", "background_weight", "temperature", "scale"]
            )
            parts["parts"] = [{"name": "chen2017", key: hostile(random_, 1.0)}]
        print(json.dumps(options), flush=True)
        trainer = signatures.kds_trainer()
        text = json.dumps(options).encode()
        if attempt(lib.kds_trainer_create, student, teachers, 1, text, ctypes.byref(trainer)):
            attempt(lib.kds_trainer_step, trainer, batch, None)
            attempt(lib.text, "kds_trainer_metrics", trainer)
            attempt(lib.text, "kds_trainer_report", trainer)
            # A step may have ruined the weights, which would hide what later options do.
            lib.kds_detector_release(student)
            student = make_detector(CONFIGURATION)
        lib.kds_trainer_release(trainer)
    for detector in (student, teacher):
        lib.kds_detector_release(detector)
    lib.kds_batch_release(batch)


@pytest.mark.parametrize(
    "case",
    [
        "hostile_configurations(0, 60)",
        *[f"hostile_configurations(0, 40, '{kind}')" for kind in ("gfl", "atss", "fcos")],
        "hostile_trainers(0, 60)",
    ],
)
def test_hostile_documents_give_a_status_and_never_a_crash(case):
    # The limit turns a model of impossible size into an error at once, not into a full machine.
    limit = "import resource; resource.setrlimit(resource.RLIMIT_AS, (2**33, 2**33))"
    done = subprocess.run(
        [
            sys.executable,
            "-X",
            "faulthandler",
            "-c",
            f"{limit}; import test_boundary_models as t; t.{case}",
        ],
        cwd=os.path.dirname(__file__),
        env={**os.environ, "OMP_NUM_THREADS": "2"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    last = done.stdout.strip().splitlines()[-1:]
    assert done.returncode == 0, f"exit {done.returncode} at {last}\n{done.stderr[-3000:]}"


NAN = float("nan")


@pytest.mark.parametrize(
    ("box", "label"),
    [
        ([4, 4, 20, NAN], 1),
        ([4, 4, 4, 20], 1),
        ([20, 4, 4, 20], 1),
        ([4, 4, 400, 20], 1),
        ([-9, 4, 20, 20], 1),
        ([4, 4, 1e30, 20], 1),
        ([4, 4, 20, 20], -1),
        ([4, 4, 20, 20], 0),
        ([4, 4, 20, 20], 3),
        ([4, 4, 20, 20], 2**62),
    ],
)
def test_bad_targets_are_named_before_training(box, label):
    detector = make_detector(CONFIGURATION)
    batch, losses = signatures.kds_batch(), signatures.kds_tensor_map()
    try:
        with pytest.raises(_library.KDSError, match=r"box|label"):
            batch = make_batch(np.full((3, 32, 40), 0.5, np.float32), box, label)
            lib.kds_detector_losses(detector, batch, 0, ctypes.byref(losses))
    finally:
        lib.kds_tensor_map_release(losses)
        lib.kds_batch_release(batch)
        lib.kds_detector_release(detector)
