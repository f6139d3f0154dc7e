"""Runs operations of the engine by name."""

from __future__ import annotations

import ctypes
import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from ._library import lib
from ._signatures import kds_tensor
from .errors import ArgumentError

# Results that any operation has at most.
_CAPACITY = 8


def _plain_value(value: Any) -> Any:
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is no number, text or list")


def _attributes(name: str, attributes: dict[str, Any]) -> bytes | None:
    if not attributes:
        return None
    try:
        text = json.dumps(attributes, default=_plain_value, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ArgumentError(f"{name}: bad argument in {attributes}: {error}") from None
    return text.encode()


def apply_handles(
    name: str, handles: Sequence[kds_tensor], attributes: dict[str, Any]
) -> list[kds_tensor]:
    """Run operation `name`; new handles, which the caller owns."""
    count = len(handles)
    inputs = (kds_tensor * count)(*handles)
    outputs = (kds_tensor * _CAPACITY)()
    written = ctypes.c_int32()
    lib.kds_op_apply(
        name.encode(),
        _attributes(name, attributes),
        inputs,
        count,
        _CAPACITY,
        outputs,
        ctypes.byref(written),
    )
    return [kds_tensor(outputs[index].value) for index in range(written.value)]


def op_names() -> list[str]:
    """The names of all operations of the engine."""
    return json.loads(lib.text("kds_op_names"))


def describe_ops() -> dict[str, dict[str, Any]]:
    """Each operation's `summary`, `min_inputs`, `max_inputs` and `attributes` with defaults."""
    return json.loads(lib.text("kds_op_describe"))
