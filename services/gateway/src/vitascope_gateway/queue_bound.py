"""The bound of the queues: the edge refuses what would wait too long, so that no stage behind it ever has to."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from vitascope_core.errors import Outage
from vitascope_core.ports import Bus, Clock
from vitascope_core.task import Queue
from vitascope_gateway.errors import QueueFull
from vitascope_platform.telemetry import JOBS_REFUSED

log = logging.getLogger(__name__)

LOOK_EVERY_S = 1.0
"""How old the known length of a queue may be: a flood then costs one question a second."""

LOOK_S = 1.0
"""How long a look may take; the request waits for it."""


@dataclass(slots=True)
class _Line:
    """One queue as last seen, and what went in from here since."""

    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    looked: float | None = None
    length: int = 0
    entering: int = 0


class QueueBound:
    """Lets a job in while its pool's queue is shorter than ``limit``.

    The length is the queue's own: source tasks that wait or are in flight, whoever sent them. Between two looks each
    gateway counts what it lets in itself, so of several gateways each may let in what the others fill in a second.

    Args:
        bus: Where the tasks wait.
        clock: When the next look is due.
        limit: Source tasks of one pool.
    """

    def __init__(self, bus: Bus, clock: Clock, limit: int) -> None:
        self._bus = bus
        self._clock = clock
        self._limit = limit
        self._lines: dict[Queue, _Line] = {}

    @asynccontextmanager
    async def entered(self, queue: Queue) -> AsyncIterator[None]:
        """Hold a place for the task that is published inside the block.

        Raises:
            QueueFull: There is none.
        """
        line = self._lines.setdefault(queue, _Line())
        async with line.turn:
            if line.looked is None or self._clock.monotonic() - line.looked >= LOOK_EVERY_S:
                await self._look(queue, line)
            if line.length >= self._limit:
                JOBS_REFUSED.labels(queue.pool).inc()
                raise QueueFull(line.length)
            line.length += 1
        line.entering += 1
        try:
            yield
        finally:
            line.entering -= 1

    async def _look(self, queue: Queue, line: _Line) -> None:
        line.looked = self._clock.monotonic()
        try:
            async with asyncio.timeout(LOOK_S):
                depth = await self._bus.depth(queue)
        except (Outage, TimeoutError) as error:
            # Whether the job can be accepted is then for its records to say.
            log.warning("queue not looked at", extra={"queue": str(queue), "error": str(error)})
        else:
            # Those on their way may be in the queue already: counted twice for a second rather than not at all.
            line.length = depth.waiting + depth.in_flight + line.entering
