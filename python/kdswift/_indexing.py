"""Indexing as NumPy does it, differentiable: `t[0]`, `t[1:, ::-2]`, `t[..., None]`, masks.

Slices go to the engine's strided copy. Everything else becomes one gather over the flattened
tensor: NumPy itself works out which element stands where, by indexing the positions.
"""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

from . import tensors
from .errors import ArgumentError


def getitem(source: tensors.Tensor, key: Any) -> tensors.Tensor:
    """`source[key]`.

    Raises:
        IndexError: an index outside its axis, or more indices than axes; `ArgumentError` for keys
            that are no index at all.
    """
    keys = tuple(_plain_key(k) for k in (key if isinstance(key, tuple) else (key,)))
    if all(_is_basic(k) for k in keys):
        return _slice(source, _full(source, keys))
    return _gather(source, keys)


def _plain_key(key: Any) -> Any:
    """The key with Tensors, lists and other libraries' arrays as NumPy arrays."""
    if key is None or key is Ellipsis or isinstance(key, slice | bool):
        return np.asarray(key) if isinstance(key, bool) else key
    if not isinstance(key, np.ndarray | list | tensors.Tensor):
        try:
            return operator.index(key)
        except TypeError:
            pass
    array = np.asarray(key)
    if array.dtype.kind == "f" and array.size == 0:
        array = array.astype(np.int64)
    if array.dtype.kind not in "iub":
        raise ArgumentError(
            f"index: an array of dtype {array.dtype}; use integers, a mask, slices, None or ..."
        )
    return array


def _is_basic(key: Any) -> bool:
    return not isinstance(key, np.ndarray)


def _full(source: tensors.Tensor, keys: tuple) -> list:
    """One key for each axis (and each None), the ellipsis written out."""
    used = sum(k is not None and k is not Ellipsis for k in keys)
    if used > source.ndim or keys.count(Ellipsis) > 1:
        raise IndexError(
            f"index: {used} indices and {keys.count(Ellipsis)} ellipses for shape {source.shape}"
        )
    rest = [slice(None)] * (source.ndim - used)
    if Ellipsis in keys:
        place = keys.index(Ellipsis)
        return [*keys[:place], *rest, *keys[place + 1 :]]
    return [*keys, *rest]


def _slice(source: tensors.Tensor, keys: list) -> tensors.Tensor:
    """Integers, slices and None: one strided copy for each axis that is cut."""
    result, shape, axis = source, [], 0
    for key in keys:
        if key is None:
            shape.append(1)
            continue
        extent = source.shape[axis]
        if isinstance(key, slice):
            chosen = range(*key.indices(extent))
            shape.append(len(chosen))
        elif -extent <= key < extent:
            chosen = range(key % extent, key % extent + 1)
        else:
            raise IndexError(
                f"index {key} is outside axis {axis} with size {extent} of {source.shape}"
            )
        if chosen != range(extent):
            result = _cut(result, axis, chosen)
        axis += 1
    return result.reshape(shape)


def _cut(source: tensors.Tensor, axis: int, chosen: range) -> tensors.Tensor:
    """The chosen positions of one axis."""
    if chosen.step > 0:
        options = {"axis": axis, "start": chosen.start, "stop": max(chosen.start, chosen.stop)}
        return source._like(tensors.apply("slice", [source], **options, step=chosen.step))
    positions = tensors.tensor(np.asarray(chosen, np.int64))
    return source._like(tensors.apply("index_select", [source, positions], axis=axis))


def _gather(source: tensors.Tensor, keys: tuple) -> tensors.Tensor:
    """Keys with arrays in them."""
    keys = tuple(np.asarray(k, np.bool_) if _is_mask(k) else k for k in keys)
    positions = np.arange(source.size, dtype=np.int64).reshape(source.shape)
    try:
        chosen = positions[keys]
    except IndexError as error:
        raise IndexError(f"index: {error}; the shape is {source.shape}") from None
    flat = tensors.tensor(np.ascontiguousarray(chosen).reshape(-1))
    picked = tensors.apply("index_select", [source.reshape(-1), flat], axis=0)
    return source._like(picked).reshape(chosen.shape)


def _is_mask(key: Any) -> bool:
    return isinstance(key, np.ndarray) and key.dtype.kind == "b"
