"""The command line: ``kdswift <command>``. Exit codes: 0 done, 1 an error, 2 wrong usage."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from . import cli_mtpd
from ._version import __version__

_EXAMPLES = """examples:
  kdswift demo
  kdswift train --data voc:/data/VOCdevkit --val voc:/data/VOCdevkit,split=test \\
                --backbone vgg16 --out runs/teacher
  kdswift distill --teacher runs/teacher/best.safetensors --data voc:/data/VOCdevkit \\
                --backbone alexnet --out runs/student
  kdswift evaluate runs/student/best.safetensors --data voc:/data/VOCdevkit --metric voc07
  kdswift predict runs/student/best.safetensors street.jpg --out pictures
"""

_DATA_HELP = (
    "digits, or digits:n=500,difficulty=1.5,seed=3; voc:FOLDER, or voc:FOLDER,year=2007,"
    "split=trainval; coco:IMAGES,ANNOTATIONS.json; kitti:FOLDER; ilsvrc:FOLDER; yolo:FILE.yaml, "
    "or yolo:FILE.yaml,split=test"
)
_METRICS = ("coco", "voc07", "voc10", "kitti_r11", "kitti_r40")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; the exit code. Errors are one line on stderr."""
    parser = build_parser()
    options = parser.parse_args(arguments)
    if options.command is None:
        parser.print_help()
        return 2
    from . import cli_commands
    from .errors import KDSError

    try:
        if options.threads is not None:
            cli_commands.set_threads(options.threads)
        getattr(cli_commands, options.command)(options)
    except KDSError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # the reader of our output has gone
        sys.stderr.close()
        return 1
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; the same command continues where it stopped", file=sys.stderr)
        return 1
    return 0


