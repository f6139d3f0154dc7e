"""Engine objects behind detectors and training: handles with an owner, JSON in and out.

The only module above `tensors` that knows the C functions of detectors and trainers; what people
use is built on it.
"""

from __future__ import annotations

import ctypes
import json
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from . import _signatures as signatures
from ._library import lib
from .tensors import Tensor, tensor


class _Owner:
    """Owns one handle and ends it with the object, or earlier by `close`."""

    def __init__(self, handle: Any, release: str) -> None:
        self.handle = handle
        self._end = weakref.finalize(self, getattr(lib, release), handle)
        self._end.atexit = False

    def close(self) -> None:
        """Release now; the object must not be used again."""
        self._end()


def _new(kind: str, function: str, *arguments: Any) -> Any:
    """Call a function whose last parameter gives a handle of this kind."""
    handle = getattr(signatures, kind)()
    getattr(lib, function)(*arguments, ctypes.byref(handle))
    return handle


def _json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, allow_nan=False).encode()


def read_map(handle: Any) -> dict[str, Tensor]:
    """The entries of a tensor map, in its order; the tensors are live. Ends the map."""
    try:
        names = json.loads(lib.text("kds_tensor_map_names", handle))
        return {
            name: Tensor(_new("kds_tensor", "kds_tensor_map_tensor", handle, index))
            for index, name in enumerate(names)
        }
    finally:
        lib.kds_tensor_map_release(handle)


class Batch(_Owner):
    """Images, and targets if there are any, copied into the engine.

    Images and targets must have passed `kd.data.as_image` and `kd.data.check_target`.
    """

    def __init__(
        self, images: Sequence[np.ndarray], targets: Sequence[Mapping[str, Any]] | None = None
    ) -> None:
        count = len(images)
        whole = [image.dtype == np.uint8 for image in images]
        sizes = [i.shape[:2] if u else i.shape[1:] for i, u in zip(images, whole)]
        channels = [i.shape[2] if u else i.shape[0] for i, u in zip(images, whole)]
        pointers = (ctypes.c_void_p * count)(*[image.ctypes.data for image in images])
        counts = boxes = labels = None
        if targets is not None:
            counts = np.array([len(t["boxes"]) for t in targets], dtype=np.int64)
            boxes = _joined([t["boxes"] for t in targets], (0, 4), np.float32)
            labels = _joined([t["labels"] for t in targets], (0,), np.int64)
        arguments = (
            np.array([2 if u else 0 for u in whole], dtype=np.int32),
            np.array(channels, dtype=np.int64),
            np.array([height for height, _ in sizes], dtype=np.int64),
            np.array([width for _, width in sizes], dtype=np.int64),
        )
        handle = _new(
            "kds_batch", "kds_batch_create", count, pointers, *arguments, counts, boxes, labels
        )
        self.count = count
        self._sizes = [tuple(size) for size in sizes]
        super().__init__(handle, "kds_batch_release")
        for index, target in enumerate(targets or ()):
            if target.get("masks") is not None:
                masks = np.ascontiguousarray(target["masks"], dtype=np.uint8)
                lib.kds_batch_set_masks(handle, index, masks.ctypes.data, masks.size)

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """(height, width) of every image."""
        return self._sizes


def _joined(arrays: list[np.ndarray], empty: tuple[int, ...], dtype: type) -> np.ndarray:
    if not arrays:
        return np.zeros(empty, dtype)
    return np.ascontiguousarray(np.concatenate(arrays), dtype=dtype)


