"""What the detectors' constructors share: checked arguments, as the engine's configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from . import runtime
from ._numbers import check_count
from .backbones import Backbone, as_backbone
from .detector import _check_names
from .errors import ArgumentError

_EXTRA_LEVELS = ("none", "pool", "p6p7", "p6p7_c5")


@dataclass(frozen=True)
class Anchors:
    """Anchor boxes at every place of the feature maps.

    sizes : square roots of the areas, in pixels of the scaled image; with a feature pyramid those
        of every level, fine to coarse: ``((32,), (64,), …)``, or flat if each level has one
    ratios : height divided by width
    """

    sizes: Sequence[Any] = (128, 256, 512)
    ratios: Sequence[float] = (0.5, 1.0, 2.0)

    def __post_init__(self) -> None:
        for name in ("sizes", "ratios"):
            values = getattr(self, name)
            values = (values,) if isinstance(values, (int, float)) else tuple(values)
            if name == "sizes":
                values = _flat(values)
            if not values or not all(isinstance(v, (int, float)) and v > 0 for v in values):
                raise ArgumentError(f"Anchors: {name} is {values!r}, expected numbers above 0")
            object.__setattr__(self, name, tuple(float(v) for v in values))


@dataclass(frozen=True)
class FPN:
    """A feature pyramid (Lin et al. 2017) between backbone and heads.

    channels : of every level
    extra : coarser levels above the backbone's last: "pool" (one, two-stage detectors), "p6p7" (two
        convolutions on the last level, RetinaNet), "p6p7_c5" (on the backbone's last map), "none";
        None takes what the detector is published with
    norm : behind its convolutions: None, "batch", "frozen_batch" or "group"
    start : the finest feature of the backbone that becomes a level, such as "layer2"; None takes
        what the detector is published with
    """

    channels: int = 256
    extra: str | None = None
    norm: str | None = None
    start: str | None = None

    def __post_init__(self) -> None:
        check_count(self.channels, "channels", "FPN", least=1)
        if self.extra is not None and self.extra not in _EXTRA_LEVELS:
            raise ArgumentError(
                f"FPN: extra is {self.extra!r}, expected one of {', '.join(_EXTRA_LEVELS)}"
            )

    def to_dict(self) -> dict[str, Any]:
        """The engine's configuration; what is None stays out."""
        names = {"extra": "extra", "norm": "norm", "start": "from"}
        values = asdict(self)
        given = {key: values[name] for name, key in names.items() if values[name] is not None}
        return {"kind": "fpn", "channels": int(self.channels), **given}


@dataclass(frozen=True)
class Deconv:
    """A transposed convolution that doubles the backbone's last map, and a 3x3 one (Li et al.
    2017): a student that sees images of half the size has maps of its teacher's size.

    channels : of the map, which is called ``neck.up``
    """

    channels: int = 256

    def __post_init__(self) -> None:
        check_count(self.channels, "channels", "Deconv", least=1)

    def to_dict(self) -> dict[str, Any]:
        """The engine's configuration."""
        return {"kind": "deconv", "channels": int(self.channels)}


def configuration_of(
    where: str,
    kind: str,
    backbone: Backbone | str,
    num_classes: int,
    neck: FPN | str | None,
    anchors: Anchors | None,
    image_size: tuple[int, int] | None,
    class_names: Sequence[str] | None,
    image_mean: Sequence[float] | None,
    image_std: Sequence[float] | None,
    **sections: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Checked arguments of a detector as the engine's configuration.

    where : the detector's name, for messages;  kind : the engine's name for it
    sections : mappings of options under the engine's names, such as ``rpn=…``; None leaves out
    """
    num_classes = check_count(num_classes, "num_classes", where, least=2)
    names = _check_names(class_names, num_classes)
    configuration: dict[str, Any] = {
        "detector": kind,
        "num_classes": num_classes,
        "class_names": list(names or ()),
        "backbone": as_backbone(backbone, f"{where}: backbone").to_dict(),
        "neck": neck_configuration(neck, where),
    }
    if image_size is not None:
        short, longest = _image_size(image_size, where)
        configuration |= {"image_min": short, "image_max": longest}
    if anchors is not None:
        if not isinstance(anchors, Anchors):
            raise ArgumentError(f"{where}: anchors must be kd.Anchors, got {anchors!r}")
        configuration["anchor_sizes"] = list(anchors.sizes)
        configuration["anchor_ratios"] = list(anchors.ratios)
    for name, values in (("image_mean", image_mean), ("image_std", image_std)):
        if values is not None:
            configuration[name] = _three(values, name, where)
    for name, options in sections.items():
        if options is not None:
            configuration[name] = _options(options, name, where)
    return configuration


def first_seed(seed: int | None, where: str) -> int:
    """The seed of the first weights; None counts on from `kd.seed`."""
    return runtime.next_seed() if seed is None else check_count(seed, "seed", where, 0)


def _flat(values: Sequence[Any]) -> tuple[Any, ...]:
    lists = [value for value in values if isinstance(value, (tuple, list))]
    if not lists:
        return tuple(values)
    if len(lists) != len(values) or len({len(value) for value in lists}) != 1:
        raise ArgumentError(
            f"Anchors: sizes is {tuple(values)!r}, expected numbers, or as many for every level"
        )
    return tuple(size for value in lists for size in value)


def neck_configuration(value: Any, where: str) -> dict[str, Any]:
    """The engine's configuration of a neck: None, "none", "fpn" or `FPN`."""
    if value is None or value == "none":
        return {"kind": "none"}
    if value in ("fpn", "deconv"):
        return {"kind": value}
    if isinstance(value, (FPN, Deconv)):
        return value.to_dict()
    raise ArgumentError(
        f"{where}: neck is {value!r}, expected None, 'fpn', 'deconv', kd.FPN(…) or kd.Deconv(…)"
    )


def _image_size(value: Any, where: str) -> tuple[int, int]:
    pair = (value, value) if isinstance(value, int) else tuple(value)
    if len(pair) != 2 or not all(isinstance(v, int) and v > 0 for v in pair) or pair[0] > pair[1]:
        raise ArgumentError(
            f"{where}: image_size is {value!r}, expected (short side, most of the long side) "
            "in whole pixels"
        )
    return pair


def _three(values: Sequence[float], name: str, where: str) -> list[float]:
    numbers = [float(v) for v in values]
    if len(numbers) != 3 or (name == "image_std" and min(numbers) <= 0):
        raise ArgumentError(
            f"{where}: {name} is {values!r}, expected three numbers"
            + (" above 0" if name == "image_std" else "")
        )
    return numbers


def _options(options: Any, name: str, where: str) -> dict[str, Any]:
    if not isinstance(options, Mapping):
        raise ArgumentError(f"{where}: {name} must be a mapping, got {type(options).__name__}")
    return {
        key: list(value) if isinstance(value, (tuple, list)) else value
        for key, value in options.items()
    }
