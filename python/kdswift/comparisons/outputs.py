"""Scores and boxes of all anchors of both sides: of a one-stage head, or of a proposal network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import ArgumentError
from ..tensors import Tensor
from .dense import anchor_rows, decode, expected_bins, head_levels, read_levels, tiled
from .site import ONE_STAGE, Row, Site
from .step import Source, Step


@dataclass
class LevelOutputs:
    """One level of a step: maps and rows of both sides; rows are images, places, anchors.

    logits : (student's, teacher's) (R, K), without the background's column
    codes : (student's, teacher's) (R, columns) box numbers
    anchors : (R, 4);  stride : pixels per place;  size : (H, W)
    """

    logits: tuple[Tensor, Tensor]
    codes: tuple[Tensor, Tensor]
    anchors: np.ndarray
    stride: float
    size: tuple[int, int]
    kind: str

    def boxes(self, side: int) -> np.ndarray:
        """Decoded boxes (R, 4) of the student (0) or the teacher (1), off the tape."""
        return decode(self.kind, self.codes[side].detach(), self.anchors, self.stride).numpy()

    def scores(self, side: int) -> np.ndarray:
        """(R, K) sigmoids of the student (0) or the teacher (1), off the tape."""
        return self.logits[side].detach().sigmoid().numpy()

    def offsets(self) -> tuple[Tensor, Tensor]:
        """(R, 4) box numbers; distributions as their means."""
        if self.codes[0].shape[1] == 4:
            return self.codes
        return expected_bins(self.codes[0]), expected_bins(self.codes[1])


class DenseOutputs:
    """Which taps hold scores and boxes of anchors, and how to read them.

    Student and teacher have the same anchors. A proposal network scores objects against background:
    one class.
    """

    def __init__(self, site: Site, name: str) -> None:
        self._site, self.kind = site, site.student.kind
        teacher = getattr(site.teacher, "kind", "teacher")
        self.is_head = self.kind in ONE_STAGE
        if self.is_head != (teacher in ONE_STAGE) or (self.is_head and teacher != self.kind):
            raise ArgumentError(
                f"{name}: the student is a {type(site.student).__name__}, the teacher a "
                f"{type(site.teacher).__name__}; anchors are compared one by one, which needs "
                "detectors of one kind"
            )
        boxes = "box_distribution" if self.kind == "gfl" else "box_deltas"
        if self.is_head:
            self.logits = head_levels(site, "class_logits")
            self.boxes = head_levels(site, boxes)
        else:
            self.logits = proposal_levels(site, "objectness")
            self.boxes = proposal_levels(site, "box_deltas")
        for own, other in (*self.logits, *self.boxes):
            if own["channels"] != other["channels"]:
                raise ArgumentError(
                    f"{name}: the student's {own['name']} has {own['channels']} channels, the "
                    f"teacher's {other['name']} {other['channels']}; anchors and classes must agree"
                )

    @property
    def pairs(self) -> list[tuple[Row, list[Source]]]:
        """What is read, as a comparison lists it."""
        rows = (*self.logits, *self.boxes)
        return [(own, [self._site.source(other)]) for own, other in rows]

    @property
    def columns(self) -> int:
        """Numbers of an anchor's scores, the background's included."""
        if self.is_head:
            return int(self._site.student.num_classes)
        anchors = int(self.boxes[0][0]["channels"]) // 4
        return int(self.logits[0][0]["channels"]) // anchors

    def read(self, step: Step) -> list[LevelOutputs]:
        """All levels of a step."""
        logits = read_levels(step, self._site, self.logits)
        boxes = read_levels(step, self._site, self.boxes)
        anchors = self._site.student.anchors(step.input_size)
        levels = []
        for level, (scores, codes) in enumerate(zip(logits, boxes)):
            places = scores[0].shape
            count = places[1] // self.columns
            width = codes[0].shape[1] // count
            levels.append(
                LevelOutputs(
                    self._foreground([anchor_rows(one, self.columns) for one in scores]),
                    (anchor_rows(codes[0], width), anchor_rows(codes[1], width)),
                    tiled(anchors[level], places[0]),
                    float(self.logits[level][0]["stride"]),
                    (places[2], places[3]),
                    self.kind if self.is_head else "rpn",
                )
            )
        return levels

    def _foreground(self, rows: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Without the background: a two-class softmax is a sigmoid of the difference."""
        if self.columns == 1:
            return rows[0], rows[1]
        if not self.is_head:
            return tuple(one[:, 1:2] - one[:, 0:1] for one in rows)  # type: ignore[return-value]
        return rows[0][:, 1:], rows[1][:, 1:]

    def teacher_maps(self, step: Step) -> list[Tensor]:
        """The teacher's class maps (N, A K, H, W), fine to coarse."""
        return [step.teacher(self._site.source(other)) for _, other in self.logits]


def proposal_levels(site: Site, output: str) -> list[tuple[Row, Row]]:
    """The rows of an output of the proposal networks, fine to coarse."""
    start = f"rpn.{output}"
    own, other = (
        [r for r in taps if r["name"] == start or r["name"].startswith(start + ".")]
        for taps in (site.student_taps, site.teacher_taps)
    )
    strides = [[row["stride"] for row in rows] for rows in (own, other)]
    if not own or strides[0] != strides[1]:
        raise ArgumentError(
            f"the outputs {start} have strides {strides[0]} in the student and {strides[1]} in "
            "the teacher; they are compared anchor by anchor, which needs the same levels"
        )
    return list(zip(own, other))
