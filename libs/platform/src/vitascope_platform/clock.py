"""Clocks: the system's, and one that a test moves."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from typing import Any

from vitascope_core.ports import Clock


class SystemClock:
    """The machine's time."""

    def monotonic(self) -> float:
        """See `vitascope_core.ports.Clock.monotonic`."""
        return time.monotonic()

    def now_ns(self) -> int:
        """See `vitascope_core.ports.Clock.now_ns`."""
        return time.time_ns()

    async def sleep(self, seconds: float) -> None:
        """See `vitascope_core.ports.Clock.sleep`."""
        await asyncio.sleep(seconds)


class ManualClock:
    """A clock that stands still until `advance` moves it; for tests of time-outs that never wait."""

    def __init__(self, start_s: float = 1_000_000.0) -> None:
        self._now = start_s
        self._order = itertools.count()
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []

    def monotonic(self) -> float:
        """See `vitascope_core.ports.Clock.monotonic`."""
        return self._now

    def now_ns(self) -> int:
        """See `vitascope_core.ports.Clock.now_ns`."""
        return int(self._now * 1e9)

    async def sleep(self, seconds: float) -> None:
        """Return once `advance` has passed ``seconds``; at once for zero or less, after other tasks had a turn."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        future = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._now + seconds, next(self._order), future))
        await future

    @property
    def sleeping(self) -> int:
        """How many sleeps are under way."""
        return sum(not future.done() for _, _, future in self._sleepers)

    async def advance(self, seconds: float) -> None:
        """Move the time, waking sleepers in order and giving each time to act before the next wakes."""
        end = self._now + seconds
        await settle()
        while self._sleepers and self._sleepers[0][0] <= end:
            due, _, future = heapq.heappop(self._sleepers)
            if future.done():
                continue
            self._now = max(self._now, due)
            future.set_result(None)
            await settle()
        self._now = end
        await settle()


async def settle(rounds: int = 50) -> None:
    """Let every task that is ready run on until it waits for something."""
    for _ in range(rounds):
        await asyncio.sleep(0)


async def sleep_or(event: asyncio.Event, clock: Clock, seconds: float | None) -> None:
    """Return when ``event`` is set, or after ``seconds`` of ``clock``; with None only the event ends it."""
    waits: list[asyncio.Future[Any]] = [asyncio.ensure_future(event.wait())]
    if seconds is not None:
        waits.append(asyncio.ensure_future(clock.sleep(seconds)))
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)
