"""A kdswift detector seen as a plain teacher: its taps as arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .. import _engine
from .._autograd import no_grad
from ..detector import Detector
from ..teacher import Teacher
from ..tensors import Tensor


class DetectorTeacher(Teacher):
    """The taps of `Detector.features`: maps of backbone and region proposals.

    What exists only for the regions of a training step (``roi.…``) is not among them.
    """

    kind = "detector"

    def __init__(self, detector: Detector) -> None:
        # The engine's table, not the class's: that also lists what only a step has.
        super().__init__([t["name"] for t in detector._engine.taps()], detector.class_names)
        self.detector = detector

    def arrays(self, images: list[np.ndarray], names: Sequence[str] | None) -> Mapping[str, Any]:
        """`Detector.features` in eval mode and off the tape, as arrays."""
        batch = _engine.Batch(images)
        try:
            found = features(self.detector, batch, names)
            return {name: tap.numpy() for name, tap in found.items()}
        finally:
            batch.close()

    def taps(self, images: Sequence[np.ndarray]) -> list[dict[str, Any]]:
        """The detector's own table: it scales images, so that strides are not those of `images`."""
        rows = {row["name"]: row for row in self.detector._engine.taps()}
        return [dict(rows[name]) for name in self.names or ()]

    def description(self) -> dict[str, Any]:
        """Configuration and a checksum of the weights."""
        return describe_detector(self.detector)


_MAPS = ("backbone.", "neck.")  # what taps of no head begin with


def features(
    detector: Detector, batch: _engine.Batch, names: Sequence[str] | None = None
) -> dict[str, Tensor]:
    """Taps of a batch in eval mode and off the tape; the mode is put back.

    names : what is wanted, None is all; where they are maps the heads do not run
    """
    engine, training = detector._engine, detector.training
    engine.set_training(False)
    try:
        with no_grad():
            if names is None:
                return engine.features(batch)
            only_maps = all(name.startswith(_MAPS) for name in names)
            found = engine.maps(batch) if only_maps else engine.features(batch)
            return {name: found[name] for name in names if name in found}
    finally:
        engine.set_training(training)


def describe_detector(detector: Detector) -> dict[str, Any]:
    """What a detector's outputs depend on."""
    from ..run_options import fingerprint

    return {"configuration": detector.configuration, "weights": fingerprint(detector)}


def missing_in_features(detector: Detector, names: Sequence[str]) -> list[str]:
    """Those of the taps that are there only in a training step: the outputs of its regions."""
    there = {tap["name"] for tap in detector._engine.taps()}
    return [name for name in names if name not in there]
