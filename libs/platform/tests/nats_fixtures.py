"""A real NATS server for tests, and on it an installation of each test's own."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest

from tools.cluster.nats_server import NatsServer, nats_server
from vitascope_core.errors import BrokerUnavailable
from vitascope_platform.bootstrap_nats import Layout, bootstrap_nats
from vitascope_platform.nats_connection import NatsConnection, NatsSettings, nats_connected

ACK_WAIT_S = 1.0
WINDOW_S = 1.0
LAYOUT = Layout(("wan", "flux", "p"), ack_wait_s=ACK_WAIT_S, duplicate_window_s=WINDOW_S)


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """A server that all tests share; none may stop it."""
    with nats_server(tmp_path_factory.mktemp("nats")) as server:
        yield server


@pytest.fixture
def own_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """A server that the test may stop, kill and freeze."""
    with nats_server(tmp_path_factory.mktemp("nats")) as server:
        yield server


def settings_for(server: NatsServer, **changes: object) -> NatsSettings:
    """Return settings for an installation of its own on ``server``."""
    return NatsSettings(**{"url": server.url, "prefix": f"t{secrets.token_hex(4)}", **changes})


@asynccontextmanager
async def installed(
    server: NatsServer, layout: Layout = LAYOUT, settings: NatsSettings | None = None
) -> AsyncIterator[NatsConnection]:
    """Connect to an installation of one's own on ``server`` after a bootstrap; it is removed afterwards."""
    async with nats_connected(settings or settings_for(server), "test") as connection:
        await bootstrap_nats(connection, layout)
        try:
            yield connection
        finally:
            await remove(connection)


@pytest.fixture
async def nats(broker: NatsServer) -> AsyncIterator[NatsConnection]:
    """An installation on the shared server."""
    async with installed(broker) as connection:
        yield connection


async def remove(connection: NatsConnection) -> None:
    """Remove an installation with all it holds."""
    try:
        names = (await connection.call("STREAM.NAMES"))["streams"] or []
        for name in names:
            if name.removeprefix("KV_").startswith(f"{connection.prefix}-"):
                await connection.call(f"STREAM.DELETE.{name}")
    except BrokerUnavailable:
        # The test's own broker, which it left stopped.
        pass
