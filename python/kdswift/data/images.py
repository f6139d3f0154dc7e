"""Images as the package takes them: checks, reading, resizing, padding to a batch.

An image is uint8 HWC RGB (the usual form) or float32 CHW in [0, 1]. Everything else is
either turned into one of these without loss of meaning (a PIL image, a path) or refused
with a message that says how to convert it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import ArgumentError, FormatError, ShapeError

_PIL_MODES = ("RGB", "L", "P", "1", "RGBA", "LA", "PA", "CMYK", "YCbCr", "RGBX", "La", "RGBa")
# Float images come from divisions and interpolation; this is a few rounding steps of float32.
_RANGE_TOLERANCE = 1e-5


def as_image(x: Any, where: str = "image") -> np.ndarray:
    """Check an image and return it as an array.

    Parameters
    ----------
    x : uint8 array (H, W, 3), float32 array (3, H, W) in [0, 1], PIL image, or path
        Arrays may be anything with ``__array__`` (a torch CPU tensor, for one). PIL images
        and files of every usual mode are turned into RGB (transparency is dropped, grey is
        repeated); arrays are never guessed at.
    where : str
        Names the image in error messages, e.g. ``"images[3]"``.

    Returns
    -------
    Contiguous uint8 (H, W, 3), or contiguous float32 (3, H, W) with the values unchanged.

    Raises
    ------
    ShapeError
        Wrong number of axes or channels, or an empty image.
    ArgumentError
        Wrong dtype, NaN or infinity, or float values outside [0, 1].
    FormatError
        The file is missing, truncated, or no image.
    """
    if isinstance(x, (str, os.PathLike)):
        return read_image(x)
    if hasattr(x, "getbands") and hasattr(x, "convert"):
        return _from_pil(x, where)
    try:
        array = np.asarray(x)
    except Exception as error:
        raise ArgumentError(
            f"{where}: cannot read {type(x).__name__} as an image: {error}"
        ) from error
    if array.dtype == np.uint8:
        return _check_uint8(array, where)
    if array.dtype == np.float32:
        return _check_float(array, where)
    raise ArgumentError(_dtype_message(array, where, x))


def read_image(path: str | os.PathLike) -> np.ndarray:
    """Read an image file as uint8 RGB (H, W, 3); EXIF orientation is not applied.

    Raises ``FormatError`` naming the file when it is missing, truncated or no image.
    """
    from PIL import Image

    name = os.fspath(path)
    try:
        with Image.open(name) as image:
            image.load()
            return _from_pil(image, name)
    except FileNotFoundError:
        raise FormatError(f"{name}: no such image file") from None
    except ShapeError:
        raise
    except Exception as error:  # Pillow raises OSError, SyntaxError, ValueError, struct.error …
        raise FormatError(f"{name}: cannot read the image: {error}") from error


def image_size(image: np.ndarray) -> tuple[int, int]:
    """(height, width) of an array that `as_image` returned."""
    if image.dtype == np.uint8:
        return int(image.shape[0]), int(image.shape[1])
    return int(image.shape[1]), int(image.shape[2])


def to_uint8(image: np.ndarray) -> np.ndarray:
    """uint8 (H, W, 3) of an array that `as_image` returned; floats are rounded to 1/255."""
    if image.dtype == np.uint8:
        return image
    return np.ascontiguousarray(
        np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8).transpose(1, 2, 0)
    )


def resize_image(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bilinear resize of a uint8 (H, W, 3) image, antialiased when it shrinks (Pillow's)."""
    if image.shape[:2] == (height, width):
        return image
    from PIL import Image

    resized = Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(resized).copy()


def short_side_size(height: int, width: int, short: int, max_size: int | None) -> tuple[int, int]:
    """(height, width) after scaling the short side to `short`, the long one to at most `max_size`.

    The aspect ratio is kept up to rounding to whole pixels (Faster R-CNN's rule: 600 and 1000
    in the paper, 800 and 1333 in torchvision).
    """
    scale = short / min(height, width)
    if max_size is not None and scale * max(height, width) > max_size:
        scale = max_size / max(height, width)
    return max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))


