"""Checked records of JSON files: the lists of entries with ids that COCO files consist of."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..errors import FormatError

_KINDS = {int: "a whole number", str: "a text", list: "a list"}


def read_json(path: Path) -> dict[str, Any]:
    """The object in a file; FormatError with file and line when it is missing or broken."""
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise FormatError(f"{path}: cannot read the annotations: {error.strerror}") from error
    except json.JSONDecodeError as error:
        raise FormatError(
            f"{path}, line {error.lineno}: broken or truncated JSON: {error.msg}"
        ) from error
    except (UnicodeDecodeError, RecursionError, ValueError) as error:
        raise FormatError(f"{path}: broken JSON: {error}") from error
    if not isinstance(content, dict):
        raise FormatError(f"{path}: expected an object, got {type(content).__name__}")
    return content


def table(
    content: Mapping[str, Any], name: str, path: Path, fields: Mapping[str, type]
) -> dict[int, dict[str, Any]]:
    """The entries of the list `name` by id, each with `fields` of the given types.

    Raises ``FormatError`` that names the file and the entry for whatever is missing or of
    another type, and for an id that occurs twice.
    """
    entries = content.get(name)
    if not isinstance(entries, list):
        raise FormatError(f"{path}: no list {name!r}; the keys are {sorted(content)[:12]}")
    result: dict[int, dict[str, Any]] = {}
    for position, entry in enumerate(entries):
        where = f"{path}, {name}[{position}]"
        if not isinstance(entry, dict):
            raise FormatError(f"{where}: expected an object, got {type(entry).__name__}")
        for field, kind in (("id", int), *fields.items()):
            if field not in entry:
                raise FormatError(f"{where}: no {field!r}; the fields are {sorted(entry)[:12]}")
            if not isinstance(entry[field], kind) or isinstance(entry[field], bool):
                raise FormatError(
                    f"{where}: {field} is {str(entry[field])[:60]!r}, not {_KINDS[kind]}"
                )
        if entry["id"] in result:
            raise FormatError(f"{where}: id {entry['id']} occurs twice")
        result[entry["id"]] = entry
    return result


def as_box(value: Any, error: Callable[[str], FormatError]) -> tuple[float, float, float, float]:
    """Four finite numbers."""
    if len(value) != 4 or not all(_is_number(v) for v in value):
        raise error(f"bbox is {str(value)[:80]}, not four numbers")
    x, y, width, height = map(float, value)
    return x, y, width, height


def whole(value: Any, what: str) -> int:
    """A positive whole number."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value // 1:
        raise FormatError(f"{what} is {value!r}, not a whole number")
    if not 0 < value < 1 << 31:
        raise FormatError(f"{what} is {value!r}, not a size in pixels")
    return int(value)


def _is_number(value: Any) -> bool:
    # Digits without end are whole numbers in JSON, which a float cannot hold.
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return abs(value) < 1e15 if isinstance(value, int) else math.isfinite(value)
