"""FGD: focal and global distillation (Yang et al., CVPR 2022)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import ArgumentError, ShapeError
from ..tensors import Tensor, apply, as_tensor, tensor
from ._maps import check_average, finite, load_parameters, map_pair, positive

_SIDES = ("student", "teacher")
# A context block in the engine's order.
_PARTS = ("mask.weight", "reduce.weight", "reduce.bias", "norm.weight", "norm.bias")
_PARTS += ("expand.weight", "expand.bias")


def fgd(
    student: Any,
    teacher: Any,
    boxes: Sequence[Any],
    image_sizes: Sequence[Any],
    context: Mapping[str, Any] | None = None,
    temperature: float = 0.5,
    alpha: float = 1e-3,
    beta: float = 5e-4,
    gamma: float = 5e-4,
    relation: float = 5e-6,
    reduction: str = "paper",
) -> Tensor:
    """Focal and global distillation of one level of the pyramid.

    alpha L_fg + beta L_bg + gamma L_att + relation L_rel, each divided by the number of images:

        L_fg   sum M_fg A^S_T A^C_T (S - T)^2, with the teacher's attention; L_bg with M_bg
        L_att  ||A^S_S - A^S_T||_1 + ||A^C_S - A^C_T||_1
        L_rel  ||R(S) - R(T)||^2, R(F) = F + W_2 relu(norm(W_1 sum_j softmax_j(W_k F)_j F_j))

    A^S = H W softmax(mean over c of |F| / temperature) over the pixels, A^C = C softmax(mean over
    the pixels of |F| / temperature) over the channels. `focal_masks` gives M_fg and M_bg.

    The gradient goes to the student and to the `context` blocks of both sides. Weights of the
    authors: one-stage detectors as the defaults; FCOS temperature 0.8 and 1.6e-3, 8e-4, 8e-4, 8e-6;
    two-stage 5e-5, 2.5e-5, 5e-5, 5e-7 on four levels.

    Args:
        student: (N, C, H, W), after the adaptation layer.
        teacher: the same shape.
        boxes: per image (n, 4) ground truth x1, y1, x2, y2 in pixels of the network's input.
        image_sizes: per image (height, width) in the same pixels, without padding.
        context: tensors of the two blocks by name, as `FGD.parameters()` names them; None: R is the
            identity, as at the start of training.
        reduction: "paper" as above; "sum" does not divide by N.

    Raises:
        ShapeError: maps of unlike shapes, boxes not (n, 4), or not one entry per image.
        ArgumentError: a box or a size that is no finite number, or a size that is not positive.
    """
    name = "fgd"
    check_average(name, reduction, ("paper", "sum"))
    maps = map_pair(name, student, teacher)
    images, _, height, width = maps[0].shape
    weights = {"alpha": alpha, "beta": beta, "gamma": gamma, "relation": relation}
    weights = {word: finite(name, word, value) for word, value in weights.items()}
    foreground, background = focal_masks(boxes, image_sizes, (height, width), images)
    mask = weights["alpha"] * foreground + weights["beta"] * background
    inputs = [*maps, tensor(mask[:, None])]
    if context is not None:
        inputs += [_part(context, f"{side}.{key}") for side in _SIDES for key in _PARTS]
    return apply(
        "focal_global",
        inputs,
        temperature=positive(name, "temperature", temperature),
        gamma=weights["gamma"],
        relation=weights["relation"],
        factor=1.0 if reduction == "sum" else 1 / max(1, images),
    )


def focal_masks(
    boxes: Sequence[Any],
    image_sizes: Sequence[Any],
    size: tuple[int, int],
    images: int | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """FGD's M_fg and M_bg, each (N, H, W), for a map of `size` (H, W).

    Boxes are scaled by W / width and H / height of the image and rounded outwards, both ends
    inside: a box covers cells floor(x1) to ceil(x2). M_fg is 1 / (covered cells) of the smallest
    box over a cell, counted before the box is cut off at the border. M_bg is 1 / (number of cells
    without a box), per image; all zero where boxes cover everything.
    """
    name, (height, width) = "fgd", size
    count = len(boxes) if images is None else images
    if len(boxes) != count or len(image_sizes) != count:
        raise ShapeError(
            f"{name}: {len(boxes)} lists of boxes and {len(image_sizes)} image sizes for "
            f"{count} images"
        )
    rows = [_box_rows(image, one) for image, one in enumerate(boxes)]
    extents = np.stack([_extent(i, one) for i, one in enumerate(image_sizes)] or [np.ones(2)])
    places = np.repeat(np.arange(count), [len(one) for one in rows])
    scales = np.array([width, height]) / extents[places, ::-1]
    # Far outside any map, but small enough for integers.
    corners = np.concatenate(rows or [np.zeros((0, 4))]).reshape(-1, 2, 2) * scales[:, None]
    corners = np.clip(corners, -(2.0**40), 2.0**40)
    first = np.floor(corners[:, 0]).astype(np.int64)
    last = np.ceil(corners[:, 1]).astype(np.int64)
    whole = ((last >= first) & (last >= 0)).all(1)
    places, first, last = places[whole], first[whole], last[whole]
    shares = (1.0 / (last - first + 1).prod(1, dtype=np.float64)).tolist()
    first = np.maximum(first, 0)
    foreground = np.zeros((count, height, width), np.float32)
    # The largest weight comes last and stays.
    for index in np.argsort(shares, kind="stable"):
        (left, top), (right, bottom) = first[index], last[index]
        foreground[places[index], top : bottom + 1, left : right + 1] = shares[index]
    background = (foreground == 0).astype(np.float32)
    background /= np.maximum(background.sum((1, 2), keepdims=True), 1)
    return foreground, background


def _box_rows(image: int, boxes: Any) -> np.ndarray:
    """The boxes of one image as (n, 4) finite numbers."""
    array = np.asarray(boxes, np.float64)
    if array.size == 0:
        return array.reshape(0, 4)
    if array.ndim != 2 or array.shape[1] != 4:
        raise ShapeError(f"fgd: boxes of image {image} are {array.shape}, expected (n, 4)")
    if not np.isfinite(array).all():
        raise ArgumentError(f"fgd: a box of image {image} is not finite")
    return array


def _extent(image: int, size: Any) -> np.ndarray:
    """The (height, width) of one image."""
    pixels = np.asarray(size, np.float64).reshape(-1)
    if pixels.shape != (2,):
        raise ShapeError(f"fgd: image_sizes[{image}] is {size!r}, expected (height, width)")
    if not (np.isfinite(pixels).all() and (pixels > 0).all()):
        raise ArgumentError(f"fgd: image_sizes[{image}] is {size!r}, expected positive numbers")
    return pixels


def _part(context: Mapping[str, Any], name: str) -> Tensor:
    """A tensor of a context block."""
    if name not in context:
        raise ArgumentError(f"fgd: context has no {name!r}; it has {', '.join(context)}")
    value = as_tensor(context[name], f"fgd: context {name}")
    # The weights of a 1x1 convolution (K, C, 1, 1) are a matrix too.
    axes = 2 if name.endswith(("reduce.weight", "expand.weight")) else 1
    return value if value.ndim == axes else value.reshape(*value.shape[: axes - 1], -1)


class FGD:
    """`fgd` of one level with its two context blocks, which learn along with the student.

    Each block: `mask` (C -> 1, logits of the pixels), `reduce` (C -> C / 2), `norm` (layer norm)
    and `expand` (C / 2 -> C, zero at first, so that R starts as the identity).

    Args:
        channels: C of the teacher's map.
        temperature, alpha, beta, gamma, relation: as for `fgd`.
        seed: of the first weights.

    >>> loss = FGD(8)
    >>> sorted(loss.parameters())[:2]
    ['student.expand.bias', 'student.expand.weight']
    """

    def __init__(
        self,
        channels: int,
        temperature: float = 0.5,
        alpha: float = 1e-3,
        beta: float = 5e-4,
        gamma: float = 5e-4,
        relation: float = 5e-6,
        seed: int = 0,
    ) -> None:
        if int(channels) != channels or channels < 2:
            raise ArgumentError(f"FGD: channels is {channels}, expected an integer of at least 2")
        self.channels = int(channels)
        self.options = {
            "temperature": positive("FGD", "temperature", temperature),
            "alpha": finite("FGD", "alpha", alpha),
            "beta": finite("FGD", "beta", beta),
            "gamma": finite("FGD", "gamma", gamma),
            "relation": finite("FGD", "relation", relation),
        }
        self._parameters: dict[str, Tensor] = {}
        rng = np.random.Generator(np.random.PCG64([seed, 2022]))
        for side in _SIDES:
            for key, value in _first_weights(self.channels, rng).items():
                self._parameters[f"{side}.{key}"] = tensor(value, requires_grad=True)

    def __call__(
        self,
        student: Any,
        teacher: Any,
        boxes: Sequence[Any],
        image_sizes: Sequence[Any],
        reduction: str = "paper",
    ) -> Tensor:
        """The loss of two maps (N, C, H, W); see `fgd`."""
        shape = getattr(student, "shape", ())
        if len(shape) == 4 and shape[1] != self.channels:
            raise ShapeError(f"fgd: student {tuple(shape)} must have {self.channels} channels")
        return fgd(
            student,
            teacher,
            boxes,
            image_sizes,
            self._parameters,
            **self.options,
            reduction=reduction,
        )

    def parameters(self) -> dict[str, Tensor]:
        """The learned tensors of both blocks by name, such as "teacher.reduce.weight"."""
        return dict(self._parameters)

    def state_dict(self) -> dict[str, np.ndarray]:
        """Copies of the learned tensors by name."""
        return {name: value.numpy() for name, value in self._parameters.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over weights with the names and shapes of `state_dict`, into new tensors: call it
        before `parameters()` go to an optimizer."""
        self._parameters = load_parameters("FGD", self._parameters, state)


def _first_weights(channels: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """One block: the logits He-normal, the first layer uniform as PyTorch's, the last one zero."""
    half = channels // 2
    bound = channels**-0.5
    values = {
        "mask.weight": rng.normal(0, (2 / channels) ** 0.5, channels),
        "reduce.weight": rng.uniform(-bound, bound, (half, channels)),
        "reduce.bias": rng.uniform(-bound, bound, half),
        "norm.weight": np.ones(half),
        "norm.bias": np.zeros(half),
        "expand.weight": np.zeros((channels, half)),
        "expand.bias": np.zeros(channels),
    }
    return {name: value.astype(np.float32) for name, value in values.items()}
