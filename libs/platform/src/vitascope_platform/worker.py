"""The worker: every delivery settled exactly once, as the table in DESIGN section 7 says.

One place decides what a failure means. The boundary that catches everything is here and nowhere else.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Collection, Sequence
from contextlib import AsyncExitStack
from typing import Any

from vitascope_core.errors import (
    BrokerUnavailable,
    Final,
    Outage,
    Retryable,
    Stopped,
    VitascopeError,
    WorkerCrashed,
)
from vitascope_core.handling import ChunkHandler, Resume, UploadHandler, Work
from vitascope_core.job import (
    SCHEMA_VERSION,
    ChunkRecord,
    EndState,
    JobEnd,
    JobSpec,
    Media,
    SourceRecord,
    SourceState,
    kind_of,
    new_token,
)
from vitascope_core.plan import StageName
from vitascope_core.ports import Delivery
from vitascope_core.task import Queue, Task
from vitascope_platform.attempts import kept_chunks, next_attempt
from vitascope_platform.control import StopReason
from vitascope_platform.faults import FaultPoint
from vitascope_platform.lease import Lease
from vitascope_platform.patience import Patience
from vitascope_platform.platform import Platform
from vitascope_platform.runs import Runs
from vitascope_platform.settings import WorkerSettings
from vitascope_platform.slots import Room
from vitascope_platform.source_claim import SourceClaim
from vitascope_platform.telemetry import BACKLOG_PAUSES, JOBS_ENDED, STAGE_TASKS, task_span

log = logging.getLogger(__name__)

MAX_UNEXPECTED = 3
"""Unexpected errors in a row after which the process is not trusted any more."""

REST_S = 5.0
"""How long a place of the worker stays empty after an outage made it hand a task back, seconds."""

TAKEOVER_BEATS = 3
"""Heartbeats that a running source is given to show that it lives, before another worker claims it."""


_TRANSFORMS_AND_UPLOAD = (StageName.INTERPOLATE, StageName.UPSCALE, StageName.UPLOAD)
_BEHIND = {
    StageName.DENOISE: _TRANSFORMS_AND_UPLOAD,
    StageName.INGEST: _TRANSFORMS_AND_UPLOAD,
    StageName.INTERPOLATE: _TRANSFORMS_AND_UPLOAD[1:],
    StageName.UPSCALE: _TRANSFORMS_AND_UPLOAD[2:],
}
"""The stages that may follow each stage."""


class _Superseded(Exception):
    """The task's work is done, or belongs to someone else."""


