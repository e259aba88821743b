"""What a worker takes on: one task at a time, and none while a stage behind is full."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Sequence

from vitascope_core.errors import Outage
from vitascope_core.plan import StageName
from vitascope_core.ports import Delivery
from vitascope_core.task import Queue
from vitascope_platform.platform import Platform
from vitascope_platform.settings import WorkerSettings
from vitascope_platform.telemetry import BACKLOG_PAUSES

log = logging.getLogger(__name__)

_TRANSFORMS_AND_UPLOAD = (StageName.INTERPOLATE, StageName.UPSCALE, StageName.UPLOAD)
_BEHIND = {
    StageName.DENOISE: _TRANSFORMS_AND_UPLOAD,
    StageName.INGEST: _TRANSFORMS_AND_UPLOAD,
    StageName.INTERPOLATE: _TRANSFORMS_AND_UPLOAD[1:],
    StageName.UPSCALE: _TRANSFORMS_AND_UPLOAD[2:],
}
"""The stages that may follow each stage."""


class Intake:
    """Fetches the tasks of one queue.

    One fetch goes on while tasks end beside it: what a broker hands to a fetch in the moment in which that is withdrawn
    may be lost for an ack wait, so none is withdrawn before the end.
    """

    def __init__(self, queue: Queue, platform: Platform, settings: WorkerSettings) -> None:
        self._queue = queue
        self._platform = platform
        self._settings = settings
        self._fetching: asyncio.Future[Sequence[Delivery]] | None = None

    def waiting(self, held: Collection[Delivery]) -> asyncio.Future[Sequence[Delivery]] | None:
        """Return the fetch that goes on, begun now if ``held`` lets another task in; None if there is none."""
        if self._fetching is None and self._takes_more(held):
            self._fetching = asyncio.ensure_future(self._fetch())
        return self._fetching

    async def taken(self, *, last: bool) -> Sequence[Delivery]:
        """Return what the fetch has brought.

        Args:
            last: End the fetch if it still waits; one that is cancelled takes nothing.
        """
        fetching = self._fetching
        if fetching is None or not (fetching.done() or last):
            return []
        self._fetching = None
        if not fetching.done():
            fetching.cancel()
        try:
            return await fetching
        except asyncio.CancelledError:
            return []

    async def close(self) -> None:
        """End the fetch, if there is one, after a failure: what it would have brought comes back by itself."""
        if self._fetching is not None:
            self._fetching.cancel()
            await asyncio.gather(self._fetching, return_exceptions=True)

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
