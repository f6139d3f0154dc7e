"""Loss functions of mmdet 3.3.0, file by file, without its dependencies.

pip download --no-deps -d wheels mmdet==3.3.0 && unzip -q wheels/mmdet-3.3.0*.whl -d references
KDSWIFT_REFERENCES=references python tools/parity/table.py
"""

from __future__ import annotations

import importlib
import os
import sys
import types
from pathlib import Path
from typing import Any

FOLDER = Path(os.environ.get("KDSWIFT_REFERENCES", "")) / "mmdet"


def available() -> bool:
    """Whether the unpacked wheel is there."""
    return bool(os.environ.get("KDSWIFT_REFERENCES")) and FOLDER.is_dir()


class _Registry:
    """Stands for a registry whose decorators leave the class as it is."""

    def register_module(self, *_args: Any, **_options: Any) -> Any:
        return lambda made: made


def losses(file: str) -> Any:
    """The module mmdet/models/losses/FILE.py."""
    for package in ("", "models", "models.losses", "structures", "structures.bbox"):
        _package(package)
    registry = types.ModuleType("mmdet.registry")
    registry.MODELS = _Registry()
    sys.modules.setdefault("mmdet.registry", registry)
    overlaps = importlib.import_module("mmdet.structures.bbox.bbox_overlaps")
    sys.modules["mmdet.structures.bbox"].bbox_overlaps = overlaps.bbox_overlaps
    return importlib.import_module(f"mmdet.models.losses.{file}")


def _package(name: str) -> None:
    """A package of the wheel whose own `__init__` is not run."""
    full = f"mmdet.{name}".rstrip(".")
    if full not in sys.modules:
        module = types.ModuleType(full)
        module.__path__ = [str(FOLDER.joinpath(*name.split(".")) if name else FOLDER)]
        sys.modules[full] = module