class Detector(_Owner):
    """A detector of the engine."""

    def __init__(self, handle: Any) -> None:
        super().__init__(handle, "kds_detector_release")

    @classmethod
    def create(cls, configuration: Mapping[str, Any], seed: int) -> Detector:
        """Build one; unknown keys are errors, absent ones take the engine's defaults."""
        return cls(_new("kds_detector", "kds_detector_create", _json(configuration), seed))

    def configuration(self) -> dict[str, Any]:
        """What rebuilds the detector, defaults filled in."""
        return json.loads(lib.text("kds_detector_configuration", self.handle))

    def state(self) -> dict[str, Tensor]:
        """Parameters, then buffers, by name; live tensors."""
        return read_map(_new("kds_tensor_map", "kds_detector_state", self.handle))

    def parameter_count(self) -> int:
        """How many of the first entries of the state are parameters."""
        count = ctypes.c_int64()
        lib.kds_detector_parameter_count(self.handle, ctypes.byref(count))
        return count.value

    def load(self, name: str, values: np.ndarray) -> None:
        """Copy values into one parameter or buffer of the same shape."""
        value = tensor(values)  # named: its handle goes with it
        lib.kds_detector_load(self.handle, name.encode(), value._handle)

    def set_training(self, training: bool) -> None:
        """Batch statistics and dropout on or off."""
        lib.kds_detector_set_training(self.handle, int(training))

    def set_requires_grad(self, learns: bool) -> None:
        """Whether parameters learn."""
        lib.kds_detector_set_requires_grad(self.handle, int(learns))

    def clear_gradients(self) -> None:
        """Forget the gradients of all parameters."""
        lib.kds_detector_clear_gradients(self.handle)

    def taps(self) -> list[dict[str, Any]]:
        """Taps as dicts of name, channels, stride, kind."""
        return json.loads(lib.text("kds_detector_taps", self.handle))

    def summary(self) -> list[dict[str, Any]]:
        """Layers as dicts of name, layer, parameters."""
        return json.loads(lib.text("kds_detector_summary", self.handle))

    def flops(self, height: int, width: int) -> float:
        """FLOPs of one forward pass, two per multiply-add."""
        flops = ctypes.c_double()
        lib.kds_detector_flops(self.handle, height, width, ctypes.byref(flops))
        return flops.value

    def surgery(self, kind: str, options: Mapping[str, Any]) -> tuple[Detector, Any]:
        """A changed copy by kds_detector_KIND, and the report as JSON gives it."""
        copy = Detector(_new("kds_detector", f"kds_detector_{kind}", self.handle, _json(options)))
        return copy, json.loads(lib.text("kds_detector_surgery_report", copy.handle))

    def losses(self, batch: Batch, seed: int) -> dict[str, Tensor]:
        """Training losses on the tape, by name."""
        handle = _new("kds_tensor_map", "kds_detector_losses", self.handle, batch.handle, seed)
        return read_map(handle)

    def features(self, batch: Batch) -> dict[str, Tensor]:
        """All taps of a forward pass."""
        return read_map(_new("kds_tensor_map", "kds_detector_features", self.handle, batch.handle))

    def maps(self, batch: Batch) -> dict[str, Tensor]:
        """The taps of backbone and neck; the heads do not run."""
        return read_map(_new("kds_tensor_map", "kds_detector_maps", self.handle, batch.handle))

    def anchors(self, height: int, width: int) -> dict[str, Tensor]:
        """The anchors of every level for a network's input of this size."""
        return read_map(_new("kds_tensor_map", "kds_detector_anchors", self.handle, height, width))

    def head_from(self, branch: str, start: int, level: int, features: Tensor) -> dict[str, Tensor]:
        """The rest of a one-stage head from inside a tower."""
        where = (branch.encode(), start, level, features._handle)
        return read_map(_new("kds_tensor_map", "kds_detector_head_from", self.handle, *where))

    def predict(
        self, batch: Batch, options: Mapping[str, Any]
    ) -> list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray | None]]:
        """(boxes, scores, labels, masks or None) of each image."""
        handle = _new(
            "kds_detections", "kds_detector_predict", self.handle, batch.handle, _json(options)
        )
        try:
            counts = np.zeros(batch.count, dtype=np.int64)
            lib.kds_detections_counts(handle, batch.count, counts)
            total = int(counts.sum())
            boxes = np.zeros((total, 4), dtype=np.float32)
            scores, labels = np.zeros(total, np.float32), np.zeros(total, np.int64)
            lib.kds_detections_read(handle, total, boxes, scores, labels)
            masks = [
                _masks(handle, i, int(count), size)
                for i, (count, size) in enumerate(zip(counts, batch.sizes))
            ]
        finally:
            lib.kds_detections_release(handle)
        cuts = np.cumsum(counts)[:-1]
        parts = (np.split(values, cuts) for values in (boxes, scores, labels))
        return list(zip(*parts, masks))


