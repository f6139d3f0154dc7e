"""Surgery: smaller students cut from larger detectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ._inputs import image_size_pair
from .detector import Detector
from .errors import ArgumentError
from .summary import Table


def tucker(
    model: Detector,
    ranks: str | Mapping[str, Any] | None = "vbmf",
    flops: float | None = None,
    layers: Sequence[str] | None = None,
    image_size: Any = None,
) -> tuple[Detector, Table]:
    """A copy of a detector with its convolutions Tucker-factorised (Kim et al., ICLR 2016).

    Parameters
    ----------
    model : Detector, not changed
    ranks : "vbmf" (variational Bayesian matrix factorisation decides), or a mapping from a layer's
        name to (input rank, output rank)
    flops : scale the VBMF ranks until the backbone's FLOPs are this part of what they were, such as
        0.375; goes with ranks="vbmf" or None
    layers : names of the layers to factorise; None: all that are worth it
    image_size : (height, width) for which FLOPs are counted; None: a square of the short side

    Returns
    -------
    (new model, report with a row per layer). Train the new model on; it starts near the old one.
    """
    if not isinstance(model, Detector):
        raise ArgumentError(f"tucker: model must be a detector, got {type(model).__name__}")
    options: dict[str, Any] = {}
    if isinstance(ranks, Mapping):
        if flops is not None:
            raise ArgumentError("tucker: give ranks by layer or flops, not both")
        options["ranks"] = {name: _pair(name, pair) for name, pair in ranks.items()}
    elif ranks not in ("vbmf", None):
        raise ArgumentError(f"tucker: ranks is {ranks!r}, expected 'vbmf' or a mapping")
    if flops is not None:
        if isinstance(flops, bool) or not 0 < flops < 1:
            raise ArgumentError(f"tucker: flops is {flops!r}, expected a part between 0 and 1")
        options["flops"] = float(flops)
    if layers is not None:
        options["layers"] = [layers] if isinstance(layers, str) else list(layers)
    size = model.image_size[0] if image_size is None else image_size
    options["height"], options["width"] = image_size_pair(size, "tucker")
    engine, report = model._engine.tucker(options)
    copy = type(model)._wrap(engine, model.class_names)
    before = model.num_parameters
    copy.lineage = [
        *(dict(entry) for entry in model.lineage),
        {"surgery": "tucker", "parameters_before": before, "parameters": copy.num_parameters},
    ]
    return copy, _as_table(report, before, copy)


def _pair(name: str, pair: Any) -> list[int]:
    values = list(pair) if isinstance(pair, (list, tuple)) else [pair]
    if not values or len(values) > 2 or not all(isinstance(v, int) and v > 0 for v in values):
        raise ArgumentError(f"tucker: ranks[{name!r}] is {pair!r}, expected whole numbers above 0")
    return values


def _as_table(report: Any, before: int, copy: Detector) -> Table:
    rows = report.get("layers", []) if isinstance(report, Mapping) else report
    footer = f"{before:,} parameters before, {copy.num_parameters:,} after"
    if isinstance(report, Mapping):
        rest = {k: v for k, v in report.items() if not isinstance(v, (list, dict))}
        footer += "".join(f"; {name} {value:.4g}" for name, value in rest.items() if _real(value))
    return Table(rows, "Tucker", footer)


def _real(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
