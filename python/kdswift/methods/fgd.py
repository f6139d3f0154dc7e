"""Yang et al., "Focal and Global Knowledge Distillation for Detectors", CVPR 2022."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from ..comparisons.comparison import Comparison
from ..comparisons.site import Site
from ..comparisons.step import Step
from ..losses.fgd import FGD as FocalGlobal
from ..tensors import Tensor
from .feature_maps import adapted_levels
from .published import Published

# The authors' configurations: temperature, alpha, beta, gamma, lambda, levels.
_PUBLISHED = {
    "one_stage": (0.5, 1e-3, 5e-4, 5e-4, 5e-6, 5),
    "fcos": (0.8, 1.6e-3, 8e-4, 8e-4, 8e-6, 5),
    "two_stage": (0.5, 5e-5, 2.5e-5, 5e-5, 5e-7, 4),
}
_NAMES = ("temperature", "alpha", "beta", "gamma", "relation", "most_levels")


@dataclass(frozen=True, repr=False, eq=False)
class FGD(Published):
    """Yang et al., "Focal and Global Knowledge Distillation for Detectors", CVPR 2022.

    Foreground and background are weighted apart, with the teacher's attention over places and
    channels; context blocks, learned on both sides, compare the relation of places.

    alpha, beta, gamma, relation : weights of foreground, background, attention and context; None is
        what the authors' configurations have for the student: 1e-3, 5e-4, 5e-4, 5e-6 for one-stage
        detectors (FCOS 1.6e-3, 8e-4, 8e-4, 8e-6), 5e-5, 2.5e-5, 5e-5, 5e-7 for two-stage ones
    temperature : of the attention; None: 0.5, FCOS 0.8
    most_levels : None: 5 for one-stage detectors, 4 for two-stage ones
    levels : see `FeatureMatching`
    """

    label: ClassVar[str] = "fgd"

    alpha: float | None = None
    beta: float | None = None
    gamma: float | None = None
    relation: float | None = None
    temperature: float | None = None
    most_levels: int | None = None
    levels: Sequence[Any] | None = None

    def __post_init__(self) -> None:
        self._check_numbers("alpha", "beta", "gamma", "relation")
        self._check_numbers("temperature", open_end=True)
        self._check_levels()

    def comparisons(self, site: Site) -> list[Comparison]:
        """One, over the levels, with two context blocks each."""
        kind = site.student.kind
        family = "fcos" if kind == "fcos" else "one_stage" if site.is_one_stage else "two_stage"
        options = dict(zip(_NAMES, _PUBLISHED[family]))
        options |= {n: getattr(self, n) for n in _NAMES if getattr(self, n) is not None}
        pairs = site.level_pairs(self.levels, int(options.pop("most_levels")))
        losses = [
            FocalGlobal(
                int(other["channels"]),
                seed=int(site.random(f"fgd.{own['name']}").integers(2**31)),
                **options,
            )
            for own, other in pairs
        ]
        extras = {
            f"{own['name']}.{name}": value
            for (own, _), loss in zip(pairs, losses)
            for name, value in loss.parameters().items()
        }

        def compare(student: Tensor, teacher: Tensor, step: Step, level: int) -> Tensor:
            return losses[level](student, teacher, step.boxes, step.image_sizes)

        return [adapted_levels(self, site, 1.0, compare, pairs, extras=extras)]