def pad_batch(images: Sequence[Any], divisor: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Put images of mixed sizes into one array, each in the top left corner, zeros elsewhere.

    Parameters
    ----------
    images : sequence of uint8 (H, W, 3) arrays (or whatever `as_image` turns into that)
    divisor : int
        Height and width of the batch are rounded up to a multiple of this, e.g. the largest
        stride of the network.

    Returns
    -------
    batch : uint8 (N, H, W, 3), and sizes : int64 (N, 2), (height, width) of each image.
    """
    if len(images) == 0:
        raise ArgumentError("pad_batch: images is empty")
    if int(divisor) != divisor or divisor < 1:
        raise ArgumentError(f"pad_batch: divisor must be a positive integer, got {divisor}")
    arrays = [to_uint8(as_image(x, f"images[{i}]")) for i, x in enumerate(images)]
    sizes = np.array([a.shape[:2] for a in arrays], dtype=np.int64)
    height, width = (-(-sizes.max(axis=0) // int(divisor)) * int(divisor)).tolist()
    batch = np.zeros((len(arrays), height, width, 3), dtype=np.uint8)
    for slot, array in zip(batch, arrays, strict=True):
        slot[: array.shape[0], : array.shape[1]] = array
    return batch, sizes


def _from_pil(image: Any, where: str) -> np.ndarray:
    if image.mode not in _PIL_MODES:
        raise ShapeError(
            f"{where}: PIL mode {image.mode!r} has no agreed meaning as RGB; "
            "scale it to 8 bits and use image.convert('RGB')"
        )
    try:
        array = np.asarray(image.convert("RGB"))
    except OSError as error:  # PIL decodes lazily: a truncated file shows here
        name = getattr(image, "filename", "") or where
        raise FormatError(f"{name}: cannot read the image: {error}") from error
    return _check_uint8(array.copy(), where)


def _check_uint8(array: np.ndarray, where: str) -> np.ndarray:
    if array.ndim != 3 or array.shape[2] != 3:
        raise ShapeError(
            f"{where}: expected uint8 (height, width, 3), got {array.shape}{_channel_hint(array)}"
        )
    if 0 in array.shape:
        raise ShapeError(f"{where}: empty image, shape {array.shape}")
    return np.ascontiguousarray(array)


def _check_float(array: np.ndarray, where: str) -> np.ndarray:
    if array.ndim != 3 or array.shape[0] != 3:
        raise ShapeError(
            f"{where}: expected float32 (3, height, width), got {array.shape}{_channel_hint(array)}"
        )
    if 0 in array.shape:
        raise ShapeError(f"{where}: empty image, shape {array.shape}")
    low, high = float(array.min()), float(array.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        bad = np.argwhere(~np.isfinite(array))
        c, y, x = bad[0].tolist()
        raise ArgumentError(
            f"{where}: {len(bad)} values are NaN or infinite, the first is "
            f"{array[c, y, x]} at channel {c}, row {y}, column {x}"
        )
    if low < -_RANGE_TOLERANCE or high > 1 + _RANGE_TOLERANCE:
        hint = (
            "divide by 255 or pass uint8 (height, width, 3)" if high > 2 else "use np.clip(x, 0, 1)"
        )
        raise ArgumentError(
            f"{where}: float images are in [0, 1], got values from {low:g} to {high:g}; {hint}"
        )
    return np.ascontiguousarray(array)


def _channel_hint(array: np.ndarray) -> str:
    shape = array.shape
    if array.ndim == 2:
        return (
            "; a grey image: use np.stack([x] * 3, axis=-1)"
            if array.dtype == np.uint8
            else ("; a grey image: use np.stack([x] * 3)")
        )
    if array.ndim == 4:
        return "; pass a list of images, not one batch array"
    if array.ndim != 3:
        return ""
    if array.dtype == np.uint8:
        if shape[2] == 4:
            return "; an alpha channel: use x[..., :3]"
        if shape[2] == 1:
            return "; a grey image: use np.repeat(x, 3, axis=2)"
        if shape[0] in (1, 3, 4):
            return "; channels are first: use x.transpose(1, 2, 0)"
        return ""
    if shape[0] == 4:
        return "; an alpha channel: use x[:3]"
    if shape[0] == 1:
        return "; a grey image: use np.repeat(x, 3, axis=0)"
    if shape[2] in (1, 3, 4):
        return "; channels are last: use x.transpose(2, 0, 1)"
    return ""


def _dtype_message(array: np.ndarray, where: str, x: Any) -> str:
    text = f"{where}: images are uint8 (H, W, 3) or float32 (3, H, W), got dtype {array.dtype}"
    if array.dtype == object:
        return f"{text} from {type(x).__name__}"
    hint = (
        "x.astype(np.float32)" if np.issubdtype(array.dtype, np.floating) else "x.astype(np.uint8)"
    )
    return f"{text}, shape {array.shape}; use {hint}"
