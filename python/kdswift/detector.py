"""What every detector can do: learn, predict, show its outputs and weights, be saved."""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from . import _engine, runtime
from ._inputs import check_images, check_targets, image_size_pair
from ._numbers import check_count, check_fraction
from .data.images import image_size as size_of
from .data.images import to_uint8
from .detections import Detections
from .detector_weights import DetectorWeights
from .errors import ArgumentError, KDSError
from .heads import DetectorHeads
from .tensors import Tensor


class Detector(DetectorWeights, DetectorHeads):
    """Base of the detectors; make one with `kd.FasterRCNN` or `kd.load`.

    Attributes
    ----------
    num_classes : int, the background counted
    class_names : tuple of str or None, index 0 is ``"background"``
    training : bool, see `train` and `eval`;  frozen : bool, see `freeze`
    lineage : list of dict, the runs that made the weights; saved with the model
    """

    kind: ClassVar[str] = ""
    _kinds: ClassVar[dict[str, type[Detector]]] = {}
    # Each is a module of this package, imported when a configuration asks for it.
    KINDS: ClassVar[tuple[str, ...]] = (
        "atss",
        "cascade_rcnn",
        "faster_rcnn",
        "fcos",
        "gfl",
        "mask_rcnn",
        "retinanet",
        "rfcn",
    )

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        if cls.kind:
            Detector._kinds[cls.kind] = cls

    def _setup(self, engine: _engine.Detector, class_names: Sequence[str] | None) -> None:
        self._engine = engine
        configuration = engine.configuration()
        self.num_classes: int = int(configuration["num_classes"])
        self.class_names = _check_names(class_names, self.num_classes)
        # Whether it finds masks, and learns from those of the targets.
        self.has_masks = configuration.get("mask") is not None
        self.training = self.frozen = False
        self.lineage: list[dict[str, Any]] = []
        engine.set_training(False)

    @classmethod
    def from_configuration(cls, configuration: Mapping[str, Any], seed: int = 0) -> Detector:
        """Build a detector from what `configuration` gives, with weights drawn from `seed`."""
        name = configuration.get("detector")
        if name not in cls.KINDS:
            known = ", ".join(cls.KINDS)
            raise ArgumentError(f"detector {name!r} is unknown; there are {known}")
        importlib.import_module(f".{name}", __package__)
        kind = cls._kinds[name]
        return kind._wrap(
            _engine.Detector.create(configuration, seed), configuration.get("class_names")
        )

    @classmethod
    def _wrap(cls, engine: _engine.Detector, class_names: Sequence[str] | None) -> Detector:
        model = cls.__new__(cls)
        model._setup(engine, class_names or None)
        return model

    # Learning

    def fit(
        self,
        train: Any,
        epochs: int = 12,
        val: Any = None,
        optimizer: Any = None,
        schedule: Any = None,
        batch_size: int = 8,
        out: str | os.PathLike | None = None,
        resume: Any = "auto",
        callbacks: Any = (),
        precision: str = "fp32",
        seed: int = 0,
        progress: bool = True,
        augment: Any = None,
        workers: int = 2,
        eval_every: int | None = 1,
        metric: str = "coco",
        checkpoint_every: int | None = None,
        log_every: int = 10,
        clip_norm: float = 0.0,
    ) -> Any:
        """Learn from a data set, without a teacher.

        train : sequence of (image, target), or a kd.data.Loader.  Every other argument means what
        it means in `kd.distill`, and so do the files in `out`, Ctrl-C and the errors.

        Returns the History: a row per epoch with every loss by name.
        """
        from .distillation import fit
        from .run_options import Options

        options = Options(
            *(epochs, val, optimizer, schedule, batch_size, out, resume, callbacks, precision),
            *(seed, progress, augment, workers, eval_every, metric, checkpoint_every, log_every),
            clip_norm,
        )
        return fit(self, train, options)

    def losses(self, images: Any, targets: Any, seed: int | None = None) -> dict[str, Tensor]:
        """The training losses of a batch as scalars with gradients, by name.

        images : list of images;  targets : list of dicts with ``boxes`` and ``labels``, for
            detectors of masks also ``masks`` (N, H, W)
        seed : draws the samples and dropout; None counts on from `kd.seed`
        Batch statistics and dropout are those of the mode the model is in: see `train`.

        >>> sum(model.losses(images, targets).values()).backward()
        """
        arrays = check_images(images)
        checked = check_targets(targets, arrays, self.num_classes)
        _not_empty(arrays, "losses")
        with _closing(_engine.Batch(arrays, checked)) as batch:
            return self._engine.losses(batch, runtime.next_seed() if seed is None else seed)

    # Looking

    def predict(
        self,
        images: Any,
        score_threshold: float = 0.05,
        max_detections: int = 100,
        nms_threshold: float | None = None,
        batch_size: int = 8,
    ) -> list[Detections]:
        """Find objects.

        Parameters
        ----------
        images : one image, or a list of images whose sizes may differ
            uint8 (H, W, 3), float32 (3, H, W) in [0, 1], PIL images, or paths.
        score_threshold : least score of a detection
        max_detections : most detections per image, the best ones
        nms_threshold : IoU above which the lower-scored of two boxes of a class goes; None: the
            detector's own
        batch_size : images of one size that run together

        Returns
        -------
        list of Detections (of one for a single image), best score first, boxes (and masks, where
        the detector finds any) in pixels of the image that was given.

        Raises ``ShapeError``, ``ArgumentError`` or ``FormatError`` naming the image.
        """
        options = {
            "score_threshold": check_fraction(score_threshold, "score_threshold", "predict"),
            "max_detections": check_count(max_detections, "max_detections", "predict"),
        }
        if nms_threshold is not None:
            options["nms_threshold"] = check_fraction(nms_threshold, "nms_threshold", "predict")
        check_count(batch_size, "batch_size", "predict")
        arrays = check_images(images)
        results: list[Any] = [None] * len(arrays)
        for indices in _same_size(arrays, batch_size):
            with _closing(_engine.Batch([arrays[i] for i in indices])) as batch:
                found = self._engine.predict(batch, options)
            for i, (boxes, scores, labels, masks) in zip(indices, found):
                if masks is None and self.has_masks:
                    masks = np.zeros((0, *size_of(arrays[i])), dtype=bool)
                results[i] = Detections(
                    *(boxes, scores, labels, masks, self.class_names), image=to_uint8(arrays[i])
                )
        return results

    def features(self, images: Any) -> dict[str, Tensor]:
        """The outputs of all taps for a batch, by name; see `taps`."""
        arrays = check_images(images)
        _not_empty(arrays, "features")
        with _closing(_engine.Batch(arrays)) as batch:
            return self._engine.features(batch)

    def taps(self) -> Any:
        """The outputs that distillation may use: a table of name, channels, stride and kind."""
        from .summary import Table

        return Table(self._taps(), f"taps of {self!r}")

    def _taps(self) -> list[dict[str, Any]]:
        """What the engine lists, and what only a training step has."""
        return self._engine.taps()

    # States

    def train(self, training: bool = True) -> Detector:
        """Batch statistics and dropout as in training; `fit` does this by itself."""
        self._engine.set_training(bool(training))
        self.training = bool(training)
        return self

    def eval(self) -> Detector:
        """The opposite of `train`."""
        return self.train(False)

    def freeze(self, frozen: bool = True) -> Detector:
        """Let no parameter learn (or, with False, all but those frozen by the configuration)."""
        self._engine.set_requires_grad(not frozen)
        self.frozen = bool(frozen)
        return self

    def zero_grad(self) -> None:
        """Forget the gradients of all parameters."""
        self._engine.clear_gradients()

    # What it is

    @property
    def configuration(self) -> dict[str, Any]:
        """Everything that rebuilds the detector, without its weights."""
        return {**self._engine.configuration(), "class_names": list(self.class_names or [])}

    @property
    def image_size(self) -> tuple[int, int]:
        """(short side, most of the long side) to which images are scaled."""
        configuration = self._engine.configuration()
        return int(configuration["image_min"]), int(configuration["image_max"])

    @property
    def num_parameters(self) -> int:
        """How many numbers are learned."""
        return sum(tensor.size for tensor in self.parameters())

    def flops(self, image_size: Any = None) -> float:
        """FLOPs of one forward pass, two per multiply-add, all proposals included.

        image_size : (height, width) of the image; None: a square of the short side
        """
        size = self.image_size[0] if image_size is None else image_size
        return self._engine.flops(*image_size_pair(size, "flops"))

    def summary(self) -> Any:
        """The layers with their parameters; prints as a table."""
        from .summary import summarize

        return summarize(self)

    def benchmark(self, image_size: Any = None, repeats: int = 10, batch_size: int = 1) -> Any:
        """Time `predict` on a random image; see `kd.benchmark.Benchmark`."""
        from .benchmark import benchmark

        return benchmark(self, image_size, repeats, batch_size)

    # Copies and files

    def clone(self) -> Detector:
        """An independent copy: same configuration, weights, names and lineage."""
        copy = type(self)._wrap(_engine.Detector.create(self.configuration, 0), self.class_names)
        for name, tensor in self._engine.state().items():
            copy._engine.load(name, tensor.numpy())
        copy.lineage = [dict(entry) for entry in self.lineage]
        return copy.train(self.training)

    __copy__ = clone

    def __deepcopy__(self, _memo: dict) -> Detector:
        return self.clone()

    def save(self, path: str | os.PathLike) -> None:
        """Write weights, configuration, class names and lineage to a .safetensors file.

        The file appears whole or not at all; `kd.load` rebuilds the model from it alone.
        """
        from .modelfile import save

        save(self, path)

    def export_onnx(
        self,
        path: str | os.PathLike,
        image_size: Any = None,
        score_threshold: float = 0.05,
        max_detections: int = 100,
        nms_threshold: float | None = None,
        taps: Sequence[str] = (),
        check: bool = True,
    ) -> Any:
        """Write an ONNX file that finds objects as `predict` does, for images of one size.

        image_size : (height, width) of the images, or one number for a square; None: a square of
            the short side.  Whoever runs the file resizes to it
        score_threshold, max_detections, nms_threshold : as in `predict`, fixed in the file
        taps : names of `taps` that become outputs too
        check : run the file's graph beside `predict` on a made-up image first; needs onnxruntime

        The input is ``image``, float32 (1, 3, H, W), RGB in [0, 1]. Outputs are ``boxes`` (N, 4)
        xyxy in pixels of that image, ``scores`` (N), ``labels`` (N) int64, best first, and with
        masks ``masks`` (N, S, S), probabilities inside each box: `kdswift.onnx_export.paste_masks`
        draws them. Taps keep their names, for ``kd.Teacher.from_onnx(path, ["neck.p3"])``.

        Returns what was written, with the largest differences that the check saw. Raises
        ``KDSError`` when a package is missing or the check fails, ``ArgumentError`` naming the part
        that cannot be exported; then no file is written.
        """
        try:
            from .onnx_export import export
        except ModuleNotFoundError as error:
            raise KDSError(f"export_onnx needs {error.name}: pip install 'kdswift[onnx]'") from None
        return export(
            *(self, path, image_size, score_threshold, max_detections, nms_threshold, taps, check)
        )

    def __repr__(self) -> str:
        backbone = self._engine.configuration().get("backbone", {})
        width = backbone.get("width", 1.0)
        name = backbone.get("name", "?") + (f" x {width:g}" if width != 1 else "")
        return (
            f"{type(self).__name__}({name}, {self.num_classes} classes, "
            f"{self.num_parameters:,} parameters)"
        )


def _same_size(arrays: Sequence[np.ndarray], batch_size: int) -> Iterator[list[int]]:
    """Indices in batches of equal size, so that a result does not depend on its neighbours."""
    groups: dict[tuple[int, int], list[int]] = {}
    for i, array in enumerate(arrays):
        groups.setdefault(size_of(array), []).append(i)
    for indices in groups.values():
        for start in range(0, len(indices), batch_size):
            yield indices[start : start + batch_size]


@contextlib.contextmanager
def _closing(batch: _engine.Batch) -> Iterator[_engine.Batch]:
    try:
        yield batch
    finally:
        batch.close()


def _not_empty(arrays: Sequence[np.ndarray], where: str) -> None:
    if not arrays:
        raise ArgumentError(f"{where}: images is empty")


def _check_names(names: Sequence[str] | None, num_classes: int) -> tuple[str, ...] | None:
    if names is None:
        return None
    names = tuple(str(name) for name in names)
    if len(names) != num_classes:
        raise ArgumentError(
            f"class_names has {len(names)} names, num_classes is {num_classes}; index 0 is "
            "'background'"
        )
    return names