def build_parser() -> argparse.ArgumentParser:
    """The parser with all commands."""
    parser = argparse.ArgumentParser(
        prog="kdswift",
        description="Distil large object detectors into small ones, on the CPU.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"kdswift {__version__}")
    parser.add_argument("--threads", type=int, metavar="N", help="processor threads to use")
    commands = parser.add_subparsers(dest="command", metavar="command")
    _demo(commands)
    _train(commands)
    _distill(commands)
    _plan(commands)
    _doctor(commands)
    _evaluate(commands)
    _predict(commands)
    _export(commands)
    _bench(commands)
    _command(commands, "methods", "list the methods and their options", "kdswift methods")
    return parser


def _command(commands: Any, name: str, text: str, example: str) -> argparse.ArgumentParser:
    return commands.add_parser(
        name,
        help=text,
        description=f"{text[0].upper()}{text[1:]}.",
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def _demo(commands: Any) -> None:
    p = _command(
        *(commands, "demo", "train a teacher, a student alone and a distilled student; compare"),
        "kdswift demo --out runs/demo --seeds 3",
    )
    p.add_argument("--out", default="runs/demo", help="folder (default %(default)s)")
    p.add_argument("--quick", action="store_true", help="a tiny budget, to see that all works")
    p.add_argument("--seeds", type=int, help="students of each kind (default 3; 1 with --quick)")
    p.add_argument("--difficulty", type=float, default=1.0, help="0 easy to 2 hard (default 1)")
    p.add_argument("--quiet", action="store_true", help="no progress bars")


def _train(commands: Any) -> None:
    p = _command(
        *(commands, "train", "train a detector"),
        "kdswift train --data digits --val digits --backbone resnet_small --out runs/teacher",
    )
    _add_model(p)
    _add_run(p)


def _distill(commands: Any) -> None:
    p = _command(
        *(commands, "distill", "train a student with the help of teachers"),
        "kdswift distill --teacher runs/teacher/best.safetensors --data digits --width 0.25 "
        "--out runs/student",
    )
    _add_teachers(p)
    _add_model(p)
    _add_method(p)
    cli_mtpd.add_progressive(p)
    _add_run(p)


def _plan(commands: Any) -> None:
    p = _command(
        *(commands, "plan", "choose teachers and their order for a student"),
        "kdswift plan --student student.safetensors --teacher a.safetensors "
        "--teacher b.safetensors --data digits --val digits --out runs/plan",
    )
    cli_mtpd.add_plan(p, _DATA_HELP, _METRICS)


def _doctor(commands: Any) -> None:
    p = _command(
        *(commands, "doctor", "check a distillation before hours are spent on it"),
        "kdswift doctor --teacher runs/teacher/best.safetensors --data digits --width 0.25",
    )
    _add_teachers(p)
    _add_model(p)
    _add_method(p)
    p.add_argument("-d", "--data", required=True, help=_DATA_HELP)
    p.add_argument("--batch-size", type=int, default=4, metavar="N", help="(default %(default)s)")
    p.add_argument(
        *("--sample",),
        type=int,
        default=32,
        metavar="N",
        help="images on which models are scored; 0 scores none (default %(default)s)",
    )
    p.add_argument("--optimizer", choices=("sgd", "adam", "adamw"), default="sgd")
    p.add_argument("--lr", type=float, metavar="X", help="learning rate")
    p.add_argument("--weight-decay", type=float, metavar="X")
    p.add_argument("--metric", default="coco", choices=_METRICS)
    p.add_argument("--seed", type=int, default=0, metavar="N")
    p.add_argument("--json", action="store_true", help="print JSON")


def _evaluate(commands: Any) -> None:
    p = _command(
        *(commands, "evaluate", "score a model on a data set"),
        "kdswift evaluate runs/student/best.safetensors --data digits:n=400",
    )
    p.add_argument("model", help="a model file")
    p.add_argument("-d", "--data", required=True, help=_DATA_HELP)
    p.add_argument("--metric", default="coco", choices=_METRICS)
    p.add_argument("--masks", action="store_true", help="compare masks in place of boxes (coco)")
    p.add_argument("--json", action="store_true", help="print JSON")
    p.add_argument("--quiet", action="store_true", help="no progress bar")


def _predict(commands: Any) -> None:
    p = _command(
        *(commands, "predict", "find objects in images"),
        "kdswift predict model.safetensors street.jpg --threshold 0.5 --out pictures",
    )
    p.add_argument("model", help="a model file")
    p.add_argument("images", nargs="+", help="image files")
    p.add_argument("--threshold", type=float, default=0.5, help="least score (default %(default)s)")
    p.add_argument("--max-detections", type=int, default=100, metavar="N")
    p.add_argument("--out", help="folder for pictures with boxes")
    p.add_argument("--json", action="store_true", help="print JSON")


def _export(commands: Any) -> None:
    p = _command(
        *(commands, "export", "write a model as an ONNX file"),
        "kdswift export runs/student/best.safetensors student.onnx --image-size 480 640",
    )
    p.add_argument("model", help="a .safetensors file")
    p.add_argument("out", help="the .onnx file")
    p.add_argument(
        "--image-size",
        type=int,
        nargs="+",
        metavar="PX",
        help="height and width of the images, or one side of a square (default: the model's)",
    )
    p.add_argument(
        "--threshold", type=float, default=0.05, help="least score (default %(default)s)"
    )
    p.add_argument("--max-detections", type=int, default=100, metavar="N")
    p.add_argument("--taps", nargs="+", default=[], metavar="NAME", help="further outputs")
    p.add_argument("--no-check", action="store_true", help="do not run it beside the model")


def _bench(commands: Any) -> None:
    p = _command(
        *(commands, "bench", "time a model: milliseconds per image and per training step"),
        "kdswift bench model.safetensors --image-size 600 1000",
    )
    p.add_argument("model", nargs="?", help="a model file; without it, the demo's two models")
    p.add_argument("--image-size", type=int, nargs="+", metavar="PX", help="height [width]")
    p.add_argument("--repeats", type=int, default=10, metavar="N")
    p.add_argument("--batch-size", type=int, default=8, metavar="N", help="of a training step")


def _add_teachers(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        *("-t", "--teacher"),
        action="append",
        required=True,
        metavar="FILE",
        help="a model file; may be given several times (their outputs are averaged)",
    )
    p.add_argument(
        *("-s", "--student"),
        metavar="FILE",
        help="the student to start from; without it one is made like the teacher, but for what "
        "--backbone and the other options of the model say",
    )


def _add_method(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        *("-m", "--method"),
        default="chen2017",
        metavar="NAME",
        help="what is compared: a name, with options as in cwd:weight=3, or a sum such as "
        "'cwd + 0.5*pkd'; `kdswift methods` lists them (default %(default)s)",
    )
    method = p.add_argument_group("options of chen2017")
    method.add_argument("--classification", choices=("weighted", "plain", "none"))
    method.add_argument("--regression", choices=("bounded", "l2", "none"))
    method.add_argument("--no-hint", action="store_true", help="compare no features")
    method.add_argument("--no-adaptation", action="store_true", help="hints without convolution")
    for name, text in (
        ("mu", "share of the hard labels"),
        ("nu", "weight of the bounded regression"),
        ("gamma", "weight of the hint"),
        ("temperature", "of the soft labels"),
    ):
        method.add_argument(f"--{name}", type=float, metavar="X", help=text)
    p.add_argument("--scale", type=float, metavar="X", help="factor on the method; 0 is none")
    p.add_argument("--teacher-size", type=int, metavar="PX", help="short side for the teacher")


def _add_model(p: argparse.ArgumentParser) -> None:
    model = p.add_argument_group("model")
    model.add_argument(
        "--detector",
        choices=(
            "atss",
            "cascade_rcnn",
            "faster_rcnn",
            "fcos",
            "gfl",
            "mask_rcnn",
            "retinanet",
            "rfcn",
        ),
        help="its kind; default the teacher's, else faster_rcnn",
    )
    model.add_argument(
        "--neck", choices=("fpn", "none"), help="between backbone and heads; default the detector's"
    )
    model.add_argument(
        "--backbone", help="a name of kd.backbones, such as resnet50; default resnet_small"
    )
    model.add_argument("--width", type=float, help="factor on every channel count (default 1)")
    model.add_argument("--frozen-stages", type=int, metavar="N", help="stages that do not learn")
    model.add_argument("--image-size", type=int, nargs="+", metavar="PX", help="short [long] side")
    model.add_argument("--anchors", type=_numbers, metavar="A,B,…", help="anchor sizes in pixels")
    model.add_argument("--ratios", type=_numbers, metavar="A,B,…", help="anchor heights / widths")
    model.add_argument("--weights", metavar="FILE", help="first weights; what fits is taken")


def _add_run(p: argparse.ArgumentParser) -> None:
    run = p.add_argument_group("run")
    run.add_argument("-d", "--data", required=True, help=_DATA_HELP)
    run.add_argument("--val", help="data set for the score after each epoch")
    run.add_argument("-o", "--out", required=True, help="folder for checkpoint, models and results")
    run.add_argument("--epochs", type=int, default=12, metavar="N", help="(default %(default)s)")
    run.add_argument("--batch-size", type=int, default=8, metavar="N", help="(default %(default)s)")
    run.add_argument("--optimizer", choices=("sgd", "adam", "adamw"), default="sgd")
    run.add_argument("--lr", type=float, metavar="X", help="learning rate")
    run.add_argument("--weight-decay", type=float, metavar="X")
    run.add_argument(
        "--schedule", choices=("constant", "linear", "cosine", "step"), default="cosine"
    )
    run.add_argument("--warmup", type=float, default=0.05, help="steps, or a part of the run")
    run.add_argument("--clip-norm", type=float, default=0.0, metavar="X", help="0 is off")
    run.add_argument("--flip", action="store_true", help="mirror half of the images")
    run.add_argument("--seed", type=int, default=0, metavar="N")
    run.add_argument("--workers", type=int, default=2, metavar="N", help="threads that load images")
    run.add_argument("--eval-every", type=int, default=1, metavar="N", help="epochs")
    run.add_argument("--metric", default="coco", choices=_METRICS)
    run.add_argument("--checkpoint-every", type=int, metavar="N", help="steps")
    run.add_argument(
        "--resume",
        choices=("auto", "yes", "no"),
        default="auto",
        help="continue what is in --out (auto: if there is something)",
    )
    run.add_argument("--quiet", action="store_true", help="no progress bar")


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of numbers") from None


if __name__ == "__main__":
    sys.exit(main())
