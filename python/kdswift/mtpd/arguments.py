"""What progressive runs and their baselines are given, checked."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .._numbers import check_count
from ..distillation import distill as distill_once
from ..errors import ArgumentError
from ..methods import FeatureMatching, Method, as_method
from ..teacher import as_teacher
from .plan import Plan
from .selection import Selection


def as_named(teachers: Any, where: str) -> dict[str, Any]:
    """Teachers by name, first to last; one that comes twice gets a number."""
    if isinstance(teachers, Plan):
        teachers = teachers.order
    if isinstance(teachers, Selection):
        names: Sequence[str] = teachers.names
        teachers = list(teachers.teachers)
    elif isinstance(teachers, Mapping):
        names, teachers = [str(name) for name in teachers], list(teachers.values())
    else:
        teachers = list(teachers) if isinstance(teachers, (list, tuple)) else [teachers]
        names = [getattr(one, "kind", None) or "teacher" for one in teachers]
    if not teachers:
        raise ArgumentError(f"{where}: there are no teachers")
    result: dict[str, Any] = {}
    for name, teacher in zip(names, teachers):
        as_teacher(teacher, where)
        unique, number = name, 2
        while unique in result:
            unique, number = f"{name}-{number}", number + 1
        result[unique] = teacher
    return result


def check_options(
    options: Mapping[str, Any], where: str, function: Callable = distill_once
) -> None:
    """Refuse what `kd.distill` does not know."""
    known = set(inspect.signature(function).parameters) - {"student", "teacher", "train"}
    for name in options:
        if name == "epochs":
            raise ArgumentError(f"{where}: epochs is epochs_per_teacher here")
        if name not in known:
            raise ArgumentError(f"{where}: unknown option {name!r}; see kd.distill")


def as_methods(method: Any, count: int, where: str = "mtpd.distill") -> list[Method]:
    """A method for every teacher, from one for all or a list."""
    if method is None:
        method = FeatureMatching()
    several = isinstance(method, (list, tuple)) and all(
        isinstance(one, (Method, str)) or one is None for one in method
    )
    if not several or not method:
        return [as_method(method)] * count
    if len(method) != count:
        raise ArgumentError(f"{where}: {len(method)} methods for {count} teachers")
    return [FeatureMatching() if one is None else as_method(one) for one in method]


def as_epochs(epochs: Any, count: int) -> list[int]:
    """The epochs of every stage, from a number or a list."""
    values = list(epochs) if isinstance(epochs, (list, tuple)) else [epochs] * count
    if len(values) != count:
        raise ArgumentError(f"mtpd.distill: epochs of {len(values)} stages for {count} teachers")
    return [check_count(value, "epochs_per_teacher", "mtpd.distill") for value in values]
