"""What the commands of the command line do; one function per command, named as it is."""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import fields
from pathlib import Path
from typing import Any

from . import backbones, cli_mtpd, runtime
from .cli_data import open_data
from .data import DigitScenes
from .detector import Detector
from .errors import ArgumentError, KDSError
from .modelfile import load


def set_threads(count: int) -> None:
    """Use this many threads."""
    runtime.set_num_threads(count)


def demo(options: argparse.Namespace) -> None:
    """The demo."""
    from .demo import run_demo

    run_demo(
        options.out,
        quick=options.quick,
        seeds=options.seeds,
        difficulty=options.difficulty,
        progress=not options.quiet,
    )


def train(options: argparse.Namespace) -> None:
    """Plain training."""
    data = open_data(options.data, "train", masks=_wants_masks(options))
    model = _new_model(options, data, None)
    _conclude(model.fit(data, **_run_options(options)), options)


def distill(options: argparse.Namespace) -> None:
    """Training with teachers."""
    from .distillation import distill as run

    student, teacher, data = _pair(options)
    if options.progressive or options.plan:
        history = cli_mtpd.progressive(options, student, teacher, data, _run_options(options))
        _conclude(history, options)
        return
    history = run(
        *(student, teacher, data),
        method=_method(options),
        teacher_size=options.teacher_size,
        **_run_options(options),
    )
    _conclude(history, options)


def plan(options: argparse.Namespace) -> None:
    """Teachers and their order."""
    cli_mtpd.plan(options)


def doctor(options: argparse.Namespace) -> None:
    """Check a distillation; an error when a check fails."""
    from .checkup import doctor as check

    student, teacher, data = _pair(options)
    report = check(
        *(student, teacher, data, _method(options)),
        batch_size=options.batch_size,
        sample=options.sample,
        seed=options.seed,
        optimizer=_optimizer(options),
        teacher_size=options.teacher_size,
        metric=options.metric,
    )
    print(json.dumps(report.to_dict(), indent=2) if options.json else report)
    if not report.ok:
        raise KDSError(report.verdict)


def evaluate(options: argparse.Namespace) -> None:
    """Score a model."""
    from .evaluation import evaluate as score

    model = load(options.model)
    iou_type = "segm" if options.masks else "bbox"
    data = open_data(options.data, "val", masks=options.masks)
    result = score(model, data, options.metric, iou_type=iou_type, progress=not options.quiet)
    print(json.dumps(result.to_dict(), indent=2) if options.json else result.table())


def predict(options: argparse.Namespace) -> None:
    """Find objects, print them, draw them."""
    model = load(options.model)
    results: dict[str, Any] = {}
    for path in options.images:
        found = model.predict(path, options.threshold, options.max_detections)[0]
        results[path] = [
            {
                "label": int(label),
                "class": found.name(i),
                "score": round(float(score), 4),
                "box": [round(float(v), 2) for v in box],
            }
            for i, (box, score, label) in enumerate(
                zip(found.boxes, found.scores, found.labels, strict=True)
            )
        ]
        if not options.json:
            print(f"{path}: {found!r}")
        if options.out:
            folder = Path(options.out)
            folder.mkdir(parents=True, exist_ok=True)
            found.draw().save(folder / f"{Path(path).stem}.png")
    if options.json:
        print(json.dumps(results, indent=2))


def export(options: argparse.Namespace) -> None:
    """An ONNX file."""
    size = options.image_size
    if size is not None:
        size = size[0] if len(size) == 1 else tuple(size)
    model = load(options.model)
    written = model.export_onnx(
        *(options.out, size, options.threshold, options.max_detections),
        taps=options.taps,
        check=not options.no_check,
    )
    print(written)


