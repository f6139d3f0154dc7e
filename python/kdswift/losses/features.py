"""Whole feature maps: the student's (N, C, H, W) against the teacher's, level by level.

All of them read maps in any layout once or twice and write the gradient while they are at it. An
adaptation layer, where channels differ, comes before (`kd.Term` brings one along).
"""

from __future__ import annotations

from typing import Any

from .._operators import _floats
from ..errors import ArgumentError
from ..tensors import Tensor, apply, as_tensor
from ._common import pair
from ._maps import check_average, finite, map_pair, positive


def feature_matching(student: Any, teacher: Any, reduction: str = "paper") -> Tensor:
    """The mean squared error of two feature maps: feature matching of MTPD (Cao S. et al. 2023).

    The paper prints ||F_T - r(F_S)||^2 and leaves open what it is divided by; here "paper" and
    "mean" divide by the number of elements N C H W, "sum" does not.

    Args:
        student: (N, C, H, W), after the adaptation layer r.
        teacher: the same shape.

    >>> kd.losses.feature_matching(np.full((1, 2, 2, 2), 3.0), np.zeros((1, 2, 2, 2))).item()
    9.0
    """
    name = "feature_matching"
    maps = _maps(name, student, teacher, reduction)
    return _squares(maps, 1.0 if reduction == "sum" else 1 / max(1, maps[0].size))


def fitnets(
    student: Any,
    teacher: Any,
    normalize: bool = True,
    distance: bool = False,
    reduction: str = "paper",
) -> Tensor:
    """The hint loss of FitNets (Romero et al., ICLR 2015), on normalised or on raw features.

    normalize : the form that detection uses (mmrazor's `L2Loss`): each image's map is divided by
        its L2 norm, then sum (S - T)^2 / N: 2 - 2 cos of the angle between the two. An image of
        zeros stays zero and gets no gradient.
    not normalize : the paper's eq. 3, 1/2 ||T - S||^2.
    distance : the square root of the sum instead (mmrazor's `dist`); its gradient is 0 where both
        maps are equal. `reduction` must be "paper".

    Args:
        student: (N, C, H, W), after the regressor.
        teacher: the same shape.
        reduction: "paper" as above; "mean" divides the sum of squares by the number of elements
            (mmrazor's `div_element`), "sum" is that sum.

    >>> kd.losses.fitnets([[[[1.0]], [[0.0]]]], [[[[0.0]], [[2.0]]]]).item()
    2.0
    """
    name = "fitnets"
    maps = _maps(name, student, teacher, reduction)
    if distance and reduction != "paper":
        raise ArgumentError(f"{name}: distance goes with reduction 'paper', not {reduction!r}")
    kind = "sum" if distance else reduction
    if normalize:
        loss = apply("normalized_squared_error", maps, reduction=kind)
    else:
        factors = {"paper": 0.5, "mean": 1 / max(1, maps[0].size), "sum": 1.0}
        loss = _squares(maps, 1.0 if distance else factors[kind])
    return _root(loss) if distance else loss


def attention_transfer(
    student: Any, teacher: Any, form: str = "code", beta: float = 1e3, reduction: str = "paper"
) -> Tensor:
    """Attention transfer (Zagoruyko & Komodakis, ICLR 2017).

    With Q = mean over the channels of F^2, one number per pixel, and q = Q / ||Q|| per image:

        "code"    beta * mean over images and pixels of (q_S - q_T)^2
        "paper"   beta * mean over images of ||q_S - q_T||

    The authors' code has the first form, torchdistill both. Channel counts may differ. Norms are at
    least 1e-12, so a map of zeros gives a finite value.

    Args:
        student: (N, C, H, W).
        teacher: (N, C', H, W).
        form: "code" or "paper".
        beta: weight, 1000 in the paper's experiments.
        reduction: "paper" and "mean" as above; "sum" sums where they average.
    """
    name = "attention_transfer"
    if form not in ("code", "paper"):
        raise ArgumentError(f"{name}: form is {form!r}, expected 'code' or 'paper'")
    maps = _maps(name, student, teacher, reduction, same_channels=False)
    return apply(name, maps, form=form, reduction=reduction) * finite(name, "beta", beta)


