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
from .coco import coco_metrics
from .results import check_pairs
from .voc import Curve, class_curve, voc_average_precisions

METRICS = ("coco", "voc07", "voc10")


@dataclass
class Metrics:
    """The score of a detector. All numbers are in [0, 1]; NaN where there was nothing to find.

    Attributes
    ----------
    metric : "coco", "voc07" or "voc10"
    AP : the metric's own number: COCO AP (mean over IoU 0.50:0.95), or VOC mAP at IoU 0.5
    AP50, AP75 : mean over classes at one IoU threshold, by the metric's rule
    per_class : AP by class name;  per_class_AP50 : AP50 by class name
    stats : every number of the metric (COCO: the 12 of pycocotools' summary, by name)
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
        lines = [self._headline(), f"{'class':<{width}}  {'AP':>6}  {'AP50':>6}"]
        for name, ap, ap50 in self._rows():
            lines.append(f"{name:<{width}}  {_percent(ap):>6}  {_percent(ap50):>6}")
        if self.metric == "coco":
            lines += ["", *self._coco_lines()]
        return "\n".join(lines)

    def _headline(self) -> str:
        return (
            f"{self.metric}, percent: {self.num_images} images, {self.num_objects} objects, "
            f"{self.num_detections} detections"
        )

    def _rows(self) -> list[tuple[str, float, float]]:
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
            f"<tr><td>{html.escape(name)}</td><td>{_percent(ap)}</td><td>{_percent(ap50)}</td></tr>"
            for name, ap, ap50 in self._rows()
        )
        extra = "".join(f"<p>{html.escape(line)}</p>" for line in self._coco_lines() if self.stats)
        head = "<tr><th>class</th><th>AP</th><th>AP50</th></tr>"
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
) -> Metrics:
    """Run ``model.predict`` over a data set and score what it finds.

    Parameters
    ----------
    model : anything with ``predict(images, score_threshold=, max_detections=)``
        Must return one Detections (or dict of boxes, scores, labels) per image.
    dataset : sequence of (image, target), e.g. from ``kd.data``
        ``class_names`` are used if it has them. A set with ``evaluation_target(i)``
        (``kd.data.VOC``) is asked for that: it includes the difficult objects.
    metric : "coco", "voc07" (11-point) or "voc10" (area)
    score_threshold : float
        Low, because AP needs the low-scored detections as well.
    progress : bool
        Show a bar.

    Raises ``ArgumentError`` for an unknown metric, or detections that make no sense.
    """
    _check_metric(metric)
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
        for result in results:
            if isinstance(result, Detections):
                result.image = None  # of no use here, and a data set of pictures is large
        detections += results
        targets += [truth_of(i) for i in batch.indices] if truth_of else batch.targets
    names = getattr(dataset, "class_names", None)
    if names is None and getattr(dataset, "num_classes", None):
        names = ["background", *map(str, range(1, dataset.num_classes))]
    return evaluate_detections(detections, targets, names, metric)


def evaluate_detections(
    detections: Sequence[Any],
    targets: Sequence[Mapping[str, Any]],
    class_names: Sequence[str] | None = None,
    metric: str = "coco",
    corners: str = "edges",
) -> Metrics:
    """Score detections that are already there.

    Parameters
    ----------
    detections : one kd.Detections (or dict of boxes, scores, labels) per image
    targets : one dict per image; ``boxes``, ``labels``, optional ``iscrowd``, ``difficult``,
        ``area``
    class_names : names by label, index 0 the background; None: the labels themselves
    metric : "coco", "voc07" or "voc10"
    corners : "edges" or "pixels"
        VOC only: where x2, y2 lie, see ``kdswift.evaluation.voc``.
    """
    _check_metric(metric)
    if class_names is None:
        class_names = ["background", *map(str, range(1, _largest_label(detections, targets) + 1))]
    found, truth = check_pairs(detections, targets, len(class_names))
    if metric == "coco":
        result = coco_metrics(found, truth, len(class_names))
        stats, per_class, per_class_50 = result
    else:
        per_class = voc_average_precisions(found, truth, len(class_names), metric, 0.5, corners)
        strict = voc_average_precisions(found, truth, len(class_names), metric, 0.75, corners)
        per_class_50 = per_class
        stats = {"AP50": _mean(per_class), "AP75": _mean(strict)}
    names = [class_name(class_names, i) for i in range(1, len(class_names))]
    return Metrics(
        metric=metric,
        AP=stats["AP"] if metric == "coco" else stats["AP50"],
        AP50=stats["AP50"],
        AP75=stats["AP75"],
        per_class=dict(zip(names, map(float, per_class), strict=True)),
        per_class_AP50=dict(zip(names, map(float, per_class_50), strict=True)),
        stats=stats,
        num_images=len(truth),
        num_objects=sum(int((~(t.crowd | t.difficult)).sum()) for t in truth),
        num_detections=sum(len(f.scores) for f in found),
    )


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


def _check_metric(metric: str) -> None:
    if metric not in METRICS:
        raise ArgumentError(f"metric must be one of {', '.join(METRICS)}, got {metric!r}")


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
