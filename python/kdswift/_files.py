"""Files of tensors: safetensors with a checksum, written so that no half file is ever seen.

The metadata holds ``kdswift`` (a JSON object) and ``crc32``, which covers names, shapes, values
and that object. A file that is cut or altered anywhere is refused with a `FormatError`.
"""

from __future__ import annotations

import contextlib
import json
import os
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .errors import FormatError, KDSError


def write_tensors(
    path: str | os.PathLike, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, Any]
) -> None:
    """Write a file whole or not at all.

    tensors : C-contiguous arrays by name;  metadata : JSON values

    Raises ``KDSError`` naming the file when the disk refuses.
    """
    from safetensors.numpy import save_file

    text = json.dumps(metadata, allow_nan=False, sort_keys=True)
    arrays = {name: np.ascontiguousarray(tensors[name]) for name in sorted(tensors)}
    header = {"format": "kdswift", "kdswift": text, "crc32": checksum(arrays, text)}
    with atomic(path) as temporary:
        save_file(arrays, temporary, metadata=header)


def read_tensors(path: str | os.PathLike) -> tuple[dict[str, np.ndarray], dict[str, Any] | None]:
    """Read a file: arrays by name, and the JSON metadata, None in files of others.

    Raises ``FormatError`` naming the file when it is missing, cut, altered, or no safetensors.
    """
    name = os.fspath(path)
    tensors, header = _read(name)
    if header.get("format") != "kdswift" and "crc32" not in header and "kdswift" not in header:
        return tensors, None
    text = header.get("kdswift")
    if text is None or header.get("crc32") is None:
        raise FormatError(f"{name}: damaged: its description or its checksum is missing")
    if checksum(tensors, text) != header["crc32"]:
        raise FormatError(f"{name}: damaged: the contents do not match their checksum")
    try:
        return tensors, json.loads(text)
    except ValueError as error:
        raise FormatError(f"{name}: damaged: its description is no JSON: {error}") from None


def _read(name: str) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    from safetensors import safe_open

    if not os.path.isfile(name):
        raise FormatError(f"{name}: no such file")
    try:
        with safe_open(name, framework="numpy") as file:
            header = file.metadata() or {}
            # Arrays of their own: the file may be replaced while they are in use.
            tensors = {key: np.array(file.get_tensor(key)) for key in file.keys()}  # noqa: SIM118
    except MemoryError:
        raise
    except Exception as error:  # SafetensorError, OSError, TypeError for types NumPy lacks
        size = os.path.getsize(name) if os.path.exists(name) else 0
        raise FormatError(
            f"{name}: cut off or no safetensors file ({size:,} bytes): {error}"
        ) from None
    return tensors, header


def checksum(tensors: Mapping[str, np.ndarray], text: str) -> str:
    """CRC-32, as 8 hexadecimal digits, of a description and of tensors in the order of names."""
    value = zlib.crc32(text.encode())
    for name in sorted(tensors):
        array = tensors[name]
        value = zlib.crc32(f"{name}|{array.dtype.str}|{array.shape}|".encode(), value)
        if array.size:
            value = zlib.crc32(np.ascontiguousarray(array).reshape(-1).view(np.uint8), value)
    return f"{value:08x}"


@contextlib.contextmanager
def atomic(
    path: str | os.PathLike, before_replace: Callable[[], None] | None = None
) -> Iterator[str]:
    """Give the name of a temporary file beside `path`; at the end it is synced and takes its place.

    When the body fails the temporary file goes, and what stood at `path` stays. `before_replace`
    runs once the new file is safe on disk and the old one is still there.
    """
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch()
        mode = temporary.stat().st_mode  # as the user's umask has it; some writers make it 0600
        yield str(temporary)
        temporary.chmod(mode)
        _sync(temporary)
        if before_replace is not None:
            before_replace()
        os.replace(temporary, target)
        _sync(target.parent)
    except OSError as error:
        raise KDSError(f"{target}: cannot be written: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def write_text(path: str | os.PathLike, text: str) -> None:
    """Write a text file whole or not at all."""
    with atomic(path) as temporary:
        Path(temporary).write_text(text, encoding="utf-8")


def keep_as(path: str | os.PathLike, other: str | os.PathLike) -> None:
    """Let `other` be what `path` is now; `path` stays. Nothing happens when there is no `path`."""
    if not os.path.exists(path):
        return
    temporary = f"{os.fspath(other)}.{os.getpid()}.tmp"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temporary)
    try:
        os.link(path, temporary)
    except OSError:  # a file system without links
        import shutil

        shutil.copyfile(path, temporary)
    os.replace(temporary, other)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
