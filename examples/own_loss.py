"""A distillation loss of your own: any function of two kd tensors that gives one number.

python examples/own_loss.py [--epochs 4] [--scenes 500]
"""

from __future__ import annotations

import argparse

import kdswift as kd
from kdswift.demo import detector


def channel_correlation(student: kd.Tensor, teacher: kd.Tensor) -> kd.Tensor:
    """One minus the mean cosine between the maps of equal channels; (N, C, H, W) each."""
    n, c, h, w = student.shape
    a, b = student.reshape((n, c, h * w)), teacher.reshape((n, c, h * w))
    dot = (a * b).sum(axis=2)
    lengths = ((a * a).sum(axis=2) * (b * b).sum(axis=2) + 1e-8).sqrt()
    return 1 - (dot / lengths).mean()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--scenes", type=int, default=500)
    options = parser.parse_args()

    train = kd.data.DigitScenes("train", n=options.scenes)
    teacher, student = detector(width=1.0, seed=0), detector(width=0.375, seed=1)
    print(teacher.taps())
    run = {"batch_size": 16, "optimizer": kd.AdamW(lr=2e-3), "clip_norm": 10.0}
    teacher.fit(train, options.epochs, **run)

    # A 1x1 convolution carries the student's 48 channels to the teacher's 128; it learns too.
    mine = kd.Term("backbone.layer3", loss=channel_correlation, weight=2.0, name="correlation")
    method = 0.5 * kd.methods.Chen2017(hint=False) + kd.Method([mine])
    history = kd.distill(student, teacher, train, method, options.epochs, **run)
    print(history)


if __name__ == "__main__":
    main()
