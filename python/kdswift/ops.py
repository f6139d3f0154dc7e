"""Operations on boxes, with torchvision's semantics and argument names: `kd.ops.nms` and so on.

Boxes are (N, 4) float32, x1 y1 x2 y2 in pixels with x1 <= x2 and y1 <= y2. Results are arrays when
the first argument is an array (or a list), and Tensors when it is a Tensor.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ._operators import _floats
from .errors import ArgumentError, ShapeError
from .functional import _pair
from .tensors import Tensor, apply, as_tensor, tensor

__all__ = [
    *("batched_nms", "box_iou", "deform_conv2d", "generalized_box_iou", "match_boxes", "nms"),
    *("ps_roi_pool", "quantize", "roi_align", "roi_pool"),
]

Array = Any


def nms(boxes: Array, scores: Array, iou_threshold: float) -> Array:
    """Indices (int64) of the boxes that stay, by falling score.

    A box goes when its IoU with a better one is above `iou_threshold`; of equal scores the earlier
    box is the better one. `torchvision.ops.nms`.

    Args:
        boxes: (N, 4).
        scores: (N,).
        iou_threshold: 0 to 1.
    """
    inputs = [_boxes("nms", boxes, "boxes"), _vector("nms", scores, boxes, "scores")]
    return _like(boxes, apply("nms", inputs, iou_threshold=_threshold("nms", iou_threshold)))


def batched_nms(boxes: Array, scores: Array, idxs: Array, iou_threshold: float) -> Array:
    """`nms` within each class: boxes of different `idxs` never suppress each other.

    Args:
        boxes: (N, 4).
        scores: (N,).
        idxs: (N,) int64, the class (or image) of each box.
        iou_threshold: 0 to 1.
    """
    name = "batched_nms"
    inputs = [_boxes(name, boxes, "boxes"), _vector(name, scores, boxes, "scores")]
    inputs.append(_integers(name, idxs, inputs[0].shape))
    return _like(boxes, apply(name, inputs, iou_threshold=_threshold(name, iou_threshold)))


def box_iou(boxes1: Array, boxes2: Array) -> Array:
    """Intersection over union of every pair: (N, 4) and (M, 4) give (N, M)."""
    return _pairwise("box_iou", boxes1, boxes2)


def generalized_box_iou(boxes1: Array, boxes2: Array) -> Array:
    """Generalised IoU (Rezatofighi et al. 2019) of every pair: (N, 4) and (M, 4) give (N, M)."""
    return _pairwise("generalized_box_iou", boxes1, boxes2)


def match_boxes(
    boxes: Array,
    anchors: Array,
    high: float = 0.7,
    low: float = 0.3,
    allow_low_quality: bool = True,
) -> Array:
    """The ground-truth box of every anchor (Ren et al. 2015), without the matrix of all overlaps.

    As torchvision's ``Matcher`` on ``box_iou``, except that a box which no anchor touches makes
    none positive.

    Args:
        boxes: (M, 4), the ground truth.
        anchors: (N, 4).
        high: an IoU of at least this with its best box makes an anchor positive.
        low: an IoU below this with all boxes makes it negative.
        allow_low_quality: anchors of the highest IoU of some box are positive too; each goes to
            the box that it overlaps most.

    Returns:
        (N,) int64: index of the box, -1 for negatives, -2 between the thresholds.
    """
    name = "match_boxes"
    if not 0 <= low <= high <= 1:
        raise ArgumentError(f"{name}: low {low} and high {high} must be 0 <= low <= high <= 1")
    inputs = [_boxes(name, boxes, "boxes"), _boxes(name, anchors, "anchors")]
    options = {"high": float(high), "low": float(low), "allow_low_quality": bool(allow_low_quality)}
    return _like(anchors, apply(name, inputs, **options))


def roi_align(
    input: Array,
    boxes: Array | Sequence[Array],
    output_size: int | Sequence[int],
    spatial_scale: float = 1.0,
    sampling_ratio: int = -1,
    aligned: bool = False,
) -> Array:
    """Means of bilinear samples in a grid over each region (He et al. 2017); differentiable.

    Args:
        input: (N, C, H, W).
        boxes: (K, 5), each row the image's index and a box, or a list with (L, 4) for each image.
        output_size: cells of the grid: one number or (height, width).
        spatial_scale: pixels of `input` per pixel of the boxes, such as 1/16.
        sampling_ratio: samples per cell and axis; -1 takes ceil(size of the cell).
        aligned: whether to shift by half a pixel, so that samples lie on pixel centres.

    Returns:
        (K, C, height, width); the gradient goes to `input`.
    """
    options = _grid("roi_align", output_size, spatial_scale)
    options |= {"sampling_ratio": int(sampling_ratio), "aligned": bool(aligned)}
    return _regions("roi_align", input, boxes, options)


def roi_pool(
    input: Array,
    boxes: Array | Sequence[Array],
    output_size: int | Sequence[int],
    spatial_scale: float = 1.0,
) -> Array:
    """Largest value of each cell of a grid over each region (Girshick 2015); differentiable.

    Arguments and result as for `roi_align`; corners are rounded to whole pixels.
    """
    return _regions("roi_pool", input, boxes, _grid("roi_pool", output_size, spatial_scale))


def ps_roi_pool(
    input: Array,
    boxes: Array | Sequence[Array],
    output_size: int | Sequence[int],
    spatial_scale: float = 1.0,
) -> Array:
    """Means over the cells of a grid, each of maps of its own (Dai et al. 2016); differentiable.

    Arguments as for `roi_align`; corners are rounded to whole pixels as in
    ``torchvision.ops.ps_roi_pool``.

    Returns:
        (K, C / (height · width), height, width): cell (i, j) of channel c averages map channel
        (c · height + i) · width + j.
    """
    return _regions("ps_roi_pool", input, boxes, _grid("ps_roi_pool", output_size, spatial_scale))


def quantize(input: Array, step: float = 1.0, form: str = "uniform", relu: bool = True) -> Array:
    """Features rounded to levels (Wei et al. 2018, Quantization Mimic, eq. 1 to 3).

    Uniform levels are 0, s, 2s, …: s max(0, ceil(f / s - 1/2)), so halves go down and all
    negatives to 0; there is no upper limit. The gradient passes unchanged ("straight through").

    Args:
        input: any shape.
        step: s; 1 in the paper.
        form: "uniform", or "power_of_two" with the levels 0, s, 2s, 4s, … of the paper's Table 6.
        relu: whether the gradient is that of a ReLU in front, 0 where f <= 0. The values are the
            same.

    Raises:
        ArgumentError: an element is NaN or infinite.
    """
    if form not in ("uniform", "power_of_two"):
        raise ArgumentError(f"quantize: form is {form!r}, expected 'uniform' or 'power_of_two'")
    if not 0 < step < float("inf"):
        raise ArgumentError(f"quantize: step is {step}, expected a positive number")
    source = _floats(as_tensor(input, "quantize: input"))
    options = {"step": float(step), "form": form, "relu": bool(relu)}
    return _like(input, apply("quantize", [source], **options))


def deform_conv2d(
    input: Array,
    offset: Array,
    weight: Array,
    bias: Array | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    mask: Array | None = None,
) -> Array:
    """Convolution that reads each place of its kernel at an offset (Zhu et al. 2019).

    Differentiable in every argument. The number of groups follows from the channels of `weight`.

    Args:
        input: (N, C, H, W).
        offset: (N, 2 G R S, H', W'), y before x for each place of the kernel; G groups of channels
            have offsets of their own.
        weight: (K, C / groups, R, S).
        bias: (K,) or None.
        stride, padding, dilation: one number, or (vertical, horizontal).
        mask: (N, G R S, H', W'), factors of what is read, or None for ones (the first version).

    Returns:
        (N, K, H', W') with H' as for `kd.conv2d`; zeros lie around the input.
    """
    name = "deform_conv2d"
    values = {"input": input, "offset": offset, "weight": weight, "bias": bias, "mask": mask}
    made = {
        word: _floats(as_tensor(value, f"{name}: {word}"))
        for word, value in values.items()
        if value is not None
    }
    for word in ("input", "offset", "weight", "mask"):
        if word in made and made[word].ndim != 4:
            raise ShapeError(f"{name}: {word} {made[word].shape} must have four axes")
    if bias is not None and made["bias"].ndim != 1:
        raise ShapeError(f"{name}: bias {made['bias'].shape} must be (K,)")
    channels, per_group = made["input"].shape[1], made["weight"].shape[1]
    options = {
        "stride": _pair(stride, f"{name}: stride"),
        "padding": _pair(padding, f"{name}: padding"),
        "dilation": _pair(dilation, f"{name}: dilation"),
        "groups": max(1, channels // max(1, per_group)),
    }
    return _like(input, apply(name, list(made.values()), **options))


# Parts


def _like(given: Any, result: Tensor) -> Array:
    return result if isinstance(given, Tensor) else result.numpy()


def _boxes(name: str, value: Any, word: str) -> Tensor:
    made = _floats(as_tensor(value, f"{name}: {word}"))
    if made.shape == (0,):
        made = made.reshape(0, 4)
    if made.ndim != 2 or made.shape[1] != 4:
        raise ShapeError(f"{name}: {word} {made.shape} must be (N, 4)")
    return made


def _vector(name: str, value: Any, boxes: Any, word: str) -> Tensor:
    made = _floats(as_tensor(value, f"{name}: {word}"))
    count = np.shape(boxes)[0] if not isinstance(boxes, Tensor) else boxes.shape[0]
    if made.shape != (count,):
        raise ShapeError(
            f"{name}: {word} {made.shape} must have one value for each of {count} boxes"
        )
    return made


def _integers(name: str, value: Any, shape: tuple[int, ...]) -> Tensor:
    made = as_tensor(value, f"{name}: idxs")
    if made.shape == (0,):
        made = tensor(np.zeros(0, np.int64))
    if made.shape != shape[:1]:
        raise ShapeError(f"{name}: idxs {made.shape} must have one value for each box of {shape}")
    if made.dtype != np.int64:
        raise ArgumentError(f"{name}: idxs holds {made.dtype}, expected integers")
    return made


def _threshold(name: str, value: float) -> float:
    if not 0 <= value <= 1:
        raise ArgumentError(f"{name}: iou_threshold is {value}, expected 0 to 1")
    return float(value)


def _pairwise(name: str, boxes1: Any, boxes2: Any) -> Array:
    inputs = [_boxes(name, boxes1, "boxes1"), _boxes(name, boxes2, "boxes2")]
    return _like(boxes1, apply(name, inputs))


def _grid(name: str, output_size: int | Sequence[int], spatial_scale: float) -> dict[str, Any]:
    size = [output_size] * 2 if isinstance(output_size, int) else [int(n) for n in output_size]
    if len(size) != 2 or min(size) < 1:
        raise ArgumentError(
            f"{name}: output_size is {output_size!r}, expected one positive number or two"
        )
    if not 0 < spatial_scale < float("inf"):
        raise ArgumentError(f"{name}: spatial_scale is {spatial_scale}, expected a positive number")
    return {"output_size": size, "spatial_scale": float(spatial_scale)}


def _regions(name: str, input: Any, boxes: Any, options: dict[str, Any]) -> Array:
    maps = _floats(as_tensor(input, f"{name}: input"))
    if maps.ndim != 4:
        raise ShapeError(f"{name}: input {maps.shape} must be (N, C, H, W)")
    rows = _rows(name, boxes, maps.shape)
    if rows.ndim != 2 or rows.shape[1] != 5:
        raise ShapeError(f"{name}: boxes {rows.shape} must be (K, 5), or a list with (L, 4) each")
    return _like(input, apply(name, [maps, rows], **options))


def _rows(name: str, boxes: Any, shape: tuple[int, ...]) -> Tensor:
    """Boxes as rows of (image, x1, y1, x2, y2)."""
    per_image = isinstance(boxes, list | tuple) and not (
        boxes and np.ndim(boxes[0]) == 1 and len(boxes[0]) == 5
    )
    if not per_image:
        return _floats(as_tensor(boxes, f"{name}: boxes")).detach()
    if len(boxes) != shape[0]:
        raise ShapeError(f"{name}: boxes of {len(boxes)} images for input {shape}")
    parts = [np.zeros((0, 5), np.float32)]
    for image, value in enumerate(boxes):
        one = _boxes(name, value, f"boxes[{image}]").numpy()
        parts.append(np.insert(one, 0, image, axis=1))
    return tensor(np.concatenate(parts))
