"""A bench for one worker: real bus, records and stores on a clock that the test moves, and a scripted stage."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace

from vitascope_core import keys
from vitascope_core.errors import Conflict
from vitascope_core.handling import Work
from vitascope_core.job import ChunkRecord, FileRecord, JobEnd, JobSpec, SourceRecord
from vitascope_core.plan import StageName
from vitascope_core.ports import Delivery
from vitascope_core.task import Queue, Task, source_task
from vitascope_platform.bus_memory import MemoryBus
from vitascope_platform.cards import Cards
from vitascope_platform.clock import ManualClock, settle
from vitascope_platform.jobs import JobStore
from vitascope_platform.kv_memory import MemoryKeyValue
from vitascope_platform.platform import Platform
from vitascope_platform.settings import WorkerSettings
from vitascope_platform.store_memory import MemoryStore
from vitascope_platform.worker import Worker

Step = Callable[[Work], Awaitable[None]]


async def nothing(work: Work) -> None:
    """Do nothing."""


@dataclass
class ScriptedStage:
    """Stores the chunks of its task, or the files of an upload; ``before`` and ``between`` are the test's."""

    store: MemoryStore
    results: MemoryStore
    before: Step = nothing
    between: Step = nothing
    runs: list[Work] = field(default_factory=list)
    discarded: list[str] = field(default_factory=list)

    async def chunks(self, work: Work) -> AsyncIterator[ChunkRecord]:
        self.runs.append(work)
        await self.before(work)
        task, cuts = work.task, work.spec.cuts
        indices = range(len(cuts)) if task.stage.is_source else [task.index]
        for index in indices:
            key = keys.chunk_key(task.job_id, work.attempt, task.stage, 0, index)
            await self.store.put(key, b"frames")
            start = sum(cuts[:index])
            yield ChunkRecord(
                work.attempt, task.stage, 0, index, key, start, cuts[index], index == len(cuts) - 1, size=6, seconds=1.0
            )
            await self.between(work)

    async def upload(self, work: Work, parts: AsyncIterator[ChunkRecord]) -> list[FileRecord]:
        self.runs.append(work)
        await self.before(work)
        order = [part.index async for part in parts]
        key = f"{work.spec.id}/{work.token}/0.mp4"
        await self.results.put(key, str(order).encode())
        await self.between(work)
        return [FileRecord(0, "video", key, "video/mp4", 3, 64, 64, 9)]

    async def finish(self, work: Work, end: JobEnd) -> None:
        await self.results.put(f"{work.spec.id}/{work.token}/manifest.json", end.token.encode())

    async def discard(self, job_id: str, token: str) -> None:
        self.discarded.append(token)
        await self.results.delete_prefix(f"{job_id}/{token}/")


class StageBench:
    """One worker of ``stage`` and everything around it."""

    def __init__(self, stage: StageName, spec: JobSpec, clock: ManualClock, **settings: float) -> None:
        self.stage, self.spec, self.clock = stage, spec, clock
        self.frames, self.results = MemoryStore(), MemoryStore()
        self.bus = MemoryBus(clock)
        self.jobs = JobStore(MemoryKeyValue())
        self.platform = Platform(self.bus, self.jobs, Cards(MemoryKeyValue()), self.frames, self.results, clock)
        self.handler = ScriptedStage(self.frames, self.results)
        pool = spec.pool if stage is StageName.DENOISE else "any"
        self.queue = Queue(stage, pool)
        self.worker = Worker(self.queue, self.handler, self.platform, WorkerSettings(**settings))

    @property
    def task(self) -> Task:
        if self.stage.is_source:
            return source_task(self.spec)
        return Task(self.spec.id, self.stage, attempt=1)

    async def accepted(self, source: SourceRecord | None = None) -> None:
        """Store the spec, the source record if given, and the task."""
        await self.jobs.create_spec(self.spec)
        if source is not None:
            await self.jobs.swap_source(self.spec.id, source, None)
        await self.bus.publish(self.task)

    async def delivery(self, count: int = 1) -> Delivery:
        """Take the task for the ``count``-th time."""
        for _ in range(count - 1):
            (delivery,) = await self.bus.fetch(self.queue, 1, timeout_s=0)
            await delivery.nak()
        (delivery,) = await self.bus.fetch(self.queue, 1, timeout_s=0)
        return delivery

    async def settle(self, count: int = 1) -> None:
        """Take the task and let the worker settle it, moving the clock until it has."""
        await self.until(asyncio.create_task(self.worker.settle(await self.delivery(count))))

    async def until(self, task: asyncio.Task[None], step_s: float = 0.5) -> None:
        """Move the clock until ``task`` is done."""
        for _ in range(4000):
            await settle()
            if task.done():
                return await task
            await self.clock.advance(step_s)
        raise TimeoutError("the worker did not settle")

    async def put_source_chunks(self, attempt: int = 1, count: int | None = None) -> None:
        """Record source chunks as the source would have."""
        cuts = self.spec.cuts
        for index in range(len(cuts) if count is None else count):
            stage, last = self.spec.plan.source, index == len(cuts) - 1
            key = keys.chunk_key(self.spec.id, attempt, stage, 0, index)
            await self.frames.put(key, b"frames")
            record = ChunkRecord(attempt, stage, 0, index, key, sum(cuts[:index]), cuts[index], last)
            await self.jobs.put_chunk(self.spec.id, record)

    async def end(self) -> JobEnd | None:
        return await self.jobs.end(self.spec.id)

    async def source(self) -> SourceRecord | None:
        found = await self.jobs.source(self.spec.id)
        return found.record if found else None

    async def beat(self) -> bool:
        """Move the source record on, as its owner would."""
        found = await self.jobs.source(self.spec.id)
        assert found is not None
        try:
            await self.jobs.swap_source(self.spec.id, replace(found.record, beat=found.record.beat + 1), found.revision)
        except Conflict:
            return False
        return True

    async def waiting(self, stage: StageName) -> list[Task]:
        """Take every task that can be had of a stage now."""
        pool = self.spec.pool if stage is StageName.DENOISE else "any"
        return [d.task for d in await self.bus.fetch(Queue(stage, pool), 100, timeout_s=0)]

    async def left(self) -> list[str]:
        """Return the intermediate objects of the job."""
        return [info.key for info in await self.frames.list(keys.job_prefix(self.spec.id))]
