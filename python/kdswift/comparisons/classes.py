"""Classes of a teacher beside those of a student: which columns of logits mean the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ..errors import ArgumentError
from ..tensors import Tensor


class ClassMap:
    """Columns of class logits that belong together; column 0 is the background on both sides.

    student, teacher : class names with the background first, or None where they are not known
    mapping : {teacher's class: student's class}; None: equal names; without names, equal numbers
    """

    def __init__(
        self,
        student: Sequence[str] | None,
        teacher: Sequence[str] | None,
        counts: tuple[int, int],
        mapping: Mapping[str, str] | None = None,
    ) -> None:
        self.counts = counts
        pairs, self.unmapped = self._pair(student, teacher, counts, mapping)
        if len(pairs) < 2:
            raise ArgumentError(
                f"class_map: student ({_shown(student, counts[0])}) and teacher "
                f"({_shown(teacher, counts[1])}) have no class in common; give "
                "class_map={teacher's class: student's class}"
            )
        own, other = zip(*sorted(pairs))
        self.student = np.array(own, np.int64)
        self.teacher = np.array(other, np.int64)
        everything = np.arange(counts[0])
        self.is_identity = counts[0] == counts[1] and all(
            np.array_equal(one, everything) for one in (self.student, self.teacher)
        )

    @staticmethod
    def _pair(
        student: Sequence[str] | None,
        teacher: Sequence[str] | None,
        counts: tuple[int, int],
        mapping: Mapping[str, str] | None,
    ) -> tuple[list[tuple[int, int]], list[str]]:
        if student is None or teacher is None:
            if mapping is not None or counts[0] != counts[1]:
                who = "student" if student is None else "teacher"
                raise ArgumentError(
                    f"class_map: the {who} has no class_names; the student has {counts[0]} "
                    f"classes, the teacher {counts[1]}"
                )
            return [(i, i) for i in range(counts[0])], []
        wanted = dict(mapping) if mapping is not None else {name: name for name in teacher[1:]}
        if mapping is not None:
            for theirs, ours in mapping.items():
                if theirs not in teacher[1:]:
                    raise ArgumentError(f"class_map: the teacher has no class {theirs!r}")
                if ours not in student[1:]:
                    raise ArgumentError(f"class_map: the student has no class {ours!r}")
        pairs, unmapped = [(0, 0)], []
        for number, name in enumerate(teacher):
            if number == 0:
                continue
            ours = wanted.get(name)
            if ours in student[1:]:
                pairs.append((list(student).index(ours), number))
            else:
                unmapped.append(name)
        return _one_to_one(pairs, teacher, student), unmapped

    def take(self, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
        """The common columns of (R, K) logits of both sides."""
        if self.is_identity:
            return student, teacher
        return student[:, self.student], teacher[:, self.teacher]

    def mass(self, probabilities: np.ndarray) -> float:
        """Mean of the teacher's probability (R, K) that lies on classes the student has not."""
        missing = np.setdiff1d(np.arange(self.counts[1]), self.teacher)
        return float(probabilities[:, missing].sum(axis=1).mean()) if len(missing) else 0.0


def _one_to_one(
    pairs: list[tuple[int, int]], teacher: Sequence[str], student: Sequence[str]
) -> list[tuple[int, int]]:
    seen: dict[int, int] = {}
    for ours, theirs in pairs:
        if ours in seen:
            raise ArgumentError(
                f"class_map: {teacher[seen[ours]]!r} and {teacher[theirs]!r} of the teacher are "
                f"both {student[ours]!r} of the student"
            )
        seen[ours] = theirs
    return pairs


def _shown(names: Sequence[str] | None, count: int) -> str:
    return f"{count} classes" if names is None else ", ".join(names[1:6])
