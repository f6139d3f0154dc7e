"""Yang et al., "Masked Generative Distillation", ECCV 2022."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from ..comparisons.comparison import Comparison
from ..comparisons.site import Site
from ..comparisons.step import Step
from ..errors import ArgumentError
from ..losses.mgd import MGD as MaskedGenerative
from ..tensors import Tensor
from .feature_maps import adapted_levels
from .published import Published

# The authors' configurations: alpha, lambda, levels.
_PUBLISHED = {"one_stage": (2e-5, 0.65, 5), "two_stage": (5e-7, 0.45, 4)}


@dataclass(frozen=True, repr=False, eq=False)
class MGD(Published):
    """Yang et al., "Masked Generative Distillation", ECCV 2022: from the student's map with random
    places hidden, a small generator, learned with the student, makes the teacher's map.

    alpha : weight; None is what the authors have: 2e-5 for one-stage students, 5e-7 for two-stage
        ones (a sum over channels and places)
    masked : lambda, the share of hidden places; None: 0.65 and 0.45
    on_channels : hide whole channels in place of places, as the authors do for classification
    most_levels : None: 5 for one-stage detectors, 4 for two-stage ones
    levels : see `FeatureMatching`
    """

    label: ClassVar[str] = "mgd"

    alpha: float | None = None
    masked: float | None = None
    on_channels: bool = False
    most_levels: int | None = None
    levels: Sequence[Any] | None = None

    def __post_init__(self) -> None:
        self._check_numbers("alpha", "masked")
        if self.masked is not None and self.masked > 1:
            raise ArgumentError(f"MGD: masked is {self.masked!r}, expected 0 to 1")
        self._check_levels()

    def comparisons(self, site: Site) -> list[Comparison]:
        """One, over the levels, with a generator each."""
        alpha, masked, most = _PUBLISHED["one_stage" if site.is_one_stage else "two_stage"]
        alpha = alpha if self.alpha is None else self.alpha
        masked = masked if self.masked is None else self.masked
        pairs = site.level_pairs(self.levels, self.most_levels or most)
        losses = [
            MaskedGenerative(
                *(int(other["channels"]), masked, alpha, self.on_channels),
                seed=int(site.random(f"mgd.{own['name']}").integers(2**31)),
            )
            for own, other in pairs
        ]
        extras = {
            f"{own['name']}.generator.{name}": value
            for (own, _), loss in zip(pairs, losses)
            for name, value in loss.parameters().items()
        }

        def compare(student: Tensor, teacher: Tensor, step: Step, level: int) -> Tensor:
            # One stream for a step and level: a resumed run draws the same masks.
            return losses[level](student, teacher, rng=step.random(f"mgd.{site.number}.{level}"))

        return [adapted_levels(self, site, 1.0, compare, pairs, extras=extras, zero=False)]
