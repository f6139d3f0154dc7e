"""Optimizers as data: what the engine's update rule is told.

kd.SGD(lr=0.01, momentum=0.9, weight_decay=1e-4)      kd.AdamW(lr=2e-3)
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from .errors import ArgumentError


@dataclass(frozen=True)
class Optimizer:
    """Base of the optimizers; `to_dict` is what the engine reads."""

    name: ClassVar[str] = ""

    def to_dict(self) -> dict[str, Any]:
        """The engine's options."""
        return {"name": self.name, **asdict(self)}

    def __post_init__(self) -> None:
        for field, value in asdict(self).items():
            if isinstance(value, bool):
                continue
            low, high, high_included = _RANGES[field]
            number = isinstance(value, (int, float)) and math.isfinite(value)
            if not (number and low <= value and (value < high or high_included)):
                raise ArgumentError(
                    f"{type(self).__name__}: {field} is {value!r}, expected a number from {low:g}"
                    + (f" to below {high:g}" if math.isfinite(high) else " on")
                )


# field: least value, largest value, whether that is allowed itself
_RANGES = {
    "lr": (0.0, math.inf, True),
    "momentum": (0.0, 1.0, False),
    "weight_decay": (0.0, math.inf, True),
    "beta1": (0.0, 1.0, False),
    "beta2": (0.0, 1.0, False),
    "epsilon": (0.0, math.inf, True),
    "bias_lr_factor": (0.0, math.inf, True),
}


@dataclass(frozen=True)
class SGD(Optimizer):
    """Stochastic gradient descent with momentum.

    lr : learning rate;  weight_decay : added to the gradient as ``weight_decay * weight``
    nesterov : look ahead along the momentum
    bias_lr_factor : learning rate of biases relative to `lr` (py-faster-rcnn takes 2)
    decay_bias_and_norm : whether biases and normalisation weights decay as well
    """

    lr: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 1e-4
    nesterov: bool = False
    bias_lr_factor: float = 1.0
    decay_bias_and_norm: bool = True
    name: ClassVar[str] = "sgd"


@dataclass(frozen=True)
class Adam(Optimizer):
    """Adam (Kingma and Ba 2015); weight decay is added to the gradient."""

    lr: float = 1e-3
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: float = 0.0
    bias_lr_factor: float = 1.0
    decay_bias_and_norm: bool = True
    name: ClassVar[str] = "adam"


@dataclass(frozen=True)
class AdamW(Optimizer):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019)."""

    lr: float = 1e-3
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: float = 0.01
    bias_lr_factor: float = 1.0
    decay_bias_and_norm: bool = False
    name: ClassVar[str] = "adamw"


_BY_NAME = {"sgd": SGD, "adam": Adam, "adamw": AdamW}


def as_optimizer(value: Any) -> Optimizer:
    """An optimizer from itself, a name, or a mapping with "name"; None is SGD's defaults."""
    if value is None:
        return SGD()
    if isinstance(value, Optimizer):
        return value
    fields = {"name": value} if isinstance(value, str) else value
    if not isinstance(fields, Mapping) or str(fields.get("name")).lower() not in _BY_NAME:
        raise ArgumentError(
            f"optimizer must be kd.SGD, kd.Adam, kd.AdamW or one of their names, got {value!r}"
        )
    fields = dict(fields)
    kind = _BY_NAME[str(fields.pop("name")).lower()]
    try:
        return kind(**fields)
    except TypeError as error:
        raise ArgumentError(f"optimizer: {error}") from None
