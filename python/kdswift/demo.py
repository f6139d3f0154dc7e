"""The demo: a teacher, then the same small student alone and distilled, on DigitScenes.

Every pair of students begins with the same weights, sees the same scenes in the same order and has
the same budget; the only difference is the teacher. The table says how much that helped.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from . import backbones, runtime
from ._files import write_text
from ._tables import text_table
from .checkpoint import SettingsDiffer
from .data import DigitScenes
from .detector_options import Anchors
from .distillation import distill
from .evaluation import evaluate
from .faster_rcnn import FasterRCNN
from .history import History
from .methods import Chen2017, Method
from .optimizers import AdamW, Optimizer
from .progress import say
from .schedules import Cosine

IMAGE_SIZE = 96
ANCHORS = Anchors(sizes=(16, 24, 36), ratios=(1, 2))  # digits are taller than wide
RPN = {
    "batch": 64,
    "pre_nms_train": 600,
    "post_nms_train": 150,
    "pre_nms_test": 300,
    "post_nms_test": 60,
    "min_size": 4,
    "drop_border_anchors": False,  # most anchors of so small an image cross its border
}
ROI = {"batch": 48, "max_detections": 30}


# Row "CLS" of the paper's Table 4, with more weight on the soft labels. On students trained from
# scratch for minutes the other terms cost more than they give; figures in docs/methods/chen2017.md.
METHOD = Chen2017(classification="plain", regression=None, hint=False, mu=0.2)


@dataclass(frozen=True)
class Budget:
    """How much the demo does. Students alone and distilled have the same."""

    train_scenes: int = 2000
    val_scenes: int = 300
    teacher_width: float = 1.0
    student_width: float = 0.25
    teacher_epochs: int = 8
    student_epochs: int = 8
    seeds: int = 3
    batch_size: int = 16
    learning_rate: float = 2e-3
    warmup: float = 0.05
    clip_norm: float = 10.0
    eval_every: int = 4


FULL = Budget()
QUICK = Budget(
    train_scenes=240, val_scenes=60, teacher_epochs=3, student_epochs=2, seeds=1, eval_every=1
)


@dataclass
class Result:
    """What one trained model reached. Scores in [0, 1]."""

    name: str
    seed: int
    AP: float
    AP50: float
    model: Any = field(repr=False)
    history: History = field(repr=False)


@dataclass
class DemoResult:
    """What the demo found: `rows` for the table, `verdict` in words, and all models."""

    budget: Budget
    difficulty: float
    method: Method
    teacher: Result
    alone: list[Result]
    distilled: list[Result]
    rows: list[dict[str, Any]]
    verdict: str
    report: Path


def detector(width: float, seed: int) -> FasterRCNN:
    """The demo's detector: Faster R-CNN on a small residual network."""
    return FasterRCNN(
        backbones.resnet_small(width),
        num_classes=len(DigitScenes.class_names),
        anchors=ANCHORS,
        image_size=(IMAGE_SIZE, IMAGE_SIZE),
        class_names=DigitScenes.class_names,
        seed=seed,
        rpn=RPN,
        roi=ROI,
    )


def run_demo(
    out: str | Path = "runs/demo",
    quick: bool = False,
    seeds: int | None = None,
    difficulty: float = 1.0,
    budget: Budget | None = None,
    method: Method | None = None,
    progress: bool = True,
) -> DemoResult:
    """Train everything, print the table, write ``report.html`` into `out`.

    A demo that was interrupted goes on where it stopped; one with other settings starts over.
    """
    budget = budget or (QUICK if quick else FULL)
    if seeds is not None:
        budget = Budget(**{**asdict(budget), "seeds": int(seeds)})
    method = METHOD if method is None else method
    lab = _Lab(Path(out), budget, difficulty, method, progress)
    teacher = lab.train("teacher", 0, None)
    alone, distilled = [], []
    for seed in range(1, budget.seeds + 1):
        alone.append(lab.train("alone", seed, None))
        distilled.append(lab.train("distilled", seed, teacher.model))
    return lab.conclude(teacher, alone, distilled)


