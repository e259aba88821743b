"""Accepting, cancelling and deleting jobs: the only writes that a gateway makes (DESIGN section 8)."""

from __future__ import annotations

import logging

from vitascope_core import keys
from vitascope_core.errors import Outage
from vitascope_core.job import EndState, JobEnd, JobSpec, new_token
from vitascope_core.ports import Bus, Clock, ObjectStore
from vitascope_core.task import source_task
from vitascope_gateway.board import Board
from vitascope_gateway.ledger import created_ms_of
from vitascope_platform.jobs import JobStore
from vitascope_platform.patience import Patience

log = logging.getLogger(__name__)

PATIENCE_S = 1.0
"""How long a client waits through an outage before it is told; a short one then costs no error and no second job."""


class Submission:
    """Takes jobs in and ends them on a client's word. Safe to run in any number of gateways at once."""

    def __init__(
        self,
        *,
        board: Board,
        jobs: JobStore,
        bus: Bus,
        frames: ObjectStore,
        results: ObjectStore,
        clock: Clock,
        result_prefix: str = "",
    ) -> None:
        self._board = board
        self._jobs = jobs
        self._bus = bus
        self._frames = frames
        self._results = results
        self._clock = clock
        self._result_prefix = result_prefix
        self._patience = Patience(clock, PATIENCE_S, pause_s=0.1)

    async def submit(self, spec: JobSpec) -> None:
        """Accept a job: it is one once its spec is stored.

        Raises:
            BrokerUnavailable: The spec could not be stored. It may be there all the same; the job then runs unseen.
        """
        # Both calls recognise their own first copy, so they may be repeated when the outcome is unknown.
        await self._patience(lambda: self._jobs.create_spec(spec))
        try:
            await self._patience(lambda: self._bus.publish(source_task(spec)))
        except Outage as error:
            # The reaper publishes the task of a job that has none; an error now would make the client send it again.
            log.warning("job accepted but not yet queued", extra={"job_id": spec.id, "error": str(error)})

    async def cancel(self, job_id: str) -> JobEnd:
        """End a job unless it has ended, and return the end that stands.

        Raises:
            BrokerUnavailable: The outcome is unknown; it may be repeated.
        """
        standing = await self._end(job_id)
        await self._bus.purge(job_id)
        return standing

    async def delete(self, job_id: str) -> None:
        """End a job, forget it and remove all that it stored; its end alone stays, until the reaper takes it.

        Raises:
            Outage: Something is left. Once the spec is gone `sweep` does the rest.
        """
        await self._end(job_id)
        await self._jobs.purge_spec(job_id)
        self._board.forget(job_id)
        await self._clear(job_id)

    async def sweep(self, job_id: str) -> bool:
        """Finish a deletion that an outage interrupted; return whether there was anything left to remove."""
        if created_ms_of(job_id) is None:
            return False
        if await self._jobs.spec(job_id) is not None or await self._jobs.end(job_id) is None:
            return False
        return await self._clear(job_id) > 0

    async def _end(self, job_id: str) -> JobEnd:
        now_ms = self._clock.now_ns() // 1_000_000
        end = JobEnd(EndState.CANCELLED, new_token(), now_ms, code="cancelled", message="The job was cancelled.")
        return await self._jobs.create_end(job_id, end)

    async def _clear(self, job_id: str) -> int:
        # Tasks before objects: a worker that finds no task does not write what was just removed.
        removed = await self._bus.purge(job_id)
        removed += await self._frames.delete_prefix(keys.job_prefix(job_id))
        removed += await self._results.delete_prefix(keys.result_prefix(self._result_prefix, job_id))
        await self._jobs.purge_progress(job_id)
        return removed
