"""``kdswift plan`` and ``kdswift distill --progressive``: teachers in order."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from .errors import ArgumentError


def add_plan(p: argparse.ArgumentParser, data_help: str, metrics: tuple[str, ...]) -> None:
    """The options of ``kdswift plan``."""
    p.add_argument("-s", "--student", required=True, metavar="FILE", help="a trained student")
    p.add_argument(
        *("-t", "--teacher"),
        action="append",
        required=True,
        metavar="[NAME=]FILE",
        help="a model file of the pool; give several. Without NAME the folder or file names it",
    )
    p.add_argument("-d", "--data", required=True, help=data_help)
    p.add_argument("--val", required=True, help="data set on which costs and AP are measured")
    p.add_argument("--max-teachers", type=int, default=2, metavar="N", help="(default %(default)s)")
    p.add_argument(
        "--probe",
        type=int,
        metavar="EPOCHS",
        help="distil for so many epochs from each teacher by feature matching: the one from whom "
        "the student learns most comes last, instead of the one with the highest AP",
    )
    p.add_argument("--solver", choices=("exact", "sgd"), default="exact")
    p.add_argument("--budget", type=int, metavar="N", help="most images for the costs")
    p.add_argument("--ridge", type=float, default=0.0, metavar="X", help="(default %(default)s)")
    p.add_argument("--normalize", action="store_true", help="costs over the variance of the maps")
    p.add_argument("--batch-size", type=int, default=8, metavar="N", help="(default %(default)s)")
    p.add_argument("--metric", default="coco", choices=metrics)
    p.add_argument("--seed", type=int, default=0, metavar="N")
    p.add_argument("-o", "--out", help="folder for plan.json, costs.png and plan.png")
    p.add_argument("--json", action="store_true", help="print JSON")
    p.add_argument("--quiet", action="store_true", help="no progress bars")


def add_progressive(p: argparse.ArgumentParser) -> None:
    """What ``kdswift distill`` has for teachers in order."""
    group = p.add_argument_group("teachers in order (Cao et al. 2023)")
    group.add_argument(
        "--progressive",
        action="store_true",
        help="one teacher after the other in the order given, --epochs for each; the method is "
        "feature matching, the options of Chen et al. are not used",
    )
    group.add_argument(
        "--plan", metavar="FILE", help="take the order from a plan.json of kdswift plan"
    )
    group.add_argument("--weight", type=float, metavar="X", help="of feature matching (default 1)")
    group.add_argument(
        "--inherit",
        nargs="+",
        choices=("neck", "head"),
        default=(),
        metavar="PART",
        help="begin with the first teacher's neck, head",
    )


def plan(options: argparse.Namespace) -> None:
    """Measure costs, print the order and the reasons."""
    from . import mtpd
    from .cli_data import open_data
    from .modelfile import load

    names = names_of(options.teacher)
    student = load(options.student)
    teachers = {name: load(split_name(text)[1]) for name, text in zip(names, options.teacher)}
    masks = any(model.has_masks for model in (student, *teachers.values()))
    train = open_data(options.data, "train", masks=masks)
    val = open_data(options.val, "val", masks=masks)
    probe = None
    if options.probe is not None:
        probe = mtpd.probe(
            *(student, teachers, train, val),
            epochs=options.probe,
            metric=options.metric,
            progress=not (options.quiet or options.json),
            seed=options.seed,
            batch_size=options.batch_size,
        )
        if not options.json:
            print(probe)
    result = mtpd.plan(
        *(student, teachers, train, val),
        max_teachers=options.max_teachers,
        performance=probe,
        solver=options.solver,
        budget=options.budget,
        ridge=options.ridge,
        normalize=options.normalize,
        batch_size=options.batch_size,
        progress=not options.quiet,
        seed=options.seed,
        metric=options.metric,
    )
    print(json.dumps(result.to_dict(), indent=2) if options.json else result)
    if options.out:
        folder = Path(options.out)
        folder.mkdir(parents=True, exist_ok=True)
        result.save(folder / "plan.json")
        result.costs.plot(folder / "costs.png")
        result.plot(folder / "plan.png")


def progressive(
    options: argparse.Namespace, student: Any, models: Any, data: Any, run_options: dict[str, Any]
) -> Any:
    """Distil from the teachers in order; the history.

    models : one teacher or a list, as given by --teacher
    """
    from . import mtpd
    from .methods import FeatureMatching

    models = models if isinstance(models, list) else [models]
    teachers: Any = dict(zip(names_of(options.teacher), models))
    if options.plan:
        teachers = mtpd.Plan.load(options.plan, teachers)
    epochs = run_options.pop("epochs")
    return mtpd.distill(
        *(student, teachers, data),
        method=FeatureMatching() if options.weight is None else FeatureMatching(options.weight),
        epochs_per_teacher=epochs,
        inherit=options.inherit,
        teacher_size=options.teacher_size,
        **run_options,
    )


def names_of(texts: list[str]) -> list[str]:
    """The names of teachers from ``NAME=FILE`` or ``FILE``, all unlike.

    A run's ``last.safetensors`` and ``best.safetensors`` are called after their folder.
    """
    names: list[str] = []
    for text in texts:
        name, path = split_name(text)
        if name in names:
            raise ArgumentError(f"--teacher: {name!r} is there twice; write NAME={path}")
        names.append(name)
    return names


def split_name(text: str) -> tuple[str, str]:
    """Name and path of a teacher."""
    name, equals, path = text.partition("=")
    if equals and name and not Path(text).exists():
        return name, path
    file = Path(text)
    return (file.parent.name if file.stem in ("last", "best") else "") or file.stem, text
