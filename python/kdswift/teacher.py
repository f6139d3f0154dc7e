"""`kd.Teacher`: anything that gives named arrays for a batch of images may teach.

kd.Teacher.from_callable(lambda images: {"p3": ...})
kd.Teacher.from_torch(module, {"c4": "backbone.body.layer3"})
kd.Teacher.from_onnx("model.onnx", ["logits"])
kd.Teacher.from_coco_results("results.json", train)
kd.Teacher.cached(teacher, "cache")
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ._exchange import to_array
from .errors import ArgumentError, KDSError, ShapeError

_SHOWN = 16


class Teacher:
    """A teacher outside the engine. `kd.distill` asks it for arrays, batch by batch, and compares
    them in the terms of a `kd.Method`; it never learns.

    Attributes
    ----------
    names : tuple of str or None
        The taps it offers; None until the first batch when it was not told.
    class_names : tuple of str or None, index 0 is ``"background"``
        Where a term compares class logits of the student, they must be the student's.

    A class of your own defines `arrays(images, names)`, and `description` if it may be resumed or
    cached. Used as a context manager, or by `close`, it lets go of what it holds.
    """

    kind = "teacher"

    def __init__(
        self, names: Iterable[str] | None = None, class_names: Sequence[str] | None = None
    ) -> None:
        self.names = None if names is None else _names(names)
        self.class_names = None if class_names is None else tuple(str(n) for n in class_names)

    # For classes that derive

    def arrays(self, images: list[np.ndarray], names: Sequence[str] | None) -> Mapping[str, Any]:
        """The taps of a batch, first axis the batch.

        images : uint8 (H, W, 3) or float32 (3, H, W) in [0, 1];  names : those wanted, None: all
        """
        raise NotImplementedError

    def description(self) -> dict[str, Any]:
        """What the values depend on, as plain data: kept with a run, and part of a cache's keys."""
        return {"kind": self.kind}

    def close(self) -> None:
        """Let go of models and sessions; the teacher must not be used again."""

    # For everyone

    def outputs(
        self, images: Sequence[np.ndarray], names: Sequence[str] | None = None
    ) -> dict[str, np.ndarray]:
        """Checked taps of a batch: float32 arrays whose first axis is the batch.

        Raises ``ArgumentError`` for a tap that is not there or values that are not finite, and
        ``ShapeError`` for a batch of the wrong size; both name the tap.
        """
        if not len(images):
            raise ArgumentError(f"{self!r}: images is empty")
        for name in names or ():
            if self.names is not None and name not in self.names:
                raise ArgumentError(_missing(self, name, self.names))
        values = self.arrays(list(images), names)
        if not isinstance(values, Mapping):
            raise ArgumentError(
                f"{self!r}: a teacher gives a dict of arrays by name, got {type(values).__name__}"
            )
        if self.names is None:
            self.names = _names(values)
        wanted = self.names if names is None else names
        for name in wanted:
            if name not in values:
                raise ArgumentError(_missing(self, name, values))
        return {name: _checked(values[name], f"tap {name!r}", len(images)) for name in wanted}

    def taps(self, images: Sequence[np.ndarray]) -> list[dict[str, Any]]:
        """What it offers, found out with these images: dicts of name, channels, stride, kind."""
        height = _height(images[0])
        return [tap_row(name, array, height) for name, array in self.outputs(images).items()]

    def __enter__(self) -> Teacher:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def __repr__(self) -> str:
        offers = "" if self.names is None else ", ".join(self.names)
        return f"Teacher({self.kind}: {offers})" if offers else f"Teacher({self.kind})"

    # How to make one

    @staticmethod
    def from_callable(
        fn: Callable[[Any], Mapping[str, Any]],
        taps: Iterable[str] | None = None,
        class_names: Sequence[str] | None = None,
        image_size: Any = None,
        *,
        batch: bool = False,
        layout: str = "chw",
        normalize: Any = None,
        scale: float = 1.0,
        channels: str = "rgb",
        exact_size: tuple[int, int] | None = None,
        divisor: int = 1,
        version: str = "",
    ) -> Teacher:
        """A function as teacher: ``fn(images) -> {name: array}``.

        fn : gets the augmented pictures of a batch, and gives NumPy arrays, torch tensors or
            anything with DLPack, (N, …) each; maps are (N, C, H, W)
        taps : the names it gives; None: found out with the first batch
        image_size : short side, or (short, longest) side, to which pictures are resized; None: as
            they come (see `teacher_size` of `kd.distill`)
        exact_size : (height, width) for a model that takes only that; the aspect ratio changes
        batch : False: a list of float32 (3, H, W) arrays; True: one (N, 3, H, W) array, smaller
            pictures in the top left corner, zeros (after `normalize`) elsewhere
        divisor : height and width of such an array are rounded up to a multiple of it
        layout : "chw", or "hwc" for (H, W, 3) and (N, H, W, 3)
        normalize : (mean, std) of three numbers each, or "imagenet"; None: pixels as they are
        scale : pixels are in [0, scale]; 1 or 255, before `normalize`
        channels : "rgb" or "bgr"
        version : part of what identifies the function in runs and caches, beside its name: change
            it when the function's results change
        """
        from .teachers.functions import CallableTeacher
        from .teachers.preparation import Preparation

        preparation = Preparation(
            *(image_size, exact_size, batch, layout, normalize, scale, channels, divisor)
        )
        return CallableTeacher(fn, taps, class_names, preparation, version)

    @staticmethod
    def from_torch(
        module: Any,
        taps: Mapping[str, str] | Iterable[str],
        class_names: Sequence[str] | None = None,
        image_size: Any = None,
        *,
        batch: bool | str = "auto",
        normalize: Any = None,
        scale: float = 1.0,
        channels: str = "rgb",
        exact_size: tuple[int, int] | None = None,
        divisor: int = 1,
    ) -> Teacher:
        """Outputs of the submodules of a PyTorch model. Needs torch.

        module : torch.nn.Module; runs in eval mode without gradients, wherever it lies (CPU, GPU);
            its training flags are put back after every batch, and no hook stays
        taps : {name: path}, or paths that are their own names. A path is the dotted name of a
            submodule, then keys into its output where that is a dict or a tuple:
            ``"backbone.fpn.0"``. ``"head.conv#2"`` is the third call of a submodule that runs
            several times; ``""`` is the module itself.
        batch : "auto": a list of (3, H, W) tensors for torchvision's detectors (they scale and
            normalise by themselves), one padded (N, 3, H, W) tensor for everything else
        Everything else means what it means in `from_callable`; a backbone trained on ImageNet
        wants ``normalize="imagenet"``.

        Raises ``KDSError`` if torch is not installed, ``ArgumentError`` naming a path that is not
        there, or that ran never or more than once.
        """
        from .teachers.preparation import Preparation
        from .teachers.torch_modules import TorchTeacher, takes_lists

        as_batch = not takes_lists(module) if batch == "auto" else batch
        preparation = Preparation(
            *(image_size, exact_size, as_batch, "chw", normalize, scale, channels, divisor)
        )
        return TorchTeacher(module, taps, class_names, preparation)

    @staticmethod
    def from_onnx(
        path: str | os.PathLike,
        taps: Mapping[str, str] | Iterable[str] | None = None,
        class_names: Sequence[str] | None = None,
        image_size: Any = None,
        *,
        normalize: Any = None,
        scale: float = 1.0,
        channels: str = "rgb",
        layout: str = "chw",
        exact_size: tuple[int, int] | None = None,
        divisor: int = 1,
        threads: int = 0,
    ) -> Teacher:
        """Tensors of an ONNX model with one image input. Needs onnxruntime.

        taps : names of tensors, or {name: tensor}; None: all outputs. A tensor inside the graph is
            made an output of a copy in memory, which needs the onnx package too.
        exact_size : taken from the model when its input has a fixed height and width
        threads : of onnxruntime; 0 is its own choice
        A model with a fixed batch of 1 is run image by image.

        Raises ``KDSError`` if a package is missing, ``FormatError`` for a file that is no model,
        ``ArgumentError`` naming a tensor that is not there.
        """
        from .teachers.onnx_models import OnnxTeacher

        return OnnxTeacher(
            *(path, taps, class_names, threads),
            (image_size, exact_size, True, layout, normalize, scale, channels, divisor),
        )

    @staticmethod
    def from_coco_results(
        results: Any,
        dataset: Any,
        *,
        score_threshold: float = 0.5,
        keep_ground_truth: bool = True,
        iou_threshold: float = 0.5,
        categories: Mapping[int, Any] | None = None,
    ) -> Teacher:
        """Detections of any detector, from a COCO results file, as hard labels.

        What is used: boxes and classes of the detections with enough score, as further targets
        (pseudo-labels). `kd.distill` trains on `kd.data.PseudoLabels(train, teacher)`; there are
        no taps, so that neither `Chen2017` nor a `Term` can use this teacher.

        results : path of a .json file, or its list of dicts with ``image_id``, ``category_id``,
            ``bbox`` ([x, y, width, height] in pixels) and ``score``
        dataset : the data set it was made for. ``image_id`` is one of its ``ids`` (the ids of a
            COCO file, VOC's names), or the position of the image
        score_threshold : least score of a detection that becomes a target
        keep_ground_truth : whether the data set's own boxes stay
        iou_threshold : a detection that overlaps a box of its class by more is left out
        categories : {category_id: label or class name}; None: the data set's ``category_ids`` if
            it has them, else the category is the label

        ``teacher.detections(image_id)`` gives the `kd.Detections` of an image, best first.
        Raises ``FormatError`` or ``ArgumentError`` naming file and entry.
        """
        from .teachers.coco_results import CocoResultsTeacher

        return CocoResultsTeacher(
            *(results, dataset, score_threshold, keep_ground_truth, iou_threshold, categories)
        )

    @staticmethod
    def cached(teacher: Any, folder: str | os.PathLike, dtype: str = "float32") -> Teacher:
        """A teacher whose taps are kept on disk, one file per image and view.

        teacher : a `Teacher` or a kdswift detector
        folder : may be shared by several teachers and runs
        dtype : "float32" keeps exact values; "float16" rounds them and takes half the space. Arrays
            with values of 65504 and more stay float32

        An entry is keyed by the pixels of the augmented view, the teacher (its description,
        weights included), the tap and the type; values are read by memory mapping. Entries that
        are damaged are computed anew. Images go to the teacher one by one (to a detector always as
        many, up to 4), so that a value never depends on its neighbours in a batch.
        ``estimate(dataset)`` tells how much will be written, how long the teacher takes, and how
        much float16 rounds; a run reports it before its first step. Random augmentation makes new
        views, and so new entries, in every epoch.
        """
        from .teachers.cached import CachedTeacher

        return CachedTeacher(as_teacher(teacher, "Teacher.cached"), folder, dtype)


