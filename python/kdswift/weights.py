"""Weights from elsewhere: mappings of arrays, safetensors files, PyTorch's files."""

from __future__ import annotations

import os
import re
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


def read_weights(source: Any, where: str = "load_state_dict") -> dict[str, np.ndarray]:
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
        raise ArgumentError(f"{where}: expected a mapping or a path, got {type(source).__name__}")
    return {
        str(name): _as_array(name, value)
        for name, value in source.items()
        if not str(name).endswith(_IGNORED)
    }


# Names that torchvision's detectors had before their convolutions came in blocks.
_FORMER = (
    (
        r"backbone\.fpn\.(inner|layer)_blocks\.(\d+)\.(weight|bias)",
        r"backbone.fpn.\1_blocks.\2.0.\3",
    ),
    (r"rpn\.head\.conv\.(weight|bias)", r"rpn.head.conv.0.0.\1"),
    (r"roi_heads\.mask_head\.mask_fcn(\d+)\.(weight|bias)", None),
    (r"head\.(classification|regression)_head\.conv\.(\d+)\.(weight|bias)", None),
)


def renamed(values: Mapping[str, Any], state: Mapping[str, Any]) -> dict[str, Any]:
    """`values` with the names of today's torchvision where only those are in `state`."""
    result = {}
    for name, value in values.items():
        today = name if name in state else _today(name)
        result[today if today in state and today not in values else name] = value
    return result


def _today(name: str) -> str:
    for pattern, replacement in _FORMER:
        match = re.fullmatch(pattern, name)
        if match is None:
            continue
        if replacement:
            return match.expand(replacement)
        groups = match.groups()
        if len(groups) == 2:  # masks were counted from 1
            return f"roi_heads.mask_head.{int(groups[0]) - 1}.0.{groups[1]}"
        # Every second layer was a ReLU.
        return f"head.{groups[0]}_head.conv.{int(groups[1]) // 2}.0.{groups[2]}"
    return name


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


def refuse(report: LoadReport, where: str = "load_state_dict") -> None:
    """Raise for a report with problems: `ShapeError` if shapes differ, else `ArgumentError`."""
    if report.complete:
        return
    kind = ShapeError if report.misshaped else ArgumentError
    raise kind(
        f"{where}: nothing was loaded:\n{report.problems()}\nPass strict=False to load what fits."
    )


# The last layers of torchvision's classifiers; of a Swin Transformer also the norm before them.
_CLASSIFIERS = ("fc.", "classifier.", "head.", "norm.", "AuxLogits.")
# Their fully connected layers that the region heads of the published detectors begin with.
_REGION_LAYERS = {"fc6": ("classifier.0", "classifier.1"), "fc7": ("classifier.3", "classifier.4")}


def classifier_entries(
    values: Mapping[str, np.ndarray], state: Mapping[str, tuple[int, ...]]
) -> tuple[dict[str, np.ndarray], dict[str, tuple[int, ...]]]:
    """A classifier's weights under a detector's names, and what of its `state` they should fill."""
    result: dict[str, np.ndarray] = {}
    body = "backbone.body." if any(n.startswith("backbone.body.") for n in state) else "backbone."
    for name, value in values.items():
        own = body + name
        if own not in state and name[:1].isdigit():  # the convolutions of a VGG alone
            own = f"{body}features.{name}"
        if own in state or not name.startswith(_CLASSIFIERS):
            result[own] = value
    for layer, sources in _REGION_LAYERS.items():
        for kind in ("weight", "bias"):
            own = f"roi_heads.box_head.{layer}.{kind}"
            for source in (f"{source}.{kind}" for source in sources):
                if source in values and state.get(own) == values[source].shape:
                    result[own] = values[source]
    # The pyramid and the norms behind a Swin Transformer's stages are the detector's own.
    wanted = {
        name: shape
        for name, shape in state.items()
        if name in result
        or (name.startswith(body) and not re.match(r"backbone\.(fpn|(body\.)?norm\d)\.", name))
    }
    return result, wanted


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
