"""What transformers need, at the package level: `kd.window_attention`, `kd.merge_patches`."""

from __future__ import annotations

from typing import Any

from .errors import ArgumentError
from .functional import _float_input, _optional
from .tensors import Tensor, apply


def window_attention(
    qkv: Any, table: Any, num_heads: int, window: int = 7, shift: int = 0, padding: Any = None
) -> Tensor:
    """Attention inside shifted windows (Liu et al. 2021), between its two linear layers.

    The map is filled up to whole windows at the bottom and on the right, moved up and left by
    `shift` in a circle, and cut; tokens that the circle brought together do not see one another.
    A side of a single window is not moved. Gradients go to all tensors.

    Args:
        qkv: (N, H, W, 3C): for each token q of all heads, then k, then v.
        table: ((2 window - 1)^2, num_heads), added to the scores by the distance of two tokens
            (torchvision's `relative_position_bias_table`).
        num_heads: heads, with C / num_heads channels each.
        window: tokens on a side of a window, at most 32.
        shift: how far windows are moved, less than `window`.
        padding: (3C), what the tokens have that fill windows up; None for 0. torchvision projects
            zeros, so it has the bias of its projection there.

    Returns (N, H, W, C).
    """
    sizes = {"heads": num_heads, "window": window, "shift": shift}
    for name, value in sizes.items():
        if isinstance(value, bool) or not isinstance(value, int):
            raise ArgumentError(f"window_attention: {name} is {value!r}, expected a whole number")
    name = "window_attention"
    inputs = [_float_input(qkv, name), _float_input(table, name), *_optional(name, padding)]
    return apply(name, inputs, **sizes)


def merge_patches(x: Any) -> Tensor:
    """2 x 2 neighbours in one token: (N, H, W, C) to (N, ceil(H / 2), ceil(W / 2), 4C).

    The neighbours (0, 0), (1, 0), (0, 1), (1, 1), as (row, column), lie one after the other; behind
    odd sides are zeros (Liu et al. 2021, patch merging).
    """
    return apply("merge_patches", [_float_input(x, "merge_patches")])
