"""Detectors as ONNX files; needs the onnx package. People call `Detector.export_onnx`."""

from .export import Export, export
from .pasting import paste_masks

__all__ = ["Export", "export", "paste_masks"]
