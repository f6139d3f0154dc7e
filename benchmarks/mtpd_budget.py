"""Progressive distillation beside direct, ensemble and no distillation, all equally long.

    python benchmarks/mtpd_budget.py [--groups pool swin ...] [--seeds 3] [--table PAGE]

pool: the teachers that backward greedy selection chose (mtpd_orders.py); one-stage: those it chose
from detectors of the student's kind; swin: two transformers for a convolutional student; ladder:
teachers that see 0.5, 0.75 and 1 times the largest input, for a student of the same architecture
that sees 0.25 of it. Every run begins with the student as it was trained alone. What is in FOLDER
is not run again.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import digits_runs as runs
from mtpd_orders import greedy, one_stage
from mtpd_zoo import POOL, Zoo

import kdswift as kd
from kdswift.mtpd.progressive_history import ProgressiveHistory

SCENES, OFF_THE_SHELF = 1000, 8
EPOCHS = {"pool": 8, "one-stage": 8, "swin": 8, "ladder": 5}  # per teacher
ORDERS = {
    "swin": ["swin-t", "swin-s"],
    "ladder": ["0.5x", "0.75x", "1x"],
}


def restarted(student: Any, teachers: Any, train: Any, epochs_per_teacher: int, **rest: Any) -> Any:
    """Alone, with the restarts of the learning rate that progressive distillation has."""
    history = ProgressiveHistory()
    for stage in range(len(teachers)):
        seed = kd.mtpd.progressive.stage_seed(rest["seed"], stage)
        one = student.fit(train, epochs_per_teacher, **(rest | {"seed": seed}))
        history.add(one, "alone")
    return history


def averaged(*arguments: Any, **options: Any) -> Any:
    """The ensemble's mean map."""
    return kd.mtpd.ensemble(*arguments, combine="average", **options)


CONTESTANTS: dict[str, Callable[..., Any]] = {
    "progressive": kd.mtpd.distill,
    "direct, last teacher": kd.mtpd.direct,
    "ensemble, sum": kd.mtpd.ensemble,
    "ensemble, average": averaged,
    "alone": kd.mtpd.alone,
    "alone, restarted": restarted,
}


ANALYSED = "progressive", "alone, restarted"  # kept whole, for mtpd_analysis.py


def kept_run(folder: Path, name: str, seed: int) -> Path:
    """Where a student and its history are kept, without the suffix."""
    return folder / f"pool-{name.replace(', ', '-')}-{seed}"


class Budget:
    """The runs of one group."""

    def __init__(self, group: str, folder: Path) -> None:
        self.group, self.zoo = group, Zoo(folder)
        self.results = runs.Results(folder / f"budget-{group}.json")
        self.train = kd.data.DigitScenes("train", SCENES, runs.SIZE)
        self.val = kd.data.DigitScenes("val", 300, runs.SIZE)
        # Without a teacher these students are those of the pool.
        alone = group in ("swin", "one-stage")
        self.contestants = {n: c for n, c in CONTESTANTS.items() if not (alone and "alone" in n)}
        self.names = ORDERS.get(group) or self._chosen(folder)

    def _chosen(self, folder: Path) -> list[str]:
        plan = kd.mtpd.Plan.load(folder / "plan-0.json", {name: name for name in POOL})
        if self.group == "pool":
            return list(plan.names)
        return list(greedy(plan, one_stage(POOL), plan.performance).names)

    def student(self, seed: int) -> Any:
        """Trained alone."""
        kind = "ladder" if self.group == "ladder" else "pool"
        return self.zoo.student(kind, seed, SCENES, OFF_THE_SHELF)

    def run(self, seed: int) -> None:
        """All contestants with one seed."""
        if not self.results.has("student", seed):
            row = runs.ap(self.student(seed), self.val)
            self.results.keep("student", seed, row | {"seconds": 0})
        for name, contestant in self.contestants.items():
            if self.results.has(name, seed):
                continue
            teachers = {one: self.zoo.cached(one) for one in self.names}
            student, start = self.student(seed), time.perf_counter()
            options = runs.options(seed) | {"epochs_per_teacher": EPOCHS[self.group]}
            if self.group == "pool" and name in ANALYSED:
                options |= {"val": self.val, "eval_every": 1}
            history = contestant(student, teachers, self.train, **options)
            seconds = round(time.perf_counter() - start, 1)
            if self.group == "pool" and name in ANALYSED:
                kept = kept_run(self.zoo.folder, name, seed)
                student.save(kept.with_suffix(".safetensors"))
                data = {"rows": history.rows, "restarts": history.restarts}
                kept.with_suffix(".json").write_text(json.dumps(data))
            self.results.keep(name, seed, runs.ap(student, self.val) | {"seconds": seconds})

    def rows(self) -> list[dict[str, Any]]:
        """Mean and spread of every contestant, and of the difference to progressive runs."""
        rows = []
        for name in ("student", *self.contestants):
            of, base = self.results[name], self.results["progressive"]
            behind = [run["AP"] - base[seed]["AP"] for seed, run in of.items()]
            row = {
                "teachers": " → ".join(self.names),
                "run": "student before" if name == "student" else name,
                "AP": runs.spread(self.results.of(name)),
                "AP50": runs.spread(self.results.of(name, "AP50")),
                "AP − progressive": "" if name == "progressive" else runs.spread(behind, "+"),
            }
            rows.append(row)
        return rows


def main() -> None:
    """Run what is missing, print the tables, and write them if asked."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--groups", nargs="+", choices=list(EPOCHS), default=list(EPOCHS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", default="runs/mtpd")
    parser.add_argument("--table", help="a Markdown page to write the tables into")
    given = parser.parse_args()
    rows = []
    for group in given.groups:
        budget = Budget(group, Path(given.out))
        for seed in range(given.seeds):
            budget.run(seed)
        rows += budget.rows()
    text = runs.markdown_table(rows)
    print(text)
    if given.table:
        runs.write_between(given.table, "budget", text)


if __name__ == "__main__":
    main()
