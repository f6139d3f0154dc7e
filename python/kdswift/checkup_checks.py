"""The checks of `kd.doctor`: each takes a case and gives rows."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from . import losses
from .checkup import Row
from .checkup_case import Case, First
from .detector import Detector
from .errors import ArgumentError
from .methods import Chen2017, Method
from .teachers.group import TeacherGroup, first_view
from .tensors import tensor

# Of the detection losses' gradient: a term below a hundredth hardly acts, and beside one above
# three times it detection hardly does. A rule of thumb, as the aim is.
_LEAST, _MOST, _AIM = 0.01, 3.0, 0.3
_NUMBERS = ("loss", "lr", "grad_norm")


def score(case: Case) -> list[Row]:
    """Scores of the detectors on a sample."""
    name = "teacher's score"
    detectors = [t for t in case.teachers if isinstance(t, Detector)]
    if not detectors or not case.sample:
        return []
    sample = First(case.dataset, case.sample)
    own = _ap(case.student, sample, case.metric)
    rows = []
    for i, teacher in enumerate(detectors):
        which = name if len(detectors) == 1 else f"{name} ({i})"
        try:
            found = _ap(teacher.clone().eval(), sample, case.metric)
        except ArgumentError as error:
            rows.append(Row(which, "warning", "not scored", f"the data has other classes: {error}"))
            continue
        figure = f"AP {100 * found:.1f}, the student's is {100 * own:.1f}, on {len(sample)} images"
        if not found > 0:
            rows.append(Row(which, "failed", figure, "train the teacher, or give its weights"))
        elif found <= own:
            rows.append(Row(which, "warning", figure, "the student is as good already"))
        else:
            rows.append(Row(which, "ok", figure))
    return rows


def _ap(model: Detector, sample: Any, metric: str) -> float:
    from .evaluation import evaluate

    value = evaluate(model, sample, metric, progress=False, workers=0).AP
    return 0.0 if math.isnan(value) else float(value)


def taps(case: Case) -> list[Row]:
    """Whether all terms find their taps, and what is compared."""
    group = TeacherGroup(case.teachers, case.method)
    rows = [Row("pseudo-labels", "ok", line) for line in group.lines(case.loader)]
    group.check_parts(case.loader)
    found = group.comparisons(case.student, case.loader, case.seed, 1)
    for row in found.report() if found else ():
        text = f"{row['student']} and {row['teacher']}, connector: {row['connector']}"
        rows.append(Row(f"tap of {row['term']}", "ok", text))
    return rows


def first_step(case: Case) -> list[Row]:
    """Take the step that the other checks look at."""
    case.outcome = case.step(case.method, tape=True)
    return []


def at_rest(case: Case) -> list[Row]:
    """Whether teachers stay as they are, and give the same for the same."""
    rows = []
    before, after = case.outcome.teachers
    for i, (old, new) in enumerate(zip(before, after)):
        moved = [name for name in old if old[name].tobytes() != new[name].tobytes()]
        status = "failed" if moved else "ok"
        figure = f"{moved[0]} changed" if moved else f"{len(old)} tensors equal after a step"
        rows.append(Row(f"teacher {i} at rest", status, figure))
    for i, teacher in enumerate(case.teachers):
        if isinstance(teacher, Detector) or hasattr(teacher, "detections"):
            continue
        view = [first_view(case.loader)]
        first, second = (teacher.outputs(view) for _ in range(2))
        unlike = [n for n in first if first[n].tobytes() != second[n].tobytes()]
        if unlike:
            figure = f"{', '.join(unlike)} differ for the same image"
            advice = "is dropout or batch statistics on? put the model into eval mode"
            rows.append(Row(f"teacher {i} at rest", "warning", figure, advice))
        else:
            rows.append(Row(f"teacher {i} at rest", "ok", f"{len(first)} taps equal twice"))
    return rows


def terms(case: Case) -> list[Row]:
    """Whether the terms of the first step are finite and not zero."""
    plain = set(case.step(None).metrics)
    rows = []
    for name, value in case.outcome.metrics.items():
        if name in plain or name in _NUMBERS:
            continue
        figure = f"{value:.4g}"
        if not math.isfinite(value):
            rows.append(Row(f"term {name}", "failed", figure, "lower its weight or the values"))
        elif value == 0 and name.endswith("_regression"):
            advice = "normal where the student is at least as close to the boxes as the teacher"
            rows.append(Row(f"term {name}", "warning", figure, advice))
        elif value == 0:
            rows.append(Row(f"term {name}", "failed", figure, "it compares nothing"))
        else:
            rows.append(Row(f"term {name}", "ok", figure))
    for note in case.outcome.notes:
        label, _, text = note.partition(": ")
        rows.append(Row(f"note on {label}", "warning", text))
    if not rows and (case.parts or case.own_parts):
        rows.append(Row("terms", "failed", "none was computed", "is every weight 0?"))
    return rows


def connectors(case: Case) -> list[Row]:
    """Whether every connector is trained."""
    before, after = case.outcome.extras
    if not before:
        return []
    moved = [name for name in before if not np.array_equal(before[name], after[name])]
    figure = f"{len(moved)} of {len(before)} tensors moved in one step"
    # A layer behind one of zeros has no gradient in the first step: a part counts as a whole.
    parts: dict[str, list[str]] = {}
    for name in before:
        parts.setdefault(_part(name, case), []).append(name)
    still = [name for names in parts.values() if not set(names) & set(moved) for name in names]
    if still:
        return [
            Row(
                "connectors",
                "failed",
                f"{figure}; not {', '.join(still[:4])}",
                "is the learning rate, or the term's weight, 0?",
            )
        ]
    return [Row("connectors", "ok", figure)]


def _part(name: str, case: Case) -> str:
    """What a learned tensor belongs to: the label of its term, or the tensor alone."""
    labels = [one for one in case.outcome.knobs if name.startswith(f"extra.{one}.")]
    return labels[0] if labels else name


def gradients(case: Case) -> list[Row]:
    """The share of each term, and a weight where it is out of proportion."""
    norms: dict[str, float] = {}
    knobs: dict[str, tuple[str, float]] = {}
    for label, gradient in case.outcome.term_gradients.items():
        norms[label] = _norm(gradient)
    knobs |= case.outcome.knobs
    for label, method, knob in _variants(case):
        plain = case.plain_gradient
        norms[label] = _norm({n: g - plain[n] for n, g in case.steep(method).items()})
        knobs[label] = knob
    if not norms:
        return []
    detection = _norm(case.plain_gradient)
    total = detection + sum(norms.values())
    case.shares = {"detection": detection / total} | {n: v / total for n, v in norms.items()}
    rows = [Row("gradient of detection", "ok", f"{detection:.3g}, {detection / total:.0%} of all")]
    for label, norm in norms.items():
        rows.append(_gradient_row(label, norm, detection, total, knobs[label]))
    return rows


def _gradient_row(
    label: str, norm: float, detection: float, total: float, knob: tuple[str, float]
) -> Row:
    name, figure = f"gradient of {label}", f"{norm:.3g}, {norm / total:.0%} of all"
    if norm == 0:
        return Row(name, "warning", figure, "it moves nothing in this step")
    ratio = norm / detection if detection else math.inf
    if _LEAST <= ratio <= _MOST or not math.isfinite(ratio):
        return Row(name, "ok", figure)
    word, value = knob
    wanted = value * _AIM / ratio
    if word == "1 - mu":
        wanted = min(1.0, wanted)
    what = "hardly acts" if ratio < _LEAST else "outweighs detection"
    return Row(name, "warning", figure, f"it {what}; try {word} = {wanted:.2g} (is {value:g})")


def _variants(case: Case) -> Iterable[tuple[str, Method, tuple[str, float]]]:
    """Each term of the engine's parts alone: its name in the metrics, a method, what weighs it."""
    off = {"classification": None, "regression": None, "hint": False}
    for number, (scale, part) in enumerate(case.parts):
        end = "" if number == 0 else f"_{number + 1}"
        if not isinstance(part, Chen2017):
            yield f"{type(part).__name__}{end}", _scaled(scale, part), ("scale", scale)
            continue
        for head in ("rpn", "rcn"):
            if not getattr(part, head):
                continue
            alone = {"rpn": head == "rpn", "rcn": head == "rcn"}
            for kind, knob in (("classification", "1 - mu"), ("regression", "nu")):
                value = 1 - part.mu if kind == "classification" else part.nu
                if getattr(part, kind) is None or value == 0:
                    continue
                one = replace(part, **{**off, kind: getattr(part, kind)}, **alone)
                yield f"distill_{head}_{kind}{end}", _scaled(scale, one), (knob, value)
        if part.hint and part.gamma > 0:
            one = replace(part, **{**off, "hint": True})
            yield f"distill_hint{end}", _scaled(scale, one), ("gamma", part.gamma)


