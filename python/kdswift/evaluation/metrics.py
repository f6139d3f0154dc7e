"""`evaluate`: run a detector over a data set and score it."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..detections import Detections, class_name
from ..errors import ArgumentError
from .coco import coco_metrics, run_lengths
from .kitti import DIFFICULTIES, kitti_average_precisions
from .results import Found, Truth, check_pairs
from .voc import Curve, class_curve, voc_average_precisions

IOU_TYPES = ("bbox", "segm")
METRICS = ("coco", "voc07", "voc10", "kitti_r11", "kitti_r40")


@dataclass
class Metrics:
    """The score of a detector. All numbers are in [0, 1]; NaN where there was nothing to find.

    Attributes
    ----------
    metric : one of ``METRICS``
    AP : the metric's own number: COCO AP (mean over IoU 0.50:0.95), VOC mAP at IoU 0.5, or the
        mean of KITTI's moderate AP at IoU 0.7 for cars and 0.5 for all else
    AP50, AP75 : mean over classes at one IoU threshold, by the metric's rule
    per_class : AP by class name;  per_class_AP50 : AP50 by class name
    stats : every number of the metric (COCO: the 12 of pycocotools' summary, by name; KITTI:
        means ``AP_easy``, ``AP_moderate``, ``AP_hard``, and ``Car_easy`` … by class)
    num_images, num_objects, num_detections : what was compared; ignored objects not counted
    """

    metric: str
    AP: float
    AP50: float
    AP75: float
    per_class: dict[str, float]
    per_class_AP50: dict[str, float]
    stats: dict[str, float] = field(default_factory=dict)
    num_images: int = 0
    num_objects: int = 0
    num_detections: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Plain dict for JSON; NaN becomes None."""
        return {
            "metric": self.metric,
            **{name: _none_for_nan(getattr(self, name)) for name in ("AP", "AP50", "AP75")},
            **{
                name: {k: _none_for_nan(v) for k, v in getattr(self, name).items()}
                for name in ("per_class", "per_class_AP50", "stats")
            },
            **{n: getattr(self, n) for n in ("num_images", "num_objects", "num_detections")},
        }

    def table(self) -> str:
        """A table for people, in percent: one row per class, then the mean."""
        width = max([len("mean"), *map(len, self.per_class)])
        columns, size = self._columns(), max(6, *map(len, self._columns()))
        lines = [
            self._headline(),
            "  ".join([f"{'class':<{width}}", *(f"{c:>{size}}" for c in columns)]),
        ]
        for name, *values in self._rows():
            cells = (f"{_percent(v):>{size}}" for v in values)
            lines.append("  ".join([f"{name:<{width}}", *cells]))
        if self.metric == "coco":
            lines += ["", *self._coco_lines()]
        return "\n".join(lines)

    def _headline(self) -> str:
        return (
            f"{self.metric}, percent: {self.num_images} images, {self.num_objects} objects, "
            f"{self.num_detections} detections"
        )

    def _columns(self) -> tuple[str, ...]:
        return DIFFICULTIES if self.metric.startswith("kitti") else ("AP", "AP50")

    def _rows(self) -> list[tuple]:
        """The name and the values of each line of the table, the mean last."""
        if self.metric.startswith("kitti"):
            names = [*self.per_class, "AP"]
            rows = [(n, *(self.stats[f"{n}_{d}"] for d in DIFFICULTIES)) for n in names]
            return [*rows[:-1], ("mean", *rows[-1][1:])]
        rows = [(n, ap, self.per_class_AP50[n]) for n, ap in self.per_class.items()]
        return [*rows, ("mean", self.AP, self.AP50)]

    def _coco_lines(self) -> list[str]:
        names = list(self.stats)
        return [
            "  ".join(f"{n} {_percent(self.stats[n])}" for n in names[:6]),
            "  ".join(f"{n} {_percent(self.stats[n])}" for n in names[6:]),
        ]

    def __repr__(self) -> str:
        return (
            f"Metrics({self.metric}: AP {_percent(self.AP)}, AP50 {_percent(self.AP50)}, "
            f"AP75 {_percent(self.AP75)} percent; {self.num_images} images)"
        )

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{html.escape(name)}</td>"
            + "".join(f"<td>{_percent(v)}</td>" for v in values)
            + "</tr>"
            for name, *values in self._rows()
        )
        lines = self._coco_lines() if self.metric == "coco" and self.stats else []
        extra = "".join(f"<p>{html.escape(line)}</p>" for line in lines)
        head = "".join(f"<th>{name}</th>" for name in ("class", *self._columns()))
        head = f"<tr>{head}</tr>"
        return f"<p>{html.escape(self._headline())}</p><table>{head}{rows}</table>{extra}"


