"""Starting without a broker, being refused, and coming back."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from nats_fixtures import settings_for
from pydantic import ValidationError

from tools.cluster.nats_server import NatsServer, nats_server
from vitascope_core.errors import BrokerUnavailable, InvalidSettings
from vitascope_platform.clock import settle
from vitascope_platform.nats_connection import NatsConnection, NatsSettings, nats_connected

PATIENCE_S = 10


async def test_wrong_credentials_are_refused_at_once(tmp_path: Path) -> None:
    with nats_server(tmp_path, user="vitascope", password="right") as server:
        settings = settings_for(server, user="vitascope", password="wrong")
        async with asyncio.timeout(PATIENCE_S):
            with pytest.raises(InvalidSettings, match="Authorization Violation") as caught:
                async with nats_connected(settings, "test"):
                    pass
            async with nats_connected(settings_for(server, user="vitascope", password="right"), "test") as connection:
                assert connection.connected

    assert "wrong" not in str(caught.value)


async def test_a_seed_that_is_none_is_refused_at_once(broker: NatsServer, tmp_path: Path) -> None:
    seed = tmp_path / "seed"
    seed.write_text("no seed")
    with pytest.raises(InvalidSettings, match="cannot log in"):
        async with nats_connected(settings_for(broker, nkey_seed_file=seed), "test"):
            pass


async def test_a_broker_that_comes_later_is_waited_for(tmp_path: Path) -> None:
    server = nats_server(tmp_path)
    connection = NatsConnection(settings_for(server), "test")
    opening = asyncio.create_task(connection.open())
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(opening), 0.2)
    with server:
        await asyncio.wait_for(opening, PATIENCE_S)
        assert connection.connected
        await connection.close()


async def test_a_broker_that_never_comes_is_named(tmp_path: Path) -> None:
    server = nats_server(tmp_path)
    with pytest.raises(BrokerUnavailable, match=f"no broker at {server.url} within 0.3 s"):
        async with nats_connected(settings_for(server, start_timeout_s=0.3), "test"):
            pass


async def test_a_connection_comes_back_and_says_so(own_broker: NatsServer) -> None:
    async with nats_connected(settings_for(own_broker, request_timeout_s=0.5), "test") as connection:
        back = asyncio.Event()
        forget = connection.on_reconnect(back.set)
        own_broker.stop()
        with pytest.raises(BrokerUnavailable):
            await connection.call("INFO")
        away = connection.connected
        own_broker.start()
        await asyncio.wait_for(back.wait(), PATIENCE_S)
        forget()

        assert (away, connection.connected) == (False, True)
        assert "streams" in await connection.call("INFO")


async def test_what_was_asked_over_a_lost_connection_fails_at_once(own_broker: NatsServer) -> None:
    async with nats_connected(settings_for(own_broker, request_timeout_s=60), "test") as connection:
        own_broker.pause()
        asking = asyncio.create_task(connection.call("INFO"))
        # Enough for it to be written to the socket; the server cannot answer.
        await settle()
        own_broker.kill()
        with pytest.raises(BrokerUnavailable):
            await asyncio.wait_for(asking, PATIENCE_S)


async def test_a_connection_that_the_client_gave_up_is_made_anew(broker: NatsServer) -> None:
    async with nats_connected(settings_for(broker), "test") as connection:
        back = asyncio.Event()
        connection.on_reconnect(back.set)
        await connection.client.close()
        await asyncio.wait_for(back.wait(), PATIENCE_S)

        assert "streams" in await connection.call("INFO")


async def test_a_message_above_the_limit_is_no_outage(broker: NatsServer) -> None:
    async with nats_connected(settings_for(broker), "test") as connection:
        with pytest.raises(ValueError, match="larger than the broker takes"):
            await connection.ask("a", bytes(2 << 20))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"url": "nats://me:secret@host:4222"}, "must not hold credentials"),
        ({"url": "http://host"}, "must be nats://host:port"),
        ({"url": "nats://host:4222,"}, "must be nats://host:port"),
        ({"url": "nats://host:x"}, "Port could not be cast"),
        ({"user": "me", "token": "t"}, "set only one of user, token"),
        ({"password": "p"}, "password is set without user"),
        ({"prefix": "a.b"}, "prefix"),
        ({"creds_file": "/nowhere"}, "creds_file"),
        ({"request_timeout_s": 0}, "request_timeout_s"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        NatsSettings(**settings)


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VITASCOPE_NATS_URL", "nats://a:1, tls://b:2")
    monkeypatch.setenv("VITASCOPE_NATS_PREFIX", "blue")

    settings = NatsSettings()

    assert (settings.servers, settings.prefix) == (["nats://a:1", "tls://b:2"], "blue")


async def test_who_is_cancelled_while_an_answer_arrives_ends(nats: NatsConnection) -> None:
    """Python 3.11's wait_for, which nats-py uses, loses such a cancel, and a heartbeat would then never end."""

    async def beat() -> None:
        while True:
            await nats.call("INFO")

    for number in range(200):
        beating = asyncio.create_task(beat())
        await asyncio.sleep(0.0005 + number * 0.00001)
        beating.cancel()
        await asyncio.wait({beating}, timeout=PATIENCE_S)
        assert beating.cancelled()
