"""Fixtures of the end-to-end tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from clustering import ClusterGateway
from serving import Server

from tools.cluster.cluster import Cluster


@pytest.fixture(scope="module", params=["one process", "cluster"])
def testcard(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server | ClusterGateway]:
    """The testcard, which takes no time, served by one process and by a cluster; shared by a module's tests."""
    folder = tmp_path_factory.mktemp("state")
    if request.param == "one process":
        with Server(folder, "--model-path=testcard") as server:
            yield server
    else:
        with Cluster(folder, replicas={"gateway": 2, "uploader": 2}) as cluster:
            yield ClusterGateway(cluster)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"
