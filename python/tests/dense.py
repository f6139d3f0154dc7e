"""Checks that the tests of FCOS, ATSS and GFL have in common."""

from __future__ import annotations

import numpy as np
from tiny import QUIET, same, scenes

import kdswift as kd

LEVELS = ("p3", "p4")


def small(kind: type[kd.Detector], seed: int = 0, width: float = 0.25, **options) -> kd.Detector:
    """A small detector of 11 classes on two levels."""
    anchors = options.pop("anchors", kd.Anchors(((8,), (16,)), (1,)))
    return kind(
        kd.backbones.resnet_small(width, output_stride=16),
        11,
        neck=kd.FPN(16, extra="none"),
        anchors=anchors,
        image_size=(96, 96),
        seed=seed,
        **options,
    )


def learns_and_comes_back(model: kd.Detector, path, lr: float = 5e-3) -> None:
    """A few steps lower the loss; the file gives the same detector back."""
    history = model.fit(scenes(8), 8, optimizer=kd.AdamW(lr=lr), seed=0, **QUIET)
    losses = [row["loss"] for row in history.rows]
    assert losses[-1] < 0.8 * losses[0]
    model.save(path)
    again = kd.load(path)
    assert type(again) is type(model) and same(model, again)
    assert again.configuration == model.configuration
    image = scenes(1)[0][0]
    first, second = model.predict(image, 0.0)[0], again.predict(image, 0.0)[0]
    assert len(first.scores) and np.array_equal(first.boxes, second.boxes)
    assert "head.classification_head.cls_logits" in str(model.summary())
    assert model.flops() > 0


def handles_empty_images(model: kd.Detector, losses: set[str]) -> None:
    """Without boxes only the classes count, and gradients exist."""
    empty = {"boxes": np.zeros((0, 4), np.float32), "labels": np.zeros(0, np.int64)}
    found = model.losses([scenes(1)[0][0]], [empty])
    assert set(found) == losses
    assert all(loss.item() == 0 for name, loss in found.items() if name != "classification")
    assert found["classification"].item() > 0
    sum(found.values()).backward()
    gradients = dict(model.named_parameters())
    assert np.abs(gradients["head.classification_head.cls_logits.bias"].grad.numpy()).max() > 0


def batch_positives_share_a_divisor(model: kd.Detector) -> None:
    """An image twice in a batch gives the loss of the image alone: sums over sums."""
    image, target = scenes(1)[0]
    model.eval()
    one = model.losses([image], [target])
    two = model.losses([image, image], [target, target])
    for name, loss in one.items():
        # Only the order of additions differs.
        assert abs(two[name].item() - loss.item()) <= 1e-5 * abs(loss.item()), name


def head_goes_on_from_inside(model: kd.Detector) -> None:
    """From its own features the head gives its own outputs, at every place of the towers."""
    model.eval()
    taps = model.features([scenes(1)[0][0]])
    for branch in ("classification", "regression"):
        depth = sum(name.startswith(f"head.{branch}.conv") for name in taps) // len(LEVELS)
        assert depth > 0
        for start in range(depth + 1):
            first = f"head.{branch}.conv{start - 1}" if start else "neck"
            found = model.head_from([taps[f"{first}.{level}"] for level in LEVELS], branch, start)
            for level, outputs in zip(LEVELS, found):
                for name, value in outputs.items():
                    wanted = taps[f"head.{name}.{level}"].numpy()
                    # The same operations; fused and separate ReLUs agree but for rounding.
                    assert np.abs(value.numpy() - wanted).max() < 1e-5, (branch, start, name)


def gradients_pass_the_head(model: kd.Detector) -> None:
    """They reach the features that are given and no weight."""
    model.train()
    maps = [
        kd.tensor(np.random.default_rng(i).normal(size=(1, 16, n, n)).astype(np.float32), True)
        for i, n in enumerate((6, 3))
    ]
    outputs = model.head_from(maps, "regression", 1)
    total = sum((value**2).sum() for level in outputs for value in level.values())
    total.backward()
    assert all(np.abs(m.grad.numpy()).max() > 0 for m in maps)
    assert all(p.grad is None for p in model.parameters())
    # Afterwards the weights learn as before.
    assert all(p.requires_grad for p in model.parameters())


def finds_no_background(model: kd.Detector) -> None:
    """A fresh head finds all sorts of things, and evaluation takes them."""
    found = model.predict(scenes(2)[1][0], 0.0)[0]
    assert len(found.labels) and found.labels.min() >= 1
    assert kd.evaluate(model, scenes(2), progress=False, workers=0).AP >= 0
