"""The chunk records of a stage in order, while they still arrive."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

from vitascope_core.errors import Outage, Stopped
from vitascope_core.job import ChunkRecord
from vitascope_core.plan import StageName
from vitascope_core.ports import Clock
from vitascope_platform.control import TaskControl
from vitascope_platform.jobs import JobStore

log = logging.getLogger(__name__)

AGAIN_S = 1.0
"""Pause before a watch that was lost is taken up again."""


async def ordered_parts(
    jobs: JobStore, job_id: str, attempt: int, stage: StageName, outputs: int, control: TaskControl, clock: Clock
) -> AsyncGenerator[ChunkRecord, None]:
    """Yield every chunk record of ``stage``, by output and index, each as soon as it and all before it are there.

    Rides out outages for as long as the work is wanted: the lease, not this, decides how long that is.

    Raises:
        Stopped: The control said so while a record was waited for.
    """
    loop, stop = asyncio.get_running_loop(), asyncio.Event()

    def tell() -> None:
        loop.call_soon_threadsafe(stop.set)

    control.on_stop(tell)
    stopping = asyncio.create_task(stop.wait())
    early: dict[tuple[int, int], ChunkRecord] = {}
    try:
        async with aclosing(_arriving(jobs, job_id, attempt, stage, clock)) as arriving:
            for output in range(outputs):
                index, last = 0, False
                while not last:
                    while (output, index) not in early:
                        record = await _next(arriving, stopping, control)
                        # A watch that was taken up again tells everything anew.
                        if (record.output, record.index) >= (output, index):
                            early[record.output, record.index] = record
                    record = early.pop((output, index))
                    index, last = index + 1, record.last
                    yield record
    finally:
        stopping.cancel()
        await asyncio.gather(stopping, return_exceptions=True)


async def _arriving(
    jobs: JobStore, job_id: str, attempt: int, stage: StageName, clock: Clock
) -> AsyncGenerator[ChunkRecord, None]:
    while True:
        try:
            async with jobs.watch_chunks(job_id, attempt, stage) as records:
                async for record in records:
                    yield record
        except Outage as error:
            log.warning("chunk records not followed", extra={"job_id": job_id, "error": str(error)})
        await clock.sleep(AGAIN_S)


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
