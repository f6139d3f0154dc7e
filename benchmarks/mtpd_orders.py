"""Every order of one or two teachers, trained: where the chosen ones rank.

    python benchmarks/mtpd_orders.py [--seeds 3] [--out FOLDER] [--table PAGE]

The student, trained without a teacher, learns from each order by feature matching, a short schedule
with linearly falling rate per teacher, as in the search of the paper (Cao et al. 2023, Table 2).
Orders with the same first teacher share their first stage: it is the same run bit for bit. Beside
them what backward greedy selection, the shortest path, ascending AP and chance choose; "by probe"
takes the orders of one teacher for `kd.mtpd.probe`. Teachers and students come from mtpd_zoo.py;
what is in FOLDER is not run again.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import digits_runs as runs
from mtpd_zoo import POOL, Zoo

import kdswift as kd
from kdswift.mtpd.progressive import stage_seed

SCENES, OFF_THE_SHELF, EPOCHS = 1000, 8, 4
COST_TRAIN, COST_VAL = 256, 128
ARROW = " → "


class Orders:
    """The runs of all orders, kept in a folder."""

    def __init__(self, folder: Path, part: str) -> None:
        self.zoo, self.folder = Zoo(folder), folder
        self.results = runs.Results(folder / f"orders{part}.json")
        self.train = kd.data.DigitScenes("train", SCENES, runs.SIZE)
        self.val = kd.data.DigitScenes("val", 300, runs.SIZE)
        self.teachers = {name: self.zoo.teacher(name) for name in POOL}

    def student(self, seed: int) -> Any:
        """Trained alone."""
        return self.zoo.student("pool", seed, SCENES, OFF_THE_SHELF)

    def run(self, seed: int) -> None:
        """All orders of a seed that are not there."""
        if not self.results.has("student", seed):
            row = runs.ap(self.student(seed), self.val)
            self.results.keep("student", seed, row | {"seconds": 0})
        if not self.results.has("alone", seed):
            student, start = self.student(seed), time.perf_counter()
            student.fit(self.train, EPOCHS, **self.options(seed))
            seconds = round(time.perf_counter() - start, 1)
            self.results.keep("alone", seed, runs.ap(student, self.val) | {"seconds": seconds})
        for first in POOL:
            orders = [(first,), *((first, second) for second in POOL if second != first)]
            if all(self.results.has(ARROW.join(order), seed) for order in orders):
                continue
            begun = self.student(seed)
            self.stage((first,), begun, seed)
            weights = begun.state_dict()
            for order in orders[1:]:
                if not self.results.has(ARROW.join(order), seed):
                    begun.load_state_dict(weights)
                    self.stage(order, begun, seed)

    def options(self, seed: int) -> dict[str, Any]:
        """Of a stage."""
        return runs.options(seed) | {"schedule": kd.Linear(warmup=0.05)}

    def stage(self, order: tuple[str, ...], student: Any, seed: int) -> None:
        """The last stage of an order; what `kd.mtpd.distill` does after the stages before."""
        start = time.perf_counter()
        options = self.options(stage_seed(seed, len(order) - 1))
        teacher = self.zoo.cached(order[-1])
        kd.distill(student, teacher, self.train, "feature_matching", EPOCHS, **options)
        seconds = round(time.perf_counter() - start, 1)
        row = runs.ap(student, self.val) | {"seconds": seconds}
        self.results.keep(ARROW.join(order), seed, row)

    def plan(self, seed: int) -> Any:
        """The plan for a seed's student, made once."""
        path = self.folder / f"plan-{seed}.json"
        if path.exists():
            return kd.mtpd.Plan.load(path, self.teachers)
        scores = {name: self.zoo.results.of(name)[0] / 100 for name in POOL}
        data = [kd.data.DigitScenes(*one) for one in (("train", COST_TRAIN), ("val", COST_VAL))]
        plan = kd.mtpd.plan(
            self.student(seed), self.teachers, *data, performance=scores, progress=False
        )
        plan.save(path)
        return plan


