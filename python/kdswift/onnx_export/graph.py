"""An ONNX graph under construction: nodes, constants, and the weights that go into it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper

from ..errors import KDSError

OPSET = 17
# The file format of that operator set: onnxruntime 1.12 and later read it.
IR_VERSION = 8


@dataclass(frozen=True)
class Map:
    """A tensor (N, channels, height, width) of the graph; N is 1, or the number of regions."""

    name: str
    channels: int
    height: int
    width: int


class Graph:
    """Collects nodes and constants; `taken` tells which weights were asked for.

    Inputs of nodes are names of tensors, arrays, or numbers: a float becomes a float32 scalar, an
    int an int64 scalar, a list of ints an int64 vector.
    """

    def __init__(self, state: Mapping[str, np.ndarray]) -> None:
        self.state = dict(state)
        self.taken: set[str] = set()
        self.nodes: list[NodeProto] = []
        self.constants: dict[str, TensorProto] = {}
        self.outputs: list[Any] = []
        self._counts: dict[str, int] = {}

    def node(self, operator: str, *inputs: Any, name: str | None = None, **attributes: Any) -> str:
        """Add a node with one output, which is called `name`; the output's name."""
        return self.split(operator, *inputs, names=[name], **attributes)[0]

    def split(
        self, operator: str, *inputs: Any, names: Sequence[str | None], **attributes: Any
    ) -> list[str]:
        """Add a node with as many outputs as names; None makes one up."""
        outputs = [self._fresh(operator) if name is None else name for name in names]
        tensors = [value if isinstance(value, str) else self.constant(value) for value in inputs]
        node = helper.make_node(operator, tensors, outputs, name=outputs[0], **attributes)
        self.nodes.append(node)
        return outputs

    def constant(self, value: Any, name: str | None = None) -> str:
        """The name of a constant tensor; equal ones without a name are kept once."""
        array = np.ascontiguousarray(_as_array(value)).reshape(np.shape(value))
        if name is None:
            digest = hashlib.blake2b(array.tobytes(), digest_size=8).hexdigest()
            name = f"constant_{array.dtype}_{'x'.join(map(str, array.shape))}_{digest}"
        if name not in self.constants:
            self.constants[name] = numpy_helper.from_array(array, name)
        return name

    def has(self, name: str) -> bool:
        """Whether the model has this weight, or parts below it."""
        return name in self.state or any(key.startswith(name + ".") for key in self.state)

    def weight(self, name: str) -> np.ndarray:
        """A weight of the model as float32."""
        if name not in self.state:
            raise KDSError(f"export_onnx: the model has no weight {name!r}")
        self.taken.add(name)
        return np.asarray(self.state[name], dtype=np.float32)

    def output(self, name: str, shape: Sequence[Any], kind: int = TensorProto.FLOAT) -> None:
        """Make a tensor an output; dimensions are numbers or names of those that vary."""
        self.outputs.append(helper.make_tensor_value_info(name, kind, list(shape)))

    def _fresh(self, operator: str) -> str:
        count = self._counts[operator] = self._counts.get(operator, 0) + 1
        return f"{operator}_{count}"


def _as_array(value: Any) -> np.ndarray:
    if isinstance(value, np.ndarray):
        return value
    if isinstance(value, float):
        return np.array(value, dtype=np.float32)
    return np.array(value, dtype=np.int64)