def bench(options: argparse.Namespace) -> None:
    """Time `predict` and a training step."""
    if options.model:
        models = {options.model: load(options.model)}
    else:
        from .demo import FULL, detector

        models = {
            "demo's teacher": detector(FULL.teacher_width, 0),
            "demo's student": detector(FULL.student_width, 0),
        }
    size = None
    if options.image_size:
        size = (options.image_size[0], options.image_size[-1])
    for name, model in models.items():
        print(f"{name}: {model!r}")
        print(f"  predict  {model.benchmark(size, options.repeats)}")
        step = _time_step(model, options)
        print(f"  training {step:.1f} ms per step of {options.batch_size} images")


def _time_step(model: Detector, options: argparse.Namespace) -> float:
    """Median milliseconds of a training step, after three that are not counted."""
    import numpy as np

    from . import _engine
    from .optimizers import SGD

    short = model.image_size[0]
    height, width = (options.image_size or [short])[0], (options.image_size or [short])[-1]
    rng = np.random.default_rng(0)
    images = [
        rng.integers(0, 256, (height, width, 3), dtype=np.uint8) for _ in range(options.batch_size)
    ]
    box = np.array([[width * 0.2, height * 0.2, width * 0.6, height * 0.7]], dtype=np.float32)
    targets = [{"boxes": box, "labels": np.ones(1, np.int64)} for _ in images]
    if model.has_masks:
        for target in targets:
            target["masks"] = np.ones((1, height, width), dtype=bool)
    trainer = _engine.Trainer(
        *(model._engine, []), {"optimizer": SGD(lr=1e-4).to_dict(), "clip_norm": 1.0, "seed": 0}
    )
    batch, times = _engine.Batch(images, targets), []
    for run in range(options.repeats + 3):
        start = time.perf_counter()
        trainer.step(batch, None)
        if run >= 3:
            times.append(1000 * (time.perf_counter() - start))
    trainer.close()
    return float(np.median(times))


def _pair(options: argparse.Namespace) -> tuple[Detector, Any, Any]:
    """The student, its teacher or teachers, and the data."""
    teachers = [load(cli_mtpd.split_name(path)[1]) for path in options.teacher]
    student = load(options.student) if options.student else None
    masks = _wants_masks(options, teachers[0] if student is None else student)
    data = open_data(options.data, "train", masks=masks)
    if student is None:
        student = _new_model(options, data, teachers[0])
    else:
        _take_weights(student, options)
    return student, teachers if len(teachers) > 1 else teachers[0], data


def _new_model(options: argparse.Namespace, data: Any, like: Detector | None) -> Detector:
    """A model from the options; what they leave open is the teacher's, or fits the data."""
    from .detector_options import Anchors

    if like is not None and options.detector in (None, like.kind) and not options.neck:
        configuration = like.configuration
    else:
        configuration = _fresh_configuration(options, data)
    backbone = dict(configuration.get("backbone") or backbones.resnet_small().to_dict())
    if options.backbone:
        backbone = backbones.as_backbone(options.backbone).to_dict()
    for option, name in (("width", "width"), ("frozen_stages", "frozen_stages")):
        if getattr(options, option) is not None:
            backbone[name] = getattr(options, option)
    configuration["backbone"] = backbones.as_backbone(backbone).to_dict()
    configuration.pop("surgery", None)
    if options.image_size:
        if len(options.image_size) > 2:
            raise ArgumentError("--image-size takes the short side and the most of the long side")
        short = options.image_size[0]
        longest = options.image_size[1] if len(options.image_size) == 2 else round(short * 5 / 3)
        configuration |= {"image_min": short, "image_max": longest}
    if options.anchors or options.ratios:
        defaults = Anchors()
        sizes = options.anchors or configuration.get("anchor_sizes", defaults.sizes)
        ratios = options.ratios or configuration.get("anchor_ratios", defaults.ratios)
        anchors = Anchors(sizes, ratios)
        configuration |= {
            "anchor_sizes": list(anchors.sizes),
            "anchor_ratios": list(anchors.ratios),
        }
    model = Detector.from_configuration(configuration, options.seed)
    _take_weights(model, options)
    return model


