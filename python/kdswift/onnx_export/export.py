"""From a detector to a file: the graph is put together, checked and written."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, helper

from .._files import atomic
from .._inputs import image_size_pair
from .._numbers import check_count, check_fraction
from .._version import __version__
from ..errors import ArgumentError, KDSError
from .graph import IR_VERSION, OPSET, Graph, Map
from .neck import feature_levels
from .one_stage import ONE_STAGE, one_stage
from .two_stage import Prediction, two_stage

KINDS = ("cascade_rcnn", "faster_rcnn", "mask_rcnn", *ONE_STAGE)
# Protocol buffers end at 2 GB.
_LARGEST = (1 << 31) - 1


@dataclass(frozen=True)
class Export:
    """What `Detector.export_onnx` wrote.

    path : of the file;  image_size : (height, width) of its input;  size : bytes
    inputs, outputs : names and shapes; dimensions that vary have names
    differences : largest difference from `predict` by what was compared, see `check`; empty if
        nothing was compared
    """

    path: str
    image_size: tuple[int, int]
    size: int
    inputs: dict[str, tuple]
    outputs: dict[str, tuple]
    differences: dict[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        shapes = ", ".join(f"{n} {_shown(s)}" for n, s in {**self.inputs, **self.outputs}.items())
        text = f"{self.path}: {self.size / 1e6:.1f} MB, {shapes}"
        if self.differences:
            found = ", ".join(f"{name} {value:.1e}" for name, value in self.differences.items())
            text += f"; beside predict: {found}"
        return text


def export(
    model: Any,
    path: str | os.PathLike,
    image_size: Any = None,
    score_threshold: float = 0.05,
    max_detections: int = 100,
    nms_threshold: float | None = None,
    taps: Sequence[str] = (),
    check: bool = True,
) -> Export:
    """See `Detector.export_onnx`."""
    size = image_size_pair(model.image_size[0] if image_size is None else image_size, "export_onnx")
    threshold = check_fraction(score_threshold, "score_threshold", "export_onnx")
    limit = check_count(max_detections, "max_detections", "export_onnx")
    if nms_threshold is not None:
        nms_threshold = check_fraction(nms_threshold, "nms_threshold", "export_onnx")
    if isinstance(taps, str):
        taps = (taps,)
    proto = build(model, size, threshold, limit, nms_threshold, tuple(taps))
    differences: dict[str, float] = {}
    if check:
        from .check import compare

        differences = compare(model, proto, size, limit, nms_threshold)
    data = proto.SerializeToString()
    with atomic(path) as temporary, open(temporary, "wb") as file:
        file.write(data)
    return Export(
        *(os.fspath(path), size, len(data), _shapes(proto.graph.input)),
        *(_shapes(proto.graph.output), differences),
    )


def build(
    model: Any,
    size: tuple[int, int],
    threshold: float,
    limit: int,
    nms_threshold: float | None,
    taps: tuple[str, ...] = (),
) -> ModelProto:
    """The model; see `export` for the arguments."""
    configuration = model.configuration
    kind = configuration["detector"]
    if kind not in KINDS:
        raise ArgumentError(
            f"export_onnx: a {kind!r} cannot be exported; those that can are {', '.join(KINDS)}"
        )
    _refuse_surgery(configuration)
    graph = Graph(model.state_dict())
    section = configuration["head" if kind in ONE_STAGE else "roi"]
    divisor = configuration["size_divisor"]
    padded = tuple(-(-side // divisor) * divisor for side in size)
    prediction = Prediction(
        graph.constant(np.array([threshold], np.float32), "score_threshold"),
        section["nms"] if nms_threshold is None else nms_threshold,
        *(limit, size, padded),
    )
    image = _normalized(graph, configuration, size, padded)
    levels, pooled = feature_levels(graph, image, configuration)
    if kind in ONE_STAGE:
        found = one_stage(graph, levels, configuration, prediction)
    else:
        found = two_stage(graph, levels, pooled, configuration, prediction)
    _refuse_unused(graph)
    _add_outputs(graph, found, configuration)
    for tap in taps:
        _add_tap(graph, tap, model)
    return _finished(graph, model, configuration, size, prediction)


def _refuse_surgery(configuration: Any) -> None:
    """Signs and quantizers leave no trace among the weights: the graph would be another model's."""
    record = json.loads(configuration.get("surgery") or "{}")
    for key, what in (("binary", "convolutions of signs"), ("quantizers", "quantized maps")):
        if record.get(key):
            raise ArgumentError(
                f"export_onnx: {what} ({record[key][0]['layer']}) cannot be exported"
            )


