"""Fixtures of the end-to-end tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from serving import Server


@pytest.fixture(scope="module")
def testcard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of the testcard that takes no time, shared by a module's tests."""
    with Server(tmp_path_factory.mktemp("state"), "--model-path=testcard") as server:
        yield server


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"
