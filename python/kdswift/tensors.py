"""The tensor: an n-dimensional array that remembers how it was made, for gradients."""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from . import _exchange
from ._apply import apply_handles
from ._library import lib
from ._operators import Operators
from ._signatures import KDS_DTYPE_FLOAT32, KDS_DTYPE_INT64, KDS_MAX_RANK, kds_tensor
from .errors import ArgumentError, ShapeError

_FLOAT = np.dtype(np.float32)
_INTEGER = np.dtype(np.int64)
_BOOLEAN = np.dtype(np.bool_)
_DTYPES = {KDS_DTYPE_FLOAT32: _FLOAT, KDS_DTYPE_INT64: _INTEGER}
_CPU = (1, 0)  # DLPack's kDLCPU


class Tensor(Operators):
    """An n-dimensional array of float32 or int64 with, if asked for, a gradient.

    Made by `kd.tensor` and by operations. Comparisons give masks: tensors of dtype bool, for
    indexing and `kd.where`. Values do not change after a tensor is made.

    Operators, indexing and methods follow NumPy (`axis=`, `keepdims=`, broadcasting); all of them
    are differentiable where mathematics allows. Mixing with NumPy arrays and numbers works on
    either side.
    """

    __slots__ = ("__weakref__", "_dtype", "_handle", "_shape")
    __array_priority__ = 1000

    def __init__(self, handle: kds_tensor, *, boolean: bool = False) -> None:
        """Take ownership of an engine handle; people use `kd.tensor`."""
        self._handle = handle
        weakref.finalize(self, _release, handle).atexit = False
        dims = (ctypes.c_int64 * KDS_MAX_RANK)()
        rank, dtype = ctypes.c_int32(), ctypes.c_int32()
        lib.kds_tensor_info(handle, KDS_MAX_RANK, dims, ctypes.byref(rank), ctypes.byref(dtype))
        self._shape = tuple(dims[: rank.value])
        self._dtype = _BOOLEAN if boolean else _DTYPES[dtype.value]

    # What it is

    @property
    def shape(self) -> tuple[int, ...]:
        """The sizes of the axes."""
        return self._shape

    @property
    def dtype(self) -> np.dtype:
        """The element type: float32, int64, or bool for masks."""
        return self._dtype

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return len(self._shape)

    @property
    def size(self) -> int:
        """The number of elements."""
        count = 1
        for extent in self._shape:
            count *= extent
        return count

    def __len__(self) -> int:
        if not self._shape:
            raise TypeError("len() of a tensor with no axes")
        return self._shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        if not self._shape:
            raise TypeError("iteration over a tensor with no axes")
        return (self[index] for index in range(self._shape[0]))

    def __repr__(self) -> str:
        values = np.array2string(
            self._view(), precision=4, separator=", ", threshold=100, edgeitems=3, prefix="tensor("
        )
        kind = "" if self._dtype == _FLOAT else f", dtype={self._dtype}"
        grad = ", requires_grad=True" if self.requires_grad else ""
        return f"tensor({values}, shape={self._shape}{kind}{grad})"

    # Values out

    def numpy(self, *, copy: bool = True) -> np.ndarray:
        """The values as an array, off the tape.

        The array is yours to change; `copy=False` gives a read-only view of the tensor's own memory
        where that lies in rows, which stays valid when the tensor goes.
        """
        if not copy:
            return self._view()
        out = np.empty(self._shape, _FLOAT if self._dtype == _BOOLEAN else self._dtype)
        lib.kds_tensor_copy_out(self._handle, out.nbytes, out.ctypes.data)
        return out.astype(_BOOLEAN) if self._dtype == _BOOLEAN else out

    def item(self) -> float | int | bool:
        """The value of a tensor with one element, as a Python number.

        Raises:
            ShapeError: the tensor has more elements, or none.
        """
        if self._dtype != _FLOAT and self.size == 1:
            return self._view().item()
        value = ctypes.c_double()
        lib.kds_tensor_item(self._handle, ctypes.byref(value))
        return value.value

    def tolist(self) -> Any:
        """The values as nested lists of Python numbers."""
        return self._view().tolist()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        view = self._view()
        target = view.dtype if dtype is None else np.dtype(dtype)
        if copy is False and target != view.dtype:
            raise ValueError(f"a {target} array of a {view.dtype} tensor needs a copy")
        return view.astype(target) if copy or target != view.dtype else view

    def __dlpack__(
        self,
        *,
        stream: Any = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        """A DLPack capsule over the tensor's memory; the consumer must not write through it."""
        if dl_device is not None and tuple(dl_device) != _CPU:
            raise BufferError(f"dl_device is {dl_device}, the tensor is on the CPU {_CPU}")
        if stream is not None:
            raise BufferError("stream must be None: the tensor is on the CPU")
        if self._dtype == _BOOLEAN:
            return self.numpy().__dlpack__()
        handle = self.clone()._handle if copy else self._handle
        versioned = max_version is not None and max_version[0] >= 1
        return _exchange.dlpack_capsule(handle, versioned=versioned)

    def __dlpack_device__(self) -> tuple[int, int]:
        return _CPU

    def __bool__(self) -> bool:
        if self.size != 1:
            raise ShapeError(
                f"the truth of a tensor of shape {self._shape} is ambiguous; use .any() or .all()"
            )
        return bool(self.item())

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __index__(self) -> int:
        if self._dtype == _FLOAT:
            raise TypeError("a float32 tensor is no index")
        return int(self.item())

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if spec and self.size == 1 else format(repr(self), spec)

    def __reduce__(self) -> tuple:
        return _restore, (self.numpy(), self.requires_grad)

    def _view(self) -> np.ndarray:
        """A read-only array over the (row-major) memory; it keeps that memory alive."""
        array = np.from_dlpack(_Exporter(self._handle))
        array.flags.writeable = False
        return array.astype(_BOOLEAN) if self._dtype == _BOOLEAN else array

    # Gradients

    @property
    def requires_grad(self) -> bool:
        """Whether operations on this tensor are recorded: it asks for a gradient, or came from one
        that does. Set it on float32 tensors that no operation made."""
        flag = ctypes.c_int32()
        lib.kds_tensor_is_tracked(self._handle, ctypes.byref(flag))
        return bool(flag.value)

    @requires_grad.setter
    def requires_grad(self, wanted: bool) -> None:
        lib.kds_tensor_set_requires_grad(self._handle, int(bool(wanted)))

    @property
    def grad(self) -> Tensor | None:
        """The accumulated gradient, of this tensor's shape; None before the first backward pass.
        Set it to None to forget it."""
        handle = kds_tensor()
        lib.kds_tensor_grad(self._handle, ctypes.byref(handle))
        return Tensor(handle) if handle.value else None

    @grad.setter
    def grad(self, value: None) -> None:
        if value is not None:
            raise ArgumentError("grad: only None can be set, which forgets the gradient")
        lib.kds_tensor_zero_grad(self._handle)

    def zero_grad(self) -> None:
        """Forget the gradient, so that the next backward pass starts at zero."""
        self.grad = None

    def backward(self, gradient: Any = None) -> None:
        """Add this tensor's gradient to every tensor that asks for one and that it came from.

        Args:
            gradient: the gradient of the tensor itself, of its shape; 1 when it is one number.

        Raises:
            ShapeError: the tensor is not one number and no gradient is given, or shapes differ.
            ArgumentError: nothing that the tensor came from asks for a gradient.
        """
        seed = None if gradient is None else as_tensor(gradient, "backward: gradient")
        lib.kds_tensor_backward(self._handle, kds_tensor() if seed is None else seed._handle)

    def detach(self) -> Tensor:
        """The same values, off the tape; memory is shared."""
        handle = kds_tensor()
        lib.kds_tensor_detach(self._handle, ctypes.byref(handle))
        return Tensor(handle, boolean=self._dtype == _BOOLEAN)

    def clone(self) -> Tensor:
        """A copy with memory of its own, off the tape."""
        return _create(self.numpy(), boolean=self._dtype == _BOOLEAN)


class _Exporter:
    """Gives `np.from_dlpack` the memory of a handle."""

    def __init__(self, handle: kds_tensor) -> None:
        self._handle = handle

    def __dlpack__(self, **_options: Any) -> Any:
        return _exchange.dlpack_capsule(self._handle, versioned=False)

    def __dlpack_device__(self) -> tuple[int, int]:
        return _CPU


def _release(handle: kds_tensor) -> None:
    lib.kds_tensor_release(handle)


def _restore(values: np.ndarray, requires_grad: bool) -> Tensor:
    if values.dtype == _BOOLEAN:
        return mask(values)
    return tensor(values, requires_grad=requires_grad)


def _create(array: np.ndarray, *, boolean: bool = False) -> Tensor:
    """A tensor with a copy of an array that `to_array` would give back unchanged."""
    array = _exchange.to_array(array)
    dims = (ctypes.c_int64 * array.ndim)(*array.shape)
    dtype = KDS_DTYPE_FLOAT32 if array.dtype == _FLOAT else KDS_DTYPE_INT64
    handle = kds_tensor()
    lib.kds_tensor_create(dtype, array.ndim, dims, array.ctypes.data, ctypes.byref(handle))
    return Tensor(handle, boolean=boolean)


def mask(array: np.ndarray) -> Tensor:
    """A bool tensor from a bool array; the engine counts with it as 0.0 and 1.0."""
    return _create(np.asarray(array, _FLOAT), boolean=True)


def tensor(array_like: Any, requires_grad: bool = False) -> Tensor:
    """A tensor with a copy of the values.

    Args:
        array_like: numbers, nested lists, NumPy arrays, another tensor, or anything with
            `__dlpack__` (PyTorch, JAX) or an array interface. Floating point of any width becomes
            float32; integers and booleans become int64.
        requires_grad: whether `backward` leaves a gradient here; float32 only.

    Raises:
        ArgumentError: text, objects or complex numbers; or a gradient asked of integers.
        ShapeError: nested lists of unequal lengths; more than 8 axes.

    >>> kd.tensor([[1.0, 2.0], [3.0, 4.0]]).sum(axis=0)
    tensor([4., 6.], shape=(2,))
    """
    result = _create(_exchange.to_array(array_like))
    if requires_grad:
        result.requires_grad = True
    return result


def as_tensor(value: Any, what: str) -> Tensor:
    """`value` itself when it is a Tensor, else a tensor of it; `what` names it in errors."""
    if isinstance(value, Tensor):
        return value
    return _create(_exchange.to_array(value, what))


def apply(name: str, inputs: Sequence[Tensor], **attributes: Any) -> Tensor:
    """Run an operation of the engine that has one result."""
    handles = apply_handles(name, [one._handle for one in inputs], attributes)
    return Tensor(handles[0])


def apply_all(name: str, inputs: Sequence[Tensor], **attributes: Any) -> list[Tensor]:
    """Run an operation of the engine; all its results."""
    handles = apply_handles(name, [one._handle for one in inputs], attributes)
    return [Tensor(handle) for handle in handles]
