"""Every exported function, called with what an outsider may send by mistake: a status, no crash."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys

import numpy as np
import pytest

from kdswift import _arguments, _library
from kdswift import _signatures as signatures

GARBAGE = 0x5EADBEEF0
# Name -> (integers, reals, handles, text); memory of the caller is always NULL, because nothing can
# tell a wrong address from a right one.
PROFILES = {
    "zero": (0, 0.0, None, None),
    "negative": (-1, -1.0, None, b""),
    "one": (1, 1.0, GARBAGE, b"{}"),
    "garbage handles": (3, float("nan"), GARBAGE, b'{"no such key": 1}'),
    "largest": (2**31 - 1, float("inf"), GARBAGE, b"\xff\xfe"),
    "smallest": (-(2**31), float("-inf"), 16, b"{"),
    "deep text": (2, 1e-300, 8, b"[" * 100_000),
}


def is_handle(kind: type) -> bool:
    return (
        isinstance(kind, type) and issubclass(kind, ctypes.c_void_p) and kind.__name__[:4] == "kds_"
    )


def argument(kind: type, profile: str, *, out: bool):
    """The value of one parameter; with `out`, memory of the right type instead of NULL."""
    integer, real, handle, text = PROFILES[profile]
    if kind in (ctypes.c_int32, ctypes.c_int64, ctypes.c_uint8):
        return kind(integer)
    if kind in (ctypes.c_float, ctypes.c_double):
        return kind(real)
    if kind is ctypes.c_char_p:
        return text
    if is_handle(kind):
        return kind(handle)
    if out and isinstance(kind, type) and issubclass(kind, _arguments._Pointer) and kind.writable:
        # Room for any fixed-size result; how much a caller's buffer holds is the caller's word.
        return (kind.element * 64)()
    if out and hasattr(kind, "_type_") and is_handle(kind._type_):
        return ctypes.byref(kind._type_())
    return None


def takes_results(kinds: tuple) -> bool:
    """Whether a function writes through a pointer of the caller."""
    writes = [k for k in kinds if isinstance(k, type) and issubclass(k, _arguments._Pointer)]
    return any(k.writable for k in writes) or any(
        hasattr(k, "_type_") and isinstance(k._type_, type) and is_handle(k._type_) for k in kinds
    )


def call_every_function() -> None:
    """Runs in a process of its own; the last line printed names the function that crashed."""
    for name, (restype, kinds) in signatures.FUNCTIONS.items():
        if restype is not ctypes.c_int32:
            continue
        function = getattr(_library.lib, name)
        function.errcheck = lambda status, *_: status
        for profile in PROFILES:
            for out in (False, True):
                # Sizes beside real memory stay small: a size is a promise about that memory.
                if out and profile in ("largest", "garbage handles"):
                    continue
                print(name, profile, "out" if out else "", flush=True)
                status = function(*(argument(kind, profile, out=out) for kind in kinds))
                assert 0 <= status <= 4, f"status {status}"
                assert status == 0 or _library.lib.last_error(), "no message"
                if not out and takes_results(kinds):
                    assert status != 0, "NULL for a result was taken"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="POSIX only")
def test_bad_arguments_give_a_status_and_never_a_crash():
    code = "import test_boundary; test_boundary.call_every_function()"
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", code],
        cwd=os.path.dirname(__file__),
        env={**os.environ, "OMP_NUM_THREADS": "2"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    last = done.stdout.strip().splitlines()[-1:]
    assert done.returncode == 0, f"exit {done.returncode} at {last}\n{done.stderr[-2000:]}"
    assert len(done.stdout.splitlines()) >= 7 * (len(signatures.FUNCTIONS) - 1)


def wrong_kind(kind: type, handle: int):
    """The handle for every handle parameter, alone or in an array; harmless values elsewhere."""
    if is_handle(kind):
        return kind(handle)
    if hasattr(kind, "_type_") and is_handle(kind._type_):
        return ctypes.byref(kind._type_(handle))
    return argument(kind, "one", out=True)


def test_a_handle_of_another_kind_is_refused_and_stays_alive():
    tensor = signatures.kds_tensor()
    extents = (ctypes.c_int64 * 1)(3)
    _library.lib.kds_tensor_create(
        signatures.KDS_DTYPE_FLOAT32, 1, extents, None, ctypes.byref(tensor)
    )
    checked = 0
    for name, (_, kinds) in signatures.FUNCTIONS.items():
        if not kinds or not is_handle(kinds[0]) or kinds[0] is signatures.kds_tensor:
            continue
        function = getattr(_library.lib, name)
        arguments = [wrong_kind(kind, tensor.value) for kind in kinds]
        with pytest.raises(_library.KDSError, match="is a tensor handle, expected a"):
            function(*arguments)
        checked += 1
    assert checked >= 5
    _library.lib.kds_tensor_release(tensor)
    with pytest.raises(_library.ArgumentError, match="not a live tensor handle"):
        _library.lib.kds_tensor_release(tensor)


def test_every_release_takes_null():
    for name, (_, kinds) in signatures.FUNCTIONS.items():
        if name.endswith("_release"):
            assert len(kinds) == 1, name
            getattr(_library.lib, name)(None)


def test_every_handle_type_has_a_release():
    handles = {k for _, kinds in signatures.FUNCTIONS.values() for k in kinds if is_handle(k)}
    for handle in handles:
        assert f"{handle.__name__}_release" in signatures.FUNCTIONS


def test_null_result_is_refused():
    with pytest.raises(_library.ArgumentError, match="out_count is NULL"):
        _library.lib.kds_get_num_threads(None)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.zeros(2, np.float64), "expected a float32 array, got float64"),
        (np.zeros((2, 2), np.float32)[:, 0], "C-contiguous"),
        ((ctypes.c_double * 2)(), "expected c_float data"),
        (ctypes.c_int32(), "expected c_float data"),
        ("text", "expected c_float data"),
        ([1.0], "expected c_float data"),
    ],
)
def test_wrong_memory_is_refused_before_the_call(value, message):
    for kind in (_arguments.float_in, _arguments.float_out):
        with pytest.raises(TypeError, match=message):
            kind.from_param(value)


def test_read_only_memory_is_refused_for_results():
    array = np.zeros(2, np.float32)
    array.flags.writeable = False
    assert _arguments.float_in.from_param(array).value == array.ctypes.data
    with pytest.raises(TypeError, match="writable"):
        _arguments.float_out.from_param(array)


@pytest.mark.parametrize("value", [None, 4096, np.zeros(3, np.float32), (ctypes.c_float * 3)()])
def test_right_memory_is_taken(value):
    _arguments.float_out.from_param(value)


def test_text_of_any_length_arrives_whole():
    calls = []

    def long_text(capacity, needed, buffer):
        calls.append(capacity)
        needed._obj.value = 5001
        if capacity >= 5001:
            ctypes.memmove(buffer, b"x" * 5000 + b"\0", 5001)

    library = _library._Library()
    library.kds_long_text = long_text
    assert library.text("kds_long_text") == "x" * 5000
    assert calls == [1024, 5001]
