"""An ONNX model as teacher, run by onnxruntime."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import ArgumentError, FormatError, KDSError
from ..teacher import Teacher
from .preparation import Preparation

_KINDS = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(uint8)": np.uint8,
}


class OnnxTeacher(Teacher):
    """See `kd.Teacher.from_onnx`."""

    kind = "onnx"

    def __init__(
        self,
        path: str | os.PathLike,
        taps: Mapping[str, str] | Iterable[str] | None,
        class_names: Sequence[str] | None,
        threads: int,
        preparation: tuple,
    ) -> None:
        self._path = os.fspath(path)
        if not os.path.isfile(self._path):
            raise FormatError(f"{self._path}: no such file")
        tensors = _tensors(taps)
        self._session = _session(self._path, self._path, threads)
        outputs = [o.name for o in self._session.get_outputs()]
        if tensors is None:
            tensors = {name: name for name in outputs}
        inner = [t for t in dict.fromkeys(tensors.values()) if t not in outputs]
        if inner:
            self._session = _session(_with_outputs(self._path, inner), self._path, threads)
        super().__init__(tensors, class_names)
        self._tensors = tensors
        self._input = self._only_input()
        self._preparation = self._fitted(preparation)
        self._digest: str | None = None

    def arrays(self, images: list[np.ndarray], names: Sequence[str] | None) -> Mapping[str, Any]:
        """One run, or one per image where the model takes one image only."""
        if self._session is None:
            raise ArgumentError(f"{self!r}: the teacher is closed")
        wanted = list(self.names if names is None else names)
        batch = self._preparation(images).astype(_KINDS[self._input.type], copy=False)
        groups = [batch]
        if self._fixed_batch is not None and self._fixed_batch != len(images):
            if self._fixed_batch != 1:
                raise ArgumentError(
                    f"{self._path}: the model takes batches of {self._fixed_batch}, got "
                    f"{len(images)} images"
                )
            groups = [batch[i : i + 1] for i in range(len(batch))]
        tensors = [self._tensors[name] for name in wanted]
        results = [self._run(tensors, group) for group in groups]
        return {
            name: values[0] if len(values) == 1 else np.concatenate(values)
            for name, values in zip(wanted, zip(*results))
        }

    def _run(self, tensors: list[str], batch: np.ndarray) -> list[np.ndarray]:
        try:
            return self._session.run(tensors, {self._input.name: batch})
        except Exception as error:  # onnxruntime has its own exceptions, all of RuntimeError's kind
            raise KDSError(
                f"{self._path}: onnxruntime refused a batch {batch.shape}: {error}"
            ) from None

    def description(self) -> dict[str, Any]:
        """A digest of the file, the tensors and the preparation."""
        if self._digest is None:
            digest = hashlib.blake2b(digest_size=16)
            with open(self._path, "rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
            self._digest = digest.hexdigest()
        return {
            "kind": self.kind,
            "model": self._digest,
            "taps": self._tensors,
            "images": self._preparation.describe(),
        }

    def close(self) -> None:
        """End the session."""
        self._session = None

    def _only_input(self) -> Any:
        inputs = self._session.get_inputs()
        if len(inputs) != 1 or len(inputs[0].shape) != 4 or inputs[0].type not in _KINDS:
            shown = ", ".join(f"{i.name} {i.type} {i.shape}" for i in inputs)
            raise ArgumentError(
                f"{self._path}: a teacher needs one image input (N, 3, H, W), the model has {shown}"
            )
        return inputs[0]

    @property
    def _fixed_batch(self) -> int | None:
        first = self._input.shape[0]
        return first if isinstance(first, int) and first > 0 else None

    def _fitted(self, arguments: tuple) -> Preparation:
        """The preparation, with the fixed height and width of the model if it has them."""
        image_size, exact_size, batch, layout, *others = arguments
        shape = self._input.shape
        size = shape[2:] if layout == "chw" else shape[1:3]
        if all(isinstance(n, int) and n > 0 for n in size):
            if exact_size is not None and tuple(exact_size) != tuple(size):
                raise ArgumentError(
                    f"{self._path}: exact_size is {exact_size!r}, the model takes {tuple(size)}"
                )
            if image_size is not None:
                raise ArgumentError(
                    f"{self._path}: the model takes {tuple(size)} only; leave image_size away"
                )
            exact_size = tuple(size)
        return Preparation(image_size, exact_size, batch, layout, *others)


def _tensors(taps: Any) -> dict[str, str] | None:
    if taps is None:
        return None
    if isinstance(taps, str) or not taps:
        raise ArgumentError(f"Teacher.from_onnx: taps is {taps!r}, expected names of tensors")
    return dict(taps) if isinstance(taps, Mapping) else {name: name for name in taps}


def _session(model: Any, path: str, threads: int) -> Any:
    try:
        import onnxruntime
    except ImportError:
        raise KDSError("Teacher.from_onnx needs onnxruntime: pip install onnxruntime") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = int(threads)
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise FormatError(f"{path}: onnxruntime cannot open it: {error}") from None


def _with_outputs(path: str, tensors: Sequence[str]) -> bytes:
    """The model with further tensors as outputs."""
    try:
        import onnx
    except ImportError:
        raise KDSError(
            f"{path}: {', '.join(tensors)} is no output of the model; taking tensors from inside "
            "the graph needs the onnx package: pip install onnx"
        ) from None
    model = onnx.load(path)
    made = [name for node in model.graph.node for name in node.output if name]
    for name in tensors:
        if name not in made:
            outputs = [o.name for o in model.graph.output]
            raise ArgumentError(
                f"{path}: the model has no tensor {name!r}; its outputs are {', '.join(outputs)}, "
                f"inside are {', '.join(made[:12])}{' …' if len(made) > 12 else ''}"
            )
        # Without a type: onnxruntime finds it out.
        model.graph.output.append(onnx.ValueInfoProto(name=name))
    return model.SerializeToString()
