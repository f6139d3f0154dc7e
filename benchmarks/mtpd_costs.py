"""Adaptation costs in closed form beside maps trained by gradient, on a zoo of small detectors.

    python benchmarks/mtpd_costs.py --models 5 --train 128 --val 64

The detectors are Faster R-CNNs with pyramids (64 channels, strides 4, 8, 16) on backbones of
several widths, with random weights: time does not depend on them, and how far a trained map stays
above the least cost is there to be seen all the same. Prints a table; "excess" is the mean over
all pairs of cost / exact cost - 1, "order kept" the share of comparisons of two costs into one
target that come out as the exact ones do.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
from typing import Any

import numpy as np

import kdswift as kd
from kdswift._tables import text_table
from kdswift.data import DigitScenes
from kdswift.detector import Detector
from kdswift.digits_detectors import digits_configuration

WIDTHS = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5)


def zoo(count: int) -> dict[str, Detector]:
    """Detectors by name."""
    result = {}
    for i, width in enumerate(WIDTHS[:count]):
        configuration = digits_configuration("faster_rcnn", "fpn")
        configuration["backbone"] = kd.backbones.resnet_small(
            width=width, output_stride=16
        ).to_dict()
        configuration["num_classes"] = len(DigitScenes.class_names)
        result[f"width {width:g}"] = Detector.from_configuration(configuration, seed=i)
    return result


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


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=int, default=5)
    parser.add_argument("--train", type=int, default=128)
    parser.add_argument("--val", type=int, default=64)
    parser.add_argument("--epochs", type=int, nargs="*", default=[1, 4])
    parser.add_argument("--json", help="where to write the rows")
    options = parser.parse_args()
    models = list(zoo(options.models).values())
    data = DigitScenes("train", options.train, seed=0), DigitScenes("val", options.val, seed=0)
    for dataset in data:
        [dataset[i] for i in range(len(dataset))]  # painted once, kept
    settings: list[dict[str, Any]] = [{"solver": "exact"}]
    settings += [
        {"solver": "sgd", "epochs": epochs, "learning_rate": rate}
        for epochs in options.epochs
        for rate in (1e-3, 1e-2)
    ]
    kd.mtpd.adaptation_costs(models, *(d for d in data), budget=8, progress=False)  # warm-up
    exact = None
    rows = []
    for one in settings:
        costs = kd.mtpd.adaptation_costs(models, *data, progress=False, **one)
        exact = costs.raw if exact is None else exact
        off = ~np.eye(len(exact), dtype=bool)
        rows.append(
            {
                **one,
                "seconds": costs.report["seconds"],
                "forward passes": costs.report["forward_passes"],
                "excess": round(float((costs.raw[off] / exact[off] - 1).mean()), 4),
                "order kept": round(order_kept(costs.raw, exact), 3),
            }
        )
    threads = kd.get_num_threads()
    print(f"{options.models} models, {options.train} + {options.val} images, {threads} threads")
    print(text_table(rows))
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump({"threads": threads, "cores": os.cpu_count(), "rows": rows}, file, indent=1)


if __name__ == "__main__":
    main()
