"""Distillation losses beside PyTorch: value and gradient on the maps of a feature pyramid.

    python benchmarks/losses.py [--repeats 7] [--only cwd] [--json FILE]

Milliseconds, medians; repetitions of both sides alternate. The losses are those of the dictionaries
`LOSSES` in the modules `losses_*.py` beside this file: name -> `Pair`. Our maps lie as the engine's
convolutions leave them, PyTorch's in rows. Without torch, ours run alone.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

from contestants import Contestant, has_torch, seconds
from losses_scene import Pair, Scene


def collect() -> dict[str, Pair]:
    """The losses of all modules."""
    found: dict[str, Pair] = {}
    for path in sorted(Path(__file__).parent.glob("losses_*.py")):
        found |= getattr(importlib.import_module(path.stem), "LOSSES", {})
    return found


class Side:
    """One library's losses as callables by name."""

    def __init__(self, threads: int) -> None:
        self.setup(threads)
        self.pairs, self.scene = collect(), Scene()
        self.work: dict[str, Callable[[], Any]] = {}

    def setup(self, threads: int) -> None:
        raise NotImplementedError

    def make(self, pair: Pair) -> Callable[[], Any]:
        raise NotImplementedError

    def info(self) -> list[str]:
        return list(self.pairs)

    def prepare(self, name: str) -> None:
        """Keep this loss alone, and run it once."""
        self.work = {name: self.make(self.pairs[name])}
        self.work[name]()

    def time(self, name: str, minimum: float) -> float:
        return seconds(self.work[name], minimum)


class Ours(Side):
    """kdswift."""

    def setup(self, threads: int) -> None:
        import kdswift as kd

        kd.set_num_threads(threads)

    def make(self, pair: Pair) -> Callable[[], Any]:
        return pair.ours(self.scene)


class Torch(Side):
    """PyTorch, eager."""

    def setup(self, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)

    def make(self, pair: Pair) -> Callable[[], Any]:
        return pair.torch(self.scene)


def measure(name: str, sides: dict[str, Contestant], options: argparse.Namespace) -> dict[str, Any]:
    """Medians of one loss."""
    for side in sides.values():
        side.ask("prepare", name)
    times: dict[str, list[float]] = {label: [] for label in sides}
    for _ in range(options.repeats):
        for label, side in sides.items():
            times[label].append(side.ask("time", name, options.minimum))
    ms = {label: round(1000 * statistics.median(v), 3) for label, v in times.items()}
    ratio = ms["torch"] / ms["kdswift"] if "torch" in ms else None
    return {"loss": name, "ms": ms, "torch / ours": ratio and round(ratio, 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--minimum", type=float, default=0.1, help="seconds per repetition")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--only", default="", help="losses whose name contains this")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    sides = {"kdswift": Contestant("losses:Ours", options.threads)}
    if has_torch():
        sides["torch"] = Contestant("losses:Torch", options.threads)
    rows = []
    for name in sides["kdswift"].info:
        if options.only in name:
            rows.append(measure(name, sides, options))
            ms = "  ".join(f"{label} {value:9.3f}" for label, value in rows[-1]["ms"].items())
            ratio = rows[-1]["torch / ours"]
            print(f"{name:<28} {ms}" + (f"  {ratio:6.2f}x" if ratio else ""), flush=True)
    for side in sides.values():
        side.close()
    ratios = [row["torch / ours"] for row in rows if row["torch / ours"]]
    if ratios:
        print(f"median {statistics.median(ratios):.2f}x, lowest {min(ratios):.2f}x")
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        content = {"threads": options.threads, "repeats": options.repeats, "rows": rows}
        options.json.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
