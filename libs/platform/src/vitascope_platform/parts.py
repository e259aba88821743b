"""The chunk records of a stage in order, while they still arrive."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from vitascope_core.errors import Stopped
from vitascope_core.job import ChunkRecord
from vitascope_core.plan import StageName
from vitascope_platform.control import TaskControl
from vitascope_platform.jobs import JobStore


async def ordered_parts(
    jobs: JobStore, job_id: str, attempt: int, stage: StageName, outputs: int, control: TaskControl
) -> AsyncIterator[ChunkRecord]:
    """Yield every chunk record of ``stage``, by output and index, each as soon as it and all before it are there.

    Raises:
        Stopped: The control said so while a record was waited for.
        BrokerUnavailable: The records cannot be followed.
    """
    loop, stop = asyncio.get_running_loop(), asyncio.Event()

    def tell() -> None:
        loop.call_soon_threadsafe(stop.set)

    control.on_stop(tell)
    stopping = asyncio.create_task(stop.wait())
    early: dict[tuple[int, int], ChunkRecord] = {}
    try:
        async with jobs.watch_chunks(job_id, attempt, stage) as arriving:
            for output in range(outputs):
                index, last = 0, False
                while not last:
                    while (output, index) not in early:
                        record = await _next(arriving, stopping, control)
                        early[record.output, record.index] = record
                    record = early.pop((output, index))
                    index, last = index + 1, record.last
                    yield record
    finally:
        stopping.cancel()
        await asyncio.gather(stopping, return_exceptions=True)


async def _next(
    arriving: AsyncIterator[ChunkRecord], stopping: asyncio.Task[object], control: TaskControl
) -> ChunkRecord:
    following = asyncio.ensure_future(anext(arriving))
    try:
        with control.waiting():
            await asyncio.wait({following, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if control.stopped:
            raise Stopped(control.reason)
        return following.result()
    finally:
        if not following.done():
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