def evaluate(
    model: Any,
    dataset: Sequence[tuple[Any, dict]],
    metric: str = "coco",
    batch_size: int = 16,
    score_threshold: float = 0.01,
    max_detections: int = 100,
    progress: bool = True,
    workers: int = 2,
    iou_type: str = "bbox",
) -> Metrics:
    """Run ``model.predict`` over a data set and score what it finds.

    Parameters
    ----------
    model : anything with ``predict(images, score_threshold=, max_detections=)``
        Must return one Detections (or dict of boxes, scores, labels) per image.
    dataset : sequence of (image, target), e.g. from ``kd.data``
        ``class_names`` are used if it has them. A set with ``evaluation_target(i)``
        (``kd.data.VOC``, ``KITTI``) is asked for that: it includes the ignored objects.
    metric : "coco", "voc07" (11-point), "voc10" (area), "kitti_r11" or "kitti_r40"
    score_threshold : float
        Low, because AP needs the low-scored detections as well.
    progress : bool
        Show a bar.
    iou_type : "bbox" or "segm"
        With metric "coco": compare boxes, or masks, which detections and targets then must have.

    Raises ``ArgumentError`` for an unknown metric, or detections that make no sense.
    """
    _check_metric(metric, iou_type)
    from ..data.loader import Loader

    loader = Loader(dataset, batch_size, workers=workers)
    truth_of = getattr(dataset, "evaluation_target", None)
    detections, targets = [], []
    for batch in _bar(loader, progress):
        results = model.predict(
            batch.images, score_threshold=score_threshold, max_detections=max_detections
        )
        if len(results) != len(batch):
            raise ArgumentError(
                f"evaluate: model.predict gave {len(results)} results for {len(batch)} images"
            )
        truth = [truth_of(i) for i in batch.indices] if truth_of else batch.targets
        detections += [_without_pictures(result, iou_type) for result in results]
        targets += [_without_pictures(target, iou_type) for target in truth]
    names = getattr(dataset, "class_names", None)
    if names is None and getattr(dataset, "num_classes", None):
        names = ["background", *map(str, range(1, dataset.num_classes))]
    return evaluate_detections(detections, targets, names, metric, iou_type=iou_type)


def _without_pictures(value: Any, iou_type: str) -> Any:
    """Detections or a target without pictures, which add up; masks as run lengths."""
    if not isinstance(value, (Detections, Mapping)):
        return value
    names = value.to_dict() if isinstance(value, Detections) else dict(value)
    masks = names.pop("masks", None)
    if iou_type == "segm" and masks is not None:
        names["masks"] = run_lengths(masks)
    return names


def evaluate_detections(
    detections: Sequence[Any],
    targets: Sequence[Mapping[str, Any]],
    class_names: Sequence[str] | None = None,
    metric: str = "coco",
    corners: str = "edges",
    iou_type: str = "bbox",
) -> Metrics:
    """Score detections that are already there.

    Parameters
    ----------
    detections : one kd.Detections (or dict of boxes, scores, labels) per image
    targets : one dict per image; ``boxes``, ``labels``, optional ``iscrowd``, ``difficult``,
        ``area``, and for KITTI ``occluded``, ``truncated``, ``height``
    class_names : names by label, index 0 the background; None: the labels themselves
    metric : one of ``METRICS``
    corners : "edges" or "pixels"
        VOC only: where x2, y2 lie, see ``kdswift.evaluation.voc``.
    iou_type : "bbox" or "segm"
        COCO only: compare boxes or ``masks``.
    """
    _check_metric(metric, iou_type)
    if class_names is None:
        class_names = ["background", *map(str, range(1, _largest_label(detections, targets) + 1))]
    found, truth = check_pairs(detections, targets, len(class_names))
    names = [class_name(class_names, i) for i in range(1, len(class_names))]
    if metric == "coco":
        stats, per_class, per_class_50 = coco_metrics(found, truth, len(class_names), iou_type)
        score = stats["AP"]
    elif metric.startswith("kitti"):
        stats, per_class, per_class_50 = _kitti(found, truth, ["background", *names], metric)
        score = stats["AP_moderate"]
    else:
        per_class = voc_average_precisions(found, truth, len(class_names), metric, 0.5, corners)
        strict = voc_average_precisions(found, truth, len(class_names), metric, 0.75, corners)
        per_class_50 = per_class
        stats = {"AP50": _mean(per_class), "AP75": _mean(strict)}
        score = stats["AP50"]
    return Metrics(
        metric=metric,
        AP=score,
        AP50=stats["AP50"],
        AP75=stats["AP75"],
        per_class=dict(zip(names, map(float, per_class), strict=True)),
        per_class_AP50=dict(zip(names, map(float, per_class_50), strict=True)),
        stats=stats,
        num_images=len(truth),
        num_objects=sum(int((~(t.crowd | t.difficult)).sum()) for t in truth),
        num_detections=sum(len(f.scores) for f in found),
    )


