"""The bound of the queues: what is refused, what it costs, and what the bound is counted from."""

from __future__ import annotations

import asyncio

import pytest

from vitascope_core.errors import BrokerUnavailable
from vitascope_core.plan import StageName
from vitascope_core.task import Queue, Task
from vitascope_gateway.errors import QueueFull
from vitascope_gateway.queue_bound import LOOK_EVERY_S, LOOK_S, QueueBound
from vitascope_platform.bus_memory import MemoryBus
from vitascope_platform.clock import ManualClock, SystemClock

PROMPT = {"prompt": "a cat", "model": "org/clips"}
CLIPS, STILLS = Queue(StageName.DENOISE, "clips"), Queue(StageName.DENOISE, "stills")


class CountingBus(MemoryBus):
    """A bus that counts how often it is asked for a queue's length, and may be away."""

    def __init__(self, clock) -> None:
        super().__init__(clock)
        self.asked = 0
        self.away = False
        self.silent = False

    async def depth(self, queue):
        self.asked += 1
        if self.silent:
            await asyncio.Event().wait()
        if self.away:
            raise BrokerUnavailable("timed out")
        return await super().depth(queue)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def bus(clock: ManualClock) -> CountingBus:
    return CountingBus(clock)


@pytest.fixture
def bound(bus: CountingBus, clock: ManualClock) -> QueueBound:
    return QueueBound(bus, clock, 3)


async def enter(bus: MemoryBus, bound: QueueBound, *jobs: str, queue: Queue = CLIPS) -> list[bool]:
    """Publish a source task for each job that is let in; return which were."""
    admitted = []
    for job in jobs:
        try:
            async with bound.entered(queue):
                await bus.publish(Task(job, StageName.DENOISE, pool=queue.pool))
        except QueueFull:
            admitted.append(False)
        else:
            admitted.append(True)
    return admitted


async def test_what_waits_and_what_is_worked_on_counts_whoever_sent_it(bus, bound, clock) -> None:
    for job in ("a", "b", "c"):
        await bus.publish(Task(job, StageName.DENOISE, pool="clips"))
    (taken,) = await bus.fetch(CLIPS, 1, timeout_s=0)
    assert await enter(bus, bound, "d") == [False]

    await taken.ack()
    await clock.advance(LOOK_EVERY_S)
    assert await enter(bus, bound, "d", "e") == [True, False]


async def test_a_flood_asks_once_and_gets_no_further_than_the_bound(bus, bound) -> None:
    assert await enter(bus, bound, *"abcdefgh") == [True] * 3 + [False] * 5
    assert bus.asked == 1


async def test_each_pool_has_a_queue_of_its_own(bus, bound) -> None:
    assert await enter(bus, bound, *"abcd") == [True] * 3 + [False]
    assert await enter(bus, bound, *"efgh", queue=STILLS) == [True] * 3 + [False]


async def test_what_is_on_its_way_into_the_queue_counts(bus, bound, clock) -> None:
    async with bound.entered(CLIPS), bound.entered(CLIPS), bound.entered(CLIPS):
        await clock.advance(LOOK_EVERY_S)
        assert await enter(bus, bound, "a") == [False]
    await clock.advance(LOOK_EVERY_S)
    assert await enter(bus, bound, "a") == [True]


async def test_while_the_queue_cannot_be_seen_its_last_length_counts(bus, bound, clock) -> None:
    assert await enter(bus, bound, "a") == [True]
    bus.away = True
    await clock.advance(LOOK_EVERY_S)

    assert await enter(bus, bound, *"bcd") == [True, True, False]
    assert bus.asked == 2


async def test_a_broker_that_says_nothing_holds_nobody_up_for_long(bus, bound) -> None:
    bus.silent = True
    async with asyncio.timeout(3 * LOOK_S):
        assert await enter(bus, bound, *"abc") == [True] * 3


@pytest.mark.parametrize("path", ["/v1/videos", "/v1/images/generations"])
async def test_a_full_queue_is_429_and_stores_nothing(stacks, path: str) -> None:
    bus = CountingBus(SystemClock())
    for queue in (CLIPS, STILLS):
        await bus.publish(Task(f"another-{queue.pool}", StageName.DENOISE, pool=queue.pool))
    async with stacks(bus=bus, max_queued=1) as stack:
        answer = await stack.client.post(path, json={"prompt": "a cat"})

        assert answer.status_code == 429
        assert answer.headers["retry-after"] == "2"
        assert "x-should-retry" not in answer.headers
        error = answer.json()["error"]
        assert (error["type"], error["code"], error["param"]) == ("rate_limit_error", "rate_limit_exceeded", None)
        assert await stack.bucket.entries("") == []
        assert await bus.jobs() == {"another-clips", "another-stills"}


async def test_a_bad_request_is_told_so_even_if_the_queue_is_full(stacks) -> None:
    async with stacks(max_queued=1) as stack:
        assert (await stack.client.post("/v1/videos", json=PROMPT)).status_code == 200
        assert (await stack.client.post("/v1/videos", json={**PROMPT, "num_frames": -1})).status_code == 400
        assert (await stack.client.post("/v1/videos", json=PROMPT)).status_code == 429
