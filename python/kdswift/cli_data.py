"""Data sets as the command line names them: ``kind:argument,key=value,…``."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from . import data
from .errors import ArgumentError, KDSError


class Kind(NamedTuple):
    """How one kind of data set is written.

    plain : the arguments without ``key=`` in their order, each with its name in messages
    splits : the split for "train" and for "val"; None where the text itself tells
    text_options : options that stay text although they look like numbers
    masks : whether it has the objects' masks
    """

    dataset: Any
    plain: Mapping[str, str] = MappingProxyType({})
    splits: Mapping[str, str] | None = {"train": "train", "val": "val"}
    text_options: tuple[str, ...] = ("split",)
    masks: bool = False

    def usage(self, name: str) -> str:
        """e.g. ``voc:FOLDER,key=value,…``"""
        return f"{name}:{','.join([*self.plain.values(), 'key=value'])},…"


_ROOT = {"root": "FOLDER"}
_IMAGES_AND_FILE = {"images": "IMAGES", "annotations": "ANNOTATIONS.json"}
KINDS = {
    "digits": Kind(data.DigitScenes, masks=True),
    "voc": Kind(data.VOC, _ROOT, {"train": "trainval", "val": "test"}, ("split", "year")),
    "coco": Kind(data.COCO, _IMAGES_AND_FILE, None, masks=True),
    "kitti": Kind(data.KITTI, _ROOT),
    "ilsvrc": Kind(data.ILSVRCDet, _ROOT),
    "yolo": Kind(data.YOLO, {"yaml": "FILE.yaml"}),
}


def open_data(text: str, split: str, masks: bool = False) -> Any:
    """The data set that `text` names; `split` is "train" or "val" where the text has none.

    `masks` asks for the objects' masks, of which only some kinds have any.

    >>> open_data("digits:n=100,difficulty=0.5", "val")
    DigitScenes(split='val', n=100, size=96, seed=0, difficulty=0.5)
    """
    name, _, rest = text.partition(":")
    if name not in KINDS:
        raise ArgumentError(f"data {text!r}: unknown kind {name!r}; there are {', '.join(KINDS)}")
    kind = KINDS[name]
    plain, given = _parse(text, rest)
    if len(plain) != len(kind.plain):
        raise ArgumentError(f"data {text!r}: expected {kind.usage(name)}")
    options: dict[str, Any] = dict(zip(kind.plain, plain))
    if kind.splits is not None:
        options["split"] = kind.splits[split]
    for key, value in given.items():
        options[key] = value if key in kind.text_options else _value(value)
    if masks:
        if not kind.masks:
            known = ", ".join(name for name, kind in KINDS.items() if kind.masks)
            raise ArgumentError(f"data {text!r}: masks are in {known}")
        options["masks"] = True
    return _make(kind.dataset, text, options)


def _parse(text: str, rest: str) -> tuple[list[str], dict[str, str]]:
    plain: list[str] = []
    options: dict[str, str] = {}
    for part in filter(None, rest.split(",")):
        key, equals, value = part.partition("=")
        if not equals:
            plain.append(part)
        elif not key.isidentifier():
            raise ArgumentError(f"data {text!r}: {part!r} is no key=value")
        else:
            options[key] = value
    return plain, options


def _value(text: str) -> Any:
    if text in ("True", "true", "False", "false"):
        return text.lower() == "true"
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