def _scaled(scale: float, part: Any) -> Method:
    return part if scale == 1 else scale * part


def _norm(gradient: Mapping[str, np.ndarray]) -> float:
    return math.sqrt(sum(float(np.square(g, dtype=np.float64).sum()) for g in gradient.values()))


def no_weight(case: Case) -> list[Row]:
    """Whether weight 0 is plain training."""
    if not (case.parts or case.own_parts):
        return []
    plain, without = (case.step(m).weights[1] for m in (None, 0 * case.method))
    unlike = [name for name in plain if plain[name].tobytes() != without[name].tobytes()]
    if unlike:
        return [Row("no weight", "failed", f"{len(unlike)} tensors differ, {unlike[0]} for one")]
    return [Row("no weight", "ok", f"{len(plain)} tensors equal plain training bit for bit")]


def same_features(case: Case) -> list[Row]:
    """Whether a term between equal arrays is 0."""
    rng = np.random.default_rng(case.seed)
    maps = rng.normal(size=(2, 4, 6, 6)).astype(np.float32)
    rows = []
    for label, value in case.outcome.equal.items():
        if value is not None:
            rows.append(_zero_row(label, value))
    for _, part in case.parts:
        if isinstance(part, Chen2017) and part.hint:
            value = losses.hint(tensor(maps), tensor(maps)).item()
            rows.append(_zero_row("distill_hint", value))
        if isinstance(part, Chen2017) and part.regression:
            boxes = rng.normal(size=(6, 4)).astype(np.float32)
            value = losses.teacher_bounded_regression(boxes, boxes, boxes, part.margin).item()
            status = "ok" if value == 0 or part.margin else "failed"
            rows.append(Row("same features in regression", status, f"{value:.3g}"))
    return rows


def _zero_row(label: str, value: float | str) -> Row:
    name = f"same features in {label}"
    if isinstance(value, str):
        return Row(name, "warning", value, "the loss takes no maps alone")
    if value == 0:
        return Row(name, "ok", "0")
    advice = "equal outputs should cost nothing, unless the loss compares images with each other"
    return Row(name, "warning", f"{value:.3g}", advice)


CHECKS = (
    ("taps", taps),
    ("step", first_step),
    ("teacher's score", score),
    ("teacher at rest", at_rest),
    ("terms", terms),
    ("connectors", connectors),
    ("gradients", gradients),
    ("no weight", no_weight),
    ("same features", same_features),
)