class Worker:
    """Takes the tasks of one queue and settles each of them.

    Args:
        queue: Where the tasks wait.
        handler: What computes; a `ChunkHandler` for sources and transforms, an `UploadHandler` for the upload.
        platform: Bus, records, stores and time.
        settings: See `WorkerSettings`.
    """

    def __init__(
        self, queue: Queue, handler: ChunkHandler | UploadHandler, platform: Platform, settings: WorkerSettings
    ) -> None:
        self._queue = queue
        self._handler = handler
        self._platform = platform
        self._settings = settings
        self._patience = platform.patience or Patience(platform.clock, settings.outage_s)
        self._runs = Runs(platform, self._patience, settings)
        self._room = Room()
        self._leases: set[Lease] = set()
        self._unexpected = 0
        self._fatal: asyncio.Future[None] | None = None

    async def run(self, stop: asyncio.Event) -> None:
        """Work until ``stop`` is set, then finish what fits the grace period and hand back the rest.

        Raises:
            Stalled: A task gave no sign of life; the process must end.
            VitascopeError: Too many unexpected errors in a row; the process must end.
        """
        self._fatal = asyncio.get_running_loop().create_future()
        stopping = asyncio.ensure_future(stop.wait())
        running: dict[asyncio.Task[None], Delivery] = {}
        # One fetch goes on while tasks end beside it: what a broker hands to a fetch in the moment in which that is
        # withdrawn may be lost for an ack wait, so none is withdrawn before the end.
        fetching: asyncio.Future[Sequence[Delivery]] | None = None
        try:
            while not stop.is_set() and not self._fatal.done():
                if fetching is None and self._takes_more(running.values()):
                    fetching = asyncio.ensure_future(self._fetch())
                waits: list[asyncio.Future[Any]] = [stopping, self._fatal, *running]
                await asyncio.wait([*waits, fetching] if fetching else waits, return_when=asyncio.FIRST_COMPLETED)
                running = {task: delivery for task, delivery in running.items() if not task.done()}
                if fetching is not None and (fetching.done() or stop.is_set() or self._fatal.done()):
                    running |= {asyncio.create_task(self.settle(d)): d for d in await _taken(fetching)}
                    fetching = None
            await self._drain(set(running))
        finally:
            ended = [future for future in (stopping, fetching) if future is not None and future.cancel()]
            await asyncio.gather(*ended, return_exceptions=True)
        if self._fatal.done():
            self._fatal.result()

    def _takes_more(self, held: Collection[Delivery]) -> bool:
        """Whether another task may be taken.

        None is while one is held that was handed out before: that may be what kills processes, and whatever is held
        when it does comes back with one more delivery counted, innocent or not.
        """
        return len(held) < self._settings.concurrency and all(delivery.count == 1 for delivery in held)

    async def _fetch(self) -> Sequence[Delivery]:
        try:
            await self._wait_for_room()
            # One, because the next may be one beside which nothing is to be held.
            return await self._platform.bus.fetch(self._queue, 1, timeout_s=5.0)
        except Outage as error:
            log.warning("the bus is away", extra={"queue": str(self._queue), "error": str(error)})
            await self._platform.clock.sleep(1.0)
            return []

    async def _wait_for_room(self) -> None:
        """Take nothing while a stage behind is full, but not for ever: it may wait for what only we can make."""
        clock = self._platform.clock
        until = clock.monotonic() + self._settings.backlog_pause_s
        while await self._is_full_behind() and clock.monotonic() < until:
            BACKLOG_PAUSES.labels(self._queue.stage).inc()
            await clock.sleep(self._settings.check_s)

    async def _is_full_behind(self) -> bool:
        for stage in _BEHIND.get(self._queue.stage, ()):
            depth = await self._platform.bus.depth(Queue(stage))
            if depth.waiting >= self._settings.max_backlog:
                return True
        return False

    async def _drain(self, running: set[asyncio.Task[None]]) -> None:
        for lease in tuple(self._leases):
            lease.control.drain()
        if running and self._fatal is not None and not self._fatal.done():
            await asyncio.wait(running, timeout=self._settings.grace_s)
        self._patience.give_up()
        for lease in tuple(self._leases):
            lease.control.stop(StopReason.SHUTDOWN)
        if running and self._fatal is not None:
            # After a fatal error nobody is waited for: a thread that hangs never comes back.
            waits: list[asyncio.Future[Any]] = [asyncio.gather(*running, return_exceptions=True), self._fatal]
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)

    async def settle(self, delivery: Delivery) -> None:
        """Work on one delivery and end it: acknowledged, retried, handed back, or the job ended."""
        with task_span(delivery):
            await self._settle(delivery)

    async def _settle(self, delivery: Delivery) -> None:
        task = delivery.task
        try:
            if task.schema_version > SCHEMA_VERSION:
                # Written by a newer version: a worker of that version takes it. Held for a moment, or the two would
                # toss it to each other as fast as they can.
                await self._platform.clock.sleep(self._settings.check_s)
                return await delivery.requeue()
            spec = await self._patience(lambda: self._platform.jobs.spec(task.job_id))
            end = await self._patience(lambda: self._platform.jobs.end(task.job_id))
            if spec is None or end is not None:
                _count(task, "discarded")
                await self._runs.clear(task.job_id)
                return await delivery.ack()
            if task.stage.is_source:
                await self._settle_source(delivery, spec)
            else:
                await self._settle_other(delivery, spec)
        except Outage as error:
            # Nothing was begun, or nothing more can be said: the message comes back by itself.
            log.warning("delivery left to the bus", extra={**task.log_fields, "error": str(error)})
        except Exception as error:
            log.exception("settling raised", extra=task.log_fields)
            self._count_unexpected(error)

    async def _settle_source(self, delivery: Delivery, spec: JobSpec) -> None:
        try:
            claimed = await self._claim(delivery, spec)
        except _Superseded:
            _count(delivery.task, "discarded")
            return await delivery.ack()
        if claimed is None:
            return None
        claim, resume = claimed
        await self._work(delivery, spec, claim, resume, alone=claim.record.crashes > 0)
        return None

    async def _claim(self, delivery: Delivery, spec: JobSpec) -> tuple[SourceClaim, Resume | None] | None:
        """Claim the next attempt, and find where it may go on; None when the delivery was settled otherwise.

        Raises:
            _Superseded: The source stage is done.
        """
        jobs, clock, task = self._platform.jobs, self._platform.clock, delivery.task
        found = await self._patience(lambda: jobs.source(spec.id))
        before = found.record if found else None
        if before is not None and before.state is SourceState.DECODED:
            raise _Superseded
        if before is not None and before.state is SourceState.RUNNING:
            # If its owner lives, the record moves on meanwhile, and the compare-and-set below refuses us.
            await clock.sleep(TAKEOVER_BEATS * self._settings.check_s)
        now_ms = clock.now_ns() // 1_000_000
        chunks = await self._source_chunks(task, before) if before is not None else []
        record = next_attempt(before, len(chunks), new_token(), now_ms)
        if record.crashes >= self._settings.max_crashes:
            await self._fail(delivery, _crashed(record))
            return None
        claim = await self._runs.take(spec, record, found.revision if found else None)
        if claim is None:
            await delivery.nak(self._settings.ack_wait_s)
            return None
        if before is None:
            return claim, None
        # What else the dead attempt stored is nobody's input any more.
        await self._runs.clear_attempt(spec.id, before.attempt)
        checkpoint = before.checkpoint
        return claim, None if checkpoint is None else Resume(checkpoint, kept_chunks(before, chunks))

    async def _settle_other(self, delivery: Delivery, spec: JobSpec) -> None:
        task = delivery.task
        found = await self._patience(lambda: self._platform.jobs.source(task.job_id))
        if found is None or task.attempt < found.record.attempt:
            _count(task, "discarded")
            return await delivery.ack()
        if delivery.count > self._settings.max_deliveries:
            why = f"the {task.stage} stage failed {self._settings.max_deliveries} times"
            return await self._fail(delivery, WorkerCrashed(why))
        await self._work(delivery, spec, None, None, alone=delivery.count > 1, media=found.record.media)
        return None

    async def _work(
        self,
        delivery: Delivery,
        spec: JobSpec,
        claim: SourceClaim | None,
        resume: Resume | None,
        *,
        alone: bool,
        media: Media | None = None,
    ) -> None:
        """Run the task under its lease and settle the delivery by what became of it."""
        task = delivery.task
        attempt = claim.record.attempt if claim else task.attempt
        lease = Lease(self._platform, self._settings, delivery, attempt, claim, self._die)
        self._leases.add(lease)
        try:
            async with lease.held() as control:
                try:
                    work = Work(task, spec, attempt, new_token(), control, claim, resume, media)
                    await self._run(work, lease, claim, alone=alone)
                except (Retryable, Final):
                    # An input that is gone, or a process that died, may only mean that the job has ended.
                    await self._patience(lease.check)
                    if control.stopped:
                        raise Stopped(control.reason) from None
                    raise
        except Stopped:
            await self._stopped(delivery, lease, claim, attempt)
        except Outage as error:
            log.warning("outage outlasted patience", extra={**task.log_fields, "error": str(error)})
            _count(task, "handed_back")
            await self._hand_back(delivery, claim)
            # What is not the broker or the store, such as a full disk, is this worker's alone: others go first.
            await self._patience.rest(REST_S)
        except Retryable as error:
            await self._retry(delivery, claim, error)
        except Final as error:
            await self._fail(delivery, error)
        except Exception as error:
            log.exception("task raised", extra=task.log_fields)
            await self._retry(delivery, claim, error)
            self._count_unexpected(error)
        else:
            self._unexpected = 0
            _count(task, "done")
            self._platform.faults.reach(FaultPoint.BEFORE_ACK)
            await self._acknowledge(delivery)
        finally:
            self._leases.discard(lease)

    async def _run(self, work: Work, lease: Lease, claim: SourceClaim | None, *, alone: bool) -> None:
        handler: Any = self._handler
        async with AsyncExitStack() as stack:
            with lease.control.waiting():
                # What was handed out before may be what kills processes: it takes no other job with it.
                await stack.enter_async_context(self._room.alone() if alone else self._room.shared())
            if work.task.stage is StageName.UPLOAD:
                await self._runs.upload(handler, work, lease.control)
            elif claim is not None:
                await self._runs.source(handler, work, lease, lease.control, claim)
            else:
                await self._runs.chunks(handler, work, lease, lease.control)

    async def _stopped(self, delivery: Delivery, lease: Lease, claim: SourceClaim | None, attempt: int) -> None:
        reason, task = lease.control.reason, delivery.task
        _count(task, "handed_back" if reason is StopReason.SHUTDOWN else "stopped")
        log.info("task stopped", extra={**task.log_fields, "reason": str(reason)})
        if reason is StopReason.STALLED:
            return  # The process ends; silence hands the task to another worker.
        if reason is StopReason.SHUTDOWN:
            await self._hand_back(delivery, claim)
        elif reason is StopReason.SUPERSEDED:
            await self._runs.clear_attempt(task.job_id, attempt)
            await self._acknowledge(delivery)
        else:
            await self._runs.clear(task.job_id)
            await self._acknowledge(delivery)

    async def _acknowledge(self, delivery: Delivery) -> None:
        """Acknowledge what is settled.

        Raises:
            Outage: There was no answer for an ack wait. The broker has handed the task out again by then, or has lost
                it with its volume and will never answer, so nothing is gained by holding it longer.
        """
        await self._patience(delivery.ack, min(self._settings.ack_wait_s, self._settings.outage_s))

    async def _hand_back(self, delivery: Delivery, claim: SourceClaim | None) -> None:
        """Give the task to another worker, uncounted. If the broker is away, silence does so for what is no source."""
        try:
            if claim is not None:
                # However long that takes: what nobody wrote down would count as a crash.
                await self._patience(claim.handed_back, math.inf)
                await delivery.nak()
            else:
                await delivery.requeue()
        except BrokerUnavailable as error:
            log.warning("not handed back", extra={**delivery.task.log_fields, "error": str(error)})

    async def _retry(self, delivery: Delivery, claim: SourceClaim | None, error: Exception) -> None:
        log.warning("task will be retried", extra={**delivery.task.log_fields, "error": str(error)})
        if claim is None:
            _count(delivery.task, "retried")
            return await delivery.nak(2.0**delivery.count)
        await self._patience(lambda: claim.failed(_text(error)))
        following = await self._following(delivery.task, claim.record)
        if following.crashes >= self._settings.max_crashes:
            return await self._fail(delivery, _crashed(following))
        _count(delivery.task, "retried")
        return await delivery.nak(2.0**following.crashes)

    async def _following(self, task: Task, before: SourceRecord) -> SourceRecord:
        """Return the claim that would follow the attempt ``before``."""
        chunks = await self._source_chunks(task, before)
        return next_attempt(before, len(chunks), new_token(), self._platform.clock.now_ns() // 1_000_000)

    async def _source_chunks(self, task: Task, before: SourceRecord) -> list[ChunkRecord]:
        return await self._patience(lambda: self._platform.jobs.chunks(task.job_id, before.attempt, task.stage))

    async def _fail(self, delivery: Delivery, error: VitascopeError) -> None:
        task, clock = delivery.task, self._platform.clock
        log.warning("job failed", extra={**task.log_fields, "code": error.code, "error": str(error)})
        _count(task, "failed")
        end = JobEnd(EndState.FAILED, new_token(), clock.now_ns() // 1_000_000, error.code, str(error))
        standing = await self._patience(lambda: self._platform.jobs.create_end(task.job_id, end))
        if standing.token == end.token:
            JOBS_ENDED.labels(kind_of(task.job_id), end.state).inc()
        await self._patience(lambda: self._platform.bus.purge(task.job_id))
        await self._runs.clear(task.job_id)
        await self._acknowledge(delivery)

    def _count_unexpected(self, error: Exception) -> None:
        self._unexpected += 1
        if self._unexpected >= MAX_UNEXPECTED:
            self._die(error)

    def _die(self, error: Exception) -> None:
        if self._fatal is not None and not self._fatal.done():
            self._fatal.set_exception(error)


async def _taken(fetching: asyncio.Future[Sequence[Delivery]]) -> Sequence[Delivery]:
    """Return what a fetch brought, or nothing if it was still waiting; a fetch that is cancelled takes nothing."""
    if not fetching.done():
        fetching.cancel()
    try:
        return await fetching
    except asyncio.CancelledError:
        return []


def _count(task: Task, outcome: str) -> None:
    STAGE_TASKS.labels(task.stage, outcome).inc()


def _crashed(record: SourceRecord) -> WorkerCrashed:
    why = f": {record.error}" if record.error else ""
    return WorkerCrashed(f"the source stage crashed {record.crashes} times in a row{why}")


def _text(error: Exception) -> str:
    name = getattr(error, "code", type(error).__name__)
    return f"{name}: {error}"[:500]
