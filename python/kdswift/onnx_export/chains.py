"""AlexNet and the VGGs: convolutions with ReLU, pooling, local response normalization."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from .graph import Graph, Map
from .layers import convolution, max_pool


def chain(
    graph: Graph, x: Map, options: Mapping[str, Any], prefix: str
) -> list[tuple[str, int, Map]]:
    """(tap, stride, map) of every feature of a network without branches."""
    total, features = 1, []
    for kind, step in _plan(options):
        if kind == "convolution":
            name, feature = step.pop("name"), step.pop("feature", None)
            tap = f"backbone.{feature}" if feature else None
            x = convolution(graph, x, f"{prefix}features.{name}", relu=True, output=tap, **step)
            total *= step.get("stride", 1)
            if tap:
                features.append((tap, total, x))
        elif kind == "pool":
            x = max_pool(graph, x, round_up=bool(options["caffe_rounding"]), **step)
            total *= step["stride"]
        else:
            y = graph.node("LRN", x.name, **step)
            x = Map(y, x.channels, x.height, x.width)
    return features


def _plan(options: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    if options["name"] == "vgg16":
        return _vgg16()
    if options["name"] == "alexnet_owt":
        return _alexnet_owt()
    return _alexnet(1 if options["padded"] else 0) if options["name"] == "alexnet" else _vgg_m()


def _vgg16() -> Iterator[tuple[str, dict[str, Any]]]:
    """Torchvision's positions count the ReLUs and the pools."""
    index = 0
    for stage, count in enumerate((2, 2, 3, 3, 3)):
        if stage:
            yield "pool", {"kernel": 2, "stride": 2, "padding": 0}
            index += 1
        for position in range(count):
            feature = f"conv{stage + 1}" if position == count - 1 else None
            yield "convolution", {"name": str(index), "padding": 1, "feature": feature}
            index += 2


def _alexnet(pad: int) -> Iterator[tuple[str, dict[str, Any]]]:
    response = {"size": 5, "alpha": 1e-4, "beta": 0.75, "bias": 1.0}
    pool = {"kernel": 3, "stride": 2, "padding": pad}
    yield "convolution", _conv(1, padding=5 * pad, stride=4)
    yield "pool", dict(pool)
    yield "response", dict(response)
    yield "convolution", _conv(2, padding=2, groups=2)
    yield "pool", dict(pool)
    yield "response", dict(response)
    yield "convolution", _conv(3, padding=1)
    yield "convolution", _conv(4, padding=1, groups=2)
    yield "convolution", _conv(5, padding=1, groups=2)


def _alexnet_owt() -> Iterator[tuple[str, dict[str, Any]]]:
    """Torchvision's positions count the ReLUs and the pools."""
    names, paddings = ("0", "3", "6", "8", "10"), (2, 2, 1, 1, 1)
    for index, (name, padding) in enumerate(zip(names, paddings, strict=True), 1):
        options = {"stride": 4} if index == 1 else {}
        yield "convolution", {**_conv(index, padding=padding, **options), "name": name}
        if index < 3:
            yield "pool", {"kernel": 3, "stride": 2, "padding": 0}


def _vgg_m() -> Iterator[tuple[str, dict[str, Any]]]:
    response = {"size": 5, "alpha": 5e-4, "beta": 0.75, "bias": 2.0}
    pool = {"kernel": 3, "stride": 2, "padding": 0}
    for index, padding in ((1, 0), (2, 1)):
        yield "convolution", _conv(index, padding=padding, stride=2)
        yield "response", dict(response)
        yield "pool", dict(pool)
    for index in (3, 4, 5):
        yield "convolution", _conv(index, padding=1)


def _conv(index: int, **options: int) -> dict[str, Any]:
    return {"name": f"conv{index}", "feature": f"conv{index}", **options}
