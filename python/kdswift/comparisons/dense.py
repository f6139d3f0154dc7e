"""Outputs of one-stage heads as rows: one for each anchor, level by level."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import ArgumentError
from ..functional import cat, clamp, exp, softmax
from ..tensors import Tensor, tensor
from .site import ONE_STAGE, Row, Site
from .step import Step

# Of the box codes of dense heads; those not named have 1.
_DEVIATIONS = {"atss": (0.1, 0.1, 0.2, 0.2)}


def need_one_stage(site: Site, name: str, kinds: Sequence[str] = ONE_STAGE) -> None:
    """Refuse detectors whose heads the method cannot read."""
    for word, model in (("student", site.student), ("teacher", site.teacher)):
        kind = getattr(model, "kind", "teacher")
        if kind not in kinds:
            raise ArgumentError(
                f"{name}: the {word} is a {type(model).__name__} ({kind}); the method compares the "
                f"dense heads of {', '.join(kinds)}"
            )


def head_levels(site: Site, output: str) -> list[tuple[Row, Row]]:
    """The rows of an output of the head, such as "class_logits", of both sides, fine to coarse."""
    start = f"head.{output}"
    own = [r for r in site.student_taps if r["name"] == start or r["name"].startswith(start + ".")]
    other = [
        r for r in site.teacher_taps if r["name"] == start or r["name"].startswith(start + ".")
    ]
    strides = [[row["stride"] for row in rows] for rows in (own, other)]
    if not own or not other or strides[0] != strides[1]:
        raise ArgumentError(
            f"the outputs {start} have strides {strides[0]} in the student and {strides[1]} in the "
            "teacher; they are compared anchor by anchor, which needs the same levels"
        )
    return list(zip(own, other))


def anchor_rows(output: Tensor, columns: int) -> Tensor:
    """(N, A K, H, W) as (N H W A, K): places row by row, the anchors of a place together."""
    images, channels, height, width = output.shape
    anchors = channels // columns
    split = output.reshape(images, anchors, columns, height, width)
    return split.permute(0, 3, 4, 1, 2).reshape(images * height * width * anchors, columns)


class LevelLabels:
    """The student's targets of a step: what its assigner made of every anchor.

    Attributes
    ----------
    levels : (N, H W A) int64 of every level: the class, -1 background, -2 does not count
    positives : positive anchors of the batch
    """

    def __init__(self, step: Step, maps: Sequence[Tensor], columns: int) -> None:
        labels = step.student("head.labels").numpy()
        images = maps[0].shape[0]
        counts = [m.shape[1] // columns * m.shape[2] * m.shape[3] for m in maps]
        rows = labels.reshape(images, sum(counts))
        self.levels = np.split(rows, np.cumsum(counts)[:-1], axis=1)
        self.positives = int((labels >= 0).sum())
        self.has_ignored = bool((labels == -2).any())

    def positive_rows(self, level: int) -> np.ndarray:
        """Rows of `anchor_rows` that are positive."""
        return np.flatnonzero(self.levels[level].reshape(-1) >= 0)

    def counted(self, level: int) -> np.ndarray:
        """(N H W A,) float32: 1, and 0 for anchors that do not count."""
        return (self.levels[level].reshape(-1) != -2).astype(np.float32)


def decode(kind: str, codes: Tensor, anchors: np.ndarray, stride: float) -> Tensor:
    """Boxes (R, 4), xyxy in input pixels, of rows of box outputs, on the tape.

    kind : of the detector;  codes : (R, 4), for GFL (R, 4 bins);  anchors : (R, 4)
    stride : of the level, the unit of GFL's distances
    """
    centre = (anchors[:, :2] + anchors[:, 2:]) / 2
    size = anchors[:, 2:] - anchors[:, :2]
    if kind in ("fcos", "gfl"):
        unit = np.tile(size, 2) if kind == "fcos" else np.float32(stride)
        signs = np.array([-1, -1, 1, 1], np.float32)
        distances = codes if kind == "fcos" else expected_bins(codes)
        return distances * tensor(np.broadcast_to(unit * signs, anchors.shape)) + tensor(
            np.tile(centre, 2)
        )
    deviations = np.array(_DEVIATIONS.get(kind, (1, 1, 1, 1)), np.float32)
    scaled = codes * tensor(deviations)
    middle = scaled[:, :2] * tensor(size) + tensor(centre)
    # The clamp of torchvision's and mmdet's decoders: log(1000 / 16).
    half = exp(clamp(scaled[:, 2:], max=float(np.log(1000 / 16)))) * tensor(size * 0.5)
    return cat([middle - half, middle + half], axis=1)


def expected_bins(codes: Tensor) -> Tensor:
    """(R, 4 bins) logits as (R, 4) mean distances in strides (Li et al. 2020, eq. 3)."""
    bins = codes.shape[1] // 4
    shares = softmax(codes.reshape(-1, bins), axis=1)
    steps = tensor(np.arange(bins, dtype=np.float32))
    return (shares * steps).sum(axis=1).reshape(-1, 4)


def tiled(anchors: np.ndarray, images: int) -> np.ndarray:
    """The anchors of a level for every image of a batch."""
    return np.tile(anchors, (images, 1))


def read_levels(step: Step, site: Site, pairs: Sequence[tuple[Row, Row]]) -> list[Any]:
    """(student's, teacher's) outputs of every level; an error where their sizes differ."""
    found = []
    for own, other in pairs:
        student, teacher = step.student(own["name"]), step.teacher(site.source(other))
        if student.shape[0] != teacher.shape[0] or student.shape[2:] != teacher.shape[2:]:
            raise ArgumentError(
                f"the student's {own['name']} is {student.shape}, the teacher's {other['name']} "
                f"{teacher.shape}: outputs are compared place by place, give both the same "
                "image_size and teacher_size=None"
            )
        found.append((student, teacher))
    return found
