"""Numbers as people give them, checked."""

from __future__ import annotations

from typing import Any

import numpy as np

from .errors import ArgumentError


def check_fraction(value: Any, name: str, where: str) -> float:
    """A number from 0 to 1."""
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)):
        raise ArgumentError(f"{where}: {name} is {value!r}, expected a number from 0 to 1")
    if not 0 <= value <= 1:
        raise ArgumentError(f"{where}: {name} is {value!r}, expected a number from 0 to 1")
    return float(value)


def check_count(value: Any, name: str, where: str, least: int = 1) -> int:
    """A whole number from `least` on."""
    good = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not good or value < least:
        raise ArgumentError(f"{where}: {name} is {value!r}, expected a whole number from {least}")
    return int(value)