def _normalized(
    graph: Graph, configuration: Any, size: tuple[int, int], padded: tuple[int, int]
) -> Map:
    """(image - mean) / deviation, then zeros up to the padded size."""
    channels = configuration["backbone"]["in_channels"]
    mean = np.asarray(configuration["image_mean"], np.float32)[:, None, None]
    deviation = np.asarray(configuration["image_std"], np.float32)[:, None, None]
    x = graph.node("Div", graph.node("Sub", "image", mean), deviation)
    if padded != size:
        after = [padded[0] - size[0], padded[1] - size[1]]
        x = graph.node("Pad", x, [0, 0, 0, 0, 0, 0, *after])
    return Map(x, channels, *padded)


def _refuse_unused(graph: Graph) -> None:
    """A weight that the graph does not read belongs to a part that is not understood here."""
    left = sorted(set(graph.state) - graph.taken)
    if left:
        raise ArgumentError(
            f"export_onnx: this model has parts that cannot be exported: {', '.join(left[:3])}"
            + (f" and {len(left) - 3} more weights" if len(left) > 3 else "")
        )


def _add_outputs(graph: Graph, found: dict[str, str], configuration: Any) -> None:
    for name, tensor in found.items():
        graph.node("Identity", tensor, name=name)
    graph.output("boxes", ["detections", 4])
    graph.output("scores", ["detections"])
    graph.output("labels", ["detections"], TensorProto.INT64)
    if "masks" in found:
        side = 2 * configuration["mask"]["pool_size"]
        graph.output("masks", ["detections", side, side])


def _add_tap(graph: Graph, tap: str, model: Any) -> None:
    made = {name for node in graph.nodes for name in node.output}
    row = next((row for row in model._taps() if row["name"] == tap), None)
    if row is None or tap not in made:
        known = [row["name"] for row in model._taps() if row["name"] in made]
        raise ArgumentError(f"export_onnx: taps has {tap!r}; there are {', '.join(known)}")
    if tap.startswith("roi."):
        graph.output(tap, ["regions", row["channels"]])
    else:
        graph.output(tap, [1, row["channels"], f"height of {tap}", f"width of {tap}"])


def _finished(
    graph: Graph, model: Any, configuration: Any, size: tuple[int, int], prediction: Prediction
) -> ModelProto:
    channels = configuration["backbone"]["in_channels"]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, channels, *size])
    made = helper.make_graph(
        *(graph.nodes, configuration["detector"], [image], graph.outputs),
        initializer=list(graph.constants.values()),
    )
    proto = helper.make_model(
        made,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="kdswift",
        producer_version=__version__,
    )
    helper.set_model_props(
        proto,
        {
            "detector": configuration["detector"],
            "class_names": json.dumps(list(model.class_names or ())),
            "num_classes": str(model.num_classes),
            "image_size": json.dumps(list(size)),
            "max_detections": str(prediction.max_detections),
            "nms_threshold": str(prediction.nms_threshold),
        },
    )
    if proto.ByteSize() > _LARGEST:
        raise KDSError("export_onnx: the model is larger than 2 GB, the most an ONNX file holds")
    return proto


def _shapes(values: Any) -> dict[str, tuple]:
    return {
        value.name: tuple(d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim)
        for value in values
    }


def _shown(shape: tuple) -> str:
    return "x".join(str(n or "?") for n in shape)
