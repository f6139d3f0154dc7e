"""A student and a teacher beside each other: which maps belong together."""

from __future__ import annotations

import difflib
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import ArgumentError, ShapeError
from .adapter import Adapter
from .step import Source

Row = Mapping[str, Any]  # of a table of taps
ONE_STAGE = ("retinanet", "gfl", "atss", "fcos")


class Site:
    """What a method needs to know before a run begins.

    student : the detector that learns;  student_taps : its table of taps
    teacher : a detector or a `kd.Teacher`;  teacher_taps : its table
    number, count : which of how many teachers
    """

    def __init__(
        self,
        student: Any,
        student_taps: Sequence[Row],
        teacher: Any,
        teacher_taps: Sequence[Row],
        number: int = 0,
        count: int = 1,
        seed: int = 0,
    ) -> None:
        self.student, self.student_taps = student, list(student_taps)
        self.teacher, self.teacher_taps = teacher, list(teacher_taps)
        self.number, self.count, self.seed = number, count, seed

    @property
    def is_one_stage(self) -> bool:
        """Whether the student is a one-stage detector; published weights differ by that."""
        return self.student.kind in ONE_STAGE

    def student_tap(self, name: str) -> Row:
        """The row of a tap of the student."""
        return find_tap(self.student_taps, name, "student")

    def teacher_tap(self, name: str) -> Row:
        """The row of a tap of the teacher."""
        owner = "teacher" if self.count == 1 else f"teacher {self.number}"
        return find_tap(self.teacher_taps, name, owner)

    def source(self, row: Row) -> Source:
        """Where the teacher's array of that row comes from."""
        return self.number, row["name"]

    def level_pairs(
        self, levels: Sequence[Any] | None = None, most: int | None = None
    ) -> list[tuple[Row, Row]]:
        """The student's and the teacher's maps that belong together, fine to coarse.

        levels : names, or (student's, teacher's) names; None: the maps that the heads read, paired
            by stride
        most : at most so many, from the finest
        """
        if levels is not None:
            named = [(one, one) if isinstance(one, str) else tuple(one) for one in levels]
            return [(self.student_tap(a), self.teacher_tap(b)) for a, b in named]
        own, other = head_maps(self.student_taps), head_maps(self.teacher_taps)
        if len(own) == 1 and len(other) == 1:
            return [(own[0], other[0])]
        pairs = [
            (a, next(b for b in other if b["stride"] == a["stride"]))
            for a in own
            if any(b["stride"] == a["stride"] for b in other)
        ]
        if not pairs:
            raise ArgumentError(
                "the student's maps have strides "
                f"{_strides(own)}, the teacher's {_strides(other)}: none are equal; name the "
                "pairs, e.g. levels=[('neck.p3', 'neck.p2')]"
            )
        return pairs[:most]

    def adapter(self, name: str, student: Row, teacher: Row, **options: Any) -> Adapter:
        """A learned convolution from the student's channels to the teacher's."""
        channels = int(student["channels"]), int(teacher["channels"])
        return Adapter(*channels, self.random(name), **options)

    def random(self, name: str) -> np.random.Generator:
        """Random numbers for first weights."""
        key = zlib.crc32(f"{self.number}.{name}".encode())
        return np.random.Generator(np.random.PCG64([self.seed, 7919, key]))

    def need_channels(self, where: str, pairs: Sequence[tuple[Row, Row]]) -> None:
        """Refuse maps of unlike channels."""
        for own, other in pairs:
            if own["channels"] != other["channels"]:
                raise ShapeError(
                    f"{where}: the student's {own['name']} has {own['channels']} channels, the "
                    f"teacher's {other['name']} {other['channels']}"
                )


def head_maps(taps: Sequence[Row]) -> list[Row]:
    """The maps that heads read: the levels of the neck; without one the last of the backbone; of a
    teacher with names of its own all maps, fine to coarse."""
    features = [row for row in taps if row["kind"] == "feature"]
    neck = [row for row in features if row["name"].startswith("neck.")]
    if neck:
        return neck
    backbone = [row for row in features if row["name"].startswith("backbone.")]
    if backbone:
        return backbone[-1:]
    if not features:
        names = ", ".join(row["name"] for row in taps) or "none"
        raise ArgumentError(f"there is no map (N, C, H, W) among the taps: {names}")
    return sorted(features, key=lambda row: row["stride"] or 0)


def find_tap(taps: Sequence[Row], name: str, owner: str) -> Row:
    """The row of a tap; an error names those that are near."""
    for tap in taps:
        if tap["name"] == name:
            return tap
    names = [tap["name"] for tap in taps]
    near = difflib.get_close_matches(name, names, 3) or names
    raise ArgumentError(f"the {owner} has no tap {name!r}; near are {', '.join(near[:8])}")


def _strides(rows: Sequence[Row]) -> str:
    return ", ".join(str(row["stride"]) for row in rows)
