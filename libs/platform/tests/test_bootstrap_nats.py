"""The bootstrap: once, again, over an older layout, and where it cannot."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import pytest
from nats_fixtures import LAYOUT, remove, settings_for

from tools.cluster.nats_server import NatsServer
from vitascope_core.errors import InvalidSettings
from vitascope_core.plan import StageName
from vitascope_core.task import Queue, Task
from vitascope_platform import bootstrap
from vitascope_platform.bootstrap_nats import Layout, bootstrap_nats
from vitascope_platform.bus_nats import NatsBus
from vitascope_platform.nats_connection import NatsConnection, nats_connected

SECOND = 1_000_000_000
ONE_POOL = Layout(("wan",))


@pytest.fixture
async def empty(broker: NatsServer) -> AsyncIterator[NatsConnection]:
    async with nats_connected(settings_for(broker), "test") as connection:
        yield connection
        await remove(connection)


async def test_it_makes_everything_once(empty: NatsConnection) -> None:
    first = await bootstrap_nats(empty, ONE_POOL)
    second = await bootstrap_nats(empty, ONE_POOL)

    p = empty.prefix
    assert first == [
        f"stream {p}-tasks made",
        *(f"stream KV_{p}-{name} made" for name in ("jobs", "cards", "workers", "idem")),
        *(f"consumer {name} made" for name in ("denoise-wan", "ingest", "interpolate", "upscale", "upload")),
    ]
    assert second == []


async def test_the_stream_holds_tasks_as_the_design_says(empty: NatsConnection) -> None:
    await bootstrap_nats(empty, ONE_POOL)
    stream = (await empty.call(f"STREAM.INFO.{empty.prefix}-tasks"))["config"]
    consumer = (await empty.call(f"CONSUMER.INFO.{empty.prefix}-tasks.denoise-wan"))["config"]

    assert {name: stream[name] for name in ("retention", "storage", "discard", "max_bytes", "max_msgs", "max_age")} == {
        "retention": "workqueue",
        "storage": "file",
        "discard": "new",
        "max_bytes": 1 << 30,
        "max_msgs": -1,
        "max_age": 0,
    }
    assert (stream["duplicate_window"], stream["max_msg_size"]) == (600 * SECOND, 65536)
    assert (consumer["ack_wait"], consumer["max_deliver"]) == (30 * SECOND, -1)
    assert consumer["filter_subject"] == f"{empty.prefix}.tasks.denoise.wan.*"


async def test_an_older_layout_is_changed_and_keeps_its_messages(empty: NatsConnection) -> None:
    p = empty.prefix
    old = {"subjects": [f"{p}.tasks.>"], "retention": "workqueue", "max_msgs": 10, "max_age": 60 * SECOND}
    await empty.call(f"STREAM.CREATE.{p}-tasks", name=f"{p}-tasks", storage="file", description="kept", **old)
    consumer = {
        "name": "upload",
        "durable_name": "upload",
        "filter_subject": f"{p}.tasks.upload.any.*",
        "ack_policy": "explicit",
        "max_deliver": 2,
        "backoff": [SECOND, 2 * SECOND],
    }
    await empty.call(f"CONSUMER.CREATE.{p}-tasks.upload", stream_name=f"{p}-tasks", config=consumer)
    kv = {"subjects": [f"$KV.{p}-jobs.>"], "max_msgs_per_subject": 8, "allow_rollup_hdrs": True, "allow_direct": True}
    await empty.call(f"STREAM.CREATE.KV_{p}-jobs", name=f"KV_{p}-jobs", storage="file", deny_delete=True, **kv)
    bus = NatsBus(empty)
    await bus.publish(Task("video_1", StageName.UPLOAD))

    changes = await bootstrap_nats(empty, ONE_POOL)

    assert [change.partition(":")[0] for change in changes if "changed" in change] == [
        f"stream {p}-tasks changed",
        f"stream KV_{p}-jobs changed",
        "consumer upload changed",
    ]
    assert await bootstrap_nats(empty, ONE_POOL) == []
    assert (await empty.call(f"STREAM.INFO.{p}-tasks"))["config"]["description"] == "kept"
    assert len(await bus.fetch(Queue(StageName.UPLOAD), 1, timeout_s=5)) == 1


async def test_what_cannot_be_changed_is_named_and_the_rest_is_done(empty: NatsConnection) -> None:
    p = empty.prefix
    await empty.call(f"STREAM.CREATE.KV_{p}-jobs", name=f"KV_{p}-jobs", subjects=[f"$KV.{p}-jobs.>"], storage="memory")

    with pytest.raises(InvalidSettings, match=f"cannot change stream KV_{p}-jobs: .*storage"):
        await bootstrap_nats(empty, ONE_POOL)

    assert "config" in await empty.call(f"CONSUMER.INFO.{p}-tasks.upload")


async def test_a_pool_can_come_later_and_others_stay(empty: NatsConnection) -> None:
    await bootstrap_nats(empty, ONE_POOL)
    added = await bootstrap_nats(empty, replace(ONE_POOL, pools=("flux",)))

    consumers = (await empty.call(f"CONSUMER.NAMES.{empty.prefix}-tasks"))["consumers"]
    assert added == ["consumer denoise-flux made"]
    assert {"denoise-wan", "denoise-flux"} <= set(consumers)


@pytest.mark.parametrize("pool", ["Wan", "a.b", "", "any", "x" * 41])
def test_pools_that_cannot_be_named_are_refused(pool: str) -> None:
    with pytest.raises(InvalidSettings, match="pool must be"):
        replace(LAYOUT, pools=(pool,))


@pytest.fixture
def command(broker: NatsServer, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """The command against the shared server; the store's part of it has tests of its own."""

    async def bootstrap_s3(settings: object, *, deadline_s: int) -> list[str]:
        return []

    settings = settings_for(broker)
    monkeypatch.setenv("VITASCOPE_NATS_URL", settings.url)
    monkeypatch.setenv("VITASCOPE_NATS_PREFIX", settings.prefix)
    monkeypatch.setattr(bootstrap, "bootstrap_s3", bootstrap_s3)
    monkeypatch.setattr(bootstrap, "log_to_stderr", lambda level: None)
    return lambda *arguments: bootstrap.main(arguments)


def test_the_command_tells_what_it_did(command: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert command("--pool", "wan", "--pool", "flux") == 0
    first = capsys.readouterr().out
    assert command("--pool", "wan", "--pool", "flux") == 0
    second = capsys.readouterr().out

    assert "consumer denoise-wan made\nconsumer denoise-flux made\n" in first
    assert second == "nothing to do: everything is as it should be\n"


def test_the_command_gives_queues_the_workers_ack_wait(
    command: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("--pool", "wan") == 0
    monkeypatch.setenv("VITASCOPE_WORKER_ACK_WAIT_S", "60")
    capsys.readouterr()
    assert command("--pool", "wan") == 0

    assert "consumer upload changed: ack_wait 30000000000 -> 60000000000\n" in capsys.readouterr().out


def test_the_command_fails_with_a_reason(
    command: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("--pool", "Wan") == 1
    monkeypatch.setenv("VITASCOPE_NATS_URL", "here")
    assert command("--pool", "wan") == 1

    pool, url = capsys.readouterr().err.splitlines()
    assert pool.startswith("bootstrap: pool must be 1 to 40 of a-z, 0-9 and -")
    assert url.startswith("bootstrap: VITASCOPE_NATS_URL: must be nats://host:port")