def _masks(handle: Any, image: int, count: int, size: tuple[int, int]) -> np.ndarray | None:
    """bool (count, height, width) of one image's detections; None without any."""
    needed = ctypes.c_int64()
    lib.kds_detections_masks(handle, image, 0, ctypes.byref(needed), None)
    if needed.value == 0:
        return None
    masks = np.zeros((count, *size), dtype=bool)
    lib.kds_detections_masks(handle, image, masks.size, ctypes.byref(needed), masks.ctypes.data)
    return masks


class Trainer(_Owner):
    """The training step of the engine, plain or with teachers."""

    def __init__(
        self, student: Detector, teachers: Sequence[Detector], options: Mapping[str, Any]
    ) -> None:
        # The engine keeps what it needs of the detectors alive; these keep their Python owners.
        self._detectors = (student, *teachers)
        handles = (signatures.kds_detector * max(1, len(teachers)))()
        for slot, teacher in enumerate(teachers):
            handles[slot] = teacher.handle
        handle = _new(
            *("kds_trainer", "kds_trainer_create"),
            *(student.handle, handles if teachers else None, len(teachers), _json(options)),
        )
        super().__init__(handle, "kds_trainer_release")

    def step(self, batch: Batch, teacher_batch: Batch | None) -> dict[str, float]:
        """One step; the metrics by name: loss, lr, grad_norm and every term."""
        other = None if teacher_batch is None else teacher_batch.handle
        lib.kds_trainer_step(self.handle, batch.handle, other)
        return self.metrics()

    def metrics(self) -> dict[str, float]:
        """The numbers of the last step: loss, the terms by name, lr, grad_norm."""
        values = json.loads(lib.text("kds_trainer_metrics", self.handle))
        ends = ("lr", "grad_norm")
        names = ["loss", *sorted(set(values) - {"loss", *ends}), *ends]
        return {name: values[name] for name in names if name in values}

    def forward(self, batch: Batch, teacher_batch: Batch | None) -> dict[str, Tensor]:
        """First half of a step: "student.NAME" and "teacher.NAME" of every tap."""
        other = None if teacher_batch is None else teacher_batch.handle
        return read_map(
            _new("kds_tensor_map", "kds_trainer_forward", self.handle, batch.handle, other)
        )

    def finish(self, losses: Mapping[str, Tensor]) -> dict[str, float]:
        """Second half: add weighted losses, walk back, update; the metrics."""
        handles = (signatures.kds_tensor * max(1, len(losses)))()
        for slot, loss in enumerate(losses.values()):
            handles[slot] = loss._handle
        names = json.dumps(list(losses)).encode()
        lib.kds_trainer_finish(self.handle, handles, names, len(losses))
        return self.metrics()

    def add_parameter(self, name: str, parameter: Tensor) -> None:
        """Let the optimizer update a tensor that a caller's term owns."""
        lib.kds_trainer_add_parameter(self.handle, name.encode(), parameter._handle)

    def set_factor(self, part: int, factor: float) -> None:
        """Factor on all that one of the engine's parts adds to the coming steps."""
        lib.kds_trainer_set_factor(self.handle, part, float(factor))

    @property
    def step_count(self) -> int:
        """Steps done; schedule and random streams follow it."""
        steps = ctypes.c_int64()
        lib.kds_trainer_step_count(self.handle, ctypes.byref(steps))
        return steps.value

    @step_count.setter
    def step_count(self, steps: int) -> None:
        lib.kds_trainer_set_step_count(self.handle, steps)

    def state(self) -> dict[str, Tensor]:
        """Optimizer state and connectors."""
        return read_map(_new("kds_tensor_map", "kds_trainer_state", self.handle))

    def load(self, name: str, values: np.ndarray) -> None:
        """Copy one entry of such a state back."""
        value = tensor(values)
        lib.kds_trainer_load(self.handle, name.encode(), value._handle)

    def report(self) -> Any:
        """Connectors and terms, as JSON gives them."""
        return json.loads(lib.text("kds_trainer_report", self.handle))
