"""Adaptation costs in closed form beside maps trained by gradient, on trained detectors.

    python benchmarks/mtpd_costs.py [--out FOLDER] [--epochs 1 4 16] [--seeds 3] [--table PAGE]

The detectors are those of mtpd_zoo.py: the pool and the student of seed 0, trained on DigitScenes.
"excess" is the mean over all pairs of cost / exact cost - 1; "spread" the mean over all pairs of
the standard deviation over seeds of the order of images and first weights, by the exact cost: the
noise of training; "comparisons" the share of comparisons of two costs into one target that come
out as in closed form; "same order" how many seeds choose the same teachers by backward greedy
selection. "passes" counts passes of a model over an image. The paper trains every map by itself,
so that each pair runs its two models every epoch ("pair by pair"); with one seed here.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import digits_runs as runs
import numpy as np
from mtpd_orders import OFF_THE_SHELF, SCENES
from mtpd_zoo import POOL, Zoo

import kdswift as kd


def order_kept(found: np.ndarray, exact: np.ndarray) -> float:
    """Share of pairs of sources into one target that both rank alike."""
    same = []
    for target in range(len(exact)):
        sources = [i for i in range(len(exact)) if i != target]
        for a, b in itertools.combinations(sources, 2):
            same.append(
                (found[a, target] < found[b, target]) == (exact[a, target] < exact[b, target])
            )
    return float(np.mean(same))


class Costs:
    """Measured on the same models and images by every solver."""

    def __init__(self, folder: Path, images: tuple[int, int]) -> None:
        zoo = Zoo(folder)
        self.models = {"student": zoo.student("pool", 0, SCENES, OFF_THE_SHELF)}
        self.models |= {name: zoo.teacher(name) for name in POOL}
        self.scores = {name: zoo.results.of(name)[0] for name in POOL}
        self.data = [kd.data.DigitScenes(*one) for one in zip(("train", "val"), images)]
        for dataset in self.data:
            [dataset[i] for i in range(len(dataset))]  # painted once, kept
        self.measure({}, budget=8)  # warm-up
        self.exact = self.measure({})

    def measure(self, models: dict[str, Any], **options: Any) -> Any:
        """A cost matrix."""
        levels = {name: ["neck.p3", "neck.p4"] for name in models or self.models}
        return kd.mtpd.adaptation_costs(
            models or self.models, *self.data, levels=levels, progress=False, **options
        )

    def chosen(self, costs: Any) -> list[str]:
        """What backward greedy selection makes of them."""
        return list(
            kd.mtpd.backward_greedy_selection(costs, "student", list(POOL), self.scores, 3).names
        )

    def row(self, name: str, found: list[Any], seconds: float, passes: int) -> dict[str, Any]:
        """A row of the table."""
        raw, exact = np.array([one.raw for one in found]), self.exact.raw
        off = ~np.eye(len(exact), dtype=bool)
        ratio = raw[:, off] / exact[off]
        same = sum(self.chosen(one) == self.chosen(self.exact) for one in found)
        return {
            "solver": name,
            "seconds": f"{seconds:.1f}",
            "times exact": f"{seconds / self.exact.report['seconds']:.1f}",
            "passes": passes,
            "excess": f"{ratio.mean() - 1:.3g}",
            "spread": f"{ratio.std(axis=0, ddof=1).mean():.2g}" if len(found) > 1 else "",
            "comparisons": f"{100 * np.mean([order_kept(one, exact) for one in raw]):.0f} %",
            "same order": f"{same} of {len(found)}",
        }

    def by_gradient(self, epochs: int, rate: float, seeds: int) -> dict[str, Any]:
        """All maps trained together, so that models run once per image and epoch."""
        found = [
            self.measure({}, solver="sgd", epochs=epochs, learning_rate=rate, seed=seed)
            for seed in range(seeds)
        ]
        seconds = float(np.median([one.report["seconds"] for one in found]))
        name = f"sgd, {epochs} epoch{'s' * (epochs > 1)}, rate {rate:g}"
        return self.row(name, found, seconds, found[0].report["forward_passes"])

    def pair_by_pair(self, epochs: int, rate: float) -> dict[str, Any]:
        """Every map by itself."""
        levels, seconds, passes = [], 0.0, 0
        for a, b in itertools.permutations(self.models, 2):
            start = time.perf_counter()
            one = Single(self, a, b).cost(epochs, rate)
            seconds += time.perf_counter() - start
            passes += one.report["forward_passes"]
            levels += one.levels
        name = f"sgd pair by pair, {epochs} epoch{'s' * (epochs > 1)}, rate {rate:g}"
        return self.row(name, [replace(self.exact, levels=levels)], seconds, passes)


class Single:
    """One direction of one pair, as the paper measures it."""

    def __init__(self, costs: Costs, source: str, target: str) -> None:
        self.costs, self.names = costs, (source, target)

    def cost(self, epochs: int, rate: float) -> Any:
        """Its matrix, of which one entry is used; the other direction is not trained."""
        from kdswift.mtpd.measuring import Job
        from kdswift.mtpd.zoo import Zoo as Side
        from kdswift.mtpd.zoo import image_at

        models = {name: self.costs.models[name] for name in self.names}
        levels = {name: ["neck.p3", "neck.p4"] for name in self.names}
        side = Side(models, levels, image_at(self.costs.data[0], 0))
        side.entries = [entry for entry in side.entries if entry.target == 1]
        job = Job(side, *self.costs.data, 8, False, False, 0)
        return job.by_gradient(epochs, rate, None, lambda _: [])


def main() -> None:
    """Run it, print the table, and write it if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", default="runs/mtpd")
    parser.add_argument("--train", type=int, default=256)
    parser.add_argument("--val", type=int, default=128)
    parser.add_argument("--epochs", type=int, nargs="*", default=[1, 4, 16])
    parser.add_argument("--pair-epochs", type=int, nargs="*", default=[1])
    parser.add_argument("--rates", type=float, nargs="*", default=[1e-2])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", help="where to write the rows")
    parser.add_argument("--table", help="a Markdown page to write the table into")
    given = parser.parse_args()
    costs = Costs(Path(given.out), (given.train, given.val))
    report = costs.exact.report
    rows = [costs.row("exact", [costs.exact], report["seconds"], report["forward_passes"])]
    for epochs, rate in itertools.product(given.epochs, given.rates):
        rows.append(costs.by_gradient(epochs, rate, given.seeds))
        print(rows[-1], flush=True)
    for epochs, rate in itertools.product(given.pair_epochs, given.rates):
        rows.append(costs.pair_by_pair(epochs, rate))
    text = runs.markdown_table(rows)
    print(f"{len(costs.models)} models, {given.train} + {given.val} images")
    print(
        f"{kd.get_num_threads()} threads; exact: {' -> '.join(costs.chosen(costs.exact))}\n{text}"
    )
    if given.json:
        Path(given.json).write_text(json.dumps(rows, indent=1) + "\n")
    if given.table:
        runs.write_between(given.table, "costs", text)


if __name__ == "__main__":
    main()
