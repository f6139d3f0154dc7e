"""Pointer parameters of the C functions: what ctypes accepts for each and how it is checked.

A `float_in` parameter (`const float *` in the header) takes a C-contiguous float32 array, a ctypes
float or array of floats (also `byref` of one), an address as an int, or None. A `float_out`
parameter (`float *`) asks for a writable array besides. The other types follow suit.
"""

from __future__ import annotations

import ctypes
from ctypes import c_double, c_float, c_int32, c_int64, c_uint8, c_void_p
from typing import Any

import numpy as np

_BYREF = type(ctypes.byref(ctypes.c_int()))


class _Pointer:
    """Base of the parameter types; ctypes calls `from_param` for every argument."""

    dtype: np.dtype
    element: type
    writable: bool

    @classmethod
    def from_param(cls, value: Any) -> Any:
        if isinstance(value, np.ndarray):
            if value.dtype != cls.dtype:
                raise TypeError(f"expected a {cls.dtype} array, got {value.dtype}")
            if not value.flags.c_contiguous:
                raise TypeError("expected a C-contiguous array")
            if cls.writable and not value.flags.writeable:
                raise TypeError("expected a writable array")
            return c_void_p(value.ctypes.data)
        if value is None or isinstance(value, int):
            return c_void_p(value)
        target = value._obj if isinstance(value, _BYREF) else value
        if isinstance(target, ctypes.Array):
            matches = target._type_ is cls.element
        else:
            matches = isinstance(target, cls.element)
        if not matches:
            raise TypeError(f"expected {cls.element.__name__} data, got {type(target).__name__}")
        return value if target is not value else ctypes.byref(target)


def _pointer(name: str, element: type, *, writable: bool) -> type[_Pointer]:
    fields = {"dtype": np.dtype(element), "element": element, "writable": writable}
    return type(name, (_Pointer,), fields)


float_in = _pointer("float_in", c_float, writable=False)
float_out = _pointer("float_out", c_float, writable=True)
double_in = _pointer("double_in", c_double, writable=False)
double_out = _pointer("double_out", c_double, writable=True)
int32_in = _pointer("int32_in", c_int32, writable=False)
int32_out = _pointer("int32_out", c_int32, writable=True)
int64_in = _pointer("int64_in", c_int64, writable=False)
int64_out = _pointer("int64_out", c_int64, writable=True)
uint8_in = _pointer("uint8_in", c_uint8, writable=False)
uint8_out = _pointer("uint8_out", c_uint8, writable=True)