def as_teacher(value: Any, where: str) -> Teacher:
    """A teacher from itself or from a kdswift detector."""
    from .detector import Detector

    if isinstance(value, Detector):
        from .teachers.detectors import DetectorTeacher

        return DetectorTeacher(value)
    if not isinstance(value, Teacher):
        raise ArgumentError(
            f"{where}: teacher must be a kdswift detector or a kd.Teacher, got "
            f"{type(value).__name__}; a function becomes one by kd.Teacher.from_callable"
        )
    return value


def tap_row(name: str, array: np.ndarray, image_height: int) -> dict[str, Any]:
    """The row of a tap in tables: maps are features, everything else is compared as it is."""
    is_map = array.ndim == 4
    stride = max(1, round(image_height / array.shape[2])) if is_map and array.shape[2] else None
    return {
        "name": name,
        "channels": int(array.shape[1]) if array.ndim > 1 else 1,
        "stride": stride,
        "kind": "feature" if is_map else "output",
    }


def check_finite(array: np.ndarray, name: str, items: Sequence[Any]) -> None:
    """Raise ``KDSError`` naming the tap and the items with NaN or infinity."""
    if np.isfinite(array).all():
        return
    flat = array.reshape(len(array), -1)
    bad = [str(items[i]) for i in np.flatnonzero(~np.isfinite(flat).all(axis=1))]
    more = " …" if len(bad) > _SHOWN else ""
    raise KDSError(
        f"teacher: {name} is not finite for item{'s' if len(bad) > 1 else ''} "
        f"{', '.join(bad[:_SHOWN])}{more}"
    )