def one_stage(names: Iterable[str]) -> list[str]:
    """Those teachers of the pool that are detectors of the student's kind."""
    return [name for name in names if POOL[name].kind == "gfl"]


def greedy(plan: Any, names: Iterable[str], performance: dict[str, float]) -> Any:
    """Backward greedy selection from some of the teachers."""
    return kd.mtpd.backward_greedy_selection(plan.costs, plan.student, list(names), performance, 2)


def choices(plan: Any, probe: dict[str, float]) -> dict[str, str]:
    """The order of each way to choose, for at most two teachers.

    probe : AP of the student after a stage with each teacher
    """
    scores = plan.performance
    found = {
        "backward greedy": greedy(plan, scores, scores),
        "backward greedy by probe": greedy(plan, scores, probe),
        "backward greedy, one-stage pool": greedy(plan, one_stage(scores), scores),
        "shortest path": kd.mtpd.shortest_path(plan.costs, plan.student, list(scores), scores, 2),
        "ascending AP": kd.mtpd.ascending_performance(list(scores), scores, 2),
    }
    best = max(scores, key=lambda name: scores[name])
    return {way: ARROW.join(one.names) for way, one in found.items()} | {"best alone": best}


def summary(all_orders: Orders, seeds: range) -> list[dict[str, Any]]:
    """One row per order, the best first, with who chose it."""
    chosen: dict[str, list[str]] = {}
    for seed in seeds:
        probe = {name: all_orders.results[name][str(seed)]["AP"] / 100 for name in POOL}
        for way, name in choices(all_orders.plan(seed), probe).items():
            chosen.setdefault(name, []).append(way)
    results = all_orders.results
    names = [name for name in results if name not in ("student", "alone")]
    names.sort(key=lambda name: -statistics.fmean(results.of(name)))
    rows = []
    for rank, name in enumerate(names, 1):
        gain = [run["AP"] - results["student"][seed]["AP"] for seed, run in results[name].items()]
        ways = chosen.get(name, [])
        said = ", ".join(
            way if ways.count(way) == len(seeds) else f"{way} ({ways.count(way)} of {len(seeds)})"
            for way in dict.fromkeys(ways)
        )
        row = {"rank": rank, "order": name, "AP": runs.spread(results.of(name))}
        rows.append(row | {"gain": runs.spread(gain, "+"), "chosen by": said})
    return rows


def main() -> None:
    """Run what is missing, print the table, and write it if asked."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--seed", type=int, help="only this one, into a file of its own")
    parser.add_argument("--merge", nargs="*", default=[], help="files of single seeds to take in")
    parser.add_argument("--out", default="runs/mtpd")
    parser.add_argument("--docs", help="a folder for the pictures of the first seed's plan")
    parser.add_argument("--table", help="a Markdown page to write the table into")
    given = parser.parse_args()
    if given.seed is not None:
        Orders(Path(given.out), f"-{given.seed}").run(given.seed)
        return
    every = Orders(Path(given.out), "")
    for file in given.merge:
        for name, one in json.loads(Path(file).read_text()).items():
            for seed, row in one.items():
                every.results.keep(name, int(seed), row)
    for seed in range(given.seeds):
        every.run(seed)
        print(every.plan(seed))
    results = every.results
    text = runs.markdown_table(summary(every, range(given.seeds)))
    random = statistics.fmean(
        value for name in results if ARROW in name for value in results.of(name)
    )
    before, alone = (runs.spread(results.of(name)) for name in ("student", "alone"))
    text += f"\n\nThe student before: {before}; after {EPOCHS} more epochs alone: {alone}; "
    text += f"an order of two drawn at random: {random:.1f} on average."
    print(text)
    if given.docs:
        plan = every.plan(0)
        plan.costs.plot(Path(given.docs) / "mtpd-costs.png")
        plan.plot(Path(given.docs) / "mtpd-plan.png")
    if given.table:
        runs.write_between(given.table, "orders", text)


if __name__ == "__main__":
    main()
