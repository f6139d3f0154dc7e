"""Arrays of other libraries in and out: NumPy, DLPack, the array interface. No library is imported
for it but NumPy."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from ._library import lib
from .errors import ArgumentError, ShapeError

_FLOAT = np.dtype(np.float32)
_INTEGER = np.dtype(np.int64)


def to_array(value: Any, what: str = "tensor") -> np.ndarray:
    """The values as a C-contiguous float32 or int64 array, without a copy where that is possible.

    Floating point of any width becomes float32; integers and booleans become int64. `what` names
    the argument in error messages.

    Raises:
        ArgumentError: complex, text, object or unsigned values beyond int64, naming the dtype; or
            an array that its library does not hand out (on a GPU, or waiting for a gradient).
        ShapeError: nested lists of unequal lengths.
    """
    array = _any_array(value, what)
    dtype = array.dtype
    if dtype in (_FLOAT, _INTEGER):
        return np.ascontiguousarray(array) if array.ndim else array
    if dtype.kind == "f" or dtype.name == "bfloat16":
        with np.errstate(over="ignore"):
            return array.astype(_FLOAT, order="C")
    if dtype.kind in "iub":
        if dtype == np.uint64 and array.size and array.max() > np.iinfo(np.int64).max:
            raise ArgumentError(f"{what}: a uint64 value of {array.max()} does not fit into int64")
        return array.astype(_INTEGER, order="C")
    raise ArgumentError(f"{what}: dtype {dtype} is neither floating point nor integer")


def _any_array(value: Any, what: str) -> np.ndarray:
    if isinstance(value, np.ndarray | np.generic | bool | int | float):
        return _from_interface(value, what)
    if hasattr(value, "__dlpack__"):
        return _from_dlpack(value, what)
    return _from_interface(value, what)


def _from_interface(value: Any, what: str) -> np.ndarray:
    try:
        return np.asarray(value)
    except OverflowError as error:
        raise ArgumentError(f"{what}: {error}") from None
    except ValueError as error:
        raise ShapeError(f"{what}: not a rectangular array: {error}") from None
    except (TypeError, RuntimeError, BufferError) as error:
        raise ArgumentError(f"{what}: {_kind(value)} gives no array: {error}") from None


def _from_dlpack(value: Any, what: str) -> np.ndarray:
    try:
        return np.from_dlpack(value)
    except (RuntimeError, BufferError, TypeError, ValueError) as error:
        # Types that NumPy has no name for, such as bfloat16, may still come by another way.
        if hasattr(value, "__array__"):
            return _from_interface(value, what)
        raise ArgumentError(f"{what}: {_kind(value)} gives no array: {error}") from None


def _kind(value: Any) -> str:
    dtype = getattr(value, "dtype", None)
    name = f"{type(value).__module__}.{type(value).__qualname__}"
    return name if dtype is None else f"{name} of dtype {dtype}"


# DLPack capsules. The struct and its deleter live in the engine; here it only gets its capsule.

_NAMES = {False: b"dltensor", True: b"dltensor_versioned"}
# Offset of the deleter in DLManagedTensor and DLManagedTensorVersioned.
_DELETER_OFFSET = {False: 56, True: 16}

_new = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)(
    ("PyCapsule_New", ctypes.pythonapi)
)
# The capsule goes as an address: it is dying when these are called and must not be counted.
_is_valid = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p)(
    ("PyCapsule_IsValid", ctypes.pythonapi)
)
_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)
_Deleter = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


def _end_unused(capsule: int) -> None:
    """Free the struct of a capsule that nobody took; a taken one carries another name."""
    for versioned, name in _NAMES.items():
        if _is_valid(capsule, name):
            managed = _pointer(capsule, name)
            slot = ctypes.c_void_p.from_address(managed + _DELETER_OFFSET[versioned])
            _Deleter(slot.value)(managed)


_destructor = ctypes.PYFUNCTYPE(None, ctypes.c_void_p)(_end_unused)


def dlpack_capsule(handle: Any, *, versioned: bool) -> Any:
    """A PyCapsule over the tensor behind `handle`; the memory lives as long as the consumer."""
    managed = ctypes.c_void_p()
    lib.kds_tensor_to_dlpack(handle, int(versioned), ctypes.byref(managed))
    return _new(managed, _NAMES[versioned], ctypes.cast(_destructor, ctypes.c_void_p))
