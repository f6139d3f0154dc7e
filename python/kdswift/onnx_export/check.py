"""An exported model beside the detector that it came from, on a made-up image."""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np
from onnx import ModelProto, ValueInfoProto, numpy_helper

from .. import _engine
from ..errors import KDSError

# Float32 sums in another order, Winograd on one side: 1e-5 of the largest value is usual.
_MAP_TOLERANCE = 1e-3
# A tie that falls the other way takes a detection along; a wrong graph takes all.
_LEAST_MATCHED = 0.9
# Detections further apart are not the same one.
_BOX_GAP = 0.1
_SCORE_GAP = 1e-3


def compare(
    model: Any, proto: ModelProto, size: tuple[int, int], limit: int, nms_threshold: float | None
) -> dict[str, float]:
    """Run both on a made-up image, every score allowed.

    Returns the largest differences: "maps" (of the heads' outputs, relative to their largest
    value), "boxes" in pixels, "scores", "masks" (share of pixels), and "unmatched", the share of
    detections that one side alone has. Raises ``KDSError`` when they are not the same detector.
    """
    if importlib.util.find_spec("onnxruntime") is None:
        raise KDSError(
            "export_onnx: the check needs onnxruntime: pip install 'kdswift[onnx]', or check=False"
        )
    twin = at_size(model, size)
    image = made_up_image(model.configuration["backbone"]["in_channels"], size)
    maps = [tap for tap in _head_taps(twin) if _is_made(proto, tap)]
    found = _run(_opened(proto, maps), image)
    features = twin.features([image])
    differences = {"maps": max(_relative(found[tap], features[tap].numpy()) for tap in maps)}
    if differences["maps"] > _MAP_TOLERANCE:
        raise KDSError(
            f"export_onnx: the maps of the exported model differ by {differences['maps']:.1e} of "
            "their largest value; nothing was written"
        )
    ours = twin.predict([image], 0.0, limit, nms_threshold)[0]
    differences |= detection_differences(ours, found, size, limit)
    if differences["unmatched"] > 1 - _LEAST_MATCHED:
        raise KDSError(
            f"export_onnx: {100 * differences['unmatched']:.0f} % of the exported model's "
            "detections are not those of predict; nothing was written"
        )
    return differences


def at_size(model: Any, size: tuple[int, int]) -> Any:
    """The model itself, or a copy that takes images of (height, width) as they are."""
    short, longest = min(size), max(size)
    configuration = {**model.configuration, "image_min": short, "image_max": longest}
    twin = type(model)._wrap(_engine.Detector.create(configuration, 0), model.class_names)
    for name, values in model.state_dict().items():
        twin._engine.load(name, values)
    return twin


def made_up_image(channels: int, size: tuple[int, int], seed: int = 0) -> np.ndarray:
    """(channels, height, width) float32 in 0 to 1: rectangles of random colours, some noise."""
    rng = np.random.default_rng(seed)
    image = np.full((channels, *size), 0.5, dtype=np.float32)
    for _ in range(12):
        corners = np.sort(rng.random((2, 2)), axis=0) * size
        (top, left), (bottom, right) = corners.astype(int)
        image[:, top : bottom + 1, left : right + 1] = rng.random((channels, 1, 1))
    image += 0.05 * rng.standard_normal(image.shape).astype(np.float32)
    return np.clip(image, 0, 1)


def detection_differences(
    ours: Any, found: dict[str, np.ndarray], size: tuple[int, int], limit: int
) -> dict[str, float]:
    """Detections of `predict` and of an exported model, matched by label and nearest box.

    limit : most detections of either
    """
    from .pasting import paste_masks

    matched = _matches(ours, found)
    total = max(len(ours.scores), len(found["scores"]), 1)
    rows, others = (list(side) for side in zip(*matched)) if matched else ([], [])
    result = {
        "boxes": _largest(ours.boxes[rows] - found["boxes"][others]),
        "scores": _largest(ours.scores[rows] - found["scores"][others]),
    }
    if "masks" in found and matched:
        pasted = paste_masks(found["boxes"][others], found["masks"][others], *size)
        result["masks"] = float(np.mean(pasted != ours.masks[rows]))
    # Where the list is full, scores at its end may be tied with others that fell out.
    full = len(ours.scores) == len(found["scores"]) == limit
    bar = float(min(ours.scores)) + _SCORE_GAP if full else -1.0
    alone = np.concatenate(
        [np.delete(ours.scores, rows) > bar, np.delete(found["scores"], others) > bar]
    )
    return {**result, "unmatched": float(alone.sum()) / (2 * total)}


def _matches(ours: Any, found: dict[str, np.ndarray]) -> list[tuple[int, int]]:
    """Pairs whose label is the same, boxes within 0.1 pixels and scores within 0.001."""
    free, pairs = set(range(len(found["scores"]))), []
    for row in range(len(ours.scores)):
        near = [
            (float(np.abs(ours.boxes[row] - found["boxes"][other]).max()), other)
            for other in free
            if found["labels"][other] == ours.labels[row]
            and abs(found["scores"][other] - ours.scores[row]) < _SCORE_GAP
        ]
        if near and min(near)[0] < _BOX_GAP:
            pairs.append((row, min(near)[1]))
            free.discard(min(near)[1])
    return pairs


def _opened(proto: ModelProto, maps: list[str]) -> Any:
    """A session of a copy that lets every score pass and has the maps as outputs."""
    from ..teachers.onnx_models import _session

    copy = ModelProto()
    copy.CopyFrom(proto)
    for constant in copy.graph.initializer:
        if constant.name == "score_threshold":
            constant.CopyFrom(numpy_helper.from_array(np.zeros(1, np.float32), constant.name))
    have = {output.name for output in copy.graph.output}
    copy.graph.output.extend(ValueInfoProto(name=name) for name in maps if name not in have)
    return _session(copy.SerializeToString(), "export_onnx", 0)


def _run(session: Any, image: np.ndarray) -> dict[str, np.ndarray]:
    names = [output.name for output in session.get_outputs()]
    try:
        return dict(zip(names, session.run(names, {"image": image[None]})))
    except Exception as error:  # onnxruntime's own exceptions
        raise KDSError(f"export_onnx: onnxruntime cannot run the model: {error}") from None


def _head_taps(model: Any) -> list[str]:
    return [row["name"] for row in model._taps() if row["name"].startswith(("rpn.", "head."))]


def _is_made(proto: ModelProto, name: str) -> bool:
    return any(name in node.output for node in proto.graph.node)


def _relative(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a - b).max() / max(np.abs(b).max(), 1e-12))


def _largest(values: np.ndarray) -> float:
    return float(np.abs(values).max()) if values.size else 0.0
