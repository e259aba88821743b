"""What the bus does when broker, network and neighbours misbehave."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from dataclasses import replace
from typing import Any

import pytest
from nats.aio.msg import Msg
from nats_fixtures import ACK_WAIT_S, LAYOUT, installed, settings_for

from tools.cluster.nats_server import NatsServer
from vitascope_core.errors import BrokerUnavailable, InvalidSettings
from vitascope_core.plan import StageName
from vitascope_core.task import Queue, Task
from vitascope_platform import bus_nats
from vitascope_platform.bootstrap_nats import bootstrap_nats
from vitascope_platform.bus_nats import NatsBus
from vitascope_platform.clock import SystemClock
from vitascope_platform.nats_connection import STATUS, NatsConnection, nats_connected
from vitascope_platform.patience import Patience

UPLOAD = Queue(StageName.UPLOAD)
PATIENCE_S = 10


def upload(number: int) -> Task:
    return Task(f"video_{number}", StageName.UPLOAD)


def bus_over(connection: NatsConnection) -> NatsBus:
    return NatsBus(connection, ack_wait_s=ACK_WAIT_S)


async def test_a_publish_whose_answer_was_lost_is_repeated_without_a_second_message(own_broker: NatsServer) -> None:
    async with installed(own_broker, settings=settings_for(own_broker, request_timeout_s=0.3)) as connection:
        bus = bus_over(connection)
        own_broker.pause()
        with pytest.raises(BrokerUnavailable):
            await bus.publish(upload(1))
        own_broker.resume()
        await Patience(SystemClock(), PATIENCE_S)(lambda: bus.publish(upload(1)))

        assert await bus.count("video_1") == 1


async def test_a_killed_broker_loses_no_task(own_broker: NatsServer) -> None:
    async with installed(own_broker, replace(LAYOUT, ack_wait_s=30)) as connection:
        bus = bus_over(connection)
        for number in range(3):
            await bus.publish(upload(number))
        (held,) = await bus.fetch(UPLOAD, 1, timeout_s=PATIENCE_S)
        own_broker.kill()
        own_broker.start()
        others = await Patience(SystemClock(), PATIENCE_S)(lambda: bus.fetch(UPLOAD, 3, timeout_s=PATIENCE_S))
        for delivery in (held, *others):
            await delivery.ack()

        # The one that was held may have come again: what is handed out is not written down before it is sent.
        assert {delivery.task.job_id for delivery in (held, *others)} == {"video_0", "video_1", "video_2"}
        assert await bus.jobs() == set()


async def test_a_waiting_fetch_notices_that_the_broker_is_gone(own_broker: NatsServer) -> None:
    async with installed(own_broker) as connection:
        bus = NatsBus(connection, ack_wait_s=ACK_WAIT_S, heartbeat_s=0.1)
        waiting = asyncio.create_task(bus.fetch(UPLOAD, 1, timeout_s=60))
        await until_waiting(connection, UPLOAD)
        own_broker.pause()

        with pytest.raises(BrokerUnavailable):
            await asyncio.wait_for(waiting, PATIENCE_S)
        own_broker.resume()


async def test_a_queue_that_stays_empty_is_no_outage(nats: NatsConnection) -> None:
    bus = NatsBus(nats, ack_wait_s=ACK_WAIT_S, heartbeat_s=0.1)

    assert await bus.fetch(UPLOAD, 1, timeout_s=2) == []


async def test_two_workers_of_a_queue_never_get_the_same_task(broker: NatsServer) -> None:
    settings = settings_for(broker)
    async with installed(broker, replace(LAYOUT, ack_wait_s=30), settings) as one, nats_connected(settings, "b") as two:
        for number in range(40):
            await bus_over(one).publish(upload(number))

        async def work(bus: NatsBus) -> list[str]:
            done = []
            while deliveries := await bus.fetch(UPLOAD, 3, timeout_s=0.2):
                done += [delivery.task.job_id for delivery in deliveries]
                for delivery in deliveries:
                    await delivery.ack()
            return done

        taken = await asyncio.gather(work(bus_over(one)), work(bus_over(two)))

        assert sorted(taken[0] + taken[1]) == sorted(f"video_{number}" for number in range(40))


async def test_a_fetch_that_was_cancelled_leaves_no_request_behind(broker: NatsServer) -> None:
    async with installed(broker, replace(LAYOUT, ack_wait_s=30)) as connection:
        bus = bus_over(connection)
        await cancelled(asyncio.create_task(bus.fetch(UPLOAD, 1, timeout_s=60)), until_waiting(connection, UPLOAD))
        await until_waiting(connection, UPLOAD, 0)
        await bus.publish(upload(1))

        assert [(d.task.job_id, d.count) for d in await bus.fetch(UPLOAD, 1, timeout_s=PATIENCE_S)] == [("video_1", 1)]


async def test_a_fetch_cancelled_as_a_task_arrives_gives_it_back(
    broker: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard = asyncio.Event()
    hear = bus_nats._Pull._hear

    async def and_tell(pull: bus_nats._Pull, message: Msg) -> None:
        await hear(pull, message)
        if STATUS not in (message.headers or {}):
            heard.set()
            waiting.cancel()

    async with installed(broker, replace(LAYOUT, ack_wait_s=30)) as connection:
        bus = bus_over(connection)
        monkeypatch.setattr(bus_nats._Pull, "_hear", and_tell)
        waiting = asyncio.create_task(bus.fetch(UPLOAD, 1, timeout_s=60))
        await until_waiting(connection, UPLOAD)
        await bus.publish(upload(1))
        await cancelled(waiting, heard.wait())
        monkeypatch.undo()

        assert [(d.task.job_id, d.count) for d in await bus.fetch(UPLOAD, 1, timeout_s=PATIENCE_S)] == [("video_1", 2)]


async def test_a_fetch_cancelled_in_any_moment_loses_no_task(broker: NatsServer) -> None:
    # The server itself may drop what it was handing out in the moment in which a request is withdrawn; it comes back
    # by silence, for which the ack wait is short here.
    async with installed(broker, replace(LAYOUT, ack_wait_s=3)) as connection:
        bus = bus_over(connection)
        for number in range(20):
            waiting = asyncio.create_task(bus.fetch(UPLOAD, 1, timeout_s=60))
            await until_waiting(connection, UPLOAD)
            publishing = asyncio.create_task(bus.publish(upload(number)))
            # Now before, now while, now after the task is on its way.
            await asyncio.sleep(number * 0.0001)
            waiting.cancel()
            await publishing
            (delivery,) = await asyncio.gather(waiting, return_exceptions=True)
            if isinstance(delivery, asyncio.CancelledError):
                delivery = await bus.fetch(UPLOAD, 1, timeout_s=PATIENCE_S)
            assert [d.task.job_id for d in delivery] == [f"video_{number}"]
            await delivery[0].ack()


async def cancelled(waiting: asyncio.Task[Any], ready: Awaitable[Any]) -> None:
    """Cancel a task once something has happened, and see it end so."""
    await asyncio.wait_for(ready, PATIENCE_S)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_a_task_that_cannot_be_read_is_removed_and_named(
    nats: NatsConnection, caplog: pytest.LogCaptureFixture
) -> None:
    bus = bus_over(nats)
    await nats.store(f"{nats.prefix}.tasks.upload.any.video_1", b"\xff\xff", {})
    await bus.publish(upload(2))
    with caplog.at_level(logging.ERROR):
        deliveries = await bus.fetch(UPLOAD, 2, timeout_s=PATIENCE_S)

    assert [delivery.task.job_id for delivery in deliveries] == ["video_2"]
    assert await bus.count("video_1") == 0
    assert [record.subject for record in caplog.records] == [f"{nats.prefix}.tasks.upload.any.video_1"]


async def test_workers_wait_for_a_queue_that_the_bootstrap_has_not_made(nats: NatsConnection) -> None:
    bus, queue = bus_over(nats), Queue(StageName.DENOISE, "new")
    await bus.publish(Task("video_1", StageName.DENOISE, "new"))
    with pytest.raises(BrokerUnavailable):
        await bus.fetch(queue, 1, timeout_s=0)
    await bootstrap_nats(nats, replace(LAYOUT, pools=("new",)))

    assert len(await bus.fetch(queue, 1, timeout_s=PATIENCE_S)) == 1


async def test_a_queue_that_is_removed_is_an_outage_until_it_is_back(nats: NatsConnection) -> None:
    bus = bus_over(nats)
    waiting = asyncio.create_task(bus.fetch(UPLOAD, 1, timeout_s=60))
    await until_waiting(nats, UPLOAD)
    await nats.call(f"CONSUMER.DELETE.{nats.prefix}-tasks.upload")
    with pytest.raises(BrokerUnavailable, match="Consumer Deleted"):
        await asyncio.wait_for(waiting, PATIENCE_S)
    with pytest.raises(BrokerUnavailable, match="has the bootstrap run"):
        await bus.fetch(UPLOAD, 1, timeout_s=60)
    await bus.publish(upload(1))
    await bootstrap_nats(nats, LAYOUT)

    assert len(await bus.fetch(UPLOAD, 1, timeout_s=PATIENCE_S)) == 1


async def test_a_queue_with_less_patience_than_its_workers_is_refused(nats: NatsConnection) -> None:
    with pytest.raises(InvalidSettings, match="ack_wait_s is 30 but the queue upload has 1"):
        await NatsBus(nats, ack_wait_s=30).fetch(UPLOAD, 1, timeout_s=0)


async def test_a_repeated_requeue_stores_one_copy(nats: NatsConnection) -> None:
    bus = bus_over(nats)
    await bus.publish(upload(1))
    (delivery,) = await bus.fetch(UPLOAD, 1, timeout_s=PATIENCE_S)
    await delivery.requeue()
    await delivery.requeue()

    assert await bus.count("video_1") == 1


async def test_a_full_stream_is_an_outage_not_a_loss(broker: NatsServer) -> None:
    async with installed(broker, replace(LAYOUT, max_bytes=1000)) as connection:
        bus = bus_over(connection)
        await asyncio.gather(*(bus.publish(upload(number)) for number in range(10)), return_exceptions=True)
        with pytest.raises(BrokerUnavailable, match="maximum bytes"):
            await bus.publish(upload(10))

        assert 0 < len(await bus.jobs()) < 10


async def until_waiting(connection: NatsConnection, queue: Queue, requests: int = 1) -> None:
    """Return once that many requests for tasks wait at the server."""
    async with asyncio.timeout(PATIENCE_S):
        while (await connection.call(f"CONSUMER.INFO.{connection.prefix}-tasks.{queue}"))["num_waiting"] != requests:  # noqa: ASYNC110 - only the server knows
            await asyncio.sleep(0.005)
