"""The worker: every delivery settled exactly once, as the table in DESIGN section 7 says.

One place decides what a failure means. The boundary that catches everything is here and nowhere else.
"""

from __future__ import annotations

import asyncio
import logging
import math
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
    EndState,
    JobEnd,
    JobSpec,
    Media,
    kind_of,
    new_token,
)
from vitascope_core.plan import StageName
from vitascope_core.ports import Delivery
from vitascope_core.task import Queue, Task
from vitascope_platform.claiming import Claims, Superseded
from vitascope_platform.control import StopReason
from vitascope_platform.faults import FaultPoint
from vitascope_platform.intake import Intake
from vitascope_platform.lease import Lease
from vitascope_platform.patience import Patience
from vitascope_platform.platform import Platform
from vitascope_platform.runs import Runs
from vitascope_platform.settings import WorkerSettings
from vitascope_platform.slots import Room
from vitascope_platform.source_claim import SourceClaim
from vitascope_platform.telemetry import JOBS_ENDED, STAGE_TASKS, task_span

log = logging.getLogger(__name__)

MAX_UNEXPECTED = 3
"""Unexpected errors in a row after which the process is not trusted any more."""

REST_S = 5.0
"""How long a place of the worker stays empty after an outage made it hand a task back, seconds."""


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
        self._handler = handler
        self._platform = platform
        self._settings = settings
        self._patience = platform.patience or Patience(platform.clock, settings.outage_s)
        self._intake = Intake(queue, platform, settings)
        self._runs = Runs(platform, self._patience, settings)
        self._claims = Claims(platform, self._patience, settings, self._runs)
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
        try:
            while not stop.is_set() and not self._fatal.done():
                fetching = self._intake.waiting(running.values())
                waits: list[asyncio.Future[Any]] = [stopping, self._fatal, *running, *([fetching] if fetching else [])]
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
                running = {task: delivery for task, delivery in running.items() if not task.done()}
                taken = await self._intake.taken(last=stop.is_set() or self._fatal.done())
                running |= {asyncio.create_task(self.settle(delivery)): delivery for delivery in taken}
            await self._drain(set(running))
        finally:
            stopping.cancel()
            await self._intake.close()
        if self._fatal.done():
            self._fatal.result()

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
        task = delivery.task
        try:
            claimed = await self._claims.next(task, spec)
        except Superseded:
            _count(task, "discarded")
            return await delivery.ack()
        except WorkerCrashed as error:
            return await self._fail(delivery, error)
        if claimed is None:
            return await delivery.nak(self._settings.ack_wait_s)
        claim, resume = claimed
        await self._work(delivery, spec, claim, resume, alone=claim.record.crashes > 0)
        return None

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
        try:
            crashes = await self._claims.crashes_after(delivery.task, claim.record)
        except WorkerCrashed as too_many:
            return await self._fail(delivery, too_many)
        _count(delivery.task, "retried")
        return await delivery.nak(2.0**crashes)

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


def _count(task: Task, outcome: str) -> None:
    STAGE_TASKS.labels(task.stage, outcome).inc()


def _text(error: Exception) -> str:
    name = getattr(error, "code", type(error).__name__)
    return f"{name}: {error}"[:500]