class _Lab:
    """Data, folders and the order of the demo's runs."""

    def __init__(
        self, out: Path, budget: Budget, difficulty: float, method: Method, progress: bool
    ) -> None:
        self.out, self.budget, self.method = out, budget, method
        self.difficulty, self.progress = difficulty, progress
        self.train_set = DigitScenes("train", budget.train_scenes, IMAGE_SIZE, 0, difficulty)
        self.val_set = DigitScenes("val", budget.val_scenes, IMAGE_SIZE, 0, difficulty)
        self._done, self._runs = 0, 1 + 2 * budget.seeds

    def train(self, kind: str, seed: int, teacher: Any) -> Result:
        """Train one model, or take what an earlier call left, and evaluate it."""
        self._done += 1
        name = kind if kind == "teacher" else f"{kind}-{seed}"
        title = {"teacher": "the teacher", "alone": "student alone", "distilled": "distilled"}[kind]
        say(f"[{self._done}/{self._runs}] {title}" + (f", seed {seed}" if seed else ""))
        width = self.budget.teacher_width if kind == "teacher" else self.budget.student_width
        folder = self.out / name
        try:
            model = detector(width, seed)
            history = self._run(model, teacher, seed, folder, "auto")
        except SettingsDiffer:
            shutil.rmtree(folder)
            model = detector(width, seed)
            history = self._run(model, teacher, seed, folder, False)
        if history.interrupted:
            raise KeyboardInterrupt
        score = evaluate(model, self.val_set, progress=False)
        say(f"      AP {100 * score.AP:.1f}, AP50 {100 * score.AP50:.1f}")
        return Result(name, seed, score.AP, score.AP50, model, history)

    def _run(self, model: Any, teacher: Any, seed: int, folder: Path, resume: Any) -> History:
        budget = self.budget
        optimizer: Optimizer = AdamW(lr=budget.learning_rate)
        options: dict[str, Any] = {
            "epochs": budget.student_epochs if seed else budget.teacher_epochs,
            "val": self.val_set,
            "optimizer": optimizer,
            "schedule": Cosine(warmup=budget.warmup),
            "batch_size": budget.batch_size,
            "out": folder,
            "resume": resume,
            "seed": seed,
            "progress": self.progress,
            "eval_every": budget.eval_every,
            "clip_norm": budget.clip_norm,
        }
        if teacher is None:
            return model.fit(self.train_set, **options)
        return distill(model, teacher, self.train_set, self.method, **options)

    def conclude(
        self, teacher: Result, alone: Sequence[Result], distilled: Sequence[Result]
    ) -> DemoResult:
        """The table, the sentence, and the report."""
        from .report import write_report

        rows = table_rows(teacher, alone, distilled)
        sentence = verdict(alone, distilled)
        result = DemoResult(
            *(self.budget, self.difficulty, self.method, teacher, list(alone), list(distilled)),
            *(rows, sentence, self.out / "report.html"),
        )
        write_report(result, self.val_set)
        write_text(self.out / "results.json", _as_json(result))
        print(f"\n{text_table(rows)}\n\n{sentence}\n\nThe pictures: {result.report}")
        return result


def table_rows(
    teacher: Result, alone: Sequence[Result], distilled: Sequence[Result]
) -> list[dict[str, Any]]:
    """Parameters, FLOPs, milliseconds, AP50 and AP of the models, and the difference.

    AP in percent; several seeds as mean ± standard deviation.
    """
    rows = []
    for name, group in (("teacher", [teacher]), ("student alone", alone), ("distilled", distilled)):
        model = group[0].model
        speed = model.benchmark((IMAGE_SIZE, IMAGE_SIZE), repeats=20)
        rows.append(
            {
                "model": name,
                "parameters": model.num_parameters,
                "MFLOPs": round(speed.flops / 1e6, 1),
                "ms per image": round(speed.ms, 2),
                "AP50": _spread([100 * r.AP50 for r in group]),
                "AP": _spread([100 * r.AP for r in group]),
            }
        )
    gains = {
        name: [100 * (getattr(d, name) - getattr(a, name)) for a, d in zip(alone, distilled)]
        for name in ("AP50", "AP")
    }
    rows.append({"model": "difference", **{n: _spread(v, sign=True) for n, v in gains.items()}})
    return rows


def verdict(alone: Sequence[Result], distilled: Sequence[Result]) -> str:
    """Whether distillation helped beyond the spread over the seeds, in one honest sentence."""
    gains = [100 * (d.AP - a.AP) for a, d in zip(alone, distilled)]
    mean = sum(gains) / len(gains)
    if len(gains) == 1:
        return (
            f"With one seed the distilled student is {_points(mean)} than the student alone; "
            "one seed cannot tell that from chance."
        )
    spread = deviation(gains)
    text = (
        f"Over {len(gains)} seeds the distilled student is {_points(mean)} than the student alone "
        f"(standard deviation of the difference {spread:.1f})"
    )
    if abs(mean) <= spread:
        return f"{text}: no gain beyond the spread."
    if mean > 0 and min(gains) > 0:
        return f"{text}: more than the spread and better with every seed, so distillation helped."
    if mean > 0:
        return f"{text}: more than the spread, though not better with every seed."
    return f"{text}: distillation did harm here."


def _points(difference: float) -> str:
    return f"{abs(difference):.1f} AP {'better' if difference >= 0 else 'worse'}"


def deviation(values: Sequence[float]) -> float:
    """Standard deviation with n - 1."""
    mean = sum(values) / len(values)
    return math.sqrt(sum((v - mean) ** 2 for v in values) / max(1, len(values) - 1))


def _spread(values: Sequence[float], sign: bool = False) -> str:
    mean = sum(values) / len(values)
    text = f"{mean:+.1f}" if sign else f"{mean:.1f}"
    return text if len(values) == 1 else f"{text} ± {deviation(values):.1f}"


def _as_json(result: DemoResult) -> str:
    import json

    groups = {"teacher": [result.teacher], "alone": result.alone, "distilled": result.distilled}
    scores = {
        name: [{"seed": r.seed, "AP": r.AP, "AP50": r.AP50} for r in group]
        for name, group in groups.items()
    }
    content = {
        "budget": asdict(result.budget),
        "difficulty": result.difficulty,
        "method": result.method.describe(),
        "rows": result.rows,
        "verdict": result.verdict,
        "scores": scores,
        "build": runtime.build_info(),
    }
    return json.dumps(content, indent=2)
