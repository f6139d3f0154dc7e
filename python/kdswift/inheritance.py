"""`kd.inherit`: a student begins with its teacher's neck and heads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from .detector import Detector
from .errors import ArgumentError
from .weights import LoadReport, compare

PARTS = ("neck", "head")
_NECK, _BACKBONE, _STAGE = "backbone.fpn.", "backbone.", "roi_heads.stages.0."
_REGRESSION = "roi_heads.box_predictor.bbox_pred."


def inherit(student: Detector, teacher: Detector, parts: Iterable[str] = PARTS) -> LoadReport:
    """Copy a teacher's weights, all but the backbone's, into a student ("inheriting strategy").

    Tensors of one name and shape are copied. Of a Cascade R-CNN the first stage becomes the region
    head of a student with one stage; its box regression, which all classes share, is repeated for
    every class, and rescaled where the two code boxes by unlike standard deviations.

    student : changed in place
    parts : "neck" (the pyramid's convolutions), "head" (region proposals and heads), or both

    Returns a `LoadReport` of the student's names: loaded, missing in the teacher, misshaped.
    Raises ``ArgumentError`` for what is no detector, or an unknown part.
    """
    for one, name in ((student, "student"), (teacher, "teacher")):
        if not isinstance(one, Detector):
            raise ArgumentError(f"inherit: {name} must be a kdswift detector, got {one!r}")
    wanted = as_parts(parts)
    shapes = {n: t.shape for n, t in student._engine.state().items() if part_of(n) in wanted}
    values = _values(teacher, student, shapes)
    report = compare(shapes, {n: v for n, v in values.items() if n in shapes})
    return student._load(values, report, strict=False)


def as_parts(parts: Any) -> tuple[str, ...]:
    """Checked parts; True is all of them."""
    if parts is True:
        return PARTS
    result = (parts,) if isinstance(parts, str) else tuple(parts or ())
    for part in result:
        if part not in PARTS:
            raise ArgumentError(f"inherit: part {part!r}, expected {' or '.join(PARTS)}")
    return result


def part_of(name: str) -> str:
    """ "backbone", "neck" or "head" of a tensor."""
    if name.startswith(_NECK):
        return "neck"
    return "backbone" if name.startswith(_BACKBONE) else "head"


def _values(
    teacher: Detector, student: Detector, shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, np.ndarray]:
    """The teacher's tensors under the names that the student has for them."""
    values = teacher.state_dict()
    if any(name.startswith("roi_heads.stages.") for name in shapes):
        return values
    result = {}
    for name, value in values.items():
        if name.startswith(_STAGE):
            name = f"roi_heads.{name.removeprefix(_STAGE)}"
            if name.startswith(_REGRESSION):
                value = _per_class(value, shapes.get(name, value.shape), teacher, student)
        result[name] = value
    return result


def _per_class(
    value: np.ndarray, shape: tuple[int, ...], teacher: Detector, student: Detector
) -> np.ndarray:
    """Rows (x, y, width, height), shared by all classes, for every class, in the student's code:
    both mean delta * std of the same box."""
    theirs = teacher.configuration["cascade"]["box_stds"][0]
    ours = student.configuration["roi"]["box_std"]
    scale = (np.array(theirs) / np.array(ours)).reshape(4, *[1] * (value.ndim - 1))
    if not np.allclose(scale, 1, atol=1e-7):
        value = (value * scale).astype(np.float32)
    if len(value) != 4 or shape[0] % 4 or shape[0] == 4:
        return value
    return np.tile(value, (shape[0] // 4, *[1] * (value.ndim - 1)))
