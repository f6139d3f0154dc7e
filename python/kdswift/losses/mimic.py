"""Regions of two maps: Mimic and Quantization Mimic."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import ops
from ..errors import ArgumentError, ShapeError
from ..tensors import Tensor, apply, tensor
from ._maps import check_average, map_pair
from .features import weighted_squared_error


def roi_mimic(
    student: Any,
    teacher: Any,
    rois: Any,
    spatial_scale: float,
    form: str = "crop",
    levels: Sequence[int] = (1, 2, 4),
    reduction: str = "paper",
) -> Tensor:
    """Mimic (Li et al. 2017): the features of regions, u_i the teacher's, v_i the student's.

        eq. 5 ("crop")   1 / (2N) sum_i 1 / m_i ||u_i - v_i||^2     m_i = C h_i w_i
        eq. 3 ("spp")    1 / (2N) sum_i ||u_i - v_i||^2             after spatial pyramid pooling

    "crop" takes the regions as they are cut from the maps, each of its own size; it is one pass
    over the maps, whatever the number of regions. A region goes to cells by floor of its first and
    ceil of its last corner times `spatial_scale`, clipped to the map, at least one cell; where the
    paper regresses the whole map (its Table 4) take `hint`. The transform layer (3x3) comes before.

    Args:
        student: r(F_S), (N, C, H, W), after the transform layer.
        teacher: F_T, the same shape.
        rois: a list with (L, 4) for each image, or (R, 5) with the image's index first; x1 y1 x2 y2
            in pixels. The paper takes the student's own proposals for both maps.
        spatial_scale: cells of the map per pixel, such as 1/16.
        form: "crop" or "spp".
        levels: the grids of "spp", 1x1, 2x2, …; the paper does not give them.
        reduction: "paper" and "mean" divide by the number of regions, no regions give 0; "sum" is
            1/2 of the sum over the regions.

    Raises:
        ArgumentError: a region whose numbers are not finite, or of an image that is not there.
    """
    name = "roi_mimic"
    if form not in ("crop", "spp"):
        raise ArgumentError(f"{name}: form is {form!r}, expected 'crop' or 'spp'")
    check_average(name, reduction)
    maps = map_pair(name, student, teacher)
    regions = region_rows(name, rois)
    factor = float(len(regions)) if reduction == "sum" else 1.0
    if form == "crop":
        return _crops(maps, regions, spatial_scale, True) * factor
    total = None
    cells = _cell_regions(regions, spatial_scale, maps[0].shape)
    for level in _grids(name, levels):
        part = _pooled(name, maps, cells, 1.0, level) * factor
        total = part if total is None else total + part
    return total


def quantized_mimic(
    student: Any,
    teacher: Any,
    rois: Any,
    spatial_scale: float,
    step: float = 1.0,
    form: str = "uniform",
    quantize_student: bool = True,
    quantize_teacher: bool = True,
    output_size: int | Sequence[int] | None = 7,
    normalize: bool = False,
    reduction: str = "paper",
) -> Tensor:
    """Quantization Mimic (Wei et al. 2018), eq. 6: 1 / (2N) sum_i ||Q(f_t^i) - Q(r(f_s^i))||^2.

    Q rounds the map before the regions are cut (`kd.ops.quantize`), with the gradient of a ReLU;
    two maps in the same cells of Q cost nothing. Without Q on either side it is the loss of eq. 5.

    Args:
        student: r(f_s), (N, C, H, W), after the transform layer.
        teacher: f_t, the same shape.
        rois, spatial_scale: as for `roi_mimic`.
        step, form: of `kd.ops.quantize`; 1 and "uniform" in the paper.
        quantize_student, quantize_teacher: the four cases of the paper's Table 4.
        output_size: the grid of RoI max pooling, 7 on VOC and 3 on WIDER FACE; None cuts regions of
            their own size as `roi_mimic` does.
        normalize: whether each region is divided by its number of elements. Eq. 6 is not.
        reduction: "paper" and "mean" divide by the number of regions, no regions give 0; "sum" is
            1/2 of the sum over the regions.

    Raises:
        ArgumentError: a NaN or an infinity in a map that is rounded.
    """
    name = "quantized_mimic"
    check_average(name, reduction)
    maps = map_pair(name, student, teacher)
    if quantize_student:
        maps[0] = ops.quantize(maps[0], step, form)
    if quantize_teacher:
        maps[1] = ops.quantize(maps[1], step, form)
    regions = region_rows(name, rois)
    factor = float(len(regions)) if reduction == "sum" else 1.0
    if output_size is None:
        return _crops(maps, regions, spatial_scale, normalize) * factor
    loss = _pooled(name, maps, regions, spatial_scale, output_size) * factor
    size = [output_size] * 2 if isinstance(output_size, int) else list(output_size)
    return loss * (1 / max(1, maps[0].shape[1] * size[0] * size[1])) if normalize else loss


def region_rows(name: str, rois: Any) -> np.ndarray:
    """(R, 5): the index of the image, then the box."""
    by_image = isinstance(rois, list | tuple)
    if by_image and all(np.ndim(one) > 1 or not np.size(one) for one in rois):
        parts = [np.asarray(one, np.float32) for one in rois]
        for one in parts:
            if one.size and (one.ndim != 2 or one.shape[1] != 4):
                raise ShapeError(f"{name}: the rois of an image {one.shape} must be (L, 4)")
        rows = [
            np.concatenate([np.full((len(one), 1), image, np.float32), one.reshape(-1, 4)], 1)
            for image, one in enumerate(parts)
        ]
        return np.concatenate([*rows, np.zeros((0, 5), np.float32)])
    made = np.asarray(rois, np.float32)
    if made.ndim != 2 or made.shape[1] != 5:
        raise ShapeError(f"{name}: rois {made.shape} must be (R, 5), or a list with (L, 4) each")
    return made


def _crops(
    maps: list[Tensor], regions: np.ndarray, spatial_scale: float, normalize: bool
) -> Tensor:
    options = {"spatial_scale": float(spatial_scale), "normalize": bool(normalize)}
    spatial = apply("region_weights", [maps[0].detach(), tensor(regions)], **options)
    return weighted_squared_error(*maps, spatial=spatial)


def _pooled(
    name: str, maps: list[Tensor], regions: np.ndarray, spatial_scale: float, size: Any
) -> Tensor:
    """1 / (2R) of the squared error after RoI max pooling."""
    pooled = [ops.roi_pool(one, tensor(regions), size, spatial_scale) for one in maps]
    return apply("hint", pooled, reduction="sum") * (0.5 / max(1, len(regions)))


def _grids(name: str, levels: Sequence[int]) -> list[int]:
    sizes = [int(size) for size in levels]
    if not sizes or min(sizes) < 1:
        raise ArgumentError(f"{name}: levels are {levels!r}, expected sizes of at least 1")
    return sizes


def _cell_regions(regions: np.ndarray, spatial_scale: float, shape: tuple[int, ...]) -> np.ndarray:
    """The regions in whole cells by the rule of "crop", the last cell in, as RoI pooling counts."""
    cells = regions.copy()
    for low, size in ((1, shape[3]), (2, shape[2])):
        first = np.floor(regions[:, low] * np.float32(spatial_scale)).clip(0, max(size - 1, 0))
        last = np.ceil(regions[:, low + 2] * np.float32(spatial_scale)).clip(0, size)
        cells[:, low], cells[:, low + 2] = first, np.maximum(first + 1, last) - 1
    return cells
