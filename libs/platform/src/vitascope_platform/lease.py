"""What keeps a delivery alive while its task is worked on, and notices when the work is no longer wanted."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from vitascope_core.errors import Outage, Stalled
from vitascope_core.ports import Delivery
from vitascope_platform.control import StopReason, TaskControl
from vitascope_platform.platform import Platform
from vitascope_platform.settings import WorkerSettings
from vitascope_platform.source_claim import SourceClaim

log = logging.getLogger(__name__)


class Lease:
    """The heartbeat of one delivery.

    Three rhythms in one loop that compute cannot block: ``heartbeat_s`` extends the delivery, ``check_s`` reads whether
    the job ended or was superseded (a source also says that it lives), and silence beyond ``stall_timeout_s`` ends both
    with a call of ``on_stall``.
    """

    def __init__(
        self,
        platform: Platform,
        settings: WorkerSettings,
        delivery: Delivery,
        attempt: int,
        claim: SourceClaim | None,
        on_stall: Callable[[Stalled], None],
    ) -> None:
        self._platform = platform
        self._settings = settings
        self._delivery = delivery
        self._attempt = attempt
        self._claim = claim
        self._on_stall = on_stall
        self.control = TaskControl(platform.clock)

    @asynccontextmanager
    async def held(self) -> AsyncIterator[TaskControl]:
        """Keep the delivery alive inside the block."""
        tasks = [asyncio.create_task(self._beat()), asyncio.create_task(self._follow_end())]
        try:
            yield self.control
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def check(self) -> None:
        """Look whether the work is still wanted, and stop it if it is not.

        Raises:
            Outage: The records cannot be read.
        """
        job_id = self._delivery.task.job_id
        if await self._platform.jobs.end(job_id) is not None:
            return self.control.stop(StopReason.ENDED)
        if self._claim is not None:
            if not await self._claim.beat(self.control.step, self.control.steps):
                self.control.stop(StopReason.SUPERSEDED)
            return None
        found = await self._platform.jobs.source(job_id)
        if found is None:
            self.control.stop(StopReason.ENDED)
        elif found.record.attempt > self._attempt:
            self.control.stop(StopReason.SUPERSEDED)
        return None

    async def _follow_end(self) -> None:
        """Stop the work the moment its job ends; should the watch fail, the next `check` finds the end."""
        try:
            async with self._platform.jobs.watch_end(self._delivery.task.job_id) as ends:
                async for _ in ends:
                    return self.control.stop(StopReason.ENDED)
        except Outage as error:
            log.warning("end not followed", extra={**self._delivery.task.log_fields, "error": str(error)})

    async def _beat(self) -> None:
        clock, settings = self._platform.clock, self._settings
        extended = clock.monotonic()
        while True:
            await clock.sleep(min(settings.check_s, settings.heartbeat_s))
            if self.control.silence_s > settings.stall_timeout_s:
                task = self._delivery.task
                log.error("task stalled", extra=task.log_fields)
                self.control.stop(StopReason.STALLED)
                # Told from here: the thread that hangs will not come back to say it.
                why = f"a {task.stage} task gave no sign of life for {settings.stall_timeout_s:g} s"
                return self._on_stall(Stalled(why))
            try:
                if clock.monotonic() - extended >= settings.heartbeat_s:
                    await self._delivery.in_progress()
                    extended = clock.monotonic()
                await self.check()
            except Outage as error:
                # Nobody's fault: the work goes on, and the compare-and-set at its end decides.
                log.warning("heartbeat failed", extra={**self._delivery.task.log_fields, "error": str(error)})
