"""What buckets and their watchers do when the broker misbehaves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from nats_fixtures import LAYOUT, installed, settings_for

from tools.cluster.nats_server import NatsServer
from vitascope_core.errors import BrokerUnavailable
from vitascope_core.job import JobSpec
from vitascope_core.ports import Entry
from vitascope_platform.bootstrap_nats import bootstrap_nats
from vitascope_platform.clock import SystemClock
from vitascope_platform.jobs import JobStore
from vitascope_platform.kv_nats import NatsKeyValue
from vitascope_platform.nats_connection import NatsConnection, nats_connected
from vitascope_platform.patience import Patience

PATIENCE_S = 10
BEAT_S = 0.2
patiently = Patience(SystemClock(), PATIENCE_S)


async def following(entries: AsyncIterator[Entry | None]) -> tuple[str, bytes | None] | None:
    entry = await asyncio.wait_for(anext(entries), PATIENCE_S)
    return None if entry is None else (entry.key, entry.value)


async def test_a_killed_broker_keeps_entries_and_revisions(own_broker: NatsServer) -> None:
    async with installed(own_broker) as connection:
        bucket = NatsKeyValue(connection, "jobs")
        revision = await bucket.create("a", b"1")
        own_broker.kill()
        own_broker.start()

        assert await patiently(lambda: bucket.get("a")) == Entry("a", b"1", revision)
        assert await bucket.update("a", b"2", revision) > revision


async def test_a_watcher_hears_what_changed_over_a_restart_of_the_broker(own_broker: NatsServer) -> None:
    settings = settings_for(own_broker)
    async with installed(own_broker, settings=settings) as one, nats_connected(settings, "other") as other:
        watched, written = NatsKeyValue(one, "jobs"), NatsKeyValue(other, "jobs")
        await written.put("a", b"1")
        await written.put("gone", b"1")
        async with watched.watch("") as entries:
            seen = [await following(entries) for _ in range(3)]
            own_broker.kill()
            own_broker.start()
            await patiently(lambda: written.put("a", b"2"))
            await patiently(lambda: written.delete("gone"))
            seen += [await following(entries) for _ in range(2)]

    assert seen == [("a", b"1"), ("gone", b"1"), None, ("a", b"2"), ("gone", None)]


async def test_a_watcher_hears_what_changed_while_the_broker_was_frozen(own_broker: NatsServer) -> None:
    async with installed(own_broker, settings=settings_for(own_broker, request_timeout_s=0.3)) as connection:
        bucket = NatsKeyValue(connection, "jobs", heartbeat_s=BEAT_S)
        async with bucket.watch("") as entries:
            assert await following(entries) is None
            own_broker.pause()
            waiting = asyncio.create_task(following(entries))
            with pytest.raises(BrokerUnavailable):
                await bucket.put("a", b"1")
            own_broker.resume()

            assert await waiting == ("a", b"1")


async def test_a_watcher_that_the_server_forgot_goes_on_where_it_was(nats: NatsConnection) -> None:
    bucket = NatsKeyValue(nats, "jobs", heartbeat_s=BEAT_S)
    await bucket.put("a", b"1")
    async with bucket.watch("") as entries:
        seen = [await following(entries) for _ in range(2)]
        stream = f"KV_{nats.prefix}-jobs"
        for name in (await nats.call(f"CONSUMER.NAMES.{stream}"))["consumers"]:
            await nats.call(f"CONSUMER.DELETE.{stream}.{name}")
        await bucket.put("b", b"2")
        seen.append(await following(entries))

    assert seen == [("a", b"1"), None, ("b", b"2")]


async def test_a_watcher_that_missed_something_asks_anew(nats: NatsConnection) -> None:
    stream = f"KV_{nats.prefix}-jobs"
    async with NatsKeyValue(nats, "jobs").watch("") as entries:
        assert await following(entries) is None
        (consumer,) = (await nats.call(f"CONSUMER.LIST.{stream}"))["consumers"]
        # What the server sends when it is idle: how many entries it has sent.
        beat = {"Status": "100", "Nats-Last-Consumer": "7"}
        waiting = asyncio.create_task(following(entries))
        await nats.client.publish(consumer["config"]["deliver_subject"], b"", headers=beat)
        async with asyncio.timeout(PATIENCE_S):
            while (await nats.call(f"CONSUMER.NAMES.{stream}"))["consumers"] == [consumer["name"]]:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        await NatsKeyValue(nats, "jobs").put("a", b"1")

        assert await waiting == ("a", b"1")


async def test_a_watcher_is_told_that_the_bucket_lost_its_past(nats: NatsConnection) -> None:
    bucket = NatsKeyValue(nats, "jobs", heartbeat_s=BEAT_S)
    for number in range(3):
        await bucket.put("a", b"%d" % number)
    async with bucket.watch("") as entries:
        assert [await following(entries) for _ in range(2)] == [("a", b"2"), None]
        await nats.call(f"STREAM.DELETE.KV_{nats.prefix}-jobs")
        await bootstrap_nats(nats, LAYOUT)

        with pytest.raises(BrokerUnavailable, match="lost entries"):
            await following(entries)


async def test_expired_entries_are_gone_and_told(broker: NatsServer) -> None:
    async with installed(broker, replace(LAYOUT, workers_ttl_s=1)) as connection:
        bucket = NatsKeyValue(connection, "workers")
        async with bucket.watch("") as entries:
            await bucket.put("w1", b"here")
            seen = [await following(entries) for _ in range(3)]

        assert seen == [("w1", b"here"), None, ("w1", None)]
        assert await bucket.get("w1") is None
        assert await bucket.entries("") == []
        assert await bucket.create("w1", b"again") > 1


async def test_a_reader_that_is_slow_still_gets_every_entry(nats: NatsConnection) -> None:
    bucket = NatsKeyValue(nats, "jobs", heartbeat_s=BEAT_S)
    await asyncio.gather(*(bucket.put(f"a.{number}", bytes(10_000)) for number in range(1000)))
    count = 0
    async with bucket.watch("a.") as entries:
        async for entry in entries:
            if entry is None:
                break
            count += 1
            if count % 200 == 0:
                # Longer than the server waits for a sign of us.
                await asyncio.sleep(BEAT_S * 1.5)

    assert count == 1000


async def test_a_job_written_into_an_outage_is_recognised(own_broker: NatsServer, spec: JobSpec) -> None:
    async with installed(own_broker, settings=settings_for(own_broker, request_timeout_s=0.3)) as connection:
        jobs = JobStore(NatsKeyValue(connection, "jobs"))
        own_broker.pause()
        with pytest.raises(BrokerUnavailable):
            await jobs.create_spec(spec)
        own_broker.resume()
        await patiently(lambda: jobs.create_spec(spec))

        assert await jobs.spec(spec.id) == spec


async def test_a_bucket_that_is_missing_is_an_outage(nats: NatsConnection) -> None:
    bucket = NatsKeyValue(nats, "unknown")
    with pytest.raises(BrokerUnavailable):
        await bucket.get("a")
    with pytest.raises(BrokerUnavailable):
        await bucket.put("a", b"1")
    with pytest.raises(BrokerUnavailable):
        await bucket.entries("")
