"""Data sets as the command line names them: ``kind:argument,key=value,…``."""

from __future__ import annotations

from typing import Any

from . import data
from .errors import ArgumentError, KDSError

KINDS = ("digits", "voc")


def open_data(text: str, split: str) -> Any:
    """The data set that `text` names; `split` is "train" or "val" where the text has none.

    >>> open_data("digits:n=100,difficulty=0.5", "val")
    DigitScenes(split='val', n=100, size=96, seed=0, difficulty=0.5)
    """
    kind, _, rest = text.partition(":")
    plain, options = _parse(text, rest)
    if kind == "digits":
        if plain:
            raise ArgumentError(f"data {text!r}: expected digits:key=value,…")
        return _make(data.DigitScenes, text, {"split": split, **options})
    if kind == "voc":
        if len(plain) != 1:
            raise ArgumentError(f"data {text!r}: expected voc:FOLDER,key=value,…")
        splits = {"train": "trainval", "val": "test"}
        if "year" in options:
            options["year"] = str(options["year"])
        return _make(data.VOC, text, {"root": plain[0], "split": splits[split], **options})
    raise ArgumentError(f"data {text!r}: unknown kind {kind!r}; there are {', '.join(KINDS)}")


def _parse(text: str, rest: str) -> tuple[list[str], dict[str, Any]]:
    plain: list[str] = []
    options: dict[str, Any] = {}
    for part in filter(None, rest.split(",")):
        key, equals, value = part.partition("=")
        if not equals:
            plain.append(part)
        elif not key.isidentifier():
            raise ArgumentError(f"data {text!r}: {part!r} is no key=value")
        else:
            options[key] = _value(value)
    return plain, options


def _value(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _make(kind: Any, text: str, options: dict[str, Any]) -> Any:
    try:
        return kind(**options)
    except KDSError:
        raise
    except (TypeError, ValueError) as error:
        raise ArgumentError(f"data {text!r}: {error}") from None
