"""How the three kinds of task are worked on: a source, a transform's chunk, an upload.

A run does what DESIGN section 7 calls "each output" and "finish"; what a failure means is decided in `worker`.
"""

from __future__ import annotations

import logging
from collections import Counter
from contextlib import aclosing
from dataclasses import dataclass

from vitascope_core import keys
from vitascope_core.errors import Conflict, Stopped
from vitascope_core.handling import ChunkHandler, UploadHandler, Work
from vitascope_core.job import ChunkRecord, EndState, FileRecord, JobEnd, JobSpec, SourceRecord, Usage
from vitascope_core.task import Queue, successor
from vitascope_platform.control import StopReason, TaskControl
from vitascope_platform.faults import FaultPoint
from vitascope_platform.lease import Lease
from vitascope_platform.parts import ordered_parts
from vitascope_platform.patience import Patience
from vitascope_platform.platform import Platform
from vitascope_platform.removal import discard_losers
from vitascope_platform.settings import WorkerSettings
from vitascope_platform.source_claim import SourceClaim
from vitascope_platform.telemetry import BACKLOG_PAUSES, CHUNK_BYTES, CHUNKS, JOBS_ENDED, headers_of, trace_headers

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Runs:
    """The runs of one worker."""

    platform: Platform
    patience: Patience
    settings: WorkerSettings

    async def chunks(self, handler: ChunkHandler, work: Work, lease: Lease, control: TaskControl) -> Counter[int]:
        """Record and announce every chunk that the handler stores; return how many there were of each output.

        Raises:
            Stopped: The work is not wanted any more; the chunk that was under way is deleted.
        """
        counts: Counter[int] = Counter()
        async with aclosing(handler.chunks(work)) as made:  # type: ignore[type-var]
            async for record in made:
                self.platform.faults.reach(FaultPoint.BEFORE_RECORD)
                # Between the look and the record the job may still end: what then stays is deleted with the job.
                await self.patience(lease.check)
                if control.stopped:
                    await self.platform.frames.delete(record.key)
                    raise Stopped(control.reason)
                await self._announce(work.spec, record, control)
                counts[record.output] += 1
                self.platform.faults.reach(FaultPoint.AFTER_FIRST_CHUNK)
        return counts

    async def _announce(self, spec: JobSpec, record: ChunkRecord, control: TaskControl) -> None:
        await self.patience(lambda: self.platform.jobs.put_chunk(spec.id, record))
        CHUNKS.labels(record.stage).inc()
        CHUNK_BYTES.labels(record.stage).inc(record.size)
        self.platform.faults.reach(FaultPoint.BEFORE_PUBLISH)
        following = successor(spec, record)
        if following is None:
            return
        headers = trace_headers() or headers_of(spec.traceparent)
        await self.patience(lambda: self.platform.bus.publish(following, headers=headers))
        if following.stage.is_transform:
            with control.waiting():
                await self._wait_for_room(following.queue, control)

    async def _wait_for_room(self, queue: Queue, control: TaskControl) -> None:
        """Make no more while the next stage is full: the store would fill with what nobody can take yet."""
        depth = await self.patience(lambda: self.platform.bus.depth(queue))
        if depth.waiting >= self.settings.max_backlog:
            BACKLOG_PAUSES.labels(queue.stage).inc()
        while depth.waiting >= self.settings.max_backlog and not control.stopped:
            await self.platform.clock.sleep(self.settings.check_s)
            depth = await self.patience(lambda: self.platform.bus.depth(queue))

    async def source(
        self, handler: ChunkHandler, work: Work, lease: Lease, control: TaskControl, claim: SourceClaim
    ) -> None:
        """Run the source stage to the record ``decoded``.

        Raises:
            Stopped: The claim was lost to a newer attempt, or the work was told to stop.
        """
        started = self.platform.clock.monotonic()
        counts = await self.chunks(handler, work, lease, control)
        per_output = tuple(counts[output] for output in range(work.spec.outputs))
        seconds = self.platform.clock.monotonic() - started
        if not await self.patience(lambda: claim.decoded(per_output, seconds)):
            control.stop(StopReason.SUPERSEDED)
            raise Stopped(control.reason)

    async def upload(self, handler: UploadHandler, work: Work, control: TaskControl) -> None:
        """Write the files, end the job, remove what it kept while it ran."""
        jobs, spec = self.platform.jobs, work.spec
        started = self.platform.clock.monotonic()
        parts = ordered_parts(jobs, spec.id, work.attempt, spec.plan.last, spec.outputs, control, self.platform.clock)
        async with aclosing(parts):
            files = await handler.upload(work, parts)
        if control.stopped:
            await handler.discard(spec.id, work.token)
            raise Stopped(control.reason)
        found = await self.patience(lambda: jobs.source(spec.id))
        records = await self.patience(lambda: jobs.chunks(spec.id, work.attempt))
        end = self._completed(work, files, records, found.record if found else None, started)
        # Before the end: whoever sees a completed job finds the manifest that can bring it back.
        await handler.finish(work, end)
        self.platform.faults.reach(FaultPoint.BEFORE_END)
        standing = await self.patience(lambda: jobs.create_end(spec.id, end))
        if standing.token == work.token:
            JOBS_ENDED.labels(spec.kind, end.state).inc()
        else:
            log.info("another end stands", extra={**work.task.log_fields, "state": str(standing.state)})
            await handler.discard(spec.id, work.token)
        self.platform.faults.reach(FaultPoint.BEFORE_CLEANUP)
        await self.clear(spec.id)

    def _completed(
        self,
        work: Work,
        files: list[FileRecord],
        records: list[ChunkRecord],
        source: SourceRecord | None,
        started: float,
    ) -> JobEnd:
        clock, spec = self.platform.clock, work.spec
        seconds: dict[str, float] = {}
        for record in records:
            seconds[record.stage] = seconds.get(record.stage, 0.0) + record.seconds
        seconds["upload"] = clock.monotonic() - started
        usage = Usage(
            seconds={stage: round(value, 3) for stage, value in seconds.items()},
            queue_seconds=round(max(0, source.started_ms - spec.created_ms) / 1000, 3) if source else 0.0,
            attempts=work.attempt,
            frames=sum(file.frames for file in files if file.variant == spec.kind),
            bytes=sum(file.size for file in files),
            repeated_steps=max(0, source.computed_steps - source.resumed_step) if source else 0,
            saved_seconds=round(source.saved_seconds, 3) if source else 0.0,
        )
        return JobEnd(EndState.COMPLETED, work.token, clock.now_ns() // 1_000_000, files=tuple(files), usage=usage)

    async def clear(self, job_id: str) -> None:
        """Remove what an ended job leaves behind.

        That is its intermediate objects, its progress records, and files of uploads that died before they could end it.
        """
        await self.platform.frames.delete_prefix(keys.job_prefix(job_id))
        end = await self.patience(lambda: self.platform.jobs.end(job_id))
        await discard_losers(self.platform, job_id, end)
        await self.patience(lambda: self.platform.jobs.purge_progress(job_id))

    async def clear_attempt(self, job_id: str, attempt: int) -> None:
        """Remove the objects of a superseded attempt but those that the newest one may still go on from."""
        found = await self.patience(lambda: self.platform.jobs.source(job_id))
        kept = set()
        if found is not None and found.record.checkpoint is not None:
            kept.add(found.record.checkpoint.key)
            if 0 < found.record.steps <= found.record.checkpoint.step:
                records = await self.patience(lambda: self.platform.jobs.chunks(job_id, attempt))
                kept |= {record.key for record in records if record.stage.is_source}
        for info in await self.platform.frames.list(keys.attempt_prefix(job_id, attempt)):
            if info.key not in kept:
                await self.platform.frames.delete(info.key)

    async def take(self, spec: JobSpec, record: SourceRecord, revision: int | None) -> SourceClaim | None:
        """Write a claim; return it, or None if another worker was faster."""
        jobs = self.platform.jobs
        try:
            written = await self.patience(lambda: jobs.swap_source(spec.id, record, revision))
        except Conflict:
            return None
        return SourceClaim(jobs, spec.id, record, written, self.platform.faults)
