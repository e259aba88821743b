"""A worker's claim on a source stage: every change is a compare-and-set that only the owner wins."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

from vitascope_core.errors import Conflict
from vitascope_core.job import CheckpointRecord, Media, SourceRecord, SourceState
from vitascope_platform.attempts import stepped
from vitascope_platform.faults import FaultPoint, Faults
from vitascope_platform.jobs import JobStore
from vitascope_platform.telemetry import CHECKPOINTS, RESUME_SECONDS, RESUMES


class SourceClaim:
    """A source record that this worker owns, at the revision it last wrote.

    Writes of the heartbeat and of the run itself are put in a row, so that they do not refuse each other.
    """

    def __init__(self, jobs: JobStore, job_id: str, record: SourceRecord, revision: int, faults: Faults) -> None:
        self._jobs = jobs
        self._job_id = job_id
        self._revision = revision
        self._faults = faults
        self._turn = asyncio.Lock()
        self.record = record

    async def beat(self, step: int, steps: int) -> bool:
        """Show that the owner lives and how far it is; return whether the claim still stands."""
        return await self._swap(lambda record: stepped(record, step, steps))

    async def point(self, checkpoint: CheckpointRecord) -> bool:
        """See `vitascope_core.handling.SourceLog.point`."""
        self._faults.reach(FaultPoint.BEFORE_CHECKPOINT)
        stands = await self._swap(lambda r: replace(r, checkpoint=checkpoint, step=max(r.step, checkpoint.step)))
        CHECKPOINTS.inc(stands)
        self._faults.reach(FaultPoint.AFTER_CHECKPOINT)
        return stands

    async def resumed(self, checkpoint: CheckpointRecord) -> bool:
        """See `vitascope_core.handling.SourceLog.resumed`."""
        RESUMES.inc()
        RESUME_SECONDS.inc(checkpoint.seconds)
        return await self._swap(
            lambda r: replace(
                r,
                resumed_step=checkpoint.step,
                step=max(r.step, checkpoint.step),
                saved_seconds=r.saved_seconds + checkpoint.seconds,
            )
        )

    async def opened(self, media: Media) -> bool:
        """See `vitascope_core.handling.SourceLog.opened`."""
        return await self._swap(lambda r: replace(r, media=media))

    async def shown(self, previews: int) -> bool:
        """See `vitascope_core.handling.SourceLog.shown`."""
        return await self._swap(lambda r: replace(r, previews=max(r.previews, previews)))

    async def decoded(self, chunks: tuple[int, ...], seconds: float) -> bool:
        """Write that every chunk is recorded; return whether the claim still stood."""
        return await self._swap(
            lambda r: replace(r, state=SourceState.DECODED, chunks=chunks, seconds=seconds, step=r.steps)
        )

    async def failed(self, error: str) -> bool:
        """Write that the attempt raised, so that the next one need not wait to see it dead."""
        return await self._swap(lambda r: replace(r, state=SourceState.FAILED, error=error))

    async def handed_back(self) -> bool:
        """Write that the attempt was given up through no fault of the job."""
        return await self._swap(lambda r: replace(r, state=SourceState.HANDED_BACK))

    async def _swap(self, change: Callable[[SourceRecord], SourceRecord]) -> bool:
        async with self._turn:
            while self.record.state is SourceState.RUNNING:
                record = change(self.record)
                try:
                    self._revision = await self._jobs.swap_source(self._job_id, record, self._revision)
                except Conflict:
                    # An earlier write of ours may have landed although its answer was lost.
                    found = await self._jobs.source(self._job_id)
                    if found is None or found.record.owner != self.record.owner:
                        return False
                    self._revision = found.revision
                else:
                    self.record = record
                    return True
            return True
