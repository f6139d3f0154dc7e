"""Loss classes of other libraries, each file by itself, without the library's dependencies.

pip download --no-deps -d wheels mmrazor==1.0.0 torchdistill==1.1.5
for one in wheels/*.whl; do unzip -q "$one" -d references; done
KDSWIFT_REFERENCES=references python tools/parity/table.py
"""

from __future__ import annotations

import importlib.util
import os
import sys
import types
from pathlib import Path
from typing import Any

import torch

FOLDER = os.environ.get("KDSWIFT_REFERENCES", "")


def available(library: str) -> bool:
    """Whether the unpacked wheel of "mmrazor" or "torchdistill" is there."""
    return bool(FOLDER) and (Path(FOLDER) / library).is_dir()


class _Registry:
    """Stands for a registry whose decorators leave the class as it is."""

    def register_module(self, *_args: Any, **_options: Any) -> Any:
        return lambda made: made


class _Connector(torch.nn.Module):
    """Stands for mmrazor's base class of connectors."""

    def __init__(self, init_cfg: Any = None) -> None:
        super().__init__()

    def forward(self, feature: torch.Tensor) -> torch.Tensor:
        return self.forward_train(feature)


def _stub(name: str, **members: Any) -> None:
    module = types.ModuleType(name)
    module.__dict__.update(members)
    module.__path__ = []
    sys.modules.setdefault(name, module)


def mmrazor(file: str, name: str) -> Any:
    """A class of mmrazor/models/FILE, e.g. ("losses/pkd_loss.py", "PKDLoss")."""
    package = "mmrazor.models." + file.rpartition("/")[0].replace("/", ".")
    _stub("mmrazor", __version__="1.0.0")
    _stub("mmrazor.models")
    _stub("mmrazor.registry", MODELS=_Registry())
    _stub(package)
    _stub(f"{package}.base_connector", BaseConnector=_Connector)
    return getattr(_load(f"mmrazor/models/{file}", package), name)


def torchdistill(name: str) -> Any:
    """A class of torchdistill's losses/mid_level.py."""
    for module in ("torchdistill", "torchdistill.common", "torchdistill.losses"):
        _stub(module)
    logger = types.SimpleNamespace(getChild=lambda _name: None)
    _stub("torchdistill.common.constant", def_logger=logger)
    _stub(
        "torchdistill.losses.registry",
        register_loss_wrapper=lambda made: made,
        register_mid_level_loss=lambda made: made,
    )
    return getattr(_load("torchdistill/losses/mid_level.py", "torchdistill.losses"), name)


def _load(path: str, package: str) -> types.ModuleType:
    name = f"{package}.{Path(path).stem}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(FOLDER) / path)
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]
