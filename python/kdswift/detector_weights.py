"""What a detector learned: its parameters by name, and loading weights from elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from . import _engine
from .tensors import Tensor
from .weights import LoadReport, classifier_entries, compare, read_weights, refuse, renamed


class DetectorWeights:
    """The part of `kd.Detector` that deals with weights."""

    _engine: _engine.Detector

    def named_parameters(self) -> Iterator[tuple[str, Tensor]]:
        """(name, live tensor) of everything that learns."""
        count = self._engine.parameter_count()
        return iter(list(self._engine.state().items())[:count])

    def parameters(self) -> list[Tensor]:
        """Everything that learns, as live tensors; their ``grad`` is that of the last backward."""
        return [tensor for _, tensor in self.named_parameters()]

    def state_dict(self) -> dict[str, np.ndarray]:
        """Copies of all parameters and buffers, by name."""
        return {name: tensor.numpy() for name, tensor in self._engine.state().items()}

    def load_state_dict(self, mapping: Any, strict: bool = True) -> LoadReport:
        """Take over weights.

        Parameters
        ----------
        mapping : arrays, kd or torch tensors by name; or the path of a .safetensors, .pth or .pt
            file (PyTorch opens the latter, if installed)
        strict : refuse, and load nothing, unless names and shapes match exactly

        Returns
        -------
        LoadReport of what was loaded, missing, unexpected and misshaped.
        """
        shapes = {name: tensor.shape for name, tensor in self._engine.state().items()}
        values = renamed(read_weights(mapping), shapes)
        return self._load(values, compare(shapes, values), strict)

    def load_backbone(self, source: Any, strict: bool = True) -> LoadReport:
        """Take over the weights of an image classifier, as torchvision names them.

        Parameters
        ----------
        source : as `mapping` of `load_state_dict`; the classifier's last layers are left out
        strict : refuse, and load nothing, unless the whole backbone is there in the same shapes

        Returns
        -------
        LoadReport under the names of this model. fc6 and fc7 of VGG16 and AlexNet are among the
        loaded if the region head has them in the same shapes, as in the published detectors.
        """
        shapes = {name: tensor.shape for name, tensor in self._engine.state().items()}
        values, own = classifier_entries(read_weights(source, "load_backbone"), shapes)
        return self._load(values, compare(own, values), strict, "load_backbone")

    def _load(
        self,
        values: Mapping[str, np.ndarray],
        report: LoadReport,
        strict: bool,
        where: str = "load_state_dict",
    ) -> LoadReport:
        if strict:
            refuse(report, where)
        for name in report.loaded:
            self._engine.load(name, values[name])
        return report
