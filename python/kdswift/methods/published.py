"""Base of the published methods: options as a dataclass, a label, a repr."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import Any, ClassVar

from ..errors import ArgumentError
from .base import Method, Part


class Published(Method):
    """A published method: one part, described by the fields of a frozen dataclass.

    Those that the engine computes inside its step have ``options()``; the others build what they
    compare by ``comparisons(site)``.
    """

    label: ClassVar[str] = ""

    @property
    def parts(self) -> tuple[Part, ...]:
        """This method alone, with scale 1."""
        return (Part(1.0, self),)

    def plain_options(self) -> dict[str, Any]:
        """Name and options as plain data."""
        return {"name": self.label, **asdict(self)}  # type: ignore[call-overload]

    def __repr__(self) -> str:
        shown = [
            f"{field.name}={getattr(self, field.name)!r}"
            for field in fields(self)  # type: ignore[arg-type]
            if getattr(self, field.name) != field.default
        ]
        return f"{type(self).__name__}({', '.join(shown)})"

    # For the checks of derived classes

    def _check_numbers(self, *names: str, least: float = 0.0, open_end: bool = False) -> None:
        """Refuse options that are no finite numbers from `least` on (above it if `open_end`)."""
        for name in names:
            value = getattr(self, name)
            if value is None:
                continue
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not number or not math.isfinite(value) or value < least:
                raise ArgumentError(
                    f"{self._name}: {name} is {value!r}, expected from {least:g} on"
                )
            if open_end and value == least:
                raise ArgumentError(f"{self._name}: {name} is {value!r}, expected above {least:g}")

    def _check_choice(self, name: str, allowed: Sequence[Any]) -> None:
        """Refuse an option that is none of these."""
        if getattr(self, name) not in allowed:
            names = ", ".join(repr(value) for value in allowed)
            raise ArgumentError(
                f"{self._name}: {name} is {getattr(self, name)!r}, expected one of {names}"
            )

    def _check_levels(self) -> None:
        """Refuse `levels` that are neither None nor names or pairs of names."""
        levels = getattr(self, "levels", None)
        if levels is None:
            return
        if isinstance(levels, str) or not all(
            isinstance(one, str) or (isinstance(one, (tuple, list)) and len(one) == 2)
            for one in levels
        ):
            raise ArgumentError(
                f"{self._name}: levels is {levels!r}, expected names of taps, or pairs "
                "(student's, teacher's)"
            )
        if not levels:
            raise ArgumentError(f"{self._name}: levels is empty")

    @property
    def _name(self) -> str:
        return type(self).__name__
