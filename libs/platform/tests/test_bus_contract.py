"""What every bus does, in whichever adapter."""

from __future__ import annotations

import asyncio

from passing import Passing

from vitascope_core.plan import StageName
from vitascope_core.ports import Bus, Depth
from vitascope_core.task import Queue, Task
from vitascope_platform.bus_memory import MemoryBus
from vitascope_platform.clock import ManualClock, settle

UPLOAD = Queue(StageName.UPLOAD)


def upload(job: str, attempt: int = 1) -> Task:
    return Task(job, StageName.UPLOAD, attempt=attempt)


def upscale(job: str, index: int) -> Task:
    return Task(job, StageName.UPSCALE, attempt=1, index=index)


async def test_tasks_are_handed_out_in_order_once(bus: Bus) -> None:
    for number in range(3):
        await bus.publish(upload(f"video_{number}"))

    first = await bus.fetch(UPLOAD, 2, timeout_s=0)
    second = await bus.fetch(UPLOAD, 2, timeout_s=0)

    assert [d.task.job_id for d in first + second] == ["video_0", "video_1", "video_2"]
    assert await bus.fetch(UPLOAD, 2, timeout_s=0) == []


async def test_a_queue_sees_only_its_own_tasks(bus: Bus) -> None:
    await bus.publish(Task("video_1", StageName.DENOISE, pool="wan"))

    assert await bus.fetch(Queue(StageName.DENOISE, "flux"), 1, timeout_s=0) == []
    assert len(await bus.fetch(Queue(StageName.DENOISE, "wan"), 1, timeout_s=0)) == 1


async def test_a_second_message_of_one_name_is_dropped_within_the_window(bus: Bus, passing: Passing) -> None:
    await bus.publish(upload("video_1"))
    (delivery,) = await bus.fetch(UPLOAD, 1, timeout_s=0)
    await delivery.ack()

    await bus.publish(upload("video_1"))
    inside = await bus.count("video_1")
    await passing(1.5 * passing.window_s)
    await bus.publish(upload("video_1"))

    assert (inside, await bus.count("video_1")) == (0, 1)


async def test_another_name_makes_another_message(bus: Bus) -> None:
    await bus.publish(upload("video_1"))
    await bus.publish(upload("video_1"), message_id="again")

    assert await bus.count("video_1") == 2


async def test_silence_hands_a_task_out_again_with_a_higher_count(bus: Bus, passing: Passing) -> None:
    await bus.publish(upload("video_1"))
    (first,) = await bus.fetch(UPLOAD, 1, timeout_s=0)
    await passing(1.1 * passing.ack_wait_s)
    (second,) = await bus.fetch(UPLOAD, 1, timeout_s=passing.patience_s)

    assert (first.count, second.count) == (1, 2)


async def test_in_progress_starts_the_ack_wait_anew(bus: Bus, passing: Passing) -> None:
    await bus.publish(upload("video_1"))
    (delivery,) = await bus.fetch(UPLOAD, 1, timeout_s=0)
    await passing(0.7 * passing.ack_wait_s)
    await delivery.in_progress()
    await passing(0.7 * passing.ack_wait_s)

    assert await bus.fetch(UPLOAD, 1, timeout_s=0) == []


async def test_nak_hands_a_task_out_after_its_delay(bus: Bus, passing: Passing) -> None:
    await bus.publish(upload("video_1"))
    (delivery,) = await bus.fetch(UPLOAD, 1, timeout_s=0)
    await delivery.nak(0.8 * passing.ack_wait_s)
    await passing(0.5 * passing.ack_wait_s)
    early = await bus.fetch(UPLOAD, 1, timeout_s=0)
    await passing(0.4 * passing.ack_wait_s)
    (again,) = await bus.fetch(UPLOAD, 1, timeout_s=passing.patience_s)

    assert (early, again.count) == ([], 2)


async def test_calls_on_a_delivery_whose_time_is_over_do_not_disturb_the_next(bus: Bus, passing: Passing) -> None:
    await bus.publish(upload("video_1"))
    (old,) = await bus.fetch(UPLOAD, 1, timeout_s=0)
    await passing(1.1 * passing.ack_wait_s)
    (_,) = await bus.fetch(UPLOAD, 1, timeout_s=passing.patience_s)
    await old.in_progress()
    await old.nak()

    assert await bus.fetch(UPLOAD, 1, timeout_s=0) == []


async def test_a_waiting_fetch_returns_when_a_task_arrives(bus: Bus) -> None:
    waiting = asyncio.create_task(bus.fetch(UPLOAD, 1, timeout_s=100))
    await settle()
    assert not waiting.done()
    await bus.publish(upload("video_1"))

    assert [d.task.job_id for d in await waiting] == ["video_1"]


