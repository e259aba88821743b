"""The job records as the broker has them: followed all the time, and written to by cancels and by one of the faults."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Self, TypeVar

from tools.nemesis.history import History
from vitascope_core.errors import Outage
from vitascope_core.job import EndState, JobEnd, JobSpec, new_token
from vitascope_core.task import Task, source_task, successor
from vitascope_platform.bus_nats import NatsBus
from vitascope_platform.jobs import JobChange, JobStore
from vitascope_platform.kv_nats import NatsKeyValue
from vitascope_platform.nats_connection import NatsSettings, nats_connected

T = TypeVar("T")

RETRY_S = 0.3


@dataclass(slots=True)
class Kept:
    """The records that there are of one job; ``progress`` counts those of its source and its chunks."""

    spec: JobSpec | None = None
    end: JobEnd | None = None
    progress: int = 0


class Records:
    """All jobs: which there are, and how they ended."""

    def __init__(self, jobs: JobStore, bus: NatsBus, history: History) -> None:
        self._jobs = jobs
        self._bus = bus
        self._history = history
        self.specs: dict[str, JobSpec] = {}
        self._ends: dict[str, str] = {}

    @classmethod
    @asynccontextmanager
    async def connected(cls, url: str, history: History) -> AsyncIterator[Self]:
        """Connect to the broker."""
        async with nats_connected(NatsSettings(url=url), "nemesis") as connection:
            yield cls(JobStore(NatsKeyValue(connection, "jobs")), NatsBus(connection, ack_wait_s=0), history)

    async def follow(self) -> None:
        """Write down every spec and every end that is not the one seen before, for ever."""
        while True:
            try:
                async with self._jobs.watch() as changes:
                    async for change in changes:
                        if change is not None:
                            self._take(change)
            except Outage:
                await asyncio.sleep(RETRY_S)

    @property
    def running(self) -> list[str]:
        """The jobs that have no end, oldest first."""
        return sorted(self.specs.keys() - self._ends.keys())

    async def all(self) -> dict[str, Kept]:
        """Return what is kept of every job."""
        found: dict[str, Kept] = {}
        for change in await _patiently(self._jobs.all):
            kept = found.setdefault(change.job_id, Kept())
            if isinstance(change.record, JobSpec):
                kept.spec = change.record
            elif isinstance(change.record, JobEnd):
                kept.end = change.record
            elif change.record is not None:
                kept.progress += 1
        return found

    async def queued(self) -> set[str]:
        """Return the jobs that have messages."""
        return await _patiently(self._bus.jobs)

    async def cancel(self, job: str) -> JobEnd:
        """Cancel a job as a gateway does; return the end that stands."""
        end = JobEnd(
            EndState.CANCELLED, new_token(), time.time_ns() // 1_000_000, "cancelled", "The job was cancelled."
        )
        standing = await _patiently(lambda: self._jobs.create_end(job, end))
        await _patiently(lambda: self._bus.purge(job))
        return standing

    async def publish_again(self, job: str) -> int:
        """Publish all tasks of a job that it can have had so far under other names; return how many."""
        spec = self.specs[job]
        records = await _patiently(lambda: self._jobs.chunks(job))
        tasks = [source_task(spec), *(task for record in records if (task := successor(spec, record)) is not None)]
        for task in tasks:
            await self._publish(task)
        return len(tasks)

    async def _publish(self, task: Task) -> None:
        name = f"again/{new_token()}"
        await _patiently(lambda: self._bus.publish(task, message_id=name))

    def _take(self, change: JobChange) -> None:
        job, record = change.job_id, change.record
        if isinstance(record, JobSpec):
            if job not in self.specs:
                self.specs[job] = record
                self._history.add("spec", job=job, prompt=record.denoise.prompt)
        elif isinstance(record, JobEnd) and self._ends.get(job) != record.token:
            self._ends[job] = record.token
            self._history.add("end", job=job, state=str(record.state), code=record.code, token=record.token)


async def _patiently(call: Callable[[], Awaitable[T]]) -> T:
    while True:
        try:
            return await call()
        except Outage:
            await asyncio.sleep(RETRY_S)