def _kitti(
    found: Sequence[Found], truth: Sequence[Truth], names: Sequence[str], metric: str
) -> tuple[dict[str, float], np.ndarray, np.ndarray]:
    """(stats, moderate AP per class, the same at IoU 0.5)"""
    own, half, strict = (
        kitti_average_precisions(found, truth, names, metric, overlap)
        for overlap in (None, 0.5, 0.75)
    )
    moderate = DIFFICULTIES.index("moderate")
    stats = {f"AP_{d}": _mean(own[:, i]) for i, d in enumerate(DIFFICULTIES)}
    stats |= {"AP50": _mean(half[:, moderate]), "AP75": _mean(strict[:, moderate])}
    for name, values in zip(names[1:], own, strict=True):
        stats |= {f"{name}_{d}": float(v) for d, v in zip(DIFFICULTIES, values, strict=True)}
    return stats, own[:, moderate], half[:, moderate]


def precision_recall(
    detections: Sequence[Any],
    targets: Sequence[Mapping[str, Any]],
    class_names: Sequence[str] | None = None,
    iou_threshold: float = 0.5,
    corners: str = "edges",
) -> dict[str, Curve]:
    """Precision over recall of every class that occurs, by the VOC rule of matching."""
    if class_names is None:
        class_names = ["background", *map(str, range(1, _largest_label(detections, targets) + 1))]
    found, truth = check_pairs(detections, targets, len(class_names))
    curves = {}
    for label in range(1, len(class_names)):
        curve = class_curve(found, truth, label, iou_threshold, corners)
        if curve.num_objects:
            curves[class_name(class_names, label)] = curve
    return curves


def _check_metric(metric: str, iou_type: str = "bbox") -> None:
    if metric not in METRICS:
        raise ArgumentError(f"metric must be one of {', '.join(METRICS)}, got {metric!r}")
    if iou_type not in IOU_TYPES or (iou_type == "segm" and metric != "coco"):
        raise ArgumentError(
            f'iou_type must be "bbox" or, with metric "coco", "segm"; got {iou_type!r} '
            f"with metric {metric!r}"
        )


def _largest_label(detections: Sequence[Any], targets: Sequence[Mapping[str, Any]]) -> int:
    largest = 0
    for value in [*detections, *targets]:
        labels = value.get("labels", ()) if isinstance(value, Mapping) else value.labels
        largest = max(largest, int(np.max(labels)) if len(labels) else 0)
    return largest


def _mean(values: np.ndarray) -> float:
    """Mean of those that are numbers; NaN if none is."""
    values = values[~np.isnan(values)]
    return float(values.mean()) if len(values) else float("nan")


def _percent(value: float) -> str:
    return "–" if math.isnan(value) else f"{100 * value:.1f}"


def _none_for_nan(value: float) -> float | None:
    return None if math.isnan(value) else value


def _bar(loader: Any, progress: bool) -> Any:
    if not progress:
        return loader
    try:
        from tqdm.auto import tqdm
    except ImportError:
        return loader
    return tqdm(loader, total=len(loader), desc="evaluate", unit="batch", leave=False)
