"""Accepting, cancelling and deleting jobs: the only writes that a gateway makes (DESIGN section 8)."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

from vitascope_core.errors import Outage
from vitascope_core.job import JobEnd, JobSpec
from vitascope_core.task import source_task
from vitascope_gateway.board import Board
from vitascope_gateway.ledger import created_ms_of
from vitascope_gateway.queue_bound import QueueBound
from vitascope_gateway.settings import MAX_QUEUED
from vitascope_platform.patience import Patience
from vitascope_platform.platform import Platform
from vitascope_platform.removal import cancel_job, clear_job, forget_job
from vitascope_platform.telemetry import headers_of, trace_headers

log = logging.getLogger(__name__)

PATIENCE_S = 1.0
"""How long a client waits through an outage before it is told; a short one then costs no error and no second job."""


class Submission:
    """Takes jobs in and ends them on a client's word. Safe to run in any number of gateways at once.

    Args:
        board: Where a deleted job is forgotten.
        platform: What is written to.
        max_queued: Jobs of one pool that may wait or be denoised.
    """

    def __init__(self, *, board: Board, platform: Platform, max_queued: int = MAX_QUEUED) -> None:
        self._board = board
        self._platform = platform
        self._patience = Patience(platform.clock, PATIENCE_S, pause_s=0.1)
        self._bound = QueueBound(platform.bus, platform.clock, max_queued)

    async def submit(self, spec: JobSpec, file: Path | None = None) -> None:
        """Accept a job: it is one once its spec is stored.

        Args:
            spec: The job.
            file: What ``spec.ingest`` names; it is stored first, and may be moved away.

        Raises:
            QueueFull: As many jobs of its pool wait as may; nothing is stored.
            StoreUnavailable: The file could not be stored.
            BrokerUnavailable: The spec could not be stored. It may be there all the same; the job then runs unseen.
        """
        async with self._bound.entered(source_task(spec).queue):
            if file is not None and spec.ingest is not None:
                # Should the job not be accepted after that, nobody knows of it, and the reaper removes the file.
                await self._platform.frames.put_file(spec.ingest.key, file)
            await self._accept(spec)

    async def _accept(self, spec: JobSpec) -> None:
        spec = replace(spec, traceparent=trace_headers().get("traceparent", ""))
        # Both calls recognise their own first copy, so they may be repeated when the outcome is unknown.
        await self._patience(lambda: self._platform.jobs.create_spec(spec))
        headers = headers_of(spec.traceparent)
        try:
            await self._patience(lambda: self._platform.bus.publish(source_task(spec), headers=headers))
        except Outage as error:
            # The reaper publishes the task of a job that has none; an error now would make the client send it again.
            log.warning("job accepted but not yet queued", extra={"job_id": spec.id, "error": str(error)})

    async def cancel(self, job_id: str) -> JobEnd:
        """End a job unless it has ended, and return the end that stands.

        Raises:
            BrokerUnavailable: The outcome is unknown; it may be repeated.
        """
        return await cancel_job(self._platform, job_id)

    async def delete(self, job_id: str) -> None:
        """End a job, forget it and remove all that it stored; its end alone stays, until the reaper takes it.

        Raises:
            Outage: Something is left. Once the spec is gone `sweep` does the rest.
        """
        await forget_job(self._platform, job_id)
        self._board.forget(job_id)
        await clear_job(self._platform, job_id)

    async def sweep(self, job_id: str) -> bool:
        """Finish a deletion that an outage interrupted; return whether there was anything left to remove."""
        if created_ms_of(job_id) is None:
            return False
        jobs = self._platform.jobs
        if await jobs.spec(job_id) is not None or await jobs.end(job_id) is None:
            return False
        return await clear_job(self._platform, job_id) > 0