async def test_a_waiting_fetch_wakes_for_a_delayed_task(bus: Bus, passing: Passing) -> None:
    await bus.publish(upload("video_1"))
    (delivery,) = await bus.fetch(UPLOAD, 1, timeout_s=0)
    await delivery.nak(0.4 * passing.ack_wait_s)
    waiting = asyncio.create_task(bus.fetch(UPLOAD, 1, timeout_s=100))
    await passing(0.4 * passing.ack_wait_s)

    assert len(await waiting) == 1


async def test_a_fetch_returns_empty_after_its_time_out(bus: Bus, passing: Passing) -> None:
    waiting = asyncio.create_task(bus.fetch(UPLOAD, 1, timeout_s=0.5 * passing.ack_wait_s))
    await passing(0.5 * passing.ack_wait_s)

    assert await waiting == []


async def test_headers_come_with_the_task(bus: Bus) -> None:
    await bus.publish(upload("video_1"), headers={"traceparent": "00-1-2-01"})
    (delivery,) = await bus.fetch(UPLOAD, 1, timeout_s=0)

    assert dict(delivery.headers) == {"traceparent": "00-1-2-01"}


async def test_requeue_gives_a_task_back_uncounted_and_last(bus: Bus) -> None:
    await bus.publish(upload("video_1"), headers={"a": "1"})
    await bus.publish(upload("video_2"))
    (first,) = await bus.fetch(UPLOAD, 1, timeout_s=0)
    await first.requeue()
    again = await bus.fetch(UPLOAD, 3, timeout_s=0)

    assert [(d.task.job_id, d.count, dict(d.headers)) for d in again] == [
        ("video_2", 1, {}),
        ("video_1", 1, {"a": "1"}),
    ]


async def test_purge_removes_all_of_a_job_and_nothing_else(bus: Bus) -> None:
    await bus.publish(upload("video_1"))
    await bus.publish(Task("video_1", StageName.DENOISE, pool="wan"))
    await bus.publish(upload("video_2"))
    await bus.fetch(UPLOAD, 1, timeout_s=0)

    assert await bus.purge("video_1") == 2
    assert (await bus.count("video_1"), await bus.count("video_2")) == (0, 1)


async def test_the_jobs_that_have_a_message_are_told(bus: Bus) -> None:
    await bus.publish(upload("video_1"))
    await bus.publish(Task("video_2", StageName.DENOISE, pool="wan"))
    await bus.publish(upload("video_3"))
    (delivery,) = await bus.fetch(UPLOAD, 1, timeout_s=0)
    held = await bus.jobs()
    await delivery.ack()

    assert (held, await bus.jobs()) == ({"video_1", "video_2", "video_3"}, {"video_2", "video_3"})


async def test_depth_tells_waiting_from_held(bus: Bus) -> None:
    for number in range(3):
        await bus.publish(upload(f"video_{number}"))
    (held,) = await bus.fetch(UPLOAD, 1, timeout_s=0)
    before = await bus.depth(UPLOAD)
    await held.ack()

    assert (before, await bus.depth(UPLOAD)) == (Depth(2, 1), Depth(2, 0))


async def test_depth_counts_a_task_whose_time_is_over(bus: Bus, passing: Passing) -> None:
    await bus.publish(upload("video_1"))
    await bus.fetch(UPLOAD, 1, timeout_s=0)
    await passing(1.1 * passing.ack_wait_s)
    depth = await bus.depth(UPLOAD)

    assert depth.waiting + depth.in_flight == 1


async def test_in_one_process_a_task_whose_time_is_over_counts_as_waiting(clock: ManualClock) -> None:
    bus = MemoryBus(clock, ack_wait_s=30)
    await bus.publish(upload("video_1"))
    await bus.fetch(UPLOAD, 1, timeout_s=0)
    await clock.advance(31)

    assert await bus.depth(UPLOAD) == Depth(1, 0)


async def test_publish_waits_while_a_transform_has_two_waiting_tasks(clock: ManualClock) -> None:
    bus = MemoryBus(clock, max_waiting=2)
    await bus.publish(upscale("video_1", 0))
    await bus.publish(upscale("video_1", 1))
    third = asyncio.create_task(bus.publish(upscale("video_1", 2)))
    await settle()
    blocked = not third.done()
    await bus.fetch(Queue(StageName.UPSCALE), 1, timeout_s=0)
    await third

    assert blocked


async def test_a_repeated_publish_does_not_wait_for_room(clock: ManualClock) -> None:
    bus = MemoryBus(clock, max_waiting=1)
    await bus.publish(upscale("video_1", 0))

    await bus.publish(upscale("video_1", 0))

    assert await bus.count("video_1") == 1
