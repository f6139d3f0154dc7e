"""The exceptions of the package. Messages come from the engine and name operation and shapes."""

from __future__ import annotations


class KDSError(RuntimeError):
    """Base of everything that the engine reports; itself: a library underneath refused."""


class ArgumentError(KDSError, ValueError):
    """A value outside what the operation accepts."""


class ShapeError(KDSError, ValueError):
    """Shapes that do not go together."""


class FormatError(KDSError):
    """A damaged or unexpected file or document; names the file and the place."""
