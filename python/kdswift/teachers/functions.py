"""A function as teacher."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import ArgumentError
from ..teacher import Teacher
from .preparation import Preparation


class CallableTeacher(Teacher):
    """See `kd.Teacher.from_callable`."""

    kind = "function"

    def __init__(
        self,
        function: Callable[[Any], Mapping[str, Any]],
        taps: Iterable[str] | None,
        class_names: Sequence[str] | None,
        preparation: Preparation,
        version: str,
    ) -> None:
        if not callable(function):
            raise ArgumentError(f"Teacher.from_callable: {function!r} cannot be called")
        super().__init__(taps, class_names)
        self._function, self._preparation = function, preparation
        self._version = str(version)

    def arrays(self, images: list[np.ndarray], names: Sequence[str] | None) -> Mapping[str, Any]:
        """What the function gives."""
        return self._function(self._preparation(images))

    def description(self) -> dict[str, Any]:
        """The function's name and version; what it does cannot be seen."""
        function = self._function
        name = getattr(function, "__qualname__", type(function).__qualname__)
        return {
            "kind": self.kind,
            "function": f"{getattr(function, '__module__', '')}.{name}",
            "version": self._version,
            "images": self._preparation.describe(),
        }
