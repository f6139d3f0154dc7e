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
    _check_detector(model, "tucker")
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
    engine, report = model._engine.surgery("tucker", options)
    before = model.num_parameters
    copy = _copy(model, engine, "tucker")
    return copy, _as_table(report, before, copy)


def binarize(
    model: Detector,
    keep: str | Sequence[str] = ("first", "last"),
    scaling_factor_k: bool = False,
    order: str = "paper",
    preset: str = "paper",
) -> tuple[Detector, Table]:
    """A copy of a detector with convolutions of signs: XNOR-Net (Rastegari et al., ECCV 2016).

    Convolutions of the backbone (and of the neck, if "last" is not kept) become: batch
    normalisation, sign, convolution with alpha sign(W), where alpha is the mean |W| of a filter.
    Signs pass gradients where |x| <= 1; the real-valued weights learn. `predict` and `evaluate`
    count bits. Heads, convolutions in groups, deformable and factorised ones, and frozen stages
    stay as they are.

    Parameters
    ----------
    model : Detector, not changed
    keep : what else stays in full precision: "first" (the first convolution), "last" (the neck's
        convolutions; prediction layers stay always), names of layers, of parts that hold them, or
        one component of names, such as "downsample"
    scaling_factor_k : multiply by K, the window's mean of |input| (equation 11)
    order : "paper" puts a new batch normalisation in front of the signs (block order
        normalisation, signs, convolution, pooling); "plain" takes signs of the input as it is
    preset : "paper"; or "official": before each step of training weights are centred over their
        input channels and clamped to [-1, 1], their gradient is multiplied by
        (alpha 1{|W| < 1} + 1/n)(1 - 1/c), as in the authors' code without its factor n

    Returns
    -------
    (new model, report with a row per layer). The new model must be trained: the normalisations in
    front know no statistics yet.

    >>> small, report = kd.surgery.binarize(model, keep=("first", "last", "downsample"))
    >>> small.fit(train, optimizer=kd.Adam(lr=1e-3))
    """
    _check_detector(model, "binarize")
    for name, value, known in (
        ("order", order, ("paper", "plain")),
        ("preset", preset, ("paper", "official")),
    ):
        if value not in known:
            raise ArgumentError(f"binarize: {name} is {value!r}, expected one of {known}")
    words = [keep] if isinstance(keep, str) else list(keep)
    if not all(isinstance(word, str) and word for word in words):
        raise ArgumentError(f"binarize: keep is {keep!r}, expected names")
    settings = {"order": order, "scaling_factor_k": bool(scaling_factor_k), "rule": preset}
    engine, report = model._engine.surgery("binarize", {"keep": words, "settings": settings})
    copy = _copy(model, engine, "binarize")
    layers = report["layers"]
    share = sum(row["weights"] for row in layers) / max(1, copy.num_parameters)
    footer = f"{len(layers)} convolutions with {share:.0%} of the weights; "
    footer += f"{len(report['kept'])} of backbone and neck stay: "
    footer += ", ".join(f"{row['layer']} ({row['reason']})" for row in report["kept"])
    return copy, Table(layers, "convolutions of signs", footer)


def quantize_features(
    model: Detector, step: float = 1.0, form: str = "uniform", layer: str | None = None
) -> Detector:
    """A copy of a detector with its feature map quantised (Wei et al., ECCV 2018).

    Behind the last map that the heads share (every level of a neck) each value goes to the nearest
    of 0, step, 2 step, ...; ties go down, what is negative becomes 0, gradients pass where the map
    is positive. Weights stay: finetune the copy for a quantised teacher.

    Parameters
    ----------
    model : Detector, not changed
    step : distance of neighbouring values, 1 in the paper
    form : "uniform", or "power_of_two": 0, step, 2 step, 4 step, ... (the paper's Table 6)
    layer : one of the maps that heads read, such as "neck.p3"; None: all of them

    >>> teacher = kd.surgery.quantize_features(teacher)
    >>> teacher.fit(train, epochs=2, optimizer=kd.SGD(lr=1e-4))
    """
    _check_detector(model, "quantize_features")
    if isinstance(step, bool) or not isinstance(step, (int, float)) or not 0 < step < float("inf"):
        raise ArgumentError(f"quantize_features: step is {step!r}, expected a number above 0")
    if form not in ("uniform", "power_of_two"):
        raise ArgumentError(
            f"quantize_features: form is {form!r}, expected 'uniform' or 'power_of_two'"
        )
    options: dict[str, Any] = {"step": float(step), "form": form}
    if layer is not None:
        options["layer"] = str(layer)
    engine, _ = model._engine.surgery("quantize_features", options)
    return _copy(model, engine, "quantize_features")


def _check_detector(model: Any, name: str) -> None:
    if not isinstance(model, Detector):
        raise ArgumentError(f"{name}: model must be a detector, got {type(model).__name__}")


def _copy(model: Detector, engine: Any, surgery: str) -> Detector:
    """The detector around a changed engine, with the surgery in its lineage."""
    copy = type(model)._wrap(engine, model.class_names)
    sizes = {"parameters_before": model.num_parameters, "parameters": copy.num_parameters}
    copy.lineage = [*(dict(entry) for entry in model.lineage), {"surgery": surgery, **sizes}]
    return copy


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
