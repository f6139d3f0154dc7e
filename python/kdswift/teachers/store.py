"""Arrays on disk, one file each: written whole or not at all, read by memory mapping.

A file is ``KDSTAP1\\n``, the length of a JSON header (uint32), the CRC-32 of header and values
(uint32), the header, zeros up to a multiple of 64, and values, all little-endian: float32, or
float16 where the header says so.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import struct
import zlib
from pathlib import Path

import numpy as np

_MAGIC = b"KDSTAP1\n"
_FIXED = struct.Struct("<8sII")
_ALIGNMENT = 64
_TYPES = {"float32": "<f4", "float16": "<f2"}
_numbers = itertools.count()


def entry_path(folder: Path, key: str) -> Path:
    """Where an entry lies; 256 folders keep each of them short."""
    return folder / key[:2] / f"{key[2:]}.tap"


def write_entry(path: Path, key: str, array: np.ndarray, dtype: str = "float32") -> None:
    """Write an array under its key; raises OSError when the disk refuses.

    dtype : "float32" or "float16", to which values are rounded
    """
    kind = {} if dtype == "float32" else {"dtype": dtype}
    header = json.dumps({"key": key, "shape": array.shape, **kind}).encode()
    payload = _bytes(np.ascontiguousarray(array, dtype=_TYPES[dtype]))
    crc = zlib.crc32(payload, zlib.crc32(header))
    gap = -(_FIXED.size + len(header)) % _ALIGNMENT
    path.parent.mkdir(parents=True, exist_ok=True)
    # A name of its own: threads and processes may write the same entry at once.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{next(_numbers)}")
    try:
        with open(temporary, "wb") as file:
            file.write(_FIXED.pack(_MAGIC, len(header), crc) + header + b"\0" * gap)
            file.write(payload)
        # Not synced: a file that a crash leaves short fails its checksum and is computed anew.
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()


def read_entry(path: Path, key: str) -> np.ndarray | None:
    """The float32 array under a key; None when it is missing, damaged or another one's.

    Values kept as float32 are mapped, read-only; those kept as float16 are a copy.
    """
    try:
        with open(path, "rb") as file:
            magic, length, crc = _FIXED.unpack(file.read(_FIXED.size))
            header = file.read(length)
            size = os.fstat(file.fileno()).st_size
        if magic != _MAGIC or len(header) != length:
            return None
        description = json.loads(header)
        shape = tuple(int(n) for n in description["shape"])
        offset = -(-(_FIXED.size + length) // _ALIGNMENT) * _ALIGNMENT
        count = int(np.prod(shape, dtype=np.int64))
        dtype = np.dtype(_TYPES[description.get("dtype", "float32")])
        if description["key"] != key or count < 0 or size != offset + dtype.itemsize * count:
            return None
        if count == 0:
            return np.zeros(shape, np.float32)
        values = np.memmap(path, dtype=dtype, mode="r", offset=offset, shape=shape)
    except (OSError, ValueError, KeyError, TypeError, struct.error):
        return None
    if zlib.crc32(_bytes(values), zlib.crc32(header)) != crc:
        return None
    return values if dtype == np.float32 else values.astype(np.float32)


def _bytes(values: np.ndarray) -> memoryview | bytes:
    return memoryview(values.reshape(-1).view(np.uint8)) if values.size else b""
