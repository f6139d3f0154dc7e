"""Methods that compare whole feature maps: feature matching, FitNets, AT, CWD, PKD."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from .. import losses
from ..comparisons.comparison import Compare, Comparison, LevelMaps
from ..comparisons.site import Row, Site
from .published import Published

Levels = Sequence[Any] | None


def adapted_levels(
    method: Published,
    site: Site,
    weight: float,
    compare: Compare,
    pairs: Sequence[tuple[Row, Row]],
    adapter: str = "auto",
    **options: Any,
) -> LevelMaps:
    """The comparison of a method on some levels.

    adapter : "auto", a 1x1 convolution where channels differ; "1x1", "3x3" always; "none"
    """
    adapters = []
    for own, other in pairs:
        wanted = adapter in ("1x1", "3x3") or (
            adapter == "auto" and own["channels"] != other["channels"]
        )
        kernel = 3 if adapter == "3x3" else 1
        name = f"{method.label}.{own['name']}"
        adapters.append(site.adapter(name, own, other, kernel=kernel) if wanted else None)
    return LevelMaps(method.label, weight, site, pairs, compare, adapters=adapters, **options)


@dataclass(frozen=True, repr=False, eq=False)
class FeatureMatching(Published):
    """Squared error of feature maps, the plain mechanism of MTPD (Cao et al., ICML 2023).

    L = mean over levels of mean over N, C, H, W of (F_T - r(F_S))^2; r is the identity, a 1x1
    convolution where channels differ, bilinear resizing where sizes do, or both (in that order).

    weight : lambda; not published. The mean over elements is small beside detection losses where
        features are: see `kd.doctor`, which suggests a value
    levels : names of taps, or pairs (student's, teacher's); None: what the heads read, paired by
        stride
    """

    label: ClassVar[str] = "feature_matching"

    weight: float = 1.0
    levels: Levels = None

    def __post_init__(self) -> None:
        self._check_numbers("weight")
        self._check_levels()

    def comparisons(self, site: Site) -> list[Comparison]:
        """One, over all levels."""

        def compare(student: Any, teacher: Any, _step: Any, _level: int) -> Any:
            return losses.feature_matching(student, teacher)

        pairs = site.level_pairs(self.levels)
        return [adapted_levels(self, site, self.weight, compare, pairs, average=True)]


@dataclass(frozen=True, repr=False, eq=False)
class FitNets(Published):
    """Hints of Romero et al., "FitNets", ICLR 2015, in the form of mmrazor's `L2Loss`.

    weight : mmrazor's configuration has 10
    normalize : every sample's map is divided by its L2 norm first, so that L = 2 - 2 cos
    adapter : "auto" (1x1 where channels differ), "1x1" (always, as published), "none"
    levels : see `FeatureMatching`
    """

    label: ClassVar[str] = "fitnets"

    weight: float = 10.0
    normalize: bool = True
    adapter: str = "auto"
    levels: Levels = None

    def __post_init__(self) -> None:
        self._check_numbers("weight")
        self._check_choice("adapter", ("auto", "1x1", "3x3", "none"))
        self._check_levels()

    def comparisons(self, site: Site) -> list[Comparison]:
        """One, over all levels."""

        def compare(student: Any, teacher: Any, _step: Any, _level: int) -> Any:
            return losses.fitnets(student, teacher, normalize=self.normalize)

        pairs = site.level_pairs(self.levels)
        return [adapted_levels(self, site, self.weight, compare, pairs, self.adapter)]


@dataclass(frozen=True, repr=False, eq=False)
class AttentionTransfer(Published):
    """Zagoruyko & Komodakis, "Paying More Attention to Attention", ICLR 2017.

    beta : the authors' code has 1000
    form : "code" (mean of squared differences) or "paper" (norm of the difference)
    levels : see `FeatureMatching`; channels need not agree
    """

    label: ClassVar[str] = "attention_transfer"

    beta: float = 1000.0
    form: str = "code"
    levels: Levels = None

    def __post_init__(self) -> None:
        self._check_numbers("beta")
        self._check_choice("form", ("code", "paper"))
        self._check_levels()

    def comparisons(self, site: Site) -> list[Comparison]:
        """One, over all levels."""

        def compare(student: Any, teacher: Any, _step: Any, _level: int) -> Any:
            return losses.attention_transfer(student, teacher, form=self.form, beta=self.beta)

        pairs = site.level_pairs(self.levels)
        return [adapted_levels(self, site, 1.0, compare, pairs, "none")]


@dataclass(frozen=True, repr=False, eq=False)
class CWD(Published):
    """Shu et al., "Channel-wise Knowledge Distillation for Dense Prediction", ICCV 2021.

    weight, most_levels : 5 and 4 as in the authors' detection code; mmrazor has 10 and 5
        (`CWD.preset("mmrazor")`)
    temperature : tau
    form : "kl" or "ce" (the same gradient, another value)
    levels : see `FeatureMatching`; the first `most_levels` if None
    """

    label: ClassVar[str] = "cwd"

    weight: float = 5.0
    temperature: float = 1.0
    form: str = "kl"
    most_levels: int | None = 4
    levels: Levels = None

    def __post_init__(self) -> None:
        self._check_numbers("weight")
        self._check_numbers("temperature", open_end=True)
        self._check_choice("form", ("kl", "ce"))
        self._check_levels()

    @classmethod
    def preset(cls, name: str) -> CWD:
        """ "authors" or "mmrazor"."""
        presets = {"authors": cls(), "mmrazor": cls(weight=10.0, most_levels=None)}
        if name not in presets:
            from ..errors import ArgumentError

            raise ArgumentError(f"CWD: preset {name!r}, expected 'authors' or 'mmrazor'")
        return presets[name]

    def comparisons(self, site: Site) -> list[Comparison]:
        """One, over the levels."""

        def compare(student: Any, teacher: Any, _step: Any, _level: int) -> Any:
            return losses.cwd(student, teacher, temperature=self.temperature, form=self.form)

        pairs = site.level_pairs(self.levels, self.most_levels)
        zero = self.form == "kl"
        return [adapted_levels(self, site, self.weight, compare, pairs, zero=zero)]


@dataclass(frozen=True, repr=False, eq=False)
class PKD(Published):
    """Cao et al., "PKD: General Distillation Framework for Object Detectors via Pearson Correlation
    Coefficient", NeurIPS 2022.

    weight : None is what the authors publish: 10 for one-stage students, 6 for two-stage ones
    most_levels : the authors take the first 4
    levels : see `FeatureMatching`; the method has no adaptation layer, channels must agree
    """

    label: ClassVar[str] = "pkd"

    weight: float | None = None
    most_levels: int | None = 4
    levels: Levels = None

    def __post_init__(self) -> None:
        self._check_numbers("weight")
        self._check_levels()

    def comparisons(self, site: Site) -> list[Comparison]:
        """One, over the levels."""

        def compare(student: Any, teacher: Any, _step: Any, _level: int) -> Any:
            return losses.pkd(student, teacher)

        pairs = site.level_pairs(self.levels, self.most_levels)
        site.need_channels("PKD has no adaptation layer", pairs)
        weight = self.weight if self.weight is not None else 10.0 if site.is_one_stage else 6.0
        return [adapted_levels(self, site, weight, compare, pairs, "none")]