def _checked(value: Any, name: str, count: int) -> np.ndarray:
    if hasattr(value, "detach"):  # torch refuses to hand out what waits for a gradient
        value = value.detach()
    array = to_array(value, f"teacher: {name}")
    if array.dtype != np.float32:
        array = array.astype(np.float32)
    if array.ndim == 0 or array.shape[0] != count:
        raise ShapeError(
            f"teacher: {name} has shape {array.shape} for a batch of {count} images; the first "
            "axis must be the batch"
        )
    return array


def _names(names: Iterable[str]) -> tuple[str, ...]:
    if isinstance(names, str):
        raise ArgumentError(f"teacher: taps must be a list of names, got {names!r}")
    result = tuple(names)
    for name in result:
        if not isinstance(name, str) or not name:
            raise ArgumentError(f"teacher: a tap's name must be a string, got {name!r}")
    if len(set(result)) != len(result):
        raise ArgumentError(f"teacher: taps are named twice: {', '.join(result)}")
    return result


def _missing(teacher: Teacher, name: str, offered: Iterable[str]) -> str:
    return f"{teacher!r} has no tap {name!r}; it offers {', '.join(offered) or 'none'}"


def _height(image: np.ndarray) -> int:
    return image.shape[0] if image.dtype == np.uint8 else image.shape[1]
