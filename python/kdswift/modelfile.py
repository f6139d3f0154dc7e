"""Model files: weights, configuration, class names and lineage in one .safetensors file."""

from __future__ import annotations

import os
from typing import Any

from ._files import read_tensors, write_tensors
from ._version import __version__
from .detector import Detector
from .errors import FormatError, KDSError
from .weights import compare

KIND = "detector"


def save(model: Detector, path: str | os.PathLike) -> None:
    """Write a model file; see `Detector.save`."""
    write_tensors(path, model.state_dict(), describe(model))


def describe(model: Detector) -> dict[str, Any]:
    """The metadata of a model file."""
    return {
        "kind": KIND,
        "version": __version__,
        "configuration": model.configuration,
        "class_names": list(model.class_names or ()),
        "lineage": model.lineage,
    }


def load(path: str | os.PathLike) -> Detector:
    """Rebuild a model from a file that `Detector.save` or a run wrote.

    Raises ``FormatError`` naming the file when it is missing, cut off, altered, or holds no model.
    """
    name = os.fspath(path)
    tensors, metadata = read_tensors(name)
    if metadata is None:
        raise FormatError(
            f"{name}: holds weights but no description of a model; build the model and use "
            "load_state_dict"
        )
    if metadata.get("kind") == "checkpoint":
        tensors = {
            n.removeprefix("model."): v for n, v in tensors.items() if n.startswith("model.")
        }
        metadata = metadata["model"]
    if metadata.get("kind") != KIND:
        raise FormatError(f"{name}: holds {metadata.get('kind')!r}, expected a model")
    return rebuild(tensors, metadata, name)


def rebuild(tensors: dict[str, Any], metadata: dict[str, Any], name: str) -> Detector:
    """A model from the contents of a file."""
    try:
        model = Detector.from_configuration(metadata["configuration"])
        report = compare(
            {key: tensor.shape for key, tensor in model._engine.state().items()}, tensors
        )
        if not report.complete:
            raise FormatError(f"weights and configuration differ: {report.problems()}")
        for key, values in tensors.items():
            model._engine.load(key, values)
    except (KDSError, KeyError, TypeError, ValueError) as error:
        raise FormatError(f"{name}: no model of this version of kdswift: {error}") from error
    model.lineage = list(metadata.get("lineage") or [])
    return model
