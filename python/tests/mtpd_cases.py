"""Models, data and runs for the tests of teachers in order."""

from __future__ import annotations

import numpy as np
from tiny import QUIET, detector, scenes

import kdswift as kd


def noise(n=12, size=(16, 16), seed=0):
    """Images of independent channels; the targets are not looked at."""
    rng = np.random.default_rng(seed)
    return [(rng.integers(0, 256, (*size, 3), dtype=np.uint8), {}) for _ in range(n)]


def model(function, name="neck.p3"):
    """A teacher whose map is a function of the image (N, 3, H, W)."""
    return kd.Teacher.from_callable(lambda images: {name: function(images)}, [name], batch=True)


def costs(models, train=None, val=None, **options):
    train = noise() if train is None else train
    val = noise(6, seed=1) if val is None else val
    return kd.mtpd.adaptation_costs(models, train, val, progress=False, **options)


def smooth(images):
    """Values that depend on neighbours, as features do."""
    return images + 0.5 * np.roll(images, 1, axis=3)


OPTIONS = {**QUIET, "seed": 3, "log_every": 1}


def teachers(count=2):
    return {f"t{i}": detector(10 + i, width=0.5 * i) for i in range(1, count + 1)}


def run(out=None, student=None, pool=None, epochs=2, method=None, data=None, **options):
    student = detector(1) if student is None else student
    history = kd.mtpd.distill(
        *(student, teachers() if pool is None else pool, scenes(4) if data is None else data),
        method=method,
        epochs_per_teacher=epochs,
        out=out,
        **{**OPTIONS, **options},
    )
    return student, history


def timeless(history):
    """The rows without the time."""
    return [{k: v for k, v in r.items() if k != "seconds"} for r in history.rows]
