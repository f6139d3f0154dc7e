"""What all trainings on DigitScenes share: detectors, options, results kept in a file."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import kdswift as kd
from kdswift.digits_detectors import digits_configuration

SIZE, BATCH = 96, 16


def detector(
    kind: str, width: float, seed: int, backbone: str = "resnet_small", size: int = SIZE
) -> Any:
    """A detector with a pyramid for glyphs that are `size` / 96 times as large as painted."""
    configuration = digits_configuration(kind, "fpn")
    classes = kd.data.DigitScenes.class_names
    configuration |= {"num_classes": len(classes), "class_names": list(classes)}
    configuration["backbone"] = {**configuration["backbone"], "width": width}
    if backbone != "resnet_small":  # strides 8, 16 and 32
        configuration["backbone"] = getattr(kd.backbones, backbone)(width, drop_path=0.1).to_dict()
        configuration["neck"] = {**configuration["neck"], "from": "stage2"}
        configuration["anchor_sizes"] = [20, 34, 48]
    if size != SIZE:
        configuration |= {"image_min": size, "image_max": size}
        sizes = configuration["anchor_sizes"]
        configuration["anchor_sizes"] = [round(side * size / SIZE) for side in sizes]
    return kd.Detector.from_configuration(configuration, seed)


def options(seed: int, lr: float = 2e-3) -> dict[str, Any]:
    """Optimizer, schedule and the like of every run."""
    return {
        "batch_size": BATCH,
        "optimizer": kd.AdamW(lr=lr),
        "schedule": kd.Cosine(warmup=0.05),
        "clip_norm": 10.0,
        "seed": seed,
        "progress": False,
        "eval_every": None,
    }


def ap(model: Any, val: Any) -> dict[str, float]:
    """AP and AP50 in per cent."""
    score = kd.evaluate(model, val, progress=False)
    return {"AP": 100 * score.AP, "AP50": 100 * score.AP50}


def spread(values: Sequence[float], sign: str = "", digits: int = 1) -> str:
    """Mean and standard deviation."""
    text = f"{statistics.fmean(values):{sign}.{digits}f}"
    return text if len(values) < 2 else f"{text} ± {statistics.stdev(values):.{digits}f}"


class Results(dict[str, Any]):
    """{name: {seed: row}}, kept in a JSON file: what is there is not run again."""

    def __init__(self, file: Path) -> None:
        self.file = file
        file.parent.mkdir(parents=True, exist_ok=True)
        super().__init__(json.loads(file.read_text()) if file.exists() else {})

    def has(self, name: str, seed: int) -> bool:
        """Whether a run is done."""
        return str(seed) in self.get(name, {})

    def keep(self, name: str, seed: int, row: dict[str, Any]) -> None:
        """Write a run down."""
        self.setdefault(name, {})[str(seed)] = row
        self.file.write_text(json.dumps(self, indent=1) + "\n")
        print(f"{name}, seed {seed}: AP {row['AP']:.1f}, {row['seconds']:.0f} s", flush=True)

    def of(self, name: str, key: str = "AP") -> list[float]:
        """One figure of all seeds."""
        return [row[key] for row in self[name].values()]


def markdown_table(rows: Sequence[dict[str, Any]]) -> str:
    """Rows with equal keys as a table."""
    lines = [list(rows[0]), *(list(row.values()) for row in rows)]
    text = [f"| {' | '.join(str(cell) for cell in line)} |" for line in lines]
    return "\n".join([text[0], f"|{'---|' * len(rows[0])}", *text[1:]])


def write_between(page: str, mark: str, text: str) -> None:
    """Put a table into a page, between ``<!-- mark: begin -->`` and ``<!-- mark: end -->``."""
    path, marks = Path(page), (f"<!-- {mark}: begin -->", f"<!-- {mark}: end -->")
    before, rest = path.read_text().split(marks[0])
    path.write_text(f"{before}{marks[0]}\n{text}\n{marks[1]}{rest.split(marks[1])[1]}")
