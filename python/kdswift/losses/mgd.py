"""MGD: masked generative distillation (Yang et al., ECCV 2022)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .._operators import _floats
from ..errors import ArgumentError, ShapeError
from ..functional import conv2d, relu
from ..tensors import Tensor, apply, as_tensor, tensor
from ._maps import check_average, finite, load_parameters, map_pair


def mgd(
    student: Any,
    teacher: Any,
    mask: Any,
    generator: Mapping[str, Any],
    alpha: float = 2e-5,
    reduction: str = "paper",
) -> Tensor:
    """Masked generative distillation of one level of the pyramid.

    alpha / N * ||G(S * M) - T||^2, summed over C, H, W, with the generator
    G = 3x3 convolution, relu, 3x3 convolution. The gradient goes to the student and to G.

    The authors have alpha 2e-5 for one-stage detectors, 5e-7 for two-stage ones.

    Args:
        student: S, (N, C, H, W), after the adaptation layer.
        teacher: T, the same shape.
        mask: M of 0 and 1, (N, 1, H, W), or (N, C, 1, 1); see `mgd_mask`.
        generator: "0.weight" (C, C, 3, 3), "0.bias" (C,), "2.weight" and "2.bias" likewise, as
            `MGD.parameters()` names them.
        alpha: weight.
        reduction: "paper" as above; "mean" divides by N C H W, "sum" by nothing.
    """
    name = "mgd"
    check_average(name, reduction)
    maps = map_pair(name, student, teacher)
    shape = maps[0].shape
    cover = _floats(as_tensor(mask, f"{name}: mask")).detach()
    if cover.shape not in ((shape[0], 1, *shape[2:]), (*shape[:2], 1, 1)):
        raise ShapeError(
            f"{name}: mask {cover.shape} must be (N, 1, H, W) or (N, C, 1, 1) for student {shape}"
        )
    weight = finite(name, "alpha", alpha)
    made = _generated(maps[0] * cover, generator, shape[1])
    share = {"paper": 1 / max(1, shape[0]), "mean": 1 / max(1, maps[0].size), "sum": 1.0}
    return apply("weighted_squared_error", [made, maps[1]], factor=weight * share[reduction])


def _generated(masked: Tensor, generator: Mapping[str, Any], channels: int) -> Tensor:
    """G of a masked map."""

    def part(name: str, shape: tuple[int, ...]) -> Tensor:
        if name not in generator:
            raise ArgumentError(f"mgd: generator has no {name!r}; it has {', '.join(generator)}")
        value = as_tensor(generator[name], f"mgd: generator {name}")
        if value.shape != shape:
            raise ShapeError(f"mgd: generator {name} is {value.shape}, expected {shape}")
        return value

    sizes = (channels, channels, 3, 3)
    hidden = relu(conv2d(masked, part("0.weight", sizes), part("0.bias", (channels,)), padding=1))
    return conv2d(hidden, part("2.weight", sizes), part("2.bias", (channels,)), padding=1)


def mgd_mask(
    shape: tuple[int, ...],
    masked: float = 0.65,
    rng: np.random.Generator | None = None,
    on_channels: bool = False,
) -> np.ndarray:
    """M of MGD for maps of `shape` (N, C, H, W): 0 where u > 1 - masked, u uniform, else 1.

    Args:
        masked: the share of zeros, 0 to 1; the authors have 0.65, two-stage 0.45.
        rng: where u is drawn from; the same state gives the same mask. None: seeded with 0.
        on_channels: one number per channel, (N, C, 1, 1), as for classification, instead of one per
            pixel, (N, 1, H, W), shared by the channels.
    """
    if not 0 <= masked <= 1:
        raise ArgumentError(f"mgd: masked is {masked}, expected 0 to 1")
    images, channels, height, width = shape
    size = (images, channels, 1, 1) if on_channels else (images, 1, height, width)
    draws = (np.random.default_rng(0) if rng is None else rng).random(size, np.float32)
    return np.where(draws > 1 - masked, 0, 1).astype(np.float32)


class MGD:
    """`mgd` of one level with its generator, which learns along with the student.

    Args:
        channels: C of the teacher's map.
        masked: the share of pixels that are hidden.
        alpha: weight.
        on_channels: hide whole channels instead of pixels.
        seed: of the first weights, uniform in +-1 / sqrt(9 C) as PyTorch's convolutions, and of the
            masks of calls without `rng` and `mask`: one stream that every such call draws from.
    """

    def __init__(
        self,
        channels: int,
        masked: float = 0.65,
        alpha: float = 2e-5,
        on_channels: bool = False,
        seed: int = 0,
    ) -> None:
        if int(channels) != channels or channels < 1:
            raise ArgumentError(f"MGD: channels is {channels}, expected a positive integer")
        if not 0 <= masked <= 1:
            raise ArgumentError(f"MGD: masked is {masked}, expected 0 to 1")
        self.channels, self.masked = int(channels), float(masked)
        self.alpha, self.on_channels = finite("MGD", "alpha", alpha), bool(on_channels)
        self._draws = np.random.Generator(np.random.PCG64([seed, 2205]))
        rng = np.random.Generator(np.random.PCG64([seed, 1529]))
        bound = (9 * self.channels) ** -0.5
        self._parameters = {
            name: tensor(rng.uniform(-bound, bound, size).astype(np.float32), requires_grad=True)
            for layer in ("0", "2")
            for name, size in (
                (f"{layer}.weight", (self.channels, self.channels, 3, 3)),
                (f"{layer}.bias", (self.channels,)),
            )
        }

    def __call__(
        self,
        student: Any,
        teacher: Any,
        rng: np.random.Generator | None = None,
        mask: Any = None,
        reduction: str = "paper",
    ) -> Tensor:
        """The loss of two maps (N, C, H, W); the mask is `mask`, or drawn from `rng`."""
        if mask is None:
            shape = as_tensor(student, "mgd: student").shape
            if len(shape) != 4:
                raise ShapeError(f"mgd: student {shape} must be a map (N, C, H, W)")
            draws = self._draws if rng is None else rng
            mask = mgd_mask(shape, self.masked, draws, self.on_channels)
        return mgd(student, teacher, mask, self._parameters, self.alpha, reduction)

    def parameters(self) -> dict[str, Tensor]:
        """The generator's tensors by name: "0.weight", "0.bias", "2.weight", "2.bias"."""
        return dict(self._parameters)

    def state_dict(self) -> dict[str, np.ndarray]:
        """Copies of the learned tensors by name."""
        return {name: value.numpy() for name, value in self._parameters.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over weights with the names and shapes of `state_dict`, into new tensors: call it
        before `parameters()` go to an optimizer."""
        self._parameters = load_parameters("MGD", self._parameters, state)
