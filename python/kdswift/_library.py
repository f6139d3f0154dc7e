"""Finds, loads and checks the engine; the only module that opens it.

    from ._library import lib
    lib.kds_set_num_threads(2)          # raises the matching KDSError when the status is not 0

The library is loaded at the first call, so that importing the package stays cheap and the
documentation can be built without it.
"""

from __future__ import annotations

import ctypes
import os
import platform
from pathlib import Path
from typing import Any, NoReturn

from . import _signatures as signatures
from .errors import ArgumentError, FormatError, KDSError, ShapeError

_EXCEPTIONS: dict[int, type[KDSError]] = {
    signatures.KDS_STATUS_ARGUMENT: ArgumentError,
    signatures.KDS_STATUS_SHAPE: ShapeError,
    signatures.KDS_STATUS_FORMAT: FormatError,
    signatures.KDS_STATUS_RUNTIME: KDSError,
}

# What the compiler may use at each level of x86-64, by the names of /proc/cpuinfo.
_CPU_FLAGS = {
    "v4": {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"},
    "v3": {"avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe"},
}
_FILES = {"v4": "libkdswift-v4.so", "v3": "libkdswift-v3.so", "any": "libkdswift-any.so"}


def supported_isas() -> list[str]:
    """The variants that this processor can run, best first."""
    if platform.machine() not in ("x86_64", "AMD64"):
        return ["any"]
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ["v3", "any"]
    flags = next((line.split(":", 1)[1].split() for line in lines if line[:5] == "flags"), [])
    usable = [isa for isa, needed in _CPU_FLAGS.items() if needed <= set(flags)]
    if "v3" not in usable:
        usable = []
    return [*usable, "any"]


def candidates() -> list[Path]:
    """The files that may be the engine, in the order in which they are tried."""
    override = os.environ.get("KDSWIFT_LIBRARY")
    if override:
        return [Path(override)]
    isas = supported_isas()
    wanted = os.environ.get("KDSWIFT_ISA")
    if wanted:
        name = wanted.removeprefix("x86-64-")
        if name not in _FILES:
            raise KDSError(f"KDSWIFT_ISA is '{wanted}', expected v3 or v4")
        isas = [name]
    package = Path(__file__).resolve().parent
    root = package.parent.parent
    paths = [package / "lib" / _FILES[isa] for isa in isas]
    paths += [root / f".build-{isa}" / "release" / "libkdswift.so" for isa in isas]
    return paths


def _open() -> tuple[ctypes.CDLL, Path]:
    # libgomp's waiting threads spin for milliseconds by default. On a machine that is busy with
    # anything else that made a training step seven times slower; a short spin costs nothing
    # measurable.
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")
    tried = []
    for path in candidates():
        if not path.exists():
            tried.append(f"  {path}: not there")
            continue
        try:
            return ctypes.CDLL(str(path)), path
        except OSError as error:
            tried.append(f"  {path}: {error}")
    raise KDSError(
        "the engine of kdswift was not found. Tried:\n"
        + "\n".join(tried)
        + "\nIn a checkout run 'make build ISA=native'; otherwise reinstall kdswift, or set "
        "KDSWIFT_LIBRARY to the file."
    )


def _raise(status: int, function: Any) -> NoReturn:
    message = lib.last_error() or f"{function.__name__} failed with status {status}"
    raise _EXCEPTIONS.get(status, KDSError)(message)


def _check(status: int, function: Any, _arguments: tuple) -> None:
    if status:
        _raise(status, function)


class _Library:
    """The C functions as attributes: types are set, and statuses become exceptions."""

    def __init__(self) -> None:
        self._dll: ctypes.CDLL | None = None
        self._path: Path | None = None

    def __getattr__(self, name: str) -> Any:
        if name not in signatures.FUNCTIONS:
            raise AttributeError(f"the engine has no function {name}")
        function = self._bind(self._load(), name)
        setattr(self, name, function)
        return function

    @property
    def path(self) -> Path:
        """The file that was loaded."""
        self._load()
        assert self._path is not None
        return self._path

    def last_error(self) -> str:
        """The message of the last failed call on this thread."""
        return self.kds_last_error().decode(errors="replace")

    def text(self, name: str, *arguments: Any) -> str:
        """Call a function that ends in `(capacity, out_needed, out_text)` and return the text."""
        function = getattr(self, name)
        needed = ctypes.c_int64()
        buffer = ctypes.create_string_buffer(1024)
        function(*arguments, len(buffer), ctypes.byref(needed), buffer)
        if needed.value > len(buffer):
            buffer = ctypes.create_string_buffer(needed.value)
            function(*arguments, len(buffer), ctypes.byref(needed), buffer)
        return buffer.value.decode()

    def _load(self) -> ctypes.CDLL:
        if self._dll is None:
            dll, path = _open()
            self._check_version(dll, path)
            self._dll, self._path = dll, path
        return self._dll

    def _check_version(self, dll: ctypes.CDLL, path: Path) -> None:
        version = ctypes.c_int32()
        self._bind(dll, "kds_abi_version")(ctypes.byref(version))
        if version.value != signatures.KDS_ABI_VERSION:
            raise KDSError(
                f"{path} has ABI version {version.value}, this package needs "
                f"{signatures.KDS_ABI_VERSION}: rebuild it ('make build') or reinstall kdswift"
            )

    @staticmethod
    def _bind(dll: ctypes.CDLL, name: str) -> Any:
        restype, argtypes = signatures.FUNCTIONS[name]
        try:
            function = getattr(dll, name)
        except AttributeError:
            raise KDSError(f"{dll._name} lacks {name}: it is older than this package") from None
        function.restype = restype
        function.argtypes = argtypes
        if restype is ctypes.c_int32:
            function.errcheck = _check
        return function


lib = _Library()
