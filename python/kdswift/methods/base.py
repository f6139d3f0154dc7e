"""Methods as sums of weighted parts."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, NamedTuple

from ..errors import ArgumentError
from .term import Term
from .window import Window


class Part(NamedTuple):
    """One summand: its factor, a `Term` or a published method, and when it acts."""

    scale: float
    part: Any
    windows: tuple[Window, ...] = ()

    def factor(self, step: int, total: int) -> float:
        """The product of its windows in a step."""
        return math.prod(window.factor(step, total) for window in self.windows)


class Method:
    """A weighted sum of parts. ``a + b`` joins two methods, ``0.5 * a`` scales one, and
    ``a.during(start=…, stop=…, ramp=…, decay=…)`` lets it act in a part of the run.

    Parameters
    ----------
    terms : `Term`s, each with its own weight

    The published methods are subclasses with named options.
    """

    def __init__(self, terms: Iterable[Term] = ()) -> None:
        terms = [terms] if isinstance(terms, Term) else list(terms)
        for i, term in enumerate(terms):
            if not isinstance(term, Term):
                raise ArgumentError(f"Method: terms[{i}] must be a kd.Term, got {term!r}")
        self._parts: tuple[Part, ...] = tuple(Part(1.0, term) for term in terms)

    @property
    def parts(self) -> tuple[Part, ...]:
        """Everything summed."""
        return self._parts

    @property
    def terms(self) -> list[Term]:
        """The `Term`s among the parts, their weights multiplied by the scales."""
        return [
            replace(part.part, weight=part.part.weight * part.scale)
            for part in self.parts
            if isinstance(part.part, Term)
        ]

    @property
    def engine_parts(self) -> list[Part]:
        """Those that the engine's own step computes."""
        return [part for part in self.parts if hasattr(part.part, "options")]

    @property
    def own_parts(self) -> list[Part]:
        """Those with a scale that are computed from taps, outside the engine's step."""
        return [part for part in self.parts if part.scale > 0 and not hasattr(part.part, "options")]

    @property
    def loss_weights(self) -> dict[str, float]:
        """Factors on the student's detection losses, by name, of all parts together."""
        weights: dict[str, float] = {}
        for part in self.parts:
            for name, factor in getattr(part.part, "detection_weights", {}).items():
                weights[name] = weights.get(name, 1.0) * (factor if part.scale > 0 else 1.0)
        return weights

    def to_dict(self) -> dict[str, Any]:
        """What the engine computes itself: ``{"parts": [{"name", "scale", …}]}``."""
        return {"parts": [{**p.part.options(), "scale": p.scale} for p in self.engine_parts]}

    def describe(self) -> dict[str, Any]:
        """Everything as plain data: to compare and to keep with a run."""
        parts = []
        for part in self.parts:
            one = part.part
            plain = one.describe() if isinstance(one, Term) else one.plain_options()
            entry = {**plain, "scale": float(part.scale)}
            if part.windows:
                entry["windows"] = [window.describe() for window in part.windows]
            parts.append(entry)
        return {"parts": parts}

    def during(
        self,
        start: float = 0,
        stop: float | None = None,
        ramp: float = 0,
        decay: str | None = None,
    ) -> Method:
        """This method, acting from `start` to `stop`, coming in over `ramp`, going by `decay`.

        Whole numbers are steps, numbers below 1 parts of the run; see `kd.methods.Window`.

        >>> kd.methods.CWD().during(start=400)                    # not in the first 400 steps
        >>> kd.methods.PKD().during(stop=0.8, decay="cosine")     # gone after 80 % of the run
        """
        window = Window(start, stop, ramp, decay)
        return joined(Part(s, part, (*windows, window)) for s, part, windows in self.parts)

    def always(self) -> Method:
        """The same without its windows."""
        if not any(part.windows for part in self.parts):
            return self
        return joined(Part(scale, part) for scale, part, _ in self.parts)

    def __add__(self, other: Any) -> Method:
        if isinstance(other, Term):
            other = Method([other])
        if not isinstance(other, Method):
            return NotImplemented
        return joined((*self.parts, *other.parts))

    def __mul__(self, factor: Any) -> Method:
        if isinstance(factor, bool) or not isinstance(factor, (int, float)):
            return NotImplemented
        if not (math.isfinite(factor) and factor >= 0):
            raise ArgumentError(f"a method is scaled by {factor!r}, expected a number from 0 on")
        return joined(Part(scale * factor, part, windows) for scale, part, windows in self.parts)

    __rmul__ = __mul__

    def __repr__(self) -> str:
        return " + ".join(_shown(part) for part in self.parts) or "Method()"


def joined(parts: Iterable[Part]) -> Method:
    """A method of these parts."""
    method = Method()
    method._parts = tuple(parts)
    return method


def _shown(part: Part) -> str:
    text = repr(part.part) if part.scale == 1 else f"{part.scale:g} * {part.part!r}"
    for window in part.windows:
        given = [f"{k}={v!r}" for k, v in window.describe().items() if v not in (0, None)]
        text = f"({text}).during({', '.join(given)})"
    return text
