"""Threads, seeds, the plan of convolutions, and what the installation consists of."""

from __future__ import annotations

import ctypes
import json
from typing import Any

from . import _signatures as signatures
from ._library import lib
from .errors import ArgumentError

_PLANS = {
    "static": signatures.KDS_CONV_PLAN_STATIC,
    "measured": signatures.KDS_CONV_PLAN_MEASURED,
    "direct": signatures.KDS_CONV_PLAN_DIRECT,
    "winograd": signatures.KDS_CONV_PLAN_WINOGRAD,
}
_seed = 0


def build_info() -> dict[str, Any]:
    """What runs here: `version`, `abi`, `isa`, `onednn`, `openblas`, `threads`, `library`.

    `isa` is the instruction set that the engine was compiled for ("x86-64-v3", "x86-64-v4");
    `library` is the path of the file that was loaded.
    """
    info = json.loads(lib.text("kds_build_info"))
    info["library"] = str(lib.path)
    return info


def set_num_threads(count: int) -> None:
    """Use `count` threads (1 to 1024) from now on, in every thread of this process.

    The default is the environment variable OMP_NUM_THREADS, else the number of processors. Results
    do not depend on it.
    """
    lib.kds_set_num_threads(count)


def get_num_threads() -> int:
    """How many threads the next operation uses; 1 in a forked child."""
    count = ctypes.c_int32()
    lib.kds_get_num_threads(ctypes.byref(count))
    return count.value


def seed(number: int) -> None:
    """Set the seed for everything random that is not given a seed of its own."""
    global _seed
    if not 0 <= number < 2**63:
        raise ArgumentError(f"seed is {number}, expected 0 to 2**63 - 1")
    _seed = int(number)


def current_seed() -> int:
    """The seed last set; 0 at the start."""
    return _seed


def next_seed() -> int:
    """A seed for one random operation; the seed counts on, so the next one differs."""
    global _seed
    current, _seed = _seed, (_seed + 1) % 2**63
    return current


def memory_stats(reset_peak: bool = False) -> dict[str, int]:
    """Memory of tensors and scratch space, in bytes.

    `in_use`; `cached`: kept for reuse; `peak`: the most in use at a time since the start or the
    last call with `reset_peak`; `allocations`: how often the system was asked.
    """
    values = [ctypes.c_int64() for _ in range(4)]
    lib.kds_memory_stats(int(reset_peak), *map(ctypes.byref, values))
    names = ("in_use", "cached", "peak", "allocations")
    return {name: value.value for name, value in zip(names, values)}


def release_memory() -> None:
    """Hand the memory that is kept for reuse back to the system."""
    lib.kds_release_memory()


def set_conv_plan(plan: str) -> None:
    """How convolution algorithms are chosen.

    "static" (the default) goes by the shape, so that runs repeat bit for bit; "measured" times the
    algorithms at first use and keeps the fastest; "direct" and "winograd" take one wherever it
    exists, for comparisons.
    """
    if plan not in _PLANS:
        raise ArgumentError(f"plan is {plan!r}, expected one of {', '.join(_PLANS)}")
    lib.kds_set_conv_plan(_PLANS[plan])


def live_handles() -> int:
    """How many engine objects are alive; for leak tests."""
    count = ctypes.c_int64()
    lib.kds_live_handles(ctypes.byref(count))
    return count.value
