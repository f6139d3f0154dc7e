"""Weights from elsewhere: mappings of arrays, safetensors files, PyTorch's files."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ._files import read_tensors
from .errors import ArgumentError, FormatError, KDSError, ShapeError

# Kept by PyTorch's batch normalization, of no use for anything here.
_IGNORED = ("num_batches_tracked",)
# What trainers wrap around the weights they save.
_WRAPPERS = ("state_dict", "model", "model_state_dict")


@dataclass
class LoadReport:
    """What `load_state_dict` did.

    loaded : names that were set
    missing : names of the model that the mapping lacks
    unexpected : names of the mapping that the model lacks
    misshaped : name -> (shape in the model, shape in the mapping)
    """

    loaded: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    misshaped: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """Whether everything matched."""
        return not (self.missing or self.unexpected or self.misshaped)

    def problems(self) -> str:
        """What did not match, one kind per line."""
        lines = []
        for title, names in (("missing", self.missing), ("unexpected", self.unexpected)):
            if names:
                more = f" … and {len(names) - 8} more" if len(names) > 8 else ""
                lines.append(f"{len(names)} {title}: {', '.join(names[:8])}{more}")
        for name, (wanted, given) in list(self.misshaped.items())[:8]:
            lines.append(f"{name} has shape {given}, the model needs {wanted}")
        if len(self.misshaped) > 8:
            lines.append(f"… and {len(self.misshaped) - 8} more of other shapes")
        return "\n".join(lines)

    def __repr__(self) -> str:
        text = f"LoadReport({len(self.loaded)} loaded)"
        return text if self.complete else f"{text}\n{self.problems()}"


def read_weights(source: Any) -> dict[str, np.ndarray]:
    """Arrays by name from a mapping, or from a .safetensors, .pth, .pt or .bin file.

    Values may be NumPy arrays, kd or torch tensors, or anything that NumPy reads. PyTorch's files
    are opened by PyTorch itself with ``weights_only``, which runs no code from the file.
    """
    if isinstance(source, (str, os.PathLike)):
        name = os.fspath(source)
        if name.endswith(".safetensors"):
            return _of_model(read_tensors(name)[0])
        if name.endswith((".pth", ".pt", ".bin")):
            source = _read_torch(name)
        else:
            raise ArgumentError(
                f"{name}: weights are read from .safetensors, .pth, .pt and .bin files"
            )
    if not isinstance(source, Mapping):
        raise ArgumentError(
            f"load_state_dict: expected a mapping or a path, got {type(source).__name__}"
        )
    return {
        str(name): _as_array(name, value)
        for name, value in source.items()
        if not str(name).endswith(_IGNORED)
    }


def compare(state: Mapping[str, tuple[int, ...]], values: Mapping[str, np.ndarray]) -> LoadReport:
    """What of `values` fits a model whose entries have these shapes."""
    report = LoadReport()
    for name, shape in state.items():
        if name not in values:
            report.missing.append(name)
        elif values[name].shape != tuple(shape):
            report.misshaped[name] = (tuple(shape), values[name].shape)
        else:
            report.loaded.append(name)
    report.unexpected = [name for name in values if name not in state]
    return report


def refuse(report: LoadReport) -> None:
    """Raise for a report with problems: `ShapeError` if shapes differ, else `ArgumentError`."""
    if report.complete:
        return
    kind = ShapeError if report.misshaped else ArgumentError
    raise kind(
        f"load_state_dict: nothing was loaded:\n{report.problems()}\n"
        "Pass strict=False to load what fits."
    )


def _of_model(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The model's part of a run's checkpoint; other files as they are."""
    inside = {n.removeprefix("model."): v for n, v in tensors.items() if n.startswith("model.")}
    rest = [name for name in tensors if not name.startswith(("model.", "trainer."))]
    return tensors if rest or not inside else inside


def _read_torch(name: str) -> Mapping[str, Any]:
    if not os.path.isfile(name):
        raise FormatError(f"{name}: no such file")
    try:
        import torch
    except ImportError:
        raise KDSError(
            f"{name}: PyTorch's files need PyTorch: pip install torch, or convert the file to "
            ".safetensors"
        ) from None
    try:
        content = torch.load(name, map_location="cpu", weights_only=True)
    except Exception as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise FormatError(f"{name}: PyTorch cannot read it: {first}") from None
    for key in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            return content[key]
    if not isinstance(content, Mapping):
        raise FormatError(f"{name}: holds {type(content).__name__}, expected weights by name")
    return content


def _as_array(name: Any, value: Any) -> np.ndarray:
    if hasattr(value, "detach"):
        value = value.detach()
    if hasattr(value, "float") and "bfloat16" in str(getattr(value, "dtype", "")):
        value = value.float()
    try:
        array = np.asarray(value)
    except Exception as error:
        raise ArgumentError(f"load_state_dict: {name}: {error}") from None
    if array.dtype.kind not in "fiub":
        raise ArgumentError(
            f"load_state_dict: {name} must be numbers, got {type(value).__name__} "
            f"of dtype {array.dtype}"
        )
    wanted = np.float32 if array.dtype.kind == "f" else np.int64
    array = np.ascontiguousarray(array, dtype=wanted).reshape(array.shape)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ArgumentError(f"load_state_dict: {name} has values that are NaN or infinite")
    return array