def cwd(
    student: Any,
    teacher: Any,
    temperature: float = 1.0,
    form: str = "kl",
    reduction: str = "paper",
) -> Tensor:
    """Channel-wise distillation (Shu et al., ICCV 2021).

    Every channel is a distribution over the pixels: phi(F) = softmax(F / temperature) over H W.

        "kl"   temperature^2 / (N C) * sum over n, c of KL(phi(T) || phi(S))
        "ce"   the same with the cross-entropy: other values, the same gradient

    The authors use 5 times "ce" on four levels for detectors, mmrazor 10 times "kl" on five.

    Args:
        student: (N, C, H, W), after the adaptation layer.
        teacher: the same shape.
        temperature: above 0.
        form: "kl" or "ce".
        reduction: "paper" and "mean" as above; "sum" does not divide by N C.

    >>> kd.losses.cwd([[[[0.0, 0.0]]]], [[[[0.0, np.log(3)]]]]).item()
    0.13081...
    """
    name = "cwd"
    if form not in ("kl", "ce"):
        raise ArgumentError(f"{name}: form is {form!r}, expected 'kl' or 'ce'")
    maps = _maps(name, student, teacher, reduction)
    options = {"temperature": positive(name, "temperature", temperature), "form": form}
    return apply("channel_wise_divergence", maps, reduction=reduction, **options)


def pkd(student: Any, teacher: Any, reduction: str = "paper") -> Tensor:
    """Pearson distillation, PKD (Cao W. et al., NeurIPS 2022).

    1/2 mean (z_S - z_T)^2, with z = (F - mean) / (std + 1e-6) per channel over images and pixels of
    the batch, std unbiased. That is (n - 1) / n (1 - r), r the correlation of a channel's n values,
    averaged over the channels: zero whenever T = a S + b per channel with a > 0. A constant
    channel, or a single value, has z = 0.

    Args:
        student: (N, C, H, W); resize it first if the teacher's size differs (`kd.interpolate`).
        teacher: the same shape.
        reduction: "paper" as above; "mean" and "sum" without the factor 1/2.

    >>> kd.losses.pkd([[[[2.0, 1.0, 3.0, 4.0]]]], [[[[1.0, 2.0, 3.0, 4.0]]]]).item()
    0.15...
    """
    maps = _maps("pkd", student, teacher, reduction)
    return apply("pearson", maps, reduction=reduction)


def weighted_squared_error(
    student: Any, teacher: Any, spatial: Any = None, channels: Any = None, factor: float = 1.0
) -> Tensor:
    """factor * sum over n, c, y, x of spatial[n, 0, y, x] * channels[n, c] * (S - T)^2.

    What FGD, FGFI, DeFeat, FRS and the TID-style losses sum up over masks and attention: value and
    gradient in one pass over both maps. The gradient goes to the student only.

    Args:
        student: S, (N, C, H, W).
        teacher: T, the same shape.
        spatial: (N, 1, H, W) weights of the pixels, or None for 1.
        channels: (N, C) weights of the channels, or None for 1.
        factor: of the whole, such as 1 / N.

    >>> S, T, W = np.ones((1, 2, 1, 2)), np.zeros((1, 2, 1, 2)), [[[[1.0, 0.5]]]]
    >>> kd.losses.weighted_squared_error(S, T, spatial=W).item()
    3.0
    """
    name = "weighted_squared_error"
    inputs = pair(name, student, teacher, "student, teacher")
    for value, word in ((spatial, "spatial"), (channels, "channels")):
        if value is not None:
            inputs.append(_floats(as_tensor(value, f"{name}: {word}")).detach())
    return apply(name, inputs, factor=finite(name, "factor", factor))


def _maps(
    name: str, student: Any, teacher: Any, reduction: str, same_channels: bool = True
) -> list[Tensor]:
    """Both maps, the teacher off the tape, once reduction and shapes are right."""
    check_average(name, reduction)
    return map_pair(name, student, teacher, same_channels)


def _squares(maps: list[Tensor], factor: float) -> Tensor:
    """factor * sum of (S - T)^2."""
    return apply("weighted_squared_error", maps, factor=factor)


def _root(value: Tensor) -> Tensor:
    """The square root, with gradient 0 at 0."""
    return value.sqrt() if value.item() > 0 else value * 0.0
