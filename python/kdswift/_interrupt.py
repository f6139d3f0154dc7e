"""Ctrl-C during a run: the step is finished first; a second one stops at once."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any


class Interrupts:
    """Within ``with Interrupts() as stop:`` a first SIGINT only sets ``stop.asked``.

    In a thread other than the main one nothing changes: signals do not arrive there.
    """

    def __init__(self) -> None:
        self.asked = False
        self._previous: Any = None
        self._immediate = False

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            self._previous = signal.getsignal(signal.SIGINT)
            # A handler not from Python (None) or one that ignores Ctrl-C is left alone.
            if callable(self._previous):
                signal.signal(signal.SIGINT, self._handle)
            else:
                self._previous = None
        return self

    def __exit__(self, *_exception: Any) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)
            self._previous = None

    @contextlib.contextmanager
    def immediate(self) -> Iterator[None]:
        """Within this, Ctrl-C raises KeyboardInterrupt at once: for long work between steps."""
        self._immediate = True
        try:
            yield
        finally:
            self._immediate = False

    def _handle(self, _number: int, _frame: Any) -> None:
        if self.asked or self._immediate:
            self.asked = True
            raise KeyboardInterrupt
        self.asked = True