def _fresh_configuration(options: argparse.Namespace, data: Any) -> dict[str, Any]:
    """Of a model that is nobody's student: the kind's own values, or what fits the scenes."""
    from .detector_options import neck_configuration
    from .digits_detectors import digits_configuration

    kind = options.detector or "faster_rcnn"
    configuration: dict[str, Any] = {"detector": kind}
    if isinstance(data, DigitScenes):
        configuration = digits_configuration(kind, options.neck)
    elif options.neck:
        configuration["neck"] = neck_configuration(options.neck, "--neck")
    configuration["num_classes"] = len(data.class_names)
    configuration["class_names"] = list(data.class_names)
    return configuration


def _wants_masks(options: argparse.Namespace, *models: Any) -> bool:
    """Whether the model to be trained learns from masks: as it is told, else as the models do."""
    if options.detector:
        return options.detector == "mask_rcnn"
    return any(getattr(model, "has_masks", False) for model in models)


def _take_weights(model: Detector, options: argparse.Namespace) -> None:
    if not options.weights:
        return
    report = model.load_state_dict(options.weights, strict=False)
    if not report.loaded:
        raise KDSError(f"{options.weights}: none of its weights fits\n{report.problems()}")
    print(f"{options.weights}: {report!r}")


def methods(_options: argparse.Namespace) -> None:
    """The published methods: name, paper, options."""
    from .methods import names

    for name, method in names().items():
        first = (method.__doc__ or "").strip().split("\n\n")[0]
        print(f"{name}: {' '.join(first.split())}")
        options = [f"{field.name}={field.default!r}" for field in fields(method)]
        print(f"    {', '.join(options)}")


def _method(options: argparse.Namespace) -> Any:
    from .methods import Chen2017, by_name

    method = by_name(options.method)
    chosen: dict[str, Any] = {}
    for name in ("classification", "regression"):
        value = getattr(options, name)
        if value is not None:
            chosen[name] = None if value == "none" else value
    for name in ("mu", "nu", "gamma", "temperature"):
        if getattr(options, name) is not None:
            chosen[name] = getattr(options, name)
    for name in ("hint", "adaptation"):
        if getattr(options, f"no_{name}"):
            chosen[name] = False
    if chosen:
        if options.method != "chen2017":
            raise ArgumentError(
                f"--{next(iter(chosen))} is an option of chen2017; options of others are written "
                f"as in --method {options.method}:option=value"
            )
        method = Chen2017(**chosen)
    return method if options.scale is None else options.scale * method


def _run_options(options: argparse.Namespace) -> dict[str, Any]:
    from .augment import HorizontalFlip
    from .schedules import Constant, Cosine, Linear, Step

    kinds = {"constant": Constant, "linear": Linear, "cosine": Cosine, "step": Step}
    return {
        "epochs": options.epochs,
        "val": open_data(options.val, "val") if options.val else None,
        "optimizer": _optimizer(options),
        "schedule": kinds[options.schedule](warmup=options.warmup),
        "batch_size": options.batch_size,
        "out": options.out,
        "resume": {"auto": "auto", "yes": True, "no": False}[options.resume],
        "seed": options.seed,
        "progress": not options.quiet,
        "augment": HorizontalFlip() if options.flip else None,
        "workers": options.workers,
        "eval_every": options.eval_every,
        "metric": options.metric,
        "checkpoint_every": options.checkpoint_every,
        "clip_norm": options.clip_norm,
    }


def _optimizer(options: argparse.Namespace) -> Any:
    from .optimizers import as_optimizer

    update: dict[str, Any] = {"name": options.optimizer}
    for name in ("lr", "weight_decay"):
        if getattr(options, name) is not None:
            update[name] = getattr(options, name)
    return as_optimizer(update)


def _conclude(history: Any, options: argparse.Namespace) -> None:
    if history.interrupted:
        raise KeyboardInterrupt
    print(history)
    print(f"the model: {Path(options.out) / 'last.safetensors'}")
