"""Fixtures for every test: no engine object may outlive its test."""

from __future__ import annotations

import gc
import signal
from collections.abc import Iterator

import pytest

from kdswift import runtime


@pytest.fixture(autouse=True)
def no_leaked_handles(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that leaves engine objects alive; mark it `keeps_handles` where that is meant."""
    before = runtime.live_handles()
    yield
    if request.node.get_closest_marker("keeps_handles") or runtime.live_handles() <= before:
        return
    gc.collect()
    leaked = runtime.live_handles() - before
    if leaked > 0:
        pytest.fail(f"{leaked} engine objects are still alive")


@pytest.fixture
def threads() -> Iterator[None]:
    """Put the number of threads back after a test that changes it."""
    count = runtime.get_num_threads()
    yield
    runtime.set_num_threads(count)


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> None:
    """A run in the background may ignore Ctrl-C, and so would the processes that tests start."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
