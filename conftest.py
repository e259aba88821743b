"""Fixtures that several packages' tests share."""

import logging
import os
import signal
from collections.abc import Iterator

import pytest

pytest_plugins = ["frame_fixtures", "nats_fixtures", "s3_fixtures"]


def pytest_configure() -> None:
    """Let Ctrl-C reach what the tests start: a shell's background jobs ignore it, and so would their children."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _log_level_is_kept() -> Iterator[None]:
    """Undo what a command under test sets for its own process, or the next test hears no warnings."""
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    yield
    root.setLevel(level)
    root.handlers[:] = handlers


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Take the variables of services out of the environment, so that a test sets all that is read."""
    for name in list(os.environ):
        if name.startswith("VITASCOPE_"):
            monkeypatch.delenv(name)
    return monkeypatch
